//! Convolutions by three dense factors, 1×1, core and 1×1.
//!
//! Three kernels write two feature maps to memory and read them back, and on early layers that traffic is
//! more than the undivided convolution has. The fused strip keeps both on the chip: a cube owns some output
//! rows and columns of an image and all of their channels.

mod config;
mod kernel;
mod launch;
mod select;
mod unfused;

pub use config::StripTile;
pub use launch::{FactorTensors, FactoredKernel, factored_conv};
pub use select::strip_tile;

#[cfg(all(test, feature = "cuda"))]
pub(crate) use config::FactorShape;
#[cfg(all(test, feature = "cuda"))]
pub(crate) use kernel::{StripShapeCompilationArg, factored_strip_kernel};
#[cfg(all(test, feature = "cuda"))]
pub(crate) use select::{STRIPS, strip};
