//! What a processor can do, beside which rows on it are put.

use std::fmt;
use std::sync::{Mutex, PoisonError};

use burn_sparse::cpu::Peak;
use serde::{Deserialize, Serialize};

use super::table::digits;

/// What the processor can do with so many threads.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ThreadPeak {
    /// The threads.
    pub threads: usize,
    /// Their rates together.
    #[serde(flatten)]
    pub peak: Peak,
}

impl fmt::Display for ThreadPeak {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "peak of {} thread{}: {} GFLOP/s of multiply-adds; {} x 10⁹ vector loads a second from \
             the first cache, {} from the second",
            self.threads,
            if self.threads == 1 { "" } else { "s" },
            digits(self.peak.flops / 1e9),
            digits(self.peak.loads / 1e9),
            digits(self.peak.second_loads / 1e9)
        )
    }
}

/// The peaks of all numbers of threads that rows were measured with, each measured once.
#[derive(Debug, Default)]
pub struct Peaks(Mutex<Vec<ThreadPeak>>);

impl Peaks {
    /// That of the pool which this is called in.
    pub fn here(&self) -> Peak {
        let threads = rayon::current_num_threads();
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = known.iter().find(|known| known.threads == threads) {
            return found.peak;
        }
        let peak = Peak::measure();
        known.push(ThreadPeak { threads, peak });
        peak
    }

    /// Those that were asked for, by threads.
    #[must_use]
    pub fn all(&self) -> Vec<ThreadPeak> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all = known.clone();
        all.sort_by_key(|known| known.threads);
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_number_of_threads_is_measured_once_in_its_pool() {
        let peaks = Peaks::default();
        for threads in [2, 1, 2] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
            let peak = pool.build().unwrap().install(|| peaks.here());
            let all = peaks.all();
            let same = all.iter().find(|known| known.threads == threads).unwrap();
            assert_eq!(same.peak, peak);
        }
        let threads: Vec<_> = peaks.all().iter().map(|known| known.threads).collect();
        assert_eq!(threads, [1, 2]);
        let known = ThreadPeak {
            threads: 1,
            peak: Peak {
                flops: 96e9,
                loads: 6e9,
                second_loads: 4e9,
            },
        };
        let line = "peak of 1 thread: 96.0 GFLOP/s of multiply-adds; 6.00 x 10⁹ vector loads a \
                    second from the first cache, 4.00 from the second";
        assert_eq!(known.to_string(), line);
    }
}
