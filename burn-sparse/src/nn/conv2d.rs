//! 2-D convolution.

use burn::config::Config;
use burn::module::Param;
use burn::nn::{Initializer, PaddingConfig2d};
use burn::tensor::{Device, Tensor};

use super::{Activation, FactorForm, Factors, Weight, flow, grouped, profile, schedule, trace};
use crate::{
    ConvProblem, SparseError,
    ops::{
        Coefficients, ConvWindow, Epilogue, FactorTensors, dense_conv2d, factored_conv2d,
        shared_conv2d, sparse_conv2d,
    },
};

/// Configuration of a [`Conv2d`]; the fields and builders of `burn::nn::conv::Conv2dConfig`.
#[derive(Config, Debug)]
pub struct Conv2dConfig {
    /// Input and output channels.
    pub channels: [usize; 2],
    /// Height and width of the kernel.
    pub kernel_size: [usize; 2],
    /// Step between outputs.
    #[config(default = "[1, 1]")]
    pub stride: [usize; 2],
    /// Distance between kernel elements.
    #[config(default = "[1, 1]")]
    pub dilation: [usize; 2],
    /// Groups that divide the channels.
    #[config(default = "1")]
    pub groups: usize,
    /// Zeros around the input; asymmetric ones included.
    #[config(default = "PaddingConfig2d::Valid")]
    pub padding: PaddingConfig2d,
    /// Whether a bias is added.
    #[config(default = true)]
    pub bias: bool,
    /// How the parameters start.
    #[config(default = "Initializer::KaimingUniform{gain:1.0/f64::sqrt(3.0),fan_out_only:false}")]
    pub initializer: Initializer,
}

