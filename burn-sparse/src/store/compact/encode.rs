//! From a model into the bytes of a compact checkpoint.

use std::io::Write;
use std::path::Path;

use burn::module::Module;

use super::super::survey::{Kind, Survey};
use super::super::{IN_MEMORY, contents::little_endian_of, fail, file};
use super::choose::choose;
use super::content::Content;
use super::elements::Elements;
use super::ledger::{Ledger, LedgerRow};
use super::manifest::{Manifest, VERSION};
use super::skeleton::{Alive, Slot, checksum, slots};
use super::tensor::{Body, Bytes};
use crate::SparseError;

/// Saves the parameters and running statistics of `model` in as few bytes as they can be told to a
/// loader that has a fresh model; every bit comes back.
///
/// The file appears complete or not at all, and an older one of that name stays until then. The
/// folder must exist. Packed layers come back packed, dense ones dense.
///
/// # Errors
/// As [`store::save`](super::super::save).
pub fn save<M: Module>(model: &M, path: impl AsRef<Path>) -> Result<Ledger, SparseError> {
    let path = path.as_ref();
    let at = path.display().to_string();
    let (bytes, ledger) = encode(model, &at)?;
    file::replace(path, &at, |file| file.write_all(&bytes))?;
    Ok(ledger)
}

/// The bytes that [`save`] writes, and their ledger.
///
/// # Errors
/// As [`save`], without those of writing.
pub fn to_bytes<M: Module>(model: &M) -> Result<(Vec<u8>, Ledger), SparseError> {
    encode(model, IN_MEMORY)
}

fn encode<M: Module>(model: &M, at: &str) -> Result<(Vec<u8>, Ledger), SparseError> {
    // `valid` also settles the updates of running statistics that training leaves pending.
    let mut survey = Survey::of(&model.valid(), true, at)?;
    let slots = slots(&survey);
    let (mut body, mut alive) = (Body::default(), Alive::default());
    let (mut tensors, mut rows, mut sum) = (Vec::new(), Vec::new(), Bytes::default());
    for slot in &slots {
        let mut content = content(&mut survey, slot, at)?;
        let hints = alive.hints(slot);
        let rows_alive = content.alive_rows();
        let choice = choose(&mut content, hints);
        let bytes = body.write(&content, &choice, hints);
        rows.push(LedgerRow::new(slot, &choice.coding, &content, bytes));
        sum.add(bytes);
        tensors.push(choice.coding);
        alive.note(slot, rows_alive);
    }
    let mut manifest = Manifest {
        version: VERSION,
        skeleton: checksum(&slots),
        tensors,
        value_bytes: sum.values,
        index_bytes: sum.index,
        codebook_bytes: sum.codebook,
        rest_bytes: 0,
        file_bytes: 0,
    };
    let mut bytes = manifest.to_bytes();
    bytes.extend(body.parts);
    bytes.extend(body.stream.into_bytes());
    let seal = crc32fast::hash(&bytes);
    bytes.extend(seal.to_le_bytes());
    manifest.file_bytes = bytes.len() as u64;
    manifest.rest_bytes = manifest.file_bytes - sum.values - sum.index - sum.codebook;
    Ok((bytes, Ledger::new(&manifest, rows)))
}

/// What a slot holds, out of the survey.
fn content(survey: &mut Survey, slot: &Slot, at: &str) -> Result<Content, SparseError> {
    if let Some(layer) = slot.layer_at.map(|layer| &survey.layers[layer].weight)
        && layer.is_packed()
    {
        let csr = layer.to_csr().map_err(|error| match error {
            SparseError::NonFinite { index, value, .. } => SparseError::NonFinite {
                index,
                value,
                what: format!("`{}`", slot.path),
            },
            other => other,
        })?;
        return Ok(Content::packed(slot.grid, &csr));
    }
    let data = slot
        .tensor_at
        .and_then(|tensor| survey.tensors[tensor].data.take());
    let data = data.ok_or_else(|| fail(at, format!("`{}` was not found", slot.path)))?;
    let (dtype, bytes) = little_endian_of(data, &slot.path, at)?;
    let transposed = slot.transposed && slot.kind == Kind::Float;
    let elements = Elements::new(dtype.size(), bytes);
    Ok(Content::dense(slot.grid, transposed, dtype, elements))
}
