//! Why a line is no layer, or a layer cannot be measured.

use burn_sparse::SparseError;

use super::layer::MAX_NAME;
use super::{MAX_ELEMENTS, MAX_MACS};

/// Why a line is no layer, or a layer cannot be measured.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LayerError {
    /// A word without `=` that is not the name.
    #[error("{0:?} is no key=value; only the name, which comes first, stands alone")]
    Word(String),
    /// A name that would spoil a table or a file name.
    #[error("a name has at most {MAX_NAME} printable characters, this one {0}")]
    Name(usize),
    /// No such kind.
    #[error("unknown kind {0:?}; choose conv, conv1d or linear")]
    Kind(String),
    /// A key that this kind does not have.
    #[error("{kind} has no key {key:?}; it has kind, {known}")]
    UnknownKey {
        /// The kind.
        kind: &'static str,
        /// The key.
        key: String,
        /// Its keys.
        known: String,
    },
    /// A key given twice.
    #[error("{0} is given twice")]
    Twice(String),
    /// A key that is missing.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// A value that is no number, or no pair of them.
    #[error("{key}={value}: expected {expected}")]
    Value {
        /// The key.
        key: &'static str,
        /// What was written.
        value: String,
        /// What could have been.
        expected: &'static str,
    },
    /// A number outside its range.
    #[error("{key}={value}: must lie between {min} and {max}")]
    Range {
        /// The key.
        key: &'static str,
        /// The number.
        value: String,
        /// Least.
        min: usize,
        /// Most.
        max: u64,
    },
    /// A tensor that is too large.
    #[error("{what} has {elements} elements, more than {MAX_ELEMENTS}")]
    TooLarge {
        /// Which tensor.
        what: &'static str,
        /// Its elements.
        elements: u128,
    },
    /// Too much to compute.
    #[error("{macs} multiply-adds for one run, more than {MAX_MACS}")]
    TooLong {
        /// Multiply-adds of the dense layer.
        macs: u128,
    },
    /// A layer that has no such size.
    #[error("a {kind} layer has no {what}")]
    NotApplicable {
        /// The kind.
        kind: &'static str,
        /// What it lacks.
        what: &'static str,
    },
    /// Numbers that are no convolution.
    #[error(transparent)]
    Geometry(#[from] SparseError),
}
