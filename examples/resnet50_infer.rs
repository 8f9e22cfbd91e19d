//! Runs a network that was pruned elsewhere.
//!
//! ```text
//! resnet50_infer --weights W.safetensors --input X.safetensors --output Y.safetensors \
//!     [--arch NAME] [--pack auto|thorough|csr|dense] [--repeat N] [--threads N] [--profile] [--json F] [--device NAME]
//! ```
//!
//! Loads weights by torchvision's names (`.safetensors`, or `.pth`), folds the batch norms, packs
//! what holds zeros, runs the tensor `input` (N×3×H×W, f32) of the file X and writes the tensor
//! `logits` (N×classes) to the file Y. Prints the median and the minimum of the runs in
//! milliseconds; `--json` leaves the same for a machine.

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use burn::module::Module;
use burn_sparse::cpu::{self, Peak};
use burn_sparse::nn::{Profile, at_once};
use burn_sparse::pack::PackReport;
use clap::Parser;
use examples::cli::{ArchParser, positive};
use examples::device::{Backend, DeviceChoice, select};
use examples::infer::{Packing, count, read_input, store, write_logits};
use examples::output::write_atomic;
use examples::profile::NetworkProfile;
use examples::timing::{Timing, TimingOptions, measure};
use examples::training::exit_code;
use models::{Arch, Classifier, weights};
use peak_alloc::PeakAlloc;
use serde::Serialize;

/// Counts what the program holds.
#[global_allocator]
static HELD: PeakAlloc = PeakAlloc;

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
    #[arg(long, value_parser = ArchParser, default_value_t = Arch::ResNet50)]
    arch: Arch,

    /// How the layers are stored
    #[arg(long, value_enum, default_value_t)]
    pack: Packing,

    /// Timed runs, after three of warm-up
    #[arg(long, default_value_t = 20, value_name = "N", value_parser = positive)]
    repeat: usize,

    /// Threads of the CPU backends; as many as the machine has unless set
    #[arg(long, value_name = "N", value_parser = positive)]
    threads: Option<usize>,

    /// Print every layer's time within the network, and what that is of what the processor can
    /// multiply and load; on flex only
    #[arg(long)]
    profile: bool,

    /// Leave the numbers in this file too
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// Where to compute: auto, flex, vulkan, cuda, metal, wgpu, webgpu, rocm or cpu
    #[arg(long, env = "BURN_DEVICE", default_value_t, value_name = "NAME")]
    device: DeviceChoice,
}

/// Bytes that the program had allocated.
#[derive(Clone, Copy, Debug, Serialize)]
struct Memory {
    /// Before a run: the packed network, the kernels' copy of it, and the images.
    before: usize,
    /// At most during a run.
    peak: usize,
    /// What the weights would take dense, in f32.
    dense_weights: u64,
}

/// What `--json` leaves.
#[derive(Debug, Serialize)]
struct Report<'a> {
    arch: Arch,
    pack: Packing,
    device: String,
    threads: usize,
    input: [usize; 4],
    weights: u64,
    nnz: u64,
    sparsity: f64,
    milliseconds: &'a Timing,
    /// Feature maps for which the CPU kernels asked new memory in a run after the timed ones.
    fresh_buffers: usize,
    memory: Memory,
    packing_seconds: f64,
    packing: &'a PackReport,
    profile: Option<NetworkProfile>,
}

fn main() -> ExitCode {
    exit_code(run(&Args::parse()))
}

fn run(args: &Args) -> Result<(), Box<dyn Error>> {
    cpu::bound_pool(args.threads).build_global()?;
    let selected = select(args.device)?;
    selected.warn();
    let device = &selected.device;

    let config = weights::config(args.arch, &args.weights)?;
    let input = read_input(&args.input, config.input[0], device)?;
    let loaded = weights::load(config.init(device), &args.weights)?;
    let (all, nnz) = count(&loaded)?;
    let sparsity = 1.0 - nnz as f64 / all.max(1) as f64;
    println!(
        "{} with {} classes on {selected}: {} weights, {:.1} % of them zero",
        config.arch,
        config.classes,
        all,
        100.0 * sparsity
    );

    let model = Classifier::fold(loaded.valid());
    drop(loaded);
    let start = Instant::now();
    let (model, packing) = store(model, args.pack, &input)?;
    let packing_seconds = start.elapsed().as_secs_f64();
    println!("{packing}");
    println!("packed in {packing_seconds:.2} s");
    let options = TimingOptions {
        runs: args.repeat,
        budget: Duration::MAX,
        ..TimingOptions::default()
    };
    let timing = measure(device, options, || model.infer(input.clone()))?;
    let profile = (args.profile && selected.backend == Backend::Flex).then(|| {
        cpu::on_pool(|| {
            let image = at_once(input.clone());
            let times = Profile::of(args.repeat, device, || drop(model.forward(image.clone())));
            NetworkProfile::new(&model, &times, Peak::measure())
        })
    });
    match &profile {
        Some(profile) => println!("{profile}"),
        None if args.profile => eprintln!("warning: --profile is for flex, not for {selected}"),
        None => {}
    }
    let before = cpu::allocations();
    write_logits(&args.output, model.infer(input.clone()))?;
    let fresh_buffers = cpu::allocations() - before;
    let memory = memory(|| drop(model.infer(input.clone())), 4 * all);
    println!(
        "{:.3} ms median, {:.3} ms minimum of {} runs on {} images",
        timing.median,
        timing.min,
        timing.runs,
        input.dims()[0]
    );
    let mb = |bytes: u64| bytes as f64 / 1e6;
    println!(
        "{:.1} MB of memory at most in a run, {:.1} MB before it; the dense weights alone take {:.1} MB",
        mb(memory.peak as u64),
        mb(memory.before as u64),
        mb(memory.dense_weights)
    );
    if let Some(path) = &args.json {
        let report = Report {
            arch: config.arch,
            pack: args.pack,
            device: selected.to_string(),
            threads: rayon::current_num_threads(),
            input: input.dims(),
            weights: all,
            nnz,
            sparsity,
            milliseconds: &timing,
            fresh_buffers,
            memory,
            packing_seconds,
            packing: &packing,
            profile,
        };
        let text = serde_json::to_string_pretty(&report)?;
        write_atomic(path, |file| writeln!(file, "{text}"))?;
    }
    Ok(())
}

/// What a run needs, without the buffers that packing and earlier runs left in reserve.
fn memory(run: impl FnOnce(), dense_weights: u64) -> Memory {
    cpu::trim();
    let before = HELD.current_usage();
    HELD.reset_peak_usage();
    run();
    Memory {
        before,
        peak: HELD.peak_usage(),
        dense_weights,
    }
}
