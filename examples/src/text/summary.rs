//! The report of a seed.

use burn_admm::plan::Explanation;
use models::TextCnnConfig;
use serde::Serialize;
use serde_json::{Map, Value, to_value};

use super::{TextContext, TextDeployed};
use crate::bench::table::digits;
use crate::cli::command_line;
use crate::report::{DensePacked, Latency, LayerReport, Report};
use crate::sequence::{Score, StageProgress};
use crate::training::Method;

/// The dense network, trained for as many epochs as the pruned one.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DenseResult {
    /// The one of the best validation epoch, on the test sentences.
    pub test: Score,
    /// That of the epochs before pruning alone, on the test sentences.
    pub test_before: Score,
    /// The epochs before pruning.
    pub start: StageProgress,
    /// Those that the pruned network spent on being pruned.
    pub further: StageProgress,
}

/// Pruning.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PruneResult {
    /// How.
    pub method: Method,
    /// What was allowed.
    pub plan: Explanation,
    /// Weights of the convolutions that are left.
    pub nnz: usize,
    /// On the test sentences right after projection.
    pub projected: Score,
    /// On the test sentences after retraining.
    pub retrained: Score,
    /// The epochs before projection.
    pub compress: StageProgress,
    /// The epochs of retraining.
    pub retrain: StageProgress,
}

/// The report of a seed. What its fields have no place for is in `extra`: all epochs, the
/// convolutions' own sparsity with its numerator and denominator, the times of each.
#[must_use]
pub fn summarise(
    context: &TextContext,
    config: &TextCnnConfig,
    dense: &DenseResult,
    pruned: &PruneResult,
    deployed: &TextDeployed,
    device: &str,
) -> Report {
    let data = &context.data.data;
    let weights = config.conv_weights();
    let latency = deployed.network.iter().map(|(&batch, pair)| {
        let times = DensePacked {
            dense: pair.dense.median,
            packed: pair.sparse.median,
        };
        (batch, times)
    });
    let extra = [
        ("model", json(config)),
        ("recipe", json(&context.recipe)),
        ("word_dropout", json(&context.data.word_dropout)),
        ("head_norm", json(&context.data.head_norm)),
        ("params", json(&config.params())),
        ("conv_weights", json(&weights)),
        ("conv_nnz", json(&pruned.nnz)),
        (
            "conv_sparsity",
            json(&(1.0 - pruned.nnz as f64 / weights.max(1) as f64)),
        ),
        ("dense", json(dense)),
        ("pruned", json(pruned)),
        ("test_sentences", json(&data.test.len())),
        ("sentence_words", json(&deployed.words)),
        ("network_ms", json(&deployed.network)),
        ("convs_ms", json(&deployed.convs)),
        ("data", json(&data.summary())),
    ];
    let extra = extra.map(|(key, value)| (key.to_string(), value));
    let windows: Vec<String> = config.windows.iter().map(ToString::to_string).collect();
    Report {
        form: String::new(),
        arch: format!("text cnn {}x{}", windows.join(","), config.maps),
        dataset: data.name.clone(),
        train_images: data.train.len(),
        items: "sentences".into(),
        method: pruned.method.name().into(),
        sparsity: deployed.zeros.sparsity,
        nnz: deployed.zeros.nnz,
        weights: deployed.zeros.weights,
        accuracy_dense: dense.test.accuracy,
        accuracy_projected: pruned.projected.accuracy,
        accuracy_pruned: deployed.test.accuracy,
        bytes_dense: deployed.bytes_dense,
        bytes_packed_file: deployed.bytes_packed,
        max_abs_diff: deployed.max_abs_diff,
        latency_ms: Latency::new(latency.collect()),
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

impl TextDeployed {
    /// What the table of a report has no line for: the convolutions, which alone are pruned.
    #[must_use]
    pub fn speed(&self) -> String {
        let mut text = format!("sentences of {} words\n", self.words);
        for conv in &self.convs {
            let (dense, packed) = (conv.ms.dense.median, conv.ms.sparse.median);
            text.push_str(&format!(
                "{}, windows of {}, {:.1} % zeros, batch {}: {} ms dense, {} ms packed\n",
                conv.layer,
                conv.window,
                100.0 * conv.sparsity,
                conv.batch,
                digits(dense),
                digits(packed)
            ));
        }
        text
    }
}

/// A part of the report; numbers that JSON lacks become null.
fn json(value: &impl Serialize) -> Value {
    to_value(value).unwrap_or_default()
}
