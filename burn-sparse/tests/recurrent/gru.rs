//! `Gru` against Burn's, and against the equations.

use burn::nn::PReluConfig;
use burn::nn::activation::ActivationConfig;
use burn::nn::gru::GruConfig as BurnConfig;
use burn::tensor::{Device, Tensor};
use burn_sparse::nn::{Gru, GruConfig, Linear};
use burn_sparse::reference::{self, Recurrent};

use super::common::{CLOSE, SHAPES, assert_close, assert_same, filled, floats, random};

/// Burn's layer of that configuration and ours, with the same parameters.
fn pair(config: &BurnConfig, density: f64, seed: u64) -> (burn::nn::gru::Gru, Gru) {
    let fan_in = config.d_hidden.max(config.d_input);
    let theirs = filled(config.init(&Device::flex()), density, fan_in, seed);
    (theirs.clone(), theirs.into())
}

/// Weight and bias, zeros where a layer has none, with `outputs` columns.
fn host(linear: &Linear, outputs: usize) -> (Vec<f32>, Vec<f32>) {
    let bias = linear.bias.as_ref();
    (
        floats(linear.weight.val()),
        bias.map_or(vec![0.0; outputs], |bias| floats(bias.val())),
    )
}

/// The states by the equations.
fn by_loops(gru: &Gru, x: &Tensor<3>, first: &Tensor<2>) -> Vec<f64> {
    let (d, [batch, steps, d_input]) = (gru.d_hidden, x.dims());
    let (input, input_bias) = host(&gru.input, 3 * d);
    let (mut state, mut state_bias) = host(&gru.state, 3 * d);
    if let Some(candidate) = &gru.candidate {
        let (weight, bias) = host(candidate, d);
        state = (0..d)
            .flat_map(|row| [&state[2 * d * row..][..2 * d], &weight[d * row..][..d]].concat())
            .collect();
        state_bias.truncate(2 * d);
        state_bias.extend(bias);
    }
    let weights = Recurrent {
        d_input,
        d_hidden: d,
        input: &input,
        state: &state,
        input_bias: &input_bias,
        state_bias: &state_bias,
    };
    reference::gru(
        &weights,
        gru.reset_after,
        &floats(x.clone()),
        &floats(first.clone()),
        [batch, steps],
    )
}

#[test]
fn equals_burns_and_the_equations_dense_and_packed() {
    let device = Device::flex();
    for [d_input, d_hidden, batch, steps] in SHAPES {
        for (reset_after, bias) in [(true, true), (false, true), (true, false), (false, false)] {
            for density in [1.0, 0.2] {
                let config = BurnConfig::new(d_input, d_hidden, bias).with_reset_after(reset_after);
                let (theirs, ours) = pair(&config, density, 1);
                let x = random([batch, steps, d_input], 2, &device);
                let first = random([batch, d_hidden], 3, &device);
                let name = format!("{d_input} {d_hidden} {batch} {steps} {reset_after} {bias}");
                let packed = ours.clone().pack().unwrap();
                assert!(packed.state.weight.packed().is_some());
                for first in [None, Some(first)] {
                    let expected = theirs.forward(x.clone(), first.clone());
                    let dense = ours.forward(x.clone(), first.clone());
                    let sparse = packed.forward(x.clone(), first.clone());
                    assert_same(&name, dense.clone(), expected);
                    assert_same(&name, sparse.clone(), dense.clone());
                    let first = first.unwrap_or_else(|| Tensor::zeros([batch, d_hidden], &device));
                    let loops = by_loops(&ours, &x, &first);
                    assert_close(&name, &floats(dense), &loops, CLOSE);
                    assert_close(&name, &floats(sparse), &loops, CLOSE);
                }
            }
        }
    }
}

