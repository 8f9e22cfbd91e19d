//! Regularised evolution: those that are old die, however fit.

use std::collections::VecDeque;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::Strategy;
use super::random::Random;

/// Candidates that live at the same time.
const POPULATION: usize = 32;

/// Those among which the fittest has a child.
const TOURNAMENT: usize = 8;

pub(super) struct Evolution {
    counts: Vec<usize>,
    first: Random,
    /// The oldest in front.
    living: VecDeque<(Vec<usize>, f64)>,
    rng: ChaCha8Rng,
}

impl Evolution {
    pub(super) fn new(counts: &[usize], seed: u64) -> Self {
        Self {
            counts: counts.to_vec(),
            first: Random::new(counts, seed),
            living: VecDeque::new(),
            rng: ChaCha8Rng::seed_from_u64(seed ^ 0x5eed),
        }
    }

    /// A copy of the fittest of a few, with another offer for one of its layers.
    fn child(&mut self) -> Vec<usize> {
        let mut parent: Option<&(Vec<usize>, f64)> = None;
        for _ in 0..TOURNAMENT {
            let one = &self.living[self.rng.random_range(0..self.living.len())];
            if parent.is_none_or(|best| one.1 > best.1) {
                parent = Some(one);
            }
        }
        let mut child = parent.map_or_else(Vec::new, |(choice, _)| choice.clone());
        let changeable: Vec<usize> = (0..child.len()).filter(|&at| self.counts[at] > 1).collect();
        if !changeable.is_empty() {
            let at = changeable[self.rng.random_range(0..changeable.len())];
            let other = self.rng.random_range(1..self.counts[at]);
            child[at] = (child[at] + other) % self.counts[at];
        }
        child
    }
}

impl Strategy for Evolution {
    fn propose(&mut self, count: usize) -> Vec<Vec<usize>> {
        let mut choices = Vec::new();
        for _ in 0..count {
            let choice = if self.living.len() + choices.len() < POPULATION || self.living.is_empty()
            {
                self.first.draw()
            } else {
                self.child()
            };
            choices.push(choice);
        }
        choices
    }

    fn learn(&mut self, choices: &[Vec<usize>], rewards: &[f64]) {
        for (choice, &reward) in choices.iter().zip(rewards) {
            self.living.push_back((choice.clone(), reward));
            if self.living.len() > POPULATION {
                self.living.pop_front();
            }
        }
    }
}
