//! Why something could not be measured at all.

use std::path::PathBuf;

use burn_sparse::SparseError;

use super::{LayerError, SuiteError};
use crate::device::DeviceError;
use crate::infer::InferError;
use crate::output::OutputError;

/// What ends a bench. A single row that fails becomes a row with the reason instead.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BenchError {
    /// Arguments that do not go together, or leave nothing to do.
    #[error("{0}")]
    Settings(String),
    /// The suite.
    #[error(transparent)]
    Suite(#[from] SuiteError),
    /// A layer of the command line.
    #[error("--layer {text:?}: {source}")]
    Layer {
        /// What was written.
        text: String,
        /// What is wrong with it.
        source: LayerError,
    },
    /// The regular expression of `--layer`.
    #[error("--layer: {0}")]
    Regex(#[from] regex::Error),
    /// The device.
    #[error(transparent)]
    Selection(#[from] DeviceError),
    /// The device reported an error.
    #[error("the device failed while it was measured: {0}")]
    Device(String),
    /// A pool of threads could not be made.
    #[error("threads: {0}")]
    Threads(#[from] rayon::ThreadPoolBuildError),
    /// Weights that cannot be packed.
    #[error(transparent)]
    Sparse(#[from] SparseError),
    /// The whole network could not be packed.
    #[error(transparent)]
    Network(#[from] InferError),
    /// A report that cannot be read, or is none.
    #[error("{}: {reason}", path.display())]
    Report {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Writing failed.
    #[error(transparent)]
    Output(#[from] OutputError),
    /// Drawing failed.
    #[error("drawing: {0}")]
    Plot(String),
}
