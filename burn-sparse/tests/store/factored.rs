//! Checkpoints of chains of factors.

use std::panic::AssertUnwindSafe;

use burn::module::{Lora, Module};
use burn::tensor::{Device, TensorData};
use burn_sparse::nn::{Conv2d, Conv2dConfig, Linear, LinearConfig, replace_weights, weights};
use burn_sparse::store;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde_json::json;

use super::{asked_by, bits, forge, refusal, tensor};

#[derive(Module, Debug)]
struct Net {
    conv: Conv2d,
    head: Linear,
}

fn fresh() -> Net {
    let device = Device::flex();
    Net {
        conv: Conv2dConfig::new([6, 8], [3, 3]).init(&device),
        head: LinearConfig::new(8, 5).init(&device),
    }
}

fn data(rng: &mut ChaCha8Rng, shape: &[usize], density: f64) -> TensorData {
    let flat = tensor(rng, [shape.iter().product()], density);
    let values: Vec<f32> = flat.into_data().try_to_vec().unwrap();
    TensorData::new(values, shape.to_vec())
}

/// Factors in both layers, the core of the convolution packed.
fn factored(seed: u64, ranks: [usize; 2]) -> Net {
    let rng = &mut ChaCha8Rng::seed_from_u64(seed);
    let named = weights(&fresh());
    let [d1, d2] = ranks;
    let conv = [
        Some(data(rng, &[d1, 6, 1, 1], 1.0)),
        Some(data(rng, &[d2, d1, 3, 3], 0.2)),
        Some(data(rng, &[8, d2, 1, 1], 1.0)),
    ];
    let head = [
        None,
        Some(data(rng, &[8, 2], 1.0)),
        Some(data(rng, &[2, 5], 1.0)),
    ];
    let conv = named[0].weight.with_factors(conv).unwrap();
    let head = named[1].weight.with_factors(head).unwrap();
    let net = replace_weights(fresh(), vec![conv, head]);
    let mut weights: Vec<_> = weights(&net).into_iter().map(|n| n.weight).collect();
    weights[1] = weights[1].clone().pack(true).unwrap();
    replace_weights(net, weights)
}

fn assert_same(loaded: &Net, saved: &Net) {
    let all = |net: &Net| {
        let named = weights(net).into_iter();
        let one = named.map(|n| {
            let values = n.weight.to_csr().unwrap();
            let values: Vec<_> = values.to_dense().iter().map(|v| v.to_bits()).collect();
            (n.path, n.weight.is_packed(), n.weight.shape(), values)
        });
        one.collect::<Vec<_>>()
    };
    assert_eq!(all(loaded), all(saved));
    let bias = |net: &Net| bits(net.conv.bias.as_ref().unwrap().val());
    assert_eq!(bias(loaded), bias(saved));
}

#[test]
fn factors_come_back_whatever_the_model_had() {
    let saved = factored(1, [3, 4]);
    let (bytes, report) = store::to_bytes(&saved).unwrap();
    let paths: Vec<_> = report.layers.iter().map(|l| l.weight.as_str()).collect();
    let expected = [
        "conv.weight.reduce",
        "conv.weight.core",
        "conv.weight.expand",
        "head.weight.core",
        "head.weight.expand",
    ];
    assert_eq!(paths, expected);
    // Into whole weights, factors of the same ranks, and factors of others.
    for model in [fresh(), factored(2, [3, 4]), factored(3, [5, 2])] {
        assert_same(&store::from_bytes(model, &bytes).unwrap(), &saved);
    }
    // Where they fit, parameters stay who they are.
    let model = factored(2, [3, 4]);
    let id = weights(&model)[0].weight.id();
    let loaded = store::from_bytes(model, &bytes).unwrap();
    assert_eq!(weights(&loaded)[0].weight.id(), id);

    // And whole weights into factors.
    let saved = fresh();
    let (bytes, _) = store::to_bytes(&saved).unwrap();
    assert_same(
        &store::from_bytes(factored(4, [3, 4]), &bytes).unwrap(),
        &saved,
    );
}

#[test]
fn forged_factors_are_refused_before_memory_is_asked_for() {
    let (bytes, _) = store::to_bytes(&factored(1, [3, 4])).unwrap();
    let refused = |shapes: [[usize; 4]; 3], reason: &str| {
        let forged = forge(&bytes, |manifest, _| {
            for (layer, shape) in shapes.into_iter().enumerate() {
                manifest["layers"][layer]["shape"] = json!(shape);
            }
        });
        let (result, asked) = asked_by(|| store::from_bytes(fresh(), &forged));
        let found = refusal(result);
        assert!(found.contains(reason), "{found}");
        assert!(asked < 1 << 20, "asked for {asked} bytes");
    };
    let huge = 1 << 40;
    refused(
        [[3, 6, 1, 1], [4, huge, 3, 3], [8, 4, 1, 1]],
        "`conv.weight`: a factor",
    );
    refused(
        [[3, 6, 1, 1], [4, 3, huge, 3], [8, 4, 1, 1]],
        "`conv.weight`: a factor",
    );
    // No rank of this weight is that high, whatever the width of its other side.
    refused(
        [[3, 6, 1, 1], [4, 3, 3, 3], [8, 55, 1, 1]],
        "a factor [8, 55, 1, 1] of a weight [8, 6, 3, 3], [8, 8, 1, 1] at most",
    );
    refused(
        [[3, 6, 1, 1], [5, 3, 3, 3], [8, 4, 1, 1]],
        "`core` gives 5 channels, but `expand` takes 4",
    );
    refused(
        [[3, 6, 1, 1], [4, 3, 3, 1], [8, 4, 1, 1]],
        "factors of a weight [8, 6, 3, 1], not [8, 6, 3, 3]",
    );
    refused([[0, 6, 1, 1], [4, 0, 3, 3], [8, 4, 1, 1]], "rank 0 of 6");
    // A chain without its core is no chain.
    let forged = forge(&bytes, |manifest, _| {
        manifest["layers"][1]["weight"] = json!("conv.weight.inner");
    });
    let found = refusal(store::from_bytes(fresh(), &forged));
    assert!(found.contains("conv.weight"), "{found}");
}

