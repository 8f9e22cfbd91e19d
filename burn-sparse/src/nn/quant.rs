//! Layers in 8-bit integers.

use std::sync::Arc;

use burn::module::{Module, Param};
use burn::nn::PaddingConfig2d;
use burn::tensor::{Tensor, TensorData};

use super::{Activation, Conv2d, Linear, Weight};
use crate::{
    SparseError,
    cpu::{InputScale, Int8Weight, RowFinish, int8_conv, int8_linear},
};

/// A [`Linear`] layer in 8-bit integers, for inference on the CPU: weights with a scale for each output
/// feature, inputs with one scale for the layer, exact 32-bit sums, outputs in f32.
///
/// It is made from a trained layer and a range of inputs, and not trained further: it has no parameters,
/// a record of it holds none, and its output has no history, so that layers before it get no gradient. Keep the layer it came from, dense or packed, in checkpoints. On
/// devices other than Flex, inputs and outputs are copied to the host and back.
///
/// Zeros of a pruned weight cost as much as other weights; where most are zero, packed layers are faster.
///
/// # Example
/// ```
/// use burn::tensor::{Device, Distribution, Tensor};
/// use burn_sparse::nn::{LinearConfig, QuantLinear};
///
/// let device = Device::flex();
/// let linear = LinearConfig::new(64, 10).init(&device);
/// let x = Tensor::<2>::random([3, 64], Distribution::Uniform(-1.0, 1.0), &device);
/// let int8 = QuantLinear::from_linear(&linear, [-1.0, 1.0])?;
/// let difference = (int8.forward(x.clone()) - linear.forward(x)).abs().max();
/// assert!(difference.into_scalar::<f32>() < 0.05);
/// # Ok::<(), burn_sparse::SparseError>(())
/// ```
#[derive(Module, Debug)]
pub struct QuantLinear {
    #[module(skip)]
    layer: Layer,
}

/// A [`Conv2d`] in 8-bit integers; all that is said of [`QuantLinear`] holds for it.
///
/// # Example
/// ```
/// use burn::tensor::{Device, Distribution, Tensor};
/// use burn_sparse::nn::{Conv2dConfig, QuantConv2d};
///
/// let device = Device::flex();
/// let conv = Conv2dConfig::new([3, 8], [3, 3]).with_stride([2, 2]).init(&device);
/// let x = Tensor::<4>::random([1, 3, 9, 9], Distribution::Uniform(0.0, 2.0), &device);
/// let int8 = QuantConv2d::from_conv2d(&conv, [0.0, 2.0])?;
/// let difference = (int8.forward(x.clone()) - conv.forward(x)).abs().max();
/// assert!(difference.into_scalar::<f32>() < 0.05);
/// # Ok::<(), burn_sparse::SparseError>(())
/// ```
#[derive(Module, Debug)]
pub struct QuantConv2d {
    #[module(skip)]
    layer: Layer,
    /// What does not change: how the kernel moves.
    #[module(skip)]
    geometry: Geometry,
}

/// What both have.
#[derive(Debug, Clone)]
struct Layer {
    weight: Arc<Int8Weight>,
    bias: Option<Arc<Vec<f32>>>,
    scale: InputScale,
}

#[derive(Debug, Clone)]
struct Geometry {
    stride: [usize; 2],
    kernel_size: [usize; 2],
    dilation: [usize; 2],
    padding: PaddingConfig2d,
}

fn floats<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    let data = tensor.into_data().convert::<f32>();
    data.try_to_vec().expect("tensors were converted to f32")
}

impl Layer {
    fn new<const D: usize>(
        weight: &Weight<D>,
        shape: [usize; 3],
        groups: usize,
        bias: Option<&Param<Tensor<1>>>,
        input_range: [f32; 2],
        weight_ranges: Option<&[f32]>,
    ) -> Result<Self, SparseError> {
        let scale = InputScale::new(input_range)?;
        let rows = weight.to_csr()?.to_dense();
        let weight = Int8Weight::new(&rows, shape, groups, weight_ranges)?;
        Ok(Self {
            weight: Arc::new(weight),
            bias: bias.map(|bias| Arc::new(floats(bias.val()))),
            scale,
        })
    }

    /// Runs a kernel on what the tensors hold.
    fn run<const D: usize>(
        &self,
        input: Tensor<D>,
        residual: Option<Tensor<D>>,
        shape: [usize; D],
        activation: Activation,
        kernel: impl FnOnce(&[f32], RowFinish<'_>, &mut [f32]),
    ) -> Tensor<D> {
        let device = input.device();
        let input = floats(input);
        let residual = residual.map(floats);
        let finish = RowFinish {
            bias: self.bias.as_ref().map(|bias| &***bias),
            residual: residual.as_deref(),
            relu: activation == Activation::Relu,
        };
        let mut out = vec![0.0; shape.iter().product()];
        kernel(&input, finish, &mut out);
        Tensor::from_data(TensorData::new(out, shape), &device)
    }
}

impl QuantLinear {
    /// Quantises a layer whose inputs lie in a range, lowest first, as samples show it. Weights are
    /// scaled by the largest magnitude of each output feature.
    ///
    /// # Errors
    /// [`SparseError::InputRange`] for a range that is none, [`SparseError::NonFinite`] for a weight
    /// that is no finite number, [`SparseError::Shape`] for more than 66,311 input features.
    pub fn from_linear(linear: &Linear, input_range: [f32; 2]) -> Result<Self, SparseError> {
        Self::with_weight_ranges(linear, input_range, None)
    }

