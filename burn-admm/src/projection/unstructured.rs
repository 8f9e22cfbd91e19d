use burn_sparse::{Budget, Sparsity, WeightShape};

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

    fn project_all(
        &self,
        weights: &[f32],
        shape: WeightShape,
        mark: impl Fn(&[f32], usize, &mut [bool]),
    ) -> Result<Projected, ProjectionError> {
        let Some(keep) = check(weights, shape, Sparsity::Unstructured(self.budget))? else {
            return Ok(Projected::default());
        };
        let mut mask = vec![false; weights.len()];
        mark(weights, keep, &mut mask);
        Ok(Projected::keep(weights, mask))
    }
}

impl Projection for UnstructuredTopK {
    fn project(&self, weights: &[f32], shape: WeightShape) -> Result<Projected, ProjectionError> {
        self.project_all(weights, shape, top_k::mark)
    }

    fn project_naive(
        &self,
        weights: &[f32],
        shape: WeightShape,
    ) -> Result<Projected, ProjectionError> {
        self.project_all(weights, shape, top_k::mark_naive)
    }
}
