//! Sparse products of weights whose rows share inputs: a cube computes a band of rows, and each input
//! that is loaded serves all rows of its panel (the load redundancy elimination of GRIM, Niu et al.,
//! TPAMI 2021; see [`PanelEntries`](crate::format::PanelEntries)).
//!
//! Where single entries load one input for each multiplication, a panel of eight rows loads one for
//! eight. There are three ways, chosen beside those of single entries:
//!
//! - *plain*: a unit owns pixels, and keeps in registers a sum for each row of the band, pixel and
//!   image. Which rows a panel has is the same for all units, so nothing diverges, and what a row does
//!   not have is not multiplied.
//! - *matrix units*: the columns of a band, one panel behind the other, are gathered into shared memory
//!   and multiplied tile by tile, filled up with zeros to what the matrix units take. For f16 and bf16;
//!   sums are f32. An input that is infinite or NaN reaches all rows of a band there, as in a dense
//!   convolution.
//! - *gathered*, for products with few inputs: units share a band and stride over its columns.

mod config;
mod device;
mod gather;
mod gather_launch;
mod index;
mod launch;
mod matrix;
mod plain;

pub(crate) use config::{MAX_SUMS, first_broken};
pub use config::{MatrixTile, PanelTile};
pub use device::Panels;
pub(crate) use gather_launch::launch as gather;
pub(crate) use launch::{matrix, plain};

#[cfg(all(test, feature = "cuda"))]
pub(crate) use gather::panel_linear_kernel;
#[cfg(all(test, feature = "cuda"))]
pub(crate) use index::PanelShapeCompilationArg;
#[cfg(all(test, feature = "cuda"))]
pub(crate) use matrix::panel_matrix_kernel;
#[cfg(all(test, feature = "cuda"))]
pub(crate) use plain::panel_conv_kernel;
