//! The mapping by rules: a scheme for each kind of layer, and the smallest blocks that the device does not mind.

use burn::module::Module;
use burn_sparse::nn::{Trace, weights};
use burn_sparse::{ConvProblem, SparseError, Sparsity};
use serde::{Deserialize, Serialize};

use super::{LatencyCase, LatencyModel, LatencyTable, MappingError, Operation};
use crate::table::Table;
use crate::{Plan, PlanError};

/// How much a network has to know: what fine schemes are worth.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Difficulty {
    /// Few classes and small images (CIFAR-10): 3×3 kernels are punched in blocks, which is faster.
    #[default]
    Easy,
    /// Many classes (ImageNet): 3×3 kernels follow patterns, which costs less accuracy.
    Hard,
}

/// Settings of [`map_by_rules`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RuleConfig {
    /// Zeros of every layer that is pruned; patterns have five ninths of zeros at least.
    pub sparsity: f64,
    /// Of the data.
    pub difficulty: Difficulty,
    /// How much slower than with the coarsest blocks a layer may be: `beta`.
    pub slack: f64,
    /// Output and input channels of blocks, from the finest on; of linear layers and 1×1 kernels rows and columns.
    pub blocks: Vec<[usize; 2]>,
    /// Patterns of the pool of 3×3 kernels.
    pub patterns: usize,
}

impl Default for RuleConfig {
    /// Four zeros in five, blocks from 4×4 to 16×16, a fifth slower at most, easy data, eight patterns.
    fn default() -> Self {
        Self {
            sparsity: 0.8,
            difficulty: Difficulty::Easy,
            slack: 0.2,
            blocks: vec![[4, 4], [8, 4], [8, 8], [8, 16], [16, 16]],
            patterns: 8,
        }
    }
}

impl RuleConfig {
    fn check(&self) -> Result<(), MappingError> {
        let reason = if !(0.0..1.0).contains(&self.sparsity) {
            format!("a sparsity of {}, which is not from 0 to 1", self.sparsity)
        } else if !(self.slack.is_finite() && self.slack >= 0.0) {
            format!("a slack of {}", self.slack)
        } else if self.blocks.is_empty() || self.blocks.iter().flatten().any(|&side| side == 0) {
            format!("blocks of {:?}", self.blocks)
        } else {
            return Ok(());
        };
        Err(MappingError::Settings(reason))
    }
}

/// What a layer becomes, and why.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Decision {
    /// The path of its weight.
    pub path: String,
    /// Its scheme; none for a layer that stays dense.
    pub sparsity: Option<Sparsity>,
    /// Milliseconds of the layer dense and with the scheme, as measured or predicted.
    pub ms: Option<[f64; 2]>,
    /// Why.
    pub reason: String,
}

/// A scheme for every layer. Prints as a table; [`plan`](Self::plan) is what to train with.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Mapping {
    /// In the order of traversal.
    pub layers: Vec<Decision>,
}

impl Mapping {
    /// The plan: every layer with a scheme is constrained to it, all others stay dense.
    ///
    /// # Errors
    /// [`PlanError`] for a path that no pattern can name.
    pub fn plan(&self) -> Result<Plan, PlanError> {
        self.layers
            .iter()
            .try_fold(Plan::dense(), |plan, layer| match layer.sparsity {
                Some(sparsity) => plan.with_sparsity(layer.path.clone(), sparsity),
                None => Ok(plan),
            })
    }

    /// Milliseconds of all layers whose times are known, dense and as they are mapped: a layer whose scheme is
    /// slower than its dense form counts as that, since packing keeps it dense.
    pub fn ms(&self) -> [f64; 2] {
        let known = self.layers.iter().filter_map(|layer| layer.ms);
        known.fold([0.0; 2], |[dense, mapped], [d, m]| {
            [dense + d, mapped + d.min(m)]
        })
    }
}

impl core::fmt::Display for Mapping {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let mut table =
            Table::new(["weight", "scheme", "dense ms", "ms", "why"]).right_aligned(&[2, 3]);
        for layer in &self.layers {
            let ms = |form: usize| {
                layer
                    .ms
                    .map_or(String::new(), |ms| format!("{:.3}", ms[form]))
            };
            table.row([
                layer.path.clone(),
                layer.sparsity.map_or("dense".to_owned(), scheme),
                ms(0),
                ms(1),
                layer.reason.clone(),
            ]);
        }
        write!(f, "{table}")
    }
}

fn scheme(sparsity: Sparsity) -> String {
    match sparsity {
        Sparsity::Punched {
            filters, channels, ..
        } => format!("punched {filters}x{channels}"),
        Sparsity::BlockColumnRow {
            block: [rows, columns],
            ..
        } => {
            format!("block {rows}x{columns}")
        }
        other => other.name().to_owned(),
    }
}

