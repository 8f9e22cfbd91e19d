//! Finds a scheme for each layer of a network within a budget of time, size and accuracy, trains and packs it.
//!
//! ```text
//! cargo run --release --example auto_prune
//! cargo run --release --example auto_prune -- --budget latency=0.5x --max-loss 1.0
//! cargo run --release --example auto_prune -- --arch lenet5 --dataset mnist --budget size=100KB
//! cargo run --release --example auto_prune -- --by policy --evaluations 64
//! cargo run --release --example auto_prune -- --by policy --device cuda --devices cuda:0,cuda:1
//! ```

use std::cell::Cell;
use std::path::PathBuf;
use std::process::ExitCode;

use burn::tensor::Device;
use burn_admm::hardware::Effort;
use burn_admm::mapping::{
    MapBudget, Offers, OptionConfig, SearchConfig, SearchDevices, SearchMethod, Selection,
    within_budget,
};
use clap::{Parser, ValueEnum};
use examples::cli::{ArchParser, CommonArgs, DataArgs, after_help, factor, positive};
use examples::data::{Source, load};
use examples::device::{DeviceChoice, Selected, select};
use examples::figure::{Figure, Line};
use examples::output::OutputDir;
use examples::report::Report;
use examples::training::{
    Dense, Mapper, Measured, Method, PruneArgs, Pruned, SETTINGS, StartArgs, TrainingError,
    check_images, deploy, exit_code, latency_file, network_of, offers, recipe_of, resnet_limits,
    settle, summarise, train_dense, train_on, validated,
};
use models::{Arch, Model};
use serde::Serialize;
use serde_json::{Value, json};

/// Let it choose: the scheme of each layer that keeps a budget and loses least
///
/// Layers are timed on the device with every scheme, once for each device, and pruned one at a time to see what
/// the trained network minds. The least harmful choice within the budget is trained and packed. A bound on
/// accuracy is kept by training: where it stands alone, the fastest network that keeps it is searched for.
#[derive(Parser, Debug)]
#[command(version, after_help = after_help("auto_prune", &[
    ("half the time, minutes", ""),
    ("as fast as a point of accuracy allows", "--budget loss=1.0"),
    ("a small file", "--arch lenet5 --dataset mnist --budget size=0.1x"),
]))]
pub(crate) struct Args {
    /// The network
    #[arg(long, value_parser = ArchParser, default_value_t = Arch::ResNet20)]
    arch: Arch,

    /// What the widths of all layers are multiplied by
    #[arg(long, value_name = "FACTOR", value_parser = factor)]
    width: Option<f64>,

    /// Bounds with commas: latency=0.5x, latency=3ms, size=0.2x, size=100KB, loss=1.0
    ///
    /// Parts are of the dense network, times of one image. A loss is in points of accuracy on the validation
    /// images, below the dense network that trained as long.
    #[arg(long, value_name = "BUDGET", default_value = "latency=0.5x")]
    budget: MapBudget,

    /// Points of accuracy that may be lost, as loss= of the budget
    #[arg(long, value_name = "POINTS", value_parser = points)]
    max_loss: Option<f64>,

    /// File that keeps the times of layers; by default one for each device in the user's cache
    #[arg(long, value_name = "FILE")]
    times: Option<PathBuf>,

    /// How schemes are chosen
    #[arg(long, value_enum, default_value_t)]
    by: By,

    /// Networks that a search trains for an epoch each
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = positive)]
    evaluations: usize,

    /// Devices that train the candidates of a search at the same time, with commas; by default that of --device
    ///
    /// What is found does not depend on how many there are, if they are of one kind.
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    devices: Vec<DeviceChoice>,

    /// How to prune
    #[arg(long, value_enum, default_value_t)]
    method: Method,

    #[command(flatten)]
    start: StartArgs,

    #[command(flatten)]
    prune: PruneArgs,

    #[command(flatten)]
    data: DataArgs,

    #[command(flatten)]
    common: CommonArgs,
}

