//! Each way to run the factors of a convolution, by itself.

use burn::tensor::{Device, FloatDType, Tensor};

use super::factored::has_kernel;
use super::{
    Chains, ConvWindow, Epilogue, FactorTensors, FactoredBy, dense_conv2d, factored_conv2d,
    factored_conv2d_by, is_flex,
};
use crate::{ConvProblem, SparseError};
#[cfg(feature = "cubecl-backend")]
use {
    crate::kernel,
    burn::backend::{DispatchDevice, ops::FloatTensorOps},
    burn::tensor::{DType, TensorData},
    burn_cubecl::{CubeBackend, CubeDevice},
};

/// Dense factors of a convolution, run by a form of one's choice: what layers choose among. For
/// measurements; layers are [`nn::Conv2d`](crate::nn::Conv2d).
///
/// # Example
/// ```
/// use burn::tensor::{Device, Distribution, Tensor};
/// use burn_sparse::ops::{ConvWindow, FactoredBy, FactoredConv};
///
/// let device = Device::flex();
/// let random = |shape| Tensor::<4>::random(shape, Distribution::Default, &device);
/// let [reduce, core, expand] = [[4, 16, 1, 1], [6, 4, 3, 3], [32, 6, 1, 1]].map(random);
/// let conv = FactoredConv::new(Some(reduce), core, Some(expand), ConvWindow::new([3, 3]));
///
/// let x = random([1, 16, 8, 8]);
/// let dense = conv.run(x.clone(), FactoredBy::Dense)?;
/// let strip = conv.run(x, FactoredBy::Strip)?;
/// assert_eq!(strip.dims(), [1, 32, 6, 6]);
/// assert!((strip - dense).abs().max().into_scalar::<f32>() < 1e-4);
/// # Ok::<(), burn_sparse::SparseError>(())
/// ```
#[derive(Debug, Clone)]
pub struct FactoredConv {
    factors: FactorTensors,
    window: ConvWindow<2>,
    /// Of all factors, and of the core alone.
    chains: [Chains; 2],
}

impl FactoredConv {
    /// `reduce` `[D1, in, 1, 1]`, `core` `[D2, D1, kernel..]` with the window, and `expand` `[out, D2, 1, 1]`;
    /// the first and the last may be missing.
    pub fn new(
        reduce: Option<Tensor<4>>,
        core: Tensor<4>,
        expand: Option<Tensor<4>>,
        window: ConvWindow<2>,
    ) -> Self {
        Self {
            factors: FactorTensors {
                reduce,
                core,
                expand,
            },
            window,
            chains: [Chains::default(), Chains::default()],
        }
    }

    /// The core without its neighbours, for an input of its channels.
    #[must_use]
    pub fn core_alone(&self) -> Self {
        Self::new(None, self.factors.core.clone(), None, self.window)
    }

    /// The convolution, without bias and activation.
    ///
    /// # Shapes
    /// - `input` `[batch, in, height, width]`
    /// - output `[batch, out, height_out, width_out]`
    ///
    /// # Errors
    /// [`SparseError::Shape`] with the reason where the device does not have the form, or not for these factors
    /// and this type of numbers.
    ///
    /// # Panics
    /// On shapes that do not fit, with the numbers.
    pub fn run(&self, input: Tensor<4>, by: FactoredBy) -> Result<Tensor<4>, SparseError> {
        let (factors, window) = (self.factors.clone(), &self.window);
        let point = ConvWindow::new([1, 1]);
        let pointwise = |x: Tensor<4>, factor: Option<Tensor<4>>| match factor {
            Some(factor) => dense_conv2d(x, factor, None, &point),
            None => x,
        };
        match by {
            FactoredBy::Fastest => Ok(factored_conv2d(
                input,
                factors,
                &self.chains[0],
                window,
                Epilogue::new(),
            )),
            FactoredBy::Dense => {
                let x = pointwise(input, factors.reduce);
                let x = dense_conv2d(x, factors.core, None, window);
                Ok(pointwise(x, factors.expand))
            }
            FactoredBy::Strip => {
                self.check(&input)?;
                self.check_strip(&input)?;
                let chains = &self.chains[0];
                let epilogue = Epilogue::new();
                Ok(factored_conv2d_by(
                    input, factors, chains, window, epilogue, by,
                ))
            }
            FactoredBy::Core => {
                self.check(&input)?;
                let x = pointwise(input, factors.reduce);
                let core = FactorTensors {
                    reduce: None,
                    core: factors.core,
                    expand: None,
                };
                let (chains, epilogue) = (&self.chains[1], Epilogue::new());
                let x = factored_conv2d_by(x, core, chains, window, epilogue, by);
                Ok(pointwise(x, factors.expand))
            }
        }
    }

