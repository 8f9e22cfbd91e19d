//! The tensors of a checkpoint that is being written.

use std::collections::{BTreeMap, HashMap};

use burn::tensor::{BoolStore, DType, TensorData};
use safetensors::Dtype;
use safetensors::tensor::TensorView;

use super::bitmask::{self, Masked};
use super::manifest::{self, Index, KEY, LayerEntry, Manifest, SparseEntry, TensorEntry};
use super::{fail, index, little_endian};
use crate::{SparseError, format::Csr};

/// Rows up to this length have columns that fit 16 bits.
pub(super) const SHORT_ROW: usize = 1 << 16;

/// What a second tensor and its entry in the manifest add to the header, without their names.
/// Small tensors are written whole: leaving out their zeros would not pay for that.
const SECOND_TENSOR: usize = 256;

struct Stored {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl Stored {
    fn list(dtype: Dtype, len: usize, bytes: Vec<u8>) -> Self {
        let shape = vec![len];
        Self {
            dtype,
            shape,
            bytes,
        }
    }

    fn mask(bytes: Vec<u8>) -> Self {
        Self::list(Dtype::U8, bytes.len(), bytes)
    }

    fn words(indices: &[u32]) -> Self {
        let bytes = indices.iter().flat_map(|index| index.to_le_bytes());
        Self::list(Dtype::U32, indices.len(), bytes.collect())
    }
}

/// How safetensors names a type that [`little_endian_of`] returns.
fn safetensors_dtype(dtype: DType) -> Dtype {
    match dtype {
        DType::F64 => Dtype::F64,
        DType::F16 => Dtype::F16,
        DType::BF16 => Dtype::BF16,
        DType::I64 => Dtype::I64,
        DType::I32 => Dtype::I32,
        DType::I16 => Dtype::I16,
        DType::I8 => Dtype::I8,
        DType::U64 => Dtype::U64,
        DType::U32 => Dtype::U32,
        DType::U16 => Dtype::U16,
        DType::U8 => Dtype::U8,
        DType::Bool(_) => Dtype::BOOL,
        _ => Dtype::F32,
    }
}

/// A parameter's elements as bytes of the format, and their type in it.
pub(super) fn little_endian_of(
    data: TensorData,
    name: &str,
    at: &str,
) -> Result<(DType, Vec<u8>), SparseError> {
    let dtype = match data.dtype() {
        DType::Flex32 => DType::F32,
        DType::Bool(_) => DType::Bool(BoolStore::Native),
        other @ DType::QFloat(_) => {
            let reason = format!(
                "`{name}` is quantized ({}); dequantize the model before saving it",
                other.name()
            );
            return Err(fail(at, reason));
        }
        other => other,
    };
    let data = data
        .try_cast(dtype)
        .map_err(|error| fail(at, format!("`{name}` cannot be stored: {error}")))?;
    let mut bytes = data.as_bytes().to_vec();
    little_endian(&mut bytes, dtype.size());
    Ok((dtype, bytes))
}

/// How a parameter was written.
#[derive(Clone, Copy, Default)]
pub(super) struct Written {
    pub(super) bytes: u64,
    /// Stored elements and non-zeros among them, unless all elements are stored.
    pub(super) stored: Option<[usize; 2]>,
}

/// The tensors of the file, and how many bytes go where.
pub(super) struct Contents<'a> {
    at: &'a str,
    tensors: BTreeMap<String, Stored>,
    sparse: BTreeMap<String, SparseEntry>,
    dense: HashMap<String, Written>,
    pub(super) value_bytes: u64,
    pub(super) index_bytes: u64,
    pub(super) tensor_bytes: u64,
}

impl<'a> Contents<'a> {
    pub(super) fn new(at: &'a str) -> Self {
        Self {
            at,
            tensors: BTreeMap::new(),
            sparse: BTreeMap::new(),
            dense: HashMap::new(),
            value_bytes: 0,
            index_bytes: 0,
            tensor_bytes: 0,
        }
    }

    fn put(&mut self, name: String, stored: Stored) -> Result<u64, SparseError> {
        let len = stored.bytes.len() as u64;
        if name == "__metadata__" || self.tensors.contains_key(&name) {
            let reason = format!("two tensors would be called `{name}`; rename a field");
            return Err(fail(self.at, reason));
        }
        self.tensors.insert(name, stored);
        Ok(len)
    }

    /// How the parameter that [`dense`](Self::dense) took was written.
    pub(super) fn written(&self, path: &str) -> Written {
        self.dense.get(path).copied().unwrap_or_default()
    }

