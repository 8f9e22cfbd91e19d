//! One scheme for every layer, least harm within a budget.

use std::collections::BTreeMap;

use burn_sparse::{SparseError, Sparsity};
use serde::{Deserialize, Serialize};

use super::{
    Bound, Decision, LatencyModel, LatencyTable, LayerOptions, MapBudget, Mapping, MappingError,
    Sensitivity,
};
use crate::knapsack::{Choice, choose};

/// Ways of weighing time against size.
const WEIGHINGS: usize = 24;

/// Parts into which each of two bounds is divided.
const CELLS: f64 = 96.0;

/// What a layer costs and what harm that does.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Offer {
    /// Its scheme; none leaves it dense.
    pub sparsity: Option<Sparsity>,
    /// Milliseconds.
    pub ms: f64,
    /// Bytes of its weights.
    pub bytes: f64,
    /// By how much the loss of the network grows.
    pub harm: f64,
}

/// A layer and its offers, the dense one first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct OfferedLayer {
    /// The path of its weight.
    pub path: String,
    /// What it could become.
    pub offers: Vec<Offer>,
}

/// What a network takes apart from the layers that could become something else.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Rest {
    /// Milliseconds: of the whole dense network, less those of the layers.
    pub ms: f64,
    /// Bytes of all other parameters.
    pub bytes: f64,
}

/// All that a network could become, layer by layer: what [`select`](Self::select) chooses from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Offers {
    /// Layers that have options.
    pub layers: Vec<OfferedLayer>,
    /// Everything else.
    pub rest: Rest,
    /// What [`with_whole`](Self::with_whole) or [`with_measured`](Self::with_measured) multiplied the times of
    /// dense and of packed layers by.
    #[serde(default = "as_it_was")]
    pub shortened: [f64; 2],
}

fn as_it_was() -> [f64; 2] {
    [1.0; 2]
}

/// The `x ≥ 0` for which `Σ (row · x − 1)²` is least: one unknown after the other, until nothing changes.
fn not_negative(rows: &[[f64; 3]], start: [f64; 3]) -> [f64; 3] {
    let sum = |of: &dyn Fn(&[f64; 3]) -> f64| rows.iter().map(of).sum::<f64>();
    let products = [0, 1, 2].map(|i| [0, 1, 2].map(|j| sum(&|row| row[i] * row[j])));
    let wanted = [0, 1, 2].map(|i| sum(&|row| row[i]));
    let mut x = start;
    for _ in 0..100_000 {
        let before = x;
        for i in 0..3 {
            let others = (0..3).filter(|j| *j != i);
            let others: f64 = others.map(|j| products[i][j] * x[j]).sum();
            // What no network has stays as it is.
            if products[i][i] > 0.0 {
                x[i] = ((wanted[i] - others) / products[i][i]).max(0.0);
            }
        }
        if x == before {
            break;
        }
    }
    x
}

/// A network that an [`Offers`] allows.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Selection {
    /// What each layer becomes.
    pub mapping: Mapping,
    /// Milliseconds of the network, those of layers added to the rest.
    pub ms: f64,
    /// Bytes of the network.
    pub bytes: f64,
    /// Harm of all layers, added.
    pub harm: f64,
}

fn median(mut times: Vec<f64>) -> Option<f64> {
    times.sort_by(f64::total_cmp);
    times.get(times.len() / 2).copied()
}

/// Bytes of a weight in a checkpoint: values that are not zero, and a 16-bit index for each group of weights that
/// share their position; of a dense one values alone. Checkpoints hold zeros of no layer, packed or not, and find
/// shorter indices.
fn bytes(layer: &LayerOptions, sparsity: Option<Sparsity>) -> Result<f64, SparseError> {
    let Some(sparsity) = sparsity else {
        return Ok(4.0 * layer.shape.len() as f64);
    };
    let nnz = sparsity.nnz(layer.shape)? as f64;
    let sharing = match sparsity {
        Sparsity::SharedPattern { rows, .. } => rows,
        Sparsity::BlockColumnRow { block, .. } => block[0],
        Sparsity::Punched {
            filters, channels, ..
        } => filters * channels,
        Sparsity::KernelPattern { .. } => 4,
        Sparsity::Column(_) => layer.shape.rows,
        _ => 1,
    };
    Ok(nnz * (4.0 + 2.0 / sharing as f64))
}

