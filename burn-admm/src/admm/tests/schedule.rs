use super::*;

#[test]
fn changing_rho_rescales_the_dual() {
    let mut rng = ChaCha8Rng::seed_from_u64(9);
    let start = model(5);
    let growing = AdmmConfig::new()
        .with_rho(0.1)
        .with_schedule(RhoSchedule::Multiplicative {
            factor: 2.0,
            max: 0.3,
        });
    let mut scaled = Admm::new(&start, &plan(), growing).unwrap();
    let mut plain = Admm::new(&start, &plan(), constant(0.1)).unwrap();
    let model = walk(start, &mut rng);
    let info = scaled.update(&model).unwrap();
    plain.update(&model).unwrap();
    assert_eq!((info.rho, info.next_rho, scaled.rho()), (0.1, 0.2, 0.2));
    for (s, p) in scaled.u("b").unwrap().iter().zip(plain.u("b").unwrap()) {
        assert_eq!(*s, p / 2.0, "rho · U stays what it was");
    }
    scaled.update(&walk(model, &mut rng)).unwrap();
    assert_eq!(scaled.rho(), 0.3, "limited");
}

#[test]
fn residual_balancing_moves_rho_towards_the_larger_residual() {
    let schedule = RhoSchedule::residual_balanced();
    assert_eq!(schedule.next(0.1, 1.0, 0.01), 0.2);
    assert_eq!(schedule.next(0.1, 0.01, 1.0), 0.05);
    assert_eq!(schedule.next(0.1, 0.5, 0.5), 0.1);
    assert_eq!(schedule.next(1.0, 1.0, 0.0), 1.0);
    assert_eq!(schedule.next(1e-6, 0.0, 1.0), 1e-6);
    assert_eq!(
        schedule.next(5.0, 1.0, 0.0),
        5.0,
        "a start beyond the limit is left alone"
    );
}

#[test]
fn settings_are_validated_and_round_trip() {
    let start = model(6);
    for config in [
        constant(0.0),
        constant(f64::NAN),
        constant(-1.0),
        AdmmConfig::new().with_dual_limit(0.0, 3),
        AdmmConfig::new().with_schedule(RhoSchedule::Multiplicative {
            factor: 0.0,
            max: 1.0,
        }),
        AdmmConfig::new().with_schedule(RhoSchedule::ResidualBalanced {
            ratio: 10.0,
            factor: 2.0,
            min: 1.0,
            max: 0.1,
        }),
    ] {
        let error = Admm::new(&start, &plan(), config).unwrap_err();
        assert!(matches!(error, AdmmError::Config(_)), "{error}");
    }
    let config = AdmmConfig::new().with_schedule(RhoSchedule::residual_balanced());
    let json = serde_json::to_string(&config).unwrap();
    assert_eq!(serde_json::from_str::<AdmmConfig>(&json).unwrap(), config);
    assert_eq!(
        serde_json::from_str::<AdmmConfig>("{}").unwrap(),
        AdmmConfig::new()
    );
    assert!(matches!(
        Admm::new(&start, &Plan::dense(), AdmmConfig::new()),
        Err(AdmmError::NothingConstrained)
    ));
}
