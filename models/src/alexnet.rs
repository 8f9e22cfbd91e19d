//! `AlexNet` in its second form: Krizhevsky, *One weird trick for parallelizing convolutional neural
//! networks*, the one that torchvision has weights of.

use burn::module::Module;
use burn::nn::pool::MaxPool2dConfig;
use burn::nn::{Dropout, DropoutConfig, PaddingConfig2d, Relu};
use burn::tensor::module::adaptive_avg_pool2d;
use burn::tensor::{Device, Tensor};
use burn_sparse::nn::{Activation, Conv2dConfig, Linear, LinearConfig};
use serde::{Deserialize, Serialize};

use crate::layers::infer_in_parts;
use crate::summary::Window;
use crate::vgg::{VggLayer, layer};
use crate::{Classifier, Summary};

/// Output channels and window of each convolution, and whether a pool follows it.
const CONVS: [(usize, Window, bool); 5] = [
    (64, window(11, 4, 2), true),
    (192, window(5, 1, 2), true),
    (384, window(3, 1, 1), false),
    (256, window(3, 1, 1), false),
    (256, window(3, 1, 1), true),
];
const POOL: Window = window(3, 2, 0);
/// Height and width that the maps are pooled to before the classifier.
const POOLED: usize = 6;
/// Height and width of the smallest image that leaves a pixel after all pools.
const SMALLEST: usize = 63;

const fn window(kernel: usize, stride: usize, padding: usize) -> Window {
    Window {
        kernel,
        stride,
        padding,
    }
}

/// Describes an [`AlexNet`] and builds it.
///
/// ```
/// use models::AlexNetConfig;
///
/// let summary = AlexNetConfig::new(1000).summary([224, 224]);
/// assert_eq!(summary.params(), 61_100_840);
/// assert_eq!(summary.macs(), 714_188_480);
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AlexNetConfig {
    /// The width of the two hidden layers.
    pub hidden: usize,
    /// The probability with which the inputs of both are dropped in training, below one.
    pub dropout: f64,
    /// The channels of an image.
    pub channels: usize,
    /// The number of classes.
    pub classes: usize,
}

impl AlexNetConfig {
    /// As published: 61 100 840 parameters for 1000 classes.
    pub fn new(classes: usize) -> Self {
        Self {
            hidden: 4096,
            dropout: 0.5,
            channels: 3,
            classes,
        }
    }

    /// With another width of the hidden layers.
    pub fn with_hidden(mut self, hidden: usize) -> Self {
        self.hidden = hidden;
        self
    }

    /// With another probability of dropout.
    pub fn with_dropout(mut self, dropout: f64) -> Self {
        self.dropout = dropout;
        self
    }

    /// With another number of channels of an image.
    pub fn with_channels(mut self, channels: usize) -> Self {
        self.channels = channels;
        self
    }

    /// Builds the network with fresh parameters: all uniform within `±1/√fan_in`, as torchvision's.
    ///
    /// # Panics
    /// When the hidden width, channels or classes are zero, or the dropout is not in `[0, 1)`.
    pub fn init(&self, device: &Device) -> AlexNet {
        self.check();
        let mut features = Vec::new();
        let mut channels = self.channels;
        for (width, window, pool) in CONVS {
            let pad = window.padding;
            let conv = Conv2dConfig::new([channels, width], [window.kernel; 2])
                .with_stride([window.stride; 2])
                .with_padding(PaddingConfig2d::Explicit(pad, pad, pad, pad));
            features.push(VggLayer::Conv(conv.init(device)));
            features.push(VggLayer::Relu(Relu::new()));
            if pool {
                let pool = MaxPool2dConfig::new([POOL.kernel; 2]).with_strides([POOL.stride; 2]);
                features.push(VggLayer::Pool(pool.init()));
            }
            channels = width;
        }
        let dropout = || DropoutConfig::new(self.dropout).init();
        let linear = |from, to| LinearConfig::new(from, to).init(device);
        AlexNet {
            features,
            classifier: (
                dropout(),
                linear(channels * POOLED * POOLED, self.hidden),
                Relu::new(),
                dropout(),
                linear(self.hidden, self.hidden),
                Relu::new(),
                linear(self.hidden, self.classes),
            ),
            classes: self.classes,
        }
    }

