use burn::module::Module;
use burn_sparse::{Budget, Pool, SparseError, Sparsity};
use serde::Serialize;

use super::error::NAMED;
use super::{Constraint, Plan, PlanError, Rule, pools};
use crate::MatrixView;
use crate::decompose::{FactorKind, Ranks};
use crate::params::{Parameter, Role, parameters};
use crate::projection::{ProjectionError, projection_of};
use crate::quantize::Quantization;

/// A constrained parameter of a model.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct ResolvedLayer {
    /// Dotted path of the parameter.
    pub path: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// How it is read as a matrix of output channels.
    pub view: MatrixView,
    /// The constraint. Kernel patterns have their pool.
    pub sparsity: Sparsity,
    /// Weights that may be non-zero.
    pub nnz: usize,
    /// How many kernel patterns were asked for, if the pool was found in the network.
    pub patterns: Option<usize>,
    /// The levels that its kept weights may have, if they were given some
    /// ([`QuantPlan`](crate::quantize::QuantPlan)).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quantization: Option<Quantization>,
    /// The ranks that it is to have, if it was given some ([`RankPlan`](crate::decompose::RankPlan)).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ranks: Option<Ranks>,
    /// The kind of factors that the ranks are of.
    pub factors: FactorKind,
}

impl ResolvedLayer {
    /// A parameter whose weights get levels; which of them are kept is still to be found out.
    pub(crate) fn with_levels(parameter: Parameter, quantization: Quantization) -> Self {
        let nnz = parameter.weights();
        Self {
            path: parameter.path,
            shape: parameter.shape,
            view: parameter.view,
            sparsity: Sparsity::Unstructured(Budget::Nnz(nnz)),
            nnz,
            patterns: None,
            quantization: Some(quantization),
            ranks: None,
            factors: FactorKind::default(),
        }
    }

    /// A parameter that is to have few channels between. All of its weights are kept.
    pub(crate) fn with_ranks(parameter: Parameter, ranks: Ranks, factors: FactorKind) -> Self {
        let nnz = parameter.weights();
        Self {
            path: parameter.path,
            shape: parameter.shape,
            view: parameter.view,
            sparsity: Sparsity::Unstructured(Budget::Nnz(nnz)),
            nnz,
            patterns: None,
            quantization: None,
            ranks: Some(ranks),
            factors,
        }
    }

    /// All weights of the parameter.
    pub fn weights(&self) -> usize {
        self.view.len()
    }

    /// The same constraint with another pool of patterns, if it is one of patterns.
    pub(crate) fn set_pool(&mut self, given: burn_sparse::PatternPool) {
        if let Sparsity::KernelPattern { pool, .. } = &mut self.sparsity {
            *pool = Pool::Given(given);
        }
    }
}

/// A plan applied to a model: the constrained parameters, in traversal order.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ResolvedPlan {
    layers: Vec<ResolvedLayer>,
}

impl ResolvedPlan {
    pub(crate) fn new(layers: Vec<ResolvedLayer>) -> Self {
        Self { layers }
    }

    /// The constrained parameters, in traversal order.
    pub fn layers(&self) -> &[ResolvedLayer] {
        &self.layers
    }

    /// The constrained parameter of this path.
    pub fn layer(&self, path: &str) -> Option<&ResolvedLayer> {
        self.layers.iter().find(|layer| layer.path == path)
    }

    /// Weights that may be non-zero, over all constrained parameters.
    pub fn nnz(&self) -> usize {
        self.layers.iter().map(|layer| layer.nnz).sum()
    }

    /// Weights of all constrained parameters.
    pub fn weights(&self) -> usize {
        self.layers.iter().map(ResolvedLayer::weights).sum()
    }

    /// Fraction of zeros over all constrained parameters; 0 if there are none.
    pub fn sparsity(&self) -> f64 {
        match self.weights() {
            0 => 0.0,
            weights => 1.0 - self.nnz() as f64 / weights as f64,
        }
    }
}

/// What holds on a parameter, and why.
pub(super) struct Decision {
    pub(super) parameter: Parameter,
    pub(super) layer: Option<ResolvedLayer>,
    pub(super) reason: String,
}

impl Plan {
    /// The constrained parameters of `model` with exact counts.
    ///
    /// Kernel patterns that are to be found ([`Pool::Found`]) are found here, in the effective weights
    /// of all parameters that ask for some together, and nowhere else: the result holds the pools.
    /// Only then are weights read. Other weights may prefer other patterns, so take the masks of a
    /// run from the plan that it was trained under ([`Admm::plan`](crate::Admm::plan)).
    ///
    /// # Errors
    /// [`PlanError::UnknownPattern`] for a rule that matches no parameter (with the most similar
    /// ones), [`PlanError::NoEffect`] for a rule that could only constrain parameters kept dense,
    /// [`PlanError::Budget`] for more non-zeros than a parameter holds and [`PlanError::Unfit`] for a
    /// pattern that it cannot have, both naming it; [`PlanError::NonFinite`] and [`PlanError::Read`]
    /// for weights in which no patterns can be found.
    pub fn resolve<M: Module>(&self, model: &M) -> Result<ResolvedPlan, PlanError> {
        let decisions = self.decide(model)?;
        let mut layers: Vec<ResolvedLayer> =
            decisions.into_iter().filter_map(|d| d.layer).collect();
        pools::find(model, &mut layers)?;
        Ok(ResolvedPlan::new(layers))
    }

