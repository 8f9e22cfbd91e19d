//! Kernel patterns, found in the network that a plan is resolved for.

use std::collections::HashMap;

use burn::module::Module;
use burn_sparse::{Pool, Sparsity};

use super::{PlanError, ResolvedLayer};
use crate::params::read;
use crate::projection::Preferences;

/// Patterns that a layer still has to find.
fn to_find(layer: &ResolvedLayer) -> Option<usize> {
    match layer.sparsity {
        Sparsity::KernelPattern {
            pool: Pool::Found(patterns),
            ..
        } => Some(patterns),
        _ => None,
    }
}

/// Gives every layer that asks for patterns those that most kernels of all such layers prefer.
/// Weights are read only if there is one.
pub(super) fn find<M: Module>(model: &M, layers: &mut [ResolvedLayer]) -> Result<(), PlanError> {
    let asking: HashMap<&str, &ResolvedLayer> = layers
        .iter()
        .filter(|layer| to_find(layer).is_some())
        .map(|layer| (layer.path.as_str(), layer))
        .collect();
    if asking.is_empty() {
        return Ok(());
    }
    let mut preferences = Preferences::default();
    let weights = read(model, |path| asking.contains_key(path))
        .map_err(|(path, source)| PlanError::Read { path, source })?;
    for weight in weights {
        if let Some(index) = weight.data.iter().position(|w| !w.is_finite()) {
            return Err(PlanError::NonFinite {
                value: weight.data[index],
                path: weight.path,
                index,
            });
        }
        let view = asking[weight.path.as_str()].view;
        preferences.add(&view.gather(&weight.data));
    }
    for layer in layers {
        let Some(patterns) = to_find(layer) else {
            continue;
        };
        let pool = preferences.pool(patterns);
        let pool = pool.map_err(|source| PlanError::Budget {
            path: layer.path.clone(),
            rows: layer.view.rows(),
            row_len: layer.view.row_len(),
            source,
        })?;
        layer.patterns = Some(patterns);
        layer.set_pool(pool);
    }
    Ok(())
}
