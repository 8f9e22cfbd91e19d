use serde::{Deserialize, Serialize};

use crate::table::Table;

/// What a network is like at some point of a run.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Standing {
    /// As the [loop](super::TrainingLoop::accuracy) tells it.
    pub accuracy: f64,
    /// Part of the weights that are zero, as [`SparsityReport`](crate::SparsityReport) counts them.
    pub sparsity: f64,
    /// Weights that are not zero.
    pub nnz: usize,
    /// All weights.
    pub weights: usize,
    /// Bytes of a [compact](burn_sparse::store::compact) checkpoint: zeros and levels count.
    pub bytes: u64,
}

/// A stage that has ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct StageReport {
    /// Which, counted from 0.
    pub stage: usize,
    /// Its name.
    pub name: String,
    /// The network after it.
    #[serde(flatten)]
    pub after: Standing,
    /// Epochs of training, without those of trials.
    pub epochs: usize,
    /// Seconds, evaluating and saving included, over all runs that took part in it.
    pub seconds: f64,
    /// Relative primal and dual residual after each outer iteration of ADMM.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub residuals: Vec<[f32; 2]>,
    /// How far the outputs are from those before it, as a part of the largest: of shrinking and packing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub difference: Option<f32>,
    /// What it decided, as text: the choice of schemes, the channels that went, the packed layers.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub details: String,
}

/// What came out of a [`Recipe`](super::Recipe).
///
/// [`Display`](core::fmt::Display) prints a table with a line for each stage.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct RecipeReport {
    /// The network as it was given.
    pub start: Standing,
    /// The stages, in their order.
    pub stages: Vec<StageReport>,
}

impl RecipeReport {
    /// The network at the end.
    pub fn end(&self) -> Standing {
        self.stages.last().map_or(self.start, |stage| stage.after)
    }
}

impl core::fmt::Display for RecipeReport {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let header = [
            "stage",
            "",
            "epochs",
            "accuracy",
            "zeros",
            "bytes",
            "differs by",
            "s",
        ];
        let mut table = Table::new(header).right_aligned(&[2, 3, 4, 5, 6, 7]);
        let numbers = |standing: &Standing| {
            [
                format!("{:.2} %", 100.0 * standing.accuracy),
                format!("{:.2} %", 100.0 * standing.sparsity),
                standing.bytes.to_string(),
            ]
        };
        let [accuracy, zeros, bytes] = numbers(&self.start);
        let none = String::new;
        let start = "as given".to_owned();
        table.row([
            none(),
            start,
            none(),
            accuracy,
            zeros,
            bytes,
            none(),
            none(),
        ]);
        for stage in &self.stages {
            let [accuracy, zeros, bytes] = numbers(&stage.after);
            table.row([
                stage.stage.to_string(),
                stage.name.clone(),
                stage.epochs.to_string(),
                accuracy,
                zeros,
                bytes,
                stage.difference.map_or_else(none, |d| format!("{d:.1e}")),
                format!("{:.1}", stage.seconds),
            ]);
        }
        write!(f, "{table}")
    }
}
