//! Sparse layers for Burn.

mod error;
pub mod format;
pub mod problem;
mod sparsity;

pub use error::SparseError;
pub use problem::ConvProblem;
pub use sparsity::{Budget, Sparsity};
