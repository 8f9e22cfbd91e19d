//! From sentences to batches of tensors, the same ones for the same seed, epoch and batch number.

use burn::tensor::{Device, Int, Tensor, TensorData};
use models::TextCnn;
use rand::Rng;
use rand::seq::SliceRandom;

use super::{Sentences, TextDataset, Vocabulary};
use crate::data::order::Order;
use crate::data::seed::{Purpose, mix, rng};

/// Batches among which sentences are sorted by length, so that a batch has little padding.
const POOL: usize = 20;

/// Some sentences on a device.
#[derive(Clone, Debug)]
pub struct TextBatch {
    /// Word numbers, `[batch, length]`, as long as the longest sentence; padding behind the others.
    pub words: Tensor<2, Int>,
    /// Words of each sentence.
    pub lengths: Vec<usize>,
    /// Class numbers, `[batch]`.
    pub labels: Tensor<1, Int>,
    /// The same class numbers on the host, for counting hits without a transfer.
    pub targets: Vec<u32>,
}

impl TextBatch {
    /// Number of sentences.
    #[must_use]
    pub fn len(&self) -> usize {
        self.targets.len()
    }

    /// Whether there are no sentences; never true for a batch from a [`TextLoader`].
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.targets.is_empty()
    }
}

impl Sentences {
    /// The sentences at `indices` as one batch.
    ///
    /// # Panics
    /// If an index is not below [`len`](Self::len), or if there is no index.
    #[must_use]
    pub fn batch(&self, indices: &[usize], device: &Device) -> TextBatch {
        let sentences = indices.iter().map(|&index| self.sentence(index).to_vec());
        let targets = indices.iter().map(|&index| self.labels()[index]);
        batch(sentences.collect(), targets.collect(), device)
    }
}

fn batch(sentences: Vec<Vec<u32>>, targets: Vec<u32>, device: &Device) -> TextBatch {
    let lengths: Vec<usize> = sentences.iter().map(Vec::len).collect();
    let longest = lengths.iter().copied().max().unwrap_or(0);
    assert!(
        longest > 0,
        "a batch of {} sentences without words",
        lengths.len()
    );
    let mut words = vec![TextCnn::PADDING as i32; lengths.len() * longest];
    for (to, from) in words.chunks_exact_mut(longest).zip(&sentences) {
        for (to, &from) in to.iter_mut().zip(from) {
            *to = from as i32;
        }
    }
    let labels: Vec<i32> = targets.iter().map(|&label| label as i32).collect();
    let count = lengths.len();
    TextBatch {
        words: Tensor::from_data(TensorData::new(words, [count, longest]), device),
        labels: Tensor::from_data(TensorData::new(labels, [count]), device),
        lengths,
        targets,
    }
}

/// Makes the batches of a split.
///
/// A training batch holds sentences of similar length, so that padding costs little: shuffled
/// sentences are sorted by length within every twenty batches, and the batches are shuffled again.
///
/// An epoch's order depends on `(seed, epoch)` alone, and the words that it drops from a sentence on
/// `(seed, epoch, sentence)` alone. So a run that stops is resumed bit-equal from an epoch and a batch
/// number ([`resume`](Self::resume)); no generator state is saved.
#[derive(Clone, Debug)]
pub struct TextLoader<'a> {
    split: &'a Sentences,
    order: Order,
    batch: usize,
    /// Whether batches hold sentences of similar length.
    by_length: bool,
    seed: u64,
    word_dropout: f64,
}

impl<'a> TextLoader<'a> {
    /// Shuffled batches of the training split.
    ///
    /// A last batch of a single sentence is left out (unless it is the only one), as for images.
    ///
    /// # Panics
    /// If `batch` is zero.
    #[must_use]
    pub fn train(dataset: &'a TextDataset, batch: usize, seed: u64) -> Self {
        Self {
            order: Order::shuffled(dataset.train.len(), batch, seed),
            by_length: true,
            seed,
            ..Self::eval(&dataset.train, batch)
        }
    }

