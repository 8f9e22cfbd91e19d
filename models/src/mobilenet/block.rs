//! One inverted residual.

use burn::module::Module;
use burn::nn::BatchNorm;
use burn::tensor::{Device, Tensor};
use burn_sparse::nn::{Activation, Conv2d};

use super::shape::{BlockShape, POINT};
use crate::layers::{ConvNorm, apply, conv_bn, fold};
use crate::summary::Window;
use crate::transparent::transparent;

/// The layers of a block's branch, numbered as torchvision's: the activations are inside the pairs.
#[derive(Clone, Debug)]
#[allow(
    clippy::large_enum_variant,
    reason = "a few dozen exist for a network, and none is moved in a loop"
)]
pub enum InvertedBranch {
    /// A depthwise convolution and a 1×1 convolution that narrows.
    Plain((ConvNorm, Conv2d, Option<BatchNorm>)),
    /// A 1×1 convolution that widens, a depthwise one and a 1×1 convolution that narrows.
    Expanded((ConvNorm, ConvNorm, Conv2d, Option<BatchNorm>)),
}

transparent!(InvertedBranch { Plain, Expanded });

/// A residual block that is wide inside and narrow outside: `project(depthwise(expand(x)))`, each
/// with its batch norm, the first two with `ReLU6`; plus `x` where the shapes agree (section 3.3 of
/// the paper). After the projection there is no activation.
#[derive(Module, Debug)]
pub struct InvertedResidual {
    /// The branch: `conv.0.0.weight` and so on.
    pub conv: InvertedBranch,
    residual: bool,
}

impl InvertedResidual {
    pub(super) fn new(shape: BlockShape, device: &Device) -> Self {
        let hidden = shape.hidden();
        let depthwise = conv_norm([hidden; 2], shape.depthwise(), hidden, device);
        let (project, bn) = conv_bn([hidden, shape.output], POINT, 1, device);
        let conv = if shape.expands() {
            let expand = conv_norm([shape.input, hidden], POINT, 1, device);
            InvertedBranch::Expanded((expand, depthwise, project, Some(bn)))
        } else {
            InvertedBranch::Plain((depthwise, project, Some(bn)))
        };
        Self {
            conv,
            residual: shape.residual(),
        }
    }

    /// The block's output.
    ///
    /// # Shapes
    /// - `x`: `[batch, channels_in, height, width]`
    /// - output: `[batch, channels_out, height / stride, width / stride]`, rounded up
    ///
    /// # Panics
    /// When the number of channels is not the one the block was built for.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let residual = self.residual.then(|| x.clone());
        let (x, depthwise, project, bn) = match &self.conv {
            InvertedBranch::Plain((depthwise, project, bn)) => (x, depthwise, project, bn),
            InvertedBranch::Expanded((expand, depthwise, project, bn)) => {
                (relu6(expand, x), depthwise, project, bn)
            }
        };
        let x = relu6(depthwise, x);
        apply(project, bn.as_ref(), x, residual, Activation::None)
    }

    /// With every batch norm folded into the convolution before it.
    pub(super) fn fold(self) -> Self {
        let conv = match self.conv {
            InvertedBranch::Plain((depthwise, project, bn)) => {
                InvertedBranch::Plain((fold_pair(depthwise), fold(project, bn), None))
            }
            InvertedBranch::Expanded((expand, depthwise, project, bn)) => {
                InvertedBranch::Expanded((
                    fold_pair(expand),
                    fold_pair(depthwise),
                    fold(project, bn),
                    None,
                ))
            }
        };
        Self { conv, ..self }
    }
}

/// `min(max(bn(conv(x)), 0), 6)`. The kernels know the ReLU; the bound from above comes after them.
pub(super) fn relu6((conv, bn): &ConvNorm, x: Tensor<4>) -> Tensor<4> {
    apply(conv, bn.as_ref(), x, None, Activation::Relu).clamp_max(6.0)
}

pub(super) fn fold_pair((conv, bn): ConvNorm) -> ConvNorm {
    (fold(conv, bn), None)
}

pub(super) fn conv_norm(
    channels: [usize; 2],
    window: Window,
    groups: usize,
    device: &Device,
) -> ConvNorm {
    let (conv, bn) = conv_bn(channels, window, groups, device);
    (conv, Some(bn))
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::nn::Initializer;

    #[test]
    fn relu6_and_its_gradient_are_cut_off_on_both_sides() {
        let device = Device::flex().autodiff();
        let (mut conv, _) = conv_bn([1, 1], POINT, 1, &device);
        conv.weight = Initializer::Ones.init([1, 1, 1, 1], &device).into();
        let inputs = [-1.5, 0.5, 5.75, 6.5];
        let x = Tensor::<4>::from_data([[[inputs]]], &device).require_grad();
        let y = relu6(&(conv, None), x.clone());
        let floats = |tensor: Tensor<4>| tensor.into_data().iter::<f32>().collect::<Vec<_>>();
        let grads = y.clone().sum().backward();
        assert_eq!(floats(y), [0.0, 0.5, 5.75, 6.0]);
        let grad = x.grad(&grads).expect("a gradient");
        assert_eq!(floats(grad), [0.0, 1.0, 1.0, 0.0]);
    }
}
