//! The tensors of a checkpoint, compared with its manifest and with a model.

use std::collections::{BTreeMap, BTreeSet};

use burn::tensor::{BoolStore, DType, TensorData};
use safetensors::SafeTensors;

use super::encode::{SHORT_ROW, to_little_endian};
use super::fail;
use super::fill::Ready;
use super::manifest::{LayerEntry, Manifest, PackedEntry};
use super::survey::{Dense, Kind, Layer, Survey};
use crate::{SparseError, format::Csr, nn::AnyWeight};

/// The tensors of a checkpoint, their checksums verified.
pub(super) struct Tensors<'a> {
    at: &'a str,
    pub(super) layers: BTreeMap<&'a str, &'a LayerEntry>,
    manifest: &'a Manifest,
    views: SafeTensors<'a>,
}

/// ` (and 3 more)` after the first of `count`.
fn more(count: usize) -> String {
    if count > 1 {
        format!(" (and {} more)", count - 1)
    } else {
        String::new()
    }
}

impl<'a> Tensors<'a> {
    /// Compares what the format says, what the manifest says and what is there.
    pub(super) fn new(
        bytes: &'a [u8],
        manifest: &'a Manifest,
        at: &'a str,
    ) -> Result<Self, SparseError> {
        let views = SafeTensors::deserialize(bytes)
            .map_err(|error| fail(at, format!("it is no valid safetensors file: {error}")))?;
        if views.len() != manifest.tensors.len() {
            let (found, listed) = (views.len(), manifest.tensors.len());
            return Err(fail(
                at,
                format!("it has {found} tensors, its manifest lists {listed}"),
            ));
        }
        for (name, entry) in &manifest.tensors {
            let view = views
                .tensor(name)
                .map_err(|error| fail(at, format!("its manifest lists `{name}`: {error}")))?;
            if view.dtype().to_string() != entry.dtype || view.shape() != entry.shape {
                let reason = format!(
                    "`{name}` is {} {:?}, but {} {:?} in the manifest",
                    view.dtype(),
                    view.shape(),
                    entry.dtype,
                    entry.shape
                );
                return Err(fail(at, reason));
            }
            if crc32fast::hash(view.data()) != entry.crc32 {
                let reason = format!(
                    "`{name}` does not match its checksum; the file is damaged, take another copy"
                );
                return Err(fail(at, reason));
            }
        }
        let layers = manifest
            .layers
            .iter()
            .map(|entry| (entry.weight.as_str(), entry))
            .collect();
        Ok(Self {
            at,
            layers,
            manifest,
            views,
        })
    }

    fn fail(&self, reason: impl core::fmt::Display) -> SparseError {
        fail(self.at, reason)
    }

    pub(super) fn is_packed(&self, path: &str) -> bool {
        self.layers
            .get(path)
            .is_some_and(|entry| entry.packed.is_some())
    }

    /// The same layers, of the same kinds and shapes.
    pub(super) fn check_layers(&self, layers: &[Layer]) -> Result<(), SparseError> {
        let own: BTreeSet<&str> = layers.iter().map(|layer| layer.path.as_str()).collect();
        let mut missing = own.iter().filter(|path| !self.layers.contains_key(**path));
        if let Some(first) = missing.next() {
            return Err(self.fail(format!(
                "it has no layer with the weight `{first}`{}, which this model has; build the \
                 model as the one that was saved",
                more(1 + missing.count())
            )));
        }
        let mut unexpected = self.layers.keys().filter(|path| !own.contains(**path));
        if let Some(first) = unexpected.next() {
            return Err(self.fail(format!(
                "it has a layer with the weight `{first}`{}, which this model has not; build the \
                 model as the one that was saved",
                more(1 + unexpected.count())
            )));
        }
        if self.layers.len() != self.manifest.layers.len() || own.len() != layers.len() {
            return Err(self.fail("two of its layers have the same name"));
        }
        for layer in layers {
            let entry = self.layers[layer.path.as_str()];
            let (kind, shape) = (layer.weight.kind(), layer.weight.shape());
            if entry.kind != kind || entry.shape != shape {
                return Err(self.fail(format!(
                    "`{}` is a {} weight {:?}, in this model a {kind} weight {shape:?}; build the \
                     model as the one that was saved",
                    layer.path, entry.kind, entry.shape
                )));
            }
        }
        Ok(())
    }

