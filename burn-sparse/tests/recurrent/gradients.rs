//! Gradients through a sequence: against Burn's, and against finite differences of f64 loops.

use burn::nn::{LstmState, gru::GruConfig as BurnGruConfig};
use burn::tensor::{Device, Gradients, Tensor};
use burn_sparse::nn::{Gru, Linear, Lstm};
use burn_sparse::reference::{self, Recurrent};

use super::common::{assert_close, filled, floats, random};

const D_INPUT: usize = 5;
const D_HIDDEN: usize = 6;
const BATCH: usize = 3;
const STEPS: usize = 7;

/// Largest difference allowed between gradients, relative to the largest: those of 7 steps are sums
/// of some hundred products, each rounded a few times.
const CLOSE: f64 = 2e-5;

/// Finite differences of f64 loops with a step of 2^-10 err by its square times a third derivative
/// of a few units, and the largest gradients are of order 1.
const STEP: f32 = 1.0 / 1024.0;
const CLOSE_TO_DIFFERENCES: f64 = 2e-5;

/// A loss that weighs every state differently.
fn loss(states: Tensor<3>) -> Tensor<1> {
    let weights = random(states.dims(), 90, &states.device());
    (states * weights).sum()
}

fn loss_of_loops(states: &[f64]) -> f64 {
    let weights = burn_sparse::catalogue::values(states.len(), 90);
    let products = states.iter().zip(&weights);
    products
        .map(|(state, &weight)| state * f64::from(weight))
        .sum()
}

/// The gradients of a linear map's bias and, dense or packed, of the weights it keeps.
fn gradients(linear: &Linear, grads: &Gradients) -> [Vec<f32>; 2] {
    let weights = match linear.weight.packed() {
        None => floats(linear.weight.val().grad(grads).unwrap()),
        Some(packed) => floats(packed.sparse().values().grad(grads).unwrap()),
    };
    let bias = linear.bias.as_ref().unwrap();
    [weights, floats(bias.val().grad(grads).unwrap())]
}

/// The entries of a dense `[d_input, d_output]` gradient that a packed weight keeps, in its order.
fn kept(linear: &Linear, dense: &[f32]) -> Vec<f32> {
    let csr = linear.weight.packed().unwrap().pattern().csr().clone();
    (0..csr.rows())
        .flat_map(|row| {
            csr.row(row)
                .map(move |(column, _)| (row, column))
                .collect::<Vec<_>>()
        })
        .map(|(row, column)| dense[column * csr.rows() + row])
        .collect()
}

fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&value| f64::from(value)).collect()
}

/// Gradients of the gates of Burn's as those of one matrix, and of one vector.
fn joined(gates: &[&burn::nn::Linear], grads: &Gradients) -> [Vec<f32>; 2] {
    let weights = gates
        .iter()
        .map(|gate| gate.weight.val().grad(grads).unwrap());
    let biases = gates
        .iter()
        .map(|gate| gate.bias.as_ref().unwrap().val().grad(grads).unwrap());
    [
        floats(Tensor::cat(weights.collect(), 1)),
        floats(Tensor::cat(biases.collect(), 0)),
    ]
}

fn burn_gru(reset_after: bool, density: f64) -> burn::nn::gru::Gru {
    let device = Device::flex().autodiff();
    let config = BurnGruConfig::new(D_INPUT, D_HIDDEN, true).with_reset_after(reset_after);
    filled(config.init(&device), density, D_HIDDEN, 91)
}

fn burn_lstm(input_forget: bool, density: f64) -> burn::nn::Lstm {
    let device = Device::flex().autodiff();
    let config = burn::nn::LstmConfig::new(D_INPUT, D_HIDDEN, true).with_input_forget(input_forget);
    filled(config.init(&device), density, D_HIDDEN, 92)
}

/// The sequence and the first state, recording gradients.
fn operands() -> (Tensor<3>, Tensor<2>) {
    let device = Device::flex().autodiff();
    let x = random([BATCH, STEPS, D_INPUT], 93, &device).require_grad();
    let first = random([BATCH, D_HIDDEN], 94, &device).require_grad();
    (x, first)
}

