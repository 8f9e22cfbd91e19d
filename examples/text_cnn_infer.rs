//! Runs a classifier of sentences that was pruned elsewhere.
//!
//! ```text
//! text_cnn_infer --weights W.safetensors --input X.safetensors --output Y.safetensors \
//!     [--part network|conv0|conv1|conv2] [--pack auto|thorough|csr|dense] [--repeat N] [--threads N] [--json F] \
//!     [--device NAME]
//! ```
//!
//! Loads the weights of a `models::TextCnn`, packs what holds zeros, runs the tensor `input`
//! (word vectors, sentences × numbers × words, f32) of the file X and writes the tensor `logits` to
//! the file Y: class scores, or for a convolution all that it gives.

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use burn::module::Module;
use burn_sparse::cpu;
use burn_sparse::pack::PackReport;
use clap::Parser;
use examples::cli::positive;
use examples::device::{DeviceChoice, select};
use examples::infer::{Packing, count, read_vectors, write_logits};
use examples::output::write_atomic;
use examples::text::{TextPart, config_of, store};
use examples::timing::{Timing, TimingOptions, measure};
use examples::training::exit_code;
use models::weights;
use serde::Serialize;

/// Run a classifier of sentences that was pruned elsewhere
#[derive(Parser, Debug)]
#[command(version)]
struct Args {
    /// The weights: .safetensors with `embedding.weight`, `convs.0.weight` ..., `head.weight`
    #[arg(long, value_name = "FILE")]
    weights: PathBuf,

    /// A .safetensors file with word vectors: a tensor `input` of sentences × numbers × words, f32
    #[arg(long, value_name = "FILE")]
    input: PathBuf,

    /// Where to write the tensor `logits` (.safetensors)
    #[arg(long, value_name = "FILE")]
    output: PathBuf,

    /// What of the network runs
    #[arg(long, value_enum, default_value_t)]
    part: TextPart,

    /// How the layers are stored
    #[arg(long, value_enum, default_value_t)]
    pack: Packing,

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

/// What `--json` leaves.
#[derive(Debug, Serialize)]
struct Report<'a> {
    part: TextPart,
    pack: Packing,
    device: String,
    threads: usize,
    input: [usize; 3],
    weights: u64,
    nnz: u64,
    sparsity: f64,
    milliseconds: &'a Timing,
    packing: &'a PackReport,
}

fn main() -> ExitCode {
    exit_code(run(&Args::parse()))
}

fn run(args: &Args) -> Result<(), Box<dyn Error>> {
    cpu::bound_pool(args.threads).build_global()?;
    let selected = select(args.device)?;
    selected.warn();
    let device = &selected.device;
    let config = config_of(&args.weights)?;
    let input = read_vectors(&args.input, config.embedding, device)?;
    let model = weights::load(config.init(device)?, &args.weights)?.valid();
    let (all, nnz) = count(&model)?;
    let sparsity = 1.0 - nnz as f64 / all.max(1) as f64;
    println!(
        "windows of {:?} words on {selected}: {all} weights, {:.1} % of them zero",
        config.windows,
        100.0 * sparsity
    );
    let (model, packing) = store(model, args.pack, args.part, &input)?;
    println!("{packing}");
    let options = TimingOptions {
        runs: args.repeat,
        budget: Duration::MAX,
        ..TimingOptions::default()
    };
    let part = || args.part.run(&model, input.clone());
    // As networks are to run on a CPU; on other devices it is no matter.
    let timing = cpu::on_pool(|| measure(device, options, part))?;
    write_logits(&args.output, part()?)?;
    println!(
        "{:.3} ms median, {:.3} ms minimum of {} runs on {} sentences",
        timing.median,
        timing.min,
        timing.runs,
        input.dims()[0]
    );
    if let Some(path) = &args.json {
        let report = Report {
            part: args.part,
            pack: args.pack,
            device: selected.to_string(),
            threads: rayon::current_num_threads(),
            input: input.dims(),
            weights: all,
            nnz,
            sparsity,
            milliseconds: &timing,
            packing: &packing,
        };
        let text = serde_json::to_string_pretty(&report)?;
        write_atomic(path, |file| writeln!(file, "{text}"))?;
    }
    Ok(())
}
