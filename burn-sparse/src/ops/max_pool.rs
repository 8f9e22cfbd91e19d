//! Max pooling.

use burn::backend::Dispatch;
use burn::tensor::{DType, Tensor, module, ops::MaxPoolOptions};

use super::{ConvWindow, DenseOps, dense_conv::is_flex};

/// `y[n,c,e,f] = max_{r,s} x[n,c,e*u+r*d,f*v+s*d]` over the elements of each window that exist.
///
/// On Flex in f32, without gradients, vectorised and into recycled memory; everywhere else it is
/// Burn's. The groups of `window` do not matter.
///
/// # Shapes
/// - `input` `[batch, channels, height, width]`
/// - output `[batch, channels, height_out, width_out]`
///
/// # Panics
/// On a window that is larger than the padded input, with the numbers.
///
/// # Example
/// ```
/// use burn::tensor::{Device, Tensor};
/// use burn_sparse::ops::{ConvWindow, max_pool2d};
///
/// let x = Tensor::<4>::from_data([[[[1.0, 5.0, 2.0], [4.0, 3.0, 0.0]]]], &Device::flex());
/// let y = max_pool2d(x, &ConvWindow::new([2, 2]));
/// assert_eq!(y.into_data().iter::<f32>().collect::<Vec<_>>(), [5.0, 5.0]);
/// ```
pub fn max_pool2d(input: Tensor<4>, window: &ConvWindow<2>) -> Tensor<4> {
    let channels = input.dims()[1];
    let window = ConvWindow {
        groups: 1,
        ..*window
    };
    let problem = window
        .problem(input.dims(), channels)
        .unwrap_or_else(|error| panic!("max_pool2d: {error}"));
    let device = input.device();
    if input.dtype() == DType::F32 && is_flex(&device) && !device.is_autodiff() {
        return Tensor::from_dispatch(Dispatch::max_pool(input.into_dispatch(), problem));
    }
    let pairs = window.padding.map(|[before, after]| (before, after));
    let options = MaxPoolOptions::new(window.kernel)
        .with_stride(window.stride)
        .with_padding_pairs(pairs)
        .with_dilation(window.dilation);
    module::max_pool2d(input, options)
}
