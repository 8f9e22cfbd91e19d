//! Rounding to levels on a device, with gradients straight through.

use burn::module::{Module, Param, ParamId};
use burn::tensor::{Device, Int, Tensor, TensorData};

use super::Grid;
use crate::MatrixView;

/// Whole multiples of intervals, one for the weight or one for each output channel.
///
/// `y = q · n` with `n = clamp(round(w / q))`. Backwards, rounding counts as the identity:
/// `∂y/∂w = 1` where nothing is clamped and 0 elsewhere, and `∂y/∂q = n − w/q` where nothing is
/// clamped and `n` elsewhere, times `1/√(weights · most)` (Esser et al., "Learned step size
/// quantization", ICLR 2020, sections 2.1 and 2.2).
///
/// What trains is `ρ` of `q = q₀ exp(ρ)`: a step of an optimiser changes the interval by a factor. As a
/// number like the weights it would be smaller than a step of Adam, and gone after one.
#[derive(Module, Debug)]
pub(super) struct Multiples {
    /// Intervals as they were fitted; one, or one for each output channel.
    scale: Param<Tensor<1>>,
    /// The logarithm of how much they have grown.
    growth: Param<Tensor<1>>,
    /// The least and the largest multiple; one, or one for each output channel. Whole numbers, so that
    /// nothing ever trains them.
    low: Param<Tensor<1, Int>>,
    high: Param<Tensor<1, Int>>,
    /// Whether zero is a level.
    zero: bool,
    axis: usize,
    gradient: f64,
}

/// A number of the codebook for each weight, which trains by the *mean* gradient of its weights.
///
/// Where Han et al. ("Deep Compression", ICLR 2016, section 3.3) sum the gradients, a step of gradient descent
/// moves a number that stands for a thousand weights a thousand times as far as it would move one of them.
/// With the mean, the step is the one that the weights would take by themselves, projected onto weights that
/// share numbers: a learning rate at which they train is none at which their codebook diverges.
#[derive(Module, Debug)]
pub(super) struct Shared {
    /// All codebooks, one after the other.
    codebook: Param<Tensor<1>>,
    /// What a weight counts in the gradient of each number: one part in so many as share it.
    share: Param<Tensor<1>>,
    /// Where in them the number of each weight stands, in storage order.
    codes: Param<Tensor<1, Int>>,
}

/// Whole multiples that do not change: powers of two in units of the least.
#[derive(Module, Debug)]
pub(super) struct Fixed {
    multiples: Param<Tensor<1, Int>>,
    /// One for each weight, in storage order.
    units: Param<Tensor<1>>,
}

fn floats(values: Vec<f32>, device: &Device, learn: bool) -> Param<Tensor<1>> {
    let len = values.len();
    let tensor: Tensor<1> = Tensor::from_data(TensorData::new(values, [len]), device);
    Param::from_tensor(tensor).set_require_grad(learn)
}

fn integers(values: Vec<i64>, device: &Device) -> Param<Tensor<1, Int>> {
    let len = values.len();
    let tensor = Tensor::from_data(TensorData::new(values, [len]), device);
    Param::initialized(ParamId::new(), tensor)
}

/// A tensor at exactly its value, with the gradient that `scale` makes of its own.
fn scaled(tensor: Tensor<1>, scale: impl FnOnce(Tensor<1>) -> Tensor<1>) -> Tensor<1> {
    let moving = tensor.clone() - tensor.clone().detach();
    tensor.detach() + scale(moving)
}

