//! Two forms of a network on the same inputs.

use burn::tensor::{Device, Distribution, Tensor};
use serde::Serialize;

/// How far two outputs are apart.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Difference {
    /// Largest `|a - b|`; infinite when one is NaN or infinite and the other is not the same.
    pub max_abs: f64,
    /// `max_abs` over the largest `|a|`, the scale of the reference output.
    pub max_rel: f64,
}

impl Difference {
    /// Compares flat outputs.
    ///
    /// # Panics
    /// If they differ in length.
    pub fn between(reference: &[f32], other: &[f32]) -> Self {
        assert!(
            reference.len() == other.len(),
            "outputs of {} and {} elements cannot be compared",
            reference.len(),
            other.len()
        );
        let mut max_abs = 0.0f64;
        let mut scale = 0.0f64;
        for (&a, &b) in reference.iter().zip(other) {
            let (a, b) = (f64::from(a), f64::from(b));
            // A NaN must not slip through a comparison that is false for it.
            let difference = if a == b || (a.is_nan() && b.is_nan()) {
                0.0
            } else {
                (a - b).abs()
            };
            max_abs = max_abs.max(if difference.is_nan() {
                f64::INFINITY
            } else {
                difference
            });
            scale = scale.max(a.abs());
        }
        Self {
            max_abs,
            max_rel: if max_abs == 0.0 { 0.0 } else { max_abs / scale },
        }
    }

    /// The larger of both, number by number.
    #[must_use]
    pub fn max(self, other: Self) -> Self {
        Self {
            max_abs: self.max_abs.max(other.max_abs),
            max_rel: self.max_rel.max(other.max_rel),
        }
    }
}

/// Inputs of unit variance, as networks with normalised data see them.
pub fn random_inputs<const D: usize>(
    shape: [usize; D],
    count: usize,
    device: &Device,
) -> Vec<Tensor<D>> {
    (0..count)
        .map(|_| Tensor::random(shape, Distribution::Normal(0.0, 1.0), device))
        .collect()
}

/// Runs both forms on every input and returns the largest difference. Give it random inputs
/// ([`random_inputs`]) and real ones: a network's real inputs reach values that random ones do not.
///
/// # Panics
/// If the outputs differ in shape.
pub fn verify<const I: usize, const O: usize>(
    reference: impl Fn(Tensor<I>) -> Tensor<O>,
    other: impl Fn(Tensor<I>) -> Tensor<O>,
    inputs: &[Tensor<I>],
) -> Difference {
    inputs.iter().fold(Difference::default(), |worst, input| {
        let (a, b) = (reference(input.clone()), other(input.clone()));
        assert!(
            a.dims() == b.dims(),
            "outputs of shape {:?} and {:?}",
            a.dims(),
            b.dims()
        );
        worst.max(Difference::between(&floats(a), &floats(b)))
    })
}

/// The elements of a tensor as f32 on the host.
pub(super) fn floats<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor
        .into_data()
        .convert::<f32>()
        .try_to_vec()
        .expect("data were converted to f32")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nan_is_a_difference() {
        assert_eq!(
            Difference::between(&[1.0], &[f32::NAN]).max_abs,
            f64::INFINITY
        );
        assert_eq!(Difference::between(&[f32::NAN], &[f32::NAN]).max_abs, 0.0);
        assert_eq!(
            Difference::between(&[f32::INFINITY], &[f32::INFINITY]).max_abs,
            0.0
        );
    }

    #[test]
    fn relative_to_the_largest_output() {
        let difference = Difference::between(&[4.0, 0.0], &[4.0, 1.0]);
        assert_eq!((difference.max_abs, difference.max_rel), (1.0, 0.25));
    }
}
