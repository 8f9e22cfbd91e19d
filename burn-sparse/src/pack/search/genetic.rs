//! The genetic search of GRIM.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::Evaluations;
use super::space::{AXES, Gene};

/// Individuals of a generation.
const POPULATION: usize = 32;

/// Individuals of which the fastest becomes a parent.
const TOURNAMENT: usize = 3;

/// How likely a gene mutates.
const MUTATION: f64 = 0.15;

/// Individuals that live on as they are.
const ELITE: usize = 2;

/// Children in a row that were known already, after which a search ends.
const PATIENCE: usize = 50 * POPULATION;

#[derive(Clone, Copy)]
struct Individual {
    gene: Gene,
    time: f64,
}

/// Times `start` and random genes, then generation after generation of their children, until no
/// evaluation is left or nothing new is born.
pub(super) fn search<F: FnMut(Gene) -> f64>(
    sizes: [usize; AXES],
    start: &[Gene],
    seed: u64,
    mut evaluations: Evaluations<F>,
) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut population: Vec<Individual> = Vec::with_capacity(POPULATION);
    let mut known = 0;
    let mut first = start.iter().copied();
    while population.len() < POPULATION && evaluations.left > 0 && known < PATIENCE {
        let gene = first
            .next()
            .unwrap_or_else(|| sizes.map(|size| any(&mut rng, size)));
        match evaluations.time(gene) {
            Some(time) => population.push(Individual { gene, time }),
            None => known += 1,
        }
    }
    while evaluations.left > 0 && known < PATIENCE {
        population.sort_by(|a, b| a.time.total_cmp(&b.time));
        let mut next: Vec<Individual> = population.iter().take(ELITE).copied().collect();
        while next.len() < POPULATION && evaluations.left > 0 && known < PATIENCE {
            let [mother, father] = [(); 2].map(|()| parent(&mut rng, &population));
            let gene = core::array::from_fn(|axis| {
                if rng.random_bool(MUTATION) {
                    any(&mut rng, sizes[axis])
                } else if rng.random() {
                    mother[axis]
                } else {
                    father[axis]
                }
            });
            match evaluations.time(gene) {
                Some(time) => {
                    next.push(Individual { gene, time });
                    known = 0;
                }
                None => known += 1,
            }
        }
        population = next;
    }
}

fn any(rng: &mut ChaCha8Rng, size: usize) -> u8 {
    rng.random_range(0..size.max(1)) as u8
}

fn parent(rng: &mut ChaCha8Rng, population: &[Individual]) -> Gene {
    let drawn = (0..TOURNAMENT).map(|_| population[rng.random_range(0..population.len())]);
    let best = drawn.min_by(|a, b| a.time.total_cmp(&b.time));
    best.expect("a tournament has members").gene
}
