//! MNIST: 60,000 training and 10,000 test images of handwritten digits, 28×28 grey pixels (`LeCun`,
//! Bottou, Bengio, Haffner, *Gradient-based learning applied to document recognition*, 1998).
//!
//! The four IDX files come from `burn-dataset`'s cache, and through its download when they are not
//! there. They are read here, into bytes, with every length checked before it sizes anything.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use burn_dataset::vision::MnistDataset;

use super::cache::Remote;
use super::decode::check_total;
use super::{
    Augment, DataError, ImageDataset, ImageShape, LoadOptions, Normalization, Split,
    balanced_subset,
};

const SHAPE: ImageShape = ImageShape::square(1, 28);
const CLASSES: usize = 10;
/// Folder, images and labels of the training and the test split.
const TRAIN: [&str; 3] = [
    "train",
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
];
const TEST: [&str; 3] = ["test", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"];

/// Mean and deviation of the training images.
#[must_use]
pub fn normalization() -> Normalization {
    Normalization::new([0.1307], [0.3081])
}

/// Loads the set from `options.data` (the four IDX files, in `train` and `test` or side by side),
/// or from the cache, or downloads it.
///
/// # Errors
/// [`DataError::Missing`] if it is nowhere to be had, [`DataError::Idx`] if a file is broken.
pub fn load(options: &LoadOptions) -> Result<ImageDataset, DataError> {
    let dir = match &options.data {
        Some(dir) => dir.clone(),
        None => {
            let remote = Remote {
                dataset: "mnist",
                host: "storage.googleapis.com",
                folder: "mnist",
                download: || {
                    drop(MnistDataset::train());
                    drop(MnistDataset::test());
                },
            };
            let present = |dir: &PathBuf| {
                [TRAIN, TEST].iter().all(|[folder, images, labels]| {
                    [images, labels]
                        .iter()
                        .all(|name| dir.join(folder).join(name).is_file())
                })
            };
            remote.fetch(options.offline, present)?
        }
    };
    let set = ImageDataset {
        name: "mnist".into(),
        classes: (0..CLASSES).map(|digit| digit.to_string()).collect(),
        shape: SHAPE,
        normalization: normalization(),
        augment: Augment::DIGITS,
        train: read_split(&dir, TRAIN, options.limit, options.seed)?,
        valid: Split::empty(SHAPE),
        test: read_split(&dir, TEST, options.test_limit, options.seed)?,
        skipped: Vec::new(),
        notices: Vec::new(),
    };
    Ok(set.with_validation(options.valid_fraction, options.seed))
}

fn read_split(
    dir: &Path,
    [folder, images, labels]: [&str; 3],
    limit: Option<usize>,
    seed: u64,
) -> Result<Split, DataError> {
    let find = |name: &str| {
        let nested = dir.join(folder).join(name);
        if nested.is_file() {
            nested
        } else {
            dir.join(name)
        }
    };
    let (image_path, label_path) = (find(images), find(labels));
    let (count, pixels) = read_idx(&image_path, &[SHAPE.height, SHAPE.width])?;
    let (label_count, labels) = read_idx(&label_path, &[])?;
    let broken = |reason| {
        Err(DataError::Idx {
            path: label_path.clone(),
            reason,
        })
    };
    if count != label_count {
        return broken(format!("{label_count} labels for {count} images"));
    }
    if let Some(at) = labels
        .iter()
        .position(|&label| usize::from(label) >= CLASSES)
    {
        return broken(format!("label {} at {at} is no digit", labels[at]));
    }
    let labels = labels.into_iter().map(u32::from).collect();
    let split = Split::new(SHAPE, pixels, labels)?;
    Ok(match limit {
        Some(limit) if limit < count => {
            split.select(&balanced_subset(split.labels(), CLASSES, limit, seed))
        }
        _ => split,
    })
}

/// Reads an IDX file of bytes whose items have the given dimensions: `(items, data)`.
fn read_idx(path: &Path, item: &[usize]) -> Result<(usize, Vec<u8>), DataError> {
    let broken = |reason: String| DataError::Idx {
        path: path.to_path_buf(),
        reason,
    };
    let mut file = File::open(path).map_err(|e| DataError::io(path, e))?;
    let meta = file.metadata().map_err(|e| DataError::io(path, e))?;
    let mut header = vec![0u8; 8 + 4 * item.len()];
    if !meta.is_file() || meta.len() < header.len() as u64 {
        return Err(broken(format!(
            "{} bytes are too few for an IDX header",
            meta.len()
        )));
    }
    file.read_exact(&mut header)
        .map_err(|e| DataError::io(path, e))?;
    let magic = [0, 0, 8, 1 + item.len() as u8];
    if header[..4] != magic {
        return Err(broken(format!(
            "starts with {:02x?} instead of {magic:02x?}",
            &header[..4]
        )));
    }
    let words: Vec<usize> = header[4..]
        .chunks_exact(4)
        .map(|w| u32::from_be_bytes([w[0], w[1], w[2], w[3]]) as usize)
        .collect();
    let count = words[0];
    if words[1..] != *item {
        return Err(broken(format!(
            "items of {:?} values instead of {item:?}",
            &words[1..]
        )));
    }
    let bytes_each = item.iter().product();
    check_total(count, bytes_each)?;
    let (wanted, found) = (
        (count * bytes_each) as u64,
        meta.len() - header.len() as u64,
    );
    if wanted != found {
        return Err(broken(format!(
            "{count} items need {wanted} bytes, {found} follow the header"
        )));
    }
    // A sparse file may promise more than memory holds, so memory grows with what is read.
    let mut data = Vec::new();
    file.take(wanted)
        .read_to_end(&mut data)
        .map_err(|e| DataError::io(path, e))?;
    if data.len() as u64 != wanted {
        return Err(broken(format!(
            "{wanted} bytes promised, {} read",
            data.len()
        )));
    }
    Ok((count, data))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::skip;
    use std::fs;

    fn idx(count: u32, item: &[u32], data: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0, 0, 8, 1 + item.len() as u8];
        bytes.extend(count.to_be_bytes());
        item.iter().for_each(|d| bytes.extend(d.to_be_bytes()));
        bytes.extend(data);
        bytes
    }

    /// Writes a set in which every pixel of an image is its label.
    fn write_tiny(dir: &Path, train: usize, test: usize, nested: bool) {
        for ([folder, images, labels], count) in [(TRAIN, train), (TEST, test)] {
            let dir = if nested {
                dir.join(folder)
            } else {
                dir.to_path_buf()
            };
            fs::create_dir_all(&dir).unwrap();
            let values: Vec<u8> = (0..count).map(|i| (i % 10) as u8).collect();
            let pixels: Vec<u8> = values.iter().flat_map(|&v| [v; 784]).collect();
            fs::write(dir.join(images), idx(count as u32, &[28, 28], &pixels)).unwrap();
            fs::write(dir.join(labels), idx(count as u32, &[], &values)).unwrap();
        }
    }

    #[test]
    fn a_tiny_set_loads_nested_and_flat() {
        for nested in [true, false] {
            let dir = tempfile::tempdir().unwrap();
            write_tiny(dir.path(), 100, 20, nested);
            let options = LoadOptions {
                limit: Some(50),
                valid_fraction: 0.2,
                data: Some(dir.path().into()),
                ..LoadOptions::default()
            };
            let set = load(&options).unwrap();
            assert_eq!(set.train.class_counts(10), [4; 10]);
            assert_eq!(set.valid.class_counts(10), [1; 10]);
            assert_eq!(set.test.len(), 20);
            assert!(!set.augment.flip);
            for (i, &label) in set.train.labels().iter().enumerate() {
                assert!(set.train.image(i).iter().all(|&v| u32::from(v) == label));
            }
        }
    }

    #[test]
    fn broken_files_are_errors_that_name_the_file() {
        let dir = tempfile::tempdir().unwrap();
        write_tiny(dir.path(), 10, 10, false);
        let good = idx(10, &[28, 28], &[0; 7840]);
        let mut long = good.clone();
        long.push(0);
        let cases = [
            vec![],
            good[..10].to_vec(),
            good[..good.len() - 1].to_vec(),
            long,
            idx(u32::MAX, &[28, 28], &[0; 7840]),
            idx(10, &[28, 27], &[0; 7840]),
            idx(10, &[], &[0; 10]),
            idx(9, &[28, 28], &[0; 9 * 784]),
        ];
        let options = LoadOptions {
            data: Some(dir.path().into()),
            ..LoadOptions::default()
        };
        for bytes in cases {
            fs::write(dir.path().join(TRAIN[1]), bytes).unwrap();
            let error = load(&options).unwrap_err();
            assert!(!error.is_missing());
            assert!(
                matches!(error, DataError::Idx { .. } | DataError::TooLarge { .. }),
                "{error}"
            );
        }
        fs::write(dir.path().join(TRAIN[1]), good).unwrap();
        fs::write(dir.path().join(TRAIN[2]), idx(10, &[], &[10; 10])).unwrap();
        assert!(load(&options).unwrap_err().to_string().contains("no digit"));
        fs::remove_file(dir.path().join(TRAIN[2])).unwrap();
        assert!(load(&options).unwrap_err().to_string().contains(TRAIN[2]));
    }

    #[test]
    fn the_real_set_has_its_published_counts() {
        let options = LoadOptions {
            valid_fraction: 0.0,
            offline: true,
            ..LoadOptions::default()
        };
        let set = match load(&options) {
            Err(error) if error.is_missing() => {
                return skip("mnist::the_real_set", "data", &error.to_string());
            }
            set => set.unwrap(),
        };
        assert_eq!((set.train.len(), set.test.len()), (60_000, 10_000));
        assert_eq!(set.train.labels()[..5], [5, 0, 4, 1, 9]);
        assert_eq!(
            set.test.class_counts(10),
            [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
        );
    }
}
