//! Prunes and quantises LeNet-5 on MNIST until its file is hundreds of times smaller, and judges the
//! network that comes back from the file.
//!
//! ```text
//! cargo run --release --example lenet5_compress
//! cargo run --release --example lenet5_compress -- --preset full --method gradual --ratio 85,167 --seeds 3
//! ```
//!
//! The published experiment of joint pruning and quantisation (Ren et al., "ADMM-NN", ASPLOS 2019).

use std::cell::Cell as StdCell;
use std::path::Path;
use std::process::ExitCode;

use burn::tensor::Device;
use burn_admm::{AdmmConfig, RhoSchedule};
use clap::Parser;
use examples::cli::{ArchParser, CommonArgs, DataArgs, Preset, factor, positive};
use examples::compress::{
    Levels, Setting, Table, defaults, prune_cell, prune_plan, quantise_cell, ratio,
};
use examples::data::{ImageDataset, Source, load};
use examples::training::{
    Context, Dense, Densities, Method, Optimizer, PruneArgs, QuantRecipe, Recipe, SETTINGS,
    StartArgs, TrainingError, check_images, exit_code, network, recipe_of, resnet_limits, settle,
    train_dense, train_on,
};
use models::{Arch, Model, ModelConfig};
use serde_json::json;

/// Prune and quantise LeNet-5, and see how small its file becomes
///
/// The dense network is trained, pruned to one weight in --ratio and retrained; then ADMM draws what
/// is left to the levels of --levels, everything is rounded and tuned on its levels. The network is
/// written to a compressed file, read back, compared with the trained one and tested: all numbers of
/// the table are of the network from the file. The ledger says where its bytes went.
///
/// The dense rival is trained on for as many epochs as pruning and quantising take, those of the
/// longest where ratios differ.
#[derive(Parser, Debug)]
#[command(version, after_help = HELP)]
pub(crate) struct Args {
    /// The network
    #[arg(long, value_parser = ArchParser, default_value = "lenet5", value_name = "NAME")]
    arch: Arch,

    /// What the widths of all layers are multiplied by; not for lenet5, lenet300 and alexnet
    #[arg(long, value_name = "FACTOR", value_parser = factor)]
    width: Option<f64>,

    /// Weights for each that stays, one or several with commas
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "85",
        value_parser = ratio,
        value_name = "RATIOS"
    )]
    ratio: Vec<f64>,

    /// Ratios at which to prune and retrain before, for ratios above them
    #[arg(long, value_delimiter = ',', value_parser = ratio, value_name = "RATIOS")]
    via: Vec<f64>,

    /// Methods of pruning: admm, oneshot, gradual, one or several with commas
    #[arg(long, value_enum, value_delimiter = ',', default_value = "admm")]
    method: Vec<Method>,

    /// Parts of layers that stay, relative to each other, as in conv1=0.3,fc1=0.01
    ///
    /// They take the place of the published densities of lenet5, lenet300 and alexnet, which other layers
    /// keep. Of other networks, name every layer that is to be pruned. Or write erk, for layers of any
    /// network that are not named: densities by their shapes, wide ones sparser. --ratio holds for all together.
    #[arg(long, value_name = "DENSITIES")]
    densities: Option<Densities>,

    /// Levels by layer, the last rule that matches wins, as in conv*=uniform3,fc*=uniform2
    ///
    /// Kinds: uniform (without zero), powers, codebook, fixed, symmetric, asymmetric, followed by the
    /// bits and, for levels of every output channel, /channel. `*` is all weights, `*.bias` all
    /// biases. Given several times, all are tried on the same pruned networks.
    #[arg(long, value_name = "RULES")]
    levels: Vec<Levels>,

    /// Test with 16 bits as well: weights, and what goes into layers and comes out of them
    #[arg(long)]
    halves: bool,

    /// Outer iterations of ADMM towards the levels
    #[arg(long, value_name = "N")]
    quant_iterations: Option<usize>,

    /// Epochs of tuning on the levels
    #[arg(long, value_name = "N")]
    tune_epochs: Option<usize>,

    /// Peak learning rate towards and on the levels; by Adam that of retraining, by SGD a fifth of it
    #[arg(long, value_name = "RATE", value_parser = factor)]
    quant_lr: Option<f64>,

    /// Repeat with so many seeds, from --seed on, and print mean and deviation
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

