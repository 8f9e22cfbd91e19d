use std::path::PathBuf;

use burn::tensor::TensorReadError;

use crate::plan::PlanError;
use crate::projection::ProjectionError;

/// What showed that training diverges.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Divergence {
    /// The loss is a NaN or an infinity.
    Loss(f64),
    /// A weight is a NaN or an infinity.
    Weight {
        /// Its index in storage order.
        index: usize,
        /// Its value.
        value: f32,
    },
    /// `‖U‖ / ‖W‖` is beyond its limit and has kept growing.
    GrowingDual {
        /// `‖U‖ / ‖W‖`.
        ratio: f64,
        /// The limit.
        limit: f64,
    },
}

impl Divergence {
    fn advice(&self) -> &'static str {
        match self {
            Self::Loss(_) | Self::Weight { .. } => {
                "lower the learning rate or rho and resume from an earlier state"
            }
            Self::GrowingDual { .. } => {
                "the weights do not follow: raise rho, train longer between updates or ask for less \
                 sparsity"
            }
        }
    }
}

impl core::fmt::Display for Divergence {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Loss(loss) => write!(f, "the loss is {loss}"),
            Self::Weight { index, value } => write!(f, "weight {index} is {value}"),
            Self::GrowingDual { ratio, limit } => {
                write!(
                    f,
                    "the dual keeps growing: ‖U‖/‖W‖ = {ratio:.3e}, beyond {limit:.3e}"
                )
            }
        }
    }
}

/// What can go wrong while pruning.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AdmmError {
    /// A setting out of range.
    #[error("ADMM settings: {0}")]
    Config(String),
    /// A plan that does not fit the model.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// A plan that leaves nothing to do.
    #[error(
        "the plan constrains no parameter of this model; print `plan.explain(&model)` to see why"
    )]
    NothingConstrained,
    /// Training diverges.
    #[error(
        "diverged in outer iteration {iteration} at layer `{layer}` (primal residual \
         {residual:.3e}): {cause}; {}", .cause.advice()
    )]
    Diverged {
        /// Outer iteration, counted from 1, in which it happened.
        iteration: usize,
        /// The layer; for a loss, the one with the largest primal residual.
        layer: String,
        /// The layer's primal residual `‖W − Z‖ / ‖W‖` when it was last known.
        residual: f64,
        /// What showed it.
        cause: Divergence,
    },
    /// A constrained parameter that the model given does not have, or has in another shape.
    #[error("parameter `{path}`: expected shape {expected:?}, the model has {}", shape(.found))]
    Model {
        /// The parameter.
        path: String,
        /// Shape when the plan was resolved.
        expected: Vec<usize>,
        /// Shape now, if it is there at all.
        found: Option<Vec<usize>>,
    },
    /// Weights that cannot be projected.
    #[error("parameter `{path}`: {source}")]
    Projection {
        /// The parameter.
        path: String,
        /// Why not.
        source: ProjectionError,
    },
    /// A tensor that could not be read from its device.
    #[error("reading parameter `{path}`: {source}")]
    Read {
        /// The parameter.
        path: String,
        /// The device's answer.
        source: TensorReadError,
    },
    /// A saved state that cannot be written or read back.
    #[error(transparent)]
    State(#[from] StateError),
}

impl From<(String, TensorReadError)> for AdmmError {
    fn from((path, source): (String, TensorReadError)) -> Self {
        Self::Read { path, source }
    }
}

fn shape(found: &Option<Vec<usize>>) -> String {
    found
        .as_ref()
        .map_or("no such parameter".to_owned(), |shape| format!("{shape:?}"))
}

/// Why a saved state of training cannot be written or read back.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// Reading or writing failed.
    #[error("{}: {source}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// Not a state file, or one that is cut short or altered.
    #[error("{}: {reason}; use an intact copy or start afresh", .path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A state of another version of the format.
    #[error("{}: version {found} of the state format, this crate reads up to {expected}", .path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u64,
        /// The newest version that can be read.
        expected: u64,
    },
    /// A sound state of another model or plan.
    #[error("{}: made for another model or plan: {reason}", .path.display())]
    Mismatch {
        /// The file.
        path: PathBuf,
        /// The first difference.
        reason: String,
    },
}