/// A layer that schemes may be asked of.
struct RuledLayer {
    path: String,
    operation: Operation,
    /// None if no forward pass ran it.
    problem: Option<ConvProblem>,
    /// The first convolution or the last linear layer, which plans keep dense.
    outermost: bool,
}

/// All layers of a model but factors.
fn layers<M: Module>(model: &M, trace: &Trace) -> Result<Vec<RuledLayer>, MappingError> {
    let all = Sparsity::unstructured(0.0).map_err(settings)?;
    let inner = Plan::new(all).resolve(model)?;
    let named = weights(model).into_iter().filter(|named| !named.factor);
    let layers = named.map(|named| RuledLayer {
        problem: trace.problem(named.weight.id()).copied(),
        operation: Operation::of(&named.weight),
        outermost: inner.layer(&named.path).is_none(),
        path: named.path,
    });
    Ok(layers.collect())
}

fn settings(error: SparseError) -> MappingError {
    MappingError::Settings(error.to_string())
}

/// What the rules say of a layer before anything is measured.
enum Rule {
    Keep(String),
    /// One scheme, and why.
    One(Sparsity, String),
    /// A scheme in blocks of several sizes, the coarsest last, and why this scheme.
    Blocks(Vec<Sparsity>, String),
}

fn rule(
    layer: &RuledLayer,
    problem: &ConvProblem,
    config: &RuleConfig,
) -> Result<Rule, SparseError> {
    let operation = layer.operation;
    if layer.outermost {
        return Ok(Rule::Keep(
            "first convolution or last linear layer: little to gain, much to lose".into(),
        ));
    }
    let taps = problem.kernel[0] * problem.kernel[1];
    let channels = problem.in_channels / problem.groups.max(1);
    let rows = problem.out_channels;
    let sparsity = config.sparsity;
    if channels == 1 {
        let what = if problem.groups > 1 {
            "depthwise"
        } else {
            "of one channel"
        };
        return Ok(Rule::Keep(format!(
            "{what}: few weights, and each of them matters"
        )));
    }
    if taps > 1 && problem.kernel == [3, 3] && config.difficulty == Difficulty::Hard {
        let scheme = Sparsity::kernel_pattern(sparsity, config.patterns)?;
        return Ok(Rule::One(
            scheme,
            "3x3 on hard data: patterns cost least accuracy".into(),
        ));
    }
    let across = if taps > 1 {
        channels
    } else {
        problem.row_len()
    };
    let sizes = config
        .blocks
        .iter()
        .filter(|[r, c]| *r <= rows && *c <= across);
    // The coarsest is one block.
    let sizes = sizes.copied().chain([[rows, across]]);
    let coarsest = [rows, across];
    let schemes = sizes.map(|block| match taps > 1 {
        true => Sparsity::punched(sparsity, block),
        // Whole rows would be whole output channels.
        false if block == coarsest => Sparsity::column(sparsity),
        false => Sparsity::block_column_row(sparsity, block),
    });
    let why = match (operation, taps > 1) {
        (Operation::Linear, _) => "linear: rows and columns of blocks",
        (_, false) => "1x1: rows and columns of blocks",
        (_, true) if problem.kernel == [3, 3] => "3x3 on easy data: punched blocks are faster",
        (_, true) => "not 3x3, which patterns are for: punched blocks",
    };
    let mut schemes = schemes.collect::<Result<Vec<_>, _>>()?;
    // The coarsest have the fewest groups to keep one of.
    schemes.retain(|&scheme| {
        let case = LatencyCase::new(operation, *problem, scheme);
        !matches!(case.density(), Err(SparseError::EmptiesLayer { .. }))
    });
    if schemes.is_empty() {
        return Ok(Rule::Keep("nothing would stay of it in any blocks".into()));
    }
    Ok(Rule::Blocks(schemes, why.into()))
}

/// The cases whose times [`map_by_rules`] asks for: to [measure](LatencyTable::measure) first.
///
/// # Errors
/// [`MappingError::Settings`], and [`MappingError::NoLayers`] if the trace knows no layer of the model.
pub fn cases_of_rules<M: Module>(
    model: &M,
    trace: &Trace,
    config: &RuleConfig,
) -> Result<Vec<LatencyCase>, MappingError> {
    config.check()?;
    let mut cases = Vec::new();
    let mut any = false;
    for layer in layers(model, trace)? {
        let Some(problem) = layer.problem else {
            continue;
        };
        any = true;
        let schemes = match rule(&layer, &problem, config).map_err(settings)? {
            Rule::Keep(_) => Vec::new(),
            Rule::One(scheme, _) => vec![scheme],
            Rule::Blocks(schemes, _) => schemes,
        };
        for scheme in schemes {
            let case = LatencyCase::new(layer.operation, problem, scheme);
            if !cases.contains(&case) {
                cases.push(case);
            }
        }
    }
    match any {
        true => Ok(cases),
        false => Err(MappingError::NoLayers),
    }
}

