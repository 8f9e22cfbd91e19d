//! Factors with few channels between, in place of weights.
//!
//! A convolution whose channels are more than its rank can be two or three smaller ones in a row.
//!
//! | | layers in a row | of | nearest |
//! |---|---|---|---|
//! | [`Tucker2`] | 1×1, core, 1×1 | convolutions | locally: [`Spectra::hooi`] |
//! | [`LowRank`] | two products, or two 1×1 | linear layers, 1×1 convolutions | exactly |
//! | [`SpatialSvd`] | R×1, 1×S | convolutions | exactly |
//! | [`Cp`] | 1×1, depthwise, 1×1 | convolutions | locally, by alternating least squares |
//!
//! Ranks are [fixed](RankRule::Fixed), chosen for [an error](RankRule::Energy),
//! [from the statistics of noise](RankRule::Evbmf), or for all layers together
//! [within a budget](RankPlan::within). [`TuckerRank`] and [`SpatialRank`] are the projections onto
//! ranks; a [`RankPlan`] trains a network towards them with [`Admm`](crate::Admm), and [`factor`] puts the factors
//! in the place of its weights: Tucker's, unless a [`FactorKind`] asks for others.
//!
//! Everything is computed in f64 on the host, with `faer` for eigenproblems and products, and returned as
//! weights in the layout of convolutions.

mod analysis;
mod budget;
mod cp;
mod error;
mod evbmf;
mod factor;
mod kind;
mod low_rank;
pub(crate) mod matrix;
mod naive;
mod plan;
mod predict;
mod projection;
mod ranks;
mod rule;
mod spatial;
mod spectra;
mod times;
mod times_file;
mod tucker;

pub use budget::{Limited, RankBudget};
pub use cp::{Cp, CpConfig};
pub use error::DecomposeError;
pub use evbmf::evbmf_rank;
pub use factor::factor;
pub use kind::{FactorKind, LayerFactors};
pub use low_rank::LowRank;
pub use plan::{Decomposed, RankDecision, RankPlan, RankPlanError, RankPlanRule, RankReport};
pub use predict::Predicted;
pub use projection::{SpatialRank, TuckerRank};
pub use ranks::Ranks;
pub use rule::{RankChoice, RankRule};
pub use spatial::SpatialSvd;
pub use spectra::{ErrorBounds, Spectra};
pub use times::{LayerTimes, RankTimes};
pub use times_file::RankTimesError;
pub use tucker::{HooiConfig, Tucker2};

#[cfg(test)]
mod tests;
