//! Saving the factors and resuming with them, bit for bit.
//!
//! A [state file](crate::state_file) of tensors `coefficients.<path>`, `basis.<path>` and, once pruned,
//! `pruned.<path>` (zeros and ones), with the phase, the epochs and the ids by which the optimiser
//! knows the factors as JSON.

use std::collections::HashSet;
use std::path::Path;

use burn::module::{Module, ParamId};
use serde::{Deserialize, Serialize};

use super::factors::Factors;
use super::{Penni, PenniConfig, PenniError, PenniPlan, Phase, SharedKernels};
use crate::admm::StateError;
use crate::state_file::{self, Named, Opened};

const VERSION: u64 = 1;
const KIND: &str = "burn_penni";

#[derive(Serialize, Deserialize)]
struct Meta {
    version: u64,
    phase: Phase,
    epochs: usize,
    layers: Vec<LayerMeta>,
}

#[derive(Serialize, Deserialize)]
struct LayerMeta {
    path: String,
    shape: Vec<usize>,
    kernels: usize,
    ids: [u64; 2],
}

/// A layer's factors as they are read, and what has been pruned of them.
type Read = (SharedKernels, [ParamId; 2], Option<Vec<bool>>);

impl Penni {
    /// Writes the state to `path`, to a temporary file beside it first. Together with the records of
    /// model and optimiser it is all that [`resume`](Self::resume) needs.
    ///
    /// # Errors
    /// [`PenniError::State`] if the file cannot be written, and as [`shared`](Self::shared).
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), PenniError> {
        Ok(state_file::write(path.as_ref(), &self.to_bytes()?)?)
    }

    /// Continues from a state that [`save`](Self::save) has written, for a model and a plan of the same
    /// layers. The settings are those given here.
    ///
    /// # Errors
    /// As [`new`](Self::new) and [`restore`](Self::restore).
    pub fn resume<M: Module>(
        model: &M,
        plan: &PenniPlan,
        config: PenniConfig,
        path: impl AsRef<Path>,
    ) -> Result<Self, PenniError> {
        let mut penni = Self::new(model, plan, config)?;
        penni.restore(path)?;
        Ok(penni)
    }

    /// Takes over a state that [`save`](Self::save) has written. After an error nothing has changed.
    ///
    /// # Errors
    /// [`PenniError::State`] for a file that is missing, broken, of another version or made for
    /// another model or plan.
    pub fn restore(&mut self, path: impl AsRef<Path>) -> Result<(), PenniError> {
        let path = path.as_ref();
        Ok(self.restore_bytes(path, state_file::read(path)?)?)
    }

    pub(super) fn to_bytes(&self) -> Result<Vec<u8>, PenniError> {
        let shared = self.shared()?;
        let mut data: Vec<(String, [usize; 2], Vec<f32>)> = Vec::new();
        for ((path, shared), layer) in shared.iter().zip(&self.layers) {
            let [a, m] = dims(shared.coefficients().len(), shared);
            data.push((
                format!("coefficients.{path}"),
                a,
                shared.coefficients().to_vec(),
            ));
            data.push((format!("basis.{path}"), m, shared.basis().to_vec()));
            if layer.pruned.is_some() {
                let pruned = layer.pruned_values()?;
                data.push((format!("pruned.{path}"), a, pruned));
            }
        }
        let layers = self.layers.iter().zip(&self.factors);
        let layers = layers.map(|(layer, factors)| LayerMeta {
            path: layer.spec.path.clone(),
            shape: layer.spec.dims.clone(),
            kernels: layer.spec.kernels,
            ids: factors.ids().map(|id| id.val()),
        });
        let meta = Meta {
            version: VERSION,
            phase: self.phase,
            epochs: self.epochs,
            layers: layers.collect(),
        };
        let meta = serde_json::to_string(&meta).expect("strings and integers are valid JSON");
        let tensors: Vec<Named<'_>> = data
            .iter()
            .map(|(name, dims, values)| (name.clone(), &dims[..], &values[..]))
            .collect();
        Ok(state_file::seal(KIND, meta, &tensors))
    }

    pub(super) fn restore_bytes(&mut self, path: &Path, bytes: Vec<u8>) -> Result<(), StateError> {
        let opened = Opened::new(path, KIND, bytes)?;
        opened.version(VERSION)?;
        let meta: Meta = opened.meta()?;
        self.same_layers(path, &meta)?;
        let ids: HashSet<u64> = meta.layers.iter().flat_map(|layer| layer.ids).collect();
        if ids.len() != 2 * meta.layers.len() {
            return Err(opened.corrupt("two factors have the same id"));
        }
        let tensors = opened.tensors()?;
        let mut read: Vec<Read> = Vec::with_capacity(self.layers.len());
        for (saved, layer) in meta.layers.iter().zip(&self.layers) {
            let (name, shape) = (&saved.path, layer.spec.shape);
            let a = [shape.rows * shape.channels, saved.kernels];
            let coefficients = tensors.floats(&format!("coefficients.{name}"), &a)?;
            let basis = [saved.kernels, shape.positions()];
            let basis = tensors.floats(&format!("basis.{name}"), &basis)?;
            let pruned = match meta.phase {
                Phase::Tuning => Some(tensors.floats(&format!("pruned.{name}"), &a)?),
                Phase::Coefficients | Phase::Basis => None,
            };
            if let Some(pruned) = &pruned {
                let mut pairs = pruned.iter().zip(&coefficients);
                if !pairs.all(|(&pruned, &a)| pruned == 0.0 || pruned == 1.0 && a == 0.0) {
                    let reason = format!("pruned.{name} does not fit the coefficients");
                    return Err(opened.corrupt(reason));
                }
            }
            let shared = SharedKernels::new(shape, saved.kernels, coefficients, basis);
            let shared = shared.map_err(|error| opened.corrupt(error))?;
            let pruned = pruned.map(|pruned| pruned.iter().map(|&p| p == 1.0).collect());
            read.push((shared, saved.ids.map(ParamId::from), pruned));
        }
        for (index, (shared, ids, pruned)) in read.into_iter().enumerate() {
            let device = self.factors[index].a().device();
            self.factors[index] = Factors::new(&shared, ids, &device);
            self.layers[index].pruned = None;
            if let Some(pruned) = pruned {
                self.layers[index].prune(pruned, &device);
            }
        }
        (self.phase, self.epochs) = (meta.phase, meta.epochs);
        Ok(())
    }

    fn same_layers(&self, path: &Path, meta: &Meta) -> Result<(), StateError> {
        let mismatch = |reason| {
            Err(StateError::Mismatch {
                path: path.to_owned(),
                reason,
            })
        };
        let (found, expected) = (meta.layers.len(), self.layers.len());
        if found != expected {
            return mismatch(format!("{found} layers, the plan has {expected}"));
        }
        for (saved, layer) in meta.layers.iter().zip(&self.layers) {
            let spec = &layer.spec;
            let name = |path: &str, shape: &[usize], kernels| {
                format!("`{path}` {shape:?} with {kernels} basis kernels")
            };
            let saved = name(&saved.path, &saved.shape, saved.kernels);
            let asked = name(&spec.path, &spec.dims, spec.kernels);
            if saved != asked {
                return mismatch(format!("{saved}, the plan has {asked}"));
            }
        }
        Ok(())
    }
}

/// Of coefficients and basis kernels.
fn dims(coefficients: usize, shared: &SharedKernels) -> [[usize; 2]; 2] {
    let d = shared.count();
    [[coefficients / d, d], [d, shared.shape().positions()]]
}
