//! Times of layers over their ranks, measured on the device at hand.

use std::time::Instant;

use burn::module::Module;
use burn::nn::PaddingConfig2d;
use burn::tensor::{Device, Distribution, Tensor, TensorData};
use burn_sparse::nn::{AnyWeight, Conv2d, Conv2dConfig, replace_weights, weights};
use burn_sparse::{ConvProblem, WeightShape};
use serde::{Deserialize, Serialize};

use super::{FactorKind, RankChoice, RankPlan, RankPlanError, RankRule, Ranks};
use crate::knapsack::{Choice, choose};

/// Times within this part of each other are the same: what a measurement can tell.
const SAME: f64 = 0.02;

/// Timed runs of each form, after those that warm up.
const RUNS: usize = 7;

/// The time of a convolution and of its factors.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LayerTimes {
    /// The convolution.
    pub problem: ConvProblem,
    /// Milliseconds of the undivided layer.
    pub dense_ms: f64,
    /// Milliseconds of factors with these ranks, output rank by output rank.
    pub factored_ms: Vec<(Ranks, f64)>,
}

/// Times of the layers of a network over their ranks, on one device. Layers that compute the same share
/// theirs.
///
/// Time over ranks is a staircase where kernels work in steps: on matrix units and warps a rank just above a
/// multiple costs as much as the next one; on a processor the channels that leave a factor are in vectors.
/// Multiply-adds do not show that, so ranks chosen by them lie anywhere on a step.
///
/// It serialises, to be kept: times are of a device and a build, not of weights.
///
/// # Example
/// ```
/// use burn::tensor::{Device, Tensor};
/// use burn_admm::decompose::{RankChoice, RankPlan, RankRule, RankTimes};
/// use burn_sparse::nn::{Conv2dConfig, Trace};
///
/// let device = Device::flex();
/// let conv = Conv2dConfig::new([16, 16], [3, 3]).init(&device);
/// let trace = Trace::of(|| drop(conv.forward(Tensor::zeros([1, 16, 12, 12], &device))));
/// let plan = RankPlan::new(RankChoice::new(RankRule::Energy(1.0))).with_geometry(&conv, &trace);
///
/// let mut times = RankTimes::new(8);
/// times.measure(&conv, &plan, &device, |_, _| {})?;
/// assert_eq!(times.layers[0].factored_ms.len(), 2 * 2 - 1);
/// # Ok::<(), burn_admm::decompose::RankPlanError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RankTimes {
    /// What they were measured on, as [`on`](Self::on) was told. Times of another device or build say little.
    #[serde(default)]
    pub device: String,
    /// Ranks are multiples of this, or all channels.
    pub step: usize,
    /// One for each geometry.
    pub layers: Vec<LayerTimes>,
}

impl RankTimes {
    /// None yet, for ranks in steps of `step`; 16 and 32 suit matrix units and warps.
    pub fn new(step: usize) -> Self {
        Self {
            device: String::new(),
            step: step.max(1),
            layers: Vec::new(),
        }
    }

    /// Notes what they are measured on.
    #[must_use]
    pub fn on(mut self, device: impl Into<String>) -> Self {
        self.device = device.into();
        self
    }

    /// The times of a layer that computes this.
    pub fn of(&self, problem: &ConvProblem) -> Option<&LayerTimes> {
        self.layers.iter().find(|layer| layer.problem == *problem)
    }

    /// Measures those 2-D convolutions that `plan` may decompose into Tucker factors, whose geometry it knows and whose times are
    /// not known yet: the layer, and its factors at every pair of ranks, each alone on random values, without
    /// bias and activation.
    ///
    /// `progress` is called with how many of the layers are done, and their number.
    ///
    /// # Errors
    /// As [`RankPlan::explain`], and [`RankPlanError::NoGeometry`] if the plan knows none.
    ///
    /// # Panics
    /// If the device fails.
    pub fn measure<M: Module>(
        &mut self,
        model: &M,
        plan: &RankPlan,
        device: &Device,
        mut progress: impl FnMut(usize, usize),
    ) -> Result<(), RankPlanError> {
        if !plan.knows_geometry() {
            return Err(RankPlanError::NoGeometry);
        }
        let mut wanted: Vec<ConvProblem> = Vec::new();
        for (path, problem) in plan.eligible(model)? {
            let Some(problem) = problem else {
                continue;
            };
            let known = self.of(&problem).is_some() || wanted.contains(&problem);
            let named = weights(model).into_iter().find(|named| named.path == path);
            let conv2d = named.is_some_and(|named| matches!(named.weight, AnyWeight::Conv2d(_)));
            if conv2d && !known {
                wanted.push(problem);
            }
        }
        for (done, problem) in wanted.iter().enumerate() {
            progress(done, wanted.len());
            self.layers.push(measured(problem, self.step, device));
        }
        progress(wanted.len(), wanted.len());
        Ok(())
    }
}

