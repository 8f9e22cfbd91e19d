//! Geometry of layers, read from the layers themselves.

use burn::nn::{PaddingConfig1d, PaddingConfig2d, PaddingConfig3d};
use serde::{Deserialize, Serialize};

/// What surrounds an input, per axis.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Padding {
    /// That many elements before and after each axis.
    Explicit(Vec<[usize; 2]>),
    /// As many as make `ceil(size / stride)` outputs.
    Same,
}

impl Padding {
    /// Elements before and after each axis.
    pub(super) fn resolve(
        &self,
        kernel: &[usize],
        stride: &[usize],
        size: &[usize],
    ) -> Vec<[usize; 2]> {
        match self {
            Self::Explicit(padding) => padding.clone(),
            Self::Same => (0..kernel.len())
                .map(|axis| {
                    let outputs = size[axis].div_ceil(stride[axis]);
                    let needed = outputs
                        .saturating_sub(1)
                        .saturating_mul(stride[axis])
                        .saturating_add(kernel[axis]);
                    let total = needed.saturating_sub(size[axis]);
                    [total / 2, total - total / 2]
                })
                .collect(),
        }
    }
}

impl From<&PaddingConfig1d> for Padding {
    fn from(padding: &PaddingConfig1d) -> Self {
        match *padding {
            PaddingConfig1d::Same => Self::Same,
            PaddingConfig1d::Valid => Self::Explicit(vec![[0, 0]]),
            PaddingConfig1d::Explicit(left, right) => Self::Explicit(vec![[left, right]]),
        }
    }
}

impl From<&PaddingConfig2d> for Padding {
    fn from(padding: &PaddingConfig2d) -> Self {
        match *padding {
            PaddingConfig2d::Same => Self::Same,
            PaddingConfig2d::Valid => Self::Explicit(vec![[0, 0]; 2]),
            PaddingConfig2d::Explicit(top, left, bottom, right) => {
                Self::Explicit(vec![[top, bottom], [left, right]])
            }
        }
    }
}

impl From<&PaddingConfig3d> for Padding {
    fn from(padding: &PaddingConfig3d) -> Self {
        match *padding {
            PaddingConfig3d::Same => Self::Same,
            PaddingConfig3d::Valid => Self::Explicit(vec![[0, 0]; 3]),
            PaddingConfig3d::Explicit(depth, height, width) => {
                Self::Explicit([depth, height, width].map(|pad| [pad, pad]).to_vec())
            }
        }
    }
}

/// A convolution over any number of axes.
///
/// `From` reads it from Burn's `Conv1d`, `Conv2d` and `Conv3d` and from
/// [`burn_sparse::nn`]'s.
///
/// # Example
/// ```
/// use burn::nn::conv::Conv2dConfig;
/// use burn::tensor::Device;
/// use burn_admm::shrink::ConvSpec;
///
/// let conv = Conv2dConfig::new([3, 8], [3, 3]).init(&Device::flex());
/// assert_eq!(ConvSpec::from(&conv).channels, [3, 8]);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConvSpec {
    /// Input and output channels.
    pub channels: [usize; 2],
    /// Size of the kernel along each axis.
    pub kernel: Vec<usize>,
    /// Step between outputs.
    pub stride: Vec<usize>,
    /// Distance between kernel elements.
    pub dilation: Vec<usize>,
    /// Groups that divide the channels.
    pub groups: usize,
    /// Zeros around the input.
    pub padding: Padding,
}

macro_rules! conv_spec {
    ($($layer:ty),*) => {$(
        impl From<&$layer> for ConvSpec {
            fn from(conv: &$layer) -> Self {
                let shape = conv.weight.dims();
                Self {
                    channels: [shape[1] * conv.groups, shape[0]],
                    kernel: shape[2..].to_vec(),
                    stride: conv.stride.axes(),
                    dilation: conv.dilation.axes(),
                    groups: conv.groups,
                    padding: Padding::from(&conv.padding),
                }
            }
        }
    )*};
}

conv_spec!(
    burn::nn::conv::Conv1d,
    burn::nn::conv::Conv2d,
    burn::nn::conv::Conv3d,
    burn_sparse::nn::Conv1d,
    burn_sparse::nn::Conv2d
);

