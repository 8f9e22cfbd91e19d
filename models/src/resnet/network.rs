//! The whole network.

use burn::module::Module;
use burn::nn::BatchNorm;
use burn::nn::pool::MaxPool2d;
use burn::tensor::module::adaptive_avg_pool2d;
use burn::tensor::{Device, Tensor};
use burn_sparse::nn::{Activation, Conv2d, Linear, LinearConfig, max_pool2d};

use super::{Block, ResNetConfig};
use crate::Classifier;
use crate::layers::{apply, conv_bn, fold, infer_in_stages, max_pool};

/// A residual network, described by [`ResNetConfig`].
///
/// Its parameters have torchvision's paths. A network with fewer than four stages (those for CIFAR
/// have three) has no blocks in the others.
#[derive(Module, Debug)]
pub struct ResNet {
    /// The convolution of the stem.
    pub conv1: Conv2d,
    /// Its batch norm, until it is folded.
    pub bn1: Option<BatchNorm>,
    /// The pooling of a stem for ImageNet.
    pub maxpool: Option<MaxPool2d>,
    /// First stage.
    pub layer1: Vec<Block>,
    /// Second stage.
    pub layer2: Vec<Block>,
    /// Third stage.
    pub layer3: Vec<Block>,
    /// Fourth stage.
    pub layer4: Vec<Block>,
    /// The classifier.
    pub fc: Linear,
    classes: usize,
}

impl ResNet {
    pub(super) fn new(config: &ResNetConfig, device: &Device) -> Self {
        let shape = config.shape();
        let (conv1, bn1) = conv_bn([config.channels, config.width], shape.stem, 1, device);
        let maxpool = shape.pool.map(max_pool);
        let mut stages = shape.stages.iter().map(|blocks| {
            let block = |shape| Block::new(shape, config.zero_init_residual, device);
            blocks.iter().copied().map(block).collect::<Vec<_>>()
        });
        let mut stage = || stages.next().unwrap_or_default();
        Self {
            conv1,
            bn1: Some(bn1),
            maxpool,
            layer1: stage(),
            layer2: stage(),
            layer3: stage(),
            layer4: stage(),
            fc: LinearConfig::new(shape.features, config.classes).init(device),
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
        self.fc.forward(self.features(images))
    }

    /// What the classifier sees: the last stage's maps, averaged.
    ///
    /// # Shapes
    /// - `images`: `[batch, channels, height, width]`
    /// - output: `[batch, features]`
    ///
    /// # Panics
    /// As [`forward`](Self::forward).
    pub fn features(&self, images: Tensor<4>) -> Tensor<2> {
        self.last_stage(self.stages(images))
    }

    /// The maps before the last stage.
    fn stages(&self, images: Tensor<4>) -> Tensor<4> {
        let mut x = apply(
            &self.conv1,
            self.bn1.as_ref(),
            images,
            None,
            Activation::Relu,
        );
        if let Some(pool) = &self.maxpool {
            x = max_pool2d(pool, x);
        }
        [&self.layer1, &self.layer2, &self.layer3]
            .into_iter()
            .flatten()
            .fold(x, |x, block| block.forward(x))
    }

    /// The last stage, and its maps averaged.
    fn last_stage(&self, x: Tensor<4>) -> Tensor<2> {
        let x = self.layer4.iter().fold(x, |x, block| block.forward(x));
        adaptive_avg_pool2d(x, [1, 1]).flatten(1, 3)
    }

    /// The blocks of all stages in order.
    pub fn blocks(&self) -> impl Iterator<Item = &Block> {
        [&self.layer1, &self.layer2, &self.layer3, &self.layer4]
            .into_iter()
            .flatten()
    }

    /// The same function with every batch norm folded into the convolution before it.
    ///
    /// For inference: the running statistics become constants, and bias, residual addition and
    /// ReLU run inside the convolution's kernel. The convolutions have a bias from then on.
    pub fn fold_batch_norm(self) -> Self {
        let stage = |blocks: Vec<Block>| blocks.into_iter().map(Block::fold).collect();
        Self {
            conv1: fold(self.conv1, self.bn1),
            bn1: None,
            maxpool: self.maxpool,
            layer1: stage(self.layer1),
            layer2: stage(self.layer2),
            layer3: stage(self.layer3),
            layer4: stage(self.layer4),
            fc: self.fc,
            classes: self.classes,
        }
    }
}

impl Classifier for ResNet {
    fn forward(&self, images: Tensor<4>) -> Tensor<2> {
        self.forward(images)
    }

    fn infer(&self, images: Tensor<4>) -> Tensor<2> {
        infer_in_stages(
            images,
            |images| self.stages(images),
            |x| self.last_stage(x),
            |x| self.fc.forward(x),
        )
    }

    fn fold(self) -> Self {
        self.fold_batch_norm()
    }

    fn classes(&self) -> usize {
        self.classes
    }
}
