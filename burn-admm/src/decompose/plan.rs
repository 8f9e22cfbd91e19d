//! Which parameters get which ranks.

use std::collections::BTreeMap;
use std::fmt;

use burn::module::Module;
use burn_sparse::nn::{NamedWeight, Trace, weights};
use burn_sparse::{ConvProblem, WeightShape};
use serde::{Deserialize, Serialize};

use super::analysis::Analysis;
use super::spectra::Tails;
use super::{DecomposeError, FactorKind, HooiConfig, LayerFactors, RankChoice, Ranks};
use crate::admm::read_layers;
use crate::params::{Parameter, Role, parameters};
use crate::plan::{Pattern, PlanError, ResolvedLayer, ResolvedPlan, nearest};
use crate::table::Table;
use crate::{Admm, AdmmConfig, AdmmError};

/// Ranks for the parameters whose path matches, or none.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RankPlanRule {
    /// Glob over dotted parameter paths.
    pub pattern: Pattern,
    /// How its ranks are found; `null` leaves the parameters as they are.
    pub choice: Option<RankChoice>,
}

/// Which ranks each convolution gets, of Tucker factors unless its choice has another [`FactorKind`]: a
/// default and ordered rules, where **the last rule that matches wins**.
///
/// The default and rules with wildcards are for convolutions with kernels of more than one position,
/// where the factors have fewer weights than the layer; anything else keeps its weights unless a rule
/// names it without wildcards. [`explain`](Self::explain) says what became of each and why.
///
/// Grouped convolutions of [`burn_sparse::nn`], depthwise ones among them, keep their weights whatever the
/// rules say, and so do factors. The weight of any other layer does not tell its groups: exclude grouped ones by
/// a rule with `None` before training for ranks ([`factor`](super::factor) refuses layers from elsewhere). Nor
/// does a weight tell how many positions it is applied to:
/// [`with_geometry`](Self::with_geometry) does, and decisions then come with multiply-adds.
///
/// # Example
/// ```
/// use burn_admm::decompose::{RankChoice, RankPlan, RankRule, Ranks};
///
/// let plan = RankPlan::new(RankChoice::new(RankRule::Energy(0.9)).with_multiple(16))
///     .with_rule("conv1.*", None)?
///     .with_rule("layer1.**.weight", RankChoice::new(RankRule::Fixed(Ranks::new(32, 32))))?;
/// assert_eq!(RankPlan::from_json(&plan.to_json())?, plan);
/// # Ok::<(), burn_admm::PlanError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RankPlan {
    default: Option<RankChoice>,
    #[serde(default)]
    rules: Vec<RankPlanRule>,
    /// What layers compute, by the path of their weight.
    #[serde(skip)]
    geometry: BTreeMap<String, ConvProblem>,
}

/// Why ranks could not be given to a network.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RankPlanError {
    /// A rule that fits nothing.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// ADMM's own reasons.
    #[error(transparent)]
    Admm(#[from] AdmmError),
    /// A weight that cannot be decomposed, or not into these ranks.
    #[error("parameter `{path}`: {source}")]
    Layer {
        /// The parameter.
        path: String,
        /// Why not.
        source: DecomposeError,
    },
    /// A decomposed parameter that is not the weight of a layer of `burn_sparse::nn`.
    #[error(
        "parameter `{path}` is not the weight of a layer of `burn_sparse::nn`; build the layer from there, \
         such as `burn_sparse::nn::Conv2d`"
    )]
    NoLayer {
        /// The parameter.
        path: String,
    },
    /// Factors for a grouped layer.
    #[error(
        "parameter `{path}` is of a convolution of {groups} groups, which cannot have factors; leave it out"
    )]
    Groups {
        /// The parameter.
        path: String,
        /// Its groups.
        groups: usize,
    },
    /// Factors that do not fit a layer.
    #[error("parameter `{path}`: {source}")]
    Factors {
        /// The parameter.
        path: String,
        /// Why not.
        source: burn_sparse::SparseError,
    },
    /// A budget of multiply-adds for a network that was never seen running.
    #[error(
        "the multiply-adds of no layer are known; show the plan a forward pass first \
         (`RankPlan::with_geometry`)"
    )]
    NoGeometry,
    /// A budget of time for layers that were not timed.
    #[error("the times of no layer are known; measure them first (`RankTimes::measure`)")]
    NoTimes,
    /// Times that cannot be.
    #[error("the times cannot be used: {0}; measure them again")]
    Times(String),
    /// A budget that is none.
    #[error("{0} of the network is no budget; give a part above 0, such as 0.5")]
    Part(f64),
    /// A budget that no ranks fit.
    #[error(
        "{:.2} % of the {what} are too few for these layers: with ranks of one step everywhere {:.2} % are \
         left; ask for more, take smaller steps or let more layers be decomposed",
        100.0 * .asked, 100.0 * .least
    )]
    Budget {
        /// What is limited.
        what: &'static str,
        /// The part asked for.
        asked: f64,
        /// The smallest part that can be reached.
        least: f64,
    },
    /// A rule that names a parameter which is no matrix.
    #[error(
        "parameter `{path}` of shape {shape:?} has no two sides with channels; take the rule out"
    )]
    NoMatrix {
        /// The parameter.
        path: String,
        /// Its shape.
        shape: Vec<usize>,
    },
}

