//! Properties that every exact projection has.

use burn_sparse::{Budget, Sparsity, WeightShape};
use proptest::prelude::*;
use rand::{Rng, SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;

use super::*;

/// Weights with many ties and zeros, or ordinary ones.
fn matrix() -> impl Strategy<Value = (Vec<f32>, usize, usize)> {
    (1usize..6, 1usize..24, any::<bool>()).prop_flat_map(|(rows, row_len, ties)| {
        let entry = if ties {
            prop::sample::select(vec![-1.0f32, 1.0, 0.0, -0.0, 0.5, -0.5]).boxed()
        } else {
            (-2.0f32..2.0).boxed()
        };
        prop::collection::vec(entry, rows * row_len).prop_map(move |data| (data, rows, row_len))
    })
}

fn sparsity() -> impl Strategy<Value = Sparsity> {
    (0.0f64..0.999, any::<bool>()).prop_map(|(s, balanced)| {
        let budget = Budget::sparsity(s).unwrap();
        if balanced {
            Sparsity::RowBalanced(budget)
        } else {
            Sparsity::Unstructured(budget)
        }
    })
}

fn distance(a: &[f32], b: &[f32]) -> f64 {
    a.iter()
        .zip(b)
        .map(|(&a, &b)| (f64::from(a) - f64::from(b)).powi(2))
        .sum()
}

/// A feasible point: `weights` on a random allowed support.
fn random_feasible(
    rng: &mut ChaCha8Rng,
    sparsity: Sparsity,
    weights: &[f32],
    rows: usize,
    row_len: usize,
) -> Vec<f32> {
    let mut point = vec![0.0; weights.len()];
    let mut fill = |start: usize, len: usize, keep: usize| {
        let mut order: Vec<usize> = (start..start + len).collect();
        order.shuffle(rng);
        for &i in order.iter().take(keep) {
            // Mostly the best value on that support, sometimes any other.
            point[i] = if rng.random_bool(0.9) {
                weights[i]
            } else {
                rng.random_range(-2.0..2.0)
            };
        }
    };
    match sparsity {
        Sparsity::RowBalanced(budget) => {
            let keep = budget.keep(row_len).unwrap();
            (0..rows).for_each(|row| fill(row * row_len, row_len, keep));
        }
        other => {
            let shape = WeightShape::matrix(rows, row_len);
            fill(0, weights.len(), other.nnz(shape).unwrap());
        }
    }
    point
}

proptest! {
    #[test]
    fn equals_the_naive_twin_with_exact_counts((weights, rows, row_len) in matrix(), s in sparsity()) {
        let projection = projection_of(s).unwrap();
        let fast = projection.project(&weights, WeightShape::matrix(rows, row_len)).unwrap();
        let naive = projection.project_naive(&weights, WeightShape::matrix(rows, row_len)).unwrap();
        prop_assert_eq!(&fast.mask, &naive.mask);
        prop_assert_eq!(&fast.values, &naive.values);
        prop_assert_eq!(fast.nnz(), s.nnz(WeightShape::matrix(rows, row_len)).unwrap());
        if let Sparsity::RowBalanced(budget) = s {
            for row in fast.mask.chunks(row_len) {
                let kept = row.iter().filter(|&&keep| keep).count();
                prop_assert_eq!(kept, budget.keep(row_len).unwrap());
            }
        }
        for ((w, z), keep) in weights.iter().zip(&fast.values).zip(&fast.mask) {
            let expected = if *keep { *w } else { 0.0 };
            prop_assert_eq!(z.to_bits(), expected.to_bits());
        }
    }

    #[test]
    fn is_idempotent((weights, rows, row_len) in matrix(), s in sparsity()) {
        let projection = projection_of(s).unwrap();
        let once = projection.project(&weights, WeightShape::matrix(rows, row_len)).unwrap();
        let twice = projection.project(&once.values, WeightShape::matrix(rows, row_len)).unwrap();
        prop_assert_eq!(once.values, twice.values);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn is_as_near_as_a_thousand_feasible_points((weights, rows, row_len) in matrix(), s in sparsity(), seed in any::<u64>()) {
        let projected = projection_of(s).unwrap().project(&weights, WeightShape::matrix(rows, row_len)).unwrap();
        let nearest = distance(&projected.values, &weights);
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        for _ in 0..1000 {
            let point = random_feasible(&mut rng, s, &weights, rows, row_len);
            // Both sums run over the same terms, so equal supports give equal sums.
            prop_assert!(nearest <= distance(&point, &weights) * (1.0 + 1e-12));
        }
    }
}

#[test]
fn ties_go_to_the_lowest_index() {
    let weights = [0.5, -1.0, 1.0, 1.0, -1.0, 0.5];
    let projection = UnstructuredTopK::new(Budget::Nnz(3));
    let projected = projection
        .project(&weights, WeightShape::matrix(2, 3))
        .unwrap();
    assert_eq!(projected.mask, [false, true, true, true, false, false]);
    let zeros = projection
        .project(&[0.0, -0.0, 0.0, 0.0], WeightShape::matrix(1, 4))
        .unwrap();
    assert_eq!(zeros.mask, [true, true, true, false]);
}

#[test]
fn non_finite_weights_are_an_error_that_names_them() {
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        for s in [
            Sparsity::unstructured(0.5).unwrap(),
            Sparsity::row_balanced(0.5).unwrap(),
        ] {
            let error = projection_of(s)
                .unwrap()
                .project(&[1.0, 2.0, bad, 4.0], WeightShape::matrix(2, 2))
                .unwrap_err();
            assert!(
                matches!(error, ProjectionError::NonFinite { index: 2, .. }),
                "{error}"
            );
        }
    }
}

#[test]
fn wrong_lengths_and_budgets_are_errors() {
    let projection = RowBalancedTopK::new(Budget::Nnz(5));
    assert!(matches!(
        projection.project(&[1.0; 8], WeightShape::matrix(2, 4)),
        Err(ProjectionError::Budget(SparseError::TooManyNonZeros {
            asked: 5,
            available: 4,
            ..
        }))
    ));
    assert!(matches!(
        projection.project(&[1.0; 7], WeightShape::matrix(2, 4)),
        Err(ProjectionError::Shape { len: 7, .. })
    ));
    assert!(
        projection
            .project(&[], WeightShape::matrix(usize::MAX, 2))
            .is_err()
    );
    assert_eq!(
        RowBalancedTopK::new(Budget::Nnz(0))
            .project(&[], WeightShape::matrix(3, 0))
            .unwrap()
            .nnz(),
        0
    );
}
