use std::f64::consts::PI;
use std::fmt;

use burn::optim::decay::WeightDecayConfig;
use burn::optim::momentum::MomentumConfig;
use burn::optim::{AdamConfig, ModuleOptimizer, SgdConfig};
use burn_admm::AdmmConfig;
use burn_admm::evolve::EvolveConfig;
use burn_admm::reweighted::{ReweightedConfig, Threshold};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// How the dense network becomes a sparse one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// Train towards the constraint with ADMM, project, retrain under the mask
    #[default]
    Admm,
    /// Drop the smallest weights at once, retrain under the mask
    Oneshot,
    /// Drop ever more of the smallest weights while training, then retrain under the mask
    Gradual,
    /// Train under a penalty on the groups of a structured scheme whose weights are refreshed as
    /// often as ADMM updates, project, retrain under the mask
    Reweighted,
    /// Choose masks by importance while training from fresh weights, and retrain under them, all in
    /// the epochs of dense training
    Clicktrain,
    /// Let every layer lose as much as accuracy allows, up to the sparsity asked for, in trials that are
    /// taken back if it does not, then retrain under the mask
    Evolve,
}

impl Method {
    /// Those that prune a trained network of any scheme.
    pub const ALL: [Self; 3] = [Self::Admm, Self::Oneshot, Self::Gradual];

    /// The name on the command line and in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Admm => "admm",
            Self::Oneshot => "oneshot",
            Self::Gradual => "gradual",
            Self::Reweighted => "reweighted",
            Self::Clicktrain => "clicktrain",
            Self::Evolve => "evolve",
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The optimiser of all stages; each stage starts with a fresh one.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Optimizer {
    /// Stochastic gradient descent.
    Sgd {
        /// Heavy-ball momentum.
        momentum: f64,
        /// L2 penalty.
        weight_decay: f32,
    },
    /// Adam.
    Adam {
        /// L2 penalty.
        weight_decay: f32,
    },
}

impl Optimizer {
    /// A fresh optimiser.
    #[must_use]
    pub fn init(self) -> ModuleOptimizer {
        let decay = |penalty| (penalty > 0.0).then(|| WeightDecayConfig::new(penalty));
        match self {
            Self::Sgd {
                momentum,
                weight_decay,
            } => {
                let momentum = MomentumConfig::new()
                    .with_momentum(momentum)
                    .with_dampening(0.0);
                SgdConfig::new()
                    .with_momentum(Some(momentum))
                    .with_weight_decay(decay(weight_decay))
                    .init()
            }
            Self::Adam { weight_decay } => AdamConfig::new()
                .with_weight_decay(decay(weight_decay))
                .init(),
        }
    }
}

/// Learning rates of a stage: a linear warm-up, then a constant or half a cosine down to a
/// hundredth of the peak. A function of the step alone, so there is no state to save.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LearningRate {
    /// The highest rate.
    pub peak: f64,
    /// Steps of the linear rise.
    pub warmup: usize,
    /// Steps after which the cosine starts again; 0 for a constant rate.
    pub period: usize,
}

impl LearningRate {
    /// The rate of a step, from 0.
    ///
    /// ```
    /// use examples::training::LearningRate;
    ///
    /// let rate = LearningRate { peak: 0.1, warmup: 4, period: 100 };
    /// assert_eq!(rate.at(3), 0.1);
    /// assert!(rate.at(0) < rate.at(1) && rate.at(99) < 0.0015);
    /// assert_eq!(LearningRate { period: 0, ..rate }.at(1000), 0.1);
    /// ```
    #[must_use]
    pub fn at(&self, step: usize) -> f64 {
        if step < self.warmup {
            return self.peak * (step + 1) as f64 / self.warmup as f64;
        }
        if self.period == 0 {
            return self.peak;
        }
        let step = step % self.period;
        let warmup = if step < self.warmup { 0 } else { self.warmup };
        let length = (self.period - warmup).max(1) as f64;
        let done = (step - warmup) as f64 / length;
        self.peak * (0.01 + 0.99 * 0.5 * (1.0 + (PI * done).cos()))
    }
}

/// The numbers of an evolution.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct EvolveRecipe {
    /// Trials of an epoch. The last one of an epoch may be shorter.
    pub trials: usize,
    /// Peak learning rate of a trial, as a part of that of other methods before projection. The first trials
    /// are short for what the first steps of a fresh optimiser cost at the full rate.
    pub rate: f64,
    /// All else; the seed is that of the run.
    pub config: EvolveConfig,
}

impl Default for EvolveRecipe {
    /// For a few epochs: long steps, of all layers at once.
    fn default() -> Self {
        Self {
            trials: 6,
            rate: 1.0,
            config: EvolveConfig::new()
                .with_step(0.4)
                .with_layers(1.0)
                .with_tolerance(0.015),
        }
    }
}

impl EvolveRecipe {
    /// Batches of a trial, when an epoch has so many.
    #[must_use]
    pub fn batches(&self, of_epoch: usize) -> usize {
        of_epoch.div_ceil(self.trials.max(1)).max(1)
    }
}

