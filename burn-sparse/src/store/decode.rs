//! From bytes into a model.

use std::collections::BTreeMap;
use std::path::Path;

use burn::module::Module;

use super::factored;
use super::fill::fill;
use super::manifest::{self, Manifest};
use super::survey::{Dense, Kind, Survey};
use super::tensors::Tensors;
use super::{IN_MEMORY, file};
use crate::SparseError;

/// Loads a checkpoint of [`save`](super::save) into `model`, which has the architecture of the one
/// that was saved: a fresh dense model becomes packed where the checkpoint is and factored where the
/// checkpoint is, and what was packed or factored becomes dense where the checkpoint is neither.
///
/// Parameters keep their ids and whether they require gradients; those of packed layers and of
/// factors that the model did not have are new.
/// They come to the devices where the model's are. Clones of `model` share its running statistics,
/// as always in Burn: load into a model of its own.
///
/// # Errors
/// - [`SparseError::Io`] when the file cannot be read.
/// - [`SparseError::Checkpoint`] when it is damaged, truncated, too long, of another version or of
///   another architecture (naming the first layer or tensor that is missing, unexpected or of
///   another kind or shape), or when `model` has masks or adapters attached.
///
/// Nothing is loaded then, not even in part.
pub fn load<M: Module>(model: M, path: impl AsRef<Path>) -> Result<M, SparseError> {
    let at = path.as_ref().display().to_string();
    let file = file::open(path.as_ref(), &at)?;
    let manifest = file.manifest.clone();
    decode(model, &file.into_bytes(&at)?, manifest, &at)
}

/// [`load`] from the bytes of [`to_bytes`](super::to_bytes).
///
/// # Errors
/// As [`load`], without those of reading.
pub fn from_bytes<M: Module>(model: M, bytes: &[u8]) -> Result<M, SparseError> {
    let end = manifest::header_end(bytes, bytes.len() as u64, IN_MEMORY)?;
    let manifest = manifest::parse(&bytes[..end], bytes.len() as u64, IN_MEMORY)?;
    decode(model, bytes, manifest, IN_MEMORY)
}

/// The manifest of a checkpoint; its header and its length are checked, its tensors are not read.
///
/// # Errors
/// [`SparseError::Io`] and [`SparseError::Checkpoint`] as [`load`].
pub fn read_manifest(path: impl AsRef<Path>) -> Result<Manifest, SparseError> {
    let at = path.as_ref().display().to_string();
    Ok(file::open(path.as_ref(), &at)?.manifest)
}

fn decode<M: Module>(
    model: M,
    bytes: &[u8],
    manifest: Manifest,
    at: &str,
) -> Result<M, SparseError> {
    let tensors = Tensors::new(bytes, &manifest, at)?;
    // Refuses masks, which would be lost where weights become factors.
    Survey::of(&model, false, at)?;
    let model = factored::like(model, &manifest, at)?;
    let survey = Survey::of(&model, false, at)?;
    tensors.check_layers(&survey.layers)?;
    tensors.check_names(&survey)?;

    let mut weights = Vec::with_capacity(survey.layers.len());
    let mut values = BTreeMap::new();
    for layer in survey.layers {
        let entry = tensors.layers[layer.path.as_str()];
        weights.push(match &entry.packed {
            Some(packed) => tensors.packed(&layer, packed)?,
            None if layer.weight.is_packed() => {
                let (shape, device) = (layer.weight.shape(), layer.weight.device());
                let data = None;
                let dense = Dense {
                    path: layer.path,
                    shape,
                    kind: Kind::Float,
                    device,
                    data,
                };
                values.insert(dense.path.clone(), tensors.dense(&dense)?);
                layer.weight.unpack()
            }
            None => layer.weight,
        });
    }
    for dense in survey
        .tensors
        .iter()
        .filter(|dense| !tensors.is_packed(&dense.path))
    {
        values.insert(dense.path.clone(), tensors.dense(dense)?);
    }

    Ok(fill(model, weights, values))
}
