//! From a dense network to one whose kernels are shared, with channels cut out.

use std::path::Path;

use burn::tensor::Device;
use burn_admm::penni::{Penni, PenniConfig, PenniPlan, SharedKernels, SharedReport};
use burn_admm::shrink::{ChannelModel, ShrinkOptions, ShrinkPlan, shrink};
use models::Classifier;
use serde::{Deserialize, Serialize};

use super::compression::Compression;
use super::pipeline::{own, rate, test};
use super::stage::{Choice, Context, Stage};
use super::{Dense, EpochRecord, TrainingError};
use crate::cli::Preset;

/// The numbers of sharing; learning rates and the optimiser are those of the [`Recipe`](super::Recipe).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct PenniRecipe {
    /// Epochs in which coefficients and basis kernels train in turns.
    pub alternate_epochs: usize,
    /// Epochs of fine-tuning after pruning.
    pub tune_epochs: usize,
    /// Penalty, turns and threshold.
    pub config: PenniConfig,
}

impl PenniRecipe {
    /// The numbers of a preset: `full` has the published epochs, penalty and threshold, `quick` a few epochs with
    /// more of a penalty, so that it matters within them.
    #[must_use]
    pub fn of(preset: Preset) -> Self {
        match preset {
            Preset::Quick => Self {
                alternate_epochs: 4,
                tune_epochs: 4,
                config: PenniConfig::new().with_lambda(1e-3).with_interval(1),
            },
            Preset::Full => Self {
                alternate_epochs: 100,
                tune_epochs: 30,
                config: PenniConfig::new(),
            },
        }
    }
}

/// A network whose kernels are shared, before and after its channels were cut out.
#[derive(Clone, Debug)]
pub struct Shared<M> {
    /// The network after fine-tuning; its weights are the products of the factors.
    pub model: M,
    /// The same without the channels that carry nothing.
    pub small: M,
    /// What was cut.
    pub plan: ShrinkPlan,
    /// Shared kernels and coefficients of what is left, by weight.
    pub kernels: Vec<(String, SharedKernels)>,
    /// Accuracies, epochs and counts.
    pub results: SharedResults,
    /// Time of the epochs, without evaluating and saving.
    pub seconds: f64,
}

/// The numbers of a run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SharedResults {
    /// Accuracy on the test images with the nearest weights of so few basis kernels.
    pub accuracy_shared: f64,
    /// Before pruning.
    pub accuracy_alternated: f64,
    /// Right after pruning.
    pub accuracy_pruned: f64,
    /// After fine-tuning.
    pub accuracy_tuned: f64,
    /// Factors right after pruning.
    pub pruned: SharedReport,
    /// Factors of the channels that are left.
    pub shrunk: SharedReport,
    /// Largest difference of an output between the network and the smaller one, on random images, and
    /// the largest output.
    pub shrink_max_abs_diff: [f64; 2],
    /// Epochs of training in turns.
    pub alternate: Vec<EpochRecord>,
    /// Epochs of fine-tuning.
    pub tune: Vec<EpochRecord>,
}

/// Shares the kernels of a network, in `folder`: trains coefficients and basis kernels in turns, prunes,
/// fine-tunes, and cuts out the channels that carry nothing.
///
/// # Errors
/// Those of training, saving and reading, and of a plan that does not fit; see [`TrainingError`].
pub fn share<M: Classifier + ChannelModel>(
    context: &Context,
    build: impl Fn(&Device) -> M,
    dense: &Dense<M>,
    (plan, numbers): (&PenniPlan, &PenniRecipe),
    folder: &Path,
) -> Result<Shared<M>, TrainingError> {
    let recipe = context.recipe;
    let fresh = || Ok(build(&context.device));
    let dense = own(&dense.model, build(&context.device))?;
    let penni = Penni::new(&dense, plan, numbers.config)?;
    let model = penni.compose(dense)?;
    let say = |accuracy: f64, when: &str| {
        let percent = 100.0 * accuracy;
        context.say(format!(
            "penni: {percent:.2} % of the test images are right {when}"
        ));
    };
    let accuracy_shared = test(context, &model)?;
    say(accuracy_shared, "with shared kernels");

    let stage = |name: &str, penni, first_epoch, epochs, peak| Stage {
        name: format!("penni {name}"),
        folder: folder.join(name),
        epochs,
        first_epoch,
        lr: rate(context, peak, 0.0, epochs),
        first_step: 0,
        // The factors belong to the last epoch.
        choice: Choice::Last,
        compression: Compression::Shared(penni),
    };
    let epochs = numbers.alternate_epochs;
    let alternate = stage(
        "alternate",
        Box::new(penni),
        recipe.epochs,
        epochs,
        recipe.compress_lr,
    );
    let alternated = alternate.run(context, model, fresh)?;
    let accuracy_alternated = test(context, &alternated.model)?;
    say(accuracy_alternated, "before pruning");

    let mut penni = factors(alternated.compression)?;
    let pruned = penni.prune()?;
    let model = penni.compose(alternated.model)?;
    context.say(format!("{pruned}"));
    let accuracy_pruned = test(context, &model)?;
    say(accuracy_pruned, "after pruning");

    let first_epoch = recipe.epochs + epochs;
    let tune = stage(
        "tune",
        penni,
        first_epoch,
        numbers.tune_epochs,
        recipe.retrain_lr,
    );
    let tuned = tune.run(context, model, fresh)?;
    let accuracy_tuned = test(context, &tuned.model)?;
    say(accuracy_tuned, "after fine-tuning");

    let penni = factors(tuned.compression)?;
    let images = context.data.shape;
    let input = [images.channels, images.height, images.width];
    let options = ShrinkOptions::new();
    let small = shrink(tuned.model.clone(), &input, &options, |model, x| {
        Classifier::forward(model, x)
    })?;
    context.say(format!("{}", small.plan.report()));
    let difference = small.difference;
    let kernels = penni.shrunk(&small.plan)?;
    Ok(Shared {
        results: SharedResults {
            accuracy_shared,
            accuracy_alternated,
            accuracy_pruned,
            accuracy_tuned,
            pruned,
            shrunk: SharedReport::new(&kernels),
            shrink_max_abs_diff: [difference.max_abs_diff, difference.largest],
            alternate: alternated.history,
            tune: tuned.history,
        },
        model: tuned.model.valid(),
        small: small.model.valid(),
        kernels,
        plan: small.plan,
        seconds: alternated.seconds + tuned.seconds,
    })
}

/// The factors that a stage ended with.
fn factors(compression: Compression) -> Result<Box<Penni>, TrainingError> {
    match compression {
        Compression::Shared(penni) => Ok(penni),
        other => Err(TrainingError::Settings(format!(
            "a stage of shared kernels ended with {other:?}"
        ))),
    }
}