    /// The tensors that the layers and the other parameters need, and no more.
    pub(super) fn check_names(&self, survey: &Survey) -> Result<(), SparseError> {
        let mut wanted = BTreeSet::new();
        for layer in &survey.layers {
            let path = &layer.path;
            match &self.layers[path.as_str()].packed {
                None => {
                    wanted.insert(path.clone());
                }
                Some(packed) => {
                    wanted.extend([format!("{path}.values"), format!("{path}.columns")]);
                    if packed.nnz_per_row.is_none() {
                        wanted.insert(format!("{path}.row_ptr"));
                    }
                }
            }
        }
        let others = survey.tensors.iter().map(|dense| &dense.path);
        wanted.extend(others.filter(|path| !self.is_packed(path)).cloned());

        let has = |name: &String| self.manifest.tensors.contains_key(name);
        let mut missing = wanted.iter().filter(|name| !has(name));
        if let Some(first) = missing.next() {
            let count = 1 + missing.count();
            return Err(self.fail(format!(
                "it has no tensor `{first}`{}, which this model needs; build the model as the one \
                 that was saved",
                more(count)
            )));
        }
        let mut unexpected = self
            .manifest
            .tensors
            .keys()
            .filter(|name| !wanted.contains(*name));
        if let Some(first) = unexpected.next() {
            let count = 1 + unexpected.count();
            return Err(self.fail(format!(
                "it has a tensor `{first}`{}, for which this model has no place; build the model \
                 as the one that was saved",
                more(count)
            )));
        }
        Ok(())
    }

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

    pub(super) fn packed(
        &self,
        layer: &Layer,
        packed: &PackedEntry,
    ) -> Result<AnyWeight, SparseError> {
        let path = &layer.path;
        let [rows, row_len] = layer.weight.matrix();
        let shape = [packed.stored];
        let values = chunks(
            self.bytes(&format!("{path}.values"), "F32", &shape)?,
            f32::from_le_bytes,
        );
        let columns = format!("{path}.columns");
        let columns = if row_len <= SHORT_ROW {
            chunks(self.bytes(&columns, "U16", &shape)?, |b| {
                u32::from(u16::from_le_bytes(b))
            })
        } else {
            chunks(self.bytes(&columns, "U32", &shape)?, u32::from_le_bytes)
        };
        let row_ptr = match packed.nnz_per_row {
            None => {
                let name = format!("{path}.row_ptr");
                chunks(self.bytes(&name, "U32", &[rows + 1])?, u32::from_le_bytes)
            }
            Some(nnz) if rows.checked_mul(nnz) == Some(packed.stored) => {
                // Of valid matrices; `Csr::new` refuses those with more than 31 bits.
                (0..=rows).map(|row| (row * nnz) as u32).collect()
            }
            Some(nnz) => {
                return Err(self.fail(format!(
                    "`{path}` stores {} entries, not {nnz} in each of {rows} rows",
                    packed.stored
                )));
            }
        };
        let csr = Csr::new([rows, row_len], row_ptr, columns, values)
            .map_err(|error| self.fail(format!("`{path}`: {error}")))?;
        if csr.nnz() != packed.nnz {
            let nnz = csr.nnz();
            return Err(self.fail(format!("`{path}` has {nnz} non-zeros, not {}", packed.nnz)));
        }
        layer.weight.with_csr(csr)
    }

    pub(super) fn dense(&self, dense: &Dense) -> Result<Ready, SparseError> {
        let name = &dense.path;
        let entry = &self.manifest.tensors[name];
        if entry.shape != dense.shape {
            return Err(self.fail(format!(
                "`{name}` has the shape {:?}, in this model {:?}; build the model as the one that \
                 was saved",
                entry.shape, dense.shape
            )));
        }
        let Some(dtype) = dtype(dense.kind, &entry.dtype) else {
            let kind = dense.kind;
            return Err(self.fail(format!(
                "`{name}` holds {}, not {kind:?} values",
                entry.dtype
            )));
        };
        let mut bytes = self.bytes(name, &entry.dtype, &dense.shape)?.to_vec();
        if dense.kind == Kind::Bool {
            if bytes.iter().any(|&byte| byte > 1) {
                return Err(self.fail(format!("`{name}` holds bytes that are no booleans")));
            }
        } else if !dense.device.supports_dtype(dtype) {
            return Err(self.fail(format!(
                "`{name}` holds {}, which {:?} cannot; load it on another device",
                entry.dtype, dense.device
            )));
        }
        to_little_endian(&mut bytes, dtype.size());
        let data = TensorData::try_from_bytes_vec(bytes, dense.shape.clone(), dtype)
            .map_err(|error| self.fail(format!("`{name}`: {error}")))?;
        Ok(Ready {
            data,
            device: dense.device.clone(),
        })
    }
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
