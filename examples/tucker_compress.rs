//! Gives a network's convolutions few channels between: trains towards Tucker ranks, decomposes,
//! fine-tunes, packs.
//!
//! ```text
//! cargo run --release --example tucker_compress
//! cargo run --release --example tucker_compress -- --method admm,direct,scratch --flops 3 --seeds 3
//! cargo run --release --example tucker_compress -- --arch resnet18 --width 0.25 --multiple 8 --distill 4
//! cargo run --release --example tucker_compress -- --arch resnet18 --width 0.25 --choose tdc --flops 2.5
//! ```

use std::cell::Cell as StdCell;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use burn::tensor::{Device, Tensor};
use burn_admm::Distillation;
use burn_admm::decompose::{
    FactorKind, Predicted, RankBudget, RankChoice, RankPlan, RankReport, RankRule, RankTimes,
};
use burn_sparse::nn::Trace;
use clap::{Parser, ValueEnum};
use examples::cli::{ArchParser, CommonArgs, DataArgs, after_help, positive};
use examples::data::{ImageDataset, Source, load};
use examples::device::Selected;
use examples::report::Report;
use examples::training::{
    Context, Dense, Factored, PruneArgs, RankMethod, Recipe, SETTINGS, StartArgs, TrainingError,
    TuckerCell, TuckerTable, check_images, decompose, deploy_factored, exit_code, network,
    rank_times, recipe_of, resnet_limits, settle, train_dense, train_on,
};
use models::{Arch, Classifier, Model, ModelConfig};
use serde_json::{Map, Value, json, to_value};

/// Decompose any network into Tucker factors, and compare the ways there
///
/// Each convolution becomes three: 1x1 to few channels, the kernel, 1x1 to all channels. Ranks are chosen
/// for the trained dense network: those that discard least of its weights within the multiply-adds or
/// weights that are allowed. With several methods or seeds, all start from the dense network of their
/// seed, which also trains on for as long: that is the accuracy they are compared with.
#[derive(Parser, Debug)]
#[command(version, after_help = after_help("tucker_compress", &[
    ("a small network, minutes", ""),
    ("is ADMM worth its epochs?", "--method admm,direct,scratch --flops 3 --seeds 3"),
    ("ranks that suit vectors, and a teacher", "--arch resnet18 --width 0.25 --multiple 8 --distill 4"),
    ("four times fewer weights", "--size 4"),
    ("ranks by the clock: half the time of the layers", "--time 2 --arch resnet18"),
    ("the rule that TDC published, beside ours", "--choose tdc --flops 2.5 --arch resnet18"),
    ("your own trained weights", "--arch resnet50 --weights mine.pth --data my_images --dataset folder"),
    ("columns and rows instead of Tucker's three", "--factors spatial --flops 1.5"),
]))]
pub(crate) struct Args {
    /// The network, one with convolutions
    #[arg(long, value_parser = ArchParser, default_value_t = Arch::ResNet20)]
    arch: Arch,

    /// What the widths of all layers are multiplied by
    #[arg(long, value_name = "FACTOR", value_parser = above_zero)]
    width: Option<f64>,

    /// How many times fewer multiply-adds the network shall have
    #[arg(long, value_name = "RATIO", default_value_t = 2.0, value_parser = above_one)]
    flops: f64,

    /// How many times fewer weights the network shall have, instead of multiply-adds
    #[arg(long, value_name = "RATIO", value_parser = above_one, conflicts_with = "flops")]
    size: Option<f64>,

    /// How many times less time the layers shall take, measured on this device one image at a time, instead of
    /// multiply-adds
    #[arg(long, value_name = "RATIO", value_parser = above_one, conflicts_with_all = ["flops", "size"])]
    time: Option<f64>,

    /// Who chooses the ranks. With tdc, and with --time, layers are timed at all ranks on this device, and both
    /// choices are held against each other: predicted time, what is discarded, multiply-adds
    #[arg(long, value_enum, default_value_t)]
    choose: Chooser,

    /// The part of its multiply-adds that each layer has to lose with --choose tdc; by default what --flops says of
    /// the network
    #[arg(long, value_name = "PART", value_parser = part)]
    beta: Option<f64>,

