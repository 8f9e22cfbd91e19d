//! A case, measured.

use std::time::Instant;

use burn::module::Param;
use burn::nn::{PaddingConfig1d, PaddingConfig2d};
use burn::tensor::module::{conv1d, linear};
use burn::tensor::ops::ConvOptions;
use burn::tensor::{Device, Distribution, Tensor, TensorData};
use burn_sparse::nn::{
    Conv1d, Conv1dConfig, Conv2d, Conv2dConfig, Linear, LinearConfig, Trace, Weight, weights,
};
use burn_sparse::ops::{
    Epilogue, SparseWeight, dense_conv2d, sparse_conv1d, sparse_conv2d, sparse_linear,
};
use burn_sparse::pack::{PackConfig, PackReport, pack};
use burn_sparse::{PatternPool, Pool, SparseError, Sparsity, catalogue};

use super::{LatencyCase, LatencyEntry, LatencyFileError, Operation, Precision};
use crate::projection::{ProjectionError, projection_of};
use crate::{AdmmError, PlanError};

/// Timed runs of each form in numbers that packing does not measure in, after those that warm up.
const RUNS: usize = 9;

/// Why times could not be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MappingError {
    /// A scheme that the weight cannot have.
    #[error("{case:?}: {source}")]
    Projection {
        /// The case.
        case: Box<LatencyCase>,
        /// Why.
        source: ProjectionError,
    },
    /// A problem that is none, or a weight that does not pack.
    #[error("{case:?}: {source}")]
    Sparse {
        /// The case.
        case: Box<LatencyCase>,
        /// Why.
        source: SparseError,
    },
    /// An entry that no layer can have.
    #[error("no entry of a table of times: {0}")]
    Entry(String),
    /// Settings that contradict themselves.
    #[error("the mapping cannot be: {0}")]
    Settings(String),
    /// A layer whose time is in no table and close to nothing that is.
    #[error("`{path}`: nobody measured {case:?}, nor enough like it; measure it first")]
    NoTime {
        /// The path of its weight.
        path: String,
        /// What would have to be measured.
        case: Box<LatencyCase>,
    },
    /// A forward pass that does something else each time.
    #[error("the forward pass cannot be followed: {0}")]
    Forward(SparseError),
    /// A scheme whose harm nobody measured.
    #[error("`{0}`: nobody measured what its schemes cost; measure its sensitivity first")]
    NoLoss(String),
    /// A budget that says nothing, or contradicts itself.
    #[error("the budget cannot be: {0}")]
    Budget(String),
    /// A budget that no choice of schemes keeps.
    #[error("{asked} is out of reach; the nearest is {nearest}")]
    Unreachable {
        /// The budget.
        asked: String,
        /// What can be had.
        nearest: String,
    },
    /// A layer that cannot be pruned so.
    #[error(transparent)]
    Pruning(#[from] AdmmError),
    /// A plan that does not fit the model.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// A trace without layers.
    #[error("the forward pass ran no layer of `burn_sparse::nn`; build the model of those")]
    NoLayers,
    /// A device that fails, or is no longer there.
    #[error("the device failed while {case:?} was timed: {reason}")]
    Device {
        /// The case.
        case: Box<LatencyCase>,
        /// What it says.
        reason: String,
    },
    /// All devices that were to work are gone.
    #[error("no device is left to work on: {0}")]
    NoDevice(String),
    /// The file of a table.
    #[error(transparent)]
    File(#[from] LatencyFileError),
    /// Whoever was told of the progress wants no more.
    #[error("{0}")]
    Stopped(String),
}

/// The layer of a case with random weights, dense and packed in turns.
pub(super) fn measured(case: &LatencyCase, device: &Device) -> Result<LatencyEntry, MappingError> {
    let sparse = |source| MappingError::Sparse {
        case: Box::new(*case),
        source,
    };
    case.density().map_err(sparse)?;
    let shape = case.shape();
    let weights = catalogue::values(shape.len(), 1);
    let projection =
        projection_of(concrete(case.sparsity)).and_then(|p| p.project(&weights, shape));
    let projected = projection.map_err(|source| MappingError::Projection {
        case: Box::new(*case),
        source,
    })?;
    let layer = Layer::new(case, projected.values, device);
    let x = Tensor::<4>::random(case.problem.input_shape(), Distribution::Default, device);
    let (weight, report) = layer.packed(&x).map_err(sparse)?;
    let times = report
        .layers
        .first()
        .and_then(|layer| layer.dense_ms.zip(layer.packed_ms));
    let [dense_ms, packed_ms] = match (case.precision, times) {
        (Precision::F32, Some((dense, packed))) => [dense, packed],
        // Packing times in f32, and not on devices of which it knows no geometry.
        _ => layer.in_turns(&weight, x, case, device)?,
    };
    Ok(LatencyEntry {
        case: *case,
        dense_ms,
        packed_ms,
    })
}

/// The same with patterns that need not be found first: times hardly depend on which they are.
fn concrete(sparsity: Sparsity) -> Sparsity {
    let Sparsity::KernelPattern {
        pool: Pool::Found(patterns),
        budget,
    } = sparsity
    else {
        return sparsity;
    };
    let natural = PatternPool::natural();
    match PatternPool::from_masks(&natural[..patterns.min(natural.len())]) {
        Ok(pool) => Sparsity::KernelPattern {
            pool: Pool::Given(pool),
            budget,
        },
        Err(_) => sparsity,
    }
}

/// A layer of one of the kinds: their dense forms differ.
enum Layer {
    Conv(Conv2d),
    Conv1d(Conv1d),
    Linear(Linear),
}

impl Layer {
    /// Without bias. `values` are output channel by output channel.
    fn new(case: &LatencyCase, values: Vec<f32>, device: &Device) -> Self {
        let problem = &case.problem;
        let channels = [problem.in_channels, problem.out_channels];
        if case.operation == Operation::Linear {
            let config = LinearConfig::new(channels[0], channels[1]).with_bias(false);
            let mut linear = config.init(device);
            let rows = TensorData::new(values, [channels[1], channels[0]]);
            let weight = Tensor::<2>::from_data(rows, device).transpose();
            // As the layer holds it, not a view.
            let weight = Tensor::from_data(weight.into_data(), device);
            linear.weight = Weight::Dense(Param::from_tensor(weight));
            return Self::Linear(linear);
        }
        let [[top, bottom], [left, right]] = problem.padding;
        if case.operation == Operation::Conv1d {
            let config = Conv1dConfig::new(channels[0], channels[1], problem.kernel[1])
                .with_stride(problem.stride[1])
                .with_dilation(problem.dilation[1])
                .with_groups(problem.groups)
                .with_padding(PaddingConfig1d::Explicit(left, right))
                .with_bias(false);
            let mut conv = config.init(device);
            let [rows, columns, _, kernel] = problem.weight_shape();
            let data = TensorData::new(values, [rows, columns, kernel]);
            conv.weight = Weight::Dense(Param::from_data(data, device));
            return Self::Conv1d(conv);
        }
        let config = Conv2dConfig::new(channels, problem.kernel)
            .with_stride(problem.stride)
            .with_dilation(problem.dilation)
            .with_groups(problem.groups)
            .with_padding(PaddingConfig2d::Explicit(top, left, bottom, right))
            .with_bias(false);
        let mut conv = config.init(device);
        let data = TensorData::new(values, problem.weight_shape());
        conv.weight = Weight::Dense(Param::from_data(data, device));
        Self::Conv(conv)
    }

    /// Its weight as packing would hold it, and what packing measured.
    fn packed(&self, x: &Tensor<4>) -> Result<(SparseWeight, PackReport), SparseError> {
        let config = |trace| PackConfig::measure(trace).with_min_sparsity(0.0);
        let (packed, report) = match self {
            Self::Conv(conv) => {
                let trace = Trace::of(|| drop(conv.forward(x.clone())));
                let (convs, report) = pack(vec![conv.clone()], &config(trace))?;
                (weights(&convs).remove(0).weight, report)
            }
            Self::Conv1d(conv) => {
                let trace = Trace::of(|| drop(conv.forward(lines(x))));
                let (convs, report) = pack(vec![conv.clone()], &config(trace))?;
                (weights(&convs).remove(0).weight, report)
            }
            Self::Linear(linear) => {
                let trace = Trace::of(|| drop(linear.forward(rows(x))));
                let (linears, report) = pack(vec![linear.clone()], &config(trace))?;
                (weights(&linears).remove(0).weight, report)
            }
        };
        match packed.sparse() {
            Some(weight) => Ok((weight, report)),
            // Dense won.
            None => Ok((
                SparseWeight::new(packed.to_csr()?, &packed.device()),
                report,
            )),
        }
    }

    /// Median milliseconds of the dense layer and of the packed weight, in the numbers of the case.
    fn in_turns(
        &self,
        weight: &SparseWeight,
        x: Tensor<4>,
        case: &LatencyCase,
        device: &Device,
    ) -> Result<[f64; 2], MappingError> {
        let dtype = case.precision.dtype();
        let x = x.cast(dtype);
        let weight = weight.for_inputs(dtype);
        let times = match self {
            Self::Conv1d(conv) => {
                let x = lines(&x);
                let window = conv.window(case.problem.input[1]);
                let kernel = conv.weight.val().cast(dtype);
                let options = ConvOptions::new_with_padding(
                    window.stride,
                    window.padding.map(|[before, after]| (before, after)),
                    window.dilation,
                    window.groups,
                );
                let dense = || drop(conv1d(x.clone(), kernel.clone(), None, options.clone()));
                let packed = || drop(sparse_conv1d(x.clone(), &weight, &window, Epilogue::new()));
                medians([&dense, &packed], device)
            }
            Self::Conv(conv) => {
                let window = conv.window(case.problem.input);
                let kernel = conv.weight.val().cast(dtype);
                let dense = || drop(dense_conv2d(x.clone(), kernel.clone(), None, &window));
                let packed = || drop(sparse_conv2d(x.clone(), &weight, &window, Epilogue::new()));
                medians([&dense, &packed], device)
            }
            Self::Linear(layer) => {
                let x = rows(&x);
                let matrix = layer.weight.val().cast(dtype);
                let dense = || drop(linear(x.clone(), matrix.clone(), None));
                let packed = || drop(sparse_linear(x.clone(), &weight, Epilogue::new()));
                medians([&dense, &packed], device)
            }
        };
        times.map_err(|reason| MappingError::Device {
            case: Box::new(*case),
            reason,
        })
    }
}

/// The input of a linear layer: images of one pixel.
fn rows(x: &Tensor<4>) -> Tensor<2> {
    let [batch, channels, ..] = x.dims();
    x.clone().reshape([batch, channels])
}

/// The input of a 1-D convolution: images of one row.
fn lines(x: &Tensor<4>) -> Tensor<3> {
    let [batch, channels, _, length] = x.dims();
    x.clone().reshape([batch, channels, length])
}

/// Median milliseconds of something.
pub(crate) fn median_ms(form: &dyn Fn(), device: &Device) -> Result<f64, MappingError> {
    match medians([form], device) {
        Ok([ms]) => Ok(ms),
        Err(reason) => Err(MappingError::NoDevice(reason)),
    }
}

/// Median milliseconds of some forms, run in turns; as an error what the device says.
fn medians<const N: usize>(forms: [&dyn Fn(); N], device: &Device) -> Result<[f64; N], String> {
    let time = |form: &dyn Fn()| {
        let start = Instant::now();
        form();
        device.sync().map_err(|error| error.to_string())?;
        Ok::<f64, String>(start.elapsed().as_secs_f64() * 1e3)
    };
    // The first runs compile and tune kernels.
    for _ in 0..2 {
        for form in forms {
            time(form)?;
        }
    }
    let mut times = forms.map(|_| Vec::with_capacity(RUNS));
    for _ in 0..RUNS {
        for (times, form) in times.iter_mut().zip(forms) {
            times.push(time(form)?);
        }
    }
    Ok(times.map(|mut times| {
        times.sort_by(f64::total_cmp);
        times[RUNS / 2]
    }))
}
