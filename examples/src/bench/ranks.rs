//! `bench ranks`: the time of a layer's factors over their ranks, as a figure.

use burn::nn::PaddingConfig2d;
use burn_admm::decompose::{LayerTimes, RankChoice, RankPlan, RankRule, RankTimes, Ranks};
use burn_sparse::nn::{Conv2d, Conv2dConfig, Trace};
use burn_sparse::{ConvProblem, WeightShape, cpu};
use clap::Args;
use serde::Serialize;

use super::commands::{Ending, prepare};
use super::sweep::layers;
use super::table::{Table, digits};
use super::{BenchError, CommonArgs, Kind, Layer, Machine};
use crate::cli::{command_line, positive};
use crate::device::Backend;
use crate::figure::{Figure, Line};
use crate::progress::Progress;

/// Arguments of `bench ranks`.
#[derive(Args, Clone, Debug)]
pub struct RanksArgs {
    /// A suite to take layers from: `resnet50`, `vgg16`, `densenet121`, or a file
    #[arg(long, value_name = "NAME|FILE")]
    pub suite: Option<String>,

    /// With --suite, a regular expression that finds names of layers; without, a layer such as
    /// 'kind=conv in=64 out=64 size=56 kernel=3 padding=1'; may be given again
    #[arg(long, value_name = "REGEX|LAYER")]
    pub layer: Vec<String>,

    /// Steps between ranks
    #[arg(long, default_value_t = 4, value_name = "N", value_parser = positive)]
    pub step: usize,

    /// Images at once
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = positive)]
    pub batch: usize,

    /// How and where.
    #[command(flatten)]
    pub common: CommonArgs,
}

#[derive(Debug, Serialize)]
struct Report {
    command: String,
    machine: Machine,
    times: RankTimes,
}

/// Times the factors of layers at all ranks, and draws them.
///
/// # Errors
/// [`BenchError`] if nothing can be measured or written.
pub fn ranks(args: &RanksArgs) -> Result<Ending, BenchError> {
    let found = layers(args.suite.as_deref(), &args.layer)?;
    let fits = |layer: &Layer| {
        let single = layer.problem(1);
        let divisible = single.is_ok_and(|p| {
            p.groups == 1 && p.kernel != [1, 1] && p.in_channels.min(p.out_channels) > 1
        });
        layer.kind() == Kind::Conv && divisible
    };
    let found: Vec<Layer> = found.into_iter().filter(fits).collect();
    if found.is_empty() {
        return Err(BenchError::Settings(
            "no layer is left: 1x1, grouped and other layers, and those of one channel, have no ranks here".into(),
        ));
    }
    let prepared = prepare(&args.common, "bench_ranks")?;
    let device = &prepared.selected.device;
    let mut times = RankTimes::new(args.step).on(prepared.machine.to_string());
    let progress = Progress::new("ranks", found.len() as u64);
    let mut files = Vec::new();
    for (number, layer) in (1..).zip(&found) {
        progress.message(layer.name());
        let problem = layer
            .problem(args.batch)
            .map_err(|source| BenchError::Layer {
                text: layer.name().to_owned(),
                source,
            })?;
        let conv = conv(&problem, device);
        let x = burn::tensor::Tensor::zeros(problem.input_shape(), device);
        let trace = Trace::of(|| drop(conv.forward(x)));
        let plan = RankPlan::new(RankChoice::new(RankRule::Energy(1.0)));
        let plan = plan.with_geometry(&conv, &trace);
        let mut measure = || times.measure(&conv, &plan, device, |_, _| {});
        let measured = match prepared.selected.backend {
            Backend::Flex => cpu::on_pool(measure),
            _ => measure(),
        };
        measured.map_err(|error| BenchError::Settings(format!("{}: {error}", layer.name())))?;
        progress.inc(1);
        let Some(known) = times.of(&problem) else {
            continue;
        };
        let stairs = stairs(known, args.step);
        println!(
            "{} ({})\n{}",
            layer.name(),
            layer.shape(),
            table(known, &stairs)
        );
        if let Some(svg) = draw(layer, known, &stairs, &prepared.machine)? {
            let name = format!("ranks-{number}.svg");
            let path = prepared
                .output
                .write(&name, |file| file.write_all(svg.as_bytes()))?;
            files.push(path);
        }
    }
    progress.finish();
    let report = Report {
        command: command_line(),
        machine: prepared.machine.clone(),
        times,
    };
    files.push(prepared.output.write("report.json", |file| {
        serde_json::to_writer_pretty(&mut *file, &report)?;
        file.write_all(b"\n")
    })?);
    for path in files {
        println!("{}", path.display());
    }
    Ok(Ending::Well)
}

