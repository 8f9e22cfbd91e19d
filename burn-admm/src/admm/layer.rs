use std::sync::Arc;

use super::set::Set;
use crate::MatrixView;
use crate::decompose::{FactorKind, SpatialRank, TuckerRank};
use crate::plan::ResolvedLayer;
use crate::projection::{Projected, Projection, ProjectionError, parts_of};
use crate::quantize::OnGrid;

/// A constrained parameter and the sets whose intersection is its constraint.
#[derive(Debug)]
pub(super) struct Layer {
    pub(super) spec: ResolvedLayer,
    /// At least one.
    pub(super) sets: Vec<Set>,
}

impl Layer {
    /// `Z = Π(W)` and `U = 0` for every set.
    pub(super) fn new(spec: ResolvedLayer, weights: &[f32]) -> Result<Self, ProjectionError> {
        let sets = parts_of(spec.sparsity)
            .into_iter()
            .map(|part| Set::new(&spec, part)?.start(weights))
            .collect::<Result<_, _>>()?;
        Ok(Self { spec, sets })
    }

    /// The same for levels on the weights that are kept, in storage order.
    pub(super) fn on_levels(
        spec: ResolvedLayer,
        keep: &[bool],
        weights: &[f32],
    ) -> Result<Self, ProjectionError> {
        let quantization = spec.quantization.expect("a layer with levels");
        let projection = Arc::new(OnGrid::new(quantization, spec.view.gather(keep)));
        let set = Set::with(&spec, spec.sparsity, projection)?.start(weights)?;
        let sets = vec![set];
        Ok(Self { spec, sets })
    }

    /// The same for few channels between.
    pub(super) fn of_ranks(spec: ResolvedLayer, weights: &[f32]) -> Result<Self, ProjectionError> {
        let ranks = spec.ranks.expect("a layer with ranks");
        let set = match spec.factors {
            FactorKind::Spatial => {
                let rank = ranks.output.min(ranks.input);
                Set::with(&spec, spec.sparsity, Arc::new(SpatialRank::new(rank)))?
            }
            _ => Set::with(&spec, spec.sparsity, Arc::new(TuckerRank::new(ranks)))?,
        };
        let sets = vec![set.start(weights)?];
        Ok(Self { spec, sets })
    }

    /// The sets of a saved state of this layer, still empty; `spec` has its kernel patterns.
    pub(super) fn emptied(&self, spec: &ResolvedLayer) -> Result<Vec<Set>, ProjectionError> {
        if spec.quantization.is_some() || spec.ranks.is_some() {
            return self.sets.iter().map(|set| set.emptied(spec)).collect();
        }
        let parts = parts_of(spec.sparsity).into_iter();
        parts.map(|part| Set::new(spec, part)).collect()
    }

    /// The largest primal residual of its sets: weights are as far from the constraint as from the
    /// farthest set, at least.
    pub(super) fn primal(&self) -> f64 {
        self.sets.iter().map(|set| set.primal).fold(0.0, f64::max)
    }
}

/// Projects a weight in storage order; the result is in storage order too.
pub(crate) fn project(
    projection: &dyn Projection,
    view: &MatrixView,
    stored: &[f32],
) -> Result<Projected, ProjectionError> {
    let rows = view.gather(stored);
    let projected = projection.project(&rows, view.shape())?;
    Ok(Projected {
        values: view.scatter(&projected.values),
        mask: view.scatter(&projected.mask),
    })
}
