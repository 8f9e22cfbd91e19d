use burn_sparse::WeightShape;

use super::naive::{spatial as naive_spatial, tucker as naive_tucker};
use super::{DecomposeError, HooiConfig, Ranks, SpatialSvd, Spectra};
use crate::projection::{Projected, Projection, ProjectionError};

/// The weights of given Tucker ranks: `{W : rank W0 ≤ D2, rank W1 ≤ D1}` with the unfoldings by output
/// and by input channels.
///
/// Nearest by the HOOI, which finds a local optimum as every algorithm for this set does: its squared
/// error is at most that of the HOSVD, which is at most twice the smallest possible. Ranks above those of
/// a weight leave it as it is. All entries count as kept: what is few here is channels between.
///
/// Yin et al., CVPR 2021, section 3.3.
///
/// # Example
/// ```
/// use burn_admm::Projection;
/// use burn_admm::decompose::{Ranks, TuckerRank};
/// use burn_sparse::WeightShape;
///
/// let shape = WeightShape::new(4, 4, [3, 3]);
/// let weights: Vec<f32> = (0..144).map(|i| (i as f32 * 0.37).cos()).collect();
/// let near = TuckerRank::new(Ranks::new(2, 2)).project(&weights, shape)?;
/// let again = TuckerRank::new(Ranks::new(2, 2)).project(&near.values, shape)?;
/// let moved = near.values.iter().zip(&again.values).map(|(a, b)| (a - b).abs());
/// assert!(moved.fold(0.0, f32::max) < 1e-5);
/// # Ok::<(), burn_admm::projection::ProjectionError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TuckerRank {
    ranks: Ranks,
    config: HooiConfig,
}

impl TuckerRank {
    /// Onto these ranks.
    pub fn new(ranks: Ranks) -> Self {
        Self {
            ranks,
            config: HooiConfig::default(),
        }
    }

    /// With other settings of the HOOI.
    #[must_use]
    pub fn with_config(mut self, config: HooiConfig) -> Self {
        self.config = config;
        self
    }

    /// The ranks.
    pub fn ranks(&self) -> Ranks {
        self.ranks
    }
}

impl From<DecomposeError> for ProjectionError {
    fn from(error: DecomposeError) -> Self {
        match error {
            DecomposeError::NonFinite { index, value } => Self::NonFinite { index, value },
            DecomposeError::Shape { len, shape } => Self::Shape { len, shape },
            other => Self::Decompose(other),
        }
    }
}

impl Projection for TuckerRank {
    fn project(&self, weights: &[f32], shape: WeightShape) -> Result<Projected, ProjectionError> {
        if weights.is_empty() && shape.rows * shape.row_len() == 0 {
            return Ok(Projected::default());
        }
        let spectra = Spectra::new(weights, shape)?;
        let tucker = spectra.hooi(self.ranks, self.config)?;
        // A weight that has these ranks already is returned bit for bit: rounding to f32 leaves traces
        // of about this size.
        let kept = tucker.relative_error() < 4.0 * f64::from(f32::EPSILON);
        Ok(Projected {
            values: if kept {
                weights.to_vec()
            } else {
                tucker.reconstruct()
            },
            mask: vec![true; weights.len()],
        })
    }

    fn project_naive(
        &self,
        weights: &[f32],
        shape: WeightShape,
    ) -> Result<Projected, ProjectionError> {
        // For its errors.
        Spectra::new(weights, shape)?;
        self.ranks.check(shape)?;
        Ok(Projected {
            values: naive_tucker(weights, shape, self.ranks, self.config.iterations),
            mask: vec![true; weights.len()],
        })
    }
}

/// The weights that a convolution along columns and one along rows can make with so many channels between:
/// `{W : rank M(W) ≤ d}`, with `M` the weight as a matrix `(C·R) × (N·S)`.
///
/// Exactly the nearest, by the truncated SVD ([`SpatialSvd`]). Ranks above those of a weight leave it as it is.
/// All entries count as kept.
///
/// # Example
/// ```
/// use burn_admm::Projection;
/// use burn_admm::decompose::SpatialRank;
/// use burn_sparse::WeightShape;
///
/// let shape = WeightShape::new(4, 4, [3, 3]);
/// let weights: Vec<f32> = (0..144).map(|i| (i as f32 * 0.37).cos()).collect();
/// let near = SpatialRank::new(2).project(&weights, shape)?;
/// let again = SpatialRank::new(2).project(&near.values, shape)?;
/// let moved = near.values.iter().zip(&again.values).map(|(a, b)| (a - b).abs());
/// assert!(moved.fold(0.0, f32::max) < 1e-5);
/// # Ok::<(), burn_admm::projection::ProjectionError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpatialRank {
    rank: usize,
}

impl SpatialRank {
    /// Onto so many channels between.
    pub fn new(rank: usize) -> Self {
        Self { rank }
    }

    /// Channels between.
    pub fn rank(&self) -> usize {
        self.rank
    }
}

impl Projection for SpatialRank {
    fn project(&self, weights: &[f32], shape: WeightShape) -> Result<Projected, ProjectionError> {
        if weights.is_empty() && shape.rows * shape.row_len() == 0 {
            return Ok(Projected::default());
        }
        let spatial = SpatialSvd::new(weights, shape, self.rank)?;
        // As for Tucker ranks; what is left of the energy is a difference of two sums, and rounds as they do.
        let kept = spatial.factors().relative_error() < 4.0 * f64::from(f32::EPSILON);
        Ok(Projected {
            values: if kept {
                weights.to_vec()
            } else {
                spatial.reconstruct()
            },
            mask: vec![true; weights.len()],
        })
    }

    fn project_naive(
        &self,
        weights: &[f32],
        shape: WeightShape,
    ) -> Result<Projected, ProjectionError> {
        // For its errors.
        SpatialSvd::new(weights, shape, self.rank)?;
        Ok(Projected {
            values: naive_spatial(weights, shape, self.rank),
            mask: vec![true; weights.len()],
        })
    }
}
