use std::sync::atomic::{AtomicUsize, Ordering};

use burn::module::Module;
use burn::nn::{BatchNorm, BatchNormConfig, Linear, LinearConfig};
use burn::optim::{GradientsParams, SgdConfig};
use burn::tensor::Tensor;

use super::select::ladder;
use super::*;
use crate::testing::{get, set};

#[derive(Module, Debug)]
struct Net {
    linear: Linear,
    norm: BatchNorm,
}

fn net() -> Net {
    let device = Device::flex().autodiff();
    let net = Net {
        linear: LinearConfig::new(3, 2).init(&device),
        norm: BatchNormConfig::new(2).init(&device),
    };
    let net = set(
        net,
        "linear.weight",
        vec![0.5, -0.25, 0.125, 1.0, -1.0, 0.75],
    );
    set(net, "linear.bias", vec![0.0, 0.1])
}

/// Trains for some steps towards a number that the candidate gives, and says how far it got: all of it depends on
/// weights, running statistics and the candidate alone.
fn trained(mut model: Net, goal: f32, device: &Device) -> f64 {
    let device = device.clone().autodiff();
    let x = Tensor::<2>::from_floats(
        [[1.0, 2.0, 3.0], [-1.0, 0.5, 0.0], [0.3, 0.2, 0.9]],
        &device,
    );
    let mut optimizer = SgdConfig::new().init();
    for _ in 0..3 {
        let y = model.norm.forward(model.linear.forward(x.clone()));
        let loss = (y - goal).square().mean();
        let gradients = GradientsParams::from_grads(loss.backward(), &model);
        model = optimizer.step(0.1, model, gradients);
    }
    let valid = model.valid();
    let y: Tensor<2> = valid.norm.forward(valid.linear.forward(x.inner()));
    f64::from((y - goal).square().mean().into_scalar::<f32>())
}

fn accuracies(devices: usize, candidates: &[f32]) -> Vec<f64> {
    let mut devices = SearchDevices::new(vec![Device::flex(); devices]).unwrap();
    let model = net();
    let before = get(&model, "norm.running_mean");
    let one = |model: Net, goal: &f32, device: &Device| {
        Ok::<f64, MappingError>(trained(model, *goal, device))
    };
    let found = devices.evaluate(&model, candidates, one).unwrap();
    // Running statistics of the copies are their own.
    assert_eq!(get(&model, "norm.running_mean"), before);
    assert!(devices.warnings().is_empty());
    found
}

#[test]
fn results_come_in_order_whatever_devices_there_are() {
    let candidates: Vec<f32> = (0..9).map(|at| at as f32 * 0.25).collect();
    let one = accuracies(1, &candidates);
    for devices in [2, 3, 12] {
        assert_eq!(accuracies(devices, &candidates), one, "{devices} devices");
    }
    // Each as if it were alone.
    for (candidate, accuracy) in candidates.iter().zip(&one) {
        assert_eq!(accuracies(1, &[*candidate]), [*accuracy]);
    }
    assert!(accuracies(2, &[]).is_empty());
}

#[test]
fn a_search_finds_the_same_on_one_device_and_on_two() {
    let offers = ladder();
    let found = |devices: usize| {
        let mut devices = SearchDevices::new(vec![Device::flex(); devices]).unwrap();
        let config = SearchConfig {
            evaluations: 40,
            ..SearchConfig::new(SearchMethod::Policy, 0.8 * offers.dense()[0])
        };
        let mut log = SearchLog::new("a");
        let model = net();
        let one = |model: Net, candidate: &Selection, device: &Device| {
            let off = trained(model, candidate.harm as f32, device);
            Ok::<f64, MappingError>(1.0 / (1.0 + off))
        };
        let found = search(
            &offers,
            &config,
            &Device::flex(),
            &mut log,
            |candidates| devices.evaluate(&model, candidates, one),
            |_, _, _| Ok(()),
        )
        .unwrap();
        (found, log)
    };
    assert_eq!(found(1), found(2));
}

/// Evaluates nine candidates, where the calls of these numbers go wrong.
fn with_failures(
    devices: usize,
    wrong: impl Fn(usize) -> bool + Sync,
    panics: bool,
) -> (Result<Vec<f32>, MappingError>, SearchDevices) {
    let mut devices = SearchDevices::new(vec![Device::flex(); devices]).unwrap();
    let calls = AtomicUsize::new(0);
    let candidates: Vec<f32> = (0..9).map(|at| at as f32).collect();
    let found = devices.evaluate(&net(), &candidates, |model: Net, candidate, device| {
        let call = calls.fetch_add(1, Ordering::SeqCst);
        if wrong(call) {
            assert!(!panics, "the card fell off the bus");
            return Err(MappingError::Stopped("the cable is loose".into()));
        }
        let x = Tensor::<2>::zeros([1, 3], device) + *candidate;
        Ok(x.sum().into_scalar::<f32>() + 0.0 * model.num_params() as f32)
    });
    (found, devices)
}

#[test]
fn the_candidate_of_a_device_that_fails_goes_to_another() {
    let expected: Vec<f32> = (0..9).map(|at| 3.0 * at as f32).collect();
    for (panics, why) in [(false, "the cable is loose"), (true, "fell off the bus")] {
        for call in [0, 4, 8] {
            let (found, mut devices) = with_failures(2, |at| at == call, panics);
            assert_eq!(found.unwrap(), expected);
            assert_eq!(devices.devices().len(), 1);
            let warnings = devices.warnings();
            assert_eq!(warnings.len(), 1, "{warnings:?}");
            assert!(warnings[0].contains(why), "{warnings:?}");
            assert!(devices.warnings().is_empty());
        }
        let (found, devices) = with_failures(3, |at| at < 2, panics);
        assert_eq!(found.unwrap(), expected);
        assert_eq!(devices.devices().len(), 1);
    }
}

#[test]
fn only_when_no_device_is_left_there_is_an_error() {
    let (found, devices) = with_failures(3, |_| true, false);
    let error = found.unwrap_err();
    assert!(matches!(error, MappingError::Stopped(_)), "{error}");
    assert!(devices.devices().is_empty());
    let (found, mut devices) = with_failures(2, |at| at > 2, true);
    let error = found.unwrap_err();
    assert!(matches!(error, MappingError::NoDevice(_)), "{error}");
    assert!(error.to_string().contains("fell off the bus"), "{error}");
    assert_eq!(devices.warnings().len(), 2);
    // Whoever asks again is told so too.
    let nobody = |_: Net, _: &u8, _: &Device| Ok::<u8, MappingError>(1);
    assert!(devices.evaluate(&net(), &[1u8], nobody).is_err());
    assert!(matches!(
        SearchDevices::new([]),
        Err(MappingError::NoDevice(_))
    ));
}
