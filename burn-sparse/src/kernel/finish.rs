//! What device code does with a sum before it stores it.

use cubecl::prelude::*;

/// Stores `act(sum + residual)`; the bias is in the sum.
#[cube]
pub(crate) fn finish<E: Float>(
    sum: f32,
    at: usize,
    residual: &ComptimeOption<&[E]>,
    output: &mut [E],
    #[comptime] relu: bool,
) {
    let residual: ComptimeOption<f32> = residual
        .as_ref()
        .map(|residual| f32::cast_from(residual[at]));
    let mut sum = sum + residual.unwrap_or_else(|| 0.0f32);
    if comptime!(relu) {
        sum = max(sum, 0.0f32);
    }
    output[at] = E::cast_from(sum);
}
