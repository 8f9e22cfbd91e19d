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
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;
use std::process::ExitCode;

use burn::module::Module;
use burn::tensor::Device;
use burn_admm::Plan;
use burn_admm::hardware::Effort;
use burn_admm::mapping::{
    MapBudget, MappingError, Offers, OptionConfig, SearchConfig, SearchDevices, SearchLog,
    SearchMethod, Selection, search, within_budget,
};
use clap::{Parser, ValueEnum};
use examples::cli::{CommonArgs, DataArgs, Preset, after_help, positive};
use examples::data::{ImageDataset, Source, load};
use examples::device::{DeviceChoice, Selected, select};
use examples::figure::{Figure, Line};
use examples::output::OutputDir;
use examples::progress::Progress;
use examples::report::Report;
use examples::training::{
    Context, Dense, EpochRecord, Measured, Method, PruneArgs, Pruned, Recipe, SETTINGS,
    TrainingError, check_images, deploy, exit_code, latency_file, network, network_of, offers,
    prune, recipe_of, resnet_limits, resnet_stem, settle, summarise, train_dense, train_on,
};
use models::{Arch, Model, ModelConfig};
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
    /// The network: resnet20, resnet32, resnet56, resnet18 to resnet152, vgg16, vgg16bn, mobilenetv2, alexnet,
    /// lenet5, lenet300 or densenet121 to densenet201
    #[arg(long, default_value_t = Arch::ResNet20)]
    arch: Arch,

    /// What the widths of all layers are multiplied by
    #[arg(long, value_name = "FACTOR", value_parser = width)]
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

