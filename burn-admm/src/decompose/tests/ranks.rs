use super::*;

/// A matrix of some rank under noise.
fn noisy(rows: usize, columns: usize, rank: usize, noise: f32, seed: u64) -> Vec<f32> {
    let left = random(WeightShape::matrix(rows, rank.max(1)), seed);
    let right = random(WeightShape::matrix(rank.max(1), columns), seed + 1);
    let mut matrix = random(WeightShape::matrix(rows, columns), seed + 2);
    for (index, entry) in matrix.iter_mut().enumerate() {
        let (i, j) = (index / columns, index % columns);
        let signal = (0..rank).map(|r| left[i * rank + r] * right[r * columns + j]);
        *entry = noise * *entry + signal.sum::<f32>();
    }
    matrix
}

fn rank_of(matrix: &[f32], rows: usize, columns: usize) -> usize {
    let spectra = Spectra::new(matrix, WeightShape::new(rows, columns, [1, 1])).unwrap();
    evbmf_rank(spectra.output_values(), [rows, columns])
}

#[test]
fn planted_ranks_stand_out_of_noise() {
    for (rows, columns, rank) in [(64, 576, 10), (128, 1152, 40), (32, 64, 6)] {
        let matrix = noisy(rows, columns, rank, 1.0, 9);
        assert_eq!(rank_of(&matrix, rows, columns), rank, "{rows}×{columns}");
    }
    assert_eq!(
        rank_of(&noisy(64, 576, 0, 1.0, 9), 64, 576),
        0,
        "pure noise"
    );
}

#[test]
fn without_noise_the_rank_is_counted() {
    for rank in [1, 3, 12] {
        // In f64 all along: rounding to f32 would be noise, which it finds nothing in.
        let left = random(WeightShape::matrix(16, rank), 1);
        let right = random(WeightShape::matrix(rank, 40), 2);
        let product = faer::Mat::from_fn(16, 40, |i, j| {
            let of = |r: usize| f64::from(left[i * rank + r]) * f64::from(right[r * 40 + j]);
            (0..rank).map(of).sum::<f64>()
        });
        let singular = product.singular_values().unwrap();
        let squared: Vec<f64> = singular.iter().map(|s| s * s).collect();
        assert_eq!(evbmf_rank(&squared, [16, 40]), rank);
    }
    assert_eq!(evbmf_rank(&[0.0; 5], [5, 9]), 0);
    assert_eq!(evbmf_rank(&[], [0, 9]), 0);
}

#[test]
fn scale_does_not_matter() {
    let matrix = noisy(48, 200, 7, 0.3, 4);
    let spectra = Spectra::new(&matrix, WeightShape::new(48, 200, [1, 1])).unwrap();
    for scale in [1e-12, 1e-3, 1.0, 1e9] {
        let values = spectra.output_values().iter().map(|v| v * scale);
        assert_eq!(evbmf_rank(&values.collect::<Vec<_>>(), [48, 200]), 7);
    }
}

#[test]
fn rules_give_ranks_that_devices_like() {
    let shape = shape(24, 20, [3, 3]);
    let spectra = Spectra::new(&planted(shape, Ranks::new(5, 3), 1), shape).unwrap();
    let of = |rule| RankChoice::new(rule).ranks(&spectra).unwrap();
    assert_eq!(of(RankRule::Energy(0.999_999)), Ranks::new(5, 3));
    assert_eq!(of(RankRule::Fixed(Ranks::new(4, 9))), Ranks::new(4, 9));
    for ranks in [Ranks::new(25, 9), Ranks::new(4, 21)] {
        let error = RankChoice::new(RankRule::Fixed(ranks)).ranks(&spectra);
        assert!(
            matches!(error, Err(DecomposeError::Rank { .. })),
            "{error:?}"
        );
    }
    let choice = RankChoice::new(RankRule::Energy(0.999_999)).with_multiple(8);
    assert_eq!(choice.ranks(&spectra).unwrap(), Ranks::new(8, 8));
    let least = choice.with_least(17).ranks(&spectra).unwrap();
    assert_eq!(
        least,
        Ranks::new(24, 20),
        "up to a multiple, but not above the channels"
    );

    let noise = Spectra::new(&random(shape, 2), shape).unwrap();
    let choice = RankChoice::new(RankRule::Evbmf)
        .with_multiple(8)
        .with_least(8);
    assert_eq!(choice.ranks(&noise).unwrap(), Ranks::new(8, 8));
}

#[test]
fn the_error_stays_below_the_energy_that_may_go() {
    for (seed, shape) in SHAPES.into_iter().enumerate() {
        let spectra = Spectra::new(&random(shape, 50 + seed as u64), shape).unwrap();
        for part in [0.5, 0.9, 0.99, 1.0] {
            let ranks = RankChoice::new(RankRule::Energy(part))
                .ranks(&spectra)
                .unwrap();
            let error = spectra.hosvd(ranks).unwrap().squared_error();
            let may_go = (1.0 - part + 1e-12) * spectra.energy();
            assert!(error <= may_go, "{shape}, {part}: {error} of {may_go}");
        }
    }
}

#[test]
fn choices_are_written_and_read() {
    let choice = RankChoice::new(RankRule::Fixed(Ranks::new(3, 4))).with_multiple(16);
    let text = serde_json::to_string(&choice).unwrap();
    assert_eq!(serde_json::from_str::<RankChoice>(&text).unwrap(), choice);
}
