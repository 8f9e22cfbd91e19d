//! Prunes a gated recurrent unit on spoken digits in RTMobile's two steps, and packs it.
//!
//! ```text
//! cargo run --release --example gru_speech
//! cargo run --release --example gru_speech -- --preset full --seeds 3
//! cargo run --release --example gru_speech -- --latency
//! ```
//!
//! Columns within blocks first, then rows within bands of columns, each trained with ADMM, masked and
//! retrained (Dong et al., DAC 2020). The dense network that the pruned one is compared with trains on
//! for as many epochs.

use std::cell::Cell;
use std::error::Error;
use std::process::ExitCode;

use burn_admm::{Admm, Masks};
use clap::Parser;
use examples::cli::{CommonArgs, after_help, positive};
use examples::data::speech::{SpeechArgs, digits};
use examples::report::Report;
use examples::sequence::{Score, Stage, Towards};
use examples::speech::{
    Bsp, DenseResult, SpeechContext, StepResult, deploy, limits, recipe, summarise, sweep,
};
use examples::training::{
    Comparison, PruneArgs, Recipe, SETTINGS, TrainingError, exit_code, settle,
};
use models::SpeechGruConfig;
use serde_json::json;

/// Prune a GRU on spoken digits in RTMobile's two steps, and pack it
///
/// Log-mel frames of 10 ms pass through one recurrent layer; the mean of its states names the digit.
/// To keep one weight of the recurrent matrices in R, each of the two steps keeps one in the square
/// root of R: first whole columns of blocks, then whole rows of bands, as many in every gate. The
/// network is packed for frames that arrive one by one.
#[derive(Parser, Debug)]
#[command(version, after_help = after_help("gru_speech", &[
    ("a few minutes", ""),
    ("all recordings, mean and deviation of three seeds", "--preset full --seeds 3"),
    ("twenty times fewer weights in two layers", "--rate 20 --layers 2"),
    ("rows alone, as the published run at 10x", "--steps 1"),
    ("no training: one step of 128 to 2048 units, dense beside packed", "--latency"),
    ("stop in the middle ...", "--stop-after 12"),
    ("... and go on", "--resume"),
]))]
pub(crate) struct Args {
    /// Recurrent weights over those that stay; biases and the classifier do not count
    #[arg(long, default_value_t = 10.0, value_name = "RATE", value_parser = rate)]
    rate: f64,

    /// 2 for columns and then rows, 1 for rows alone
    #[arg(long, default_value_t = 2, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=2))]
    steps: u8,

    /// Bands of columns of each matrix
    #[arg(long, default_value_t = 4, value_name = "N", value_parser = positive)]
    bands: usize,

    /// Blocks of each gate in a band: the rows of a block share their columns
    #[arg(long, default_value_t = 8, value_name = "N", value_parser = positive)]
    blocks: usize,

    /// Hidden units of each recurrent layer
    #[arg(long, default_value_t = 128, value_name = "N", value_parser = positive)]
    hidden: usize,

    /// Recurrent layers
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = positive)]
    layers: usize,

    /// Repeat with so many seeds, from --seed on, and print mean and deviation
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = positive)]
    seeds: usize,

    /// Measure one step of a layer of each size instead of training, and draw it
    #[arg(
        long, value_name = "SIZES", num_args = 0.., value_delimiter = ',', conflicts_with = "resume",
        default_missing_values = ["128", "256", "512", "1024", "2048"], value_parser = positive
    )]
    latency: Option<Vec<usize>>,

    #[command(flatten)]
    prune: PruneArgs,

    #[command(flatten)]
    speech: SpeechArgs,

    #[command(flatten)]
    common: CommonArgs,
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if (1.0..=1e6).contains(&rate) => Ok(rate),
        _ => {
            Err("expected a number of at least 1 and at most a million, such as 10: one weight in ten stays".into())
        }
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    match &args.latency {
        Some(sizes) => exit_code(latency(&args, sizes)),
        None => exit_code(run(&args)),
    }
}

impl Args {
    fn bsp(&self) -> Bsp {
        Bsp {
            rate: self.rate,
            steps: self.steps.into(),
            bands: self.bands,
            blocks: self.blocks,
        }
    }
}

/// Times of single steps, in `report.json` and drawn.
///
/// # Errors
/// Those of packing, measuring and writing.
pub(crate) fn latency(args: &Args, sizes: &[usize]) -> Result<(), Box<dyn Error>> {
    let selected = args.common.select_device()?;
    selected.warn();
    let output = args.common.open_output("gru_speech_latency", SETTINGS)?;
    let features = args.speech.config().features.features();
    let device = (&*selected.to_string(), &selected.device);
    let sweep = sweep(args.bsp(), features, sizes, device, args.common.seed)?;
    print!("{sweep}");
    let svg = sweep.draw()?;
    output.write(&sweep.plot, |file| file.write_all(svg.as_bytes()))?;
    output.write("report.json", |file| {
        serde_json::to_writer_pretty(&mut *file, &sweep)?;
        file.write_all(b"\n")
    })?;
    println!("report: {}", output.file("report.json").display());
    Ok(())
}