    pub(super) fn decide<M: Module>(&self, model: &M) -> Result<Vec<Decision>, PlanError> {
        let parameters = parameters(model);
        let first_convolution = parameters
            .iter()
            .position(|p| p.role == Role::Convolution)
            .filter(|_| self.keeps_first_convolution());
        let last_linear = parameters
            .iter()
            .rposition(|p| p.role == Role::Linear)
            .filter(|_| self.keeps_last_linear());
        let protected: Vec<Option<&'static str>> = parameters
            .iter()
            .enumerate()
            .map(|(i, parameter)| match parameter.role {
                _ if parameter.weights() == 0 => Some("empty"),
                Role::Vector => Some("bias or vector"),
                Role::Norm => Some("normalisation"),
                Role::Embedding => Some("embedding"),
                _ if Some(i) == first_convolution => Some("first convolution"),
                _ if Some(i) == last_linear => Some("last linear layer"),
                _ => None,
            })
            .collect();
        self.check_rules(&parameters, &protected)?;
        parameters
            .into_iter()
            .zip(protected)
            .map(|(parameter, protected)| self.decide_one(parameter, protected))
            .collect()
    }

    fn decide_one(
        &self,
        parameter: Parameter,
        protected: Option<&'static str>,
    ) -> Result<Decision, PlanError> {
        let rule = self
            .rules()
            .iter()
            .rev()
            .find(|rule| applies(rule, protected) && rule.pattern.matches(&parameter.path));
        let (mut constraint, mut reason) = match (rule, protected) {
            (Some(rule), _) => (rule.constraint, format!("rule `{}`", rule.pattern)),
            (None, Some(why)) => (Constraint::Dense, format!("{why}, dense unless named")),
            (None, None) => (self.default_constraint(), "default".to_owned()),
        };
        let named = rule.is_some_and(|rule| rule.pattern.is_literal());
        if let (false, Some(other)) = (named, self.other_kernels())
            && is_kernel_pattern(constraint)
            && parameter.view.shape().kernel != [3, 3]
        {
            (constraint, reason) = (other, format!("{reason}, other kernels"));
        }
        let layer = match constraint {
            Constraint::Dense => None,
            Constraint::Sparse(mut sparsity) => {
                let empties = matches!(
                    sparsity.nnz(parameter.view.shape()),
                    Err(SparseError::EmptiesLayer { .. })
                );
                if empties && self.keeps_one_group() {
                    sparsity = sparsity.keeping_one_group();
                    reason.push_str(", one group kept");
                }
                let origin = if named { NAMED } else { &reason };
                Some(resolve(&parameter, sparsity, origin)?)
            }
        };
        Ok(Decision {
            parameter,
            layer,
            reason,
        })
    }

    fn check_rules(
        &self,
        parameters: &[Parameter],
        protected: &[Option<&'static str>],
    ) -> Result<(), PlanError> {
        for rule in self.rules() {
            let matched: Vec<usize> = (0..parameters.len())
                .filter(|&i| rule.pattern.matches(&parameters[i].path))
                .collect();
            if matched.is_empty() {
                let near = nearest(rule.pattern.as_str(), parameters);
                return Err(PlanError::UnknownPattern {
                    pattern: rule.pattern.to_string(),
                    near,
                });
            }
            if !matched.iter().any(|&i| applies(rule, protected[i])) {
                let matched = matched
                    .iter()
                    .map(|&i| parameters[i].path.clone())
                    .collect();
                return Err(PlanError::NoEffect {
                    pattern: rule.pattern.to_string(),
                    matched,
                });
            }
        }
        Ok(())
    }
}

/// Whether a rule whose pattern matches has a say on a parameter: only a rule without wildcards
/// makes a protected one sparse.
fn applies(rule: &Rule, protected: Option<&str>) -> bool {
    protected.is_none() || rule.constraint == Constraint::Dense || rule.pattern.is_literal()
}

fn is_kernel_pattern(constraint: Constraint) -> bool {
    matches!(
        constraint,
        Constraint::Sparse(Sparsity::KernelPattern { .. })
    )
}

fn resolve(
    parameter: &Parameter,
    sparsity: Sparsity,
    origin: &str,
) -> Result<ResolvedLayer, PlanError> {
    let view = parameter.view;
    let path = parameter.path.clone();
    let nnz = match sparsity.nnz(view.shape()) {
        Ok(nnz) => nnz,
        Err(
            source @ (SparseError::Block { .. }
            | SparseError::EmptiesLayer { .. }
            | SparseError::Scheme { .. }),
        ) => {
            return Err(PlanError::Unfit {
                path,
                shape: view.shape(),
                origin: origin.to_owned(),
                source: Box::new(source),
            });
        }
        Err(source) => {
            return Err(PlanError::Budget {
                path,
                rows: view.rows(),
                row_len: view.row_len(),
                source,
            });
        }
    };
    match projection_of(sparsity) {
        Ok(_) | Err(ProjectionError::PoolNotFound { .. }) => {}
        Err(source) => return Err(PlanError::Projection { path, source }),
    }
    Ok(ResolvedLayer {
        path,
        shape: parameter.shape.clone(),
        view,
        sparsity,
        nnz,
        patterns: None,
        quantization: None,
        ranks: None,
        factors: FactorKind::default(),
    })
}

/// The three paths most similar to a pattern, best first.
pub(crate) fn nearest(pattern: &str, parameters: &[Parameter]) -> Vec<String> {
    let mut scored: Vec<(f64, &str)> = parameters
        .iter()
        .map(|p| {
            (
                strsim::normalized_damerau_levenshtein(pattern, &p.path),
                p.path.as_str(),
            )
        })
        .collect();
    scored.sort_by(|a, b| b.0.total_cmp(&a.0));
    scored
        .into_iter()
        .take(3)
        .map(|(_, path)| path.to_owned())
        .collect()
}
