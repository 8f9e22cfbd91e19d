//! From recordings to batches of tensors, the same ones for the same seed, epoch and batch number.

use burn::tensor::{Device, Int, Tensor, TensorData};

use super::{SpeechDataset, Utterances};
use crate::data::order::Order;

/// How many frames the sequences of a batch are filled up to, with zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Padding {
    /// So many, in every batch: one shape for all. What is longer loses its end.
    To(usize),
    /// As many as the longest sequence of the batch has: less to compute.
    Longest,
}

/// Some recordings on a device.
#[derive(Clone, Debug)]
pub struct SpeechBatch {
    /// Features, `[batch, time, features]`; zeros after a recording's end.
    pub features: Tensor<3>,
    /// Frames of each recording, `[batch]`, at least 1 and at most `time`.
    pub lengths: Tensor<1, Int>,
    /// Class numbers, `[batch]`.
    pub labels: Tensor<1, Int>,
    /// The same class numbers on the host, for counting hits without a transfer.
    pub targets: Vec<u32>,
}

impl SpeechBatch {
    /// Number of recordings.
    #[must_use]
    pub fn len(&self) -> usize {
        self.targets.len()
    }

    /// Whether there are no recordings; never true for a batch from a [`SpeechLoader`].
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.targets.is_empty()
    }

    /// 1 where a recording has a frame and 0 where it has ended, `[batch, time]`.
    #[must_use]
    pub fn mask(&self) -> Tensor<2> {
        let [batch, time, _] = self.features.dims();
        let device = self.features.device();
        let frames = Tensor::<1, Int>::arange(0..time as i64, &device)
            .unsqueeze::<2>()
            .expand([batch, time]);
        let lengths = self.lengths.clone().unsqueeze_dim::<2>(1);
        frames.lower(lengths.expand([batch, time])).float()
    }

    /// Of each sequence of states `[batch, time, size]`, such as those of a recurrent layer, the one
    /// at the recording's last frame: `[batch, size]`, `y[b] = states[b, lengths[b] - 1]`.
    ///
    /// # Panics
    /// If the states have another batch or time than the features.
    #[must_use]
    pub fn last(&self, states: Tensor<3>) -> Tensor<2> {
        let [batch, time, size] = states.dims();
        let [recordings, frames, _] = self.features.dims();
        assert_eq!(
            [batch, time],
            [recordings, frames],
            "batch and time of the states, and those of the features"
        );
        let last = self.lengths.clone() - 1;
        let last = last.reshape([batch, 1, 1]).expand([batch, 1, size]);
        states.gather(1, last).reshape([batch, size])
    }
}

impl Utterances {
    /// The recordings at `indices` as one batch.
    ///
    /// # Panics
    /// If an index is not below [`len`](Self::len), if there is no index, or `padding` is
    /// `To(0)`.
    #[must_use]
    pub fn batch(&self, indices: &[usize], padding: Padding, device: &Device) -> SpeechBatch {
        let longest = indices.iter().map(|&index| self.frames(index)).max();
        let time = match padding {
            Padding::To(frames) => frames,
            Padding::Longest => longest.unwrap_or(0),
        };
        assert!(
            !indices.is_empty() && time > 0,
            "a batch of {} recordings and {time} frames; both must be positive",
            indices.len()
        );
        let (count, row) = (indices.len(), time * self.features());
        let mut values = vec![0f32; count * row];
        let mut lengths = Vec::with_capacity(count);
        for (to, &index) in values.chunks_exact_mut(row).zip(indices) {
            let from = self.utterance(index);
            let kept = from.len().min(row);
            to[..kept].copy_from_slice(&from[..kept]);
            lengths.push((kept / self.features()) as i32);
        }
        let targets: Vec<u32> = indices.iter().map(|&i| self.labels()[i]).collect();
        let labels: Vec<i32> = targets.iter().map(|&label| label as i32).collect();
        let shape = [count, time, self.features()];
        SpeechBatch {
            features: Tensor::from_data(TensorData::new(values, shape), device),
            lengths: Tensor::from_data(TensorData::new(lengths, [count]), device),
            labels: Tensor::from_data(TensorData::new(labels, [count]), device),
            targets,
        }
    }
}

