//! LeNet-300-100: two hidden layers on the pixels.

use burn::module::Module;
use burn::tensor::activation::relu;
use burn::tensor::{Device, Tensor};
use burn_sparse::nn::{Linear, LinearConfig};
use serde::{Deserialize, Serialize};

use crate::{Classifier, Summary};

const HIDDEN: [usize; 2] = [300, 100];

/// Describes a [`LeNet300`] and builds it.
///
/// ```
/// use models::LeNet300Config;
///
/// let summary = LeNet300Config::new(10).summary();
/// assert_eq!(summary.weights(), 266_200);
/// assert_eq!(summary.params(), 266_610);
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeNet300Config {
    /// The number of classes.
    pub classes: usize,
    /// Channels, height and width of an image.
    pub input: [usize; 3],
}

impl LeNet300Config {
    /// For MNIST's images of `[1, 28, 28]`.
    pub fn new(classes: usize) -> Self {
        Self {
            classes,
            input: [1, 28, 28],
        }
    }

    /// For images of `[channels, height, width]`.
    pub fn with_input(mut self, input: [usize; 3]) -> Self {
        self.input = input;
        self
    }

    /// Builds the network with fresh parameters: all uniform within `±1/√fan_in`.
    ///
    /// # Panics
    /// When images or classes are empty.
    pub fn init(&self, device: &Device) -> LeNet300 {
        let linear = |from, to| LinearConfig::new(from, to).init(device);
        LeNet300 {
            fc1: linear(self.pixels(), HIDDEN[0]),
            fc2: linear(HIDDEN[0], HIDDEN[1]),
            fc3: linear(HIDDEN[1], self.classes),
            pixels: self.pixels(),
            classes: self.classes,
        }
    }

    /// What the network costs.
    ///
    /// # Panics
    /// As [`init`](Self::init).
    pub fn summary(&self) -> Summary {
        let mut summary = Summary::new("lenet300");
        summary.linear("fc1", self.pixels(), HIDDEN[0]);
        summary.linear("fc2", HIDDEN[0], HIDDEN[1]);
        summary.linear("fc3", HIDDEN[1], self.classes);
        summary
    }

    fn pixels(&self) -> usize {
        let pixels = self.input.iter().product();
        assert!(
            pixels > 0 && self.classes > 0,
            "LeNet-300-100 needs images, not {:?}, and classes, not {}",
            self.input,
            self.classes
        );
        pixels
    }
}

/// Three products: 300-100-10 (LeCun et al., 1998, section III.C.3; Han et al., 2015).
#[derive(Module, Debug)]
pub struct LeNet300 {
    /// 300 hidden units.
    pub fc1: Linear,
    /// 100 hidden units.
    pub fc2: Linear,
    /// The classifier.
    pub fc3: Linear,
    pixels: usize,
    classes: usize,
}

impl LeNet300 {
    /// Class scores before the softmax.
    ///
    /// # Shapes
    /// - `images`: `[batch, channels, height, width]`
    /// - output: `[batch, classes]`
    ///
    /// # Panics
    /// When the images do not have as many pixels as the network was built for.
    pub fn forward(&self, images: Tensor<4>) -> Tensor<2> {
        let pixels: usize = images.dims()[1..].iter().product();
        assert_eq!(
            pixels, self.pixels,
            "this LeNet-300-100 was built for images of {} pixels",
            self.pixels
        );
        let x = relu(self.fc1.forward(images.flatten::<2>(1, 3)));
        let x = relu(self.fc2.forward(x));
        self.fc3.forward(x)
    }
}

impl Classifier for LeNet300 {
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

    use super::LeNet300;

    impl ChannelModel for LeNet300 {
        fn channel_graph(&self, input: &[usize]) -> Result<ChannelGraph, GraphError> {
            ChannelGraph::of(input, |x| {
                let x = x.flatten().linear("fc1", &self.fc1).relu();
                let x = x.linear("fc2", &self.fc2).relu();
                x.linear("fc3", &self.fc3)
            })
        }
    }
}
