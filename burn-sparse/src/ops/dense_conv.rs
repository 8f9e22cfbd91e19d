//! Dense convolution: what a layer runs until it is packed, and what packed layers compete with.

use burn::backend::{Backend, Dispatch, backend_extension, ops::ModuleOps, tensor::FloatTensor};
use burn::tensor::{
    DType, Device, Tensor,
    module::{conv2d, linear},
    ops::ConvOptions,
};
#[cfg(feature = "cubecl-backend")]
use burn::tensor::{IntDType, Shape};
use burn_autodiff::{
    Autodiff, NodeId,
    checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
    grads::Gradients,
    ops::{Backward, Ops, OpsKind},
};

use super::{ConvWindow, OptionalFloat, autodiff::finish};
use crate::ConvProblem;

/// Dense convolution and its gradients for a backend.
///
/// On Flex they are [our own](crate::cpu::dense_conv); the CubeCL runtimes have good ones, which
/// are called here.
#[backend_extension(
    Autodiff,
    Fusion: cfg(feature = "cubecl-backend"),
    Flex: cfg(feature = "flex"),
    Cube: cfg(feature = "cubecl-backend")
)]
pub trait DenseOps: Backend {
    /// `out[n,k,e,f] = bias[k] + sum_{c,r,s} w[k,c,r,s] x[n,c,e*u+r*d,f*v+s*d]`.
    #[fusion(dtype = input, shape = Shape::from(problem.output_shape()))]
    fn dense_conv(
        input: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        #[extension_type] bias: OptionalFloat<Self>,
        problem: ConvProblem,
    ) -> FloatTensor<Self>;

    /// `out[m,k] = bias[k] + sum_i x[m,i] w[i,k]`.
    #[fusion(dtype = input, shape = Shape::new([input[0], weight[1]]))]
    fn dense_linear(
        input: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        #[extension_type] bias: OptionalFloat<Self>,
    ) -> FloatTensor<Self>;

    /// `out[n,c,e,f] = max_{r,s} x[n,c,e*u+r*d,f*v+s*d]` over the elements that exist; `problem` has
    /// as many output as input channels.
    #[fusion(dtype = input, shape = Shape::from(problem.output_shape()))]
    fn max_pool(input: FloatTensor<Self>, problem: ConvProblem) -> FloatTensor<Self>;

    /// Gradient of [`max_pool`](Self::max_pool): of each window, the first of its largest elements gets
    /// that of the output.
    #[fusion(dtype = grad, shape = Shape::from(problem.input_shape()))]
    fn max_pool_grad(
        input: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        problem: ConvProblem,
    ) -> FloatTensor<Self>;

    /// Gradient of [`dense_conv`](Self::dense_conv) for its input, which is only read for its
    /// shape.
    #[fusion(dtype = grad, shape = Shape::from(problem.input_shape()))]
    fn dense_conv_grad_input(
        input: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        problem: ConvProblem,
    ) -> FloatTensor<Self>;

    /// Gradient of [`dense_conv`](Self::dense_conv) for its weight.
    #[fusion(dtype = grad, shape = Shape::from(problem.weight_shape()))]
    fn dense_conv_grad_weight(
        input: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        problem: ConvProblem,
    ) -> FloatTensor<Self>;
}

/// The dense convolution that [`sparse_conv2d`](super::sparse_conv2d) competes with:
/// `y[n,k,e,f] = bias[k] + sum_{c,r,s} w[k,c,r,s] x[n,c,e*u+r*d,f*v+s*d]`.
///
/// On Flex in f32 layers of few channels or many pixels run by a direct kernel, and of all others the images
/// of a batch are multiplied at once, which reads the weights of late, small layers once instead of once
/// per image; everything else is [`conv2d`] of Burn. Dense layers of [`nn`](crate::nn) train and run with it.
///
/// # Shapes
/// - `input` `[batch, in_channels, height, width]`
/// - `weight` `[out_channels, in_channels / groups, kernel height, kernel width]`
/// - `bias` `[out_channels]`
/// - output `[batch, out_channels, height_out, width_out]`
///
/// # Panics
/// On shapes that do not fit, with the numbers.
///
/// # Example
/// ```
/// use burn::tensor::{Device, Distribution, Tensor};
/// use burn_sparse::ops::{ConvWindow, dense_conv2d};
///
/// let device = Device::flex();
/// let x = Tensor::<4>::random([2, 3, 8, 8], Distribution::Default, &device);
/// let w = Tensor::<4>::random([5, 3, 3, 3], Distribution::Default, &device);
/// let y = dense_conv2d(x, w, None, &ConvWindow::new([3, 3]));
/// assert_eq!(y.dims(), [2, 5, 6, 6]);
/// ```
pub fn dense_conv2d(
    input: Tensor<4>,
    weight: Tensor<4>,
    bias: Option<Tensor<1>>,
    window: &ConvWindow<2>,
) -> Tensor<4> {
    let dims = weight.dims();
    let problem = window
        .problem(input.dims(), dims[0])
        .unwrap_or_else(|error| panic!("dense_conv2d: {error}"));
    let wanted = problem.weight_shape();
    assert_eq!(
        dims, wanted,
        "dense_conv2d: a weight {dims:?}, not {wanted:?}"
    );
    if input.dtype() == DType::F32 && weight.dtype() == DType::F32 && is_flex(&input.device()) {
        return Tensor::from_dispatch(Dispatch::dense_conv(
            input.into_dispatch(),
            weight.into_dispatch(),
            bias.map(Tensor::into_dispatch).into(),
            problem,
        ));
    }
    conv2d(input, weight, bias, options(&problem))
}

