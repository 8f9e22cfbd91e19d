//! Batch normalisation folded into the convolution before it.

use burn::module::Param;
use burn::nn::BatchNorm;

use super::{Conv2d, Weight};

/// The convolution that computes `bn(conv(x))` with the running statistics: weights scaled by
/// `g = gamma / sqrt(var + eps)` per output channel and `bias' = beta + (bias - mean) * g`. For
/// inference; zeros stay zero, positive zero where `g` is negative, too.
///
/// # Panics
/// If the normalisation has another number of channels than the convolution has outputs.
pub fn fold_batch_norm(conv: Conv2d, norm: &BatchNorm) -> Conv2d {
    let mut conv = conv.unpack();
    let channels = conv.weight.dims()[0];
    let gamma = norm.gamma.val();
    assert!(
        gamma.dims() == [channels],
        "a batch norm of {} channels after a convolution with {channels} outputs",
        gamma.dims()[0]
    );
    let scale = gamma / (norm.running_var.value_sync() + norm.epsilon).sqrt();
    let mean = norm.running_mean.value_sync();
    let shifted = match &conv.bias {
        Some(bias) => bias.val() - mean,
        None => -mean,
    };
    let bias = norm.beta.val() + shifted * scale.clone();
    let weight = conv.weight.val() * scale.reshape([channels, 1, 1, 1]);
    // Without the sign that a negative scale gives them, pruned weights take no room in a checkpoint.
    let zeros = weight.clone().equal_elem(0.0);
    let weight = weight.mask_fill(zeros, 0.0);
    conv.weight = Weight::Dense(Param::initialized(conv.weight.id(), weight));
    conv.bias = Some(Param::from_tensor(bias));
    conv
}
