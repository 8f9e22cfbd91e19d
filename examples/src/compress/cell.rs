//! One network: pruned by one method to one ratio from one seed, and quantised.

use std::path::Path;

use burn::tensor::Device;
use burn_admm::{SparsityReport, fold};
use models::{Arch, Classifier};
use serde::Serialize;

use super::file::{FromFile, from_file};
use super::{Levels, prune_plan};
use crate::output::write_atomic;
use crate::training::{
    Context, Dense, Densities, Method, PruneResults, QuantRecipe, QuantResults, TrainingError,
    prune, quantise,
};

/// What is asked of a network.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Setting {
    /// How it is pruned.
    pub method: Method,
    /// Weights for each that stays.
    pub ratio: f64,
    /// Ratios on the way.
    pub via: Vec<f64>,
    /// Densities of layers in place of published ones.
    pub densities: Densities,
    /// Its levels.
    pub levels: Levels,
}

/// What came of it. Accuracies are fractions of the test images.
#[derive(Clone, Debug, Serialize)]
pub struct Cell {
    /// What was asked for.
    pub setting: Setting,
    /// The seed.
    pub seed: u64,
    /// Of the dense network, trained on for as many epochs as the longest of the cells took.
    pub accuracy_dense: f64,
    /// After pruning and retraining.
    pub accuracy_pruned: f64,
    /// Right after rounding.
    pub accuracy_rounded: f64,
    /// After tuning on the levels.
    pub accuracy_quantised: f64,
    /// Weights of all layers, without biases.
    pub weights: usize,
    /// Those that are not zero.
    pub nnz: usize,
    /// The network that was read back from its file.
    pub file: FromFile,
    /// Stages of pruning, the last of them to `ratio`.
    pub pruning: Vec<PruneResults>,
    /// Quantisation.
    pub quantisation: QuantResults,
}

/// Prunes, in stages if asked to, quantises, stores and judges a network. `dense` is what it starts
/// from, and `accuracy_dense` what it is compared with. Stages are kept in `folder` by method and
/// ratios so far: a network that goes on where another ends is not pruned twice.
///
/// # Errors
/// Those of training and of files; see [`TrainingError`].
pub fn one_cell<M: Classifier>(
    context: &Context,
    arch: Arch,
    quant: &QuantRecipe,
    build: impl Fn(&Device) -> M,
    (dense, accuracy_dense): (&Dense<M>, f64),
    setting: &Setting,
    folder: &Path,
) -> Result<Cell, TrainingError> {
    let recipe = context.recipe;
    let mut model = dense.model.clone();
    let mut pruning = Vec::new();
    let mut epochs = recipe.epochs;
    let mut name = setting.method.name().to_owned();
    for &ratio in setting.via.iter().chain([&setting.ratio]) {
        let plan = prune_plan(arch, &dense.model, ratio, &setting.densities)?;
        name.push_str(&format!("-{ratio}"));
        context.say(format!("{name}, seed {}", recipe.seed));
        let folder = folder.join(&name);
        // Weights of the stage before compete anew: its zeros are only where this one starts.
        let start = fold(model);
        let pruned = prune(context, &build, start, &plan, setting.method, &folder)?;
        epochs += recipe.epochs_of(setting.method);
        model = pruned.model;
        pruning.push(pruned.results);
    }
    let plan = setting.levels.plan(&model)?;
    let folder = folder.join(&name);
    let levels = folder.join("levels");
    let quantised = quantise(context, quant, &build, model, &plan, (&levels, epochs))?;
    let folded = Classifier::fold(fold(quantised.model.valid()));
    let report = SparsityReport::new(&folded)?;
    let file = from_file(context, &build, &quantised.model.valid(), folded, &folder)?;
    let cell = Cell {
        setting: setting.clone(),
        seed: recipe.seed,
        accuracy_dense,
        accuracy_pruned: pruning.last().map_or(0.0, |stage| stage.accuracy_masked),
        accuracy_rounded: quantised.results.accuracy_rounded,
        accuracy_quantised: quantised.results.accuracy_tuned,
        weights: report.weights,
        nnz: report.nnz,
        file,
        pruning,
        quantisation: quantised.results,
    };
    write_atomic(&folder.join("report.json"), |file| {
        serde_json::to_writer_pretty(&mut *file, &cell)?;
        Ok(())
    })?;
    Ok(cell)
}
