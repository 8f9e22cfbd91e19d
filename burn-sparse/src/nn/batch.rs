//! Batches in the order that suits the device.

use core::ops::Range;

use burn::tensor::Tensor;
use rayon::prelude::*;

use crate::{
    cpu,
    ops::{is_flex, join},
};

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
    cpu::on_pool(|| each(0..images, 1, |images| forward(part(&input, images))))
}

/// What `late(early(input))` gives, for a network whose last layers have small images and large weights.
///
/// On Flex, without gradients, `early` has one image of a thread at a time, as under [`image_by_image`], and
/// `late` `together` of them, or as many as a thread has: their weights are read once for all, and
/// packed convolutions whose planes are too small for a vector put the planes of several images into it.
/// Everywhere else it is `late(early(input))`.
///
/// # Shapes
/// - `input` `[batch, ..]`, of at least one image
/// - output `[batch, ..]`
///
/// # Example
/// ```
/// use burn::tensor::{Device, Distribution, Tensor};
/// use burn_sparse::nn::{Conv2dConfig, early_and_late};
///
/// let device = Device::flex();
/// let first = Conv2dConfig::new([2, 3], [3, 3]).init(&device);
/// let second = Conv2dConfig::new([3, 8], [3, 3]).init(&device);
/// let x = Tensor::<4>::random([9, 2, 7, 7], Distribution::Default, &device);
/// let y = early_and_late(x.clone(), 4, |x| first.forward(x), |x| second.forward(x));
/// assert!((y - second.forward(first.forward(x))).abs().max().into_scalar::<f32>() < 1e-5);
/// ```
pub fn early_and_late<const I: usize, const M: usize, const O: usize>(
    input: Tensor<I>,
    together: usize,
    early: impl Fn(Tensor<I>) -> Tensor<M> + Sync,
    late: impl Fn(Tensor<M>) -> Tensor<O> + Sync,
) -> Tensor<O> {
    let images = input.dims()[0];
    if !one_by_one(&input) {
        return late(early(input));
    }
    cpu::on_pool(|| {
        each(0..images, together, |images| {
            let early = images.map(|image| early(part(&input, image..image + 1)));
            late(join(early.collect()))
        })
    })
}

fn part<const D: usize>(input: &Tensor<D>, images: Range<usize>) -> Tensor<D> {
    input.clone().narrow(0, images.start, images.len())
}

/// `forward` of runs of images, no more than `most`, as many for each thread. Images left over, fewer than
/// threads, share the threads.
fn each<const D: usize>(
    images: Range<usize>,
    most: usize,
    forward: impl Fn(Range<usize>) -> Tensor<D> + Sync,
) -> Tensor<D> {
    let threads = cpu::threads();
    let count = images.len();
    if count <= 1 {
        return forward(images);
    }
    let of_thread = count / threads;
    let runs = threads * of_thread.div_ceil(most.max(1));
    let even = of_thread * threads;
    let at = |run: usize| run * even / runs;
    let mut outputs = Vec::with_capacity(count);
    (0..runs)
        .into_par_iter()
        .map(|run| cpu::alone(|| forward(at(run)..at(run + 1))))
        .collect_into_vec(&mut outputs);
    outputs.par_extend(
        (even..count)
            .into_par_iter()
            .map(|image| forward(image..image + 1)),
    );
    join(outputs)
}
