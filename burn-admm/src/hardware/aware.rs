use burn_sparse::{SparseError, Sparsity};
use serde::{Deserialize, Serialize};

use super::BreakEven;
use crate::table::Table;
use crate::{Plan, PlanError};

/// A layer as [`hardware_aware`] sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HardwareLayer {
    /// Path of its weight.
    pub weight: String,
    /// Multiplications of the dense layer.
    pub macs: u64,
    /// Weights for each that stays from which it is faster sparse; none if it never is.
    pub break_even: Option<f64>,
    /// Weights for each that stays to start from: of earlier work, or one ratio for all; above 1.
    pub start: f64,
    /// The largest ratio there is: the weights of an output channel, of which one stays at least.
    pub most: f64,
}

impl HardwareLayer {
    /// Of what was measured.
    pub fn new(measured: &BreakEven, start: f64) -> Self {
        let weight = match measured.layer.as_str() {
            "" => "weight".to_owned(),
            layer => format!("{layer}.weight"),
        };
        Self {
            weight,
            macs: measured.macs,
            break_even: measured.ratio,
            start,
            most: measured.row_len as f64,
        }
    }
}

/// How long the network is trained to see what ratios cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Effort {
    /// A few outer iterations and an epoch of retraining: asked for many times.
    Proxy,
    /// The whole schedule: asked for once, and again only where the proxy was too hopeful.
    Full,
}

/// Settings of [`hardware_aware`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HardwareConfig {
    /// Accuracy that may be lost, as a fraction: 0.005 is half a point.
    pub lost: f64,
    /// Halvings of the interval in each search.
    pub halvings: usize,
    /// Rounds of restoring layers and pushing the others further; they end when nothing changes.
    pub rounds: usize,
    /// Largest factor by which the ratios it starts from may grow.
    pub largest: f64,
}

impl Default for HardwareConfig {
    fn default() -> Self {
        Self {
            lost: 0.005,
            halvings: 4,
            rounds: 3,
            largest: 16.0,
        }
    }
}

/// What becomes of one layer.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct LayerRatio {
    /// The layer.
    pub layer: HardwareLayer,
    /// Weights for each that stays; 1 is dense.
    pub ratio: f64,
    /// Why.
    pub reason: String,
}

/// What [`hardware_aware`] found.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct HardwareRatios {
    /// The layers, in the order in which they were given.
    pub layers: Vec<LayerRatio>,
    /// Accuracy at full length.
    pub accuracy: f64,
    /// Runs of the proxy, and at full length.
    pub runs: [usize; 2],
}

impl HardwareRatios {
    /// The same number of weights in every output channel of each pruned layer, by these ratios; all
    /// others dense.
    ///
    /// # Errors
    /// [`PlanError`] for a path that is no pattern.
    pub fn plan(&self) -> Result<Plan, PlanError> {
        let pairs = self.layers.iter();
        plan_of(pairs.map(|layer| (layer.layer.weight.as_str(), layer.ratio)))
    }

    /// Multiplications that are left, over all.
    pub fn macs_left(&self) -> f64 {
        let all: f64 = self.layers.iter().map(|l| l.layer.macs as f64).sum();
        let left = self.layers.iter().map(|l| l.layer.macs as f64 / l.ratio);
        left.sum::<f64>() / all.max(1.0)
    }
}

impl core::fmt::Display for HardwareRatios {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let mut table = Table::new(["weight", "macs", "break-even", "ratio", "reason"])
            .right_aligned(&[1, 2, 3]);
        for LayerRatio {
            layer,
            ratio,
            reason,
        } in &self.layers
        {
            table.row([
                layer.weight.clone(),
                layer.macs.to_string(),
                layer
                    .break_even
                    .map_or("never".into(), |r| format!("{r:.2}x")),
                if *ratio > 1.0 {
                    format!("{ratio:.2}x")
                } else {
                    "dense".into()
                },
                reason.clone(),
            ]);
        }
        write!(
            f,
            "{table}{:.1} % of the multiplications are left; accuracy {:.2} %",
            100.0 * self.macs_left(),
            100.0 * self.accuracy
        )
    }
}

fn plan_of<'a>(ratios: impl Iterator<Item = (&'a str, f64)>) -> Result<Plan, PlanError> {
    let mut plan = Plan::dense();
    for (weight, ratio) in ratios.filter(|(_, ratio)| *ratio > 1.0) {
        let sparsity = Sparsity::row_balanced(1.0 - 1.0 / ratio);
        let sparsity = sparsity.map_err(|source: SparseError| PlanError::Budget {
            path: weight.to_owned(),
            rows: 0,
            row_len: 0,
            source,
        })?;
        plan = plan.with_sparsity(weight, sparsity)?;
    }
    Ok(plan)
}