/// Chooses a scheme for every layer by the rules of Gong et al. (2022), section 5: depthwise layers are kept;
/// 3×3 kernels follow patterns on hard data and are punched in blocks on easy; all others are pruned in blocks.
/// Blocks are the smallest whose latency is at most `1 + slack` times that of the coarsest of which something stays at
/// this sparsity: one block, or whole columns, if they have enough of them. Times are those of the table, or of a model fitted to it where it has none. The first convolution
/// and the last linear layer stay dense, and so does a layer that is not faster with its scheme.
///
/// # Errors
/// As [`cases_of_rules`], and [`MappingError::NoTime`] naming a layer whose times nobody can tell.
///
/// # Example
/// ```
/// use burn::tensor::{Device, Tensor};
/// use burn_admm::mapping::{LatencyTable, RuleConfig, cases_of_rules, map_by_rules};
/// use burn_sparse::nn::{Conv2dConfig, Trace};
///
/// let device = Device::flex();
/// let model = [16, 32].map(|width| Conv2dConfig::new([16, width], [3, 3]).init(&device));
/// let trace = Trace::of(|| {
///     model.iter().fold(Tensor::<4>::zeros([1, 16, 14, 14], &device), |x, conv| conv.forward(x));
/// });
///
/// let config = RuleConfig::default();
/// let mut table = LatencyTable::new("this machine");
/// let cases = cases_of_rules(&model, &trace, &config)?;
/// table.measure(&cases, &device, |_, _, _| Ok(()))?;
/// let mapping = map_by_rules(&model, &trace, &table, &config)?;
/// println!("{mapping}");
/// let plan = mapping.plan()?;
/// assert!(plan.resolve(&model)?.layers().len() <= 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn map_by_rules<M: Module>(
    model: &M,
    trace: &Trace,
    table: &LatencyTable,
    config: &RuleConfig,
) -> Result<Mapping, MappingError> {
    config.check()?;
    let fitted = LatencyModel::fit(table).map_err(settings)?;
    let mut decided = Vec::new();
    let mut any = false;
    for layer in layers(model, trace)? {
        let keep = |ms, reason: String| Decision {
            path: layer.path.clone(),
            sparsity: None,
            ms,
            reason,
        };
        let Some(problem) = layer.problem else {
            decided.push(keep(None, "no forward pass ran it".into()));
            continue;
        };
        any = true;
        let time = |sparsity: Sparsity| {
            let case = LatencyCase::new(layer.operation, problem, sparsity);
            if let Some(entry) = table.of(&case) {
                return Ok([entry.dense_ms, entry.packed_ms]);
            }
            let predicted = fitted.predict(&case).map_err(settings)?;
            predicted.ok_or_else(|| MappingError::NoTime {
                path: layer.path.clone(),
                case: Box::new(case),
            })
        };
        let (sparsity, [dense, ms], reason) =
            match rule(&layer, &problem, config).map_err(settings)? {
                Rule::Keep(reason) => {
                    decided.push(keep(None, reason));
                    continue;
                }
                Rule::One(sparsity, reason) => (sparsity, time(sparsity)?, reason),
                Rule::Blocks(schemes, why) => {
                    let times = schemes.iter().map(|&scheme| time(scheme));
                    let times: Vec<[f64; 2]> = times.collect::<Result<_, _>>()?;
                    let Some(&[_, coarse]) = times.last() else {
                        return Err(MappingError::Settings("no blocks".into()));
                    };
                    let most = 1.0 + config.slack;
                    let last = times.len() - 1;
                    let at = times
                        .iter()
                        .position(|[_, ms]| *ms <= most * coarse)
                        .unwrap_or(last);
                    let than = times[at][1] / coarse;
                    let reason = match (at == last, last) {
                        (_, 0) => format!("{why}; smaller blocks do not fit"),
                        (true, _) => {
                            format!("{why}; smaller ones are slower than {most:.2}x the coarsest")
                        }
                        _ => format!(
                            "{why}; the smallest within {most:.2}x of the coarsest ({than:.2}x)"
                        ),
                    };
                    (schemes[at], times[at], reason)
                }
            };
        decided.push(if ms >= dense {
            keep(
                Some([dense, dense]),
                format!("dense is faster: {ms:.3} ms with {}", scheme(sparsity)),
            )
        } else {
            Decision {
                path: layer.path.clone(),
                sparsity: Some(sparsity),
                ms: Some([dense, ms]),
                reason,
            }
        });
    }
    match any {
        true => Ok(Mapping { layers: decided }),
        false => Err(MappingError::NoLayers),
    }
}
