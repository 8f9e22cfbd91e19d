//! Prunes any network of the project by any sparsity scheme, and compares schemes.
//!
//! ```text
//! cargo run --release --example block_prune
//! cargo run --release --example block_prune -- --scheme compare --sparsity 0.8,0.9,0.95 --seeds 3
//! cargo run --release --example block_prune -- --arch mobilenetv2 --dataset cifar10 --scheme blocks4
//! ```

use std::cell::Cell as StdCell;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;

use burn::tensor::Device;
use burn_admm::Plan;
use clap::Parser;
use examples::cli::{
    ArchParser, CommonArgs, DataArgs, Preset, after_help, factor, positive, sparsity,
};
use examples::data::{ImageDataset, Source, load};
use examples::device::{DeviceChoice, Selected, select};
use examples::training::{
    Cell, Context, Method, PruneArgs, Recipe, ReweightedArgs, SETTINGS, Scheme, StartArgs, Sweep,
    TrainingError, check_images, check_plan, cut, deploy, deploy_on, exit_code, network, prune,
    recipe_of, resnet_limits, settle, summarise, train_dense, train_on,
};
use models::{Arch, Classifier, ModelConfig};
use serde_json::json;

/// Prune any network by any scheme: blocks, patterns, columns, single weights
///
/// Every layer but the first convolution and the classifier gets the scheme at the same sparsity.
/// With several schemes, sparsities or seeds, all start from the same dense network of their seed,
/// which also trains on for as long as pruning takes: that is the accuracy they are compared with.
/// ClickTrain prunes while it trains from fresh weights, and is compared with the dense network that
/// trained for the same epochs, in accuracy and in time.
///
/// `filters` and `channels` empty whole channels: these are cut out afterwards, and the smaller dense network
/// is saved, verified and timed beside the one with the zeros (`cut` in the report).
#[derive(Parser, Debug)]
#[command(version, after_help = after_help("block_prune", &[
    ("one scheme, minutes", ""),
    ("kernel patterns on a narrow VGG-16", "--arch vgg16bn --width 0.25 --scheme kernels8"),
    ("your own trained weights", "--arch resnet50 --weights mine.pth --data my_images --dataset folder"),
    ("whole filters, cut out of the network", "--scheme filters --sparsity 0.5"),
    ("within the epochs of dense training", "--method clicktrain --scheme kernels8"),
    ("every layer finds its own rate", "--method reweighted --lambda 0.001 --threshold 0.5"),
    ("a finished run, measured on another device", "--resume --measure-on vulkan"),
    ("which scheme keeps most accuracy, and which is fastest",
     "--scheme compare --sparsity 0.8,0.9,0.95 --seeds 3"),
]))]
pub(crate) struct Args {
    /// The network
    #[arg(long, value_parser = ArchParser, default_value_t = Arch::Vgg16Bn)]
    arch: Arch,

    /// What the widths of all layers are multiplied by
    ///
    /// By default a quarter in the quick preset, for networks that are wider than they are fast to
    /// train here, and one in the full preset.
    #[arg(long, value_name = "FACTOR", value_parser = factor)]
    width: Option<f64>,

    /// Which weights may stay, one or several with commas
    ///
    /// unstructured, row-balanced; blocks4: the same weights in 4 (any number) output channels;
    /// bcr8x64: rows and columns of blocks of 8 output channels by 64 weights; punched8x4: the same
    /// kernel positions in blocks of 8 output and 4 input channels; kernels8: 4 positions of each
    /// 3x3 kernel by one of 8 patterns, and whole kernels; columns, channels, filters; 2of4. `compare`
    /// stands for unstructured,blocks4,bcr8x64,punched8x4,kernels8,columns.
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "bcr8x64",
        value_name = "SCHEMES"
    )]
    scheme: Vec<String>,

    /// Part of the weights of every constrained layer that becomes zero, one or several with commas
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "0.9",
        value_parser = sparsity,
        allow_negative_numbers = true
    )]
    sparsity: Vec<f64>,

    /// How to prune
    #[arg(long, value_enum, default_value_t)]
    method: Method,

    /// Where a rate would empty a layer of few filters, channels, columns or kernels, keep one of them,
    /// instead of refusing the rate
    #[arg(long)]
    keep_one: bool,

    /// Repeat with so many seeds, from --seed on
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = positive)]
    seeds: usize,

    /// Pack, verify and time the pruned networks on these devices as well, one or several with commas
    ///
    /// With --resume a finished run is measured there, and nothing is trained again.
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    measure_on: Vec<DeviceChoice>,

    #[command(flatten)]
    start: StartArgs,

    #[command(flatten)]
    prune: PruneArgs,

    #[command(flatten)]
    reweighted: ReweightedArgs,

    #[command(flatten)]
    data: DataArgs,

    #[command(flatten)]
    common: CommonArgs,
}

fn main() -> ExitCode {
    exit_code(run(&Args::parse()))
}

