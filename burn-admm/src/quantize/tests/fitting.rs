//! Levels: feasible, idempotent, near.

use burn_sparse::WeightShape;
use burn_sparse::quant::Quantized;
use proptest::prelude::*;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::super::fit::codebook;
use super::super::{
    Grid, Histogram, LevelKind, OnGrid, Quantization, QuantizeError, Saturation, Scope,
};
use crate::projection::{Projection, ProjectionError};

fn kinds() -> Vec<Quantization> {
    let mut all = Vec::new();
    for bits in 2..=5 {
        all.push(Quantization::uniform(bits).unwrap());
        all.push(Quantization::powers_of_two(bits).unwrap());
        all.push(Quantization::codebook(bits).unwrap());
        let saturations = [
            Saturation::MinMax,
            Saturation::Percentile(95.0),
            Saturation::Mse,
            Saturation::Kl,
        ];
        for saturation in saturations {
            for kind in [
                LevelKind::FixedPoint,
                LevelKind::Symmetric,
                LevelKind::Asymmetric,
            ] {
                all.push(Quantization::new(kind(saturation), bits).unwrap());
            }
        }
    }
    all
}

/// Values of awkward kinds: normal, with outliers, one-sided, all alike, tiny.
fn values() -> impl Strategy<Value = Vec<f32>> {
    let one = prop_oneof![
        6 => -1.0f32..1.0,
        1 => -30.0f32..30.0,
        1 => Just(0.0f32),
        1 => Just(-0.75f32),
        1 => -1e-20f32..1e-20,
    ];
    let scaled = (prop::collection::vec(one, 0..80), any::<bool>());
    scaled.prop_map(|(values, positive)| {
        let sign = |v: f32| if positive { v.abs() } else { v };
        values.into_iter().map(sign).collect()
    })
}

