//! The batches of a [`Loader`] or a [`SpeechLoader`] for Burn's trainer.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use burn::data::dataloader::{DataLoader, DataLoaderIterator, Progress};
use burn::tensor::Device;
use burn_dataset::DatasetError;

use super::speech::{SpeechBatch, SpeechDataset, SpeechLoader};
use super::{Batch, ImageDataset, Loader};

/// A data set whose training and validation splits Burn's trainer can be fed with.
///
/// `seed` says which split is meant: training, shuffled by the seed, or with `None` validation, in
/// stored order.
pub trait TrainerData: Clone + Send + Sync + 'static {
    /// What a model gets at each step.
    type Batch: 'static;

    /// The set's name.
    fn name(&self) -> &str;

    /// Items of the split.
    fn items(&self, seed: Option<u64>) -> usize;

    /// Items of a batch.
    fn batch_items(batch: &Self::Batch) -> usize;

    /// Batches of an epoch of the split.
    fn batches(&self, batch: usize, seed: Option<u64>) -> usize;

    /// The batches of an epoch, at most `batch` items each.
    fn epoch<'a>(
        &'a self,
        batch: usize,
        seed: Option<u64>,
        epoch: usize,
        device: &Device,
    ) -> Box<dyn ExactSizeIterator<Item = Self::Batch> + 'a>;

    /// The same set with only these items in the split.
    #[must_use]
    fn select(&self, indices: &[usize], seed: Option<u64>) -> Self;
}

/// Implements [`TrainerData`] for a set with such batches and such a loader of its splits.
macro_rules! trainer_data {
    ($set:ty, $batch:ty, $loader:ident) => {
        impl TrainerData for $set {
            type Batch = $batch;

            fn name(&self) -> &str {
                &self.name
            }

            fn items(&self, seed: Option<u64>) -> usize {
                seed.map_or(self.valid.len(), |_| self.train.len())
            }

            fn batch_items(batch: &$batch) -> usize {
                batch.len()
            }

            fn batches(&self, batch: usize, seed: Option<u64>) -> usize {
                match seed {
                    Some(seed) => $loader::train(self, batch, seed).batches(),
                    None => $loader::eval(self, &self.valid, batch).batches(),
                }
            }

            fn epoch<'a>(
                &'a self,
                batch: usize,
                seed: Option<u64>,
                epoch: usize,
                device: &Device,
            ) -> Box<dyn ExactSizeIterator<Item = $batch> + 'a> {
                let loader = match seed {
                    Some(seed) => $loader::train(self, batch, seed),
                    None => $loader::eval(self, &self.valid, batch),
                };
                Box::new(loader.epoch(epoch, device))
            }

            fn select(&self, indices: &[usize], seed: Option<u64>) -> Self {
                let mut data = self.clone();
                match seed {
                    Some(_) => data.train = data.train.select(indices),
                    None => data.valid = data.valid.select(indices),
                }
                data
            }
        }
    };
}

trainer_data!(ImageDataset, Batch, Loader);
trainer_data!(SpeechDataset, SpeechBatch, SpeechLoader);

/// A split of a data set, as Burn's trainer wants it.
///
/// The trainer asks for the batches once per epoch. Burn's own loader shuffles with a generator that
/// starts anew in every process, so that a resumed run sees the items in another order; this one
/// counts the epochs, from a first one that the caller names, and its order depends on seed and
/// epoch alone.
pub struct TrainerLoader<D: TrainerData = ImageDataset> {
    data: Arc<D>,
    batch: usize,
    /// The seed for the training split, nothing for the validation split.
    seed: Option<u64>,
    epoch: AtomicUsize,
    device: Device,
}

impl<D: TrainerData> TrainerLoader<D> {
    /// The training split, shuffled and augmented; the first epoch that is asked for is number
    /// `epoch`, from 0. Batches are those of [`Loader::train`] or [`SpeechLoader::train`].
    #[must_use]
    pub fn train(data: &Arc<D>, batch: usize, seed: u64, epoch: usize, device: &Device) -> Self {
        Self {
            seed: Some(seed),
            epoch: AtomicUsize::new(epoch),
            ..Self::valid(data, batch, device)
        }
    }

