//! How large the file of a pruned and quantised network is, before anybody trains it.
//!
//! ```text
//! cargo run --release --example compressed_size
//! cargo run --release --example compressed_size -- --preset full
//! cargo run --release --example compressed_size -- --arch resnet50 --weights resnet50.pth
//! ```
//!
//! Sizes only: nothing is trained and no image is looked at. Ratios and bits of LeNet-5, `AlexNet`, VGG-16
//! and ResNet-50 are those of Ren et al., "ADMM-NN", ASPLOS 2019.

use std::path::PathBuf;
use std::process::ExitCode;

use burn::module::Module;
use burn::tensor::Device;
use clap::Parser;
use examples::cli::{ArchParser, CommonArgs, Preset, after_help, command_line};
use examples::compress::{
    FILE, Levels, Size, defaults, normal_weights, published_ratio, ratio, size_of,
};
use examples::output::{OutputDir, file_size, write_atomic};
use examples::progress::Progress;
use examples::training::{SETTINGS, TrainingError, exit_code, read_json, settle};
use models::{Arch, Model, ModelConfig, weights};
use serde_json::json;

/// See how large the file of a pruned and quantised network is, without training it
///
/// Weights are drawn at random, or read from --weights; the largest stay, by layer as published where
/// densities are, and are rounded to the levels of --levels. The network is written to a compressed
/// file, read back and compared. The ledger says where its bytes went.
///
/// Random weights leave zeros everywhere alike, which is the worst case for positions: training leaves
/// some rows and columns empty. What such a network would classify is not asked.
#[derive(Parser, Debug)]
#[command(version, after_help = after_help("compressed_size", &[
    ("small networks, a minute", ""),
    ("AlexNet, VGG-16 and ResNet-50", "--preset full"),
    ("your weights, one in twenty of them", "--arch resnet50 --weights resnet50.pth --ratio 20"),
]))]
pub(crate) struct Args {
    /// Networks; by default lenet5, lenet300 and resnet20, or alexnet, vgg16 and resnet50 with --preset full
    #[arg(long, value_parser = ArchParser, value_delimiter = ',', value_name = "NAMES")]
    arch: Vec<Arch>,

    /// Weights for each that stays; as published where it is, and 6 elsewhere, unless set
    #[arg(long, value_parser = ratio, value_name = "RATIO")]
    ratio: Option<f64>,

    /// Levels by layer, as in `lenet5_compress`: conv*=uniform3,fc*=uniform2
    ///
    /// As published where they are, and four bits elsewhere, unless set.
    #[arg(long, value_name = "RULES")]
    levels: Option<Levels>,

    /// Weights by torchvision's names (.pth or .safetensors) instead of random ones; for one --arch
    #[arg(long, value_name = "FILE")]
    weights: Option<PathBuf>,

    #[command(flatten)]
    common: CommonArgs,
}

fn main() -> ExitCode {
    exit_code(run(&Args::parse()))
}

/// The whole run; what it printed is in the report.
///
/// # Errors
/// See [`TrainingError`].
pub(crate) fn run(args: &Args) -> Result<Vec<Size>, TrainingError> {
    let selected = args.common.select_device()?;
    selected.warn();
    let output = args.common.open_output("compressed_size", SETTINGS)?;
    let networks = match (&args.arch[..], args.common.preset) {
        ([], Preset::Quick) => vec![Arch::LeNet5, Arch::LeNet300, Arch::ResNet20],
        ([], Preset::Full) => vec![Arch::AlexNet, Arch::Vgg16, Arch::ResNet50],
        (given, _) => given.to_vec(),
    };
    if args.weights.is_some() && networks.len() != 1 {
        let reason = "--weights are those of one network; say which with --arch";
        return Err(TrainingError::Settings(reason.into()));
    }
    let settings = json!({
        "networks": networks, "ratio": args.ratio, "levels": args.levels, "weights": args.weights,
        "seed": args.common.seed, "device": selected.to_string(),
    });
    settle(&output, &settings, args.common.resume)?;

    let progress = Progress::new("networks", networks.len() as u64);
    let mut sizes = Vec::new();
    for arch in networks {
        progress.message(arch.name());
        sizes.push(size(args, arch, &selected.device, &output)?);
        progress.inc(1);
    }
    drop(progress);
    for size in &sizes {
        println!("{}: {}\n{}\n", size.arch, size.levels, size.ledger);
    }
    print_table(&sizes);
    output.write("report.json", |file| {
        let report = json!({
            "command": command_line(), "device": selected.to_string(), "trained": false, "results": sizes,
        });
        serde_json::to_writer_pretty(&mut *file, &report)?;
        Ok(())
    })?;
    println!("report: {}", output.file("report.json").display());
    Ok(sizes)
}

/// One network, or what an interrupted run found for it.
fn size(
    args: &Args,
    arch: Arch,
    device: &Device,
    output: &OutputDir,
) -> Result<Size, TrainingError> {
    let folder = output.path().join(arch.name());
    let ratio = args.ratio.unwrap_or_else(|| published_ratio(arch));
    let levels = match &args.levels {
        Some(levels) => levels.clone(),
        None => defaults(arch).parse().map_err(TrainingError::Settings)?,
    };
    let random = args.weights.is_none();
    let done = folder.join("size.json");
    if args.common.resume && done.is_file() {
        let size: Size = read_json(&done)?;
        let asked =
            (size.arch, size.random, size.ratio, &size.levels) == (arch, random, ratio, &levels);
        // Of weights from a file it is not known whether they are still the same.
        if asked && random && file_size(&folder.join(FILE)).is_ok_and(|bytes| bytes == size.bytes) {
            return Ok(size);
        }
    }
    device.seed(args.common.seed);
    let config = match &args.weights {
        Some(path) => weights::config(arch, path)?,
        None => ModelConfig::new(arch),
    };
    let build = |device: &Device| -> Model { config.init(device) };
    let model = match &args.weights {
        Some(path) => weights::load(build(device), path)?,
        None => normal_weights(build(device)),
    };
    let model = model.valid();
    let size = size_of(
        (arch, random),
        build,
        model,
        (ratio, &levels),
        config.input,
        &folder,
    )?;
    write_atomic(&done, |file| {
        serde_json::to_writer_pretty(&mut *file, &size)?;
        Ok(())
    })?;
    Ok(size)
}

fn print_table(sizes: &[Size]) {
    println!(
        "{:<11} {:>12} {:>11} {:>7} {:>8} {:>8} {:>11} {:>9}",
        "network", "weights", "nnz", "fewer", "values", "file", "bytes", "max diff"
    );
    for size in sizes {
        println!(
            "{:<11} {:>12} {:>11} {:>6.1}x {:>7.1}x {:>7.1}x {:>11} {:>9.1e}",
            size.arch,
            size.weights,
            size.nnz,
            size.weights as f64 / size.nnz.max(1) as f64,
            size.ledger.weights.values_alone(),
            size.ledger.everything_of_weights(),
            size.bytes,
            size.max_abs_diff,
        );
    }
    println!("nothing was trained: these are sizes, and the networks know nothing");
}
