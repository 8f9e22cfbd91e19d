use crate::admm::{AdmmError, StateError};
use crate::plan::PlanError;

/// What can go wrong when a network is pruned while it trains.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClickTrainError {
    /// Stages that do not follow each other.
    #[error(
        "masks are chosen after {patterns_at} steps and attached after {prune_at}; the first must be \
         at least one, the second later"
    )]
    Stages {
        /// Steps after which masks are chosen.
        patterns_at: u64,
        /// Steps after which they are attached.
        prune_at: u64,
    },
    /// A setting out of range.
    #[error("{name} is {value}; lambda must be at least zero and finite, decay lie in [0, 1)")]
    Config {
        /// The setting.
        name: &'static str,
        /// Its value.
        value: f64,
    },
    /// A plan that does not fit the model.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// A plan that leaves nothing to do.
    #[error(
        "the plan constrains no parameter of this model; print `plan.explain(&model)` to see why"
    )]
    NothingConstrained,
    /// A layer whose importance was never gathered.
    #[error(
        "layer `{0}` has gathered no importance; call `observe` in every step, between `backward` and \
         the optimiser, and do not freeze the layer"
    )]
    Unobserved(String),
    /// A model that lacks a parameter, a device that fails, or importances that are not finite.
    #[error(transparent)]
    Weights(#[from] AdmmError),
    /// A saved state that cannot be written or read back.
    #[error(transparent)]
    State(#[from] StateError),
}