    /// As [`from_linear`](Self::from_linear), with a largest magnitude for the weights of each output
    /// feature; those beyond are cut off. Less than the largest weight is often more accurate.
    ///
    /// # Errors
    /// As [`from_linear`](Self::from_linear), and for ranges that do not fit.
    pub fn with_weight_ranges(
        linear: &Linear,
        input_range: [f32; 2],
        weight_ranges: Option<&[f32]>,
    ) -> Result<Self, SparseError> {
        let [rows, len] = linear.weight.matrix();
        let bias = linear.bias.as_ref();
        let layer = Layer::new(
            &linear.weight,
            [rows, len, 1],
            1,
            bias,
            input_range,
            weight_ranges,
        )?;
        Ok(Self { layer })
    }

    /// `x W + b`.
    ///
    /// # Shapes
    /// - input `[.., d_input]`
    /// - output `[.., d_output]`
    ///
    /// # Panics
    /// If the last axis of the input is not `d_input`.
    pub fn forward<const D: usize>(&self, input: Tensor<D>) -> Tensor<D> {
        self.forward_fused(input, None, Activation::None)
    }

    /// `act(x W + b + residual)`.
    ///
    /// # Panics
    /// On shapes that do not fit.
    pub fn forward_fused<const D: usize>(
        &self,
        input: Tensor<D>,
        residual: Option<Tensor<D>>,
        activation: Activation,
    ) -> Tensor<D> {
        let weight = &self.layer.weight;
        let mut shape = input.dims();
        let (d_input, d_output) = (weight.row_len(), weight.rows());
        assert!(
            D > 0 && shape[D - 1] == d_input,
            "QuantLinear: input {shape:?}, but the layer has {d_input} input features"
        );
        shape[D - 1] = d_output;
        check_residual("QuantLinear", residual.as_ref(), shape);
        let kernel = |x: &[f32], finish: RowFinish<'_>, out: &mut [f32]| {
            int8_linear(x, weight, self.layer.scale, finish, out);
        };
        self.layer.run(input, residual, shape, activation, kernel)
    }

    /// The integers.
    pub fn weight(&self) -> &Int8Weight {
        &self.layer.weight
    }

    /// How inputs become bytes.
    pub fn input_scale(&self) -> InputScale {
        self.layer.scale
    }
}

impl QuantConv2d {
    /// Quantises a layer whose inputs lie in a range, lowest first, as samples show it. Weights are
    /// scaled by the largest magnitude of each output channel.
    ///
    /// # Errors
    /// [`SparseError::InputRange`] for a range that is none, [`SparseError::NonFinite`] for a weight
    /// that is no finite number, [`SparseError::Shape`] for more than 66,311 weights of a channel.
    pub fn from_conv2d(conv: &Conv2d, input_range: [f32; 2]) -> Result<Self, SparseError> {
        Self::with_weight_ranges(conv, input_range, None)
    }

    /// As [`from_conv2d`](Self::from_conv2d), with a largest magnitude for the weights of each output
    /// channel; those beyond are cut off.
    ///
    /// # Errors
    /// As [`from_conv2d`](Self::from_conv2d), and for ranges that do not fit.
    pub fn with_weight_ranges(
        conv: &Conv2d,
        input_range: [f32; 2],
        weight_ranges: Option<&[f32]>,
    ) -> Result<Self, SparseError> {
        let [rows, channels, height, width] = conv.weight.dims();
        let layer = Layer::new(
            &conv.weight,
            [rows, channels, height * width],
            conv.groups,
            conv.bias.as_ref(),
            input_range,
            weight_ranges,
        )?;
        let geometry = Geometry {
            stride: conv.stride,
            kernel_size: conv.kernel_size,
            dilation: conv.dilation,
            padding: conv.padding.clone(),
        };
        Ok(Self { layer, geometry })
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

    /// `act(conv(x) + bias + residual)`.
    ///
    /// # Panics
    /// On shapes that do not fit.
    pub fn forward_fused(
        &self,
        input: Tensor<4>,
        residual: Option<Tensor<4>>,
        activation: Activation,
    ) -> Tensor<4> {
        let (shape, weight) = (input.dims(), &self.layer.weight);
        let Geometry {
            stride,
            kernel_size,
            dilation,
            padding,
        } = &self.geometry;
        let window = super::conv2d::window(
            [*kernel_size, *stride, *dilation],
            weight.groups(),
            padding,
            [shape[2], shape[3]],
        );
        let problem = window
            .problem(shape, weight.rows())
            .unwrap_or_else(|error| panic!("QuantConv2d: {error}"));
        assert!(
            problem.row_len() == weight.row_len(),
            "QuantConv2d: input {shape:?}, but the layer has {} input channels",
            weight.inputs()[0] * weight.groups()
        );
        let out = problem.output_shape();
        check_residual("QuantConv2d", residual.as_ref(), out);
        let kernel = |x: &[f32], finish: RowFinish<'_>, out: &mut [f32]| {
            int8_conv(x, weight, self.layer.scale, &problem, finish, out);
        };
        self.layer.run(input, residual, out, activation, kernel)
    }

