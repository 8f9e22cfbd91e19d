//! A network chosen at run time.

use burn::module::{
    Content, Devices, Module, ModuleDisplay, ModuleDisplayDefault, ModuleMapper, ModuleVisitor,
};
use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};

use crate::{
    Arch, Classifier, LeNet5, LeNet5Config, ResNet, ResNetConfig, Shortcut, Stem, Summary,
};

/// Names an architecture with what may vary about it, and builds it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelConfig {
    /// The architecture.
    pub arch: Arch,
    /// The number of classes; as published unless set.
    pub classes: usize,
    /// The stem of a residual network; as published unless set, and no matter for `lenet5`.
    pub stem: Option<Stem>,
    /// The shortcuts of a residual network; as published unless set, and no matter for `lenet5`.
    pub shortcut: Option<Shortcut>,
    /// `[channels, height, width]` of an image; as published unless set. Residual networks only
    /// heed the channels.
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

    /// For images of `[channels, height, width]`.
    pub fn with_input(mut self, input: [usize; 3]) -> Self {
        self.input = input;
        self
    }

    /// Builds the network with fresh parameters.
    ///
    /// # Panics
    /// When the number of classes or channels is zero, or the input too small for `lenet5`.
    pub fn init(&self, device: &Device) -> Model {
        match self.resnet() {
            Some(config) => Model::ResNet(config.init(device)),
            None => Model::LeNet5(self.lenet().init(device)),
        }
    }

    /// What the network costs on images of `[height, width]`. `lenet5` is that of this size.
    ///
    /// # Panics
    /// As [`init`](Self::init).
    pub fn summary(&self, size: [usize; 2]) -> Summary {
        match self.resnet() {
            Some(config) => config.summary(size),
            None => self
                .lenet()
                .with_input([self.input[0], size[0], size[1]])
                .summary(),
        }
    }

    /// The residual network, where it is one.
    pub fn resnet(&self) -> Option<ResNetConfig> {
        let published = match self.arch {
            Arch::ResNet18 => ResNetConfig::resnet18,
            Arch::ResNet34 => ResNetConfig::resnet34,
            Arch::ResNet50 => ResNetConfig::resnet50,
            Arch::ResNet101 => ResNetConfig::resnet101,
            Arch::ResNet152 => ResNetConfig::resnet152,
            Arch::ResNet20 => ResNetConfig::resnet20,
            Arch::ResNet32 => ResNetConfig::resnet32,
            Arch::ResNet56 => ResNetConfig::resnet56,
            Arch::LeNet5 => return None,
        };
        let mut config = published(self.classes).with_channels(self.input[0]);
        config.stem = self.stem.unwrap_or(config.stem);
        config.shortcut = self.shortcut.unwrap_or(config.shortcut);
        Some(config)
    }

    fn lenet(&self) -> LeNet5Config {
        LeNet5Config::new(self.classes).with_input(self.input)
    }
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
    /// LeNet-5.
    LeNet5(LeNet5),
}

/// Evaluates an expression with the network of whichever variant.
macro_rules! any {
    ($model:expr, $network:ident => $body:expr) => {
        match $model {
            Model::ResNet($network) => $body,
            Model::LeNet5($network) => $body,
        }
    };
}

/// As [`any`], for an expression of the network's own type.
macro_rules! map {
    ($model:expr, $network:ident => $body:expr) => {
        match $model {
            Model::ResNet($network) => Model::ResNet($body),
            Model::LeNet5($network) => Model::LeNet5($body),
        }
    };
}

impl Module for Model {
    fn collect_devices(&self, devices: Devices) -> Devices {
        any!(self, network => network.collect_devices(devices))
    }

    fn fork(self, device: &Device) -> Self {
        map!(self, network => network.fork(device))
    }

    fn to_device(self, device: &Device) -> Self {
        map!(self, network => network.to_device(device))
    }

    fn train(self) -> Self {
        map!(self, network => network.train())
    }

    fn valid(&self) -> Self {
        map!(self, network => network.valid())
    }

    fn materialize(self) -> Self {
        map!(self, network => network.materialize())
    }

    fn visit<V: ModuleVisitor>(&self, visitor: &mut V) {
        any!(self, network => network.visit(visitor));
    }

    fn map<M: ModuleMapper>(self, mapper: &mut M) -> Self {
        map!(self, network => network.map(mapper))
    }
}

impl ModuleDisplayDefault for Model {
    fn content(&self, content: Content) -> Option<Content> {
        any!(self, network => network.content(content))
    }

    fn num_params(&self) -> usize {
        any!(self, network => Module::num_params(network))
    }
}

impl ModuleDisplay for Model {}

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
}
