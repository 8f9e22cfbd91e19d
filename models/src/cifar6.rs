//! Six layers for CIFAR: small enough to be trained on a CPU, with layers of very different weight.

use burn::module::Module;
use burn::nn::BatchNorm;
use burn::nn::pool::MaxPool2d;
use burn::tensor::{Device, Tensor};
use burn_sparse::nn::{Activation, Conv2d, Linear, LinearConfig, max_pool2d};
use serde::{Deserialize, Serialize};

use crate::layers::{apply, conv_bn, fold, infer_in_parts, max_pool};
use crate::summary::Window;
use crate::{Classifier, Summary};

const CONV: Window = Window {
    kernel: 3,
    stride: 1,
    padding: 1,
};
const POOL: Window = Window {
    kernel: 2,
    stride: 2,
    padding: 0,
};
/// Height and width of the smallest image that leaves a pixel after both pools.
const SMALLEST: usize = 4;

/// Describes a [`Cifar6`] and builds it.
///
/// ```
/// use models::Cifar6Config;
///
/// let summary = Cifar6Config::new(10).summary();
/// assert_eq!(summary.weights(), 590_944);
/// assert_eq!(summary.params(), 591_466);
/// assert_eq!(summary.macs(), 25_003_264);
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cifar6Config {
    /// Channels of the first two convolutions; the other two have twice as many.
    pub width: usize,
    /// The width of the hidden layer.
    pub hidden: usize,
    /// The number of classes.
    pub classes: usize,
    /// The channels of an image.
    pub channels: usize,
    /// Height and width of an image, 4 at least.
    pub size: [usize; 2],
}

impl Cifar6Config {
    /// 32 and 64 channels and 128 hidden units, for CIFAR's images of `[3, 32, 32]`.
    pub fn new(classes: usize) -> Self {
        Self {
            width: 32,
            hidden: 128,
            classes,
            channels: 3,
            size: [32, 32],
        }
    }

    /// With another width of the convolutions.
    pub fn with_width(mut self, width: usize) -> Self {
        self.width = width;
        self
    }

    /// With another width of the hidden layer.
    pub fn with_hidden(mut self, hidden: usize) -> Self {
        self.hidden = hidden;
        self
    }

    /// For images of `[channels, height, width]`.
    pub fn with_input(mut self, input: [usize; 3]) -> Self {
        [self.channels, self.size[0], self.size[1]] = input;
        self
    }

    /// Builds the network with fresh parameters: convolutions normal with variance `2 / fan_out`,
    /// products uniform within `±1/√fan_in`, batch norms as the identity.
    ///
    /// # Panics
    /// When an image is smaller than 4×4, or a width, channels or classes are zero.
    pub fn init(&self, device: &Device) -> Cifar6 {
        let features = self.features();
        let layer = |channels| {
            let (conv, bn) = conv_bn(channels, CONV, 1, device);
            (conv, Some(bn))
        };
        let [narrow, wide] = [self.width, 2 * self.width];
        let (conv1, bn1) = layer([self.channels, narrow]);
        let (conv2, bn2) = layer([narrow, narrow]);
        let (conv3, bn3) = layer([narrow, wide]);
        let (conv4, bn4) = layer([wide, wide]);
        Cifar6 {
            conv1,
            bn1,
            conv2,
            bn2,
            pool1: max_pool(POOL),
            conv3,
            bn3,
            conv4,
            bn4,
            pool2: max_pool(POOL),
            fc1: LinearConfig::new(features, self.hidden).init(device),
            fc2: LinearConfig::new(self.hidden, self.classes).init(device),
            size: self.size,
            classes: self.classes,
        }
    }

    /// What the network costs.
    ///
    /// # Panics
    /// As [`init`](Self::init).
    pub fn summary(&self) -> Summary {
        let features = self.features();
        let mut summary = Summary::new("cifar6");
        let mut x = [self.channels, self.size[0], self.size[1]];
        for (index, width) in [1, 1, 2, 2].into_iter().enumerate() {
            let number = index + 1;
            x = summary.conv(format!("conv{number}"), x, width * self.width, CONV, false);
            summary.batch_norm(format!("bn{number}"), x);
            if number.is_multiple_of(2) {
                x = [x[0], POOL.out(x[1]), POOL.out(x[2])];
            }
        }
        summary.linear("fc1", features, self.hidden);
        summary.linear("fc2", self.hidden, self.classes);
        summary
    }

