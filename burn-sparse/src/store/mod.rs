//! Compressed checkpoints: packed layers as their non-zeros, everything else as it is.
//!
//! [`save`] writes a model whose layers were packed, [`load`] rebuilds it from a fresh dense model
//! of the same architecture. A checkpoint is a [safetensors](https://docs.rs/safetensors) file, so
//! any reader of that format sees the tensors:
//!
//! | tensor | type | shape | there for |
//! |---|---|---|---|
//! | `conv1.weight.values` | `F32` | `[stored]` | packed layers |
//! | `conv1.weight.columns` | `U16`, or `U32` where rows are longer than 65,536 | `[stored]` | packed layers |
//! | `conv1.weight.row_ptr` | `U32` | `[rows + 1]` | packed layers whose rows differ in length |
//! | `conv1.bias`, `bn1.running_mean`, .. | their own | their own | all other parameters |
//!
//! Its metadata holds the [`Manifest`] as JSON under the key `burn-sparse`: version, layers with
//! kind and shape, and a CRC-32 of each tensor and of the header itself. A single flipped bit
//! anywhere in the file is noticed, and so are missing and surplus bytes.
//!
//! Nothing of a file is trusted: memory is asked for after its length has been compared with what
//! the file really has, every invariant of a [`Csr`](crate::format::Csr) is checked, and the model
//! is touched only when all checks have passed.
//!
//! # Example
//! ```
//! use burn::module::Module;
//! use burn::tensor::{Device, Tensor};
//! use burn_sparse::nn::{Linear, LinearConfig};
//! use burn_sparse::store;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! # let path = folder.path().join("packed.safetensors");
//! let device = Device::flex();
//! let model = vec![
//!     LinearConfig::new(64, 64).init(&device).pack()?,
//!     LinearConfig::new(64, 10).init(&device),
//! ];
//! let report = store::save(&model, &path)?;
//! println!("{report}");
//!
//! let fresh = vec![
//!     LinearConfig::new(64, 64).init(&device),
//!     LinearConfig::new(64, 10).init(&device),
//! ];
//! let loaded = store::load(fresh, &path)?;
//! let x = Tensor::<2>::ones([1, 64], &device);
//! let run = |layers: &Vec<Linear>| layers.iter().fold(x.clone(), |x, layer| layer.forward(x));
//! run(&loaded).into_data().assert_eq(&run(&model).into_data(), true);
//! # Ok(())
//! # }
//! ```

mod decode;
mod encode;
mod file;
mod fill;
mod manifest;
mod report;
mod survey;
mod tensors;

pub use decode::{from_bytes, load, read_manifest};
pub use encode::{save, to_bytes};
pub use manifest::{LayerEntry, Manifest, PackedEntry, TensorEntry};
pub use report::{LayerReport, StoreReport};

/// What errors call a checkpoint that is not in a file.
const IN_MEMORY: &str = "(in memory)";

/// A [`SparseError::Checkpoint`](crate::SparseError::Checkpoint) of the checkpoint `at`.
fn fail(at: &str, reason: impl core::fmt::Display) -> crate::SparseError {
    crate::SparseError::Checkpoint {
        path: at.to_string(),
        reason: reason.to_string(),
    }
}
