//! `bench shared`: convolutions by kernels that all channels share beside the same ones composed.

use burn::module::Param;
use burn::nn::PaddingConfig2d;
use burn::tensor::{Device, Tensor, TensorData};
use burn_sparse::nn::{Conv2d, Conv2dConfig, Factors, Weight};
use burn_sparse::{ConvProblem, catalogue, cpu};
use clap::Args;
use regex::Regex;
use serde::Serialize;

use super::commands::{Ending, prepare};
use super::sweep::{layers, some};
use super::table::{Table, digits};
use super::tucker_layers::published;
use super::{BenchError, CommonArgs, Kind, Layer, Machine, Pair, measure};
use crate::cli::{command_line, positive};
use crate::device::Backend;
use crate::progress::Progress;
use crate::timing::TimingOptions;

/// Largest difference between the forms, in parts of the largest output: sums of a few thousand products in
/// f32, in different orders.
const TOLERANCE: f64 = 1e-4;
/// Layers of the quick preset.
const FEW: usize = 3;
/// Seconds for a row of the quick and the full preset.
const BUDGETS: [f64; 2] = [0.5, 3.0];

/// Arguments of `bench shared`.
#[derive(Args, Clone, Debug)]
pub struct SharedArgs {
    /// Layers instead of the 3x3 ones of ResNet-18: `resnet50`, `vgg16`, `densenet121`, or a file with one layer
    /// a line; those without shareable kernels are left out
    #[arg(long, value_name = "NAME|FILE")]
    pub suite: Option<String>,

    /// Only layers whose names this regular expression finds
    #[arg(long, value_name = "REGEX")]
    pub layer: Option<String>,

    /// Kernels that all channels share
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = positive)]
    pub kernels: usize,

    /// Shares of the coefficients that are not zero
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "0.3,0.1,0.05", value_parser = density)]
    pub density: Vec<f64>,

    /// Images at once: 1 in the quick preset, 1,16 in the full one
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = positive)]
    pub batch: Vec<usize>,

    /// How and where.
    #[command(flatten)]
    pub common: CommonArgs,
}

fn density(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if (0.0..=1.0).contains(&value) => Ok(value),
        _ => Err("expected a share between 0 and 1".into()),
    }
}

/// A layer at a batch and a density.
#[derive(Debug, Serialize)]
struct SharedRow {
    name: String,
    problem: ConvProblem,
    kernels: usize,
    /// Of the coefficients.
    density: f64,
    nnz: usize,
    macs: u64,
    macs_shared: u64,
    /// Multiply-adds of the composed layer over those of shared kernels and coefficients.
    flop_ratio: f64,
    /// `sparse` is the shared form, packed; `dense` the composed layer.
    time: Pair,
    /// Between outputs, in parts of the largest.
    max_rel_diff: f64,
    /// Why the times count for nothing, if so.
    failed: Option<String>,
}

#[derive(Debug, Serialize)]
struct Report {
    command: String,
    machine: Machine,
    rows: Vec<SharedRow>,
}

/// Times shared kernels with sparse coefficients beside dense convolutions, and prints it.
///
/// # Errors
/// [`BenchError`] if no layer is left, or nothing can be measured.
pub fn shared(args: &SharedArgs) -> Result<Ending, BenchError> {
    let chosen = asked(args)?;
    let prepared = prepare(&args.common, "bench_shared")?;
    let all = chosen.len();
    let chosen = match prepared.few && args.layer.is_none() {
        true => some(chosen, FEW),
        false => chosen,
    };
    if chosen.len() < all {
        println!(
            "{} of {all} layers; --preset full takes all, --layer others\n",
            chosen.len()
        );
    }
    let batches = prepared.batches(&args.batch);
    let options = prepared.timing(&args.common, BUDGETS);
    let device = &prepared.selected.device;
    let on_pool = prepared.selected.backend == Backend::Flex;
    let steps = chosen.len() * batches.len() * args.density.len();
    let progress = Progress::new("shared", steps as u64);
    let mut report = Report {
        command: command_line(),
        machine: prepared.machine.clone(),
        rows: Vec::with_capacity(steps),
    };
    for layer in &chosen {
        for &batch in &batches {
            progress.message(layer.name());
            let problem = layer.problem(batch).map_err(|source| BenchError::Layer {
                text: layer.name().to_owned(),
                source,
            })?;
            for &density in &args.density {
                let case = Case {
                    name: layer.name(),
                    problem,
                    kernels: args.kernels.min(problem.kernel.iter().product()),
                    density,
                    seed: args.common.seed,
                };
                let row = match on_pool {
                    true => cpu::on_pool(|| case.row(device, options))?,
                    false => case.row(device, options)?,
                };
                report.rows.push(row);
                progress.inc(1);
            }
        }
    }
    progress.finish();
    println!("{report}");
    let path = prepared.output.write("report.json", |file| {
        serde_json::to_writer_pretty(&mut *file, &report)?;
        file.write_all(b"\n")
    })?;
    println!("{}", path.display());
    let failed = report.rows.iter().filter(|row| row.failed.is_some());
    Ok(match failed.count() {
        0 => Ending::Well,
        failed => Ending::Found(failed),
    })
}

