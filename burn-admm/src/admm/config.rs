use serde::{Deserialize, Serialize};

use super::{AdmmError, RhoSchedule};

/// Settings of [`Admm`](crate::Admm).
///
/// The defaults are the published ones for networks trained on CIFAR-10 with SGD: rho 1e-3,
/// multiplied by 1.3 after each outer iteration. A short run needs a larger rho (1e-2), a long one
/// on MNIST with Adam gets along with 1e-4.
///
/// # Example
/// ```
/// use burn_admm::{AdmmConfig, RhoSchedule};
///
/// let config = AdmmConfig::new().with_rho(1e-2).with_schedule(RhoSchedule::Constant);
/// assert_eq!(config.rho, 1e-2);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AdmmConfig {
    /// Weight of the penalty `rho/2 ‖W − Z + U‖²` before the first update; positive.
    pub rho: f64,
    /// How rho changes after each outer iteration.
    pub schedule: RhoSchedule,
    /// Largest `‖U‖ / ‖W‖` of a layer tolerated while it keeps growing.
    pub dual_limit: f64,
    /// Outer iterations in a row for which `‖U‖ / ‖W‖` must have grown before it counts as
    /// divergence.
    pub dual_patience: usize,
}

impl Default for AdmmConfig {
    fn default() -> Self {
        Self {
            rho: 1e-3,
            schedule: RhoSchedule::default(),
            dual_limit: 100.0,
            dual_patience: 5,
        }
    }
}

impl AdmmConfig {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Another rho to start with.
    #[must_use]
    pub fn with_rho(mut self, rho: f64) -> Self {
        self.rho = rho;
        self
    }

    /// Another schedule of rho.
    #[must_use]
    pub fn with_schedule(mut self, schedule: RhoSchedule) -> Self {
        self.schedule = schedule;
        self
    }

    /// Another limit of `‖U‖ / ‖W‖`, and for how many outer iterations it must have grown.
    #[must_use]
    pub fn with_dual_limit(mut self, limit: f64, patience: usize) -> Self {
        self.dual_limit = limit;
        self.dual_patience = patience;
        self
    }

    /// Checks that all settings are in range.
    ///
    /// # Errors
    /// [`AdmmError::Config`] that names the setting.
    pub fn validate(&self) -> Result<(), AdmmError> {
        let problem = if !(self.rho.is_finite() && self.rho > 0.0) {
            Some(format!("rho must be positive and finite, got {}", self.rho))
        } else if self.dual_limit.is_nan() || self.dual_limit <= 0.0 {
            Some(format!(
                "dual_limit must be positive, got {}",
                self.dual_limit
            ))
        } else {
            self.schedule.problem()
        };
        problem.map_or(Ok(()), |problem| Err(AdmmError::Config(problem)))
    }
}
