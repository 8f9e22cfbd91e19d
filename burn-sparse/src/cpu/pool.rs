//! Work on rayon's threads from the start.

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
