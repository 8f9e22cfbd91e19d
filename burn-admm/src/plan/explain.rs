use burn::module::Module;
use burn_sparse::Sparsity;
use serde::Serialize;

use super::{Plan, PlanError};
use crate::params::Role;
use crate::table::Table;

/// What holds on one parameter, and why.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Explained {
    /// Dotted path of the parameter.
    pub path: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// What it is for.
    pub role: Role,
    /// All its weights.
    pub weights: usize,
    /// Weights that may be non-zero: all of them if it is not constrained.
    pub nnz: usize,
    /// The constraint, if any.
    pub sparsity: Option<Sparsity>,
    /// The rule, default or protection that decided.
    pub reason: String,
}

/// Every parameter of a model: how it is constrained, or why not.
///
/// [`Display`](core::fmt::Display) prints an aligned table whose last line names the denominator.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Explanation {
    /// All floating-point parameters, in traversal order.
    pub parameters: Vec<Explained>,
}

impl Explanation {
    /// What holds on the parameter of this path.
    pub fn parameter(&self, path: &str) -> Option<&Explained> {
        self.parameters
            .iter()
            .find(|explained| explained.path == path)
    }
}

impl Plan {
    /// Says of every floating-point parameter of `model` how it is constrained, or why not. No weight
    /// is read, so kernel patterns that are to be found are only counted.
    ///
    /// # Errors
    /// As [`resolve`](Self::resolve), but for those of weights.
    pub fn explain<M: Module>(&self, model: &M) -> Result<Explanation, PlanError> {
        let parameters = self
            .decide(model)?
            .into_iter()
            .map(|decision| Explained {
                weights: decision.parameter.weights(),
                nnz: decision
                    .layer
                    .as_ref()
                    .map_or(decision.parameter.weights(), |l| l.nnz),
                sparsity: decision.layer.map(|layer| layer.sparsity),
                path: decision.parameter.path,
                shape: decision.parameter.shape,
                role: decision.parameter.role,
                reason: decision.reason,
            })
            .collect();
        Ok(Explanation { parameters })
    }
}

impl core::fmt::Display for Explanation {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let mut table = Table::new(["parameter", "shape", "constraint", "nnz", "of", "why"])
            .right_aligned(&[3, 4]);
        for p in &self.parameters {
            table.row([
                p.path.clone(),
                crate::table::shape(&p.shape),
                p.sparsity
                    .map_or("dense".to_owned(), |sparsity| sparsity.to_string()),
                p.nnz.to_string(),
                p.weights.to_string(),
                p.reason.clone(),
            ]);
        }
        write!(f, "{table}")?;
        let constrained = self.parameters.iter().filter(|p| p.sparsity.is_some());
        let (layers, nnz, weights) = constrained.fold((0, 0, 0), |(n, nnz, weights), p| {
            (n + 1, nnz + p.nnz, weights + p.weights)
        });
        let all: usize = self.parameters.iter().map(|p| p.weights).sum();
        let sparsity = if weights == 0 {
            0.0
        } else {
            1.0 - nnz as f64 / weights as f64
        };
        write!(
            f,
            "{layers} of {} parameters constrained: {nnz} of {weights} weights stay ({:.2} % \
             zeros) of {all} in the model",
            self.parameters.len(),
            100.0 * sparsity,
        )
    }
}
