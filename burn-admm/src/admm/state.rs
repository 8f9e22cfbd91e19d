//! Saving the state of ADMM and resuming from it, bit for bit.
//!
//! A [state file](crate::state_file) of tensors `z.<path>` and `u.<path>` in the parameter's shape,
//! `z2.<path>` and `u2.<path>` for the second set of a constraint and so on, with counters, residuals
//! and pools of kernel patterns as JSON. Version 1 knew neither pools nor second sets; it is still
//! read where there are none.

use std::path::Path;

use burn::module::Module;
use serde::{Deserialize, Serialize};

use super::layer::Layer;
use super::{Admm, AdmmConfig, AdmmError, StateError};
use crate::plan::{Identity, Plan, ResolvedPlan};
use crate::state_file::{self, Named, Opened};

const VERSION: u64 = 2;
const KIND: &str = "burn_admm";

#[derive(Serialize, Deserialize)]
struct Meta<L> {
    version: u64,
    iteration: usize,
    steps: u64,
    rho_bits: u64,
    layers: Vec<L>,
}

#[derive(Serialize, Deserialize)]
struct LayerMeta {
    #[serde(flatten)]
    identity: Identity,
    sets: Vec<SetMeta>,
}

#[derive(Serialize, Deserialize)]
struct SetMeta {
    primal_bits: u64,
    dual_norm_bits: u64,
    growing: usize,
}

/// A layer as version 1 wrote it.
#[derive(Deserialize)]
struct LayerMeta1 {
    #[serde(flatten)]
    identity: Identity,
    #[serde(flatten)]
    set: SetMeta,
}

impl From<LayerMeta1> for LayerMeta {
    fn from(LayerMeta1 { identity, set }: LayerMeta1) -> Self {
        let sets = vec![set];
        Self { identity, sets }
    }
}

impl From<&Layer> for LayerMeta {
    fn from(layer: &Layer) -> Self {
        let sets = layer.sets.iter().map(|set| SetMeta {
            primal_bits: set.primal.to_bits(),
            dual_norm_bits: set.dual_norm.to_bits(),
            growing: set.growing,
        });
        Self {
            identity: Identity::of(&layer.spec),
            sets: sets.collect(),
        }
    }
}

/// What the copies of the `index`-th set are called.
fn names(path: &str, index: usize) -> [String; 2] {
    let number = if index == 0 {
        String::new()
    } else {
        (index + 1).to_string()
    };
    [format!("z{number}.{path}"), format!("u{number}.{path}")]
}

impl Admm {
    /// Writes the state to `path`: to a temporary file beside it first, so that an interrupted
    /// write leaves an older state intact. Together with the records of model and optimiser it is
    /// all that [`resume`](Self::resume) needs.
    ///
    /// # Errors
    /// [`StateError::Io`] if the file cannot be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), StateError> {
        state_file::write(path.as_ref(), &self.to_bytes())
    }

    /// Continues from a state that [`save`](Self::save) has written, for the same model and plan.
    /// `Z`, `U`, rho and all counters are what they were, bit for bit; the settings are those given
    /// here, so a schedule may be changed on the way. Kernel patterns that the plan asks to find are
    /// those with which the run was started, whatever the weights prefer now.
    ///
    /// # Errors
    /// [`AdmmError::State`] for a file that is missing, broken, of another version or made for
    /// another model or plan; otherwise as [`Admm::new`].
    pub fn resume<M: Module>(
        model: &M,
        plan: &Plan,
        config: AdmmConfig,
        path: impl AsRef<Path>,
    ) -> Result<Self, AdmmError> {
        let mut admm = Self::new(model, plan, config)?;
        admm.restore(path)?;
        Ok(admm)
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
            iteration: self.iteration,
            steps: self.steps,
            rho_bits: self.rho.to_bits(),
            layers: self.layers.iter().map(LayerMeta::from).collect(),
        };
        let meta = serde_json::to_string(&meta).expect("strings and integers are valid JSON");
        let mut tensors: Vec<Named<'_>> = Vec::new();
        for layer in &self.layers {
            let shape = layer.spec.shape.as_slice();
            for (index, set) in layer.sets.iter().enumerate() {
                let [z, u] = names(&layer.spec.path, index);
                tensors.push((z, shape, &set.z));
                tensors.push((u, shape, &set.u));
            }
        }
        state_file::seal(KIND, meta, &tensors)
    }

    pub(super) fn restore_bytes(&mut self, path: &Path, bytes: Vec<u8>) -> Result<(), StateError> {
        let opened = Opened::new(path, KIND, bytes)?;
        let meta: Meta<LayerMeta> = if opened.version(VERSION)? == 1 {
            let old: Meta<LayerMeta1> = opened.meta()?;
            Meta {
                version: old.version,
                iteration: old.iteration,
                steps: old.steps,
                rho_bits: old.rho_bits,
                layers: old.layers.into_iter().map(LayerMeta::from).collect(),
            }
        } else {
            opened.meta()?
        };
        let identities = meta.layers.iter().map(|layer| &layer.identity);
        Identity::check(path, identities, self.plan.layers())?;
        let rho = f64::from_bits(meta.rho_bits);
        if !(rho.is_finite() && rho > 0.0) {
            return Err(opened.corrupt(format!("rho is {rho}")));
        }

        let tensors = opened.tensors()?;
        let mut restored = Vec::with_capacity(self.layers.len());
        for (layer, saved) in self.layers.iter().zip(&meta.layers) {
            let spec = saved.identity.layer(&layer.spec);
            let emptied = layer
                .emptied(&spec)
                .map_err(|error| opened.corrupt(error))?;
            if emptied.len() != saved.sets.len() {
                let (path, found) = (&spec.path, saved.sets.len());
                let reason = format!("`{path}` has {found} sets, not {}", emptied.len());
                return Err(opened.corrupt(reason));
            }
            let mut sets = Vec::with_capacity(emptied.len());
            for (index, (set, saved)) in emptied.into_iter().zip(&saved.sets).enumerate() {
                let [z, u] = names(&spec.path, index);
                let copies = [&z, &u].map(|name| tensors.floats(name, &spec.shape));
                let [z_values, u_values] = copies;
                let part = set.sparsity;
                let Some(mut set) = set.restored(z_values?, u_values?) else {
                    let within = match (spec.quantization, spec.ranks) {
                        (_, Some(ranks)) => format!("of ranks {ranks}"),
                        (Some(levels), None) => format!(
                            "on {levels} levels of the weights that are kept now; attach the mask of the run first"
                        ),
                        (None, None) => format!("within {part}"),
                    };
                    return Err(opened.corrupt(format!("{z} is not {within}")));
                };
                set.primal = f64::from_bits(saved.primal_bits);
                set.dual_norm = f64::from_bits(saved.dual_norm_bits);
                set.growing = saved.growing;
                sets.push(set);
            }
            restored.push(Layer { spec, sets });
        }

        self.plan = ResolvedPlan::new(restored.iter().map(|l| l.spec.clone()).collect());
        self.layers = restored;
        self.rho = rho;
        self.iteration = meta.iteration;
        self.steps = meta.steps;
        Ok(())
    }
}
