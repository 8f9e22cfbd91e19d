use burn_sparse::{Budget, SparseError, Sparsity, WeightShape};

use super::groups::{GroupChoice, Grouping};

/// Keeps the input channels of largest norm, each over all output channels and positions:
/// `{W : at most k channels W_{:,c} ≠ 0}` with `k = budget.keep_groups(channels)`.
///
/// Zhang et al., "StructADMM" (2018), channel-wise pruning. Exactly `k` input channels are kept;
/// equal norms are kept from the lowest channel on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ChannelTopK {
    budget: Budget,
}

impl ChannelTopK {
    /// With this budget of input channels.
    pub fn new(budget: Budget) -> Self {
        Self { budget }
    }
}

impl Grouping for ChannelTopK {
    fn count(&self, shape: WeightShape) -> usize {
        shape.channels
    }

    fn group(&self, _: WeightShape, _: usize, channel: usize, _: usize) -> usize {
        channel
    }
}

impl GroupChoice for ChannelTopK {
    fn sparsity(&self) -> Sparsity {
        Sparsity::Channel(self.budget)
    }

    fn keep(&self, shape: WeightShape) -> Result<usize, SparseError> {
        self.budget.keep_groups(shape.channels, "input channels")
    }
}
