use std::fmt;

use burn_admm::penni::PenniConfig;
use burn_admm::reweighted::Threshold;
use burn_admm::{AdmmConfig, RhoSchedule};
use burn_sparse::{SparseError, Sparsity};
use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};

use super::{Method, PenniRecipe, Recipe, TrainingError};
use crate::cli::positive;

/// Which of a layer's weights may stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pattern {
    /// The same number of weights in every output channel: what packed kernels run fastest
    RowBalanced,
    /// Any weights
    Unstructured,
}

impl Pattern {
    /// The constraint with so much zero.
    ///
    /// # Errors
    /// [`SparseError::SparsityOutOfRange`] outside `[0, 1)`.
    pub fn sparsity(self, sparsity: f64) -> Result<Sparsity, SparseError> {
        match self {
            Self::RowBalanced => Sparsity::row_balanced(sparsity),
            Self::Unstructured => Sparsity::unstructured(sparsity),
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::RowBalanced => "row-balanced",
            Self::Unstructured => "unstructured",
        })
    }
}

/// Arguments of training and pruning; each overrides its part of the preset.
#[derive(Args, Clone, Debug, Default, PartialEq)]
#[command(next_help_heading = "Training and pruning")]
pub struct PruneArgs {
    /// Epochs of dense training
    #[arg(long, value_name = "N", value_parser = positive)]
    pub epochs: Option<usize>,

    /// Outer iterations of ADMM
    #[arg(long, value_name = "N", value_parser = positive)]
    pub admm_iterations: Option<usize>,

    /// Epochs of each outer iteration
    #[arg(long, value_name = "N", value_parser = positive)]
    pub admm_epochs: Option<usize>,

    /// Epochs of masked retraining after ADMM; oneshot and gradual train as long in total
    #[arg(long, value_name = "N", value_parser = positive)]
    pub retrain_epochs: Option<usize>,

    /// Images or recordings per step
    #[arg(long, value_name = "N", value_parser = positive)]
    pub batch: Option<usize>,

    /// Peak learning rate of dense training; those of the other stages change in proportion
    #[arg(long, value_name = "RATE", value_parser = positive_number)]
    pub lr: Option<f64>,

    /// Peak learning rate before projection, of ADMM and of what takes its place; in proportion to --lr unless
    /// set
    #[arg(long, value_name = "RATE", value_parser = positive_number)]
    pub admm_lr: Option<f64>,

    /// Weight of ADMM's penalty in the first outer iteration
    #[arg(long, value_name = "RHO", value_parser = positive_number)]
    pub rho: Option<f64>,

    /// Growth of rho from one outer iteration to the next
    #[arg(long, value_name = "FACTOR", value_parser = positive_number)]
    pub rho_growth: Option<f64>,

    /// Stop after so many epochs of training; --resume continues
    #[arg(long, value_name = "N", value_parser = positive)]
    pub stop_after: Option<usize>,
}

/// Arguments of training with shared kernels; each overrides its part of the preset.
#[derive(Args, Clone, Debug, Default, PartialEq)]
#[command(next_help_heading = "Training and pruning")]
pub struct PenniArgs {
    /// Epochs of dense training
    #[arg(long, value_name = "N", value_parser = positive)]
    pub epochs: Option<usize>,

    /// Epochs of training coefficients and basis kernels in turns
    #[arg(long, value_name = "N", value_parser = positive)]
    pub alternate_epochs: Option<usize>,

    /// Epochs after which the turn changes
    #[arg(long, value_name = "N", value_parser = positive)]
    pub interval: Option<usize>,

    /// Epochs of fine-tuning after pruning
    #[arg(long, value_name = "N", value_parser = positive)]
    pub tune_epochs: Option<usize>,

    /// Weight of the penalty on the coefficients
    #[arg(long, value_name = "LAMBDA", value_parser = positive_number)]
    pub lambda: Option<f64>,

    /// Coefficients below so many standard deviations of their layer are pruned
    #[arg(long, value_name = "T", value_parser = positive_number)]
    pub threshold: Option<f64>,

    /// Images per step
    #[arg(long, value_name = "N", value_parser = positive)]
    pub batch: Option<usize>,

    /// Peak learning rate of dense training; those of the other stages change in proportion
    #[arg(long, value_name = "RATE", value_parser = positive_number)]
    pub lr: Option<f64>,

    /// Stop after so many epochs of training; --resume continues
    #[arg(long, value_name = "N", value_parser = positive)]
    pub stop_after: Option<usize>,
}

