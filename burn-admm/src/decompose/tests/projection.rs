use proptest::prelude::*;
use rand::Rng;

use super::*;
use crate::Projection;

fn cases() -> impl Strategy<Value = (WeightShape, Ranks, u64)> {
    let kernel = prop::sample::select(vec![[1, 1], [1, 3], [2, 2], [3, 3]]);
    (1usize..7, 1usize..7, kernel, any::<u64>()).prop_flat_map(|(rows, channels, kernel, seed)| {
        let shape = shape(rows, channels, kernel);
        (Just(shape), 1..=rows, 1..=channels, Just(seed))
            .prop_map(|(shape, output, input, seed)| (shape, Ranks::new(output, input), seed))
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_comes_out_is_feasible_and_stays((shape, ranks, seed) in cases()) {
        let weights = random(shape, seed);
        let projection = TuckerRank::new(ranks);
        let near = projection.project(&weights, shape).unwrap();
        prop_assert!(near.mask.iter().all(|keep| *keep));
        // Nothing but rounding is beyond the ranks.
        let bounds = Spectra::new(&near.values, shape).unwrap().error_bounds(ranks).unwrap();
        prop_assert!(bounds.most <= 1e-11 * energy(&near.values), "{bounds:?}");
        let again = projection.project(&near.values, shape).unwrap();
        prop_assert_eq!(again.values, near.values);
    }

    #[test]
    fn no_random_point_of_these_ranks_is_nearer((shape, ranks, seed) in cases()) {
        let weights = random(shape, seed);
        let near = TuckerRank::new(ranks).project(&weights, shape).unwrap();
        let distance = squared_distance(&near.values, &weights);
        let mut rng = ChaCha8Rng::seed_from_u64(seed ^ 1);
        for draw in 0..200 {
            // Anywhere, and in the neighbourhood of what was found.
            let other = if draw % 2 == 0 {
                planted(shape, ranks, rng.random())
            } else {
                let moved: Vec<f32> = near.values.iter().map(|w| w + 0.1 * gaussian(&mut rng)).collect();
                Spectra::new(&moved, shape).unwrap().hosvd(ranks).unwrap().reconstruct()
            };
            // The best multiple of it.
            let dot: f64 = other.iter().zip(&weights).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
            let scale = dot / energy(&other).max(f64::MIN_POSITIVE);
            let other: Vec<f32> = other.iter().map(|w| (f64::from(*w) * scale) as f32).collect();
            prop_assert!(squared_distance(&other, &weights) >= distance * (1.0 - 1e-5));
        }
    }

    #[test]
    fn plain_loops_find_the_same_error((shape, ranks, seed) in cases()) {
        let weights = random(shape, seed);
        let projection = TuckerRank::new(ranks);
        let fast = projection.project(&weights, shape).unwrap();
        let naive = projection.project_naive(&weights, shape).unwrap();
        let (fast, naive) = (
            squared_distance(&fast.values, &weights),
            squared_distance(&naive.values, &weights),
        );
        // Alternation stops at a tolerance, the twin when nothing moves; the first may lose that much.
        prop_assert!(naive <= fast * (1.0 + 1e-4) + 1e-9);
        prop_assert!(fast <= naive * (1.0 + 1e-2) + 1e-9, "{fast} {naive}");
    }
}

#[test]
fn weights_that_have_the_ranks_are_left_alone() {
    let shape = shape(24, 20, [3, 3]);
    let ranks = Ranks::new(6, 4);
    let weights = planted(shape, ranks, 11);
    let near = TuckerRank::new(ranks).project(&weights, shape).unwrap();
    assert_eq!(near.values, weights);
}

/// Resuming compares a projected weight with its projection, bit by bit, at the sizes that networks have.
#[test]
fn large_weights_stay_as_well() {
    for (shape, ranks) in [
        (shape(256, 256, [3, 3]), Ranks::new(96, 64)),
        (shape(512, 128, [1, 1]), Ranks::new(40, 40)),
    ] {
        let config = HooiConfig {
            iterations: 3,
            ..HooiConfig::default()
        };
        let projection = TuckerRank::new(ranks).with_config(config);
        let near = projection.project(&random(shape, 7), shape).unwrap().values;
        let again = projection.project(&near, shape).unwrap().values;
        assert!(again == near, "{shape} at {ranks}");
    }
}
