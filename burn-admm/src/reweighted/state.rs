//! Saving the coefficients and resuming with them, bit for bit.
//!
//! A [state file](crate::state_file) of tensors `alpha.<path>` in the parameter's shape, with the
//! number of refreshes and the pools of kernel patterns as JSON.

use std::path::Path;

use burn::module::Module;
use serde::{Deserialize, Serialize};

use super::solver::Layer;
use super::{Reweighted, ReweightedConfig, ReweightedError};
use crate::admm::StateError;
use crate::plan::{Identity, Plan, ResolvedPlan};
use crate::state_file::{self, Named, Opened};

const VERSION: u64 = 1;
const KIND: &str = "burn_reweighted";

#[derive(Serialize, Deserialize)]
struct Meta {
    version: u64,
    refreshes: u64,
    layers: Vec<Identity>,
}

impl Reweighted {
    /// Writes the state to `path`, to a temporary file beside it first. Together with the records of
    /// model and optimiser it is all that [`resume`](Self::resume) needs.
    ///
    /// # Errors
    /// [`StateError::Io`] if the file cannot be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), StateError> {
        state_file::write(path.as_ref(), &self.to_bytes())
    }

    /// Continues from a state that [`save`](Self::save) has written, for the same model and plan: with
    /// the coefficients of its last refresh and its kernel patterns. The settings are those given
    /// here.
    ///
    /// # Errors
    /// [`ReweightedError::State`] for a file that is missing, broken, of another version or made for
    /// another model or plan; otherwise as [`Reweighted::new`].
    pub fn resume<M: Module>(
        model: &M,
        plan: &Plan,
        config: ReweightedConfig,
        path: impl AsRef<Path>,
    ) -> Result<Self, ReweightedError> {
        let mut reweighted = Self::new(model, plan, config)?;
        reweighted.restore(path)?;
        Ok(reweighted)
    }

    /// Puts a saved state in the place of this one, which is left as it is on errors.
    ///
    /// # Errors
    /// As [`resume`](Self::resume).
    pub fn restore(&mut self, path: impl AsRef<Path>) -> Result<(), StateError> {
        let path = path.as_ref();
        self.restore_bytes(path, state_file::read(path)?)
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let meta = Meta {
            version: VERSION,
            refreshes: self.refreshes,
            layers: self.plan.layers().iter().map(Identity::of).collect(),
        };
        let meta = serde_json::to_string(&meta).expect("strings and integers are valid JSON");
        let layers = self.plan.layers().iter().zip(&self.layers);
        let tensors: Vec<Named<'_>> = layers
            .map(|(spec, layer)| (name(&spec.path), &spec.shape[..], &layer.coefficients[..]))
            .collect();
        state_file::seal(KIND, meta, &tensors)
    }

    pub(super) fn restore_bytes(&mut self, path: &Path, bytes: Vec<u8>) -> Result<(), StateError> {
        let opened = Opened::new(path, KIND, bytes)?;
        opened.version(VERSION)?;
        let meta: Meta = opened.meta()?;
        Identity::check(path, meta.layers.iter(), self.plan.layers())?;
        let tensors = opened.tensors()?;
        let mut layers = Vec::with_capacity(meta.layers.len());
        for saved in &meta.layers {
            let name = name(&saved.path);
            let coefficients = tensors.floats(&name, &saved.shape)?;
            if let Some(negative) = coefficients.iter().find(|&&alpha| alpha < 0.0) {
                return Err(opened.corrupt(format!("{name} holds {negative}")));
            }
            layers.push(Layer::new(coefficients));
        }
        let specs = self.plan.layers().iter().zip(&meta.layers);
        self.plan = ResolvedPlan::new(specs.map(|(spec, saved)| saved.layer(spec)).collect());
        self.layers = layers;
        self.refreshes = meta.refreshes;
        Ok(())
    }
}

fn name(path: &str) -> String {
    format!("alpha.{path}")
}
