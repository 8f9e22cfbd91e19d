//! Networks of the published pruning work, written once on `burn_sparse::nn` layers.
//!
//! | family | networks | source |
//! |---|---|---|
//! | [`ResNet`] for ImageNet | 18, 34, 50, 101, 152 | He et al., *Deep Residual Learning*, table 1 |
//! | [`ResNet`] for CIFAR | 20, 32, 56 | the same paper, section 4.2 |
//! | [`Vgg`] for ImageNet and CIFAR | 16, with and without batch norms | Simonyan and Zisserman, *Very Deep Convolutional Networks*, table 1 |
//! | [`DenseNet`] for ImageNet and CIFAR | 121, 161, 169, 201 | Huang et al., *Densely Connected Convolutional Networks*, table 1 |
//! | [`MobileNetV2`] for ImageNet and CIFAR | any width | Sandler et al., *Inverted Residuals and Linear Bottlenecks*, table 2 |
//! | [`AlexNet`] for ImageNet | 64-192-384-256-256 | Krizhevsky, *One weird trick*, torchvision's |
//! | [`Cifar6`] for CIFAR | 32-32-64-64-128-10, or any width | the plain network that pruning is tried on here |
//! | [`LeNet300`] | 300-100-10 | LeCun et al. 1998, three products |
//! | [`LeNet5`] | 20-50-500-10 | Caffe's variant of LeCun et al. 1998, the one pruning papers count on |
//! | [`SpeechGru`] for recordings | one to eight layers of any width | the GRU that Dong et al., *RTMobile*, prune, with a head for words |
//! | [`TextCnn`] for sentences | any windows and maps | Kim, *Convolutional Neural Networks for Sentence Classification*, CNN-rand and CNN-non-static |
//!
//! Every layer is one of [`burn_sparse::nn`], so the same value is trained dense, pruned, packed
//! and run. Parameters are named as in torchvision (`layer1.0.conv2.weight`, `fc.bias`), so a plan
//! written for a PyTorch network applies unchanged and [`weights::load`] reads a `state_dict` from
//! `.pth` or `.safetensors` in one call. With the feature `shrink` each says who feeds whom, so that
//! `burn_admm::shrink` can cut emptied channels out of it.
//!
//! ```
//! use burn::tensor::{Device, Tensor};
//! use models::{Arch, Classifier, ModelConfig, Stem};
//!
//! let device = Device::flex();
//! let arch: Arch = "resnet20".parse()?;
//! let config = ModelConfig::new(arch).with_classes(10);
//! let model = config.init(&device);
//! let logits = model.forward(Tensor::zeros([1, 3, 32, 32], &device));
//! assert_eq!(logits.dims(), [1, 10]);
//!
//! // What it costs, from its structure alone.
//! let summary = config.summary([32, 32]);
//! assert_eq!(summary.params(), 269_722);
//! assert_eq!(summary.macs(), 40_551_040);
//!
//! // The same network for ImageNet images and for CIFAR images differs in its stem.
//! let cifar = ModelConfig::new(Arch::ResNet50).with_classes(10).with_stem(Stem::Cifar);
//! assert!(cifar.summary([32, 32]).params() < 25_557_032);
//! # Ok::<(), models::UnknownArch>(())
//! ```

mod alexnet;
mod arch;
#[cfg(feature = "shrink")]
mod channels;
mod cifar6;
mod classifier;
mod densenet;
mod layers;
mod lenet;
mod lenet300;
mod mobilenet;
mod model;
mod resnet;
mod speech;
mod stem;
mod summary;
mod text_cnn;
mod transparent;
mod vgg;
pub mod weights;

pub use alexnet::{AlexNet, AlexNetConfig};
pub use arch::{Arch, UnknownArch};
pub use cifar6::{Cifar6, Cifar6Config};
pub use classifier::Classifier;
pub use densenet::{
    DenseBlock, DenseFeatures, DenseLayer, DenseNet, DenseNetConfig, DenseTransition,
};
pub use layers::ConvNorm;
pub use lenet::{LeNet5, LeNet5Config};
pub use lenet300::{LeNet300, LeNet300Config};
pub use mobilenet::{
    InvertedBranch, InvertedResidual, MobileNetLayer, MobileNetStage, MobileNetV2,
    MobileNetV2Config,
};
pub use model::{Model, ModelConfig};
pub use resnet::{Block, BlockKind, ResNet, ResNetConfig, Shortcut};
pub use speech::{Pooling, SpeechGru, SpeechGruConfig, SpeechGruError, SpeechState};
pub use stem::Stem;
pub use summary::{Layer, LayerKind, Summary};
pub use text_cnn::{TextCnn, TextCnnConfig, TextCnnError};
pub use vgg::{Vgg, VggClassifier, VggConfig, VggHead, VggLayer};
