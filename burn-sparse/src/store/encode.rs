//! From a model into bytes.

use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::path::Path;

use burn::module::Module;
use burn::tensor::{DType, TensorData};
use safetensors::Dtype;
use safetensors::tensor::TensorView;

use super::manifest::{self, KEY, LayerEntry, Manifest, PackedEntry, TensorEntry};
use super::survey::{Layer, Survey};
use super::{IN_MEMORY, LayerReport, StoreReport, fail, file};
use crate::{SparseError, format::Csr};

/// Rows up to this length have columns that fit 16 bits.
pub(super) const SHORT_ROW: usize = 1 << 16;

/// Saves the parameters and running statistics of `model`, of packed layers only what is packed.
///
/// The file appears complete or not at all, and an older one of that name stays until then. The
/// folder must exist. Values of packed layers are written as f32, everything else as it is.
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

struct Stored {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

/// The tensors of the file, and how many bytes go where.
struct Contents<'a> {
    at: &'a str,
    tensors: BTreeMap<String, Stored>,
    value_bytes: u64,
    index_bytes: u64,
    tensor_bytes: u64,
}

fn encode<M: Module>(model: &M, at: &str) -> Result<(Vec<u8>, StoreReport), SparseError> {
    // `valid` also settles the updates of running statistics that training leaves pending.
    let survey = Survey::of(&model.valid(), true, at)?;
    let mut contents = Contents {
        at,
        tensors: BTreeMap::new(),
        value_bytes: 0,
        index_bytes: 0,
        tensor_bytes: 0,
    };
    let mut dense_bytes = 0;
    for dense in survey.tensors {
        dense_bytes += f32_bytes(&dense.shape);
        if let Some(data) = dense.data {
            contents.dense(dense.path, data)?;
        }
    }
    let (mut entries, mut rows) = (Vec::new(), Vec::new());
    for layer in survey.layers {
        let (entry, row) = contents.layer(&layer)?;
        if entry.packed.is_some() {
            dense_bytes += row.dense_bytes;
        }
        entries.push(entry);
        rows.push(row);
    }
    let (bytes, header) = contents.write(entries)?;
    let report = StoreReport {
        file_bytes: bytes.len() as u64,
        value_bytes: contents.value_bytes,
        index_bytes: contents.index_bytes,
        tensor_bytes: contents.tensor_bytes,
        manifest_bytes: header as u64,
        dense_bytes,
        layers: rows,
    };
    Ok((bytes, report))
}

fn f32_bytes(shape: &[usize]) -> u64 {
    4 * shape.iter().product::<usize>() as u64
}

