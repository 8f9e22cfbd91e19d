//! The stretched input: padded and split by stride phase, see
//! [`Stretched`](crate::problem::Stretched).

mod kernel;
mod launch;

pub use launch::stretch;

#[cfg(all(test, feature = "cuda"))]
pub(crate) use kernel::{StretchLayout, StretchShapeCompilationArg, stretch_kernel};