/// Runs `assert` on each of our gradients beside Burn's, all of them scaled to at most 1.
fn compare(what: &str, ours: Vec<f32>, theirs: &[f32]) {
    let largest = theirs
        .iter()
        .fold(0.0f64, |max, g| max.max(f64::from(g.abs())));
    assert!(largest > 0.0, "{what}: no gradient");
    assert_close(what, &ours, &wide(theirs), CLOSE * largest.max(1.0));
}

#[test]
fn of_a_gru_are_burns() {
    for reset_after in [true, false] {
        let theirs = burn_gru(reset_after, 0.5);
        let (x, first) = operands();
        let grads = loss(theirs.forward(x.clone(), Some(first.clone()))).backward();
        let (of_x, of_first) = (x.grad(&grads).unwrap(), first.grad(&grads).unwrap());
        let gates = [&theirs.update_gate, &theirs.reset_gate, &theirs.new_gate];
        let inputs = joined(&gates.map(|gate| &gate.input_transform), &grads);
        let states = gates.map(|gate| &gate.hidden_transform);
        let (states, candidate) = states.split_at(if reset_after { 3 } else { 2 });
        let states = joined(states, &grads);
        let candidate = (!reset_after).then(|| joined(candidate, &grads));

        let dense = Gru::from(theirs.clone());
        for ours in [dense.clone(), dense.pack().unwrap()] {
            let (x, first) = operands();
            let grads = loss(ours.forward(x.clone(), Some(first.clone()))).backward();
            compare(
                "input",
                floats(x.grad(&grads).unwrap()),
                &floats(of_x.clone()),
            );
            let of_ours = floats(first.grad(&grads).unwrap());
            compare("state", of_ours, &floats(of_first.clone()));
            let mut layers = vec![(&ours.input, &inputs), (&ours.state, &states)];
            layers.extend(ours.candidate.as_ref().zip(candidate.as_ref()));
            for (linear, [weight, bias]) in layers {
                check_layer(linear, &grads, weight, bias);
            }
        }
    }
}

#[test]
fn of_an_lstm_are_burns() {
    for input_forget in [false, true] {
        let theirs = burn_lstm(input_forget, 0.5);
        let (x, first) = operands();
        let state = |first: &Tensor<2>| LstmState::new(first.clone() * 0.5, first.clone());
        let grads = loss(theirs.forward(x.clone(), Some(state(&first))).0).backward();
        let (of_x, of_first) = (x.grad(&grads).unwrap(), first.grad(&grads).unwrap());
        let mut gates = vec![&theirs.input_gate];
        gates.extend(&theirs.forget_gate);
        gates.extend([&theirs.output_gate, &theirs.cell_gate]);
        let of = |linears: Vec<&burn::nn::Linear>| joined(&linears, &grads);
        let inputs = of(gates.iter().map(|gate| &gate.input_transform).collect());
        let states = of(gates.iter().map(|gate| &gate.hidden_transform).collect());

        let dense = Lstm::from(theirs.clone());
        for ours in [dense.clone(), dense.pack().unwrap()] {
            let (x, first) = operands();
            let grads = loss(ours.forward(x.clone(), Some(state(&first))).0).backward();
            compare(
                "input",
                floats(x.grad(&grads).unwrap()),
                &floats(of_x.clone()),
            );
            let of_ours = floats(first.grad(&grads).unwrap());
            compare("state", of_ours, &floats(of_first.clone()));
            for (linear, [weight, bias]) in [(&ours.input, &inputs), (&ours.state, &states)] {
                check_layer(linear, &grads, weight, bias);
            }
        }
    }
}

/// A packed weight has the gradients of the entries it keeps.
fn check_layer(linear: &Linear, grads: &Gradients, weight: &[f32], bias: &[f32]) {
    let [of_weight, of_bias] = gradients(linear, grads);
    let weight = match linear.weight.packed() {
        None => weight.to_vec(),
        Some(_) => kept(linear, weight),
    };
    compare("weight", of_weight, &weight);
    compare("bias", of_bias, bias);
}

