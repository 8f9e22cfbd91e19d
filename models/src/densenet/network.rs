//! The whole network.

use burn::module::Module;
use burn::nn::pool::MaxPool2d;
use burn::nn::{BatchNorm, Initializer};
use burn::tensor::module::adaptive_avg_pool2d;
use burn::tensor::{Device, Tensor};
use burn_sparse::nn::{
    Activation, Conv2d, Linear, LinearConfig, batch_norm as norm_act, max_pool2d,
};

use super::{DenseBlock, DenseLayer, DenseNetConfig, DenseTransition};
use crate::Classifier;
use crate::layers::{apply, batch_norm, conv_fan_in, fold, infer_in_parts, max_pool};

/// All layers of a [`DenseNet`] but the classifier.
#[derive(Module, Debug)]
pub struct DenseFeatures {
    /// The convolution of the stem.
    pub conv0: Conv2d,
    /// Its batch norm, until it is folded.
    pub norm0: Option<BatchNorm>,
    /// The pooling of a stem for ImageNet.
    pub pool0: Option<MaxPool2d>,
    /// First dense block.
    pub denseblock1: DenseBlock,
    /// What follows it, unless it is the last.
    pub transition1: Option<DenseTransition>,
    /// Second dense block.
    pub denseblock2: DenseBlock,
    /// What follows it, unless it is the last.
    pub transition2: Option<DenseTransition>,
    /// Third dense block.
    pub denseblock3: DenseBlock,
    /// What follows it, unless it is the last.
    pub transition3: Option<DenseTransition>,
    /// Fourth dense block.
    pub denseblock4: DenseBlock,
    /// The batch norm of the last block, whatever its number.
    pub norm5: BatchNorm,
}

impl DenseFeatures {
    /// The blocks in order, each with the transition behind it.
    pub(super) fn blocks(&self) -> [(&DenseBlock, Option<&DenseTransition>); 4] {
        [
            (&self.denseblock1, self.transition1.as_ref()),
            (&self.denseblock2, self.transition2.as_ref()),
            (&self.denseblock3, self.transition3.as_ref()),
            (&self.denseblock4, None),
        ]
    }

    /// `relu(norm5(blocks(stem(images))))`.
    fn forward(&self, images: Tensor<4>) -> Tensor<4> {
        let norm = self.norm0.as_ref();
        let mut x = apply(&self.conv0, norm, images, None, Activation::Relu);
        if let Some(pool) = &self.pool0 {
            x = max_pool2d(pool, x);
        }
        for (block, transition) in self.blocks() {
            x = block.forward(x);
            if let Some(transition) = transition {
                x = transition.forward(x);
            }
        }
        norm_act(&self.norm5, x, None, Activation::Relu)
    }

    fn fold(self) -> Self {
        Self {
            conv0: fold(self.conv0, self.norm0),
            norm0: None,
            denseblock1: self.denseblock1.fold(),
            denseblock2: self.denseblock2.fold(),
            denseblock3: self.denseblock3.fold(),
            denseblock4: self.denseblock4.fold(),
            ..self
        }
    }
}

/// A densely connected network, described by [`DenseNetConfig`].
///
/// Its parameters have torchvision's paths: `features.denseblock1.denselayer1.conv1.weight`,
/// `features.transition1.norm.weight`, `classifier.weight`. A network with fewer than four blocks
/// (those for CIFAR have three) has no layers in the others, and its last batch norm is `norm5`
/// as well.
///
/// Every layer reads what all before it in its block gave, side by side, so a filter of its second
/// convolution is of use to every layer behind it in the block and to the transition. Cutting it
/// out (`burn_admm::shrink`) shortens all of these.
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use models::DenseNetConfig;
///
/// let device = Device::flex();
/// let config = DenseNetConfig::cifar(2, 4, 10);
/// let model = config.init(&device);
/// let logits = model.forward(Tensor::zeros([2, 3, 32, 32], &device));
/// assert_eq!(logits.dims(), [2, 10]);
/// ```
#[derive(Module, Debug)]
pub struct DenseNet {
    /// All layers but the classifier.
    pub features: DenseFeatures,
    /// The classifier.
    pub classifier: Linear,
    smallest: usize,
    classes: usize,
}

