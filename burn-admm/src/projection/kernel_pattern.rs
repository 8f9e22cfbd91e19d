use burn_sparse::{Budget, PatternPool, Pool, Sparsity, WeightShape};

use super::groups::square;
use super::{Projected, Projection, ProjectionError, check, top_k};

/// Keeps one pattern of a pool in each 3×3 kernel, and the kernels of which most is left:
/// `{W : every kernel lies within a pattern P of the pool, and at most k kernels ≠ 0}` with
/// `k = budget.keep_groups(rows * channels)`.
///
/// Niu et al., "PatDNN" (ASPLOS 2020), section 4. The pattern of a kernel is the one of largest
/// `‖W ∘ P‖₂`; kernels compete by that same norm, which is what makes it the nearest point of both
/// sets together and not only of one after the other. Equal norms go to the lowest pattern of the
/// pool and to the lowest kernel.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct KernelPatternTopK {
    pool: PatternPool,
    budget: Budget,
}

impl KernelPatternTopK {
    /// With these patterns and this budget of kernels.
    pub fn new(pool: PatternPool, budget: Budget) -> Self {
        Self { pool, budget }
    }

    fn project_kernels(
        &self,
        weights: &[f32],
        shape: WeightShape,
        best: impl Fn(&PatternPool, &[f32]) -> (u16, f64),
        mark: impl Fn(&[f64], usize, &mut [bool]),
    ) -> Result<Projected, ProjectionError> {
        let sparsity = Sparsity::KernelPattern {
            pool: Pool::Given(self.pool),
            budget: self.budget,
        };
        let Some(nnz) = check(weights, shape, sparsity)? else {
            return Ok(Projected::default());
        };
        let (patterns, energies): (Vec<u16>, Vec<f64>) = weights
            .chunks_exact(PatternPool::POSITIONS)
            .map(|kernel| best(&self.pool, kernel))
            .unzip();
        let mut kept = vec![false; patterns.len()];
        mark(&energies, nnz / self.pool.entries(), &mut kept);
        let mask = patterns
            .iter()
            .zip(kept)
            .flat_map(|(pattern, kept)| {
                (0..PatternPool::POSITIONS)
                    .map(move |position| kept && pattern >> position & 1 == 1)
            })
            .collect();
        Ok(Projected::keep(weights, mask))
    }
}

/// The pattern that keeps most of a kernel, and `‖W ∘ P‖²`.
pub(crate) fn best_pattern(pool: &PatternPool, kernel: &[f32]) -> (u16, f64) {
    let squares: [f64; PatternPool::POSITIONS] = core::array::from_fn(|i| square(kernel[i]));
    let mut best = (pool.pattern(0), -1.0);
    for &pattern in pool.masks() {
        let mut energy = 0.0;
        for (position, square) in squares.iter().enumerate() {
            // A branch would be taken at random.
            energy += f64::from(pattern >> position & 1) * square;
        }
        if energy > best.1 {
            best = (pattern, energy);
        }
    }
    best
}

fn best_pattern_naive(pool: &PatternPool, kernel: &[f32]) -> (u16, f64) {
    let kept = |pattern: u16| {
        (0..PatternPool::POSITIONS)
            .filter(|position| pattern & (1 << position) != 0)
            .map(|position| square(kernel[position]))
            .sum::<f64>()
    };
    let mut scored: Vec<(u16, f64)> = pool.masks().iter().map(|&p| (p, kept(p))).collect();
    // Stable: of equal ones the first of the pool comes first.
    scored.sort_by(|a, b| b.1.total_cmp(&a.1));
    scored[0]
}

impl Projection for KernelPatternTopK {
    fn project(&self, weights: &[f32], shape: WeightShape) -> Result<Projected, ProjectionError> {
        self.project_kernels(weights, shape, best_pattern, top_k::mark)
    }

    fn project_naive(
        &self,
        weights: &[f32],
        shape: WeightShape,
    ) -> Result<Projected, ProjectionError> {
        self.project_kernels(weights, shape, best_pattern_naive, top_k::mark_naive)
    }
}