/// The whole run; what it printed is in the report.
///
/// # Errors
/// See [`TrainingError`]; [`TrainingError::Stopped`] where `--stop-after` says so.
pub(crate) fn run(args: &Args) -> Result<Sweep, TrainingError> {
    let CommonArgs {
        preset,
        seed,
        resume,
        ..
    } = args.common;
    let cells = cells(args).map_err(TrainingError::Settings)?;
    if args.method == Method::Clicktrain && args.start.weights.is_some() {
        let reason = "clicktrain prunes while it trains from fresh weights: leave --weights out, or take another --method";
        return Err(TrainingError::Settings(reason.into()));
    }
    let selected = args.common.select_device()?;
    selected.warn();
    let mut elsewhere = Vec::new();
    for &choice in &args.measure_on {
        let other = select(choice)?;
        other.warn();
        elsewhere.push((choice, other));
    }
    let output = args.common.open_output("block_prune", SETTINGS)?;
    let (limit, test_limit) = resnet_limits(preset);
    let options = args.data.options(seed, limit, test_limit);
    let data = load(args.data.source(Source::Cifar10), &options)?;
    println!("{}", data.summary());

    let recipe = args.prune.apply(recipe_of(args.arch, preset, seed));
    let recipe = args.start.apply(recipe, args.prune.epochs);
    let recipe = args.reweighted.apply(recipe, args.method)?;
    let shape = data.shape;
    check_images(args.arch, [shape.height, shape.width])?;
    let narrow = match (preset, args.arch) {
        _ if args.start.weights.is_some() => None,
        (
            Preset::Quick,
            Arch::LeNet5 | Arch::LeNet300 | Arch::ResNet20 | Arch::ResNet32 | Arch::ResNet56,
        ) => None,
        (Preset::Quick, _) => Some(0.25),
        (Preset::Full, _) => None,
    };
    let config = args.start.config(args.arch, args.width.or(narrow), &data)?;
    let settings = json!({
        "model": config, "dataset": data.name, "train_images": data.train.len(),
        "method": args.method, "recipe": recipe, "device": selected.to_string(),
        "weights": args.start.weights,
    });
    settle(&output, &settings, resume)?;
    println!(
        "{} on {selected}, preset {preset}, {} from seed {seed}: {} dense epochs, {} of {} and masked \
         retraining for each of {} networks, batch {}, learning rate {}",
        args.arch,
        if args.seeds == 1 {
            "one run".into()
        } else {
            format!("{} runs", args.seeds)
        },
        recipe.epochs,
        recipe.epochs_of(args.method),
        args.method,
        cells.len(),
        recipe.batch,
        recipe.lr,
    );

    let run = Run {
        args,
        config,
        selected,
        elsewhere,
        data,
        cells,
        epochs_left: StdCell::new(args.prune.stop_after),
    };
    let mut sweep = Sweep::default();
    for number in 0..args.seeds {
        let recipe = Recipe {
            seed: recipe.seed + number as u64,
            ..recipe.clone()
        };
        let folder = output.path().join(format!("seed-{}", recipe.seed));
        run.one_seed(&recipe, &folder, &mut sweep)?;
    }
    let path = output.file("report.json");
    if let [only] = sweep.cells() {
        only.report.save(&path)?;
        if !only.on.is_empty() {
            println!("\n{sweep}");
        }
        println!("\n{}\nreport: {}", only.report.table(), path.display());
        return Ok(sweep);
    }
    println!("\n{sweep}");
    output.write("report.json", |file| {
        serde_json::to_writer_pretty(&mut *file, &sweep)?;
        Ok(())
    })?;
    println!("report: {}", path.display());
    if let Some(svg) = sweep.figure()? {
        output.write("accuracy-latency.svg", |file| {
            file.write_all(svg.as_bytes())
        })?;
        println!("figure: {}", output.file("accuracy-latency.svg").display());
    }
    Ok(sweep)
}

/// Every scheme at every sparsity; a scheme that has only one sparsity comes once, and so does each where layers
/// find their own by a threshold.
fn cells(args: &Args) -> Result<Vec<(Scheme, f64)>, String> {
    let sparsities = match args.reweighted.threshold {
        Some(_) => &[0.0],
        None => args.sparsity.as_slice(),
    };
    let mut schemes = Vec::new();
    for name in &args.scheme {
        match name.as_str() {
            "compare" => schemes.extend(Scheme::COMPARED),
            name => schemes.push(name.parse()?),
        }
    }
    let mut cells: Vec<(Scheme, f64)> = Vec::new();
    for scheme in schemes {
        for &asked in sparsities {
            let cell = (scheme, scheme.fixed_sparsity().unwrap_or(asked));
            if !cells.contains(&cell) {
                cells.push(cell);
            }
        }
    }
    Ok(cells)
}

