//! Prunes a network by evolution: every layer loses as much as accuracy allows, in trials that are taken
//! back if it does not. Beside it, at the sparsity that comes out, the same network pruned uniformly.
//!
//! ```text
//! cargo run --release --example evolve_prune
//! cargo run --release --example evolve_prune -- --arch cifar6 --method all --seeds 3
//! cargo run --release --example evolve_prune -- --method evolve,gradual --sparsity 0.9,0.95,0.98
//! ```
//!
//! Pietroń and Żurek, *When deep learning models on GPU can be accelerated by taking advantage of
//! unstructured sparsity*, 2020, algorithm 1.

use std::cell::Cell;
use std::path::Path;
use std::process::ExitCode;

use burn::tensor::Device;
use burn_admm::Plan;
use clap::{Args as ClapArgs, Parser, ValueEnum};
use examples::cli::{
    ArchParser, CommonArgs, DataArgs, Preset, after_help, factor, positive, sparsity,
};
use examples::data::{ImageDataset, Source, load};
use examples::device::Selected;
use examples::report::Report;
use examples::training::{
    Comparison, Context, Dense, EvolveRecipe, Method, Pattern, PruneArgs, Pruned, Recipe, SETTINGS,
    TrainingError, check_images, check_plan, config_of, deploy, exit_code, network, prune,
    recipe_of, resnet_limits, settle, summarise, train_dense,
};
use models::{Arch, Model, ModelConfig};
use serde_json::json;

/// Prune a network by evolution with rewinding, beside uniform pruning
///
/// All methods start from the same dense network and train for as many epochs. The first convolution and
/// the last product stay dense. Evolution finds a sparsity for each layer and for all; the others are given
/// that one, the same in every layer, unless --sparsity asks for others.
#[derive(Parser, Debug)]
#[command(version, after_help = after_help("evolve_prune", &[
    ("LeNet-5 on a tenth of MNIST, minutes", ""),
    ("six layers on CIFAR-10 over three seeds", "--arch cifar6 --method all --seeds 3"),
    ("how far uniform pruning gets", "--method evolve,gradual --sparsity 0.9,0.95,0.98"),
]))]
pub(crate) struct Args {
    /// The network
    #[arg(long, value_parser = ArchParser, default_value_t = Arch::LeNet5, value_name = "NAME")]
    arch: Arch,

    /// What the widths of all layers are multiplied by
    #[arg(long, value_name = "FACTOR", value_parser = factor)]
    width: Option<f64>,

    /// How to prune: evolve, gradual, uniform, admm, one or several with commas, or all
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "evolve,gradual",
        value_name = "METHODS"
    )]
    method: Vec<Way>,

    /// Parts of the pruned layers that become zero by the other methods, one or several with commas
    ///
    /// That which evolution has found, unless set. Without evolution 0.95.
    #[arg(long, value_delimiter = ',', value_parser = sparsity, value_name = "SPARSITIES")]
    sparsity: Vec<f64>,

    /// Which weights may stay
    #[arg(long, value_enum, default_value_t = Pattern::Unstructured)]
    pattern: Pattern,

    /// Repeat with so many seeds, from --seed on, and print mean and deviation
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = positive)]
    seeds: usize,

    #[command(flatten)]
    evolve: EvolveArgs,

    #[command(flatten)]
    prune: PruneArgs,

    #[command(flatten)]
    data: DataArgs,

    #[command(flatten)]
    common: CommonArgs,
}

/// Settings of evolution.
#[derive(ClapArgs, Clone, Debug, Default, PartialEq)]
#[command(next_help_heading = "Evolution")]
struct EvolveArgs {
    /// How far validation accuracy may fall below the best, as a part of the images
    #[arg(long, value_name = "PART", allow_negative_numbers = true)]
    tolerance: Option<f64>,

    /// The part of what a layer still has that it gives up in a trial
    #[arg(long, value_name = "PART", allow_negative_numbers = true)]
    step: Option<f64>,

    /// The part of the layers that give something up in a trial
    #[arg(long, value_name = "PART", allow_negative_numbers = true)]
    layers: Option<f64>,

    /// Trials of an epoch
    #[arg(long, value_name = "N", value_parser = positive)]
    trials: Option<usize>,

    /// Peak learning rate of a trial, as a part of that of the other methods while they prune
    #[arg(long, value_name = "PART", value_parser = factor)]
    trial_rate: Option<f64>,

