//! The layers that evolve, and what a vector of their sparsities keeps.

use super::EvolveError;
use crate::admm::AdmmError;
use crate::plan::{Identity, ResolvedLayer, ResolvedPlan};

/// Halvings by which a common factor is found.
const HALVINGS: usize = 60;

/// The layers of a plan. The sparsity that it gives each of them is the most that it may reach.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Space {
    plan: ResolvedPlan,
    most: Vec<f64>,
}

impl Space {
    pub(super) fn new(plan: ResolvedPlan) -> Result<Self, EvolveError> {
        if plan.layers().is_empty() {
            return Err(EvolveError::NothingConstrained);
        }
        let most = |layer: &ResolvedLayer| 1.0 - layer.nnz as f64 / layer.weights().max(1) as f64;
        let space = Self {
            most: plan.layers().iter().map(most).collect(),
            plan,
        };
        for (at, layer) in space.layers().iter().enumerate() {
            if space.layer_at(at, 0.0)?.nnz <= layer.nnz {
                return Err(EvolveError::Fixed {
                    path: layer.path.clone(),
                    scheme: layer.sparsity.name(),
                    nnz: layer.nnz,
                });
            }
        }
        Ok(space)
    }

    /// Takes over the kernel patterns with which a saved evolution was started.
    pub(super) fn restore<'a>(&mut self, saved: impl Iterator<Item = &'a Identity>) {
        let layers = saved
            .zip(self.layers())
            .map(|(saved, spec)| saved.layer(spec));
        self.plan = ResolvedPlan::new(layers.collect());
    }

    pub(super) fn plan(&self) -> &ResolvedPlan {
        &self.plan
    }

    pub(super) fn layers(&self) -> &[ResolvedLayer] {
        self.plan.layers()
    }

    pub(super) fn len(&self) -> usize {
        self.most.len()
    }

    /// The most sparsity of a layer.
    pub(super) fn most(&self, at: usize) -> f64 {
        self.most[at]
    }

    /// A layer with the budget of a sparsity.
    pub(super) fn layer_at(&self, at: usize, sparsity: f64) -> Result<ResolvedLayer, EvolveError> {
        let mut layer = self.layers()[at].clone();
        // At its most the plan's own budget holds, so that counts are exact.
        if sparsity < self.most[at] {
            layer.sparsity = layer.sparsity.at(sparsity);
            let nnz = layer.sparsity.nnz(layer.view.shape());
            layer.nnz = nnz.map_err(|source| AdmmError::Projection {
                path: layer.path.clone(),
                source: source.into(),
            })?;
        }
        Ok(layer)
    }

    /// The weights that a vector keeps.
    pub(super) fn nnz(&self, sparsities: &[f64]) -> Result<usize, EvolveError> {
        let layers = sparsities.iter().enumerate();
        let counts = layers.map(|(at, &sparsity)| Ok(self.layer_at(at, sparsity)?.nnz));
        counts.sum()
    }

    /// The fraction of all weights that are zero if so many are not.
    pub(super) fn sparsity(&self, nnz: usize) -> f64 {
        1.0 - nnz as f64 / self.plan.weights().max(1) as f64
    }

    /// The vector with its densities changed by one factor, so that it keeps at most `most` weights,
    /// and, where the pattern allows both, at least `least`.
    pub(super) fn fitted(
        &self,
        sparsities: &[f64],
        [least, most]: [usize; 2],
    ) -> Result<Vec<f64>, EvolveError> {
        let nnz = self.nnz(sparsities)?;
        if nnz > most {
            return self.factor(sparsities, [0.0, 1.0], |nnz| nnz <= most);
        }
        if nnz < least {
            let fewest = sparsities.iter().map(|s| 1.0 - s).fold(1.0, f64::min);
            let all = 1.0 / fewest.max(f64::EPSILON);
            let enough = self.factor(sparsities, [all, 1.0], |nnz| nnz >= least)?;
            if self.nnz(&enough)? <= most {
                return Ok(enough);
            }
        }
        Ok(sparsities.to_vec())
    }

    /// By the factor nearest to the second end at which the count is right, as it is taken to be at the
    /// first.
    fn factor(
        &self,
        sparsities: &[f64],
        [mut right, mut wrong]: [f64; 2],
        is_right: impl Fn(usize) -> bool,
    ) -> Result<Vec<f64>, EvolveError> {
        for _ in 0..HALVINGS {
            let middle = 0.5 * (right + wrong);
            if is_right(self.nnz(&self.scaled(sparsities, middle))?) {
                right = middle;
            } else {
                wrong = middle;
            }
        }
        Ok(self.scaled(sparsities, right))
    }

    fn scaled(&self, sparsities: &[f64], factor: f64) -> Vec<f64> {
        let scaled = |(s, most): (&f64, &f64)| (1.0 - factor * (1.0 - s)).clamp(0.0, *most);
        sparsities.iter().zip(&self.most).map(scaled).collect()
    }
}
