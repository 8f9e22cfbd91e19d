//! Prunes LeNet-5 on MNIST and packs it.
//!
//! ```text
//! cargo run --release --example lenet5_prune
//! cargo run --release --example lenet5_prune -- --preset full --method all --seeds 3
//! ```
//!
//! The published experiment of ADMM pruning (Zhang et al., 2018; Ren et al., 2019) beside its two
//! baselines, from the same dense network and with the same number of epochs.

use std::cell::Cell;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use burn::tensor::Device;
use clap::{Parser, ValueEnum};
use examples::cli::{CommonArgs, DataArgs, Preset, positive, sparsity};
use examples::data::{ImageDataset, Source, load};
use examples::device::Selected;
use examples::report::Report;
use examples::training::{
    Comparison, Context, Method, Pattern, PruneArgs, Recipe, SETTINGS, TrainingError, deploy,
    exit_code, lenet_plan, lenet_recipe, prune, settle, summarise, train_dense,
};
use models::{Arch, Model, ModelConfig};
use serde_json::json;

/// Prune LeNet-5 on MNIST and pack it
///
/// All four weights are constrained, the first convolution least: layer densities are those
/// published for 71x (conv1 20 %, conv2 8 %, fc1 0.9 %, fc2 7 %) by one common factor, so that the
/// whole network keeps what --sparsity leaves. At the default 0.95 (20x) that is 71 %, 28 %, 3.2 %
/// and 25 %.
#[derive(Parser, Debug)]
#[command(version)]
struct Args {
    /// Part of all weights that becomes zero
    #[arg(long, default_value_t = 0.95, value_parser = sparsity, allow_negative_numbers = true)]
    sparsity: f64,

    /// Which weights may stay
    #[arg(long, value_enum, default_value_t = Pattern::Unstructured)]
    pattern: Pattern,

    /// How to prune
    #[arg(long, value_enum, default_value_t)]
    method: Methods,

    /// Repeat with so many seeds, from --seed on, and print mean and deviation
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = positive)]
    seeds: usize,

    #[command(flatten)]
    prune: PruneArgs,

    #[command(flatten)]
    data: DataArgs,

    #[command(flatten)]
    common: CommonArgs,
}

/// One method, or all from the same dense network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Methods {
    /// ADMM
    #[default]
    Admm,
    /// Magnitude pruning at once
    Oneshot,
    /// Gradual magnitude pruning
    Gradual,
    /// All three, from the same dense network and with the same number of epochs
    All,
}

impl Methods {
    fn list(self) -> Vec<Method> {
        match self {
            Self::Admm => vec![Method::Admm],
            Self::Oneshot => vec![Method::Oneshot],
            Self::Gradual => vec![Method::Gradual],
            Self::All => Method::ALL.to_vec(),
        }
    }
}

fn main() -> ExitCode {
    exit_code(run(&Args::parse()))
}

fn run(args: &Args) -> Result<(), Box<dyn Error>> {
    let selected = args.common.select_device()?;
    selected.warn();
    let output = args.common.open_output("lenet5_prune", SETTINGS)?;
    let limits = match args.common.preset {
        Preset::Quick => (Some(6_000), Some(2_000)),
        Preset::Full => (None, None),
    };
    let options = args.data.options(args.common.seed, limits.0, limits.1);
    let data = load(args.data.source(Source::Mnist), &options)?;
    println!("{}", data.summary());
    let recipe = args
        .prune
        .apply(lenet_recipe(args.common.preset, args.common.seed));
    let settings = json!({
        "arch": Arch::LeNet5, "dataset": data.name, "train_images": data.train.len(),
        "sparsity": args.sparsity, "pattern": args.pattern, "recipe": recipe,
        "device": selected.to_string(),
    });
    settle(&output, &settings, args.common.resume)?;

    let methods = args.method.list();
    println!(
        "lenet5 on {selected}, seed {}: {} dense epochs, then {} epochs of pruning and retraining",
        recipe.seed,
        recipe.epochs,
        recipe.pruning_epochs()
    );
    let mut comparison = Comparison::default();
    let epochs_left = Cell::new(args.prune.stop_after);
    for number in 0..args.seeds {
        let recipe = Recipe {
            seed: recipe.seed + number as u64,
            ..recipe.clone()
        };
        let folder = output.path().join(format!("seed-{}", recipe.seed));
        for report in one_seed(
            (args, &epochs_left),
            &selected,
            &data,
            &recipe,
            &methods,
            &folder,
        )? {
            let path = match (args.seeds, methods.len()) {
                (1, 1) => output.file("report.json"),
                _ => report_path(&folder, &report.method),
            };
            report.save(&path)?;
            println!("\n{}\nreport: {}", report.table(), path.display());
            comparison.add(report);
        }
    }
    if comparison.len() > 1 {
        println!("\n{comparison}");
        output.write("report.json", |file| {
            serde_json::to_writer_pretty(&mut *file, &comparison)?;
            Ok(())
        })?;
        println!("report: {}", output.file("report.json").display());
    }
    Ok(())
}

fn report_path(folder: &Path, method: &str) -> PathBuf {
    folder.join(method).join("report.json")
}

/// Trains the dense network of a seed and prunes it by every method.
fn one_seed(
    (args, epochs_left): (&Args, &Cell<Option<usize>>),
    selected: &Selected,
    data: &ImageDataset,
    recipe: &Recipe,
    methods: &[Method],
    folder: &Path,
) -> Result<Vec<Report>, TrainingError> {
    let shape = data.shape;
    let config = ModelConfig::new(Arch::LeNet5)
        .with_classes(data.num_classes())
        .with_input([shape.channels, shape.height, shape.width]);
    let build = |device: &Device| -> Model { config.init(device) };
    let epochs = recipe.epochs + methods.len() * recipe.pruning_epochs();
    let context = Context::new(data, recipe, &selected.device, epochs)?
        .with_resume(args.common.resume)
        .with_stop_after(epochs_left.get());
    let dense = train_dense(&context, build, &folder.join("dense"))?;
    let plan = lenet_plan(&dense.model, args.sparsity, args.pattern)?;
    println!("{}", plan.explain(&dense.model)?);
    let mut reports = Vec::new();
    for &method in methods {
        let folder = folder.join(method.name());
        let pruned = prune(&context, build, dense.model.clone(), &plan, method, &folder)?;
        let device = selected.to_string();
        let mut report = summarise(&context, "lenet5", &device, &dense, &pruned)?;
        deploy(&context, build, &pruned, &folder)?.add_to(&mut report);
        reports.push(report);
    }
    epochs_left.set(context.epochs_left());
    Ok(reports)
}
