//! Direct convolution of few channels after TDC (Xiang et al., `PPoPP` 2023): the core of a Tucker
//! decomposition.
//!
//! With few output channels an implicit matrix product has a tile or two along them and most of a card
//! idles. TDC gives each unit one output channel and a small tile of pixels instead, and reads each input
//! once for all of them. [`model`] chooses tiles without measuring; [`catalogue_times`] says how far from
//! the best measured one that choice is.

mod config;
mod kernel;
mod launch;
pub mod model;
mod select;

pub use config::CoreTile;
pub use launch::{core_conv, core_weight};
pub use model::{CoreEstimate, CoreHardware};
pub use select::{CatalogueTimes, TileTime, catalogue_times};

pub(crate) use config::CoreWindow;
#[cfg(all(test, feature = "cuda"))]
pub(crate) use kernel::{
    CoreShapeCompilationArg, SplitShapeCompilationArg, add_splits_kernel, core_conv_kernel,
};
pub(crate) use launch::try_core_conv;
#[cfg(all(test, feature = "cuda"))]
pub(crate) use model::{KEPT, tile_of};
#[cfg(all(test, feature = "cuda"))]
pub(crate) use select::GPU_TILES as CORE_TILES;
