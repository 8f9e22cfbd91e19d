//! What CIFAR-10 and CIFAR-100 share: class folders of 32×32 colour photographs.

use std::io::ErrorKind;
use std::path::Path;

use super::cache::Remote;
use super::class_folders::{Listing, list};
use super::decode::{Fit, decode_all};
use super::{
    Augment, DataError, ImageDataset, ImageShape, LoadOptions, Normalization, SkippedFile, Split,
};
use crate::progress::Progress;

/// The server of both archives.
pub(crate) const HOST: &str = "s3.amazonaws.com";
/// Training and test images of the complete sets.
const COMPLETE: (usize, usize) = (50_000, 10_000);
const SHAPE: ImageShape = ImageShape::square(3, 32);

/// One of the two sets.
pub(crate) struct Cifar {
    pub(crate) remote: Remote,
    pub(crate) classes: usize,
    pub(crate) normalization: Normalization,
}

impl Cifar {
    /// Loads from `options.data`, or from the cache (after a download if need be).
    pub(crate) fn load(&self, options: &LoadOptions) -> Result<ImageDataset, DataError> {
        if let Some(dir) = &options.data {
            return self.load_from(dir, None, options);
        }
        let dir = self.remote.fetch(options.offline, |dir| dir.exists())?;
        self.load_from(&dir, Some(COMPLETE), options)
    }

    /// Loads `dir/{train,test}/<class>/*`, checking the counts where the set must be complete.
    fn load_from(
        &self,
        dir: &Path,
        complete: Option<(usize, usize)>,
        options: &LoadOptions,
    ) -> Result<ImageDataset, DataError> {
        let listed = |name: &str, expected: Option<usize>| {
            let listing = list(&dir.join(name));
            let Some(expected) = expected else {
                return listing;
            };
            // A folder that is absent or empty was left behind by the same interruption.
            let found = match &listing {
                Ok(listing) => listing.files.len(),
                Err(DataError::Empty { .. }) => 0,
                Err(DataError::Io { source, .. }) if source.kind() == ErrorKind::NotFound => 0,
                Err(_) => return listing,
            };
            if found == expected {
                return listing;
            }
            Err(DataError::Incomplete {
                path: dir.to_path_buf(),
                found,
                expected,
            })
        };
        let train = listed("train", complete.map(|c| c.0))?;
        let mut test = listed("test", complete.map(|c| c.1))?;
        if train.classes.len() != self.classes {
            return Err(DataError::Options(format!(
                "{} holds {} class folders, but {} has {}; other sets load with --dataset folder",
                dir.join("train").display(),
                train.classes.len(),
                self.remote.dataset,
                self.classes
            )));
        }
        test.number_after(&train.classes, &dir.join("test"))?;
        let classes = train.classes.clone();
        let (train, mut skipped) = self.decode(dir, train, options.limit, options)?;
        let (test, more) = self.decode(dir, test, options.test_limit, options)?;
        skipped.extend(more);
        let set = ImageDataset {
            name: self.remote.dataset.into(),
            classes,
            shape: SHAPE,
            normalization: self.normalization.clone(),
            augment: Augment::CIFAR,
            train,
            valid: Split::empty(SHAPE),
            test,
            skipped,
            notices: Vec::new(),
        };
        Ok(set.with_validation(options.valid_fraction, options.seed))
    }

    fn decode(
        &self,
        dir: &Path,
        mut listing: Listing,
        limit: Option<usize>,
        options: &LoadOptions,
    ) -> Result<(Split, Vec<SkippedFile>), DataError> {
        listing.limit(limit, options.seed);
        let what = format!("decoding {}", self.remote.dataset);
        let progress = Progress::when(options.progress, &what, listing.files.len() as u64);
        let decoded = decode_all(dir, listing.files, SHAPE, Fit::Exact, &progress);
        progress.finish();
        decoded
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::testing::write_image;

    /// Writes a CIFAR-like folder: `classes` classes, some images each.
    pub(crate) fn write_tiny(dir: &Path, classes: usize, train: usize, test: usize) {
        for class in 0..classes {
            for (name, count) in [("train", train), ("test", test)] {
                for i in 0..count {
                    let path = dir.join(format!("{name}/class{class:03}/{i:04}.png"));
                    write_image(&path, 32, 32, class as u8);
                }
            }
        }
    }

    fn tiny(classes: usize) -> Cifar {
        Cifar {
            remote: Remote {
                dataset: "tiny",
                host: HOST,
                folder: "tiny",
                download: || {},
            },
            classes,
            normalization: Normalization::new([0.5; 3], [0.25; 3]),
        }
    }

    #[test]
    fn a_limited_tiny_set_is_balanced_and_reproducible() {
        let dir = tempfile::tempdir().unwrap();
        write_tiny(dir.path(), 4, 10, 3);
        let options = LoadOptions {
            limit: Some(20),
            valid_fraction: 0.2,
            data: Some(dir.path().into()),
            ..LoadOptions::default()
        };
        let set = tiny(4).load(&options).unwrap();
        assert_eq!(set.train.class_counts(4), [4; 4]);
        assert_eq!(set.valid.class_counts(4), [1; 4]);
        assert_eq!(set.test.class_counts(4), [3; 4]);
        for split in [&set.train, &set.valid, &set.test] {
            for (i, &label) in split.labels().iter().enumerate() {
                assert_eq!(u32::from(split.image(i)[0]), label);
            }
        }
        let again = tiny(4).load(&options).unwrap();
        assert_eq!((set.train, set.valid), (again.train, again.valid));
    }

    #[test]
    fn an_interrupted_unpacking_and_a_wrong_set_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        write_tiny(dir.path(), 2, 3, 1);
        let options = LoadOptions::default();
        let error = tiny(2)
            .load_from(dir.path(), Some((7, 2)), &options)
            .unwrap_err();
        assert!(
            matches!(
                error,
                DataError::Incomplete {
                    found: 6,
                    expected: 7,
                    ..
                }
            ),
            "{error}"
        );
        assert!(!error.is_missing());
        let absent = dir.path().join("absent");
        let error = tiny(2)
            .load_from(&absent, Some((7, 2)), &options)
            .unwrap_err();
        assert!(
            matches!(error, DataError::Incomplete { found: 0, .. }),
            "{error}"
        );
        let error = tiny(3).load_from(dir.path(), None, &options).unwrap_err();
        assert!(error.to_string().contains("2 class folders"), "{error}");
    }

    #[test]
    fn broken_and_misshapen_files_are_skipped_by_name() {
        let dir = tempfile::tempdir().unwrap();
        write_tiny(dir.path(), 2, 3, 1);
        std::fs::write(dir.path().join("train/class000/0001.png"), b"broken").unwrap();
        write_image(&dir.path().join("train/class001/0002.png"), 31, 32, 1);
        let set = tiny(2)
            .load_from(dir.path(), None, &LoadOptions::default())
            .unwrap();
        assert_eq!(set.skipped.len(), 2);
        assert!(set.skipped[1].reason.contains("31x32"));
        assert!(set.summary().contains("skipped 2") && set.summary().contains("0001.png"));
    }
}
