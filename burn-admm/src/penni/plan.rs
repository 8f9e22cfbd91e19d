//! Which layers share their kernels, and how many they share.

use std::collections::BTreeMap;
use std::fmt;

use burn::module::Module;
use burn_sparse::nn::{NamedWeight, Trace, weights};
use burn_sparse::{ConvProblem, WeightShape};
use serde::{Deserialize, Serialize};

use super::{KernelSpectrum, PenniError};
use crate::admm::AdmmError;
use crate::params::{Parameter, Role, parameters, read};
use crate::plan::{Pattern, PlanError, nearest};
use crate::table::Table;

/// Basis kernels for the parameters whose path matches, or none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PenniRule {
    /// Glob over dotted parameter paths.
    pub pattern: Pattern,
    /// How many; `null` leaves the parameters as they are.
    pub kernels: Option<usize>,
}

/// How many basis kernels each convolution gets: a default and ordered rules, where **the last rule that
/// matches wins**.
///
/// A layer gets as many as its kernels have positions, if more are asked for: nothing is lost then. The
/// default and rules with wildcards are for convolutions with kernels of more than one position and more
/// than one input channel. 1×1 convolutions have nothing to share, but
/// [`with_pointwise`](Self::with_pointwise) lets their weights be penalised and pruned like coefficients.
///
/// Grouped convolutions of [`burn_sparse::nn`] keep their weights, and so do transposed ones. Of other layers a
/// weight does not tell the groups: exclude grouped ones by a rule with `None`.
///
/// # Example
/// ```
/// use burn_admm::penni::PenniPlan;
///
/// let plan = PenniPlan::new(5).with_rule("conv1.*", None)?.with_rule("layer3.**.weight", 3)?;
/// assert_eq!(PenniPlan::from_json(&plan.to_json())?, plan);
/// # Ok::<(), burn_admm::PlanError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PenniPlan {
    default: Option<usize>,
    #[serde(default)]
    rules: Vec<PenniRule>,
    #[serde(default)]
    pointwise: bool,
    /// What layers compute, by the path of their weight.
    #[serde(skip)]
    geometry: BTreeMap<String, ConvProblem>,
}

/// What a plan does to one parameter.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct PenniDecision {
    /// Its path.
    pub path: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Basis kernels, unless it keeps its weights.
    pub kernels: Option<usize>,
    /// `‖W − A M‖ / ‖W‖` with so many; 0 where weights are kept.
    pub relative_error: f64,
    /// Why.
    pub reason: String,
}

/// What a plan does to every parameter of rank two or more; prints as a table.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PenniReport {
    /// In traversal order.
    pub layers: Vec<PenniDecision>,
}

/// A layer whose kernels are shared.
#[derive(Debug, Clone)]
pub(super) struct Spec {
    pub(super) path: String,
    pub(super) dims: Vec<usize>,
    pub(super) shape: WeightShape,
    pub(super) kernels: usize,
}

impl PenniPlan {
    /// So many basis kernels for every convolution that can share some.
    pub fn new(kernels: usize) -> Self {
        Self {
            default: Some(kernels),
            ..Self::none()
        }
    }

    /// None but those that rules will name.
    pub fn none() -> Self {
        Self {
            default: None,
            rules: Vec::new(),
            pointwise: false,
            geometry: BTreeMap::new(),
        }
    }

    /// What the layers of `model` compute, seen in a forward pass. Not a part of the plan as JSON.
    #[must_use]
    pub fn with_geometry<M: Module>(mut self, model: &M, trace: &Trace) -> Self {
        let named = weights(model).into_iter();
        let known = named.filter_map(|n| Some((n.path, *trace.problem(n.weight.id())?)));
        self.geometry = known.collect();
        self
    }

    /// Whether 1×1 convolutions are penalised and pruned too; their weights are their coefficients.
    #[must_use]
    pub fn with_pointwise(mut self, pointwise: bool) -> Self {
        self.pointwise = pointwise;
        self
    }

