//! The report of a seed.

use burn_admm::plan::Explanation;
use models::SpeechGruConfig;
use serde::Serialize;
use serde_json::{Map, Value, to_value};

use super::{Bsp, BspStep, SpeechContext, SpeechDeployed};
use crate::bench::table::digits;
use crate::cli::command_line;
use crate::report::{DensePacked, Latency, LayerReport, Report};
use crate::sequence::{Score, StageProgress};

/// The dense network, trained for as many epochs as the pruned one.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DenseResult {
    /// The one of the best validation epoch, on the test recordings.
    pub test: Score,
    /// The epochs before pruning.
    pub start: StageProgress,
    /// Those that the pruned network spent on being pruned.
    pub further: StageProgress,
}

/// A step of pruning.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StepResult {
    /// Which one.
    pub step: BspStep,
    /// What it allowed.
    pub plan: Explanation,
    /// Recurrent weights left after it.
    pub nnz: usize,
    /// On the test recordings right after projection.
    pub projected: Score,
    /// On the test recordings after retraining.
    pub retrained: Score,
    /// The epochs under ADMM.
    pub admm: StageProgress,
    /// The epochs of retraining.
    pub retrain: StageProgress,
}

/// The report of a seed. What its fields have no place for is in `extra`: all epochs, the rate of the
/// recurrent matrices with its numerator and denominator, times of single steps.
#[must_use]
pub fn summarise(
    context: &SpeechContext,
    (config, bsp): (&SpeechGruConfig, Bsp),
    dense: &DenseResult,
    steps: &[StepResult],
    deployed: &SpeechDeployed,
    device: &str,
) -> Report {
    let last = steps.last();
    let utterance = DensePacked {
        dense: deployed.utterance.dense.median,
        packed: deployed.utterance.sparse.median,
    };
    let weights = config.recurrent_weights();
    let nnz = last.map_or(weights, |step| step.nnz);
    let extra = [
        ("scheme", json(&bsp)),
        ("recipe", json(&context.recipe)),
        ("recurrent_weights", json(&weights)),
        ("recurrent_nnz", json(&nnz)),
        ("rate", json(&(weights as f64 / nnz.max(1) as f64))),
        ("dense", json(dense)),
        ("steps", json(&steps)),
        ("test_recordings", json(&context.data.test.len())),
        ("utterance_frames", json(&deployed.frames)),
        ("utterance_ms", json(&deployed.utterance)),
        ("step_ms", json(&deployed.step)),
        ("data", json(&context.data.summary())),
    ];
    let extra = extra.map(|(key, value)| (key.to_string(), value));
    Report {
        form: String::new(),
        arch: format!("gru {}x{}", config.layers, config.hidden),
        dataset: context.data.name.clone(),
        train_images: context.data.train.len(),
        items: "recordings".into(),
        method: "bsp".into(),
        sparsity: deployed.zeros.sparsity,
        nnz: deployed.zeros.nnz,
        weights: deployed.zeros.weights,
        accuracy_dense: dense.test.accuracy,
        accuracy_projected: last.map_or(0.0, |step| step.projected.accuracy),
        accuracy_pruned: deployed.test.accuracy,
        bytes_dense: deployed.bytes_dense,
        bytes_packed_file: deployed.bytes_packed,
        max_abs_diff: deployed.max_abs_diff,
        latency_ms: Latency::new([(1, utterance)].into()),
        layers: deployed
            .packing
            .layers
            .iter()
            .map(LayerReport::from)
            .collect(),
        command: command_line(),
        seed: context.recipe.seed,
        device: device.into(),
        versions: Report::versions(),
        extra: Map::from_iter(extra),
    }
}

impl SpeechDeployed {
    /// What the table of a report has no line for.
    #[must_use]
    pub fn speed(&self) -> String {
        let times = |pair: &crate::bench::Pair| {
            format!(
                "{} ms dense, {} ms packed",
                digits(pair.dense.median),
                digits(pair.sparse.median)
            )
        };
        format!(
            "a recording of {} frames at once: {}\none frame: {}",
            self.frames,
            times(&self.utterance),
            times(&self.step)
        )
    }
}

/// A part of the report; numbers that JSON lacks become null.
fn json(value: &impl Serialize) -> Value {
    to_value(value).unwrap_or_default()
}
