//! Sparse 1-D convolution: a 2-D one of height 1.

use burn::tensor::Tensor;

use super::{ConvWindow, Epilogue, SparseWeight, sparse_conv2d};

/// `y[n,k,e] = act(bias[k] + residual[n,k,e] + sum_{c,s} w[k,c,s] x[n,c,e*u+s*d])` over the stored
/// entries of `weight`. Runs the kernel of [`sparse_conv2d`] on images one pixel high: the layout
/// of the data is the same.
///
/// # Shapes
/// - `input` `[batch, in_channels, length]`
/// - `weight`: `out_channels` rows of `in_channels / groups * kernel`
/// - output and residual `[batch, out_channels, length_out]`
///
/// # Panics
/// On shapes that do not fit, with the numbers.
///
/// # Example
/// ```
/// use burn::tensor::{Device, Tensor};
/// use burn_sparse::{format::Csr, ops::{ConvWindow, Epilogue, SparseWeight, sparse_conv1d}};
///
/// let device = Device::flex();
/// let weight = SparseWeight::new(Csr::from_dense(&[-1.0, 0.0, 1.0], [1, 3])?, &device);
/// let x = Tensor::<3>::from_data([[[1.0, 2.0, 4.0, 8.0]]], &device);
/// let y = sparse_conv1d(x, &weight, &ConvWindow::new([3]), Epilogue::new());
/// y.into_data().assert_eq(&burn::tensor::TensorData::from([[[3.0f32, 6.0]]]), false);
/// # Ok::<(), burn_sparse::SparseError>(())
/// ```
pub fn sparse_conv1d(
    input: Tensor<3>,
    weight: &SparseWeight,
    window: &ConvWindow<1>,
    epilogue: Epilogue<3>,
) -> Tensor<3> {
    let window = ConvWindow {
        kernel: [1, window.kernel[0]],
        stride: [1, window.stride[0]],
        padding: [[0, 0], window.padding[0]],
        dilation: [1, window.dilation[0]],
        groups: window.groups,
    };
    let epilogue = Epilogue {
        bias: epilogue.bias,
        residual: epilogue
            .residual
            .map(|residual| residual.unsqueeze_dim::<4>(2)),
        activation: epilogue.activation,
    };
    sparse_conv2d(input.unsqueeze_dim::<4>(2), weight, &window, epilogue).squeeze_dim::<3>(2)
}
