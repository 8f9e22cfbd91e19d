//! Runs a network that was pruned elsewhere.
//!
//! ```text
//! resnet50_infer --weights W.safetensors --input X.safetensors --output Y.safetensors \
//!     [--pack auto|csr|dense] [--repeat N] [--threads N] [--json F] [--device NAME]
//! ```
//!
//! Loads weights by torchvision's names (`.safetensors`, or `.pth`), folds the batch norms, packs
//! what holds zeros, runs the tensor `input` (N×3×H×W, f32) of the file X and writes the tensor
//! `logits` (N×classes) to the file Y. Prints the median and the minimum of the runs in
//! milliseconds; `--json` leaves the same for a machine.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Device, Tensor, TensorData};
use clap::{Parser, ValueEnum};
use examples::device::{DeviceChoice, select};
use examples::output::write_atomic;
use examples::timing::{Timing, TimingOptions, measure};
use models::{Arch, Classifier, Model, weights};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use serde::Serialize;

/// Run a network that was pruned elsewhere
#[derive(Parser, Debug)]
#[command(version)]
struct Args {
    /// The weights by torchvision's names: .safetensors, or .pth
    #[arg(long, value_name = "FILE")]
    weights: PathBuf,

    /// A .safetensors file with the images: a tensor `input` of N×3×H×W f32, normalised as the
    /// network expects
    #[arg(long, value_name = "FILE")]
    input: PathBuf,

    /// Where to write the tensor `logits` (.safetensors)
    #[arg(long, value_name = "FILE")]
    output: PathBuf,

    /// The architecture; classes, channels and stem show in the weights
    #[arg(long, default_value_t = Arch::ResNet50)]
    arch: Arch,

    /// How the layers are stored
    #[arg(long, value_enum, default_value_t)]
    pack: Pack,

    /// Timed runs, after three of warm-up
    #[arg(long, default_value_t = 20, value_name = "N", value_parser = positive)]
    repeat: usize,

    /// Threads of the CPU backends; as many as the machine has unless set
    #[arg(long, value_name = "N", value_parser = positive)]
    threads: Option<usize>,

    /// Leave the numbers in this file too
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// Where to compute: auto, flex, vulkan, cuda, metal, wgpu, webgpu, rocm or cpu
    #[arg(long, env = "BURN_DEVICE", default_value_t, value_name = "NAME")]
    device: DeviceChoice,
}

/// How the layers are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
enum Pack {
    /// Whichever runs faster, layer by layer
    #[default]
    Auto,
    /// Every layer that holds zeros as CSR
    Csr,
    /// As they are
    Dense,
}

/// What `--json` leaves.
#[derive(Debug, Serialize)]
struct Report<'a> {
    arch: Arch,
    pack: Pack,
    device: String,
    threads: usize,
    input: [usize; 4],
    weights: u64,
    nnz: u64,
    sparsity: f64,
    milliseconds: &'a Timing,
}

fn positive(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("at least 1".into()),
        Ok(value) => Ok(value),
        Err(error) => Err(format!("{error}")),
    }
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<(), Box<dyn Error>> {
    if let Some(threads) = args.threads {
        rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build_global()?;
    }
    let selected = select(args.device)?;
    let device = &selected.device;

    let config = weights::config(args.arch, &args.weights)?;
    let input = read_input(&args.input, config.input[0], device)?;
    let model = weights::load(config.init(device), &args.weights)?;
    let weights = Weights::of(&model);
    println!(
        "{} with {} classes on {selected}: {} weights, {:.1} % of them zero",
        config.arch,
        config.classes,
        weights.all,
        100.0 * weights.sparsity()
    );

    let model = store(model.valid().fold(), args.pack, &input)?;
    let options = TimingOptions {
        runs: args.repeat,
        budget: Duration::MAX,
        ..TimingOptions::default()
    };
    let timing = measure(device, options, || model.forward(input.clone()))?;
    write_logits(&args.output, model.forward(input.clone()))?;
    println!(
        "{:.3} ms median, {:.3} ms minimum of {} runs on {} images",
        timing.median,
        timing.min,
        timing.runs,
        input.dims()[0]
    );
    if let Some(path) = &args.json {
        let report = Report {
            arch: config.arch,
            pack: args.pack,
            device: selected.to_string(),
            threads: rayon::current_num_threads(),
            input: input.dims(),
            weights: weights.all,
            nnz: weights.nnz,
            sparsity: weights.sparsity(),
            milliseconds: &timing,
        };
        let text = serde_json::to_string_pretty(&report)?;
        write_atomic(path, |file| writeln!(file, "{text}"))?;
    }
    Ok(())
}

/// The network with its layers stored as asked for.
fn store(model: Model, pack: Pack, _input: &Tensor<4>) -> Result<Model, Box<dyn Error>> {
    match pack {
        Pack::Dense => Ok(model),
        Pack::Auto | Pack::Csr => Err("burn_sparse::pack goes here".into()),
    }
}

/// How many weights convolutions and products have, and how many are not zero.
#[derive(Clone, Copy, Debug, Default)]
struct Weights {
    all: u64,
    nnz: u64,
}

impl Weights {
    fn of(model: &Model) -> Self {
        let mut weights = Self::default();
        model.visit(&mut weights);
        weights
    }

    fn sparsity(self) -> f64 {
        1.0 - self.nnz as f64 / self.all.max(1) as f64
    }
}

impl ModuleVisitor for Weights {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        // Biases and norms have one axis.
        if D > 1 {
            let data = param.val().into_data().convert::<f32>();
            self.all += data.num_elements() as u64;
            self.nnz += data.iter::<f32>().filter(|&value| value != 0.0).count() as u64;
        }
    }
}

/// Writes the tensor `logits`.
fn write_logits(path: &Path, logits: Tensor<2>) -> Result<(), Box<dyn Error>> {
    let shape = logits.dims();
    let values = logits.into_data().convert::<f32>().try_to_vec::<f32>()?;
    let bytes: Vec<u8> = values.into_iter().flat_map(f32::to_le_bytes).collect();
    let view = TensorView::new(Dtype::F32, shape.to_vec(), &bytes)?;
    let file = safetensors::serialize([("logits", view)], None)?;
    write_atomic(path, |out| out.write_all(&file))?;
    Ok(())
}

/// The tensor `input` of a file.
fn read_input(path: &Path, channels: usize, device: &Device) -> Result<Tensor<4>, Box<dyn Error>> {
    let named = |what: String| format!("{}: {what}", path.display());
    let bytes = fs::read(path).map_err(|error| named(error.to_string()))?;
    let file = SafeTensors::deserialize(&bytes).map_err(|error| named(error.to_string()))?;
    let tensor = file
        .tensor("input")
        .map_err(|_| named(format!("has no tensor `input`; it has {:?}", file.names())))?;
    if tensor.dtype() != Dtype::F32 {
        return Err(named(format!("`input` holds {:?}, not F32", tensor.dtype())).into());
    }
    let &[n, c, h, w] = tensor.shape() else {
        return Err(named(format!("`input` is {:?}, not N×C×H×W", tensor.shape())).into());
    };
    if c != channels || n * h * w == 0 {
        let wanted = format!("the network takes N×{channels}×H×W");
        return Err(named(format!("`input` is {:?}; {wanted}", tensor.shape())).into());
    }
    let values: Vec<f32> = tensor
        .data()
        .as_chunks::<4>()
        .0
        .iter()
        .map(|b| f32::from_le_bytes(*b))
        .collect();
    Ok(Tensor::from_data(
        TensorData::new(values, [n, c, h, w]),
        device,
    ))
}
