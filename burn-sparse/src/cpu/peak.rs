//! What the processor can do at best, measured: the two rates that bound a convolution.

use core::hint::black_box;
use std::time::{Duration, Instant};

use pulp::{Simd, WithSimd};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::{Buffer, Isa};

/// Vectors whose sums are under way at once: more than latency times throughput of any core.
const SUMS: usize = 12;

/// Vectors that loads from the first cache go round in: an eighth of one of usual size with the
/// widest.
const FIRST: usize = 5 * SUMS;

/// The same for the second cache: larger than any first, smaller than any second, with the
/// narrowest and the widest.
const SECOND: usize = 256 * SUMS;

/// How long each rate is measured.
const TIME: Duration = Duration::from_millis(20);

/// Rates of all threads together, at the widest vectors that the kernels use here.
///
/// A convolution in registers multiplies once for every vector that it loads, unless rows share
/// their loads. Where a core starts more multiply-adds than loads in a cycle, the loads set the
/// bound; and a lower one where what is loaded does not stay in the first cache.
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
    /// Vectors a second that they load from the second cache, one after the other.
    pub second_loads: f64,
}

/// Parts of [`Peak`] that a layer reached: 1 is the bound.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Share {
    /// Of what can be multiplied and added.
    pub flops: f64,
    /// Of what can be loaded from the first cache, where the loads are known.
    pub loads: Option<f64>,
    /// Of what could be loaded if all came from the second cache: more than 1 says that part of it
    /// came from the first.
    pub second_loads: Option<f64>,
}

impl Peak {
    /// Measures them on all of rayon's threads at once, for some 60 ms.
    pub fn measure() -> Self {
        let isa = Isa::current();
        let rate = |vectors: Option<usize>| {
            let per_thread = rayon::broadcast(|_| {
                let mut memory = Buffer::new(vectors.unwrap_or(FIRST) * isa.lanes());
                memory.fill(1.0);
                // Clocks rise while the first rounds run; the best of many short ones counts.
                let begin = Instant::now();
                let mut best = f64::INFINITY;
                while begin.elapsed() < TIME {
                    let start = Instant::now();
                    let vectors = isa.dispatch(Rounds {
                        memory: &memory,
                        loads: vectors.is_some(),
                    });
                    best = best.min(start.elapsed().as_secs_f64() / vectors as f64);
                }
                1.0 / best
            });
            per_thread.into_par_iter().sum::<f64>()
        };
        Self {
            flops: 2.0 * isa.lanes() as f64 * rate(None),
            loads: rate(Some(FIRST)),
            second_loads: rate(Some(SECOND)),
        }
    }

    /// What `macs` multiply-adds and `loads` vector loads in `seconds` are of the peak.
    pub fn share(&self, macs: u64, loads: Option<u64>, seconds: f64) -> Share {
        let loaded = |rate: f64| loads.map(|loads| loads as f64 / seconds / rate);
        Share {
            flops: 2.0 * macs as f64 / seconds / self.flops,
            loads: loaded(self.loads),
            second_loads: loaded(self.second_loads),
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
        // Some ten thousand vectors, whatever they are loaded from.
        const VECTORS: usize = 4 * SECOND;
        let weight = simd.splat_f32s(black_box(1e-9));
        let mut sums = [simd.splat_f32s(0.0); SUMS];
        let (vectors, _) = S::as_simd_f32s(self.memory);
        for _ in 0..VECTORS / vectors.len() {
            if self.loads {
                // Nothing may be known of the memory from one round to the next, or the loads
                // would be done once.
                for vectors in black_box(vectors).chunks_exact(SUMS) {
                    for (sum, &vector) in sums.iter_mut().zip(vectors) {
                        *sum = simd.mul_add_e_f32s(weight, vector, *sum);
                    }
                }
            } else {
                for _ in 0..vectors.len() / SUMS {
                    for sum in &mut sums {
                        *sum = simd.mul_add_e_f32s(weight, weight, *sum);
                    }
                }
            }
        }
        for sum in sums {
            black_box(simd.reduce_sum_f32s(sum));
        }
        VECTORS / vectors.len() * vectors.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_rates_are_those_of_a_processor() {
        let peak = Peak::measure();
        // From a slow interpreter to any machine to come.
        for rate in [peak.flops, peak.loads, peak.second_loads] {
            assert!((1e6..1e16).contains(&rate), "{peak:?}");
        }
        let share = peak.share(5, None, 10.0 / peak.flops);
        assert!((share.flops - 1.0).abs() < 1e-9 && share.loads.is_none());
    }
}
