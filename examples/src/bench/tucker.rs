//! `bench tucker`: convolutions by Tucker factors beside the same ones undivided.

use burn::nn::PaddingConfig2d;
use burn::tensor::{Device, Distribution, Tensor, TensorData};
use burn_admm::decompose::{
    HooiConfig, RankChoice, RankPlan, RankPlanError, RankRule, Ranks, factor,
};
use burn_sparse::nn::{Conv2d, Conv2dConfig, replace_weights, weights};
use burn_sparse::{ConvProblem, WeightShape, catalogue, cpu};
use clap::Args;
use models::{Classifier, ResNetConfig};
use regex::Regex;
use serde::Serialize;

use super::commands::{Ending, prepare};
use super::measure::{Clock, rounds_of, time};
use super::sweep::{layers, some};
use super::table::{Table, digits};
use super::tucker_forms::{Absent, Form, FormName, Forms, difference, statistics};
use super::tucker_layers::{published, resnet18};
use super::tucker_tiles::{self, TileRow};
use super::{BenchError, CommonArgs, Dtype, Kind, Layer, Machine, Ratio, measure};
use crate::cli::{command_line, positive};
use crate::device::Backend;
use crate::progress::Progress;
use crate::timing::TimingOptions;

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

    /// Types of the numbers
    #[arg(
        long,
        value_enum,
        value_name = "LIST",
        value_delimiter = ',',
        default_value = "f32"
    )]
    pub dtype: Vec<Dtype>,

    /// Forms to time, beside the layer with factors: by default the undivided layer, Burn's and three of Burn's on
    /// flex, and all on other devices
    #[arg(long, value_enum, value_name = "LIST", value_delimiter = ',')]
    pub forms: Vec<FormName>,

    /// Time every tile of the core too, and say how far the pick of TDC's analytical model is from the best one;
    /// on CubeCL devices
    #[arg(long)]
    pub model: bool,

    /// Time ResNet-18 with TDC's ranks too, in f32, whole, beside the dense network
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
    dtype: Dtype,
    macs: u64,
    macs_factored: u64,
    /// Multiply-adds of the undivided layer over those of its factors.
    flop_ratio: f64,
    forms: Vec<Form>,
    /// Forms that the device does not have.
    absent: Vec<Absent>,
    /// Largest difference between the outputs of the factors and those of an independent form, in parts of
    /// the largest output.
    max_rel_diff: f64,
    /// Why the times count for nothing, if so.
    failed: Option<String>,
    /// Why there are no times, if so.
    skipped: Option<String>,
}

