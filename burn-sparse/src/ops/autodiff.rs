//! Gradients, the same for every backend.
//!
//! The product is one node of the graph, with input and values as parents; bias, residual and
//! activation follow as Burn's own operations while gradients are recorded, and are fused into
//! the kernel when they are not.

use burn::backend::{
    Backend, TensorMetadata,
    ops::{ActivationOps, FloatTensorOps},
    tensor::{FloatTensor, IntTensor},
};
use burn::tensor::Shape;
use burn_autodiff::{
    Autodiff, NodeId,
    checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
    grads::Gradients,
    ops::{Backward, Ops, OpsKind},
};

use super::{OptionalFloat, OptionalInt, Pattern, SparseOps};
use crate::ConvProblem;

const NO_INDICES: &str = "a sparse operation on an autodiff device comes with its indices";

/// What the backward pass of a product needs besides the checkpointed input and values.
#[derive(Debug)]
struct Saved<B: Backend> {
    input: NodeId,
    values: NodeId,
    offsets: IntTensor<B>,
    row_ptr: IntTensor<B>,
    transpose: IntTensor<B>,
}

impl<B: Backend> Clone for Saved<B> {
    fn clone(&self) -> Self {
        Self {
            input: self.input,
            values: self.values,
            offsets: self.offsets.clone(),
            row_ptr: self.row_ptr.clone(),
            transpose: self.transpose.clone(),
        }
    }
}

#[derive(Debug)]
struct SparseConv;

impl<B: SparseOps> Backward<B, 2> for SparseConv {
    type State = (Saved<B>, ConvProblem);

    fn backward(
        self,
        ops: Ops<Self::State, 2>,
        grads: &mut Gradients,
        checkpointer: &mut Checkpointer,
    ) {
        let grad = grads.consume::<B>(&ops.node);
        let [input_node, values_node] = ops.parents;
        let (saved, problem) = ops.state;
        let input = checkpointer.retrieve_node_output::<FloatTensor<B>>(saved.input);
        let values = checkpointer.retrieve_node_output::<FloatTensor<B>>(saved.values);
        if let Some(node) = values_node {
            let (offsets, row_ptr) = (saved.offsets.clone(), saved.row_ptr.clone());
            let grad = B::sparse_conv_grad_values(input, grad.clone(), offsets, row_ptr, problem);
            grads.register::<B>(node.id, grad);
        }
        if let Some(node) = input_node {
            let grad = B::sparse_conv_grad_input(
                grad,
                values,
                saved.offsets,
                saved.row_ptr,
                saved.transpose,
                problem,
            );
            grads.register::<B>(node.id, grad);
        }
    }
}

/// The linear map is a 1x1 convolution of one image whose pixels are the rows of `x`.
#[derive(Debug)]
struct SparseLinear;

impl<B: SparseOps> Backward<B, 2> for SparseLinear {
    type State = (Saved<B>, [usize; 3]);

    fn backward(
        self,
        ops: Ops<Self::State, 2>,
        grads: &mut Gradients,
        checkpointer: &mut Checkpointer,
    ) {
        let grad = grads.consume::<B>(&ops.node);
        let [input_node, values_node] = ops.parents;
        let (saved, [m, d_input, d_output]) = ops.state;
        let input = checkpointer.retrieve_node_output::<FloatTensor<B>>(saved.input);
        let values = checkpointer.retrieve_node_output::<FloatTensor<B>>(saved.values);
        let problem = ConvProblem::new(1, [d_input, d_output], [1, m], [1, 1]);
        let image = |x: FloatTensor<B>, channels: usize| {
            B::float_reshape(B::float_transpose(x), Shape::new([1, channels, 1, m]))
        };
        let offsets = B::int_mul_scalar(saved.offsets, (m as i64).into());
        let grad = image(grad, d_output);
        if let Some(node) = values_node {
            let grad = B::sparse_conv_grad_values(
                image(input, d_input),
                grad.clone(),
                offsets.clone(),
                saved.row_ptr.clone(),
                problem,
            );
            grads.register::<B>(node.id, grad);
        }
        if let Some(node) = input_node {
            let grad = B::sparse_conv_grad_input(
                grad,
                values,
                offsets,
                saved.row_ptr,
                saved.transpose,
                problem,
            );
            let grad = B::float_reshape(grad, Shape::new([d_input, m]));
            grads.register::<B>(node.id, B::float_transpose(grad));
        }
    }
}

/// `act(y + bias + residual)` as recorded operations.
pub(super) fn finish<B: Backend, C: CheckpointStrategy>(
    y: FloatTensor<Autodiff<B, C>>,
    bias: Option<FloatTensor<Autodiff<B, C>>>,
    residual: Option<FloatTensor<Autodiff<B, C>>>,
    relu: bool,
) -> FloatTensor<Autodiff<B, C>> {
    let mut y = y;
    if let Some(bias) = bias {
        let mut shape = vec![1; y.shape().num_dims()];
        shape[1] = bias.shape()[0];
        y = Autodiff::<B, C>::float_add(
            y,
            Autodiff::<B, C>::float_reshape(bias, Shape::from(shape)),
        );
    }
    if let Some(residual) = residual {
        y = Autodiff::<B, C>::float_add(y, residual);
    }
    if relu { Autodiff::<B, C>::relu(y) } else { y }
}

