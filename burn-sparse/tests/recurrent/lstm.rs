//! `Lstm` against Burn's, and against the equations.

use burn::nn::activation::ActivationConfig;
use burn::nn::{LstmConfig as BurnConfig, LstmState, PReluConfig};
use burn::tensor::{Device, Tensor};
use burn_sparse::nn::{Lstm, LstmConfig};
use burn_sparse::reference::{self, Recurrent};

use super::common::{CLOSE, SHAPES, assert_close, assert_same, filled, floats, random};

fn pair(config: &BurnConfig, density: f64, seed: u64) -> (burn::nn::Lstm, Lstm) {
    let fan_in = config.d_hidden.max(config.d_input);
    let theirs = filled(config.init(&Device::flex()), density, fan_in, seed);
    (theirs.clone(), theirs.into())
}

/// Sequence and last state of two layers.
fn assert_same_run(
    what: &str,
    (states, last): (Tensor<3>, LstmState<2>),
    (expected, expected_last): (Tensor<3>, LstmState<2>),
) {
    assert_same(what, states, expected);
    assert_same(what, last.hidden, expected_last.hidden);
    // Cell states may exceed 1, and their roundings with them.
    let scale = expected_last.cell.clone().abs().max().into_scalar::<f32>();
    let scale = scale.max(1.0);
    assert_same(what, last.cell / scale, expected_last.cell / scale);
}

#[test]
fn equals_burns_and_the_equations_dense_and_packed() {
    let device = Device::flex();
    for [d_input, d_hidden, batch, steps] in SHAPES {
        for bias in [true, false] {
            for density in [1.0, 0.2] {
                let config = BurnConfig::new(d_input, d_hidden, bias);
                let (theirs, ours) = pair(&config, density, 11);
                let packed = ours.clone().pack().unwrap();
                assert!(packed.state.weight.packed().is_some());
                let x = random([batch, steps, d_input], 12, &device);
                let first = LstmState::new(
                    random([batch, d_hidden], 13, &device),
                    random([batch, d_hidden], 14, &device),
                );
                let name = format!("{d_input} {d_hidden} {batch} {steps} {bias}");
                for first in [None, Some(first)] {
                    let expected = theirs.forward(x.clone(), first.clone());
                    let dense = ours.forward(x.clone(), first.clone());
                    let sparse = packed.forward(x.clone(), first.clone());
                    assert_same_run(&name, dense.clone(), expected);
                    assert_same_run(&name, sparse.clone(), dense.clone());
                    let zeros = || LstmState::initial([batch, d_hidden], &device);
                    let first = first.unwrap_or_else(zeros);
                    let zeros = vec![0.0; 4 * d_hidden];
                    let bias = |linear: &burn_sparse::nn::Linear| {
                        let bias = linear.bias.as_ref();
                        bias.map_or(zeros.clone(), |bias| floats(bias.val()))
                    };
                    let weights = Recurrent {
                        d_input,
                        d_hidden,
                        input: &floats(ours.input.weight.val()),
                        state: &floats(ours.state.weight.val()),
                        input_bias: &bias(&ours.input),
                        state_bias: &bias(&ours.state),
                    };
                    let first = [&floats(first.cell)[..], &floats(first.hidden)];
                    let loops =
                        reference::lstm(&weights, &floats(x.clone()), first, [batch, steps]);
                    assert_close(&name, &floats(dense.0), &loops, CLOSE);
                    assert_close(&name, &floats(sparse.0), &loops, CLOSE);
                }
            }
        }
    }
}

