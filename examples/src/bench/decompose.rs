//! `bench decompose`: how long a whole network takes to decompose.

use std::time::Instant;

use burn::tensor::Tensor;
use burn_admm::decompose::{
    Decomposed, HooiConfig, RankBudget, RankChoice, RankPlan, RankPlanError, RankRule, Ranks,
};
use burn_sparse::nn::{Trace, weights};
use burn_sparse::{WeightShape, cpu};
use clap::Args;
use models::{Arch, Classifier, ModelConfig};
use serde::Serialize;

use super::commands::{Ending, prepare};
use super::table::{Table, digits};
use super::{BenchError, CommonArgs, Machine};
use crate::cli::{ArchParser, command_line};
use crate::device::Backend;
use crate::progress::Progress;

/// Arguments of `bench decompose`.
#[derive(Args, Clone, Debug)]
pub struct DecomposeArgs {
    /// The network; resnet18 in the quick preset, resnet50 in the full one
    #[arg(long, value_name = "NAME", value_parser = ArchParser)]
    pub arch: Option<Arch>,

    /// Multiply-adds of the dense network over those that are wanted; without --all, 1x1 convolutions and linear layers keep theirs
    #[arg(long, default_value_t = 1.5, value_name = "RATIO", value_parser = ratio)]
    pub flops: f64,

    /// Decompose 1x1 convolutions and linear layers as well, by a truncated SVD
    #[arg(long)]
    pub all: bool,

    /// Rounds of HOOI at most; 0 leaves it at the HOSVD
    #[arg(long, value_name = "N")]
    pub rounds: Option<usize>,

    /// How and where.
    #[command(flatten)]
    pub common: CommonArgs,
}

fn ratio(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(ratio) if ratio.is_finite() && ratio >= 1.0 => Ok(ratio),
        _ => Err("expected a ratio of at least 1".into()),
    }
}

/// A weight and its factors.
#[derive(Debug, Serialize)]
struct Row {
    path: String,
    shape: WeightShape,
    ranks: Ranks,
    /// Of HOOI.
    rounds: usize,
    /// `‖K − K̂‖ / ‖K‖`.
    relative_error: f64,
}

#[derive(Debug, Serialize)]
struct Report {
    command: String,
    machine: Machine,
    arch: Arch,
    /// The weights are random: none of their ranks is low, and HOOI takes more rounds than for trained ones.
    weights: &'static str,
    parameters: u64,
    hooi: HooiConfig,
    /// Multiply-adds, dense over decomposed.
    flop_ratio: f64,
    /// Seconds for choosing ranks within the budget: the spectra of all weights, and the knapsack.
    choosing: f64,
    /// Seconds for decomposing at these ranks, spectra again included.
    decomposing: f64,
    rows: Vec<Row>,
}

/// Chooses ranks for a network, decomposes it, and says how long both took.
///
/// # Errors
/// [`BenchError`] for a network without convolutions to decompose, and a budget out of reach.
pub fn decompose(args: &DecomposeArgs) -> Result<Ending, BenchError> {
    let prepared = prepare(&args.common, "bench_decompose")?;
    let arch = args.arch.unwrap_or(match prepared.few {
        true => Arch::ResNet18,
        false => Arch::ResNet50,
    });
    let config = ModelConfig::new(arch);
    let device = &prepared.selected.device;
    device.seed(args.common.seed);
    let model = config.init(device);
    let [channels, height, width] = config.input;
    let x = Tensor::<4>::zeros([1, channels, height, width], device);
    let trace = Trace::of(|| drop(model.forward(x)));
    let choice = RankChoice::new(RankRule::Energy(1.0));
    let mut eligible = RankPlan::new(choice).with_geometry(&model, &trace);
    if args.all {
        // By name, for they have no other way in.
        for named in weights(&model) {
            let rule = eligible.with_rule(named.path, choice);
            eligible = rule.map_err(|error| BenchError::Settings(format!("{arch}: {error}")))?;
        }
    }
    let mut hooi = HooiConfig::default();
    hooi.iterations = args.rounds.unwrap_or(hooi.iterations);

    let progress = Progress::new("decompose", 2);
    progress.message("ranks");
    let work = || -> Result<_, RankPlanError> {
        let begin = Instant::now();
        let plan = eligible.within(&model, RankBudget::flop_ratio(args.flops))?;
        let choosing = begin.elapsed().as_secs_f64();
        progress.inc(1);
        progress.message("factors");
        let begin = Instant::now();
        let factors = plan.decompose(&model, hooi)?;
        let decomposing = begin.elapsed().as_secs_f64();
        progress.inc(1);
        Ok((plan, factors, [choosing, decomposing]))
    };
    let done = match prepared.selected.backend {
        Backend::Flex => cpu::on_pool(work),
        _ => work(),
    };
    let (plan, factors, [choosing, decomposing]) =
        done.map_err(|error| BenchError::Settings(format!("{arch}: {error}")))?;
    progress.finish();
    let explained = plan.explain(&model);
    let explained = explained.map_err(|error| BenchError::Settings(format!("{arch}: {error}")))?;
    let report = Report {
        command: command_line(),
        machine: prepared.machine.clone(),
        arch,
        weights: "random",
        parameters: config.summary([height, width]).params(),
        hooi,
        flop_ratio: explained.flop_ratio(),
        choosing,
        decomposing,
        rows: factors.iter().map(row).collect(),
    };
    println!("{report}");
    let path = prepared.output.write("report.json", |file| {
        serde_json::to_writer_pretty(&mut *file, &report)?;
        file.write_all(b"\n")
    })?;
    println!("{}", path.display());
    Ok(Ending::Well)
}

fn row(decomposed: &Decomposed) -> Row {
    let factors = &decomposed.factors;
    Row {
        path: decomposed.path.clone(),
        shape: factors.shape(),
        ranks: factors.ranks(),
        rounds: factors.iterations(),
        relative_error: factors.relative_error(),
    }
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{}", self.machine)?;
        let mut table = Table::new(&["weight", "shape", "ranks", "rounds", "error"]);
        for row in &self.rows {
            let [height, width] = row.shape.kernel;
            table.push(vec![
                row.path.clone(),
                format!("{}x{}x{height}x{width}", row.shape.rows, row.shape.channels),
                format!("{},{}", row.ranks.output, row.ranks.input),
                row.rounds.to_string(),
                format!("{:.3}", row.relative_error),
            ]);
        }
        writeln!(f, "{table}")?;
        write!(
            f,
            "{}, {} parameters, random weights: {:.2}x fewer multiply-adds; ranks chosen in {} s, {} weights \
             decomposed in {} s",
            self.arch,
            self.parameters,
            self.flop_ratio,
            digits(self.choosing),
            self.rows.len(),
            digits(self.decomposing)
        )
    }
}
