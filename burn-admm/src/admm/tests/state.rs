use std::path::Path;

use super::*;

fn advanced() -> (Two, Admm) {
    let mut rng = ChaCha8Rng::seed_from_u64(11);
    let mut model = model(11);
    let mut admm = Admm::new(&model, &plan(), AdmmConfig::new()).unwrap();
    for _ in 0..3 {
        model = walk(model, &mut rng);
        admm.update(&model).unwrap();
    }
    admm.step(&model, 10).unwrap();
    (model, admm)
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

#[test]
fn a_resumed_state_is_bit_equal() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("admm.safetensors");
    let (trained, mut admm) = advanced();
    admm.save(&path).unwrap();
    admm.save(&path).unwrap(); // replaces it
    // Another start: all that counts is in the file.
    let mut resumed = Admm::resume(&model(99), &plan(), AdmmConfig::new(), &path).unwrap();
    assert_eq!(resumed.rho().to_bits(), admm.rho().to_bits());
    assert_eq!((resumed.iteration(), resumed.steps()), (3, 1));
    for path in ["a.weight", "b"] {
        assert_eq!(bits(resumed.z(path).unwrap()), bits(admm.z(path).unwrap()));
        assert_eq!(bits(resumed.u(path).unwrap()), bits(admm.u(path).unwrap()));
    }
    let penalty = |admm: &Admm| admm.penalty(&trained).into_scalar::<f32>().to_bits();
    assert_eq!(penalty(&resumed), penalty(&admm));
    assert_eq!(
        resumed.update(&trained).unwrap(),
        admm.update(&trained).unwrap()
    );
    assert_eq!(
        std::fs::read_dir(folder.path()).unwrap().count(),
        1,
        "no temporary file is left"
    );
}

fn try_bytes(bytes: Vec<u8>) -> Result<(), StateError> {
    let (_, mut admm) = advanced();
    let z = bits(admm.z("b").unwrap());
    let result = admm.restore_bytes(Path::new("x"), bytes);
    if result.is_err() {
        assert_eq!(
            bits(admm.z("b").unwrap()),
            z,
            "errors leave the state alone"
        );
    }
    result
}

#[test]
fn every_truncation_and_every_flipped_bit_is_an_error() {
    let (_, mut admm) = advanced();
    let bytes = admm.to_bytes();
    admm.restore_bytes(Path::new("x"), bytes.clone()).unwrap();
    for len in 0..bytes.len() {
        let error = admm
            .restore_bytes(Path::new("x"), bytes[..len].to_vec())
            .unwrap_err();
        assert!(
            matches!(error, StateError::Corrupt { .. }),
            "{len}: {error}"
        );
    }
    for bit in 0..8 * bytes.len() {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let error = admm.restore_bytes(Path::new("x"), flipped).unwrap_err();
        assert!(
            matches!(error, StateError::Corrupt { .. }),
            "bit {bit}: {error}"
        );
    }
    let mut longer = bytes;
    longer.push(0);
    assert!(try_bytes(longer).is_err());
}

/// Corrects the checksum, as somebody hostile would.
pub(super) fn with_checksum(mut bytes: Vec<u8>) -> Vec<u8> {
    let needle = b"\"crc32\":\"";
    let Some(at) = bytes.windows(needle.len()).position(|w| w == needle) else {
        return bytes;
    };
    let digits = at + needle.len()..at + needle.len() + 8;
    if digits.end > bytes.len() {
        return bytes;
    }
    bytes[digits.clone()].copy_from_slice(b"00000000");
    let crc = format!("{:08x}", crc32fast::hash(&bytes));
    bytes[digits].copy_from_slice(crc.as_bytes());
    bytes
}

fn edited(from: &str, to: &str) -> Vec<u8> {
    assert_eq!(from.len(), to.len(), "the header keeps its length");
    let (_, admm) = advanced();
    let mut bytes = admm.to_bytes();
    let at = bytes
        .windows(from.len())
        .position(|w| w == from.as_bytes())
        .expect(from);
    bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
    with_checksum(bytes)
}