/// One number per axis: a 1-D layer has it bare, the others in an array.
trait Axes {
    fn axes(&self) -> Vec<usize>;
}

impl Axes for usize {
    fn axes(&self) -> Vec<usize> {
        vec![*self]
    }
}

impl<const D: usize> Axes for [usize; D] {
    fn axes(&self) -> Vec<usize> {
        self.to_vec()
    }
}

/// A linear layer: input and output features.
///
/// `From` reads it from Burn's `Linear` and from [`burn_sparse::nn::Linear`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinearSpec(pub [usize; 2]);

impl From<&burn::nn::Linear> for LinearSpec {
    fn from(linear: &burn::nn::Linear) -> Self {
        // `dims` of the value: a lazy weight in `LinearLayout::Col` announces the transposed shape.
        Self(linear.weight.dims())
    }
}

impl From<&burn_sparse::nn::Linear> for LinearSpec {
    fn from(linear: &burn_sparse::nn::Linear) -> Self {
        let weight = &linear.weight;
        Self(weight.dense().map_or(weight.dims(), |param| param.dims()))
    }
}

/// A batch norm with running statistics.
///
/// `From` reads it from Burn's `BatchNorm`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NormSpec {
    /// Its channels.
    pub channels: usize,
    /// What is added to the variance.
    pub epsilon: f64,
}

impl From<&burn::nn::BatchNorm> for NormSpec {
    fn from(norm: &burn::nn::BatchNorm) -> Self {
        Self {
            channels: norm.gamma.dims()[0],
            epsilon: norm.epsilon,
        }
    }
}

/// A pooling over windows, each channel by itself.
///
/// `From` reads it from Burn's `MaxPool1d`, `MaxPool2d`, `AvgPool1d` and `AvgPool2d`. A kernel of
/// one with a stride describes a subsampling, such as `x.slice(s![.., .., ..;2, ..;2])`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PoolSpec {
    /// Size of the window along each axis.
    pub kernel: Vec<usize>,
    /// Step between windows.
    pub stride: Vec<usize>,
    /// Distance between the elements of a window.
    pub dilation: Vec<usize>,
    /// What surrounds the input.
    pub padding: Padding,
    /// Whether a last window that is not full counts.
    pub ceil_mode: bool,
    /// Whether padding counts as zeros, so that a constant does not stay one at the border. It
    /// does in an average with `count_include_pad`; a maximum ignores padding.
    pub counts_padding: bool,
}

impl PoolSpec {
    /// Every `step`-th element along each axis.
    ///
    /// ```
    /// use burn_admm::shrink::PoolSpec;
    ///
    /// assert_eq!(PoolSpec::every(&[2, 2]).kernel, [1, 1]);
    /// ```
    pub fn every(step: &[usize]) -> Self {
        Self {
            kernel: vec![1; step.len()],
            stride: step.to_vec(),
            dilation: vec![1; step.len()],
            padding: Padding::Explicit(vec![[0, 0]; step.len()]),
            ceil_mode: false,
            counts_padding: false,
        }
    }
}

macro_rules! max_pool_spec {
    ($layer:ty) => {
        impl From<&$layer> for PoolSpec {
            fn from(pool: &$layer) -> Self {
                Self {
                    kernel: pool.kernel_size.axes(),
                    stride: pool.stride.axes(),
                    dilation: pool.dilation.axes(),
                    padding: Padding::from(&pool.padding),
                    ceil_mode: pool.ceil_mode,
                    counts_padding: false,
                }
            }
        }
    };
}

max_pool_spec!(burn::nn::pool::MaxPool1d);
max_pool_spec!(burn::nn::pool::MaxPool2d);

macro_rules! avg_pool_spec {
    ($layer:ty) => {
        impl From<&$layer> for PoolSpec {
            fn from(pool: &$layer) -> Self {
                Self {
                    kernel: pool.kernel_size.axes(),
                    stride: pool.stride.axes(),
                    dilation: vec![1; pool.kernel_size.axes().len()],
                    padding: Padding::from(&pool.padding),
                    ceil_mode: pool.ceil_mode,
                    counts_padding: pool.count_include_pad,
                }
            }
        }
    };
}

avg_pool_spec!(burn::nn::pool::AvgPool1d);
avg_pool_spec!(burn::nn::pool::AvgPool2d);
