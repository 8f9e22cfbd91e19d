//! From a dense network to one whose convolutions are Tucker factors.

use std::fmt;
use std::path::Path;

use burn::module::Param;
use burn::nn::Initializer;
use burn::tensor::Device;
use burn_admm::Distillation;
use burn_admm::decompose::{HooiConfig, RankPlan, factor};
use burn_sparse::nn::{AnyWeight, Weight, replace_weights, weights};
use clap::ValueEnum;
use models::Classifier;
use serde::{Deserialize, Serialize};

use super::compression::Compression;
use super::pipeline::{far_off, own, rate, test};
use super::stage::{Choice, Context, Stage};
use super::taught::Teacher;
use super::{Dense, EpochRecord, TrainingError};

/// How a network comes to its factors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RankMethod {
    /// Train towards the ranks with ADMM, decompose, fine-tune the factors
    #[default]
    Admm,
    /// Decompose the trained network as it is, fine-tune the factors
    Direct,
    /// Train factors of the same ranks from random weights
    Scratch,
}

impl RankMethod {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Admm, Self::Direct, Self::Scratch];

    /// The name on the command line and in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Admm => "admm",
            Self::Direct => "direct",
            Self::Scratch => "scratch",
        }
    }
}

impl fmt::Display for RankMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A network of factors.
#[derive(Clone, Debug)]
pub struct Factored<M> {
    /// The network of the best validation epoch of fine-tuning.
    pub model: M,
    /// How it was trained.
    pub method: RankMethod,
    /// Accuracies and epochs.
    pub results: FactorResults,
    /// Time of the epochs, without evaluating and saving.
    pub seconds: f64,
}

/// The numbers of one method.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FactorResults {
    /// Accuracy on the test images before ADMM's network was decomposed.
    pub accuracy_towards: Option<f64>,
    /// Accuracy on the test images right after decomposition; of random factors before training.
    pub accuracy_decomposed: f64,
    /// Accuracy on the test images after fine-tuning.
    pub accuracy_tuned: f64,
    /// The epoch of fine-tuning that was chosen, from 1.
    pub epoch: usize,
    /// `‖W − Ŵ‖ / ‖W‖` of decomposition, over all decomposed layers; 0 from scratch.
    pub relative_error: f64,
    /// Epochs before decomposition.
    pub towards: Vec<EpochRecord>,
    /// Epochs of fine-tuning.
    pub tune: Vec<EpochRecord>,
}

