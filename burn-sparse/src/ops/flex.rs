//! Burn's pure-Rust CPU backend.

use burn::backend::{
    TensorMetadata,
    ops::FloatTensorOps,
    tensor::{FloatTensor, IntTensor},
};
use burn::tensor::{DType, Element, FloatDType, TensorData};
use burn_flex::{Flex, FlexTensor};
use half::{bf16, f16};

use super::{
    BatchNormOps, CellOps, Chains, DenseOps, FactoredBy, FactoredOps, MomentsCell, OptionalFloat,
    OptionalInt, Pattern, SharedOps, SparseOps,
    batch_norm::{BatchNormBackward, BatchNormGrads},
    flex_fold,
    flex_memory::{Output, images, images_mut},
    pattern::Form,
};
use crate::{
    ConvProblem,
    cpu::{
        self, Affine, ChainWeights, Entries, Finish, Images, Moments, Residual, Storage, Upstream,
        padded_plane,
    },
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
    if out.dtype() == dtype {
        out
    } else {
        Flex::float_cast(out, dtype.into())
    }
}

pub(super) fn slice(tensor: &FlexTensor) -> &[f32] {
    &tensor.storage::<f32>()[..tensor.shape().num_elements()]
}

fn indices(tensor: &FlexTensor) -> &[i32] {
    &tensor.storage::<i32>()[..tensor.shape().num_elements()]
}

/// As images, copied only if its rows are scattered.
fn rows<T: Storage + Element>(tensor: FlexTensor) -> FlexTensor {
    if images::<T>(&tensor).is_some() {
        tensor
    } else {
        tensor.to_contiguous()
    }
}

fn f32_rows(tensor: FlexTensor) -> FlexTensor {
    match tensor.dtype() {
        DType::F32 => rows::<f32>(tensor),
        _ => rows::<f32>(Flex::float_cast(tensor, FloatDType::F32)),
    }
}

pub(super) const ROWS: &str = "copied until its rows follow each other";

/// Operands of a convolution that are f32 whatever the images are.
pub(super) struct Weights {
    pub(super) values: FlexTensor,
    pub(super) bias: Option<FlexTensor>,
    pub(super) pattern: Pattern,
}

/// [`SparseOps::sparse_conv`] on images of one type.
fn conv<T: Storage + Element>(
    input: FlexTensor,
    weights: &Weights,
    residual: Option<FlexTensor>,
    problem: &ConvProblem,
    relu: bool,
) -> FlexTensor {
    let input = rows::<T>(input);
    let mut residual = residual.map(rows::<T>);
    let floats = T::dtype() == DType::F32;
    if floats && let Some(fold) = flex_fold::of(&input, residual.as_ref(), problem, relu) {
        return flex_fold::conv(&input, weights, residual, problem, fold, relu);
    }
    let Weights {
        values,
        bias,
        pattern,
    } = weights;
    let direct = pattern
        .direct(
            Form::images(problem).copying(!floats),
            slice(values),
            values.data_arc(),
        )
        .unwrap_or_else(|error| panic!("sparse_conv2d: {error}"));
    let bias = bias.as_ref().map(slice);
    let batch = problem.batch;
    // Whoever fuses the activation goes on with a layer of this crate, most likely; Burn's own
    // operations are faster on contiguous tensors.
    let padded = relu && floats;
    // A residual that nobody else holds becomes the output: one feature map less in the caches.
    let suits = |residual: &mut FlexTensor| {
        let images = images_mut::<T>(residual);
        images.is_some_and(|i| !padded || i.channel_stride == padded_plane(problem.output()))
    };
    if let Some(mut out) = residual.take_if(suits) {
        let finish = Finish {
            bias,
            residual: Residual::Output,
            relu,
        };
        let target = images_mut(&mut out).expect("as was just asked");
        direct.run(batch, images::<T>(&input).expect(ROWS), finish, target);
        return out;
    }
    let finish = Finish {
        bias,
        residual: match &residual {
            Some(residual) => Residual::Images(images(residual).expect(ROWS)),
            None => Residual::None,
        },
        relu,
    };
    let mut out = Output::<T>::new(problem.output_shape(), padded);
    let input = images(&input).expect(ROWS);
    direct.run(batch, input, finish, out.images());
    out.into_tensor()
}

