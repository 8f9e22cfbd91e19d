//! Candidates by chance.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::Strategy;

/// Draws every layer's offer alike from all that it has.
pub(super) struct Random {
    counts: Vec<usize>,
    rng: ChaCha8Rng,
}

impl Random {
    pub(super) fn new(counts: &[usize], seed: u64) -> Self {
        Self {
            counts: counts.to_vec(),
            rng: ChaCha8Rng::seed_from_u64(seed),
        }
    }

    pub(super) fn draw(&mut self) -> Vec<usize> {
        let offers = self.counts.iter();
        offers
            .map(|&count| self.rng.random_range(0..count))
            .collect()
    }
}

impl Strategy for Random {
    fn propose(&mut self, count: usize) -> Vec<Vec<usize>> {
        (0..count).map(|_| self.draw()).collect()
    }

    fn learn(&mut self, _: &[Vec<usize>], _: &[f64]) {}
}
