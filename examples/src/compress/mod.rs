//! What the example `lenet5_compress` does: prune, quantise, store, and judge what came back from the
//! file.

mod cell;
mod file;
mod plans;
mod table;

pub use cell::{Cell, Setting, one_cell};
pub use file::{FILE, FromFile, from_file};
pub use plans::{Levels, defaults, prune_plan};
pub use table::Table;
