//! The batches of a [`Loader`] for Burn's trainer.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use burn::data::dataloader::{DataLoader, DataLoaderIterator, Progress};
use burn::tensor::Device;
use burn_dataset::DatasetError;

use super::{Batch, Batches, ImageDataset, Loader};

/// A split of a data set, as Burn's trainer wants it.
///
/// The trainer asks for the batches once per epoch. Burn's own loader shuffles with a generator that
/// starts anew in every process, so that a resumed run sees the images in another order; this one
/// counts the epochs, from a first one that the caller names, and its order depends on seed and
/// epoch alone.
pub struct TrainerLoader {
    data: Arc<ImageDataset>,
    batch: usize,
    /// The seed for the training split, nothing for the validation split.
    seed: Option<u64>,
    epoch: AtomicUsize,
    device: Device,
}

impl TrainerLoader {
    /// The training split, shuffled and augmented; the first epoch that is asked for is number
    /// `epoch`, from 0. Batches are those of [`Loader::train`].
    #[must_use]
    pub fn train(
        data: &Arc<ImageDataset>,
        batch: usize,
        seed: u64,
        epoch: usize,
        device: &Device,
    ) -> Self {
        Self {
            seed: Some(seed),
            epoch: AtomicUsize::new(epoch),
            ..Self::valid(data, batch, device)
        }
    }

    /// The validation split in stored order.
    #[must_use]
    pub fn valid(data: &Arc<ImageDataset>, batch: usize, device: &Device) -> Self {
        Self {
            data: data.clone(),
            batch,
            seed: None,
            epoch: AtomicUsize::new(0),
            device: device.clone(),
        }
    }

    /// Batches of an epoch.
    #[must_use]
    pub fn batches(&self) -> usize {
        self.loader().batches()
    }

    fn loader(&self) -> Loader<'_> {
        match self.seed {
            Some(seed) => Loader::train(&self.data, self.batch, seed),
            None => Loader::eval(&self.data, &self.data.valid, self.batch),
        }
    }

    fn with(&self, data: Arc<ImageDataset>, device: &Device) -> Arc<dyn DataLoader<Batch>> {
        Arc::new(Self {
            data,
            batch: self.batch,
            seed: self.seed,
            epoch: AtomicUsize::new(self.epoch.load(Ordering::Relaxed)),
            device: device.clone(),
        })
    }
}

impl fmt::Debug for TrainerLoader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TrainerLoader")
            .field("data", &self.data.name)
            .field("batch", &self.batch)
            .field("seed", &self.seed)
            .field("epoch", &self.epoch)
            .finish_non_exhaustive()
    }
}

impl DataLoader<Batch> for TrainerLoader {
    fn iter<'a>(&'a self) -> Box<dyn DataLoaderIterator<Batch> + 'a> {
        let epoch = self.epoch.fetch_add(1, Ordering::Relaxed);
        Box::new(Epoch {
            batches: self.loader().epoch(epoch, &self.device),
            done: 0,
            total: self.num_items(),
        })
    }

    fn num_items(&self) -> usize {
        match self.seed {
            Some(_) => self.data.train.len(),
            None => self.data.valid.len(),
        }
    }

    fn to_device(&self, device: &Device) -> Arc<dyn DataLoader<Batch>> {
        self.with(self.data.clone(), device)
    }

    fn slice(&self, start: usize, end: usize) -> Arc<dyn DataLoader<Batch>> {
        let indices: Vec<usize> = (start..end).collect();
        let mut data = ImageDataset::clone(&self.data);
        match self.seed {
            Some(_) => data.train = data.train.select(&indices),
            None => data.valid = data.valid.select(&indices),
        }
        self.with(Arc::new(data), &self.device)
    }
}

struct Epoch<'a> {
    batches: Batches<'a>,
    done: usize,
    total: usize,
}

impl Iterator for Epoch<'_> {
    type Item = Result<Batch, DatasetError>;

    fn next(&mut self) -> Option<Self::Item> {
        let batch = self.batches.next()?;
        self.done += batch.len();
        if self.batches.len() == 0 {
            // A single last image is left out.
            self.done = self.total;
        }
        Some(Ok(batch))
    }
}

impl DataLoaderIterator<Batch> for Epoch<'_> {
    fn progress(&self) -> Progress {
        Progress::new(self.done, self.total, Some("items".into()))
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use crate::data::{LoadOptions, Source, load};

    fn targets(loader: &dyn DataLoader<Batch>) -> Vec<u32> {
        let mut batches = loader.iter();
        let mut all = Vec::new();
        for batch in batches.by_ref() {
            all.extend(batch.unwrap().targets);
        }
        assert!(batches.progress().is_completed());
        all
    }

    #[test]
    fn a_resumed_trainer_sees_the_epochs_it_would_have_seen() {
        let options = LoadOptions {
            limit: Some(60),
            test_limit: Some(10),
            size: Some(8),
            ..LoadOptions::default()
        };
        let data = Arc::new(load(Source::Shapes, &options).unwrap());
        let device = Device::flex();
        let through = TrainerLoader::train(&data, 7, 5, 0, &device).to_device(&device);
        let [_, second, third] = [(); 3].map(|()| targets(&*through));
        assert_ne!(second, third);
        let resumed = TrainerLoader::train(&data, 7, 5, 2, &device);
        assert_eq!(targets(&resumed), third);
        assert_eq!(resumed.batches(), Loader::train(&data, 7, 5).batches());

        let valid = TrainerLoader::valid(&data, 4, &device);
        assert_eq!(targets(&valid), data.valid.labels());
        assert_eq!(targets(&*valid.slice(1, 4)), data.valid.labels()[1..4]);
    }
}
