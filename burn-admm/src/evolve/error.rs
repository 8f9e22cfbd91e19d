use burn::store::RecordError;

use crate::admm::{AdmmError, StateError};
use crate::plan::PlanError;

/// What can go wrong in an evolution.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EvolveError {
    /// A setting out of range.
    #[error("{name} is {value}; it must be {expected}")]
    Config {
        /// The setting.
        name: &'static str,
        /// Its value.
        value: f64,
        /// What it may be.
        expected: &'static str,
    },
    /// A plan that does not fit the model.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// A plan that leaves nothing to do.
    #[error(
        "the plan constrains no parameter of this model; print `plan.explain(&model)` to see why"
    )]
    NothingConstrained,
    /// A layer whose pattern has only one sparsity, so that nothing can grow.
    #[error(
        "layer `{path}`: {scheme} sparsity of {nnz} non-zeros leaves nothing to evolve; give the layer \
         a pattern with a budget below all of its weights, or keep it dense"
    )]
    Fixed {
        /// The layer.
        path: String,
        /// The pattern.
        scheme: &'static str,
        /// What it keeps.
        nnz: usize,
    },
    /// An accuracy that is no number, so that nothing can be judged by it.
    #[error(
        "the accuracy is {0}; training has diverged: `rewind` the trial and lower the learning rate"
    )]
    Accuracy(f64),
    /// A gradient that is no number.
    #[error(
        "layer `{path}`: the gradient of weight {index} is {value}; `rewind` the trial and lower the \
         learning rate"
    )]
    Gradient {
        /// The layer.
        path: String,
        /// The first such weight, in storage order.
        index: usize,
        /// Its gradient.
        value: f32,
    },
    /// A layer without a gradient in this batch.
    #[error(
        "layer `{0}` has no gradient; call `observe` in every batch, between `backward` and the \
         optimiser, and do not freeze the layer"
    )]
    Unobserved(String),
    /// Something that belongs into a trial, outside of one.
    #[error("`{0}` belongs into a trial; call `begin` first")]
    NoTrial(&'static str),
    /// Something that belongs between trials, within one.
    #[error("`{0}` belongs between trials; call `end` or `rewind` first")]
    InTrial(&'static str),
    /// A trial without a batch.
    #[error("the trial has trained no batch; call `step` after each step of the optimiser")]
    EmptyTrial,
    /// A model without the masks of the evolution.
    #[error(
        "layer `{0}` does not wear the mask of an evolution; `attach` the evolution to the model first"
    )]
    NotAttached(String),
    /// A model that is not the one of the trial's beginning.
    #[error("rewinding: {0}")]
    Rewind(RecordError),
    /// A model that lacks a parameter, a device that fails, or weights that are not finite.
    #[error(transparent)]
    Weights(#[from] AdmmError),
    /// A saved state that cannot be written or read back.
    #[error(transparent)]
    State(#[from] StateError),
}
