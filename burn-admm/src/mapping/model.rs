//! Times of cases that nobody measured.

use std::collections::HashMap;

use burn_sparse::{ConvProblem, SparseError, Sparsity};
use serde::{Deserialize, Serialize};

use super::fit::{Roofline, amounts};
use super::{LatencyCase, LatencyEntry, LatencyTable, Operation, Precision, kendall_tau};

/// Neighbours in the table that a prediction listens to.
const NEIGHBOURS: usize = 4;

/// How far a neighbour is heard: a factor of two in one of the sizes is a distance of 1.
const REACH: f64 = 1.0;

/// Fewest layers of which a kind has rates of its own.
const FEWEST: usize = 3;

/// Samples among which neighbours of different layers are looked for.
const NEAREST: usize = 256;

/// Which entries share rates: the layer, its numbers, and the name of its scheme, or none for a dense one.
type Group = (Operation, Precision, Option<&'static str>);

/// One form of an entry, as the model sees it.
#[derive(Debug, Clone)]
struct Sample {
    /// Which layer of the table.
    layer: usize,
    features: Vec<f64>,
    amounts: [f64; 4],
    ms: f64,
}

/// Tells milliseconds from those in a [`LatencyTable`].
///
/// A time is what a roofline fitted to all layers of a kind says (multiply-adds, elements, weights and calls,
/// each with a rate), times what the nearest cases in the table differ from it: near a measured case the
/// prediction is the measurement, far from all the roofline.
///
/// # Example
/// ```
/// use burn_admm::mapping::{LatencyCase, LatencyEntry, LatencyModel, LatencyTable, Operation};
/// use burn_sparse::{ConvProblem, Sparsity};
///
/// // A device that takes a microsecond for each pixel of the output.
/// let case = |size: usize| {
///     let problem = ConvProblem::new(1, [16, 16], [size, size], [1, 1]);
///     LatencyCase::new(Operation::Conv2d, problem, Sparsity::RowBalanced(burn_sparse::Budget::Sparsity(0.75)))
/// };
/// let mut table = LatencyTable::new("imagined");
/// for size in [4, 8, 12, 16, 24, 32] {
///     let ms = 1e-3 * (size * size) as f64;
///     table.insert(LatencyEntry { case: case(size), dense_ms: 2.0 * ms, packed_ms: ms })?;
/// }
/// let model = LatencyModel::fit(&table)?;
/// let [dense, packed] = model.predict(&case(20))?.expect("cases of this kind are in the table");
/// assert!((packed - 0.4).abs() < 0.02 && (dense - 0.8).abs() < 0.04);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct LatencyModel {
    groups: HashMap<Group, (Roofline, Vec<Sample>)>,
}

/// How far predictions are from measurements that the model has not seen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PredictionError {
    /// Predictions that were compared.
    pub cases: usize,
    /// The middle one of `|predicted / measured - 1|`.
    pub median: f64,
    /// The one that a tenth exceeds.
    pub ninetieth: f64,
    /// The worst.
    pub worst: f64,
    /// [`kendall_tau`] of predictions and measurements.
    pub tau: f64,
}

impl core::fmt::Display for PredictionError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(
            f,
            "{} times predicted from those of other layers: off by {:.0} % in the middle and {:.0} % in nine of \
             ten cases, Kendall's tau {:.3}",
            self.cases,
            100.0 * self.median,
            100.0 * self.ninetieth,
            self.tau
        )
    }
}

impl LatencyModel {
    /// Fits the rates of every kind of layer in the table.
    ///
    /// # Errors
    /// [`SparseError`] for an entry of a scheme that its weight cannot have.
    pub fn fit(table: &LatencyTable) -> Result<Self, SparseError> {
        Self::of(table.entries())
    }