/// The numbers of reweighted regularisation.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReweightedRecipe {
    /// Weight of the penalty.
    pub lambda: f64,
    /// What prunes groups in the place of the plan's budgets, so that each layer finds its own rate.
    pub threshold: Option<Threshold>,
}

impl Default for ReweightedRecipe {
    /// The library's lambda, and the plan's budgets.
    fn default() -> Self {
        Self {
            lambda: ReweightedConfig::default().lambda,
            threshold: None,
        }
    }
}

impl ReweightedRecipe {
    /// The penalty's settings for a stage of this peak learning rate: momentum multiplies the rate, and
    /// epsilon grows with it, so that small groups do not overshoot zero.
    pub(super) fn config(self, lr: f64, optimizer: Optimizer) -> ReweightedConfig {
        let rate = match optimizer {
            Optimizer::Sgd { momentum, .. } => lr / (1.0 - momentum),
            Optimizer::Adam { .. } => lr,
        };
        let config = ReweightedConfig::new()
            .with_lambda(self.lambda)
            .with_learning_rate(rate);
        // Of patterns whose weights are in two groups each.
        let epsilon = config.epsilon.max(2.0 * config.least_epsilon(2));
        config.with_epsilon(epsilon)
    }
}

/// All numbers of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Recipe {
    /// The optimiser.
    pub optimizer: Optimizer,
    /// Images per step.
    pub batch: usize,
    /// Peak learning rate of dense training.
    pub lr: f64,
    /// Peak learning rate between the dense network and projection.
    pub compress_lr: f64,
    /// Peak learning rate of masked retraining.
    pub retrain_lr: f64,
    /// Epochs of warm-up, of dense training and of masked retraining.
    pub warmup_epochs: f64,
    /// Epochs of dense training.
    pub epochs: usize,
    /// Outer iterations of ADMM.
    pub admm_iterations: usize,
    /// Epochs of each outer iteration.
    pub admm_epochs: usize,
    /// Epochs of masked retraining after ADMM or gradual pruning.
    pub retrain_epochs: usize,
    /// Settings of ADMM.
    pub admm: AdmmConfig,
    /// Settings of evolution.
    #[serde(default)]
    pub evolve: EvolveRecipe,
    /// Settings of reweighted regularisation.
    #[serde(default)]
    pub reweighted: ReweightedRecipe,
    /// Seed of the initial weights and of the data order.
    pub seed: u64,
}

impl Recipe {
    /// Epochs before projection: from the dense network on, for ClickTrain from the start.
    #[must_use]
    pub fn compress_epochs(&self, method: Method) -> usize {
        match method {
            Method::Admm | Method::Gradual | Method::Reweighted | Method::Evolve => {
                self.admm_iterations * self.admm_epochs
            }
            Method::Oneshot => 0,
            Method::Clicktrain => self.epochs.div_ceil(2),
        }
    }

    /// Epochs of masked retraining: what is left of [`epochs_of`](Self::epochs_of).
    #[must_use]
    pub fn retrain_epochs(&self, method: Method) -> usize {
        self.epochs_of(method) - self.compress_epochs(method)
    }

    /// Epochs of a method: the same for all that start from the dense network, and those of the dense
    /// network for ClickTrain, which does not.
    #[must_use]
    pub fn epochs_of(&self, method: Method) -> usize {
        match method {
            Method::Clicktrain => self.epochs,
            _ => self.pruning_epochs(),
        }
    }

    /// Epochs after dense training: `admm_iterations · admm_epochs + retrain_epochs`.
    #[must_use]
    pub fn pruning_epochs(&self) -> usize {
        self.admm_iterations * self.admm_epochs + self.retrain_epochs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epsilon_grows_with_the_penalty_and_with_momentum() {
        let recipe = |lambda| ReweightedRecipe {
            lambda,
            threshold: None,
        };
        let sgd = Optimizer::Sgd {
            momentum: 0.9,
            weight_decay: 0.0,
        };
        let adam = Optimizer::Adam { weight_decay: 0.0 };
        let default = ReweightedConfig::default();
        assert_eq!(recipe(1e-4).config(1e-3, adam).epsilon, default.epsilon);
        for optimizer in [sgd, adam] {
            let config = recipe(1.0).config(0.05, optimizer);
            assert!(config.epsilon >= 2.0 * config.least_epsilon(2));
        }
        assert!((recipe(1.0).config(0.05, sgd).learning_rate - 0.5).abs() < 1e-12);
    }

    #[test]
    fn the_rate_rises_falls_and_starts_again() {
        let rate = LearningRate {
            peak: 1.0,
            warmup: 0,
            period: 10,
        };
        assert_eq!(rate.at(0), 1.0);
        assert_eq!(rate.at(10), 1.0);
        assert!((rate.at(5) - 0.505).abs() < 1e-12);
        let warm = LearningRate { warmup: 5, ..rate };
        assert_eq!(
            (0..5).map(|s| warm.at(s)).collect::<Vec<_>>(),
            [0.2, 0.4, 0.6, 0.8, 1.0]
        );
        assert!((0..40).all(|s| warm.at(s) > 0.0 && warm.at(s) <= 1.0));
        let only_warmup = LearningRate { period: 3, ..warm };
        assert!((0..20).all(|s| only_warmup.at(s).is_finite()));
    }
}
