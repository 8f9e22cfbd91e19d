use burn_sparse::{Budget, SparseError, Sparsity, WeightShape};

use super::groups::{GroupChoice, Grouping};

/// Keeps the columns of largest norm, the same entries in all output channels:
/// `{W : at most k columns W_{:,j} ≠ 0}` with `k = budget.keep_groups(row_len)`.
///
/// Zhang et al., "StructADMM" (2018), where it is called shape-wise pruning. Exactly `k` columns
/// are kept; equal norms are kept from the lowest column on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ColumnTopK {
    budget: Budget,
}

impl ColumnTopK {
    /// With this budget of columns.
    pub fn new(budget: Budget) -> Self {
        Self { budget }
    }
}

impl Grouping for ColumnTopK {
    fn count(&self, shape: WeightShape) -> usize {
        shape.row_len()
    }

    fn group(&self, shape: WeightShape, _: usize, channel: usize, position: usize) -> usize {
        channel * shape.positions() + position
    }
}

impl GroupChoice for ColumnTopK {
    fn sparsity(&self) -> Sparsity {
        Sparsity::Column(self.budget)
    }

    fn keep(&self, shape: WeightShape) -> Result<usize, SparseError> {
        self.budget.keep_groups(shape.row_len(), "columns")
    }
}
