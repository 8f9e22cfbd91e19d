//! CIFAR-100: 50,000 training and 10,000 test photographs of 32×32 pixels in 100 classes
//! (Krizhevsky, *Learning Multiple Layers of Features from Tiny Images*, 2009).
//!
//! The images come from `burn-dataset`'s cache, and through its download when they are not there.

use burn_dataset::vision::{CifarDataset, CifarType};

use super::cache::Remote;
use super::cifar::{Cifar, HOST};
use super::{DataError, ImageDataset, LoadOptions, Normalization};

/// Mean and deviation of the training images.
#[must_use]
pub fn normalization() -> Normalization {
    Normalization::new([0.5071, 0.4865, 0.4409], [0.2673, 0.2564, 0.2762])
}

/// Loads the set from `options.data` (`DIR/{train,test}/<class>/*`), or from the cache, or
/// downloads it.
///
/// # Errors
/// [`DataError::Missing`] if it is nowhere to be had, others if what is there is broken.
pub fn load(options: &LoadOptions) -> Result<ImageDataset, DataError> {
    let remote = Remote {
        dataset: "cifar100",
        host: HOST,
        folder: "cifar100",
        download: || drop(CifarDataset::new(CifarType::Cifar100)),
    };
    Cifar {
        remote,
        classes: 100,
        normalization: normalization(),
    }
    .load(options)
}