impl Conv2dConfig {
    /// A dense layer, initialised as Burn's.
    ///
    /// # Panics
    /// If the groups do not divide the channels.
    pub fn init(&self, device: &Device) -> Conv2d {
        burn::nn::conv::Conv2dConfig::new(self.channels, self.kernel_size)
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

/// A 2-D convolution whose weight is dense, packed or a chain of factors.
///
/// # Example
/// ```
/// use burn::tensor::{Device, Distribution, Tensor};
/// use burn_sparse::nn::Conv2dConfig;
///
/// let device = Device::flex();
/// let conv = Conv2dConfig::new([3, 8], [3, 3]).with_stride([2, 2]).init(&device);
/// let x = Tensor::<4>::random([1, 3, 9, 9], Distribution::Default, &device);
/// let dense = conv.forward(x.clone());
/// let packed = conv.pack()?.forward(x);
/// assert_eq!(packed.dims(), [1, 8, 4, 4]);
/// assert!((packed - dense).abs().max().into_scalar::<f32>() < 1e-5);
/// # Ok::<(), burn_sparse::SparseError>(())
/// ```
#[derive(Debug, Clone)]
pub struct Conv2d {
    /// `[channels_out, channels_in / groups, kernel_height, kernel_width]`.
    pub weight: Weight<4>,
    /// `[channels_out]`.
    pub bias: Option<Param<Tensor<1>>>,
    /// Step between outputs.
    pub stride: [usize; 2],
    /// Height and width of the kernel.
    pub kernel_size: [usize; 2],
    /// Distance between kernel elements.
    pub dilation: [usize; 2],
    /// Groups that divide the channels.
    pub groups: usize,
    /// Zeros around the input.
    pub padding: PaddingConfig2d,
}

grouped::convolution!(Conv2d);

impl From<burn::nn::conv::Conv2d> for Conv2d {
    fn from(conv: burn::nn::conv::Conv2d) -> Self {
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

/// Zeros before and after an axis so that `ceil(len / stride)` outputs result, the odd one after
/// (the rule of ONNX's `SAME_UPPER` and of Burn).
pub(super) fn same_padding(kernel: usize, stride: usize, len: usize) -> [usize; 2] {
    let outputs = len.div_ceil(stride);
    let total = (outputs.saturating_sub(1) * stride + kernel).saturating_sub(len);
    [total / 2, total - total / 2]
}

/// How a kernel of a size, stride and dilation moves over an input of that height and width.
pub(super) fn window(
    [kernel, stride, dilation]: [[usize; 2]; 3],
    groups: usize,
    padding: &PaddingConfig2d,
    input: [usize; 2],
) -> ConvWindow<2> {
    let padding = match *padding {
        PaddingConfig2d::Valid => [[0, 0], [0, 0]],
        PaddingConfig2d::Same => {
            core::array::from_fn(|i| same_padding(kernel[i], stride[i], input[i]))
        }
        PaddingConfig2d::Explicit(top, left, bottom, right) => [[top, bottom], [left, right]],
    };
    ConvWindow {
        kernel,
        stride,
        padding,
        dilation,
        groups,
    }
}

/// One kernel if packed, Burn's operations if dense, one after the other if factored.
fn run(
    weight: &Weight<4>,
    mut input: Tensor<4>,
    window: &ConvWindow<2>,
    epilogue: Epilogue<4>,
) -> Tensor<4> {
    if let Weight::Factored(factors) = weight {
        let groups = window.groups;
        assert!(groups == 1, "Conv2d: factors of a layer of {groups} groups");
        if let (Some(expand), true) = (factors.expand(), factors.is_shared()) {
            return run_shared(factors.core().val(), expand, input, window, epilogue);
        }
        let form = factors.form();
        if let (FactorForm::Spatial, Some(rows)) = (form, factors.expand()) {
            let [along_columns, along_rows] = crossed(window);
            let inner = run(factors.core(), input, &along_columns, Epilogue::new());
            return run(rows, inner, &along_rows, epilogue);
        }
        let window = &ConvWindow {
            groups: factors.core_groups(),
            ..*window
        };
        if form == FactorForm::Tucker
            && let Some(tensors) = tensors(factors)
        {
            return run_dense_factors(factors, tensors, input, window, epilogue);
        }
        let point = ConvWindow::new([1, 1]);
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
    let shape = input.dims();
    let problem = || {
        let problem = window.problem(shape, weight.dims()[0]);
        problem.unwrap_or_else(|error| panic!("Conv2d: {error}"))
    };
    let id = weight.id();
    trace::record(id, problem);
    let seen = flow::through(id, problem, [Some(&input), epilogue.residual.as_ref()]);
    let work = || match weight {
        Weight::Packed(packed) => {
            let weight = packed.sparse();
            schedule::through(id, None, input, epilogue, |input, epilogue| {
                sparse_conv2d(input, &weight, window, epilogue)
            })
        }
        Weight::Dense(_) | Weight::Factored(_) => {
            let weight = weight.val();
            let dtype = Some(weight.dtype());
            schedule::through(id, dtype, input, epilogue, |input, epilogue| {
                let y = dense_conv2d(input, weight.clone(), epilogue.bias, window);
                Epilogue::finish_dense(epilogue.residual, epilogue.activation, y)
            })
        }
    };
    seen.or(|| profile::timed(id, problem, work))
}

/// What a kernel does along columns, and what it does along rows: zeros beside the image stay zeros when
/// columns have been summed, for nothing is added before the rows.
fn crossed(window: &ConvWindow<2>) -> [ConvWindow<2>; 2] {
    core::array::from_fn(|axis| {
        let mut along = ConvWindow::new([1, 1]);
        along.kernel[axis] = window.kernel[axis];
        along.stride[axis] = window.stride[axis];
        along.padding[axis] = window.padding[axis];
        along.dilation[axis] = window.dilation[axis];
        along
    })
}

/// Shared kernels and their coefficients, timed as one; the coefficients are seen as the 1×1 convolution
/// that they are.
fn run_shared(
    basis: Tensor<4>,
    coefficients: &Weight<4>,
    input: Tensor<4>,
    window: &ConvWindow<2>,
    epilogue: Epilogue<4>,
) -> Tensor<4> {
    let shape = input.dims();
    let problem = || {
        let problem = window.problem(shape, coefficients.dims()[0]);
        let problem = problem.unwrap_or_else(|error| panic!("Conv2d: {error}"));
        let [rows, columns, ..] = coefficients.dims();
        ConvProblem::new(shape[0], [columns, rows], problem.output(), [1, 1])
    };
    let id = coefficients.id();
    trace::record(id, problem);
    let seen = flow::through(id, problem, [Some(&input), epilogue.residual.as_ref()]);
    let work = || match coefficients {
        Weight::Packed(packed) => {
            let sparse = packed.sparse();
            shared_conv2d(
                input,
                basis,
                Coefficients::Sparse(&sparse),
                window,
                epilogue,
            )
        }
        Weight::Dense(_) | Weight::Factored(_) => {
            let dense = coefficients.val();
            let dense = Coefficients::Dense(&dense);
            shared_conv2d(input, basis, dense, window, epilogue)
        }
    };
    seen.or(|| profile::timed(id, problem, work))
}

/// The factors if all are dense.
fn tensors(factors: &Factors<4>) -> Option<FactorTensors> {
    let value = |weight: &Weight<4>| weight.dense().map(Param::val);
    let optional = |weight: Option<&Weight<4>>| match weight {
        None => Some(None),
        Some(weight) => value(weight).map(Some),
    };
    Some(FactorTensors {
        reduce: optional(factors.reduce())?,
        core: value(factors.core())?,
        expand: optional(factors.expand())?,
    })
}

/// Dense factors, seen as the layers that they are, and timed as one.
fn run_dense_factors(
    factors: &Factors<4>,
    tensors: FactorTensors,
    input: Tensor<4>,
    window: &ConvWindow<2>,
    epilogue: Epilogue<4>,
) -> Tensor<4> {
    let shape = input.dims();
    let point = ConvWindow::new([1, 1]);
    let problem = |window: &ConvWindow<2>, shape, weight: &Weight<4>| {
        let problem = window.problem(shape, weight.dims()[0]);
        problem.unwrap_or_else(|error| panic!("Conv2d: {error}"))
    };
    let mut inner = shape;
    if let Some(reduce) = factors.reduce() {
        trace::record(reduce.id(), || problem(&point, shape, reduce));
        inner[1] = reduce.dims()[0];
    }
    let core = || problem(window, inner, factors.core());
    trace::record(factors.core().id(), core);
    if let Some(expand) = factors.expand() {
        let shape = || core().output_shape();
        trace::record(expand.id(), || problem(&point, shape(), expand));
    }
    let id = factors.core().id();
    let seen = flow::through(id, core, [Some(&input), epilogue.residual.as_ref()]);
    let work = || factored_conv2d(input, tensors, factors.chains(), window, epilogue);
    seen.or(|| profile::timed(id, core, work))
}

impl Conv2d {
    /// How the kernel moves over an input of that height and width.
    pub fn window(&self, input: [usize; 2]) -> ConvWindow<2> {
        let moves = [self.kernel_size, self.stride, self.dilation];
        window(moves, self.groups, &self.padding, input)
    }

    /// `conv(x) + bias`.
    ///
    /// # Shapes
    /// - input `[batch, channels_in, height, width]`
    /// - output `[batch, channels_out, height_out, width_out]`
    ///
    /// # Panics
    /// On an input whose shape does not fit.
    pub fn forward(&self, input: Tensor<4>) -> Tensor<4> {
        self.forward_fused(input, None, Activation::None)
    }

    /// `act(conv(x) + bias + residual)`: one kernel when packed, Burn's operations when dense. Factors run one
    /// after the other; dense ones as one where there is a kernel for it.
    ///
    /// # Panics
    /// On shapes that do not fit, and on factors of a layer of several groups.
    pub fn forward_fused(
        &self,
        input: Tensor<4>,
        residual: Option<Tensor<4>>,
        activation: Activation,
    ) -> Tensor<4> {
        let [_, _, height, width] = input.dims();
        let window = self.window([height, width]);
        let epilogue = Epilogue {
            bias: self.bias.as_ref().map(Param::val),
            residual,
            activation,
        };
        run(&self.weight, input, &window, epilogue)
    }

    /// Keeps only the non-zeros of the weight; see [`Weight::pack`]. Whole models:
    /// [`pack`](crate::pack).
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
