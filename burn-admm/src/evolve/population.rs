//! The sparsity vectors that have done well.

use std::cmp::Ordering;

use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::cluster::k_means;

/// Members that are drawn for a parent, of which the fittest is one.
const TOURNAMENT: usize = 2;

/// A sparsity vector and what is known of it.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Individual {
    /// The fraction of zeros of each layer of the plan, in its order.
    pub sparsities: Vec<f64>,
    /// The weights that it keeps, over all layers.
    pub nnz: usize,
    /// The accuracy of the network at the end of its trial. Vectors of the beginning have that of the
    /// network which the evolution started with.
    pub accuracy: f64,
}

impl Individual {
    /// Fewer weights first, then higher accuracy.
    fn fitness(&self, other: &Self) -> Ordering {
        let by_weights = self.nnz.cmp(&other.nnz);
        by_weights.then(other.accuracy.total_cmp(&self.accuracy))
    }
}

/// Sparsity vectors, in the order in which they came.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Population(pub(super) Vec<Individual>);

impl Population {
    /// Takes one in; of the same vector only the last one lives. If there are too many then, they are
    /// clustered, and the best few of each cluster stay.
    pub(super) fn insert(&mut self, one: Individual, most: usize, clusters: usize) {
        self.0.retain(|other| other.sparsities != one.sparsities);
        self.0.push(one);
        if self.0.len() > most {
            self.thin_out(most, clusters);
        }
    }

    fn thin_out(&mut self, most: usize, clusters: usize) {
        let points: Vec<Vec<f64>> = self.0.iter().map(|one| one.sparsities.clone()).collect();
        let of = k_means(&points, clusters);
        let found = of.iter().max().map_or(1, |last| last + 1);
        let few = (most / found).max(1);
        let better = |at: usize| {
            let fitter = |other: usize| {
                let order = self.0[other].fitness(&self.0[at]);
                order == Ordering::Less || order == Ordering::Equal && other < at
            };
            let rivals = (0..of.len()).filter(|&other| of[other] == of[at]);
            rivals.filter(|&other| fitter(other)).count()
        };
        let stays: Vec<bool> = (0..self.0.len()).map(|at| better(at) < few).collect();
        let mut stays = stays.into_iter();
        self.0.retain(|_| stays.next().unwrap_or(false));
    }

    /// The fittest of a few that are drawn.
    pub(super) fn parent(&self, rng: &mut ChaCha8Rng) -> Option<&Individual> {
        let mut parent: Option<&Individual> = None;
        for _ in 0..TOURNAMENT.min(self.0.len()) {
            let one = &self.0[rng.random_range(0..self.0.len())];
            if parent.is_none_or(|best| one.fitness(best) == Ordering::Less) {
                parent = Some(one);
            }
        }
        parent
    }
}
