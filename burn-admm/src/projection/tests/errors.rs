use super::*;

/// One of each pattern, for weights of at least 4 × 4 × 3 × 3.
fn all() -> Vec<Sparsity> {
    let pool = PatternPool::new([[1, 3, 4, 5], [4, 5, 7, 8]]).unwrap();
    vec![
        Sparsity::unstructured(0.5).unwrap(),
        Sparsity::row_balanced(0.5).unwrap(),
        Sparsity::shared_pattern(0.5, 4).unwrap(),
        Sparsity::block_column_row(0.5, [4, 8]).unwrap(),
        Sparsity::punched(0.5, [4, 2]).unwrap(),
        Sparsity::KernelPattern {
            pool: Pool::Given(pool),
            budget: Budget::Sparsity(0.5),
        },
        Sparsity::connectivity(0.5).unwrap(),
        Sparsity::filter(0.5).unwrap(),
        Sparsity::channel(0.5).unwrap(),
        Sparsity::column(0.5).unwrap(),
        Sparsity::n_of_m(2, 4).unwrap(),
    ]
}

/// Of both forms.
fn error(sparsity: Sparsity, weights: &[f32], shape: WeightShape) -> ProjectionError {
    let projection = projection_of(sparsity).unwrap();
    let naive = projection.project_naive(weights, shape).unwrap_err();
    let fast = projection.project(weights, shape).unwrap_err();
    assert_eq!(fast.to_string(), naive.to_string());
    fast
}

const SHAPE: WeightShape = WeightShape {
    rows: 4,
    channels: 4,
    kernel: [3, 3],
};

#[test]
fn non_finite_weights_are_named() {
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        for sparsity in all() {
            let mut weights = vec![1.0; SHAPE.len()];
            weights[17] = bad;
            let error = error(sparsity, &weights, SHAPE);
            assert!(
                matches!(error, ProjectionError::NonFinite { index: 17, .. }),
                "{sparsity}: {error}"
            );
        }
    }
}

#[test]
fn weights_that_do_not_fill_the_shape_are_refused() {
    for sparsity in all() {
        for len in [0, 1, SHAPE.len() - 1, SHAPE.len() + 1] {
            let error = error(sparsity, &vec![1.0; len], SHAPE);
            assert!(
                matches!(error, ProjectionError::Shape { len: l, .. } if l == len),
                "{sparsity}: {error}"
            );
        }
        // Shapes whose product overflows.
        for (rows, channels, kernel) in [
            (usize::MAX, 2, [1, 1]),
            (0, usize::MAX, [2, 1]),
            (1, 0, [usize::MAX, 2]),
        ] {
            let shape = WeightShape::new(rows, channels, kernel);
            assert!(matches!(
                error(sparsity, &[], shape),
                ProjectionError::Shape { len: 0, .. }
            ));
        }
    }
}

#[test]
fn empty_weights_have_empty_projections() {
    for sparsity in all() {
        let projection = projection_of(sparsity).unwrap();
        for (rows, channels, kernel) in [
            (0, 4, [3, 3]),
            (4, 0, [3, 3]),
            (4, 4, [0, 3]),
            (0, 0, [0, 0]),
            (usize::MAX, 0, [1, 1]),
        ] {
            let shape = WeightShape::new(rows, channels, kernel);
            for projected in [
                projection.project(&[], shape),
                projection.project_naive(&[], shape),
            ] {
                assert_eq!(projected.unwrap(), Projected::default(), "{sparsity}");
            }
        }
    }
}

#[test]
fn blocks_larger_than_the_weight_are_refused() {
    for (sparsity, shape) in [
        (Sparsity::shared_pattern(0.5, 5), WeightShape::matrix(4, 4)),
        (
            Sparsity::block_column_row(0.5, [4, 5]),
            WeightShape::matrix(4, 4),
        ),
        (
            Sparsity::block_column_row(0.5, [5, 4]),
            WeightShape::matrix(4, 4),
        ),
        (
            Sparsity::punched(0.5, [4, 2]),
            WeightShape::new(4, 1, [3, 3]),
        ),
    ] {
        let error = error(sparsity.unwrap(), &vec![1.0; shape.len()], shape);
        assert!(
            matches!(error, ProjectionError::Budget(SparseError::Block { .. })),
            "{error}"
        );
    }
    // Built by hand, without the checks of the constructors.
    let none = [
        Sparsity::SharedPattern {
            rows: 0,
            budget: Budget::Nnz(1),
        },
        Sparsity::BlockColumnRow {
            block: [0, 1],
            rows: Budget::Nnz(1),
            budget: Budget::Nnz(1),
            search: BlockSearch::Sequential,
        },
        Sparsity::Punched {
            filters: 1,
            channels: 0,
            budget: Budget::Nnz(1),
        },
        Sparsity::NofM { n: 3, m: 0 },
    ];
    for sparsity in none {
        error(sparsity, &[1.0; 36], WeightShape::new(2, 2, [3, 3]));
        error(sparsity, &[], WeightShape::matrix(0, 3));
    }
}

#[test]
fn rates_that_empty_a_layer_are_refused() {
    for sparsity in all().into_iter().map(|sparsity| sparsity.at(0.999)) {
        let projection = projection_of(sparsity).unwrap();
        match projection.project(&[1.0; 144], SHAPE) {
            // Counted in entries, of which one always stays.
            Ok(projected) => assert!(projected.nnz() > 0, "{sparsity}"),
            Err(error) => assert!(
                matches!(
                    error,
                    ProjectionError::Budget(SparseError::EmptiesLayer { .. })
                ),
                "{error}"
            ),
        }
    }
    for group in [
        Sparsity::filter(0.999),
        Sparsity::punched(0.999, [4, 2]),
        Sparsity::connectivity(0.999),
    ] {
        error(group.unwrap(), &[1.0; 144], SHAPE);
    }
}

#[test]
fn budgets_and_kernels_that_do_not_fit_are_refused() {
    assert!(matches!(
        error(
            Sparsity::RowBalanced(Budget::Nnz(5)),
            &[1.0; 8],
            WeightShape::matrix(2, 4)
        ),
        ProjectionError::Budget(SparseError::TooManyNonZeros {
            asked: 5,
            available: 4,
            ..
        })
    ));
    let error = error(all()[5], &[1.0; 8], WeightShape::matrix(2, 4));
    assert!(error.to_string().contains("use connectivity"), "{error}");
    assert!(matches!(
        projection_of(Sparsity::kernel_pattern(0.8, 8).unwrap()),
        Err(ProjectionError::PoolNotFound { patterns: 8 })
    ));
}