impl Contents<'_> {
    fn put(&mut self, name: String, stored: Stored) -> Result<u64, SparseError> {
        let len = stored.bytes.len() as u64;
        if name == "__metadata__" || self.tensors.contains_key(&name) {
            let reason = format!("two tensors would be called `{name}`; rename a field");
            return Err(fail(self.at, reason));
        }
        self.tensors.insert(name, stored);
        Ok(len)
    }

    fn dense(&mut self, name: String, data: TensorData) -> Result<(), SparseError> {
        let (dtype, as_dtype) = match data.dtype() {
            DType::F64 => (Dtype::F64, DType::F64),
            DType::F32 | DType::Flex32 => (Dtype::F32, DType::F32),
            DType::F16 => (Dtype::F16, DType::F16),
            DType::BF16 => (Dtype::BF16, DType::BF16),
            DType::I64 => (Dtype::I64, DType::I64),
            DType::I32 => (Dtype::I32, DType::I32),
            DType::I16 => (Dtype::I16, DType::I16),
            DType::I8 => (Dtype::I8, DType::I8),
            DType::U64 => (Dtype::U64, DType::U64),
            DType::U32 => (Dtype::U32, DType::U32),
            DType::U16 => (Dtype::U16, DType::U16),
            DType::U8 => (Dtype::U8, DType::U8),
            DType::Bool(_) => (Dtype::BOOL, DType::Bool(burn::tensor::BoolStore::Native)),
            other @ DType::QFloat(_) => {
                let reason = format!(
                    "`{name}` is quantized ({}); dequantize the model before saving it",
                    other.name()
                );
                return Err(fail(self.at, reason));
            }
        };
        let shape = data.shape().as_slice().to_vec();
        let data = data
            .try_cast(as_dtype)
            .map_err(|error| fail(self.at, format!("`{name}` cannot be stored: {error}")))?;
        let mut bytes = data.as_bytes().to_vec();
        to_little_endian(&mut bytes, as_dtype.size());
        self.tensor_bytes += self.put(
            name,
            Stored {
                dtype,
                shape,
                bytes,
            },
        )?;
        Ok(())
    }

    fn layer(&mut self, layer: &Layer) -> Result<(LayerEntry, LayerReport), SparseError> {
        let (weight, kind, shape) = (
            layer.path.clone(),
            layer.weight.kind().to_string(),
            layer.weight.shape(),
        );
        let dense_bytes = f32_bytes(&shape);
        let (packed, bytes) = if layer.weight.is_packed() {
            let csr = layer.weight.to_csr().map_err(|error| match error {
                SparseError::NonFinite { index, value, .. } => SparseError::NonFinite {
                    index,
                    value,
                    what: format!("`{weight}`"),
                },
                other => other,
            })?;
            let entry = PackedEntry {
                stored: csr.stored(),
                nnz: csr.nnz(),
                nnz_per_row: csr.nnz_per_row(),
            };
            (Some(entry), self.packed(&weight, &csr)?)
        } else {
            (
                None,
                self.tensors
                    .get(&weight)
                    .map_or(0, |stored| stored.bytes.len() as u64),
            )
        };
        let row = LayerReport {
            weight: weight.clone(),
            kind: kind.clone(),
            shape: shape.clone(),
            packed: packed.as_ref().map(|packed| [packed.stored, packed.nnz]),
            bytes,
            dense_bytes,
        };
        Ok((
            LayerEntry {
                weight,
                kind,
                shape,
                packed,
            },
            row,
        ))
    }

    fn packed(&mut self, weight: &str, csr: &Csr) -> Result<u64, SparseError> {
        let shape = vec![csr.stored()];
        let bytes = csr
            .values()
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect();
        let values = Stored {
            dtype: Dtype::F32,
            shape: shape.clone(),
            bytes,
        };
        let columns = if csr.row_len() <= SHORT_ROW {
            let bytes = csr
                .columns()
                .iter()
                .flat_map(|&c| (c as u16).to_le_bytes())
                .collect();
            Stored {
                dtype: Dtype::U16,
                shape,
                bytes,
            }
        } else {
            Stored {
                dtype: Dtype::U32,
                shape,
                bytes: words(csr.columns()),
            }
        };
        let values = self.put(format!("{weight}.values"), values)?;
        let mut indices = self.put(format!("{weight}.columns"), columns)?;
        if csr.nnz_per_row().is_none() {
            let row_ptr = csr.row_ptr();
            let shape = vec![row_ptr.len()];
            let row_ptr = Stored {
                dtype: Dtype::U32,
                shape,
                bytes: words(row_ptr),
            };
            indices += self.put(format!("{weight}.row_ptr"), row_ptr)?;
        }
        self.value_bytes += values;
        self.index_bytes += indices;
        Ok(values + indices)
    }

    /// The file and the length of its header.
    fn write(&self, layers: Vec<LayerEntry>) -> Result<(Vec<u8>, usize), SparseError> {
        let broken = |error: &dyn core::fmt::Display| {
            fail(
                self.at,
                format!("the model cannot be written as safetensors: {error}"),
            )
        };
        let entry = |stored: &Stored| TensorEntry {
            dtype: stored.dtype.to_string(),
            shape: stored.shape.clone(),
            crc32: crc32fast::hash(&stored.bytes),
        };
        let entries = self
            .tensors
            .iter()
            .map(|(name, stored)| (name.clone(), entry(stored)))
            .collect();
        let mut manifest = Manifest::new(layers, entries);
        manifest.data_len = self.value_bytes + self.index_bytes + self.tensor_bytes;
        let mut views = Vec::with_capacity(self.tensors.len());
        for (name, stored) in &self.tensors {
            let view = TensorView::new(stored.dtype, stored.shape.clone(), &stored.bytes);
            views.push((name, view.map_err(|error| broken(&error))?));
        }
        let text = serde_json::to_string(&manifest).map_err(|error| broken(&error))?;
        let metadata = HashMap::from([(KEY.to_string(), text)]);
        let mut bytes =
            safetensors::serialize(views, Some(metadata)).map_err(|error| broken(&error))?;
        let header = manifest::seal(&mut bytes, self.at)?;
        Ok((bytes, header))
    }
}

fn words(indices: &[u32]) -> Vec<u8> {
    indices
        .iter()
        .flat_map(|index| index.to_le_bytes())
        .collect()
}

/// Turns the machine's elements of `width` bytes into the format's, or back.
pub(super) fn to_little_endian(bytes: &mut [u8], width: usize) {
    if cfg!(target_endian = "big") {
        bytes.chunks_exact_mut(width).for_each(<[u8]>::reverse);
    }
}
