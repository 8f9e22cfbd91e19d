//! The whole network.

use burn::module::Module;
use burn::nn::pool::MaxPool2dConfig;
use burn::nn::{DropoutConfig, Relu};
use burn::tensor::module::adaptive_avg_pool2d;
use burn::tensor::{Device, Tensor};

use super::config::{CONV, POOL, POOLED};
use super::layer::{self, VggClassifier, VggLayer};
use super::{VggConfig, VggHead};
use crate::Classifier;
use crate::layers::{batch_norm, conv, infer_in_parts, linear};

/// A VGG, described by [`VggConfig`].
///
/// Its parameters have torchvision's paths, `features.0.weight` and `classifier.6.bias`; that of
/// the head for CIFAR is `classifier.weight`.
#[derive(Module, Debug)]
pub struct Vgg {
    /// Convolutions, batch norms, activations and pools, in order.
    pub features: Vec<VggLayer>,
    /// The classifier.
    pub classifier: VggClassifier,
    /// Height and width that the maps are pooled to before the classifier.
    pooled: usize,
    /// The smallest height and width of an image: one pixel is left after all pools.
    smallest: usize,
    classes: usize,
}

impl Vgg {
    pub(super) fn new(config: &VggConfig, device: &Device) -> Self {
        let mut features = Vec::new();
        let mut channels = config.channels;
        for (stage, &count) in config.convs.iter().enumerate() {
            let width = config.channels_of(stage);
            for _ in 0..count {
                let layer = conv([channels, width], CONV, 1, true, device);
                features.push(VggLayer::Conv(layer));
                if config.batch_norm {
                    features.push(VggLayer::Norm(Some(batch_norm(width, device))));
                }
                features.push(VggLayer::Relu(Relu::new()));
                channels = width;
            }
            let pool = MaxPool2dConfig::new([POOL.kernel; 2]).with_strides([POOL.stride; 2]);
            features.push(VggLayer::Pool(pool.init()));
        }
        let inputs = config.features();
        let (pooled, classifier) = match config.head {
            VggHead::ImageNet => {
                let dropout = || DropoutConfig::new(config.dropout).init();
                let layers = (
                    linear(inputs, config.hidden, device),
                    Relu::new(),
                    dropout(),
                    linear(config.hidden, config.hidden, device),
                    Relu::new(),
                    dropout(),
                    linear(config.hidden, config.classes, device),
                );
                (POOLED, VggClassifier::ImageNet(layers))
            }
            VggHead::Cifar => {
                let layer = linear(inputs, config.classes, device);
                (1, VggClassifier::Cifar(layer))
            }
        };
        Self {
            features,
            classifier,
            pooled,
            smallest: 1 << config.convs.len(),
            classes: config.classes,
        }
    }

    /// Class scores before the softmax.
    ///
    /// # Shapes
    /// - `images`: `[batch, channels, height, width]`, of 32×32 at least for five stages
    /// - output: `[batch, classes]`
    ///
    /// # Panics
    /// When the number of channels is not the one the network was built for, or the image is so
    /// small that its pools leave nothing.
    pub fn forward(&self, images: Tensor<4>) -> Tensor<2> {
        self.classifier.forward(self.features(images))
    }

    /// What the classifier sees: the last stage's maps, averaged to 7×7 or, for a head for CIFAR,
    /// to one number each.
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
            "this VGG needs images of {0}x{0} at least, not {height}x{width}",
            self.smallest
        );
        let x = layer::forward(&self.features, images);
        adaptive_avg_pool2d(x, [self.pooled; 2]).flatten(1, 3)
    }

    /// The same function with every batch norm folded into the convolution before it.
    ///
    /// For inference: the running statistics become constants, and the ReLU runs inside the
    /// convolution's kernel. No parameter changes its path.
    pub fn fold_batch_norm(self) -> Self {
        Self {
            features: layer::fold(self.features),
            ..self
        }
    }
}

impl Classifier for Vgg {
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