/// All seeds; what it printed is in the reports.
///
/// # Errors
/// See [`TrainingError`]; [`TrainingError::Stopped`] where `--stop-after` says so.
pub(crate) fn run(args: &Args) -> Result<Vec<Report>, TrainingError> {
    let selected = args.common.select_device()?;
    selected.warn();
    let output = args.common.open_output("gru_speech", SETTINGS)?;
    let (train, test) = limits(args.common.preset);
    let options = args.speech.options(args.common.seed, train, test);
    let data = digits::load(&options, &args.speech.config())?;
    let recipe = args
        .prune
        .apply(recipe(args.common.preset, args.common.seed));
    let config = SpeechGruConfig::new(data.features(), data.num_classes())
        .with_hidden(args.hidden)
        .with_layers(args.layers);
    let bsp = args.bsp();
    let settings = json!({
        "model": config, "bsp": bsp, "train_recordings": data.train.len(),
        "test_recordings": data.test.len(), "speech": data.config, "recipe": recipe,
        "device": selected.to_string(),
    });
    settle(&output, &settings, args.common.resume)?;
    println!("{}\non {selected}: {bsp}", data.summary());
    println!(
        "{} dense epochs, then {} of pruning and retraining, and as many for the dense network",
        recipe.epochs,
        bsp.order().len() * recipe.pruning_epochs()
    );

    let epochs_left = Cell::new(args.prune.stop_after);
    let mut comparison = Comparison::default();
    for seed in (recipe.seed..).take(args.seeds) {
        let folder = output.path().join(format!("seed-{seed}"));
        let context = SpeechContext {
            data: &data,
            recipe: Recipe {
                seed,
                ..recipe.clone()
            },
            device: selected.device.clone().autodiff(),
            folder: folder.clone(),
            resume: args.common.resume,
            epochs_left: &epochs_left,
        };
        let report = one_seed(&context, &config, bsp, &selected.to_string())?;
        let path = match args.seeds {
            1 => output.file("report.json"),
            _ => folder.join("report.json"),
        };
        report.save(&path)?;
        println!("report: {}", path.display());
        comparison.add(report);
    }
    if comparison.len() > 1 {
        println!("\n{comparison}");
        output.write("report.json", |file| {
            serde_json::to_writer_pretty(&mut *file, &comparison)?;
            file.write_all(b"\n")
        })?;
        println!("report: {}", output.file("report.json").display());
    }
    Ok(comparison.runs().to_vec())
}

/// Trains and prunes the network of a seed, and packs it.
fn one_seed(
    context: &SpeechContext,
    config: &SpeechGruConfig,
    bsp: Bsp,
    device: &str,
) -> Result<Report, TrainingError> {
    let recipe = &context.recipe;
    println!("\nseed {}", recipe.seed);
    // The initial weights depend on the seed alone.
    context.device.seed(recipe.seed);
    let mut fresh = config.init(&context.device)?;
    let stage = |name: &str, epochs, first_epoch, lr, period| Stage {
        name: name.into(),
        epochs,
        first_epoch,
        lr,
        period,
    };

    // 1. Train as always; both networks start from the best epoch.
    let (n, more) = (recipe.epochs, recipe.pruning_epochs());
    let start =
        stage("dense", n, 0, recipe.lr, n).run(context, fresh.clone(), &fresh, Towards::Nothing)?;

    // 2. The dense rival: on and on, its learning rate as it is in retraining.
    let rival = stage(
        "dense-on",
        more * bsp.order().len(),
        n,
        recipe.retrain_lr,
        more,
    );
    let rival = rival.run(context, start.best.clone(), &fresh, Towards::Nothing)?;
    // Without validation recordings the last epoch counts.
    let on = context.data.valid.is_empty() || rival.progress.best.beats(&start.progress.best);
    let dense = DenseResult {
        test: context.test(if on { &rival.best } else { &start.best })?,
        start: start.progress,
        further: rival.progress,
    };
    say("dense, after as many epochs", dense.test);

    let mut model = start.best;
    let mut steps = Vec::new();
    for (i, step) in bsp.order().into_iter().enumerate() {
        // 3. Which weights this step may keep.
        let plan = bsp.plan(step, &model)?;
        let explanation = plan.explain(&model)?;
        println!("{step}:\n{explanation}");
        let first = n + i * more;

        // 4. Towards it, by ADMM; each outer iteration anneals.
        let mut admm = Admm::new(&model, &plan, recipe.admm)?;
        let (epochs, name) = (
            recipe.admm_iterations * recipe.admm_epochs,
            format!("{step}-admm"),
        );
        let towards = stage(&name, epochs, first, recipe.compress_lr, recipe.admm_epochs);
        let towards = towards.run(context, model, &fresh, Towards::Admm(&mut admm))?;

        // 5. Project; what the step before has pruned stays pruned. Retrain what is left.
        let masks = Masks::project(&towards.last, admm.plan())?;
        let projected = masks.attach(towards.last)?;
        fresh = masks.attach(fresh)?;
        let (after, name) = (recipe.retrain_epochs, format!("{step}-retrain"));
        let retrain = stage(&name, after, first + epochs, recipe.retrain_lr, after);
        let retrained = retrain.run(context, projected.clone(), &fresh, Towards::Nothing)?;
        let result = StepResult {
            step,
            plan: explanation,
            nnz: masks.nnz(),
            projected: context.test(&projected)?,
            retrained: context.test(&retrained.best)?,
            admm: towards.progress,
            retrain: retrained.progress,
        };
        say("projected", result.projected);
        say("retrained", result.retrained);
        steps.push(result);
        model = retrained.best;
    }

    // 6. Write the zeros into the weights, pack those, and look at what that changed.
    let deployed = deploy(context, config, &model)?;
    let report = summarise(context, (config, bsp), &dense, &steps, &deployed, device);
    println!("\n{}{}", report.table(), deployed.speed());
    Ok(report)
}

fn say(what: &str, score: Score) {
    println!(
        "{what}: {:.2} % of the test recordings",
        100.0 * score.accuracy
    );
}
