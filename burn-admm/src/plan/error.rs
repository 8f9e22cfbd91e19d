use burn::tensor::TensorReadError;
use burn_sparse::{SparseError, WeightShape};

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
    /// A pattern that a parameter cannot have: blocks larger than it, a rate that empties it, kernel
    /// patterns where kernels are not 3×3.
    #[error("parameter `{path}` ({shape}), by {origin}: {source}{}", advice(.origin, .source))]
    Unfit {
        /// The parameter.
        path: String,
        /// Its output channels, input channels and kernel.
        shape: WeightShape,
        /// The rule or default that asks for it.
        origin: String,
        /// What does not fit.
        source: Box<SparseError>,
    },
    /// A NaN or an infinity among the weights in which kernel patterns are to be found.
    #[error(
        "parameter `{path}`: weight {index} is {value}, and kernel patterns are to be found in it; \
         start from sound weights, or give the pool"
    )]
    NonFinite {
        /// The parameter.
        path: String,
        /// Index of the first offender, in storage order.
        index: usize,
        /// Its value.
        value: f32,
    },
    /// A parameter in which kernel patterns are to be found, and that could not be read.
    #[error("reading parameter `{path}`: {source}")]
    Read {
        /// The parameter.
        path: String,
        /// The device's answer.
        source: TensorReadError,
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

/// What to do where nobody has named the parameter that a pattern does not fit.
fn advice(origin: &str, source: &SparseError) -> &'static str {
    match source {
        _ if origin.starts_with(NAMED) => "",
        SparseError::Scheme { .. } => {
            " in a rule for this parameter, or say what other kernels get (`other_kernels`)"
        }
        _ => "; a rule for this parameter says what it gets instead",
    }
}

/// How the origin of a constraint begins if a rule names the parameter.
pub(super) const NAMED: &str = "its own rule";
