//! 1-D convolution.

use burn::config::Config;
use burn::module::Param;
use burn::nn::{Initializer, PaddingConfig1d};
use burn::tensor::{Device, Tensor, module::conv1d, ops::ConvOptions};

use super::{Activation, Weight, conv2d::same_padding, flow, grouped, profile, schedule, trace};
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

/// A 1-D convolution whose weight is dense, packed or a chain of factors.
#[derive(Debug, Clone)]
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
    pub padding: PaddingConfig1d,
}

grouped::convolution!(Conv1d);

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

/// One kernel if packed, Burn's operations if dense, one after the other if factored.
fn run(
    weight: &Weight<3>,
    mut input: Tensor<3>,
    window: &ConvWindow<1>,
    epilogue: Epilogue<3>,
) -> Tensor<3> {
    if let Weight::Factored(factors) = weight {
        let groups = window.groups;
        assert!(groups == 1, "Conv1d: factors of a layer of {groups} groups");
        let window = &ConvWindow {
            groups: factors.core_groups(),
            ..*window
        };
        let point = ConvWindow::new([1]);
        if let Some(reduce) = factors.reduce() {
            input = run(reduce, input, &point, Epilogue::new());
        }
        return match factors.expand() {
            None => run(factors.core(), input, window, epilogue),
            Some(expand) => {
                let inner = run(factors.core(), input, window, Epilogue::new());
                run(expand, inner, &point, epilogue)
            }
        };
    }
    let [batch, channels, length] = input.dims();
    let problem = || ConvProblem {
        batch,
        in_channels: channels,
        out_channels: weight.dims()[0],
        input: [1, length],
        kernel: [1, window.kernel[0]],
        stride: [1, window.stride[0]],
        padding: [[0, 0], window.padding[0]],
        dilation: [1, window.dilation[0]],
        groups: window.groups,
    };
    let id = weight.id();
    trace::record(id, problem);
    let seen = flow::through(id, problem, [Some(&input), epilogue.residual.as_ref()]);
    let work = || match weight {
        Weight::Packed(packed) => {
            let weight = packed.sparse();
            schedule::through(id, None, input, epilogue, |input, epilogue| {
                sparse_conv1d(input, &weight, window, epilogue)
            })
        }
        Weight::Dense(_) | Weight::Factored(_) => {
            let options = ConvOptions::new_with_padding(
                window.stride,
                window.padding.map(|[before, after]| (before, after)),
                window.dilation,
                window.groups,
            );
            let weight = weight.val();
            let dtype = Some(weight.dtype());
            schedule::through(id, dtype, input, epilogue, |input, epilogue| {
                let y = conv1d(input, weight.clone(), epilogue.bias, options.clone());
                Epilogue::finish_dense(epilogue.residual, epilogue.activation, y)
            })
        }
    };
    seen.or(|| profile::timed(id, problem, work))
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

    /// `act(conv(x) + bias + residual)`: one kernel when packed, Burn's operations when dense, the
    /// factors one after the other when factored.
    ///
    /// # Panics
    /// On shapes that do not fit, and on factors of a layer of several groups.
    pub fn forward_fused(
        &self,
        input: Tensor<3>,
        residual: Option<Tensor<3>>,
        activation: Activation,
    ) -> Tensor<3> {
        let window = self.window(input.dims()[2]);
        let epilogue = Epilogue {
            bias: self.bias.as_ref().map(Param::val),
            residual,
            activation,
        };
        run(&self.weight, input, &window, epilogue)
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
