use burn_sparse::SparseError;

use crate::projection::ProjectionError;

/// Why a plan is wrong, or does not fit a model.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// A pattern that cannot be read.
    #[error("pattern `{pattern}`: {reason}")]
    Pattern {
        /// The pattern.
        pattern: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A pattern that no parameter of the model has.
    #[error("pattern `{pattern}` matches no parameter{}", suggest(.near))]
    UnknownPattern {
        /// The pattern.
        pattern: String,
        /// The most similar parameter paths of the model, best first.
        near: Vec<String>,
    },
    /// A rule that asks for sparsity only of parameters that are kept dense by default.
    #[error(
        "rule `{pattern}` constrains nothing: it matches only parameters that stay dense unless \
         named ({}); name the one you mean without wildcards", .matched.join(", ")
    )]
    NoEffect {
        /// The rule's pattern.
        pattern: String,
        /// Parameters that it matches.
        matched: Vec<String>,
    },
    /// A budget that a parameter cannot hold.
    #[error("parameter `{path}` of {rows} rows by {row_len} weights: {source}")]
    Budget {
        /// The parameter.
        path: String,
        /// Its output channels.
        rows: usize,
        /// Weights of one output channel.
        row_len: usize,
        /// What does not fit.
        source: SparseError,
    },
    /// A constraint that has no projection.
    #[error("parameter `{path}`: {source}")]
    Projection {
        /// The parameter.
        path: String,
        /// Why not.
        source: ProjectionError,
    },
    /// Plan text that is not a valid plan.
    #[error("plan is not valid JSON of a plan: {0}")]
    Json(#[from] serde_json::Error),
}

fn suggest(near: &[String]) -> String {
    if near.is_empty() {
        "; the model has no floating-point parameters".to_owned()
    } else {
        format!("; did you mean `{}`?", near.join("`, `"))
    }
}
