//! The speech classifier: lengths, streaming, packing.

use burn::module::Module;
use burn::tensor::{Device, Int, Tensor, TensorData};
use models::{Pooling, SpeechGru, SpeechGruConfig, SpeechGruError};

use crate::common::{difference, floats, values};

const POOLINGS: [Pooling; 2] = [Pooling::Mean, Pooling::Last];

fn model(layers: usize, pooling: Pooling, device: &Device) -> SpeechGru {
    device.seed(7);
    let config = SpeechGruConfig::new(5, 3).with_hidden(9);
    let config = config.with_layers(layers).with_pooling(pooling);
    config.init(device).expect("a network")
}

/// Recordings of the given lengths, padded with `padding` to `time` frames of 5 features.
fn recordings(
    lengths: &[usize],
    time: usize,
    padding: f32,
    device: &Device,
) -> (Tensor<3>, Tensor<1, Int>) {
    let mut all = Vec::new();
    for (i, &length) in lengths.iter().enumerate() {
        all.extend(values(&format!("recording {i}"), length * 5));
        all.extend(vec![padding; (time - length) * 5]);
    }
    let x = TensorData::new(all, [lengths.len(), time, 5]);
    let n: Vec<i32> = lengths.iter().map(|&n| n as i32).collect();
    let n = Tensor::from_data(TensorData::new(n, [lengths.len()]), device);
    (Tensor::from_data(x, device), n)
}

#[test]
fn padding_changes_nothing_whatever_it_is() {
    let device = Device::flex();
    let lengths = [6, 1, 4];
    for pooling in POOLINGS {
        for layers in [1, 2] {
            let model = model(layers, pooling, &device);
            let (x, n) = recordings(&lengths, 6, 0.0, &device);
            let expected = floats(model.forward(x, n));
            assert!(expected.iter().all(|v| v.is_finite()));
            for (time, padding) in [(6, 3.0), (13, 0.0), (40, -1e30), (9, f32::NAN)] {
                let (x, n) = recordings(&lengths, time, padding, &device);
                let padded = floats(model.forward(x, n));
                // Sums of at most 40 values, all but six of them zero, in another order.
                assert!(difference(&expected, &padded) < 1e-6, "{pooling:?} {time}");
            }
            for (i, &length) in lengths.iter().enumerate() {
                let (x, n) = recordings(&lengths, 6, 0.0, &device);
                let alone = x.slice([i..i + 1, 0..length]);
                let alone = floats(model.forward(alone, n.narrow(0, i, 1)));
                assert!(difference(&expected[3 * i..3 * i + 3], &alone) < 1e-6);
            }
        }
    }
}

#[test]
fn pooling_is_what_its_formula_says() {
    let device = Device::flex();
    let lengths = [4, 1, 7];
    for pooling in POOLINGS {
        let model = model(2, pooling, &device);
        let (x, n) = recordings(&lengths, 7, 0.5, &device);
        let states = model.gru[1].forward(model.gru[0].forward(x.clone(), None), None);
        let states = floats(states);
        let weight: Tensor<2> = model.head.weight.val();
        let (weight, bias) = (floats(weight), model.head.bias.as_ref().expect("a bias"));
        let bias = floats(bias.val());
        let mut expected = Vec::new();
        for (b, &length) in lengths.iter().enumerate() {
            let state = |t: usize, h: usize| f64::from(states[(b * 7 + t) * 9 + h]);
            let pooled: Vec<f64> = (0..9)
                .map(|h| match pooling {
                    Pooling::Mean => (0..length).map(|t| state(t, h)).sum::<f64>() / length as f64,
                    Pooling::Last => state(length - 1, h),
                })
                .collect();
            for class in 0..3 {
                let sum = (0..9).map(|h| pooled[h] * f64::from(weight[h * 3 + class]));
                expected.push((sum.sum::<f64>() + f64::from(bias[class])) as f32);
            }
        }
        // Sums of at most 9 products of means of at most 7 values in f32.
        assert!(difference(&expected, &floats(model.forward(x, n))) < 1e-5);
    }
}

#[test]
fn frames_one_by_one_are_the_recording() {
    let device = Device::flex();
    for pooling in POOLINGS {
        for layers in [1, 3] {
            let model = model(layers, pooling, &device);
            let (x, n) = recordings(&[8, 8], 8, 0.0, &device);
            let mut state = model.start(2, &device);
            assert_eq!(state.frames(), 0);
            for t in 0..8 {
                state = model.step(x.clone().narrow(1, t, 1).squeeze_dim(1), state);
                let heard = x.clone().narrow(1, 0, t + 1);
                let n = n.clone() - (7 - t as i64);
                let expected = floats(model.forward(heard, n));
                let now = floats(model.classify(&state));
                assert!(difference(&expected, &now) < 1e-5, "{pooling:?} {t}");
            }
            assert_eq!(state.frames(), 8);
        }
    }
}

