//! What a weight says of its ranks, for each kind of factors.

use burn_sparse::WeightShape;

use super::spectra::Tails;
use super::{
    Cp, CpConfig, DecomposeError, FactorKind, HooiConfig, LayerFactors, RankChoice, Ranks,
    SpatialSvd, Spectra,
};

/// A weight, looked at from the sides that its kind of factors has.
pub(super) enum Analysis {
    Tucker(Box<Spectra>),
    Spatial {
        weights: Vec<f32>,
        shape: WeightShape,
        /// Squared singular values of the weight as a matrix of columns by rows.
        values: Vec<f64>,
    },
    Cp {
        weights: Vec<f32>,
        shape: WeightShape,
    },
}

impl Analysis {
    pub(super) fn new(
        kind: FactorKind,
        weights: Vec<f32>,
        shape: WeightShape,
    ) -> Result<Self, DecomposeError> {
        Ok(match kind.of(shape) {
            FactorKind::Tucker => Self::Tucker(Box::new(Spectra::new(&weights, shape)?)),
            FactorKind::Spatial => Self::Spatial {
                values: SpatialSvd::values(&weights, shape)?,
                weights,
                shape,
            },
            FactorKind::Cp => Self::Cp { weights, shape },
        })
    }

    /// The ranks of a choice.
    pub(super) fn ranks(&self, choice: &RankChoice) -> Result<Ranks, DecomposeError> {
        match self {
            Self::Tucker(spectra) => choice.ranks(spectra),
            Self::Spatial { shape, values, .. } => choice.one_rank(*shape, values),
            Self::Cp { shape, .. } => match choice.fixed(*shape)? {
                Some(ranks) => Ok(ranks),
                None => Err(DecomposeError::NoRule),
            },
        }
    }

    /// `‖K − K̂‖ / ‖K‖` of what is found without alternating, where there is such a thing.
    pub(super) fn relative_error(&self, ranks: Ranks) -> Result<f64, DecomposeError> {
        match self {
            Self::Tucker(spectra) => Ok(spectra.hosvd(ranks)?.relative_error()),
            Self::Spatial { values, .. } => {
                let left_out: f64 = values[ranks.output.min(values.len())..].iter().rev().sum();
                Ok(super::matrix::relative(left_out, values.iter().sum()))
            }
            Self::Cp { .. } => Ok(self.factors(ranks, HooiConfig::default())?.relative_error()),
        }
    }

    /// What all ranks leave out, where that is known without the factors.
    pub(super) fn tails(&self) -> Option<Tails> {
        match self {
            Self::Tucker(spectra) => Some(spectra.tails()),
            Self::Spatial { shape, values, .. } => Some(Tails::of_one(*shape, values)),
            Self::Cp { .. } => None,
        }
    }

    /// The factors. Those of CP alternate as [`CpConfig`] says by default.
    pub(super) fn factors(
        &self,
        ranks: Ranks,
        config: HooiConfig,
    ) -> Result<LayerFactors, DecomposeError> {
        let rank = ranks.output.min(ranks.input);
        Ok(match self {
            Self::Tucker(spectra) => spectra.hooi(ranks, config)?.into(),
            Self::Spatial { weights, shape, .. } => SpatialSvd::new(weights, *shape, rank)?.into(),
            Self::Cp { weights, shape } => {
                Cp::new(weights, *shape, rank, CpConfig::default())?.into()
            }
        })
    }
}