/// Makes the batches of a split.
///
/// An epoch's order depends on `(seed, epoch)` alone. So a run that stops is resumed bit-equal from
/// an epoch and a batch number ([`resume`](Self::resume)); no generator state is saved.
///
/// All batches have the data set's `max_frames` frames; [`with_padding`](Self::with_padding) makes
/// them as short as they can be.
#[derive(Clone, Debug)]
pub struct SpeechLoader<'a> {
    split: &'a Utterances,
    order: Order,
    padding: Padding,
}

impl<'a> SpeechLoader<'a> {
    /// Shuffled batches of the training split.
    ///
    /// A last batch of a single recording is left out (unless it is the only one), as for images.
    ///
    /// # Panics
    /// If `batch` is zero.
    #[must_use]
    pub fn train(dataset: &'a SpeechDataset, batch: usize, seed: u64) -> Self {
        Self {
            order: Order::shuffled(dataset.train.len(), batch, seed),
            ..Self::eval(dataset, &dataset.train, batch)
        }
    }

    /// Batches of any split in stored order.
    ///
    /// # Panics
    /// If `batch` is zero.
    #[must_use]
    pub fn eval(dataset: &SpeechDataset, split: &'a Utterances, batch: usize) -> Self {
        Self {
            split,
            order: Order::stored(split.len(), batch),
            padding: Padding::To(dataset.config.max_frames),
        }
    }

    /// Replaces the padding.
    #[must_use]
    pub fn with_padding(mut self, padding: Padding) -> Self {
        self.padding = padding;
        self
    }

    /// Number of batches in an epoch, the odd last one included.
    #[must_use]
    pub fn batches(&self) -> usize {
        self.order.batches()
    }

    /// The order in which an epoch visits the recordings.
    #[must_use]
    pub fn order(&self, epoch: usize) -> Vec<usize> {
        self.order.epoch(epoch)
    }

    /// All batches of an epoch.
    #[must_use]
    pub fn epoch(&self, epoch: usize, device: &Device) -> SpeechBatches<'a> {
        self.resume(epoch, 0, device)
    }

    /// The batches of an epoch from number `first` on: exactly those [`epoch`](Self::epoch) would
    /// have given.
    #[must_use]
    pub fn resume(&self, epoch: usize, first: usize, device: &Device) -> SpeechBatches<'a> {
        SpeechBatches {
            order: self.order.epoch(epoch),
            loader: self.clone(),
            next: first,
            device: device.clone(),
        }
    }
}

/// The batches of one epoch, made one at a time.
#[derive(Debug)]
pub struct SpeechBatches<'a> {
    loader: SpeechLoader<'a>,
    order: Vec<usize>,
    next: usize,
    device: Device,
}

impl Iterator for SpeechBatches<'_> {
    type Item = SpeechBatch;

    fn next(&mut self) -> Option<SpeechBatch> {
        let SpeechLoader {
            split,
            order,
            padding,
        } = &self.loader;
        let range = order.range(self.next)?;
        self.next += 1;
        Some(split.batch(&self.order[range], *padding, &self.device))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.loader.batches().saturating_sub(self.next);
        (left, Some(left))
    }
}