impl Multiples {
    /// Of grids of multiples, one for the weight or one for each output channel.
    pub(super) fn new(
        grids: &[Grid],
        view: &MatrixView,
        bits: u8,
        learn: bool,
        device: &Device,
    ) -> Self {
        let (mut scales, mut zero) = (Vec::with_capacity(grids.len()), false);
        let (mut lows, mut highs) = (Vec::new(), Vec::new());
        for grid in grids {
            let (of_grid, ends) = match grid {
                Grid::Nonzero { scale, most } => (*scale, [-i64::from(*most), i64::from(*most)]),
                Grid::Signed { scale, low, high } => {
                    zero = true;
                    (*scale, [i64::from(*low), i64::from(*high)])
                }
                other => unreachable!("{other:?} has no intervals"),
            };
            scales.push(of_grid);
            lows.push(ends[0]);
            highs.push(ends[1]);
        }
        let per_scale = view.len().max(1) as f64 / grids.len().max(1) as f64;
        Self {
            growth: floats(vec![0.0; scales.len()], device, learn),
            scale: floats(scales, device, false),
            low: integers(lows, device),
            high: integers(highs, device),
            zero,
            axis: view.axis(),
            gradient: (per_scale * f64::from(1u32 << (bits - 1))).powf(-0.5),
        }
    }

    /// `values` along the axis of output channels of a weight of rank `D`, or as one element.
    fn along<const D: usize>(&self, values: Tensor<1>) -> Tensor<D> {
        let mut shape = [1; D];
        if D > 0 && values.dims()[0] > 1 {
            shape[self.axis] = values.dims()[0];
        }
        values.reshape(shape)
    }

    pub(super) fn apply<const D: usize>(&self, weight: Tensor<D>) -> Tensor<D> {
        let dtype = weight.dtype();
        let growth = scaled(self.growth.val(), |moving| moving.mul_scalar(self.gradient));
        let scale = self.scale.val() * growth.exp();
        let scale: Tensor<D> = self.along(scale.cast(dtype));
        let bound = |of: &Param<Tensor<1, Int>>| self.along(of.val().float().cast(dtype));
        let steps = weight / scale.clone();
        let steps = steps.max_pair(bound(&self.low)).min_pair(bound(&self.high));
        let codes = round(steps.clone().detach(), self.zero);
        // Zero, with the gradient of what is not clamped.
        let through = steps.clone() - steps.detach();
        (codes + through) * scale
    }
}

/// The nearest whole number, or the nearest that is not zero.
fn round<const D: usize>(steps: Tensor<D>, zero: bool) -> Tensor<D> {
    let nearest = steps.clone().abs().add_scalar(0.5).floor();
    if zero {
        // Adding zero turns `-0.0` into `0.0`.
        return nearest * steps.sign() + 0.0;
    }
    let dtype = steps.dtype();
    let sign = steps
        .lower_elem(0.0)
        .float()
        .mul_scalar(-2.0)
        .add_scalar(1.0);
    nearest.clamp_min(1.0) * sign.cast(dtype)
}

impl Shared {
    /// Codes of weights in storage order in a codebook; weights that are not kept count for nothing.
    pub(super) fn new(codebook: Vec<f32>, codes: Vec<i64>, keep: &[bool], device: &Device) -> Self {
        let mut counts = vec![0.0_f32; codebook.len()];
        for (&code, _) in codes.iter().zip(keep).filter(|(_, keep)| **keep) {
            counts[code as usize] += 1.0;
        }
        let share = counts.into_iter().map(|count| 1.0 / count.max(1.0));
        Self {
            codebook: floats(codebook, device, true),
            share: floats(share.collect(), device, false),
            codes: integers(codes, device),
        }
    }

    pub(super) fn apply<const D: usize>(&self, weight: Tensor<D>) -> Tensor<D> {
        let (shape, dtype) = (weight.shape(), weight.dtype());
        let codebook = scaled(self.codebook.val(), |moving| moving * self.share.val());
        let values = codebook.select(0, self.codes.val());
        values.reshape(shape).cast(dtype)
    }
}

impl Fixed {
    pub(super) fn new(multiples: Vec<i64>, units: Vec<f32>, device: &Device) -> Self {
        Self {
            multiples: integers(multiples, device),
            units: floats(units, device, false),
        }
    }

    pub(super) fn apply<const D: usize>(&self, weight: Tensor<D>) -> Tensor<D> {
        let (shape, dtype) = (weight.shape(), weight.dtype());
        let units = self.units.val();
        let values = self.multiples.val().float().cast(units.dtype()) * units;
        values.reshape(shape).cast(dtype)
    }
}
