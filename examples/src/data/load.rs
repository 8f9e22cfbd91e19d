//! The way in: a named source, with the drawn set standing in where no data can be had.

use std::fmt;
use std::path::PathBuf;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use super::{DataError, ImageDataset, cifar10, cifar100, folder, mnist, shapes};

/// Where images come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// CIFAR-10: 60,000 photographs of 32x32 pixels in ten classes
    Cifar10,
    /// CIFAR-100: the same in a hundred classes
    Cifar100,
    /// MNIST: 70,000 handwritten digits of 28x28 grey pixels
    Mnist,
    /// Your own images with --data DIR: a folder per class, in DIR or in DIR/train and DIR/test
    Folder,
    /// Ten drawn classes; needs no download
    Shapes,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cifar10 => "cifar10",
            Self::Cifar100 => "cifar100",
            Self::Mnist => "mnist",
            Self::Folder => "folder",
            Self::Shapes => "shapes",
        })
    }
}

/// How to load a set.
#[derive(Clone, Debug, PartialEq)]
pub struct LoadOptions {
    /// The folder of the images. For the known sets it replaces the cache.
    pub data: Option<PathBuf>,
    /// At most so many training images, validation included: a seeded, class-balanced choice made
    /// before anything is decoded.
    pub limit: Option<usize>,
    /// At most so many test images, chosen likewise.
    pub test_limit: Option<usize>,
    /// Part of every class of the training images that becomes the validation split.
    pub valid_fraction: f64,
    /// Seed of the choices and of the drawn set.
    pub seed: u64,
    /// Edge of the images, for [`Source::Folder`] and [`Source::Shapes`].
    pub size: Option<usize>,
    /// One channel instead of three, for the same two sources.
    pub grey: bool,
    /// Use what is on this machine; download nothing.
    pub offline: bool,
    /// Show the decoding.
    pub progress: bool,
}

impl Default for LoadOptions {
    /// Everything, a tenth of the training images for validation, seed 0, silently.
    fn default() -> Self {
        Self {
            data: None,
            limit: None,
            test_limit: None,
            valid_fraction: 0.1,
            seed: 0,
            size: None,
            grey: false,
            offline: false,
            progress: false,
        }
    }
}

impl LoadOptions {
    /// Refuses numbers that leave nothing to do.
    pub(crate) fn check(&self) -> Result<(), DataError> {
        if !(0.0..1.0).contains(&self.valid_fraction) {
            return Err(DataError::Options(format!(
                "the validation part must lie in [0, 1), got {}",
                self.valid_fraction
            )));
        }
        if self.limit == Some(0) || self.test_limit == Some(0) {
            return Err(DataError::Options(
                "a limit of 0 leaves nothing to do".into(),
            ));
        }
        Ok(())
    }
}

/// Loads a source; when a known set can be neither found nor downloaded, draws
/// [`shapes`] of the same size and channels instead and puts a notice into
/// [`ImageDataset::notices`].
///
/// A folder that was named (`options.data`) is never replaced: if it cannot be loaded, that is an
/// error.
///
/// # Errors
/// Those of [`load_exactly`], except [`DataError::Missing`].
pub fn load(source: Source, options: &LoadOptions) -> Result<ImageDataset, DataError> {
    load_or(source, options, load_exactly)
}

fn load_or(
    source: Source,
    options: &LoadOptions,
    loader: impl Fn(Source, &LoadOptions) -> Result<ImageDataset, DataError>,
) -> Result<ImageDataset, DataError> {
    match loader(source, options) {
        Err(error) if error.is_missing() => {
            // Shaped like the images it replaces, so that the same network takes them.
            let size = if source == Source::Mnist { 28 } else { 32 };
            let grey = source == Source::Mnist;
            let options = LoadOptions {
                size: Some(size),
                grey,
                ..options.clone()
            };
            let mut set = load_exactly(Source::Shapes, &options)?;
            set.notices.push(format!(
                "training on the drawn set `shapes` instead of {source}; its accuracies say \
                 nothing about {source}. Why: {error}"
            ));
            Ok(set)
        }
        result => result,
    }
}

/// Loads a source, or says why it cannot be loaded.
///
/// # Errors
/// [`DataError::Missing`] if a known set is nowhere to be had, [`DataError::Options`] for options
/// that make no sense, others for data that are broken.
pub fn load_exactly(source: Source, options: &LoadOptions) -> Result<ImageDataset, DataError> {
    options.check()?;
    match source {
        Source::Cifar10 => cifar10::load(options),
        Source::Cifar100 => cifar100::load(options),
        Source::Mnist => mnist::load(options),
        Source::Folder => folder::load(options),
        Source::Shapes => shapes::load(options),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_set_is_replaced_by_shapes_and_said_so() {
        let options = LoadOptions {
            limit: Some(40),
            test_limit: Some(10),
            ..LoadOptions::default()
        };
        let missing = |_: Source, _: &LoadOptions| {
            Err(DataError::Missing {
                dataset: "cifar100",
                tried: vec!["not in the cache".into()],
                help: "Point --data at a copy".into(),
            })
        };
        let set = load_or(Source::Cifar100, &options, missing).unwrap();
        assert_eq!(set.name, "shapes");
        assert!(
            set.summary().contains("instead of cifar100"),
            "{}",
            set.summary()
        );
        assert!(set.notices[0].contains("not in the cache"));
        assert_eq!(set.shape.to_string(), "3x32x32");
        let set = load_or(Source::Mnist, &options, |source, options| match source {
            Source::Mnist => missing(source, options),
            _ => load_exactly(source, options),
        });
        assert_eq!(set.unwrap().shape.to_string(), "1x28x28");
    }

    #[test]
    fn a_named_folder_is_never_replaced() {
        let dir = tempfile::tempdir().unwrap();
        for source in [
            Source::Cifar10,
            Source::Cifar100,
            Source::Mnist,
            Source::Folder,
        ] {
            let data = Some(dir.path().join("absent"));
            let options = LoadOptions {
                data,
                ..LoadOptions::default()
            };
            assert!(load(source, &options).is_err(), "{source}");
        }
    }

    #[test]
    fn senseless_options_are_errors() {
        for valid_fraction in [-0.1, 1.0, f64::NAN] {
            let options = LoadOptions {
                valid_fraction,
                ..LoadOptions::default()
            };
            assert!(matches!(
                load(Source::Shapes, &options),
                Err(DataError::Options(_))
            ));
        }
        let options = LoadOptions {
            limit: Some(0),
            ..LoadOptions::default()
        };
        assert!(load(Source::Shapes, &options).is_err());
    }

    #[test]
    fn names_round_trip_through_the_command_line_and_json() {
        for source in Source::value_variants() {
            let name = source.to_string();
            assert_eq!(Source::from_str(&name, false).as_ref(), Ok(source));
            assert_eq!(
                serde_json::to_string(source).unwrap(),
                format!("\"{name}\"")
            );
        }
    }
}