/// By columns and rows, and with a depthwise core.
#[test]
fn factors_of_other_forms_come_back() {
    let fresh = || Conv2dConfig::new([6, 8], [3, 5]).init(&Device::flex());
    let rng = &mut ChaCha8Rng::seed_from_u64(5);
    let mut some = |shape: &[usize]| Some(data(rng, shape, 1.0));
    let forms = [
        [None, some(&[4, 6, 3, 1]), some(&[8, 4, 1, 5])],
        [None, some(&[18, 6, 3, 1]), some(&[8, 18, 1, 5])],
        [
            some(&[10, 6, 1, 1]),
            some(&[10, 1, 3, 5]),
            some(&[8, 10, 1, 1]),
        ],
    ];
    for form in forms {
        let factors = weights(&fresh())[0].weight.with_factors(form).unwrap();
        let saved = replace_weights(fresh(), vec![factors]);
        // Dense, and with all factors packed.
        for saved in [saved.clone(), saved.pack().unwrap()] {
            let (bytes, _) = store::to_bytes(&saved).unwrap();
            let loaded = store::from_bytes(fresh(), &bytes).unwrap();
            let all = |conv: &Conv2d| {
                let named = weights(conv).into_iter();
                let one = named.map(|n| {
                    let values = n.weight.to_csr().unwrap().to_dense();
                    (n.path, n.groups, n.weight.is_packed(), values)
                });
                one.collect::<Vec<_>>()
            };
            assert_eq!(all(&loaded), all(&saved));
            let form = |conv: &Conv2d| conv.weight.factors().unwrap().form();
            assert_eq!(form(&loaded), form(&saved));
        }
    }
    // What no such factors can be is asked no memory for.
    let [core, expand] = [[4, 6, 3, 1], [8, 4, 1, 5]].map(|shape| some(&shape));
    let factors = weights(&fresh())[0]
        .weight
        .with_factors([None, core, expand]);
    let saved = replace_weights(fresh(), vec![factors.unwrap()]);
    let (bytes, _) = store::to_bytes(&saved).unwrap();
    let huge = 1usize << 40;
    for shapes in [
        [[huge, 6, 3, 1], [8, huge, 1, 5]],
        [[4, 6, 3, 1], [8, 4, 1, huge]],
    ] {
        let forged = forge(&bytes, |manifest, _| {
            for (layer, shape) in shapes.into_iter().enumerate() {
                manifest["layers"][layer]["shape"] = json!(shape);
            }
        });
        let (result, asked) = asked_by(|| store::from_bytes(fresh(), &forged));
        let found = refusal(result);
        assert!(found.contains("a factor"), "{found}");
        assert!(asked < 1 << 20, "asked for {asked} bytes");
    }
}

#[test]
fn a_grouped_layer_gets_no_factors() {
    let conv = |channels, groups| {
        let config = Conv2dConfig::new([channels, 8], [3, 3]).with_groups(groups);
        config.init(&Device::flex())
    };
    let rng = &mut ChaCha8Rng::seed_from_u64(1);
    // Weights of one shape, for six channels at once and for two groups of six.
    let plain = conv(6, 1);
    let factors = [
        None,
        Some(data(rng, &[4, 6, 3, 3], 1.0)),
        Some(data(rng, &[8, 4, 1, 1], 1.0)),
    ];
    let factors = weights(&plain)[0].weight.with_factors(factors).unwrap();
    let saved = replace_weights(plain, vec![factors.clone()]);
    let (bytes, _) = store::to_bytes(&saved).unwrap();
    let found = refusal(store::from_bytes(conv(12, 2), &bytes));
    assert!(found.contains("2 groups"), "{found}");
    let replaced = AssertUnwindSafe(|| replace_weights(conv(12, 2), vec![factors]));
    assert!(std::panic::catch_unwind(replaced).is_err());
}

#[test]
fn whole_weights_go_on_training_and_adapters_are_not_lost() {
    let (bytes, _) = store::to_bytes(&fresh()).unwrap();
    let model = factored(4, [3, 4]).train();
    let loaded = store::from_bytes(model, &bytes).unwrap();
    assert!(loaded.conv.weight.dense().unwrap().val().is_require_grad());

    let (bytes, _) = store::to_bytes(&factored(1, [3, 4])).unwrap();
    let net = Net {
        head: fresh().head.apply_lora(Lora::new(2, 4.0)),
        ..fresh()
    };
    let found = refusal(store::from_bytes(net, &bytes));
    assert!(found.contains("adapter"), "{found}");
}