    /// The part of its time that factors have to save a layer with --choose tdc, or it stays whole
    #[arg(long, value_name = "PART", value_parser = part, default_value_t = 0.15)]
    theta: f64,

    /// Which factors: tucker (1x1, core, 1x1) or spatial (a column, then a row); ranks by the clock are of
    /// tucker
    #[arg(long, value_name = "KIND", value_parser = kind, default_value_t)]
    factors: FactorKind,

    /// Keep the times of layers in this file, and use those that it has for this machine; by default in the
    /// output folder
    #[arg(long, value_name = "FILE")]
    times: Option<PathBuf>,

    /// Ranks are multiples of this, 1 unless set; by the clock 8
    #[arg(long, value_name = "N", value_parser = positive)]
    multiple: Option<usize>,

    /// How the network comes to its factors, one or several with commas
    #[arg(long, value_enum, value_delimiter = ',', default_value = "admm")]
    method: Vec<RankMethod>,

    /// Fine-tune with the dense network's outputs as targets, softened by this temperature
    #[arg(long, value_name = "TEMPERATURE", value_parser = temperature)]
    distill: Option<f64>,

    /// Repeat with so many seeds, from --seed on
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = positive)]
    seeds: usize,

    #[command(flatten)]
    start: StartArgs,

    #[command(flatten)]
    prune: PruneArgs,

    #[command(flatten)]
    data: DataArgs,

    #[command(flatten)]
    common: CommonArgs,
}

/// Who chooses the ranks.
#[derive(ValueEnum, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Chooser {
    /// For all layers together: those that discard least of the weights within the budget
    #[default]
    Knapsack,
    /// Layer by layer: the fastest with few enough multiply-adds, and the whole layer where that gains little
    Tdc,
}

fn part(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if (0.0..1.0).contains(&value) => Ok(value),
        _ => Err("expected a part of at least 0 and below 1, such as 0.5".into()),
    }
}

fn kind(text: &str) -> Result<FactorKind, String> {
    match text.parse()? {
        FactorKind::Cp => {
            Err("ranks of CP are not found but given; see `burn_admm::decompose`".into())
        }
        kind => Ok(kind),
    }
}

fn above(text: &str, least: f64) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if value > least && value <= 1000.0 => Ok(value),
        _ => Err(format!("expected a number above {least} and at most 1000")),
    }
}

fn above_zero(text: &str) -> Result<f64, String> {
    above(text, 0.0)
}

fn temperature(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if (1.0..=100.0).contains(&value) => Ok(value),
        _ => Err("expected a temperature from 1 to 100, such as 4".into()),
    }
}

fn above_one(text: &str) -> Result<f64, String> {
    above(text, 1.0)
}

impl Args {
    fn budget(&self) -> RankBudget {
        let budget = match self.size {
            Some(ratio) => RankBudget::compression(ratio),
            None => RankBudget::flop_ratio(self.flops),
        };
        budget.with_multiple(self.step())
    }

    /// Ranks are multiples of this.
    fn step(&self) -> usize {
        self.multiple.unwrap_or(match self.by_clock() {
            false => 1,
            true => STEP,
        })
    }

    /// Whether layers are timed at all ranks.
    fn by_clock(&self) -> bool {
        self.time.is_some() || self.choose == Chooser::Tdc
    }

    /// The part of its multiply-adds that a layer has to lose by TDC's rule.
    fn beta(&self) -> f64 {
        self.beta.unwrap_or(1.0 - 1.0 / self.flops)
    }

    /// Settings that have no meaning together.
    fn check(&self) -> Result<(), TrainingError> {
        let wrong = match self.choose {
            Chooser::Tdc if self.size.is_some() => {
                "--choose tdc limits multiply-adds, not weights: give --flops or --beta instead of --size"
            }
            _ if self.factors != FactorKind::Tucker && self.by_clock() => {
                "ranks by the clock are of Tucker's factors: leave --factors out"
            }
            _ if self.times.is_some() && !self.by_clock() => {
                "nothing is timed: --times goes with --time or --choose tdc"
            }
            _ if self.start.weights.is_some() && self.method.contains(&RankMethod::Scratch) => {
                "scratch trains for as long as the dense network did, which --weights does not say: leave one of them out"
            }
            _ => return Ok(()),
        };
        Err(TrainingError::Settings(wrong.into()))
    }