pub(crate) fn is_flex(device: &Device) -> bool {
    #[cfg(feature = "flex")]
    return *device == Device::flex();
    #[cfg(not(feature = "flex"))]
    return {
        let _ = device;
        false
    };
}

/// `y = x W + b`, as [`burn::tensor::module::linear`]; on Flex, a single row of f32 without gradients
/// is multiplied without packing the matrix first.
pub(crate) fn dense_linear<const D: usize>(
    input: Tensor<D>,
    weight: Tensor<2>,
    bias: Option<Tensor<1>>,
) -> Tensor<D> {
    let (mut shape, device) = (input.dims(), input.device());
    let [d_input, d_output] = weight.dims();
    let one_row = shape.iter().product::<usize>() == d_input;
    let plain = input.dtype() == DType::F32 && weight.dtype() == DType::F32;
    if !(one_row && plain && is_flex(&device) && !device.is_autodiff()) {
        return linear(input, weight, bias);
    }
    shape[D - 1] = d_output;
    let out = Dispatch::dense_linear(
        input.reshape([1, d_input]).into_dispatch(),
        weight.into_dispatch(),
        bias.map(Tensor::into_dispatch).into(),
    );
    Tensor::<2>::from_dispatch(out).reshape(shape)
}

fn options(problem: &ConvProblem) -> ConvOptions<2> {
    ConvOptions::new_with_padding(
        problem.stride,
        problem.padding.map(|[before, after]| (before, after)),
        problem.dilation,
        problem.groups,
    )
}

/// Burn's own, for the runtimes where it is good.
#[cfg(feature = "cubecl-backend")]
impl DenseOps for burn_cubecl::CubeBackend {
    fn dense_conv(
        input: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: OptionalFloat<Self>,
        problem: ConvProblem,
    ) -> FloatTensor<Self> {
        Self::conv2d(input, weight, bias.into_option(), options(&problem))
    }

    fn dense_linear(
        input: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: OptionalFloat<Self>,
    ) -> FloatTensor<Self> {
        <Self as ModuleOps<Self>>::linear(input, weight, bias.into_option())
    }

    fn max_pool(input: FloatTensor<Self>, problem: ConvProblem) -> FloatTensor<Self> {
        let (kernel, stride, padding, dilation) = pool_window(&problem);
        Self::max_pool2d(input, kernel, stride, padding, dilation, false)
    }

    fn max_pool_grad(
        input: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        problem: ConvProblem,
    ) -> FloatTensor<Self> {
        let (kernel, stride, padding, dilation) = pool_window(&problem);
        let x = input.clone();
        let int = IntDType::I32;
        let pooled =
            Self::max_pool2d_with_indices(x, kernel, stride, padding, dilation, false, int).indices;
        Self::max_pool2d_with_indices_backward(
            input, kernel, stride, padding, dilation, false, grad, pooled,
        )
        .x_grad
    }

    fn dense_conv_grad_input(
        input: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        problem: ConvProblem,
    ) -> FloatTensor<Self> {
        Self::conv2d_x_backward(input, weight, grad, options(&problem))
    }

    fn dense_conv_grad_weight(
        input: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        problem: ConvProblem,
    ) -> FloatTensor<Self> {
        Self::conv2d_weight_backward(input, weight, grad, options(&problem))
    }
}

/// Kernel, stride, padding and dilation for Burn's own, which pads both sides alike.
#[cfg(feature = "cubecl-backend")]
fn pool_window(problem: &ConvProblem) -> ([usize; 2], [usize; 2], [usize; 2], [usize; 2]) {
    let padding = problem.padding.map(|[before, after]| {
        assert_eq!(before, after, "this device pads both sides alike");
        before
    });
    (problem.kernel, problem.stride, padding, problem.dilation)
}

