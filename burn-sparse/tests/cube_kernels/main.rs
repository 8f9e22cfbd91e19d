//! The CubeCL kernels against plain f64 loops, on every device this machine has for them.
//!
//! One binary for all devices: Vulkan's CPU device (lavapipe) and CubeCL's CPU runtime. A device
//! that is missing is a skip, named on the output, and a failure if `BURN_SPARSE_REQUIRE` asks for
//! it (`BURN_SPARSE_REQUIRE=vulkan,cpu`).
#![cfg(feature = "cubecl-backend")]

mod coded;
mod conv;
mod core_conv;
mod factored;
mod grad;
mod linear;
mod panels;
mod support;
mod tensors;
