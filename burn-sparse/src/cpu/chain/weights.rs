//! Dense factors in the order in which the kernels read them.

use std::sync::Arc;

use super::kernel::{ROWS_OF_FEW, ROWS_OF_MANY, VECTORS};
use crate::cpu::{Buffer, Isa};

/// Blocks of output channels, in each of which every term (a tap and an input channel) has a weight for each
/// channel of the block, neighbours.
#[derive(Debug, Clone)]
pub(super) struct Blocks {
    values: Arc<Buffer>,
    /// Output channels of the layer, and of a block.
    pub(super) channels: usize,
    pub(super) width: usize,
    /// Terms of a sum.
    pub(super) terms: usize,
}

impl Blocks {
    /// Blocks of `width` channels. `weight` tells the weight of a channel at a term.
    fn new(
        [channels, terms]: [usize; 2],
        width: usize,
        weight: impl Fn(usize, usize) -> f32,
    ) -> Self {
        let mut values = Buffer::new(channels.div_ceil(width) * width * terms);
        for (block, values) in values.chunks_mut((width * terms).max(1)).enumerate() {
            for (term, values) in values.chunks_mut(width).enumerate() {
                for (lane, value) in values.iter_mut().enumerate() {
                    let channel = block * width + lane;
                    // The last block may have fewer channels than the kernel computes.
                    *value = if channel < channels {
                        weight(channel, term)
                    } else {
                        0.0
                    };
                }
            }
        }
        Self {
            values: Arc::new(values),
            channels,
            width,
            terms,
        }
    }

    /// For sums whose channels lie in a vector: `weights` is `[channels, inputs, taps]`, terms are tap by tap.
    pub(super) fn across(weights: &[f32], [channels, inputs, taps]: [usize; 3], isa: Isa) -> Self {
        Self::new(
            [channels, inputs * taps],
            VECTORS * isa.lanes(),
            |o, term| {
                let (tap, input) = (term / inputs, term % inputs);
                weights[(o * inputs + input) * taps + tap]
            },
        )
    }

    /// For sums whose pixels lie in a vector: `weights` is `[channels, terms]`.
    pub(super) fn along(weights: &[f32], [channels, terms]: [usize; 2], isa: Isa) -> Self {
        let rows = if isa.registers() < 32 {
            ROWS_OF_FEW
        } else {
            ROWS_OF_MANY
        };
        Self::new([channels, terms], rows, |o, term| weights[o * terms + term])
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.channels.div_ceil(self.width)
    }

    /// The weights of a block.
    pub(super) fn block(&self, block: usize) -> &[f32] {
        &self.values[block * self.width * self.terms..][..self.width * self.terms]
    }

    /// Channels of a block that exist.
    pub(super) fn of_block(&self, block: usize) -> usize {
        self.width.min(self.channels - block * self.width)
    }

    /// Elements of all weights.
    pub(super) fn len(&self) -> usize {
        self.values.len()
    }
}
