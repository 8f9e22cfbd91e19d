//! Plans drawn at random.

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use super::Evaluations;
use super::space::{AXES, Gene};

/// Times `start`, then genes in a random order.
pub(super) fn search<F: FnMut(Gene) -> f64>(
    sizes: [usize; AXES],
    start: &[Gene],
    seed: u64,
    mut evaluations: Evaluations<F>,
) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    // A few thousand: drawn without replacement, none is drawn in vain.
    let mut order: Vec<usize> = (0..sizes.iter().product()).collect();
    order.shuffle(&mut rng);
    let drawn = order.into_iter().map(|mut index| {
        sizes.map(|size| {
            let gene = index % size;
            index /= size;
            gene as u8
        })
    });
    for gene in start.iter().copied().chain(drawn) {
        if evaluations.left == 0 {
            break;
        }
        evaluations.time(gene);
    }
}
