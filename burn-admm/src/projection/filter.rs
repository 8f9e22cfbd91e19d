use burn_sparse::{Budget, SparseError, Sparsity, WeightShape};

use super::groups::{GroupChoice, Grouping};

/// Keeps the output channels of largest norm:
/// `{W : at most k rows W_r ≠ 0}` with `k = budget.keep_groups(rows)`.
///
/// Zhang et al., "StructADMM" (2018), filter-wise pruning. Exactly `k` output channels are kept;
/// equal norms are kept from the lowest channel on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FilterTopK {
    budget: Budget,
}

impl FilterTopK {
    /// With this budget of output channels.
    pub fn new(budget: Budget) -> Self {
        Self { budget }
    }
}

impl Grouping for FilterTopK {
    fn count(&self, shape: WeightShape) -> usize {
        shape.rows
    }

    fn group(&self, _: WeightShape, row: usize, _: usize, _: usize) -> usize {
        row
    }
}

impl GroupChoice for FilterTopK {
    fn sparsity(&self) -> Sparsity {
        Sparsity::Filter(self.budget)
    }

    fn keep(&self, shape: WeightShape) -> Result<usize, SparseError> {
        self.budget.keep_groups(shape.rows, "output channels")
    }
}
