use super::*;

#[test]
fn divergence_names_iteration_layer_and_residual() {
    let start = model(7);
    let mut admm = Admm::new(&start, &plan(), constant(1e-2)).unwrap();
    admm.check_loss(1.0).unwrap();
    admm.update(&start).unwrap();
    let error = admm.check_loss(f64::NAN).unwrap_err();
    assert!(
        matches!(&error, AdmmError::Diverged { iteration: 2, residual, cause: Divergence::Loss(_), .. } if *residual > 0.0),
        "{error}"
    );

    let mut broken = get(&start, "b");
    broken[5] = f32::INFINITY;
    let u = admm.u("b").unwrap().to_vec();
    let error = admm
        .update(&set(start.clone(), "b", broken.clone()))
        .unwrap_err();
    assert!(
        matches!(&error, AdmmError::Diverged { iteration: 2, layer, cause: Divergence::Weight { index: 5, .. }, .. } if layer == "b"),
        "{error}"
    );
    assert_eq!(
        (admm.iteration(), admm.u("b").unwrap()),
        (1, &u[..]),
        "state as before"
    );
    assert!(matches!(
        Admm::new(&set(start, "b", broken), &plan(), constant(1e-2)),
        Err(AdmmError::Projection { path, source: ProjectionError::NonFinite { .. } }) if path == "b"
    ));
}

#[test]
fn a_dual_that_keeps_growing_is_divergence() {
    // Weights that never move towards Z: the dual of a pruned weight grows in each iteration, until
    // it is so large that the projection keeps that weight.
    let start = model(8);
    let config = constant(1e-2).with_dual_limit(0.5, 2);
    let mut admm = Admm::new(&start, &plan(), config).unwrap();
    let error = (0..100)
        .find_map(|_| admm.update(&start).err())
        .expect("divergence");
    let AdmmError::Diverged {
        iteration,
        layer,
        residual,
        cause,
    } = &error
    else {
        panic!("{error}")
    };
    assert!(*iteration >= 2 && admm.iteration() == *iteration);
    assert!(["a.weight", "b"].contains(&layer.as_str()) && *residual > 0.0);
    assert!(matches!(cause, Divergence::GrowingDual { ratio, limit: 0.5 } if *ratio > 0.5));
}

#[test]
fn a_model_without_the_parameter_is_an_error() {
    let start = model(9);
    let mut admm = Admm::new(&start, &plan(), constant(1e-2)).unwrap();
    let other = Two {
        a: LinearConfig::new(5, 7).init(&device()),
        b: start.b.clone(),
    };
    let error = admm.update(&other).unwrap_err();
    assert!(
        matches!(&error, AdmmError::Model { path, found: Some(shape), .. } if path == "a.weight" && shape == &[5, 7]),
        "{error}"
    );
    let error = admm.update(&start.a).unwrap_err();
    assert!(
        matches!(error, AdmmError::Model { found: None, .. }),
        "{error}"
    );
}
