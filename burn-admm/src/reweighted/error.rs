use crate::admm::{AdmmError, StateError};
use crate::plan::PlanError;

/// What can go wrong with reweighted regularisation.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReweightedError {
    /// A setting out of range.
    #[error("{name} must be {} and finite, got {value}", if *.name == "tau" { "at least zero" } else { "positive" })]
    Config {
        /// The setting.
        name: &'static str,
        /// Its value.
        value: f64,
    },
    /// Settings under which small groups diverge.
    #[error(
        "layer `{path}`: with lambda {lambda:e} and learning rate {learning_rate:e}, epsilon must be \
         at least {least:e}, got {epsilon:e}; raise it, or lower lambda"
    )]
    Unstable {
        /// The first layer for which the rule is broken.
        path: String,
        /// Weight of the penalty.
        lambda: f64,
        /// Learning rate.
        learning_rate: f64,
        /// Epsilon given.
        epsilon: f64,
        /// The smallest that is stable.
        least: f64,
    },
    /// A plan that does not fit the model.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// A plan that leaves nothing to do.
    #[error(
        "the plan constrains no parameter of this model; print `plan.explain(&model)` to see why"
    )]
    NothingConstrained,
    /// A pattern without groups whose number could be found.
    #[error(
        "layer `{path}`: {scheme} sparsity has no groups to find a rate for; use filter, channel, \
         column, connectivity, punched, block column-row or kernel patterns, or train it under ADMM"
    )]
    NoGroups {
        /// The layer.
        path: String,
        /// The pattern.
        scheme: &'static str,
    },
    /// A threshold that would empty a layer.
    #[error(
        "layer `{path}`: no group reaches {tau} of the layer's root mean square; lower tau, or keep \
         one group of each layer"
    )]
    Empties {
        /// The layer.
        path: String,
        /// The threshold.
        tau: f64,
    },
    /// A model that lacks a parameter, a device that fails, or weights that are not finite.
    #[error(transparent)]
    Weights(#[from] AdmmError),
    /// A saved state that cannot be written or read back.
    #[error(transparent)]
    State(#[from] StateError),
}