const HELP: &str = "Examples:
  # a tenth of MNIST, minutes on two cores
  cargo run --release --example lenet5_compress
  # how far it goes, beside pruning at once and gradually, over three seeds
  cargo run --release --example lenet5_compress -- --preset full --ratio 20,85,167,400 \\
      --method admm,oneshot,gradual --seeds 3
  # a CIFAR network with four bits
  cargo run --release --example lenet5_compress -- --arch resnet20 --dataset cifar10 --ratio 6
  # a codebook beside fixed point, both with 16-bit activations
  cargo run --release --example lenet5_compress -- --arch resnet20 --dataset cifar10 --ratio 6 \\
      --levels '*=codebook4' --levels '*=fixed16' --halves";

fn main() -> ExitCode {
    exit_code(run(&Args::parse()))
}

/// Presets: enough epochs that the network finds what to keep.
fn recipes(args: &Args) -> (Recipe, QuantRecipe) {
    let CommonArgs { preset, seed, .. } = args.common;
    let mut recipe = recipe_of(args.arch, preset, seed);
    let lenet = matches!(args.arch, Arch::LeNet5 | Arch::LeNet300);
    if lenet && preset == Preset::Full {
        recipe = Recipe {
            epochs: 8,
            admm_iterations: 12,
            retrain_epochs: 12,
            ..recipe
        };
    }
    let recipe = args.prune.apply(recipe);
    let recipe = args.start.apply(recipe, args.prune.epochs);
    let (iterations, tune_epochs) = match preset {
        Preset::Quick => (2, 3),
        Preset::Full => (2, 4),
    };
    let growing = RhoSchedule::Multiplicative {
        factor: 2.0,
        max: 1.0,
    };
    // At the full rate, momentum takes weights further from their levels than they come back.
    let part = match recipe.optimizer {
        Optimizer::Sgd { .. } => 0.2,
        Optimizer::Adam { .. } => 1.0,
    };
    let quant = QuantRecipe {
        iterations: args.quant_iterations.unwrap_or(iterations),
        iteration_epochs: recipe.admm_epochs,
        tune_epochs: args.tune_epochs.unwrap_or(tune_epochs),
        lr: args.quant_lr.unwrap_or(recipe.retrain_lr * part),
        admm: AdmmConfig::new().with_rho(5e-2).with_schedule(growing),
    };
    (recipe, quant)
}

/// The whole run; what it printed is in the report.
///
/// # Errors
/// See [`TrainingError`]; [`TrainingError::Stopped`] where `--stop-after` says so.
pub(crate) fn run(args: &Args) -> Result<Table, TrainingError> {
    let preset = args.common.preset;
    let selected = args.common.select_device()?;
    selected.warn();
    let output = args.common.open_output("lenet5_compress", SETTINGS)?;
    let lenet = matches!(args.arch, Arch::LeNet5 | Arch::LeNet300);
    let (limit, test_limit) = match (preset, lenet) {
        (Preset::Quick, true) => (Some(6_000), Some(2_000)),
        _ => resnet_limits(preset),
    };
    let options = args.data.options(args.common.seed, limit, test_limit);
    let source = if lenet {
        Source::Mnist
    } else {
        Source::Cifar10
    };
    let data = load(args.data.source(source), &options)?;
    println!("{}", data.summary());
    let shape = data.shape;
    check_images(args.arch, [shape.height, shape.width])?;
    let config = args.start.config(args.arch, args.width, &data)?;
    let (recipe, quant) = recipes(args);
    let mut levels = args.levels.clone();
    if levels.is_empty() {
        let usual = defaults(args.arch).parse();
        levels.push(usual.map_err(TrainingError::Settings)?);
    }
    let names: Vec<String> = levels.iter().map(Levels::to_string).collect();
    let names = names.join(" and ");
    let settings = json!({
        "model": config, "dataset": data.name, "train_images": data.train.len(), "recipe": recipe,
        "quantisation": quant, "levels": names, "via": args.via, "densities": args.densities, "device": selected.to_string(),
        "weights": args.start.weights,
    });
    settle(&output, &settings, args.common.resume)?;
    let settings = settings_of(args, &levels);
    println!(
        "{} on {selected}, seed {}: {} dense epochs, then {} of pruning and {} of quantising for each of \
         {} networks; levels {names}",
        args.arch,
        recipe.seed,
        recipe.epochs,
        recipe.pruning_epochs() * (1 + args.via.len()),
        quant.epochs(),
        settings.len(),
    );
    let run = Run {
        args,
        quant,
        config,
        device: selected.device.clone(),
        data,
        settings,
        levels: levels.len(),
        epochs_left: StdCell::new(args.prune.stop_after),
    };
    let mut table = Table::default();
    for number in 0..args.seeds {
        let recipe = Recipe {
            seed: recipe.seed + number as u64,
            ..recipe.clone()
        };
        let folder = output.path().join(format!("seed-{}", recipe.seed));
        run.one_seed(&recipe, &folder, &mut table)?;
    }
    println!("\n{table}");
    let command = examples::cli::command_line();
    output.write("report.json", |file| {
        let report = json!({
            "command": command, "device": selected.to_string(), "arch": args.arch,
            "dataset": run.data.name, "train_images": run.data.train.len(),
            "valid_images": run.data.valid.len(), "test_images": run.data.test.len(),
            "recipe": recipe, "quantisation": run.quant, "results": table,
        });
        serde_json::to_writer_pretty(&mut *file, &report)?;
        Ok(())
    })?;
    println!("report: {}", output.file("report.json").display());
    if let Some(svg) = table.figure()? {
        output.write("accuracy-ratio.svg", |file| file.write_all(svg.as_bytes()))?;
        println!("figure: {}", output.file("accuracy-ratio.svg").display());
    }
    Ok(table)
}

