//! From the tensors of a checkpoint to weights and parameters.

use burn::tensor::{BoolStore, DType, TensorData};

use super::bitmask;
use super::contents::SHORT_ROW;
use super::fill::Ready;
use super::index;
use super::manifest::{Index, PackedEntry};
use super::survey::{Dense, Kind, Layer};
use super::tensors::Tensors;
use super::{fail, little_endian};
use crate::{SparseError, format::Csr, nn::AnyWeight};

impl<'a> Tensors<'a> {
    fn bytes(&self, name: &str, dtype: &str, shape: &[usize]) -> Result<&'a [u8], SparseError> {
        let view = self
            .views
            .tensor(name)
            .map_err(|error| self.fail(format!("`{name}`: {error}")))?;
        if view.dtype().to_string() != dtype || view.shape() != shape {
            return Err(self.fail(format!(
                "`{name}` should be {dtype} {shape:?}, but is {} {:?}",
                view.dtype(),
                view.shape()
            )));
        }
        Ok(view.data())
    }

    /// The mask of `len` elements, of which as many are set as are stored.
    fn mask(&self, path: &str, len: usize, stored: usize) -> Result<&'a [u8], SparseError> {
        let mask = self.bytes(&format!("{path}.mask"), "U8", &[bitmask::mask_len(len)])?;
        bitmask::check(mask, len, stored)
            .map_err(|reason| self.fail(format!("`{path}`: {reason}")))?;
        Ok(mask)
    }

    /// The packed weight of a layer.
    pub(super) fn packed(
        &self,
        layer: &Layer,
        packed: &PackedEntry,
    ) -> Result<AnyWeight, SparseError> {
        let path = &layer.path;
        let [rows, row_len] = layer.weight.matrix();
        let values = self.bytes(&format!("{path}.values"), "F32", &[packed.stored])?;
        let (row_ptr, columns) = match packed.index {
            Index::Mask => {
                let mask = self.mask(path, rows * row_len, packed.stored)?;
                unmask(mask, rows, row_len)
            }
            Index::Columns => {
                let columns = self.columns(path, row_len, packed.stored)?;
                (self.row_ptr(path, rows, packed)?, columns)
            }
            kind => {
                let bytes = self.list(&format!("{path}.{}", kind.name()))?;
                let shape = layer.weight.shape();
                let positions = shape.get(2..).unwrap_or_default().iter().product();
                index::decode(kind, bytes, [rows, row_len], positions, packed.stored)
                    .map_err(|reason| self.fail(format!("`{path}`: {reason}")))?
            }
        };
        let csr = Csr::new(
            [rows, row_len],
            row_ptr,
            columns,
            chunks(values, f32::from_le_bytes),
        )
        .map_err(|error| self.fail(format!("`{path}`: {error}")))?;
        if csr.nnz() != packed.nnz {
            let nnz = csr.nnz();
            return Err(self.fail(format!("`{path}` has {nnz} non-zeros, not {}", packed.nnz)));
        }
        if csr.nnz_per_row() != packed.nnz_per_row {
            return Err(self.fail(format!(
                "the rows of `{path}` are not as long as its manifest says"
            )));
        }
        layer.weight.with_csr(csr)
    }

    /// The bytes of an index, as many as there are.
    fn list(&self, name: &str) -> Result<&'a [u8], SparseError> {
        let shape = self.manifest.tensors.get(name).map(|entry| &entry.shape);
        let len = shape.filter(|shape| shape.len() == 1);
        self.bytes(name, "U8", len.map_or(&[], Vec::as_slice))
    }

    fn columns(&self, path: &str, row_len: usize, stored: usize) -> Result<Vec<u32>, SparseError> {
        let name = format!("{path}.columns");
        Ok(if row_len <= SHORT_ROW {
            chunks(self.bytes(&name, "U16", &[stored])?, |column| {
                u32::from(u16::from_le_bytes(column))
            })
        } else {
            chunks(self.bytes(&name, "U32", &[stored])?, u32::from_le_bytes)
        })
    }

    /// Of a matrix indexed by columns, whose rows are equally long.
    fn row_ptr(
        &self,
        path: &str,
        rows: usize,
        packed: &PackedEntry,
    ) -> Result<Vec<u32>, SparseError> {
        match packed.nnz_per_row {
            Some(nnz) if rows.checked_mul(nnz) == Some(packed.stored) => {
                // Of valid matrices; `Csr::new` refuses those with more than 31 bits.
                Ok((0..=rows).map(|row| (row * nnz) as u32).collect())
            }
            // Without any row there is nothing to be equal.
            None if packed.stored == 0 => Ok(vec![0; rows + 1]),
            nnz => Err(self.fail(format!(
                "`{path}` stores {} entries, not {} in each of {rows} rows",
                packed.stored,
                nnz.map_or("equally many".to_owned(), |nnz| nnz.to_string())
            ))),
        }
    }

    /// The value of a parameter that is not packed.
    pub(super) fn dense(&self, dense: &Dense) -> Result<Ready, SparseError> {
        let name = &dense.path;
        let sparse = self.manifest.sparse.get(name);
        let (held, shape) = match sparse {
            Some(entry) => (&entry.dtype, &entry.shape),
            None => {
                let entry = &self.manifest.tensors[name];
                (&entry.dtype, &entry.shape)
            }
        };
        if *shape != dense.shape {
            return Err(self.fail(format!(
                "`{name}` has the shape {shape:?}, in this model {:?}; build the model as the one \
                 that was saved",
                dense.shape
            )));
        }
        let Some(dtype) = dtype(dense.kind, held) else {
            let kind = dense.kind;
            return Err(self.fail(format!("`{name}` holds {held}, not {kind:?} values")));
        };
        check_device(dense, dtype, self.at())?;
        let bytes = match sparse {
            None => self.bytes(name, held, shape)?.to_vec(),
            Some(_) if dense.kind != Kind::Float => {
                return Err(self.fail(format!("`{name}` is sparse, but holds no floats")));
            }
            Some(entry) => {
                let len = shape.iter().product();
                let mask = self.mask(name, len, entry.stored)?;
                let values = self.bytes(&format!("{name}.values"), held, &[entry.stored])?;
                bitmask::expand(mask, values, len, dtype.size())
            }
        };
        ready(dense, dtype, bytes, self.at())
    }
}