#[test]
fn packed_is_dense_and_lengths_out_of_range_are_the_nearest() {
    let device = Device::flex();
    for pooling in POOLINGS {
        let model = model(2, pooling, &device);
        let (x, n) = recordings(&[5, 2, 3], 5, 0.0, &device);
        let dense = floats(model.forward(x.clone(), n));
        let mut packed = model.clone();
        packed.gru = packed
            .gru
            .into_iter()
            .map(|gru| gru.pack().expect("packs"))
            .collect();
        packed.head = packed.head.pack().expect("packs");
        let n = Tensor::<1, Int>::from_data([99, 2, 3], &device);
        // Five steps of sums of 14 products, by other kernels.
        assert!(difference(&dense, &floats(packed.forward(x.clone(), n))) < 1e-5);
        let far = Tensor::<1, Int>::from_data([-4, 0, 1], &device);
        let one = Tensor::<1, Int>::from_data([1, 1, 1], &device);
        let far = floats(model.forward(x.clone(), far));
        assert_eq!(far, floats(model.forward(x, one)));
    }
}

#[test]
fn gradients_stop_at_a_recordings_end() {
    let device = Device::flex().autodiff();
    for pooling in POOLINGS {
        let model = model(1, pooling, &device);
        let (x, n) = recordings(&[3, 5], 5, 0.25, &device);
        let x = x.require_grad();
        let gradients = model.forward(x.clone(), n).square().sum().backward();
        let gradient = floats(x.grad(&gradients).expect("a gradient"));
        let frame = |b: usize, t: usize| gradient[(b * 5 + t) * 5..][..5].to_vec();
        for t in 0..5 {
            let heard = frame(0, t).iter().any(|&g| g != 0.0);
            assert_eq!(heard, t < 3, "{pooling:?} {t}");
            assert!(frame(1, t).iter().any(|&g| g != 0.0));
        }
        assert!(model.gru[0].state.weight.val().grad(&gradients).is_some());
    }
}

#[test]
fn a_configuration_is_checked_and_reads_from_json() {
    let config = SpeechGruConfig::new(40, 10).with_layers(2).with_hidden(64);
    let device = Device::flex();
    let model = config.init(&device).expect("a network");
    let biases = 2 * 2 * 3 * 64;
    let head = 64 * 10 + 10;
    assert_eq!(
        model.num_params(),
        config.recurrent_weights() + biases + head
    );
    assert_eq!((model.classes(), model.pooling()), (10, Pooling::Mean));
    let json = serde_json::to_string(&config).expect("serialises");
    assert_eq!(
        serde_json::from_str::<SpeechGruConfig>(&json).expect("reads"),
        config
    );
    let short = r#"{"features": 40, "classes": 10}"#;
    let short: SpeechGruConfig = serde_json::from_str(short).expect("reads");
    assert_eq!(short, SpeechGruConfig::new(40, 10));
    assert!(serde_json::from_str::<SpeechGruConfig>(r#"{"features": 4, "clases": 1}"#).is_err());
    for (config, says) in [
        (SpeechGruConfig::new(0, 10), "features = 0"),
        (SpeechGruConfig::new(40, 0), "classes = 0"),
        (
            SpeechGruConfig::new(40, 10).with_hidden(8193),
            "hidden = 8193; choose 1 to 8192",
        ),
        (
            SpeechGruConfig::new(40, 10).with_layers(9),
            "layers = 9; choose 1 to 8",
        ),
    ] {
        let error: SpeechGruError = config.init(&device).expect_err("no network");
        assert!(error.to_string().contains(says), "{error}");
    }
}

#[test]
#[should_panic(expected = "features [2, 0, 5] with [2] lengths")]
fn no_frames_are_refused() {
    let device = Device::flex();
    let x = Tensor::<3>::zeros([2, 0, 5], &device);
    model(1, Pooling::Mean, &device).forward(x, Tensor::<1, Int>::zeros([2], &device));
}

#[test]
#[should_panic(expected = "begin with its own `start`")]
fn a_state_of_another_network_is_refused() {
    let device = Device::flex();
    let state = model(2, Pooling::Mean, &device).start(1, &device);
    model(1, Pooling::Mean, &device).step(Tensor::zeros([1, 5], &device), state);
}