    /// Batches of any split in stored order.
    ///
    /// # Panics
    /// If `batch` is zero.
    #[must_use]
    pub fn eval(split: &'a Sentences, batch: usize) -> Self {
        Self {
            split,
            order: Order::stored(split.len(), batch),
            batch,
            by_length: false,
            seed: 0,
            word_dropout: 0.0,
        }
    }

    /// Makes each word an unknown one with this probability, so that the network learns what to do
    /// with those (Iyyer et al., *Deep Unordered Composition*, 2015, drop words likewise).
    #[must_use]
    pub fn with_word_dropout(mut self, probability: f64) -> Self {
        self.word_dropout = probability;
        self
    }

    /// Number of batches in an epoch, the odd last one included.
    #[must_use]
    pub fn batches(&self) -> usize {
        self.order.batches()
    }

    /// The order in which an epoch visits the sentences.
    #[must_use]
    pub fn order(&self, epoch: usize) -> Vec<usize> {
        let mut order = self.order.epoch(epoch);
        if !self.by_length {
            return order;
        }
        for pool in order.chunks_mut(POOL * self.batch) {
            pool.sort_by_key(|&index| self.split.sentence(index).len());
        }
        // An odd last batch stays the last one.
        let whole = order.len() / self.batch;
        let mut batches: Vec<usize> = (0..whole).collect();
        batches.shuffle(&mut rng(mix(self.seed), Purpose::Shuffle, epoch as u64));
        let taken = batches.into_iter().map(|batch| batch * self.batch);
        let mut mixed: Vec<usize> = taken
            .flat_map(|first| order[first..first + self.batch].iter().copied())
            .collect();
        mixed.extend(&order[whole * self.batch..]);
        mixed
    }

    /// All batches of an epoch.
    #[must_use]
    pub fn epoch(&self, epoch: usize, device: &Device) -> TextBatches<'a> {
        self.resume(epoch, 0, device)
    }

    /// The batches of an epoch from number `first` on: exactly those [`epoch`](Self::epoch) would
    /// have given.
    #[must_use]
    pub fn resume(&self, epoch: usize, first: usize, device: &Device) -> TextBatches<'a> {
        TextBatches {
            order: self.order(epoch),
            loader: self.clone(),
            epoch,
            next: first,
            device: device.clone(),
        }
    }

    fn make(&self, indices: &[usize], epoch: usize, device: &Device) -> TextBatch {
        if self.word_dropout <= 0.0 {
            return self.split.batch(indices, device);
        }
        let seed = mix(self.seed ^ mix(epoch as u64));
        let dropped = |&index: &usize| -> Vec<u32> {
            let mut random = rng(seed, Purpose::Augment, index as u64);
            let mut keep = |word| match random.random_bool(self.word_dropout.min(1.0)) {
                true => Vocabulary::UNKNOWN,
                false => word,
            };
            let words = self.split.sentence(index).iter();
            words.map(|&word| keep(word)).collect()
        };
        let targets = indices.iter().map(|&index| self.split.labels()[index]);
        let sentences = indices.iter().map(dropped).collect();
        batch(sentences, targets.collect(), device)
    }
}

/// The batches of one epoch, made one at a time.
#[derive(Debug)]
pub struct TextBatches<'a> {
    loader: TextLoader<'a>,
    order: Vec<usize>,
    epoch: usize,
    next: usize,
    device: Device,
}

impl Iterator for TextBatches<'_> {
    type Item = TextBatch;

    fn next(&mut self) -> Option<TextBatch> {
        let range = self.loader.order.range(self.next)?;
        self.next += 1;
        let indices = &self.order[range];
        Some(self.loader.make(indices, self.epoch, &self.device))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.loader.batches().saturating_sub(self.next);
        (left, Some(left))
    }
}

