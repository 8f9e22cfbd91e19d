//! From weights to what is needed: constants forward, need backward.

mod classes;
mod keep;
mod layers;
mod values;

use classes::Classes;
use values::Values;

pub(super) use keep::{Analysis, Cause, Sink};
pub(super) use layers::{Layer, Matrix, NORM, layers, nearest, parameter};
