//! Plain f64 loops over dense weights: the oracle of tests, benches and the book. Written from the
//! definitions, with nothing of what it checks: no offsets, no stretched layout, no CSR.

mod batch_norm;
mod conv;
mod factored;
mod linear;
mod recurrent;
mod shared;

pub use batch_norm::batch_norm_train;
pub use conv::{conv1d, conv2d, conv2d_grad_input, conv2d_grad_weight};
pub use factored::factored_conv2d;
pub use linear::linear;
pub use recurrent::{Recurrent, gru, lstm};
pub use shared::shared_conv2d;

/// Largest error that rounding can explain in a dot product of `terms` terms whose magnitudes sum
/// to `magnitude`, for operands and result of relative precision `unit` (`f32::EPSILON`, or
/// `f16::EPSILON` for f16 storage) and f32 sums.
///
/// Each product and each of the `terms` additions rounds relatively to what has been summed so
/// far, at most `magnitude`; storing rounds once more by `unit`. The factor 2 covers the operands'
/// own conversion.
///
/// # Example
/// ```
/// let bound = burn_sparse::reference::error_bound(100, 10.0, f64::from(f32::EPSILON));
/// assert!(bound > 1e-6 && bound < 1e-3);
/// ```
pub fn error_bound(terms: usize, magnitude: f64, unit: f64) -> f64 {
    let sums = terms as f64 * f64::from(f32::EPSILON);
    magnitude * (sums + 2.0 * unit) + f64::from(f32::MIN_POSITIVE)
}
