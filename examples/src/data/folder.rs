//! Your own images: one folder per class.
//!
//! Two layouts are understood: `DIR/train/<class>/*` with `DIR/test/<class>/*` (or `val`, and both
//! when there are both), and plain `DIR/<class>/*`, from which a fifth of every class is held out
//! as the test split. PNG and JPEG files are scaled to one size; broken ones are skipped by name.

use std::path::{Path, PathBuf};

use super::class_folders::{Listing, list};
use super::decode::{Fit, decode_all};
use super::{
    Augment, DataError, ImageDataset, ImageShape, LoadOptions, Normalization, SkippedFile, Split,
    carve,
};
use crate::progress::Progress;

/// Edge of the scaled images unless [`LoadOptions::size`] says otherwise.
pub const DEFAULT_SIZE: usize = 64;
/// Part of every class held out for testing where the folder has no test images of its own.
pub const TEST_FRACTION: f64 = 0.2;
/// Largest edge that can be asked for.
const MAX_SIZE: usize = 4096;

/// The usual constants of photographs (those of `ImageNet`), for three channels or for
/// one, their mean.
#[must_use]
pub fn normalization(channels: usize) -> Normalization {
    if channels == 1 {
        return Normalization::new([0.449], [0.226]);
    }
    Normalization::new([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
}

/// Loads the images below `options.data`.
///
/// # Errors
/// [`DataError::Options`] without a folder, with a size of zero or beyond 4096, or with fewer than
/// two classes; [`DataError::Empty`], [`DataError::AllBroken`], [`DataError::UnknownClass`],
/// [`DataError::TooLarge`] or [`DataError::Io`] after what lies in the folder.
pub fn load(options: &LoadOptions) -> Result<ImageDataset, DataError> {
    let Some(dir) = &options.data else {
        return Err(DataError::Options(
            "--dataset folder needs --data DIR".into(),
        ));
    };
    let size = options.size.unwrap_or(DEFAULT_SIZE);
    if size == 0 || size > MAX_SIZE {
        return Err(DataError::Options(format!(
            "images of {size}x{size} pixels; choose an edge between 1 and {MAX_SIZE}"
        )));
    }
    let shape = ImageShape::square(if options.grey { 1 } else { 3 }, size);
    let mut notices = Vec::new();
    let mut parts = Parts::find(dir, options, &mut notices)?;
    if parts.train.classes.len() < 2 {
        return Err(DataError::Options(format!(
            "{} holds the single class {:?}; telling classes apart needs two",
            dir.display(),
            parts.train.classes[0]
        )));
    }
    let classes = parts.train.classes.clone();
    parts.train.limit(options.limit, options.seed);
    parts.test.limit(options.test_limit, options.seed);
    let mut skipped = Vec::new();
    let mut decode = |listing: Listing| decode_part(dir, listing, shape, options, &mut skipped);
    let train = decode(parts.train)?;
    let test = decode(parts.test)?;
    let valid = parts.valid.map(decode).transpose()?;
    let own_valid = valid.is_some();
    let set = ImageDataset {
        name: dir
            .file_name()
            .map_or("folder".into(), |n| n.to_string_lossy().into_owned()),
        classes,
        shape,
        normalization: normalization(shape.channels),
        augment: Augment {
            flip: true,
            pad: size / 8,
        },
        train,
        valid: valid.unwrap_or_else(|| Split::empty(shape)),
        test,
        skipped,
        notices,
    };
    let fraction = if own_valid {
        0.0
    } else {
        options.valid_fraction
    };
    Ok(set.with_validation(fraction, options.seed))
}

/// The files of each split; no validation files mean that they come from the training images.
struct Parts {
    train: Listing,
    valid: Option<Listing>,
    test: Listing,
}

impl Parts {
    fn find(
        dir: &Path,
        options: &LoadOptions,
        notices: &mut Vec<String>,
    ) -> Result<Self, DataError> {
        let sub = |names: &[&str]| -> Option<PathBuf> {
            names
                .iter()
                .map(|name| dir.join(name))
                .find(|path| path.is_dir())
        };
        let mut listed = |path: &Path| {
            let listing = list(path)?;
            if !listing.empty.is_empty() {
                let names = listing.empty.join(", ");
                notices.push(format!(
                    "no images in class folders of {}: {names}",
                    path.display()
                ));
            }
            Ok::<_, DataError>(listing)
        };
        let Some(train_dir) = sub(&["train"]) else {
            let all = listed(dir)?;
            let parts = hold_out_test(all, options.seed);
            notices.push(format!(
                "{} has no train folder: {:.0} % of every class are held out for testing",
                dir.display(),
                TEST_FRACTION * 100.0
            ));
            return Ok(parts);
        };
        let train = listed(&train_dir)?;
        let mut after = |path: PathBuf| {
            let mut listing = listed(&path)?;
            listing.number_after(&train.classes, &path)?;
            Ok::<_, DataError>(listing)
        };
        let valid_dir = sub(&["val", "valid", "validation"]);
        match (sub(&["test"]), valid_dir) {
            (Some(test), valid) => {
                let test = after(test)?;
                let valid = valid.map(after).transpose()?;
                Ok(Self { train, valid, test })
            }
            (None, Some(test)) => {
                let test = after(test)?;
                Ok(Self {
                    train,
                    valid: None,
                    test,
                })
            }
            (None, None) => {
                notices.push(format!(
                    "{} has no test folder: {:.0} % of the training images are held out instead",
                    dir.display(),
                    TEST_FRACTION * 100.0
                ));
                Ok(hold_out_test(train, options.seed))
            }
        }
    }
}

fn hold_out_test(all: Listing, seed: u64) -> Parts {
    // Another seed than the validation split's, or both would take the same images in turn.
    let (kept, held) = carve(&all.labels(), all.classes.len(), TEST_FRACTION, !seed);
    let pick = |indices: Vec<usize>| Listing {
        classes: all.classes.clone(),
        empty: Vec::new(),
        files: indices.into_iter().map(|i| all.files[i].clone()).collect(),
    };
    Parts {
        train: pick(kept),
        valid: None,
        test: pick(held),
    }
}

fn decode_part(
    dir: &Path,
    listing: Listing,
    shape: ImageShape,
    options: &LoadOptions,
    skipped: &mut Vec<SkippedFile>,
) -> Result<Split, DataError> {
    let progress = Progress::when(options.progress, "decoding", listing.files.len() as u64);
    let result = decode_all(dir, listing.files, shape, Fit::CropMiddle, &progress);
    progress.finish();
    let (split, broken) = result?;
    skipped.extend(broken);
    Ok(split)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::write_image;
    use std::fs;

    fn options(dir: &Path) -> LoadOptions {
        let data = Some(dir.to_path_buf());
        LoadOptions {
            data,
            size: Some(16),
            valid_fraction: 0.25,
            ..LoadOptions::default()
        }
    }

    fn write(dir: &Path, class: &str, count: usize, value: u8) {
        for i in 0..count {
            let extension = if i % 2 == 0 { "png" } else { "jpg" };
            write_image(
                &dir.join(format!("{class}/{i}.{extension}")),
                20 + i as u32,
                24,
                value,
            );
        }
    }

    #[test]
    fn a_plain_folder_gets_all_three_splits() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "cat", 10, 10);
        write(dir.path(), "dog", 10, 200);
        fs::write(dir.path().join("dog/99.png"), b"broken").unwrap();
        fs::create_dir(dir.path().join("eel")).unwrap();
        let set = load(&options(dir.path())).unwrap();
        assert_eq!(set.classes, ["cat", "dog"]);
        assert_eq!(set.shape, ImageShape::square(3, 16));
        assert_eq!(set.skipped.len(), 1);
        assert_eq!(set.train.len() + set.valid.len() + set.test.len(), 20);
        assert!(set.valid.class_counts(2).iter().all(|&n| n == 2));
        assert!(
            set.notices.iter().any(|n| n.contains("eel")),
            "{:?}",
            set.notices
        );
        assert!(
            set.notices.iter().any(|n| n.contains("held out")),
            "{:?}",
            set.notices
        );
        for split in [&set.train, &set.valid, &set.test] {
            for (i, &label) in split.labels().iter().enumerate() {
                assert_eq!(split.image(i)[0] > 100, label == 1);
            }
        }
        let grey = load(&LoadOptions {
            grey: true,
            ..options(dir.path())
        })
        .unwrap();
        assert_eq!((grey.shape.channels, grey.normalization.mean.len()), (1, 1));
        let again = load(&options(dir.path())).unwrap();
        assert_eq!((&set.train, &set.test), (&again.train, &again.test));
    }

    #[test]
    fn train_val_and_test_folders_are_taken_as_they_are() {
        let dir = tempfile::tempdir().unwrap();
        for (part, count) in [("train", 4), ("val", 2), ("test", 1)] {
            for class in ["a", "b"] {
                write(&dir.path().join(part), class, count, 5);
            }
        }
        let set = load(&options(dir.path())).unwrap();
        assert_eq!(
            (set.train.len(), set.valid.len(), set.test.len()),
            (8, 4, 2)
        );
        fs::remove_dir_all(dir.path().join("test")).unwrap();
        let set = load(&options(dir.path())).unwrap();
        assert_eq!(
            (set.train.len(), set.valid.len(), set.test.len()),
            (6, 2, 4)
        );
        fs::remove_dir_all(dir.path().join("val")).unwrap();
        let set = load(&options(dir.path())).unwrap();
        assert_eq!(
            (set.train.len(), set.valid.len(), set.test.len()),
            (4, 2, 2)
        );
    }

    #[test]
    fn bad_folders_are_typed_errors() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(
            load(&options(dir.path())),
            Err(DataError::Empty { .. })
        ));
        let absent = dir.path().join("absent");
        assert!(matches!(load(&options(&absent)), Err(DataError::Io { .. })));
        write(dir.path(), "only", 3, 0);
        assert!(matches!(
            load(&options(dir.path())),
            Err(DataError::Options(_))
        ));
        let none = LoadOptions::default();
        assert!(load(&none).unwrap_err().to_string().contains("--data"));
        let zero = LoadOptions {
            size: Some(0),
            ..options(dir.path())
        };
        assert!(matches!(load(&zero), Err(DataError::Options(_))));
        for name in ["x/1.png", "y/1.png", "y/2.jpg"] {
            let path = dir.path().join("bad").join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, b"no image").unwrap();
        }
        let error = load(&options(&dir.path().join("bad"))).unwrap_err();
        assert!(matches!(error, DataError::AllBroken { .. }), "{error}");
    }
}
