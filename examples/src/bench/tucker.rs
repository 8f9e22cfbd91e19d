//! `bench tucker`: convolutions by Tucker factors beside the same ones undivided.

use std::time::Duration;

use burn::nn::PaddingConfig2d;
use burn::tensor::ops::ConvOptions;
use burn::tensor::{Device, Distribution, Tensor, TensorData};
use burn_admm::decompose::{
    HooiConfig, RankChoice, RankPlan, RankPlanError, RankRule, Ranks, factor,
};
use burn_sparse::nn::{Conv2d, Conv2dConfig};
use burn_sparse::{ConvProblem, WeightShape, catalogue, cpu};
use clap::Args;
use models::{Classifier, ResNetConfig};
use regex::Regex;
use serde::Serialize;

use super::commands::{Ending, prepare};
use super::measure::{rounds, time};
use super::sweep::{layers, some};
use super::table::{Table, digits};
use super::tucker_layers::{published, resnet18};
use super::{BenchError, CommonArgs, Kind, Layer, Machine, Ratio, measure};
use crate::cli::{command_line, positive};
use crate::device::Backend;
use crate::progress::Progress;
use crate::timing::{Timing, TimingOptions};

/// Largest difference between forms, in parts of the largest output. All are sums of a few thousand products
/// in f32, in different orders.
const TOLERANCE: f64 = 1e-4;
/// The same of a network of twenty layers, whose errors add up.
const NETWORK_TOLERANCE: f64 = 1e-3;
/// Layers of the quick preset.
const FEW: usize = 4;
/// Seconds for a row of the quick and the full preset.
const BUDGETS: [f64; 2] = [0.5, 5.0];

/// Arguments of `bench tucker`.
#[derive(Args, Clone, Debug)]
pub struct TuckerArgs {
    /// Layers instead of those that TDC published: `resnet50`, `vgg16`, `densenet121`, or a file with one layer
    /// a line; needs --ranks
    #[arg(long, value_name = "NAME|FILE", requires = "ranks")]
    pub suite: Option<String>,

    /// Ranks of all layers, output and input, instead of the published ones
    #[arg(long, value_name = "OUT,IN", value_parser = ranks)]
    pub ranks: Option<Ranks>,

    /// Only layers whose names this regular expression finds
    #[arg(long, value_name = "REGEX")]
    pub layer: Option<String>,

    /// Images at once: 1 in the quick preset, 1,16 in the full one
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = positive)]
    pub batch: Vec<usize>,

    /// Time ResNet-18 with TDC's ranks too, whole, beside the dense network
    #[arg(long)]
    pub network: bool,

    /// How and where.
    #[command(flatten)]
    pub common: CommonArgs,
}

fn ranks(text: &str) -> Result<Ranks, String> {
    let parts = text.split_once(',');
    let ranks = parts.and_then(|(output, input)| {
        Some(Ranks::new(
            output.trim().parse().ok()?,
            input.trim().parse().ok()?,
        ))
    });
    match ranks {
        Some(ranks) if ranks.input > 0 && ranks.output > 0 => Ok(ranks),
        _ => Err("expected two ranks, output and input, such as 32,64".into()),
    }
}

/// A layer, or the network, at a batch.
#[derive(Debug, Serialize)]
struct TuckerRow {
    name: String,
    problem: Option<ConvProblem>,
    /// Of the layer; of a network each has its own.
    ranks: Option<Ranks>,
    batch: usize,
    macs: u64,
    macs_factored: u64,
    /// Multiply-adds of the undivided layer over those of its factors.
    flop_ratio: f64,
    forms: Vec<Form>,
    /// Largest difference between the outputs of the factors and those of an independent form, in parts of
    /// the largest output.
    max_rel_diff: f64,
    /// Why the times count for nothing, if so.
    failed: Option<String>,
}

/// A way to compute it.
#[derive(Debug, Serialize)]
struct Form {
    /// `dense` (this project's), `burn_dense`, `burn_three`, `factors`.
    name: &'static str,
    /// Milliseconds.
    time: Timing,
    /// Its time over that of `factors`, round by round: above 1, factors are faster.
    over_factors: Ratio,
}

#[derive(Debug, Serialize)]
struct Report {
    command: String,
    machine: Machine,
    rows: Vec<TuckerRow>,
}