impl Offers {
    /// Puts times and harms together: times of the table, or of a model fitted to it where it has none. A scheme
    /// that is slower than the dense layer takes the time of that, since packing keeps it dense.
    ///
    /// # Errors
    /// [`MappingError::NoTime`] and [`MappingError::NoLoss`] for what was not measured.
    pub fn new(
        layers: &[LayerOptions],
        table: &LatencyTable,
        sensitivity: &Sensitivity,
        rest: Rest,
    ) -> Result<Self, MappingError> {
        let settings = |error: SparseError| MappingError::Settings(error.to_string());
        let fitted = LatencyModel::fit(table).map_err(settings)?;
        let mut offered = Vec::new();
        for layer in layers {
            // Timed with every scheme: one that is fast beside an unlucky dense time is not fast.
            let times = layer
                .cases()
                .filter_map(|case| Some(table.of(&case)?.dense_ms));
            let dense = median(times.collect());
            let mut offers = Vec::new();
            for &sparsity in &layer.schemes {
                let case = layer.case(sparsity);
                let measured = table
                    .of(&case)
                    .map(|entry| [entry.dense_ms, entry.packed_ms]);
                let times = match measured {
                    Some(times) => Some(times),
                    None => fitted.predict(&case).map_err(settings)?,
                };
                let [dense_ms, packed_ms] = times.ok_or_else(|| MappingError::NoTime {
                    path: layer.path.clone(),
                    case: Box::new(case),
                })?;
                let dense_ms = dense.unwrap_or(dense_ms);
                let harm = sensitivity.harm(&layer.path, sparsity);
                let harm = harm.ok_or_else(|| MappingError::NoLoss(layer.path.clone()))?;
                if offers.is_empty() {
                    offers.push(Offer {
                        sparsity: None,
                        ms: dense_ms,
                        bytes: bytes(layer, None).map_err(settings)?,
                        harm: 0.0,
                    });
                }
                offers.push(Offer {
                    sparsity: Some(sparsity),
                    ms: packed_ms.min(dense_ms),
                    bytes: bytes(layer, Some(sparsity)).map_err(settings)?,
                    harm,
                });
            }
            // A layer without schemes is a part of the rest.
            if !offers.is_empty() {
                offered.push(OfferedLayer {
                    path: layer.path.clone(),
                    offers,
                });
            }
        }
        Ok(Self {
            layers: offered,
            rest,
            shortened: as_it_was(),
        })
    }

    /// With the milliseconds of the whole dense network, as they were measured. What layers alone do not explain is the
    /// [rest](Self::rest); if they alone take longer than the network that they are layers of, which keeps
    /// what one gives in the caches of the next, all their times are shortened alike.
    #[must_use]
    pub fn with_whole(mut self, ms: f64) -> Self {
        self.rest.ms = 0.0;
        let [alone, _] = self.dense();
        if alone <= ms {
            self.rest.ms = ms - alone;
            return self;
        }
        self.shorten([ms / alone; 2]);
        self
    }

