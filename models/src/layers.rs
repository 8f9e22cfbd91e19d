//! Convolutions with their batch norms, and how layers start: what the families share.

use burn::nn::pool::{MaxPool2d, MaxPool2dConfig};
use burn::nn::{BatchNorm, BatchNormConfig, Initializer, PaddingConfig2d};
use burn::tensor::{Device, Tensor};
use burn_sparse::nn::{
    Activation, Conv2d, Conv2dConfig, Linear, LinearConfig, batch_norm as norm_act, early_and_late,
    fold_batch_norm, image_by_image,
};

use crate::summary::Window;

/// A convolution and its batch norm, until it is folded: `0` and `1` in the paths of parameters.
pub type ConvNorm = (Conv2d, Option<BatchNorm>);

/// `activation(bn(conv(x)) + residual)`: one kernel once the batch norm is folded.
pub(crate) fn apply(
    conv: &Conv2d,
    bn: Option<&BatchNorm>,
    x: Tensor<4>,
    residual: Option<Tensor<4>>,
    activation: Activation,
) -> Tensor<4> {
    let Some(bn) = bn else {
        return conv.forward_fused(x, residual, activation);
    };
    norm_act(bn, conv.forward(x), residual, activation)
}

pub(crate) fn fold(conv: Conv2d, bn: Option<BatchNorm>) -> Conv2d {
    match bn {
        Some(bn) => fold_batch_norm(conv, &bn),
        None => conv,
    }
}

/// A convolution without bias and its batch norm.
pub(crate) fn conv_bn(
    channels: [usize; 2],
    window: Window,
    groups: usize,
    device: &Device,
) -> (Conv2d, BatchNorm) {
    (
        conv(channels, window, groups, false, device),
        batch_norm(channels[1], device),
    )
}

/// The identity.
pub(crate) fn batch_norm(channels: usize, device: &Device) -> BatchNorm {
    BatchNormConfig::new(channels).init(device)
}

/// A convolution that starts as torchvision's: normal with variance `2 / fan_out` (He et al.,
/// *Delving Deep into Rectifiers*), a bias of zeros.
///
/// The fan out is that of all groups, as in PyTorch; Burn's initializers divide it by them.
pub(crate) fn conv(
    channels: [usize; 2],
    window: Window,
    groups: usize,
    bias: bool,
    device: &Device,
) -> Conv2d {
    let fan_out = channels[1] * window.kernel * window.kernel;
    let mut conv = normal_conv(channels, window, groups, fan_out, device);
    conv.bias = bias.then(|| Initializer::Zeros.init([channels[1]], device));
    conv
}

/// A convolution without bias that starts as in torchvision's `DenseNet`: normal with variance
/// `2 / fan_in`.
pub(crate) fn conv_fan_in(channels: [usize; 2], window: Window, device: &Device) -> Conv2d {
    let fan_in = channels[0] * window.kernel * window.kernel;
    normal_conv(channels, window, 1, fan_in, device)
}

/// Normal with variance `2 / fan`, without bias.
fn normal_conv(
    channels: [usize; 2],
    window: Window,
    groups: usize,
    fan: usize,
    device: &Device,
) -> Conv2d {
    Conv2dConfig::new(channels, [window.kernel; 2])
        .with_stride([window.stride; 2])
        .with_padding(padding(window))
        .with_groups(groups)
        .with_bias(false)
        .with_initializer(Initializer::Normal {
            mean: 0.0,
            std: std::f64::consts::SQRT_2 * (1.0 / (fan as f64).sqrt()),
        })
        .init(device)
}

pub(crate) fn max_pool(window: Window) -> MaxPool2d {
    MaxPool2dConfig::new([window.kernel; 2])
        .with_strides([window.stride; 2])
        .with_padding(padding(window))
        .init()
}

fn padding(window: Window) -> PaddingConfig2d {
    let pad = window.padding;
    PaddingConfig2d::Explicit(pad, pad, pad, pad)
}

/// A product that starts as in torchvision's VGG and `MobileNetV2`: normal with a standard
/// deviation of 0.01, a bias of zeros.
pub(crate) fn linear(input: usize, output: usize, device: &Device) -> Linear {
    let mut linear = LinearConfig::new(input, output)
        .with_bias(false)
        .with_initializer(Initializer::Normal {
            mean: 0.0,
            std: 0.01,
        })
        .init(device);
    linear.bias = Some(Initializer::Zeros.init([output], device));
    linear
}

/// `classify(features(images))` without gradients, in the order that suits the device.
///
/// Of a batch, the features are computed image by image. The classifier's weights are too large
/// for a cache: they are read once for the batch.
pub(crate) fn infer_in_parts(
    images: Tensor<4>,
    features: impl Fn(Tensor<4>) -> Tensor<2> + Sync,
    classify: impl Fn(Tensor<2>) -> Tensor<2> + Sync,
) -> Tensor<2> {
    if images.dims()[0] == 1 {
        return image_by_image(images, |image| classify(features(image)));
    }
    classify(image_by_image(images, features))
}

/// Images whose last layers run together: enough to fill vectors with planes of 7x7, few enough for the maps of all
/// to stay in a cache.
const TOGETHER: usize = 2;

/// `classify(late(early(images)))` without gradients, in the order that suits the device.
///
/// As [`infer_in_parts`], but for `late`, whose planes are small and whose weights are large: it takes some
/// images at once.
pub(crate) fn infer_in_stages<const D: usize>(
    images: Tensor<4>,
    early: impl Fn(Tensor<4>) -> Tensor<D> + Sync,
    late: impl Fn(Tensor<D>) -> Tensor<2> + Sync,
    classify: impl Fn(Tensor<2>) -> Tensor<2> + Sync,
) -> Tensor<2> {
    if images.dims()[0] == 1 {
        return image_by_image(images, |image| classify(late(early(image))));
    }
    classify(early_and_late(images, TOGETHER, early, late))
}
