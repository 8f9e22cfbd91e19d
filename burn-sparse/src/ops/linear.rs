//! Sparse linear map.

use burn::backend::Dispatch;
use burn::tensor::Tensor;

use super::{Activation, Epilogue, SparseOps, SparseWeight, dense_conv::is_flex};

/// `y[.., k] = act(bias[k] + residual[.., k] + sum_i w[k, i] x[.., i])` over the stored entries of
/// `weight`, whose rows are output features.
///
/// # Shapes
/// - `input` `[.., d_input]`
/// - `weight`: `d_output` rows of `d_input`
/// - output and residual `[.., d_output]`
///
/// # Panics
/// If the last axis of `input` is not `d_input`, or bias or residual do not fit.
///
/// # Numerical behaviour
/// f32 sums. Differentiable for input, values, bias and residual.
///
/// f16 and bf16 tensors on a card may meet matrix units, if rows of the weight share inputs: those add in
/// an order of their own, and an infinite or NaN input reaches up to 16 outputs, as in a dense product.
pub fn sparse_linear<const D: usize>(
    input: Tensor<D>,
    weight: &SparseWeight,
    epilogue: Epilogue<D>,
) -> Tensor<D> {
    let mut shape = input.dims();
    let (d_input, d_output) = (weight.row_len(), weight.rows());
    assert!(
        D > 0 && shape[D - 1] == d_input,
        "sparse_linear: input {shape:?} for a weight of {d_output} rows by {d_input}"
    );
    shape[D - 1] = d_output;
    epilogue.check("sparse_linear", shape, D - 1);
    let m: usize = shape[..D - 1].iter().product();
    let device = input.device();
    let pattern = weight.pattern();
    let recording = device.is_autodiff() || weight.values().is_autodiff();
    let transpose = recording.then(|| pattern.transpose(1, 1, &device));
    let panels = match is_flex(&device) {
        true => None,
        false => pattern.panels(1, 1, &device),
    };
    let codes = match is_flex(&device) || recording || !weight.as_packed() {
        true => None,
        false => pattern.codes(&device),
    };
    let flat = |tensor: Tensor<D>, len: usize| tensor.reshape([m, len]).into_dispatch();
    let out = Dispatch::sparse_linear(
        flat(input, d_input),
        weight.values().into_dispatch(),
        pattern.columns(&device).into_dispatch(),
        pattern.row_ptr(&device).into_dispatch(),
        transpose.map(Tensor::into_dispatch).into(),
        panels.map(Tensor::into_dispatch).into(),
        codes.map(Tensor::into_dispatch).into(),
        epilogue.bias.map(Tensor::into_dispatch).into(),
        epilogue
            .residual
            .map(|residual| flat(residual, d_output))
            .into(),
        pattern.clone(),
        epilogue.activation == Activation::Relu,
    );
    Tensor::<2>::from_dispatch(out).reshape(shape)
}
