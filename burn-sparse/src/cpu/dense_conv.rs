//! Dense convolution and its gradients as matrix products over many images at once.
//!
//! With the images side by side, late layers of a network, of few pixels and many weights, read
//! their weights once per batch instead of once per image.

use rayon::prelude::*;

use super::columns::Columns;
use super::gemm::{Matrix, Output, gemm};
use crate::ConvProblem;

/// Room for the matrices, reused for all batches of a call.
#[derive(Default)]
struct Scratch {
    columns: Vec<f32>,
    outputs: Vec<f32>,
}

fn room(vec: &mut Vec<f32>, len: usize) -> &mut [f32] {
    if vec.len() < len {
        vec.resize(len, 0.0);
    }
    &mut vec[..len]
}

impl Scratch {
    fn columns<'a>(&'a mut self, columns: &Columns<'_>, input: &'a [f32]) -> Matrix<'a> {
        match columns.inputs() {
            Some(range) => Matrix::new(&input[range], columns.shape()),
            None => {
                let matrix = room(&mut self.columns, columns.len());
                columns.gather(input, matrix);
                Matrix::with_stride(matrix, columns.shape(), columns.stride())
            }
        }
    }
}

fn output_shape(columns: &Columns<'_>) -> [usize; 2] {
    [columns.channels().len(), columns.shape()[1]]
}

/// The gradient of the outputs as a matrix, in `matrix` where it is not one already.
fn outputs<'a>(columns: &Columns<'_>, grad: &'a [f32], matrix: &'a mut Vec<f32>) -> Matrix<'a> {
    let shape = output_shape(columns);
    match columns.outputs() {
        Some(range) => Matrix::new(&grad[range], shape),
        None => {
            let matrix = room(matrix, shape[0] * columns.stride());
            columns.gather_outputs(grad, matrix);
            Matrix::with_stride(matrix, shape, columns.stride())
        }
    }
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
    let mut scratch = Scratch::default();
    let mut sums = Vec::new();
    Columns::each(problem, |columns| {
        let shape = [columns.channels().len(), problem.row_len()];
        let weight = Matrix::new(&weight[columns.weights()], shape);
        let matrix = scratch.columns(columns, input);
        match columns.outputs() {
            Some(range) => {
                let out = Output::new(&mut out[range], columns.shape()[1]);
                gemm(out, weight, matrix, false);
            }
            None => {
                let stride = columns.stride();
                let sums = room(&mut sums, output_shape(columns)[0] * stride);
                gemm(Output::with_stride(sums, stride), weight, matrix, false);
                columns.scatter_outputs(sums, out);
            }
        }
    });
    let pixels: usize = problem.output().iter().product();
    if let Some(bias) = bias.filter(|_| pixels > 0) {
        let channels = out.par_chunks_mut(pixels).enumerate();
        channels
            .with_min_len(4096_usize.div_ceil(pixels))
            .for_each(|(index, out)| {
                let bias = bias[index % problem.out_channels];
                out.iter_mut().for_each(|out| *out += bias);
            });
    }
}

/// The gradient of [`dense_conv`] for its input.
///
/// # Panics
/// As [`dense_conv`].
pub fn dense_conv_grad_input(grad: &[f32], weight: &[f32], problem: &ConvProblem) -> Vec<f32> {
    let mut out = vec![0.0; problem.input_shape().iter().product()];
    let mut scratch = Scratch::default();
    Columns::each(problem, |columns| {
        let shape = [columns.channels().len(), problem.row_len()];
        let weight = Matrix::new(&weight[columns.weights()], shape).transpose();
        let grad = outputs(columns, grad, &mut scratch.outputs);
        match columns.inputs() {
            Some(range) => {
                let out = Output::new(&mut out[range], columns.shape()[1]);
                gemm(out, weight, grad, false);
            }
            None => {
                let sums = room(&mut scratch.columns, columns.len());
                let to = Output::with_stride(sums, columns.stride());
                gemm(to, weight, grad, false);
                columns.scatter_add(sums, &mut out);
            }
        }
    });
    out
}

/// The gradient of [`dense_conv`] for its weight.
///
/// # Panics
/// As [`dense_conv`].
pub fn dense_conv_grad_weight(input: &[f32], grad: &[f32], problem: &ConvProblem) -> Vec<f32> {
    let mut out = vec![0.0; problem.weight_shape().iter().product()];
    let (mut scratch, mut matrix) = (Scratch::default(), Vec::new());
    Columns::each(problem, |columns| {
        let grad = outputs(columns, grad, &mut matrix);
        let columns_of_input = scratch.columns(columns, input).transpose();
        let out = Output::new(&mut out[columns.weights()], problem.row_len());
        gemm(out, grad, columns_of_input, true);
    });
    out
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

    fn close(label: &str, actual: &[f32], expected: &[f64], terms: usize) {
        // Operands lie in [-1, 1).
        let bound = error_bound(terms + 1, terms as f64 + 1.0, f64::from(f32::EPSILON));
        assert_eq!(actual.len(), expected.len(), "{label}");
        for (index, (&a, &e)) in actual.iter().zip(expected).enumerate() {
            let off = (f64::from(a) - e).abs();
            assert!(off <= bound, "{label}: {a} at {index}, expected {e}");
        }
    }

    #[test]
    fn matches_the_reference_with_its_gradients() {
        let cases = catalogue::AWKWARD.iter().chain([&BATCHES]);
        for (seed, case) in cases.enumerate() {
            let problem = &case.problem;
            let values = |shape: [usize; 4], seed| {
                catalogue::values(shape.iter().product(), 40 + 4 * seed as u64)
            };
            let input = values(problem.input_shape(), seed);
            let weight = values(problem.weight_shape(), seed + 1);
            let grad = values(problem.output_shape(), seed + 2);
            let bias = catalogue::values(problem.out_channels, seed as u64);

            let mut out = vec![f32::NAN; grad.len()];
            dense_conv(&input, &weight, Some(&bias), problem, &mut out);
            let expected = reference::conv2d(&input, &weight, Some(&bias), problem);
            close(case.name, &out, &expected, problem.row_len());

            let actual = dense_conv_grad_input(&grad, &weight, problem);
            let expected = reference::conv2d_grad_input(&grad, &weight, problem);
            let terms = problem.out_channels * problem.kernel[0] * problem.kernel[1];
            close(case.name, &actual, &expected, terms);

            let actual = dense_conv_grad_weight(&input, &grad, problem);
            let expected = reference::conv2d_grad_weight(&grad, &input, problem);
            let terms = grad.len() / problem.out_channels.max(1);
            close(case.name, &actual, &expected, terms);
        }
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