#[derive(Debug)]
struct MaxPool;

impl<B: DenseOps> Backward<B, 1> for MaxPool {
    type State = (NodeId, ConvProblem);

    fn backward(
        self,
        ops: Ops<Self::State, 1>,
        grads: &mut Gradients,
        checkpointer: &mut Checkpointer,
    ) {
        let grad = grads.consume::<B>(&ops.node);
        let (input, problem) = ops.state;
        let input = checkpointer.retrieve_node_output::<FloatTensor<B>>(input);
        if let [Some(node)] = ops.parents {
            let grad = B::max_pool_grad(input, grad, problem);
            grads.register::<B>(node.id, grad);
        }
    }
}

#[derive(Debug)]
struct DenseConv;

impl<B: DenseOps> Backward<B, 2> for DenseConv {
    type State = (NodeId, NodeId, ConvProblem);

    fn backward(
        self,
        ops: Ops<Self::State, 2>,
        grads: &mut Gradients,
        checkpointer: &mut Checkpointer,
    ) {
        let grad = grads.consume::<B>(&ops.node);
        let [input_node, weight_node] = ops.parents;
        let (input, weight, problem) = ops.state;
        let input = checkpointer.retrieve_node_output::<FloatTensor<B>>(input);
        let weight = checkpointer.retrieve_node_output::<FloatTensor<B>>(weight);
        if let Some(node) = weight_node {
            let (input, grad, weight) = (input.clone(), grad.clone(), weight.clone());
            let grad = B::dense_conv_grad_weight(input, grad, weight, problem);
            grads.register::<B>(node.id, grad);
        }
        if let Some(node) = input_node {
            let grad = B::dense_conv_grad_input(input, grad, weight, problem);
            grads.register::<B>(node.id, grad);
        }
    }
}

impl<B: DenseOps, C: CheckpointStrategy> DenseOps for Autodiff<B, C> {
    fn dense_conv(
        input: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: OptionalFloat<Self>,
        problem: ConvProblem,
    ) -> FloatTensor<Self> {
        let product = |input: FloatTensor<Self>, weight: FloatTensor<Self>| {
            let (input, weight) = (input.into_primitive(), weight.into_primitive());
            B::dense_conv(input, weight, OptionalFloat::Absent, problem)
        };
        let prep = DenseConv
            .prepare::<C>([input.node(), weight.node()])
            .compute_bound();
        let y = match prep.stateful() {
            OpsKind::Tracked(mut prep) => {
                let state = (prep.checkpoint(&input), prep.checkpoint(&weight), problem);
                prep.finish(state, product(input, weight))
            }
            OpsKind::UnTracked(prep) => prep.finish(product(input, weight)),
        };
        finish::<B, C>(y, bias.into_option(), None, false)
    }

    fn dense_linear(
        input: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: OptionalFloat<Self>,
    ) -> FloatTensor<Self> {
        <Self as ModuleOps<Self>>::linear(input, weight, bias.into_option())
    }

    fn max_pool(input: FloatTensor<Self>, problem: ConvProblem) -> FloatTensor<Self> {
        let prep = MaxPool.prepare::<C>([input.node()]).compute_bound();
        match prep.stateful() {
            OpsKind::Tracked(mut prep) => {
                let state = (prep.checkpoint(&input), problem);
                prep.finish(state, B::max_pool(input.into_primitive(), problem))
            }
            OpsKind::UnTracked(prep) => prep.finish(B::max_pool(input.into_primitive(), problem)),
        }
    }

    fn max_pool_grad(
        _input: FloatTensor<Self>,
        _grad: FloatTensor<Self>,
        _problem: ConvProblem,
    ) -> FloatTensor<Self> {
        panic!("the gradient of this pool has no gradient of its own");
    }

    fn dense_conv_grad_input(
        _input: FloatTensor<Self>,
        _grad: FloatTensor<Self>,
        _weight: FloatTensor<Self>,
        _problem: ConvProblem,
    ) -> FloatTensor<Self> {
        panic!("the gradient of this convolution has no gradient of its own");
    }

    fn dense_conv_grad_weight(
        _input: FloatTensor<Self>,
        _grad: FloatTensor<Self>,
        _weight: FloatTensor<Self>,
        _problem: ConvProblem,
    ) -> FloatTensor<Self> {
        panic!("the gradient of this convolution has no gradient of its own");
    }
}