/// Times factors beside undivided convolutions, and prints it.
///
/// # Errors
/// [`BenchError`] for ranks that a layer cannot have, and if nothing can be measured.
pub fn tucker(args: &TuckerArgs) -> Result<Ending, BenchError> {
    let chosen = asked(args)?;
    let prepared = prepare(&args.common, "bench_tucker")?;
    let all = chosen.len();
    let chosen = if prepared.few && args.layer.is_none() {
        let (layers, ranks): (Vec<_>, Vec<_>) = chosen.into_iter().unzip();
        let names: Vec<String> = layers.iter().map(|layer| layer.name().to_owned()).collect();
        let few = some(layers, FEW);
        let place = |layer: &Layer| names.iter().position(|name| name == layer.name());
        few.into_iter()
            .filter_map(|layer| Some((place(&layer).map(|at| ranks[at])?, layer)))
            .map(|(ranks, layer)| (layer, ranks))
            .collect()
    } else {
        chosen
    };
    if chosen.len() < all {
        println!(
            "{} of {all} layers; --preset full takes all, --layer others\n",
            chosen.len()
        );
    }
    let batches = match (args.batch.is_empty(), prepared.few) {
        (false, _) => args.batch.clone(),
        (true, true) => vec![1],
        (true, false) => vec![1, 16],
    };
    let budget = BUDGETS[usize::from(!prepared.few)];
    let options = TimingOptions {
        warmup: 3,
        runs: args.common.runs,
        budget: Duration::from_secs_f64(args.common.budget.unwrap_or(budget)),
    };
    let device = &prepared.selected.device;
    let seed = args.common.seed;
    let on_pool = prepared.selected.backend == Backend::Flex;
    let steps = batches.len() * (chosen.len() + usize::from(args.network));
    let progress = Progress::new("tucker", steps as u64);
    let mut report = Report {
        command: command_line(),
        machine: prepared.machine.clone(),
        rows: Vec::with_capacity(steps),
    };
    for (layer, ranks) in &chosen {
        for &batch in &batches {
            progress.message(layer.name());
            let problem = layer.problem(batch).map_err(|source| BenchError::Layer {
                text: layer.name().to_owned(),
                source,
            })?;
            let case = Case {
                name: layer.name(),
                problem,
                ranks: *ranks,
                seed,
            };
            let row = match on_pool {
                true => cpu::on_pool(|| case.row(device, options))?,
                false => case.row(device, options)?,
            };
            report.rows.push(row);
            progress.inc(1);
        }
    }
    if args.network {
        for &batch in &batches {
            progress.message("resnet18");
            let row = match on_pool {
                true => cpu::on_pool(|| network(batch, seed, device, options))?,
                false => network(batch, seed, device, options)?,
            };
            report.rows.push(row);
            progress.inc(1);
        }
    }
    progress.finish();
    println!("{report}");
    let path = prepared.output.write("report.json", |file| {
        serde_json::to_writer_pretty(&mut *file, &report)?;
        file.write_all(b"\n")
    })?;
    println!("{}", path.display());
    let failed = report
        .rows
        .iter()
        .filter(|row| row.failed.is_some())
        .count();
    Ok(match failed {
        0 => Ending::Well,
        failed => Ending::Found(failed),
    })
}

/// The layers of the command line with their ranks.
fn asked(args: &TuckerArgs) -> Result<Vec<(Layer, Ranks)>, BenchError> {
    let mut chosen = match &args.suite {
        None => published()?,
        Some(suite) => {
            let layers = layers(Some(suite), &[])?.into_iter();
            let ranks = Ranks::new(usize::MAX, usize::MAX);
            layers.map(|layer| (layer, ranks)).collect()
        }
    };
    if let Some(asked) = args.ranks {
        for (_, ranks) in &mut chosen {
            *ranks = asked;
        }
    }
    if let Some(pattern) = &args.layer {
        let pattern = Regex::new(pattern)?;
        chosen.retain(|(layer, _)| pattern.is_match(layer.name()));
        if chosen.is_empty() && !args.network {
            return Err(BenchError::Settings(format!(
                "--layer {pattern}: no layer has such a name"
            )));
        }
    }
    let divisible = |layer: &Layer, ranks: Ranks| {
        let problem = layer.problem(1).ok()?;
        let shape = shape_of(&problem);
        let fits = layer.kind() == Kind::Conv
            && problem.groups == 1
            && shape.positions() > 1
            && ranks.check(shape).is_ok()
            && ranks.parameters(shape) < shape.len();
        fits.then_some(())
    };
    let all = chosen.len();
    if args.suite.is_some() || args.ranks.is_some() {
        chosen.retain(|(layer, ranks)| divisible(layer, *ranks).is_some());
    }
    if chosen.len() < all {
        println!(
            "{} of {all} layers left out: 1x1, grouped, no convolutions, or without fewer weights at these ranks\n",
            all - chosen.len()
        );
    }
    if chosen.is_empty() && !args.network {
        return Err(BenchError::Settings(
            "no layer is left: --ranks fit none, or --layer finds none".into(),
        ));
    }
    Ok(chosen)
}

fn shape_of(problem: &ConvProblem) -> WeightShape {
    WeightShape::new(problem.out_channels, problem.in_channels, problem.kernel)
}

