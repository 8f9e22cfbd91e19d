//! Kernels in `CubeCL`: one source for CUDA, `ROCm`, Vulkan, Metal, `WebGPU` and its CPU runtime.
//!
//! Each operation has the same rooms: `config` (the tile, known when the kernel is compiled, with
//! its rules), `kernel` (device code), `launch` (host side, the only unsafe code) and `select`
//! (which tile, measured once per shape and remembered).
//!
//! The functions here work on [`CubeTensor`](burn_cubecl::tensor::CubeTensor)s and panic on wrong
//! shapes; most users want the functions on tensors in `ops` instead.
//!
//! Indices are data, so no kernel trusts them: row pointers, offsets and columns are brought into
//! bounds when they are loaded, once per entry and not once per use. A wrong index gives wrong
//! numbers, never an access outside of a tensor.

mod base;
pub mod core_conv;
mod factored;
mod finish;
mod panels;
mod sparse_conv;
mod sparse_conv_grad;
mod sparse_linear;
mod stretch;

#[cfg(all(test, feature = "cuda"))]
mod hopper;

pub use base::{Choice, Entries, Epilogue};
pub use core_conv::{
    CatalogueTimes, CoreEstimate, CoreHardware, CoreTile, TileTime, catalogue_times, core_conv,
    core_weight,
};
pub use factored::{FactorTensors, FactoredKernel, StripTile, factored_conv, strip_tile};
pub use panels::{MatrixTile, PanelTile, Panels};
pub use sparse_conv::{ConvKernel, ConvTile, sparse_conv};
pub use sparse_conv_grad::{
    GradInputTile, GradValuesTile, sparse_conv_grad_input, sparse_conv_grad_values,
};
pub use sparse_linear::{Codes, GatherTile, LinearTile, sparse_linear};
pub use stretch::stretch;