    /// What limits the ranks, for the report.
    fn limit(&self) -> Value {
        let mut limit = match self.time {
            _ if self.choose == Chooser::Tdc => {
                let (beta, theta) = (self.beta(), self.theta);
                json!({"limited": "tdc", "beta": beta, "theta": theta, "multiple": self.step()})
            }
            None => json!(self.budget()),
            Some(ratio) => {
                json!({"limited": "time", "part": 1.0 / ratio, "multiple": self.step()})
            }
        };
        if self.factors != FactorKind::Tucker {
            limit["factors"] = json!(self.factors);
        }
        limit
    }

    fn taught(&self) -> Option<Distillation> {
        self.distill.map(|temperature| Distillation {
            temperature,
            ..Distillation::default()
        })
    }
}

fn main() -> ExitCode {
    exit_code(run(&Args::parse()))
}

/// The whole run; what it printed is in the report.
///
/// # Errors
/// See [`TrainingError`]; [`TrainingError::Stopped`] where `--stop-after` says so.
pub(crate) fn run(args: &Args) -> Result<TuckerTable, TrainingError> {
    args.check()?;
    let CommonArgs {
        preset,
        seed,
        resume,
        ..
    } = args.common;
    let selected = args.common.select_device()?;
    selected.warn();
    let output = args.common.open_output("tucker_compress", SETTINGS)?;
    let (limit, test_limit) = resnet_limits(preset);
    let options = args.data.options(seed, limit, test_limit);
    let data = load(args.data.source(Source::Cifar10), &options)?;
    println!("{}", data.summary());

    let recipe = args.prune.apply(recipe_of(args.arch, preset, seed));
    let recipe = args.start.apply(recipe, args.prune.epochs);
    let shape = data.shape;
    check_images(args.arch, [shape.height, shape.width])?;
    let config = args.start.config(args.arch, args.width, &data)?;
    let settings = json!({
        "model": config, "dataset": data.name, "train_images": data.train.len(),
        "budget": args.limit(), "distillation": args.taught(), "recipe": recipe,
        "device": selected.to_string(), "weights": args.start.weights,
    });
    settle(&output, &settings, resume)?;
    println!(
        "{} on {selected}, preset {preset}, {} seeds from {seed}: {} dense epochs, then {} of ADMM and {} of \
         fine-tuning, or as many in another way; batch {}, learning rate {}",
        args.arch,
        args.seeds,
        recipe.epochs,
        recipe.admm_iterations * recipe.admm_epochs,
        recipe.retrain_epochs,
        recipe.batch,
        recipe.lr,
    );

    let run = Run {
        args,
        config,
        selected,
        data,
        epochs_left: StdCell::new(args.prune.stop_after),
        times: args
            .times
            .clone()
            .unwrap_or_else(|| output.file("rank-times.json")),
    };
    let mut table = TuckerTable::default();
    for number in 0..args.seeds {
        let recipe = Recipe {
            seed: recipe.seed + number as u64,
            ..recipe.clone()
        };
        let folder = output.path().join(format!("seed-{}", recipe.seed));
        run.one_seed(&recipe, &folder, &mut table)?;
    }
    let path = output.file("report.json");
    if let [only] = table.runs() {
        only.report.save(&path)?;
        println!("\n{}\nreport: {}", only.report.table(), path.display());
        return Ok(table);
    }
    println!("\n{table}");
    output.write("report.json", |file| {
        serde_json::to_writer_pretty(&mut *file, &table)?;
        Ok(())
    })?;
    println!("report: {}", path.display());
    Ok(table)
}

/// Steps of ranks by the clock: a vector of the CPU kernels, or half of one.
const STEP: usize = 8;

/// What all seeds share.
struct Run<'a> {
    args: &'a Args,
    config: ModelConfig,
    selected: Selected,
    data: ImageDataset,
    epochs_left: StdCell<Option<usize>>,
    /// Where the times of layers are kept.
    times: PathBuf,
}

