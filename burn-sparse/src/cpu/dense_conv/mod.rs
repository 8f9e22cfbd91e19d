//! Dense convolution and its gradients: what a layer trains with, and runs as until it is packed.
//!
//! | file | holds |
//! |---|---|
//! | `direct` | by the kernels of [`Direct`](super::Direct), for layers of few channels or many pixels |
//! | `matrices` | as matrix products over all images at once, for late layers of many weights |

mod direct;
mod matrices;

use super::{Isa, direct::outputs_together, threads};
use crate::ConvProblem;

/// Outputs of a batch below which ordering a weight for the direct kernel costs more than it gains.
const LEAST_OUTPUTS: usize = 2048;

/// Outputs of an image from which the direct kernel is faster whatever the weight, and those below which it
/// wastes vectors; in between it wins as long as the weight stays in a second cache from image to image.
const MANY_OUTPUTS: usize = 128;
const FEW_OUTPUTS: usize = 32;
const MOST_WEIGHTS: usize = 1 << 18;

/// Outputs over which the sums of a weight's gradient stay in registers, below which fetching and storing
/// them takes too long.
const LEAST_TOGETHER: usize = 256;

/// Sums of a weight's gradient, those of all threads together.
const MOST_SUMS: usize = 1 << 24;

/// Whether the direct kernel is faster.
fn is_direct(problem: &ConvProblem) -> bool {
    let [height, width] = problem.output();
    let outputs = height * width;
    let weights: usize = problem.weight_shape().iter().product();
    problem.batch * outputs >= LEAST_OUTPUTS
        && (outputs >= MANY_OUTPUTS || (outputs >= FEW_OUTPUTS && weights <= MOST_WEIGHTS))
}

/// The same for the gradient of the weight.
fn is_direct_for_weights(problem: &ConvProblem) -> bool {
    let weights: usize = problem.weight_shape().iter().product();
    // Every thread has sums of its own.
    outputs_together(problem) >= LEAST_TOGETHER && threads().saturating_mul(weights) <= MOST_SUMS
}

/// `out[n,k,e,f] = bias[k] + sum_{c,r,s} w[k,c,r,s] x[n,c,e*u+r*d,f*v+s*d]`, every element of
/// `out` written.
///
/// # Panics
/// On slices that are shorter than the problem's shapes.
pub fn dense_conv(
    input: &[f32],
    weight: &[f32],
    bias: Option<&[f32]>,
    problem: &ConvProblem,
    out: &mut [f32],
) {
    let done =
        is_direct(problem) && direct::conv(input, weight, bias, problem, Isa::current(), out);
    if !done {
        matrices::conv(input, weight, bias, problem, out);
    }
}

/// The gradient of [`dense_conv`] for its input:
/// `out[n,c,y,x] = sum grad[n,k,e,f] w[k,c,r,s]` over all `k` and all `e, f, r, s` that see this input, every
/// element written.
///
/// # Panics
/// As [`dense_conv`].
pub fn dense_conv_grad_input(grad: &[f32], weight: &[f32], problem: &ConvProblem, out: &mut [f32]) {
    let done = direct::of_inputs(problem).is_some_and(|turned| is_direct(&turned))
        && direct::grad_input(grad, weight, problem, Isa::current(), out);
    if !done {
        matrices::grad_input(grad, weight, problem, out);
    }
}

