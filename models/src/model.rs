//! A network chosen at run time.

use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};

use crate::transparent::transparent;
use crate::{
    AlexNet, AlexNetConfig, Arch, Cifar6, Cifar6Config, Classifier, DenseNet, DenseNetConfig,
    LeNet5, LeNet5Config, LeNet300, LeNet300Config, MobileNetV2, MobileNetV2Config, ResNet,
    ResNetConfig, Shortcut, Stem, Summary, Vgg, VggConfig, VggHead,
};

/// Names an architecture with what may vary about it, and builds it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelConfig {
    /// The architecture.
    pub arch: Arch,
    /// The number of classes; as published unless set.
    pub classes: usize,
    /// The images it is made for; as published unless set. It chooses the stem of a residual
    /// or densely connected network, the strides of `mobilenetv2` and the head of a VGG, and is no matter for others.
    pub stem: Option<Stem>,
    /// The shortcuts of a residual network; as published unless set, and no matter for others.
    pub shortcut: Option<Shortcut>,
    /// What all widths of a network are multiplied by, growth rates among them; one unless set, and
    /// no matter for `lenet5`, `lenet300` and `alexnet`. The hidden layers of a VGG's head for ImageNet keep theirs.
    pub width: Option<f64>,
    /// `[channels, height, width]` of an image; as published unless set. Only `cifar6`,
    /// `lenet5` and `lenet300` heed more than the channels.
    pub input: [usize; 3],
}

impl ModelConfig {
    /// The architecture as it was published.
    pub fn new(arch: Arch) -> Self {
        Self {
            arch,
            classes: arch.classes(),
            stem: None,
            shortcut: None,
            width: None,
            input: arch.input(),
        }
    }

    /// With another number of classes.
    pub fn with_classes(mut self, classes: usize) -> Self {
        self.classes = classes;
        self
    }

    /// With another stem.
    pub fn with_stem(mut self, stem: Stem) -> Self {
        self.stem = Some(stem);
        self
    }

    /// With other shortcuts.
    pub fn with_shortcut(mut self, shortcut: Shortcut) -> Self {
        self.shortcut = Some(shortcut);
        self
    }

    /// With another width multiplier.
    pub fn with_width(mut self, width: f64) -> Self {
        self.width = Some(width);
        self
    }

    /// For images of `[channels, height, width]`.
    pub fn with_input(mut self, input: [usize; 3]) -> Self {
        self.input = input;
        self
    }

    /// Builds the network with fresh parameters.
    ///
    /// # Panics
    /// When the number of classes or channels is zero, the input too small for `cifar6` or `lenet5`, or the
    /// width not above 0 and at most 100.
    pub fn init(&self, device: &Device) -> Model {
        match self.network() {
            Network::ResNet(config) => Model::ResNet(config.init(device)),
            Network::Vgg(config) => Model::Vgg(config.init(device)),
            Network::DenseNet(config) => Model::DenseNet(config.init(device)),
            Network::MobileNetV2(config) => Model::MobileNetV2(config.init(device)),
            Network::AlexNet(config) => Model::AlexNet(config.init(device)),
            Network::Cifar6(config) => Model::Cifar6(config.init(device)),
            Network::LeNet5(config) => Model::LeNet5(config.init(device)),
            Network::LeNet300(config) => Model::LeNet300(config.init(device)),
        }
    }

    /// What the network costs on images of `[height, width]`. `cifar6` and `lenet5` are those of this size.
    ///
    /// # Panics
    /// As [`init`](Self::init).
    pub fn summary(&self, size: [usize; 2]) -> Summary {
        match self.network() {
            Network::ResNet(config) => config.summary(size),
            Network::Vgg(config) => config.summary(size),
            Network::DenseNet(config) => config.summary(size),
            Network::MobileNetV2(config) => config.summary(size),
            Network::AlexNet(config) => config.summary(size),
            Network::Cifar6(config) => config
                .with_input([self.input[0], size[0], size[1]])
                .summary(),
            Network::LeNet5(config) => config
                .with_input([self.input[0], size[0], size[1]])
                .summary(),
            Network::LeNet300(config) => config
                .with_input([self.input[0], size[0], size[1]])
                .summary(),
        }
    }

