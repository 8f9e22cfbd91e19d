//! Work on rayon's threads from the start, and on how many of them.

use core::cell::Cell;

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
    if rayon::current_thread_index().is_some() {
        return work();
    }
    let mut result = None;
    rayon::scope(|_| result = Some(work()));
    result.expect("a scope runs its body")
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
}
