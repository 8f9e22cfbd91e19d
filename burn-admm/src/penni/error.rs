use crate::admm::{AdmmError, StateError};
use crate::decompose::DecomposeError;
use crate::plan::PlanError;

/// What can go wrong when the kernels of layers are shared.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PenniError {
    /// A setting out of range.
    #[error("{name} is {value}; expected {expected}")]
    Config {
        /// The setting.
        name: &'static str,
        /// Its value.
        value: f64,
        /// What it may be.
        expected: &'static str,
    },
    /// A rule that fits nothing.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// A rule that names a parameter without kernels.
    #[error("parameter `{path}` of shape {shape:?} is no convolution's; take the rule out")]
    NoKernels {
        /// The parameter.
        path: String,
        /// Its shape.
        shape: Vec<usize>,
    },
    /// A plan that leaves nothing to do.
    #[error(
        "the plan shares the kernels of no layer of this model; print `plan.explain(&model)` to see why"
    )]
    NothingShared,
    /// A weight that has no such basis.
    #[error("parameter `{path}`: {source}")]
    Layer {
        /// The parameter.
        path: String,
        /// Why not.
        source: DecomposeError,
    },
    /// Shared kernels that do not make a layer's weight.
    #[error("parameter `{path}`: {source}")]
    Form {
        /// The parameter.
        path: String,
        /// Why not.
        source: burn_sparse::SparseError,
    },
    /// A NaN or an infinity in what is trained.
    #[error(
        "the {factor} of parameter `{path}` hold {value}; lower the learning rate and resume from an \
         earlier state"
    )]
    NonFinite {
        /// The parameter.
        path: String,
        /// Coefficients or basis kernels.
        factor: &'static str,
        /// The first of them.
        value: f32,
    },
    /// A model that lacks a parameter or has it in another shape, or a device that fails.
    #[error(transparent)]
    Weights(#[from] AdmmError),
    /// A saved state that cannot be written or read back.
    #[error(transparent)]
    State(#[from] StateError),
}