/// How schemes are chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
enum By {
    /// The least sum of losses that layers alone cost, within the budget
    #[default]
    Knapsack,
    /// A search by a policy that learns what is rewarded; for a bound on latency
    Policy,
    /// A search by chance: the control
    Random,
    /// A search by regularised evolution: the other control
    Evolution,
}

impl By {
    fn search(self) -> Option<SearchMethod> {
        match self {
            Self::Knapsack => None,
            Self::Policy => Some(SearchMethod::Policy),
            Self::Random => Some(SearchMethod::Random),
            Self::Evolution => Some(SearchMethod::Evolution),
        }
    }
}

fn points(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if (0.0..=100.0).contains(&value) => Ok(value),
        _ => Err("expected points from 0 to 100, such as 1.0".into()),
    }
}

impl Args {
    fn budget(&self) -> Result<MapBudget, TrainingError> {
        let mut budget = self.budget;
        if let Some(loss) = self.max_loss {
            if budget.loss.is_some_and(|given| given != loss) {
                let reason = "--max-loss and loss= of --budget differ; give one of them";
                return Err(TrainingError::Settings(reason.into()));
            }
            budget.loss = Some(loss);
        }
        Ok(budget)
    }
}

fn main() -> ExitCode {
    exit_code(run(&Args::parse()))
}

/// The whole run; what it printed is in the report.
///
/// # Errors
/// See [`TrainingError`]; [`TrainingError::Stopped`] where `--stop-after` says so.
pub(crate) fn run(args: &Args) -> Result<Report, TrainingError> {
    let CommonArgs {
        preset,
        seed,
        resume,
        ..
    } = args.common;
    let budget = args.budget()?;
    let unfit = match args.method {
        Method::Clicktrain => "starts from fresh weights; schemes are chosen for trained ones",
        Method::Evolve => "chooses sparsities of its own; see the example evolve_prune",
        _ => "",
    };
    if !unfit.is_empty() {
        let reason = format!("--method {} {unfit}", args.method);
        return Err(TrainingError::Settings(reason));
    }
    if args.by.search().is_some()
        && (budget.latency.is_none() || budget.size.is_some() || budget.loss.is_some())
    {
        let reason =
            "a search rewards accuracy at a bound on latency: --budget latency=0.5x, and no other";
        return Err(TrainingError::Settings(reason.into()));
    }
    let selected = args.common.select_device()?;
    selected.warn();
    if args.by.search().is_none() && !args.devices.is_empty() {
        let reason = "--devices are for the candidates of a search; add --by policy";
        return Err(TrainingError::Settings(reason.into()));
    }
    let mut devices = Vec::new();
    for choice in &args.devices {
        let device = select(*choice)?;
        device.warn();
        devices.push(device.device);
    }
    let output = args.common.open_output("auto_prune", SETTINGS)?;
    let (limit, test_limit) = resnet_limits(preset);
    let options = args.data.options(seed, limit, test_limit);
    let data = load(args.data.source(Source::Cifar10), &options)?;
    println!("{}", data.summary());
    let judged = budget.loss.is_some() || args.by.search().is_some();
    if judged && data.valid.is_empty() {
        let reason = "accuracy is judged on validation images, of which there are none; take more images: --limit";
        return Err(TrainingError::Settings(reason.into()));
    }

    let recipe = args.prune.apply(recipe_of(args.arch, preset, seed));
    let recipe = args.start.apply(recipe, args.prune.epochs);
    let shape = data.shape;
    let size = [shape.height, shape.width];
    check_images(args.arch, size)?;
    let config = args.start.config(args.arch, args.width, &data)?;
    let choice = OptionConfig::default();
    let settings = json!({
        "model": config, "dataset": data.name, "train_images": data.train.len(), "options": choice,
        "budget": budget, "by": args.by, "evaluations": args.evaluations, "method": args.method, "recipe": recipe, "device": selected.to_string(),
        "weights": args.start.weights,
    });
    settle(&output, &settings, resume)?;
    println!(
        "{} on {selected}, preset {preset}, seed {seed}: {budget}; {} dense epochs, {} of {} and masked \
         retraining, batch {}, learning rate {}",
        args.arch,
        recipe.epochs,
        recipe.pruning_epochs(),
        args.method,
        recipe.batch,
        recipe.lr,
    );
    let run = Run {
        args,
        budget,
        mapper: Mapper {
            config,
            recipe,
            method: args.method,
            data: &data,
            device: selected.device.clone(),
            folder: output.path().to_path_buf(),
            resume,
            weights: args.start.weights.clone(),
            epochs_left: Cell::new(args.prune.stop_after),
        },
        selected,
        devices,
        output,
    };
    run.whole(&choice)
}

