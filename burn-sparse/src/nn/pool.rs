//! Pooling layers of Burn, run by this crate where it is faster.

use burn::nn::{PaddingConfig2d, pool::MaxPool2d};
use burn::tensor::Tensor;

use super::conv2d::same_padding;
use crate::ops::{self, ConvWindow};

/// What `pool.forward(input)` gives; see [`ops::max_pool2d`].
///
/// # Panics
/// On a window that is larger than the padded input.
///
/// # Example
/// ```
/// use burn::nn::pool::MaxPool2dConfig;
/// use burn::tensor::{Device, Distribution, Tensor};
/// use burn_sparse::nn::max_pool2d;
///
/// let pool = MaxPool2dConfig::new([3, 3]).with_strides([2, 2]).init();
/// let x = Tensor::<4>::random([2, 3, 9, 9], Distribution::Default, &Device::flex());
/// let same = max_pool2d(&pool, x.clone()).into_data();
/// same.assert_eq(&pool.forward(x).into_data(), true);
/// ```
pub fn max_pool2d(pool: &MaxPool2d, input: Tensor<4>) -> Tensor<4> {
    // Rounding up may add a window that starts beyond the padding.
    if pool.ceil_mode {
        return pool.forward(input);
    }
    let [_, _, height, width] = input.dims();
    let padding = match pool.padding {
        PaddingConfig2d::Valid => [[0, 0], [0, 0]],
        PaddingConfig2d::Same => {
            let size = [height, width];
            core::array::from_fn(|i| same_padding(pool.kernel_size[i], pool.stride[i], size[i]))
        }
        PaddingConfig2d::Explicit(top, left, bottom, right) => [[top, bottom], [left, right]],
    };
    let window = ConvWindow {
        kernel: pool.kernel_size,
        stride: pool.stride,
        padding,
        dilation: pool.dilation,
        groups: 1,
    };
    ops::max_pool2d(input, &window)
}
