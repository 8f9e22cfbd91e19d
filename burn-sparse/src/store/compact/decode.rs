//! From the bytes of a compact checkpoint into a model.

use std::collections::BTreeMap;
use std::path::Path;

use burn::module::Module;

use super::super::fill::fill;
use super::super::survey::{Dense, Kind, Survey};
use super::super::{IN_MEMORY, fail, file, restore};
use super::content::Content;
use super::ledger::{Ledger, LedgerRow};
use super::manifest::{self, Manifest};
use super::range::Decoder;
use super::skeleton::{Alive, Slot, checksum, slots};
use super::tensor::{Bytes, check, read};
use super::varint::Reader;
use crate::SparseError;

/// Loads a compact checkpoint of [`save`](super::save) into `model`, which has the architecture of
/// the one that was saved, as [`store::load`](super::super::load) does.
///
/// # Errors
/// - [`SparseError::Io`] when the file cannot be read.
/// - [`SparseError::Checkpoint`] when it is damaged, truncated, too long, of another version or of
///   another network. The file holds no names: what differs is said as far as the number of tensors
///   and their sizes tell.
///
/// Nothing is loaded then, not even in part.
pub fn load<M: Module>(model: M, path: impl AsRef<Path>) -> Result<M, SparseError> {
    let at = path.as_ref().display().to_string();
    decode(model, &read_file(path.as_ref(), &at)?, &at)
}

/// [`load`] from the bytes of [`to_bytes`](super::to_bytes).
///
/// # Errors
/// As [`load`], without those of reading.
pub fn from_bytes<M: Module>(model: M, bytes: &[u8]) -> Result<M, SparseError> {
    decode(model, bytes, IN_MEMORY)
}

/// What a compact checkpoint says about itself without a model: how each tensor is coded, and what
/// values, indices, codebooks and the rest take. Its checksum is verified.
///
/// # Errors
/// [`SparseError::Io`] and [`SparseError::Checkpoint`] as [`load`].
pub fn read_manifest(path: impl AsRef<Path>) -> Result<Manifest, SparseError> {
    let at = path.as_ref().display().to_string();
    let bytes = read_file(path.as_ref(), &at)?;
    Manifest::parse(&bytes, &at).map(|(manifest, _)| manifest)
}

/// The ledger that [`save`](super::save) returned, from the file. A model of the same architecture
/// gives the names and shapes that the file leaves out; nothing is loaded into it.
///
/// # Errors
/// As [`load`].
pub fn ledger<M: Module>(model: &M, path: impl AsRef<Path>) -> Result<Ledger, SparseError> {
    let at = path.as_ref().display().to_string();
    let bytes = read_file(path.as_ref(), &at)?;
    let survey = Survey::of(model, false, &at)?;
    Read::new(&bytes, &survey, &at).map(|read| read.ledger)
}

fn read_file(path: &Path, at: &str) -> Result<Vec<u8>, SparseError> {
    file::read(path, at, manifest::MAGIC.len(), |start| {
        manifest::check_start(start, at)
    })
}

/// All tensors of a file, checked.
struct Read {
    slots: Vec<Slot>,
    contents: Vec<Content>,
    ledger: Ledger,
}

impl Read {
    fn new(bytes: &[u8], survey: &Survey, at: &str) -> Result<Self, SparseError> {
        let (manifest, rest) = Manifest::parse(bytes, at)?;
        let slots = slots(survey);
        let named = |slot: &Slot, reason: String| fail(at, format!("`{}` {reason}", slot.path));
        if manifest.tensors.len() != slots.len() {
            return Err(fail(
                at,
                format!(
                    "it holds {} tensors, this model has {}; build the model as the one that was \
                     saved",
                    manifest.tensors.len(),
                    slots.len()
                ),
            ));
        }
        let mut parts_len = 0u64;
        for (coding, slot) in manifest.tensors.iter().zip(&slots) {
            let len = check(coding, slot).map_err(|reason| named(slot, reason))?;
            parts_len = parts_len.saturating_add(len);
        }
        if manifest.skeleton != checksum(&slots) {
            return Err(fail(
                at,
                format!(
                    "its {} tensors are those of another network: their names, their order or \
                     their shapes are not those of this model; build the model as the one that \
                     was saved",
                    slots.len()
                ),
            ));
        }
        let parts = usize::try_from(parts_len).ok();
        let Some((parts, stream)) = parts.and_then(|len| rest.split_at_checked(len)) else {
            return Err(fail(
                at,
                format!(
                    "its tensors take {parts_len} bytes, of which it has {}; was it copied \
                     completely?",
                    rest.len()
                ),
            ));
        };
        let (mut parts, mut stream) = (Reader::new(parts), Decoder::new(stream));
        let (mut alive, mut sum) = (Alive::default(), Bytes::default());
        let (mut contents, mut rows) = (Vec::new(), Vec::new());
        for (coding, slot) in manifest.tensors.iter().zip(&slots) {
            let hints = alive.hints(slot);
            let (content, bytes) = read(coding, slot, hints, &mut parts, &mut stream)
                .map_err(|reason| named(slot, reason))?;
            rows.push(LedgerRow::new(slot, coding, &content, bytes));
            sum.add(bytes);
            alive.note(slot, content.alive_rows());
            contents.push(content);
        }
        let counted = Bytes {
            values: manifest.value_bytes,
            index: manifest.index_bytes,
            codebook: manifest.codebook_bytes,
        };
        if !stream.is_exhausted() || sum != counted {
            return Err(fail(
                at,
                "its stream does not end where its header says; the file is damaged, take another \
                 copy",
            ));
        }
        Ok(Self {
            slots,
            contents,
            ledger: Ledger::new(&manifest, rows),
        })
    }
}

fn decode<M: Module>(model: M, bytes: &[u8], at: &str) -> Result<M, SparseError> {
    let survey = Survey::of(&model, false, at)?;
    let Read {
        slots, contents, ..
    } = Read::new(bytes, &survey, at)?;
    let mut weights = Vec::with_capacity(survey.layers.len());
    let mut values = BTreeMap::new();
    for (slot, content) in slots.into_iter().zip(contents) {
        let layer = slot.layer_at.map(|layer| &survey.layers[layer].weight);
        if let (true, Some(layer)) = (content.packed, layer) {
            let csr = content
                .into_csr()
                .map_err(|error| fail(at, format!("`{}`: {error}", slot.path)))?;
            weights.push(layer.with_csr(csr)?);
            continue;
        }
        let unpacked;
        let dense = match (slot.tensor_at, layer) {
            (Some(tensor), _) => &survey.tensors[tensor],
            (None, Some(layer)) => {
                unpacked = Dense {
                    path: slot.path.clone(),
                    shape: slot.shape.clone(),
                    kind: Kind::Float,
                    device: layer.device(),
                    data: None,
                };
                &unpacked
            }
            (None, None) => continue,
        };
        let dtype = content.dtype;
        restore::check_device(dense, dtype, at)?;
        let bytes = content.into_dense(slot.transposed);
        values.insert(slot.path, restore::ready(dense, dtype, bytes, at)?);
        if let Some(layer) = layer {
            weights.push(layer.clone().unpack());
        }
    }

    Ok(fill(model, weights, values))
}