impl PenniArgs {
    /// The preset's numbers with what was asked for.
    #[must_use]
    pub fn apply(&self, recipe: Recipe, penni: PenniRecipe) -> (Recipe, PenniRecipe) {
        let prune = PruneArgs {
            epochs: self.epochs,
            // The dense network trains on for as many epochs as sharing takes.
            admm_iterations: Some(self.alternate_epochs.unwrap_or(penni.alternate_epochs)),
            admm_epochs: Some(1),
            retrain_epochs: Some(self.tune_epochs.unwrap_or(penni.tune_epochs)),
            batch: self.batch,
            lr: self.lr,
            ..PruneArgs::default()
        };
        let recipe = prune.apply(recipe);
        let config = penni.config;
        let penni = PenniRecipe {
            alternate_epochs: recipe.admm_iterations,
            tune_epochs: recipe.retrain_epochs,
            config: PenniConfig {
                lambda: self.lambda.unwrap_or(config.lambda),
                interval: self.interval.unwrap_or(config.interval),
                threshold: self.threshold.unwrap_or(config.threshold),
            },
        };
        (recipe, penni)
    }
}

/// Arguments of the examples with a training loop of their own; each overrides its part of the
/// preset.
#[derive(Args, Clone, Debug, Default, PartialEq)]
#[command(next_help_heading = "Training and pruning")]
pub struct LoopArgs {
    /// Epochs of training; of every stage, where there are several
    #[arg(long, value_name = "N", value_parser = positive)]
    pub epochs: Option<usize>,

    /// Learning rate
    #[arg(long, value_name = "RATE", default_value_t = 1e-3, value_parser = positive_number)]
    pub lr: f64,

    /// Weight of ADMM's penalty
    #[arg(long, value_name = "RHO", value_parser = positive_number)]
    pub rho: Option<f64>,

    /// Stop after so many epochs of training; --resume continues
    #[arg(long, value_name = "N", value_parser = positive)]
    pub stop_after: Option<usize>,
}

/// Arguments of reweighted regularisation.
#[derive(Args, Clone, Copy, Debug, Default, PartialEq)]
#[command(next_help_heading = "Training and pruning")]
pub struct ReweightedArgs {
    /// With --method reweighted: prune groups whose root mean square is below so many of their layer's, so that
    /// every layer finds its own rate, in the place of --sparsity
    ///
    /// A layer that would lose all of its groups keeps the largest one.
    #[arg(long, value_name = "TAU", value_parser = positive_number)]
    pub threshold: Option<f64>,

    /// Weight of the penalty of --method reweighted, 0.0001 unless set
    #[arg(long, value_name = "LAMBDA", value_parser = positive_number)]
    pub lambda: Option<f64>,
}

impl ReweightedArgs {
    /// The recipe with what was asked for.
    ///
    /// # Errors
    /// [`TrainingError::Settings`] for an argument that the method has no use for.
    pub fn apply(&self, mut recipe: Recipe, method: Method) -> Result<Recipe, TrainingError> {
        for (name, given) in [("threshold", self.threshold), ("lambda", self.lambda)] {
            if given.is_some() && method != Method::Reweighted {
                return Err(TrainingError::Settings(format!(
                    "--{name} is for --method reweighted, and this is {method}"
                )));
            }
        }
        if let Some(lambda) = self.lambda {
            recipe.reweighted.lambda = lambda;
        }
        if let Some(tau) = self.threshold {
            recipe.reweighted.threshold = Some(Threshold::new(tau)?.keeping_one());
        }
        Ok(recipe)
    }
}

fn positive_number(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if value.is_finite() && value > 0.0 => Ok(value),
        _ => Err("expected a positive number such as 0.01".into()),
    }
}

impl PruneArgs {
    /// The preset's numbers with what was asked for.
    #[must_use]
    pub fn apply(&self, mut recipe: Recipe) -> Recipe {
        let set = |to: &mut usize, asked: Option<usize>| *to = asked.unwrap_or(*to);
        set(&mut recipe.epochs, self.epochs);
        set(&mut recipe.admm_iterations, self.admm_iterations);
        set(&mut recipe.admm_epochs, self.admm_epochs);
        set(&mut recipe.retrain_epochs, self.retrain_epochs);
        set(&mut recipe.batch, self.batch);
        if let Some(lr) = self.lr {
            let factor = lr / recipe.lr;
            recipe.lr = lr;
            recipe.compress_lr *= factor;
            recipe.retrain_lr *= factor;
        }
        if let Some(lr) = self.admm_lr {
            recipe.compress_lr = lr;
        }
        if let Some(rho) = self.rho {
            recipe.admm.rho = rho;
        }
        if let Some(growth) = self.rho_growth {
            recipe.admm = recipe.admm.with_schedule(growing(growth));
        }
        recipe
    }
}

/// Multiplicative growth of rho, up to 1.
fn growing(factor: f64) -> RhoSchedule {
    if factor == 1.0 {
        RhoSchedule::Constant
    } else {
        RhoSchedule::Multiplicative { factor, max: 1.0 }
    }
}

/// ADMM with a first rho and its growth.
pub(super) fn admm(rho: f64, growth: f64) -> AdmmConfig {
    AdmmConfig::new()
        .with_rho(rho)
        .with_schedule(growing(growth))
}