/// What a plan does to one parameter.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct RankDecision {
    /// Its path.
    pub path: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// The ranks, unless it keeps its weights.
    pub ranks: Option<Ranks>,
    /// The kind of factors that these are of.
    pub kind: FactorKind,
    /// Weights now.
    pub weights: usize,
    /// Weights of the factors, or as now.
    pub parameters: usize,
    /// Multiply-adds now and of the factors (or as now), where the [geometry](RankPlan::with_geometry) is
    /// known.
    pub macs: Option<[u64; 2]>,
    /// `‖K − K̂‖ / ‖K‖` of the weights as they are, of Tucker factors that of the HOSVD; 0 where they are kept.
    pub relative_error: f64,
    /// Why.
    pub reason: String,
}

/// The factors of a parameter.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Decomposed {
    /// Its path.
    pub path: String,
    /// Its factors.
    pub factors: LayerFactors,
}

/// What a plan does to every parameter of rank two or more; prints as a table.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RankReport {
    /// In traversal order.
    pub layers: Vec<RankDecision>,
}

impl RankPlan {
    /// The same choice for all convolutions that gain.
    pub fn new(choice: RankChoice) -> Self {
        Self {
            default: Some(choice),
            ..Self::none()
        }
    }

    /// No ranks but those that rules will name.
    pub fn none() -> Self {
        Self {
            default: None,
            rules: Vec::new(),
            geometry: BTreeMap::new(),
        }
    }

    /// What the layers of `model` compute, seen in a forward pass: decisions come with multiply-adds, of a
    /// layer that runs several times those of its first use. Not a part of the plan as JSON.
    #[must_use]
    pub fn with_geometry<M: Module>(mut self, model: &M, trace: &Trace) -> Self {
        let named = weights(model).into_iter();
        let known = named.filter_map(|n| Some((n.path, *trace.problem(n.weight.id())?)));
        self.geometry = known.collect();
        self
    }

    /// Adds a rule after all others: it wins over them.
    ///
    /// # Errors
    /// [`PlanError::Pattern`] for a pattern that cannot be read.
    pub fn with_rule(
        mut self,
        pattern: impl Into<String>,
        choice: impl Into<Option<RankChoice>>,
    ) -> Result<Self, PlanError> {
        let pattern = Pattern::new(pattern)?;
        let choice = choice.into();
        self.rules.push(RankPlanRule { pattern, choice });
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
        serde_json::to_string_pretty(self).expect("a plan holds only strings and finite numbers")
    }

    /// What the plan does to the parameters of `model`, for the weights that they have now.
    ///
    /// # Errors
    /// [`PlanError::UnknownPattern`] for a rule that matches no parameter, [`RankPlanError::Layer`] for
    /// ranks that a parameter cannot have and for weights that are no numbers,
    /// [`RankPlanError::NoMatrix`] for a rule that names a vector, [`AdmmError::Read`] if a device fails.
    pub fn explain<M: Module>(&self, model: &M) -> Result<RankReport, RankPlanError> {
        let layers = self.decide(model, Wanted::Errors)?.into_iter();
        Ok(RankReport {
            layers: layers.map(|layer| layer.decision).collect(),
        })
    }

    /// The parameters of `model` that get ranks.
    ///
    /// # Errors
    /// As [`explain`](Self::explain), and [`AdmmError::NothingConstrained`] if there are none.
    pub fn resolve<M: Module>(&self, model: &M) -> Result<ResolvedPlan, RankPlanError> {
        let decided = self.decide(model, Wanted::Ranks)?.into_iter();
        let layers: Vec<ResolvedLayer> = decided
            .filter_map(|layer| {
                let ranks = layer.decision.ranks?;
                Some(ResolvedLayer::with_ranks(
                    layer.parameter,
                    ranks,
                    layer.kind,
                ))
            })
            .collect();
        if layers.is_empty() {
            return Err(AdmmError::NothingConstrained.into());
        }
        Ok(ResolvedPlan::new(layers))
    }

