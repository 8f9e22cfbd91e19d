//! Recurrent layers in the rest of the house: packing, reports, traces, profiles, checkpoints.

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Device, Tensor};
use burn_sparse::nn::{
    Gru, GruConfig, Linear, LinearConfig, Lstm, LstmConfig, Profile, Trace, weights,
};
use burn_sparse::pack::{self, Choice, Format, PackConfig};
use burn_sparse::store;

use super::common::{assert_same, filled, random};

const BATCH: usize = 2;
const STEPS: usize = 5;

/// Two kinds of recurrent layers in two layers, and a head.
#[derive(Module, Debug)]
struct Net {
    gru: Vec<Gru>,
    lstm: Lstm,
    head: Linear,
}

impl Net {
    fn new(device: &Device) -> Self {
        Self {
            gru: vec![
                GruConfig::new(6, 16, true).init(device),
                GruConfig::new(16, 16, true)
                    .with_reset_after(false)
                    .init(device),
            ],
            lstm: LstmConfig::new(16, 12, true).init(device),
            head: LinearConfig::new(12, 3).init(device),
        }
    }

    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let x = self.gru.iter().fold(x, |x, gru| gru.forward(x, None));
        self.head.forward(self.lstm.forward(x, None).0)
    }
}

const LAYERS: [&str; 8] = [
    "gru.0.input",
    "gru.0.state",
    "gru.1.input",
    "gru.1.state",
    "gru.1.candidate",
    "lstm.input",
    "lstm.state",
    "head",
];

#[test]
fn packing_names_measures_and_keeps_every_matrix() {
    let device = Device::flex();
    let net = filled(Net::new(&device), 0.1, 16, 31);
    let names: Vec<_> = weights(&net)
        .into_iter()
        .map(|weight| weight.layer)
        .collect();
    assert_eq!(names, LAYERS);
    let x = random([BATCH, STEPS, 6], 32, &device);
    let trace = Trace::of(|| drop(net.forward(x.clone())));
    for named in weights(&net) {
        let rows = trace.problem(named.weight.id()).unwrap().batch;
        let of_sequence = named.layer.ends_with("input") || named.layer == "head";
        let expected = if of_sequence { BATCH * STEPS } else { BATCH };
        assert_eq!(rows, expected, "{}", named.layer);
    }
    let config = PackConfig::measure(trace)
        .with_choice(Choice::Csr)
        .with_plan_cache(None);
    let (packed, report) = pack::pack(net.clone(), &config).unwrap();
    for (layer, name) in report.layers.iter().zip(LAYERS) {
        assert_eq!((layer.layer.as_str(), layer.format), (name, Format::Csr));
        assert!(layer.dense_ms.is_some() && layer.packed_ms.is_some());
    }
    let expected = net.forward(x.clone());
    assert_same("packed", packed.forward(x.clone()), expected.clone());
    // Who asks for measurement gets the same numbers, whatever was chosen.
    let (chosen, _) = pack::pack(net, &config.with_choice(Choice::Auto)).unwrap();
    assert_same("chosen", chosen.forward(x.clone()), expected.clone());
    let dense = pack::unpack(packed);
    assert!(
        dense.gru[1]
            .candidate
            .as_ref()
            .unwrap()
            .weight
            .dense()
            .is_some()
    );
    assert_same("unpacked", dense.forward(x), expected);
}

#[test]
fn a_profile_counts_the_matrices_once_for_all_steps() {
    let device = Device::flex();
    let net = Net::new(&device);
    let x = random([BATCH, STEPS, 6], 33, &device);
    let profile = Profile::of(3, &device, || drop(net.forward(x.clone())));
    let known: Vec<_> = weights(&net)
        .iter()
        .map(|named| named.weight.id())
        .collect();
    let profiled: Vec<_> = profile.layers.iter().map(|layer| layer.weight).collect();
    // In the order of use: the second layer's candidate after its other gates.
    assert_eq!(profiled, known);
    assert_eq!(profile.layers[0].problem.batch, BATCH * STEPS);
    assert_eq!(profile.layers[1].problem.batch, BATCH);
}

#[test]
fn checkpoints_bring_packed_layers_back() {
    let device = Device::flex();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("net.safetensors");
    let config = PackConfig::default()
        .with_choice(Choice::Csr)
        .with_plan_cache(None);
    let (net, _) = pack::pack(filled(Net::new(&device), 0.2, 16, 34), &config).unwrap();
    store::save(&net, &path).unwrap();
    let loaded = store::load(Net::new(&device), &path).unwrap();
    assert!(
        weights(&loaded)
            .iter()
            .all(|named| named.weight.is_packed())
    );
    let x = random([BATCH, STEPS, 6], 35, &device);
    let (ours, theirs) = (loaded.forward(x.clone()), net.forward(x));
    ours.into_data().assert_eq(&theirs.into_data(), true);
}

/// Path, module and rank of every parameter.
#[derive(Default)]
struct Paths {
    stack: Vec<(String, String)>,
    found: Vec<(String, String, usize)>,
}

impl ModuleVisitor for Paths {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.stack.push((name.to_string(), container.to_string()));
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.stack.pop();
    }

    fn visit_float<const D: usize>(&mut self, _: &Param<Tensor<D>>) {
        let names: Vec<_> = self.stack.iter().map(|(name, _)| name.as_str()).collect();
        let (_, container) = self.stack.last().unwrap();
        self.found.push((names.join("."), container.clone(), D));
    }
}

#[test]
fn matrices_are_those_of_linear_layers() {
    let device = Device::flex();
    let gru = GruConfig::new(3, 4, true)
        .with_reset_after(false)
        .init(&device);
    let mut paths = Paths::default();
    gru.visit(&mut paths);
    let expected = ["input", "state", "candidate"]
        .into_iter()
        .flat_map(|layer| {
            [("weight", 2), ("bias", 1)]
                .map(|(name, rank)| (format!("{layer}.{name}"), "Struct:Linear".to_string(), rank))
        });
    assert_eq!(paths.found, expected.collect::<Vec<_>>());
}

#[test]
fn frozen_parameters_stay_frozen() {
    let device = Device::flex().autodiff();
    let theirs = burn::nn::gru::GruConfig::new(3, 4, true).init(&device);
    let trained = Gru::from(theirs.clone());
    assert!(trained.input.weight.val().is_require_grad());
    let frozen = Gru::from(theirs.no_grad());
    assert!(!frozen.input.weight.val().is_require_grad());
    assert!(!frozen.state.bias.unwrap().val().is_require_grad());
}

#[test]
fn layers_describe_themselves() {
    let device = Device::flex();
    let gru = GruConfig::new(3, 4, true).init(&device);
    let text = gru.to_string();
    assert!(
        text.contains("d_input: 3") && text.contains("d_hidden: 4"),
        "{text}"
    );
    let lstm = LstmConfig::new(3, 4, false).init(&device).pack().unwrap();
    let text = lstm.to_string();
    assert!(
        text.contains("d_input: 3") && text.contains("bias: false"),
        "{text}"
    );
}