impl ExactSizeIterator for SpeechBatches<'_> {}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use crate::data::speech::testing::drawn;

    fn values(batch: &SpeechBatch) -> (Vec<f32>, Vec<i64>, Vec<u32>) {
        (
            batch.features.clone().into_data().try_to_vec().unwrap(),
            ints(batch.lengths.clone()),
            batch.targets.clone(),
        )
    }

    fn ints(tensor: Tensor<1, Int>) -> Vec<i64> {
        tensor.into_data().convert::<i64>().try_to_vec().unwrap()
    }

    #[test]
    fn padding_is_zero_and_lengths_are_true() {
        let data = drawn(23);
        let device = Device::flex();
        for padding in [
            Padding::To(9),
            Padding::Longest,
            Padding::To(3),
            Padding::To(1),
        ] {
            let loader = SpeechLoader::eval(&data, &data.train, 5).with_padding(padding);
            let mut index = 0;
            for batch in loader.epoch(0, &device) {
                let [count, time, features] = batch.features.dims();
                let (all, lengths, targets) = values(&batch);
                assert_eq!(
                    (count, ints(batch.labels.clone()).len()),
                    (batch.len(), count)
                );
                let longest = (index..index + count).map(|i| data.train.frames(i)).max();
                match padding {
                    Padding::To(frames) => assert_eq!(time, frames),
                    Padding::Longest => assert_eq!(Some(time), longest),
                }
                let mask: Vec<f32> = batch.mask().into_data().try_to_vec().unwrap();
                for (b, row) in all.chunks(time * features).enumerate() {
                    let from = data.train.utterance(index);
                    let kept = from.len().min(row.len());
                    assert_eq!(row[..kept], from[..kept]);
                    assert!(row[kept..].iter().all(|&value| value == 0.0));
                    assert_eq!(lengths[b] as usize, kept / features);
                    assert_eq!(targets[b], data.train.labels()[index]);
                    for t in 0..time {
                        let inside = t < kept / features;
                        assert_eq!(mask[b * time + t], f32::from(u8::from(inside)));
                    }
                    index += 1;
                }
            }
            assert_eq!(index, data.train.len());
        }
    }

    #[test]
    fn the_last_state_is_that_of_the_last_frame_and_gradients_go_there() {
        let data = drawn(7);
        let device = Device::flex().autodiff();
        let batch = data.train.batch(&[4, 0, 6], Padding::To(9), &device);
        let states: Vec<f32> = (0..3 * 9 * 4).map(|i| i as f32).collect();
        let states = Tensor::<3>::from_data(TensorData::new(states, [3, 9, 4]), &device);
        let states = states.require_grad();
        let last = batch.last(states.clone());
        let lengths = ints(batch.lengths.clone());
        let wanted: Vec<f32> = (0..12)
            .map(|i| ((i / 4 * 9 + lengths[i / 4] as usize - 1) * 4 + i % 4) as f32)
            .collect();
        assert_eq!(
            last.clone().into_data().try_to_vec::<f32>().unwrap(),
            wanted
        );
        let gradients = last.sum().backward();
        let gradient = states.grad(&gradients).unwrap();
        let gradient: Vec<f32> = gradient.into_data().try_to_vec().unwrap();
        for (i, &value) in gradient.iter().enumerate() {
            let at_end = i / 4 % 9 + 1 == lengths[i / 36] as usize;
            assert_eq!(value, f32::from(u8::from(at_end)), "{i}");
        }
    }

    #[test]
    fn epochs_are_shuffled_by_seed_and_resume_in_the_middle() {
        let data = drawn(53);
        let device = Device::flex();
        let loader = SpeechLoader::train(&data, 10, 7);
        assert_eq!(loader.batches(), 6);
        assert_ne!(loader.order(0), loader.order(1));
        assert_ne!(loader.order(0), SpeechLoader::train(&data, 10, 8).order(0));
        let whole: Vec<_> = loader.epoch(3, &device).map(|b| values(&b)).collect();
        let rest = loader.resume(3, 2, &device);
        assert_eq!(rest.len(), 4);
        let rest: Vec<_> = rest.map(|b| values(&b)).collect();
        assert_eq!(rest, whole[2..]);
        assert_eq!(loader.resume(3, 99, &device).count(), 0);
        let loaders = data.loaders(8, 7);
        assert_eq!(loaders.train.order(2), loader.order(2));
        assert_eq!(
            loaders.test.epoch(0, &device).count(),
            loaders.test.batches()
        );
        assert_eq!(loaders.valid.batches(), 0);
    }

    #[test]
    #[should_panic(expected = "batch and time")]
    fn states_of_another_shape_panic() {
        let data = drawn(3);
        let device = Device::flex();
        let batch = data.train.batch(&[0, 1], Padding::To(9), &device);
        let _ = batch.last(Tensor::zeros([2, 8, 4], &device));
    }
}
