//! The layers that all networks here are built of, in one place.
//!
//! These are Burn's dense layers with the interface of the drop-in layers of `burn_sparse::nn`:
//! the convolution with its epilogue and the folding of a batch norm.

use burn::module::Param;
use burn::nn::BatchNorm;
use burn::tensor::Tensor;
use burn::tensor::activation::relu;

pub(crate) use burn::nn::conv::{Conv2d, Conv2dConfig};
pub(crate) use burn::nn::{Linear, LinearConfig};

/// What follows a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Activation {
    None,
    Relu,
}

/// A layer with its epilogue.
pub(crate) trait Fused {
    /// `activation(layer(x) + residual)`.
    fn forward_fused(
        &self,
        x: Tensor<4>,
        residual: Option<Tensor<4>>,
        activation: Activation,
    ) -> Tensor<4>;
}

impl Fused for Conv2d {
    fn forward_fused(
        &self,
        x: Tensor<4>,
        residual: Option<Tensor<4>>,
        activation: Activation,
    ) -> Tensor<4> {
        let mut y = self.forward(x);
        if let Some(residual) = residual {
            y = y + residual;
        }
        match activation {
            Activation::None => y,
            Activation::Relu => relu(y),
        }
    }
}

/// The convolution that computes `bn(conv(x))` with the running statistics of `bn`:
/// `w' = w γ/√(σ² + ε)`, `b' = (b − μ) γ/√(σ² + ε) + β`.
pub(crate) fn fold_batch_norm(conv: Conv2d, bn: &BatchNorm) -> Conv2d {
    let scale = bn.gamma.val() / (bn.running_var.value_sync() + bn.epsilon).sqrt();
    let mut shift = -bn.running_mean.value_sync();
    if let Some(bias) = &conv.bias {
        shift = shift + bias.val();
    }
    let bias = shift * scale.clone() + bn.beta.val();
    let [channels] = scale.dims();
    let weight = conv.weight.val() * scale.reshape([channels, 1, 1, 1]);
    Conv2d {
        weight: Param::from_tensor(weight.detach()),
        bias: Some(Param::from_tensor(bias.detach())),
        ..conv
    }
}
