use serde::{Deserialize, Serialize};

use super::PenniError;

/// How shared kernels are trained and pruned.
///
/// The defaults are those of the published recipe for VGG-16 on CIFAR-10.
///
/// # Example
/// ```
/// use burn_admm::penni::PenniConfig;
///
/// let config = PenniConfig::new().with_lambda(1e-3);
/// assert_eq!((config.interval, config.threshold), (2, 1.0));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PenniConfig {
    /// `λ` of the penalty `λ Σ|A|`; 1e-4 unless set.
    pub lambda: f64,
    /// Epochs after which training changes from coefficients to basis kernels and back; 2 unless set.
    pub interval: usize,
    /// `t`: coefficients below `t` standard deviations of their layer go; 1 unless set.
    pub threshold: f64,
}

/// Which of the factors moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// The coefficients, under the penalty; basis kernels rest.
    Coefficients,
    /// The basis kernels; coefficients rest.
    Basis,
    /// Both, without a penalty; pruned coefficients stay zero.
    Tuning,
}

impl Phase {
    pub(super) fn moves_coefficients(self) -> bool {
        self != Self::Basis
    }

    pub(super) fn moves_basis(self) -> bool {
        self != Self::Coefficients
    }
}

impl Default for PenniConfig {
    fn default() -> Self {
        Self {
            lambda: 1e-4,
            interval: 2,
            threshold: 1.0,
        }
    }
}

impl PenniConfig {
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

    /// Another number of epochs between changes.
    #[must_use]
    pub fn with_interval(mut self, epochs: usize) -> Self {
        self.interval = epochs;
        self
    }

    /// Another threshold, in standard deviations.
    #[must_use]
    pub fn with_threshold(mut self, threshold: f64) -> Self {
        self.threshold = threshold;
        self
    }

    pub(super) fn validate(&self) -> Result<(), PenniError> {
        for (name, value) in [("lambda", self.lambda), ("threshold", self.threshold)] {
            if !(value.is_finite() && value >= 0.0) {
                let expected = "a finite number of at least 0";
                return Err(PenniError::Config {
                    name,
                    value,
                    expected,
                });
            }
        }
        if self.interval == 0 {
            return Err(PenniError::Config {
                name: "interval",
                value: 0.0,
                expected: "at least one epoch",
            });
        }
        Ok(())
    }
}