    /// The validation split in stored order.
    #[must_use]
    pub fn valid(data: &Arc<D>, batch: usize, device: &Device) -> Self {
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
        self.data.batches(self.batch, self.seed)
    }

    fn with(&self, data: Arc<D>, device: &Device) -> Arc<dyn DataLoader<D::Batch>> {
        Arc::new(Self {
            data,
            batch: self.batch,
            seed: self.seed,
            epoch: AtomicUsize::new(self.epoch.load(Ordering::Relaxed)),
            device: device.clone(),
        })
    }
}

impl<D: TrainerData> fmt::Debug for TrainerLoader<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TrainerLoader")
            .field("data", &self.data.name())
            .field("batch", &self.batch)
            .field("seed", &self.seed)
            .field("epoch", &self.epoch)
            .finish_non_exhaustive()
    }
}

impl<D: TrainerData> DataLoader<D::Batch> for TrainerLoader<D> {
    fn iter<'a>(&'a self) -> Box<dyn DataLoaderIterator<D::Batch> + 'a> {
        let epoch = self.epoch.fetch_add(1, Ordering::Relaxed);
        Box::new(Epoch::<D> {
            batches: self.data.epoch(self.batch, self.seed, epoch, &self.device),
            done: 0,
            total: self.num_items(),
        })
    }

    fn num_items(&self) -> usize {
        self.data.items(self.seed)
    }

    fn to_device(&self, device: &Device) -> Arc<dyn DataLoader<D::Batch>> {
        self.with(self.data.clone(), device)
    }

    fn slice(&self, start: usize, end: usize) -> Arc<dyn DataLoader<D::Batch>> {
        let indices: Vec<usize> = (start..end).collect();
        self.with(
            Arc::new(self.data.select(&indices, self.seed)),
            &self.device,
        )
    }
}

struct Epoch<'a, D: TrainerData> {
    batches: Box<dyn ExactSizeIterator<Item = D::Batch> + 'a>,
    done: usize,
    total: usize,
}

impl<D: TrainerData> Iterator for Epoch<'_, D> {
    type Item = Result<D::Batch, DatasetError>;

    fn next(&mut self) -> Option<Self::Item> {
        let batch = self.batches.next()?;
        self.done += D::batch_items(&batch);
        if self.batches.len() == 0 {
            // A single last item is left out.
            self.done = self.total;
        }
        Some(Ok(batch))
    }
}

impl<D: TrainerData> DataLoaderIterator<D::Batch> for Epoch<'_, D> {
    fn progress(&self) -> Progress {
        Progress::new(self.done, self.total, Some("items".into()))
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use crate::data::speech::testing::drawn;
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

    #[test]
    fn recordings_resume_alike() {
        let mut data = drawn(25);
        data.valid = data.train.select(&[3, 1, 4]);
        let data = Arc::new(data);
        let device = Device::flex();
        let items = |loader: &dyn DataLoader<SpeechBatch>| -> Vec<Vec<u32>> {
            let mut batches = loader.iter();
            let all = batches.by_ref().map(|batch| batch.unwrap().targets);
            let all = all.collect();
            assert!(batches.progress().is_completed());
            all
        };
        let through = TrainerLoader::train(&data, 8, 5, 0, &device);
        let [first, second] = [(); 2].map(|()| items(&through));
        assert_ne!(first, second);
        assert_eq!(
            items(&TrainerLoader::train(&data, 8, 5, 1, &device)),
            second
        );
        // The 25th recording would be a batch of its own.
        assert_eq!((through.batches(), through.num_items()), (3, 25));
        let valid = TrainerLoader::valid(&data, 2, &device);
        assert_eq!(items(&valid).concat(), data.valid.labels());
        assert_eq!(
            items(&*valid.slice(1, 3)).concat(),
            data.valid.labels()[1..]
        );
    }
}