#[derive(Debug, Serialize)]
struct Report {
    command: String,
    machine: Machine,
    rows: Vec<TuckerRow>,
    /// Of every core, with `--model`.
    tiles: Option<Vec<TileRow>>,
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
    let batches = prepared.batches(&args.batch);
    let options = prepared.timing(&args.common, BUDGETS);
    let device = &prepared.selected.device;
    let seed = args.common.seed;
    let on_pool = prepared.selected.backend == Backend::Flex;
    let names = forms(&args.forms, on_pool);
    let layers = args.dtype.len() * chosen.len();
    let steps = batches.len() * (layers + usize::from(args.network));
    let progress = Progress::new("tucker", steps as u64);
    let mut report = Report {
        command: command_line(),
        machine: prepared.machine.clone(),
        rows: Vec::with_capacity(steps),
        tiles: args.model.then(Vec::new),
    };
    for (layer, ranks) in &chosen {
        let conditions = args.dtype.iter();
        let conditions = conditions.flat_map(|&dtype| batches.iter().map(move |&b| (dtype, b)));
        for (dtype, batch) in conditions {
            progress.message(layer.name());
            let problem = layer.problem(batch).map_err(|source| BenchError::Layer {
                text: layer.name().to_owned(),
                source,
            })?;
            let case = Case {
                name: layer.name(),
                problem,
                ranks: *ranks,
                dtype,
                seed,
            };
            let tiles = &mut report.tiles;
            let row = match on_pool {
                true => cpu::on_pool(|| case.row(&names, device, options, tiles))?,
                false => case.row(&names, device, options, tiles)?,
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

/// The forms of the command line, that of the layer last: others are held against it.
fn forms(asked: &[FormName], on_flex: bool) -> Vec<FormName> {
    let usual = match on_flex {
        true => FormName::ON_FLEX.to_vec(),
        false => FormName::ALL.to_vec(),
    };
    let wanted = |name: &FormName| match asked.is_empty() {
        true => usual.contains(name),
        false => asked.contains(name) || *name == FormName::Factors,
    };
    FormName::ALL.into_iter().filter(wanted).collect()
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
    dtype: Dtype,
    seed: u64,
}

impl Case<'_> {
    fn row(
        &self,
        names: &[FormName],
        device: &Device,
        options: TimingOptions,
        tiles: &mut Option<Vec<TileRow>>,
    ) -> Result<TuckerRow, BenchError> {
        let (problem, dtype) = (&self.problem, self.dtype);
        let [inputs, outputs] = [problem.input, problem.output()].map(|size| size.iter().product());
        let macs = problem.dense_macs();
        let macs_factored =
            (problem.batch * self.ranks.macs(shape_of(problem), inputs, outputs)) as u64;
        let mut row = TuckerRow {
            name: self.name.to_owned(),
            problem: Some(*problem),
            ranks: Some(self.ranks),
            batch: problem.batch,
            dtype,
            macs,
            macs_factored,
            flop_ratio: macs as f64 / macs_factored as f64,
            forms: Vec::new(),
            absent: Vec::new(),
            max_rel_diff: 0.0,
            failed: None,
            skipped: None,
        };
        if !dtype.runs_on(device) {
            row.skipped = Some(format!("{device:?} does not compute in {dtype}"));
            return Ok(row);
        }
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
        let [dense, factored] = [dense, factored].map(|layer| in_numbers(layer, dtype));
        let shape = problem.input_shape();
        let values = catalogue::values(shape.iter().product(), self.seed + 1);
        let x = Tensor::<4>::from_data(TensorData::new(values, shape), device);
        let forms = Forms::new([&dense, &factored], *problem, x.cast(dtype.burn()))?;

        let mut there = Vec::new();
        for &name in names {
            match (forms.run(name), forms.expected(name)) {
                (Err(reason), _) => row.absent.push(Absent {
                    name,
                    reason: reason.to_string(),
                }),
                (Ok(found), expected) => {
                    there.push(name);
                    let off = expected.map_or(0.0, |expected| difference(&found, &expected));
                    // NaN stays.
                    if off.is_nan() || off > row.max_rel_diff {
                        row.max_rel_diff = off;
                    }
                }
            }
        }
        row.failed = wrong(row.max_rel_diff, tolerance(dtype));
        let clock = |&name: &FormName| -> Box<dyn Fn() -> Result<f64, BenchError> + '_> {
            let forms = &forms;
            Box::new(move || again(device, &|| forms.run(name)))
        };
        let clocks: Vec<_> = there.iter().map(clock).collect();
        let clocks: Vec<Clock<'_>> = clocks.iter().map(|clock| &**clock as Clock<'_>).collect();
        let rounds = rounds_of(options, &clocks)?;
        row.forms = statistics(&there, &rounds);
        if let Some(tiles) = tiles {
            let core = forms.core_problem();
            let timed = TileRow::of(self.name, core, dtype, options.runs, device);
            tiles.push(timed);
        }
        Ok(row)
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

/// One timed run right after another: as where one form is repeated, its weights are in the caches that the
/// forms before it have filled with theirs.
fn again<T>(device: &Device, work: &impl Fn() -> T) -> Result<f64, BenchError> {
    time(device, work)?;
    time(device, work)
}

fn tolerance(dtype: Dtype) -> f64 {
    match dtype {
        Dtype::F32 => TOLERANCE,
        // What is between the factors is rounded to these numbers.
        Dtype::F16 | Dtype::Bf16 => 16.0 * dtype.epsilon(),
    }
}

fn in_numbers(layer: Conv2d, dtype: Dtype) -> Conv2d {
    let cast = weights(&layer).into_iter();
    let cast = cast.map(|named| named.weight.in_numbers(dtype.burn()));
    let cast = cast.collect();
    replace_weights(layer, cast)
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
        dtype: Dtype::F32,
        macs,
        macs_factored,
        flop_ratio: macs as f64 / macs_factored as f64,
        forms: vec![
            Form {
                name: FormName::Dense,
                time: pair.dense,
                over_factors: over(inverse, inverse * pair.ratio.spread / pair.ratio.median),
            },
            Form {
                name: FormName::Factors,
                time: pair.sparse,
                over_factors: over(1.0, 0.0),
            },
        ],
        absent: Vec::new(),
        max_rel_diff,
        failed: wrong(max_rel_diff, NETWORK_TOLERANCE),
        skipped: None,
    })
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{}", self.machine)?;
        let form = |row: &TuckerRow, name| {
            let mut forms = row.forms.iter();
            forms
                .find(|form| form.name == name)
                .map(|form| (form.time.median, form.over_factors.median))
        };
        // Columns that some row has something for.
        let absent = |row: &TuckerRow, name| row.absent.iter().any(|form| form.name == name);
        let there = |name: &FormName| {
            let mut rows = self.rows.iter();
            rows.any(|row| form(row, *name).is_some() || absent(row, *name))
        };
        let names: Vec<FormName> = FormName::ALL.into_iter().filter(there).collect();
        let mut head = vec!["layer", "batch", "type", "ranks", "FLOPs"];
        head.extend(names.iter().map(|name| name.title()));
        head.extend(["dense/factors", "of FLOPs", ""]);
        let mut table = Table::new(&head);
        for row in &self.rows {
            let gain = form(row, FormName::Dense).map(|(_, over)| over);
            let ranks = |ranks: Ranks| format!("{},{}", ranks.output, ranks.input);
            let mut verdict = match (&row.failed, &row.skipped, gain) {
                (Some(reason), ..) => format!("FAILED: {reason}"),
                (None, Some(reason), _) => format!("not measured: {reason}"),
                (None, None, Some(gain)) if gain < 1.0 => "dense wins".to_owned(),
                _ => String::new(),
            };
            for form in &row.absent {
                let before = if verdict.is_empty() { "" } else { "; " };
                verdict += &format!("{before}no {}: {}", form.name.name(), form.reason);
            }
            let mut cells = vec![
                row.name.clone(),
                row.batch.to_string(),
                row.dtype.to_string(),
                row.ranks.map_or_else(|| "TDC's".to_owned(), ranks),
                format!("{:.2}x fewer", row.flop_ratio),
            ];
            let millis = |name: &FormName| form(row, *name).map(|(median, _)| digits(median));
            cells.extend(names.iter().map(|name| millis(name).unwrap_or_default()));
            let two = |value: Option<f64>| value.map_or_else(String::new, |v| format!("{v:.2}"));
            cells.extend([
                two(gain),
                two(gain.map(|gain| gain / row.flop_ratio)),
                verdict,
            ]);
            table.push(cells);
        }
        write!(f, "{table}")?;
        match &self.tiles {
            Some(tiles) => write!(f, "\n{}", tucker_tiles::table(tiles)),
            None => Ok(()),
        }
    }
}