/// Whether the device of a parameter can hold the type.
pub(super) fn check_device(dense: &Dense, dtype: DType, at: &str) -> Result<(), SparseError> {
    if dense.kind == Kind::Bool || dense.device.supports_dtype(dtype) {
        return Ok(());
    }
    Err(fail(
        at,
        format!(
            "`{}` holds {}, which {:?} cannot; load it on another device",
            dense.path,
            dtype.name().to_uppercase(),
            dense.device
        ),
    ))
}

/// The value of a parameter from the elements of the format.
pub(super) fn ready(
    dense: &Dense,
    dtype: DType,
    mut bytes: Vec<u8>,
    at: &str,
) -> Result<Ready, SparseError> {
    let name = &dense.path;
    if dense.kind == Kind::Bool && bytes.iter().any(|&byte| byte > 1) {
        return Err(fail(
            at,
            format!("`{name}` holds bytes that are no booleans"),
        ));
    }
    little_endian(&mut bytes, dtype.size());
    let data = TensorData::try_from_bytes_vec(bytes, dense.shape.clone(), dtype)
        .map_err(|error| fail(at, format!("`{name}`: {error}")))?;
    Ok(Ready {
        data,
        device: dense.device.clone(),
    })
}

/// Row pointers and columns from a mask that has been checked.
fn unmask(mask: &[u8], rows: usize, row_len: usize) -> (Vec<u32>, Vec<u32>) {
    let mut row_ptr = vec![0u32; rows + 1];
    // `Csr::new` refuses more entries, or longer rows, than fit 31 bits.
    let column = |at: usize| {
        row_ptr[at / row_len + 1] += 1;
        (at % row_len) as u32
    };
    let columns = bitmask::positions(mask).map(column).collect();
    (1..=rows).for_each(|row| row_ptr[row] += row_ptr[row - 1]);
    (row_ptr, columns)
}

fn dtype(kind: Kind, name: &str) -> Option<DType> {
    Some(match (kind, name) {
        (Kind::Float, "F64") => DType::F64,
        (Kind::Float, "F32") => DType::F32,
        (Kind::Float, "F16") => DType::F16,
        (Kind::Float, "BF16") => DType::BF16,
        (Kind::Int, "I64") => DType::I64,
        (Kind::Int, "I32") => DType::I32,
        (Kind::Int, "I16") => DType::I16,
        (Kind::Int, "I8") => DType::I8,
        (Kind::Int, "U64") => DType::U64,
        (Kind::Int, "U32") => DType::U32,
        (Kind::Int, "U16") => DType::U16,
        (Kind::Int, "U8") => DType::U8,
        (Kind::Bool, "BOOL") => DType::Bool(BoolStore::Native),
        _ => return None,
    })
}

fn chunks<const N: usize, T>(bytes: &[u8], decode: impl Fn([u8; N]) -> T) -> Vec<T> {
    bytes
        .as_chunks::<N>()
        .0
        .iter()
        .copied()
        .map(decode)
        .collect()
}
