//! From fresh weights to a network with zeros: dense training, compression, projection, masked
//! retraining.

use std::path::Path;

use burn::tensor::Device;
use burn_admm::baseline::{Gradual, GradualSchedule};
use burn_admm::plan::ResolvedPlan;
use burn_admm::{Admm, Masks, Plan};
use models::Classifier;
use serde::{Deserialize, Serialize};

use super::evaluate::accuracy;
use super::stage::{Compression, Context, Stage};
use super::{EpochRecord, LearningRate, Method, TrainingError};
use crate::data::Loader;

/// The dense network that every method starts from.
#[derive(Clone, Debug)]
pub struct Dense<M> {
    /// The network of the best validation epoch.
    pub model: M,
    /// Its accuracy on the test images.
    pub accuracy: f64,
    /// That epoch, from 1.
    pub epoch: usize,
    /// All epochs.
    pub history: Vec<EpochRecord>,
}

/// A network whose pruned weights are masked.
#[derive(Clone, Debug)]
pub struct Pruned<M> {
    /// The masked network of the best validation epoch of retraining.
    pub model: M,
    /// How it was pruned.
    pub method: Method,
    /// Accuracies and epochs.
    pub results: PruneResults,
}

/// The numbers of one method.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PruneResults {
    /// Accuracy on the test images right after projection.
    pub accuracy_projected: f64,
    /// Accuracy on the test images after retraining.
    pub accuracy_masked: f64,
    /// The epoch of retraining that was chosen, from 1; 0 without retraining.
    pub epoch: usize,
    /// Epochs before projection.
    pub compress: Vec<EpochRecord>,
    /// Epochs of retraining.
    pub retrain: Vec<EpochRecord>,
}

/// Trains the dense network in `folder`.
///
/// # Errors
/// Those of training, saving and reading; see [`TrainingError`].
pub fn train_dense<M: Classifier>(
    context: &Context,
    build: impl Fn(&Device) -> M,
    folder: &Path,
) -> Result<Dense<M>, TrainingError> {
    let recipe = context.recipe;
    // The initial weights depend on the seed alone.
    context.device.seed(recipe.seed);
    let stage = Stage {
        name: "dense".into(),
        folder: folder.to_path_buf(),
        epochs: recipe.epochs,
        first_epoch: 0,
        lr: rate(context, recipe.lr, recipe.warmup_epochs, recipe.epochs),
        choose_best: true,
        compression: Compression::None,
    };
    let fresh = || build(&context.device);
    let trained = stage.run(context, fresh(), || Ok(fresh()))?;
    let accuracy = test(context, &trained.model)?;
    context.say(format!(
        "dense: {:.2} % of the test images are right (epoch {})",
        100.0 * accuracy,
        trained.epoch
    ));
    Ok(Dense {
        model: trained.model,
        accuracy,
        epoch: trained.epoch,
        history: trained.history,
    })
}

/// Prunes a dense network in `folder`: compression by `method`, projection, masked retraining.
///
/// # Errors
/// Those of training, saving and reading, and of a plan that does not fit; see [`TrainingError`].
pub fn prune<M: Classifier>(
    context: &Context,
    build: impl Fn(&Device) -> M,
    dense: M,
    plan: &Plan,
    method: Method,
    folder: &Path,
) -> Result<Pruned<M>, TrainingError> {
    let recipe = context.recipe;
    let mut resolved = plan.resolve(&dense)?;
    let fresh = || build(&context.device);
    let masked = |plan: &ResolvedPlan| Ok(Masks::keep_all(plan).attach(fresh())?);
    let compress_epochs = recipe.compress_epochs(method);

    let mut compressed = dense;
    let mut history = Vec::new();
    if compress_epochs > 0 {
        let folder = folder.join("compress");
        let (first_epoch, name) = (recipe.epochs, method.to_string());
        let stage = |lr, compression| Stage {
            name,
            folder,
            epochs: compress_epochs,
            first_epoch,
            lr,
            choose_best: false,
            compression,
        };
        let result = if method == Method::Admm {
            let admm = Box::new(Admm::new(&compressed, plan, recipe.admm)?);
            let epochs = recipe.admm_epochs;
            // Each outer iteration anneals, so that the weights settle before each projection.
            let lr = rate(context, recipe.compress_lr, 0.0, epochs);
            stage(lr, Compression::Admm { admm, epochs }).run(context, compressed, || Ok(fresh()))
        } else {
            let lr = rate(context, recipe.compress_lr, 0.0, 0);
            let steps = steps(context) * compress_epochs;
            let frequency = (steps / 50).max(1) as u64;
            let schedule = GradualSchedule::new(0.0, 1, steps as u64, frequency)?;
            let gradual = Compression::Gradual(Gradual::new(schedule, resolved.clone()));
            let model = Masks::keep_all(&resolved).attach(compressed)?;
            stage(lr, gradual).run(context, model, || masked(&resolved))
        }?;
        (compressed, history) = (result.model, result.history);
        // A resumed run goes on with the kernel patterns that it was started with.
        resolved = result.plan.unwrap_or(resolved);
    }

    // For gradual pruning this changes nothing: its last step has projected already.
    let projected = Masks::project(&compressed, &resolved)?.attach(compressed)?;
    let accuracy_projected = test(context, &projected)?;
    context.say(format!(
        "{method}: {:.2} % of the test images are right after projection",
        100.0 * accuracy_projected
    ));

    let retrain_epochs = recipe.retrain_epochs(method);
    let stage = Stage {
        name: format!("{method} retrain"),
        folder: folder.join("retrain"),
        epochs: retrain_epochs,
        first_epoch: recipe.epochs + compress_epochs,
        lr: rate(
            context,
            recipe.retrain_lr,
            recipe.warmup_epochs,
            retrain_epochs,
        ),
        choose_best: true,
        compression: Compression::None,
    };
    let retrained = stage.run(context, projected, || masked(&resolved))?;
    let accuracy_masked = test(context, &retrained.model)?;
    context.say(format!(
        "{method}: {:.2} % of the test images are right after retraining (epoch {})",
        100.0 * accuracy_masked,
        retrained.epoch
    ));
    Ok(Pruned {
        model: retrained.model,
        method,
        results: PruneResults {
            accuracy_projected,
            accuracy_masked,
            epoch: retrained.epoch,
            compress: history,
            retrain: retrained.history,
        },
    })
}

fn test<M: Classifier>(context: &Context, model: &M) -> Result<f64, TrainingError> {
    accuracy(model, context.data, &context.data.test, &context.device)
}

/// Steps of an epoch.
fn steps(context: &Context) -> usize {
    let recipe = context.recipe;
    Loader::train(context.data, recipe.batch, recipe.seed).batches()
}

/// Cosine over `epochs` epochs; constant for none.
fn rate(context: &Context, peak: f64, warmup_epochs: f64, epochs: usize) -> LearningRate {
    let steps = steps(context);
    LearningRate {
        peak,
        warmup: ((warmup_epochs * steps as f64).round() as usize).min(steps * epochs / 2),
        period: steps * epochs,
    }
}