impl SparseOps for Flex {
    fn sparse_conv(
        input: FloatTensor<Self>,
        values: FloatTensor<Self>,
        _offsets: OptionalInt<Self>,
        _row_ptr: OptionalInt<Self>,
        _transpose: OptionalInt<Self>,
        _panels: OptionalInt<Self>,
        bias: OptionalFloat<Self>,
        residual: OptionalFloat<Self>,
        pattern: Pattern,
        problem: ConvProblem,
        relu: bool,
    ) -> FloatTensor<Self> {
        let dtype = input.dtype();
        let weights = Weights {
            values: f32s(values),
            bias: bias.into_option().map(f32s),
            pattern,
        };
        let residual = residual.into_option();
        let kind = match dtype {
            DType::F16 => conv::<f16>,
            DType::BF16 => conv::<bf16>,
            _ => conv::<f32>,
        };
        // f64 has no kernel of its own, and a residual may be of another type than the input.
        let runs = match dtype {
            DType::F16 | DType::BF16 => dtype,
            _ => DType::F32,
        };
        let cast = |tensor: FlexTensor| match tensor.dtype() {
            same if same == runs => tensor,
            _ => Flex::float_cast(tensor, runs.into()),
        };
        let out = kind(cast(input), &weights, residual.map(cast), &problem, relu);
        restore_dtype(out, dtype)
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
        _panels: OptionalInt<Self>,
        _codes: OptionalInt<Self>,
        bias: OptionalFloat<Self>,
        residual: OptionalFloat<Self>,
        pattern: Pattern,
        relu: bool,
    ) -> FloatTensor<Self> {
        let dtype = input.dtype();
        let [m, d_input] = input.shape().dims();
        let (input, values) = (f32s(input), f32s(values));
        let bias = bias.into_option().map(f32s);
        let residual = residual.into_option().map(f32s);
        let rows = pattern.csr().rows();
        let mut out = vec![0.0; m * rows];
        if m <= cpu::Bundles::MOST_VECTORS {
            let bundles = pattern.bundles(slice(&values), values.data_arc());
            let (bias, residual) = (bias.as_ref().map(slice), residual.as_ref().map(slice));
            for row in 0..m {
                let finish = cpu::RowFinish {
                    bias,
                    residual: residual.map(|residual| &residual[row * rows..][..rows]),
                    relu,
                };
                let x = &slice(&input)[row * d_input..][..d_input];
                bundles.run(x, finish, &mut out[row * rows..][..rows]);
            }
            return restore(out, [m, rows], dtype);
        }
        let entries = Entries {
            values: slice(&values),
            offsets: indices(&columns),
            row_ptr: indices(&row_ptr),
        };
        let finish = Finish {
            bias: bias.as_ref().map(slice),
            residual: match &residual {
                Some(residual) => Residual::Images(Images::contiguous(slice(residual), [rows, 1])),
                None => Residual::None,
            },
            relu,
        };
        cpu::sparse_linear(slice(&input), d_input, entries, finish, &mut out);
        restore(out, [m, rows], dtype)
    }
}

impl CellOps for Flex {
    fn gru_cell(
        inputs: FloatTensor<Self>,
        sums: FloatTensor<Self>,
        hidden: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        // Nobody calls it for anything else than f32; see the function of the same name.
        let [batch, d]: [usize; 2] = hidden.shape().dims();
        let [inputs, sums, hidden] = [inputs, sums, hidden].map(f32s);
        let mut out = vec![0.0; batch * d];
        for n in 0..batch {
            cpu::gru_cell(
                &slice(&inputs)[3 * n * d..][..3 * d],
                &slice(&sums)[3 * n * d..][..3 * d],
                &slice(&hidden)[n * d..][..d],
                &mut out[n * d..][..d],
            );
        }
        restore(out, [batch, d], DType::F32)
    }

