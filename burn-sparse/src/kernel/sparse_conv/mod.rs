//! Direct sparse convolution after Pietroń and Żurek (section 3): a cube computes one output
//! channel for a tile of output pixels of `sub_batch` images at a time.
//!
//! The cube stages the channel's values and offsets in shared memory, chunk by chunk; each unit
//! then walks the chunk and uses every value, once it is in a register, for all its pixels and all
//! images of its group. The input is stretched, so neighbouring units read neighbouring elements
//! whatever the stride.
//!
//! Weights whose rows share inputs have kernels of their own, see [`panels`](super::panels).

mod config;
mod kernel;
mod launch;
mod select;
mod shape;

pub use config::{ConvKernel, ConvTile};
pub use launch::sparse_conv;

#[cfg(all(test, feature = "cuda"))]
pub(crate) use kernel::sparse_conv_kernel;
pub(crate) use launch::{Layout, launch};
#[cfg(all(test, feature = "cuda"))]
pub(crate) use select::{GPU_TILES, MATRIX_TILES, PANEL_TILES};
pub(crate) use select::{matrix_tiles, panel_tiles};
#[cfg(all(test, feature = "cuda"))]
pub(crate) use shape::ConvShapeCompilationArg;
pub(crate) use shape::{ConvShape, first_image, offset_of, place};