/// Central differences of `loss` along every element of `at`.
fn differences(at: &[f32], loss: impl Fn(&[f32]) -> f64) -> Vec<f64> {
    let mut moved = at.to_vec();
    (0..at.len())
        .map(|index| {
            let mut side = |sign: f32| {
                moved[index] = at[index] + sign * STEP;
                (loss(&moved), f64::from(moved[index]))
            };
            let ((above, high), (below, low)) = (side(1.0), side(-1.0));
            moved[index] = at[index];
            (above - below) / (high - low)
        })
        .collect()
}

/// Everything that a loss depends on, in the order of [`Recurrent`], the sequence, the first state.
type Operands = [Vec<f32>; 6];

fn hosted(input: &Linear, state: &Linear, x: &Tensor<3>, first: &Tensor<2>) -> Operands {
    let bias = |linear: &Linear| floats(linear.bias.as_ref().unwrap().val().inner());
    [
        floats(input.weight.val().inner()),
        floats(state.weight.val().inner()),
        bias(input),
        bias(state),
        floats(x.clone().inner()),
        floats(first.clone().inner()),
    ]
}

/// The loss of the loops with operand `which` exchanged.
fn exchanged(
    operands: &Operands,
    which: usize,
    values: &[f32],
    states: impl Fn(&Recurrent<'_>, &[f32], &[f32]) -> Vec<f64>,
) -> f64 {
    let [input, state, input_bias, state_bias, x, first] =
        core::array::from_fn(|i| if i == which { values } else { &operands[i][..] });
    let weights = Recurrent {
        d_input: D_INPUT,
        d_hidden: D_HIDDEN,
        input,
        state,
        input_bias,
        state_bias,
    };
    loss_of_loops(&states(&weights, x, first))
}

fn check_differences(
    (input, state): (&Linear, &Linear),
    run: impl Fn(Tensor<3>, Tensor<2>) -> Tensor<3>,
    loops: impl Fn(&Recurrent<'_>, &[f32], &[f32]) -> Vec<f64>,
) {
    let (x, first) = operands();
    let grads = loss(run(x.clone(), first.clone())).backward();
    let hosted = hosted(input, state, &x, &first);
    let expected = |which: usize| {
        differences(&hosted[which], |values| {
            exchanged(&hosted, which, values, &loops)
        })
    };
    for (linear, [weight, bias]) in [(input, [0, 2]), (state, [1, 3])] {
        let [of_weight, of_bias] = gradients(linear, &grads);
        let mut differences = expected(weight);
        if linear.weight.packed().is_some() {
            let narrow: Vec<f32> = differences.iter().map(|&d| d as f32).collect();
            differences = wide(&kept(linear, &narrow));
        }
        assert_close("weight", &of_weight, &differences, CLOSE_TO_DIFFERENCES);
        assert_close("bias", &of_bias, &expected(bias), CLOSE_TO_DIFFERENCES);
    }
    let of_x = floats(x.grad(&grads).unwrap());
    assert_close("input", &of_x, &expected(4), CLOSE_TO_DIFFERENCES);
    let of_first = floats(first.grad(&grads).unwrap());
    assert_close("state", &of_first, &expected(5), CLOSE_TO_DIFFERENCES);
}

#[test]
fn are_finite_differences() {
    let gru = Gru::from(burn_gru(true, 0.4));
    for gru in [gru.clone(), gru.pack().unwrap()] {
        check_differences(
            (&gru.input, &gru.state),
            |x, first| gru.forward(x, Some(first)),
            |weights, x, first| reference::gru(weights, true, x, first, [BATCH, STEPS]),
        );
    }
    let lstm = Lstm::from(burn_lstm(false, 0.4));
    for lstm in [lstm.clone(), lstm.pack().unwrap()] {
        check_differences(
            (&lstm.input, &lstm.state),
            |x, first| {
                lstm.forward(x, Some(LstmState::new(first.clone(), first)))
                    .0
            },
            |weights, x, first| reference::lstm(weights, x, [first, first], [BATCH, STEPS]),
        );
    }
}
