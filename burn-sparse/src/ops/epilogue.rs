//! What follows a product inside the same kernel.

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

/// The function applied last.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Activation {
    /// The identity.
    #[default]
    None,
    /// `max(0, x)`.
    Relu,
}

/// `act(y + bias + residual)`, done by the kernel while its sums are still in registers.
///
/// # Example
/// ```
/// use burn::tensor::{Device, Tensor};
/// use burn_sparse::ops::{Activation, Epilogue};
///
/// let bias = Tensor::<1>::ones([8], &Device::flex());
/// let epilogue: Epilogue<4> = Epilogue::new().with_bias(bias).with_activation(Activation::Relu);
/// assert!(epilogue.residual.is_none());
/// ```
#[derive(Debug, Clone)]
pub struct Epilogue<const D: usize> {
    /// One per output channel or feature, `[out]`.
    pub bias: Option<Tensor<1>>,
    /// Of the output's shape.
    pub residual: Option<Tensor<D>>,
    /// Applied last.
    pub activation: Activation,
}

impl<const D: usize> Default for Epilogue<D> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const D: usize> Epilogue<D> {
    /// Nothing: the product as it is.
    pub fn new() -> Self {
        Self {
            bias: None,
            residual: None,
            activation: Activation::None,
        }
    }

    /// Adds a bias of shape `[out]`.
    #[must_use]
    pub fn with_bias(mut self, bias: impl Into<Option<Tensor<1>>>) -> Self {
        self.bias = bias.into();
        self
    }

    /// Adds a tensor of the output's shape.
    #[must_use]
    pub fn with_residual(mut self, residual: impl Into<Option<Tensor<D>>>) -> Self {
        self.residual = residual.into();
        self
    }

    /// Applies an activation last.
    #[must_use]
    pub fn with_activation(mut self, activation: Activation) -> Self {
        self.activation = activation;
        self
    }

    /// The same on a tensor that already has its bias, with Burn's own operations: what a layer
    /// that stayed dense does.
    pub fn finish_dense(
        residual: Option<Tensor<D>>,
        activation: Activation,
        y: Tensor<D>,
    ) -> Tensor<D> {
        let y = match residual {
            Some(residual) => y + residual,
            None => y,
        };
        match activation {
            Activation::None => y,
            Activation::Relu => burn::tensor::activation::relu(y),
        }
    }

    /// Panics unless bias and residual fit an output of `shape` whose channels lie on `axis`.
    pub(crate) fn check(&self, op: &str, shape: [usize; D], axis: usize) {
        if let Some(bias) = &self.bias {
            assert!(
                bias.dims() == [shape[axis]],
                "{op}: bias {:?} for {} output channels",
                bias.dims(),
                shape[axis]
            );
        }
        if let Some(residual) = &self.residual {
            assert!(
                residual.dims() == shape,
                "{op}: residual {:?} added to an output of {shape:?}",
                residual.dims()
            );
        }
    }
}