/// The gradient of [`dense_conv`] for its weight:
/// `out[k,c,r,s] = sum_{n,e,f} grad[n,k,e,f] x[n,c,e*u+r*d,f*v+s*d]`, every element written.
///
/// # Panics
/// As [`dense_conv`].
pub fn dense_conv_grad_weight(input: &[f32], grad: &[f32], problem: &ConvProblem, out: &mut [f32]) {
    if is_direct_for_weights(problem) {
        direct::grad_weight(input, grad, problem, Isa::current(), out);
    } else {
        matrices::grad_weight(input, grad, problem, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::{self, Case};
    use crate::reference::{self, error_bound};

    /// Both sides of the limit on a batch: several images together, twice.
    const BATCHES: Case = Case {
        name: "several_batches",
        problem: ConvProblem {
            padding: [[1, 1], [1, 1]],
            ..ConvProblem {
                batch: 9,
                in_channels: 64,
                out_channels: 3,
                input: [16, 15],
                kernel: [3, 3],
                stride: [1, 1],
                padding: [[0, 0], [0, 0]],
                dilation: [1, 1],
                groups: 1,
            }
        },
        density: 1.0,
    };

    /// An image that is gathered in strips, the last of them lower.
    const STRIPS: Case = Case {
        name: "several_strips",
        problem: ConvProblem {
            batch: 2,
            in_channels: 64,
            out_channels: 5,
            input: [41, 40],
            kernel: [3, 3],
            stride: [1, 1],
            padding: [[1, 1], [1, 1]],
            dilation: [1, 1],
            groups: 1,
        },
        density: 1.0,
    };

    fn close(label: &str, actual: &[f32], expected: &[f64], terms: usize) {
        // Operands lie in [-1, 1).
        let bound = error_bound(terms + 1, terms as f64 + 1.0, f64::from(f32::EPSILON));
        assert_eq!(actual.len(), expected.len(), "{label}");
        for (index, (&a, &e)) in actual.iter().zip(expected).enumerate() {
            let off = (f64::from(a) - e).abs();
            assert!(off <= bound, "{label}: {a} at {index}, expected {e}");
        }
    }

    /// Ways to compute a layer, by name.
    type Conv = dyn Fn(&[f32], &[f32], Option<&[f32]>, &ConvProblem, &mut [f32]);
    type Grad = dyn Fn(&[f32], &[f32], &ConvProblem, &mut [f32]);

    fn check(name: &str, conv: &Conv, grad_input: &Grad, grad_weight: &Grad) {
        let cases = catalogue::AWKWARD.iter().chain([&BATCHES, &STRIPS]);
        for (seed, case) in cases.enumerate() {
            let label = format!("{name}, {}", case.name);
            let problem = &case.problem;
            let values = |shape: [usize; 4], seed| {
                catalogue::values(shape.iter().product(), 40 + 4 * seed as u64)
            };
            let input = values(problem.input_shape(), seed);
            let weight = values(problem.weight_shape(), seed + 1);
            let grad = values(problem.output_shape(), seed + 2);
            let bias = catalogue::values(problem.out_channels, seed as u64);

            let mut out = vec![f32::NAN; grad.len()];
            conv(&input, &weight, Some(&bias), problem, &mut out);
            let expected = reference::conv2d(&input, &weight, Some(&bias), problem);
            close(&label, &out, &expected, problem.row_len());

            let mut actual = vec![f32::NAN; input.len()];
            grad_input(&grad, &weight, problem, &mut actual);
            let expected = reference::conv2d_grad_input(&grad, &weight, problem);
            let terms = problem.out_channels * problem.kernel[0] * problem.kernel[1];
            close(&label, &actual, &expected, terms);

            let mut actual = vec![f32::NAN; weight.len()];
            grad_weight(&input, &grad, problem, &mut actual);
            let expected = reference::conv2d_grad_weight(&grad, &input, problem);
            let terms = grad.len() / problem.out_channels.max(1);
            close(&label, &actual, &expected, terms);
        }
    }

    #[test]
    fn matches_the_reference_with_its_gradients() {
        check(
            "chosen",
            &dense_conv,
            &dense_conv_grad_input,
            &dense_conv_grad_weight,
        );
    }

    #[test]
    fn matrix_products_match_the_reference() {
        check(
            "matrices",
            &matrices::conv,
            &matrices::grad_input,
            &matrices::grad_weight,
        );
    }

    #[test]
    fn direct_sums_match_the_reference_on_every_instruction_set() {
        for isa in Isa::ALL.into_iter().filter(|isa| isa.is_available()) {
            check(
                isa.name(),
                &move |input, weight, bias, problem, out| {
                    if !direct::conv(input, weight, bias, problem, isa, out) {
                        matrices::conv(input, weight, bias, problem, out);
                    }
                },
                &move |grad, weight, problem, out| {
                    if !direct::grad_input(grad, weight, problem, isa, out) {
                        matrices::grad_input(grad, weight, problem, out);
                    }
                },
                &move |input, grad, problem, out| {
                    direct::grad_weight(input, grad, problem, isa, out)
                },
            );
        }
    }

    /// Which way is taken is a question of speed alone, but must not depend on anything else than the shape.
    #[test]
    fn few_channels_go_directly_and_many_weights_on_few_pixels_do_not() {
        let narrow = ConvProblem::new(64, [16, 16], [34, 34], [3, 3]);
        let late = ConvProblem::new(64, [512, 512], [6, 6], [3, 3]);
        assert!(is_direct(&narrow) && is_direct_for_weights(&narrow));
        assert!(!is_direct(&late) && !is_direct_for_weights(&late));
    }

    #[test]
    fn a_nan_spreads_to_the_outputs_that_see_it_and_no_further() {
        let problem = ConvProblem::new(2, [2, 2], [4, 4], [3, 3]);
        let mut input = vec![1.0; 64];
        input[63] = f32::NAN;
        let mut out = vec![0.0; 16];
        dense_conv(&input, &[0.5; 36], None, &problem, &mut out);
        let nan: Vec<usize> = (0..16).filter(|&i| out[i].is_nan()).collect();
        assert_eq!(nan, [11, 15]);
    }
}
