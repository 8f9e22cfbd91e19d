use std::path::Path;

use burn_sparse::{PatternPool, Pool, Sparsity};
use serde::{Deserialize, Serialize};

use super::ResolvedLayer;
use crate::admm::StateError;
use crate::decompose::{FactorKind, Ranks};
use crate::quantize::Quantization;

/// What a saved state says of the layer that it is of.
#[derive(Serialize, Deserialize)]
pub(crate) struct Identity {
    pub(crate) path: String,
    pub(crate) shape: Vec<usize>,
    axis: usize,
    nnz: usize,
    /// The name of the constraint; version 1 of ADMM's states had none.
    scheme: Option<String>,
    pub(crate) pool: Option<PatternPool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    levels: Option<Quantization>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ranks: Option<Ranks>,
    #[serde(default)]
    factors: FactorKind,
}

impl Identity {
    pub(crate) fn of(spec: &ResolvedLayer) -> Self {
        Self {
            path: spec.path.clone(),
            shape: spec.shape.clone(),
            axis: spec.view.axis(),
            nnz: spec.nnz,
            scheme: Some(spec.sparsity.name().to_owned()),
            pool: pool_of(spec.sparsity),
            levels: spec.quantization,
            ranks: spec.ranks,
            factors: spec.factors,
        }
    }

    /// The layer, with the pool of the state: that which the run was started with.
    pub(crate) fn layer(&self, spec: &ResolvedLayer) -> ResolvedLayer {
        let mut spec = spec.clone();
        if let Some(pool) = self.pool {
            spec.set_pool(pool);
        }
        spec
    }

    /// Checks that a state is of those layers.
    pub(crate) fn check<'a>(
        file: &Path,
        saved: impl ExactSizeIterator<Item = &'a Self>,
        specs: &[ResolvedLayer],
    ) -> Result<(), StateError> {
        let (found, expected) = (saved.len(), specs.len());
        let reason = if found == expected {
            let mut pairs = saved.zip(specs);
            pairs.find_map(|(saved, spec)| saved.difference(spec))
        } else {
            Some(format!(
                "{found} constrained parameters, the plan has {expected}"
            ))
        };
        reason.map_or(Ok(()), |reason| {
            Err(StateError::Mismatch {
                path: file.to_owned(),
                reason,
            })
        })
    }

    fn difference(&self, spec: &ResolvedLayer) -> Option<String> {
        let scheme = self.scheme.as_deref();
        let differs = self.path != spec.path
            || self.shape != spec.shape
            || self.axis != spec.view.axis()
            || self.nnz != spec.nnz
            || scheme.is_some_and(|scheme| scheme != spec.sparsity.name());
        if differs {
            return Some(format!(
                "`{}` {:?}, {} with {} non-zeros, the plan has `{}` {:?}, {} with {}",
                self.path,
                self.shape,
                scheme.unwrap_or("some constraint"),
                self.nnz,
                spec.path,
                spec.shape,
                spec.sparsity.name(),
                spec.nnz
            ));
        }
        if self.levels != spec.quantization {
            let name = |levels: Option<Quantization>| match levels {
                Some(levels) => levels.to_string(),
                None => "no levels".to_owned(),
            };
            let (saved, asked) = (name(self.levels), name(spec.quantization));
            return Some(format!(
                "`{}` has {saved}, the plan asks for {asked}",
                self.path
            ));
        }
        if (self.ranks, self.factors) != (spec.ranks, spec.factors) {
            let name = |ranks: Option<Ranks>, factors: FactorKind| match (ranks, factors) {
                (Some(ranks), FactorKind::Tucker) => format!("ranks {ranks}"),
                (Some(ranks), kind) => format!("{kind} ranks {ranks}"),
                (None, _) => "no ranks".to_owned(),
            };
            let saved = name(self.ranks, self.factors);
            let asked = name(spec.ranks, spec.factors);
            return Some(format!(
                "`{}` has {saved}, the plan asks for {asked}",
                self.path
            ));
        }
        let same = match (self.pool, spec.patterns) {
            (Some(saved), Some(patterns)) => may_be_found(&saved, patterns),
            (saved, _) => saved == pool_of(spec.sparsity),
        };
        (!same).then(|| format!("`{}` has another pool of kernel patterns", self.path))
    }
}

fn pool_of(sparsity: Sparsity) -> Option<PatternPool> {
    match sparsity {
        Sparsity::KernelPattern {
            pool: Pool::Given(pool),
            ..
        } => Some(pool),
        _ => None,
    }
}

/// Whether a pool may have been found when so many patterns were asked for.
fn may_be_found(pool: &PatternPool, patterns: usize) -> bool {
    let natural = PatternPool::natural();
    pool.len() <= patterns && pool.masks().iter().all(|mask| natural.contains(mask))
}
