//! Prunes the 1-D convolutions of Kim's network for sentences, and packs it.
//!
//! ```text
//! cargo run --release --example text_cnn_prune
//! cargo run --release --example text_cnn_prune -- --preset full --seeds 3
//! cargo run --release --example text_cnn_prune -- --latency
//! ```
//!
//! Word vectors start at random and are trained (Kim, 2014: CNN-rand, whose layers are those of
//! CNN-non-static). The dense network that the pruned one is compared with trains on for as many
//! epochs.

use std::cell::Cell;
use std::process::ExitCode;

use burn_admm::baseline::{Gradual, GradualSchedule};
use burn_admm::{Admm, Masks};
use clap::{Parser, ValueEnum};
use examples::bench::{BenchReport, Settings};
use examples::cli::{CommonArgs, after_help, positive, sparsity};
use examples::data::text::{TextArgs, load};
use examples::report::Report;
use examples::sequence::{Score, Stage, Towards};
use examples::text::{
    DenseResult, HEAD_NORM, PruneResult, TextContext, TextLessons, WORD_DROPOUT, deploy, limits,
    plan, recipe, summarise,
};
use examples::training::{
    Comparison, Method, PruneArgs, Recipe, SETTINGS, TrainingError, exit_code, settle,
};
use models::{TextCnn, TextCnnConfig};
use serde_json::json;

/// Prune the 1-D convolutions of a network for sentences, and pack it
///
/// Kim's network says of sentences from movie reviews whether they praise: word vectors, windows of
/// three, four and five words with a hundred maps each, of each map its largest value, and a
/// classifier. The convolutions lose as many weights in every output channel; word vectors and
/// classifier stay dense.
#[derive(Parser, Debug)]
#[command(version, after_help = after_help("text_cnn_prune", &[
    ("a part of the sentences", ""),
    ("all sentences, mean and deviation of three seeds", "--preset full --seeds 3"),
    ("another method", "--method gradual"),
    ("no training: layers and network, dense beside packed", "--latency"),
    ("stop in the middle ...", "--stop-after 5"),
    ("... and go on", "--resume"),
]))]
pub(crate) struct Args {
    /// Part of the weights of each convolution that is to be zero
    #[arg(long, default_value_t = 0.875, value_name = "PART", value_parser = sparsity, allow_negative_numbers = true)]
    sparsity: f64,

    /// How weights are pruned: admm, gradual or one-shot
    #[arg(long, default_value = "admm", value_name = "METHOD", value_parser = method)]
    method: Method,

    /// Numbers of a word's vector
    #[arg(long, default_value_t = 300, value_name = "N", value_parser = positive)]
    embedding: usize,

    /// Output channels of each convolution
    #[arg(long, default_value_t = 100, value_name = "N", value_parser = positive)]
    maps: usize,

    /// Probability with which training makes a word an unknown one
    #[arg(long, default_value_t = WORD_DROPOUT, value_name = "PART", value_parser = sparsity, allow_negative_numbers = true)]
    word_dropout: f64,

    /// Repeat with so many seeds, from --seed on, and print mean and deviation; each holds out
    /// another tenth of the sentences for the test
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = positive)]
    seeds: usize,

    /// Measure layers and network instead of training
    #[arg(long, conflicts_with = "resume")]
    latency: bool,

    #[command(flatten)]
    prune: PruneArgs,

    #[command(flatten)]
    text: TextArgs,

    #[command(flatten)]
    common: CommonArgs,
}

