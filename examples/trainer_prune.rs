//! ADMM inside Burn's own trainer: a dashboard in a terminal, plain lines elsewhere.
//!
//! ```text
//! cargo run --release --example trainer_prune
//! cargo run --release --example trainer_prune -- --resume
//! ```

use std::io::{IsTerminal, stdout};
use std::process::ExitCode;
use std::sync::Arc;

use burn::lr_scheduler::constant::ConstantLr;
use burn::module::Module;
use burn::nn::loss::CrossEntropyLossConfig;
use burn::tensor::Device;
use burn::train::checkpoint::{CheckpointingAction, CheckpointingStrategy, KeepLastNCheckpoints};
use burn::train::metric::store::EventStoreClient;
use burn::train::metric::{AccuracyMetric, LossMetric};
use burn::train::{
    ClassificationOutput, InferenceStep, Interrupter, Learner, SupervisedTraining, TrainOutput,
    TrainStep,
};
use burn_admm::train::AdmmTraining;
use burn_admm::{Admm, AdmmConfig, Masks};
use clap::Parser;
use examples::cli::{CommonArgs, DataArgs, Preset, after_help, sparsity};
use examples::data::{Batch, Source, TrainerLoader, load};
use examples::output::OutputDir;
use examples::report::Report;
use examples::training::{
    Context, Dense, IterationRecord, LoopArgs, Method, Pattern, PruneResults, Pruned, Recipe,
    SETTINGS, TrainerCheckpoints, TrainingError, accuracy, deploy, exit_code, lenet_plan,
    lenet_recipe, read_json, settle, summarise,
};
use models::{LeNet5, LeNet5Config};
use serde_json::json;

/// Prune LeNet-5 inside Burn's trainer
///
/// Trains towards the constraint from the start, an outer iteration of ADMM per epoch, projects,
/// packs, and says what that costs. `lenet5_prune` also trains a dense network before and retrains
/// under the mask.
#[derive(Parser, Debug)]
#[command(version, after_help = after_help("trainer_prune", &[
    ("a minute", ""),
    ("stop after two epochs ...", "--stop-after 2"),
    ("... and go on", "--resume"),
]))]
pub(crate) struct Args {
    /// Part of all weights that becomes zero
    #[arg(long, default_value_t = 0.9, value_parser = sparsity, allow_negative_numbers = true)]
    sparsity: f64,

    #[command(flatten)]
    training: LoopArgs,

    #[command(flatten)]
    data: DataArgs,

    #[command(flatten)]
    common: CommonArgs,
}

/// What the trainer asks of a network, around one that knows nothing of it.
#[derive(Module, Debug)]
struct Digits {
    net: LeNet5,
}

impl Digits {
    fn classify(&self, batch: Batch) -> ClassificationOutput {
        let output = self.net.forward(batch.images);
        let loss = CrossEntropyLossConfig::new()
            .init(&output.device())
            .forward(output.clone(), batch.labels.clone());
        ClassificationOutput::new(loss, output, batch.labels)
    }
}

impl TrainStep for Digits {
    type Input = Batch;
    type Output = ClassificationOutput;

    fn step(&self, batch: Batch) -> TrainOutput<ClassificationOutput> {
        let output = self.classify(batch);
        TrainOutput::new(self, output.loss.backward(), output)
    }
}

impl InferenceStep for Digits {
    type Input = Batch;
    type Output = ClassificationOutput;

    fn step(&self, batch: Batch) -> ClassificationOutput {
        self.classify(batch)
    }
}

/// The file with the residuals, of which the trainer's checkpoints know nothing.
const HISTORY: &str = "history.json";

/// Writes the residuals at every checkpoint, which the trainer takes after every epoch.
struct KeepHistory {
    inner: KeepLastNCheckpoints,
    history: Vec<IterationRecord>,
    training: AdmmTraining,
    output: OutputDir,
    interrupter: Interrupter,
}

/// The residuals of a run and of the one that it continues.
fn history(earlier: &[IterationRecord], training: &AdmmTraining) -> Vec<IterationRecord> {
    let new = training.history();
    let new = new.iter().map(IterationRecord::from);
    earlier.iter().cloned().chain(new).collect()
}

