//! The channels, windows and paths of a network: built into modules by `network`, added up by
//! `config`.

use super::{BlockKind, ResNetConfig, Shortcut};
use crate::Stem;
use crate::summary::{Summary, Window};

/// A whole network.
pub(super) struct NetworkShape {
    pub(super) stem: Window,
    pub(super) pool: Option<Window>,
    pub(super) stages: Vec<Vec<BlockShape>>,
    /// Channels that leave the last stage.
    pub(super) features: usize,
}

/// One residual block.
#[derive(Clone, Copy)]
pub(super) struct BlockShape {
    pub(super) kind: BlockKind,
    pub(super) shortcut: Shortcut,
    pub(super) input: usize,
    pub(super) width: usize,
    pub(super) stride: usize,
}

impl NetworkShape {
    pub(super) fn new(config: &ResNetConfig) -> Self {
        assert!(
            (1..=4).contains(&config.blocks.len()),
            "a ResNet has one to four stages, not {}",
            config.blocks.len()
        );
        assert!(
            config.width > 0 && config.channels > 0 && config.classes > 0,
            "a ResNet needs positive numbers of width ({}), channels ({}) and classes ({})",
            config.width,
            config.channels,
            config.classes
        );
        let (stem, pool) = match config.stem {
            Stem::ImageNet => (Window::new(7, 2, 3), Some(Window::new(3, 2, 1))),
            Stem::Cifar => (Window::new(3, 1, 1), None),
        };
        let mut input = config.width;
        let mut stages = Vec::with_capacity(config.blocks.len());
        for (stage, &count) in config.blocks.iter().enumerate() {
            let mut blocks = Vec::with_capacity(count);
            for index in 0..count {
                let block = BlockShape {
                    kind: config.kind,
                    shortcut: config.shortcut,
                    input,
                    width: config.width << stage,
                    // The first stage keeps the size that the stem leaves.
                    stride: if stage > 0 && index == 0 { 2 } else { 1 },
                };
                input = block.output();
                blocks.push(block);
            }
            stages.push(blocks);
        }
        Self {
            stem,
            pool,
            stages,
            features: input,
        }
    }
}

impl BlockShape {
    /// Channels that leave the block.
    pub(super) fn output(self) -> usize {
        match self.kind {
            BlockKind::Basic => self.width,
            BlockKind::Bottleneck => 4 * self.width,
        }
    }

    /// Whether the shortcut has to change the shape.
    pub(super) fn reshapes(self) -> bool {
        self.stride != 1 || self.input != self.output()
    }

    /// Output channels and window of the convolutions of the residual branch, in order.
    pub(super) fn convs(self) -> Vec<(usize, Window)> {
        match self.kind {
            BlockKind::Basic => vec![
                (self.width, Window::new(3, self.stride, 1)),
                (self.width, Window::new(3, 1, 1)),
            ],
            BlockKind::Bottleneck => vec![
                (self.width, Window::new(1, 1, 0)),
                (self.width, Window::new(3, self.stride, 1)),
                (self.output(), Window::new(1, 1, 0)),
            ],
        }
    }

    /// The window of the projection, where the shortcut is one.
    pub(super) fn projection(self) -> Option<Window> {
        (self.reshapes() && self.shortcut == Shortcut::Projection)
            .then(|| Window::new(1, self.stride, 0))
    }

    /// Adds the block's layers and returns the shape of its output.
    pub(super) fn summarise(
        self,
        summary: &mut Summary,
        path: &str,
        input: [usize; 3],
    ) -> [usize; 3] {
        let mut x = input;
        for (i, (channels, window)) in self.convs().into_iter().enumerate() {
            x = summary.conv(format!("{path}.conv{}", i + 1), x, channels, window, false);
            summary.batch_norm(format!("{path}.bn{}", i + 1), x);
        }
        if let Some(window) = self.projection() {
            let y = summary.conv(format!("{path}.downsample.0"), input, x[0], window, false);
            summary.batch_norm(format!("{path}.downsample.1"), y);
        }
        x
    }
}