/// All pairs of multiples, or of all channels, that factors can have, but for that of all channels on both
/// sides.
pub(super) fn grid(shape: WeightShape, step: usize) -> impl Iterator<Item = Ranks> {
    let steps = move |channels: usize| {
        let inner = (1..).map(move |k| k * step.max(1));
        inner
            .take_while(move |&rank| rank < channels)
            .chain([channels])
    };
    let all = Ranks::new(shape.rows, shape.channels);
    steps(shape.rows)
        .flat_map(move |output| steps(shape.channels).map(move |input| Ranks::new(output, input)))
        .filter(move |&ranks| ranks != all && is_possible(ranks, shape))
}

/// Whether a layer can have such factors: one mode has no higher rank than the rest of the weight has entries.
/// Without a factor on a side, there is none to be too large.
pub(super) fn is_possible(ranks: Ranks, shape: WeightShape) -> bool {
    let full = Ranks::full(shape);
    let fits = |rank: usize, full: usize, all: usize| (1..=full).contains(&rank) || rank == all;
    fits(ranks.output, full.output, shape.rows) && fits(ranks.input, full.input, shape.channels)
}

fn measured(problem: &ConvProblem, step: usize, device: &Device) -> LayerTimes {
    let [[top, bottom], [left, right]] = problem.padding;
    let config = Conv2dConfig::new([problem.in_channels, problem.out_channels], problem.kernel)
        .with_stride(problem.stride)
        .with_dilation(problem.dilation)
        .with_padding(PaddingConfig2d::Explicit(top, left, bottom, right))
        .with_bias(false);
    let dense = config.init(device);
    let x = Tensor::<4>::random(problem.input_shape(), Distribution::Default, device);
    let shape = WeightShape::new(problem.out_channels, problem.in_channels, problem.kernel);
    let mut dense_ms = vec![time(&dense, &x, device)];
    let factored_ms = grid(shape, step)
        .map(|ranks| {
            let layer = with_random_factors(&dense, ranks);
            (ranks, time(&layer, &x, device))
        })
        .collect();
    // Before and after: a machine that slows down meanwhile should not favour either.
    dense_ms.push(time(&dense, &x, device));
    LayerTimes {
        problem: *problem,
        dense_ms: dense_ms.iter().sum::<f64>() / 2.0,
        factored_ms,
    }
}

/// The layer as a chain of these ranks.
fn with_random_factors(layer: &Conv2d, ranks: Ranks) -> Conv2d {
    let named = weights(layer).remove(0);
    let [rows, channels, height, width] = layer.weight.dims();
    let Ranks { output, input } = ranks;
    let data = |shape: [usize; 4], seed| {
        let values = burn_sparse::catalogue::values(shape.iter().product(), seed);
        Some(TensorData::new(values, shape.to_vec()))
    };
    let reduce = if input == channels {
        None
    } else {
        data([input, channels, 1, 1], 1)
    };
    let expand = if output == rows {
        None
    } else {
        data([rows, output, 1, 1], 3)
    };
    let core = data([output, input, height, width], 2);
    let chain = named.weight.with_factors([reduce, core, expand]);
    let chain = chain.expect("factors of ranks within the channels");
    replace_weights(layer.clone(), vec![chain])
}

/// Median milliseconds.
fn time(layer: &Conv2d, x: &Tensor<4>, device: &Device) -> f64 {
    let run = || {
        let start = Instant::now();
        let y = layer.forward(x.clone());
        device
            .sync()
            .expect("the device runs what was queued on it");
        drop(y);
        start.elapsed().as_secs_f64() * 1e3
    };
    // The first runs order weights, or compile and tune kernels.
    for _ in 0..2 {
        run();
    }
    let mut times: Vec<f64> = (0..RUNS).map(|_| run()).collect();
    times.sort_by(f64::total_cmp);
    times[RUNS / 2]
}

