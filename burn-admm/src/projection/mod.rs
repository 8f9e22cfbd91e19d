//! Constraint sets and the exact Euclidean projections onto them.
//!
//! A projection returns the feasible point nearest to given weights and the mask of the entries it
//! kept. ADMM, masks and the magnitude baselines all use the same ones, one constraint per file.
//!
//! | [`Sparsity`] | projection | what competes | by |
//! |---|---|---|---|
//! | `Unstructured` | [`UnstructuredTopK`] | entries of the weight | magnitude |
//! | `RowBalanced` | [`RowBalancedTopK`] | entries of an output channel | magnitude |
//! | `NofM` | [`NOfMTopK`] | `m` consecutive input channels | magnitude |
//! | `SharedPattern` | [`SharedPatternTopK`] | columns of a band of output channels | norm |
//! | `Filter`, `Channel`, `Column` | [`FilterTopK`], [`ChannelTopK`], [`ColumnTopK`] | those of the weight | norm |
//! | `Connectivity` | [`ConnectivityTopK`] | kernels of the weight | norm |
//! | `Punched` | [`PunchedTopK`] | positions of all blocks | norm |
//! | `KernelPattern` | [`KernelPatternTopK`] | patterns of a kernel, then kernels | norm of what is left |
//! | `BlockColumnRow` | [`BlockColumnRowSearch`] | rows and columns of a block | norm of what is left |
//!
//! All are exact but the last, which is a heuristic, as all published ones are. Norms are sums of
//! squares in f64, and of equal ones the lowest index is kept, so results do not depend on the machine.

mod block_column_row;
mod channel;
mod column;
mod connectivity;
mod filter;
mod groups;
mod kernel_pattern;
mod n_of_m;
mod parts;
mod pool;
mod punched;
mod row_balanced;
mod shared_pattern;
mod top_k;
mod unstructured;

use burn_sparse::{Pool, SparseError, Sparsity, WeightShape};

use crate::decompose::DecomposeError;

pub(crate) use groups::Grouping;
pub(crate) use kernel_pattern::best_pattern;

pub use block_column_row::BlockColumnRowSearch;
pub use channel::ChannelTopK;
pub use column::ColumnTopK;
pub use connectivity::ConnectivityTopK;
pub use filter::FilterTopK;
pub use kernel_pattern::KernelPatternTopK;
pub use n_of_m::NOfMTopK;
pub use parts::parts_of;
pub use pool::Preferences;
pub use punched::PunchedTopK;
pub use row_balanced::RowBalancedTopK;
pub use shared_pattern::SharedPatternTopK;
pub use unstructured::UnstructuredTopK;

/// The nearest feasible point and the entries that it keeps, both row after row.
#[derive(Debug, Clone, PartialEq, Default)]
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
    /// Kernel patterns that have not been found yet.
    #[error(
        "the {patterns} patterns of the pool have not been found; resolve a plan against the network, \
         or give the pool"
    )]
    PoolNotFound {
        /// Patterns asked for.
        patterns: usize,
    },
    /// Ranks that the weight cannot have, or a decomposition that failed.
    #[error(transparent)]
    Decompose(DecomposeError),
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
/// [`ProjectionError::PoolNotFound`] for kernel patterns that are still to be found (those of a
/// [`ResolvedPlan`](crate::plan::ResolvedPlan) have been), [`ProjectionError::Unsupported`] for a
/// pattern newer than this crate.
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
        Sparsity::SharedPattern { rows, budget } => {
            Ok(Box::new(SharedPatternTopK::new(rows, budget)))
        }
        Sparsity::BlockColumnRow {
            block,
            rows,
            budget,
            search,
        } => Ok(Box::new(BlockColumnRowSearch::new(
            block, rows, budget, search,
        ))),
        Sparsity::Punched {
            filters,
            channels,
            budget,
        } => Ok(Box::new(PunchedTopK::new([filters, channels], budget))),
        Sparsity::KernelPattern {
            pool: Pool::Found(patterns),
            ..
        } => Err(ProjectionError::PoolNotFound { patterns }),
        Sparsity::KernelPattern {
            pool: Pool::Given(pool),
            budget,
        } => Ok(Box::new(KernelPatternTopK::new(pool, budget))),
        Sparsity::Connectivity(budget) => Ok(Box::new(ConnectivityTopK::new(budget))),
        Sparsity::Filter(budget) => Ok(Box::new(FilterTopK::new(budget))),
        Sparsity::Channel(budget) => Ok(Box::new(ChannelTopK::new(budget))),
        Sparsity::Column(budget) => Ok(Box::new(ColumnTopK::new(budget))),
        Sparsity::NofM { n, m } => Ok(Box::new(NOfMTopK::new(n, m))),
        other => Err(ProjectionError::Unsupported(other.to_string())),
    }
}

/// Checks weights against their shape and the constraint against both: the entries that it allows,
/// or nothing if the weight is empty.
fn check(
    weights: &[f32],
    shape: WeightShape,
    sparsity: Sparsity,
) -> Result<Option<usize>, ProjectionError> {
    // In the order in which the shape itself multiplies, so that nothing overflows there.
    let WeightShape {
        rows,
        channels,
        kernel,
    } = shape;
    let len = [kernel[1], channels, rows]
        .into_iter()
        .try_fold(kernel[0], usize::checked_mul);
    if len != Some(weights.len()) {
        let len = weights.len();
        return Err(ProjectionError::Shape { len, shape });
    }
    if let Some(index) = weights.iter().position(|w| !w.is_finite()) {
        let value = weights[index];
        return Err(ProjectionError::NonFinite { index, value });
    }
    let nnz = sparsity.nnz(shape)?;
    Ok((!weights.is_empty()).then_some(nnz))
}

#[cfg(test)]
mod tests;
