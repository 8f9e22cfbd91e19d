//! From a pruned network to one whose weights are on levels: ADMM towards them, rounding, tuning.

use std::path::Path;

use burn::tensor::Device;
use burn_admm::quantize::QuantPlan;
use burn_admm::{AdmmConfig, Masks};
use models::Classifier;
use serde::{Deserialize, Serialize};

use super::compression::Compression;
use super::pipeline::{rate, test};
use super::stage::{Choice, Context, Stage};
use super::{EpochRecord, TrainingError};

/// The numbers of quantisation, after those of a [`Recipe`](super::Recipe).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct QuantRecipe {
    /// Outer iterations of ADMM towards the levels.
    pub iterations: usize,
    /// Epochs of each.
    pub iteration_epochs: usize,
    /// Epochs of tuning on the levels.
    pub tune_epochs: usize,
    /// Peak learning rate of both.
    pub lr: f64,
    /// Settings of ADMM.
    pub admm: AdmmConfig,
}

impl QuantRecipe {
    /// Epochs of both stages.
    #[must_use]
    pub fn epochs(&self) -> usize {
        self.iterations * self.iteration_epochs + self.tune_epochs
    }
}

/// A network whose kept weights are on levels.
#[derive(Clone, Debug)]
pub struct Quantised<M> {
    /// The network that was best on the validation images, of rounding and the epochs of tuning; levels
    /// attached.
    pub model: M,
    /// Accuracies and epochs.
    pub results: QuantResults,
}

/// The numbers of quantisation.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct QuantResults {
    /// Accuracy on the test images right after rounding.
    pub accuracy_rounded: f64,
    /// Accuracy on the test images after tuning.
    pub accuracy_tuned: f64,
    /// The epoch of tuning that was chosen, from 1; 0 where rounding alone was best on the validation
    /// images.
    pub epoch: usize,
    /// Epochs before rounding.
    pub towards: Vec<EpochRecord>,
    /// Epochs of tuning.
    pub tune: Vec<EpochRecord>,
}

/// Quantises a pruned network in `folder`. `first_epoch` counts the epochs before: the data order goes
/// on from there.
///
/// # Errors
/// Those of training, saving and reading, and of a plan that does not fit; see [`TrainingError`].
pub fn quantise<M: Classifier>(
    context: &Context,
    recipe: &QuantRecipe,
    build: impl Fn(&Device) -> M,
    pruned: M,
    plan: &QuantPlan,
    (folder, first_epoch): (&Path, usize),
) -> Result<Quantised<M>, TrainingError> {
    let masks = Masks::attached(&pruned);
    let fresh = || Ok(masks.attach(build(&context.device))?);
    let epochs = recipe.iterations * recipe.iteration_epochs;
    let mut towards = Vec::new();
    let mut model = pruned;
    if epochs > 0 {
        let stage = Stage {
            name: "towards levels".into(),
            folder: folder.join("towards"),
            epochs,
            first_epoch,
            lr: rate(context, recipe.lr, 0.0, recipe.iteration_epochs),
            first_step: 0,
            choice: Choice::Last,
            compression: Compression::Admm {
                admm: Box::new(plan.admm(&model, recipe.admm)?),
                epochs: recipe.iteration_epochs,
            },
        };
        let result = stage.run(context, model, fresh)?;
        (model, towards) = (result.model, result.history);
    }
    let model = plan.attach(model)?;
    let accuracy_rounded = test(context, &model)?;
    context.say(format!(
        "{:.2} % of the test images are right after rounding",
        100.0 * accuracy_rounded
    ));
    let stage = Stage {
        name: "on levels".into(),
        folder: folder.join("tune"),
        epochs: recipe.tune_epochs,
        first_epoch: first_epoch + epochs,
        lr: rate(context, recipe.lr, 0.0, recipe.tune_epochs),
        first_step: 0,
        choice: Choice::BestOrStart,
        compression: Compression::None,
    };
    let result = stage.run(context, model, || Ok(plan.attach(fresh()?)?))?;
    let accuracy_tuned = test(context, &result.model)?;
    context.say(format!(
        "{:.2} % of the test images are right after tuning (epoch {})",
        100.0 * accuracy_tuned,
        result.epoch
    ));
    Ok(Quantised {
        model: result.model,
        results: QuantResults {
            accuracy_rounded,
            accuracy_tuned,
            epoch: result.epoch,
            towards,
            tune: result.history,
        },
    })
}
