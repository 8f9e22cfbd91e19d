use burn_sparse::{Budget, SparseError, Sparsity, WeightShape};

use super::groups::{GroupChoice, Grouping};

/// Keeps, of all blocks of `filters × channels` kernels, the kernel positions of largest norm:
/// `{W : at most k pairs of a block and a position ≠ 0}` with `k = budget.keep_groups(pairs)` over
/// the whole weight.
///
/// Gong et al. (ACM TODAES 27(5), 2022), block-punched pruning. A group is one position in all
/// kernels of a block; its norm is that of all its weights (a sum of the norms of its kernels
/// would not be the nearest point). Blocks at the edges hold fewer kernels and count as much as
/// others. Exactly `k` groups are kept; equal norms are kept from the lowest block on, then from
/// the lowest position.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PunchedTopK {
    block: [usize; 2],
    budget: Budget,
}

impl PunchedTopK {
    /// For blocks of so many output and input channels, with this budget of positions of blocks.
    pub fn new(block: [usize; 2], budget: Budget) -> Self {
        Self { block, budget }
    }
}

impl Grouping for PunchedTopK {
    fn count(&self, shape: WeightShape) -> usize {
        let [filters, channels] = self.block;
        shape.rows.div_ceil(filters) * shape.channels.div_ceil(channels) * shape.positions()
    }

    fn group(&self, shape: WeightShape, row: usize, channel: usize, position: usize) -> usize {
        let [filters, channels] = self.block;
        let block = row / filters * shape.channels.div_ceil(channels) + channel / channels;
        block * shape.positions() + position
    }
}

impl GroupChoice for PunchedTopK {
    fn sparsity(&self) -> Sparsity {
        Sparsity::Punched {
            filters: self.block[0],
            channels: self.block[1],
            budget: self.budget,
        }
    }

    fn keep(&self, shape: WeightShape) -> Result<usize, SparseError> {
        self.budget
            .keep_groups(self.count(shape), "punched positions")
    }
}