    /// With milliseconds of some networks as they were measured, each with the offers that its layers take. What layers
    /// take alone they do not take in a network, where one finds in the caches what the other left there: times of dense
    /// layers are multiplied by one factor, those of packed ones by another, and the [rest](Self::rest) is set, so that
    /// `Σ ((rest + f₀·Σ dense + f₁·Σ packed) / ms − 1)²` over the networks is least, none of the three below 0.
    ///
    /// The dense network and a few of all kinds will do. With a single network this is
    /// [`with_whole`](Self::with_whole), and without any nothing changes.
    ///
    /// # Panics
    /// As [`selection`](Self::selection).
    #[must_use]
    pub fn with_measured(mut self, networks: &[(Vec<usize>, f64)]) -> Self {
        let Some(((_, first), others)) = networks.split_first() else {
            return self;
        };
        if others.is_empty() {
            return self.with_whole(*first);
        }
        let row = |(chosen, ms): &(Vec<usize>, f64)| {
            assert_eq!(chosen.len(), self.layers.len(), "an offer for each layer");
            let mut sums = [1.0, 0.0, 0.0];
            for (layer, &at) in self.layers.iter().zip(chosen) {
                sums[1 + usize::from(at > 0)] += layer.offers[at].ms;
            }
            sums.map(|sum| sum / ms)
        };
        let rows: Vec<[f64; 3]> = networks.iter().map(row).collect();
        let [rest, dense, packed] = not_negative(&rows, [0.0, 1.0, 1.0]);
        // A form that takes no time at all could not be chosen between.
        let least = f64::MIN_POSITIVE.sqrt();
        self.shorten([dense.max(least), packed.max(least)]);
        self.rest.ms = rest;
        self
    }

    /// Multiplies the times of dense and of packed layers. A packed one that is now slower stays dense.
    fn shorten(&mut self, [dense, packed]: [f64; 2]) {
        for layer in &mut self.layers {
            let Some((first, others)) = layer.offers.split_first_mut() else {
                continue;
            };
            first.ms *= dense;
            for offer in others {
                offer.ms = first.ms.min(packed * offer.ms);
            }
        }
        self.shortened = [self.shortened[0] * dense, self.shortened[1] * packed];
    }

    /// Whether these can be chosen from: every layer has a dense offer first, and all numbers are finite and at
    /// least 0. To be asked of offers that come from a file.
    ///
    /// # Errors
    /// [`MappingError::Entry`], naming the layer.
    pub fn check(&self) -> Result<(), MappingError> {
        let sound = |value: f64| value.is_finite() && value >= 0.0;
        if !(sound(self.rest.ms) && sound(self.rest.bytes)) {
            return Err(MappingError::Entry(format!("{:?}", self.rest)));
        }
        let sound_factor = |factor: f64| sound(factor) && factor > 0.0;
        if !self.shortened.into_iter().all(sound_factor) {
            let reason = format!("shortened by {:?}", self.shortened);
            return Err(MappingError::Entry(reason));
        }
        for layer in &self.layers {
            let dense = layer
                .offers
                .first()
                .is_some_and(|offer| offer.sparsity.is_none() && offer.ms > 0.0);
            let sound = |offer: &Offer| [offer.ms, offer.bytes, offer.harm].into_iter().all(sound);
            if !(dense && layer.offers.iter().all(sound)) {
                return Err(MappingError::Entry(format!(
                    "the offers of `{}`",
                    layer.path
                )));
            }
        }
        Ok(())
    }

    /// Milliseconds and bytes of the dense network.
    pub fn dense(&self) -> [f64; 2] {
        let dense = self.layers.iter().filter_map(|layer| layer.offers.first());
        let start = [self.rest.ms, self.rest.bytes];
        dense.fold(start, |[ms, bytes], offer| {
            [ms + offer.ms, bytes + offer.bytes]
        })
    }

    /// The network within the bounds on latency and size that loses least, by the sum of its layers' harms. What
    /// the budget says of accuracy is not looked at: only training tells.
    ///
    /// One bound is a knapsack; with two, networks of ever more layers are kept side by side, of those that cost
    /// about the same the least harmful and the cheapest, so that there may be another answer with a little less harm.
    ///
    /// # Errors
    /// [`MappingError::Unreachable`], naming the nearest point that was found.
    pub fn select(&self, budget: &MapBudget) -> Result<Selection, MappingError> {
        let dense = self.dense();
        let limit = |bound: Option<Bound>, axis: usize| bound.map(|bound| bound.of(dense[axis]));
        let limits = [limit(budget.latency, 0), limit(budget.size, 1)];
        let found = match limits {
            [None, None] => return Ok(self.selection(&vec![0; self.layers.len()])),
            [Some(ms), None] => self.within([1.0, 0.0], ms).ok(),
            [None, Some(bytes)] => self.within([0.0, 1.0], bytes).ok(),
            [Some(ms), Some(bytes)] => {
                let room = [ms - self.rest.ms, bytes - self.rest.bytes];
                within_both(&self.layers, room).map(|chosen| self.selection(&chosen))
            }
        };
        found.ok_or_else(|| {
            let nearest = self.nearest(limits);
            MappingError::Unreachable {
                asked: budget.to_string(),
                nearest: format!(
                    "latency={:.2}x ({:.3} ms) with size={:.2}x ({:.0} B)",
                    nearest.ms / dense[0],
                    nearest.ms,
                    nearest.bytes / dense[1],
                    nearest.bytes
                ),
            }
        })
    }