impl RankPlan {
    /// As [`within`](Self::within), with measured times for the cost: those layers whose times are known take
    /// at most `part` of what they take now, and discard as little as possible. A layer whose factors are
    /// slower, or no faster for what they lose, keeps its weights. Layers without times are left as they are,
    /// and not counted; so are those that the plan gives factors of another [kind](FactorKind) than Tucker's.
    ///
    /// # Errors
    /// As [`within`](Self::within), with [`RankPlanError::NoTimes`] if those of no layer are known, and
    /// [`RankPlanError::Times`] for such as cannot be.
    pub fn within_time<M: Module>(
        &self,
        model: &M,
        times: &RankTimes,
        part: f64,
    ) -> Result<Self, RankPlanError> {
        if !(part.is_finite() && part > 0.0) {
            return Err(RankPlanError::Part(part));
        }
        times.check().map_err(RankPlanError::Times)?;
        let (mut groups, mut options, mut paths) = (Vec::new(), Vec::new(), Vec::new());
        let mut whole = 0.0;
        for (path, problem, tails) in self.tails(model)? {
            let Some(layer) = problem.and_then(|problem| times.of(&problem)) else {
                continue;
            };
            whole += layer.dense_ms;
            let dense = Choice {
                cost: layer.dense_ms,
                harm: 0.0,
            };
            let factored = layer.factored_ms.iter().map(|&(ranks, cost)| Choice {
                cost,
                harm: tails.discarded(ranks),
            });
            groups.push([dense].into_iter().chain(factored).collect::<Vec<_>>());
            let ranks = layer.factored_ms.iter().map(|&(ranks, _)| Some(ranks));
            options.push([None].into_iter().chain(ranks).collect::<Vec<_>>());
            paths.push(path);
        }
        if groups.is_empty() {
            return Err(RankPlanError::NoTimes);
        }
        let chosen = choose(&groups, part * whole).map_err(|least| RankPlanError::Budget {
            what: "time",
            asked: part,
            least: least / whole,
        })?;
        let picked = options
            .iter()
            .zip(chosen)
            .map(|(options, index)| options[index]);
        let picked = paths.into_iter().zip(picked);
        self.fixed_at(picked.map(|(path, ranks)| (path, FactorKind::Tucker, ranks)))
    }

    /// The rule of TDC, layer by layer: of the ranks with at most `1 − beta` of the layer's multiply-adds, the
    /// fastest; of those that take the same time, the largest; and the weights as they are if that gains less
    /// than `theta` of the layer's time (0.15 there).
    ///
    /// It looks at no weights: what ranks discard is left to training. Beside
    /// [`within_time`](Self::within_time) for comparison.
    ///
    /// Xiang et al., *TDC: towards extremely efficient CNNs on GPUs via hardware-aware Tucker
    /// decomposition*, `PPoPP` 2023.
    ///
    /// # Errors
    /// As [`explain`](Self::explain), [`RankPlanError::Part`] for a `beta` or `theta` outside `[0, 1)`, and
    /// [`RankPlanError::NoTimes`] and [`RankPlanError::Times`] as there.
    pub fn by_tdc<M: Module>(
        &self,
        model: &M,
        times: &RankTimes,
        beta: f64,
        theta: f64,
    ) -> Result<Self, RankPlanError> {
        if let Some(wrong) = [beta, theta]
            .into_iter()
            .find(|part| !(0.0..1.0).contains(part))
        {
            return Err(RankPlanError::Part(wrong));
        }
        times.check().map_err(RankPlanError::Times)?;
        if times.layers.is_empty() {
            return Err(RankPlanError::NoTimes);
        }
        let tucker = FactorKind::Tucker;
        let layers = self
            .eligible(model)?
            .into_iter()
            .filter_map(|(path, problem)| {
                let layer = times.of(&problem?)?;
                let most = (1.0 - beta) * layer.problem.dense_macs() as f64;
                let feasible = || {
                    let fits =
                        |ranks: &Ranks| tucker.macs_of(*ranks, &layer.problem) as f64 <= most;
                    layer
                        .factored_ms
                        .iter()
                        .filter(move |(ranks, _)| fits(ranks))
                };
                let fastest = feasible().map(|(_, ms)| *ms).min_by(f64::total_cmp)?;
                let gains = fastest <= (1.0 - theta) * layer.dense_ms;
                let same = feasible().filter(|(_, ms)| *ms <= (1.0 + SAME) * fastest);
                let largest = same.max_by_key(|(ranks, _)| tucker.macs_of(*ranks, &layer.problem));
                let ranks = largest.filter(|_| gains).map(|(ranks, _)| *ranks);
                Some((path, tucker, ranks))
            });
        self.fixed_at(layers)
    }

    /// Fixed ranks for these parameters, or none.
    pub(super) fn fixed_at(
        &self,
        layers: impl IntoIterator<Item = (String, FactorKind, Option<Ranks>)>,
    ) -> Result<Self, RankPlanError> {
        let mut plan = Self::none().with_geometry_of(self);
        // By name, for 1×1 convolutions and products that a plan names have no other way in.
        for (path, kind, ranks) in layers {
            let choice = |ranks| RankChoice::new(RankRule::Fixed(ranks)).with_kind(kind);
            let choice = ranks.map(choice);
            plan = plan.with_rule(path, choice)?;
        }
        Ok(plan)
    }
}
