//! One step of a recurrent layer of many sizes, dense beside packed, without training.

use std::collections::BTreeMap;
use std::fmt;
use std::rc::Rc;

use burn::tensor::{Device, Distribution, Tensor};
use burn_admm::{Masks, SparsityReport, fold};
use burn_sparse::nn::{Gru, Trace};
use burn_sparse::pack::{Choice, PackConfig, pack};
use models::SpeechGruConfig;
use serde::{Deserialize, Serialize};

use super::Bsp;
use super::deploy::STEPS;
use crate::bench::table::{Table, digits, verdict};
use crate::bench::{Crossing, Drawing, Pair, crossings, measure};
use crate::cli::command_line;
use crate::progress::Progress;
use crate::report::Report;
use crate::training::TrainingError;

/// A size.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepPoint {
    /// Hidden units.
    pub hidden: usize,
    /// Recurrent weights, biases not counted.
    pub weights: usize,
    /// Those that stay.
    pub nnz: usize,
    /// Milliseconds of one step at batch 1.
    pub step: Pair,
    /// Largest difference of any state after the step.
    pub max_abs_diff: f64,
}

/// Steps of all sizes, as `report.json` holds them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepSweep {
    /// Which weights stay.
    pub bsp: Bsp,
    /// Features of a frame.
    pub features: usize,
    /// The sizes, ascending.
    pub points: Vec<StepPoint>,
    /// Hidden sizes at which both are equally fast.
    pub crossings: Vec<Crossing>,
    /// The drawing, beside the report.
    pub plot: String,
    /// The device.
    pub device: String,
    /// The seed of the weights.
    pub seed: u64,
    /// The command line.
    pub command: String,
    /// Versions of the crates that computed this.
    pub versions: BTreeMap<String, String>,
}

/// Measures one step of one layer of each size, its weights random and pruned by `bsp`. Every matrix
/// is packed, faster or not, so that sizes where dense wins show.
///
/// # Errors
/// [`TrainingError::Settings`] without sizes, [`TrainingError::Speech`] for those of which there is no
/// network, otherwise those of packing and measuring.
pub fn sweep(
    bsp: Bsp,
    features: usize,
    sizes: &[usize],
    (name, device): (&str, &Device),
    seed: u64,
) -> Result<StepSweep, TrainingError> {
    if sizes.is_empty() {
        return Err(TrainingError::Settings(
            "no hidden sizes to measure; name some".into(),
        ));
    }
    let mut sizes = sizes.to_vec();
    sizes.sort_unstable();
    sizes.dedup();
    let progress = Progress::new("one step", sizes.len() as u64);
    let mut points = Vec::with_capacity(sizes.len());
    for hidden in sizes {
        progress.message(format!("hidden size {hidden}"));
        points.push(point(bsp, features, hidden, device, seed)?);
        progress.inc(1);
    }
    progress.finish();
    let ratios: Vec<_> = points
        .iter()
        .map(|point| (point.hidden as f64, point.step.ratio.median))
        .collect();
    Ok(StepSweep {
        bsp,
        features,
        crossings: crossings(&ratios),
        points,
        plot: "step.svg".into(),
        device: name.into(),
        seed,
        command: command_line(),
        versions: Report::versions(),
    })
}

fn point(
    bsp: Bsp,
    features: usize,
    hidden: usize,
    device: &Device,
    seed: u64,
) -> Result<StepPoint, TrainingError> {
    device.seed(seed);
    let config = SpeechGruConfig::new(features, 1).with_hidden(hidden);
    let mut model = config.init(device)?;
    for step in bsp.order() {
        let plan = bsp.plan(step, &model)?.resolve(&model)?;
        model = Masks::project(&model, &plan)?.attach(model)?;
    }
    let nnz = Masks::attached(&model).nnz();
    let dense = fold(model).gru.swap_remove(0);
    let frame = Tensor::<2>::random([1, features], Distribution::Default, device);
    let before = dense.step(frame.clone(), None);
    let step = |gru: &Gru| gru.step(frame.clone(), Some(before.clone()));
    let trace = Trace::of(|| drop(step(&dense)));
    let choice = PackConfig::measure(trace).with_choice(Choice::Csr);
    let (packed, _) = pack(dense.clone(), &choice)?;
    let difference = (step(&packed) - step(&dense)).abs().max();
    let weights = SparsityReport::new(&dense)?.weights;
    Ok(StepPoint {
        hidden,
        weights,
        nnz,
        step: measure(device, STEPS, || step(&packed), || step(&dense))?,
        max_abs_diff: f64::from(difference.into_scalar::<f32>()),
    })
}

impl StepSweep {
    /// The drawing: milliseconds of a step by hidden size, both on scales of factors.
    ///
    /// # Errors
    /// [`TrainingError::Bench`] if it cannot be drawn.
    pub fn draw(&self) -> Result<String, TrainingError> {
        let times = |point: &StepPoint| {
            let Pair { sparse, dense, .. } = point.step;
            (point.hidden as f64, [sparse, dense])
        };
        let drawing = Drawing {
            title: format!("one step of a GRU, {} features", self.features),
            conditions: format!("{}; batch 1, f32; {}", self.bsp, self.device),
            x_label: "hidden units",
            by_factors: true,
            show: Rc::new(digits),
            points: self.points.iter().map(times).collect(),
            crossings: &self.crossings,
        };
        Ok(drawing.svg()?)
    }
}

impl fmt::Display for StepSweep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "one step, batch 1: {}; {}", self.bsp, self.device)?;
        let head = [
            "hidden",
            "weights",
            "kept",
            "dense ms",
            "packed ms",
            "ratio",
            "",
        ];
        let mut table = Table::new(&head);
        for point in &self.points {
            table.push(vec![
                point.hidden.to_string(),
                point.weights.to_string(),
                point.nnz.to_string(),
                digits(point.step.dense.median),
                digits(point.step.sparse.median),
                digits(point.step.ratio.median),
                verdict(point.step.ratio.median),
            ]);
        }
        table.fmt(f)
    }
}