/// Why no ratios were found.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HardwareError<E> {
    /// A setting or a layer out of range.
    #[error("{0}")]
    Settings(String),
    /// Training failed.
    #[error("training under the ratios: {0}")]
    Probe(E),
    /// The plan for the ratios.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// Layers that are all faster dense.
    #[error(
        "no layer is faster sparse at any ratio that it can have on this device; prune for size, or for \
         another device"
    )]
    NeverFaster,
    /// No ratio above break-even keeps the accuracy.
    #[error(
        "no layer can be pruned beyond its break-even within {allowed:.2} points: the mildest ratios \
         beyond them lose {lost:.2}; allow more, or train longer"
    )]
    NothingPays {
        /// Points that may be lost.
        allowed: f64,
        /// The fewest points that were lost by ratios that lost too many.
        lost: f64,
    },
}

struct Search<F> {
    layers: Vec<HardwareLayer>,
    config: HardwareConfig,
    before: f64,
    probe: F,
    runs: [usize; 2],
    /// Accuracy that was lost by the mildest ratios of those that lost too much.
    least: f64,
}

impl<E, F: FnMut(&Plan, Effort) -> Result<f64, E>> Search<F> {
    fn accuracy(&mut self, ratios: &[f64], effort: Effort) -> Result<f64, HardwareError<E>> {
        let weights = self.layers.iter().map(|layer| layer.weight.as_str());
        let plan = plan_of(weights.zip(ratios.iter().copied()))?;
        self.runs[usize::from(effort == Effort::Full)] += 1;
        (self.probe)(&plan, effort).map_err(HardwareError::Probe)
    }

    fn passes(&mut self, ratios: &[f64], effort: Effort) -> Result<bool, HardwareError<E>> {
        let lost = self.before - self.accuracy(ratios, effort)?;
        let passes = lost <= self.config.lost;
        if !passes {
            self.least = self.least.min(lost);
        }
        Ok(passes)
    }

    /// The largest factor between `low`, which passes, and `high` whose ratios pass too.
    fn largest(
        &mut self,
        [mut low, mut high]: [f64; 2],
        ratios: impl Fn(f64) -> Vec<f64>,
    ) -> Result<f64, HardwareError<E>> {
        if self.passes(&ratios(high), Effort::Proxy)? {
            return Ok(high);
        }
        for _ in 0..self.config.halvings {
            let middle = (low * high).sqrt();
            if self.passes(&ratios(middle), Effort::Proxy)? {
                low = middle;
            } else {
                high = middle;
            }
        }
        Ok(low)
    }
}

/// `start` times a factor, dense where that is no pruning.
fn scaled(layers: &[HardwareLayer], dense: &[bool], factor: f64) -> Vec<f64> {
    let pairs = layers.iter().zip(dense);
    pairs
        .map(|(layer, dense)| {
            if *dense {
                1.0
            } else {
                (1.0 + (layer.start - 1.0) * factor).clamp(1.0, layer.most)
            }
        })
        .collect()
}

/// Finds ratios for layers under an accuracy: `before − accuracy ≤ config.lost`.
///
/// 1. All layers by the ratios they start from times a common factor (of `ratio − 1`), the largest that
///    the proxy allows.
/// 2. Layers below their break-even become dense.
/// 3. The others are pushed further, by a common factor and then one by one, those with most
///    multiplications first. Back to 2 until nothing changes.
/// 4. The result is confirmed at full length; as long as it does not hold, all ratios shrink by a tenth,
///    twenty times at most.
///
/// `before` is the accuracy of the dense network, and `probe` trains a network under a plan and gives its
/// accuracy, both between 0 and 1 and on validation data.
///
/// # Errors
/// [`HardwareError::Settings`] for no layers or numbers out of range, [`HardwareError::NeverFaster`] if no
/// layer has a break-even, [`HardwareError::NothingPays`] if dense is all that is left or twenty full
/// runs did not hold, otherwise those of `probe`.
///
/// # Example
/// ```
/// use burn_admm::hardware::{Effort, HardwareConfig, HardwareLayer, hardware_aware};
///
/// let layer = |weight: &str, macs, break_even, start| HardwareLayer {
///     weight: weight.into(),
///     macs,
///     break_even: Some(break_even),
///     start,
///     most: 576.0,
/// };
/// // The first layer, which keeps more, would not reach its break-even.
/// let layers = [layer("conv1.weight", 100, 4.0, 1.2), layer("conv2.weight", 900, 2.0, 3.0)];
/// let ratios = hardware_aware(&layers, 0.99, HardwareConfig::default(), |plan, effort| {
///     // .. train under the plan, shortly or at full length, and evaluate ..
///     # let pruned = plan.rules().len() as f64;
///     # let _ = effort;
///     Ok::<f64, std::convert::Infallible>(0.99 - 0.001 * pruned)
/// })?;
/// println!("{ratios}");
/// let plan = ratios.plan()?;
/// # assert_eq!(plan.rules().len(), 2);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn hardware_aware<E>(
    layers: &[HardwareLayer],
    before: f64,
    config: HardwareConfig,
    probe: impl FnMut(&Plan, Effort) -> Result<f64, E>,
) -> Result<HardwareRatios, HardwareError<E>> {
    check(layers, before, config).map_err(HardwareError::Settings)?;
    // What is never faster sparse is no candidate: it would only spend accuracy.
    let mut dense: Vec<bool> = layers
        .iter()
        .map(|layer| layer.break_even.is_none_or(|least| least > layer.most))
        .collect();
    if dense.iter().all(|dense| *dense) {
        return Err(HardwareError::NeverFaster);
    }
    let mut search = Search {
        layers: layers.to_vec(),
        config,
        before,
        probe,
        runs: [0, 0],
        least: f64::INFINITY,
    };
    let mut ratios = vec![1.0; layers.len()];
    for _ in 0..config.rounds.max(1) {
        let all = |factor: f64| scaled(layers, &dense, factor);
        let factor = search.largest([1e-3, config.largest], all)?;
        let mut next = scaled(layers, &dense, factor);
        // One by one, most multiplications first: what the common factor has left over.
        let mut order: Vec<usize> = (0..layers.len()).filter(|&i| !dense[i]).collect();
        order.sort_by_key(|&i| core::cmp::Reverse(layers[i].macs));
        for index in order {
            let base = next.clone();
            let pushed = |more: f64| {
                let mut ratios = base.clone();
                let ratio = 1.0 + (ratios[index] - 1.0) * more;
                ratios[index] = ratio.min(layers[index].most);
                ratios
            };
            let more = search.largest([1.0, 4.0], pushed)?;
            next = pushed(more);
        }
        ratios = next;
        let below: Vec<bool> = layers
            .iter()
            .zip(&ratios)
            .map(|(layer, ratio)| layer.break_even.is_none_or(|least| *ratio < least))
            .collect();
        let changed = below
            .iter()
            .zip(&dense)
            .any(|(below, dense)| *below && !dense);
        for (index, below) in below.into_iter().enumerate() {
            if below {
                (dense[index], ratios[index]) = (true, 1.0);
            }
        }
        if !changed || dense.iter().all(|dense| *dense) {
            break;
        }
    }
    confirm(search, ratios)
}

