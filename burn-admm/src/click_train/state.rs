//! Saving what a run has gathered and chosen, and resuming with it, bit for bit.
//!
//! A [state file](crate::state_file) of tensors `importance.<path>` and `dropped.<path>` (zeros and
//! ones) in the parameter's shape, where there are any, with the steps done and the pools of kernel
//! patterns as JSON.

use std::path::Path;

use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};
use serde::{Deserialize, Serialize};

use super::run::Layer;
use super::{ClickTrain, ClickTrainConfig, ClickTrainError};
use crate::admm::{AdmmError, StateError};
use crate::params::flat;
use crate::plan::{Identity, Plan, ResolvedPlan};
use crate::state_file::{self, Named, Opened};

const VERSION: u64 = 1;
const KIND: &str = "burn_click_train";

#[derive(Serialize, Deserialize)]
struct Meta {
    version: u64,
    steps: u64,
    layers: Vec<LayerMeta>,
}

#[derive(Serialize, Deserialize)]
struct LayerMeta {
    identity: Identity,
    importance: bool,
    dropped: bool,
}

impl ClickTrain {
    /// Writes the state to `path`, to a temporary file beside it first. Together with the records of
    /// model and optimiser it is all that [`resume`](Self::resume) needs.
    ///
    /// # Errors
    /// [`ClickTrainError::State`] if the file cannot be written, [`ClickTrainError::Weights`] if a
    /// device fails.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), ClickTrainError> {
        Ok(state_file::write(path.as_ref(), &self.to_bytes()?)?)
    }

    /// Continues from a state that [`save`](Self::save) has written, for the same model and plan. The
    /// settings are those given here.
    ///
    /// # Errors
    /// [`ClickTrainError::State`] for a file that is missing, broken, of another version or made for
    /// another model or plan; otherwise as [`ClickTrain::new`].
    pub fn resume<M: Module>(
        model: &M,
        plan: &Plan,
        config: ClickTrainConfig,
        path: impl AsRef<Path>,
    ) -> Result<Self, ClickTrainError> {
        let mut run = Self::new(model, plan, config)?;
        let path = path.as_ref();
        let devices = flat(model, |_| true).into_iter();
        let devices = devices.map(|weight| (weight.path, weight.values.device().inner()));
        let devices: std::collections::HashMap<_, _> = devices.collect();
        run.restore_bytes(path, state_file::read(path)?, |path| devices[path].clone())?;
        Ok(run)
    }

    pub(super) fn to_bytes(&self) -> Result<Vec<u8>, ClickTrainError> {
        let layers = || self.plan.layers().iter().zip(&self.layers);
        let mut data = Vec::new();
        for (spec, layer) in layers() {
            if let Some(importance) = &layer.importance {
                let values = importance.clone().try_into_vec_as::<f32>();
                let values = values.map_err(|source| {
                    ClickTrainError::Weights(AdmmError::from((spec.path.clone(), source)))
                })?;
                data.push((format!("importance.{}", spec.path), &spec.shape, values));
            }
            if let Some(dropped) = &layer.dropped {
                let values = dropped.iter().map(|&d| f32::from(u8::from(d))).collect();
                data.push((format!("dropped.{}", spec.path), &spec.shape, values));
            }
        }
        let meta = Meta {
            version: VERSION,
            steps: self.steps,
            layers: layers()
                .map(|(spec, layer)| LayerMeta {
                    identity: Identity::of(spec),
                    importance: layer.importance.is_some(),
                    dropped: layer.dropped.is_some(),
                })
                .collect(),
        };
        let meta = serde_json::to_string(&meta).expect("strings and integers are valid JSON");
        let tensors: Vec<Named<'_>> = data
            .iter()
            .map(|(name, shape, values)| (name.clone(), &shape[..], &values[..]))
            .collect();
        Ok(state_file::seal(KIND, meta, &tensors))
    }

    pub(super) fn restore_bytes(
        &mut self,
        path: &Path,
        bytes: Vec<u8>,
        device: impl Fn(&str) -> Device,
    ) -> Result<(), StateError> {
        let opened = Opened::new(path, KIND, bytes)?;
        opened.version(VERSION)?;
        let meta: Meta = opened.meta()?;
        let identities = meta.layers.iter().map(|layer| &layer.identity);
        Identity::check(path, identities, self.plan.layers())?;
        let tensors = opened.tensors()?;
        let mut layers = Vec::with_capacity(meta.layers.len());
        for saved in &meta.layers {
            let (path, shape) = (&saved.identity.path, &saved.identity.shape);
            let mut layer = Layer::default();
            if saved.importance {
                let values = tensors.floats(&format!("importance.{path}"), shape)?;
                if let Some(negative) = values.iter().find(|&&value| value < 0.0) {
                    return Err(opened.corrupt(format!("importance.{path} holds {negative}")));
                }
                let len = values.len();
                let data = TensorData::new(values, [len]);
                layer.importance = Some(Tensor::from_data(data, &device(path)));
            }
            if saved.dropped {
                let values = tensors.floats(&format!("dropped.{path}"), shape)?;
                if let Some(other) = values.iter().find(|&&value| value != 0.0 && value != 1.0) {
                    return Err(opened.corrupt(format!("dropped.{path} holds {other}")));
                }
                layer.drop_these(values.iter().map(|&value| value == 1.0).collect());
            }
            layers.push(layer);
        }
        let chosen = meta.layers.iter().all(|layer| layer.dropped);
        if (meta.steps >= self.config().patterns_at) != chosen {
            return Err(opened.corrupt(format!(
                "after {} steps masks {} chosen, which these settings would not have done",
                meta.steps,
                if chosen { "were" } else { "were not" }
            )));
        }
        let specs = self.plan.layers().iter().zip(&meta.layers);
        let specs = specs.map(|(spec, saved)| saved.identity.layer(spec));
        self.plan = ResolvedPlan::new(specs.collect());
        self.layers = layers;
        self.steps = meta.steps;
        Ok(())
    }
}
