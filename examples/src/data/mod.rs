//! Data in memory: where they come from, how they are split, and how they become batches.
//!
//! [`load`] is the way in: it finds a named source, decodes it once (in parallel), draws a seeded
//! class-balanced subset when a limit is given, and carves a validation split out of the training
//! images. When a well-known data set can be neither found nor downloaded, it returns the drawn
//! [`shapes`] set and a notice that says so. [`Loader`] turns a split into batches.
//! Recordings are in [`speech`], sentences in [`text`].
//!
//! ```
//! use examples::data::{LoadOptions, Loader, Source, load};
//!
//! let options = LoadOptions { limit: Some(100), ..LoadOptions::default() };
//! let data = load(Source::Shapes, &options)?;
//! assert_eq!(data.train.len() + data.valid.len(), 100);
//!
//! let loader = Loader::train(&data, 32, options.seed);
//! let device = burn::tensor::Device::flex();
//! let batch = loader.epoch(0, &device).next().unwrap();
//! assert_eq!(batch.images.dims(), [32, 3, 32, 32]);
//! # Ok::<(), examples::data::DataError>(())
//! ```

mod augment;
mod batch;
mod cache;
mod cifar;
pub mod cifar10;
pub mod cifar100;
mod class_folders;
mod dataset;
mod decode;
mod error;
pub mod folder;
mod load;
pub mod mnist;
mod order;
mod seed;
pub mod shapes;
pub mod speech;
mod split;
pub mod text;
mod trainer;

pub use augment::{Augment, Normalization};
pub use batch::{Batch, Batches, Loader};
pub(crate) use cache::own_folder as cache_folder;
pub use dataset::{ImageDataset, ImageShape, SkippedFile, Split};
pub use error::DataError;
pub use load::{LoadOptions, Source, load, load_exactly};
pub(crate) use seed::mix;
pub use split::{balanced_subset, carve};
pub use trainer::{TrainerData, TrainerLoader};
