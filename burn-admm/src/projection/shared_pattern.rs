use burn_sparse::{Budget, SparseError, Sparsity, WeightShape};

use super::groups::{GroupChoice, Grouping};

/// Keeps the columns of largest norm in each band of `rows` output channels:
/// `{W : at most k columns W_{B,j} ≠ 0 for every band B}` with `k = budget.keep(row_len)`.
///
/// Bands count from the first output channel; the last one has what is left. Exactly `k` entries
/// are kept in every output channel, the same ones throughout a band; equal norms are kept from
/// the lowest column on. With one row it is [`RowBalancedTopK`](super::RowBalancedTopK), with all
/// rows [`ColumnTopK`](super::ColumnTopK).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SharedPatternTopK {
    rows: usize,
    budget: Budget,
}

impl SharedPatternTopK {
    /// For bands of `rows` output channels, with this budget for each output channel.
    pub fn new(rows: usize, budget: Budget) -> Self {
        Self { rows, budget }
    }
}

impl Grouping for SharedPatternTopK {
    fn count(&self, shape: WeightShape) -> usize {
        shape.rows.div_ceil(self.rows) * shape.row_len()
    }

    fn group(&self, shape: WeightShape, row: usize, channel: usize, position: usize) -> usize {
        (row / self.rows) * shape.row_len() + channel * shape.positions() + position
    }
}

impl GroupChoice for SharedPatternTopK {
    fn sparsity(&self) -> Sparsity {
        Sparsity::SharedPattern {
            rows: self.rows,
            budget: self.budget,
        }
    }

    fn keep(&self, shape: WeightShape) -> Result<usize, SparseError> {
        self.budget.keep(shape.row_len())
    }

    fn competing(&self, shape: WeightShape) -> usize {
        shape.row_len()
    }
}
