use serde::{Deserialize, Serialize};

use super::ClickTrainError;

/// When the stages of a run end, in optimiser steps, and how strongly they act.
///
/// # Example
/// ```
/// use burn_admm::click_train::{ClickTrainConfig, Stage};
///
/// let config = ClickTrainConfig::of_run(900);
/// assert_eq!((config.patterns_at, config.prune_at), (150, 450));
/// assert_eq!(config.stage(0), Stage::WarmUp);
/// assert_eq!(config.stage(150), Stage::Regularised);
/// assert_eq!(config.stage(450), Stage::Pruned);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClickTrainConfig {
    /// Steps after which masks are chosen.
    pub patterns_at: u64,
    /// Steps after which they are attached.
    pub prune_at: u64,
    /// Weight of the group lasso; 1e-4 unless set.
    pub lambda: f64,
    /// What is left of an importance after a step, in `[0, 1)`; 0.99 unless set.
    pub decay: f64,
}

/// Where a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Ordinary training that gathers importance.
    WarmUp,
    /// The masks are chosen, and what they drop is drawn to zero.
    Regularised,
    /// The masks are attached.
    Pruned,
}

impl ClickTrainConfig {
    /// For a run of so many steps: a sixth of it warms up, a third is regularised, and half trains what
    /// is left.
    pub fn of_run(steps: u64) -> Self {
        Self {
            patterns_at: (steps / 6).max(1),
            prune_at: (steps / 2).max(2),
            lambda: 1e-4,
            decay: 0.99,
        }
    }

    /// With this weight of the group lasso.
    #[must_use]
    pub fn with_lambda(mut self, lambda: f64) -> Self {
        self.lambda = lambda;
        self
    }

    /// With this decay of importances.
    #[must_use]
    pub fn with_decay(mut self, decay: f64) -> Self {
        self.decay = decay;
        self
    }

    /// The stage after so many steps.
    pub fn stage(&self, steps: u64) -> Stage {
        if steps < self.patterns_at {
            Stage::WarmUp
        } else if steps < self.prune_at {
            Stage::Regularised
        } else {
            Stage::Pruned
        }
    }

    pub(super) fn validate(&self) -> Result<(), ClickTrainError> {
        if self.patterns_at == 0 || self.prune_at <= self.patterns_at {
            return Err(ClickTrainError::Stages {
                patterns_at: self.patterns_at,
                prune_at: self.prune_at,
            });
        }
        if !(self.lambda.is_finite() && self.lambda >= 0.0) {
            let (name, value) = ("lambda", self.lambda);
            return Err(ClickTrainError::Config { name, value });
        }
        if !(0.0..1.0).contains(&self.decay) {
            let (name, value) = ("decay", self.decay);
            return Err(ClickTrainError::Config { name, value });
        }
        Ok(())
    }
}