    fn of<'a>(entries: impl IntoIterator<Item = &'a LatencyEntry>) -> Result<Self, SparseError> {
        let mut samples: HashMap<Group, Vec<Sample>> = HashMap::new();
        let mut layers: HashMap<Layer, (usize, Vec<f64>)> = HashMap::new();
        let entries: Vec<&LatencyEntry> = entries.into_iter().collect();
        for entry in &entries {
            let (case, density) = (&entry.case, entry.case.density()?);
            let next = layers.len();
            let (layer, dense) = layers.entry(layer_of(case)).or_insert((next, Vec::new()));
            dense.push(entry.dense_ms);
            let scheme = Some(case.sparsity.name());
            let group = samples
                .entry((case.operation, case.precision, scheme))
                .or_default();
            group.push(Sample::of(case, *layer, Some(density), entry.packed_ms));
        }
        // The dense form was measured with every scheme: a layer counts once.
        for entry in &entries {
            let case = &entry.case;
            let Some((layer, mut times)) = layers.remove(&layer_of(case)) else {
                continue;
            };
            times.sort_by(f64::total_cmp);
            let group = samples
                .entry((case.operation, case.precision, None))
                .or_default();
            group.push(Sample::of(case, layer, None, times[times.len() / 2]));
        }
        let groups = samples.into_iter().map(|(group, samples)| {
            let rows: Vec<_> = samples.iter().map(|s| (s.amounts, s.ms)).collect();
            (group, (Roofline::fit(&rows), samples))
        });
        Ok(Self {
            groups: groups.collect(),
        })
    }

    /// Milliseconds of the layer dense and packed; none if the table has too few layers of the kind to tell.
    ///
    /// # Errors
    /// [`SparseError`] for a problem that is none, and a scheme that the weight cannot have.
    pub fn predict(&self, case: &LatencyCase) -> Result<Option<[f64; 2]>, SparseError> {
        let density = case.density()?;
        let of = |scheme: Option<&'static str>, density: f64| {
            let (roofline, samples) = self.groups.get(&(case.operation, case.precision, scheme))?;
            let mut layers: Vec<usize> = samples.iter().map(|sample| sample.layer).collect();
            layers.sort_unstable();
            layers.dedup();
            (layers.len() >= FEWEST).then(|| {
                let features = features(case, scheme.map(|_| density));
                let base = roofline.ms(amounts(case, density));
                base * correction(&features, roofline, samples)
            })
        };
        let dense = of(None, 1.0);
        let packed = of(Some(case.sparsity.name()), density);
        Ok(dense.zip(packed).map(|(dense, packed)| [dense, packed]))
    }

    /// Leaves out one of `folds` parts of the layers of a table after the other, all schemes of a layer
    /// together, and predicts it from the rest; none if nothing could be predicted.
    ///
    /// # Errors
    /// As [`fit`](Self::fit).
    pub fn held_out(
        table: &LatencyTable,
        folds: usize,
    ) -> Result<Option<PredictionError>, SparseError> {
        let mut layers: Vec<LatencyCase> = Vec::new();
        let mut part = Vec::new();
        for entry in table.entries() {
            let known = layers
                .iter()
                .position(|layer| layer.is_same_layer(&entry.case));
            part.push(known.unwrap_or_else(|| {
                layers.push(entry.case);
                layers.len() - 1
            }));
        }
        let folds = folds.max(2);
        let (mut predicted, mut measured) = (Vec::new(), Vec::new());
        for fold in 0..folds {
            let is_out = |at: usize| part[at] % folds == fold;
            let rest = table.entries().iter().enumerate();
            let model = Self::of(rest.filter(|(at, _)| !is_out(*at)).map(|(_, entry)| entry))?;
            for (at, entry) in table.entries().iter().enumerate() {
                if is_out(at)
                    && let Some([dense, packed]) = model.predict(&entry.case)?
                {
                    predicted.extend([dense, packed]);
                    measured.extend([entry.dense_ms, entry.packed_ms]);
                }
            }
        }
        if predicted.is_empty() {
            return Ok(None);
        }
        let tau = kendall_tau(&predicted, &measured);
        let pairs = predicted.iter().zip(&measured);
        let mut errors: Vec<f64> = pairs.map(|(p, m)| (p / m - 1.0).abs()).collect();
        errors.sort_by(f64::total_cmp);
        let at = |part: f64| errors[(part * (errors.len() - 1) as f64).round() as usize];
        Ok(Some(PredictionError {
            cases: errors.len(),
            median: at(0.5),
            ninetieth: at(0.9),
            worst: at(1.0),
            tau,
        }))
    }
}

