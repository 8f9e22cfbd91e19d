//! What the examples `lenet5_compress` and `compressed_size` do: prune, quantise, store, and judge what
//! came back from the file.

mod cell;
mod file;
mod halves;
mod plans;
mod size;
mod table;

pub use cell::{Cell, PrunedCell, Setting, prune_cell, quantise_cell};
pub use file::{FILE, FromFile, from_file};
pub use plans::{Levels, defaults, prune_plan, published_ratio, ratio};
pub use size::{Size, normal_weights, size_of};
pub use table::Table;