    /// That there are kernels for factors.
    fn check(&self, input: &Tensor<4>) -> Result<(), SparseError> {
        if has_kernel(input, &self.factors, &Epilogue::new()) {
            return Ok(());
        }
        let (device, dtype) = (input.device(), input.dtype());
        Err(SparseError::shape(match is_flex(&device) {
            true => {
                format!("on flex only f32 without gradients has kernels for factors, not {dtype:?}")
            }
            false => format!("no kernels for factors on {device:?} in {dtype:?}"),
        }))
    }

    /// That a strip fits.
    fn check_strip(&self, input: &Tensor<4>) -> Result<(), SparseError> {
        #[cfg(feature = "cubecl-backend")]
        if let Some(device) = cube(&input.device()) {
            let [d2, d1, ..] = self.factors.core.dims();
            let out = self.factors.expand.as_ref().map_or(d2, |e| e.dims()[0]);
            let problem = self.window.problem(input.dims(), out)?;
            let sides = [&self.factors.reduce, &self.factors.expand].map(Option::is_some);
            let tile = kernel::strip_tile(&problem, [d1, d2], sides, input.dtype(), &device);
            return tile.map(drop).map_err(SparseError::shape);
        }
        let _ = input;
        Ok(())
    }
}

/// Times of the tiles that the [core convolution](FactoredBy::Core) of a CubeCL device may run with.
#[derive(Debug, Clone, PartialEq)]
pub struct CoreTiles {
    /// Tiles that were timed.
    pub tiles: usize,
    /// The fastest, and its milliseconds.
    pub best: (String, f64),
    /// The pick of TDC's analytical model and its milliseconds, if the model has one for this shape.
    pub model: Option<(String, f64)>,
}

impl CoreTiles {
    /// Time of the model's pick divided by that of the fastest tile: 1 where the model is right.
    pub fn model_over_best(&self) -> Option<f64> {
        self.model.as_ref().map(|(_, ms)| ms / self.best.1)
    }
}

/// Times every tile of the catalogue for a core convolution, on random values: the median of `repeats` calls
/// each.
///
/// # Errors
/// [`SparseError::Shape`] with the reason on devices that have no such tiles, which are all but those of CubeCL;
/// where no tile fits, and where the device fails.
pub fn core_tiles(
    problem: &ConvProblem,
    dtype: FloatDType,
    repeats: usize,
    device: &Device,
) -> Result<CoreTiles, SparseError> {
    problem.check()?;
    #[cfg(feature = "cubecl-backend")]
    if let Some(device) = cube(device) {
        let floats = |shape: [usize; 4], seed| {
            let values = crate::catalogue::values(shape.iter().product(), seed);
            let data = TensorData::new(values, shape).convert_dtype(DType::from(dtype));
            CubeBackend::float_from_data(data, &device)
        };
        let input = floats(problem.input_shape(), 1);
        let weight = kernel::core_weight(floats(problem.weight_shape(), 2));
        let epilogue = kernel::Epilogue::default();
        let times = kernel::catalogue_times(input, weight, epilogue, problem, repeats);
        let times = times.map_err(SparseError::shape)?;
        let named = |time: &kernel::TileTime| (time.tile.to_string(), 1e3 * time.seconds);
        let best = times.best().map(named);
        return Ok(CoreTiles {
            tiles: times.tiles.len(),
            best: best.ok_or_else(|| SparseError::shape("no tile was timed"))?,
            model: times.model.and_then(|at| times.tiles.get(at)).map(named),
        });
    }
    let _ = (dtype, repeats);
    Err(SparseError::shape(match is_flex(device) {
        true => "flex has no tiles of the core to choose among".to_owned(),
        false => format!("{device:?} has no tiles of the core to choose among"),
    }))
}

#[cfg(feature = "cubecl-backend")]
fn cube(device: &Device) -> Option<CubeDevice> {
    match device.as_dispatch() {
        DispatchDevice::Cube(device) => Some(device.clone()),
        #[allow(unreachable_patterns, reason = "there may be no other backend")]
        _ => None,
    }
}
