//! From fresh weights to a network with zeros: dense training, compression, projection, masked
//! retraining.

use std::path::Path;

use burn::tensor::Device;
use burn_admm::baseline::{Gradual, GradualSchedule};
use burn_admm::click_train::{ClickTrain, ClickTrainConfig};
use burn_admm::evolve::{Evolution, Verdict};
use burn_admm::plan::ResolvedPlan;
use burn_admm::reweighted::Reweighted;
use burn_admm::{Admm, Masks, Plan};
use burn_sparse::store;
use models::{Classifier, weights};
use serde::{Deserialize, Serialize};

use super::compression::Compression;
use super::evaluate::accuracy;
use super::stage::{Choice, Context, Stage};
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
    /// Time of the epochs, without evaluating and saving; zero where nobody measured it.
    pub seconds: f64,
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
    /// Time of the epochs, without evaluating and saving; zero where nobody measured it.
    pub seconds: f64,
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
    /// The trials of an evolution.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub trials: Vec<Verdict>,
}

/// Trains the dense network in `folder`, from random weights or from those of
/// [`with_weights`](Context::with_weights), which are themselves the result if no epoch makes them better.
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
        lr: dense_rate(context),
        first_step: 0,
        choice: match context.weights {
            Some(_) => Choice::BestOrStart,
            None => Choice::Best,
        },
        compression: Compression::None,
    };
    let fresh = || build(&context.device);
    let start = match &context.weights {
        Some(path) => weights::load(fresh(), path)?,
        None => fresh(),
    };
    dense_stage(context, stage, start, fresh)
}

fn dense_stage<M: Classifier>(
    context: &Context,
    stage: Stage,
    model: M,
    fresh: impl Fn() -> M,
) -> Result<Dense<M>, TrainingError> {
    let name = stage.name.clone();
    let trained = stage.run(context, model, || Ok(fresh()))?;
    let accuracy = test(context, &trained.model)?;
    context.say(format!(
        "{name}: {:.2} % of the test images are right (epoch {})",
        100.0 * accuracy,
        trained.epoch
    ));
    Ok(Dense {
        model: trained.model,
        accuracy,
        epoch: trained.epoch,
        history: trained.history,
        seconds: trained.seconds,
    })
}

/// Trains a dense network on in `folder`, for as many epochs as pruning takes: the baseline of all
/// that is lost by pruning.
///
/// # Errors
/// Those of training, saving and reading; see [`TrainingError`].
pub fn train_on<M: Classifier>(
    context: &Context,
    build: impl Fn(&Device) -> M,
    dense: &Dense<M>,
    folder: &Path,
) -> Result<Dense<M>, TrainingError> {
    let recipe = context.recipe;
    let epochs = recipe.pruning_epochs();
    let stage = Stage {
        name: "dense, trained on".into(),
        folder: folder.to_path_buf(),
        epochs,
        first_epoch: recipe.epochs,
        lr: rate(context, recipe.retrain_lr, recipe.warmup_epochs, epochs),
        first_step: 0,
        choice: Choice::Best,
        compression: Compression::None,
    };
    let fresh = || build(&context.device);
    dense_stage(context, stage, own(&dense.model, fresh())?, fresh)
}

/// The network in a fresh one, for a stage to start from. Clones would share their running statistics,
/// and training one would change what all others say.
pub(crate) fn own<M: Classifier>(model: &M, fresh: M) -> Result<M, TrainingError> {
    let (bytes, _) = store::to_bytes(model)?;
    Ok(store::from_bytes(fresh, &bytes)?)
}

