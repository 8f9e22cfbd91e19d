use serde::{Deserialize, Serialize};

use super::ReweightedError;

/// Settings of [`Reweighted`](super::Reweighted).
///
/// A step of plain gradient descent multiplies a group by `1 − 2 · learning_rate · lambda · Σ alpha`,
/// summed over the groups that a weight is in, and no `alpha` exceeds `1 / epsilon`. So the smallest
/// groups oscillate without end, or grow, unless
///
/// ```text
/// epsilon ≥ groups · learning_rate · lambda
/// ```
///
/// with `groups` = 2 for block column-row patterns and 1 for others. Settings that break this rule are
/// refused; from twice that epsilon on nothing overshoots zero. With momentum `m`, the learning rate
/// that counts is `learning_rate / (1 − m)`. An epsilon above the squared norm of most groups makes
/// the penalty plain weight decay.
///
/// # Example
/// ```
/// use burn_admm::reweighted::ReweightedConfig;
///
/// let config = ReweightedConfig::new().with_lambda(1e-4).with_learning_rate(0.01 / (1.0 - 0.9));
/// assert!(config.epsilon >= config.least_epsilon(1));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ReweightedConfig {
    /// Weight of the penalty; positive.
    pub lambda: f64,
    /// What is added to a group's squared norm; positive.
    pub epsilon: f64,
    /// The largest learning rate of the training, for the rule above; positive.
    pub learning_rate: f64,
}

impl Default for ReweightedConfig {
    /// Lambda 1e-4, epsilon 1e-2, learning rate 0.1.
    fn default() -> Self {
        Self {
            lambda: 1e-4,
            epsilon: 1e-2,
            learning_rate: 0.1,
        }
    }
}

impl ReweightedConfig {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Another weight of the penalty.
    #[must_use]
    pub fn with_lambda(mut self, lambda: f64) -> Self {
        self.lambda = lambda;
        self
    }

    /// Another epsilon.
    #[must_use]
    pub fn with_epsilon(mut self, epsilon: f64) -> Self {
        self.epsilon = epsilon;
        self
    }

    /// Another learning rate that training will use at most.
    #[must_use]
    pub fn with_learning_rate(mut self, learning_rate: f64) -> Self {
        self.learning_rate = learning_rate;
        self
    }

    /// The smallest epsilon at which weights that are in so many groups do not diverge.
    pub fn least_epsilon(&self, groups: usize) -> f64 {
        groups as f64 * self.learning_rate * self.lambda
    }

    /// Checks that all settings are in range.
    ///
    /// # Errors
    /// [`ReweightedError::Config`] that names the setting.
    pub fn validate(&self) -> Result<(), ReweightedError> {
        for (name, value) in [
            ("lambda", self.lambda),
            ("epsilon", self.epsilon),
            ("learning_rate", self.learning_rate),
        ] {
            if !(value.is_finite() && value > 0.0) {
                return Err(ReweightedError::Config { name, value });
            }
        }
        Ok(())
    }
}
