use serde::{Deserialize, Serialize};

/// How rho changes after an outer iteration. The scaled duals are rescaled by `rho / rho'`
/// whenever it does, so that `rho · U`, the true multipliers, stay as they were.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind", deny_unknown_fields)]
#[non_exhaustive]
pub enum RhoSchedule {
    /// `rho' = rho`.
    Constant,
    /// `rho' = min(factor · rho, max)`: pulls the weights onto the constraint ever harder.
    Multiplicative {
        /// Growth per outer iteration, above 1 in practice.
        factor: f64,
        /// Upper limit.
        max: f64,
    },
    /// Keeps primal and dual residual within a factor `ratio` of each other (Boyd et al., 2011,
    /// section 3.4.1, on the relative residuals of [`AdmmInfo`](crate::AdmmInfo)):
    /// `rho' = factor · rho` if `primal > ratio · dual`, `rho / factor` if `dual > ratio · primal`.
    ResidualBalanced {
        /// Largest tolerated ratio of the residuals.
        ratio: f64,
        /// Change of rho when it is exceeded.
        factor: f64,
        /// Lower limit of rho.
        min: f64,
        /// Upper limit of rho.
        max: f64,
    },
}

impl Default for RhoSchedule {
    /// 1.3 per outer iteration, as published for CIFAR-10 networks, up to 1.
    fn default() -> Self {
        Self::Multiplicative {
            factor: 1.3,
            max: 1.0,
        }
    }
}

impl RhoSchedule {
    /// Residual balancing with the usual numbers: ratio 10, factor 2, rho within `1e-6..=1`.
    pub fn residual_balanced() -> Self {
        Self::ResidualBalanced {
            ratio: 10.0,
            factor: 2.0,
            min: 1e-6,
            max: 1.0,
        }
    }

    pub(super) fn next(&self, rho: f64, primal: f64, dual: f64) -> f64 {
        match *self {
            Self::Constant => rho,
            // A start above the limit is left alone rather than pulled down.
            Self::Multiplicative { factor, max } => (rho * factor).min(max.max(rho)),
            Self::ResidualBalanced {
                ratio,
                factor,
                min,
                max,
            } => {
                if primal > ratio * dual {
                    (rho * factor).min(max.max(rho))
                } else if dual > ratio * primal {
                    (rho / factor).max(min.min(rho))
                } else {
                    rho
                }
            }
        }
    }

    pub(super) fn problem(&self) -> Option<String> {
        let positive = |name: &str, value: f64| {
            (!(value.is_finite() && value > 0.0))
                .then(|| format!("{name} must be positive and finite, got {value}"))
        };
        match *self {
            Self::Constant => None,
            Self::Multiplicative { factor, max } => {
                positive("factor of the rho schedule", factor)
                    .or_else(|| positive("largest rho", max))
            }
            Self::ResidualBalanced { ratio, factor, min, max } => {
                positive("residual ratio", ratio)
                    .or_else(|| positive("factor of the rho schedule", factor))
                    .or_else(|| positive("smallest rho", min))
                    .or_else(|| positive("largest rho", max))
                    .or_else(|| {
                        (factor < 1.0 || ratio < 1.0).then(|| {
                            format!("residual balancing needs factor {factor} and ratio {ratio} of at least 1")
                        })
                    })
                    .or_else(|| (min > max).then(|| format!("smallest rho {min} above largest {max}")))
            }
        }
    }
}