impl DenseNet {
    pub(super) fn new(config: &DenseNetConfig, device: &Device) -> Self {
        let shape = config.shape();
        let mut blocks = shape.blocks.iter().map(|block| {
            let transition = block.transition;
            let transition = transition.map(|channels| DenseTransition::new(channels, device));
            (DenseBlock::new(block, device), transition)
        });
        let mut block = || blocks.next().unwrap_or_else(|| (DenseBlock::empty(), None));
        let (denseblock1, transition1) = block();
        let (denseblock2, transition2) = block();
        let (denseblock3, transition3) = block();
        let (denseblock4, _) = block();
        let mut classifier = LinearConfig::new(shape.features, config.classes).init(device);
        classifier.bias = Some(Initializer::Zeros.init([config.classes], device));
        Self {
            features: DenseFeatures {
                conv0: conv_fan_in([config.channels, config.width], shape.stem, device),
                norm0: Some(batch_norm(config.width, device)),
                pool0: shape.pool.map(max_pool),
                denseblock1,
                transition1,
                denseblock2,
                transition2,
                denseblock3,
                transition3,
                denseblock4,
                norm5: batch_norm(shape.features, device),
            },
            classifier,
            smallest: shape.smallest,
            classes: config.classes,
        }
    }

    /// Class scores before the softmax.
    ///
    /// # Shapes
    /// - `images`: `[batch, channels, height, width]`; with four blocks of 29×29 at least, or of
    ///   8×8 with a stem for CIFAR
    /// - output: `[batch, classes]`
    ///
    /// # Panics
    /// When the number of channels is not the one the network was built for, or the image is so
    /// small that its transitions leave nothing.
    pub fn forward(&self, images: Tensor<4>) -> Tensor<2> {
        self.classifier.forward(self.features(images))
    }

    /// What the classifier sees: the last block's maps after norm and ReLU, averaged.
    ///
    /// # Shapes
    /// - `images`: `[batch, channels, height, width]`
    /// - output: `[batch, features]`
    ///
    /// # Panics
    /// As [`forward`](Self::forward).
    pub fn features(&self, images: Tensor<4>) -> Tensor<2> {
        let [_, _, height, width] = images.dims();
        assert!(
            height >= self.smallest && width >= self.smallest,
            "this DenseNet needs images of {0}x{0} at least, not {height}x{width}",
            self.smallest
        );
        adaptive_avg_pool2d(self.features.forward(images), [1, 1]).flatten(1, 3)
    }

    /// The layers of all dense blocks in order.
    pub fn layers(&self) -> impl Iterator<Item = &DenseLayer> {
        let blocks = self.features.blocks().into_iter();
        blocks.flat_map(|(block, _)| &block.layers)
    }

    /// The same function with those batch norms folded that follow a convolution: `norm0`, and
    /// `norm2` of every layer. The others stay: what they scale goes through a ReLU before the next
    /// convolution.
    ///
    /// For inference: the running statistics become constants, and bias and ReLU run inside the
    /// convolution's kernel. The convolutions have a bias from then on.
    pub fn fold_batch_norm(self) -> Self {
        Self {
            features: self.features.fold(),
            ..self
        }
    }
}

impl Classifier for DenseNet {
    fn forward(&self, images: Tensor<4>) -> Tensor<2> {
        self.forward(images)
    }

    fn infer(&self, images: Tensor<4>) -> Tensor<2> {
        infer_in_parts(
            images,
            |images| self.features(images),
            |x| self.classifier.forward(x),
        )
    }

    fn fold(self) -> Self {
        self.fold_batch_norm()
    }

    fn classes(&self) -> usize {
        self.classes
    }
}