    /// ADMM towards these ranks: `Z` is the nearest weight that has them
    /// ([`TuckerRank`](super::TuckerRank), [`SpatialRank`](super::SpatialRank)). Train with it as with [`Admm`] for pruning, saving and
    /// resuming included; decompose when the primal residual is small.
    ///
    /// The penalty pulls all of a weight, so weight decay on the same parameters adds to it: lower it. There
    /// are no zeros to mask afterwards; [`decompose`](Self::decompose) comes next.
    ///
    /// # Errors
    /// As [`resolve`](Self::resolve) and [`Admm::new`]; [`RankPlanError::Layer`] for CP, which has no
    /// projection.
    pub fn admm<M: Module>(&self, model: &M, config: AdmmConfig) -> Result<Admm, RankPlanError> {
        let plan = self.resolve(model)?;
        if let Some(layer) = plan.layers().iter().find(|l| l.factors == FactorKind::Cp) {
            return Err(RankPlanError::Layer {
                path: layer.path.clone(),
                source: DecomposeError::NoProjection,
            });
        }
        Ok(Admm::of_ranks(model, plan.layers().to_vec(), config)?)
    }

    /// The factors of every parameter that gets ranks, of the weights as they are; `config` is for Tucker's.
    ///
    /// # Errors
    /// As [`resolve`](Self::resolve) and [`Spectra::hooi`](super::Spectra::hooi).
    pub fn decompose<M: Module>(
        &self,
        model: &M,
        config: HooiConfig,
    ) -> Result<Vec<Decomposed>, RankPlanError> {
        // The spectra that tell the ranks are those that the factors are cut from.
        let decided = self.decide(model, Wanted::Factors(config))?.into_iter();
        let decomposed = decided.filter_map(|layer| {
            let path = layer.parameter.path;
            layer.factors.map(|factors| Decomposed { path, factors })
        });
        let decomposed: Vec<Decomposed> = decomposed.collect();
        if decomposed.is_empty() {
            return Err(AdmmError::NothingConstrained.into());
        }
        Ok(decomposed)
    }

    /// What other plans of the same network know of its layers.
    pub(super) fn with_geometry_of(mut self, other: &Self) -> Self {
        self.geometry.clone_from(&other.geometry);
        self
    }

    /// What becomes of every parameter with two sides.
    pub(super) fn decide<M: Module>(
        &self,
        model: &M,
        wanted: Wanted,
    ) -> Result<Vec<Decided>, RankPlanError> {
        let candidates = self.candidates(model)?;
        let needs_weights = |candidate: &&Candidate| match (&candidate.choice, wanted) {
            (Err(_), _) => false,
            (Ok(_), Wanted::Errors) => true,
            (Ok(choice), Wanted::Ranks) => !matches!(choice.fixed(candidate.shape()), Ok(Some(_))),
            (Ok(choice), Wanted::Factors(_)) => match choice.fixed(candidate.shape()) {
                Ok(Some(ranks)) => candidate.gains(ranks),
                _ => true,
            },
        };
        let read = candidates.iter().filter(needs_weights);
        let specs: Vec<ResolvedLayer> = read
            .map(|c| {
                let (ranks, kind) = (Ranks::full(c.shape()), FactorKind::Tucker);
                ResolvedLayer::with_ranks(c.parameter.clone(), ranks, kind)
            })
            .collect();
        let mut weights = match specs.is_empty() {
            true => Vec::new(),
            false => read_layers(model, &specs)?,
        }
        .into_iter();
        let decided = candidates.into_iter().map(|candidate| {
            let weights = match needs_weights(&&candidate) {
                true => weights.next(),
                false => None,
            };
            let path = candidate.parameter.path.clone();
            let rows = weights.map(|weights| candidate.parameter.view.gather(&weights.data));
            let decided = candidate.decided(rows, wanted);
            decided.map_err(|source| RankPlanError::Layer { path, source })
        });
        decided.collect()
    }

    /// Whether it saw a forward pass.
    pub(super) fn knows_geometry(&self) -> bool {
        !self.geometry.is_empty()
    }

    /// Paths and geometries of the parameters that this plan may decompose into Tucker factors.
    pub(super) fn eligible<M: Module>(
        &self,
        model: &M,
    ) -> Result<Vec<(String, Option<ConvProblem>)>, RankPlanError> {
        let candidates = self.candidates(model)?.into_iter();
        let eligible = candidates.filter(|candidate| {
            let tucker = |choice: &RankChoice| choice.kind() == FactorKind::Tucker;
            candidate.choice.as_ref().is_ok_and(tucker)
        });
        Ok(eligible.map(|c| (c.parameter.path, c.problem)).collect())
    }

