//! Checksummed files of training state.
//!
//! A state file is in the safetensors format: tensors in f32, and under `__metadata__` the entries
//! `crc32` (of the whole file with those eight digits as zeros) and one of JSON whose name says what
//! the state is of, with a version and floats as their bits.

use std::collections::HashMap;
use std::path::Path;

use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::admm::StateError;
use crate::atomic;

const CRC: &str = "crc32";
const NO_CRC: &str = "00000000";

/// A tensor of a state: its name, shape and values.
pub(crate) type Named<'a> = (String, &'a [usize], &'a [f32]);

/// The bytes of a state whose JSON is kept under the name `kind`.
///
/// # Panics
/// If two names are equal, or values do not fill their shape.
pub(crate) fn seal(kind: &str, meta: String, tensors: &[Named<'_>]) -> Vec<u8> {
    let metadata = HashMap::from([(kind.to_owned(), meta), (CRC.to_owned(), NO_CRC.to_owned())]);
    let data: Vec<Vec<u8>> = tensors.iter().map(|(.., v)| little_endian(v)).collect();
    let views = tensors.iter().zip(&data).map(|((name, shape, _), data)| {
        let view = TensorView::new(Dtype::F32, shape.to_vec(), data);
        (
            name.as_str(),
            view.expect("values have the length of their shape"),
        )
    });
    let mut bytes =
        safetensors::serialize(views, Some(metadata)).expect("names are unique and data fits");
    let digits = crc_digits(&bytes).expect("the header has just been written");
    let crc = format!("{:08x}", crc32fast::hash(&bytes));
    bytes[digits].copy_from_slice(crc.as_bytes());
    bytes
}

/// Writes a state: to a temporary file beside it first, so that an interrupted write leaves an older
/// one intact.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<(), StateError> {
    atomic::write(path, bytes).map_err(|source| StateError::Io {
        path: path.to_owned(),
        source,
    })
}

pub(crate) fn read(path: &Path) -> Result<Vec<u8>, StateError> {
    std::fs::read(path).map_err(|source| StateError::Io {
        path: path.to_owned(),
        source,
    })
}

/// A state whose checksum is right.
pub(crate) struct Opened<'a> {
    path: &'a Path,
    bytes: Vec<u8>,
    meta: String,
}

/// Only the version, so that a newer file is told from a broken one.
#[derive(Deserialize)]
struct VersionOnly {
    version: u64,
}

impl<'a> Opened<'a> {
    /// Checks the bytes of a state of that kind; `path` is for messages.
    pub(crate) fn new(path: &'a Path, kind: &str, mut bytes: Vec<u8>) -> Result<Self, StateError> {
        let corrupt = |reason| Err(corrupt(path, reason));
        let Some(digits) = crc_digits(&bytes) else {
            return corrupt("not a complete state (no header with a checksum)".to_owned());
        };
        let stored = bytes[digits.clone()].to_vec();
        bytes[digits].copy_from_slice(NO_CRC.as_bytes());
        let computed = format!("{:08x}", crc32fast::hash(&bytes));
        if stored != computed.as_bytes() {
            return corrupt(format!("checksum is not {computed}: cut short or altered"));
        }
        let header = match SafeTensors::read_metadata(&bytes) {
            Ok((_, header)) => header,
            Err(error) => return corrupt(error.to_string()),
        };
        let entries = header.metadata().as_ref();
        let Some(meta) = entries.and_then(|entries| entries.get(kind)) else {
            return corrupt(format!("no entry `{kind}`"));
        };
        let meta = meta.clone();
        Ok(Self { path, bytes, meta })
    }

    /// An error that says what is wrong with it.
    pub(crate) fn corrupt(&self, reason: impl core::fmt::Display) -> StateError {
        corrupt(self.path, reason.to_string())
    }

    /// Its version, which must not be above `newest`.
    pub(crate) fn version(&self, newest: u64) -> Result<u64, StateError> {
        let VersionOnly { version } = self.meta()?;
        if !(1..=newest).contains(&version) {
            return Err(StateError::Version {
                path: self.path.to_owned(),
                found: version,
                expected: newest,
            });
        }
        Ok(version)
    }

    /// Its JSON.
    pub(crate) fn meta<T: DeserializeOwned>(&self) -> Result<T, StateError> {
        serde_json::from_str(&self.meta).map_err(|error| self.corrupt(error))
    }

    pub(crate) fn tensors(&self) -> Result<Tensors<'_>, StateError> {
        match SafeTensors::deserialize(&self.bytes) {
            Ok(tensors) => Ok(Tensors {
                path: self.path,
                tensors,
            }),
            Err(error) => Err(self.corrupt(error)),
        }
    }
}

/// The tensors of a state.
pub(crate) struct Tensors<'a> {
    path: &'a Path,
    tensors: SafeTensors<'a>,
}

impl Tensors<'_> {
    /// The finite values of the tensor of that name and shape.
    pub(crate) fn floats(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, StateError> {
        let corrupt = |reason| Err(corrupt(self.path, reason));
        let tensor = match self.tensors.tensor(name) {
            Ok(tensor) => tensor,
            Err(error) => return corrupt(format!("{name}: {error}")),
        };
        if tensor.dtype() != Dtype::F32 || tensor.shape() != shape {
            let (dtype, found) = (tensor.dtype(), tensor.shape());
            return corrupt(format!("{name} is {dtype:?} {found:?}, not F32 {shape:?}"));
        }
        let (chunks, _) = tensor.data().as_chunks::<4>();
        let values: Vec<f32> = chunks.iter().map(|&c| f32::from_le_bytes(c)).collect();
        match values.iter().find(|value| !value.is_finite()) {
            Some(value) => corrupt(format!("{name} holds {value}")),
            None => Ok(values),
        }
    }
}

fn corrupt(path: &Path, reason: String) -> StateError {
    StateError::Corrupt {
        path: path.to_owned(),
        reason,
    }
}

fn little_endian(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
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
