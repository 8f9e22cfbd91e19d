//! Runs each layer of a pruned network by whichever convolution is fastest on this device.
//!
//! ```text
//! cargo run --release --example mixed_network
//! cargo run --release --example mixed_network -- --preset full --device flex
//! cargo run --release --example mixed_network -- --arch resnet50 --weights resnet50.pth --batch 8
//! ```
//!
//! Pietroń and Żurek, 2020, Algorithm 2: prune, the same number of non-zeros in every output channel, measure sparse
//! and dense in f32 and f16 for several numbers of images at once, choose, quantise, run.

use std::path::PathBuf;
use std::process::ExitCode;

use burn::module::Module;
use burn::tensor::{Device, Distribution, Tensor};
use burn_admm::{Masks, Plan, fold};
use burn_sparse::nn::{Trace, at_once};
use burn_sparse::pack::{Mixed, MixedConfig, PackConfig, mix_with, pack, verify};
use burn_sparse::{Sparsity, cpu};
use clap::Parser;
use examples::bench::Dtype;
use examples::cli::{ArchParser, CommonArgs, Preset, after_help, command_line, positive, sparsity};
use examples::compress::{Levels, normal_weights};
use examples::device::Backend;
use examples::output::OutputDir;
use examples::progress::Progress;
use examples::timing::{Timing, TimingOptions, measure};
use examples::training::{SETTINGS, TrainingError, exit_code, read_json, settle};
use models::{Arch, Classifier, Model, ModelConfig, Stem, weights};
use serde::{Deserialize, Serialize};
use serde_json::json;

/// Run each layer of a pruned network by whichever convolution is fastest
///
/// Every layer is timed dense and sparse, in each type of numbers, with 1, 2, 4, 8, … images of the batch at once. The
/// fastest is taken, and the table says by how much it wins over the other form. The mixed network is compared with
/// the dense one, and timed beside it and beside the network that packing makes.
///
/// Weights are drawn at random unless --weights are given: how fast layers are depends on where zeros are, and not on
/// what weights mean. Nothing is trained.
#[derive(Parser, Debug)]
#[command(version, after_help = after_help("mixed_network", &[
    ("VGG-16 for CIFAR, two minutes", ""),
    ("VGG-16, ResNet-50 and DenseNet-121 for 224x224 images", "--preset full"),
    ("from which sparsity on", "--arch vgg16 --sparsity 0.8,0.9,0.95"),
]))]
pub(crate) struct Args {
    /// Networks; by default vgg16bn for CIFAR images, or vgg16, resnet50 and densenet121 with --preset full
    #[arg(long, value_parser = ArchParser, value_delimiter = ',', value_name = "NAMES")]
    arch: Vec<Arch>,

    /// Zeros in every output channel of every layer, one or several with commas
    #[arg(long, value_delimiter = ',', default_value = "0.9", value_parser = sparsity, value_name = "PARTS")]
    sparsity: Vec<f64>,

    /// Images of a batch
    #[arg(long, default_value_t = 16, value_name = "N", value_parser = positive)]
    batch: usize,

    /// Images at once that are tried; powers of two up to the batch unless set
    #[arg(long, value_delimiter = ',', value_name = "LIST", value_parser = positive)]
    sub_batch: Vec<usize>,

    /// Numbers that are tried, besides f32
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "f16",
        value_name = "TYPES"
    )]
    dtype: Vec<Dtype>,

    /// Levels of the weights by layer, as in `lenet5_compress`: *=codebook4; weights are not rounded unless set
    #[arg(long, value_name = "RULES")]
    levels: Option<Levels>,

    /// Weights by torchvision's names (.pth or .safetensors) instead of random ones; for one --arch
    #[arg(long, value_name = "FILE")]
    weights: Option<PathBuf>,

    /// Timed runs of each form of a layer
    #[arg(long, default_value_t = 9, value_name = "N", value_parser = positive)]
    runs: usize,

    #[command(flatten)]
    common: CommonArgs,
}

