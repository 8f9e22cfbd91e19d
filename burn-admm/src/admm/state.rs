//! Saving the state of ADMM and resuming from it, bit for bit.
//!
//! A state file is in the safetensors format: tensors `z.<path>` and `u.<path>` (f32, in the
//! parameter's shape), and under `__metadata__` the entries `burn_admm` (JSON: version, counters,
//! floats as their bits) and `crc32` (of the whole file with those eight digits as zeros).

use std::collections::HashMap;
use std::io::Write;
use std::path::Path;

use burn::module::Module;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::{Deserialize, Serialize};

use super::{Admm, AdmmConfig, AdmmError, StateError};
use crate::plan::Plan;

const VERSION: u64 = 1;
const META: &str = "burn_admm";
const CRC: &str = "crc32";
const NO_CRC: &str = "00000000";

#[derive(Serialize, Deserialize)]
struct Meta {
    version: u64,
    iteration: usize,
    steps: u64,
    rho_bits: u64,
    layers: Vec<LayerMeta>,
}

#[derive(Serialize, Deserialize)]
struct LayerMeta {
    path: String,
    shape: Vec<usize>,
    axis: usize,
    nnz: usize,
    primal_bits: u64,
    dual_norm_bits: u64,
    growing: usize,
}

/// Only the version, so that a newer file is told from a broken one.
#[derive(Deserialize)]
struct VersionOnly {
    version: u64,
}

impl Admm {
    /// Writes the state to `path`: to a temporary file beside it first, so that an interrupted
    /// write leaves an older state intact. Together with the records of model and optimiser it is
    /// all that [`resume`](Self::resume) needs.
    ///
    /// # Errors
    /// [`StateError::Io`] if the file cannot be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), StateError> {
        let path = path.as_ref();
        let bytes = self.to_bytes();
        let io = |source| StateError::Io {
            path: path.to_owned(),
            source,
        };
        let folder = match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        let mut file = tempfile::NamedTempFile::new_in(folder).map_err(io)?;
        file.write_all(&bytes).map_err(io)?;
        file.as_file().sync_all().map_err(io)?;
        file.persist(path).map_err(|error| io(error.error))?;
        Ok(())
    }

    /// Continues from a state that [`save`](Self::save) has written, for the same model and plan.
    /// `Z`, `U`, rho and all counters are what they were, bit for bit; the settings are those given
    /// here, so a schedule may be changed on the way.
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
        let bytes = std::fs::read(path).map_err(|source| StateError::Io {
            path: path.to_owned(),
            source,
        })?;
        self.restore_bytes(path, bytes)
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let meta = Meta {
            version: VERSION,
            iteration: self.iteration,
            steps: self.steps,
            rho_bits: self.rho.to_bits(),
            layers: self
                .layers
                .iter()
                .map(|layer| LayerMeta {
                    path: layer.spec.path.clone(),
                    shape: layer.spec.shape.clone(),
                    axis: layer.spec.view.axis(),
                    nnz: layer.spec.nnz,
                    primal_bits: layer.primal.to_bits(),
                    dual_norm_bits: layer.dual_norm.to_bits(),
                    growing: layer.growing,
                })
                .collect(),
        };
        let meta = serde_json::to_string(&meta).expect("strings and integers are valid JSON");
        let metadata =
            HashMap::from([(META.to_owned(), meta), (CRC.to_owned(), NO_CRC.to_owned())]);
        let tensors: Vec<(String, &[usize], Vec<u8>)> = self
            .layers
            .iter()
            .flat_map(|layer| {
                let (path, shape) = (&layer.spec.path, layer.spec.shape.as_slice());
                [
                    (format!("z.{path}"), shape, little_endian(&layer.z)),
                    (format!("u.{path}"), shape, little_endian(&layer.u)),
                ]
            })
            .collect();
        let views = tensors.iter().map(|(name, shape, data)| {
            let view = TensorView::new(Dtype::F32, shape.to_vec(), data);
            (
                name.as_str(),
                view.expect("z and u have the length of their shape"),
            )
        });
        let mut bytes =
            safetensors::serialize(views, Some(metadata)).expect("names are unique and data fits");
        let digits = crc_digits(&bytes).expect("the header has just been written");
        let crc = format!("{:08x}", crc32fast::hash(&bytes));
        bytes[digits].copy_from_slice(crc.as_bytes());
        bytes
    }

    pub(super) fn restore_bytes(
        &mut self,
        path: &Path,
        mut bytes: Vec<u8>,
    ) -> Result<(), StateError> {
        let corrupt = |reason: String| StateError::Corrupt {
            path: path.to_owned(),
            reason,
        };
        let digits = crc_digits(&bytes).ok_or_else(|| {
            corrupt("not a complete ADMM state (no header with a checksum)".to_owned())
        })?;
        let stored = bytes[digits.clone()].to_vec();
        bytes[digits].copy_from_slice(NO_CRC.as_bytes());
        let computed = format!("{:08x}", crc32fast::hash(&bytes));
        if stored != computed.as_bytes() {
            return Err(corrupt(format!(
                "checksum is not {computed}: cut short or altered"
            )));
        }

        let (_, header) = SafeTensors::read_metadata(&bytes).map_err(|e| corrupt(e.to_string()))?;
        let meta = header
            .metadata()
            .as_ref()
            .and_then(|entries| entries.get(META));
        let meta = meta.ok_or_else(|| corrupt(format!("no entry `{META}`")))?;
        let VersionOnly { version } =
            serde_json::from_str(meta).map_err(|e| corrupt(e.to_string()))?;
        if version != VERSION {
            let path = path.to_owned();
            return Err(StateError::Version {
                path,
                found: version,
                expected: VERSION,
            });
        }
        let meta: Meta = serde_json::from_str(meta).map_err(|e| corrupt(e.to_string()))?;
        self.check_layers(path, &meta)?;
        let rho = f64::from_bits(meta.rho_bits);
        if !(rho.is_finite() && rho > 0.0) {
            return Err(corrupt(format!("rho is {rho}")));
        }

        let tensors = SafeTensors::deserialize(&bytes).map_err(|e| corrupt(e.to_string()))?;
        let mut restored = Vec::with_capacity(self.layers.len());
        for layer in &meta.layers {
            let z =
                floats(&tensors, &format!("z.{}", layer.path), &layer.shape).map_err(corrupt)?;
            let u =
                floats(&tensors, &format!("u.{}", layer.path), &layer.shape).map_err(corrupt)?;
            let nnz = z.iter().filter(|&&z| z != 0.0).count();
            if nnz > layer.nnz {
                let reason = format!("z.{} has {nnz} non-zeros, not {}", layer.path, layer.nnz);
                return Err(corrupt(reason));
            }
            restored.push((z, u));
        }

        for ((layer, meta), (z, u)) in self.layers.iter_mut().zip(&meta.layers).zip(restored) {
            layer.restore(z, u);
            layer.primal = f64::from_bits(meta.primal_bits);
            layer.dual_norm = f64::from_bits(meta.dual_norm_bits);
            layer.growing = meta.growing;
        }
        self.rho = rho;
        self.iteration = meta.iteration;
        self.steps = meta.steps;
        Ok(())
    }

    fn check_layers(&self, path: &Path, meta: &Meta) -> Result<(), StateError> {
        let mismatch = |reason: String| StateError::Mismatch {
            path: path.to_owned(),
            reason,
        };
        if meta.layers.len() != self.layers.len() {
            return Err(mismatch(format!(
                "{} constrained parameters, the plan has {}",
                meta.layers.len(),
                self.layers.len()
            )));
        }
        for (saved, layer) in meta.layers.iter().zip(&self.layers) {
            let spec = &layer.spec;
            if saved.path != spec.path
                || saved.shape != spec.shape
                || saved.axis != spec.view.axis()
                || saved.nnz != spec.nnz
            {
                return Err(mismatch(format!(
                    "`{}` {:?} with {} non-zeros, the plan has `{}` {:?} with {}",
                    saved.path, saved.shape, saved.nnz, spec.path, spec.shape, spec.nnz
                )));
            }
        }
        Ok(())
    }
}