/// What was chosen, and trained at full length.
struct Chosen {
    selection: Selection,
    pruned: Pruned<Model>,
    /// How it was found.
    found: Value,
}

struct Run<'a> {
    args: &'a Args,
    budget: MapBudget,
    mapper: Mapper<'a>,
    selected: Selected,
    devices: Vec<Device>,
    output: OutputDir,
}

impl Run<'_> {
    fn whole(&self, choice: &OptionConfig) -> Result<Report, TrainingError> {
        let (mapper, folder) = (&self.mapper, self.output.path());
        let recipe = &mapper.recipe;
        let build = |device: &Device| mapper.build(device);
        let context = mapper.context(recipe, recipe.epochs + 2 * recipe.pruning_epochs())?;
        let seen = network_of(&context, &build(&context.device))?;
        println!("{seen}");
        mapper.text("network.json", &seen.to_json())?;
        mapper.text("network.dot", &seen.to_dot())?;

        let start = train_dense(&context, build, &folder.join("dense"))?;
        let dense = train_on(&context, build, &start, &folder.join("dense-on"))?;
        mapper.epochs_left.set(context.epochs_left());
        let times = match &self.args.times {
            Some(file) => file.clone(),
            None => latency_file(&self.selected, folder)?,
        };
        let measured = offers(&context, &self.selected, &start, choice, (folder, &times))?;
        if let Some(error) = &measured.prediction {
            println!("{error}");
        }
        let offers = &measured.offers;
        let front = offers.front(24);
        let [ms, bytes] = offers.dense();
        println!(
            "dense: {ms:.3} ms, {bytes:.0} bytes; the fastest of {} choices: {:.3} ms",
            front.len(),
            front.last().map_or(ms, |fastest| fastest.ms)
        );

        let chosen = match self.args.by.search() {
            None => self.bounded(offers, &start, [validated(&start), validated(&dense)])?,
            Some(method) => self.searched(offers, &start, method)?,
        };
        println!("{}", chosen.selection.mapping);
        let context = mapper.context(recipe, 0)?;
        let mut report = summarise(
            &context,
            self.args.arch.name(),
            &self.selected.to_string(),
            &dense,
            &chosen.pruned,
        )?;
        deploy(&context, build, &chosen.pruned, folder)?.add_to(&mut report);
        self.report(&mut report, &measured, &front, &chosen)?;
        let path = self.output.file("report.json");
        report.save(&path)?;
        println!("\n{}\nreport: {}", report.table(), path.display());
        Ok(report)
    }

    /// What keeps the budget and loses least, trained.
    fn bounded(
        &self,
        offers: &Offers,
        start: &Dense<Model>,
        dense: [f64; 2],
    ) -> Result<Chosen, TrainingError> {
        let mut trained = Vec::new();
        let found = within_budget(offers, &self.budget, dense, |selection, effort| {
            let folder = format!("trial-{}", trained.len());
            let (pruned, accuracy) = self.train(start, selection, effort, &folder)?;
            println!(
                "{:.3} ms: {:.2} % of the validation images are right after {} training",
                selection.ms,
                100.0 * accuracy,
                match effort {
                    Effort::Proxy => "short",
                    Effort::Full => "full",
                }
            );
            trained.push((selection.ms, effort, pruned));
            Ok::<f64, TrainingError>(accuracy)
        })?;
        let mut trained = trained.into_iter();
        let is_it = |(ms, effort, _): &(f64, Effort, _)| {
            *effort == Effort::Full && *ms == found.selection.ms
        };
        let Some((_, _, pruned)) = trained.find(is_it) else {
            return Err(TrainingError::Settings("nothing was trained".into()));
        };
        Ok(Chosen {
            found: json!(found),
            selection: found.selection,
            pruned,
        })
    }

    /// What a search at the bound on latency finds, trained at full length.
    fn searched(
        &self,
        offers: &Offers,
        start: &Dense<Model>,
        method: SearchMethod,
    ) -> Result<Chosen, TrainingError> {
        let [dense_ms, _] = offers.dense();
        let target = self
            .budget
            .latency
            .map_or(dense_ms, |bound| bound.of(dense_ms));
        let config = SearchConfig {
            evaluations: self.args.evaluations,
            seed: self.mapper.recipe.seed,
            ..SearchConfig::new(method, target)
        };
        let mut devices = match self.devices.as_slice() {
            [] => SearchDevices::new([self.selected.device.clone()])?,
            devices => SearchDevices::new(devices)?,
        };
        let file = self.output.file("search.json");
        let found = self
            .mapper
            .search(offers, &config, start, &mut devices, &file)?;
        let (pruned, _) = self.train(start, &found.best, Effort::Full, "best")?;
        Ok(Chosen {
            found: json!({"config": config, "search": found}),
            selection: found.best,
            pruned,
        })
    }

    /// Trains the dense network towards a selection.
    fn train(
        &self,
        dense: &Dense<Model>,
        selection: &Selection,
        effort: Effort,
        folder: &str,
    ) -> Result<(Pruned<Model>, f64), TrainingError> {
        let plan = selection.mapping.plan()?;
        if plan.rules().is_empty() {
            let reason = format!(
                "the dense network keeps {} already; ask for more",
                self.budget
            );
            return Err(TrainingError::Settings(reason));
        }
        self.mapper.train(dense, &plan, effort, folder)
    }

    fn report(
        &self,
        report: &mut Report,
        measured: &Measured,
        front: &[Selection],
        chosen: &Chosen,
    ) -> Result<(), TrainingError> {
        let [ms, bytes] = measured.offers.dense();
        let points: Vec<_> = front
            .iter()
            .map(|point| json!({"ms": point.ms, "bytes": point.bytes, "harm": point.harm}))
            .collect();
        let more = [
            ("budget", json!(self.budget)),
            ("predicted_dense", json!({"ms": ms, "bytes": bytes})),
            ("prediction", json!(measured.prediction)),
            ("selection", json!(chosen.selection)),
            ("found", chosen.found.clone()),
            ("front", json!(points)),
        ];
        let more = more.map(|(key, value)| (key.to_string(), value));
        report.extra.extend(more);
        let figure = Figure {
            title: format!("{} on {}: what schemes cost", report.arch, report.dataset),
            subtitle: format!(
                "{}, one image; the least harmful scheme for each layer, before training",
                self.selected
            ),
            x: "predicted milliseconds".into(),
            y: "loss above that of the dense network, sum of layers".into(),
            logarithmic: false,
        };
        let line = |name: &str, points: &mut dyn Iterator<Item = &Selection>| Line {
            name: name.into(),
            points: points.map(|point| (point.ms, point.harm)).collect(),
        };
        let lines = [
            line("front", &mut front.iter()),
            line("chosen", &mut std::iter::once(&chosen.selection)),
        ];
        if let Some(svg) = figure.draw(&lines)? {
            self.mapper.text("pareto.svg", &svg)?;
            println!("figure: {}", self.output.file("pareto.svg").display());
        }
        Ok(())
    }
}
