//! The channels, windows and paths of a network: built into modules by `network`, added up by
//! `config`.

use super::MobileNetV2Config;
use crate::Stem;
use crate::summary::{Summary, Window};

/// The channels of the first and the last convolution, before the width multiplier.
const FIRST: usize = 32;
const LAST: usize = 1280;
/// Numbers of channels are multiples of it.
const DIVISOR: usize = 8;

pub(super) const POINT: Window = Window {
    kernel: 1,
    stride: 1,
    padding: 0,
};

/// A whole network.
pub(super) struct NetworkShape {
    pub(super) stem: Window,
    /// Channels of the first convolution.
    pub(super) first: usize,
    pub(super) blocks: Vec<BlockShape>,
    /// Channels of the last convolution.
    pub(super) last: usize,
}

/// One inverted residual.
#[derive(Clone, Copy)]
pub(super) struct BlockShape {
    pub(super) input: usize,
    pub(super) expansion: usize,
    pub(super) output: usize,
    pub(super) stride: usize,
}

impl NetworkShape {
    pub(super) fn new(config: &MobileNetV2Config) -> Self {
        let scaled = |channels: usize| divisible(channels as f64 * config.width);
        let first = scaled(FIRST);
        // Small images keep their size longer: the first two strides are gone.
        let mut keeps = config.stem == Stem::Cifar;
        let stem = Window::new(3, if keeps { 1 } else { 2 }, 1);
        let mut input = first;
        let mut blocks = Vec::new();
        for stage in &config.stages {
            let mut stride = stage.stride;
            if stride > 1 && keeps {
                (stride, keeps) = (1, false);
            }
            let output = scaled(stage.channels);
            for index in 0..stage.blocks {
                blocks.push(BlockShape {
                    input,
                    expansion: stage.expansion,
                    output,
                    stride: if index == 0 { stride } else { 1 },
                });
                input = output;
            }
        }
        Self {
            stem,
            first,
            blocks,
            last: divisible(LAST as f64 * config.width.max(1.0)),
        }
    }
}

/// The multiple of eight nearest to `channels`, at least eight and not below nine tenths of it:
/// the rule of the reference implementation.
fn divisible(channels: f64) -> usize {
    let nearest = (channels + DIVISOR as f64 / 2.0) as usize / DIVISOR * DIVISOR;
    let nearest = nearest.max(DIVISOR);
    if (nearest as f64) < 0.9 * channels {
        nearest + DIVISOR
    } else {
        nearest
    }
}

impl BlockShape {
    /// Channels inside the block.
    pub(super) fn hidden(self) -> usize {
        self.input * self.expansion
    }

    /// Whether the depthwise convolution has one before it that expands.
    pub(super) fn expands(self) -> bool {
        self.expansion != 1
    }

    /// Whether the input is added to the output.
    pub(super) fn residual(self) -> bool {
        self.stride == 1 && self.input == self.output
    }

    /// The window of the depthwise convolution.
    pub(super) fn depthwise(self) -> Window {
        Window::new(3, self.stride, 1)
    }

    /// Adds the block's layers and returns the shape of its output.
    pub(super) fn summarise(
        self,
        summary: &mut Summary,
        path: &str,
        input: [usize; 3],
    ) -> [usize; 3] {
        let mut x = input;
        let mut at = 0;
        if self.expands() {
            x = summary.conv(format!("{path}.{at}.0"), x, self.hidden(), POINT, false);
            summary.batch_norm(format!("{path}.{at}.1"), x);
            at += 1;
        }
        x = summary.depthwise(format!("{path}.{at}.0"), x, self.depthwise());
        summary.batch_norm(format!("{path}.{at}.1"), x);
        x = summary.conv(format!("{path}.{}", at + 1), x, self.output, POINT, false);
        summary.batch_norm(format!("{path}.{}", at + 2), x);
        x
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_are_rounded_to_eights_and_never_far_down() {
        // Worked out by hand from the rule.
        let cases = [
            (0.1, 8),
            (8.8, 8),
            // Eight is nearest, and less than nine tenths.
            (11.2, 16),
            (12.0, 16),
            (16.0, 16),
            (33.6, 32),
            (44.8, 48),
            (1792.0, 1792),
        ];
        for (channels, expected) in cases {
            assert_eq!(divisible(channels), expected, "{channels}");
        }
    }
}
