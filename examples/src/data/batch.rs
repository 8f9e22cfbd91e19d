//! From a split to batches of tensors, the same ones for the same seed, epoch and batch number.

use burn::tensor::{Device, Int, Tensor, TensorData};
use rayon::prelude::*;

use super::augment::Transform;
use super::order::Order;
use super::{Augment, ImageDataset, ImageShape, Split};

/// Below so many values a batch is made on one thread.
const PARALLEL_FROM: usize = 1 << 16;

/// Some images on a device.
#[derive(Clone, Debug)]
pub struct Batch {
    /// Normalised pixels, `[batch, channels, height, width]`.
    pub images: Tensor<4>,
    /// Class numbers, `[batch]`.
    pub labels: Tensor<1, Int>,
    /// The same class numbers on the host, for counting hits without a transfer.
    pub targets: Vec<u32>,
}

impl Batch {
    /// Number of images.
    #[must_use]
    pub fn len(&self) -> usize {
        self.targets.len()
    }

    /// Whether there are no images; never true for a batch from a [`Loader`].
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.targets.is_empty()
    }
}

/// Makes the batches of a split.
///
/// An epoch's order depends on `(seed, epoch)` alone, and an image's flip and crop on
/// `(seed, epoch, image)` alone. So a run that stops is resumed bit-equal from an epoch and a batch
/// number ([`resume`](Self::resume)); no generator state is saved.
#[derive(Clone, Debug)]
pub struct Loader<'a> {
    split: &'a Split,
    tables: Vec<[f32; 256]>,
    augment: Augment,
    order: Order,
    seed: u64,
}

impl<'a> Loader<'a> {
    /// Shuffled and augmented batches of the training split.
    ///
    /// A last batch of a single image is left out (unless it is the only one): batch
    /// normalisation has no variance to learn from it.
    ///
    /// # Panics
    /// If `batch` is zero.
    #[must_use]
    pub fn train(dataset: &'a ImageDataset, batch: usize, seed: u64) -> Self {
        Self {
            augment: dataset.augment,
            order: Order::shuffled(dataset.train.len(), batch, seed),
            seed,
            ..Self::eval(dataset, &dataset.train, batch)
        }
    }

    /// Batches of any split in stored order, normalised only.
    ///
    /// # Panics
    /// If `batch` is zero, or the normalisation has other channels than the images.
    #[must_use]
    pub fn eval(dataset: &ImageDataset, split: &'a Split, batch: usize) -> Self {
        let order = Order::stored(split.len(), batch);
        let tables = dataset.normalization.tables();
        assert_eq!(
            tables.len(),
            split.shape().channels,
            "channels to normalise"
        );
        let augment = Augment::NONE;
        Self {
            split,
            tables,
            augment,
            order,
            seed: 0,
        }
    }

    /// Replaces the augmentation.
    #[must_use]
    pub fn with_augment(mut self, augment: Augment) -> Self {
        self.augment = augment;
        self
    }

    /// Number of batches in an epoch, the odd last one included.
    #[must_use]
    pub fn batches(&self) -> usize {
        self.order.batches()
    }

    /// The order in which an epoch visits the images.
    #[must_use]
    pub fn order(&self, epoch: usize) -> Vec<usize> {
        self.order.epoch(epoch)
    }

    /// All batches of an epoch.
    #[must_use]
    pub fn epoch(&self, epoch: usize, device: &Device) -> Batches<'a> {
        self.resume(epoch, 0, device)
    }

    /// The batches of an epoch from number `first` on: exactly those [`epoch`](Self::epoch) would
    /// have given.
    #[must_use]
    pub fn resume(&self, epoch: usize, first: usize, device: &Device) -> Batches<'a> {
        let order = self.order(epoch);
        Batches {
            loader: self.clone(),
            order,
            epoch,
            next: first,
            device: device.clone(),
        }
    }

    fn make(&self, indices: &[usize], epoch: usize, device: &Device) -> Batch {
        let ImageShape {
            channels,
            height,
            width,
        } = self.split.shape();
        let bytes = self.split.shape().bytes();
        let mut pixels = vec![0f32; indices.len() * bytes];
        let fill = |(to, &index): (&mut [f32], &usize)| {
            let transform = if self.augment == Augment::NONE {
                Transform::default()
            } else {
                self.augment.draw(self.seed, epoch as u64, index as u64)
            };
            transform.apply(
                self.split.shape(),
                &self.tables,
                self.split.image(index),
                to,
            );
        };
        if pixels.len() < PARALLEL_FROM {
            pixels.chunks_exact_mut(bytes).zip(indices).for_each(fill);
        } else {
            pixels
                .par_chunks_exact_mut(bytes)
                .zip(indices)
                .for_each(fill);
        }
        let targets: Vec<u32> = indices.iter().map(|&i| self.split.labels()[i]).collect();
        let labels: Vec<i32> = targets.iter().map(|&label| label as i32).collect();
        let count = indices.len();
        Batch {
            images: Tensor::from_data(
                TensorData::new(pixels, [count, channels, height, width]),
                device,
            ),
            labels: Tensor::from_data(TensorData::new(labels, [count]), device),
            targets,
        }
    }
}