/// The best of its intervals is narrow: too few starts pass it by.
#[test]
fn a_narrow_minimum_is_found() {
    let values = [
        2.2574668,
        0.54304135,
        -0.75,
        -0.32682148,
        0.0,
        -0.6893721,
        -0.75,
        0.88283986,
        -0.7745525,
        0.0,
        -0.5225673,
        -0.75,
        0.8399063,
        -0.75,
        -0.75,
        -0.75,
        -1.5985903,
        0.0,
        0.3358162,
        -0.35908797,
        -0.07963487,
        0.6564552,
        0.0,
        0.590739,
        0.05198868,
        0.0,
        0.5266277,
        -0.5215097,
        0.90577525,
        0.0,
        0.0,
        0.41929713,
        -0.6415608,
        -0.75,
        0.0,
    ];
    let uniform = Quantization::uniform(4).unwrap();
    let error = uniform.fit(&values).unwrap().squared_error(&values);
    let best = uniform.fit_naive(&values).unwrap().squared_error(&values);
    assert!(error <= 1.0001 * best, "{error} and {best}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn every_value_gets_the_nearest_level_and_keeps_it(values in values()) {
        for quantization in kinds() {
            let grid = quantization.fit(&values).unwrap();
            let levels = grid.levels();
            prop_assert!(levels.len() <= 1 << quantization.bits(), "{quantization}");
            prop_assert!(levels.windows(2).all(|pair| pair[0] < pair[1]), "{quantization} {levels:?}");
            prop_assert!(levels.iter().all(|level| level.is_finite()), "{quantization} {levels:?}");
            let rounded: Vec<f32> = values.iter().map(|&v| grid.nearest(v)).collect();
            for (&value, &level) in values.iter().zip(&rounded) {
                prop_assert!(levels.contains(&level), "{quantization}: {value} -> {level}");
                let nearest = levels.iter().map(|l| (l - value).abs()).fold(f32::INFINITY, f32::min);
                // Division by the interval rounds, so halfway values may fall either way.
                let slack = 1e-6 * (value.abs() + level.abs());
                prop_assert!((level - value).abs() <= nearest + slack, "{quantization}: {value} -> {level}");
            }
            let again = quantization.fit(&rounded).unwrap();
            let twice: Vec<u32> = rounded.iter().map(|&v| again.nearest(v).to_bits()).collect();
            let once: Vec<u32> = rounded.iter().map(|v| v.to_bits()).collect();
            prop_assert_eq!(twice, once, "{}", quantization);
        }
    }

    #[test]
    fn fits_are_about_as_near_as_the_plainest_search(values in values()) {
        prop_assume!(values.len() > 3);
        for (quantization, ratio) in [
            (Quantization::uniform(1).unwrap(), 1.002),
            (Quantization::uniform(2).unwrap(), 1.002),
            (Quantization::uniform(4).unwrap(), 1.002),
            (Quantization::powers_of_two(3).unwrap(), 1.0),
            (Quantization::codebook(1).unwrap(), 1.05),
            (Quantization::codebook(3).unwrap(), 1.05),
        ] {
            let error = quantization.fit(&values).unwrap().squared_error(&values);
            let best = quantization.fit_naive(&values).unwrap().squared_error(&values);
            // Sums of squares of numbers that f32 levels cannot tell apart.
            let largest = values.iter().fold(0.0f64, |m, v| m.max(f64::from(v.abs())));
            let slack = values.len() as f64 * (largest * 1e-7).powi(2);
            prop_assert!(error <= ratio * best + slack, "{quantization}: {error} and {best}");
        }
    }

    #[test]
    fn no_random_levels_are_nearer(values in values(), seed in any::<u64>()) {
        prop_assume!(values.len() > 3);
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let largest = values.iter().fold(0.0f32, |most, v| most.max(v.abs()));
        prop_assume!(largest > 1e-10);
        let uniform = Quantization::uniform(3).unwrap().fit(&values).unwrap().squared_error(&values);
        let codebook = Quantization::codebook(2).unwrap().fit(&values).unwrap().squared_error(&values);
        for _ in 0..1000 {
            let scale = largest * rng.random_range(0.01f32..1.5);
            let random = Grid::Nonzero { scale, most: 4 };
            prop_assert!(uniform <= 1.002 * random.squared_error(&values) + 1e-12);
            let mut levels: Vec<f32> = (0..4).map(|_| rng.random_range(-largest..=largest)).collect();
            levels.sort_by(f32::total_cmp);
            prop_assert!(codebook <= 1.05 * Grid::Codebook(levels).squared_error(&values) + 1e-12);
        }
    }

    #[test]
    fn pruned_weights_stay_zero_and_others_are_found_again(
        rows in 1usize..5,
        row_len in 1usize..12,
        seed in any::<u64>(),
        channel in any::<bool>(),
    ) {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let weights: Vec<f32> = (0..rows * row_len).map(|_| rng.random_range(-1.0..1.0)).collect();
        let keep: Vec<bool> = weights.iter().map(|_| rng.random_bool(0.4)).collect();
        let scope = if channel { Scope::Channel } else { Scope::Layer };
        let shape = WeightShape::matrix(rows, row_len);
        for quantization in kinds() {
            let on_grid = OnGrid::new(quantization.with_scope(scope), keep.clone());
            let projected = on_grid.project(&weights, shape).unwrap();
            prop_assert_eq!(&projected.mask, &keep);
            for (value, keep) in projected.values.iter().zip(&keep) {
                prop_assert!(*keep || value.to_bits() == 0);
            }
            let again = on_grid.project(&projected.values, shape).unwrap();
            prop_assert_eq!(&again.values, &projected.values);
            let stored: Vec<f32> = projected.values.iter().copied().filter(|v| *v != 0.0).collect();
            let ends = projected.values.chunks(row_len).scan(0, |end, row| {
                *end += row.iter().filter(|v| **v != 0.0).count() as u32;
                Some(*end)
            });
            let row_ptr: Vec<u32> = core::iter::once(0).chain(ends).collect();
            let found = Quantized::find(&stored, &row_ptr).unwrap();
            prop_assert_eq!(found.values(&row_ptr), stored);
        }
    }
}

/// Survivors of pruning at rates of publications, where bisection ends in a wrong minimum.
#[test]
fn intervals_of_pruned_weights_are_near_a_fine_scan() {
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    for keep in [1.0 / 85.0, 0.1, 0.3] {
        let normal = |rng: &mut ChaCha8Rng| (0..12).map(|_| rng.random::<f32>()).sum::<f32>() - 6.0;
        let mut all: Vec<f32> = (0..20_000).map(|_| normal(&mut rng)).collect();
        all.sort_by(|a, b| b.abs().total_cmp(&a.abs()));
        let values = &all[..(20_000.0 * keep) as usize];
        for bits in [2, 3, 4] {
            let quantization = Quantization::uniform(bits).unwrap();
            let error = quantization.fit(values).unwrap().squared_error(values);
            let best = quantization
                .fit_naive(values)
                .unwrap()
                .squared_error(values);
            assert!(error <= 1.002 * best, "{keep} {bits}: {error} and {best}");
        }
    }
}

#[test]
fn empty_clusters_are_filled() {
    // Two far groups and quantiles that fall into one of them.
    let mut values: Vec<f32> = (0..1000).map(|i| i as f32 * 1e-4).collect();
    values.extend((0..12).map(|i| 50.0 + i as f32));
    let lloyd = codebook::lloyd(&values, 8);
    assert_eq!(lloyd.levels().len(), 8, "{lloyd:?}");
    let quantization = Quantization::codebook(3).unwrap();
    let (fit, naive) = (
        quantization.fit(&values).unwrap(),
        quantization.fit_naive(&values).unwrap(),
    );
    assert_eq!(fit.levels().len(), 8);
    for grid in [lloyd, fit] {
        assert!(grid.squared_error(&values) <= 1.2 * naive.squared_error(&values));
    }
}