    /// What the network costs on images of `[height, width]`.
    ///
    /// # Panics
    /// As [`init`](Self::init).
    pub fn summary(&self, size: [usize; 2]) -> Summary {
        self.check();
        let mut summary = Summary::new("alexnet");
        let mut x = [self.channels, size[0], size[1]];
        // Positions in torchvision's sequence, where activations and pools count too.
        let mut at = 0;
        for (width, window, pool) in CONVS {
            x = summary.conv(format!("features.{at}"), x, width, window, true);
            at += 2;
            if pool {
                x = [x[0], POOL.out(x[1]), POOL.out(x[2])];
                at += 1;
            }
        }
        summary.linear("classifier.1", x[0] * POOLED * POOLED, self.hidden);
        summary.linear("classifier.4", self.hidden, self.hidden);
        summary.linear("classifier.6", self.hidden, self.classes);
        summary
    }

    fn check(&self) {
        assert!(
            self.hidden > 0 && self.channels > 0 && self.classes > 0,
            "an AlexNet needs positive numbers of hidden units ({}), channels ({}) and classes ({})",
            self.hidden,
            self.channels,
            self.classes
        );
        assert!(
            (0.0..1.0).contains(&self.dropout),
            "an AlexNet needs a dropout of zero or more and below one, not {}",
            self.dropout
        );
    }
}

/// Five convolutions, the first of 11×11, and three products.
///
/// Its parameters have torchvision's paths, `features.0.weight` and `classifier.6.bias`.
#[derive(Module, Debug)]
pub struct AlexNet {
    /// Convolutions, activations and pools, in order.
    pub features: Vec<VggLayer>,
    /// The products, with what stands between them. Each ReLU runs inside the layer before it.
    pub classifier: (Dropout, Linear, Relu, Dropout, Linear, Relu, Linear),
    classes: usize,
}

impl AlexNet {
    /// Class scores before the softmax.
    ///
    /// # Shapes
    /// - `images`: `[batch, channels, height, width]`, of 63×63 at least
    /// - output: `[batch, classes]`
    ///
    /// # Panics
    /// When the number of channels is not the one the network was built for, or the image is
    /// smaller.
    pub fn forward(&self, images: Tensor<4>) -> Tensor<2> {
        self.classify(self.features(images))
    }

    fn features(&self, images: Tensor<4>) -> Tensor<2> {
        let [_, _, height, width] = images.dims();
        assert!(
            height >= SMALLEST && width >= SMALLEST,
            "AlexNet needs images of {SMALLEST}x{SMALLEST} at least, not {height}x{width}"
        );
        let x = layer::forward(&self.features, images);
        adaptive_avg_pool2d(x, [POOLED; 2]).flatten(1, 3)
    }

    fn classify(&self, x: Tensor<2>) -> Tensor<2> {
        let (drop1, fc1, _, drop2, fc2, _, fc3) = &self.classifier;
        let x = fc1.forward_fused(drop1.forward(x), None, Activation::Relu);
        let x = fc2.forward_fused(drop2.forward(x), None, Activation::Relu);
        fc3.forward(x)
    }
}

impl Classifier for AlexNet {
    fn forward(&self, images: Tensor<4>) -> Tensor<2> {
        self.forward(images)
    }

    fn infer(&self, images: Tensor<4>) -> Tensor<2> {
        infer_in_parts(images, |images| self.features(images), |x| self.classify(x))
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

    use super::{AlexNet, POOLED};
    use crate::vgg::trace;

    impl ChannelModel for AlexNet {
        fn channel_graph(&self, input: &[usize]) -> Result<ChannelGraph, GraphError> {
            ChannelGraph::of(input, |x| {
                let x = trace(&self.features, x);
                let x = x.resize([POOLED; 2]).flatten();
                let (_, fc1, _, _, fc2, _, fc3) = &self.classifier;
                let x = x.linear("classifier.1", fc1).relu();
                let x = x.linear("classifier.4", fc2).relu();
                x.linear("classifier.6", fc3)
            })
        }
    }
}
