//! LeNet-5 as Caffe defined it and as pruning papers count it.

use burn::module::Module;
use burn::nn::pool::{MaxPool2d, MaxPool2dConfig};
use burn::tensor::activation::relu;
use burn::tensor::{Device, Tensor};
use burn_sparse::nn::{Activation, Conv2d, Conv2dConfig, Linear, LinearConfig, max_pool2d};
use serde::{Deserialize, Serialize};

use crate::summary::Window;
use crate::{Classifier, Summary};

const CONV: Window = Window {
    kernel: 5,
    stride: 1,
    padding: 0,
};
const POOL: Window = Window {
    kernel: 2,
    stride: 2,
    padding: 0,
};
const CHANNELS: [usize; 2] = [20, 50];
const HIDDEN: usize = 500;

/// Describes a [`LeNet5`] and builds it.
///
/// ```
/// use models::LeNet5Config;
///
/// let summary = LeNet5Config::new(10).summary();
/// assert_eq!(summary.weights(), 430_500);
/// assert_eq!(summary.params(), 431_080);
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeNet5Config {
    /// The number of classes.
    pub classes: usize,
    /// The channels of an image.
    pub channels: usize,
    /// Height and width of an image, 16 at least.
    pub size: [usize; 2],
}

impl LeNet5Config {
    /// For MNIST's images of `[1, 28, 28]`.
    pub fn new(classes: usize) -> Self {
        Self {
            classes,
            channels: 1,
            size: [28, 28],
        }
    }

    /// For images of `[channels, height, width]`.
    pub fn with_input(mut self, input: [usize; 3]) -> Self {
        [self.channels, self.size[0], self.size[1]] = input;
        self
    }

    /// Builds the network with fresh parameters: all uniform within `±1/√fan_in`.
    ///
    /// # Panics
    /// When an image is smaller than 16×16, or channels or classes are zero.
    pub fn init(&self, device: &Device) -> LeNet5 {
        let conv = |channels| Conv2dConfig::new(channels, [CONV.kernel; 2]).init(device);
        let pool = || MaxPool2dConfig::new([POOL.kernel; 2]).init();
        LeNet5 {
            conv1: conv([self.channels, CHANNELS[0]]),
            pool1: pool(),
            conv2: conv([CHANNELS[0], CHANNELS[1]]),
            pool2: pool(),
            fc1: LinearConfig::new(self.features(), HIDDEN).init(device),
            fc2: LinearConfig::new(HIDDEN, self.classes).init(device),
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
        let mut summary = Summary::new("lenet5");
        let [h, w] = self.size;
        let x = summary.conv("conv1", [self.channels, h, w], CHANNELS[0], CONV, true);
        let x = [x[0], POOL.out(x[1]), POOL.out(x[2])];
        summary.conv("conv2", x, CHANNELS[1], CONV, true);
        summary.linear("fc1", features, HIDDEN);
        summary.linear("fc2", HIDDEN, self.classes);
        summary
    }

    /// The inputs of `fc1`.
    fn features(&self) -> usize {
        let [h, w] = self.size;
        assert!(
            h >= 16 && w >= 16 && self.channels > 0 && self.classes > 0,
            "LeNet-5 needs images of 16x16 at least (not {h}x{w}) and positive numbers of channels \
             ({}) and classes ({})",
            self.channels,
            self.classes
        );
        let out = |size| POOL.out(CONV.out(POOL.out(CONV.out(size))));
        CHANNELS[1] * out(h) * out(w)
    }
}

/// Two 5×5 convolutions with 2×2 max pools and two products: 20-50-500-10.
#[derive(Module, Debug)]
pub struct LeNet5 {
    /// 20 channels.
    pub conv1: Conv2d,
    /// Halves height and width.
    pub pool1: MaxPool2d,
    /// 50 channels.
    pub conv2: Conv2d,
    /// Halves height and width.
    pub pool2: MaxPool2d,
    /// 500 hidden units.
    pub fc1: Linear,
    /// The classifier.
    pub fc2: Linear,
    size: [usize; 2],
    classes: usize,
}

impl LeNet5 {
    /// Class scores before the softmax.
    ///
    /// # Shapes
    /// - `images`: `[batch, channels, height, width]`
    /// - output: `[batch, classes]`
    ///
    /// # Panics
    /// When the images are not of the size the network was built for.
    pub fn forward(&self, images: Tensor<4>) -> Tensor<2> {
        let [_, _, h, w] = images.dims();
        assert_eq!(
            [h, w],
            self.size,
            "this LeNet-5 was built for images of {:?}",
            self.size
        );
        let x = self.conv1.forward_fused(images, None, Activation::Relu);
        let x = max_pool2d(&self.pool1, x);
        let x = self.conv2.forward_fused(x, None, Activation::Relu);
        let x = max_pool2d(&self.pool2, x);
        let x = relu(self.fc1.forward(x.flatten::<2>(1, 3)));
        self.fc2.forward(x)
    }
}

impl Classifier for LeNet5 {
    fn forward(&self, images: Tensor<4>) -> Tensor<2> {
        self.forward(images)
    }

    fn fold(self) -> Self {
        self
    }

    fn classes(&self) -> usize {
        self.classes
    }
}

#[cfg(feature = "shrink")]
mod channels {
    use burn_admm::shrink::{ChannelGraph, ChannelModel, GraphError};

    use super::LeNet5;

    impl ChannelModel for LeNet5 {
        fn channel_graph(&self, input: &[usize]) -> Result<ChannelGraph, GraphError> {
            ChannelGraph::of(input, |x| {
                let x = x.conv("conv1", &self.conv1).relu().pool(&self.pool1);
                let x = x.conv("conv2", &self.conv2).relu().pool(&self.pool2);
                let x = x.flatten().linear("fc1", &self.fc1).relu();
                x.linear("fc2", &self.fc2)
            })
        }
    }
}
