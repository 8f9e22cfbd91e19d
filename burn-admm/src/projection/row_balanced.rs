use burn_sparse::{Budget, Sparsity, WeightShape};

use super::{Projected, Projection, ProjectionError, check, top_k};

/// Keeps the same number of largest magnitudes in every output channel:
/// `{W : ‖W_r‖₀ ≤ k for every row r}` with `k = budget.keep(row_len)`.
///
/// The pattern of Pietroń and Żurek (2020), section 3: every row of the packed weight has the same
/// length. Exactly `k` entries are kept per row; equal magnitudes are kept from the lowest index on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RowBalancedTopK {
    budget: Budget,
}

impl RowBalancedTopK {
    /// With this budget for each output channel.
    pub fn new(budget: Budget) -> Self {
        Self { budget }
    }

    fn project_rows(
        &self,
        weights: &[f32],
        shape: WeightShape,
        mark: impl Fn(&[f32], usize, &mut [bool]),
    ) -> Result<Projected, ProjectionError> {
        let Some(nnz) = check(weights, shape, Sparsity::RowBalanced(self.budget))? else {
            return Ok(Projected::default());
        };
        let (row_len, keep) = (shape.row_len(), nnz / shape.rows);
        let mut mask = vec![false; weights.len()];
        for (row, mask) in weights
            .chunks_exact(row_len)
            .zip(mask.chunks_exact_mut(row_len))
        {
            mark(row, keep, mask);
        }
        Ok(Projected::keep(weights, mask))
    }
}

impl Projection for RowBalancedTopK {
    fn project(&self, weights: &[f32], shape: WeightShape) -> Result<Projected, ProjectionError> {
        self.project_rows(weights, shape, top_k::mark)
    }

    fn project_naive(
        &self,
        weights: &[f32],
        shape: WeightShape,
    ) -> Result<Projected, ProjectionError> {
        self.project_rows(weights, shape, top_k::mark_naive)
    }
}
