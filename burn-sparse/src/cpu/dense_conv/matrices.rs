//! Dense convolution and its gradients as matrix products over many images at once.
//!
//! With the images side by side, late layers of a network, of few pixels and many weights, read
//! their weights once per batch instead of once per image.

use crate::{
    ConvProblem,
    cpu::{
        columns::Columns,
        gemm::{Matrix, Output, gemm},
        team,
    },
};

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

/// [`dense_conv`](super::dense_conv) by matrix products.
pub(super) fn conv(
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
        let least = 4096_usize.div_ceil(pixels);
        team::chunks(out, pixels, least, |index, out| {
            let bias = bias[index % problem.out_channels];
            out.iter_mut().for_each(|out| *out += bias);
        });
    }
}

/// [`dense_conv_grad_input`](super::dense_conv_grad_input) by matrix products.
pub(super) fn grad_input(grad: &[f32], weight: &[f32], problem: &ConvProblem, out: &mut [f32]) {
    out.fill(0.0);
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
                columns.scatter_add(sums, out);
            }
        }
    });
}

/// [`dense_conv_grad_weight`](super::dense_conv_grad_weight) by matrix products.
pub(super) fn grad_weight(input: &[f32], grad: &[f32], problem: &ConvProblem, out: &mut [f32]) {
    out.fill(0.0);
    let (mut scratch, mut matrix) = (Scratch::default(), Vec::new());
    Columns::each(problem, |columns| {
        let grad = outputs(columns, grad, &mut matrix);
        let columns_of_input = scratch.columns(columns, input).transpose();
        let out = Output::new(&mut out[columns.weights()], problem.row_len());
        gemm(out, grad, columns_of_input, true);
    });
}
