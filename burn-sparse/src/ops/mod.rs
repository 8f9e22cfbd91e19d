//! Sparse operations on [`Tensor`](burn::tensor::Tensor), on every backend.
//!
//! [`SparseOps`] is what a backend implements; the functions of this module are what users call.

mod base;

pub use base::SparseOps;
