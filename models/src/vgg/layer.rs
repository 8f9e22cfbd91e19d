//! The parts of a VGG and of `AlexNet`, numbered as in torchvision.

use burn::nn::pool::MaxPool2d;
use burn::nn::{BatchNorm, Dropout, Relu};
use burn::tensor::Tensor;
use burn_sparse::nn::{Activation, Conv2d, Linear, fold_batch_norm, max_pool2d};

use crate::layers::apply;
use crate::transparent::transparent;

/// One of the `features`.
#[derive(Clone, Debug)]
#[allow(
    clippy::large_enum_variant,
    reason = "a few dozen exist for a network, and none is moved in a loop"
)]
pub enum VggLayer {
    /// A convolution.
    Conv(Conv2d),
    /// The batch norm of the convolution before it, until it is folded.
    Norm(Option<BatchNorm>),
    /// A ReLU. It runs inside the convolution before it where there is no batch norm between them.
    Relu(Relu),
    /// A max pool.
    Pool(MaxPool2d),
}

transparent!(VggLayer {
    Conv,
    Norm,
    Relu,
    Pool
});

impl VggLayer {
    fn is_relu(&self) -> bool {
        matches!(self, Self::Relu(_))
    }

    fn is_norm(&self) -> bool {
        matches!(self, Self::Norm(_))
    }
}

/// What comes out of the last of `layers`.
pub(crate) fn forward(layers: &[VggLayer], images: Tensor<4>) -> Tensor<4> {
    let mut x = images;
    let mut layers = layers.iter().peekable();
    while let Some(layer) = layers.next() {
        x = match layer {
            VggLayer::Conv(conv) => {
                let bn = match layers.next_if(|next| next.is_norm()) {
                    Some(VggLayer::Norm(bn)) => bn.as_ref(),
                    _ => None,
                };
                let activation = match layers.next_if(|next| next.is_relu()) {
                    Some(_) => Activation::Relu,
                    None => Activation::None,
                };
                apply(conv, bn, x, None, activation)
            }
            VggLayer::Norm(Some(bn)) => bn.forward(x),
            VggLayer::Norm(None) => x,
            VggLayer::Relu(relu) => relu.forward(x),
            VggLayer::Pool(pool) => max_pool2d(pool, x),
        };
    }
    x
}

/// With every batch norm folded into the convolution before it. No layer changes its number.
pub(super) fn fold(layers: Vec<VggLayer>) -> Vec<VggLayer> {
    let mut out: Vec<VggLayer> = Vec::with_capacity(layers.len());
    for layer in layers {
        let layer = match (out.pop(), layer) {
            (Some(VggLayer::Conv(conv)), VggLayer::Norm(Some(bn))) => {
                out.push(VggLayer::Conv(fold_batch_norm(conv, &bn)));
                VggLayer::Norm(None)
            }
            (before, layer) => {
                out.extend(before);
                layer
            }
        };
        out.push(layer);
    }
    out
}

/// Three layers with what stands between them: `0`, `3` and `6` in the paths of parameters.
type Layers = (Linear, Relu, Dropout, Linear, Relu, Dropout, Linear);

/// What follows the features.
#[derive(Clone, Debug)]
#[allow(
    clippy::large_enum_variant,
    reason = "a handful of models exist at a time, and none is moved in a loop"
)]
pub enum VggClassifier {
    /// The head for ImageNet. Each ReLU runs inside the layer before it.
    ImageNet(Layers),
    /// The head for CIFAR.
    Cifar(Linear),
}

transparent!(VggClassifier { ImageNet, Cifar });

impl VggClassifier {
    /// Class scores before the softmax.
    ///
    /// # Shapes
    /// - `x`: `[batch, features]`
    /// - output: `[batch, classes]`
    ///
    /// # Panics
    /// When the number of features is not the one the head was built for.
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let (fc1, drop1, fc2, drop2, fc3) = match self {
            Self::ImageNet((fc1, _, drop1, fc2, _, drop2, fc3)) => (fc1, drop1, fc2, drop2, fc3),
            Self::Cifar(linear) => return linear.forward(x),
        };
        let x = drop1.forward(fc1.forward_fused(x, None, Activation::Relu));
        let x = drop2.forward(fc2.forward_fused(x, None, Activation::Relu));
        fc3.forward(x)
    }
}
