//! What the recurrent layers share: gates side by side in one matrix, time steps, activations.

use burn::module::Param;
use burn::nn::activation::Activation;
use burn::tensor::{Device, Tensor};

use super::Linear;

/// The linear maps of several gates as one, output channels gate after gate.
///
/// A gate without bias gets zeros where another has one; masks and other reparameterizations are
/// folded in. Where a device records gradients, parameters of which none is trained stay frozen.
pub(super) fn fuse(gates: &[&burn::nn::Linear]) -> Linear {
    let weights = gates.iter().map(|gate| gate.weight.val());
    let weight = Param::from_tensor(Tensor::cat(weights.collect(), 1).detach());
    let frozen = gates.iter().all(|gate| is_frozen(&gate.weight));
    let biases = || gates.iter().filter_map(|gate| gate.bias.as_ref());
    let bias = biases().next().map(|_| {
        let values = gates.iter().map(|gate| match &gate.bias {
            Some(bias) => bias.val(),
            None => Tensor::zeros([gate.weight.dims()[1]], &gate.weight.device()),
        });
        Param::from_tensor(Tensor::cat(values.collect(), 0).detach())
            .set_require_grad(!biases().all(is_frozen))
    });
    Linear {
        weight: weight.set_require_grad(!frozen).into(),
        bias,
    }
}

/// Whether a parameter is not trained; only a device that records gradients can tell.
fn is_frozen<const D: usize>(param: &Param<Tensor<D>>) -> bool {
    let base = param.base();
    base.is_autodiff() && !base.is_require_grad()
}

/// Panics unless an initial state is `[batch, d_hidden]`.
pub(super) fn check_state(layer: &str, state: [usize; 2], batch: usize, d_hidden: usize) {
    assert!(
        state == [batch, d_hidden],
        "{layer}: a state {state:?} for a batch of {batch} and a hidden size of {d_hidden}"
    );
}

/// Time step `t` of a sequence whose steps lie on `axis`.
pub(super) fn time_step(sequence: &Tensor<3>, axis: usize, t: usize) -> Tensor<2> {
    sequence.clone().narrow(axis, t, 1).squeeze_dim(axis)
}

/// The states of all time steps as a sequence, its steps on `axis`.
pub(super) fn sequence(
    states: Vec<Tensor<2>>,
    axis: usize,
    [batch, d_hidden]: [usize; 2],
    device: &Device,
) -> Tensor<3> {
    if states.is_empty() {
        let shape = if axis == 0 {
            [0, batch, d_hidden]
        } else {
            [batch, 0, d_hidden]
        };
        return Tensor::zeros(shape, device);
    }
    Tensor::stack(states, axis)
}

/// Columns `gates[0]..gates[1]`, counted in gates of `d_hidden`, of `[batch, gates · d_hidden]`.
pub(super) fn gates(sums: &Tensor<2>, [first, end]: [usize; 2], d_hidden: usize) -> Tensor<2> {
    sums.clone()
        .narrow(1, first * d_hidden, (end - first) * d_hidden)
}

/// `activation` of gates that lie side by side, each of them `d_hidden` wide: of all at once where
/// each element is on its own, gate by gate where it has parameters for the features of one or
/// mixes them.
pub(super) fn activate(activation: &Activation, sums: Tensor<2>, d_hidden: usize) -> Tensor<2> {
    let elementwise = matches!(
        activation,
        Activation::Sigmoid(_)
            | Activation::Tanh(_)
            | Activation::HardSigmoid(_)
            | Activation::Relu(_)
            | Activation::Identity(_)
            | Activation::Softsign(_)
    );
    if elementwise || sums.dims()[1] == d_hidden || d_hidden == 0 {
        return activation.forward(sums);
    }
    let gates = sums.split(d_hidden, 1).into_iter();
    Tensor::cat(gates.map(|gate| activation.forward(gate)).collect(), 1)
}
