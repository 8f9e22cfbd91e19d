//! Honest milliseconds: warm-up first, the device synchronised inside the timed region, the median
//! of several runs with its spread.

use std::hint::black_box;
use std::time::{Duration, Instant};

use burn::tensor::Device;
use serde::{Deserialize, Serialize};

/// How often to run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TimingOptions {
    /// Runs before the clock counts; kernels are compiled and autotuned in them.
    pub warmup: usize,
    /// Timed runs.
    pub runs: usize,
    /// Time after which no further run is started, once three are done.
    pub budget: Duration,
}

impl Default for TimingOptions {
    /// Three runs of warm-up, then twenty, or fewer if they take longer than five seconds.
    fn default() -> Self {
        Self {
            warmup: 3,
            runs: 20,
            budget: Duration::from_secs(5),
        }
    }
}

/// What was measured, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Timing {
    /// The middle run; the number to quote.
    pub median: f64,
    /// The fastest run.
    pub min: f64,
    /// The slowest run.
    pub max: f64,
    /// Distance between the first and the third quartile.
    pub spread: f64,
    /// Timed runs.
    pub runs: usize,
}

impl Timing {
    /// Statistics of some runs, in milliseconds; `None` for none.
    #[must_use]
    pub fn of(mut millis: Vec<f64>) -> Option<Self> {
        millis.sort_by(f64::total_cmp);
        let (min, max) = (*millis.first()?, *millis.last()?);
        let quantile = |q: f64| {
            let at = q * (millis.len() - 1) as f64;
            let (low, part) = (at.floor() as usize, at.fract());
            let high = (low + 1).min(millis.len() - 1);
            millis[low] + part * (millis[high] - millis[low])
        };
        let spread = quantile(0.75) - quantile(0.25);
        Some(Self {
            median: quantile(0.5),
            min,
            max,
            spread,
            runs: millis.len(),
        })
    }
}

/// A device that reported an error while it was measured.
#[derive(Debug, thiserror::Error)]
#[error("the device failed while it was measured: {0}")]
pub struct TimingError(String);

/// Measures `work` on a device.
///
/// Each timed run ends with `device.sync()`. The result of `work` is kept until then: a lazy
/// backend need not compute what nobody holds.
///
/// # Errors
/// [`TimingError`] if the device reports an error.
///
/// ```
/// # use examples::timing::{TimingOptions, measure};
/// # use burn::tensor::{Device, Tensor};
/// let device = Device::flex();
/// let x = Tensor::<2>::ones([64, 64], &device);
/// let timing = measure(&device, TimingOptions::default(), || x.clone().matmul(x.clone()))?;
/// assert!(timing.min <= timing.median);
/// # Ok::<(), examples::timing::TimingError>(())
/// ```
pub fn measure<T>(
    device: &Device,
    options: TimingOptions,
    mut work: impl FnMut() -> T,
) -> Result<Timing, TimingError> {
    let sync = || {
        device
            .sync()
            .map_err(|error| TimingError(error.to_string()))
    };
    sync()?;
    for _ in 0..options.warmup {
        let result = work();
        sync()?;
        drop(black_box(result));
    }
    let mut millis = Vec::with_capacity(options.runs);
    let begin = Instant::now();
    while millis.len() < options.runs.max(1) {
        if millis.len() >= 3 && begin.elapsed() >= options.budget {
            break;
        }
        let start = Instant::now();
        let result = black_box(work());
        sync()?;
        millis.push(start.elapsed().as_secs_f64() * 1e3);
        drop(result);
    }
    Timing::of(millis).ok_or_else(|| TimingError("no run was timed".into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics_of_known_runs() {
        assert_eq!(Timing::of(vec![]), None);
        let timing = Timing::of(vec![4.0, 1.0, 3.0, 2.0, 10.0]).unwrap();
        let wanted = Timing {
            median: 3.0,
            min: 1.0,
            max: 10.0,
            spread: 2.0,
            runs: 5,
        };
        assert_eq!(timing, wanted);
        assert_eq!(Timing::of(vec![1.0, 2.0]).unwrap().median, 1.5);
    }

    #[test]
    #[cfg(feature = "flex")]
    fn runs_are_counted_and_the_budget_ends_them() {
        let device = Device::flex();
        let mut calls = 0;
        let options = TimingOptions {
            warmup: 2,
            runs: 7,
            budget: Duration::from_secs(60),
        };
        let timing = measure(&device, options, || calls += 1).unwrap();
        assert_eq!((timing.runs, calls), (7, 9));
        let options = TimingOptions {
            warmup: 0,
            runs: 1000,
            budget: Duration::ZERO,
        };
        let slow = || std::thread::sleep(Duration::from_millis(2));
        let timing = measure(&device, options, slow).unwrap();
        assert_eq!(timing.runs, 3);
        assert!(timing.min >= 2.0);
    }
}