#[test]
fn single_steps_are_the_sequence() {
    let device = Device::flex();
    for reset_after in [true, false] {
        let config = BurnConfig::new(6, 9, true).with_reset_after(reset_after);
        let (_, dense) = pair(&config, 0.5, 4);
        let packed = dense.clone().pack().unwrap();
        let x = random([3, 28, 6], 5, &device);
        for gru in [dense, packed] {
            let expected = gru.forward(x.clone(), None);
            let mut state = None;
            for t in 0..28 {
                let x = x.clone().narrow(1, t, 1).squeeze_dim(1);
                state = Some(gru.step(x, state));
                let expected = expected.clone().narrow(1, t, 1).squeeze_dim::<2>(1);
                assert_same("step", state.clone().unwrap(), expected);
            }
        }
    }
}

#[test]
fn clips_and_activates_as_burns() {
    let device = Device::flex();
    let prelu = || ActivationConfig::PRelu(PReluConfig::new().with_num_parameters(7));
    let x = random([2, 20, 4], 6, &device) * 3.0;
    let plain = BurnConfig::new(4, 7, true);
    for config in [
        plain.clone().with_clip(Some(0.1)),
        plain
            .clone()
            .with_gate_activation(ActivationConfig::HardSwish)
            .with_clip(Some(2.0)),
        plain
            .with_gate_activation(prelu())
            .with_hidden_activation(prelu())
            .with_clip(Some(2.0)),
    ] {
        for reset_after in [true, false] {
            let config = config.clone().with_reset_after(reset_after);
            let (theirs, ours) = pair(&config, 1.0, 7);
            let expected = theirs.forward(x.clone(), None);
            assert_same("dense", ours.forward(x.clone(), None), expected.clone());
            let packed = ours.pack().unwrap();
            assert_same("packed", packed.forward(x.clone(), None), expected);
        }
    }
}

#[test]
fn a_fresh_layer_is_one_of_burns() {
    let device = Device::flex();
    let config = GruConfig::new(3, 4, true)
        .with_reset_after(false)
        .with_clip(Some(0.5));
    let gru = config.init(&device);
    assert_eq!(gru.input.weight.dims(), [3, 12]);
    assert_eq!(gru.state.weight.dims(), [4, 8]);
    assert_eq!(gru.candidate.as_ref().unwrap().weight.dims(), [4, 4]);
    assert_eq!((gru.reset_after, gru.clip), (false, Some(0.5)));
    // Gate by gate: a fan-out of three gates would make the weights smaller.
    let config = config.with_initializer(burn::nn::Initializer::XavierUniform { gain: 1.0 });
    let bound = (6.0f32 / 7.0).sqrt();
    let largest = (0..50)
        .flat_map(|_| floats(config.init(&device).input.weight.val()))
        .fold(0.0f32, |largest, weight| largest.max(weight.abs()));
    assert!(largest <= bound && largest > 0.9 * bound, "{largest}");
    assert!(
        GruConfig::new(3, 4, false)
            .init(&device)
            .input
            .bias
            .is_none()
    );
}

#[test]
fn nothing_makes_nothing() {
    let device = Device::flex();
    let gru = GruConfig::new(3, 4, true).init(&device);
    let none = gru.forward(Tensor::zeros([2, 0, 3], &device), None);
    assert_eq!(none.dims(), [2, 0, 4]);
}

#[test]
#[should_panic(expected = "Gru: input [2, 5, 4], but the layer has 3 input features")]
fn a_wrong_input_panics() {
    let device = Device::flex();
    let gru = GruConfig::new(3, 4, true).init(&device);
    gru.forward(Tensor::zeros([2, 5, 4], &device), None);
}

#[test]
#[should_panic(expected = "Gru: a state [1, 4] for a batch of 2 and a hidden size of 4")]
fn a_wrong_state_panics() {
    let device = Device::flex();
    let gru = GruConfig::new(3, 4, true).init(&device);
    gru.forward(
        Tensor::zeros([2, 5, 3], &device),
        Some(Tensor::zeros([1, 4], &device)),
    );
}
