//! Compressed weights on the host: validated constructors, no device code.
//!
//! | format | holds | made for |
//! |---|---|---|
//! | [`Csr`] | the columns and values of each row | any zeros; what kernels and files start from |
//! | [`BlockPanels`] | dense panels within blocks | block column-row pruning; GPUs and CPUs |
//! | [`Bcrc`] | rows grouped by their columns, each list once | bands of rows that share columns; small files |
//! | [`PatternKernels`] | a pattern and four values for each 3×3 kernel that stays | kernel patterns with connectivity |
//! | [`Punched`] | a bit for each kernel position of a block, and dense values | block-punched pruning |
//!
//! All are made from a [`Csr`] and give it back. Layers compute from a [`Csr`], whatever they were pruned by:
//! what rows share is found in it, for CPUs by [`Sharing`](crate::cpu::Sharing). The other four are what
//! [checkpoints](crate::store) take their smallest index from, and for exchange with other programs. What the papers
//! leave open of BCRC and of pattern storage is filled in here; their own files were never published. [`PanelEntries`] and [`CodeWords`] are no formats but
//! indices beside one, for kernels: which rows of a [`Csr`] read the same inputs, and its values as codes.

mod alike;
mod bcrc;
mod code_words;
mod csr;
mod kernel_pattern;
mod panel_entries;
mod panels;
mod punched;
#[cfg(test)]
mod testing;

pub(crate) use alike::{Alike, alike};
pub use bcrc::{Bcrc, RawBcrc};
pub use code_words::CodeWords;
pub use csr::Csr;
pub use kernel_pattern::{PatternKernels, RawPatternKernels};
pub use panel_entries::PanelEntries;
pub use panels::{BlockPanels, PanelView, RawPanels};
pub use punched::{Punched, RawPunched};
