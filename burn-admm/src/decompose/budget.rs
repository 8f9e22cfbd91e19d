//! Ranks that fit a budget and discard little.

use burn::module::Module;
use burn_sparse::WeightShape;
use serde::{Deserialize, Serialize};

use super::plan::{Decided, Wanted};
use super::times::grid;
use super::{DecomposeError, FactorKind, RankPlan, RankPlanError, Ranks};
use crate::knapsack::{Choice, choose};

/// What a budget limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Limited {
    /// Multiply-adds, of all layers whose [geometry](RankPlan::with_geometry) is known.
    Macs,
    /// Weights of all layers.
    Parameters,
}

impl Limited {
    /// What is counted, for messages.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Macs => "multiply-adds",
            Self::Parameters => "weights",
        }
    }

    /// The cost of a layer with factors of these ranks, or as it is; `None` where it is not known.
    fn of(self, layer: &Decided, ranks: Option<Ranks>) -> Option<f64> {
        let shape = layer.parameter.view.shape();
        Some(match (self, ranks) {
            (Self::Macs, None) => layer.problem?.dense_macs() as f64,
            (Self::Macs, Some(ranks)) => layer.kind.macs_of(ranks, &layer.problem?) as f64,
            (Self::Parameters, None) => layer.parameter.weights() as f64,
            (Self::Parameters, Some(ranks)) => layer.kind.parameters(ranks, shape) as f64,
        })
    }
}

/// How large a network may be once it is decomposed.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct RankBudget {
    /// What is limited.
    pub limited: Limited,
    /// The part of what the network has now, such as a third.
    pub part: f64,
    /// Ranks are multiples of this, or all channels: time over ranks is a staircase, and 16 and 32 suit
    /// matrix units and warps.
    pub multiple: usize,
}

impl RankBudget {
    /// Multiply-adds divided by `ratio`.
    pub fn flop_ratio(ratio: f64) -> Self {
        Self {
            limited: Limited::Macs,
            part: 1.0 / ratio,
            multiple: 1,
        }
    }

    /// Weights divided by `ratio`.
    pub fn compression(ratio: f64) -> Self {
        Self {
            limited: Limited::Parameters,
            ..Self::flop_ratio(ratio)
        }
    }

    /// Ranks in steps of this.
    #[must_use]
    pub fn with_multiple(mut self, multiple: usize) -> Self {
        self.multiple = multiple.max(1);
        self
    }
}

impl RankPlan {
    /// The plan with fixed ranks for every layer to which this one gives any, so that the network fits the
    /// budget and the parts of the layers' squared norms that the HOSVD discards at most,
    /// `Σ (e0 + e1) / ‖K‖²`, add up to as little as possible. Layers may also keep their weights.
    ///
    /// Which layers may be decomposed is read from this plan; which ranks they have in it is not.
    ///
    /// # Errors
    /// As [`explain`](Self::explain); [`RankPlanError::Budget`] where ranks of one step in all layers are
    /// still too much, with the smallest part that can be reached; [`RankPlanError::Layer`] for CP, of which
    /// nothing tells what ranks discard; [`RankPlanError::NoGeometry`] for
    /// multiply-adds that are not known, [`RankPlanError::Part`] for a part that is no number above 0.
    pub fn within<M: Module>(&self, model: &M, budget: RankBudget) -> Result<Self, RankPlanError> {
        let RankBudget {
            limited,
            part,
            multiple,
        } = budget;
        if !(part.is_finite() && part > 0.0) {
            return Err(RankPlanError::Part(part));
        }
        let (mut whole, mut fixed) = (0.0, 0.0);
        let (mut groups, mut options, mut paths) = (Vec::new(), Vec::new(), Vec::new());
        for layer in self.decide(model, Wanted::Errors)? {
            let Some(now) = limited.of(&layer, None) else {
                continue;
            };
            whole += now;
            if layer.kind == FactorKind::Cp {
                return Err(RankPlanError::Layer {
                    path: layer.parameter.path,
                    source: DecomposeError::NoRule,
                });
            }
            let Some(tails) = &layer.tails else {
                fixed += now;
                continue;
            };
            let ranks = candidates(layer.kind, tails.shape, multiple);
            let group = ranks.iter().map(|&ranks| Choice {
                cost: limited.of(&layer, ranks).unwrap_or(now),
                harm: ranks.map_or(0.0, |ranks| tails.discarded(ranks)),
            });
            groups.push(group.collect::<Vec<_>>());
            options.push(ranks);
            paths.push((layer.parameter.path, layer.kind));
        }
        if limited == Limited::Macs && whole == 0.0 {
            return Err(RankPlanError::NoGeometry);
        }
        let chosen =
            choose(&groups, part * whole - fixed).map_err(|least| RankPlanError::Budget {
                what: limited.name(),
                asked: part,
                least: if whole > 0.0 {
                    (least + fixed) / whole
                } else {
                    1.0
                },
            })?;
        let picked = options
            .iter()
            .zip(chosen)
            .map(|(options, index)| options[index]);
        let picked = paths.into_iter().zip(picked);
        self.fixed_at(picked.map(|((path, kind), ranks)| (path, kind, ranks)))
    }
}

/// The weights as they are, and all pairs of multiples, or of all channels.
fn candidates(kind: FactorKind, shape: WeightShape, multiple: usize) -> Vec<Option<Ranks>> {
    let one = match shape.positions() {
        // Two factors, with one rank between.
        1 => Some(shape.rows.min(shape.channels)),
        _ => kind.most(shape),
    };
    if let Some(most) = one {
        let inner = (1..).map(|k| k * multiple.max(1));
        let ranks = inner.take_while(|&rank| rank < most).chain([most]);
        let ranks = ranks.map(|rank| Some(Ranks::new(rank, rank)));
        return [None].into_iter().chain(ranks).collect();
    }
    // All channels on both sides are the weights as they are.
    [None]
        .into_iter()
        .chain(grid(shape, multiple).map(Some))
        .collect()
}