impl Run<'_> {
    /// Trains the dense network of a seed, trains it on, and decomposes it in every way.
    fn one_seed(
        &self,
        recipe: &Recipe,
        folder: &Path,
        table: &mut TuckerTable,
    ) -> Result<(), TrainingError> {
        let args = self.args;
        let build = |device: &Device| network(&self.config, device);
        let scratch = args.method.contains(&RankMethod::Scratch);
        let epochs = recipe.epochs
            + (1 + args.method.len()) * recipe.pruning_epochs()
            + usize::from(scratch) * recipe.epochs;
        let context = Context::new(&self.data, recipe, &self.selected.device, epochs)?
            .with_resume(args.common.resume)
            .with_weights(args.start.weights.clone())
            .with_stop_after(self.epochs_left.get());
        // Hours of training should not end in a budget that no ranks fit.
        self.ranks(&build(&context.device))?;
        let start = train_dense(&context, build, &folder.join("dense"))?;
        let dense = train_on(&context, build, &start, &folder.join("dense-on"))?;
        let (plan, ranks, choices) = self.ranks(&start.model)?;
        println!("{ranks}");
        if let Some(choices) = &choices {
            println!("{choices}");
        }
        for &method in &args.method {
            let folder = folder.join(method.name());
            let how = (method, args.taught());
            let factored = decompose(&context, build, &start, &plan, how, &folder)?;
            let mut report = self.report(&context, (&start, &dense), &factored, &ranks);
            if let Some(choices) = &choices {
                report.extra.insert("choices".into(), choices.json());
            }
            let deployed = deploy_factored(&context, build, &factored, &dense, &folder)?;
            deployed.add_to(&mut report);
            report.save(&folder.join("report.json"))?;
            table.add(TuckerCell { method, report });
        }
        self.epochs_left.set(context.epochs_left());
        Ok(())
    }

    /// The ranks of this network, and both ways to choose them where layers were timed.
    fn ranks(
        &self,
        model: &Model,
    ) -> Result<(RankPlan, RankReport, Option<Choices>), TrainingError> {
        let shape = self.data.shape;
        let probe = [1, shape.channels, shape.height, shape.width];
        let model = burn::module::Module::valid(model);
        let device = self.selected.device.clone().inner();
        let trace = Trace::of(|| drop(model.forward(Tensor::zeros(probe, &device))));
        // Which convolutions may be decomposed; the budget says how far.
        let choice = RankChoice::new(RankRule::Energy(1.0)).with_kind(self.args.factors);
        let eligible = RankPlan::new(choice).with_geometry(&model, &trace);
        let (plan, choices) = if self.args.by_clock() {
            let step = self.args.step();
            let times = rank_times(&model, &eligible, &self.selected, step, &self.times)?;
            let (plan, choices) = self.choices(&model, &eligible, &times)?;
            (plan, Some(choices))
        } else {
            (eligible.within(&model, self.args.budget())?, None)
        };
        let report = plan.explain(&model)?;
        Ok((plan, report, choices))
    }

    /// The plan that was asked for, and what both ways to choose come to.
    fn choices(
        &self,
        model: &Model,
        eligible: &RankPlan,
        times: &RankTimes,
    ) -> Result<(RankPlan, Choices), TrainingError> {
        let args = self.args;
        let (beta, theta) = (args.beta(), args.theta);
        let tdc = eligible.by_tdc(model, times, beta, theta)?;
        let tdc_costs = tdc.predicted(model, times)?;
        // In the time that was asked for, or in that which the other takes.
        let part = match args.time {
            Some(ratio) => 1.0 / ratio,
            None => tdc_costs.ms / tdc_costs.dense_ms,
        };
        let knapsack = eligible.within_time(model, times, part);
        let costs = match &knapsack {
            Ok(plan) => Ok(plan.predicted(model, times)?),
            Err(error) => Err(error.to_string()),
        };
        let choices = Choices {
            chosen: args.choose,
            settings: [beta, theta, part],
            knapsack: costs,
            tdc: tdc_costs,
        };
        match args.choose {
            Chooser::Knapsack => Ok((knapsack?, choices)),
            Chooser::Tdc if choices.tdc.factored == 0 => Err(TrainingError::Settings(format!(
                "by TDC's rule all layers stay whole: none gains {:.0} % of its time with {:.0} % of its \
                     multiply-adds; lower --theta, --beta or --flops",
                100.0 * theta,
                100.0 * (1.0 - beta)
            ))),
            Chooser::Tdc => Ok((tdc, choices)),
        }
    }

    fn report(
        &self,
        context: &Context,
        (start, dense): (&Dense<Model>, &Dense<Model>),
        factored: &Factored<Model>,
        ranks: &RankReport,
    ) -> Report {
        let results = &factored.results;
        let [weights, factors] = ranks.parameters();
        let [macs, factor_macs] = ranks.macs();
        let extra = [
            ("recipe", json!(context.recipe)),
            ("budget", self.args.limit()),
            ("distillation", json!(self.args.taught())),
            ("ranks", to_value(ranks).unwrap_or_default()),
            ("macs", json!(macs)),
            ("macs_factored", json!(factor_macs)),
            ("flop_ratio", json!(ranks.flop_ratio())),
            ("decomposition", json!(results)),
            ("dense_history", json!(dense.history)),
            ("accuracy_dense_before", json!(start.accuracy)),
            ("seconds_factored", json!(start.seconds + factored.seconds)),
            ("test_images", json!(self.data.test.len())),
            ("notices", json!(self.data.notices)),
        ];
        let extra: Map<String, Value> = extra
            .into_iter()
            .map(|(key, value)| (key.to_string(), value))
            .collect();
        Report {
            form: "factored".into(),
            sparsity: 1.0 - factors as f64 / weights.max(1) as f64,
            nnz: factors,
            weights,
            accuracy_dense: dense.accuracy,
            accuracy_projected: results.accuracy_decomposed,
            accuracy_pruned: results.accuracy_tuned,
            extra,
            ..Report::of(
                self.args.arch.name(),
                &format!("tucker-{}", factored.method),
                &self.data,
                &self.selected.to_string(),
                context.recipe.seed,
            )
        }
    }
}

