//! Sparse layers for Burn.

pub mod cpu;
mod error;
pub mod format;
pub mod nn;
pub mod ops;
pub mod problem;
mod sparsity;
pub mod store;

pub use error::SparseError;
pub use problem::ConvProblem;
pub use sparsity::{Budget, Sparsity};
