//! What a `MobileNetV2` is made of.

use burn::tensor::Device;
use serde::{Deserialize, Serialize};

use super::MobileNetV2;
use super::shape::{NetworkShape, POINT};
use crate::{Stem, Summary};

/// The largest width multiplier.
const WIDEST: f64 = 100.0;

/// A sequence of alike blocks: a line of table 2 of the paper.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct MobileNetStage {
    /// How many times wider than its input a block is inside; at one it has no expansion.
    pub expansion: usize,
    /// The channels that leave a block, before the width multiplier.
    pub channels: usize,
    /// The number of blocks.
    pub blocks: usize,
    /// The stride of the first block.
    pub stride: usize,
}

/// Describes a [`MobileNetV2`] and builds it.
///
/// ```
/// use models::MobileNetV2Config;
///
/// let summary = MobileNetV2Config::new(1000).summary([224, 224]);
/// assert_eq!(summary.params(), 3_504_872);
/// assert_eq!(summary.macs(), 300_774_272);
/// // Half as wide: the published 1.97 M parameters.
/// let half = MobileNetV2Config::new(1000).with_width(0.5);
/// assert_eq!(half.summary([224, 224]).params(), 1_968_680);
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MobileNetV2Config {
    /// The width multiplier, above 0 and at most 100. All channels are multiplied by it and rounded
    /// to eights; those of the last convolution never become fewer than published.
    pub width: f64,
    /// The stages, as published unless set.
    pub stages: Vec<MobileNetStage>,
    /// Where the strides are.
    pub stem: Stem,
    /// The probability with which an input of the classifier is dropped in training, below one.
    pub dropout: f64,
    /// The channels of an image.
    pub channels: usize,
    /// The number of classes.
    pub classes: usize,
}

impl MobileNetV2Config {
    /// The network of table 2: 3 504 872 parameters for 1000 classes.
    pub fn new(classes: usize) -> Self {
        // Expansion, channels, blocks, stride.
        let table = [
            [1, 16, 1, 1],
            [6, 24, 2, 2],
            [6, 32, 3, 2],
            [6, 64, 4, 2],
            [6, 96, 3, 1],
            [6, 160, 3, 2],
            [6, 320, 1, 1],
        ];
        let stage = |[expansion, channels, blocks, stride]: [usize; 4]| MobileNetStage {
            expansion,
            channels,
            blocks,
            stride,
        };
        Self {
            width: 1.0,
            stages: table.into_iter().map(stage).collect(),
            stem: Stem::ImageNet,
            dropout: 0.2,
            channels: 3,
            classes,
        }
    }

    /// With another width multiplier.
    pub fn with_width(mut self, width: f64) -> Self {
        self.width = width;
        self
    }

    /// With other stages.
    pub fn with_stages(mut self, stages: Vec<MobileNetStage>) -> Self {
        self.stages = stages;
        self
    }

    /// With other strides. [`Stem::Cifar`] has stride 1 in the first convolution and in the first
    /// stage of stride 2: a 32×32 image leaves the last stage as 4×4 instead of 1×1. The parameters
    /// are the same.
    pub fn with_stem(mut self, stem: Stem) -> Self {
        self.stem = stem;
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
    /// normal with variance `2 / fan_out` (He et al., *Delving Deep into Rectifiers*), batch norms
    /// as the identity, the classifier normal with a standard deviation of 0.01, its bias zero.
    ///
    /// # Panics
    /// When the width multiplier is not within `0..=100` or is zero, a number in a stage, the
    /// number of channels or that of classes is zero, or the dropout is not in `[0, 1)`.
    pub fn init(&self, device: &Device) -> MobileNetV2 {
        self.check();
        MobileNetV2::new(self, device)
    }

    /// What the network costs on images of `[height, width]`.
    ///
    /// # Panics
    /// As [`init`](Self::init).
    pub fn summary(&self, size: [usize; 2]) -> Summary {
        self.check();
        let shape = NetworkShape::new(self);
        let mut summary = Summary::new("mobilenetv2");
        let x = [self.channels, size[0], size[1]];
        let mut x = summary.conv("features.0.0", x, shape.first, shape.stem, false);
        summary.batch_norm("features.0.1", x);
        for (index, block) in shape.blocks.iter().enumerate() {
            x = block.summarise(&mut summary, &format!("features.{}.conv", index + 1), x);
        }
        let last = shape.blocks.len() + 1;
        x = summary.conv(format!("features.{last}.0"), x, shape.last, POINT, false);
        summary.batch_norm(format!("features.{last}.1"), x);
        summary.linear("classifier.1", shape.last, self.classes);
        summary
    }

    fn check(&self) {
        assert!(
            self.width > 0.0 && self.width <= WIDEST,
            "a MobileNetV2 needs a width multiplier above 0 and of {WIDEST} at most, not {}",
            self.width
        );
        for stage in &self.stages {
            let MobileNetStage {
                expansion,
                channels,
                blocks,
                stride,
            } = *stage;
            assert!(
                [expansion, channels, blocks, stride].iter().all(|&n| n > 0),
                "a stage of a MobileNetV2 needs positive numbers, not {stage:?}"
            );
        }
        assert!(
            self.channels > 0 && self.classes > 0,
            "a MobileNetV2 needs positive numbers of channels ({}) and classes ({})",
            self.channels,
            self.classes
        );
        assert!(
            (0.0..1.0).contains(&self.dropout),
            "a MobileNetV2 needs a dropout of zero or more and below one, not {}",
            self.dropout
        );
    }

    /// The width multiplier of a network whose last published stage, 320 channels wide, has so many
    /// channels; none where no multiplier allowed gives them.
    pub(crate) fn width_of(channels: usize) -> Option<f64> {
        let width = channels as f64 / 320.0;
        (width > 0.0 && width <= WIDEST).then_some(width)
    }
}
