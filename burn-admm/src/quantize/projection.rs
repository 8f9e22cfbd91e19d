use burn_sparse::WeightShape;

use super::{Grid, Quantization, QuantizeError, Scope};
use crate::projection::{Projected, Projection, ProjectionError};

/// The nearest weights that are zero where they were pruned and on levels elsewhere:
/// `{W : W_i = 0 where i is pruned, W_i ∈ L elsewhere}`, where the levels `L` are fitted to the weights
/// at hand, for the whole weight or for every output channel.
///
/// Ren et al., "ADMM-NN" (ASPLOS 2019), section 3.2. What is kept does not depend on the weights: the
/// projection never brings a pruned weight back.
#[derive(Debug, Clone, PartialEq)]
pub struct OnGrid {
    quantization: Quantization,
    /// Row after row.
    keep: Vec<bool>,
}

impl OnGrid {
    /// Levels for the weights that are kept, row after row.
    pub fn new(quantization: Quantization, keep: Vec<bool>) -> Self {
        Self { quantization, keep }
    }

    /// The levels of each output channel, or of the whole weight.
    ///
    /// # Errors
    /// As [`project`](Projection::project).
    pub fn grids(&self, weights: &[f32], shape: WeightShape) -> Result<Vec<Grid>, ProjectionError> {
        self.grids_by(weights, shape, Quantization::fit)
    }

    fn grids_by(
        &self,
        weights: &[f32],
        shape: WeightShape,
        fit: impl Fn(Quantization, &[f32]) -> Result<Grid, QuantizeError>,
    ) -> Result<Vec<Grid>, ProjectionError> {
        let row_len = self.check(weights, shape)?;
        let mut grids = Vec::new();
        let runs = weights.chunks(row_len).zip(self.keep.chunks(row_len));
        for (run, (weights, keep)) in runs.enumerate() {
            let kept = weights.iter().zip(keep).filter(|(_, keep)| **keep);
            let kept: Vec<f32> = kept.map(|(w, _)| *w).collect();
            grids.push(fit(self.quantization, &kept).map_err(|error| match error {
                QuantizeError::NonFinite { value, .. } => {
                    let mut kept = weights.iter().zip(keep);
                    let at = kept.position(|(w, keep)| *keep && !w.is_finite());
                    let index = run * row_len + at.unwrap_or(0);
                    ProjectionError::NonFinite { index, value }
                }
                other => ProjectionError::Unsupported(other.to_string()),
            })?);
        }
        Ok(grids)
    }

    /// Weights that share levels.
    fn check(&self, weights: &[f32], shape: WeightShape) -> Result<usize, ProjectionError> {
        let len = weights.len();
        if len != shape.rows * shape.row_len() || len != self.keep.len() {
            return Err(ProjectionError::Shape { len, shape });
        }
        Ok(match self.quantization.scope() {
            Scope::Layer => len.max(1),
            Scope::Channel => shape.row_len().max(1),
        })
    }

    fn project_by(
        &self,
        weights: &[f32],
        shape: WeightShape,
        fit: impl Fn(Quantization, &[f32]) -> Result<Grid, QuantizeError>,
    ) -> Result<Projected, ProjectionError> {
        let grids = self.grids_by(weights, shape, fit)?;
        let run = self.check(weights, shape)?;
        let values = weights.iter().zip(&self.keep).enumerate();
        let values =
            values.map(|(i, (&w, &keep))| if keep { grids[i / run].nearest(w) } else { 0.0 });
        Ok(Projected {
            values: values.collect(),
            mask: self.keep.clone(),
        })
    }
}

impl Projection for OnGrid {
    fn project(&self, weights: &[f32], shape: WeightShape) -> Result<Projected, ProjectionError> {
        self.project_by(weights, shape, Quantization::fit)
    }

    fn project_naive(
        &self,
        weights: &[f32],
        shape: WeightShape,
    ) -> Result<Projected, ProjectionError> {
        self.project_by(weights, shape, Quantization::fit_naive)
    }
}
