//! 1-D convolution.

use burn::config::Config;
use burn::module::{Module, Param};
use burn::nn::{Initializer, PaddingConfig1d};
use burn::tensor::{Device, Tensor, module::conv1d, ops::ConvOptions};

use super::{Activation, Weight, conv2d::same_padding, profile, trace};
use crate::{
    ConvProblem, SparseError,
    ops::{ConvWindow, Epilogue, sparse_conv1d},
};

/// Configuration of a [`Conv1d`]; the fields and builders of `burn::nn::conv::Conv1dConfig`.
#[derive(Config, Debug)]
pub struct Conv1dConfig {
    /// Input channels.
    pub channels_in: usize,
    /// Output channels.
    pub channels_out: usize,
    /// Length of the kernel.
    pub kernel_size: usize,
    /// Step between outputs.
    #[config(default = "1")]
    pub stride: usize,
    /// Distance between kernel elements.
    #[config(default = "1")]
    pub dilation: usize,
    /// Groups that divide the channels.
    #[config(default = "1")]
    pub groups: usize,
    /// Zeros around the input.
    #[config(default = "PaddingConfig1d::Valid")]
    pub padding: PaddingConfig1d,
    /// Whether a bias is added.
    #[config(default = true)]
    pub bias: bool,
    /// How the parameters start.
    #[config(default = "Initializer::KaimingUniform{gain:1.0/f64::sqrt(3.0),fan_out_only:false}")]
    pub initializer: Initializer,
}

impl Conv1dConfig {
    /// A dense layer, initialised as Burn's.
    ///
    /// # Panics
    /// If the groups do not divide the channels.
    pub fn init(&self, device: &Device) -> Conv1d {
        burn::nn::conv::Conv1dConfig::new(self.channels_in, self.channels_out, self.kernel_size)
            .with_stride(self.stride)
            .with_dilation(self.dilation)
            .with_groups(self.groups)
            .with_padding(self.padding.clone())
            .with_bias(self.bias)
            .with_initializer(self.initializer.clone())
            .init(device)
            .into()
    }
}

/// A 1-D convolution whose weight is dense or packed.
#[derive(Module, Debug)]
pub struct Conv1d {
    /// `[channels_out, channels_in / groups, kernel_size]`.
    pub weight: Weight<3>,
    /// `[channels_out]`.
    pub bias: Option<Param<Tensor<1>>>,
    /// Step between outputs.
    pub stride: usize,
    /// Length of the kernel.
    pub kernel_size: usize,
    /// Distance between kernel elements.
    pub dilation: usize,
    /// Groups that divide the channels.
    pub groups: usize,
    /// Zeros around the input.
    #[module(skip)]
    pub padding: PaddingConfig1d,
}

impl From<burn::nn::conv::Conv1d> for Conv1d {
    fn from(conv: burn::nn::conv::Conv1d) -> Self {
        Self {
            weight: conv.weight.into(),
            bias: conv.bias,
            stride: conv.stride,
            kernel_size: conv.kernel_size,
            dilation: conv.dilation,
            groups: conv.groups,
            padding: conv.padding,
        }
    }
}

impl Conv1d {
    /// How the kernel moves over an input of that length.
    pub fn window(&self, length: usize) -> ConvWindow<1> {
        let padding = match self.padding {
            PaddingConfig1d::Valid => [0, 0],
            PaddingConfig1d::Same => same_padding(self.kernel_size, self.stride, length),
            PaddingConfig1d::Explicit(left, right) => [left, right],
        };
        ConvWindow {
            kernel: [self.kernel_size],
            stride: [self.stride],
            padding: [padding],
            dilation: [self.dilation],
            groups: self.groups,
        }
    }

    /// `conv(x) + bias`.
    ///
    /// # Shapes
    /// - input `[batch, channels_in, length]`
    /// - output `[batch, channels_out, length_out]`
    ///
    /// # Panics
    /// On an input whose shape does not fit.
    pub fn forward(&self, input: Tensor<3>) -> Tensor<3> {
        self.forward_fused(input, None, Activation::None)
    }

    /// `act(conv(x) + bias + residual)`: one kernel when packed, Burn's operations when dense.
    ///
    /// # Panics
    /// On shapes that do not fit.
    pub fn forward_fused(
        &self,
        input: Tensor<3>,
        residual: Option<Tensor<3>>,
        activation: Activation,
    ) -> Tensor<3> {
        let [batch, channels, length] = input.dims();
        let window = self.window(length);
        let problem = || ConvProblem {
            batch,
            in_channels: channels,
            out_channels: self.weight.dims()[0],
            input: [1, length],
            kernel: [1, self.kernel_size],
            stride: [1, self.stride],
            padding: [[0, 0], window.padding[0]],
            dilation: [1, self.dilation],
            groups: self.groups,
        };
        trace::record(self.weight.id(), problem);
        let bias = self.bias.as_ref().map(Param::val);
        profile::timed(self.weight.id(), problem, || match &self.weight {
            Weight::Packed(packed) => {
                let epilogue = Epilogue {
                    bias,
                    residual,
                    activation,
                };
                sparse_conv1d(input, &packed.sparse(), &window, epilogue)
            }
            Weight::Dense(weight) => {
                let options = ConvOptions::new_with_padding(
                    window.stride,
                    window.padding.map(|[before, after]| (before, after)),
                    window.dilation,
                    window.groups,
                );
                let y = conv1d(input, weight.val(), bias, options);
                Epilogue::finish_dense(residual, activation, y)
            }
        })
    }

    /// Keeps only the non-zeros of the weight; see [`Weight::pack`].
    ///
    /// # Errors
    /// [`SparseError::NonFinite`] for a NaN or an infinity.
    pub fn pack(mut self) -> Result<Self, SparseError> {
        self.weight = self.weight.pack(true)?;
        Ok(self)
    }

    /// The dense layer again.
    #[must_use]
    pub fn unpack(mut self) -> Self {
        self.weight = self.weight.unpack();
        self
    }
}
