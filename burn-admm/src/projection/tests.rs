//! Properties that every projection has, over all patterns and shapes.

mod block_column_row;
mod cases;
mod errors;
mod index;

use burn_sparse::{BlockSearch, Budget, PatternPool, Pool, SparseError, Sparsity, WeightShape};
use proptest::prelude::*;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;
use cases::{case, feasible, random_feasible};

fn distance(a: &[f32], b: &[f32]) -> f64 {
    a.iter()
        .zip(b)
        .map(|(&a, &b)| (f64::from(a) - f64::from(b)).powi(2))
        .sum()
}

/// Blocks at the edges may have smaller groups, so that fewer entries are kept.
fn uniform(sparsity: Sparsity, shape: WeightShape) -> bool {
    match sparsity {
        Sparsity::Punched {
            filters, channels, ..
        } => shape.rows.is_multiple_of(filters) && shape.channels.is_multiple_of(channels),
        _ => true,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]
    #[test]
    fn equals_the_naive_twin_and_is_feasible((weights, shape, sparsity) in case()) {
        let projection = projection_of(sparsity).unwrap();
        let fast = projection.project(&weights, shape).unwrap();
        let naive = projection.project_naive(&weights, shape).unwrap();
        prop_assert_eq!(&fast.mask, &naive.mask);
        prop_assert_eq!(&fast.values, &naive.values);
        prop_assert!(feasible(&fast.mask, shape, sparsity), "{:?}", fast.mask);
        let nnz = sparsity.nnz(shape).unwrap();
        if uniform(sparsity, shape) {
            prop_assert_eq!(fast.nnz(), nnz);
        } else {
            prop_assert!((1..=nnz).contains(&fast.nnz()));
        }
        for ((w, z), keep) in weights.iter().zip(&fast.values).zip(&fast.mask) {
            let expected = if *keep { *w } else { 0.0 };
            prop_assert_eq!(z.to_bits(), expected.to_bits());
        }
    }

    #[test]
    fn is_idempotent((weights, shape, sparsity) in case()) {
        let projection = projection_of(sparsity).unwrap();
        let once = projection.project(&weights, shape).unwrap();
        let twice = projection.project(&once.values, shape).unwrap();
        prop_assert_eq!(once.values, twice.values);
    }

    #[test]
    fn a_constraint_is_the_intersection_of_its_parts((weights, shape, sparsity) in case()) {
        let projected = projection_of(sparsity).unwrap().project(&weights, shape).unwrap();
        for part in parts_of(sparsity) {
            prop_assert!(feasible(&projected.mask, shape, part));
            let alone = projection_of(part).unwrap().project(&weights, shape).unwrap();
            // A larger set has nearer points.
            let (near, far) = (distance(&alone.values, &weights), distance(&projected.values, &weights));
            prop_assert!(near <= far * (1.0 + 1e-12));
            prop_assert_eq!(parts_of(part), [part]);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    #[test]
    fn is_as_near_as_a_thousand_feasible_points((weights, shape, sparsity) in case(), seed in any::<u64>()) {
        // Rows and columns of blocks are found by a heuristic: `block_column_row` says how good it is.
        prop_assume!(!matches!(sparsity, Sparsity::BlockColumnRow { .. }));
        let projected = projection_of(sparsity).unwrap().project(&weights, shape).unwrap();
        let nearest = distance(&projected.values, &weights);
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        for _ in 0..1000 {
            let point = random_feasible(&mut rng, sparsity, &weights, shape);
            let support: Vec<bool> = point.iter().map(|&w| w != 0.0).collect();
            prop_assert!(feasible(&support, shape, sparsity));
            // Both sums run over the same terms, so equal supports give equal sums.
            prop_assert!(nearest <= distance(&point, &weights) * (1.0 + 1e-12));
        }
    }
}

#[test]
fn ties_go_to_the_lowest_index() {
    let kept = |sparsity: Sparsity, weights: &[f32], shape: WeightShape| -> Vec<usize> {
        let projected = projection_of(sparsity).unwrap().project(weights, shape);
        let mask = projected.unwrap().mask;
        (0..mask.len()).filter(|&i| mask[i]).collect()
    };
    let two_by_three = WeightShape::matrix(2, 3);
    let three = Sparsity::Unstructured(Budget::Nnz(3));
    let weights = [0.5, -1.0, 1.0, 1.0, -1.0, 0.5];
    assert_eq!(kept(three, &weights, two_by_three), [1, 2, 3]);
    assert_eq!(
        kept(three, &[0.0, -0.0, 0.0, 0.0], WeightShape::matrix(1, 4)),
        [0, 1, 2]
    );

    let ones = [1.0f32, -1.0, 1.0, -1.0, 1.0, -1.0];
    let one = Budget::Nnz(1);
    for (sparsity, expected) in [
        (Sparsity::Filter(one), vec![0, 1, 2]),
        (Sparsity::Channel(one), vec![0, 3]),
        (Sparsity::Column(one), vec![0, 3]),
        (Sparsity::Connectivity(one), vec![0]),
        (
            Sparsity::SharedPattern {
                rows: 1,
                budget: one,
            },
            vec![0, 3],
        ),
        (
            Sparsity::Punched {
                filters: 1,
                channels: 2,
                budget: one,
            },
            vec![0, 1],
        ),
        (Sparsity::NofM { n: 1, m: 2 }, vec![0, 2, 3, 5]),
        (
            Sparsity::block_column_row(0.5, [2, 2]).unwrap(),
            vec![0, 2, 3, 5],
        ),
    ] {
        assert_eq!(kept(sparsity, &ones, two_by_three), expected, "{sparsity}");
    }

    let pool = PatternPool::new([[0, 4], [4, 8]]).unwrap();
    let pattern = Sparsity::KernelPattern {
        pool: Pool::Given(pool),
        budget: one,
    };
    let shape = WeightShape::new(1, 2, [3, 3]);
    assert_eq!(kept(pattern, &[1.0; 18], shape), [0, 4]);
}

#[test]
fn kernels_compete_by_what_their_pattern_keeps() {
    // The first kernel is larger, but not where a pattern could keep it.
    let mut weights = [0.0f32; 18];
    weights[..4].copy_from_slice(&[3.0, 3.0, 3.0, 3.0]);
    weights[4] = 0.5;
    (weights[13], weights[17]) = (2.0, 2.0);
    let shape = WeightShape::new(2, 1, [3, 3]);
    let pool = PatternPool::new([[4, 7], [4, 8]]).unwrap();
    let projection = KernelPatternTopK::new(pool, Budget::Nnz(1));
    let projected = projection.project(&weights, shape).unwrap();
    assert_eq!(projected.values[13], 2.0);
    assert_eq!(projected.values[17], 2.0);
    assert_eq!(projected.nnz(), 2);
}
