//! Gradients of the sparse convolution for its input and for its values.
//!
//! Both gather: the input's gradient walks the pattern by input channel, the values' gradient
//! reduces over images and pixels. No atomics, so results do not depend on the order of execution.

mod config;
mod input_kernel;
mod input_launch;
mod values_kernel;
mod values_launch;

pub use config::{GradInputTile, GradValuesTile};
pub use input_launch::sparse_conv_grad_input;
pub use values_launch::sparse_conv_grad_values;

#[cfg(all(test, feature = "cuda"))]
pub(crate) use input_kernel::{GradInputShapeCompilationArg, grad_input_kernel};
#[cfg(all(test, feature = "cuda"))]
pub(crate) use values_kernel::{GradValuesShapeCompilationArg, grad_values_kernel};