impl ExactSizeIterator for TextBatches<'_> {}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use crate::data::LoadOptions;
    use crate::data::text::{TextConfig, drawn};

    fn data(count: usize) -> TextDataset {
        let options = LoadOptions {
            limit: Some(count),
            test_limit: Some(7),
            valid_fraction: 0.0,
            ..LoadOptions::default()
        };
        drawn::load(&options, &TextConfig::default()).unwrap()
    }

    fn values(batch: &TextBatch) -> (Vec<i64>, Vec<u32>) {
        let words = batch.words.clone().into_data().convert::<i64>();
        (words.try_to_vec().unwrap(), batch.targets.clone())
    }

    #[test]
    fn sentences_are_padded_behind_their_end() {
        let data = data(23);
        let device = Device::flex();
        let mut index = 0;
        for batch in TextLoader::eval(&data.train, 5).epoch(0, &device) {
            let [count, time] = batch.words.dims();
            assert_eq!((count, batch.labels.dims()), (batch.len(), [count]));
            assert_eq!(batch.lengths.iter().max(), Some(&time));
            let (words, targets) = values(&batch);
            for (b, row) in words.chunks(time).enumerate() {
                let sentence = data.train.sentence(index);
                assert_eq!(batch.lengths[b], sentence.len());
                let wanted = sentence.iter().map(|&word| i64::from(word));
                assert!(row[..sentence.len()].iter().copied().eq(wanted));
                assert!(row[sentence.len()..].iter().all(|&word| word == 0));
                assert_eq!(targets[b], data.train.labels()[index]);
                index += 1;
            }
        }
        assert_eq!(index, data.train.len());
    }

    #[test]
    fn epochs_are_shuffled_by_seed_and_resume_in_the_middle() {
        let data = data(53);
        let device = Device::flex();
        for dropout in [0.0, 0.3] {
            let loader = TextLoader::train(&data, 10, 7).with_word_dropout(dropout);
            let all = |epoch| -> Vec<_> {
                let batches = loader.epoch(epoch, &device);
                batches.map(|batch| values(&batch)).collect()
            };
            let whole = all(3);
            assert_eq!((whole.len(), loader.batches()), (6, 6));
            assert_ne!(whole, all(4));
            assert_eq!(whole, all(3));
            let rest = loader.resume(3, 2, &device);
            assert_eq!(rest.len(), 4);
            let rest: Vec<_> = rest.map(|batch| values(&batch)).collect();
            assert_eq!(rest, whole[2..]);
        }
        let mut order = TextLoader::train(&data, 10, 7).order(0);
        assert_ne!(order, TextLoader::train(&data, 10, 8).order(0));
        order.sort_unstable();
        assert_eq!(order, (0..53).collect::<Vec<_>>());
    }

    #[test]
    fn training_batches_have_little_padding_and_evaluation_keeps_the_order() {
        let data = data(403);
        let device = Device::flex();
        let padded = |loader: &TextLoader| -> usize {
            let batches = loader.epoch(2, &device);
            batches
                .map(|batch| batch.words.dims().iter().product::<usize>())
                .sum()
        };
        let words: usize = (0..403).map(|i| data.train.sentence(i).len()).sum();
        let trained = padded(&TextLoader::train(&data, 20, 7));
        assert!(trained < words * 6 / 5, "{trained} for {words} words");
        assert!(trained < padded(&TextLoader::eval(&data.train, 20)));
        let stored = TextLoader::eval(&data.train, 20).order(2);
        assert_eq!(stored, (0..403).collect::<Vec<_>>());
    }

    #[test]
    fn a_part_of_the_words_is_dropped() {
        let data = data(400);
        let device = Device::flex();
        let count = |dropout| {
            let loader = TextLoader::train(&data, 100, 7).with_word_dropout(dropout);
            let batches = loader.epoch(0, &device);
            let words: Vec<i64> = batches.flat_map(|batch| values(&batch).0).collect();
            let unknown = words.iter().filter(|&&word| word == 1).count();
            let all = words.iter().filter(|&&word| word != 0).count();
            (unknown as f64, all as f64)
        };
        let (before, all) = count(0.0);
        let (dropped, same) = count(0.25);
        assert_eq!(all, same);
        // Four deviations of so many throws.
        let expected = before + 0.25 * (all - before);
        assert!((dropped - expected).abs() < 4.0 * (all * 0.25 * 0.75).sqrt());
        assert_eq!(count(1.0), (all, all));
    }
}