fn conv(problem: &ConvProblem, device: &burn::tensor::Device) -> Conv2d {
    let [[top, bottom], [left, right]] = problem.padding;
    Conv2dConfig::new([problem.in_channels, problem.out_channels], problem.kernel)
        .with_stride(problem.stride)
        .with_dilation(problem.dilation)
        .with_padding(PaddingConfig2d::Explicit(top, left, bottom, right))
        .with_bias(false)
        .init(device)
}

/// A rank on both sides, the milliseconds of its factors, and those that multiply-adds would make of the
/// undivided layer's.
type Stair = (usize, f64, f64);

/// Ranks that are the same on both sides, as far as there are channels.
fn stairs(times: &LayerTimes, step: usize) -> Vec<Stair> {
    let problem = &times.problem;
    let (out, input) = (problem.out_channels, problem.in_channels);
    let shape = WeightShape::new(out, input, problem.kernel);
    let [inputs, outputs] = [problem.input, problem.output()].map(|size| size.iter().product());
    let dense = problem.dense_macs() as f64;
    let ranks = (1..)
        .map(|k| k * step)
        .take_while(|&rank| rank < out.max(input));
    let stair = |rank: usize| {
        let ranks = Ranks::new(rank.min(out), rank.min(input));
        let (_, ms) = times
            .factored_ms
            .iter()
            .find(|(known, _)| *known == ranks)?;
        let macs = (problem.batch * ranks.macs(shape, inputs, outputs)) as f64;
        Some((rank, *ms, times.dense_ms * macs / dense))
    };
    ranks.filter_map(stair).collect()
}

fn table(times: &LayerTimes, stairs: &[Stair]) -> Table {
    let mut table = Table::new(&["rank", "ms", "dense/factors", "FLOPs fewer", ""]);
    for &(rank, ms, by_macs) in stairs {
        let gain = times.dense_ms / ms;
        table.push(vec![
            rank.to_string(),
            digits(ms),
            format!("{gain:.2}"),
            format!("{:.2}", times.dense_ms / by_macs),
            if gain < 1.0 { "dense wins" } else { "" }.to_owned(),
        ]);
    }
    table
}

fn draw(
    layer: &Layer,
    times: &LayerTimes,
    stairs: &[Stair],
    machine: &Machine,
) -> Result<Option<String>, BenchError> {
    let figure = Figure {
        title: format!(
            "{} ({}), batch {}",
            layer.name(),
            layer.shape(),
            times.problem.batch
        ),
        subtitle: machine.to_string(),
        x: "rank, of inputs and of outputs".into(),
        y: "milliseconds".into(),
        logarithmic: false,
    };
    let line = |name: &str, y: &dyn Fn(&Stair) -> f64| Line {
        name: name.into(),
        points: stairs.iter().map(|s| (s.0 as f64, y(s))).collect(),
    };
    let lines = [
        line("undivided", &|_| times.dense_ms),
        line("factors", &|stair| stair.1),
        line("as multiply-adds say", &|stair| stair.2),
    ];
    let drawn = figure.draw(&lines);
    drawn.map_err(|error| BenchError::Plot(error.to_string()))
}
