use super::*;
use crate::testing::get;

fn bits(net: &Net) -> Vec<u32> {
    let weights = [CONV, FC].map(|path| get(net, path)).concat();
    weights.iter().map(|w| w.to_bits()).collect()
}

#[test]
fn a_rewind_restores_everything_bit_for_bit() {
    let mut task = Task::new(config().with_step(0.4));
    task.trial(0.5);
    let (bytes, masks) = (task.bytes(), task.evolution.masks());
    let random = task.evolution.random().clone();
    let (optimizer, position) = (task.optimizer.clone(), task.evolution.position());

    task.begin();
    task.batches(5);
    assert!(task.bytes() != bytes);
    assert_ne!(*task.evolution.random(), random);
    let verdict = task.end(0.1);
    assert!(!verdict.kept);
    assert!(task.bytes() == bytes);
    assert_eq!(task.evolution.masks(), masks);
    assert_eq!(*task.evolution.random(), random);
    assert_eq!(task.evolution.position(), position);

    // The optimiser too: it goes on as a copy that was made before.
    let train = |mut net: Net, mut optimizer: ModuleOptimizer| {
        for seed in 0..3 {
            let gradients = GradientsParams::from_grads(loss(&net, seed).backward(), &net);
            net = optimizer.step(0.02, net, gradients);
        }
        bits(&net)
    };
    let fresh = || {
        let net = task.evolution.attach(net()).unwrap();
        net.load_record(task.net.clone().into_record())
    };
    let expected = train(fresh(), optimizer.clone());
    assert_eq!(train(fresh(), task.optimizer.clone()), expected);
    assert_ne!(train(fresh(), super::optimizer()), expected);
}

/// What is trained after a rewind is what would have been trained without the trial.
#[test]
fn rewound_training_repeats_exactly() {
    let mut one = Task::new(config().with_step(0.4));
    let mut other = Task::new(config().with_step(0.4));
    for task in [&mut one, &mut other] {
        task.trial(0.5);
        task.trial(0.52);
    }
    // One of them has a trial that goes wrong, and then both train the same vector.
    let first = one.begin();
    one.batches(4);
    let trained = one.numbers();
    one.end(0.2);
    let candidate = one.begin();
    let vector = candidate.sparsities.clone();
    assert_ne!(vector, first.sparsities);

    let same = other.begin();
    assert_eq!(same, first, "the same evolution proposes the same");
    other.batches(4);
    assert!(other.numbers() == trained, "and trains the same");
    assert_eq!(candidate.seed, same.seed, "also after the rewind");
    // The vector of the rewound one, put into the other, which is rewound as well.
    other.end(0.2);
    let again = other.begin();
    assert_eq!(again, candidate);
    one.batches(4);
    other.batches(4);
    assert!(one.numbers() == other.numbers());
    assert_eq!(bits(&one.net), bits(&other.net));
}

/// A trial that is repeated from the snapshot with the same vector ends with the same bits.
#[test]
fn a_repeated_trial_ends_the_same() {
    // Nothing can grow, so every trial has the same vector.
    let config = config().with_step(0.5).with_target(0.3);
    let mut task = Task::new(config);
    while task.evolution.sparsity() < 0.3 - 1e-2 {
        task.trial(0.5);
    }
    let rest = EvolveConfig {
        rest_after: 1,
        crossover: 0.0,
        mutation: 0.0,
        ..config
    };
    task.evolution.config = rest;
    let mut ends = Vec::new();
    for _ in 0..5 {
        let candidate = task.begin();
        task.batches(3);
        if candidate.origin == Origin::Rest {
            ends.push((candidate.sparsities, task.bytes()));
        }
        task.end(0.1);
    }
    assert!(ends.len() >= 2, "{}", ends.len());
    assert!(ends.iter().all(|end| *end == ends[0]));
}

#[test]
fn what_running_statistics_hold_back_is_restored_too() {
    let mut task = Task::new(config());
    // The last update of a forward pass is not in the record until somebody asks.
    let _ = loss(&task.net, 3);
    let expected = task.net.valid().norm.running_mean.value();
    task.begin();
    task.batches(1);
    let _ = loss(&task.net, 4);
    task.end(0.1);
    let _ = loss(&task.net, 5);
    let values = |t: Tensor<1>| t.into_data().try_to_vec::<f32>().unwrap();
    let mean = task.net.clone().valid().norm.running_mean.value();
    // As if there had been the first and the last pass alone.
    let fresh = task.evolution.attach(net()).unwrap();
    let _ = (loss(&fresh, 3), loss(&fresh, 5));
    assert_eq!(
        values(mean.clone()),
        values(fresh.valid().norm.running_mean.value())
    );
    assert_ne!(values(mean), values(expected));
}

#[test]
fn a_trial_that_diverges_can_be_abandoned() {
    let mut task = Task::new(config());
    task.trial(0.5);
    let (bytes, random) = (task.bytes(), task.evolution.random().clone());
    task.begin();
    task.batches(2);
    task.net = set(task.net, CONV, vec![f32::NAN; SIZES[0]]);
    assert!(task.evolution.step(&mut task.net).is_err());
    task.evolution
        .rewind(&mut task.net, &mut task.optimizer)
        .unwrap();
    assert!(task.bytes() == bytes);
    assert_eq!(*task.evolution.random(), random);
    assert_eq!(task.evolution.history().len(), 1);
    assert!(task.trial(0.5).kept);
}
