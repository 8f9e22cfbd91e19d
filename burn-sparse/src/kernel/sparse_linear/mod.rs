//! Sparse product `x [m, d] -> [m, rows]`, in two ways, each for single entries and for
//! [panels](super::panels).
//!
//! - *Gather*: a few units share a row, stride over its entries and add up what they find; each
//!   value is used for a tile of inputs. It parallelises over rows and entries, and serves small
//!   `m`, down to a single vector.
//! - *Stream*: `x` is transposed, and the product is a sparse convolution of one image whose pixels
//!   are the `m` inputs. Loads of neighbouring units are neighbours; it serves large `m`.
//!
//! Values of few levels may be gathered as codes of up to 8 bits ([`Codes`]): a quarter of the bytes, or
//! less. Codes become numbers in registers, integers by arithmetic, others by a table that stays in the
//! nearest cache.

mod codes;
mod coding;
mod config;
mod gathering;
mod kernel;
mod launch;
mod select;

pub use codes::Codes;
pub(crate) use codes::codes_of;
pub(crate) use coding::{Coding, scale_of, value_of};
pub use config::{GatherTile, LinearTile};
pub(crate) use gathering::Gathering;
pub use launch::sparse_linear;

pub(crate) use kernel::{LinearShape, add_lanes};
#[cfg(all(test, feature = "cuda"))]
pub(crate) use kernel::{LinearShapeCompilationArg, sparse_linear_kernel};
#[cfg(all(test, feature = "cuda"))]
pub(crate) use select::{GATHER_TILES, PANEL_GATHER_TILES};
