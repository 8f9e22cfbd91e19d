//! The smaller network gives what the masked one gave.

use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};

use super::{ChannelGraph, ChannelModel, Constants, ShrinkError, ShrinkOptions, ShrinkPlan};

/// How far the outputs of two networks are apart.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Difference {
    /// The largest difference of an output.
    pub max_abs_diff: f64,
    /// The largest absolute output of the masked network.
    pub largest: f64,
}

impl Difference {
    /// Whether the difference is at most `tolerance` of the largest output. A NaN never is.
    pub fn is_within(&self, tolerance: f64) -> bool {
        self.max_abs_diff <= tolerance * self.largest
    }

    /// Of outputs on the host, as many of one as of the other.
    pub(crate) fn between(masked: &[f32], shrunk: &[f32]) -> Self {
        // `f64::max` would lose a NaN.
        let max = |a: f64, b: f64| if b.is_nan() || b > a { b } else { a };
        let pairs = masked.iter().zip(shrunk);
        let diffs = pairs.map(|(&a, &b)| (f64::from(a) - f64::from(b)).abs());
        Self {
            max_abs_diff: diffs.fold(0.0, max),
            largest: masked.iter().map(|&x| f64::from(x).abs()).fold(0.0, max),
        }
    }
}

/// How far two outputs are apart.
///
/// # Panics
/// If they have different shapes, or cannot be read from their device.
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use burn_admm::shrink::compare;
///
/// let device = Device::flex();
/// let masked = Tensor::<1>::from_floats([1.0, -4.0], &device);
/// let shrunk = Tensor::<1>::from_floats([1.5, -4.0], &device);
/// assert_eq!(compare(masked, shrunk).max_abs_diff, 0.5);
/// ```
pub fn compare<const D: usize>(masked: Tensor<D>, shrunk: Tensor<D>) -> Difference {
    assert!(
        masked.dims() == shrunk.dims(),
        "outputs of shapes {:?} and {:?} cannot be compared",
        masked.dims(),
        shrunk.dims()
    );
    let read = |tensor: Tensor<D>| {
        let data = tensor.detach().into_data().convert::<f64>();
        data.try_to_vec::<f64>().expect("converted to f64")
    };
    let (masked, shrunk) = (read(masked), read(shrunk));
    // `f64::max` would lose a NaN.
    let max = |a: f64, b: f64| if b.is_nan() || b > a { b } else { a };
    let diffs = masked.iter().zip(&shrunk).map(|(a, b)| (a - b).abs());
    Difference {
        max_abs_diff: diffs.fold(0.0, max),
        largest: masked.iter().map(|x| x.abs()).fold(0.0, max),
    }
}

/// A network from which channels have been cut.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Shrunk<M> {
    /// The network, smaller.
    pub model: M,
    /// What was cut. Keep it beside the weights: it is needed to load them.
    pub plan: ShrinkPlan,
    /// How far its outputs are from those of the masked network.
    pub difference: Difference,
}

/// Cuts all channels out of `model` that carry nothing, and checks that it still computes the same.
///
/// `input` is the shape `[channels, positions..]` of an input, which also fixes what
/// multiply–accumulate operations are counted for; `forward` runs the network on a batch of those.
/// Before and after cutting it is run, as [`valid`](Module::valid) gives it, on two random inputs
/// within `[−1, 1]`.
///
/// With [`Constants::Keep`] the outputs must agree. With the others, a cut with [`Constants::Keep`]
/// must pass that test first, so that a mistaken graph is found; the difference that the choice then
/// makes is in the result, and is for you to judge.
///
/// # Errors
/// As [`ShrinkPlan::new`] and [`ShrinkPlan::apply`]; [`ShrinkError::Graph`] if the graph of the
/// model does not fit the input; [`ShrinkError::Input`] if `forward` takes a tensor of another rank;
/// [`ShrinkError::Differs`] if the outputs differ.
///
/// # Example
/// ```
/// use burn::module::Module;
/// use burn::nn::conv::{Conv2d, Conv2dConfig};
/// use burn::nn::{BatchNorm, BatchNormConfig};
/// use burn::tensor::{Device, Tensor, activation::relu};
/// use burn_admm::shrink::{ChannelGraph, ChannelModel, GraphError, ShrinkOptions, shrink};
///
/// #[derive(Module, Debug)]
/// struct Net {
///     conv1: Conv2d,
///     bn1: BatchNorm,
///     conv2: Conv2d,
/// }
///
/// impl Net {
///     fn forward(&self, x: Tensor<4>) -> Tensor<4> {
///         self.conv2.forward(relu(self.bn1.forward(self.conv1.forward(x))))
///     }
/// }
///
/// impl ChannelModel for Net {
///     fn channel_graph(&self, input: &[usize]) -> Result<ChannelGraph, GraphError> {
///         ChannelGraph::of(input, |x| {
///             let x = x.conv("conv1", &self.conv1).norm("bn1", &self.bn1).relu();
///             x.conv("conv2", &self.conv2)
///         })
///     }
/// }
///
/// let device = Device::flex();
/// let mut net = Net {
///     conv1: Conv2dConfig::new([3, 8], [3, 3]).init(&device),
///     bn1: BatchNormConfig::new(8).init(&device),
///     conv2: Conv2dConfig::new([8, 4], [3, 3]).init(&device),
/// };
/// // Filters 2 to 5 were pruned.
/// net.conv1.weight = net.conv1.weight.map(|w| w.slice_fill([2..6], 0.0));
///
/// let small = shrink(net, &[3, 16, 16], &ShrinkOptions::new(), Net::forward)?;
/// assert_eq!(small.model.conv1.weight.dims(), [4, 3, 3, 3]);
/// assert_eq!(small.model.conv2.weight.dims(), [4, 4, 3, 3]);
/// println!("{}\ndiffers by {:e}", small.plan.report(), small.difference.max_abs_diff);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn shrink<M: ChannelModel, const I: usize, const O: usize>(
    model: M,
    input: &[usize],
    options: &ShrinkOptions,
    forward: impl Fn(&M, Tensor<I>) -> Tensor<O>,
) -> Result<Shrunk<M>, ShrinkError> {
    let graph = model.channel_graph(input)?;
    shrink_with(model, &graph, options, M::set_groups, forward)
}

