//! The images that a network is made for.

use serde::{Deserialize, Serialize};

/// The images that a network is made for, and with them how they enter it.
///
/// | family | [`ImageNet`](Self::ImageNet) | [`Cifar`](Self::Cifar) |
/// |---|---|---|
/// | [`ResNet`](crate::ResNet) | a 7×7 convolution and a 3×3 max pool, both of stride 2 | a 3×3 convolution of stride 1 |
/// | [`DenseNet`](crate::DenseNet) | the same | the same |
/// | [`MobileNetV2`](crate::MobileNetV2) | all strides as published | stride 1 in the first convolution and in the first stage of stride 2 |
/// | [`Vgg`](crate::Vgg) | the head of three layers, see [`VggHead`](crate::VggHead) | the head of one layer |
/// | [`LeNet5`](crate::LeNet5) | as published | as published |
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stem {
    /// Images of about 224×224: residual and densely connected networks and `MobileNetV2` divide
    /// height and width by 32 in all.
    ImageNet,
    /// Images of about 32×32: residual and densely connected networks and `MobileNetV2` divide
    /// height and width by 8 in all.
    Cifar,
}
