//! The tensors of a file, whatever its format.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use burn::tensor::{bf16, f16};
use burn_store::pytorch_reader::{DType as TorchDtype, PytorchError, PytorchReader, Tensor};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorInfo};

use super::WeightsError;
use super::naming::legacy;

/// A file whose header has been read and validated; values are decoded one tensor at a time.
pub(super) struct Checkpoint {
    path: PathBuf,
    entries: BTreeMap<String, Entry>,
    /// The data of a safetensors file, after its header.
    data: Vec<u8>,
}

/// One tensor of a file.
enum Entry {
    Safetensors(TensorInfo),
    Pytorch(Tensor),
}

impl Entry {
    fn shape(&self) -> &[usize] {
        match self {
            Entry::Safetensors(info) => &info.shape,
            Entry::Pytorch(tensor) => tensor.shape(),
        }
    }
}

impl Checkpoint {
    /// Opens a file. What it is shows in its first bytes; the extension has no say.
    pub(super) fn open(path: &Path) -> Result<Self, WeightsError> {
        let io = |source| WeightsError::Io {
            path: path.to_owned(),
            source,
        };
        let mut file = fs::File::open(path).map_err(io)?;
        let meta = file.metadata().map_err(io)?;
        if !meta.is_file() {
            let kind = if meta.is_dir() {
                "a directory"
            } else {
                "not a regular file"
            };
            return Err(io(std::io::Error::new(
                std::io::ErrorKind::InvalidInput,
                kind,
            )));
        }
        let mut head = Vec::with_capacity(9);
        file.by_ref().take(9).read_to_end(&mut head).map_err(io)?;
        drop(file);
        if is_pytorch(path, &head) {
            Self::pytorch(path)
        } else {
            Self::safetensors(path, fs::read(path).map_err(io)?)
        }
    }

    fn safetensors(path: &Path, mut data: Vec<u8>) -> Result<Self, WeightsError> {
        let invalid = |source| WeightsError::Safetensors {
            path: path.to_owned(),
            source,
        };
        let (header, meta) = SafeTensors::read_metadata(&data).map_err(invalid)?;
        // The validated header is what stands before the data that its offsets count from.
        data.drain(..header + size_of::<u64>());
        let entries = meta
            .tensors()
            .into_iter()
            .map(|(name, info)| (name, Entry::Safetensors(info.clone())))
            .collect();
        Ok(Self {
            path: path.to_owned(),
            entries,
            data,
        })
    }

    fn pytorch(path: &Path) -> Result<Self, WeightsError> {
        let reader = PytorchReader::new(path).map_err(|error| match error {
            // Other kinds of the reader's own making say that the file contradicts itself.
            PytorchError::Io(source) if source.raw_os_error().is_some() => WeightsError::Io {
                path: path.to_owned(),
                source,
            },
            other => WeightsError::Pytorch {
                path: path.to_owned(),
                reason: other.to_string(),
            },
        })?;
        let entries = reader
            .into_tensors()
            .into_iter()
            .map(|(name, tensor)| (name, Entry::Pytorch(tensor)))
            .collect();
        Ok(Self {
            path: path.to_owned(),
            entries,
            data: Vec::new(),
        })
    }

    /// The names in alphabetical order.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// The shape of a tensor, where there is one of this name.
    pub(super) fn shape(&self, name: &str) -> Option<&[usize]> {
        self.entries.get(self.key(name)?).map(Entry::shape)
    }

    /// What the file calls this tensor, where it has it: by this name or by the one of old
    /// checkpoints.
    pub(super) fn key(&self, name: &str) -> Option<&str> {
        let key = |name: &str| {
            self.entries
                .get_key_value(name)
                .map(|(key, _)| key.as_str())
        };
        key(name).or_else(|| key(&legacy(name)?))
    }

    /// What stands before the `wanted` names: the key under which a checkpoint keeps the weights,
    /// the prefix of `DataParallel`, or nothing.
    pub(super) fn prefix<'a>(&self, wanted: impl Iterator<Item = &'a str> + Clone) -> String {
        const KEYS: [&str; 5] = ["", "state_dict.", "model_state_dict.", "model.", "net."];
        let hits = |prefix: &str| {
            let wanted = wanted.clone();
            wanted
                .filter(|name| self.key(&format!("{prefix}{name}")).is_some())
                .count()
        };
        let candidates = KEYS
            .iter()
            .flat_map(|key| [(*key).to_owned(), format!("{key}module.")]);
        // The last of equals wins, so the plain names are asked last.
        candidates
            .rev()
            .max_by_key(|prefix| hits(prefix))
            .unwrap_or_default()
    }

    /// The values of a tensor in row-major order.
    ///
    /// The caller has compared the shape, so the length is what the model needs and not what a
    /// file claims.
    pub(super) fn values(&self, name: &str) -> Result<Vec<f32>, WeightsError> {
        let dtype = |found: String| WeightsError::Dtype {
            name: name.to_owned(),
            dtype: found,
        };
        match self.key(name).and_then(|key| self.entries.get(key)) {
            Some(Entry::Safetensors(info)) => {
                let width = match info.dtype {
                    Dtype::F16 => Width::F16,
                    Dtype::BF16 => Width::Bf16,
                    Dtype::F32 => Width::F32,
                    Dtype::F64 => Width::F64,
                    other => return Err(dtype(format!("{other:?}"))),
                };
                let (start, end) = info.data_offsets;
                Ok(width.decode(&self.data[start..end]))
            }
            Some(Entry::Pytorch(tensor)) => {
                let width = match tensor.dtype() {
                    TorchDtype::F16 => Width::F16,
                    TorchDtype::BF16 => Width::Bf16,
                    TorchDtype::F32 => Width::F32,
                    TorchDtype::F64 => Width::F64,
                    other => return Err(dtype(format!("{other:?}"))),
                };
                let bytes = tensor.read().map_err(|error| WeightsError::Pytorch {
                    path: self.path.clone(),
                    reason: error.to_string(),
                })?;
                Ok(width.decode(&bytes))
            }
            None => Err(WeightsError::Missing {
                name: name.to_owned(),
                shape: Vec::new(),
                missing: 1,
                near: Vec::new(),
            }),
        }
    }
}

/// A safetensors file starts with the length of its header and a brace; all others are left to the
/// reader of PyTorch's formats, unless they are named `.safetensors` and so are a broken one.
fn is_pytorch(path: &Path, head: &[u8]) -> bool {
    let named = path
        .extension()
        .is_some_and(|e| e.eq_ignore_ascii_case("safetensors"));
    head.get(8) != Some(&b'{') && !named
}

/// The floating-point types a file may hold. Both formats are little-endian.
#[derive(Clone, Copy)]
enum Width {
    F16,
    Bf16,
    F32,
    F64,
}

impl Width {
    fn decode(self, bytes: &[u8]) -> Vec<f32> {
        match self {
            Width::F16 => chunks(bytes, |b| f16::from_le_bytes(b).to_f32()),
            Width::Bf16 => chunks(bytes, |b| bf16::from_le_bytes(b).to_f32()),
            Width::F32 => chunks(bytes, f32::from_le_bytes),
            Width::F64 => chunks(bytes, |b| f64::from_le_bytes(b) as f32),
        }
    }
}

fn chunks<const N: usize>(bytes: &[u8], decode: impl Fn([u8; N]) -> f32) -> Vec<f32> {
    bytes
        .as_chunks::<N>()
        .0
        .iter()
        .copied()
        .map(decode)
        .collect()
}
