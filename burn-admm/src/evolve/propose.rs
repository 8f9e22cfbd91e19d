//! The vector that a trial tries.

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::population::{Individual, Population};
use super::space::Space;
use super::statistics::Statistics;
use super::{EvolveConfig, EvolveError};

/// Where the vector of a trial comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// The network's own, with some of its layers grown by a step: after a trial that was kept.
    Grown,
    /// A parent's, with some of its layers moved at random: after a rewind.
    Mutated,
    /// Each layer from one of two parents: after a rewind.
    Crossed,
    /// The network's own, as it is: there is nothing to grow, or the network is to recover.
    Rest,
}

impl core::fmt::Display for Origin {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.pad(match self {
            Self::Grown => "grown",
            Self::Mutated => "mutated",
            Self::Crossed => "crossed",
            Self::Rest => "rest",
        })
    }
}

/// What proposals are made from.
pub(super) struct Proposer<'a> {
    pub(super) config: &'a EvolveConfig,
    pub(super) space: &'a Space,
    pub(super) population: &'a Population,
    pub(super) statistics: &'a [Statistics],
    /// The vector of the network.
    pub(super) present: &'a Individual,
    /// Trials since the last one that was kept.
    pub(super) rewinds: usize,
}

impl Proposer<'_> {
    /// The next vector. It keeps no more weights than the network does now.
    pub(super) fn propose(&self, rng: &mut ChaCha8Rng) -> Result<(Origin, Vec<f64>), EvolveError> {
        let config = self.config;
        let few = config.rest_after;
        let rests = few > 0 && self.rewinds % (few + 1) == few;
        let (origin, vector) = if rests {
            (Origin::Rest, self.present.sparsities.clone())
        } else if self.rewinds == 0 {
            (Origin::Grown, self.grown(rng))
        } else if rng.random_bool(config.crossover) {
            (Origin::Crossed, self.crossed(rng))
        } else {
            (Origin::Mutated, self.mutated(rng))
        };
        let all = self.space.plan().weights() as f64;
        let least = ((1.0 - config.target) * all).round() as usize;
        let most = self.present.nnz;
        let vector = self.space.fitted(&vector, [least.min(most), most])?;
        // Where the pattern has no such count, nothing changes.
        if vector == self.present.sparsities || self.space.nnz(&vector)? > most {
            return Ok((Origin::Rest, self.present.sparsities.clone()));
        }
        Ok((origin, vector))
    }

    /// `s_l + Δ_l` for some layers.
    fn grown(&self, rng: &mut ChaCha8Rng) -> Vec<f64> {
        let mut vector = self.present.sparsities.clone();
        for at in self.chosen(&vector, rng) {
            vector[at] = (vector[at] + self.step(at, vector[at])).min(self.space.most(at));
        }
        vector
    }

    /// `s_l + δ_l` for some layers of a parent, `δ_l` between some steps back and one step on.
    fn mutated(&self, rng: &mut ChaCha8Rng) -> Vec<f64> {
        let mut vector = self.parent(rng).sparsities.clone();
        for at in self.chosen(&vector, rng) {
            let part = rng.random_range(-self.config.mutation..=1.0);
            let moved = vector[at] + part * self.step(at, vector[at]);
            vector[at] = moved.clamp(0.0, self.space.most(at));
        }
        vector
    }

    /// `r_l · s_l + (1 − r_l) · s'_l` with every `r_l` 0 or 1 (equation 4).
    fn crossed(&self, rng: &mut ChaCha8Rng) -> Vec<f64> {
        let parents = [self.parent(rng), self.parent(rng)];
        let layers = 0..self.space.len();
        layers
            .map(|at| parents[usize::from(rng.random_bool(0.5))].sparsities[at])
            .collect()
    }

    fn parent(&self, rng: &mut ChaCha8Rng) -> &Individual {
        self.population.parent(rng).unwrap_or(self.present)
    }

    /// `Δ_l`: a part of what the layer still has, less for one that is sensitive or whose mask is in
    /// motion.
    fn step(&self, at: usize, sparsity: f64) -> f64 {
        let statistics = &self.statistics[at];
        let careful = 1.0 + statistics.sensitivity.max(0.0);
        let damped = 1.0 + self.config.damping * statistics.migration;
        self.config.step * (1.0 - sparsity) / (careful * damped)
    }

    /// Some of the layers that can grow, without repetition, with probabilities proportional to
    /// `1 / (1 + sensitivity)`.
    fn chosen(&self, vector: &[f64], rng: &mut ChaCha8Rng) -> Vec<usize> {
        let count = (self.config.layers * self.space.len() as f64).round() as usize;
        let mut open: Vec<usize> = (0..self.space.len())
            .filter(|&at| vector[at] < self.space.most(at))
            .collect();
        let mut chosen = Vec::new();
        while chosen.len() < count.max(1) && !open.is_empty() {
            let weight = |at: &usize| 1.0 / (1.0 + self.statistics[*at].sensitivity.max(0.0));
            let mut left = rng.random::<f64>() * open.iter().map(weight).sum::<f64>();
            let found = open.iter().position(|at| {
                left -= weight(at);
                left < 0.0
            });
            // Rounding may leave a little behind the last one.
            chosen.push(open.remove(found.unwrap_or(open.len() - 1)));
        }
        chosen
    }
}