#[test]
fn hostile_files_with_a_right_checksum_are_errors() {
    assert!(
        try_bytes(edited("iteration", "iteration")).is_ok(),
        "the checksum is rebuilt rightly"
    );
    let error = try_bytes(edited(r#"version\":2"#, r#"version\":3"#)).unwrap_err();
    assert!(
        matches!(
            error,
            StateError::Version {
                found: 3,
                expected: 2,
                ..
            }
        ),
        "{error}"
    );
    let error = try_bytes(edited(r#"axis\":1"#, r#"axis\":0"#)).unwrap_err();
    assert!(matches!(error, StateError::Mismatch { .. }), "{error}");
    for (from, to) in [
        (r#"{\"version\""#, r#"[\"version\""#),
        (r#"rho_bits\":4"#, r#"rho_bits\":0"#),
        ("\"F32\"", "\"I32\""),
        ("\"z.b\"", "\"y.b\""),
        ("\"burn_admm\"", "\"burn_adam\""),
        ("data_offsets\":[0,", "data_offsets\":[9,"),
    ] {
        assert!(try_bytes(edited(from, to)).is_err(), "{from}");
    }
    // Non-finite numbers and infeasible Z in otherwise sound data.
    let (_, admm) = advanced();
    let bytes = admm.to_bytes();
    for value in [f32::NAN, 1.0] {
        let mut bytes = bytes.clone();
        let header = u64::from_le_bytes(*bytes.first_chunk().unwrap()) as usize + 8;
        bytes[header..]
            .chunks_exact_mut(4)
            .for_each(|c| c.copy_from_slice(&value.to_le_bytes()));
        let error = try_bytes(with_checksum(bytes)).unwrap_err();
        assert!(matches!(error, StateError::Corrupt { .. }), "{error}");
    }
    // A header that claims to be longer than any file, or any memory.
    for len in [u64::MAX, u64::MAX - 8, 1 << 40] {
        let mut bytes = bytes.clone();
        bytes[..8].copy_from_slice(&len.to_le_bytes());
        assert!(try_bytes(with_checksum(bytes)).is_err());
    }
}

/// The state as version 1 of the format wrote it.
fn version_1(admm: &Admm, version: u64) -> Vec<u8> {
    let layers = admm.layers.iter().map(|layer| {
        let (spec, set) = (&layer.spec, &layer.sets[0]);
        serde_json::json!({
            "path": spec.path, "shape": spec.shape, "axis": spec.view.axis(), "nnz": spec.nnz,
            "primal_bits": set.primal.to_bits(), "dual_norm_bits": set.dual_norm.to_bits(),
            "growing": set.growing,
        })
    });
    let meta = serde_json::json!({
        "version": version, "iteration": admm.iteration, "steps": admm.steps,
        "rho_bits": admm.rho.to_bits(), "layers": layers.collect::<Vec<_>>(),
    });
    let copies = admm.layers.iter().flat_map(|layer| {
        let (path, shape, set) = (&layer.spec.path, &layer.spec.shape[..], &layer.sets[0]);
        let (z, u) = (&set.z[..], &set.u[..]);
        [
            (format!("z.{path}"), shape, z),
            (format!("u.{path}"), shape, u),
        ]
    });
    let copies: Vec<_> = copies.collect();
    crate::state_file::seal("burn_admm", meta.to_string(), &copies)
}

#[test]
fn states_of_version_1_are_read_where_one_set_is_all() {
    let (trained, mut admm) = advanced();
    let mut other = Admm::new(&model(99), &plan(), AdmmConfig::new()).unwrap();
    let old = version_1(&admm, 1);
    other.restore_bytes(Path::new("x"), old.clone()).unwrap();
    for path in ["a.weight", "b"] {
        assert_eq!(bits(other.z(path).unwrap()), bits(admm.z(path).unwrap()));
        assert_eq!(bits(other.u(path).unwrap()), bits(admm.u(path).unwrap()));
    }
    assert_eq!((other.iteration(), other.steps()), (3, 1));
    assert_eq!(
        other.update(&trained).unwrap(),
        admm.update(&trained).unwrap()
    );
    // Its layers are not those of version 2, nor is there a version 0.
    for version in [0, 2] {
        let wrong = version_1(&admm, version);
        assert!(other.restore_bytes(Path::new("x"), wrong).is_err());
    }
}

#[test]
fn another_constraint_of_as_many_weights_is_another_plan() {
    let (_, admm) = advanced();
    let nnz = admm.plan().layer("b").unwrap().nnz;
    let other = plan()
        .with_sparsity("b", Sparsity::Unstructured(burn_sparse::Budget::Nnz(nnz)))
        .unwrap();
    let mut other = Admm::new(&model(11), &other, AdmmConfig::new()).unwrap();
    let error = other
        .restore_bytes(Path::new("x"), admm.to_bytes())
        .unwrap_err();
    assert!(matches!(error, StateError::Mismatch { .. }), "{error}");
    assert!(error.to_string().contains("row-balanced"), "{error}");
}

#[test]
fn random_mutations_never_panic() {
    let (_, mut admm) = advanced();
    let bytes = admm.to_bytes();
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    for _ in 0..4000 {
        let mut mutated = bytes.clone();
        for _ in 0..rng.random_range(1..4) {
            let at = rng.random_range(0..mutated.len());
            match rng.random_range(0..3) {
                0 => mutated[at] = rng.random(),
                1 => drop(mutated.remove(at)),
                _ => mutated.insert(at, rng.random()),
            }
        }
        let _ = admm.restore_bytes(Path::new("x"), with_checksum(mutated));
    }
}

#[test]
fn a_state_of_another_plan_or_a_missing_file_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("admm.safetensors");
    let (model, admm) = advanced();
    admm.save(&path).unwrap();
    let other = Plan::new(Sparsity::row_balanced(0.2).unwrap()).with_last_linear_kept(false);
    let error = Admm::resume(&model, &other, AdmmConfig::new(), &path).unwrap_err();
    assert!(
        matches!(error, AdmmError::State(StateError::Mismatch { .. })),
        "{error}"
    );
    let missing = folder.path().join("none");
    let error = Admm::resume(&model, &plan(), AdmmConfig::new(), &missing).unwrap_err();
    assert!(
        matches!(error, AdmmError::State(StateError::Io { .. })),
        "{error}"
    );
    let error = admm
        .save(folder.path().join("no/such/folder/x"))
        .unwrap_err();
    assert!(matches!(error, StateError::Io { .. }), "{error}");
}
