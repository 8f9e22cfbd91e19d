//! Two forms of one computation, timed in turns.

use std::hint::black_box;
use std::time::{Duration, Instant};

use burn::tensor::Device;
use serde::{Deserialize, Serialize};

use super::BenchError;
use crate::timing::{Timing, TimingOptions};

/// A ratio and how far it moves.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ratio {
    /// The median over the rounds.
    pub median: f64,
    /// Distance between the first and the third quartile.
    pub spread: f64,
}

/// Times of both forms.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pair {
    /// Milliseconds of the sparse form.
    pub sparse: Timing,
    /// Milliseconds of the dense form.
    pub dense: Timing,
    /// Sparse over dense, from the two neighbouring runs of each round: what slows the machine for
    /// longer than a round slows both and cancels.
    pub ratio: Ratio,
}

impl Pair {
    /// Statistics of rounds of `[sparse, dense]` milliseconds; `None` for none.
    #[must_use]
    pub fn of(rounds: &[[f64; 2]]) -> Option<Self> {
        let ratio = Timing::of(rounds.iter().map(|[s, d]| s / d).collect())?;
        Some(Self {
            sparse: Timing::of(rounds.iter().map(|round| round[0]).collect())?,
            dense: Timing::of(rounds.iter().map(|round| round[1]).collect())?,
            ratio: Ratio {
                median: ratio.median,
                spread: ratio.spread,
            },
        })
    }
}

/// Measures a sparse and a dense form in rounds of one run each, the device synchronised inside the
/// timed region.
///
/// Warm-up ends early once it has taken the budget; rounds do once three are done and the budget
/// is spent.
///
/// # Errors
/// [`BenchError::Device`] if the device reports an error.
pub fn measure<S, D>(
    device: &Device,
    options: TimingOptions,
    sparse: impl Fn() -> S,
    dense: impl Fn() -> D,
) -> Result<Pair, BenchError> {
    let rounds = rounds(
        options,
        [&|| time(device, &sparse), &|| time(device, &dense)],
    )?;
    Pair::of(&rounds).ok_or_else(|| BenchError::Device("no run was timed".into()))
}

/// One timed run of a form: its milliseconds.
pub(super) type Clock<'a> = &'a dyn Fn() -> Result<f64, BenchError>;

/// Milliseconds of forms that run in turns, after warm-up; both as [`measure`] does it.
///
/// # Errors
/// The first that a clock gives.
pub(super) fn rounds<const N: usize>(
    options: TimingOptions,
    clocks: [Clock<'_>; N],
) -> Result<Vec<[f64; N]>, BenchError> {
    let rounds = rounds_of(options, &clocks)?.into_iter();
    Ok(rounds
        .map(|round| std::array::from_fn(|form| round[form]))
        .collect())
}

/// The same for forms whose number is only known when they run.
///
/// # Errors
/// The first that a clock gives.
pub(super) fn rounds_of(
    options: TimingOptions,
    clocks: &[Clock<'_>],
) -> Result<Vec<Vec<f64>>, BenchError> {
    let round = || -> Result<Vec<f64>, BenchError> { clocks.iter().map(|clock| clock()).collect() };
    let begin = Instant::now();
    for _ in 0..options.warmup {
        round()?;
        if begin.elapsed() >= options.budget {
            break;
        }
    }
    let mut rounds = Vec::with_capacity(options.runs.min(1 << 16));
    let begin = Instant::now();
    while rounds.len() < options.runs.max(1) {
        if rounds.len() >= 3 && begin.elapsed() >= options.budget {
            break;
        }
        rounds.push(round()?);
    }
    Ok(rounds)
}

/// Milliseconds of one run.
pub(super) fn time<T>(device: &Device, work: &impl Fn() -> T) -> Result<f64, BenchError> {
    let start = Instant::now();
    let result = black_box(work());
    device
        .sync()
        .map_err(|error| BenchError::Device(error.to_string()))?;
    let elapsed = start.elapsed();
    // Kept until here: a lazy backend need not compute what nobody holds.
    drop(result);
    // A clock that is too coarse must not make a ratio infinite.
    Ok(elapsed.max(Duration::from_nanos(1)).as_secs_f64() * 1e3)
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use std::cell::RefCell;

    use super::*;

    #[test]
    fn forms_run_in_turns_and_the_budget_ends_them() {
        let order = RefCell::new(String::new());
        let run = |name| move |order: &RefCell<String>| order.borrow_mut().push(name);
        let (sparse, dense) = (run('s'), run('d'));
        let options = |runs, budget| TimingOptions {
            warmup: 1,
            runs,
            budget,
        };
        let device = Device::flex();
        let measure = |options| measure(&device, options, || sparse(&order), || dense(&order));
        let pair = measure(options(4, Duration::from_secs(60))).unwrap();
        assert_eq!(pair.sparse.runs, 4);
        assert_eq!(*order.borrow(), "sd".repeat(5));
        assert!(pair.ratio.median > 0.0);
        let pair = measure(options(1000, Duration::ZERO)).unwrap();
        assert_eq!(pair.dense.runs, 3);
    }

    #[test]
    fn a_machine_that_slows_down_moves_times_but_not_the_ratio() {
        let rounds: Vec<_> = (1..=9)
            .map(|i| [f64::from(i), 2.0 * f64::from(i)])
            .collect();
        let pair = Pair::of(&rounds).unwrap();
        assert_eq!((pair.sparse.median, pair.sparse.spread), (5.0, 4.0));
        assert_eq!((pair.ratio.median, pair.ratio.spread), (0.5, 0.0));
        assert_eq!(Pair::of(&[]), None);
    }
}