/// Brings the network to the ranks of `plan`, which are fixed, in `folder`. All methods train for the same
/// epochs, those of the dense network counted: ADMM and fine-tuning, fine-tuning alone, or everything on
/// random factors.
///
/// With `taught`, the dense network's outputs are targets of fine-tuning.
///
/// # Errors
/// Those of training, saving and reading, and of ranks that do not fit; see [`TrainingError`].
pub fn decompose<M: Classifier + 'static>(
    context: &Context,
    build: impl Fn(&Device) -> M,
    dense: &Dense<M>,
    plan: &RankPlan,
    (method, taught): (RankMethod, Option<Distillation>),
    folder: &Path,
) -> Result<Factored<M>, TrainingError> {
    let recipe = context.recipe;
    let mut results = FactorResults::default();
    let mut seconds = 0.0;
    let mut model = own(&dense.model, build(&context.device))?;
    let towards_epochs = recipe.admm_iterations * recipe.admm_epochs;
    // Hours of training should not end in layers that cannot have factors.
    factor(
        model.clone(),
        &plan.decompose(&model, HooiConfig::default())?,
    )?;
    if method == RankMethod::Admm && towards_epochs > 0 {
        let stage = Stage {
            name: "towards ranks".into(),
            folder: folder.join("towards"),
            epochs: towards_epochs,
            first_epoch: recipe.epochs,
            // Each outer iteration anneals, so that the weights settle before each projection.
            lr: rate(context, recipe.compress_lr, 0.0, recipe.admm_epochs),
            first_step: 0,
            choice: Choice::Last,
            compression: Compression::Admm {
                admm: Box::new(plan.admm(&model, recipe.admm)?),
                epochs: recipe.admm_epochs,
            },
        };
        let result = stage.run(context, model, || Ok(build(&context.device)))?;
        (model, results.towards, seconds) = (result.model, result.history, result.seconds);
        if let Some(hint) = far_off(&results.towards) {
            context.say(format!("{method}: {hint}"));
        }
        let accuracy = test(context, &model)?;
        context.say(format!(
            "{method}: {:.2} % of the test images are right before decomposition",
            100.0 * accuracy
        ));
        results.accuracy_towards = Some(accuracy);
    }
    let factors = plan.decompose(&model, HooiConfig::default())?;
    let [lost, all] = factors.iter().fold([0.0, 0.0], |[lost, all], layer| {
        let factors = &layer.factors;
        [lost + factors.squared_error(), all + factors.energy()]
    });
    results.relative_error = if all > 0.0 {
        f64::sqrt(lost / all)
    } else {
        0.0
    };
    let mut start = factor(model, &factors)?;
    if method == RankMethod::Scratch {
        context.device.seed(recipe.seed);
        start = randomised(factor(build(&context.device), &factors)?);
        // What was lost is lost to the other methods.
        results.relative_error = 0.0;
    }
    results.accuracy_decomposed = test(context, &start)?;
    context.say(format!(
        "{method}: {:.2} % of the test images are right {}",
        100.0 * results.accuracy_decomposed,
        match method {
            RankMethod::Scratch => "with random factors",
            _ => "after decomposition",
        }
    ));
    let (first_epoch, epochs, peak) = match method {
        RankMethod::Admm => (
            recipe.epochs + towards_epochs,
            recipe.retrain_epochs,
            recipe.retrain_lr,
        ),
        RankMethod::Direct => (
            recipe.epochs,
            towards_epochs + recipe.retrain_epochs,
            recipe.retrain_lr,
        ),
        RankMethod::Scratch => (0, recipe.epochs + recipe.pruning_epochs(), recipe.lr),
    };
    let stage = Stage {
        name: format!("{method} factors"),
        folder: folder.join("tune"),
        epochs,
        first_epoch,
        lr: rate(context, peak, recipe.warmup_epochs, epochs),
        first_step: 0,
        choice: Choice::Best,
        compression: match taught {
            Some(distillation) => Compression::Taught(Teacher::new(&dense.model, distillation)),
            None => Compression::None,
        },
    };
    let fresh = start.clone();
    let tuned = stage.run(context, start, || Ok(fresh.clone()))?;
    results.accuracy_tuned = test(context, &tuned.model)?;
    context.say(format!(
        "{method}: {:.2} % of the test images are right after fine-tuning (epoch {})",
        100.0 * results.accuracy_tuned,
        tuned.epoch
    ));
    (results.epoch, results.tune) = (tuned.epoch, tuned.history);
    Ok(Factored {
        model: tuned.model,
        method,
        results,
        seconds: seconds + tuned.seconds,
    })
}

/// Every factor starts as a layer of its size starts.
fn randomised<M: Classifier>(model: M) -> M {
    fn random<const D: usize>(weight: &Weight<D>) -> Weight<D> {
        let dims = weight.dims();
        let positions: usize = dims.iter().skip(2).product();
        // Linear weights are `[in, out]`, those of convolutions `[out, in, ..]`.
        let [out, input] = if D == 2 { [1, 0] } else { [0, 1] };
        let fans = [dims[input] * positions, dims[out] * positions].map(Some);
        let initializer = Initializer::KaimingUniform {
            gain: 1.0 / f64::sqrt(3.0),
            fan_out_only: false,
        };
        let param: Param<_> = initializer.init_with(dims, fans[0], fans[1], &weight.device());
        Weight::from(param)
    }
    let random = weights(&model).into_iter().map(|named| match named.weight {
        weight if !named.factor => weight,
        AnyWeight::Linear(weight) => AnyWeight::Linear(random(&weight)),
        AnyWeight::Conv1d(weight) => AnyWeight::Conv1d(random(&weight)),
        AnyWeight::Conv2d(weight) => AnyWeight::Conv2d(random(&weight)),
    });
    let random = random.collect();
    replace_weights(model, random)
}
