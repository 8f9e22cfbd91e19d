//! The channels, windows and paths of a network: built into modules by `network`, added up by
//! `config`.

use super::DenseNetConfig;
use crate::Stem;
use crate::summary::{Summary, Window};

pub(super) const POINT: Window = Window {
    kernel: 1,
    stride: 1,
    padding: 0,
};
pub(super) const WIDE: Window = Window {
    kernel: 3,
    stride: 1,
    padding: 1,
};
/// The average of a transition.
pub(super) const HALVE: Window = Window {
    kernel: 2,
    stride: 2,
    padding: 0,
};

/// A whole network.
pub(super) struct NetworkShape {
    pub(super) stem: Window,
    pub(super) pool: Option<Window>,
    pub(super) blocks: Vec<BlockShape>,
    /// Channels that leave the last block.
    pub(super) features: usize,
    /// Height and width of the smallest image of which the transitions leave anything.
    pub(super) smallest: usize,
}

/// One dense block with the transition behind it.
pub(super) struct BlockShape {
    pub(super) layers: Vec<LayerShape>,
    /// Channels before and after the transition, where there is one.
    pub(super) transition: Option<[usize; 2]>,
}

/// One layer of a dense block.
#[derive(Clone, Copy)]
pub(super) struct LayerShape {
    pub(super) input: usize,
    /// Channels between the two convolutions.
    pub(super) hidden: usize,
    pub(super) growth: usize,
}

impl NetworkShape {
    pub(super) fn new(config: &DenseNetConfig) -> Self {
        let (stem, pool) = match config.stem {
            Stem::ImageNet => (Window::new(7, 2, 3), Some(Window::new(3, 2, 1))),
            Stem::Cifar => (WIDE, None),
        };
        let last = config.blocks.len() - 1;
        let mut channels = config.width;
        let mut blocks = Vec::with_capacity(config.blocks.len());
        for (index, &count) in config.blocks.iter().enumerate() {
            let layers = (0..count).map(|layer| LayerShape {
                input: channels + layer * config.growth,
                hidden: config.bottleneck * config.growth,
                growth: config.growth,
            });
            let layers = layers.collect();
            channels += count * config.growth;
            let transition = (index < last).then_some([channels, channels / 2]);
            channels = transition.map_or(channels, |[_, after]| after);
            blocks.push(BlockShape { layers, transition });
        }
        // Every transition halves and rounds down; the two strides of a stem round up.
        let halved = 1 << last;
        let smallest = match config.stem {
            Stem::ImageNet => 4 * (halved - 1) + 1,
            Stem::Cifar => halved,
        };
        Self {
            stem,
            pool,
            blocks,
            features: channels,
            smallest,
        }
    }
}

impl BlockShape {
    /// Adds the layers of the block of this number, counted from one, and those of its transition,
    /// and returns the shape of the output.
    pub(super) fn summarise(
        &self,
        summary: &mut Summary,
        number: usize,
        input: [usize; 3],
    ) -> [usize; 3] {
        let mut x = input;
        for (layer, index) in self.layers.iter().zip(1..) {
            let path = format!("features.denseblock{number}.denselayer{index}");
            summary.batch_norm(format!("{path}.norm1"), x);
            let y = summary.conv(format!("{path}.conv1"), x, layer.hidden, POINT, false);
            summary.batch_norm(format!("{path}.norm2"), y);
            let [growth, ..] = summary.conv(format!("{path}.conv2"), y, layer.growth, WIDE, false);
            x[0] += growth;
        }
        if let Some([_, after]) = self.transition {
            let path = format!("features.transition{number}");
            summary.batch_norm(format!("{path}.norm"), x);
            x = summary.conv(format!("{path}.conv"), x, after, POINT, false);
            x = [x[0], HALVE.out(x[1]), HALVE.out(x[2])];
        }
        x
    }
}