    fn lstm_cell(sums: FloatTensor<Self>, cell: FloatTensor<Self>) -> FloatTensor<Self> {
        let [batch, d]: [usize; 2] = cell.shape().dims();
        let [sums, cell] = [sums, cell].map(f32s);
        let mut out = vec![0.0; 2 * batch * d];
        let (cells, hidden) = out.split_at_mut(batch * d);
        for n in 0..batch {
            cpu::lstm_cell(
                &slice(&sums)[4 * n * d..][..4 * d],
                &slice(&cell)[n * d..][..d],
                [&mut cells[n * d..][..d], &mut hidden[n * d..][..d]],
            );
        }
        restore(out, [2, batch, d], DType::F32)
    }
}

impl FactoredOps for Flex {
    fn factored_conv(
        input: FloatTensor<Self>,
        reduce: OptionalFloat<Self>,
        core: FloatTensor<Self>,
        expand: OptionalFloat<Self>,
        bias: OptionalFloat<Self>,
        residual: OptionalFloat<Self>,
        chains: Chains,
        problem: ConvProblem,
        relu: bool,
        _by: FactoredBy,
    ) -> FloatTensor<Self> {
        let input = rows::<f32>(input);
        let [reduce, bias] = [reduce, bias].map(|tensor| tensor.into_option().map(f32s));
        let (core, expand) = (f32s(core), expand.into_option().map(f32s));
        let [d2, d1, ..]: [usize; 4] = core.shape().dims();
        let weights = ChainWeights {
            reduce: reduce.as_ref().map(slice),
            core: slice(&core),
            expand: expand.as_ref().map(slice),
            ranks: [d1, d2],
        };
        let memory = [reduce.as_ref(), Some(&core), expand.as_ref()];
        let memory = memory.map(|tensor| tensor.map(FlexTensor::data_arc));
        let chain = chains
            .get(&problem, weights, memory)
            .unwrap_or_else(|error| panic!("factored_conv2d: {error}"));
        let residual = residual.into_option().map(rows::<f32>);
        let finish = Finish {
            bias: bias.as_ref().map(slice),
            residual: match &residual {
                Some(residual) => Residual::Images(images(residual).expect(ROWS)),
                None => Residual::None,
            },
            relu,
        };
        // As for packed layers: whoever fuses the activation goes on with a layer of this crate.
        let mut out = Output::<f32>::new(problem.output_shape(), relu);
        let input = images(&input).expect(ROWS);
        chain.run(problem.batch, input, finish, out.images());
        out.into_tensor()
    }
}

impl SharedOps for Flex {
    fn shared_conv(
        input: FloatTensor<Self>,
        basis: FloatTensor<Self>,
        values: FloatTensor<Self>,
        bias: OptionalFloat<Self>,
        residual: OptionalFloat<Self>,
        pattern: Pattern,
        problem: ConvProblem,
        relu: bool,
    ) -> FloatTensor<Self> {
        let input = rows::<f32>(input);
        let [basis, values] = [basis, values].map(f32s);
        let residual = residual.into_option().map(rows::<f32>);
        let bias = bias.into_option().map(f32s);
        let memory = [basis.data_arc(), values.data_arc()];
        let conv = pattern
            .shared(&problem, [slice(&basis), slice(&values)], memory)
            .unwrap_or_else(|error| panic!("shared_conv2d: {error}"));
        let finish = Finish {
            bias: bias.as_ref().map(slice),
            residual: match &residual {
                Some(residual) => Residual::Images(images::<f32>(residual).expect(ROWS)),
                None => Residual::None,
            },
            relu,
        };
        let mut out = Output::<f32>::new(problem.output_shape(), relu);
        let input = images::<f32>(&input).expect(ROWS);
        conv.run(problem.batch, input, finish, out.images());
        out.into_tensor()
    }
}