    /// The inputs of `fc1`.
    fn features(&self) -> usize {
        let [h, w] = self.size;
        assert!(
            h >= SMALLEST
                && w >= SMALLEST
                && [self.width, self.hidden, self.channels, self.classes]
                    .iter()
                    .all(|&n| n > 0),
            "a Cifar6 needs images of {SMALLEST}x{SMALLEST} at least (not {h}x{w}) and positive \
             numbers of width ({}), hidden units ({}), channels ({}) and classes ({})",
            self.width,
            self.hidden,
            self.channels,
            self.classes
        );
        let out = |size| POOL.out(POOL.out(size));
        2 * self.width * out(h) * out(w)
    }
}

/// Two blocks of two 3×3 convolutions with batch norms and a 2×2 max pool, and two products:
/// 32-32-64-64-128-10.
#[derive(Module, Debug)]
pub struct Cifar6 {
    /// First convolution.
    pub conv1: Conv2d,
    /// Its batch norm, until it is folded.
    pub bn1: Option<BatchNorm>,
    /// Second convolution.
    pub conv2: Conv2d,
    /// Its batch norm, until it is folded.
    pub bn2: Option<BatchNorm>,
    /// Halves height and width.
    pub pool1: MaxPool2d,
    /// Third convolution, with twice as many channels.
    pub conv3: Conv2d,
    /// Its batch norm, until it is folded.
    pub bn3: Option<BatchNorm>,
    /// Fourth convolution.
    pub conv4: Conv2d,
    /// Its batch norm, until it is folded.
    pub bn4: Option<BatchNorm>,
    /// Halves height and width.
    pub pool2: MaxPool2d,
    /// The hidden layer, which holds most of the weights.
    pub fc1: Linear,
    /// The classifier.
    pub fc2: Linear,
    size: [usize; 2],
    classes: usize,
}

impl Cifar6 {
    /// Class scores before the softmax.
    ///
    /// # Shapes
    /// - `images`: `[batch, channels, height, width]`
    /// - output: `[batch, classes]`
    ///
    /// # Panics
    /// When the images are not of the size the network was built for.
    pub fn forward(&self, images: Tensor<4>) -> Tensor<2> {
        self.classify(self.features(images))
    }

    fn features(&self, images: Tensor<4>) -> Tensor<2> {
        let [_, _, h, w] = images.dims();
        assert_eq!(
            [h, w],
            self.size,
            "this Cifar6 was built for images of {:?}",
            self.size
        );
        let layer =
            |conv, bn: &Option<BatchNorm>, x| apply(conv, bn.as_ref(), x, None, Activation::Relu);
        let x = layer(&self.conv1, &self.bn1, images);
        let x = layer(&self.conv2, &self.bn2, x);
        let x = max_pool2d(&self.pool1, x);
        let x = layer(&self.conv3, &self.bn3, x);
        let x = layer(&self.conv4, &self.bn4, x);
        max_pool2d(&self.pool2, x).flatten(1, 3)
    }

    fn classify(&self, x: Tensor<2>) -> Tensor<2> {
        self.fc2
            .forward(self.fc1.forward_fused(x, None, Activation::Relu))
    }

    /// The same function with every batch norm folded into the convolution before it, which has a
    /// bias from then on. For inference.
    pub fn fold_batch_norm(self) -> Self {
        Self {
            conv1: fold(self.conv1, self.bn1),
            conv2: fold(self.conv2, self.bn2),
            conv3: fold(self.conv3, self.bn3),
            conv4: fold(self.conv4, self.bn4),
            bn1: None,
            bn2: None,
            bn3: None,
            bn4: None,
            ..self
        }
    }
}

impl Classifier for Cifar6 {
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

#[cfg(feature = "shrink")]
mod channels {
    use burn_admm::shrink::{ChannelGraph, ChannelModel, GraphError};

    use super::Cifar6;
    use crate::channels::conv_bn;

    impl ChannelModel for Cifar6 {
        fn channel_graph(&self, input: &[usize]) -> Result<ChannelGraph, GraphError> {
            ChannelGraph::of(input, |x| {
                let x = conv_bn(&x, ["conv1", "bn1"], &self.conv1, self.bn1.as_ref()).relu();
                let x = conv_bn(&x, ["conv2", "bn2"], &self.conv2, self.bn2.as_ref()).relu();
                let x = x.pool(&self.pool1);
                let x = conv_bn(&x, ["conv3", "bn3"], &self.conv3, self.bn3.as_ref()).relu();
                let x = conv_bn(&x, ["conv4", "bn4"], &self.conv4, self.bn4.as_ref()).relu();
                let x = x.pool(&self.pool2).flatten();
                x.linear("fc1", &self.fc1).relu().linear("fc2", &self.fc2)
            })
        }
    }
}