/// Every method at every ratio, each with all levels in a row.
fn settings_of(args: &Args, levels: &[Levels]) -> Vec<Setting> {
    let mut settings = Vec::new();
    for &method in &args.method {
        for &ratio in &args.ratio {
            let via = args.via.iter().copied().filter(|&via| via < ratio);
            let via: Vec<f64> = via.collect();
            settings.extend(levels.iter().map(|levels| Setting {
                method,
                ratio,
                via: via.clone(),
                densities: args.densities.clone().unwrap_or_default(),
                levels: levels.clone(),
            }));
        }
    }
    settings
}

/// What all seeds share.
struct Run<'a> {
    args: &'a Args,
    quant: QuantRecipe,
    config: ModelConfig,
    device: Device,
    data: ImageDataset,
    settings: Vec<Setting>,
    /// How many levels are tried on each pruned network.
    levels: usize,
    epochs_left: StdCell<Option<usize>>,
}

impl Run<'_> {
    /// Trains the dense network of a seed, trains it on, and compresses it in every way.
    fn one_seed(
        &self,
        recipe: &Recipe,
        folder: &Path,
        table: &mut Table,
    ) -> Result<(), TrainingError> {
        let build = |device: &Device| -> Model { network(&self.config, device) };
        let longest = self.settings.iter().map(|s| s.via.len() + 1).max();
        // The dense rival trains for as long as the longest of the others.
        let rival = Recipe {
            retrain_epochs: recipe.retrain_epochs
                + self.quant.epochs()
                + (longest.unwrap_or(1) - 1) * recipe.pruning_epochs(),
            ..recipe.clone()
        };
        let by_levels = self.settings.chunks(self.levels);
        let stages: usize = by_levels.clone().map(|s| s[0].via.len() + 1).sum();
        let epochs = recipe.epochs
            + rival.pruning_epochs()
            + stages * recipe.pruning_epochs()
            + self.settings.len() * self.quant.epochs();
        let context = |recipe, epochs| {
            let context = Context::new(&self.data, recipe, &self.device, epochs)?;
            Ok::<_, TrainingError>(
                context
                    .with_resume(self.args.common.resume)
                    .with_weights(self.args.start.weights.clone())
                    .with_stop_after(self.epochs_left.get()),
            )
        };
        let own = context(recipe, epochs)?;
        // Hours of training should not end in levels that do not fit.
        let fresh = build(&own.device);
        for setting in &self.settings {
            let plan = prune_plan(self.args.arch, &fresh, setting.ratio, &setting.densities)?
                .resolve(&fresh)?;
            let masked = burn_admm::Masks::project(&fresh, &plan)?.attach(fresh.clone())?;
            setting.levels.plan(&masked)?.resolve(&masked)?;
        }
        let dense: Dense<Model> = train_dense(&own, build, &folder.join("dense"))?;
        self.epochs_left.set(own.epochs_left());
        let longer = context(&rival, rival.pruning_epochs())?;
        let trained_on = train_on(&longer, build, &dense, &folder.join("dense-on"))?;
        self.epochs_left.set(longer.epochs_left());
        let own = context(recipe, epochs - recipe.epochs - rival.pruning_epochs())?;
        for settings in by_levels {
            let asked = (&settings[0], self.args.halves);
            let pruned = prune_cell(&own, self.args.arch, build, &dense, asked, folder)?;
            for (number, setting) in settings.iter().enumerate() {
                let network = (&pruned, trained_on.accuracy);
                let cell = quantise_cell(&own, &self.quant, build, network, (setting, number))?;
                println!("{}", cell.file.ledger);
                table.add(cell);
            }
        }
        self.epochs_left.set(own.epochs_left());
        Ok(())
    }
}