    /// Adds a rule after all others: it wins over them.
    ///
    /// # Errors
    /// [`PlanError::Pattern`] for a pattern that cannot be read.
    pub fn with_rule(
        mut self,
        pattern: impl Into<String>,
        kernels: impl Into<Option<usize>>,
    ) -> Result<Self, PlanError> {
        let pattern = Pattern::new(pattern)?;
        let kernels = kernels.into();
        self.rules.push(PenniRule { pattern, kernels });
        Ok(self)
    }

    /// Reads a plan from JSON.
    ///
    /// # Errors
    /// [`PlanError::Json`] for text that is not a plan.
    pub fn from_json(json: &str) -> Result<Self, PlanError> {
        Ok(serde_json::from_str(json)?)
    }

    /// The plan as indented JSON.
    ///
    /// # Panics
    /// Never: every plan can be written as JSON.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("a plan holds only strings and integers")
    }

    /// What the plan does to the parameters of `model`, for the weights that they have now.
    ///
    /// # Errors
    /// [`PlanError::UnknownPattern`] for a rule that matches no parameter, [`PenniError::NoKernels`] for a
    /// rule that names what is no convolution's weight, [`PenniError::Layer`] for no basis kernel and for
    /// weights that are no numbers, [`AdmmError::Read`] if a device fails.
    pub fn explain<M: Module>(&self, model: &M) -> Result<PenniReport, PenniError> {
        let decided = self.decide(model)?;
        let mut layers = Vec::with_capacity(decided.len());
        let mut spectra = self.spectra(model, &decided)?;
        for (mut decision, spec) in decided {
            if let Some(spec) = spec {
                let layer = |source| PenniError::Layer {
                    path: spec.path.clone(),
                    source,
                };
                if let Some(spectrum) = spectra.remove(&spec.path) {
                    let error = spectrum.relative_error(spec.kernels);
                    decision.relative_error = error.map_err(layer)?;
                }
            }
            layers.push(decision);
        }
        Ok(PenniReport { layers })
    }

    /// The layers, with what their kernels have in common.
    pub(super) fn resolve<M: Module>(
        &self,
        model: &M,
    ) -> Result<Vec<(Spec, KernelSpectrum)>, PenniError> {
        let decided = self.decide(model)?;
        let mut spectra = self.spectra(model, &decided)?;
        let specs = decided.into_iter().filter_map(|(_, spec)| spec);
        let layers: Vec<_> = specs
            .filter_map(|spec| {
                let spectrum = spectra.remove(&spec.path)?;
                Some((spec, spectrum))
            })
            .collect();
        if layers.is_empty() {
            return Err(PenniError::NothingShared);
        }
        Ok(layers)
    }

    fn spectra<M: Module>(
        &self,
        model: &M,
        decided: &[(PenniDecision, Option<Spec>)],
    ) -> Result<BTreeMap<String, KernelSpectrum>, PenniError> {
        let specs: BTreeMap<&str, &Spec> = decided
            .iter()
            .filter_map(|(_, spec)| Some((spec.as_ref()?.path.as_str(), spec.as_ref()?)))
            .collect();
        let weights = read(model, |path| specs.contains_key(path)).map_err(AdmmError::from)?;
        let spectra = weights.into_iter().map(|weight| {
            match KernelSpectrum::new(&weight.data, specs[weight.path.as_str()].shape) {
                Ok(spectrum) => Ok((weight.path, spectrum)),
                Err(source) => Err(PenniError::Layer {
                    path: weight.path,
                    source,
                }),
            }
        });
        spectra.collect()
    }

    /// Every parameter with two sides, and its layer if its kernels are shared.
    fn decide<M: Module>(
        &self,
        model: &M,
    ) -> Result<Vec<(PenniDecision, Option<Spec>)>, PenniError> {
        let parameters = parameters(model);
        for rule in &self.rules {
            if !parameters.iter().any(|p| rule.pattern.matches(&p.path)) {
                let near = nearest(rule.pattern.as_str(), &parameters);
                let pattern = rule.pattern.to_string();
                return Err(PlanError::UnknownPattern { pattern, near }.into());
            }
        }
        let known: BTreeMap<String, NamedWeight> = weights(model)
            .into_iter()
            .map(|named| (named.path.clone(), named))
            .collect();
        let mut decided = Vec::new();
        for parameter in parameters {
            let mut rules = self.rules.iter().rev();
            let rule = rules.find(|r| r.pattern.matches(&parameter.path));
            let named = rule.is_some_and(|rule| rule.pattern.is_literal());
            let asked = rule.is_some_and(|rule| rule.kernels.is_some());
            if named && asked && parameter.role != Role::Convolution {
                return Err(PenniError::NoKernels {
                    path: parameter.path,
                    shape: parameter.shape,
                });
            }
            if matches!(parameter.role, Role::Vector | Role::Norm) {
                continue;
            }
            let (kernels, origin) = match rule {
                Some(rule) => (rule.kernels, format!("rule `{}`", rule.pattern)),
                None => (self.default, "default".to_owned()),
            };
            let why = self.why_not(&parameter, known.get(&parameter.path), named);
            let shape = parameter.view.shape();
            let (kernels, reason) = match (kernels, why) {
                (None, _) => (None, origin),
                (Some(_), Some(why)) => (None, why),
                (Some(kernels), None) => (Some(kernels.min(shape.positions())), origin),
            };
            if kernels == Some(0) {
                let source = crate::decompose::DecomposeError::Rank {
                    what: "the number of basis kernels",
                    rank: 0,
                    max: shape.positions(),
                    shape,
                };
                let path = parameter.path;
                return Err(PenniError::Layer { path, source });
            }
            let spec = kernels.map(|kernels| Spec {
                path: parameter.path.clone(),
                dims: parameter.shape.clone(),
                shape,
                kernels,
            });
            let decision = PenniDecision {
                path: parameter.path,
                shape: parameter.shape,
                kernels,
                relative_error: 0.0,
                reason,
            };
            decided.push((decision, spec));
        }
        Ok(decided)
    }

    /// Why a parameter keeps its weights whatever the number of kernels.
    fn why_not(
        &self,
        parameter: &Parameter,
        weight: Option<&NamedWeight>,
        named: bool,
    ) -> Option<String> {
        let shape = parameter.view.shape();
        if weight.is_some_and(|weight| weight.factor) {
            return Some("a factor of a decomposition".to_owned());
        }
        if parameter.role != Role::Convolution {
            return Some("no convolution".to_owned());
        }
        if parameter.view.axis() != 0 {
            return Some("transposed".to_owned());
        }
        let traced = self.geometry.get(&parameter.path).map(|p| p.groups);
        let groups = weight.map(|weight| weight.groups).max(traced);
        if let Some(groups) = groups.filter(|&groups| groups > 1) {
            return Some(format!("{groups} groups"));
        }
        let why = match shape.positions() {
            _ if parameter.weights() == 0 => return Some("empty".to_owned()),
            _ if named => return None,
            1 if self.pointwise => return None,
            1 => "1×1",
            _ if shape.channels == 1 => "one input channel",
            _ => return None,
        };
        Some(format!("{why}, as it is unless named"))
    }
}

impl PenniReport {
    /// The parameter of this path.
    pub fn layer(&self, path: &str) -> Option<&PenniDecision> {
        self.layers.iter().find(|layer| layer.path == path)
    }
}

impl fmt::Display for PenniReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let header = ["parameter", "shape", "kernels", "error", "why"];
        let mut table = Table::new(header).right_aligned(&[2, 3]);
        for layer in &self.layers {
            let (kernels, error) = match layer.kernels {
                Some(kernels) => (
                    kernels.to_string(),
                    format!("{:.1} %", 100.0 * layer.relative_error),
                ),
                None => ("–".to_owned(), "–".to_owned()),
            };
            table.row([
                layer.path.clone(),
                format!("{:?}", layer.shape),
                kernels,
                error,
                layer.reason.clone(),
            ]);
        }
        table.fmt(f)
    }
}