impl<B: SparseOps, C: CheckpointStrategy> SparseOps for Autodiff<B, C> {
    fn sparse_conv(
        input: FloatTensor<Self>,
        values: FloatTensor<Self>,
        offsets: OptionalInt<Self>,
        row_ptr: OptionalInt<Self>,
        transpose: OptionalInt<Self>,
        panels: OptionalInt<Self>,
        bias: OptionalFloat<Self>,
        residual: OptionalFloat<Self>,
        pattern: Pattern,
        problem: ConvProblem,
        relu: bool,
    ) -> FloatTensor<Self> {
        let (offsets, row_ptr) = (offsets.into_option(), row_ptr.into_option());
        let panels = panels.into_option();
        let product = |input: FloatTensor<B>, values: FloatTensor<B>| {
            B::sparse_conv(
                input,
                values,
                offsets.clone().into(),
                row_ptr.clone().into(),
                OptionalInt::Absent,
                panels.clone().into(),
                OptionalFloat::Absent,
                OptionalFloat::Absent,
                pattern.clone(),
                problem,
                false,
            )
        };
        let prep = SparseConv
            .prepare::<C>([input.node(), values.node()])
            .compute_bound();
        let y = match prep.stateful() {
            OpsKind::Tracked(mut prep) => {
                let saved = Saved {
                    input: prep.checkpoint(&input),
                    values: prep.checkpoint(&values),
                    offsets: offsets.clone().expect(NO_INDICES),
                    row_ptr: row_ptr.clone().expect(NO_INDICES),
                    transpose: transpose.clone().into_option().expect(NO_INDICES),
                };
                let y = product(input.into_primitive(), values.into_primitive());
                prep.finish((saved, problem), y)
            }
            OpsKind::UnTracked(prep) => {
                prep.finish(product(input.into_primitive(), values.into_primitive()))
            }
        };
        finish::<B, C>(y, bias.into_option(), residual.into_option(), relu)
    }

    fn sparse_conv_grad_input(
        _grad: FloatTensor<Self>,
        _values: FloatTensor<Self>,
        _offsets: IntTensor<Self>,
        _row_ptr: IntTensor<Self>,
        _transpose: IntTensor<Self>,
        _problem: ConvProblem,
    ) -> FloatTensor<Self> {
        panic!("the gradient of a sparse convolution has no gradient of its own");
    }

    fn sparse_conv_grad_values(
        _input: FloatTensor<Self>,
        _grad: FloatTensor<Self>,
        _offsets: IntTensor<Self>,
        _row_ptr: IntTensor<Self>,
        _problem: ConvProblem,
    ) -> FloatTensor<Self> {
        panic!("the gradient of a sparse convolution has no gradient of its own");
    }

    fn sparse_linear(
        input: FloatTensor<Self>,
        values: FloatTensor<Self>,
        columns: IntTensor<Self>,
        row_ptr: IntTensor<Self>,
        transpose: OptionalInt<Self>,
        panels: OptionalInt<Self>,
        _codes: OptionalInt<Self>,
        bias: OptionalFloat<Self>,
        residual: OptionalFloat<Self>,
        pattern: Pattern,
        relu: bool,
    ) -> FloatTensor<Self> {
        let [m, d_input] = input.shape().dims();
        let rows = pattern.csr().rows();
        let panels = panels.into_option();
        let product = |input: FloatTensor<B>, values: FloatTensor<B>| {
            let (columns, row_ptr) = (columns.clone(), row_ptr.clone());
            B::sparse_linear(
                input,
                values,
                columns,
                row_ptr,
                OptionalInt::Absent,
                panels.clone().into(),
                OptionalInt::Absent,
                OptionalFloat::Absent,
                OptionalFloat::Absent,
                pattern.clone(),
                false,
            )
        };
        let prep = SparseLinear
            .prepare::<C>([input.node(), values.node()])
            .compute_bound();
        let y = match prep.stateful() {
            OpsKind::Tracked(mut prep) => {
                let saved = Saved {
                    input: prep.checkpoint(&input),
                    values: prep.checkpoint(&values),
                    offsets: columns.clone(),
                    row_ptr: row_ptr.clone(),
                    transpose: transpose.clone().into_option().expect(NO_INDICES),
                };
                let y = product(input.into_primitive(), values.into_primitive());
                prep.finish((saved, [m, d_input, rows]), y)
            }
            OpsKind::UnTracked(prep) => {
                prep.finish(product(input.into_primitive(), values.into_primitive()))
            }
        };
        finish::<B, C>(y, bias.into_option(), residual.into_option(), relu)
    }
}
