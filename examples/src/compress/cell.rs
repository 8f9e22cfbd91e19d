//! One network: pruned by one method to one ratio from one seed, and quantised.

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use burn_admm::{Masks, SparsityReport, fold};
use models::{Arch, Classifier};
use serde::Serialize;

use super::file::{FromFile, from_file};
use super::halves::in_halves;
use super::{Levels, prune_plan};
use crate::output::write_atomic;
use crate::training::{
    Context, Dense, Densities, Method, PruneResults, QuantRecipe, QuantResults, TrainingError, own,
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
    /// The same in 16 bits, where that was asked for: weights, and inputs and outputs of layers.
    pub accuracy_pruned_halves: Option<f64>,
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

/// A network that was pruned and retrained: what levels are tried on.
#[derive(Clone, Debug)]
pub struct PrunedCell<M> {
    /// The network with its zeros.
    pub model: M,
    /// Which of them stay.
    pub masks: Masks,
    /// Stages of pruning, the last of them to the ratio that was asked for.
    pub stages: Vec<PruneResults>,
    /// Its accuracy on the test images with weights, and inputs and outputs of layers, in 16 bits.
    pub accuracy_halves: Option<f64>,
    /// Epochs so far: the data order goes on from there.
    epochs: usize,
    folder: PathBuf,
}

/// Prunes a network, in stages if asked to. `dense` is what it starts from. Stages are kept in `folder` by method
/// and ratios so far: a network that goes on where another ends is not pruned twice.
///
/// # Errors
/// Those of training and of files; see [`TrainingError`].
pub fn prune_cell<M: Classifier>(
    context: &Context,
    arch: Arch,
    build: impl Fn(&Device) -> M,
    dense: &Dense<M>,
    (setting, halves): (&Setting, bool),
    folder: &Path,
) -> Result<PrunedCell<M>, TrainingError> {
    let recipe = context.recipe;
    let mut model = dense.model.clone();
    let mut stages = Vec::new();
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
        stages.push(pruned.results);
    }
    let masks = Masks::attached(&model);
    let model = fold(model);
    let in_halves = |_| in_halves(context, Classifier::fold(model.valid()));
    let accuracy_halves = halves.then_some(()).map(in_halves).transpose()?;
    Ok(PrunedCell {
        model,
        masks,
        stages,
        accuracy_halves,
        epochs,
        folder: folder.join(name),
    })
}

/// Quantises a pruned network to the levels of `setting`, the `number`th that are tried on it, stores it and judges
/// what comes back from the file, against a dense network of `accuracy_dense`.
///
/// # Errors
/// Those of training and of files; see [`TrainingError`].
pub fn quantise_cell<M: Classifier>(
    context: &Context,
    quant: &QuantRecipe,
    build: impl Fn(&Device) -> M,
    (pruned, accuracy_dense): (&PrunedCell<M>, f64),
    (setting, number): (&Setting, usize),
) -> Result<Cell, TrainingError> {
    // Levels that are tried later start from the same running statistics.
    let model = own(&pruned.model, build(&context.device))?;
    let model = pruned.masks.attach(model)?;
    let plan = setting.levels.plan(&model)?;
    let folder = match number {
        0 => pruned.folder.clone(),
        number => pruned.folder.join(format!("levels-{}", number + 1)),
    };
    context.say(format!("levels {}", setting.levels));
    let at = (folder.join("levels"), pruned.epochs);
    let quantised = quantise(context, quant, &build, model, &plan, (&at.0, at.1))?;
    let unmasked = fold(quantised.model.valid());
    let report = SparsityReport::new(&unmasked)?;
    let halves = pruned.accuracy_halves.is_some();
    let trained = quantised.model.valid();
    let file = from_file(context, &build, (&trained, unmasked), (&folder, halves))?;
    let last = pruned.stages.last();
    let cell = Cell {
        setting: setting.clone(),
        seed: context.recipe.seed,
        accuracy_dense,
        accuracy_pruned: last.map_or(0.0, |stage| stage.accuracy_masked),
        accuracy_pruned_halves: pruned.accuracy_halves,
        accuracy_rounded: quantised.results.accuracy_rounded,
        accuracy_quantised: quantised.results.accuracy_tuned,
        weights: report.weights,
        nnz: report.nnz,
        file,
        pruning: pruned.stages.clone(),
        quantisation: quantised.results,
    };
    write_atomic(&folder.join("report.json"), |file| {
        serde_json::to_writer_pretty(&mut *file, &cell)?;
        Ok(())
    })?;
    Ok(cell)
}