/// A layer, whatever its weights.
type Layer = (Operation, Precision, ConvProblem);

fn layer_of(case: &LatencyCase) -> Layer {
    (case.operation, case.precision, case.problem)
}

impl Sample {
    fn of(case: &LatencyCase, layer: usize, packed: Option<f64>, ms: f64) -> Self {
        Self {
            layer,
            features: features(case, packed),
            amounts: amounts(case, packed.unwrap_or(1.0)),
            ms,
        }
    }
}

/// What tells a layer from its neighbours, by factors: sizes, and of a packed one the sides of blocks and the
/// density.
fn features(case: &LatencyCase, density: Option<f64>) -> Vec<f64> {
    let problem = &case.problem;
    let [height, width] = problem.output();
    let log = |n: usize| (n.max(1) as f64).log2();
    let mut features = vec![
        log(problem.batch),
        log(problem.in_channels / problem.groups.max(1)),
        log(problem.out_channels),
        // By side, not by area.
        0.5 * log(height * width),
        0.5 * log(problem.kernel[0] * problem.kernel[1]),
        0.5 * log(problem.stride[0] * problem.stride[1]),
        log(problem.groups),
    ];
    if let Some(density) = density {
        features.extend(sides(case.sparsity).map(log));
        features.push(density.log2());
    }
    features
}

/// Rows and columns that share what stays of them.
fn sides(sparsity: Sparsity) -> [usize; 2] {
    match sparsity {
        Sparsity::SharedPattern { rows, .. } => [rows, 1],
        Sparsity::BlockColumnRow { block, .. } => block,
        Sparsity::Punched {
            filters, channels, ..
        } => [filters, channels],
        Sparsity::NofM { m, .. } => [1, m],
        _ => [1, 1],
    }
}

/// What the nearest samples are of what the roofline says of them, weighted by how near they are; 1 far from all.
fn correction(features: &[f64], roofline: &Roofline, samples: &[Sample]) -> f64 {
    let distance = |sample: &Sample| -> f64 {
        let pairs = features.iter().zip(&sample.features);
        pairs.map(|(a, b)| (a - b) * (a - b)).sum()
    };
    let mut near: Vec<(f64, usize, f64)> = samples
        .iter()
        .map(|sample| {
            let residual = (sample.ms / roofline.ms(sample.amounts)).ln();
            (distance(sample), sample.layer, residual)
        })
        .filter(|(square, _, residual)| square.is_finite() && residual.is_finite())
        .collect();
    if near.len() > NEAREST {
        near.select_nth_unstable_by(NEAREST, |a, b| a.0.total_cmp(&b.0));
        near.truncate(NEAREST);
    }
    near.sort_by(|a, b| a.0.total_cmp(&b.0));
    // Of each layer the nearest sample: the same layer at other densities says the same again.
    let mut heard: Vec<usize> = Vec::new();
    let (mut sum, mut weights) = (0.0, 0.0);
    for (square, layer, residual) in near {
        if heard.len() == NEIGHBOURS {
            break;
        }
        if heard.contains(&layer) {
            continue;
        }
        heard.push(layer);
        let weight = (square / (REACH * REACH) + 1e-6).recip();
        sum += weight * residual;
        weights += weight;
    }
    if weights == 0.0 {
        return 1.0;
    }
    // As if a sample without residual lay at twice the reach.
    (sum / (weights + 0.25)).exp()
}