impl CheckpointingStrategy for KeepHistory {
    fn checkpointing(
        &mut self,
        epoch: usize,
        store: &EventStoreClient,
    ) -> Vec<CheckpointingAction> {
        let records = history(&self.history, &self.training);
        let written = self.output.write(HISTORY, |file| {
            serde_json::to_writer_pretty(&mut *file, &records)?;
            Ok(())
        });
        if let Err(error) = written {
            self.interrupter.stop(Some(&error.to_string()));
        }
        self.inner.checkpointing(epoch, store)
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
    let selected = args.common.select_device()?;
    selected.warn();
    let device = selected.device.clone().autodiff();
    let seed = args.common.seed;
    let (limit, epochs) = match args.common.preset {
        Preset::Quick => (Some(4_000), 6),
        Preset::Full => (None, 20),
    };
    let epochs = args.training.epochs.unwrap_or(epochs);
    let output = args.common.open_output("trainer_prune", SETTINGS)?;
    let options = args.data.options(seed, limit, limit);
    let data = Arc::new(load(args.data.source(Source::Mnist), &options)?);
    println!("{}", data.summary());
    // No dense training and no retraining here: an outer iteration per epoch is all.
    let recipe = Recipe {
        epochs: 0,
        admm_iterations: epochs,
        retrain_epochs: 0,
        compress_lr: args.training.lr,
        admm: AdmmConfig::new().with_rho(args.training.rho.unwrap_or(0.02)),
        ..lenet_recipe(args.common.preset, seed)
    };
    let settings = json!({
        "dataset": data.name, "train_images": data.train.len(), "sparsity": args.sparsity,
        "recipe": recipe, "device": selected.to_string(),
    });
    settle(&output, &settings, args.common.resume)?;

    // Initial weights, then the state of ADMM: fresh, or that of the last checkpoint.
    device.seed(seed);
    let shape = data.shape;
    let config = LeNet5Config::new(data.num_classes()).with_input([
        shape.channels,
        shape.height,
        shape.width,
    ]);
    let build = |device: &Device| config.init(device);
    let model = Digits {
        net: build(&device),
    };
    let optimizer = recipe.optimizer.init();
    let plan = lenet_plan(&model, args.sparsity, Pattern::Unstructured)?;
    println!("{}", plan.explain(&model)?);
    let mut admm = Admm::new(&model, &plan, recipe.admm)?;
    let checkpoints = TrainerCheckpoints::new(output.path());
    let mut from = 0;
    let mut earlier = Vec::new();
    if args.common.resume {
        from = checkpoints
            .restore(&model, &optimizer, &mut admm)?
            .unwrap_or(0);
        println!("continued after epoch {from} of {epochs}");
    } else {
        checkpoints.clear()?;
    }
    // That of the run, as it was started.
    let resolved = admm.plan().clone();
    if from > 0 {
        earlier = read_json::<Vec<IterationRecord>>(&output.file(HISTORY))?;
        earlier.retain(|record| record.iteration <= admm.iteration());
    }
    let until = args
        .training
        .stop_after
        .map_or(epochs, |n| epochs.min(from + n));

    // Burn's trainer, with one outer iteration per epoch.
    let train = TrainerLoader::train(&data, recipe.batch, seed, from, &device);
    let valid = TrainerLoader::valid(&data, 125, &device);
    let training = AdmmTraining::new(admm, train.batches());
    let supervised = SupervisedTraining::new(output.path(), Arc::new(train), Arc::new(valid))
        .metrics((AccuracyMetric::new(), LossMetric::new()))
        .with_application_logger(None)
        .num_epochs(until)
        .with_default_checkpointers();
    let keep = KeepHistory {
        inner: KeepLastNCheckpoints::new(2),
        history: earlier.clone(),
        training: training.clone(),
        output: output.clone(),
        interrupter: supervised.interrupter(),
    };
    let mut supervised = training
        .register(supervised, output.path())
        .with_checkpointing_strategy(training.checkpoints(output.path(), keep));
    if from > 0 {
        supervised = supervised.checkpoint(from);
    }
    if stdout().is_terminal() {
        println!(
            "Burn's dashboard opens: q stops the run, --resume continues it, `| cat` shows lines"
        );
    }
    let rate = ConstantLr::new(recipe.compress_lr);
    let result = supervised.launch(Learner::new(training.wrap(model), optimizer, rate));
    training.result()?;
    if let Some(error) = result.error {
        return Err(TrainingError::Trainer(error));
    }
    if result.interrupted.is_some() || until < epochs {
        return Err(TrainingError::Stopped {
            stage: "the trainer".into(),
            epoch: checkpoints.epochs().first().copied().unwrap_or(0),
        });
    }

    // Project, write the zeros into the weights, pack, verify, measure.
    let trained = result.model.into_inner();
    let context = Context::new(&data, &recipe, &selected.device, 0)?;
    let dense = Dense {
        accuracy: accuracy(&trained.net, &data, &data.test, &device)?,
        model: trained.net.clone(),
        epoch: epochs,
        history: Vec::new(),
        seconds: 0.0,
    };
    let projected = Masks::project(&trained, &resolved)?.attach(trained)?.net;
    let after = accuracy(&projected, &data, &data.test, &device)?;
    let pruned = Pruned {
        model: projected,
        method: Method::Admm,
        results: PruneResults {
            accuracy_projected: after,
            accuracy_masked: after,
            ..PruneResults::default()
        },
        seconds: 0.0,
    };
    let mut report = summarise(&context, "lenet5", &selected.to_string(), &dense, &pruned)?;
    deploy(&context, build, &pruned, output.path())?.add_to(&mut report);
    let records = history(&earlier, &training);
    report.extra.insert("history".into(), json!(records));
    let path = output.file("report.json");
    report.save(&path)?;
    println!("\n{}\nreport: {}", report.table(), path.display());
    Ok(report)
}