/// Full runs at most.
const CONFIRMATIONS: usize = 20;

fn confirm<E, F: FnMut(&Plan, Effort) -> Result<f64, E>>(
    mut search: Search<F>,
    mut ratios: Vec<f64>,
) -> Result<HardwareRatios, HardwareError<E>> {
    for _ in 0..CONFIRMATIONS {
        // A ratio that has shrunk below break-even gains nothing either.
        for (ratio, layer) in ratios.iter_mut().zip(&search.layers) {
            if layer.break_even.is_none_or(|least| *ratio < least) {
                *ratio = 1.0;
            }
        }
        if ratios.iter().all(|ratio| *ratio == 1.0) {
            break;
        }
        let accuracy = search.accuracy(&ratios, Effort::Full)?;
        let lost = search.before - accuracy;
        if lost <= search.config.lost {
            let layers = search.layers.into_iter().zip(ratios);
            let layers = layers.map(|(layer, ratio)| LayerRatio {
                reason: reason(&layer, ratio),
                layer,
                ratio,
            });
            return Ok(HardwareRatios {
                layers: layers.collect(),
                accuracy,
                runs: search.runs,
            });
        }
        search.least = search.least.min(lost);
        let shrunk = |ratio: &mut f64| *ratio = 1.0 + (*ratio - 1.0) * 0.9;
        ratios.iter_mut().for_each(shrunk);
    }
    Err(HardwareError::NothingPays {
        allowed: 100.0 * search.config.lost,
        lost: 100.0 * search.least,
    })
}

fn reason(layer: &HardwareLayer, ratio: f64) -> String {
    match layer.break_even {
        None => "never faster sparse".to_owned(),
        Some(least) if ratio == 1.0 => format!("cannot reach {least:.2}x within the accuracy"),
        Some(least) => format!("{:.2} times its break-even", ratio / least),
    }
}

fn check(layers: &[HardwareLayer], before: f64, config: HardwareConfig) -> Result<(), String> {
    if layers.is_empty() {
        return Err("there are no layers to prune".to_owned());
    }
    if !before.is_finite() {
        return Err(format!("the accuracy of the dense network is {before}"));
    }
    for layer in layers {
        let HardwareLayer {
            weight,
            break_even,
            start,
            most,
            ..
        } = layer;
        if !(start.is_finite() && *start > 1.0) {
            return Err(format!(
                "`{weight}` starts from a ratio of {start}; it must be above 1, and layers that stay dense \
                 be left out"
            ));
        }
        if !(most.is_finite() && *most >= 1.0) {
            return Err(format!(
                "`{weight}` has {most} weights in an output channel"
            ));
        }
        if let Some(least) = break_even
            && !(least.is_finite() && *least >= 1.0)
        {
            return Err(format!(
                "`{weight}` has a break-even of {least}; it must be at least 1"
            ));
        }
    }
    if !(config.lost.is_finite() && config.lost >= 0.0) {
        return Err(format!("lost must not be negative, got {}", config.lost));
    }
    if !(config.largest.is_finite() && config.largest > 1e-3) {
        return Err(format!("largest must be positive, got {}", config.largest));
    }
    Ok(())
}
