use burn::store::RecordError;
use burn_sparse::SparseError;

use super::LoopError;
use super::check::MOST_STAGES;
use crate::admm::{AdmmError, StateError};
use crate::baseline::ScheduleError;
use crate::mapping::MappingError;
use crate::plan::PlanError;
use crate::quantize::QuantizeError;
use crate::shrink::ShrinkError;

/// Why a recipe is none, or could not be carried out. Stages are counted from 0, as they stand in the list.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecipeError {
    /// Text that is no recipe, whatever its stages are.
    #[error("not a recipe: {0}")]
    Json(String),
    /// No stages, or too many.
    #[error("a recipe has 1 to {MOST_STAGES} stages, not {0}")]
    Stages(usize),
    /// A field that is missing, unknown, of another type or out of range.
    #[error("stages[{stage}]{}, field `{field}`: {reason}", in_brackets(.name))]
    Field {
        /// The stage.
        stage: usize,
        /// What it calls itself; empty if it does not say.
        name: String,
        /// The field.
        field: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A stage that contradicts another.
    #[error("stages[{stage}] ({name}): {reason}")]
    Order {
        /// The stage.
        stage: usize,
        /// Its name.
        name: &'static str,
        /// What it contradicts.
        reason: String,
    },
    /// A stage that does not fit the model, or failed.
    #[error("stages[{stage}] ({name}): {source}")]
    Stage {
        /// The stage.
        stage: usize,
        /// Its name.
        name: &'static str,
        /// Why.
        source: Box<StageError>,
    },
    /// The folder of states.
    #[error(transparent)]
    State(#[from] StateError),
}

fn in_brackets(name: &str) -> String {
    match name {
        "" => String::new(),
        name => format!(" ({name})"),
    }
}

/// Why a stage failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StageError {
    /// The training loop that was given.
    #[error("the training loop: {0}")]
    Loop(#[source] LoopError),
    /// Pruning, by ADMM or at once.
    #[error(transparent)]
    Admm(#[from] AdmmError),
    /// A plan that does not fit the model.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// Levels that do not fit the model.
    #[error(transparent)]
    Quantize(#[from] QuantizeError),
    /// Choosing the plan.
    #[error(transparent)]
    Mapping(#[from] MappingError),
    /// Cutting channels out.
    #[error(transparent)]
    Shrink(#[from] ShrinkError),
    /// Gradual pruning.
    #[error(transparent)]
    Schedule(#[from] ScheduleError),
    /// Packing, or measuring what the weights take in a file.
    #[error(transparent)]
    Sparse(#[from] SparseError),
    /// Weights or the state of the optimiser that cannot be written or read.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The files of the state.
    #[error(transparent)]
    State(#[from] StateError),
    /// An accuracy that is none.
    #[error("the loop says that the accuracy is {0}; did training diverge?")]
    Accuracy(f64),
    /// A loss that is none.
    #[error("the loss is {0}; lower the learning rate")]
    Diverged(f64),
    /// A weight that is a NaN or an infinity.
    #[error("parameter `{0}` holds a value that is not finite; lower the learning rate")]
    NonFinite(String),
    /// Channels are to be cut out of a model of which nobody says who feeds whom.
    #[error("the training loop gives no channel graph; implement `TrainingLoop::channel_graph`")]
    NoGraph,
    /// The packed network gives another output.
    #[error(
        "the packed network differs from the masked one by {difference:e} of the largest output \
         (tolerance {tolerance:e})"
    )]
    Differs {
        /// The largest difference, as a part of the largest output.
        difference: f64,
        /// What was tolerated.
        tolerance: f64,
    },
}