#[test]
fn many_values_get_a_codebook_about_as_near_as_the_exact_one() {
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    let values: Vec<f32> = (0..3000).map(|_| rng.random::<f32>().powi(3)).collect();
    for k in [2, 16, 64] {
        let error = codebook::lloyd(&values, k).squared_error(&values);
        let best = codebook::fit(&values, k).squared_error(&values);
        assert!(error <= 1.1 * best, "{k}: {error} and {best}");
    }
}

#[test]
fn a_range_that_saturates_is_more_exact_within() {
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    let normal = |rng: &mut ChaCha8Rng| (0..12).map(|_| rng.random::<f32>()).sum::<f32>() - 6.0;
    let mut values: Vec<f32> = (0..5000).map(|_| normal(&mut rng)).collect();
    values.push(150.0);
    let error = |saturation| {
        let quantization = Quantization::new(LevelKind::Symmetric(saturation), 4).unwrap();
        quantization
            .fit(&values)
            .unwrap()
            .squared_error(&values[..5000])
    };
    let covering = error(Saturation::MinMax);
    for saturation in [Saturation::Percentile(99.9), Saturation::Kl] {
        let error = error(saturation);
        assert!(
            error < 0.2 * covering,
            "{saturation:?}: {error} and {covering}"
        );
    }
    // The error of the outlier counts too, so the squares compromise.
    assert!(error(Saturation::Mse) <= covering);
}

#[test]
fn histograms_grow() {
    let mut histogram = Histogram::new();
    histogram.add(&[0.5; 10]).unwrap();
    assert_eq!(histogram.range(), [0.5, 0.5]);
    histogram.add(&[-1.0, 3.0]).unwrap();
    assert_eq!((histogram.range(), histogram.total()), ([-1.0, 3.0], 12));
    let [low, high] = Saturation::Percentile(80.0).range(&histogram, 16).unwrap();
    assert!(low > -1.0 && high < 3.0, "{low} {high}");
    assert!((low..=high).contains(&0.5));
    let error = histogram.add(&[1.0, f32::NAN]).unwrap_err();
    assert!(
        matches!(error, QuantizeError::NonFinite { index: 1, .. }),
        "{error}"
    );
    assert_eq!(histogram.total(), 12);
}

#[test]
fn what_cannot_be_quantised_is_named() {
    for (text, says) in [
        ("uniform0", "1 to 16"),
        ("codebook17", "1 to 16"),
        ("powers6", "2 to 5"),
        ("symmetric1", "2 to 16"),
        ("uniform", "names no quantisation"),
        ("stars4", "names no quantisation"),
        ("uniform4/row", "names no quantisation"),
        ("uniform999", "names no quantisation"),
    ] {
        let error = text.parse::<Quantization>().unwrap_err().to_string();
        assert!(error.contains(says), "{text}: {error}");
    }
    let percentile = LevelKind::Symmetric(Saturation::Percentile(0.0));
    assert!(Quantization::new(percentile, 8).is_err());
    let json = r#"{"kind":"uniform","bits":40}"#;
    assert!(serde_json::from_str::<Quantization>(json).is_err());
    for quantization in kinds() {
        let json = serde_json::to_string(&quantization).unwrap();
        assert_eq!(
            serde_json::from_str::<Quantization>(&json).unwrap(),
            quantization
        );
    }
    let on_grid = OnGrid::new(Quantization::uniform(2).unwrap(), vec![true; 4]);
    let error = on_grid.project(&[1.0, f32::INFINITY, 0.0, 1.0], WeightShape::matrix(2, 2));
    assert!(matches!(
        error,
        Err(ProjectionError::NonFinite { index: 1, .. })
    ));
    let keep = vec![false, true, true, true];
    let rows = Quantization::uniform(2).unwrap().with_scope(Scope::Channel);
    let weights = [f32::NAN, 1.0, 0.5, f32::INFINITY];
    let error = OnGrid::new(rows, keep).project(&weights, WeightShape::matrix(2, 2));
    let Err(ProjectionError::NonFinite { index: 3, value }) = error else {
        panic!("{error:?}");
    };
    assert_eq!(value, f32::INFINITY);
    let error = on_grid.project(&[1.0; 3], WeightShape::matrix(2, 2));
    assert!(matches!(error, Err(ProjectionError::Shape { .. })));
}