    /// The same with what ranks leave out.
    pub(super) fn tails<M: Module>(
        &self,
        model: &M,
    ) -> Result<Vec<(String, Option<ConvProblem>, Tails)>, RankPlanError> {
        let decided = self.decide(model, Wanted::Errors)?.into_iter();
        let decided = decided.filter(|layer| layer.kind == FactorKind::Tucker);
        let tails = decided.filter_map(|d| Some((d.parameter.path, d.problem, d.tails?)));
        Ok(tails.collect())
    }

    /// Every parameter with two sides, and what the rules say of it.
    fn candidates<M: Module>(&self, model: &M) -> Result<Vec<Candidate>, RankPlanError> {
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
        let mut candidates = Vec::new();
        for parameter in parameters {
            let rule = self.rules.iter().rev();
            let rule = rule.clone().find(|r| r.pattern.matches(&parameter.path));
            let named = rule.is_some_and(|rule| rule.pattern.is_literal());
            let matrix = !matches!(parameter.role, Role::Vector | Role::Norm);
            if !matrix && named && rule.is_some_and(|rule| rule.choice.is_some()) {
                return Err(RankPlanError::NoMatrix {
                    path: parameter.path,
                    shape: parameter.shape,
                });
            }
            if !matrix {
                continue;
            }
            let (choice, origin) = match rule {
                Some(rule) => (rule.choice, format!("rule `{}`", rule.pattern)),
                None => (self.default, "default".to_owned()),
            };
            let problem = self.geometry.get(&parameter.path).copied();
            let choice = choice.ok_or_else(|| origin.clone()).and_then(|choice| {
                let known = known.get(&parameter.path);
                match why_not(&parameter, known, choice.kind(), named) {
                    None => Ok(choice),
                    Some(reason) => Err(reason),
                }
            });
            candidates.push(Candidate {
                parameter,
                problem,
                choice,
                named,
                origin,
            });
        }
        Ok(candidates)
    }
}

/// Why a parameter keeps its weights whatever the ranks.
fn why_not(
    parameter: &Parameter,
    weight: Option<&NamedWeight>,
    kind: FactorKind,
    named: bool,
) -> Option<String> {
    let shape = parameter.view.shape();
    if weight.is_some_and(|weight| weight.factor) {
        return Some("a factor already".to_owned());
    }
    if let Some(groups) = weight.map(|weight| weight.groups).filter(|&g| g > 1) {
        return Some(match shape.channels {
            1 => format!("depthwise, {groups} groups"),
            _ => format!("{groups} groups"),
        });
    }
    let image = parameter.role == Role::Convolution && parameter.shape.len() == 4;
    if kind.of(shape) == FactorKind::Spatial && !image {
        return Some("no 2-D convolution, which spatial factors are for".to_owned());
    }
    let why = match parameter.role {
        _ if named => None,
        _ if parameter.weights() == 0 => Some("empty"),
        Role::Convolution if shape.positions() == 1 => Some("1×1"),
        Role::Convolution if shape.channels == 1 => Some("one input channel"),
        Role::Convolution => None,
        _ => Some("no convolution"),
    };
    why.map(|why| format!("{why}, as it is unless named"))
}

/// What decisions are made for: nothing is computed that nobody asks for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Wanted {
    /// The ranks alone.
    Ranks,
    /// What they lose, and what other ranks would.
    Errors,
    /// The factors.
    Factors(HooiConfig),
}

/// A parameter with its choice of ranks, or why it has none.
struct Candidate {
    parameter: Parameter,
    problem: Option<ConvProblem>,
    choice: Result<RankChoice, String>,
    named: bool,
    origin: String,
}

/// A decision and what it came from.
pub(super) struct Decided {
    pub(super) parameter: Parameter,
    pub(super) decision: RankDecision,
    pub(super) problem: Option<ConvProblem>,
    /// Of the factors that it has or may have.
    pub(super) kind: FactorKind,
    /// Of a layer that may be decomposed, if errors are wanted.
    pub(super) tails: Option<Tails>,
    /// Of a layer that gets ranks, if factors are wanted.
    factors: Option<LayerFactors>,
}

impl Candidate {
    fn shape(&self) -> WeightShape {
        self.parameter.view.shape()
    }

    /// Whether factors of these ranks may take the place of the weights.
    fn gains(&self, ranks: Ranks) -> bool {
        self.named || self.kind().parameters(ranks, self.shape()) < self.parameter.weights()
    }