fn width(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if value > 0.0 && value <= 100.0 => Ok(value),
        _ => Err("expected a factor above 0 and at most 100, such as 0.5".into()),
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
    let shape = data.shape;
    let size = [shape.height, shape.width];
    check_images(args.arch, size)?;
    let mut config = ModelConfig::new(args.arch)
        .with_classes(data.num_classes())
        .with_input([shape.channels, shape.height, shape.width])
        .with_stem(resnet_stem(args.arch, Preset::Full, size));
    config.width = args.width;
    let choice = OptionConfig::default();
    let settings = json!({
        "model": config, "dataset": data.name, "train_images": data.train.len(), "options": choice,
        "budget": budget, "by": args.by, "evaluations": args.evaluations, "method": args.method, "recipe": recipe, "device": selected.to_string(),
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
        config,
        recipe,
        selected,
        devices,
        data,
        output,
        epochs_left: Cell::new(args.prune.stop_after),
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
    config: ModelConfig,
    recipe: Recipe,
    selected: Selected,
    devices: Vec<Device>,
    data: ImageDataset,
    output: OutputDir,
    epochs_left: Cell<Option<usize>>,
}

impl Run<'_> {
    fn build(&self, device: &Device) -> Model {
        network(&self.config, device)
    }

    /// For so many epochs.
    fn context<'a>(
        &'a self,
        recipe: &'a Recipe,
        epochs: usize,
    ) -> Result<Context<'a>, TrainingError> {
        let context = Context::new(&self.data, recipe, &self.selected.device, epochs)?;
        Ok(context
            .with_resume(self.args.common.resume)
            .with_stop_after(self.epochs_left.get()))
    }

    fn whole(&self, choice: &OptionConfig) -> Result<Report, TrainingError> {
        let (recipe, folder) = (&self.recipe, self.output.path());
        let build = |device: &Device| self.build(device);
        let context = self.context(recipe, recipe.epochs + 2 * recipe.pruning_epochs())?;
        let seen = network_of(&context, &build(&context.device))?;
        println!("{seen}");
        self.text("network.json", &seen.to_json())?;
        self.text("network.dot", &seen.to_dot())?;

        let start = train_dense(&context, build, &folder.join("dense"))?;
        let dense = train_on(&context, build, &start, &folder.join("dense-on"))?;
        self.epochs_left.set(context.epochs_left());
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
            None => self.bounded(offers, &start, [validated(&start)?, validated(&dense)?])?,
            Some(method) => self.searched(offers, &start, method)?,
        };
        println!("{}", chosen.selection.mapping);
        let context = self.context(recipe, 0)?;
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
            let (pruned, accuracy) = self.train(start, selection, effort, (&folder, true))?;
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
            seed: self.recipe.seed,
            ..SearchConfig::new(method, target)
        };
        let file = self.output.file("search.json");
        // Of a run that was started anew the times are other ones.
        let name = json!([offers, config, self.recipe]).to_string();
        let name = format!("{:016x}", hash(&name));
        let mut log = SearchLog::open(&file, &name)
            .map_err(MappingError::from)?
            .table;
        let bar = Progress::new("search", config.evaluations as u64);
        let mut shown = 0;
        let device = self.selected.device.clone();
        let mut devices = match self.devices.as_slice() {
            [] => SearchDevices::new([device.clone()])?,
            devices => SearchDevices::new(devices)?,
        };
        let found = search(
            offers,
            &config,
            &device,
            &mut log,
            |candidates| self.evaluated(candidates, start, &mut devices),
            |log, done, _| {
                bar.inc((done - shown) as u64);
                shown = done;
                Ok(log.save(&file).map_err(MappingError::from)?)
            },
        )?;
        bar.finish();
        println!(
            "the best of {} candidates: {:.3} ms, {:.2} % of the validation images after short training",
            found.history.len(),
            found.best.ms,
            100.0 * found.accuracy
        );
        let (pruned, _) = self.train(start, &found.best, Effort::Full, ("best", true))?;
        Ok(Chosen {
            found: json!({"config": config, "search": found}),
            selection: found.best,
            pruned,
        })
    }

    /// What the candidates of a round reach after short training.
    fn evaluated(
        &self,
        candidates: &[Selection],
        start: &Dense<Model>,
        devices: &mut SearchDevices,
    ) -> Result<Vec<f64>, TrainingError> {
        if self.epochs_left.get().is_some() {
            // Epochs are counted, so one comes after the other.
            let one = |selection: &Selection| {
                if selection.mapping.plan()?.rules().is_empty() {
                    return validated(start);
                }
                let trained = self.train(start, selection, Effort::Proxy, ("candidate", false));
                Ok(trained?.1)
            };
            return candidates.iter().map(one).collect();
        }
        let (dense, recipe) = (validated(start)?, short(&self.recipe));
        let (data, config, output) = (&self.data, &self.config, self.output.path());
        let one = |model: Model, selection: &Selection, device: &Device| {
            let plan = selection.mapping.plan()?;
            if plan.rules().is_empty() {
                return Ok(dense);
            }
            let context = Context::new(data, &recipe, device, recipe.pruning_epochs())?;
            let context = context.quiet();
            let build = |device: &Device| network(config, device);
            // Several are written at the same time, and none is needed afterwards.
            let folder = output.join(format!("candidate-{:016x}", hash(&plan.to_json())));
            let pruned = prune(&context, build, model, &plan, Method::Oneshot, &folder)?;
            // One that stays does no harm.
            let _ = fs::remove_dir_all(&folder);
            Ok::<f64, TrainingError>(chosen(&pruned.results.retrain, pruned.results.epoch))
        };
        let accuracies = devices.evaluate(&start.model, candidates, one);
        for warning in devices.warnings() {
            eprintln!("warning: {warning}");
        }
        accuracies
    }

    /// Trains the dense network towards a selection. Short training is an epoch after projection.
    fn train(
        &self,
        dense: &Dense<Model>,
        selection: &Selection,
        effort: Effort,
        (folder, resumes): (&str, bool),
    ) -> Result<(Pruned<Model>, f64), TrainingError> {
        let (recipe, method) = match effort {
            Effort::Full => (self.recipe.clone(), self.args.method),
            Effort::Proxy => (short(&self.recipe), Method::Oneshot),
        };
        let plan: Plan = selection.mapping.plan()?;
        if plan.rules().is_empty() {
            let reason = format!(
                "the dense network keeps {} already; ask for more",
                self.budget
            );
            return Err(TrainingError::Settings(reason));
        }
        let context = self.context(&recipe, recipe.pruning_epochs())?;
        let context = match resumes {
            true => context,
            // Too short to be worth a state, and too many.
            false => context.with_resume(false).quiet(),
        };
        let folder = self.output.path().join(folder);
        let build = |device: &Device| self.build(device);
        // Running statistics of a clone would be those of the dense network.
        let model = dense.model.valid().train();
        let pruned = prune(&context, build, model, &plan, method, &folder)?;
        self.epochs_left.set(context.epochs_left());
        let accuracy = chosen(&pruned.results.retrain, pruned.results.epoch);
        Ok((pruned, accuracy))
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
            self.text("pareto.svg", &svg)?;
            println!("figure: {}", self.output.file("pareto.svg").display());
        }
        Ok(())
    }

    fn text(&self, name: &str, text: &str) -> Result<(), TrainingError> {
        self.output
            .write(name, |file| file.write_all(text.as_bytes()))?;
        Ok(())
    }
}

/// An epoch after projection.
fn short(recipe: &Recipe) -> Recipe {
    Recipe {
        admm_iterations: 0,
        retrain_epochs: 1,
        ..recipe.clone()
    }
}

fn hash(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}

/// On the validation images, in the epoch that was chosen.
fn chosen(history: &[EpochRecord], epoch: usize) -> f64 {
    let record = history.iter().find(|record| record.epoch == epoch);
    record.map_or(0.0, |record| record.valid_accuracy)
}

fn validated(dense: &Dense<Model>) -> Result<f64, TrainingError> {
    Ok(chosen(&dense.history, dense.epoch))
}