impl BatchNormOps for Flex {
    fn batch_norm_act(
        input: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        residual: OptionalFloat<Self>,
        moments: MomentsCell,
        epsilon: f32,
        relu: bool,
    ) -> FloatTensor<Self> {
        let [input, gamma, beta] = [input, gamma, beta].map(f32s);
        let residual = residual.into_option().map(f32s);
        let [batch, channels, height, width]: [usize; 4] = input.layout().shape().dims();
        let mut out = Output::<f32>::new([batch, channels, height, width], false);
        let affine = Affine {
            gamma: slice(&gamma),
            beta: slice(&beta),
            epsilon,
        };
        let residual = residual.as_ref().map(slice);
        let data = &mut out.images().data[..slice(&input).len()];
        let shape = [channels, height * width];
        let found = cpu::batch_norm_train(slice(&input), shape, affine, residual, relu, data);
        moments.set(found);
        out.into_tensor()
    }
}

impl BatchNormBackward for Flex {
    fn batch_norm_act_grads(
        input: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        moments: &Moments,
        epsilon: f32,
        output: Option<FloatTensor<Self>>,
        grad: FloatTensor<Self>,
        residual: bool,
    ) -> BatchNormGrads<Self> {
        let [input, gamma, grad] = [input, gamma, grad].map(f32s);
        let output = output.map(f32s);
        let shape: [usize; 4] = input.layout().shape().dims();
        let [_, channels, height, width] = shape;
        let mut input_grad = Output::<f32>::new(shape, false);
        let mut residual_grad = residual.then(|| Output::<f32>::new(shape, false));
        let len = slice(&input).len();
        let affine = Affine {
            gamma: slice(&gamma),
            beta: &[],
            epsilon,
        };
        let upstream = Upstream {
            grad: slice(&grad),
            output: output.as_ref().map(slice),
        };
        let [gamma_grad, beta_grad] = cpu::batch_norm_train_grad(
            slice(&input),
            [channels, height * width],
            affine,
            moments,
            upstream,
            &mut input_grad.images().data[..len],
            residual_grad
                .as_mut()
                .map(|grad| &mut grad.images().data[..len]),
        );
        BatchNormGrads {
            input: input_grad.into_tensor(),
            gamma: restore(gamma_grad, [channels], DType::F32),
            beta: restore(beta_grad, [channels], DType::F32),
            residual: residual_grad.map(Output::into_tensor),
        }
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
        let mut out = Output::<f32>::new(problem.output_shape(), !input.is_contiguous());
        cpu::max_pool(images(&input).expect(ROWS), &problem, out.images());
        restore_dtype(out.into_tensor(), dtype)
    }

    fn max_pool_grad(
        input: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        problem: ConvProblem,
    ) -> FloatTensor<Self> {
        let dtype = grad.dtype();
        let (input, grad) = (f32s(input), f32s(grad));
        let out = cpu::max_pool_grad(slice(&input), slice(&grad), &problem);
        restore(out, problem.input_shape(), dtype)
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
        let mut out = Output::<f32>::new(problem.output_shape(), false);
        let images = out.images().data;
        cpu::dense_conv(slice(&input), slice(&weight), bias, &problem, images);
        restore_dtype(out.into_tensor(), dtype)
    }

    fn dense_conv_grad_input(
        _input: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        problem: ConvProblem,
    ) -> FloatTensor<Self> {
        let dtype = grad.dtype();
        let (grad, weight) = (f32s(grad), f32s(weight));
        let mut out = Output::<f32>::new(problem.input_shape(), false);
        let images = out.images().data;
        cpu::dense_conv_grad_input(slice(&grad), slice(&weight), &problem, images);
        restore_dtype(out.into_tensor(), dtype)
    }

    fn dense_conv_grad_weight(
        input: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        _weight: FloatTensor<Self>,
        problem: ConvProblem,
    ) -> FloatTensor<Self> {
        let dtype = grad.dtype();
        let (input, grad) = (f32s(input), f32s(grad));
        let mut out = Output::<f32>::new(problem.weight_shape(), false);
        let images = out.images().data;
        cpu::dense_conv_grad_weight(slice(&input), slice(&grad), &problem, images);
        restore_dtype(out.into_tensor(), dtype)
    }
}