/// Both ways to choose ranks by the clock.
struct Choices {
    chosen: Chooser,
    /// Beta and theta of TDC's rule, and the part of the time that the knapsack had.
    settings: [f64; 3],
    /// Or why there are no such ranks.
    knapsack: Result<Predicted, String>,
    tdc: Predicted,
}

impl Choices {
    fn json(&self) -> Value {
        let [beta, theta, part] = self.settings;
        let knapsack = match &self.knapsack {
            Ok(costs) => json!({"time": part, "predicted": costs}),
            Err(reason) => json!({"time": part, "unreachable": reason}),
        };
        let chosen = match self.chosen {
            Chooser::Knapsack => "knapsack",
            Chooser::Tdc => "tdc",
        };
        json!({
            "chosen": chosen,
            "knapsack": knapsack,
            "tdc": {"beta": beta, "theta": theta, "predicted": self.tdc},
        })
    }
}

impl std::fmt::Display for Choices {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [beta, theta, part] = self.settings;
        let line = |costs: &Predicted| {
            format!(
                "{} of {} timed layers factored, predicted {:.2} ms of {:.2}, discards {:.4} in sum, {:.2}x fewer \
                 FLOPs",
                costs.factored,
                costs.timed,
                costs.ms,
                costs.dense_ms,
                costs.discarded,
                costs.flop_ratio
            )
        };
        let of = |chooser| match self.chosen == chooser {
            true => " (chosen)",
            false => "",
        };
        let knapsack = self.knapsack.as_ref().map_or_else(String::clone, line);
        writeln!(
            f,
            "knapsack in {:.0} % of the time{}: {knapsack}",
            100.0 * part,
            of(Chooser::Knapsack)
        )?;
        write!(
            f,
            "TDC's rule, beta {beta:.2}, theta {theta:.2}{}: {}",
            of(Chooser::Tdc),
            line(&self.tdc)
        )
    }
}
