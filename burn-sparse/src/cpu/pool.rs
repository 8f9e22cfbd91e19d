//! Work on rayon's threads from the start, and on how many of them.

use core::cell::Cell;
use std::sync::OnceLock;

use core_affinity::CoreId;
use rayon::ThreadPoolBuilder;

use super::team::Engaged;
use crate::nn::{Carried, Heeded, flow_is_followed};

std::thread_local! {
    static ALONE: Cell<bool> = const { Cell::new(false) };
}

/// Threads that a layer called from here should spread over: all of rayon's, but one inside of
/// [`alone`].
pub(crate) fn threads() -> usize {
    if ALONE.get() {
        1
    } else {
        rayon::current_num_threads()
    }
}

/// Runs `work` with its layers on this thread only: for when every thread has work of its own, and
/// splitting a layer would only make its tasks copy the same input.
pub(crate) fn alone<T>(work: impl FnOnce() -> T) -> T {
    /// Puts things back also when `work` panics.
    struct Restore(bool);
    impl Drop for Restore {
        fn drop(&mut self) {
            ALONE.set(self.0);
        }
    }
    let _restore = Restore(ALONE.replace(true));
    let _engaged = Engaged::new();
    work()
}

/// Runs `work` on a thread of rayon's pool.
///
/// A parallel layer called from any other thread wakes the pool, sleeps until it is done, and is
/// woken again: microseconds that a network of fifty layers pays fifty times. From inside the pool
/// the calling thread takes part in the work itself. Whole forward passes belong in here; the
/// layers of this crate run anywhere.
///
/// # Panics
/// If `work` does.
///
/// # Example
/// ```
/// use burn::tensor::{Device, Tensor};
/// use burn_sparse::{cpu, nn::Conv2dConfig};
///
/// let device = Device::flex();
/// let conv = Conv2dConfig::new([2, 3], [1, 1]).init(&device);
/// let x = Tensor::<4>::ones([1, 2, 4, 4], &device);
/// let y = cpu::on_pool(|| conv.forward(x));
/// assert_eq!(y.dims(), [1, 3, 4, 4]);
/// ```
pub fn on_pool<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    // A flow is followed on the thread that it was begun on.
    if rayon::current_thread_index().is_some() || flow_is_followed() {
        return work();
    }
    let mut result = None;
    let (recording, heeded) = (Carried::take(), Heeded::here());
    rayon::scope(|_| {
        let _engaged = Engaged::new();
        result = Some(recording.during(|| heeded.during(work)));
    });
    let (done, recording) = result.expect("a scope runs its body");
    recording.put();
    done
}

/// A pool of `threads` threads (`None`: as many as rayon would start) of which each keeps to a
/// processor of its own.
///
/// A layer is over when its last thread is done, and takes a fraction of a millisecond: an operating
/// system that puts two threads on one processor for that long, as some do on purpose to save power,
/// makes it take twice as long beside an idle core. Programs that serve a network start with
/// `cpu::bound_pool(None).build_global()`, before anything else uses rayon.
///
/// Threads are left to the operating system where there are fewer or more of them than processors
/// that this process may use: it knows which of them share a core. So they are where binding is
/// not supported. Call it from a thread that is not itself bound.
///
/// # Example
/// ```
/// use burn_sparse::cpu;
///
/// let pool = cpu::bound_pool(Some(2)).build()?;
/// assert_eq!(pool.current_num_threads(), 2);
/// # Ok::<(), rayon::ThreadPoolBuildError>(())
/// ```
pub fn bound_pool(threads: Option<usize>) -> ThreadPoolBuilder {
    /// What this process may use, asked before any thread is bound.
    static PROCESSORS: OnceLock<Vec<CoreId>> = OnceLock::new();

    let processors = PROCESSORS.get_or_init(|| core_affinity::get_core_ids().unwrap_or_default());
    let asked = std::env::var("RAYON_NUM_THREADS").ok();
    let threads = threads
        .or_else(|| asked?.parse().ok())
        .filter(|&threads| threads > 0)
        .unwrap_or(processors.len());
    let builder = ThreadPoolBuilder::new().num_threads(threads);
    if threads != processors.len() {
        return builder;
    }
    builder.start_handler(|thread| {
        // Where it cannot be bound the thread runs where the system puts it.
        core_affinity::set_for_current(processors[thread]);
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alone_is_one_thread_until_it_ends() {
        let all = rayon::current_num_threads();
        assert_eq!(threads(), all);
        alone(|| {
            assert_eq!(threads(), 1);
            alone(|| assert_eq!(threads(), 1));
            assert_eq!(threads(), 1);
        });
        let panicked = std::panic::catch_unwind(|| alone(|| panic!("as planned")));
        assert!(panicked.is_err());
        assert_eq!(threads(), all);
    }

    #[test]
    fn a_bound_pool_spreads_over_the_processors() {
        let all = core_affinity::get_core_ids().unwrap_or_default();
        let pool = bound_pool(Some(all.len())).build().unwrap();
        assert!(all.is_empty() || pool.current_num_threads() == all.len());
        let of_each = pool.broadcast(|_| core_affinity::get_core_ids().unwrap_or_default());
        if cfg!(target_os = "linux") {
            let expected: Vec<_> = all.into_iter().map(|id| vec![id]).collect();
            assert_eq!(of_each, expected);
        }
        let one_more = of_each.len() + 1;
        let free = bound_pool(Some(one_more)).build().unwrap();
        assert_eq!(free.current_num_threads(), one_more);
    }
}
