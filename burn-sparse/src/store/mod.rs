//! Compressed checkpoints: of packed layers and of other sparse parameters only the non-zeros,
//! everything else as it is.
//!
//! [`save`] writes a model whose layers were packed, [`load`] rebuilds it from a fresh dense model
//! of the same architecture. A checkpoint is a [safetensors](https://docs.rs/safetensors) file, so
//! any reader of that format sees the tensors:
//!
//! | tensor | type | shape | there for |
//! |---|---|---|---|
//! | `conv1.weight.values` | `F32` | `[stored]` | packed layers |
//! | `conv1.weight.columns` | `U16`, or `U32` where rows are longer than 65,536 | `[stored]` | packed layers indexed by columns |
//! | `conv1.weight.mask` | `U8` | `[⌈weights / 8⌉]` | packed layers indexed by a mask |
//! | `conv1.weight.panels` | `U8` | `[bytes]` | packed layers indexed by panels of blocks |
//! | `conv1.weight.blocks` | `U8` | `[bytes]` | the same, with a bit for each row and column |
//! | `conv1.weight.patterns` | `U8` | `[bytes]` | packed layers of 3×3 kernels indexed by their patterns |
//! | `conv1.weight.punched` | `U8` | `[bytes]` | packed layers indexed by the kernel positions of blocks |
//! | `fc.weight.values`, `fc.weight.mask` | its own, `U8` | `[stored]`, `[⌈elements / 8⌉]` | sparse float parameters that are not packed |
//! | `conv1.bias`, `bn1.running_mean`, .. | their own | their own | all other parameters |
//!
//! Whether a layer runs packed depends on what was measured; how its zeros are stored does not. A
//! parameter of any module, pruned or not, is written as a mask and the elements it marks when
//! that is smaller than all of it (for a large f32 tensor when more than one in 32 is zero). Bit
//! `i % 8` (the lowest is 0) of byte `i / 8` stands for element `i` in row-major order, of the
//! matrix of output channels by weights for a packed layer; the last byte is filled up with zero
//! bits. Left out is positive zero alone: negative zeros and the payloads of NaNs come back bit by
//! bit.
//!
//! Packed layers have the smallest index of those that fit, and values lie in the order of rows whatever the
//! index:
//! - the columns of all entries, if rows are equally long;
//! - a mask;
//! - panels: in each block of the matrix, the rows that store the same columns are named together, and their
//!   columns once, each by its distance from the one before, mostly in a byte. One block is the
//!   whole matrix where whole rows agree, as in [`Bcrc`](crate::format::Bcrc);
//! - blocks: the same with a bit for each row and column of a block, as [`BlockPanels`](crate::format::BlockPanels)
//!   count them, which takes less of narrow blocks;
//! - patterns: the pattern of each 3×3 kernel by its number, as
//!   [`PatternKernels`](crate::format::PatternKernels) tell them apart;
//! - punched: a bit for each kernel position of a block, the masks of [`Punched`](crate::format::Punched).
//!
//! A factored weight is stored factor by factor (`conv1.weight.core`, ..), and a fresh dense model gets
//! the factors that the file has.
//!
//! The metadata holds the [`Manifest`] as JSON under the key `burn-sparse`: version, layers with
//! kind and shape, sparse parameters with type, shape and count, and a CRC-32 of each tensor and
//! of the header itself. A single flipped bit anywhere in the file is noticed, and so are missing
//! and surplus bytes.
//!
//! Nothing of a file is trusted: memory is asked for after its length has been compared with what
//! the file really has, every invariant of a [`Csr`](crate::format::Csr) is checked, a mask must
//! have the bits of the model's shape and as many set as there are values, and the model is
//! touched only when all checks have passed.
//!
//! [`compact`] writes the same in fewer bytes, for a loader that has the model; no other tool reads that.
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

mod bitmask;
pub mod compact;
mod contents;
mod decode;
mod encode;
mod factored;
mod file;
mod fill;
mod index;
mod manifest;
mod report;
mod restore;
mod survey;
mod tensors;

pub use decode::{from_bytes, load, read_manifest};
pub use encode::{save, to_bytes};
pub use manifest::{Index, LayerEntry, Manifest, PackedEntry, SparseEntry, TensorEntry};
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

/// Turns the machine's elements of `width` bytes into the format's, or back.
fn little_endian(bytes: &mut [u8], width: usize) {
    if cfg!(target_endian = "big") {
        bytes.chunks_exact_mut(width).for_each(<[u8]>::reverse);
    }
}
