//! Burn's pure-Rust CPU backend.

use burn::backend::{
    TensorMetadata,
    ops::FloatTensorOps,
    tensor::{FloatTensor, IntTensor},
};
use burn::tensor::{DType, FloatDType, TensorData};
use burn_flex::{Flex, FlexTensor};

use super::{
    DenseOps, OptionalFloat, OptionalInt, Pattern, SparseOps,
    flex_memory::{Output, images},
};
use crate::{
    ConvProblem,
    cpu::{self, Entries, Finish, Images},
};

/// The kernels compute in f32: other dtypes are converted, and back by [`restore`].
fn f32s(tensor: FlexTensor) -> FlexTensor {
    let tensor = match tensor.dtype() {
        DType::F32 => tensor,
        _ => Flex::float_cast(tensor, FloatDType::F32),
    };
    if tensor.is_contiguous() && tensor.layout().start_offset() == 0 {
        tensor
    } else {
        tensor.to_contiguous()
    }
}

fn restore(out: Vec<f32>, shape: impl Into<Vec<usize>>, dtype: DType) -> FlexTensor {
    restore_dtype(
        FlexTensor::from_data(TensorData::new(out, shape.into())),
        dtype,
    )
}

fn restore_dtype(out: FlexTensor, dtype: DType) -> FlexTensor {
    match dtype {
        DType::F32 => out,
        other => Flex::float_cast(out, other.into()),
    }
}

fn slice(tensor: &FlexTensor) -> &[f32] {
    &tensor.storage::<f32>()[..tensor.shape().num_elements()]
}

fn indices(tensor: &FlexTensor) -> &[i32] {
    &tensor.storage::<i32>()[..tensor.shape().num_elements()]
}

/// As images, copied only if its rows are scattered.
fn rows(tensor: FlexTensor) -> FlexTensor {
    if images(&tensor).is_some() {
        tensor
    } else {
        tensor.to_contiguous()
    }
}

fn f32_rows(tensor: FlexTensor) -> FlexTensor {
    match tensor.dtype() {
        DType::F32 => rows(tensor),
        _ => rows(Flex::float_cast(tensor, FloatDType::F32)),
    }
}

const ROWS: &str = "copied until its rows follow each other";

impl SparseOps for Flex {
    fn sparse_conv(
        input: FloatTensor<Self>,
        values: FloatTensor<Self>,
        _offsets: OptionalInt<Self>,
        _row_ptr: OptionalInt<Self>,
        _transpose: OptionalInt<Self>,
        bias: OptionalFloat<Self>,
        residual: OptionalFloat<Self>,
        pattern: Pattern,
        problem: ConvProblem,
        relu: bool,
    ) -> FloatTensor<Self> {
        let dtype = input.dtype();
        let (input, values) = (f32_rows(input), f32s(values));
        let bias = bias.into_option().map(f32s);
        let residual = residual.into_option().map(f32_rows);
        let direct = pattern
            .direct(&problem, slice(&values), values.data_arc())
            .unwrap_or_else(|error| panic!("sparse_conv2d: {error}"));
        let finish = Finish {
            bias: bias.as_ref().map(slice),
            residual: residual.as_ref().map(|r| images(r).expect(ROWS)),
            relu,
        };
        // Whoever fuses the activation goes on with a layer of this crate, most likely; Burn's own
        // operations are faster on contiguous tensors.
        let mut out = Output::new(problem.output_shape(), relu && dtype == DType::F32);
        let input = images(&input).expect(ROWS);
        direct.run(problem.batch, input, finish, out.images());
        restore_dtype(out.into_tensor(), dtype)
    }

    fn sparse_conv_grad_input(
        grad: FloatTensor<Self>,
        values: FloatTensor<Self>,
        offsets: IntTensor<Self>,
        row_ptr: IntTensor<Self>,
        transpose: IntTensor<Self>,
        problem: ConvProblem,
    ) -> FloatTensor<Self> {
        let dtype = grad.dtype();
        let (grad, values) = (f32s(grad), f32s(values));
        let entries = Entries {
            values: slice(&values),
            offsets: indices(&offsets),
            row_ptr: indices(&row_ptr),
        };
        let out = cpu::sparse_conv_grad_input(slice(&grad), entries, indices(&transpose), &problem);
        restore(out, problem.input_shape(), dtype)
    }