    /// Of the factors that it may have.
    fn kind(&self) -> FactorKind {
        let kind = self.choice.as_ref().map(RankChoice::kind);
        kind.unwrap_or_default().of(self.shape())
    }

    /// `rows` are its weights, if they are needed.
    fn decided(self, rows: Option<Vec<f32>>, wanted: Wanted) -> Result<Decided, DecomposeError> {
        let (shape, kind) = (self.shape(), self.kind());
        let Self {
            parameter,
            problem,
            choice,
            named,
            origin,
        } = self;
        let weights = parameter.weights();
        let mut decision = RankDecision {
            path: parameter.path.clone(),
            shape: parameter.shape.clone(),
            ranks: None,
            kind,
            weights,
            parameters: weights,
            macs: problem.map(|problem| [problem.dense_macs(); 2]),
            relative_error: 0.0,
            reason: origin,
        };
        let (mut tails, mut factors) = (None, None);
        match choice {
            Err(reason) => decision.reason = reason,
            Ok(choice) => {
                let analysis = rows.map(|rows| Analysis::new(kind, rows, shape));
                let analysis = analysis.transpose()?;
                let ranks = match &analysis {
                    Some(analysis) => analysis.ranks(&choice)?,
                    None => choice.fixed(shape)?.unwrap_or(kind.full(shape)),
                };
                let parameters = kind.parameters(ranks, shape);
                if !named && parameters >= weights {
                    let reason = format!("{}: at {ranks} no fewer weights", decision.reason);
                    decision.reason = reason;
                } else {
                    decision.ranks = Some(ranks);
                    decision.parameters = parameters;
                    let both = |problem: ConvProblem| {
                        [problem.dense_macs(), kind.macs_of(ranks, &problem)]
                    };
                    decision.macs = problem.map(both);
                }
                match (analysis, wanted) {
                    (Some(analysis), Wanted::Errors) => {
                        if decision.ranks.is_some() {
                            decision.relative_error = analysis.relative_error(ranks)?;
                        }
                        tails = analysis.tails();
                    }
                    (Some(analysis), Wanted::Factors(config)) if decision.ranks.is_some() => {
                        factors = Some(analysis.factors(ranks, config)?);
                    }
                    _ => {}
                }
            }
        }
        Ok(Decided {
            parameter,
            decision,
            problem,
            kind,
            tails,
            factors,
        })
    }
}

impl RankReport {
    /// Weights of all parameters in the table, now and with factors.
    pub fn parameters(&self) -> [usize; 2] {
        let pairs = self
            .layers
            .iter()
            .map(|layer| [layer.weights, layer.parameters]);
        pairs.fold([0, 0], |sum, pair| [sum[0] + pair[0], sum[1] + pair[1]])
    }

    /// Multiply-adds of all layers whose [geometry](RankPlan::with_geometry) is known, now and with factors.
    pub fn macs(&self) -> [u64; 2] {
        let pairs = self.layers.iter().filter_map(|layer| layer.macs);
        pairs.fold([0, 0], |sum, pair| [sum[0] + pair[0], sum[1] + pair[1]])
    }

    /// How many times fewer multiply-adds the factors have, over all layers whose geometry is known; 1 if none
    /// is.
    pub fn flop_ratio(&self) -> f64 {
        match self.macs() {
            [_, 0] => 1.0,
            [now, factors] => now as f64 / factors as f64,
        }
    }

    /// The parameter of this path.
    pub fn layer(&self, path: &str) -> Option<&RankDecision> {
        self.layers.iter().find(|layer| layer.path == path)
    }
}

impl fmt::Display for RankReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let header = [
            "parameter",
            "shape",
            "ranks",
            "weights",
            "factors",
            "FLOPs",
            "error",
            "why",
        ];
        let mut table = Table::new(header).right_aligned(&[3, 4, 5, 6]);
        for layer in &self.layers {
            let (ranks, error) = match layer.ranks {
                Some(ranks) => (
                    match layer.kind {
                        FactorKind::Tucker => ranks.to_string(),
                        kind => format!("{kind} {}", ranks.output),
                    },
                    format!("{:.1} %", 100.0 * layer.relative_error),
                ),
                None => ("–".to_owned(), "–".to_owned()),
            };
            table.row([
                layer.path.clone(),
                format!("{:?}", layer.shape),
                ranks,
                layer.weights.to_string(),
                layer.parameters.to_string(),
                match layer.macs {
                    Some([now, factors]) if factors > 0 => {
                        format!("{:.2}×", now as f64 / factors as f64)
                    }
                    _ => "–".to_owned(),
                },
                error,
                layer.reason.clone(),
            ]);
        }
        table.fmt(f)
    }
}