/// The layers of the command line that have kernels to share.
fn asked(args: &SharedArgs) -> Result<Vec<Layer>, BenchError> {
    let mut chosen = match &args.suite {
        Some(suite) => layers(Some(suite), &[])?,
        None => {
            let layers = published()?.into_iter().map(|(layer, _)| layer);
            // Tucker ranks differ between blocks of one shape; here they are the same layer.
            let named = |layer: &Layer| {
                layer.name().starts_with("resnet18") && layer.name() != "resnet18.layer1.0.conv1"
            };
            layers.filter(named).collect()
        }
    };
    if let Some(pattern) = &args.layer {
        let pattern = Regex::new(pattern)?;
        chosen.retain(|layer| pattern.is_match(layer.name()));
    }
    let shareable = |layer: &Layer| {
        let problem = layer.problem(1).ok();
        problem.is_some_and(|problem| {
            layer.kind() == Kind::Conv
                && problem.groups == 1
                && problem.in_channels > 1
                && problem.kernel.iter().product::<usize>() > 1
        })
    };
    chosen.retain(shareable);
    if chosen.is_empty() {
        return Err(BenchError::Settings(
            "no layer is left: --layer finds none, or none of the suite has kernels to share"
                .into(),
        ));
    }
    Ok(chosen)
}

/// A layer to be timed.
struct Case<'a> {
    name: &'a str,
    problem: ConvProblem,
    kernels: usize,
    density: f64,
    seed: u64,
}

impl Case<'_> {
    fn row(&self, device: &Device, options: TimingOptions) -> Result<SharedRow, BenchError> {
        let problem = &self.problem;
        let [height, width] = problem.kernel;
        let (channels, out, kernels) = (problem.in_channels, problem.out_channels, self.kernels);
        let count = out * channels * kernels;
        let coefficients = catalogue::weight(count, self.density, self.seed);
        let nnz = coefficients.iter().filter(|&&a| a != 0.0).count();
        let basis = catalogue::values(kernels * height * width, self.seed + 1);
        let weight = |values: Vec<f32>, shape: [usize; 4]| -> Weight<4> {
            let tensor = Tensor::<4>::from_data(TensorData::new(values, shape), device);
            Param::from_tensor(tensor).into()
        };
        let core = weight(basis, [kernels, 1, height, width]);
        let expand = weight(coefficients, [out, channels * kernels, 1, 1]);
        let unfit = |error: burn_sparse::SparseError| BenchError::Settings(error.to_string());
        let mut layer = self.layer(device);
        layer.weight = Factors::new(None, core, Some(expand))
            .map_err(unfit)?
            .into();
        let composed = layer.clone().unpack();
        let packed = layer.pack().map_err(unfit)?;

        let shape = problem.input_shape();
        let values = catalogue::values(shape.iter().product(), self.seed + 2);
        let x = Tensor::<4>::from_data(TensorData::new(values, shape), device);
        let most = |tensor: Tensor<4>| f64::from(tensor.abs().max().into_scalar::<f32>());
        let expected = composed.forward(x.clone());
        // Without coefficients all outputs are zero.
        let scale = most(expected.clone()).max(f64::from(f32::MIN_POSITIVE));
        let max_rel_diff = most(packed.forward(x.clone()) - expected) / scale;
        let time = measure(
            device,
            options,
            || packed.forward(x.clone()),
            || composed.forward(x.clone()),
        )?;
        let outputs: usize = problem.output().iter().product();
        let macs = problem.dense_macs();
        let each = channels * kernels * height * width + nnz;
        let macs_shared = (problem.batch * outputs * each) as u64;
        // NaN fails too.
        let right = max_rel_diff <= TOLERANCE;
        Ok(SharedRow {
            name: self.name.to_owned(),
            problem: *problem,
            kernels,
            density: self.density,
            nnz,
            macs,
            macs_shared,
            flop_ratio: macs as f64 / macs_shared.max(1) as f64,
            time,
            max_rel_diff,
            failed: (!right).then(|| {
                format!(
                    "outputs differ by {max_rel_diff:.1e} of the largest; up to {TOLERANCE:.0e} is rounding"
                )
            }),
        })
    }

    fn layer(&self, device: &Device) -> Conv2d {
        let problem = &self.problem;
        let [[top, bottom], [left, right]] = problem.padding;
        Conv2dConfig::new([problem.in_channels, problem.out_channels], problem.kernel)
            .with_stride(problem.stride)
            .with_dilation(problem.dilation)
            .with_padding(PaddingConfig2d::Explicit(top, left, bottom, right))
            .with_bias(false)
            .init(device)
    }
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{}", self.machine)?;
        let head = [
            "layer",
            "batch",
            "kernels",
            "density",
            "FLOPs",
            "dense ms",
            "shared ms",
            "dense/shared",
            "of FLOPs",
            "",
        ];
        let mut table = Table::new(&head);
        for row in &self.rows {
            let gain = 1.0 / row.time.ratio.median;
            let verdict = match (&row.failed, gain >= 1.0) {
                (Some(reason), _) => format!("FAILED: {reason}"),
                (None, true) => String::new(),
                (None, false) => "dense wins".to_owned(),
            };
            table.push(vec![
                row.name.clone(),
                row.problem.batch.to_string(),
                row.kernels.to_string(),
                format!("{}", row.density),
                format!("{:.2}x fewer", row.flop_ratio),
                digits(row.time.dense.median),
                digits(row.time.sparse.median),
                format!("{gain:.2}"),
                format!("{:.2}", gain / row.flop_ratio),
                verdict,
            ]);
        }
        write!(f, "{table}")
    }
}
