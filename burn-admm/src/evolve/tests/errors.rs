use super::*;
use crate::admm::AdmmError;

#[test]
fn settings_out_of_range_are_named() {
    let good = EvolveConfig::new();
    good.validate().unwrap();
    let bad = [
        (
            "tolerance",
            EvolveConfig {
                tolerance: 0.0,
                ..good
            },
        ),
        (
            "tolerance",
            EvolveConfig {
                tolerance: f64::INFINITY,
                ..good
            },
        ),
        ("step", EvolveConfig { step: 0.0, ..good }),
        ("step", EvolveConfig { step: 1.0, ..good }),
        (
            "layers",
            EvolveConfig {
                layers: 0.0,
                ..good
            },
        ),
        (
            "layers",
            EvolveConfig {
                layers: 1.5,
                ..good
            },
        ),
        (
            "magnitude",
            EvolveConfig {
                magnitude: -1.0,
                ..good
            },
        ),
        (
            "magnitude",
            EvolveConfig {
                magnitude: f64::NAN,
                ..good
            },
        ),
        (
            "gradient",
            EvolveConfig {
                gradient: 1e7,
                ..good
            },
        ),
        (
            "gradient",
            EvolveConfig {
                gradient: 0.0,
                magnitude: 0.0,
                ..good
            },
        ),
        (
            "population",
            EvolveConfig {
                population: 1,
                ..good
            },
        ),
        (
            "clusters",
            EvolveConfig {
                clusters: 0,
                ..good
            },
        ),
        (
            "clusters",
            EvolveConfig {
                clusters: 9,
                ..good
            },
        ),
        (
            "initial",
            EvolveConfig {
                initial: 1.0,
                ..good
            },
        ),
        (
            "crossover",
            EvolveConfig {
                crossover: 1.1,
                ..good
            },
        ),
        (
            "mutation",
            EvolveConfig {
                mutation: -0.1,
                ..good
            },
        ),
        (
            "memory",
            EvolveConfig {
                memory: 1.0,
                ..good
            },
        ),
        (
            "damping",
            EvolveConfig {
                damping: f64::INFINITY,
                ..good
            },
        ),
        (
            "target",
            EvolveConfig {
                target: 0.0,
                ..good
            },
        ),
        (
            "target",
            EvolveConfig {
                target: 1.1,
                ..good
            },
        ),
    ];
    for (expected, config) in bad {
        let error = Evolution::new(&net(), &plan(), config, 0.5).unwrap_err();
        let named = matches!(&error, EvolveError::Config { name, .. } if *name == expected);
        assert!(named, "{expected}: {error}");
    }
    let json = serde_json::to_string(&good).unwrap();
    assert_eq!(serde_json::from_str::<EvolveConfig>(&json).unwrap(), good);
    assert!(serde_json::from_str::<EvolveConfig>("{\"stap\": 0.1}").is_err());
}

#[test]
fn plans_and_accuracies_that_cannot_work_are_refused() {
    let new = |plan: &Plan, accuracy| Evolution::new(&net(), plan, config(), accuracy).unwrap_err();
    assert!(matches!(
        new(&Plan::dense(), 0.5),
        EvolveError::NothingConstrained
    ));
    let fixed = plan()
        .with_sparsity(FC, Sparsity::n_of_m(2, 4).unwrap())
        .unwrap();
    let error = new(&fixed, 0.5);
    assert!(
        matches!(&error, EvolveError::Fixed { path, .. } if path == FC),
        "{error}"
    );
    let dense = plan()
        .with_sparsity(FC, Sparsity::unstructured(0.0).unwrap())
        .unwrap();
    assert!(matches!(new(&dense, 0.5), EvolveError::Fixed { .. }));
    assert!(matches!(new(&plan(), f64::NAN), EvolveError::Accuracy(_)));
    let broken = set(net(), CONV, vec![f32::INFINITY; SIZES[0]]);
    let error = Evolution::new(&broken, &plan(), config(), 0.5).unwrap_err();
    let named =
        matches!(&error, EvolveError::Weights(AdmmError::Projection { path, .. }) if path == CONV);
    assert!(named, "{error}");
}

#[test]
fn trials_have_an_order() {
    let mut task = Task::new(config());
    let gradients = GradientsParams::new();
    let observe = task.evolution.observe(&task.net, &gradients).unwrap_err();
    let step = task.evolution.step(&mut task.net).unwrap_err();
    let end = task
        .evolution
        .end(&mut task.net, &mut task.optimizer, 0.5)
        .unwrap_err();
    let rewind = task
        .evolution
        .rewind(&mut task.net, &mut task.optimizer)
        .unwrap_err();
    for (error, call) in [
        (observe, "observe"),
        (step, "step"),
        (end, "end"),
        (rewind, "rewind"),
    ] {
        assert!(
            matches!(error, EvolveError::NoTrial(c) if c == call),
            "{error}"
        );
    }
    task.begin();
    let error = task
        .evolution
        .begin(&task.net, &task.optimizer)
        .unwrap_err();
    assert!(matches!(error, EvolveError::InTrial("begin")), "{error}");
    let error = task
        .evolution
        .end(&mut task.net, &mut task.optimizer, 0.5)
        .unwrap_err();
    assert!(matches!(error, EvolveError::EmptyTrial), "{error}");
    task.batches(1);
    for accuracy in [f64::NAN, f64::INFINITY] {
        let error = task
            .evolution
            .end(&mut task.net, &mut task.optimizer, accuracy)
            .unwrap_err();
        assert!(matches!(error, EvolveError::Accuracy(_)), "{error}");
    }
    // The trial goes on.
    assert!(task.end(0.5).kept);
}

#[test]
fn gradients_that_are_no_numbers_are_refused_before_they_are_taken() {
    let mut task = Task::new(config());
    task.begin();
    let poisoned = loss(&task.net, 1) * f32::NAN;
    let gradients = GradientsParams::from_grads(poisoned.backward(), &task.net);
    let error = task.evolution.observe(&task.net, &gradients).unwrap_err();
    let named = matches!(&error, EvolveError::Gradient { path, index: 0, .. } if path == CONV);
    assert!(named, "{error}");
}

#[test]
fn models_that_do_not_fit_are_refused() {
    let mut task = Task::new(config());
    // Without masks.
    let mut bare = net();
    task.evolution.begin(&bare, &task.optimizer).unwrap();
    let gradients = GradientsParams::from_grads(loss(&bare, 1).backward(), &bare);
    task.evolution.observe(&bare, &gradients).unwrap();
    let error = task.evolution.step(&mut bare).unwrap_err();
    assert!(matches!(error, EvolveError::NotAttached(_)), "{error}");
    task.evolution
        .rewind(&mut bare, &mut task.optimizer)
        .unwrap();
    // Another one.
    let error = task.evolution.attach(net().fc).unwrap_err();
    assert!(
        matches!(error, EvolveError::Weights(AdmmError::Model { .. })),
        "{error}"
    );
    task.begin();
    let mut other = net().fc;
    let error = task
        .evolution
        .rewind(&mut other, &mut task.optimizer)
        .unwrap_err();
    assert!(matches!(error, EvolveError::Rewind(_)), "{error}");
    let error = task.evolution.step(&mut other).unwrap_err();
    assert!(
        matches!(error, EvolveError::Unobserved(_) | EvolveError::Weights(_)),
        "{error}"
    );
}
