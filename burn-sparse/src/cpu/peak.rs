//! What the processor can do at best, measured: the two rates that bound a convolution.

use core::hint::black_box;
use std::time::{Duration, Instant};

use pulp::{Simd, WithSimd};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::{Buffer, Isa};

/// Vectors whose sums are under way at once: more than latency times throughput of any core.
const SUMS: usize = 12;

/// Vectors that the loads go round in: an eighth of a first cache of usual size with the widest.
const ROUND: usize = 5 * SUMS;

/// How long each rate is measured.
const TIME: Duration = Duration::from_millis(20);

/// Rates of all threads together, at the widest vectors that the kernels use here.
///
/// A convolution in registers multiplies once for every vector that it loads, unless rows share
/// their loads. Where a core starts more multiply-adds than loads in a cycle, the loads set the
/// bound.
///
/// # Example
/// ```
/// use burn_sparse::cpu::Peak;
///
/// let peak = Peak::measure();
/// assert!(peak.flops > 0.0);
/// // A layer of 10⁶ multiply-adds and 10⁵ vector loads that took as long as its multiply-adds alone.
/// let seconds = 2e6 / peak.flops;
/// let share = peak.share(1_000_000, Some(100_000), seconds);
/// assert!((share.flops - 1.0).abs() < 1e-9 && share.loads.is_some());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Peak {
    /// Operations a second of fused multiply-adds on f32, two each.
    pub flops: f64,
    /// Vectors a second that multiply-adds load from the first cache.
    pub loads: f64,
}

/// Parts of [`Peak`] that a layer reached: 1 is the bound.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Share {
    /// Of what can be multiplied and added.
    pub flops: f64,
    /// Of what can be loaded, where the loads are known.
    pub loads: Option<f64>,
}

impl Peak {
    /// Measures both on all of rayon's threads at once, for some 50 ms.
    pub fn measure() -> Self {
        let isa = Isa::current();
        let rate = |loads: bool| {
            let per_thread = rayon::broadcast(|_| {
                let mut memory = Buffer::new(ROUND * isa.lanes());
                memory.fill(1.0);
                // Clocks rise while the first rounds run; the best of many short ones counts.
                let begin = Instant::now();
                let mut best = f64::INFINITY;
                while begin.elapsed() < TIME {
                    let start = Instant::now();
                    let vectors = isa.dispatch(Rounds {
                        memory: &memory,
                        loads,
                    });
                    best = best.min(start.elapsed().as_secs_f64() / vectors as f64);
                }
                1.0 / best
            });
            per_thread.into_par_iter().sum::<f64>()
        };
        Self {
            flops: 2.0 * isa.lanes() as f64 * rate(false),
            loads: rate(true),
        }
    }

    /// What `macs` multiply-adds and `loads` vector loads in `seconds` are of the peak.
    pub fn share(&self, macs: u64, loads: Option<u64>, seconds: f64) -> Share {
        Share {
            flops: 2.0 * macs as f64 / seconds / self.flops,
            loads: loads.map(|loads| loads as f64 / seconds / self.loads),
        }
    }
}

/// Some multiply-adds, whose operands lie in registers or are loaded.
struct Rounds<'a> {
    memory: &'a [f32],
    loads: bool,
}

impl WithSimd for Rounds<'_> {
    /// Vectors that were multiplied.
    type Output = usize;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> usize {
        const ROUNDS: usize = 400;
        let weight = simd.splat_f32s(black_box(1e-9));
        let mut sums = [simd.splat_f32s(0.0); SUMS];
        let (vectors, _) = S::as_simd_f32s(self.memory);
        for _ in 0..ROUNDS {
            if self.loads {
                // Nothing may be known of the memory from one round to the next, or the loads
                // would be done once.
                for vectors in black_box(vectors).chunks_exact(SUMS) {
                    for (sum, &vector) in sums.iter_mut().zip(vectors) {
                        *sum = simd.mul_add_e_f32s(weight, vector, *sum);
                    }
                }
            } else {
                for _ in 0..ROUND / SUMS {
                    for sum in &mut sums {
                        *sum = simd.mul_add_e_f32s(weight, weight, *sum);
                    }
                }
            }
        }
        for sum in sums {
            black_box(simd.reduce_sum_f32s(sum));
        }
        ROUNDS * (ROUND / SUMS) * SUMS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_rates_are_those_of_a_processor() {
        let peak = Peak::measure();
        // From a slow interpreter to any machine to come.
        for rate in [peak.flops, peak.loads] {
            assert!((1e6..1e16).contains(&rate), "{peak:?}");
        }
        let share = peak.share(5, None, 10.0 / peak.flops);
        assert!((share.flops - 1.0).abs() < 1e-9 && share.loads.is_none());
    }
}
