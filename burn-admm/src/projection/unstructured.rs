use burn_sparse::{Budget, WeightShape};

use super::{Projected, Projection, ProjectionError, check, top_k};

/// Keeps the largest magnitudes of the whole weight:
/// `{W : ‖W‖₀ ≤ k}` with `k = budget.keep(rows * row_len)`.
///
/// Ren et al., "ADMM-NN" (ASPLOS 2019), section 3. Exactly `k` entries are kept; equal magnitudes
/// are kept from the lowest index on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct UnstructuredTopK {
    budget: Budget,
}

impl UnstructuredTopK {
    /// With this budget for the whole weight.
    pub fn new(budget: Budget) -> Self {
        Self { budget }
    }
}

impl Projection for UnstructuredTopK {
    fn project(&self, weights: &[f32], shape: WeightShape) -> Result<Projected, ProjectionError> {
        check(weights, shape)?;
        let mut mask = vec![false; weights.len()];
        top_k::mark(weights, self.budget.keep(weights.len())?, &mut mask);
        Ok(Projected::keep(weights, mask))
    }

    fn project_naive(
        &self,
        weights: &[f32],
        shape: WeightShape,
    ) -> Result<Projected, ProjectionError> {
        check(weights, shape)?;
        let mut mask = vec![false; weights.len()];
        top_k::mark_naive(weights, self.budget.keep(weights.len())?, &mut mask);
        Ok(Projected::keep(weights, mask))
    }
}