    /// Adds a parameter that is not packed: what is not zero of floats if that is smaller, or all.
    pub(super) fn dense(&mut self, name: String, data: TensorData) -> Result<(), SparseError> {
        let shape = data.shape().as_slice().to_vec();
        let (as_dtype, bytes) = little_endian_of(data, &name, self.at)?;
        let dtype = safetensors_dtype(as_dtype);
        if as_dtype.is_float() {
            let masked = Masked::new(&bytes, as_dtype.size());
            if masked.len() + SECOND_TENSOR + 3 * name.len() < bytes.len() {
                return self.masked(name, dtype, shape, masked);
            }
        }
        let stored = Stored {
            dtype,
            shape,
            bytes,
        };
        let bytes = self.put(name.clone(), stored)?;
        self.tensor_bytes += bytes;
        let stored = None;
        self.dense.insert(name, Written { bytes, stored });
        Ok(())
    }

    fn masked(
        &mut self,
        name: String,
        dtype: Dtype,
        shape: Vec<usize>,
        masked: Masked,
    ) -> Result<(), SparseError> {
        let Masked {
            mask,
            values,
            stored,
            nnz,
        } = masked;
        let values = Stored::list(dtype, stored, values);
        let values = self.put(format!("{name}.values"), values)?;
        let mask = self.put(format!("{name}.mask"), Stored::mask(mask))?;
        self.value_bytes += values;
        self.index_bytes += mask;
        let entry = SparseEntry {
            dtype: dtype.to_string(),
            shape,
            stored,
        };
        self.sparse.insert(name.clone(), entry);
        let written = Written {
            bytes: values + mask,
            stored: Some([stored, nnz]),
        };
        self.dense.insert(name, written);
        Ok(())
    }

    /// Adds a packed weight whose kernels have so many positions.
    pub(super) fn packed(
        &mut self,
        weight: &str,
        csr: &Csr,
        positions: usize,
    ) -> Result<(Index, Written), SparseError> {
        let values = csr.values().iter().flat_map(|value| value.to_le_bytes());
        let values = Stored::list(Dtype::F32, csr.stored(), values.collect());
        let values = self.put(format!("{weight}.values"), values)?;
        let (index, indices) = self.index(weight, csr, positions)?;
        self.value_bytes += values;
        self.index_bytes += indices;
        let written = Written {
            bytes: values + indices,
            stored: Some([csr.stored(), csr.nnz()]),
        };
        Ok((index, written))
    }

    /// Adds where the entries are; returns how, and the bytes that takes.
    fn index(
        &mut self,
        weight: &str,
        csr: &Csr,
        positions: usize,
    ) -> Result<(Index, u64), SparseError> {
        let (rows, row_len) = (csr.rows(), csr.row_len());
        let short = row_len <= SHORT_ROW;
        let width = if short { 2 } else { 4 };
        // Where rows differ in length, the others tell so in less than row pointers take.
        let equal = csr.nnz_per_row().is_some() || csr.stored() == 0;
        let column_bytes = equal.then_some(csr.stored() * width);
        let mask_bytes = bitmask::mask_len(rows * row_len);
        let others = column_bytes.map_or(mask_bytes, |bytes| bytes.min(mask_bytes));
        let smallest = index::smallest(csr, positions);
        if let Some((index, bytes)) = smallest.filter(|(_, bytes)| bytes.len() < others) {
            let bytes = self.put(format!("{weight}.{}", index.name()), Stored::mask(bytes))?;
            return Ok((index, bytes));
        }
        if column_bytes.is_none_or(|bytes| mask_bytes < bytes) {
            let entries = (0..rows)
                .flat_map(|row| csr.row(row).map(move |(column, _)| row * row_len + column));
            let mask = Stored::mask(bitmask::mask(rows * row_len, entries));
            return Ok((Index::Mask, self.put(format!("{weight}.mask"), mask)?));
        }
        let columns = if short {
            let bytes = csr
                .columns()
                .iter()
                .flat_map(|&column| (column as u16).to_le_bytes());
            Stored::list(Dtype::U16, csr.stored(), bytes.collect())
        } else {
            Stored::words(csr.columns())
        };
        let bytes = self.put(format!("{weight}.columns"), columns)?;
        Ok((Index::Columns, bytes))
    }

    /// The file and the length of its header.
    pub(super) fn write(self, layers: Vec<LayerEntry>) -> Result<(Vec<u8>, usize), SparseError> {
        let at = self.at;
        let broken = |error: &dyn core::fmt::Display| {
            let reason = format!("the model cannot be written as safetensors: {error}");
            fail(at, reason)
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
        let mut manifest = Manifest::new(layers, self.sparse, entries);
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
        let header = manifest::seal(&mut bytes, at)?;
        Ok((bytes, header))
    }
}