/// Prunes a dense network in `folder`: compression by `method`, projection, masked retraining.
/// ClickTrain starts from fresh weights instead, those that the dense network started from.
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
    let fresh = || build(&context.device);
    let dense = own(&dense, fresh())?;
    let mut resolved = plan.resolve(&dense)?;
    let masked = |plan: &ResolvedPlan| Ok(Masks::keep_all(plan).attach(fresh())?);
    let compress_epochs = recipe.compress_epochs(method);
    let click = method == Method::Clicktrain;
    let first_epoch = if click { 0 } else { recipe.epochs };

    let mut compressed = dense;
    let mut masks = None;
    let (mut history, mut trials, mut seconds) = (Vec::new(), Vec::new(), 0.0);
    if compress_epochs > 0 {
        if click {
            context.device.seed(recipe.seed);
            compressed = fresh();
        }
        let compression = compression(context, &mut compressed, plan, &resolved, method)?;
        let stage = Stage {
            name: method.to_string(),
            folder: folder.join("compress"),
            epochs: compress_epochs,
            first_epoch,
            lr: match method {
                Method::Clicktrain => dense_rate(context),
                Method::Gradual => rate(context, recipe.compress_lr, 0.0, 0),
                // Each trial anneals: the network that it is compared with has settled, too.
                Method::Evolve => LearningRate {
                    peak: recipe.compress_lr * recipe.evolve.rate,
                    warmup: 0,
                    period: recipe.evolve.batches(steps(context)),
                },
                // Each outer iteration anneals, so that the weights settle before each projection.
                _ => rate(context, recipe.compress_lr, 0.0, recipe.admm_epochs),
            },
            first_step: 0,
            choice: Choice::Last,
            compression,
        };
        let load = || match method {
            Method::Gradual => masked(&resolved),
            Method::Evolve => {
                let fresh = fresh();
                let wearing = Evolution::new(&fresh, plan, recipe.evolve.config, 0.0)?;
                Ok(wearing.attach(fresh)?)
            }
            _ => Ok(fresh()),
        };
        let result = stage.run(context, compressed, load)?;
        (compressed, history, seconds) = (result.model, result.history, result.seconds);
        if let Some(hint) = far_off(&history) {
            context.say(format!("{method}: {hint}"));
        }
        masks = result.compression.masks(&compressed)?;
        trials = result.compression.trials();
        // A resumed run goes on with the kernel patterns that it was started with.
        if let Some(plan) = result.compression.plan() {
            resolved = plan.clone();
        }
    }

    // For gradual pruning this changes nothing: its last step has projected already.
    let masks = masks.map_or_else(|| Masks::project(&compressed, &resolved), Ok)?;
    let projected = masks.attach(compressed)?;
    let accuracy_projected = test(context, &projected)?;
    context.say(format!(
        "{method}: {:.2} % of the test images are right after projection",
        100.0 * accuracy_projected
    ));

    let epochs = recipe.retrain_epochs(method);
    let (lr, first_step) = if click {
        // The one run of ClickTrain goes on.
        (dense_rate(context), compress_epochs * steps(context))
    } else {
        let lr = rate(context, recipe.retrain_lr, recipe.warmup_epochs, epochs);
        (lr, 0)
    };
    let stage = Stage {
        name: format!("{method} retrain"),
        folder: folder.join("retrain"),
        epochs,
        first_epoch: first_epoch + compress_epochs,
        lr,
        first_step,
        choice: Choice::Best,
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
            trials,
        },
        seconds: seconds + retrained.seconds,
    })
}

/// Primal residual from which on projecting throws the weights far off.
const FAR: f64 = 0.1;

/// What to do if ADMM did not bring the weights near what they are projected to.
pub(crate) fn far_off(history: &[EpochRecord]) -> Option<String> {
    let residual = history
        .iter()
        .rev()
        .find_map(|epoch| epoch.primal_residual)?;
    (residual > FAR).then(|| {
        format!(
            "the weights are still {:.0} % away from their projection; a larger --rho, a larger --rho-growth or more \
             --admm-iterations bring them closer",
            100.0 * residual
        )
    })
}

/// Checks that a plan fits a network and a method, before anything is trained.
///
/// # Errors
/// [`TrainingError::Plan`], or what the method says of a pattern that it cannot train.
pub fn check_plan<M: Classifier>(
    context: &Context,
    model: &M,
    plan: &Plan,
    method: Method,
) -> Result<(), TrainingError> {
    let resolved = plan.resolve(model)?;
    compression(context, &mut model.clone(), plan, &resolved, method)?;
    Ok(())
}

