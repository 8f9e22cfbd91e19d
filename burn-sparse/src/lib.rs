//! Sparse layers for Burn.

mod error;
mod sparsity;

pub use error::SparseError;
pub use sparsity::{Budget, Sparsity};
