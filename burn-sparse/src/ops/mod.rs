//! Sparse operations on [`Tensor`](burn::tensor::Tensor), on every backend.
//!
//! [`SparseOps`] is what a backend implements; [`sparse_conv2d`], [`sparse_conv1d`] and
//! [`sparse_linear`] are what users call, on a [`SparseWeight`] and with an [`Epilogue`].

mod autodiff;
mod base;
#[cfg(feature = "flex")]
mod batch_norm;
mod cell;
mod conv1d;
mod conv2d;
#[cfg(feature = "cubecl-backend")]
mod cube;
mod dense_conv;
mod epilogue;
mod factored;
#[cfg(any(feature = "flex", feature = "cubecl-backend"))]
mod factored_conv;
#[cfg(feature = "flex")]
mod flex;
#[cfg(feature = "flex")]
mod flex_fold;
#[cfg(feature = "flex")]
mod flex_memory;
mod join;
mod linear;
mod max_pool;
mod pattern;
mod shared;
mod weight;

pub use base::{OptionalFloat, OptionalInt, SparseOps};
#[cfg(feature = "flex")]
pub(crate) use batch_norm::batch_norm_train;
#[cfg(feature = "flex")]
pub use batch_norm::{BatchNormOps, MomentsCell};
#[cfg(feature = "flex")]
pub use cell::CellOps;
pub(crate) use cell::{gru_cell, lstm_cell};
pub use conv1d::sparse_conv1d;
pub use conv2d::{ConvWindow, sparse_conv2d};
pub use dense_conv::{DenseOps, dense_conv2d};
pub(crate) use dense_conv::{dense_linear, is_flex};
pub use epilogue::{Activation, Epilogue};
#[cfg(any(feature = "flex", feature = "cubecl-backend"))]
pub use factored::FactoredOps;
#[cfg(any(feature = "flex", feature = "cubecl-backend"))]
pub(crate) use factored::factored_conv2d_by;
pub use factored::{Chains, FactoredBy};
pub(crate) use factored::{FactorTensors, factored_conv2d};
#[cfg(any(feature = "flex", feature = "cubecl-backend"))]
pub use factored_conv::{CoreTiles, FactoredConv, core_tiles};
pub(crate) use join::join;
pub use linear::sparse_linear;
pub use max_pool::max_pool2d;
pub use pattern::Pattern;
#[cfg(feature = "flex")]
pub use shared::SharedOps;
pub use shared::{Coefficients, shared_conv2d};
pub use weight::SparseWeight;
