//! Compact checkpoints: as few bytes as a loader needs that has a fresh model of the network.
//!
//! The packed checkpoints of [`store`](super) can be read by other tools, and spend bytes on names,
//! types and shapes. Of a network pruned and quantised to a few kilobytes, those would be most of the
//! file. A compact checkpoint leaves them out: its loader has the model, and a checksum of all paths,
//! kinds and shapes tells whether it is the right one. Every parameter and statistic comes back bit by
//! bit, packed layers packed.
//!
//! # Format
//!
//! | bytes | what |
//! |---|---|
//! | 4 | `BSC` and the version |
//! | 4 | CRC-32 of the model's paths, kinds and shapes |
//! | varints | number of tensors, bytes of values, of indices, of codebooks |
//! | 1 to 10 for each tensor | coding, elements stored, bits and levels |
//! | parts | of each tensor what is of whole bytes: masks, relative indices, bit-packed codes, raw values |
//! | stream | of all tensors what is range-coded |
//! | 4 | CRC-32 of all before |
//!
//! Tensors come in the order of the model, weights of the layers of this crate first; a weight is the
//! matrix of output channels by weights, whatever way the parameter holds it. The bytes of the stream
//! are shared out by the information that each tensor put into it. So the header says to the byte what
//! went to values, indices, codebooks and the rest ([`Manifest`]), and [`Ledger`] prints it.
//!
//! # Coding
//!
//! For each tensor the smallest is taken, found by coding it in all ways:
//!
//! - **Values** are raw, or floats whose sign, exponent and first digits go through the range coder,
//!   or, where [`Quantized::find`](crate::quant::Quantized::find) recognises levels, codes: bit-packed
//!   or range-coded with what codes came before and in the same column.
//! - **Places** are a mask; relative indices of 4, 5, 6 or 8 bits with fillers (Deep Compression, Han
//!   et al. 2016, section 3; ADMM-NN, Ren et al. 2019); or one bit each through the range coder. The
//!   last wins nearly always. The totals of rows and columns come first, a row or column without
//!   entries then costs nothing more, and each place's probability is mixed from what is left of its
//!   row's and column's totals and from its neighbours, those of the same kernel, channel and the rows
//!   above. Which outputs of a layer are cut off tells which inputs of the next and which biases are.
//! - **Zeros that make rows equally long** in packed layers are left out where
//!   [`Csr::equalised`](crate::format::Csr::equalised) puts them back.
//!
//! All probabilities are integers that integer arithmetic made, so a file means the same on every
//! machine. The range coder is the crate `constriction`'s.
//!
//! # Example
//! ```
//! use burn::module::Param;
//! use burn::tensor::{Device, Tensor, TensorData};
//! use burn_sparse::nn::LinearConfig;
//! use burn_sparse::store::compact;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! # let path = folder.path().join("model.bsc");
//! let device = Device::flex();
//! let fresh = || LinearConfig::new(100, 50).with_bias(false).init(&device);
//! // One weight in 97, of four levels.
//! let levels = [-0.2f32, -0.1, 0.1, 0.2];
//! let level = |i: usize| if i % 97 == 0 { levels[i / 97 % 4] } else { 0.0 };
//! let data = TensorData::new((0..5_000).map(level).collect::<Vec<_>>(), [100, 50]);
//! let mut model = fresh();
//! model.weight = Param::from_tensor(Tensor::from_data(data, &device)).into();
//!
//! let ledger = compact::save(&model, &path)?;
//! println!("{ledger}");
//! assert!(ledger.everything() > 150.0);
//! assert_eq!(ledger.file_bytes, std::fs::metadata(&path)?.len());
//!
//! let loaded = compact::load(fresh(), &path)?;
//! loaded.weight.val().into_data().assert_eq(&model.weight.val().into_data(), true);
//! # Ok(())
//! # }
//! ```

mod around;
mod choose;
mod coder;
mod codes;
mod coding;
mod content;
mod decode;
mod elements;
mod encode;
mod floats;
mod gaps;
mod ledger;
mod levels;
mod logistic;
mod manifest;
mod number;
mod places;
mod range;
mod skeleton;
mod tensor;
mod totals;
mod varint;

pub use coding::{LevelKind, Positions, TensorCoding, Values};
pub use decode::{from_bytes, ledger, load, read_manifest};
pub use encode::{save, to_bytes};
pub use ledger::{Chain, Ledger, LedgerRow};
pub use manifest::Manifest;
