//! Batches in the order that suits the device.

use burn::tensor::Tensor;
use rayon::prelude::*;

use crate::{cpu, ops::is_flex};

fn one_by_one<const D: usize>(input: &Tensor<D>) -> bool {
    let device = input.device();
    is_flex(&device) && !device.is_autodiff()
}

/// Those images of a batch that [`image_by_image`] runs at once: what to trace when layers are to
/// be chosen for it.
///
/// # Panics
/// If there is no image.
pub fn at_once<const D: usize>(input: Tensor<D>) -> Tensor<D> {
    if one_by_one(&input) {
        input.narrow(0, 0, 1)
    } else {
        input
    }
}

/// What `forward(input)` gives, for a network that treats every image alike and records no
/// gradients.
///
/// On Flex, every thread takes images of its own: the feature maps of one image stay in the caches
/// from layer to layer, where those of a batch would go through memory, and no thread waits for
/// another at the end of a layer. Images left over, fewer than threads, share the threads. On every
/// other device, and while gradients are recorded, it is `forward(input)`.
///
/// # Shapes
/// - `input` `[batch, ..]`, of at least one image
/// - output `[batch, ..]`
///
/// # Example
/// ```
/// use burn::tensor::{Device, Distribution, Tensor};
/// use burn_sparse::nn::{Conv2dConfig, image_by_image};
///
/// let device = Device::flex();
/// let conv = Conv2dConfig::new([2, 3], [3, 3]).init(&device);
/// let x = Tensor::<4>::random([5, 2, 8, 8], Distribution::Default, &device);
/// let y = image_by_image(x.clone(), |x| conv.forward(x));
/// assert!((y - conv.forward(x)).abs().max().into_scalar::<f32>() < 1e-6);
/// ```
pub fn image_by_image<const I: usize, const O: usize>(
    input: Tensor<I>,
    forward: impl Fn(Tensor<I>) -> Tensor<O> + Sync,
) -> Tensor<O> {
    let images = input.dims()[0];
    if !one_by_one(&input) {
        return forward(input);
    }
    cpu::on_pool(|| {
        if images <= 1 {
            return forward(input);
        }
        let image = |image: usize| forward(input.clone().narrow(0, image, 1));
        let even = images - images % cpu::threads();
        let mut outputs = Vec::with_capacity(images);
        (0..even)
            .into_par_iter()
            .map(|index| cpu::alone(|| image(index)))
            .collect_into_vec(&mut outputs);
        outputs.par_extend((even..images).into_par_iter().map(image));
        Tensor::cat(outputs, 0)
    })
}
