//! Constraint sets and the exact Euclidean projections onto them.
//!
//! A projection returns the feasible point nearest to given weights and the mask of the entries it
//! kept. ADMM, masks and the magnitude baselines all use the same ones, one constraint per file.

mod row_balanced;
mod top_k;
mod unstructured;

use burn_sparse::{SparseError, Sparsity, WeightShape};

pub use row_balanced::RowBalancedTopK;
pub use unstructured::UnstructuredTopK;

/// The nearest feasible point and the entries that it keeps, both row after row.
#[derive(Debug, Clone, PartialEq)]
pub struct Projected {
    /// The feasible weights: kept entries bit for bit as they were, all others `+0.0`.
    pub values: Vec<f32>,
    /// `true` where the entry is kept. A kept weight may itself be zero, so this says more than
    /// `values != 0`.
    pub mask: Vec<bool>,
}

impl Projected {
    fn keep(weights: &[f32], mask: Vec<bool>) -> Self {
        let values = weights
            .iter()
            .zip(&mask)
            .map(|(&w, &keep)| if keep { w } else { 0.0 })
            .collect();
        Self { values, mask }
    }

    /// Entries kept.
    pub fn nnz(&self) -> usize {
        self.mask.iter().filter(|&&keep| keep).count()
    }
}

/// Why weights could not be projected.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProjectionError {
    /// A NaN or an infinity: no point is nearest to it.
    #[error(
        "weight {index} is {value}; lower the learning rate or rho, or start from a sound checkpoint"
    )]
    NonFinite {
        /// Index of the first offender, row after row.
        index: usize,
        /// Its value.
        value: f32,
    },
    /// The weights do not fill the matrix.
    #[error("{len} weights do not fill {shape}")]
    Shape {
        /// Weights given.
        len: usize,
        /// What they should fill.
        shape: WeightShape,
    },
    /// A budget that the weight cannot hold, or that is out of range.
    #[error(transparent)]
    Budget(#[from] SparseError),
    /// A pattern that this version has no projection for.
    #[error("no projection onto `{0}` in this version; use unstructured or row-balanced sparsity")]
    Unsupported(String),
}

/// A set of allowed weights with its exact Euclidean projection.
///
/// Weights are a matrix of output channels, row after row, each row channel by channel with the
/// positions of its kernel inside (see [`MatrixView`](crate::MatrixView) for other layouts).
pub trait Projection: core::fmt::Debug + Send + Sync {
    /// The feasible point nearest to `weights` in the Euclidean norm, and its mask. Among equally
    /// near points, the one that keeps the lowest indices.
    ///
    /// # Errors
    /// [`ProjectionError`] for non-finite weights, weights that do not fill the matrix, and
    /// budgets that the matrix cannot hold.
    fn project(&self, weights: &[f32], shape: WeightShape) -> Result<Projected, ProjectionError>;

    /// The same by the plainest possible code: the oracle of the tests.
    ///
    /// # Errors
    /// As [`project`](Self::project).
    fn project_naive(
        &self,
        weights: &[f32],
        shape: WeightShape,
    ) -> Result<Projected, ProjectionError>;
}

/// The projection onto the weights that a [`Sparsity`] allows.
///
/// # Errors
/// [`ProjectionError::Unsupported`] for a pattern newer than this crate.
///
/// # Example
/// ```
/// use burn_admm::projection::projection_of;
/// use burn_sparse::{Sparsity, WeightShape};
///
/// let projection = projection_of(Sparsity::row_balanced(0.5)?)?;
/// let projected = projection.project(&[1.0, -3.0, 0.5, 0.25], WeightShape::matrix(2, 2))?;
/// assert_eq!(projected.values, [0.0, -3.0, 0.5, 0.0]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn projection_of(sparsity: Sparsity) -> Result<Box<dyn Projection>, ProjectionError> {
    match sparsity {
        Sparsity::Unstructured(budget) => Ok(Box::new(UnstructuredTopK::new(budget))),
        Sparsity::RowBalanced(budget) => Ok(Box::new(RowBalancedTopK::new(budget))),
        other => Err(ProjectionError::Unsupported(other.to_string())),
    }
}

fn check(weights: &[f32], shape: WeightShape) -> Result<(), ProjectionError> {
    let WeightShape {
        rows,
        channels,
        kernel,
    } = shape;
    let len = [channels, kernel[0], kernel[1]]
        .into_iter()
        .try_fold(rows, usize::checked_mul);
    if len != Some(weights.len()) {
        let len = weights.len();
        return Err(ProjectionError::Shape { len, shape });
    }
    match weights.iter().position(|w| !w.is_finite()) {
        Some(index) => Err(ProjectionError::NonFinite {
            index,
            value: weights[index],
        }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
