//! Masks and levels on a model, so that those of earlier stages stay.

use burn::module::Module;

use super::StageError;
use crate::admm::AdmmError;
use crate::mask::{LayerMask, Masks};
use crate::params::parameters;
use crate::quantize::QuantPlan;

/// Attaches the masks of `earlier` to parameters that have lost theirs: whoever attaches new ones folds all others.
pub(super) fn regain<M: Module>(model: M, earlier: &Masks) -> Result<M, AdmmError> {
    let now = Masks::attached(&model);
    let lost = earlier.layers().iter();
    let lost: Vec<LayerMask> = lost
        .filter(|layer| now.layer(&layer.path).is_none())
        .cloned()
        .collect();
    match lost.is_empty() {
        true => Ok(model),
        false => Masks::within(lost, &Masks::default()).attach_beside(model),
    }
}

/// The paths of all masked parameters.
pub(super) fn masked<M: Module>(model: &M) -> Vec<String> {
    let masks = Masks::attached(model);
    masks
        .layers()
        .iter()
        .map(|layer| layer.path.clone())
        .collect()
}

/// Masks on these parameters that keep everything: what the record of a masked model loads into.
pub(super) fn keep_all<M: Module>(model: M, masked: &[String]) -> Result<M, AdmmError> {
    let known = parameters(&model);
    let layers = masked.iter().map(|path| {
        let parameter = known.iter().find(|parameter| parameter.path == *path);
        let Some(parameter) = parameter else {
            return Err(AdmmError::Model {
                path: path.clone(),
                expected: Vec::new(),
                found: None,
            });
        };
        Ok(LayerMask {
            path: path.clone(),
            shape: parameter.shape.clone(),
            keep: vec![true; parameter.weights()],
        })
    });
    let layers = layers.collect::<Result<Vec<_>, _>>()?;
    Masks::within(layers, &Masks::default()).attach(model)
}

/// Puts weights on their levels; masks of parameters without levels stay.
pub(super) fn on_levels<M: Module>(model: M, plan: &QuantPlan) -> Result<M, StageError> {
    let masks = Masks::attached(&model);
    Ok(regain(plan.attach(model)?, &masks)?)
}
