use burn_sparse::{Budget, SparseError, Sparsity, WeightShape};

use super::groups::{GroupChoice, Grouping};

/// Keeps the kernels of largest norm, whatever their size:
/// `{W : at most k kernels W_{r,c} ≠ 0}` with `k = budget.keep_groups(rows * channels)`.
///
/// Niu et al., "PatDNN" (ASPLOS 2020), section 4, where it is called connectivity pruning. Exactly
/// `k` kernels are kept; equal norms are kept from the lowest kernel on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ConnectivityTopK {
    budget: Budget,
}

impl ConnectivityTopK {
    /// With this budget of kernels.
    pub fn new(budget: Budget) -> Self {
        Self { budget }
    }
}

impl Grouping for ConnectivityTopK {
    fn count(&self, shape: WeightShape) -> usize {
        shape.rows * shape.channels
    }

    fn group(&self, shape: WeightShape, row: usize, channel: usize, _: usize) -> usize {
        row * shape.channels + channel
    }
}

impl GroupChoice for ConnectivityTopK {
    fn sparsity(&self) -> Sparsity {
        Sparsity::Connectivity(self.budget)
    }

    fn keep(&self, shape: WeightShape) -> Result<usize, SparseError> {
        self.budget.keep_groups(self.count(shape), "kernels")
    }
}