#[test]
fn every_option_is_burns() {
    let device = Device::flex();
    let plain = BurnConfig::new(4, 7, true);
    let prelu = || ActivationConfig::PRelu(PReluConfig::new().with_num_parameters(7));
    let variants = [
        plain.clone(),
        plain.clone().with_clip(Some(0.2)),
        plain
            .clone()
            .with_gate_activation(ActivationConfig::HardSwish)
            .with_cell_activation(ActivationConfig::Softsign)
            .with_hidden_activation(ActivationConfig::Relu)
            .with_clip(Some(1.5)),
        plain
            .with_gate_activation(prelu())
            .with_cell_activation(prelu())
            .with_hidden_activation(prelu())
            .with_clip(Some(1.5)),
    ];
    for config in variants {
        for case in 0..8 {
            let [batch_first, reverse, input_forget] = [case & 1 > 0, case & 2 > 0, case & 4 > 0];
            let config = config
                .clone()
                .with_batch_first(batch_first)
                .with_reverse(reverse)
                .with_input_forget(input_forget);
            let (theirs, ours) = pair(&config, 0.6, 15);
            let gates = if input_forget { 3 } else { 4 };
            assert_eq!(ours.state.weight.dims(), [7, 7 * gates]);
            let x = random([5, 3, 4], 16, &device);
            let batch = if batch_first { 5 } else { 3 };
            let first = LstmState::new(
                random([batch, 7], 17, &device),
                random([batch, 7], 18, &device),
            );
            let expected = theirs.forward(x.clone(), Some(first.clone()));
            let name = format!("{config}");
            let packed = ours.clone().pack().unwrap();
            let dense = ours.forward(x.clone(), Some(first.clone()));
            assert_same_run(&name, dense, expected.clone());
            assert_same_run(&name, packed.forward(x, Some(first)), expected);
        }
    }
}

#[test]
fn single_steps_are_the_sequence() {
    let device = Device::flex();
    let (_, dense) = pair(&BurnConfig::new(6, 9, true), 0.5, 19);
    let packed = dense.clone().pack().unwrap();
    let x = random([1, 28, 6], 20, &device);
    for lstm in [dense, packed] {
        let (expected, last) = lstm.forward(x.clone(), None);
        let mut state = None;
        for t in 0..28 {
            let x = x.clone().narrow(1, t, 1).squeeze_dim(1);
            let after = lstm.step(x, state);
            let expected = expected.clone().narrow(1, t, 1).squeeze_dim::<2>(1);
            assert_same("step", after.hidden.clone(), expected);
            state = Some(after);
        }
        assert_same("cell", state.unwrap().cell, last.cell);
    }
}

#[test]
fn a_fresh_layer_is_one_of_burns() {
    let device = Device::flex();
    let config = LstmConfig::new(3, 4, true)
        .with_reverse(true)
        .with_batch_first(false)
        .with_clip(Some(0.5));
    let lstm = config.init(&device);
    assert_eq!(lstm.input.weight.dims(), [3, 16]);
    assert_eq!(lstm.state.weight.dims(), [4, 16]);
    assert_eq!(
        (lstm.reverse, lstm.batch_first, lstm.clip),
        (true, false, Some(0.5))
    );
    let coupled = config.with_input_forget(true).init(&device);
    assert_eq!(coupled.state.weight.dims(), [4, 12]);
}

#[test]
fn nothing_makes_nothing() {
    let device = Device::flex();
    for (batch_first, shape, expected) in
        [(true, [2, 0, 3], [2, 0, 4]), (false, [0, 2, 3], [0, 2, 4])]
    {
        let lstm = LstmConfig::new(3, 4, true)
            .with_batch_first(batch_first)
            .init(&device);
        let (states, last) = lstm.forward(Tensor::zeros(shape, &device), None);
        assert_eq!(states.dims(), expected);
        assert_eq!(last.hidden.dims(), [2, 4]);
    }
}

#[test]
#[should_panic(expected = "Lstm: a state [2, 3] for a batch of 2 and a hidden size of 4")]
fn a_wrong_state_panics() {
    let device = Device::flex();
    let lstm = LstmConfig::new(3, 4, true).init(&device);
    let state = LstmState::initial([2, 3], &device);
    lstm.step(Tensor::zeros([2, 3], &device), Some(state));
}