/// A network at a sparsity.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Row {
    arch: Arch,
    sparsity: f64,
    batch: usize,
    /// `[channels, height, width]`.
    image: [usize; 3],
    /// Layers that run sparse, of those that were measured.
    pub(crate) sparse_layers: usize,
    pub(crate) layers: usize,
    /// Milliseconds of the batch.
    pub(crate) networks: Vec<Network>,
    /// Sums of layers: dense f32, best dense, best sparse, mixed.
    sums: [f64; 4],
    /// Largest difference of any logit between the mixed network and the masked dense one.
    pub(crate) max_abs_diff: f32,
    /// The same in parts of the largest logit.
    pub(crate) max_rel_diff: f64,
    /// Every layer with all times.
    mixed: serde_json::Value,
}

/// A way to run the whole network.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Network {
    pub(crate) name: String,
    pub(crate) milliseconds: Timing,
}

fn main() -> ExitCode {
    exit_code(run(&Args::parse()))
}

/// The whole run; what it printed is in the report.
///
/// # Errors
/// See [`TrainingError`].
pub(crate) fn run(args: &Args) -> Result<Vec<Row>, TrainingError> {
    let selected = args.common.select_device()?;
    selected.warn();
    let output = args.common.open_output("mixed_network", SETTINGS)?;
    let networks = match (&args.arch[..], args.common.preset) {
        ([], Preset::Quick) => vec![Arch::Vgg16Bn],
        ([], Preset::Full) => vec![Arch::Vgg16, Arch::ResNet50, Arch::DenseNet121],
        (given, _) => given.to_vec(),
    };
    if args.weights.is_some() && networks.len() != 1 {
        let reason = "--weights are those of one network; say which with --arch";
        return Err(TrainingError::Settings(reason.into()));
    }
    let settings = json!({
        "networks": networks, "sparsity": args.sparsity, "batch": args.batch, "sub_batch": args.sub_batch,
        "dtype": args.dtype, "levels": args.levels, "weights": args.weights, "seed": args.common.seed,
        "preset": args.common.preset, "device": selected.to_string(),
    });
    settle(&output, &settings, args.common.resume)?;
    let mut rows = Vec::new();
    for &arch in &networks {
        for &sparsity in &args.sparsity {
            let case = Case {
                args,
                arch,
                sparsity,
                on_pool: selected.backend == Backend::Flex,
            };
            rows.push(case.row(&selected.device, &output)?);
        }
    }
    print_rows(&rows);
    output.write("report.json", |file| {
        let report = json!({
            "command": command_line(), "device": selected.to_string(), "trained": false, "results": rows,
        });
        serde_json::to_writer_pretty(&mut *file, &report)?;
        Ok(())
    })?;
    println!("report: {}", output.file("report.json").display());
    Ok(rows)
}

struct Case<'a> {
    args: &'a Args,
    arch: Arch,
    sparsity: f64,
    on_pool: bool,
}