    /// What the gradient counts in the score of a weight, where magnitude counts 1
    #[arg(long, value_name = "B", allow_negative_numbers = true)]
    gradient: Option<f64>,

    /// The most that one layer may lose
    #[arg(long, default_value_t = 0.995, value_parser = sparsity, value_name = "SPARSITY")]
    most: f64,

    /// The most that all of them may lose together
    #[arg(long, value_parser = sparsity, value_name = "SPARSITY")]
    target: Option<f64>,
}

impl EvolveArgs {
    /// The preset's numbers with what was asked for.
    fn apply(&self, mut recipe: EvolveRecipe) -> Result<EvolveRecipe, TrainingError> {
        let config = &mut recipe.config;
        config.tolerance = self.tolerance.unwrap_or(config.tolerance);
        config.step = self.step.unwrap_or(config.step);
        config.layers = self.layers.unwrap_or(config.layers);
        config.gradient = self.gradient.unwrap_or(config.gradient);
        config.target = self.target.unwrap_or(config.target);
        config.validate()?;
        recipe.trials = self.trials.unwrap_or(recipe.trials);
        recipe.rate = self.trial_rate.unwrap_or(recipe.rate);
        Ok(recipe)
    }
}

/// A method, or all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Way {
    /// Evolution with rewinding
    Evolve,
    /// Gradual magnitude pruning, every layer alike
    Gradual,
    /// Magnitude pruning at once, every layer alike
    Uniform,
    /// ADMM, every layer alike
    Admm,
    /// All four
    All,
}

fn methods(ways: &[Way]) -> Vec<Method> {
    let all = [
        (Way::Evolve, Method::Evolve),
        (Way::Gradual, Method::Gradual),
        (Way::Uniform, Method::Oneshot),
        (Way::Admm, Method::Admm),
    ];
    let asked = |way| ways.contains(&way) || ways.contains(&Way::All);
    let asked = all.into_iter().filter(|(way, _)| asked(*way));
    asked.map(|(_, method)| method).collect()
}

fn main() -> ExitCode {
    exit_code(run(&Args::parse()))
}

/// The whole run; what it printed is in the report.
///
/// # Errors
/// See [`TrainingError`]; [`TrainingError::Stopped`] where `--stop-after` says so.
pub(crate) fn run(args: &Args) -> Result<Comparison, TrainingError> {
    let CommonArgs {
        preset,
        seed,
        resume,
        ..
    } = args.common;
    let selected = args.common.select_device()?;
    selected.warn();
    let output = args.common.open_output("evolve_prune", SETTINGS)?;
    let lenet = matches!(args.arch, Arch::LeNet5 | Arch::LeNet300);
    let (limit, test_limit) = match (preset, lenet) {
        (Preset::Quick, true) => (Some(6_000), Some(2_000)),
        _ => resnet_limits(preset),
    };
    let options = args.data.options(seed, limit, test_limit);
    let source = if lenet {
        Source::Mnist
    } else {
        Source::Cifar10
    };
    let data = load(args.data.source(source), &options)?;
    println!("{}", data.summary());

    let shape = data.shape;
    let size = [shape.height, shape.width];
    check_images(args.arch, size)?;
    let mut recipe = args.prune.apply(recipe_of(args.arch, preset, seed));
    recipe.evolve = args.evolve.apply(recipe.evolve)?;
    let config = config_of(args.arch, args.width, &data);
    let settings = json!({
        "model": config, "dataset": data.name, "train_images": data.train.len(),
        "sparsity": args.sparsity, "pattern": args.pattern, "most": args.evolve.most,
        "recipe": recipe, "device": selected.to_string(),
    });
    settle(&output, &settings, resume)?;
    println!(
        "{} on {selected}, seed {}: {} dense epochs, then {} epochs of pruning and retraining; trials of {} \
         batches at most",
        args.arch,
        recipe.seed,
        recipe.epochs,
        recipe.pruning_epochs(),
        recipe
            .evolve
            .batches(data.train.len().div_ceil(recipe.batch)),
    );

    let run = Run {
        args,
        config,
        selected: &selected,
        data: &data,
        epochs_left: Cell::new(args.prune.stop_after),
    };
    let mut comparison = Comparison::default();
    for number in 0..args.seeds {
        let recipe = Recipe {
            seed: recipe.seed + number as u64,
            ..recipe.clone()
        };
        let folder = output.path().join(format!("seed-{}", recipe.seed));
        run.one_seed(&recipe, &folder, &mut comparison)?;
    }
    println!("\n{comparison}");
    output.write("report.json", |file| {
        serde_json::to_writer_pretty(&mut *file, &comparison)?;
        Ok(())
    })?;
    println!("report: {}", output.file("report.json").display());
    Ok(comparison)
}