    /// The residual network, where it is one.
    pub fn resnet(&self) -> Option<ResNetConfig> {
        match self.network() {
            Network::ResNet(config) => Some(config),
            _ => None,
        }
    }

    /// The VGG, where it is one.
    pub fn vgg(&self) -> Option<VggConfig> {
        match self.network() {
            Network::Vgg(config) => Some(config),
            _ => None,
        }
    }

    /// The densely connected network, where it is one.
    pub fn densenet(&self) -> Option<DenseNetConfig> {
        match self.network() {
            Network::DenseNet(config) => Some(config),
            _ => None,
        }
    }

    /// The `MobileNetV2`, where it is one.
    pub fn mobilenet_v2(&self) -> Option<MobileNetV2Config> {
        match self.network() {
            Network::MobileNetV2(config) => Some(config),
            _ => None,
        }
    }

    fn network(&self) -> Network {
        match self.arch {
            Arch::ResNet18 => self.residual(ResNetConfig::resnet18),
            Arch::ResNet34 => self.residual(ResNetConfig::resnet34),
            Arch::ResNet50 => self.residual(ResNetConfig::resnet50),
            Arch::ResNet101 => self.residual(ResNetConfig::resnet101),
            Arch::ResNet152 => self.residual(ResNetConfig::resnet152),
            Arch::ResNet20 => self.residual(ResNetConfig::resnet20),
            Arch::ResNet32 => self.residual(ResNetConfig::resnet32),
            Arch::ResNet56 => self.residual(ResNetConfig::resnet56),
            Arch::Vgg16 => self.plain(VggConfig::vgg16),
            Arch::Vgg16Bn => self.plain(VggConfig::vgg16_bn),
            Arch::DenseNet121 => self.dense(DenseNetConfig::densenet121),
            Arch::DenseNet161 => self.dense(DenseNetConfig::densenet161),
            Arch::DenseNet169 => self.dense(DenseNetConfig::densenet169),
            Arch::DenseNet201 => self.dense(DenseNetConfig::densenet201),
            Arch::MobileNetV2 => {
                let mut config = MobileNetV2Config::new(self.classes).with_channels(self.input[0]);
                config.stem = self.stem.unwrap_or(config.stem);
                config.width = self.width.unwrap_or(config.width);
                Network::MobileNetV2(config)
            }
            Arch::AlexNet => {
                Network::AlexNet(AlexNetConfig::new(self.classes).with_channels(self.input[0]))
            }
            Arch::Cifar6 => {
                let mut config = Cifar6Config::new(self.classes).with_input(self.input);
                config.width = self.multiplied(config.width);
                config.hidden = self.multiplied(config.hidden);
                Network::Cifar6(config)
            }
            Arch::LeNet5 => Network::LeNet5(LeNet5Config::new(self.classes).with_input(self.input)),
            Arch::LeNet300 => {
                Network::LeNet300(LeNet300Config::new(self.classes).with_input(self.input))
            }
        }
    }

    fn residual(&self, published: fn(usize) -> ResNetConfig) -> Network {
        let mut config = published(self.classes).with_channels(self.input[0]);
        config.stem = self.stem.unwrap_or(config.stem);
        config.shortcut = self.shortcut.unwrap_or(config.shortcut);
        config.width = self.multiplied(config.width);
        Network::ResNet(config)
    }

    fn plain(&self, published: fn(usize) -> VggConfig) -> Network {
        let mut config = published(self.classes).with_channels(self.input[0]);
        config.head = match self.stem {
            None => config.head,
            Some(Stem::ImageNet) => VggHead::ImageNet,
            Some(Stem::Cifar) => VggHead::Cifar,
        };
        config.width = self.multiplied(config.width);
        Network::Vgg(config)
    }

    fn dense(&self, published: fn(usize) -> DenseNetConfig) -> Network {
        let mut config = published(self.classes).with_channels(self.input[0]);
        config.stem = self.stem.unwrap_or(config.stem);
        config.growth = self.multiplied(config.growth);
        config.width = self.multiplied(config.width);
        Network::DenseNet(config)
    }

