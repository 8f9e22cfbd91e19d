//! `bench dense`: what stays dense in a pruned network, this crate's kernels beside Burn's own.

use burn::nn::PaddingConfig2d;
use burn::nn::pool::MaxPool2dConfig;
use burn::tensor::ops::ConvOptions;
use burn::tensor::{Device, Tensor, TensorData};
use burn_sparse::nn::{Conv2dConfig, LinearConfig, Trace, at_once, max_pool2d};
use burn_sparse::pack::{Format, PackConfig, pack};
use burn_sparse::{ConvProblem, catalogue, cpu};
use clap::Args;
use serde::Serialize;

use super::commands::{Ending, prepare};
use super::measure::{rounds, time};
use super::sweep::{layers, some};
use super::table::{Table, digits};
use super::{BenchError, CommonArgs, Kind, Machine, Ratio};
use crate::cli::{command_line, positive};
use crate::device::Backend;
use crate::progress::Progress;
use crate::timing::{Timing, TimingOptions};

/// Largest difference between the forms, in parts of the largest output: sums of a few thousand products in
/// f32, in different orders.
const TOLERANCE: f64 = 1e-4;
/// Layers of the quick preset.
const FEW: usize = 4;
/// Seconds for a row of the quick and the full preset.
const BUDGETS: [f64; 2] = [0.5, 3.0];

/// Arguments of `bench dense`.
#[derive(Args, Clone, Debug)]
pub struct DenseArgs {
    /// `resnet50`, `vgg16`, `densenet121`, `text_cnn`, or a file with one layer a line
    #[arg(long, value_name = "NAME|FILE", default_value = "resnet50")]
    pub suite: String,

    /// Only layers whose names this regular expression finds; may be given more than once
    #[arg(long, value_name = "REGEX")]
    pub layer: Vec<String>,

    /// Max pooling too: channels, height and width of the maps, edge and step of the windows
    #[arg(long, value_name = "CxHxW:K/S", value_parser = pool)]
    pub pool: Vec<Pool>,

    /// Images at once: 1 in the quick preset, 1,16 in the full one
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = positive)]
    pub batch: Vec<usize>,

    /// How and where.
    #[command(flatten)]
    pub common: CommonArgs,
}

/// Max pooling with half a window of padding, rounded down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pool {
    channels: usize,
    size: [usize; 2],
    kernel: usize,
    stride: usize,
}

/// Most elements of a map to pool.
const MAX_POOLED: usize = 1 << 26;

fn pool(text: &str) -> Result<Pool, String> {
    let wrong = || "expected CxHxW:K/S, such as 64x112x112:3/2".to_owned();
    let (map, window) = text.split_once(':').ok_or_else(wrong)?;
    let (kernel, stride) = window.split_once('/').ok_or_else(wrong)?;
    let mut sizes = map.split('x').map(str::parse::<usize>);
    let mut next = || sizes.next().and_then(Result::ok).filter(|&size| size > 0);
    let (Some(channels), Some(height), Some(width)) = (next(), next(), next()) else {
        return Err(wrong());
    };
    let number = |text: &str| text.parse().ok().filter(|&n| n > 0).ok_or_else(wrong);
    let (kernel, stride) = (number(kernel)?, number(stride)?);
    if sizes.next().is_some() {
        return Err(wrong());
    }
    let elements = channels
        .checked_mul(height)
        .and_then(|n| n.checked_mul(width));
    if elements.is_none_or(|elements| elements > MAX_POOLED) {
        return Err(format!("more than {MAX_POOLED} elements"));
    }
    if kernel > height.min(width) {
        return Err(format!("a window of {kernel} on {height}x{width}"));
    }
    Ok(Pool {
        channels,
        size: [height, width],
        kernel,
        stride,
    })
}

/// A layer at a batch.
#[derive(Debug, Serialize)]
struct DenseRow {
    name: String,
    /// The shape.
    shape: String,
    batch: usize,
    /// Milliseconds of Burn's operation.
    burn: Timing,
    /// Milliseconds of this crate's layer as it is before packing.
    ours: Timing,
    /// Milliseconds of the layer as packing stores it.
    packed: Timing,
    /// How packing stores it.
    format: Format,
    /// Burn's time over that of the layer as packed, from the runs of one round.
    gain: Ratio,
    /// Of both forms of ours from Burn's, in parts of the largest output.
    max_rel_diff: f64,
    /// Why the times count for nothing, if so.
    failed: Option<String>,
}

#[derive(Debug, Serialize)]
struct Report {
    command: String,
    machine: Machine,
    rows: Vec<DenseRow>,
}

/// What is to be timed.
#[derive(Clone, Debug)]
enum Case {
    Layer(super::Layer),
    Pool(Pool),
}