    /// Of the cheapest networks, time and size weighed in several ways, the one that exceeds limits least.
    fn nearest(&self, limits: [Option<f64>; 2]) -> Selection {
        let over = |selection: &Selection| {
            let costs = [selection.ms, selection.bytes];
            let parts = [0, 1].map(|axis| limits[axis].map_or(0.0, |limit| costs[axis] / limit));
            parts[0].max(parts[1])
        };
        let mut nearest: Option<Selection> = None;
        for step in 0..=WEIGHINGS {
            let part = step as f64 / WEIGHINGS as f64;
            let weights = [1.0 - part, part];
            let weights =
                [0, 1].map(|axis| limits[axis].map_or(0.0, |limit| weights[axis] / limit));
            let (Ok(found) | Err(found)) = self.within(weights, 0.0);
            if nearest
                .as_ref()
                .is_none_or(|best| over(&found) < over(best))
            {
                nearest = Some(found);
            }
        }
        nearest.unwrap_or_else(|| self.selection(&vec![0; self.layers.len()]))
    }

    /// The fastest networks for their harm, from the dense one to the fastest there is, at up to so many points.
    pub fn front(&self, points: usize) -> Vec<Selection> {
        let (Ok(fastest) | Err(fastest)) = self.within([1.0, 0.0], 0.0);
        let least = fastest.ms;
        let dense = self.dense()[0];
        let mut front = vec![self.selection(&vec![0; self.layers.len()])];
        for point in 1..points.max(2) {
            let part = point as f64 / (points.max(2) - 1) as f64;
            let limit = dense + part * (least - dense);
            // Rounding may take the last one below what there is.
            let (Ok(selection) | Err(selection)) = self.within([1.0, 0.0], limit);
            let faster = |last: &Selection| selection.ms < last.ms;
            if front.last().is_some_and(faster) {
                front.push(selection);
            }
        }
        front
    }

    /// The least harm where `weights · [ms, bytes]` is at most the limit; as an error what that is least of.
    fn within(&self, weights: [f64; 2], limit: f64) -> Result<Selection, Selection> {
        let cost = |ms: f64, bytes: f64| weights[0] * ms + weights[1] * bytes;
        let choices = |layer: &OfferedLayer| -> Vec<Choice> {
            let offers = layer.offers.iter();
            offers
                .map(|offer| Choice {
                    cost: cost(offer.ms, offer.bytes),
                    harm: offer.harm,
                })
                .collect()
        };
        let groups: Vec<Vec<Choice>> = self.layers.iter().map(choices).collect();
        let room = limit - cost(self.rest.ms, self.rest.bytes);
        if let Ok(chosen) = choose(&groups, room) {
            return Ok(self.selection(&chosen));
        }
        let cheapest = groups.iter().map(|group| {
            let order = |a: &usize, b: &usize| group[*a].cost.total_cmp(&group[*b].cost);
            (0..group.len()).min_by(order).unwrap_or(0)
        });
        Err(self.selection(&cheapest.collect::<Vec<_>>()))
    }

