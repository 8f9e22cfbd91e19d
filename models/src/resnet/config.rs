//! What a residual network is made of.

use burn::tensor::Device;
use serde::{Deserialize, Serialize};

use super::shape::NetworkShape;
use super::{BlockKind, ResNet, Shortcut};
use crate::{Stem, Summary};

/// Describes a [`ResNet`] and builds it.
///
/// ```
/// use burn::module::Module;
/// use burn::tensor::Device;
/// use models::{ResNetConfig, Stem};
///
/// let config = ResNetConfig::resnet50(10).with_stem(Stem::Cifar);
/// let model = config.init(&Device::flex());
/// // Parameters are lazy: nothing has been allocated for them so far.
/// assert_eq!(model.num_params() as u64, config.summary([32, 32]).params() + 2 * 26_560);
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResNetConfig {
    /// The kind of its residual blocks.
    pub kind: BlockKind,
    /// The number of blocks of each stage, one to four stages.
    pub blocks: Vec<usize>,
    /// The width of the first stage; every further stage doubles it.
    pub width: usize,
    /// Where a block changes the shape, what its shortcut does.
    pub shortcut: Shortcut,
    /// How an image enters.
    pub stem: Stem,
    /// The channels of an image.
    pub channels: usize,
    /// The number of classes.
    pub classes: usize,
    /// Whether the last batch norm of every residual branch starts at zero, so that every block
    /// starts as the identity (Goyal et al., *Accurate, Large Minibatch SGD*, section 5.1).
    pub zero_init_residual: bool,
}

impl ResNetConfig {
    /// A network for ImageNet-like images of `kind` blocks: stages of width 64, 128, 256 and 512.
    pub fn imagenet(kind: BlockKind, blocks: [usize; 4], classes: usize) -> Self {
        Self {
            kind,
            blocks: blocks.to_vec(),
            width: 64,
            shortcut: Shortcut::Projection,
            stem: Stem::ImageNet,
            channels: 3,
            classes,
            zero_init_residual: false,
        }
    }

    /// A network for CIFAR-like images with `n` basic blocks in each of the stages of width
    /// 16, 32 and 64, so of `6 n + 2` layers, and shortcuts without parameters (section 4.2).
    pub fn cifar(n: usize, classes: usize) -> Self {
        Self {
            kind: BlockKind::Basic,
            blocks: vec![n; 3],
            width: 16,
            shortcut: Shortcut::ZeroPad,
            stem: Stem::Cifar,
            channels: 3,
            classes,
            zero_init_residual: false,
        }
    }

    /// ResNet-18: 11 689 512 parameters for 1000 classes.
    pub fn resnet18(classes: usize) -> Self {
        Self::imagenet(BlockKind::Basic, [2, 2, 2, 2], classes)
    }

    /// ResNet-34: 21 797 672 parameters for 1000 classes.
    pub fn resnet34(classes: usize) -> Self {
        Self::imagenet(BlockKind::Basic, [3, 4, 6, 3], classes)
    }

    /// ResNet-50 with the stride in the 3×3 convolution, as torchvision has it: 25 557 032
    /// parameters for 1000 classes.
    pub fn resnet50(classes: usize) -> Self {
        Self::imagenet(BlockKind::Bottleneck, [3, 4, 6, 3], classes)
    }

    /// ResNet-101: 44 549 160 parameters for 1000 classes.
    pub fn resnet101(classes: usize) -> Self {
        Self::imagenet(BlockKind::Bottleneck, [3, 4, 23, 3], classes)
    }

    /// ResNet-152: 60 192 808 parameters for 1000 classes.
    pub fn resnet152(classes: usize) -> Self {
        Self::imagenet(BlockKind::Bottleneck, [3, 8, 36, 3], classes)
    }

    /// ResNet-20 for CIFAR: 269 722 parameters for 10 classes.
    pub fn resnet20(classes: usize) -> Self {
        Self::cifar(3, classes)
    }

    /// ResNet-32 for CIFAR: 464 154 parameters for 10 classes.
    pub fn resnet32(classes: usize) -> Self {
        Self::cifar(5, classes)
    }

    /// ResNet-56 for CIFAR: 853 018 parameters for 10 classes.
    pub fn resnet56(classes: usize) -> Self {
        Self::cifar(9, classes)
    }

    /// With another stem.
    pub fn with_stem(mut self, stem: Stem) -> Self {
        self.stem = stem;
        self
    }

    /// With other shortcuts.
    pub fn with_shortcut(mut self, shortcut: Shortcut) -> Self {
        self.shortcut = shortcut;
        self
    }

    /// With another width of the first stage.
    pub fn with_width(mut self, width: usize) -> Self {
        self.width = width;
        self
    }

    /// With another number of channels of an image.
    pub fn with_channels(mut self, channels: usize) -> Self {
        self.channels = channels;
        self
    }

    /// With residual branches that start at zero, or not.
    pub fn with_zero_init_residual(mut self, zero: bool) -> Self {
        self.zero_init_residual = zero;
        self
    }

    /// Builds the network with fresh parameters, initialised as torchvision does: convolutions
    /// normal with variance `2 / fan_out` (He et al., *Delving Deep into Rectifiers*), batch norms
    /// as the identity, the classifier uniform within `±1/√fan_in`.
    ///
    /// # Panics
    /// When there are no or more than four stages, or a width, the number of channels or that of
    /// classes is zero.
    pub fn init(&self, device: &Device) -> ResNet {
        ResNet::new(self, device)
    }

    /// What the network costs on images of `[height, width]`.
    ///
    /// # Panics
    /// As [`init`](Self::init).
    pub fn summary(&self, size: [usize; 2]) -> Summary {
        let shape = self.shape();
        let mut summary = Summary::new(self.name());
        let mut x = summary.conv(
            "conv1",
            [self.channels, size[0], size[1]],
            self.width,
            shape.stem,
            false,
        );
        summary.batch_norm("bn1", x);
        if let Some(pool) = shape.pool {
            x = [x[0], pool.out(x[1]), pool.out(x[2])];
        }
        for (stage, blocks) in shape.stages.iter().enumerate() {
            for (index, block) in blocks.iter().enumerate() {
                x = block.summarise(&mut summary, &format!("layer{}.{index}", stage + 1), x);
            }
        }
        summary.linear("fc", x[0], self.classes);
        summary
    }

    /// `resnet50`: the number of layers on the longest path.
    fn name(&self) -> String {
        let per_block = match self.kind {
            BlockKind::Basic => 2,
            BlockKind::Bottleneck => 3,
        };
        format!(
            "resnet{}",
            per_block * self.blocks.iter().sum::<usize>() + 2
        )
    }

    pub(super) fn shape(&self) -> NetworkShape {
        NetworkShape::new(self)
    }
}
