//! Batches of images in slices.

/// Images whose rows follow each other, planes and images at any distance.
#[derive(Debug, Clone, Copy)]
pub struct Images<'a, T = f32> {
    /// From the first element of the first image on.
    pub data: &'a [T],
    /// Elements between images.
    pub batch_stride: usize,
    /// Elements between the planes of an image.
    pub channel_stride: usize,
}

/// As [`Images`], to be written. Elements between planes may be overwritten.
#[derive(Debug)]
pub struct ImagesMut<'a, T = f32> {
    /// From the first element of the first image on.
    pub data: &'a mut [T],
    /// Elements between images.
    pub batch_stride: usize,
    /// Elements between the planes of an image, at least their size.
    pub channel_stride: usize,
}

/// What is added to an output before its activation.
#[derive(Debug, Clone, Copy)]
pub enum Residual<'a, T = f32> {
    /// Nothing.
    None,
    /// Images of the output's shape.
    Images(Images<'a, T>),
    /// What the output's memory holds before it is written: one feature map less to go through
    /// memory.
    Output,
}

impl<'a, T> Images<'a, T> {
    /// Planes of `plane` elements, `channels` to an image, one after the other.
    pub fn contiguous(data: &'a [T], [channels, plane]: [usize; 2]) -> Self {
        Self {
            data,
            batch_stride: channels * plane,
            channel_stride: plane,
        }
    }

    /// The images from `image` on.
    pub(crate) fn skip(self, image: usize) -> Self {
        Self {
            data: &self.data[image * self.batch_stride..],
            ..self
        }
    }

    pub(crate) fn plane(&self, image: usize, channel: usize) -> &'a [T] {
        &self.data[image * self.batch_stride + channel * self.channel_stride..]
    }

    /// Whether planes of that size lie within the slice.
    pub(crate) fn holds(&self, [batch, channels, plane]: [usize; 3]) -> bool {
        let skipped = |count: usize, stride: usize| count.saturating_sub(1).checked_mul(stride);
        // Strides may be anything, and sums of them wrap.
        let end = || {
            let images = skipped(batch, self.batch_stride)?;
            images
                .checked_add(skipped(channels, self.channel_stride)?)?
                .checked_add(plane)
        };
        batch * channels * plane == 0 || end().is_some_and(|end| end <= self.data.len())
    }

    /// Panics unless planes of that size lie within the slice.
    pub(crate) fn check(&self, what: &str, shape: [usize; 3]) {
        assert!(
            self.holds(shape),
            "{what}: {} elements are too few for images of [batch, channels, pixels] {shape:?} at \
             strides {} and {}",
            self.data.len(),
            self.batch_stride,
            self.channel_stride
        );
    }
}

impl<'a, T> ImagesMut<'a, T> {
    /// Planes of `plane` elements, `channels` to an image, one after the other.
    pub fn contiguous(data: &'a mut [T], [channels, plane]: [usize; 2]) -> Self {
        Self {
            data,
            batch_stride: channels * plane,
            channel_stride: plane,
        }
    }
}