    fn sparse_conv_grad_values(
        input: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        offsets: IntTensor<Self>,
        row_ptr: IntTensor<Self>,
        problem: ConvProblem,
    ) -> FloatTensor<Self> {
        let dtype = grad.dtype();
        let (input, grad) = (f32s(input), f32s(grad));
        let (offsets, row_ptr) = (indices(&offsets), indices(&row_ptr));
        let out =
            cpu::sparse_conv_grad_values(slice(&input), slice(&grad), offsets, row_ptr, &problem);
        let len = out.len();
        restore(out, [len], dtype)
    }

    fn sparse_linear(
        input: FloatTensor<Self>,
        values: FloatTensor<Self>,
        columns: IntTensor<Self>,
        row_ptr: IntTensor<Self>,
        _transpose: OptionalInt<Self>,
        bias: OptionalFloat<Self>,
        residual: OptionalFloat<Self>,
        rows: usize,
        relu: bool,
    ) -> FloatTensor<Self> {
        let dtype = input.dtype();
        let [m, d_input] = input.shape().dims();
        let (input, values) = (f32s(input), f32s(values));
        let bias = bias.into_option().map(f32s);
        let residual = residual.into_option().map(f32s);
        let entries = Entries {
            values: slice(&values),
            offsets: indices(&columns),
            row_ptr: indices(&row_ptr),
        };
        let finish = Finish {
            bias: bias.as_ref().map(slice),
            residual: residual
                .as_ref()
                .map(|r| Images::contiguous(slice(r), [rows, 1])),
            relu,
        };
        let mut out = vec![0.0; m * rows];
        cpu::sparse_linear(slice(&input), d_input, entries, finish, &mut out);
        restore(out, [m, rows], dtype)
    }
}

impl DenseOps for Flex {
    fn dense_linear(
        input: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: OptionalFloat<Self>,
    ) -> FloatTensor<Self> {
        // Nobody calls it for anything else; see the function of the same name.
        let [rows, d_input]: [usize; 2] = input.shape().dims();
        let [_, d_output]: [usize; 2] = weight.shape().dims();
        let (input, weight) = (f32s(input), f32s(weight));
        let bias = bias.into_option().map(f32s);
        let mut out = vec![0.0; rows * d_output];
        for row in 0..rows {
            cpu::dense_linear_row(
                &slice(&input)[row * d_input..][..d_input],
                slice(&weight),
                bias.as_ref().map(slice),
                &mut out[row * d_output..][..d_output],
            );
        }
        restore(out, [rows, d_output], DType::F32)
    }

    fn max_pool(input: FloatTensor<Self>, problem: ConvProblem) -> FloatTensor<Self> {
        let dtype = input.dtype();
        let input = f32_rows(input);
        // Planes on cache lines stay so.
        let mut out = Output::new(problem.output_shape(), !input.is_contiguous());
        cpu::max_pool(images(&input).expect(ROWS), &problem, out.images());
        restore_dtype(out.into_tensor(), dtype)
    }

    fn dense_conv(
        input: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: OptionalFloat<Self>,
        problem: ConvProblem,
    ) -> FloatTensor<Self> {
        let dtype = input.dtype();
        let (input, weight) = (f32s(input), f32s(weight));
        let bias = bias.into_option().map(f32s);
        let bias = bias.as_ref().map(slice);
        let mut out = vec![0.0; problem.output_shape().iter().product()];
        cpu::dense_conv(slice(&input), slice(&weight), bias, &problem, &mut out);
        restore(out, problem.output_shape(), dtype)
    }

    fn dense_conv_grad_input(
        _input: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        problem: ConvProblem,
    ) -> FloatTensor<Self> {
        let dtype = grad.dtype();
        let (grad, weight) = (f32s(grad), f32s(weight));
        let out = cpu::dense_conv_grad_input(slice(&grad), slice(&weight), &problem);
        restore(out, problem.input_shape(), dtype)
    }

    fn dense_conv_grad_weight(
        input: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        _weight: FloatTensor<Self>,
        problem: ConvProblem,
    ) -> FloatTensor<Self> {
        let dtype = grad.dtype();
        let (input, grad) = (f32s(input), f32s(grad));
        let out = cpu::dense_conv_grad_weight(slice(&input), slice(&grad), &problem);
        restore(out, problem.weight_shape(), dtype)
    }
}
