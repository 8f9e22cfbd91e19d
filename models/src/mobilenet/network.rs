//! The whole network.

use burn::module::Module;
use burn::nn::{Dropout, DropoutConfig};
use burn::tensor::module::adaptive_avg_pool2d;
use burn::tensor::{Device, Tensor};
use burn_sparse::nn::Linear;

use super::MobileNetV2Config;
use super::block::{InvertedResidual, conv_norm, fold_pair, relu6};
use super::shape::{NetworkShape, POINT};
use crate::Classifier;
use crate::layers::{ConvNorm, infer_in_parts, linear};
use crate::transparent::transparent;

/// One of the `features`.
#[derive(Clone, Debug)]
#[allow(
    clippy::large_enum_variant,
    reason = "a few dozen exist for a network, and none is moved in a loop"
)]
pub enum MobileNetLayer {
    /// The first or the last convolution with its batch norm, followed by `ReLU6`.
    Conv(ConvNorm),
    /// An inverted residual.
    Block(InvertedResidual),
}

transparent!(MobileNetLayer { Conv, Block });

/// A `MobileNetV2`, described by [`MobileNetV2Config`].
///
/// Its parameters have torchvision's paths: `features.0.0.weight`, `features.2.conv.1.0.weight`,
/// `classifier.1.weight`.
///
/// Nine tenths of its multiplications are in 1×1 convolutions, and they are what to prune.
/// Depthwise convolutions have nine weights for each channel; kept dense in a plan
/// (`features.*.conv.1.0.weight` and `features.1.conv.0.0.weight`) they stay dense when packed.
#[derive(Module, Debug)]
pub struct MobileNetV2 {
    /// The first convolution, the blocks, the last convolution.
    pub features: Vec<MobileNetLayer>,
    /// Dropout and the classifier.
    pub classifier: (Dropout, Linear),
    classes: usize,
}

impl MobileNetV2 {
    pub(super) fn new(config: &MobileNetV2Config, device: &Device) -> Self {
        let shape = NetworkShape::new(config);
        let first = conv_norm([config.channels, shape.first], shape.stem, 1, device);
        let inputs = shape
            .blocks
            .last()
            .map_or(shape.first, |block| block.output);
        let last = conv_norm([inputs, shape.last], POINT, 1, device);
        let block = |&block| MobileNetLayer::Block(InvertedResidual::new(block, device));
        let mut features = vec![MobileNetLayer::Conv(first)];
        features.extend(shape.blocks.iter().map(block));
        features.push(MobileNetLayer::Conv(last));
        Self {
            features,
            classifier: (
                DropoutConfig::new(config.dropout).init(),
                linear(shape.last, config.classes, device),
            ),
            classes: config.classes,
        }
    }

    /// Class scores before the softmax.
    ///
    /// # Shapes
    /// - `images`: `[batch, channels, height, width]`, of any size
    /// - output: `[batch, classes]`
    ///
    /// # Panics
    /// When the number of channels is not the one the network was built for.
    pub fn forward(&self, images: Tensor<4>) -> Tensor<2> {
        self.classify(self.features(images))
    }

    /// What the classifier sees: the last convolution's maps, averaged.
    ///
    /// # Shapes
    /// - `images`: `[batch, channels, height, width]`
    /// - output: `[batch, features]`
    ///
    /// # Panics
    /// As [`forward`](Self::forward).
    pub fn features(&self, images: Tensor<4>) -> Tensor<2> {
        let x = self.features.iter().fold(images, |x, layer| match layer {
            MobileNetLayer::Conv(layer) => relu6(layer, x),
            MobileNetLayer::Block(block) => block.forward(x),
        });
        adaptive_avg_pool2d(x, [1, 1]).flatten(1, 3)
    }

    fn classify(&self, x: Tensor<2>) -> Tensor<2> {
        let (dropout, linear) = &self.classifier;
        linear.forward(dropout.forward(x))
    }

    /// The blocks in order.
    pub fn blocks(&self) -> impl Iterator<Item = &InvertedResidual> {
        self.features.iter().filter_map(|layer| match layer {
            MobileNetLayer::Conv(_) => None,
            MobileNetLayer::Block(block) => Some(block),
        })
    }

    /// The same function with every batch norm folded into the convolution before it.
    ///
    /// For inference: the running statistics become constants, and bias, residual addition and the
    /// lower bound of `ReLU6` run inside the convolution's kernel. The convolutions have a bias
    /// from then on.
    pub fn fold_batch_norm(self) -> Self {
        let fold = |layer| match layer {
            MobileNetLayer::Conv(layer) => MobileNetLayer::Conv(fold_pair(layer)),
            MobileNetLayer::Block(block) => MobileNetLayer::Block(block.fold()),
        };
        Self {
            features: self.features.into_iter().map(fold).collect(),
            ..self
        }
    }
}

impl Classifier for MobileNetV2 {
    fn forward(&self, images: Tensor<4>) -> Tensor<2> {
        self.forward(images)
    }

    fn infer(&self, images: Tensor<4>) -> Tensor<2> {
        infer_in_parts(images, |images| self.features(images), |x| self.classify(x))
    }

    fn fold(self) -> Self {
        self.fold_batch_norm()
    }

    fn classes(&self) -> usize {
        self.classes
    }
}