/// What acts on the weights before projection; gradual pruning gives the model its first mask.
fn compression<M: Classifier>(
    context: &Context,
    model: &mut M,
    plan: &Plan,
    resolved: &ResolvedPlan,
    method: Method,
) -> Result<Compression, TrainingError> {
    let recipe = context.recipe;
    let epochs = recipe.admm_epochs;
    Ok(match method {
        Method::Oneshot => Compression::None,
        Method::Admm => Compression::Admm {
            admm: Box::new(Admm::new(model, plan, recipe.admm)?),
            epochs,
        },
        Method::Gradual => {
            let steps = steps(context) * recipe.compress_epochs(method);
            let frequency = (steps / 50).max(1) as u64;
            let schedule = GradualSchedule::new(0.0, 1, steps as u64, frequency)?;
            *model = Masks::keep_all(resolved).attach(model.clone())?;
            Compression::Gradual(Gradual::new(schedule, resolved.clone()))
        }
        Method::Reweighted => {
            let config = recipe
                .reweighted
                .config(recipe.compress_lr, recipe.optimizer);
            Compression::Reweighted {
                penalty: Box::new(Reweighted::new(model, plan, config)?),
                epochs,
                threshold: recipe.reweighted.threshold,
            }
        }
        Method::Evolve => {
            let data = context.data;
            if data.valid.is_empty() {
                return Err(TrainingError::Settings(format!(
                    "{} has no validation images, and evolution judges its trials by them; hold some out",
                    data.name
                )));
            }
            let start = accuracy(model, data, &data.valid, &context.device)?;
            let config = recipe.evolve.config.with_seed(recipe.seed);
            let run = Evolution::new(model, plan, config, start)?;
            *model = run.attach(model.clone())?;
            Compression::Evolve {
                run: Box::new(run),
                plan: plan.clone(),
                batches: recipe.evolve.batches(steps(context)),
            }
        }
        Method::Clicktrain => {
            let of_epochs = |epochs| (steps(context) * epochs) as u64;
            let config = ClickTrainConfig {
                // The masks are attached between the two stages.
                prune_at: of_epochs(recipe.compress_epochs(method)) + 1,
                ..ClickTrainConfig::of_run(of_epochs(recipe.epochs))
            };
            Compression::Click {
                run: Box::new(ClickTrain::new(model, plan, config)?),
                plan: plan.clone(),
            }
        }
    })
}

pub(super) fn test<M: Classifier>(context: &Context, model: &M) -> Result<f64, TrainingError> {
    if !context.tests {
        return Ok(0.0);
    }
    accuracy(model, context.data, &context.data.test, &context.device)
}

/// Steps of an epoch.
fn steps(context: &Context) -> usize {
    let recipe = context.recipe;
    Loader::train(context.data, recipe.batch, recipe.seed).batches()
}

/// That of dense training.
fn dense_rate(context: &Context) -> LearningRate {
    let recipe = context.recipe;
    rate(context, recipe.lr, recipe.warmup_epochs, recipe.epochs)
}

/// Cosine over `epochs` epochs; constant for none.
pub(super) fn rate(
    context: &Context,
    peak: f64,
    warmup_epochs: f64,
    epochs: usize,
) -> LearningRate {
    let steps = steps(context);
    LearningRate {
        peak,
        warmup: ((warmup_epochs * steps as f64).round() as usize).min(steps * epochs / 2),
        period: steps * epochs,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_residual_comes_with_a_hint() {
        let after = |primal_residual| EpochRecord {
            epoch: 1,
            loss: 1.0,
            train_accuracy: 0.5,
            valid_accuracy: 0.5,
            primal_residual,
            dual_residual: None,
            sparsity: None,
        };
        assert_eq!(far_off(&[]), None);
        assert_eq!(far_off(&[after(None)]), None);
        // The last outer iteration counts, whatever epochs follow it.
        assert_eq!(
            far_off(&[after(Some(0.9)), after(Some(0.02)), after(None)]),
            None
        );
        let hint = far_off(&[after(Some(0.02)), after(Some(0.35)), after(None)]).unwrap();
        assert!(hint.contains("35 %") && hint.contains("--rho"), "{hint}");
    }
}
