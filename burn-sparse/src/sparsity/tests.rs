use super::*;

#[test]
fn sparsity_outside_the_unit_interval_is_refused() {
    for bad in [-0.1, 1.0, 1.5, f64::NAN, f64::INFINITY] {
        assert!(matches!(
            Sparsity::unstructured(bad),
            Err(SparseError::SparsityOutOfRange(_))
        ));
    }
    let json = r#"{"kind":"row_balanced","budget":{"sparsity":1.0}}"#;
    assert!(serde_json::from_str::<Sparsity>(json).is_err());
}

#[test]
fn counts_are_exact_and_never_empty_a_layer() {
    let nnz = |sparsity: Result<Sparsity, SparseError>, rows, row_len| {
        sparsity
            .unwrap()
            .nnz(WeightShape::matrix(rows, row_len))
            .unwrap()
    };
    assert_eq!(nnz(Sparsity::unstructured(0.95), 10, 10), 5);
    assert_eq!(nnz(Sparsity::row_balanced(0.999), 4, 10), 4);
    assert_eq!(nnz(Sparsity::row_balanced(0.0), 4, 10), 40);
    assert_eq!(nnz(Sparsity::unstructured(0.5), 0, 10), 0);
}

#[test]
fn more_non_zeros_than_weights_is_an_error() {
    let error = Sparsity::RowBalanced(Budget::Nnz(11))
        .nnz(WeightShape::matrix(4, 10))
        .unwrap_err();
    assert!(error.to_string().contains("11 non-zeros"), "{error}");
}

#[test]
fn patterns_count_their_groups() {
    let shape = WeightShape::new(10, 6, [3, 3]);
    let nnz = |sparsity: Result<Sparsity, SparseError>| sparsity.unwrap().nnz(shape).unwrap();
    assert_eq!(nnz(Sparsity::shared_pattern(0.5, 4)), 10 * 27);
    assert_eq!(nnz(Sparsity::filter(0.5)), 5 * 54);
    assert_eq!(nnz(Sparsity::channel(0.5)), 3 * 90);
    assert_eq!(nnz(Sparsity::column(0.5)), 27 * 10);
    assert_eq!(nnz(Sparsity::connectivity(0.75)), 15 * 9);
    // 60 kernels of which 5/9 go anyway: 27 kernels of four at 80 %.
    assert_eq!(nnz(Sparsity::kernel_pattern(0.8, 8)), 27 * 4);
    assert_eq!(nnz(Sparsity::n_of_m(2, 4)), 10 * 9 * 4);
    // Two blocks of 8 by 4 and by 2, two of 2: the 27 of 36 positions of the largest ones.
    assert_eq!(nnz(Sparsity::punched(0.25, [8, 4])), 9 * (32 + 16 + 8));
    // Blocks of 8 × 16 keep 4 × 3; 8 × 6, 4 × 1; 2 × 16, 2 × 2; 2 × 6, 1 × 1.
    let edges = Sparsity::block_column_row(0.9, [8, 16]).unwrap();
    let kept = |block| Sparsity::kept_of_block(Budget::Sparsity(0.5), edges_budget(), block);
    let expected = 3 * 12
        + kept([8, 6]).unwrap().iter().product::<usize>()
        + 3 * kept([2, 16]).unwrap().iter().product::<usize>()
        + kept([2, 6]).unwrap().iter().product::<usize>();
    assert_eq!(kept([8, 16]).unwrap(), [4, 3]);
    assert_eq!(edges.nnz(shape).unwrap(), expected);
}

fn edges_budget() -> Budget {
    Budget::Sparsity(0.9)
}

#[test]
fn what_a_layer_cannot_have_is_refused() {
    let shape = WeightShape::new(4, 2, [1, 1]);
    let nnz = |sparsity: Result<Sparsity, SparseError>| sparsity.unwrap().nnz(shape);
    assert!(matches!(
        nnz(Sparsity::block_column_row(0.5, [8, 2])),
        Err(SparseError::Block {
            weight: Some([4, 2]),
            ..
        })
    ));
    assert!(matches!(
        nnz(Sparsity::punched(0.5, [4, 4])),
        Err(SparseError::Block { .. })
    ));
    assert!(matches!(
        nnz(Sparsity::shared_pattern(0.5, 5)),
        Err(SparseError::Block { .. })
    ));
    let error = nnz(Sparsity::kernel_pattern(0.5, 8)).unwrap_err();
    assert!(error.to_string().contains("1×1"), "{error}");
    let error = nnz(Sparsity::filter(0.9)).unwrap_err();
    assert!(
        matches!(error, SparseError::EmptiesLayer { groups: 4, .. }),
        "{error}"
    );
    assert_eq!(nnz(Ok(Sparsity::Filter(Budget::Nnz(1)))).unwrap(), 2);
    assert!(nnz(Ok(Sparsity::Filter(Budget::Nnz(0)))).is_err());
    assert!(nnz(Ok(Sparsity::Filter(Budget::Nnz(5)))).is_err());
    assert!(Sparsity::punched(0.5, [0, 4]).is_err());
    assert!(Sparsity::n_of_m(3, 2).is_err());
    assert!(Sparsity::kernel_pattern(0.5, 0).is_err());
}

#[test]
fn the_same_pattern_at_another_sparsity() {
    let shape = WeightShape::new(16, 32, [3, 3]);
    for sparsity in [
        Sparsity::unstructured(0.9),
        Sparsity::shared_pattern(0.9, 4),
        Sparsity::block_column_row(0.9, [8, 32]),
        Sparsity::punched(0.9, [4, 4]),
        Sparsity::kernel_pattern(0.9, 8),
        Sparsity::filter(0.9),
        Sparsity::column(0.9),
    ] {
        for asked in [0.6, 0.8] {
            let density = sparsity.as_ref().unwrap().at(asked).density(shape).unwrap();
            assert!(
                (1.0 - density - asked).abs() < 0.05,
                "{sparsity:?} at {asked}: {density}"
            );
        }
        let dense = sparsity.as_ref().unwrap().at(0.0).density(shape).unwrap();
        let most = if sparsity.unwrap().name() == "kernel-pattern" {
            4.0 / 9.0
        } else {
            1.0
        };
        assert!((dense - most).abs() < 1e-9);
    }
}