/// What all seeds share.
struct Run<'a> {
    args: &'a Args,
    config: ModelConfig,
    selected: &'a Selected,
    data: &'a ImageDataset,
    epochs_left: Cell<Option<usize>>,
}

impl Run<'_> {
    /// Trains the dense network of a seed and prunes it in every way.
    fn one_seed(
        &self,
        recipe: &Recipe,
        folder: &Path,
        comparison: &mut Comparison,
    ) -> Result<(), TrainingError> {
        let args = self.args;
        let methods = methods(&args.method);
        let others = methods.iter().filter(|&&m| m != Method::Evolve).count();
        let evolves = methods.contains(&Method::Evolve);
        let runs = usize::from(evolves) + others * args.sparsity.len().max(1);
        let build = |device: &Device| network(&self.config, device);
        let epochs = recipe.epochs + runs * recipe.pruning_epochs();
        let context = Context::new(self.data, recipe, &self.selected.device, epochs)?
            .with_resume(args.common.resume)
            .with_stop_after(self.epochs_left.get());
        let most = self.plan(args.evolve.most)?;
        if evolves {
            // An epoch of training should not end in a plan that does not fit.
            check_plan(&context, &build(&context.device), &most, Method::Evolve)?;
        }
        let dense = train_dense(&context, build, &folder.join("dense"))?;
        println!("{}", most.explain(&dense.model)?);

        let mut sparsities = args.sparsity.clone();
        if evolves {
            let folder = folder.join("evolve");
            let model = dense.model.clone();
            let pruned = prune(&context, build, model, &most, Method::Evolve, &folder)?;
            let report = self.report(&context, build, (&dense, &pruned), &folder, "evolve")?;
            if sparsities.is_empty() {
                sparsities.push(found(&pruned));
            }
            comparison.add(report);
        }
        if sparsities.is_empty() {
            sparsities.push(0.95);
        }
        for method in methods.into_iter().filter(|&m| m != Method::Evolve) {
            for (number, &sparsity) in sparsities.iter().enumerate() {
                let label = match args.sparsity.len() {
                    0 | 1 => method.to_string(),
                    _ => format!("{method} {sparsity}"),
                };
                let folder = folder.join(format!("{method}-{number}"));
                let plan = self.plan(sparsity)?;
                let model = dense.model.clone();
                let pruned = prune(&context, build, model, &plan, method, &folder)?;
                comparison.add(self.report(&context, build, (&dense, &pruned), &folder, &label)?);
            }
        }
        self.epochs_left.set(context.epochs_left());
        Ok(())
    }

    /// The same sparsity for every layer that plans do not keep dense.
    fn plan(&self, sparsity: f64) -> Result<Plan, TrainingError> {
        Ok(Plan::new(self.args.pattern.sparsity(sparsity)?))
    }

    fn report(
        &self,
        context: &Context,
        build: impl Fn(&Device) -> Model,
        (dense, pruned): (&Dense<Model>, &Pruned<Model>),
        folder: &Path,
        label: &str,
    ) -> Result<Report, TrainingError> {
        let device = self.selected.to_string();
        let mut report = summarise(context, self.args.arch.name(), &device, dense, pruned)?;
        deploy(context, build, pruned, folder)?.add_to(&mut report);
        report.method = label.into();
        report
            .extra
            .insert("pruned_layers_sparsity".into(), json!(found(pruned)));
        report.extra.insert("seconds".into(), json!(pruned.seconds));
        let path = folder.join("report.json");
        report.save(&path)?;
        println!("\n{}\nreport: {}", report.table(), path.display());
        Ok(report)
    }
}

/// The part of the pruned layers' weights that is zero.
fn found(pruned: &Pruned<Model>) -> f64 {
    let masks = burn_admm::Masks::attached(&pruned.model);
    let all: usize = masks.layers().iter().map(|layer| layer.keep.len()).sum();
    1.0 - masks.nnz() as f64 / all.max(1) as f64
}