/// What all seeds share.
struct Run<'a> {
    args: &'a Args,
    config: ModelConfig,
    selected: Selected,
    /// Where pruned networks are measured beside that.
    elsewhere: Vec<(DeviceChoice, Selected)>,
    data: ImageDataset,
    cells: Vec<(Scheme, f64)>,
    epochs_left: StdCell<Option<usize>>,
}

/// What a plan whose budgets are not used asks for: every scheme can have it.
const UNUSED: f64 = 0.75;

impl Run<'_> {
    /// The plan of a cell.
    fn plan<M: Classifier>(
        &self,
        scheme: Scheme,
        model: &M,
        asked: f64,
    ) -> Result<Plan, TrainingError> {
        let by_threshold = self.args.reweighted.threshold.is_some();
        let plan = scheme.plan(model, if by_threshold { UNUSED } else { asked })?;
        Ok(plan.with_one_group_kept(self.args.keep_one || by_threshold))
    }

    /// Trains the dense network of a seed, trains it on, and prunes it in every way.
    fn one_seed(
        &self,
        recipe: &Recipe,
        folder: &Path,
        sweep: &mut Sweep,
    ) -> Result<(), TrainingError> {
        let (args, cells) = (self.args, &self.cells);
        let build = |device: &Device| network(&self.config, device);
        let click = args.method == Method::Clicktrain;
        let epochs = recipe.epochs + cells.len() * recipe.epochs_of(args.method);
        let epochs = epochs + if click { 0 } else { recipe.pruning_epochs() };
        let context = Context::new(&self.data, recipe, &self.selected.device, epochs)?
            .with_resume(args.common.resume)
            .with_weights(args.start.weights.clone())
            .with_stop_after(self.epochs_left.get());
        // Hours of training should not end in a scheme that does not fit.
        let fresh = build(&context.device);
        for &(scheme, asked) in cells {
            check_plan(
                &context,
                &fresh,
                &self.plan(scheme, &fresh, asked)?,
                args.method,
            )?;
        }
        let start = train_dense(&context, build, &folder.join("dense"))?;
        let dense = if click {
            start.clone()
        } else {
            train_on(&context, build, &start, &folder.join("dense-on"))?
        };
        let mut dense_seconds = start.seconds;
        if !click {
            dense_seconds += dense.seconds;
        }
        for &(scheme, asked) in cells {
            let plan = self.plan(scheme, &start.model, asked)?;
            match recipe.reweighted.threshold {
                Some(threshold) => println!(
                    "{scheme} by a threshold of {}, seed {}",
                    threshold.tau(),
                    recipe.seed
                ),
                None => println!("{scheme} at {:.1} %, seed {}", 100.0 * asked, recipe.seed),
            }
            let folder = folder.join(format!("{}-{scheme}-{asked}", args.method));
            let model = start.model.clone();
            let pruned = prune(&context, build, model, &plan, args.method, &folder)?;
            let before = if click { 0.0 } else { start.seconds };
            let seconds = before + pruned.seconds;
            if click {
                println!(
                    "{scheme}: {:.3} times the time of dense training",
                    seconds / dense_seconds
                );
            }
            let device = self.selected.to_string();
            let mut report = summarise(&context, args.arch.name(), &device, &dense, &pruned)?;
            deploy(&context, build, &pruned, &folder)?.add_to(&mut report);
            let more = [
                ("scheme", json!(scheme)),
                ("asked_sparsity", json!(asked)),
                ("accuracy_dense_before", json!(start.accuracy)),
                ("seconds_dense", json!(dense_seconds)),
                ("seconds_pruned", json!(seconds)),
            ];
            let more = more.map(|(key, value)| (key.to_string(), value));
            report.extra.extend(more);
            if scheme.empties_channels() {
                match cut(&context, &pruned, &folder) {
                    Ok(cut) => {
                        println!("{cut}");
                        report.extra.insert("cut".into(), json!(cut));
                    }
                    Err(TrainingError::Shrink(reason)) => {
                        println!("emptied channels stay: {reason}");
                        report
                            .extra
                            .insert("cut_refused".into(), json!(reason.to_string()));
                    }
                    Err(error) => return Err(error),
                }
            }
            let mut on = BTreeMap::new();
            for (choice, there) in &self.elsewhere {
                // Of several cards, each has a folder and a line.
                let folder = folder.join(choice.to_string().replace(':', "-"));
                let found = deploy_on(&context, build, &pruned, there, &folder)?;
                let name = match choice {
                    DeviceChoice::Named(_, Some(_)) => choice.to_string(),
                    _ => there.to_string(),
                };
                on.insert(name, found);
            }
            if !on.is_empty() {
                report.extra.insert("on".into(), json!(on));
            }
            report.save(&folder.join("report.json"))?;
            sweep.add(Cell {
                scheme,
                asked,
                report,
                on,
            });
        }
        self.epochs_left.set(context.epochs_left());
        Ok(())
    }
}
