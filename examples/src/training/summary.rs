//! The report of a run's training.

use burn_admm::{SparsityReport, fold};
use models::Classifier;
use serde::Serialize;
use serde_json::{Map, Value, to_value};

use super::{Context, Dense, Pruned, TrainingError};
use crate::report::Report;

/// Everything but sizes and times, which only a deployed network has. Zeros are counted on the
/// weights.
///
/// # Errors
/// [`TrainingError::Admm`] if a device fails.
pub fn summarise<M: Classifier>(
    context: &Context,
    arch: &str,
    device: &str,
    dense: &Dense<M>,
    pruned: &Pruned<M>,
) -> Result<Report, TrainingError> {
    let sparsity = SparsityReport::new(&fold(pruned.model.valid()))?;
    let extra = [
        ("recipe", json(context.recipe)),
        ("dense_history", json(&dense.history)),
        ("dense_epoch", json(&dense.epoch)),
        ("pruning", json(&pruned.results)),
        ("test_images", json(&context.data.test.len())),
        ("notices", json(&context.data.notices)),
    ];
    let extra: Map<String, Value> = extra
        .into_iter()
        .map(|(key, value)| (key.to_string(), value))
        .collect();
    Ok(Report {
        sparsity: sparsity.sparsity,
        nnz: sparsity.nnz,
        weights: sparsity.weights,
        accuracy_dense: dense.accuracy,
        accuracy_projected: pruned.results.accuracy_projected,
        accuracy_pruned: pruned.results.accuracy_masked,
        extra,
        ..Report::of(
            arch,
            pruned.method.name(),
            context.data,
            device,
            context.recipe.seed,
        )
    })
}

/// A part of the report; numbers that JSON lacks become null.
fn json(value: &impl Serialize) -> Value {
    to_value(value).unwrap_or_default()
}
