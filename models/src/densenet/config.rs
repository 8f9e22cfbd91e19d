//! What a densely connected network is made of.

use burn::tensor::Device;
use serde::{Deserialize, Serialize};

use super::DenseNet;
use super::shape::NetworkShape;
use crate::{Stem, Summary};

/// Describes a [`DenseNet`] and builds it.
///
/// ```
/// use models::{DenseNetConfig, Stem};
///
/// let summary = DenseNetConfig::densenet121(1000).summary([224, 224]);
/// assert_eq!(summary.params(), 7_978_856);
/// assert_eq!(summary.macs(), 2_834_161_664);
///
/// // Narrower, with fewer layers, for small images.
/// let config = DenseNetConfig::densenet121(10)
///     .with_growth(12)
///     .with_width(24)
///     .with_blocks([6, 6, 6])
///     .with_stem(Stem::Cifar);
/// assert_eq!(config.summary([32, 32]).name(), "densenet40");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DenseNetConfig {
    /// The growth rate: the channels that every layer of a block adds.
    pub growth: usize,
    /// The channels that leave the first convolution.
    pub width: usize,
    /// The number of layers of each dense block, one to four blocks. Between two blocks, a
    /// transition halves channels, height and width.
    pub blocks: Vec<usize>,
    /// How many times wider than the growth rate a layer is between its two convolutions.
    pub bottleneck: usize,
    /// How an image enters.
    pub stem: Stem,
    /// The channels of an image.
    pub channels: usize,
    /// The number of classes.
    pub classes: usize,
}

impl DenseNetConfig {
    /// A network for ImageNet-like images; its first convolution has twice as many channels as a
    /// layer adds (table 1).
    pub fn imagenet(growth: usize, blocks: [usize; 4], classes: usize) -> Self {
        Self {
            growth,
            width: 2 * growth,
            blocks: blocks.to_vec(),
            bottleneck: 4,
            stem: Stem::ImageNet,
            channels: 3,
            classes,
        }
    }

    /// DenseNet-BC for CIFAR-like images with three blocks of `n` layers, so of `6 n + 4` layers
    /// in all (section 3): `n` = 16 and a growth rate of 12 make the one of 0.8 M parameters.
    ///
    /// ```
    /// use models::DenseNetConfig;
    ///
    /// let summary = DenseNetConfig::cifar(16, 12, 10).summary([32, 32]);
    /// assert_eq!((summary.name(), summary.params()), ("densenet100", 769_210));
    /// ```
    pub fn cifar(n: usize, growth: usize, classes: usize) -> Self {
        Self {
            growth,
            width: 2 * growth,
            blocks: vec![n; 3],
            bottleneck: 4,
            stem: Stem::Cifar,
            channels: 3,
            classes,
        }
    }

    /// DenseNet-121: 7 978 856 parameters for 1000 classes.
    pub fn densenet121(classes: usize) -> Self {
        Self::imagenet(32, [6, 12, 24, 16], classes)
    }

    /// DenseNet-161, with a growth rate of 48: 28 681 000 parameters for 1000 classes.
    pub fn densenet161(classes: usize) -> Self {
        Self::imagenet(48, [6, 12, 36, 24], classes)
    }

    /// DenseNet-169: 14 149 480 parameters for 1000 classes.
    pub fn densenet169(classes: usize) -> Self {
        Self::imagenet(32, [6, 12, 32, 32], classes)
    }

    /// DenseNet-201: 20 013 928 parameters for 1000 classes.
    pub fn densenet201(classes: usize) -> Self {
        Self::imagenet(32, [6, 12, 48, 32], classes)
    }

    /// With another growth rate.
    pub fn with_growth(mut self, growth: usize) -> Self {
        self.growth = growth;
        self
    }

    /// With another number of channels of the first convolution.
    pub fn with_width(mut self, width: usize) -> Self {
        self.width = width;
        self
    }

    /// With other blocks, one to four.
    pub fn with_blocks(mut self, blocks: impl Into<Vec<usize>>) -> Self {
        self.blocks = blocks.into();
        self
    }

    /// With another stem. [`Stem::Cifar`] is a 3×3 convolution of stride 1 without a pool.
    pub fn with_stem(mut self, stem: Stem) -> Self {
        self.stem = stem;
        self
    }

    /// With another number of channels of an image.
    pub fn with_channels(mut self, channels: usize) -> Self {
        self.channels = channels;
        self
    }

    /// Builds the network with fresh parameters, initialised as torchvision does: convolutions
    /// normal with variance `2 / fan_in` (He et al., *Delving Deep into Rectifiers*), batch norms
    /// as the identity, the classifier uniform within `±1/√fan_in`, its bias zero.
    ///
    /// # Panics
    /// When there are no or more than four blocks, or a number is zero.
    pub fn init(&self, device: &Device) -> DenseNet {
        DenseNet::new(self, device)
    }

    /// What the network costs on images of `[height, width]`.
    ///
    /// # Panics
    /// As [`init`](Self::init).
    pub fn summary(&self, size: [usize; 2]) -> Summary {
        let shape = self.shape();
        let mut summary = Summary::new(self.name());
        let x = [self.channels, size[0], size[1]];
        let mut x = summary.conv("features.conv0", x, self.width, shape.stem, false);
        summary.batch_norm("features.norm0", x);
        if let Some(pool) = shape.pool {
            x = [x[0], pool.out(x[1]), pool.out(x[2])];
        }
        for (block, number) in shape.blocks.iter().zip(1..) {
            x = block.summarise(&mut summary, number, x);
        }
        summary.batch_norm("features.norm5", x);
        summary.linear("classifier", x[0], self.classes);
        summary
    }

    /// `densenet121`: the convolutions on the longest path and the classifier.
    fn name(&self) -> String {
        let layers = self.blocks.iter().sum::<usize>();
        format!("densenet{}", 2 * layers + self.blocks.len() + 1)
    }

    pub(super) fn shape(&self) -> NetworkShape {
        assert!(
            (1..=4).contains(&self.blocks.len()) && !self.blocks.contains(&0),
            "a DenseNet has one to four blocks of one layer or more, not {:?}",
            self.blocks
        );
        assert!(
            [
                self.growth,
                self.width,
                self.bottleneck,
                self.channels,
                self.classes
            ]
            .iter()
            .all(|&n| n > 0),
            "a DenseNet needs positive numbers of growth ({}), width ({}), bottleneck ({}), \
             channels ({}) and classes ({})",
            self.growth,
            self.width,
            self.bottleneck,
            self.channels,
            self.classes
        );
        NetworkShape::new(self)
    }
}
