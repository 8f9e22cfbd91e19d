//! What a VGG is made of.

use burn::tensor::Device;
use serde::{Deserialize, Serialize};

use super::Vgg;
use crate::Summary;
use crate::summary::Window;

pub(super) const CONV: Window = Window {
    kernel: 3,
    stride: 1,
    padding: 1,
};
pub(super) const POOL: Window = Window {
    kernel: 2,
    stride: 2,
    padding: 0,
};
/// Height and width that a head for ImageNet pools its maps to.
pub(super) const POOLED: usize = 7;
/// The most stages: each halves the image.
const STAGES: usize = 16;

/// What follows the convolutions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum VggHead {
    /// An average pool to 7×7 and three layers, two of them hidden, with dropout after those.
    /// The parameters are torchvision's `classifier.0`, `classifier.3` and `classifier.6`.
    ImageNet,
    /// The average of each channel and one layer, `classifier`: what is usual for CIFAR, where a
    /// 32×32 image leaves the last stage as 1×1.
    Cifar,
}

/// Describes a [`Vgg`] and builds it.
///
/// ```
/// use models::{VggConfig, VggHead};
///
/// let summary = VggConfig::vgg16(1000).summary([224, 224]);
/// assert_eq!(summary.params(), 138_357_544);
/// assert_eq!(summary.macs(), 15_470_264_320);
///
/// let cifar = VggConfig::vgg16_bn(10).with_head(VggHead::Cifar);
/// assert_eq!(cifar.summary([32, 32]).params(), 14_728_266);
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VggConfig {
    /// The number of 3×3 convolutions of each stage, one to sixteen stages. A 2×2 max pool ends
    /// each.
    pub convs: Vec<usize>,
    /// The width of the first stage; the next three double it, and it stays from the fourth on.
    pub width: usize,
    /// Whether a batch norm follows each convolution. The convolutions have a bias either way, as
    /// torchvision's.
    pub batch_norm: bool,
    /// What follows the convolutions.
    pub head: VggHead,
    /// The width of the hidden layers of a head for ImageNet.
    pub hidden: usize,
    /// The probability with which a head for ImageNet drops a hidden unit in training, below one.
    pub dropout: f64,
    /// The channels of an image.
    pub channels: usize,
    /// The number of classes.
    pub classes: usize,
}

impl VggConfig {
    /// VGG-16, configuration D of table 1: 138 357 544 parameters for 1000 classes.
    pub fn vgg16(classes: usize) -> Self {
        Self {
            convs: vec![2, 2, 3, 3, 3],
            width: 64,
            batch_norm: false,
            head: VggHead::ImageNet,
            hidden: 4096,
            dropout: 0.5,
            channels: 3,
            classes,
        }
    }

    /// VGG-16 with batch norms (Ioffe and Szegedy): 138 365 992 parameters for 1000 classes.
    pub fn vgg16_bn(classes: usize) -> Self {
        Self {
            batch_norm: true,
            ..Self::vgg16(classes)
        }
    }

    /// With another head.
    pub fn with_head(mut self, head: VggHead) -> Self {
        self.head = head;
        self
    }

    /// With another width of the first stage.
    pub fn with_width(mut self, width: usize) -> Self {
        self.width = width;
        self
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

    /// Builds the network with fresh parameters, initialised as torchvision does: convolutions
    /// normal with variance `2 / fan_out` (He et al., *Delving Deep into Rectifiers*), products
    /// normal with a standard deviation of 0.01, biases zero, batch norms as the identity.
    ///
    /// # Panics
    /// When there are no or more than sixteen stages, a stage has no convolution, a width, the
    /// number of channels or that of classes is zero, or the dropout is not in `[0, 1)`.
    pub fn init(&self, device: &Device) -> Vgg {
        self.check();
        Vgg::new(self, device)
    }

    /// What the network costs on images of `[height, width]`.
    ///
    /// # Panics
    /// As [`init`](Self::init).
    pub fn summary(&self, size: [usize; 2]) -> Summary {
        self.check();
        let mut summary = Summary::new(self.name());
        let mut x = [self.channels, size[0], size[1]];
        // Positions in torchvision's sequence, where activations and pools count too.
        let mut at = 0;
        for (stage, &count) in self.convs.iter().enumerate() {
            for _ in 0..count {
                x = summary.conv(
                    format!("features.{at}"),
                    x,
                    self.channels_of(stage),
                    CONV,
                    true,
                );
                if self.batch_norm {
                    at += 1;
                    summary.batch_norm(format!("features.{at}"), x);
                }
                at += 2;
            }
            x = [x[0], POOL.out(x[1]), POOL.out(x[2])];
            at += 1;
        }
        match self.head {
            VggHead::ImageNet => {
                summary.linear("classifier.0", self.features(), self.hidden);
                summary.linear("classifier.3", self.hidden, self.hidden);
                summary.linear("classifier.6", self.hidden, self.classes);
            }
            VggHead::Cifar => summary.linear("classifier", self.features(), self.classes),
        }
        summary
    }

    /// `vgg16`, `vgg16bn`: the convolutions and the three layers of the head for ImageNet.
    fn name(&self) -> String {
        let norm = if self.batch_norm { "bn" } else { "" };
        format!("vgg{}{norm}", self.convs.iter().sum::<usize>() + 3)
    }

    /// The channels of a stage.
    pub(super) fn channels_of(&self, stage: usize) -> usize {
        self.width << stage.min(3)
    }

    /// The inputs of the head's first layer.
    pub(super) fn features(&self) -> usize {
        let channels = self.channels_of(self.convs.len() - 1);
        match self.head {
            VggHead::ImageNet => channels * POOLED * POOLED,
            VggHead::Cifar => channels,
        }
    }

    fn check(&self) {
        assert!(
            (1..=STAGES).contains(&self.convs.len()) && !self.convs.contains(&0),
            "a VGG has one to {STAGES} stages of one convolution or more, not {:?}",
            self.convs
        );
        assert!(
            [self.width, self.hidden, self.channels, self.classes]
                .iter()
                .all(|&n| n > 0),
            "a VGG needs positive numbers of width ({}), hidden units ({}), channels ({}) and \
             classes ({})",
            self.width,
            self.hidden,
            self.channels,
            self.classes
        );
        assert!(
            (0.0..1.0).contains(&self.dropout),
            "a VGG needs a dropout of zero or more and below one, not {}",
            self.dropout
        );
    }
}
