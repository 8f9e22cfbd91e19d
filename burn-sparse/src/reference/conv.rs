//! Convolution by its definition.

use crate::ConvProblem;

/// Calls `visit(n, k, e, f, c, y, x, r, s)` for every product of a convolution, `c` counted within
/// the group and `(y, x)` an input pixel that exists (padding is zero and contributes nothing).
fn products(
    problem: &ConvProblem,
    mut visit: impl FnMut([usize; 4], usize, [usize; 2], [usize; 3]),
) {
    let [batch, outputs, height, width] = problem.output_shape();
    let [_, channels, kh, kw] = problem.weight_shape();
    let rows_per_group = outputs / problem.groups;
    for n in 0..batch {
        for k in 0..outputs {
            for e in 0..height {
                for f in 0..width {
                    for c in 0..channels {
                        for r in 0..kh {
                            for s in 0..kw {
                                let y = (e * problem.stride[0] + r * problem.dilation[0])
                                    .checked_sub(problem.padding[0][0]);
                                let x = (f * problem.stride[1] + s * problem.dilation[1])
                                    .checked_sub(problem.padding[1][0]);
                                if let (Some(y), Some(x)) = (y, x)
                                    && y < problem.input[0]
                                    && x < problem.input[1]
                                {
                                    let channel = k / rows_per_group * channels + c;
                                    visit([n, k, e, f], channel, [y, x], [c, r, s]);
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn at4([_, b, c, d]: [usize; 4], [i, j, k, l]: [usize; 4]) -> usize {
    ((i * b + j) * c + k) * d + l
}

/// `out[n,k,e,f] = bias[k] + sum_{c,r,s} w[k,c,r,s] x[n,c,e*u+r*d-top,f*v+s*d-left]`.
///
/// `input`, `weight` and the result have the problem's shapes, row-major.
///
/// # Panics
/// If a slice is shorter than its shape.
pub fn conv2d(
    input: &[f32],
    weight: &[f32],
    bias: Option<&[f32]>,
    problem: &ConvProblem,
) -> Vec<f64> {
    let shape = problem.output_shape();
    let mut out = vec![0.0f64; shape.iter().product()];
    products(problem, |[n, k, e, f], channel, [y, x], [c, r, s]| {
        let w = weight[at4(problem.weight_shape(), [k, c, r, s])];
        let v = input[at4(problem.input_shape(), [n, channel, y, x])];
        out[at4(shape, [n, k, e, f])] += f64::from(w) * f64::from(v);
    });
    if let Some(bias) = bias {
        let plane = shape[2] * shape[3];
        for (index, out) in out.iter_mut().enumerate() {
            *out += f64::from(bias[index / plane % shape[1]]);
        }
    }
    out
}

/// [`conv2d`] on images one pixel high.
///
/// # Panics
/// As [`conv2d`], and if the problem is more than one pixel high.
pub fn conv1d(
    input: &[f32],
    weight: &[f32],
    bias: Option<&[f32]>,
    problem: &ConvProblem,
) -> Vec<f64> {
    assert!(
        problem.input[0] == 1 && problem.kernel[0] == 1,
        "a 1-D problem is one pixel high"
    );
    conv2d(input, weight, bias, problem)
}

/// The gradient for the input, given that of the output.
///
/// # Panics
/// As [`conv2d`].
pub fn conv2d_grad_input(grad: &[f32], weight: &[f32], problem: &ConvProblem) -> Vec<f64> {
    let mut out = vec![0.0f64; problem.input_shape().iter().product()];
    products(problem, |[n, k, e, f], channel, [y, x], [c, r, s]| {
        let w = weight[at4(problem.weight_shape(), [k, c, r, s])];
        let g = grad[at4(problem.output_shape(), [n, k, e, f])];
        out[at4(problem.input_shape(), [n, channel, y, x])] += f64::from(w) * f64::from(g);
    });
    out
}

/// The gradient for the dense weight, given that of the output.
///
/// # Panics
/// As [`conv2d`].
pub fn conv2d_grad_weight(grad: &[f32], input: &[f32], problem: &ConvProblem) -> Vec<f64> {
    let mut out = vec![0.0f64; problem.weight_shape().iter().product()];
    products(problem, |[n, k, e, f], channel, [y, x], [c, r, s]| {
        let v = input[at4(problem.input_shape(), [n, channel, y, x])];
        let g = grad[at4(problem.output_shape(), [n, k, e, f])];
        out[at4(problem.weight_shape(), [k, c, r, s])] += f64::from(v) * f64::from(g);
    });
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hand_computed_convolution() {
        // 3x3 ramp, 2x2 kernel [1 2; 3 4], stride 2 with one zero around: four corners.
        let input: Vec<f32> = (1..10u8).map(f32::from).collect();
        let problem = ConvProblem::new(1, [1, 1], [3, 3], [2, 2])
            .with_stride([2, 2])
            .with_padding([1, 1]);
        let out = conv2d(&input, &[1., 2., 3., 4.], Some(&[0.5]), &problem);
        assert_eq!(out, [4.5, 18.5, 36.5, 77.5]);
    }

    /// `<conv(x, w), g> = <x, grad_input(g)> = <w, grad_weight(g)>`: the gradients are the adjoints.
    #[test]
    fn gradients_are_adjoints() {
        let problem = ConvProblem::new(2, [4, 6], [5, 4], [3, 2])
            .with_stride([2, 1])
            .with_padding([1, 1])
            .with_dilation([1, 2])
            .with_groups(2);
        let ramp = |len: usize, seed: usize| -> Vec<f32> {
            (0..len)
                .map(|i| ((i * 7 + seed) % 11) as f32 - 5.0)
                .collect()
        };
        let x = ramp(problem.input_shape().iter().product(), 1);
        let w = ramp(problem.weight_shape().iter().product(), 2);
        let g = ramp(problem.output_shape().iter().product(), 3);
        let dot =
            |a: &[f64], b: &[f32]| -> f64 { a.iter().zip(b).map(|(a, &b)| a * f64::from(b)).sum() };
        let forward = dot(&conv2d(&x, &w, None, &problem), &g);
        assert_eq!(forward, dot(&conv2d_grad_input(&g, &w, &problem), &x));
        assert_eq!(forward, dot(&conv2d_grad_weight(&g, &x, &problem), &w));
    }
}