impl Case<'_> {
    /// What was measured, or what an interrupted run had measured.
    fn row(&self, device: &Device, output: &OutputDir) -> Result<Row, TrainingError> {
        let name = format!("{}-{}.json", self.arch, self.sparsity);
        let done = output.file(&name);
        if self.args.common.resume && done.is_file() {
            return read_json(&done);
        }
        let row = self.measure(device)?;
        output.write(&name, |file| {
            serde_json::to_writer(&mut *file, &row)?;
            Ok(())
        })?;
        Ok(row)
    }

    fn measure(&self, device: &Device) -> Result<Row, TrainingError> {
        let args = self.args;
        device.seed(args.common.seed);
        let config = self.config()?;
        let model: Model = config.init(device);
        let model = match &args.weights {
            Some(path) => weights::load(model, path)?,
            None => normal_weights(model),
        };
        let plan = Plan::new(Sparsity::row_balanced(self.sparsity)?).resolve(&model)?;
        let mut model = Masks::project(&model, &plan)?.attach(model)?;
        if let Some(levels) = &args.levels {
            model = levels.plan(&model)?.attach(model)?;
        }
        let model = Classifier::fold(fold(model).valid());
        let [channels, height, width] = config.input;
        let shape = [args.batch, channels, height, width];
        let images = Tensor::<4>::random(shape, Distribution::Normal(0.0, 1.0), device);

        let (fast, mixed) = self.mix(&model, &images)?;
        println!("{mixed}");
        let trace = Trace::of(|| drop(model.forward(at_once(images.clone()))));
        let (packed, _) = pack(model.clone(), &PackConfig::measure(trace))?;
        let forward = |images| mixed.run(|| fast.forward(images));
        let difference = verify(|x| model.forward(x), forward, std::slice::from_ref(&images));

        let ways: [(&str, &(dyn Fn(Tensor<4>) -> Tensor<2> + Sync)); 4] = [
            ("dense, the batch at once", &|x| model.forward(x)),
            ("dense, as it runs best", &|x| model.infer(x)),
            ("packed, as it runs best", &|x| packed.infer(x)),
            ("mixed", &|x| mixed.run(|| fast.forward(x))),
        ];
        let mut networks = Vec::new();
        for (name, forward) in ways {
            let images = || images.clone();
            let options = TimingOptions::default();
            let timed = || measure(device, options, || forward(images()));
            let timing = if self.on_pool {
                cpu::on_pool(timed)
            } else {
                timed()
            };
            networks.push(Network {
                name: name.into(),
                milliseconds: timing?,
            });
        }
        let measured = || mixed.layers.iter().filter_map(|layer| layer.choice());
        Ok(Row {
            arch: self.arch,
            sparsity: self.sparsity,
            batch: args.batch,
            image: config.input,
            sparse_layers: measured()
                .filter(|time| time.form == burn_sparse::pack::Form::Sparse)
                .count(),
            layers: measured().count(),
            networks,
            sums: mixed.sums(),
            // Of single numbers; of doubles, JSON may lose the last digit.
            max_abs_diff: difference.max_abs as f32,
            max_rel_diff: difference.max_rel,
            mixed: serde_json::to_value(&mixed.layers).map_err(|error| {
                TrainingError::Settings(format!("the report cannot be written: {error}"))
            })?,
        })
    }

    fn config(&self) -> Result<ModelConfig, TrainingError> {
        if let Some(path) = &self.args.weights {
            return Ok(weights::config(self.arch, path)?);
        }
        let config = ModelConfig::new(self.arch);
        Ok(match self.args.common.preset {
            Preset::Quick if config.input[1] > 64 => config
                .with_stem(Stem::Cifar)
                .with_classes(10)
                .with_input([3, 32, 32]),
            _ => config,
        })
    }

    fn mix(&self, model: &Model, images: &Tensor<4>) -> Result<(Model, Mixed), TrainingError> {
        let args = self.args;
        let trace = Trace::of(|| drop(model.forward(images.clone())));
        let mut config = MixedConfig::new(trace)
            .with_runs(args.runs)
            .with_dtypes(args.dtype.iter().map(|dtype| dtype.burn()));
        if !args.sub_batch.is_empty() {
            config = config.with_sub_batches(args.sub_batch.iter().copied());
        }
        let layers = burn_sparse::nn::weights(model).len();
        let progress = Progress::new("layers", layers as u64);
        let label = format!("{} at {:.0} %", self.arch, 100.0 * self.sparsity);
        let mixed = mix_with(model.clone(), &config, |layer, _, _| {
            progress.message(format!("{label}, {}", layer.layer));
            progress.inc(1);
        })?;
        progress.finish();
        Ok(mixed)
    }
}

fn print_rows(rows: &[Row]) {
    for row in rows {
        let base = row.networks.first().map_or(0.0, |n| n.milliseconds.median);
        println!(
            "\n{} at {:.1} % zeros, batch {}: {} of {} layers sparse, differs by {:.1e} at most ({:.1e} of the largest \
             logit)",
            row.arch,
            100.0 * row.sparsity,
            row.batch,
            row.sparse_layers,
            row.layers,
            row.max_abs_diff,
            row.max_rel_diff
        );
        for network in &row.networks {
            let Timing { median, spread, .. } = network.milliseconds;
            println!(
                "  {:26} {median:>9.2} ms ±{:<7.2} {:>5.2}x",
                network.name,
                spread / 2.0,
                base / median
            );
        }
    }
}
