//! A convolution whose kernels are combinations of a few.

use super::conv2d;
use crate::ConvProblem;

/// The weight that shared kernels and their coefficients make, `w[k,c,r,s] = Σ_b a[k, c·B + b] basis[b,r,s]`,
/// and with it [`conv2d`].
///
/// `coefficients` is dense, `[out_channels, in_channels * kernels]`.
///
/// # Panics
/// If a slice is shorter than its shape says.
pub fn shared_conv2d(
    input: &[f32],
    basis: &[f32],
    coefficients: &[f32],
    bias: Option<&[f32]>,
    problem: &ConvProblem,
) -> Vec<f64> {
    let taps = problem.kernel[0] * problem.kernel[1];
    let kernels = basis.len() / taps;
    // By kernel: each is a convolution of its own, so that nothing is rounded in between.
    let mut total = vec![0.0; problem.output_shape().iter().product()];
    for b in 0..kernels {
        for tap in 0..taps {
            let weight: Vec<f32> = (0..problem.out_channels * problem.in_channels * taps)
                .map(|i| {
                    if i % taps == tap {
                        coefficients[i / taps * kernels + b]
                    } else {
                        0.0
                    }
                })
                .collect();
            let part = conv2d(input, &weight, None, problem);
            let scale = f64::from(basis[b * taps + tap]);
            total
                .iter_mut()
                .zip(part)
                .for_each(|(total, part)| *total += scale * part);
        }
    }
    if let Some(bias) = bias {
        let pixels: usize = problem.output().iter().product();
        for (index, total) in total.iter_mut().enumerate() {
            *total += f64::from(bias[index / pixels % problem.out_channels]);
        }
    }
    total
}