    /// The network whose layers take these offers, one index for each layer.
    ///
    /// # Panics
    /// If there are not as many as layers, or a layer has no such offer.
    pub fn selection(&self, chosen: &[usize]) -> Selection {
        assert_eq!(chosen.len(), self.layers.len(), "an offer for each layer");
        let mut layers = Vec::new();
        let mut sum = Offer {
            sparsity: None,
            ms: self.rest.ms,
            bytes: self.rest.bytes,
            harm: 0.0,
        };
        for (layer, &at) in self.layers.iter().zip(chosen) {
            let (dense, offer) = (&layer.offers[0], &layer.offers[at]);
            sum.ms += offer.ms;
            sum.bytes += offer.bytes;
            sum.harm += offer.harm;
            let reason = match offer.sparsity {
                None => "dense: what others lose is less".to_owned(),
                Some(_) => format!(
                    "{:.2}x the time and {:.2}x the size for {:.4} of loss",
                    offer.ms / dense.ms,
                    offer.bytes / dense.bytes,
                    offer.harm
                ),
            };
            layers.push(Decision {
                path: layer.path.clone(),
                sparsity: offer.sparsity,
                ms: Some([dense.ms, offer.ms]),
                reason,
            });
        }
        Selection {
            mapping: Mapping { layers },
            ms: sum.ms,
            bytes: sum.bytes,
            harm: sum.harm,
        }
    }
}

/// Some layers, decided.
#[derive(Clone, Copy)]
struct Partial {
    costs: [f64; 2],
    harm: f64,
    /// The offer of the last one, and the others: an index into all that were kept.
    offer: usize,
    before: usize,
}

/// The offer of each layer with little harm, so that milliseconds and bytes each have room.
fn within_both(layers: &[OfferedLayer], room: [f64; 2]) -> Option<Vec<usize>> {
    let costs = |offer: &Offer| [offer.ms, offer.bytes];
    let add = |a: [f64; 2], b: [f64; 2]| [a[0] + b[0], a[1] + b[1]];
    let fits = |costs: [f64; 2]| costs[0] <= room[0] && costs[1] <= room[1];
    // What the layers from each on cost at least.
    let mut least = vec![[0.0; 2]; layers.len() + 1];
    for (at, layer) in layers.iter().enumerate().rev() {
        let cheapest = [0, 1].map(|axis| {
            let offers = layer.offers.iter().map(|offer| costs(offer)[axis]);
            offers.fold(f64::INFINITY, f64::min)
        });
        least[at] = add(least[at + 1], cheapest);
    }
    let mut kept = vec![Partial {
        costs: [0.0; 2],
        harm: 0.0,
        offer: 0,
        before: 0,
    }];
    let mut last = 0..1;
    for (at, layer) in layers.iter().enumerate() {
        // Of those that cost about the same the least harmful, and the cheapest.
        let mut cells: BTreeMap<[usize; 2], [Partial; 2]> = BTreeMap::new();
        for before in last {
            for (index, offer) in layer.offers.iter().enumerate() {
                let partial = Partial {
                    costs: add(kept[before].costs, costs(offer)),
                    harm: kept[before].harm + offer.harm,
                    offer: index,
                    before,
                };
                if !fits(add(partial.costs, least[at + 1])) {
                    continue;
                }
                let cell = [0, 1].map(|axis| (CELLS * partial.costs[axis] / room[axis]) as usize);
                let [harmless, cheap] = cells.entry(cell).or_insert([partial; 2]);
                if partial.harm < harmless.harm {
                    *harmless = partial;
                }
                let part = |of: &Partial| of.costs[0] / room[0] + of.costs[1] / room[1];
                if part(&partial) < part(cheap) {
                    *cheap = partial;
                }
            }
        }
        let start = kept.len();
        for [harmless, cheap] in cells.into_values() {
            kept.push(harmless);
            if cheap.costs != harmless.costs {
                kept.push(cheap);
            }
        }
        last = start..kept.len();
    }
    let mut at = last.min_by(|&a, &b| kept[a].harm.total_cmp(&kept[b].harm))?;
    let mut chosen = Vec::new();
    for _ in layers {
        chosen.push(kept[at].offer);
        at = kept[at].before;
    }
    chosen.reverse();
    Some(chosen)
}
