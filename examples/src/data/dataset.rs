//! Decoded images with their labels.

use std::fmt;
use std::path::PathBuf;

use super::{Augment, DataError, Normalization, carve};

/// Channels, height and width of every image of a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageShape {
    /// Colour planes: 1 or 3.
    pub channels: usize,
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
}

impl ImageShape {
    /// A square image.
    #[must_use]
    pub const fn square(channels: usize, size: usize) -> Self {
        Self {
            channels,
            height: size,
            width: size,
        }
    }

    /// Bytes of one image.
    #[must_use]
    pub const fn bytes(self) -> usize {
        self.channels * self.height * self.width
    }
}

impl fmt::Display for ImageShape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}x{}", self.channels, self.height, self.width)
    }
}

/// Images of one purpose (training, validation or test): planar bytes, one image after another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Split {
    shape: ImageShape,
    pixels: Vec<u8>,
    labels: Vec<u32>,
}

impl Split {
    /// Wraps decoded images: `pixels` holds `labels.len()` images in channel, row, column order.
    ///
    /// # Errors
    /// [`DataError::Options`] if the number of bytes does not fit the number of labels.
    pub fn new(shape: ImageShape, pixels: Vec<u8>, labels: Vec<u32>) -> Result<Self, DataError> {
        if labels.len().checked_mul(shape.bytes()) != Some(pixels.len()) {
            return Err(DataError::Options(format!(
                "{} labels of {shape} images do not fit {} bytes of pixels",
                labels.len(),
                pixels.len()
            )));
        }
        Ok(Self {
            shape,
            pixels,
            labels,
        })
    }

    /// A split without images.
    #[must_use]
    pub fn empty(shape: ImageShape) -> Self {
        Self {
            shape,
            pixels: Vec::new(),
            labels: Vec::new(),
        }
    }

    /// Shape of each image.
    #[must_use]
    pub fn shape(&self) -> ImageShape {
        self.shape
    }

    /// Number of images.
    #[must_use]
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there are no images.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// The bytes of image `index`, plane after plane.
    ///
    /// # Panics
    /// If `index` is not below [`len`](Self::len).
    #[must_use]
    pub fn image(&self, index: usize) -> &[u8] {
        let bytes = self.shape.bytes();
        &self.pixels[index * bytes..(index + 1) * bytes]
    }

    /// The class number of every image.
    #[must_use]
    pub fn labels(&self) -> &[u32] {
        &self.labels
    }

    /// Images per class, for `classes` classes.
    ///
    /// # Panics
    /// If a label is not below `classes`.
    #[must_use]
    pub fn class_counts(&self, classes: usize) -> Vec<usize> {
        let mut counts = vec![0; classes];
        for &label in &self.labels {
            counts[label as usize] += 1;
        }
        counts
    }

    /// Copies the images at `indices`, in that order.
    ///
    /// # Panics
    /// If an index is not below [`len`](Self::len).
    #[must_use]
    pub fn select(&self, indices: &[usize]) -> Self {
        let mut pixels = Vec::with_capacity(indices.len() * self.shape.bytes());
        let mut labels = Vec::with_capacity(indices.len());
        for &index in indices {
            pixels.extend_from_slice(self.image(index));
            labels.push(self.labels[index]);
        }
        Self {
            shape: self.shape,
            pixels,
            labels,
        }
    }
}

/// A file that could not be used, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SkippedFile {
    /// The file.
    pub path: PathBuf,
    /// The decoder's or the system's answer.
    pub reason: String,
}

impl SkippedFile {
    /// A line with their number and one for each of the first five, each after a line break;
    /// nothing where none was skipped.
    pub(crate) fn list(files: &[Self]) -> String {
        let mut text = String::new();
        if !files.is_empty() {
            text.push_str(&format!("\nskipped {} unreadable files:", files.len()));
        }
        for file in files.iter().take(5) {
            text.push_str(&format!("\n  {}: {}", file.path.display(), file.reason));
        }
        if files.len() > 5 {
            text.push_str(&format!("\n  and {} more", files.len() - 5));
        }
        text
    }
}

/// A labelled image set with its three splits, ready for [`Loader`](super::Loader).
///
/// The validation split is carved out of the training images: checkpoints are chosen on it, so
/// the test split stays unseen until the end.
#[derive(Clone, Debug)]
pub struct ImageDataset {
    /// The source's name, such as `cifar10` or `shapes`.
    pub name: String,
    /// Class names, in label order.
    pub classes: Vec<String>,
    /// Shape of each image.
    pub shape: ImageShape,
    /// Per-channel mean and deviation.
    pub normalization: Normalization,
    /// What training does to images by default.
    pub augment: Augment,
    /// Images to train on.
    pub train: Split,
    /// Images to choose a checkpoint on.
    pub valid: Split,
    /// Images for the final accuracy.
    pub test: Split,
    /// Files that were left out.
    pub skipped: Vec<SkippedFile>,
    /// What the reader of the results must know, such as a fallback; print it.
    pub notices: Vec<String>,
}

impl ImageDataset {
    /// Number of classes.
    #[must_use]
    pub fn num_classes(&self) -> usize {
        self.classes.len()
    }

    /// Moves `fraction` of every class of the training images into the validation split.
    #[must_use]
    pub(crate) fn with_validation(mut self, fraction: f64, seed: u64) -> Self {
        if fraction > 0.0 {
            let (train, valid) = carve(self.train.labels(), self.num_classes(), fraction, seed);
            self.valid = self.train.select(&valid);
            self.train = self.train.select(&train);
        }
        self
    }

    /// One line on what was loaded, then one per notice and per skipped file (the first five).
    #[must_use]
    pub fn summary(&self) -> String {
        let mut text = format!(
            "{}: {} classes, {} images; {} train, {} validation, {} test",
            self.name,
            self.num_classes(),
            self.shape,
            self.train.len(),
            self.valid.len(),
            self.test.len()
        );
        for notice in &self.notices {
            text.push_str(&format!("\nnotice: {notice}"));
        }
        text.push_str(&SkippedFile::list(&self.skipped));
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_split_rejects_pixels_that_do_not_fit_its_labels() {
        let shape = ImageShape::square(3, 2);
        assert!(Split::new(shape, vec![0; 23], vec![0, 1]).is_err());
        let split = Split::new(shape, (0..24).collect(), vec![0, 1]).unwrap();
        assert_eq!(split.image(1), (12..24).collect::<Vec<u8>>());
        let swapped = split.select(&[1, 0, 1]);
        assert_eq!(swapped.labels(), [1, 0, 1]);
        assert_eq!(swapped.image(1), split.image(0));
        assert_eq!(swapped.class_counts(2), [1, 2]);
    }
}
