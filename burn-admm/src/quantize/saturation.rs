//! Where a range of levels ends: covering the largest value costs all others precision.

use serde::{Deserialize, Serialize};

use super::{Histogram, QuantizeError};

/// How the largest level is chosen from a distribution of values.
///
/// Pietroń and Żurek (2020), section 3: saturating a few outliers, chosen from a histogram, may be
/// better than covering the whole range.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Saturation {
    /// Nothing saturates: the largest level is the largest value.
    MinMax,
    /// So many percent of the values do not saturate.
    Percentile(f64),
    /// The least sum of squared errors.
    #[default]
    Mse,
    /// The least Kullback-Leibler divergence of the quantised distribution from that of the values, as
    /// inference libraries calibrate activations.
    Kl,
}

/// Fractions of the range that are tried.
const STEPS: usize = 128;

impl Saturation {
    pub(super) fn validate(self) -> Result<(), QuantizeError> {
        match self {
            Self::Percentile(p) if !(p > 0.0 && p <= 100.0) => Err(QuantizeError::Percentile(p)),
            _ => Ok(()),
        }
    }

    /// The range `[low, high]` that `levels` equal levels should cover, within that of the histogram.
    ///
    /// [`Percentile`](Self::Percentile) cuts both ends until that part of the values is left, the
    /// lighter first. The others shrink both ends by a common factor, of which 128 are tried.
    ///
    /// # Errors
    /// [`QuantizeError::Percentile`] for one outside (0, 100].
    pub fn range(self, histogram: &Histogram, levels: usize) -> Result<[f32; 2], QuantizeError> {
        self.validate()?;
        let [low, high] = histogram.range();
        if histogram.total() == 0 || low == high {
            return Ok([low, high]);
        }
        Ok(match self {
            Self::MinMax => [low, high],
            Self::Percentile(percent) => percentile(histogram, percent / 100.0),
            Self::Mse => best(histogram, |range| histogram.squared_error(range, levels)),
            Self::Kl => best(histogram, |range| histogram.divergence(range, levels)),
        })
    }
}

/// The fraction of the histogram's range with the least cost; of equal ones the largest.
fn best(histogram: &Histogram, cost: impl Fn([f32; 2]) -> f64) -> [f32; 2] {
    let [low, high] = histogram.range();
    let ranges = (1..=STEPS).rev().map(|step| {
        let factor = step as f32 / STEPS as f32;
        [low * factor, high * factor]
    });
    let mut found = ([low, high], f64::INFINITY);
    for range in ranges {
        let cost = cost(range);
        if cost < found.1 {
            found = (range, cost);
        }
    }
    found.0
}

fn percentile(histogram: &Histogram, part: f64) -> [f32; 2] {
    let counts = histogram.counts();
    let total = histogram.total() as f64;
    let may_go = (total * (1.0 - part)).floor() as u64;
    let (mut first, mut last, mut gone) = (0, counts.len(), 0);
    while last - first > 1 {
        let (left, right) = (counts[first], counts[last - 1]);
        let least = left.min(right);
        if gone + least > may_go {
            break;
        }
        gone += least;
        if left <= right {
            first += 1;
        } else {
            last -= 1;
        }
    }
    [histogram.edge(first), histogram.edge(last)]
}
