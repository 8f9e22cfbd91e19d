//! What a plan is expected to cost, before anything is decomposed.

use burn::module::Module;
use serde::Serialize;

use super::plan::Wanted;
use super::{FactorKind, RankPlan, RankPlanError, RankTimes};

/// What a plan comes to, by the clock and by the weights as they are.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Predicted {
    /// Layers with times.
    pub timed: usize,
    /// Layers of these that get factors.
    pub factored: usize,
    /// Milliseconds of the layers with times, undivided.
    pub dense_ms: f64,
    /// The same with factors, each layer measured alone.
    pub ms: f64,
    /// The parts of the squared norms that the HOSVD discards at most, `Σ (e0 + e1) / ‖K‖²` over all layers.
    pub discarded: f64,
    /// Multiply-adds now and with factors, of all layers whose geometry is known.
    pub macs: [u64; 2],
    /// How many times fewer that is.
    pub flop_ratio: f64,
}

impl RankPlan {
    /// What this plan comes to with these times: for plans that rules were made for by
    /// [`within_time`](Self::within_time), [`by_tdc`](Self::by_tdc) or [`within`](Self::within), to be held against
    /// each other before one of them is trained for.
    ///
    /// # Errors
    /// As [`explain`](Self::explain), and [`RankPlanError::Times`] where times are wrong, or where a timed layer
    /// has ranks that were not timed.
    pub fn predicted<M: Module>(
        &self,
        model: &M,
        times: &RankTimes,
    ) -> Result<Predicted, RankPlanError> {
        times.check().map_err(RankPlanError::Times)?;
        let mut sum = Predicted {
            timed: 0,
            factored: 0,
            dense_ms: 0.0,
            ms: 0.0,
            discarded: 0.0,
            macs: [0; 2],
            flop_ratio: 1.0,
        };
        for layer in self.decide(model, Wanted::Errors)? {
            let ranks = layer.decision.ranks;
            if let (Some(ranks), Some(tails)) = (ranks, &layer.tails) {
                sum.discarded += tails.discarded(ranks);
            }
            if let Some([now, then]) = layer.decision.macs {
                sum.macs = [sum.macs[0] + now, sum.macs[1] + then];
            }
            let Some(known) = layer.problem.and_then(|problem| times.of(&problem)) else {
                continue;
            };
            let path = &layer.decision.path;
            let ms = match ranks {
                None => known.dense_ms,
                Some(ranks) => known.ms(ranks, layer.kind).ok_or_else(|| {
                    RankPlanError::Times(format!("`{path}` was not timed at ranks {ranks}"))
                })?,
            };
            sum.timed += 1;
            sum.factored += usize::from(ranks.is_some());
            sum.dense_ms += known.dense_ms;
            sum.ms += ms;
        }
        if sum.macs[1] > 0 {
            sum.flop_ratio = sum.macs[0] as f64 / sum.macs[1] as f64;
        }
        Ok(sum)
    }
}

impl super::LayerTimes {
    /// Milliseconds at these ranks, if they were measured.
    fn ms(&self, ranks: super::Ranks, kind: FactorKind) -> Option<f64> {
        let mut timed = self.factored_ms.iter();
        let found = timed.find(|(known, _)| *known == ranks && kind == FactorKind::Tucker);
        found.map(|(_, ms)| *ms)
    }
}
