//! Flex tensors in recycled, aligned memory, at strides that suit the kernels.

use core::marker::PhantomData;
use core::mem::MaybeUninit;

use burn::tensor::Element;
use burn_flex::{FlexTensor, Layout};
use burn_std::{AccessError, AccessPolicy, AllocationController, AllocationProperty, Bytes, Shape};

use crate::cpu::{ALIGN, Buffer, Fold, Images, ImagesMut, Storage, padded_plane};

/// A buffer behind Burn's bytes: it goes back to the pool with the last tensor that shares it.
struct Recycled(Buffer);

impl AllocationController for Recycled {
    fn alloc_align(&self) -> usize {
        ALIGN
    }

    fn property(&self) -> AllocationProperty {
        AllocationProperty::Other
    }

    unsafe fn memory_mut(
        &mut self,
        _: AccessPolicy,
    ) -> Result<&mut [MaybeUninit<u8>], AccessError> {
        let bytes: &mut [u8] = bytemuck::cast_slice_mut(&mut self.0);
        // SAFETY: of the same layout, and the caller writes only initialised bytes.
        Ok(unsafe { &mut *(core::ptr::from_mut(bytes) as *mut [MaybeUninit<u8>]) })
    }

    fn memory(&self, _: AccessPolicy) -> Result<&[MaybeUninit<u8>], AccessError> {
        let bytes: &[u8] = bytemuck::cast_slice(&self.0);
        // SAFETY: of the same layout; initialised bytes may be read as possibly uninitialised ones.
        Ok(unsafe { &*(core::ptr::from_ref(bytes) as *const [MaybeUninit<u8>]) })
    }
}

/// Images that will be a tensor.
pub(super) struct Output<T> {
    buffer: Buffer,
    shape: [usize; 4],
    batch_stride: usize,
    channel_stride: usize,
    elements: PhantomData<T>,
}

impl<T: Storage + Element> Output<T> {
    /// With `padded`, planes start on cache lines; otherwise the tensor is contiguous.
    pub(super) fn new(shape: [usize; 4], padded: bool) -> Self {
        let [batch, channels, height, width] = shape;
        let channel_stride = if padded {
            padded_plane([height, width])
        } else {
            height * width
        };
        Self {
            buffer: buffer::<T>(batch * channels * channel_stride),
            shape,
            batch_stride: channels * channel_stride,
            channel_stride,
            elements: PhantomData,
        }
    }

    /// The images of a channel under each other.
    pub(super) fn folded(shape: [usize; 4], fold: Fold) -> Self {
        let [_, channels, height, width] = shape;
        let channel_stride = fold.plane([height, width]);
        Self {
            buffer: buffer::<T>(channels * channel_stride),
            shape,
            batch_stride: fold.period * width,
            channel_stride,
            elements: PhantomData,
        }
    }

    pub(super) fn images(&mut self) -> ImagesMut<'_, T> {
        ImagesMut {
            data: bytemuck::cast_slice_mut(&mut self.buffer),
            batch_stride: self.batch_stride,
            channel_stride: self.channel_stride,
        }
    }

    /// What these images hold, and zeros between them.
    pub(super) fn fill(&mut self, from: &Images<'_, T>) {
        self.images().data.fill(T::zeroed());
        self.put(0, from, self.shape[0]);
    }

    /// Writes the first `count` of these images, from image `at` on.
    pub(super) fn put(&mut self, at: usize, from: &Images<'_, T>, count: usize) {
        let [_, channels, height, width] = self.shape;
        let plane = height * width;
        let ImagesMut {
            data,
            batch_stride,
            channel_stride,
        } = self.images();
        for image in 0..count {
            for channel in 0..channels {
                let to = (at + image) * batch_stride + channel * channel_stride;
                data[to..to + plane].copy_from_slice(&from.plane(image, channel)[..plane]);
            }
        }
    }

    pub(super) fn into_tensor(self) -> FlexTensor {
        let [batch, channels, _, width] = self.shape;
        let strides = [self.batch_stride, self.channel_stride, width, 1];
        let strides = strides.map(|stride| stride as isize).to_vec();
        let layout = Layout::new(Shape::from(self.shape), strides, 0);
        let images = if self.batch_stride < self.channel_stride {
            1
        } else {
            batch
        };
        let len = images * channels * self.channel_stride * size_of::<T>();
        // SAFETY: all of a buffer is initialised.
        let bytes = unsafe { Bytes::from_controller(Box::new(Recycled(self.buffer)), len) };
        FlexTensor::new(bytes, layout, T::dtype())
    }
}

fn buffer<T>(elements: usize) -> Buffer {
    Buffer::new((elements * size_of::<T>()).div_ceil(size_of::<f32>()))
}

/// Rows from one image of a channel to the next, if they lie [under each other](Fold).
pub(super) fn period(tensor: &FlexTensor) -> Option<usize> {
    let layout = tensor.layout();
    let [batch, channels, height, width] = layout.shape().dims();
    let Images {
        batch_stride,
        channel_stride,
        ..
    } = images::<f32>(tensor)?;
    let period = batch_stride / width.max(1);
    let fold = Fold {
        images: batch,
        period,
    };
    let under = batch > 1
        && channels > 1
        && layout.start_offset() == 0
        && period >= height
        && batch_stride.is_multiple_of(width.max(1))
        && channel_stride == fold.plane([height, width]);
    under.then_some(period)
}

/// A tensor that nobody else holds as images that may be written over, if its memory has no more
/// and no less.
pub(super) fn images_mut<T: Storage + Element>(
    tensor: &mut FlexTensor,
) -> Option<ImagesMut<'_, T>> {
    let layout = tensor.layout();
    let shape: [usize; 4] = layout.shape().dims();
    let Images {
        batch_stride,
        channel_stride,
        ..
    } = images::<T>(tensor)?;
    let [batch, channels, height, width] = shape;
    let apart = channel_stride >= height * width
        && (batch <= 1 || batch_stride >= channels * channel_stride);
    if layout.start_offset() != 0 || !apart {
        return None;
    }
    let data = tensor.try_storage_mut::<T>()?;
    Some(ImagesMut {
        data,
        batch_stride,
        channel_stride,
    })
}

/// A tensor as images, if its rows follow each other in memory.
pub(super) fn images<T: Storage + Element>(tensor: &FlexTensor) -> Option<Images<'_, T>> {
    let layout = tensor.layout();
    let (shape, strides) = (layout.shape(), layout.strides());
    let [_, _, height, width] = shape[..] else {
        return None;
    };
    // The stride of an axis of length 1 says nothing.
    let rows = (width <= 1 || strides[3] == 1) && (height <= 1 || strides[2] == width as isize);
    let distance = |axis: usize, otherwise: usize| {
        if shape[axis] <= 1 {
            Some(otherwise)
        } else {
            usize::try_from(strides[axis]).ok()
        }
    };
    let channel_stride = distance(1, height * width)?;
    let batch_stride = distance(0, shape[1] * channel_stride)?;
    rows.then(|| Images {
        data: &tensor.storage::<T>()[layout.start_offset()..],
        batch_stride,
        channel_stride,
    })
}
