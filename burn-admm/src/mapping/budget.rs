//! How fast and how small a network is to be, as people say it.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::MappingError;

/// A bound on time or size.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Bound {
    /// Of what the dense network takes: half of it is `0.5x`.
    Part(f64),
    /// In milliseconds or bytes.
    Absolute(f64),
}

impl Bound {
    /// The bound for a network that takes `dense`.
    pub fn of(self, dense: f64) -> f64 {
        match self {
            Self::Part(part) => part * dense,
            Self::Absolute(value) => value,
        }
    }
}

/// Bounds that a network is to keep, any of them or several.
///
/// As text: `latency=0.5x`, `latency=3ms`, `size=0.2x`, `size=100KB` (or `B`, `MB`, and `KiB`, `MiB` in powers of
/// 1,024), `loss=1.0` in points of accuracy; several with commas.
///
/// # Example
/// ```
/// use burn_admm::mapping::{Bound, MapBudget};
///
/// let budget: MapBudget = "latency=0.5x,size=100KB".parse()?;
/// assert_eq!(budget.latency, Some(Bound::Part(0.5)));
/// assert_eq!(budget.size, Some(Bound::Absolute(100_000.0)));
/// assert_eq!(budget.to_string(), "latency=0.5x,size=100000B");
/// assert!("".parse::<MapBudget>().is_err());
/// assert!("latency=2parsecs".parse::<MapBudget>().is_err());
/// # Ok::<(), burn_admm::mapping::MappingError>(())
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
#[non_exhaustive]
pub struct MapBudget {
    /// Time of a forward pass.
    pub latency: Option<Bound>,
    /// Bytes of all parameters.
    pub size: Option<Bound>,
    /// Points of accuracy that may be lost, from 0 to 100.
    pub loss: Option<f64>,
}

impl MapBudget {
    /// Checks what several bounds say together.
    fn checked(self) -> Result<Self, MappingError> {
        let bounds = [self.latency, self.size].into_iter().flatten();
        let values = bounds.map(|bound| match bound {
            Bound::Part(value) | Bound::Absolute(value) => value,
        });
        let refused = |reason: &str| Err(MappingError::Budget(reason.to_owned()));
        if self == Self::default() {
            return refused("it bounds nothing; say latency=0.5x, size=100KB or loss=1.0");
        }
        if values
            .into_iter()
            .any(|value| !(value.is_finite() && value > 0.0))
        {
            return refused("bounds must be above 0");
        }
        if self.loss.is_some_and(|loss| !(0.0..=100.0).contains(&loss)) {
            return refused("a loss must lie from 0 to 100 points");
        }
        Ok(self)
    }
}

/// A number and what follows it.
fn number(text: &str) -> Option<(f64, &str)> {
    let end = text
        .find(|c: char| c.is_ascii_alphabetic())
        .unwrap_or(text.len());
    Some((text[..end].trim().parse().ok()?, &text[end..]))
}

impl FromStr for MapBudget {
    type Err = MappingError;

    fn from_str(text: &str) -> Result<Self, MappingError> {
        let mut budget = Self::default();
        for part in text
            .split(',')
            .map(str::trim)
            .filter(|part| !part.is_empty())
        {
            let unknown = || {
                MappingError::Budget(format!(
                    "`{part}` is none of latency=0.5x, latency=3ms, size=0.2x, size=100KB and loss=1.0"
                ))
            };
            let (what, value) = part.split_once('=').ok_or_else(unknown)?;
            let (value, unit) = number(value.trim()).ok_or_else(unknown)?;
            let bound = match (what.trim(), unit) {
                ("latency" | "size", "x") => Bound::Part(value),
                ("latency", "ms") | ("size", "B") => Bound::Absolute(value),
                ("latency", "s") | ("size", "KB" | "kB") => Bound::Absolute(1e3 * value),
                ("latency", "us") => Bound::Absolute(1e-3 * value),
                ("size", "MB") => Bound::Absolute(1e6 * value),
                ("size", "KiB") => Bound::Absolute(1024.0 * value),
                ("size", "MiB") => Bound::Absolute(1024.0 * 1024.0 * value),
                ("loss", "" | "points") => Bound::Absolute(value),
                _ => return Err(unknown()),
            };
            let known = match what.trim() {
                "latency" => budget.latency.replace(bound).is_some(),
                "size" => budget.size.replace(bound).is_some(),
                _ => budget.loss.replace(value).is_some(),
            };
            if known {
                let reason = format!("`{}` is bounded twice", what.trim());
                return Err(MappingError::Budget(reason));
            }
        }
        budget.checked()
    }
}

impl core::fmt::Display for MapBudget {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let bound = |what: &str, bound: Option<Bound>, unit: &str| {
            bound.map(|bound| match bound {
                Bound::Part(part) => format!("{what}={part}x"),
                Bound::Absolute(value) => format!("{what}={value}{unit}"),
            })
        };
        let parts = [
            bound("latency", self.latency, "ms"),
            bound("size", self.size, "B"),
            self.loss.map(|loss| format!("loss={loss}")),
        ];
        f.write_str(&parts.into_iter().flatten().collect::<Vec<_>>().join(","))
    }
}

impl TryFrom<String> for MapBudget {
    type Error = MappingError;

    fn try_from(text: String) -> Result<Self, MappingError> {
        text.parse()
    }
}

impl From<MapBudget> for String {
    fn from(budget: MapBudget) -> Self {
        budget.to_string()
    }
}
