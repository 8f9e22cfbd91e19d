use std::path::Path;

use super::*;
use crate::admm::StateError;

/// Trials with a fixed course of accuracies.
fn accuracy(trial: usize) -> f64 {
    [0.5, 0.52, 0.3, 0.49, 0.2, 0.4, 0.51, 0.5][trial % 8]
}

fn run(task: &mut Task, trials: core::ops::Range<usize>) {
    for trial in trials {
        task.trial(accuracy(trial));
    }
}

/// All that an evolution knows.
fn known(evolution: &Evolution) -> impl PartialEq + use<> {
    let numbers = (evolution.best, evolution.rewinds, evolution.position);
    let random = (evolution.proposals.clone(), evolution.random.clone());
    let vectors = (evolution.present.clone(), evolution.population.clone());
    let history = (evolution.history.clone(), evolution.statistics());
    (numbers, random, vectors, history, evolution.masks())
}

#[test]
fn a_resumed_evolution_is_the_same_bit_for_bit() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("evolve.safetensors");
    let mut whole = Task::new(config());
    run(&mut whole, 0..12);
    for stop in [0, 1, 3, 5, 8, 11] {
        let mut task = Task::new(config());
        run(&mut task, 0..stop);
        task.evolution.save(&path).unwrap();
        let record = task.bytes();
        let saved = task.optimizer.to_record();

        let evolution = Evolution::resume(&net(), &plan(), config(), &path).unwrap();
        assert!(
            known(&evolution) == known(&task.evolution),
            "stopped after {stop}"
        );
        let fresh = evolution.attach(net()).unwrap();
        let record = burn::tensor::Bytes::from_bytes_vec(record);
        let record = burn::store::ModuleRecord::from_bytes(record).unwrap();
        let mut resumed = Task {
            net: fresh.load_record(record),
            evolution,
            optimizer: optimizer().load_record(saved),
        };
        run(&mut resumed, stop..12);
        assert!(resumed.numbers() == whole.numbers(), "stopped after {stop}");
        assert!(
            known(&resumed.evolution) == known(&whole.evolution),
            "stopped after {stop}"
        );
    }
}

fn restore(bytes: Vec<u8>) -> Result<(), EvolveError> {
    let mut evolution = Evolution::fresh(&net(), &plan(), config(), 0.0).unwrap();
    evolution.restore_bytes(Path::new("state"), bytes)
}

fn saved() -> Vec<u8> {
    let mut task = Task::new(config());
    run(&mut task, 0..4);
    task.evolution.to_bytes()
}

#[test]
fn broken_states_are_refused() {
    let bytes = saved();
    restore(bytes.clone()).unwrap();
    for cut in [0, 7, 20, bytes.len() / 2, bytes.len() - 1] {
        let error = restore(bytes[..cut].to_vec()).unwrap_err();
        assert!(
            matches!(error, EvolveError::State(_)),
            "cut at {cut}: {error}"
        );
    }
    for at in (0..bytes.len()).step_by(53) {
        let mut flipped = bytes.clone();
        flipped[at] ^= 4;
        assert!(restore(flipped).is_err(), "flipped {at}");
    }
}

/// A state with another text in its JSON and a checksum that is right.
fn forged(change: impl Fn(&mut serde_json::Value), keep: impl Fn(&mut Vec<f32>)) -> Vec<u8> {
    let mut task = Task::new(config());
    run(&mut task, 0..4);
    let bytes = task.evolution.to_bytes();
    let opened = crate::state_file::Opened::new(Path::new("s"), "burn_evolve", bytes).unwrap();
    let mut meta: serde_json::Value = opened.meta().unwrap();
    change(&mut meta);
    let tensors = opened.tensors().unwrap();
    let mut kept: Vec<(String, Vec<usize>, Vec<f32>)> = Vec::new();
    for layer in task.evolution.plan().layers() {
        let name = format!("kept.{}", layer.path);
        let mut values = tensors.floats(&name, &layer.shape).unwrap();
        keep(&mut values);
        kept.push((name, layer.shape.clone(), values));
    }
    let named: Vec<_> = kept
        .iter()
        .map(|(name, shape, values)| (name.clone(), &shape[..], &values[..]))
        .collect();
    crate::state_file::seal("burn_evolve", meta.to_string(), &named)
}

#[test]
fn states_that_lie_are_refused() {
    let same = |_: &mut Vec<f32>| {};
    restore(forged(|_| {}, same)).unwrap();
    let nan = f64::NAN.to_bits();
    type Change = Box<dyn Fn(&mut serde_json::Value)>;
    let changes: Vec<(&str, Change)> = vec![
        (
            "the best accuracy",
            Box::new(move |m| m["best"] = nan.into()),
        ),
        (
            "no sparsities",
            Box::new(move |m| m["present"]["sparsities"][0] = nan.into()),
        ),
        (
            "no sparsities",
            Box::new(|m| m["present"]["sparsities"][1] = 0.999f64.to_bits().into()),
        ),
        (
            "no sparsities",
            Box::new(|m| m["population"][0]["sparsities"] = serde_json::json!([0])),
        ),
        (
            "an accuracy",
            Box::new(move |m| m["population"][1]["accuracy"] = nan.into()),
        ),
        (
            "nothing lives",
            Box::new(|m| m["population"] = serde_json::json!([])),
        ),
        (
            "a number that is none",
            Box::new(move |m| m["history"][0]["best"] = nan.into()),
        ),
        (
            "a sensitivity",
            Box::new(move |m| m["layers"][0]["sensitivity"] = nan.into()),
        ),
        (
            "a migration",
            Box::new(|m| m["layers"][0]["migration"] = (-1.0f64).to_bits().into()),
        ),
        (
            "missing field",
            Box::new(|m| drop(m.as_object_mut().unwrap().remove("random"))),
        ),
    ];
    for (reason, change) in changes {
        let error = restore(forged(change, same)).unwrap_err().to_string();
        assert!(error.contains(reason), "{reason}: {error}");
    }
    for (reason, keep) in [
        ("holds 0.5", 0.5f32),
        ("keeps 0 weights", 0.0),
        ("keeps", 1.0),
    ] {
        let error = restore(forged(|_| {}, |values| values.fill(keep))).unwrap_err();
        assert!(error.to_string().contains(reason), "{reason}: {error}");
    }
}

#[test]
fn states_of_others_are_refused() {
    let bytes = saved();
    let other = plan()
        .with_sparsity(CONV, Sparsity::unstructured(0.5).unwrap())
        .unwrap();
    let mut evolution = Evolution::fresh(&net(), &other, config(), 0.0).unwrap();
    let error = evolution.restore_bytes(Path::new("s"), bytes).unwrap_err();
    let mismatch = matches!(error, EvolveError::State(StateError::Mismatch { .. }));
    assert!(mismatch, "{error}");

    let newer = forged(|meta| meta["version"] = 9.into(), |_| {});
    let error = restore(newer).unwrap_err();
    let version = matches!(
        error,
        EvolveError::State(StateError::Version { found: 9, .. })
    );
    assert!(version, "{error}");
    let missing = Evolution::resume(&net(), &plan(), config(), "no/such/file").unwrap_err();
    assert!(matches!(missing, EvolveError::State(StateError::Io { .. })));
    let mut task = Task::new(config());
    task.begin();
    let error = task.evolution.save("anywhere").unwrap_err();
    assert!(matches!(error, EvolveError::InTrial("save")), "{error}");
}
