use super::*;
use crate::Projection;
use crate::projection::ProjectionError;

#[test]
fn ranks_that_cannot_be_are_named() {
    let shape = shape(6, 4, [3, 3]);
    let weights = random(shape, 1);
    let spectra = Spectra::new(&weights, shape).unwrap();
    for (ranks, says) in [
        (Ranks::new(0, 2), "the output rank is 0"),
        (Ranks::new(7, 2), "the output rank is 7"),
        (Ranks::new(2, 0), "the input rank is 0"),
        (Ranks::new(2, 5), "the input rank is 5"),
    ] {
        let error = spectra.hosvd(ranks).unwrap_err().to_string();
        assert!(error.starts_with(says), "{error}");
        assert!(spectra.hooi(ranks, HooiConfig::default()).is_err());
        assert!(spectra.error_bounds(ranks).is_err());
        let projection = TuckerRank::new(ranks);
        let error = projection.project(&weights, shape).unwrap_err();
        assert!(matches!(error, ProjectionError::Decompose(_)));
        let naive = projection.project_naive(&weights, shape).unwrap_err();
        assert_eq!(naive.to_string(), error.to_string());
    }
    for rank in [0, 7] {
        assert!(LowRank::new(&weights, shape, rank).is_err());
    }
    // 12 rows and 18 columns.
    assert!(SpatialSvd::new(&weights, shape, 13).is_err());
    for rank in [0, 25] {
        assert!(Cp::new(&weights, shape, rank, CpConfig::default()).is_err());
    }
}

#[test]
fn weights_that_are_no_numbers_are_refused() {
    let shape = shape(3, 2, [2, 2]);
    for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut weights = random(shape, 1);
        weights[17] = value;
        let errors = [
            Spectra::new(&weights, shape).err(),
            LowRank::new(&weights, shape, 1).err(),
            SpatialSvd::new(&weights, shape, 1).err(),
            Cp::new(&weights, shape, 1, CpConfig::default()).err(),
        ];
        for error in errors {
            assert!(matches!(
                error,
                Some(DecomposeError::NonFinite { index: 17, .. })
            ));
        }
        let error = TuckerRank::new(Ranks::new(1, 1)).project(&weights, shape);
        assert!(matches!(
            error,
            Err(ProjectionError::NonFinite { index: 17, .. })
        ));
    }
}

#[test]
fn weights_that_do_not_fill_the_shape_are_refused() {
    for (len, shape) in [
        (5, shape(2, 3, [1, 1])),
        (0, shape(0, 3, [1, 1])),
        (4, shape(usize::MAX, 2, [3, 3])),
    ] {
        let weights = vec![1.0; len];
        let error = Spectra::new(&weights, shape).unwrap_err();
        assert!(matches!(error, DecomposeError::Shape { .. }));
    }
    let near = TuckerRank::new(Ranks::new(1, 1)).project(&[], shape(0, 3, [1, 1]));
    assert!(near.unwrap().values.is_empty(), "as all projections");
}

#[test]
fn settings_out_of_range_are_refused() {
    let shape = shape(3, 2, [2, 2]);
    let weights = random(shape, 1);
    let spectra = Spectra::new(&weights, shape).unwrap();
    for tolerance in [-1.0, f64::NAN] {
        let config = HooiConfig {
            tolerance,
            ..HooiConfig::default()
        };
        assert!(spectra.hooi(Ranks::new(1, 1), config).is_err());
        let config = CpConfig {
            tolerance,
            ..CpConfig::default()
        };
        assert!(Cp::new(&weights, shape, 1, config).is_err());
    }
    for part in [0.0, -0.5, 1.1, f64::NAN] {
        assert!(
            RankChoice::new(RankRule::Energy(part))
                .ranks(&spectra)
                .is_err()
        );
    }
    let zero = RankChoice::new(RankRule::Fixed(Ranks::new(0, 1)));
    assert!(zero.ranks(&spectra).is_err());
}

#[test]
fn extreme_sizes_do_not_panic() {
    let shape = shape(3, 2, [2, 2]);
    for scale in [f32::MAX, f32::MIN_POSITIVE, 1e-45] {
        let weights: Vec<f32> = random(shape, 1)
            .iter()
            .map(|w| w.signum() * scale)
            .collect();
        let spectra = Spectra::new(&weights, shape).unwrap();
        let tucker = spectra
            .hooi(Ranks::new(2, 1), HooiConfig::default())
            .unwrap();
        assert!(tucker.relative_error().is_finite());
        assert!(Cp::new(&weights, shape, 2, CpConfig::default()).is_ok());
    }
}
