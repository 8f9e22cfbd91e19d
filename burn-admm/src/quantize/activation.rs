use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor, TensorData};

use super::{Histogram, QuantizeError, Saturation};

/// Looks at activations and says which range their levels should cover: calibration after training.
///
/// # Example
/// ```
/// use burn::tensor::{Device, Distribution, Tensor};
/// use burn_admm::quantize::{ActivationQuantizer, Observer, Saturation};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let device = Device::flex();
/// let mut observer = Observer::new();
/// for _ in 0..4 {
///     // What reaches the layer for a batch of the calibration data.
///     let x = Tensor::<2>::random([32, 16], Distribution::Normal(0.0, 1.0), &device);
///     observer.observe(&x)?;
/// }
/// let range = observer.range(8, Saturation::Percentile(99.9))?;
/// let quantizer = ActivationQuantizer::new(range, 8, &device)?;
/// let x = Tensor::<2>::from_data([[0.0, 0.1, 50.0]], &device);
/// let y: Vec<f32> = quantizer.forward(x).into_data().try_into_vec()?;
/// assert_eq!(y[0], 0.0);
/// assert!((y[1] - 0.1).abs() < 0.02 && y[2] < 6.0);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Observer {
    histogram: Histogram,
}

impl Observer {
    /// That has seen nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Counts the values of a tensor.
    ///
    /// # Errors
    /// [`QuantizeError::NonFinite`] for a NaN or an infinity, [`QuantizeError::Read`] if the device
    /// fails.
    pub fn observe<const D: usize>(&mut self, x: &Tensor<D>) -> Result<(), QuantizeError> {
        let values = x.clone().detach().try_into_vec_as::<f32>()?;
        self.histogram.add(&values)
    }

    /// What was counted.
    pub fn histogram(&self) -> &Histogram {
        &self.histogram
    }

    /// The range for levels of so many bits; zero is always in it.
    ///
    /// # Errors
    /// [`QuantizeError::Percentile`] for one outside (0, 100], [`QuantizeError::Bits`] for bits outside
    /// 2 to 16, [`QuantizeError::Range`] if nothing but zeros was seen.
    pub fn range(&self, bits: u8, saturation: Saturation) -> Result<[f32; 2], QuantizeError> {
        check_bits(bits)?;
        let mut histogram = self.histogram.clone();
        // Levels are judged with zero among them.
        histogram.add(&[0.0])?;
        let range = saturation.range(&histogram, 1 << bits)?;
        let range = [range[0].min(0.0), range[1].max(0.0)];
        check_range(range)?;
        Ok(range)
    }
}

fn check_bits(bits: u8) -> Result<(), QuantizeError> {
    if (2..=16).contains(&bits) {
        return Ok(());
    }
    let kind = "activation";
    let (low, high) = (2, 16);
    Err(QuantizeError::Bits {
        kind,
        bits,
        low,
        high,
    })
}

fn check_range([low, high]: [f32; 2]) -> Result<(), QuantizeError> {
    let reason = if !low.is_finite() || !high.is_finite() || !(high - low).is_finite() {
        "both ends and their distance must be finite"
    } else if low > 0.0 || high < 0.0 {
        "zero must be in it: padding and what activations cut off are zeros"
    } else if low == high {
        "it is empty; calibrate on data that reaches the layer"
    } else {
        return Ok(());
    };
    Err(QuantizeError::Range { low, high, reason })
}

/// Activations on levels while training: a layer of a model, after the activation that it is for.
///
/// `y = s · (clamp(round(x / s) + z, 0, 2^b − 1) − z)` with `s = (high − low) / (2^b − 1)` and the whole
/// zero point `z = round(−low / s)`, so that zero stays zero. Backwards, rounding counts as the
/// identity; what saturates passes its gradient to the end of the range at which it did (Choi et al.,
/// "PACT", 2018, equation 3).
///
/// The range is fixed as calibrated, or [learned](Self::learned): each end by a factor, so that it never
/// crosses zero.
#[derive(Module, Debug)]
pub struct ActivationQuantizer {
    /// Low and high as they were calibrated.
    range: Param<Tensor<1>>,
    /// The logarithms of how much they have grown.
    growth: Param<Tensor<1>>,
    bits: usize,
}

impl ActivationQuantizer {
    /// With a calibrated range.
    ///
    /// # Errors
    /// [`QuantizeError::Range`] for one that is not finite, empty or without zero,
    /// [`QuantizeError::Bits`] for bits outside 2 to 16.
    pub fn new(range: [f32; 2], bits: u8, device: &Device) -> Result<Self, QuantizeError> {
        check_bits(bits)?;
        check_range(range)?;
        let data = TensorData::new(range.to_vec(), [2]);
        let range: Tensor<1> = Tensor::from_data(data, device);
        Ok(Self {
            growth: Param::from_tensor(range.zeros_like()).set_require_grad(false),
            range: Param::from_tensor(range).set_require_grad(false),
            bits: usize::from(bits),
        })
    }

    /// Lets the range train.
    #[must_use]
    pub fn learned(mut self) -> Self {
        self.growth = self.growth.set_require_grad(true);
        self
    }

    /// Low and high, as they are now.
    ///
    /// # Errors
    /// [`QuantizeError::Read`] if the device fails.
    pub fn range(&self) -> Result<[f32; 2], QuantizeError> {
        let range = self.ends().detach().try_into_vec_as::<f32>()?;
        Ok([range[0], range[1]])
    }

    /// Which parameter trains.
    #[cfg(test)]
    pub(super) fn growth_id(&self) -> burn::module::ParamId {
        self.growth.id
    }

    fn ends(&self) -> Tensor<1> {
        self.range.val() * self.growth.val().exp()
    }

    /// Bits of a level.
    pub fn bits(&self) -> usize {
        self.bits
    }

    /// `x` on its levels, of the same shape.
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let steps = ((1usize << self.bits) - 1) as f64;
        let ends = self.ends();
        let end = |index: usize| -> Tensor<D> {
            let end = ends.clone().narrow(0, index, 1);
            end.cast(x.dtype()).reshape([1; D])
        };
        let (low, high) = (end(0), end(1));
        let scale = (high.clone() - low.clone())
            .detach()
            .div_scalar(steps)
            .clamp_min(f32::MIN_POSITIVE);
        let zero_point = round(-low.clone().detach() / scale.clone());
        // Gradients: one inside, and those of the ends outside.
        let through = x.clone().max_pair(low).min_pair(high);
        let codes = round(x.detach() / scale.clone()) + zero_point.clone();
        let codes = codes.clamp(0.0, steps) - zero_point;
        codes * scale + (through.clone() - through.detach())
    }
}

/// To the nearest whole number, half away from zero.
fn round<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    x.clone().abs().add_scalar(0.5).floor() * x.sign()
}
