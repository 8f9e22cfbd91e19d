//! The order in which epochs visit the items of a split, and where their batches begin and end.

use std::ops::Range;

use rand::seq::SliceRandom;

use super::seed::{Purpose, rng};

/// Order and batches of the epochs over a split; both depend on `(seed, epoch)` alone.
#[derive(Clone, Debug)]
pub(crate) struct Order {
    items: usize,
    batch: usize,
    /// The smallest last batch that is not left out.
    smallest: usize,
    /// The seed of shuffled epochs; nothing for the stored order.
    seed: Option<u64>,
}

impl Order {
    /// Shuffled epochs. A last batch of a single item is left out, unless it is the only one.
    ///
    /// # Panics
    /// If `batch` is zero.
    pub(crate) fn shuffled(items: usize, batch: usize, seed: u64) -> Self {
        Self {
            smallest: 2,
            seed: Some(seed),
            ..Self::stored(items, batch)
        }
    }

    /// The stored order, every item in it.
    ///
    /// # Panics
    /// If `batch` is zero.
    pub(crate) fn stored(items: usize, batch: usize) -> Self {
        assert!(batch > 0, "a batch needs at least one item");
        Self {
            items,
            batch,
            smallest: 1,
            seed: None,
        }
    }

    /// Number of batches in an epoch, the odd last one included.
    pub(crate) fn batches(&self) -> usize {
        let (full, rest) = (self.items / self.batch, self.items % self.batch);
        full + usize::from(rest > 0 && (rest >= self.smallest || full == 0))
    }

    /// The order of an epoch.
    pub(crate) fn epoch(&self, epoch: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.items).collect();
        if let Some(seed) = self.seed {
            order.shuffle(&mut rng(seed, Purpose::Shuffle, epoch as u64));
        }
        order
    }

    /// Which part of an epoch's order is batch `number`; nothing after the last batch.
    pub(crate) fn range(&self, number: usize) -> Option<Range<usize>> {
        (number < self.batches()).then(|| {
            let start = number * self.batch;
            start..(start + self.batch).min(self.items)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_cover_every_item_but_a_lone_last_one_of_training() {
        for items in [0, 1, 2, 9, 10, 11, 12, 53] {
            for (order, lone) in [
                (Order::stored(items, 10), true),
                (Order::shuffled(items, 10, 7), false),
            ] {
                let ranges: Vec<_> = (0..).map_while(|number| order.range(number)).collect();
                assert_eq!(ranges.len(), order.batches());
                let covered: Vec<usize> = ranges.iter().cloned().flatten().collect();
                let left_out = usize::from(!lone && items > 10 && items % 10 == 1);
                assert_eq!(covered, (0..items - left_out).collect::<Vec<_>>());
                let mut visited = order.epoch(3);
                visited.sort_unstable();
                assert_eq!(visited, (0..items).collect::<Vec<_>>());
            }
        }
    }
}
