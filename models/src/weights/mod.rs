//! Weights by torchvision's names, from PyTorch's files and to them.
//!
//! [`load`] reads a `state_dict` from `.safetensors` or from any file of `torch.save` (`.pth`,
//! `.pt`, `.bin`) into any module on this workspace's or Burn's layers, and [`save`] writes one that
//! PyTorch loads. Names and layouts follow PyTorch: a batch norm's `gamma` and `beta` are `weight`
//! and `bias` in the file, and the weight of a `Linear` is transposed.
//!
//! Everything is checked before the first parameter changes: a missing tensor, another shape, a
//! type that is no floating-point number, a value that is not finite, a tensor nobody asked for
//! (the weights of a larger network would otherwise load silently) are errors that name it.
//!
//! ```
//! use burn::tensor::Device;
//! use models::{ResNetConfig, weights};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let folder = tempfile::tempdir()?;
//! let path = folder.path().join("resnet20.safetensors");
//! let device = Device::flex();
//! let trained = ResNetConfig::resnet20(10).init(&device);
//! weights::save(&trained, &path)?;
//!
//! let fresh = ResNetConfig::resnet20(10).init(&device);
//! let model = weights::load(fresh, &path)?;
//!
//! let other = ResNetConfig::resnet32(10).init(&device);
//! let error = weights::load(other, &path).unwrap_err();
//! assert!(error.to_string().contains("layer1.3.conv1.weight"));
//! # Ok(())
//! # }
//! ```

mod checkpoint;
mod error;
mod inspect;
mod load;
mod naming;
mod save;

pub use error::WeightsError;
pub use inspect::config;
pub use load::{LoadOptions, LoadReport, load, load_with};
pub use save::{save, to_bytes};
