//! Sparse product `x [m, d] -> [m, rows]`, in two ways, each for single entries and for
//! [panels](super::panels).
//!
//! - *Gather*: a few units share a row, stride over its entries and add up what they find; each
//!   value is used for a tile of inputs. It parallelises over rows and entries, and serves small
//!   `m`, down to a single vector.
//! - *Stream*: `x` is transposed, and the product is a sparse convolution of one image whose pixels
//!   are the `m` inputs. Loads of neighbouring units are neighbours; it serves large `m`.
//!
//! For values of few levels there is a gathering product that reads codes of up to 8 bits instead
//! ([`CodedEntries`]): a quarter of the bytes of values, or less.

mod coded_kernel;
mod coded_launch;
mod config;
mod kernel;
mod launch;
mod select;

pub use coded_launch::{CodedEntries, coded_linear};
pub use config::{GatherTile, LinearTile};
pub(crate) use launch::dims;
pub use launch::sparse_linear;

#[cfg(all(test, feature = "cuda"))]
pub(crate) use coded_kernel::{Coding, coded_linear_kernel};
pub(crate) use kernel::{LinearShape, LinearShapeLaunch, add_lanes};
#[cfg(all(test, feature = "cuda"))]
pub(crate) use kernel::{LinearShapeCompilationArg, sparse_linear_kernel};
#[cfg(all(test, feature = "cuda"))]
pub(crate) use select::{GATHER_TILES, PANEL_GATHER_TILES};
