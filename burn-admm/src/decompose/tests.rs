use burn_sparse::WeightShape;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::*;
use crate::testing::gaussian;

mod budget;
mod cp;
mod errors;
mod factor;
mod kinds;
mod low_rank;
mod projection;
mod ranks;
mod times;
mod training;
mod tucker;

/// Ragged, one channel, one position, more channels than the rest of the weight has entries.
const SHAPES: [WeightShape; 8] = [
    shape(24, 20, [3, 3]),
    shape(7, 5, [3, 3]),
    shape(5, 7, [1, 3]),
    shape(6, 9, [5, 2]),
    shape(8, 3, [1, 1]),
    shape(40, 2, [3, 3]),
    shape(1, 6, [3, 3]),
    shape(1, 1, [1, 1]),
];

const fn shape(rows: usize, channels: usize, kernel: [usize; 2]) -> WeightShape {
    WeightShape {
        rows,
        channels,
        kernel,
    }
}

fn random(shape: WeightShape, seed: u64) -> Vec<f32> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    (0..shape.len()).map(|_| gaussian(&mut rng)).collect()
}

fn energy(weights: &[f32]) -> f64 {
    weights.iter().map(|&w| f64::from(w).powi(2)).sum()
}

fn squared_distance(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    let differences = a.iter().zip(b).map(|(a, b)| f64::from(*a) - f64::from(*b));
    differences.map(|d| d * d).sum()
}

/// That two weights are the same to the rounding of f32.
fn assert_near(a: &[f32], b: &[f32], what: &str) {
    let error = (squared_distance(a, b) / energy(b).max(f64::MIN_POSITIVE)).sqrt();
    // A few roundings of each entry, and of the factors that it is a sum of.
    assert!(error < 1e-6, "{what}: {error:e}");
}

/// A weight `[N, C, R, S]` whose Tucker ranks are these, by loops.
fn planted(shape: WeightShape, ranks: Ranks, seed: u64) -> Vec<f32> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut draw =
        |n: usize| -> Vec<f64> { (0..n).map(|_| f64::from(gaussian(&mut rng))).collect() };
    let (n, c, k) = (shape.rows, shape.channels, shape.positions());
    let (d2, d1) = (ranks.output, ranks.input);
    let (expand, reduce, core) = (draw(n * d2), draw(c * d1), draw(d2 * d1 * k));
    let mut weights = Vec::with_capacity(shape.len());
    for o in 0..n {
        for i in 0..c {
            for p in 0..k {
                let mut sum = 0.0;
                for a in 0..d2 {
                    for b in 0..d1 {
                        sum += expand[o * d2 + a] * core[(a * d1 + b) * k + p] * reduce[i * d1 + b];
                    }
                }
                weights.push(sum as f32);
            }
        }
    }
    weights
}
