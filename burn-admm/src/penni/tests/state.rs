//! Stopped and resumed, and files that are no states.

use std::path::Path;

use super::training::{sgd, train};
use super::*;
use crate::admm::StateError;

fn plan() -> PenniPlan {
    PenniPlan::new(4).with_pointwise(true)
}

fn config() -> PenniConfig {
    PenniConfig::new().with_lambda(1e-3).with_interval(1)
}

/// An epoch, and pruning after the third.
fn epoch(model: Net, penni: &mut Penni, optimizer: &mut burn::optim::ModuleOptimizer) -> Net {
    let model = train(model, penni, optimizer, 3);
    penni.end_epoch().unwrap();
    if penni.epochs() == 3 {
        penni.prune().unwrap();
        *optimizer = sgd();
    }
    penni.compose(model).unwrap()
}

#[test]
fn a_resumed_run_is_bit_equal_after_every_epoch() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("penni.safetensors");
    let fresh = || Net::new(&device());
    let mut penni = Penni::new(&fresh(), &plan(), config()).unwrap();
    let mut whole = penni.compose(fresh()).unwrap();
    let mut optimizer = sgd();
    let (mut parts, mut resumed, mut record) = (whole.clone(), None, None);
    for _ in 0..5 {
        whole = epoch(whole, &mut penni, &mut optimizer);

        let mut other = match resumed.take() {
            None => {
                let mut other = Penni::new(&fresh(), &plan(), config()).unwrap();
                // The same ids, so that the first parameters are the same.
                let first = Penni::new(&fresh(), &plan(), config()).unwrap();
                other
                    .restore_bytes(Path::new("x"), first.to_bytes().unwrap())
                    .unwrap();
                other
            }
            Some(()) => Penni::resume(&fresh(), &plan(), config(), &file).unwrap(),
        };
        let mut own = match record.take() {
            None => sgd(),
            Some(bytes) => sgd().from_bytes(bytes).unwrap(),
        };
        parts = epoch(parts, &mut other, &mut own);
        other.save(&file).unwrap();
        (resumed, record) = (Some(()), Some(own.into_bytes().unwrap()));

        let other = Penni::resume(&fresh(), &plan(), config(), &file).unwrap();
        assert_eq!(other.shared().unwrap(), penni.shared().unwrap());
        assert_eq!(
            (other.phase(), other.epochs()),
            (penni.phase(), penni.epochs())
        );
        for path in ["body.weight", "stem.weight", "wide.weight"] {
            assert_eq!(get(&parts, path), get(&whole, path), "{path}");
        }
    }
    assert_eq!(penni.phase(), Phase::Tuning);
    // Nothing but the state is left in the folder.
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn states_of_other_models_and_broken_files_are_refused() {
    let model = Net::new(&device());
    let mut penni = Penni::new(&model, &plan(), config()).unwrap();
    let path = Path::new("state");
    let fresh = penni.to_bytes().unwrap();
    for other in [PenniPlan::new(3).with_pointwise(true), PenniPlan::new(4)] {
        let mut other = Penni::new(&model, &other, config()).unwrap();
        let error = other.restore_bytes(path, fresh.clone()).unwrap_err();
        assert!(matches!(error, StateError::Mismatch { .. }), "{error}");
    }
    penni.prune().unwrap();
    let bytes = penni.to_bytes().unwrap();
    let before = penni.shared().unwrap();
    let step = bytes.len() / 97 + 1;
    for at in (0..bytes.len()).step_by(step) {
        let error = penni.restore_bytes(path, bytes[..at].to_vec()).unwrap_err();
        assert!(matches!(error, StateError::Corrupt { .. }), "{error}");
        let mut flipped = bytes.clone();
        flipped[at] ^= 0x10;
        assert!(penni.restore_bytes(path, flipped).is_err(), "{at}");
    }
    assert_eq!(penni.shared().unwrap(), before);
    let missing = Penni::resume(&model, &plan(), config(), "no/such/file").unwrap_err();
    assert!(matches!(missing, PenniError::State(StateError::Io { .. })));
    assert!(penni.save("no/such/folder/state").is_err());
}

/// With the right checksum.
#[test]
fn states_that_contradict_themselves_are_refused() {
    let model = Net::new(&device());
    let plan = PenniPlan::none().with_rule("wide.weight", 2).unwrap();
    let mut penni = Penni::new(&model, &plan, config()).unwrap();
    let meta = |phase: &str, ids: [u64; 2], kernels: usize| {
        format!(
            r#"{{"version":1,"phase":"{phase}","epochs":1,"layers":[{{"path":"wide.weight",
            "shape":[5,4,2,3],"kernels":{kernels},"ids":{ids:?}}}]}}"#
        )
    };
    let seal = |meta: String, a: &[f32], m: &[f32], pruned: &[f32]| {
        let tensor = |name: &str| format!("{name}.wide.weight");
        crate::state_file::seal(
            "burn_penni",
            meta,
            &[
                (tensor("coefficients"), &[a.len() / 2, 2], a),
                (tensor("basis"), &[2, m.len() / 2], m),
                (tensor("pruned"), &[pruned.len() / 2, 2], pruned),
            ],
        )
    };
    let (a, m, none) = (vec![1.0; 40], vec![0.5; 12], vec![0.0; 40]);
    let ones = vec![1.0; 40];
    let good = seal(meta("tuning", [1, 2], 2), &a, &m, &none);
    penni.restore_bytes(Path::new("x"), good).unwrap();
    assert_eq!(penni.phase(), Phase::Tuning);
    for (bytes, why) in [
        (seal(meta("tuning", [1, 1], 2), &a, &m, &none), "same id"),
        (
            seal(meta("tuning", [1, 2], 2), &a, &m, &ones),
            "does not fit",
        ),
        (
            seal(meta("tuning", [1, 2], 2), &a, &m, &[0.5; 40]),
            "does not fit",
        ),
        (
            seal(meta("tuning", [1, 2], 2), &a[..38], &m, &none),
            "not F32",
        ),
        (
            seal(meta("tuning", [1, 2], 2), &a, &[f32::NAN; 12], &none),
            "NaN",
        ),
        (seal(meta("resting", [1, 2], 2), &a, &m, &none), "variant"),
        (seal(meta("tuning", [1, 2], 99), &a, &m, &none), "99"),
        (seal("{}".into(), &a, &m, &none), "version"),
    ] {
        let error = penni.restore_bytes(Path::new("x"), bytes).unwrap_err();
        assert!(error.to_string().contains(why), "{error}");
    }
}