fn method(text: &str) -> Result<Method, String> {
    match Method::from_str(&text.replace('-', ""), true) {
        Ok(method) if Method::ALL.contains(&method) => Ok(method),
        _ => Err("expected admm, gradual or one-shot".into()),
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    match args.latency {
        true => exit_code(latency(&args)),
        false => exit_code(run(&args)),
    }
}

impl Args {
    fn model(&self, words: usize, classes: usize) -> TextCnnConfig {
        TextCnnConfig::new(words, classes)
            .with_embedding(self.embedding)
            .with_maps(self.maps)
    }
}

/// Times of layers and of the whole network, in `report.json` and printed.
///
/// # Errors
/// Those of packing, measuring and writing.
pub(crate) fn latency(args: &Args) -> Result<BenchReport, TrainingError> {
    let selected = args.common.select_device()?;
    selected.warn();
    let output = args.common.open_output("text_cnn_latency", SETTINGS)?;
    let settings = Settings {
        runs: 200,
        budget: 2.0,
        verify: true,
        seed: args.common.seed,
    };
    let config = args.model(2, 2);
    let report = examples::text::latency(&config, args.sparsity, &selected, settings)?;
    print!("{}", report.table());
    report.save(&output.file("report.json"))?;
    println!("report: {}", output.file("report.json").display());
    Ok(report)
}

/// All seeds; what it printed is in the reports.
///
/// # Errors
/// See [`TrainingError`]; [`TrainingError::Stopped`] where `--stop-after` says so.
pub(crate) fn run(args: &Args) -> Result<Vec<Report>, TrainingError> {
    let selected = args.common.select_device()?;
    selected.warn();
    let output = args.common.open_output("text_cnn_prune", SETTINGS)?;
    let (train, test) = limits(args.common.preset);
    let lessons = |seed| -> Result<TextLessons, TrainingError> {
        let options = args.text.options(seed, train, test);
        Ok(TextLessons {
            data: load(&options, &args.text.config())?,
            word_dropout: args.word_dropout,
            head_norm: HEAD_NORM,
        })
    };
    let recipe = args
        .prune
        .apply(recipe(args.common.preset, args.common.seed));
    let first = lessons(recipe.seed)?;
    let data = &first.data;
    let config = args.model(data.vocabulary.len(), data.num_classes());
    let settings = json!({
        "model": config, "sparsity": args.sparsity, "method": args.method, "data": data.name,
        "text": data.config, "train_sentences": data.train.len(), "test_sentences": data.test.len(),
        "word_dropout": args.word_dropout, "recipe": recipe, "device": selected.to_string(),
    });
    settle(&output, &settings, args.common.resume)?;
    println!("{}\non {selected}: {}", data.summary(), args.method);
    println!(
        "{} dense epochs, then {} of pruning and retraining, and as many for the dense network",
        recipe.epochs,
        recipe.pruning_epochs()
    );

    let epochs_left = Cell::new(args.prune.stop_after);
    let mut comparison = Comparison::default();
    for seed in (recipe.seed..).take(args.seeds) {
        let folder = output.path().join(format!("seed-{seed}"));
        let context = TextContext {
            data: &lessons(seed)?,
            recipe: Recipe {
                seed,
                ..recipe.clone()
            },
            device: selected.device.clone().autodiff(),
            folder: folder.clone(),
            resume: args.common.resume,
            epochs_left: &epochs_left,
        };
        let report = one_seed(&context, args, &selected.to_string())?;
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
fn one_seed(context: &TextContext, args: &Args, device: &str) -> Result<Report, TrainingError> {
    let (recipe, data, method) = (&context.recipe, &context.data.data, args.method);
    println!("\nseed {}: {}", recipe.seed, data.summary());
    // The initial weights depend on the seed alone.
    context.device.seed(recipe.seed);
    let config = args.model(data.vocabulary.len(), data.num_classes());
    let fresh = config.init(&context.device)?;
    let stage = |name: &str, epochs, first_epoch, lr, period| Stage {
        name: name.into(),
        epochs,
        first_epoch,
        lr,
        period,
    };

    // 1. Train as always; both networks start from the best epoch.
    let (n, more) = (recipe.epochs, recipe.pruning_epochs());
    let start = stage("dense", n, 0, recipe.lr, n);
    let start = start.run(context, fresh.clone(), &fresh, Towards::Nothing)?;

    // 2. The dense rival: on and on, its learning rate as it is in retraining.
    let rival = stage("dense-on", more, n, recipe.retrain_lr, more);
    let rival = rival.run(context, start.best.clone(), &fresh, Towards::Nothing)?;
    // Without validation sentences the last epoch counts.
    let on = data.valid.is_empty() || rival.progress.best.beats(&start.progress.best);
    let before = context.test(&start.best)?;
    let dense = DenseResult {
        test: match on {
            true => context.test(&rival.best)?,
            false => before,
        },
        test_before: before,
        start: start.progress,
        further: rival.progress,
    };
    say("dense, after as many epochs", dense.test);

    // 3. Which weights may stay, and towards that by the method.
    let plan = plan(args.sparsity)?;
    let explanation = plan.explain(&start.best)?;
    println!("{explanation}");
    let resolved = plan.resolve(&start.best)?;
    let epochs = recipe.compress_epochs(method);
    let name = method.name();
    let annealed = stage(name, epochs, n, recipe.compress_lr, recipe.admm_epochs);
    let masked = |model: TextCnn| Masks::keep_all(&resolved).attach(model);
    let towards = match method {
        Method::Admm => {
            let mut admm = Admm::new(&start.best, &plan, recipe.admm)?;
            annealed.run(context, start.best, &fresh, Towards::Admm(&mut admm))?
        }
        Method::Gradual => {
            let steps = (epochs * context.steps()) as u64;
            let schedule = GradualSchedule::new(0.0, 1, steps, (steps / 50).max(1))?;
            let mut gradual = Gradual::new(schedule, resolved.clone());
            let constant = Stage {
                period: 0,
                ..annealed
            };
            let (model, fresh) = (masked(start.best)?, masked(fresh.clone())?);
            constant.run(context, model, &fresh, Towards::Gradual(&mut gradual))?
        }
        // No epochs.
        _ => annealed.run(context, start.best, &fresh, Towards::Nothing)?,
    };

    // 4. Project, and retrain what is left.
    let masks = Masks::project(&towards.last, &resolved)?;
    let projected = masks.attach(towards.last)?;
    let after = recipe.retrain_epochs(method);
    let retrain = stage(
        &format!("{name}-retrain"),
        after,
        n + epochs,
        recipe.retrain_lr,
        after,
    );
    let fresh = masks.attach(fresh)?;
    let retrained = retrain.run(context, projected.clone(), &fresh, Towards::Nothing)?;
    let pruned = PruneResult {
        method,
        plan: explanation,
        nnz: masks.nnz(),
        projected: context.test(&projected)?,
        retrained: context.test(&retrained.best)?,
        compress: towards.progress,
        retrain: retrained.progress,
    };
    say("projected", pruned.projected);
    say("retrained", pruned.retrained);

    // 5. Write the zeros into the weights, pack those, and look at what that changed.
    let deployed = deploy(context, &config, &retrained.best)?;
    let report = summarise(context, &config, &dense, &pruned, &deployed, device);
    println!("\n{}{}", report.table(), deployed.speed());
    Ok(report)
}

fn say(what: &str, score: Score) {
    println!(
        "{what}: {:.2} % of the test sentences",
        100.0 * score.accuracy
    );
}