    /// The integers.
    pub fn weight(&self) -> &Int8Weight {
        &self.layer.weight
    }

    /// How inputs become bytes.
    pub fn input_scale(&self) -> InputScale {
        self.layer.scale
    }
}

fn check_residual<const D: usize>(layer: &str, residual: Option<&Tensor<D>>, shape: [usize; D]) {
    if let Some(residual) = residual {
        let found = residual.dims();
        assert!(
            found == shape,
            "{layer}: a residual {found:?} for an output {shape:?}"
        );
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use burn::tensor::{Device, Distribution};

    use super::*;
    use crate::nn::{Conv2dConfig, LinearConfig};

    /// Half a step of each input times each weight, and half a scale of each weight times each input.
    fn bound(len: usize, weight: f32, input: f32) -> f32 {
        let (of_weight, of_input) = (0.5 * weight / 127.0, 0.5 * 2.0 * input / 255.0);
        1.01 * len as f32 * ((weight + of_weight) * of_input + input * of_weight)
    }

    fn largest<const D: usize>(tensor: Tensor<D>) -> f32 {
        tensor.abs().max().into_scalar()
    }

    #[test]
    fn a_convolution_is_near_the_dense_one() {
        let device = Device::flex();
        let conv = Conv2dConfig::new([4, 6], [3, 3])
            .with_groups(2)
            .with_stride([2, 1])
            .with_padding(PaddingConfig2d::Same)
            .init(&device);
        let uniform = Distribution::Uniform(-1.0, 1.0);
        let x = Tensor::<4>::random([2, 4, 7, 8], uniform, &device);
        let residual = Tensor::<4>::random([2, 6, 4, 8], uniform, &device);
        let int8 = QuantConv2d::from_conv2d(&conv, [-1.0, 1.0]).unwrap();
        let run = |quantised: bool| {
            let (x, residual) = (x.clone(), Some(residual.clone()));
            if quantised {
                return int8.forward_fused(x, residual, Activation::Relu);
            }
            conv.forward_fused(x, residual, Activation::Relu)
        };
        let difference = largest(run(true) - run(false));
        let bound = bound(18, largest(conv.weight.val()), 1.0);
        assert!(difference <= bound, "{difference} of {bound}");
    }

    #[test]
    fn packed_layers_and_any_rank_are_taken() {
        let device = Device::flex();
        let linear = LinearConfig::new(20, 7).init(&device).pack().unwrap();
        let int8 = QuantLinear::from_linear(&linear, [0.0, 1.0]).unwrap();
        let x = Tensor::<3>::random([2, 3, 20], Distribution::Default, &device);
        let difference = largest(int8.forward(x.clone()) - linear.forward(x));
        let bound = bound(20, largest(linear.weight.val()), 1.0);
        assert!(difference <= bound, "{difference} of {bound}");
        assert_eq!(int8.weight().rows(), 7);
    }

    #[test]
    fn ranges_that_are_none_are_errors() {
        let linear = LinearConfig::new(4, 2).init(&Device::flex());
        let error = QuantLinear::from_linear(&linear, [1.0, -1.0]).unwrap_err();
        assert!(matches!(error, SparseError::InputRange { .. }));
        let ranges = Some(&[1.0, 0.0][..]);
        let error = QuantLinear::with_weight_ranges(&linear, [0.0, 1.0], ranges).unwrap_err();
        assert!(error.to_string().contains("row 1 has 0"), "{error}");
    }

    #[test]
    #[should_panic(expected = "QuantLinear: input [1, 5], but the layer has 4 input features")]
    fn an_input_of_another_size_panics() {
        let device = Device::flex();
        let linear = LinearConfig::new(4, 2).init(&device);
        let int8 = QuantLinear::from_linear(&linear, [0.0, 1.0]).unwrap();
        int8.forward(Tensor::<2>::zeros([1, 5], &device));
    }

    #[test]
    #[should_panic(expected = "QuantConv2d")]
    fn channels_that_do_not_fit_panic() {
        let device = Device::flex();
        let conv = Conv2dConfig::new([3, 2], [3, 3]).init(&device);
        let int8 = QuantConv2d::from_conv2d(&conv, [0.0, 1.0]).unwrap();
        int8.forward(Tensor::<4>::zeros([1, 4, 5, 5], &device));
    }
}
