//! Max pooling.

use burn::backend::Dispatch;
use burn::tensor::{DType, Tensor, module, ops::MaxPoolOptions};

use super::{ConvWindow, DenseOps, dense_conv::is_flex};

/// `y[n,c,e,f] = max_{r,s} x[n,c,e*u+r*d,f*v+s*d]` over the elements of each window that exist.
///
/// On Flex in f32 vectorised and into recycled memory, with a vectorised gradient for windows of two by
/// two; everywhere else it is Burn's. Of elements alike, the first has the gradient. The groups of `window` do not matter.
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
    if input.dtype() == DType::F32 && is_flex(&input.device()) {
        return Tensor::from_dispatch(Dispatch::max_pool(input.into_dispatch(), problem));
    }
    let pairs = window.padding.map(|[before, after]| (before, after));
    let options = MaxPoolOptions::new(window.kernel)
        .with_stride(window.stride)
        .with_padding_pairs(pairs)
        .with_dilation(window.dilation);
    module::max_pool2d(input, options)
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use burn::tensor::{Device, Distribution};

    use super::*;

    /// Output and gradient of the input, for a gradient of the output that differs from place to place.
    fn both(x: Tensor<4>, pool: impl Fn(Tensor<4>) -> Tensor<4>) -> [Vec<f32>; 2] {
        let x = x.require_grad();
        let y = pool(x.clone());
        let count = y.shape().num_elements() as i64;
        let weights = Tensor::<1, burn::tensor::Int>::arange(0..count, &x.device());
        let weights = weights.float().reshape(y.dims()) + 1.0;
        let grads = (y.clone() * weights).backward();
        [y.inner(), x.grad(&grads).expect("a leaf")]
            .map(|tensor| tensor.into_data().try_to_vec().expect("f32"))
    }

    #[test]
    fn gradients_are_those_of_burn() {
        let device = Device::flex().autodiff();
        for (kernel, stride, padding, dilation) in [
            ([2, 2], [2, 2], [0, 0], [1, 1]),
            ([3, 3], [2, 2], [1, 1], [1, 1]),
            ([3, 2], [1, 2], [1, 0], [1, 1]),
            ([2, 2], [1, 1], [0, 0], [2, 3]),
        ] {
            let x = Tensor::<4>::random([3, 2, 9, 8], Distribution::Default, &device);
            // Ties: which element gets the gradient must not depend on the path.
            let x = (x * 4.0).floor();
            let window = ConvWindow {
                kernel,
                stride,
                padding: padding.map(|p| [p, p]),
                dilation,
                groups: 1,
            };
            let options = MaxPoolOptions::new(kernel)
                .with_stride(stride)
                .with_padding_pairs(padding.map(|p| (p, p)))
                .with_dilation(dilation);
            let ours = both(x.clone(), |x| max_pool2d(x, &window));
            let burns = both(x, |x| module::max_pool2d(x, options.clone()));
            assert_eq!(ours, burns, "{kernel:?} by {stride:?}");
        }
    }
}
