//! What the tests that cross crates share: every device of the machine, and numbers compared with
//! a bound that rounding explains.

mod book;

use burn::tensor::{Device, Tensor, TensorData};
use examples::device::{Backend, DeviceChoice, Selected, select};

/// The devices that this build supports and this machine has. A backend that was built but is
/// missing is skipped by name; `BURN_SPARSE_REQUIRE=vulkan,cpu` turns that into a failure.
///
/// # Panics
/// If `BURN_SPARSE_REQUIRE` names a backend that is missing.
pub fn devices() -> Vec<(&'static str, Device)> {
    selected()
        .into_iter()
        .map(|(name, selected)| (name, selected.device))
        .collect()
}

fn selected() -> Vec<(&'static str, Selected)> {
    let mut found = Vec::new();
    for backend in Backend::ALL {
        let name = backend.name();
        if !backend.compiled() {
            require(name, "this build does not contain it");
            continue;
        }
        let choice: DeviceChoice = name.parse().expect("a backend's own name is a choice");
        match select(choice) {
            Ok(selected) => found.push((name, selected)),
            Err(error) => {
                require(name, &error.to_string());
                println!("SKIPPED {name}: {error}");
            }
        }
    }
    found
}

/// [`devices`] on which Burn's own matrix products and reductions run: all, but for lavapipe in
/// builds without the fix of `CubeCL` that `.ci/patch-cubecl` makes. Our kernels have a form without
/// shared memory and are tested there in all builds; a test that also needs Burn's kernels skips
/// the device by name, or fails where `BURN_SPARSE_REQUIRE` lists it.
///
/// # Panics
/// If `BURN_SPARSE_REQUIRE` names a backend that is missing or would crash.
pub fn devices_with_shared_memory() -> Vec<(&'static str, Device)> {
    let mut found = selected();
    found.retain(|(name, selected)| {
        let Some(reason) = selected.crashes() else {
            return true;
        };
        require(name, reason);
        println!("SKIPPED {name}: {reason}");
        false
    });
    found
        .into_iter()
        .map(|(name, selected)| (name, selected.device))
        .collect()
}

fn require(name: &str, reason: &str) {
    let required = std::env::var("BURN_SPARSE_REQUIRE").unwrap_or_default();
    assert!(
        !required.split(',').any(|required| required.trim() == name),
        "BURN_SPARSE_REQUIRE asks for {name}: {reason}"
    );
}

/// Row-major values as a tensor.
///
/// # Panics
/// If they do not fill the shape.
pub fn tensor<const D: usize>(values: &[f32], shape: [usize; D], device: &Device) -> Tensor<D> {
    Tensor::from_data(TensorData::new(values.to_vec(), shape), device)
}

/// The elements as f32.
///
/// # Panics
/// If the device cannot be read.
pub fn floats<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor
        .into_data()
        .convert::<f32>()
        .try_to_vec()
        .expect("converted to f32")
}

/// Asserts `|actual - expected| <= bound` everywhere, naming the worst place.
///
/// # Panics
/// If it does not hold, or anything is not finite.
pub fn assert_close(name: &str, actual: &[f32], expected: &[f64], bound: f64) {
    assert_eq!(actual.len(), expected.len(), "{name}: number of elements");
    let mut worst = (0, 0.0f64);
    for (index, (&a, &e)) in actual.iter().zip(expected).enumerate() {
        assert!(e.is_finite(), "{name}: the reference is {e} at {index}");
        assert!(a.is_finite(), "{name}: {a} at {index}, expected {e}");
        let difference = (f64::from(a) - e).abs();
        if difference > worst.1 {
            worst = (index, difference);
        }
    }
    let (index, difference) = worst;
    assert!(
        difference <= bound,
        "{name}: {} at {index}, expected {}; off by {difference:e}, allowed {bound:e}",
        actual[index],
        expected[index]
    );
}
