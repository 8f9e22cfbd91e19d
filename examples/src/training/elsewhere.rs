//! A network that was trained on one device, packed and timed on another.

use std::collections::BTreeMap;
use std::path::Path;

use burn::tensor::Device;
use burn_admm::fold;
use models::Classifier;
use serde::Serialize;

use super::{Context, Pruned, TrainingError, deploy};
use crate::device::Selected;
use crate::report::Latency;

/// What a pruned network does on another device.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Elsewhere {
    /// Times of the whole network.
    pub latency_ms: Latency,
    /// Largest difference of any logit between the masked and the packed network there.
    pub max_abs_diff: f64,
    /// Accuracy of the packed network on the test images there.
    pub accuracy: f64,
    /// How many layers run in each form.
    pub kinds: BTreeMap<String, usize>,
}

/// Packs, verifies and times `pruned` on the device `there`; its files go to `folder`.
///
/// # Errors
/// As [`deploy`].
pub fn deploy_on<M: Classifier + Sync>(
    context: &Context,
    build: impl Fn(&Device) -> M,
    pruned: &Pruned<M>,
    there: &Selected,
    folder: &Path,
) -> Result<Elsewhere, TrainingError> {
    context.say(format!("on {there}:"));
    let other = Context::new(context.data, context.recipe, &there.device, 0)?;
    let moved = Pruned {
        model: fold(pruned.model.clone()).fork(&other.device),
        method: pruned.method,
        results: pruned.results.clone(),
        seconds: pruned.seconds,
    };
    let deployed = deploy(&other, build, &moved, folder)?;
    let mut kinds = BTreeMap::new();
    for layer in &deployed.packing.layers {
        *kinds.entry(layer.format.to_string()).or_insert(0) += 1;
    }
    Ok(Elsewhere {
        latency_ms: deployed.latency,
        max_abs_diff: deployed.max_abs_diff,
        accuracy: deployed.accuracy,
        kinds,
    })
}
