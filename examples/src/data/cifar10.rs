//! CIFAR-10: 50,000 training and 10,000 test photographs of 32×32 pixels in 10 classes
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
    Normalization::new([0.4914, 0.4822, 0.4465], [0.2470, 0.2435, 0.2616])
}

/// Loads the set from `options.data` (`DIR/{train,test}/<class>/*`), or from the cache, or
/// downloads it.
///
/// # Errors
/// [`DataError::Missing`] if it is nowhere to be had, others if what is there is broken.
pub fn load(options: &LoadOptions) -> Result<ImageDataset, DataError> {
    let remote = Remote {
        dataset: "cifar10",
        host: HOST,
        folder: "cifar10",
        download: || drop(CifarDataset::new(CifarType::Cifar10)),
    };
    Cifar {
        remote,
        classes: 10,
        normalization: normalization(),
    }
    .load(options)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::skip;

    #[test]
    fn the_real_set_loads_balanced_and_matches_its_constants() {
        let options = LoadOptions {
            limit: Some(2000),
            test_limit: Some(200),
            offline: true,
            ..LoadOptions::default()
        };
        let set = match load(&options) {
            Err(error) if error.is_missing() => {
                return skip("cifar10::the_real_set_loads", "data", &error.to_string());
            }
            set => set.unwrap(),
        };
        assert_eq!(set.classes[0], "airplane");
        assert_eq!(set.train.class_counts(10), [180; 10]);
        assert_eq!(set.valid.class_counts(10), [20; 10]);
        assert_eq!(set.test.class_counts(10), [20; 10]);
        assert!(set.skipped.is_empty());
        for c in 0..3 {
            let values = (0..set.train.len())
                .flat_map(|i| &set.train.image(i)[c * 1024..(c + 1) * 1024])
                .map(|&v| f64::from(v) / 255.0);
            let mean = values.sum::<f64>() / (set.train.len() * 1024) as f64;
            // 1800 images: image means deviate by about 0.12, so the mean of means by 0.003.
            assert!(
                (mean - f64::from(set.normalization.mean[c])).abs() < 0.015,
                "{c}: {mean}"
            );
        }
    }
}
