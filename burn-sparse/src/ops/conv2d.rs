//! Sparse 2-D convolution.

use burn::backend::Dispatch;
use burn::tensor::Tensor;

use super::{Activation, Epilogue, SparseOps, SparseWeight, dense_conv::is_flex};
use crate::{ConvProblem, SparseError};

/// How a kernel moves over its input, in `N` spatial dimensions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConvWindow<const N: usize> {
    /// Size of the kernel.
    pub kernel: [usize; N],
    /// Step between outputs.
    pub stride: [usize; N],
    /// Zeros before and after each axis.
    pub padding: [[usize; 2]; N],
    /// Distance between kernel elements.
    pub dilation: [usize; N],
    /// Groups that divide the channels.
    pub groups: usize,
}

impl<const N: usize> ConvWindow<N> {
    /// A kernel with stride and dilation 1, no padding and one group.
    pub fn new(kernel: [usize; N]) -> Self {
        Self {
            kernel,
            stride: [1; N],
            padding: [[0; 2]; N],
            dilation: [1; N],
            groups: 1,
        }
    }
}

impl ConvWindow<2> {
    /// The convolution of an input of shape `[batch, channels, height, width]`.
    ///
    /// # Errors
    /// As [`ConvProblem::check`].
    pub fn problem(
        &self,
        input: [usize; 4],
        out_channels: usize,
    ) -> Result<ConvProblem, SparseError> {
        let [batch, in_channels, height, width] = input;
        let problem = ConvProblem {
            batch,
            in_channels,
            out_channels,
            input: [height, width],
            kernel: self.kernel,
            stride: self.stride,
            padding: self.padding,
            dilation: self.dilation,
            groups: self.groups,
        };
        problem.check()?;
        Ok(problem)
    }
}

/// Direct sparse convolution with its epilogue:
/// `y[n,k,e,f] = act(bias[k] + residual[n,k,e,f] + sum_{c,r,s} w[k,c,r,s] x[n,c,e*u+r*d,f*v+s*d])`,
/// the sum running over the stored entries of `weight` only.
///
/// # Shapes
/// - `input` `[batch, in_channels, height, width]`
/// - `weight`: `out_channels` rows of `in_channels / groups * kernel height * kernel width`
/// - output and residual `[batch, out_channels, height_out, width_out]`
///
/// # Panics
/// On shapes that do not fit, with the numbers.
///
/// # Numerical behaviour
/// Sums are f32 on every backend, for f16 tensors too, in the order of the entries: a masked dense
/// convolution differs by rounding only. Differentiable for input, values, bias and residual.
///
/// f16 and bf16 tensors on a card may meet matrix units, if rows of the weight share inputs: those add in
/// an order of their own, and an infinite or NaN input reaches up to 16 output channels, as in a dense
/// convolution.
///
/// # References
/// X. Chen, "Escoin", 2018; Park et al., "Faster CNNs with Direct Sparse Convolutions and Guided
/// Pruning", 2016, section 3; Pietroń and Żurek, 2020, section 3.
///
/// # Example
/// ```
/// use burn::tensor::{Device, Distribution, Tensor};
/// use burn_sparse::{format::Csr, ops::{ConvWindow, Epilogue, SparseWeight, sparse_conv2d}};
///
/// let device = Device::flex();
/// // One 3x3 filter on one channel that copies the pixel to the right.
/// let csr = Csr::from_dense(&[0., 0., 0., 0., 0., 1., 0., 0., 0.], [1, 9])?;
/// let weight = SparseWeight::new(csr, &device);
/// let x = Tensor::<4>::random([1, 1, 5, 5], Distribution::Default, &device);
/// let y = sparse_conv2d(x.clone(), &weight, &ConvWindow::new([3, 3]), Epilogue::new());
/// assert_eq!(y.dims(), [1, 1, 3, 3]);
/// y.into_data().assert_eq(&x.slice([0..1, 0..1, 1..4, 2..5]).into_data(), true);
/// # Ok::<(), burn_sparse::SparseError>(())
/// ```
pub fn sparse_conv2d(
    input: Tensor<4>,
    weight: &SparseWeight,
    window: &ConvWindow<2>,
    epilogue: Epilogue<4>,
) -> Tensor<4> {
    let problem = window
        .problem(input.dims(), weight.rows())
        .unwrap_or_else(|error| panic!("sparse_conv2d: {error}"));
    epilogue.check("sparse_conv2d", problem.output_shape(), 1);
    let device = input.device();
    let pattern = weight.pattern();
    let recording = device.is_autodiff() || weight.values().is_autodiff();
    let indices = (recording || !is_flex(&device)).then(|| {
        let offsets = pattern
            .offsets(&problem, &device)
            .unwrap_or_else(|error| panic!("sparse_conv2d: {error}"));
        [offsets, pattern.row_ptr(&device)].map(Tensor::into_dispatch)
    });
    let [offsets, row_ptr] = match indices {
        Some([offsets, row_ptr]) => [Some(offsets), Some(row_ptr)],
        None => [None, None],
    };
    let taps = problem.kernel[0] * problem.kernel[1];
    let transpose = recording.then(|| pattern.transpose(taps, problem.groups, &device));
    let panels = match is_flex(&device) {
        true => None,
        false => pattern.panels(taps, problem.groups, &device),
    };
    Tensor::from_dispatch(Dispatch::sparse_conv(
        input.into_dispatch(),
        weight.values().into_dispatch(),
        offsets.into(),
        row_ptr.into(),
        transpose.map(Tensor::into_dispatch).into(),
        panels.map(Tensor::into_dispatch).into(),
        epilogue.bias.map(Tensor::into_dispatch).into(),
        epilogue.residual.map(Tensor::into_dispatch).into(),
        pattern.clone(),
        problem,
        epilogue.activation == Activation::Relu,
    ))
}
