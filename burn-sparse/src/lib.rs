//! Sparse layers for Burn.

mod error;
pub mod format;
#[cfg(feature = "cubecl-backend")]
pub mod kernel;
pub mod problem;
mod sparsity;

pub use error::SparseError;
pub use problem::ConvProblem;
pub use sparsity::{Budget, Sparsity};