fn unfit(error: RankPlanError) -> BenchError {
    BenchError::Settings(error.to_string())
}

/// A layer to be timed.
struct Case<'a> {
    name: &'a str,
    problem: ConvProblem,
    ranks: Ranks,
    seed: u64,
}

impl Case<'_> {
    fn row(&self, device: &Device, options: TimingOptions) -> Result<TuckerRow, BenchError> {
        let problem = &self.problem;
        let dense = self.layer(device);
        let choice = RankChoice::new(RankRule::Fixed(self.ranks));
        // How well factors fit random weights does not change what they take.
        let start = HooiConfig {
            iterations: 0,
            ..HooiConfig::default()
        };
        let plan = RankPlan::new(choice);
        let factors = plan.decompose(&dense, start).map_err(unfit)?;
        let factored = factor(dense.clone(), &factors).map_err(unfit)?;
        let shape = problem.input_shape();
        let values = catalogue::values(shape.iter().product(), self.seed + 1);
        let x = Tensor::<4>::from_data(TensorData::new(values, shape), device);

        let ours = || dense.forward(x.clone());
        let strips = || factored.forward(x.clone());
        let kernel = dense.weight.val();
        let burn = || conv(x.clone(), kernel.clone(), problem);
        let chain = factored.weight.factors();
        let chain = chain.ok_or_else(|| {
            BenchError::Settings(format!(
                "{}: ranks {:?} leave it whole",
                self.name, self.ranks
            ))
        })?;
        let chain: Vec<(bool, Tensor<4>)> = chain
            .named()
            .map(|(name, weight)| (name == "core", weight.val()))
            .collect();
        let three = || {
            chain
                .iter()
                .fold(x.clone(), |x, (core, weight)| match core {
                    true => conv(x, weight.clone(), problem),
                    false => conv(
                        x,
                        weight.clone(),
                        &ConvProblem::new(1, [1, 1], [1, 1], [1, 1]),
                    ),
                })
        };
        let max_rel_diff = difference(&strips(), &three());
        let rounds = rounds(
            options,
            [
                &|| again(device, &ours),
                &|| again(device, &burn),
                &|| again(device, &three),
                &|| again(device, &strips),
            ],
        )?;
        let [inputs, outputs] = [problem.input, problem.output()].map(|size| size.iter().product());
        let macs = problem.dense_macs();
        let macs_factored =
            (problem.batch * self.ranks.macs(shape_of(problem), inputs, outputs)) as u64;
        Ok(TuckerRow {
            name: self.name.to_owned(),
            problem: Some(*problem),
            ranks: Some(self.ranks),
            batch: problem.batch,
            macs,
            macs_factored,
            flop_ratio: macs as f64 / macs_factored as f64,
            forms: forms(["dense", "burn_dense", "burn_three", "factors"], &rounds),
            max_rel_diff,
            failed: wrong(max_rel_diff, TOLERANCE),
        })
    }

    fn layer(&self, device: &Device) -> Conv2d {
        let problem = &self.problem;
        let [[top, bottom], [left, right]] = problem.padding;
        let channels = [problem.in_channels, problem.out_channels];
        device.seed(self.seed);
        Conv2dConfig::new(channels, problem.kernel)
            .with_stride(problem.stride)
            .with_dilation(problem.dilation)
            .with_padding(PaddingConfig2d::Explicit(top, left, bottom, right))
            .with_bias(false)
            .init(device)
    }
}

/// Burn's convolution. Its paddings are symmetric, as all of these layers' are.
fn conv(x: Tensor<4>, weight: Tensor<4>, problem: &ConvProblem) -> Tensor<4> {
    let padding = problem.padding.map(|[before, _]| before);
    let options = ConvOptions::new(problem.stride, padding, problem.dilation, 1);
    burn::tensor::module::conv2d(x, weight, None, options)
}

/// In parts of the largest of `expected`; NaN if there is one in either.
fn difference<const D: usize>(found: &Tensor<D>, expected: &Tensor<D>) -> f64 {
    let most = |tensor: Tensor<D>| f64::from(tensor.abs().max().into_scalar::<f32>());
    most(found.clone() - expected.clone()) / most(expected.clone())
}

/// One timed run right after another: as where one form is repeated, its weights are in the caches that the
/// forms before it have filled with theirs.
fn again<T>(device: &Device, work: &impl Fn() -> T) -> Result<f64, BenchError> {
    time(device, work)?;
    time(device, work)
}

fn wrong(difference: f64, tolerance: f64) -> Option<String> {
    // NaN fails too.
    let right = difference <= tolerance;
    (!right).then(|| {
        format!(
            "outputs differ by {difference:.1e} of the largest; up to {tolerance:.0e} is rounding"
        )
    })
}