/// The batches of one epoch, made one at a time.
#[derive(Debug)]
pub struct Batches<'a> {
    loader: Loader<'a>,
    order: Vec<usize>,
    epoch: usize,
    next: usize,
    device: Device,
}

impl Iterator for Batches<'_> {
    type Item = Batch;

    fn next(&mut self) -> Option<Batch> {
        let range = self.loader.order.range(self.next)?;
        self.next += 1;
        Some(
            self.loader
                .make(&self.order[range], self.epoch, &self.device),
        )
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.loader.batches().saturating_sub(self.next);
        (left, Some(left))
    }
}

impl ExactSizeIterator for Batches<'_> {}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use crate::data::{LoadOptions, Source, load};

    fn data(limit: usize) -> ImageDataset {
        let options = LoadOptions {
            limit: Some(limit),
            test_limit: Some(20),
            size: Some(8),
            valid_fraction: 0.0,
            ..LoadOptions::default()
        };
        load(Source::Shapes, &options).unwrap()
    }

    fn values(batch: &Batch) -> (Vec<f32>, Vec<u32>) {
        (
            batch.images.clone().into_data().try_to_vec().unwrap(),
            batch.targets.clone(),
        )
    }

    #[test]
    fn an_epoch_visits_every_image_once_in_a_new_order() {
        let data = data(53);
        let loader = Loader::train(&data, 10, 7);
        let device = Device::flex();
        assert_eq!(loader.batches(), 6);
        let sizes: Vec<usize> = loader.epoch(0, &device).map(|b| b.len()).collect();
        assert_eq!(sizes, [10, 10, 10, 10, 10, 3]);
        let mut order = loader.order(0);
        assert_ne!(order, loader.order(1));
        assert_eq!(order, loader.order(0));
        assert_ne!(order, Loader::train(&data, 10, 8).order(0));
        order.sort_unstable();
        assert_eq!(order, (0..53).collect::<Vec<_>>());
    }

    #[test]
    fn resuming_in_the_middle_gives_the_same_batches() {
        let data = data(53);
        let loader = Loader::train(&data, 10, 7);
        let device = Device::flex();
        let whole: Vec<_> = loader.epoch(3, &device).map(|b| values(&b)).collect();
        let rest = loader.resume(3, 2, &device);
        assert_eq!(rest.len(), 4);
        let rest: Vec<_> = rest.map(|b| values(&b)).collect();
        assert_eq!(rest, whole[2..]);
        assert_eq!(loader.resume(3, 99, &device).count(), 0);
    }

    #[test]
    fn a_lone_last_image_is_left_out_of_training_only() {
        let data = data(21);
        assert_eq!(Loader::train(&data, 10, 7).batches(), 2);
        assert_eq!(Loader::eval(&data, &data.train, 10).batches(), 3);
        let one = data.train.select(&[4]);
        let lone = ImageDataset { train: one, ..data };
        assert_eq!(Loader::train(&lone, 10, 7).batches(), 1);
    }

    #[test]
    fn labels_follow_their_images_and_evaluation_changes_nothing() {
        let data = data(30);
        let device = Device::flex();
        let loader = Loader::eval(&data, &data.test, 7);
        let mut seen = 0;
        for batch in loader.epoch(0, &device) {
            let labels: Vec<i64> = batch
                .labels
                .clone()
                .into_data()
                .convert::<i64>()
                .try_to_vec()
                .unwrap();
            assert_eq!(
                labels,
                batch
                    .targets
                    .iter()
                    .map(|&t| i64::from(t))
                    .collect::<Vec<_>>()
            );
            let (pixels, targets) = values(&batch);
            for (i, pixels) in pixels.chunks(data.shape.bytes()).enumerate() {
                assert_eq!(targets[i], data.test.labels()[seen + i]);
                for (j, (&got, &byte)) in pixels.iter().zip(data.test.image(seen + i)).enumerate() {
                    let c = j / 64;
                    let (mean, std) = (data.normalization.mean[c], data.normalization.std[c]);
                    assert_eq!(got, (f32::from(byte) / 255.0 - mean) / std);
                }
            }
            seen += batch.len();
        }
        assert_eq!(seen, data.test.len());
    }

    #[test]
    fn large_batches_made_in_parallel_equal_small_ones() {
        let data = data(600);
        let device = Device::flex();
        let augment = Augment::CIFAR;
        let large = Loader::train(&data, 600, 5).with_augment(augment);
        let small = Loader::train(&data, 50, 5).with_augment(augment);
        let (large, _) = values(&large.epoch(1, &device).next().unwrap());
        let small: Vec<f32> = small.epoch(1, &device).flat_map(|b| values(&b).0).collect();
        assert!(large.len() > PARALLEL_FROM);
        assert_eq!(large, small);
    }
}