impl Case {
    fn name(&self) -> &str {
        match self {
            Self::Layer(layer) => layer.name(),
            Self::Pool(_) => "max pool",
        }
    }
}

/// Times the layers of a suite dense, Burn's operation beside this crate's, and prints it.
///
/// # Errors
/// [`BenchError`] if no layer is left, or nothing can be measured.
pub fn stay_dense(args: &DenseArgs) -> Result<Ending, BenchError> {
    let chosen = layers(Some(&args.suite), &args.layer)?;
    let prepared = prepare(&args.common, "bench_dense")?;
    let all = chosen.len();
    let chosen = match prepared.few && args.layer.is_empty() {
        true => some(chosen, FEW),
        false => chosen,
    };
    if chosen.len() < all {
        println!(
            "{} of {all} layers; --preset full takes all, --layer others\n",
            chosen.len()
        );
    }
    let cases: Vec<_> = chosen
        .into_iter()
        .map(Case::Layer)
        .chain(args.pool.iter().copied().map(Case::Pool))
        .collect();
    let batches = prepared.batches(&args.batch);
    let options = prepared.timing(&args.common, BUDGETS);
    let device = &prepared.selected.device;
    let on_pool = prepared.selected.backend == Backend::Flex;
    let progress = Progress::new("dense", (cases.len() * batches.len()) as u64);
    let mut report = Report {
        command: command_line(),
        machine: prepared.machine.clone(),
        rows: Vec::with_capacity(cases.len() * batches.len()),
    };
    for case in &cases {
        for &batch in &batches {
            progress.message(case.name());
            let row = || case.row(batch, args.common.seed, device, options);
            report.rows.push(match on_pool {
                true => cpu::on_pool(row)?,
                false => row()?,
            });
            progress.inc(1);
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

impl Case {
    fn row(
        &self,
        batch: usize,
        seed: u64,
        device: &Device,
        options: TimingOptions,
    ) -> Result<DenseRow, BenchError> {
        let unfit = |error: burn_sparse::SparseError| BenchError::Settings(error.to_string());
        let random = |count: usize, seed: u64| catalogue::values(count, seed);
        match self {
            Self::Layer(layer) => {
                let name = layer.name().to_owned();
                let problem = layer.problem(batch).map_err(|source| BenchError::Layer {
                    text: name.clone(),
                    source,
                })?;
                let (inputs, outputs) = (problem.in_channels, problem.out_channels);
                let about = About {
                    name,
                    shape: format!("{problem:?}"),
                    batch,
                };
                if layer.kind() == Kind::Linear {
                    let shape = [problem.batch, inputs];
                    let values = random(problem.batch * inputs, seed);
                    let x = Tensor::<2>::from_data(TensorData::new(values, shape), device);
                    let linear = LinearConfig::new(inputs, outputs)
                        .with_bias(false)
                        .init(device);
                    let weight = linear.weight.val();
                    let trace = Trace::of(|| drop(linear.forward(at_once(x.clone()))));
                    let (packed, report) =
                        pack(vec![linear.clone()], &PackConfig::measure(trace)).map_err(unfit)?;
                    return about.timed(
                        device,
                        options,
                        report.layers[0].format,
                        [
                            &|| burn::tensor::module::linear(x.clone(), weight.clone(), None),
                            &|| linear.forward(x.clone()),
                            &|| packed[0].forward(x.clone()),
                        ],
                    );
                }
                let shape = problem.input_shape();
                let values = random(shape.iter().product(), seed);
                let x = Tensor::<4>::from_data(TensorData::new(values, shape), device);
                let [[top, bottom], [left, right]] = problem.padding;
                let conv = Conv2dConfig::new([inputs, outputs], problem.kernel)
                    .with_stride(problem.stride)
                    .with_dilation(problem.dilation)
                    .with_groups(problem.groups)
                    .with_padding(PaddingConfig2d::Explicit(top, left, bottom, right))
                    .with_bias(false)
                    .init(device);
                let weight = conv.weight.val();
                let trace = Trace::of(|| drop(conv.forward(at_once(x.clone()))));
                let (packed, report) =
                    pack(vec![conv.clone()], &PackConfig::measure(trace)).map_err(unfit)?;
                about.timed(
                    device,
                    options,
                    report.layers[0].format,
                    [
                        &|| burns_conv(x.clone(), weight.clone(), &problem),
                        &|| conv.forward(x.clone()),
                        &|| packed[0].forward(x.clone()),
                    ],
                )
            }
            Self::Pool(pool) => {
                let [height, width] = pool.size;
                let shape = [batch, pool.channels, height, width];
                let values = random(shape.iter().product(), seed);
                let x = Tensor::<4>::from_data(TensorData::new(values, shape), device);
                let pad = (pool.kernel - 1) / 2;
                let layer = MaxPool2dConfig::new([pool.kernel; 2])
                    .with_strides([pool.stride; 2])
                    .with_padding(PaddingConfig2d::Explicit(pad, pad, pad, pad))
                    .init();
                let about = About {
                    name: self.name().to_owned(),
                    shape: format!("{pool:?}"),
                    batch,
                };
                about.timed(
                    device,
                    options,
                    Format::Dense,
                    [
                        &|| layer.forward(x.clone()),
                        &|| max_pool2d(&layer, x.clone()),
                        &|| max_pool2d(&layer, x.clone()),
                    ],
                )
            }
        }
    }
}

/// What is timed, in words.
struct About {
    name: String,
    shape: String,
    batch: usize,
}

impl About {
    /// Times Burn's form, ours, and ours packed.
    fn timed<const D: usize>(
        self,
        device: &Device,
        options: TimingOptions,
        format: Format,
        [burn, ours, packed]: [&dyn Fn() -> Tensor<D>; 3],
    ) -> Result<DenseRow, BenchError> {
        let most = |tensor: Tensor<D>| f64::from(tensor.abs().max().into_scalar::<f32>());
        let expected = burn();
        let scale = most(expected.clone()).max(f64::from(f32::MIN_POSITIVE));
        let [of_ours, of_packed] =
            [ours(), packed()].map(|found| most(found - expected.clone()) / scale);
        // `max` would drop a NaN.
        let right = of_ours <= TOLERANCE && of_packed <= TOLERANCE;
        let max_rel_diff = if of_ours > of_packed {
            of_ours
        } else {
            of_packed
        };
        let times = rounds(
            options,
            [&|| time(device, &burn), &|| time(device, &ours), &|| {
                time(device, &packed)
            }],
        )?;
        let of = |form: usize| Timing::of(times.iter().map(|round| round[form]).collect());
        let gain = Timing::of(
            times
                .iter()
                .map(|[burn, _, packed]| burn / packed)
                .collect(),
        );
        let (Some(burn), Some(ours), Some(packed), Some(gain)) = (of(0), of(1), of(2), gain) else {
            return Err(BenchError::Device("no run was timed".into()));
        };
        Ok(DenseRow {
            name: self.name,
            shape: self.shape,
            batch: self.batch,
            burn,
            ours,
            packed,
            format,
            gain: Ratio {
                median: gain.median,
                spread: gain.spread,
            },
            max_rel_diff,
            failed: (!right).then(|| {
                format!(
                    "outputs differ by {max_rel_diff:.1e} of the largest; up to {TOLERANCE:.0e} is rounding"
                )
            }),
        })
    }
}

/// Burn's convolution, which knows paddings that differ from side to side only as zeros put around first.
fn burns_conv(x: Tensor<4>, weight: Tensor<4>, problem: &ConvProblem) -> Tensor<4> {
    let [[top, bottom], [left, right]] = problem.padding;
    let (x, padding) = match top == bottom && left == right {
        true => (x, [top, left]),
        false => (x.pad((left, right, top, bottom), 0.0), [0, 0]),
    };
    let options = ConvOptions::new(problem.stride, padding, problem.dilation, problem.groups);
    burn::tensor::module::conv2d(x, weight, None, options)
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{}", self.machine)?;
        let head = [
            "layer",
            "batch",
            "Burn ms",
            "ours ms",
            "packed ms",
            "as",
            "Burn/packed",
            "",
        ];
        let mut table = Table::new(&head);
        for row in &self.rows {
            let verdict = match (&row.failed, row.gain.median >= 1.0) {
                (Some(reason), _) => format!("FAILED: {reason}"),
                (None, true) => String::new(),
                (None, false) => "Burn wins".to_owned(),
            };
            table.push(vec![
                row.name.clone(),
                row.batch.to_string(),
                digits(row.burn.median),
                digits(row.ours.median),
                digits(row.packed.median),
                row.format.to_string(),
                format!("{:.2}", row.gain.median),
                verdict,
            ]);
        }
        write!(f, "{table}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pools_are_read_and_checked() {
        let expected = Pool {
            channels: 64,
            size: [112, 56],
            kernel: 3,
            stride: 2,
        };
        assert_eq!(pool("64x112x56:3/2"), Ok(expected));
        for wrong in [
            "",
            "64x112:3/2",
            "64x112x112",
            "64x112x112:3",
            "0x9x9:3/2",
            "1x9x9:0/1",
            "1x9x9:3/0",
            "1x2x2:3/1",
            "1x9x9x9:3/1",
            "99999x99999x99999:3/2",
        ] {
            assert!(pool(wrong).is_err(), "{wrong}");
        }
    }
}