    /// The width of a first stage, or a growth rate.
    fn multiplied(&self, width: usize) -> usize {
        let factor = self.width.unwrap_or(1.0);
        assert!(
            factor > 0.0 && factor <= 100.0,
            "the width must be above 0 and at most 100, got {factor}"
        );
        ((width as f64 * factor).round() as usize).max(1)
    }
}

/// The configuration of whichever family.
enum Network {
    ResNet(ResNetConfig),
    Vgg(VggConfig),
    DenseNet(DenseNetConfig),
    MobileNetV2(MobileNetV2Config),
    AlexNet(AlexNetConfig),
    Cifar6(Cifar6Config),
    LeNet5(LeNet5Config),
    LeNet300(LeNet300Config),
}

/// Any network of this crate as one type.
///
/// As a module it is the network it holds: unlike a derived enum it adds nothing to the paths of
/// the parameters, so plans, checkpoints and weights fit whether or not a network is wrapped.
#[derive(Clone, Debug)]
#[allow(
    clippy::large_enum_variant,
    reason = "a handful of models exist at a time, and none is moved in a loop"
)]
pub enum Model {
    /// A residual network.
    ResNet(ResNet),
    /// A VGG.
    Vgg(Vgg),
    /// A densely connected network.
    DenseNet(DenseNet),
    /// A `MobileNetV2`.
    MobileNetV2(MobileNetV2),
    /// `AlexNet`.
    AlexNet(AlexNet),
    /// Four convolutions and two products for CIFAR.
    Cifar6(Cifar6),
    /// LeNet-5.
    LeNet5(LeNet5),
    /// LeNet-300-100.
    LeNet300(LeNet300),
}

/// Evaluates an expression with the network of whichever variant.
macro_rules! any {
    ($model:expr, $network:ident => $body:expr) => {
        match $model {
            Model::ResNet($network) => $body,
            Model::Vgg($network) => $body,
            Model::DenseNet($network) => $body,
            Model::MobileNetV2($network) => $body,
            Model::AlexNet($network) => $body,
            Model::Cifar6($network) => $body,
            Model::LeNet5($network) => $body,
            Model::LeNet300($network) => $body,
        }
    };
}

/// As [`any`], for an expression of the network's own type.
macro_rules! map {
    ($model:expr, $network:ident => $body:expr) => {
        match $model {
            Model::ResNet($network) => Model::ResNet($body),
            Model::Vgg($network) => Model::Vgg($body),
            Model::DenseNet($network) => Model::DenseNet($body),
            Model::MobileNetV2($network) => Model::MobileNetV2($body),
            Model::AlexNet($network) => Model::AlexNet($body),
            Model::Cifar6($network) => Model::Cifar6($body),
            Model::LeNet5($network) => Model::LeNet5($body),
            Model::LeNet300($network) => Model::LeNet300($body),
        }
    };
}

transparent!(Model {
    ResNet,
    Vgg,
    DenseNet,
    MobileNetV2,
    AlexNet,
    Cifar6,
    LeNet5,
    LeNet300
});

impl std::fmt::Display for Model {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        any!(self, network => network.fmt(f))
    }
}

impl Classifier for Model {
    fn forward(&self, images: Tensor<4>) -> Tensor<2> {
        any!(self, network => network.forward(images))
    }

    fn infer(&self, images: Tensor<4>) -> Tensor<2> {
        any!(self, network => network.infer(images))
    }

    fn fold(self) -> Self {
        map!(self, network => network.fold())
    }

    fn classes(&self) -> usize {
        any!(self, network => network.classes())
    }
}

#[cfg(feature = "shrink")]
impl burn_admm::shrink::ChannelModel for Model {
    fn channel_graph(
        &self,
        input: &[usize],
    ) -> Result<burn_admm::shrink::ChannelGraph, burn_admm::shrink::GraphError> {
        any!(self, network => network.channel_graph(input))
    }

    fn set_groups(&mut self, layer: &str, groups: usize) -> bool {
        any!(self, network => network.set_groups(layer, groups))
    }
}
