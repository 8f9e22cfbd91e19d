//! Batch normalisation folded into the convolution before it.

use burn::module::Param;
use burn::nn::BatchNorm;
use burn::tensor::Tensor;

use super::{Conv2d, Weight};

/// The convolution that computes `bn(conv(x))` with the running statistics: weights scaled by
/// `g = gamma / sqrt(var + eps)` per output channel and `bias' = beta + (bias - mean) * g`. For
/// inference; zeros stay zero, positive zero where `g` is negative, too. Packed weights become dense;
/// of a factored weight the last factor is scaled, and the others stay as they are.
///
/// # Panics
/// If the normalisation has another number of channels than the convolution has outputs.
pub fn fold_batch_norm(conv: Conv2d, norm: &BatchNorm) -> Conv2d {
    let mut conv = conv;
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
    conv.weight = match conv.weight {
        Weight::Factored(mut factors) => {
            let last = factors.last_mut();
            *last = scaled(last, scale);
            Weight::Factored(factors)
        }
        weight => scaled(&weight, scale),
    };
    conv.bias = Some(Param::from_tensor(bias));
    conv
}

/// Rows of the weight times `scale`, dense.
fn scaled(weight: &Weight<4>, scale: Tensor<1>) -> Weight<4> {
    let channels = scale.dims()[0];
    let scaled = weight.val() * scale.reshape([channels, 1, 1, 1]);
    // Without the sign that a negative scale gives them, pruned weights take no room in a checkpoint.
    let zeros = scaled.clone().equal_elem(0.0);
    let scaled = scaled.mask_fill(zeros, 0.0);
    Weight::Dense(Param::initialized(weight.id(), scaled))
}