fn little_endian(values: &[f32]) -> Vec<u8> {
    values
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect()
}

fn floats(tensors: &SafeTensors<'_>, name: &str, shape: &[usize]) -> Result<Vec<f32>, String> {
    let tensor = tensors
        .tensor(name)
        .map_err(|error| format!("{name}: {error}"))?;
    if tensor.dtype() != Dtype::F32 || tensor.shape() != shape {
        return Err(format!(
            "{name} is {:?} {:?}, not F32 {shape:?}",
            tensor.dtype(),
            tensor.shape()
        ));
    }
    let (chunks, _) = tensor.data().as_chunks::<4>();
    let values: Vec<f32> = chunks
        .iter()
        .map(|&chunk| f32::from_le_bytes(chunk))
        .collect();
    match values.iter().find(|value| !value.is_finite()) {
        Some(value) => Err(format!("{name} holds {value}")),
        None => Ok(values),
    }
}

/// Where the eight digits of the checksum stand. Quotes inside the other entry are escaped, so the
/// needle occurs once.
fn crc_digits(bytes: &[u8]) -> Option<core::ops::Range<usize>> {
    let len = u64::from_le_bytes(*bytes.first_chunk()?);
    let header = bytes.get(8..usize::try_from(len).ok()?.checked_add(8)?)?;
    let needle = format!("\"{CRC}\":\"");
    let found = header
        .windows(needle.len())
        .position(|window| window == needle.as_bytes())?;
    let start = 8 + found + needle.len();
    (start + NO_CRC.len() <= 8 + header.len()).then_some(start..start + NO_CRC.len())
}
