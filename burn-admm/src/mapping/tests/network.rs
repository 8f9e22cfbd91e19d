use burn::module::Module;
use burn::nn::{Embedding, EmbeddingConfig};
use burn::tensor::{Int, Tensor, TensorData};
use burn_sparse::nn::{Conv1d, Conv1dConfig, Linear, LinearConfig, Place};

use super::*;

/// Tokens, with a layer of Burn's own and one that nothing runs.
#[derive(Module, Debug)]
struct Text {
    embedding: Embedding,
    conv: Conv1d,
    gate: Linear,
    fc: Linear,
    own: burn::nn::Linear,
    unused: Linear,
}

impl Text {
    fn new(device: &Device) -> Self {
        Self {
            embedding: EmbeddingConfig::new(20, 6).init(device),
            conv: Conv1dConfig::new(6, 8, 3).init(device),
            gate: LinearConfig::new(8, 8).init(device),
            fc: LinearConfig::new(8, 4).init(device),
            own: burn::nn::LinearConfig::new(4, 4).init(device),
            unused: LinearConfig::new(4, 4).init(device),
        }
    }

    fn forward(&self, tokens: Tensor<2, Int>) -> Tensor<2> {
        let x = self.embedding.forward(tokens).swap_dims(1, 2);
        let x = self.conv.forward(x).max_dim(2).flatten(1, 2);
        let gate = burn::tensor::activation::sigmoid(self.gate.forward(x.clone()));
        self.own.forward(self.fc.forward(x * gate))
    }
}

fn tokens(from: i64, device: &Device) -> Tensor<2, Int> {
    let tokens = (0..10).map(|at| (from + 3 * at) % 20).collect();
    Tensor::from_data(TensorData::new::<i64, _>(tokens, [1, 10]), device)
}

#[test]
fn a_network_is_read_off_its_forward_pass() {
    let device = Device::flex();
    let model = Text::new(&device);
    let inputs = [0, 7].map(|from| tokens(from, &device));
    let network = Network::of(&model, inputs, |model, x| model.forward(x)).unwrap();
    let paths: Vec<&str> = network.layers.iter().map(|l| l.path.as_str()).collect();
    assert_eq!(paths, ["conv.weight", "gate.weight", "fc.weight"]);
    let expected = [
        [Place::Input, Place::Layer(0)],
        [Place::Layer(0), Place::Layer(1)],
        [Place::Layer(0), Place::Layer(2)],
        [Place::Layer(1), Place::Layer(2)],
        [Place::Layer(2), Place::Output],
    ];
    assert_eq!(network.edges, expected);
    assert_eq!(network.idle, ["unused.weight"]);
    let others: Vec<&str> = network.others.iter().map(|o| o.path.as_str()).collect();
    assert_eq!(others, ["embedding.weight", "own.weight"]);
    assert_eq!(network.macs(), 6 * 8 * 3 * 8 + 8 * 8 + 8 * 4);
    assert_eq!(network.weights(), 6 * 8 * 3 + 8 * 8 + 8 * 4);
    assert_eq!(
        network.layer("conv.weight").unwrap().operation,
        Operation::Conv1d
    );

    let text = network.to_string();
    for part in [
        "conv.weight, gate.weight",
        "unused.weight: no forward pass ran it",
        "own.weight (4x4): of no layer",
        "3 layers",
    ] {
        assert!(text.contains(part), "{part} in\n{text}");
    }
    let json: serde_json::Value = serde_json::from_str(&network.to_json()).unwrap();
    assert_eq!(json["edges"][4][1], "output");
    let dot = network.to_dot();
    assert!(dot.contains("input -> \"conv.weight\";"));
    assert!(dot.contains("\"fc.weight\" -> output;"));
}

#[test]
fn models_without_layers_are_refused() {
    let device = Device::flex();
    let model: burn::nn::Linear = burn::nn::LinearConfig::new(4, 4).init(&device);
    let inputs = [0.0, 1.0].map(|value| Tensor::<2>::full([1, 4], value, &device));
    let network = Network::of(&model, inputs, |model, x| model.forward(x));
    assert!(matches!(network, Err(MappingError::NoLayers)));
}
