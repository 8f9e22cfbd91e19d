use burn_sparse::Budget;
use proptest::prelude::*;

use super::*;
use crate::evolve::score::mask;
use crate::evolve::space::Space;
use crate::plan::ResolvedLayer;

/// The convolution at a sparsity.
fn spec(sparsity: f64) -> ResolvedLayer {
    let space = Space::new(plan().resolve(&net()).unwrap()).unwrap();
    space.layer_at(0, sparsity).unwrap()
}

/// Equations 2 and 3 as they are written: f64, and a full sort.
fn naive(weights: &[f32], gradients: &[f32], [a, b]: [f64; 2], keep: usize) -> Vec<bool> {
    let mean = |values: &[f32]| {
        let sum: f64 = values.iter().map(|v| f64::from(v.abs())).sum();
        sum / values.len() as f64
    };
    let (w, g) = (mean(weights), mean(gradients));
    let term = |of: f64, value: f32, mean: f64| match mean {
        0.0 => 0.0,
        mean => of / mean * f64::from(value.abs()),
    };
    let scores: Vec<f32> = weights
        .iter()
        .zip(gradients)
        .map(|(&weight, &gradient)| (term(a, weight, w) + term(b, gradient, g)) as f32)
        .collect();
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&i, &j| scores[j].total_cmp(&scores[i]).then(i.cmp(&j)));
    let mut mask = vec![false; scores.len()];
    order[..keep].iter().for_each(|&at| mask[at] = true);
    mask
}

fn number() -> impl Strategy<Value = f32> {
    // Few values, so that there are ties.
    prop_oneof![
        Just(0.0f32),
        Just(-0.5f32),
        Just(0.5f32),
        -2.0f32..2.0,
        -1e-6f32..1e-6
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn masks_are_those_of_the_formula_and_keep_exactly_so_many(
        weights in prop::collection::vec(number(), SIZES[0]),
        gradients in prop::collection::vec(number(), SIZES[0]),
        sparsity in 0.0..0.9f64,
        a in 0.0..2.0f64,
        b in 0.0..2.0f64,
    ) {
        let keep = Budget::Sparsity(sparsity).keep(SIZES[0]).unwrap();
        let scores = scores(&weights, Some(&gradients), a, b);
        let got = mask(&spec(sparsity), &scores).unwrap();
        prop_assert_eq!(got.iter().filter(|&&keep| keep).count(), keep);
        prop_assert!(keep > 0);
        prop_assert_eq!(got, naive(&weights, &gradients, [a, b], keep));
    }

    #[test]
    fn scores_do_not_depend_on_the_scale_of_either(
        weights in prop::collection::vec(-2.0f32..2.0, 20),
        gradients in prop::collection::vec(-2.0f32..2.0, 20),
    ) {
        // By powers of two, so that nothing is rounded otherwise.
        let scaled = |values: &[f32], by: f32| values.iter().map(|v| v * by).collect::<Vec<_>>();
        let expected = scores(&weights, Some(&gradients), 1.0, 0.3);
        let (w, g) = (scaled(&weights, 1024.0), scaled(&gradients, 1.0 / 4096.0));
        prop_assert_eq!(scores(&w, Some(&g), 1.0, 0.3), expected);
    }
}

#[test]
fn gradients_of_zero_leave_magnitude_to_decide() {
    let weights = random(SIZES[0], 5);
    let nothing = vec![0.0; SIZES[0]];
    let by_both = scores(&weights, Some(&nothing), 1.0, 1.0);
    assert_eq!(by_both, scores(&weights, None, 1.0, 1.0));
    // And the other way round: weights of zero.
    let gradients = random(SIZES[0], 6);
    let by_gradient = scores(&nothing, Some(&gradients), 1.0, 1.0);
    assert_eq!(by_gradient, scores(&gradients, None, 1.0, 1.0));
    assert_eq!(scores(&nothing, Some(&nothing), 1.0, 1.0), nothing);
}

#[test]
fn equal_scores_go_from_the_lowest_index_on() {
    for value in [0.0, 0.3] {
        let equal = vec![value; SIZES[0]];
        let scores = scores(&equal, Some(&equal), 1.0, 1.0);
        for sparsity in [0.0, 0.3, 0.75] {
            let got = mask(&spec(sparsity), &scores).unwrap();
            let keep = Budget::Sparsity(sparsity).keep(SIZES[0]).unwrap();
            let expected: Vec<bool> = (0..SIZES[0]).map(|at| at < keep).collect();
            assert_eq!(got, expected, "{value} {sparsity}");
        }
    }
}

#[test]
fn no_layer_is_emptied_and_none_is_cut_at_zero() {
    let plan = Plan::new(Sparsity::unstructured(0.9999).unwrap())
        .with_first_convolution_kept(false)
        .with_last_linear_kept(false);
    let space = Space::new(plan.resolve(&net()).unwrap()).unwrap();
    for (at, size) in SIZES.into_iter().enumerate() {
        for (sparsity, kept) in [(0.0, size), (0.999, 1), (space.most(at), 1), (1.0, 1)] {
            let spec = space.layer_at(at, sparsity).unwrap();
            let mask = mask(&spec, &random(size, 9)).unwrap();
            let count = mask.iter().filter(|&&keep| keep).count();
            assert_eq!((count, spec.nnz), (kept, kept), "{sparsity}");
        }
    }
}

#[test]
fn tiny_and_huge_numbers_have_scores() {
    let weights = [f32::MIN_POSITIVE / 4.0, 0.0, -f32::MIN_POSITIVE];
    assert!(
        scores(&weights, None, 1e6, 0.0)
            .iter()
            .all(|s| s.is_finite())
    );
    let weights = [f32::MAX, -f32::MAX, 1.0];
    let scores = scores(&weights, Some(&weights), 1e6, 1e6);
    assert!(scores.iter().all(|s| s.is_finite()), "{scores:?}");
    assert_eq!(scores[0], scores[1]);
}
