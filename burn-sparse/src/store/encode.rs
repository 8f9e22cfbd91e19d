//! From a model into bytes.

use std::io::Write;
use std::path::Path;

use burn::module::Module;

use super::contents::Contents;
use super::manifest::{LayerEntry, PackedEntry};
use super::survey::{Layer, Survey};
use super::{IN_MEMORY, LayerReport, StoreReport, file};
use crate::SparseError;

/// Saves the parameters and running statistics of `model`: of packed layers what is packed, of
/// other float parameters only what is not zero where that is smaller.
///
/// The file appears complete or not at all, and an older one of that name stays until then. The
/// folder must exist. Values of packed layers are written as f32, everything else as it is: what
/// is left out are positive zeros, so every bit comes back.
///
/// # Errors
/// - [`SparseError::Io`] when the file cannot be written: no such folder, no permission, no space.
/// - [`SparseError::Checkpoint`] when a mask or an adapter is attached (fold it first) or a
///   parameter is quantized.
/// - [`SparseError::NonFinite`] when training left a NaN or an infinity in a packed layer.
pub fn save<M: Module>(model: &M, path: impl AsRef<Path>) -> Result<StoreReport, SparseError> {
    let path = path.as_ref();
    let at = path.display().to_string();
    let (bytes, report) = encode(model, &at)?;
    file::replace(path, &at, |file| file.write_all(&bytes))?;
    Ok(report)
}

/// The bytes that [`save`] writes, and their report.
///
/// # Errors
/// As [`save`], without those of writing.
pub fn to_bytes<M: Module>(model: &M) -> Result<(Vec<u8>, StoreReport), SparseError> {
    encode(model, IN_MEMORY)
}

fn encode<M: Module>(model: &M, at: &str) -> Result<(Vec<u8>, StoreReport), SparseError> {
    // `valid` also settles the updates of running statistics that training leaves pending.
    let survey = Survey::of(&model.valid(), true, at)?;
    let mut contents = Contents::new(at);
    let mut dense_bytes = 0;
    for dense in survey.tensors {
        dense_bytes += f32_bytes(&dense.shape);
        if let Some(data) = dense.data {
            contents.dense(dense.path, data)?;
        }
    }
    let (mut entries, mut rows) = (Vec::new(), Vec::new());
    for layer in survey.layers {
        let (entry, row) = store_layer(&mut contents, &layer)?;
        if entry.packed.is_some() {
            dense_bytes += row.dense_bytes;
        }
        entries.push(entry);
        rows.push(row);
    }
    let (value_bytes, index_bytes, tensor_bytes) = (
        contents.value_bytes,
        contents.index_bytes,
        contents.tensor_bytes,
    );
    let (bytes, header) = contents.write(entries)?;
    let report = StoreReport {
        file_bytes: bytes.len() as u64,
        value_bytes,
        index_bytes,
        tensor_bytes,
        manifest_bytes: header as u64,
        dense_bytes,
        layers: rows,
    };
    Ok((bytes, report))
}

fn f32_bytes(shape: &[usize]) -> u64 {
    4 * shape.iter().product::<usize>() as u64
}

/// Adds the weight of a layer, if it is packed: those that are not have been added with the other
/// parameters.
fn store_layer(
    contents: &mut Contents,
    layer: &Layer,
) -> Result<(LayerEntry, LayerReport), SparseError> {
    let (weight, kind, shape) = (
        layer.path.clone(),
        layer.weight.kind().to_string(),
        layer.weight.shape(),
    );
    let (packed, written) = if layer.weight.is_packed() {
        let csr = layer.weight.to_csr().map_err(|error| match error {
            SparseError::NonFinite { index, value, .. } => SparseError::NonFinite {
                index,
                value,
                what: format!("`{weight}`"),
            },
            other => other,
        })?;
        let kernel = shape.get(2..).unwrap_or_default();
        let (index, written) = contents.packed(&weight, &csr, kernel.iter().product())?;
        let entry = PackedEntry {
            stored: csr.stored(),
            nnz: csr.nnz(),
            nnz_per_row: csr.nnz_per_row(),
            index,
        };
        (Some(entry), written)
    } else {
        (None, contents.written(&weight))
    };
    let row = LayerReport {
        weight: weight.clone(),
        kind: kind.clone(),
        shape: shape.clone(),
        packed: packed.is_some(),
        stored: written.stored,
        bytes: written.bytes,
        dense_bytes: f32_bytes(&shape),
    };
    let entry = LayerEntry {
        weight,
        kind,
        shape,
        packed,
    };
    Ok((entry, row))
}
