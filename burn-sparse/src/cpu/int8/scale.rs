//! How inputs become bytes.

use crate::SparseError;

/// `1.5 · 2^23`: adding it rounds to the nearest integer, of two that are equally near to the even one,
/// which is then in the lowest bits.
const ROUND: f32 = 12_582_912.0;

/// Inputs as bytes: `u = zero + round(x / step)`, cut off at 0 and 255.
///
/// # Example
/// ```
/// use burn_sparse::cpu::InputScale;
///
/// let scale = InputScale::new([-1.0, 3.0])?;
/// assert_eq!(scale.zero(), 64);
/// let mut bytes = [0; 4];
/// scale.quantise(&[0.0, 3.0, -1.0, 100.0], &mut bytes);
/// assert_eq!(bytes, [64, 255, 0, 255]);
/// assert!(InputScale::new([1.0, f32::NAN]).is_err());
/// # Ok::<(), burn_sparse::SparseError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct InputScale {
    step: f32,
    zero: u8,
}

impl InputScale {
    /// For inputs of a range, lowest first, as it was seen over samples (calibrated). It is widened to
    /// hold zero, which is then exact: padding and what an activation cut off cost no accuracy.
    ///
    /// # Errors
    /// [`SparseError::InputRange`] for bounds that are not finite, in the wrong order, or so close
    /// together or far apart that a step is no normal number.
    pub fn new(range: [f32; 2]) -> Result<Self, SparseError> {
        let [low, high] = range;
        let invalid = SparseError::InputRange { range };
        if !(low.is_finite() && high.is_finite() && low <= high) {
            return Err(invalid);
        }
        let (low, high) = (low.min(0.0), high.max(0.0));
        if low == high {
            // Nothing but zeros was seen.
            return Ok(Self { step: 1.0, zero: 0 });
        }
        let step = high / 255.0 - low / 255.0;
        if !(step.is_normal() && (1.0 / step).is_normal()) {
            return Err(invalid);
        }
        let zero = (-low / step).round().min(255.0) as u8;
        Ok(Self { step, zero })
    }

    /// The difference of neighbouring bytes.
    pub fn step(self) -> f32 {
        self.step
    }

    /// The byte of zero.
    pub fn zero(self) -> u8 {
        self.zero
    }

    /// The nearest bytes; a NaN becomes 0, the lowest.
    ///
    /// # Panics
    /// If the slices differ in length.
    pub fn quantise(self, x: &[f32], out: &mut [u8]) {
        assert_eq!(x.len(), out.len(), "slices to quantise");
        let zero = i32::from(self.zero);
        let (low, high) = (-zero as f32, (255 - zero) as f32);
        let per_step = 1.0 / self.step;
        for (out, x) in out.iter_mut().zip(x) {
            let steps = (x * per_step).max(low).min(high) + ROUND;
            let integer = (steps.to_bits() as i32).wrapping_sub(ROUND.to_bits() as i32);
            *out = integer.wrapping_add(zero) as u8;
        }
    }
}