/// Statistics of each form; the last is that of the factors.
fn forms<const N: usize>(names: [&'static str; N], rounds: &[[f64; N]]) -> Vec<Form> {
    let column = |form: usize| rounds.iter().map(|round| round[form]).collect();
    let ratio = |form: usize| {
        let ratios = rounds.iter().map(|round| round[form] / round[N - 1]);
        Timing::of(ratios.collect())
    };
    let forms = names.into_iter().enumerate().filter_map(|(form, name)| {
        let ratio = ratio(form)?;
        Some(Form {
            name,
            time: Timing::of(column(form))?,
            over_factors: Ratio {
                median: ratio.median,
                spread: ratio.spread,
            },
        })
    });
    forms.collect()
}

/// ResNet-18 with random weights, for images of 224×224, batch norms folded: dense, and with TDC's ranks.
fn network(
    batch: usize,
    seed: u64,
    device: &Device,
    options: TimingOptions,
) -> Result<TuckerRow, BenchError> {
    const SIZE: usize = 224;
    let config = ResNetConfig::resnet18(1000);
    device.seed(seed);
    let dense = config.init(device).fold();
    let mut plan = RankPlan::none();
    for (path, ranks) in resnet18() {
        let choice = RankChoice::new(RankRule::Fixed(ranks));
        let rule = plan.with_rule(path, Some(choice));
        plan = rule.map_err(|error| BenchError::Settings(error.to_string()))?;
    }
    let x = Tensor::<4>::random(
        [batch, 3, SIZE, SIZE],
        Distribution::Normal(0.0, 1.0),
        device,
    );
    let trace = burn_sparse::nn::Trace::of(|| drop(dense.forward(x.clone().narrow(0, 0, 1))));
    let plan = plan.with_geometry(&dense, &trace);
    let ranks = plan.explain(&dense).map_err(unfit)?;
    let start = HooiConfig {
        iterations: 0,
        ..HooiConfig::default()
    };
    let factors = plan.decompose(&dense, start).map_err(unfit)?;
    let factored = factor(dense.clone(), &factors).map_err(unfit)?;
    // The same weights, multiplied out: another way to the same scores.
    let product = burn_sparse::pack::unpack(factored.clone());
    let max_rel_diff = difference(&factored.infer(x.clone()), &product.infer(x.clone()));
    let pair = measure(
        device,
        options,
        || factored.infer(x.clone()),
        || dense.infer(x.clone()),
    )?;
    let macs = batch as u64 * config.summary([SIZE, SIZE]).macs();
    let [whole, divided] = ranks.macs().map(|macs| batch as u64 * macs);
    let macs_factored = macs - whole + divided;
    let over = |median: f64, spread: f64| Ratio { median, spread };
    let inverse = 1.0 / pair.ratio.median;
    Ok(TuckerRow {
        name: "resnet18".to_owned(),
        problem: None,
        ranks: None,
        batch,
        macs,
        macs_factored,
        flop_ratio: macs as f64 / macs_factored as f64,
        forms: vec![
            Form {
                name: "dense",
                time: pair.dense,
                over_factors: over(inverse, inverse * pair.ratio.spread / pair.ratio.median),
            },
            Form {
                name: "factors",
                time: pair.sparse,
                over_factors: over(1.0, 0.0),
            },
        ],
        max_rel_diff,
        failed: wrong(max_rel_diff, NETWORK_TOLERANCE),
    })
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{}", self.machine)?;
        let head = [
            "layer",
            "batch",
            "ranks",
            "FLOPs",
            "dense ms",
            "Burn ms",
            "Burn's 3 ms",
            "factors ms",
            "dense/factors",
            "of FLOPs",
            "",
        ];
        let mut table = Table::new(&head);
        for row in &self.rows {
            let form = |name: &str| row.forms.iter().find(|form| form.name == name);
            let millis = |name| form(name).map_or(String::new(), |form| digits(form.time.median));
            let gain = form("dense").map_or(f64::NAN, |form| form.over_factors.median);
            let ranks = |ranks: Ranks| format!("{},{}", ranks.output, ranks.input);
            let verdict = match (&row.failed, gain >= 1.0) {
                (Some(reason), _) => format!("FAILED: {reason}"),
                (None, true) => String::new(),
                (None, false) => "dense wins".to_owned(),
            };
            table.push(vec![
                row.name.clone(),
                row.batch.to_string(),
                row.ranks.map_or_else(|| "TDC's".to_owned(), ranks),
                format!("{:.2}x fewer", row.flop_ratio),
                millis("dense"),
                millis("burn_dense"),
                millis("burn_three"),
                millis("factors"),
                format!("{gain:.2}"),
                format!("{:.2}", gain / row.flop_ratio),
                verdict,
            ]);
        }
        write!(f, "{table}")
    }
}