/// As [`shrink`], for any module: with its graph, and the function that sets the groups of a layer,
/// as for [`ShrinkPlan::apply_with`].
///
/// # Errors
/// As [`shrink`].
///
/// # Example
/// ```
/// use burn::nn::{Linear, LinearConfig};
/// use burn::tensor::Device;
/// use burn_admm::shrink::{ChannelGraph, ShrinkOptions, shrink_with};
///
/// let device = Device::flex();
/// let layers = [(4, 6), (6, 2)].map(|(i, o)| LinearConfig::new(i, o).init(&device));
/// let mut layers = layers.to_vec();
/// layers[0].weight = layers[0].weight.clone().map(|w| w.slice_fill([0..4, 0..3], 0.0));
///
/// let graph = ChannelGraph::of([4], |x| x.linear("0", &layers[0]).linear("1", &layers[1]))?;
/// let small = shrink_with(
///     layers,
///     &graph,
///     &ShrinkOptions::new(),
///     |_, _, _| false,
///     |layers: &Vec<Linear>, x| layers[1].forward::<2>(layers[0].forward(x)),
/// )?;
/// assert_eq!(small.model[1].weight.dims(), [3, 2]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn shrink_with<M: Module, const I: usize, const O: usize>(
    model: M,
    graph: &ChannelGraph,
    options: &ShrinkOptions,
    mut set_groups: impl FnMut(&mut M, &str, usize) -> bool,
    forward: impl Fn(&M, Tensor<I>) -> Tensor<O>,
) -> Result<Shrunk<M>, ShrinkError> {
    options.validate()?;
    let masked = model.clone().materialize().valid();
    let device = masked.devices().into_iter().next().unwrap_or_default();
    let x = random_input(graph, &device)?;
    let expected = forward(&masked, x.clone());
    let run = |model: &M| compare(expected.clone(), forward(&model.valid(), x.clone()));
    shrink_compared(model, graph, options, &mut set_groups, run)
}

/// As [`shrink_with`], where `run` says how far the outputs of a smaller network are from those of the masked one.
pub(crate) fn shrink_compared<M: Module>(
    model: M,
    graph: &ChannelGraph,
    options: &ShrinkOptions,
    mut set_groups: impl FnMut(&mut M, &str, usize) -> bool,
    run: impl Fn(&M) -> Difference,
) -> Result<Shrunk<M>, ShrinkError> {
    options.validate()?;
    let masked = model.clone().materialize().valid();
    let exact = ShrinkOptions {
        constants: Constants::Keep,
        ..*options
    };
    let plan = ShrinkPlan::new(&masked, graph, &exact)?;
    let small = plan.apply_with(model.clone(), &mut set_groups)?;
    let difference = run(&small);
    if !difference.is_within(options.tolerance) {
        return Err(ShrinkError::Differs {
            max_abs_diff: difference.max_abs_diff,
            largest: difference.largest,
            tolerance: options.tolerance,
        });
    }
    if options.constants == Constants::Keep {
        return Ok(Shrunk {
            model: small,
            plan,
            difference,
        });
    }
    let plan = ShrinkPlan::new(&masked, graph, options)?;
    let model = plan.apply_with(model, &mut set_groups)?;
    let difference = run(&model);
    Ok(Shrunk {
        model,
        plan,
        difference,
    })
}

/// Two inputs within `[−1, 1]`, the same at every call.
fn random_input<const D: usize>(
    graph: &ChannelGraph,
    device: &Device,
) -> Result<Tensor<D>, ShrinkError> {
    let inputs: Vec<Vec<usize>> = graph.inputs().map(|i| graph.shape(i).to_vec()).collect();
    let [shape] = inputs.as_slice() else {
        return Err(ShrinkError::Input { inputs, rank: D });
    };
    if shape.len() + 1 != D {
        return Err(ShrinkError::Input { inputs, rank: D });
    }
    let mut dims = [2; D];
    dims[1..].copy_from_slice(shape);
    let mut state = 0u64;
    let values: Vec<f32> = (0..dims.iter().product())
        .map(|_| {
            // SplitMix64 (Steele, Lea, Flood 2014).
            state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let mut z = state;
            z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            z ^= z >> 31;
            (z >> 40) as f32 / (1u64 << 23) as f32 - 1.0
        })
        .collect();
    Ok(Tensor::from_data(TensorData::new(values, dims), device))
}
