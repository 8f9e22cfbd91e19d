//! Random networks, randomly emptied, against the masked original.

use burn::tensor::Device;
use proptest::prelude::*;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::net::{Conv, Maker, Net, empty_filters, empty_inputs, get, randomise, set};
use crate::shrink::analysis::{Analysis, Layer, Matrix, layers};
use crate::shrink::*;

const SIZE: usize = 7;

/// A random network of about `length` operations.
fn network(rng: &mut ChaCha8Rng, length: usize) -> Net {
    let mut maker = Maker::new(&Device::flex());
    let builder = GraphBuilder::new();
    // Flows with their channels and their size.
    let mut flows = vec![(builder.input([3, SIZE, SIZE]), 3, SIZE)];
    for _ in 0..length {
        // Mostly the last, so that networks become deep; sometimes another, so that they branch.
        let (x, channels, size) = if rng.random_bool(0.7) {
            flows.last().unwrap().clone()
        } else {
            flows.choose(rng).unwrap().clone()
        };
        let alike: Vec<Flow> = flows
            .iter()
            .filter(|(_, c, s)| (*c, *s) == (channels, size))
            .map(|(flow, ..)| flow.clone())
            .collect();
        let wide: Vec<(Flow, usize)> = flows
            .iter()
            .filter(|(_, _, s)| *s == size)
            .map(|(flow, c, _)| (flow.clone(), *c))
            .collect();
        let next = match rng.random_range(0..14) {
            0..=4 => {
                let pad = rng.random_range(0..2);
                let kernel = if size + 2 * pad >= 3 && rng.random() {
                    3
                } else {
                    1
                };
                let conv = Conv {
                    kernel,
                    stride: if size > 3 { rng.random_range(1..3) } else { 1 },
                    pad: if kernel == 1 { 0 } else { pad },
                    groups: 1,
                    bias: rng.random(),
                };
                // As wide as another, so that there is something to add to.
                let out = if rng.random() {
                    channels
                } else {
                    rng.random_range(2..6)
                };
                let size = (size + 2 * conv.pad - kernel) / conv.stride + 1;
                (maker.conv(&x, [channels, out], conv), out, size)
            }
            5 => {
                let each = rng.random_range(1..3);
                let conv = Conv {
                    kernel: 3,
                    stride: 1,
                    pad: 1,
                    groups: channels,
                    bias: rng.random(),
                };
                let out = channels * each;
                (maker.conv(&x, [channels, out], conv), out, size)
            }
            6 | 7 => (maker.norm(&x, channels), channels, size),
            8 => (x.relu(), channels, size),
            9 => {
                let functions = [
                    Activation::LeakyRelu { slope: 0.1 },
                    Activation::Sigmoid,
                    Activation::Silu,
                    Activation::Tanh,
                    Activation::ZeroPreserving,
                    Activation::Pointwise,
                    Activation::Identity,
                ];
                (
                    x.activation(*functions.choose(rng).unwrap()),
                    channels,
                    size,
                )
            }
            10 => (x.add(alike.choose(rng).unwrap()), channels, size),
            11 if rng.random() => (x.mul(alike.choose(rng).unwrap()), channels, size),
            11 => {
                let (other, more) = wide.choose(rng).unwrap();
                (x.concat([other]), channels + more, size)
            }
            12 if size >= 2 => {
                let average = rng.random();
                let pool = PoolSpec {
                    kernel: vec![2, 2],
                    stride: vec![1, 1],
                    padding: Padding::Explicit(vec![[1, 1]; 2]),
                    counts_padding: average,
                    ..PoolSpec::every(&[1, 1])
                };
                (x.pool(pool), channels, size + 1)
            }
            12 => (x.opaque("", [channels, size, size]), channels, size),
            _ => {
                let (before, after) = (rng.random_range(0..2), rng.random_range(0..2));
                let padded = x.pad_channels(before, after);
                (
                    padded.pool(PoolSpec::every(&[2, 2])),
                    channels + before + after,
                    size.div_ceil(2),
                )
            }
        };
        if next.1 <= 12 {
            flows.push(next);
        }
    }
    let (x, channels, size) = flows.last().unwrap().clone();
    let (x, features) = if rng.random() {
        (x.flatten(), channels * size * size)
    } else {
        (x.resize([1, 1]).flatten(), channels)
    };
    let x = maker.linear(&x, [features, 5]).relu();
    let x = maker.linear(&x, [5, 3]);
    let graph = builder.finish([x]).unwrap();
    let mut net = maker.finish(graph);
    randomise(&mut net, rng);
    net
}

/// Empties filters, inputs and norms.
fn prune(net: &mut Net, rng: &mut ChaCha8Rng) {
    let some = |rng: &mut ChaCha8Rng, of: usize, p: f64| -> Vec<usize> {
        (0..of).filter(|_| rng.random_bool(p)).collect()
    };
    for conv in 0..net.convs.len() {
        let [outputs, inputs, ..] = net.convs[conv].weight.dims();
        let filters = some(rng, outputs, 0.4);
        empty_filters(net, conv, &filters);
        let channels = some(rng, inputs, 0.2);
        empty_inputs(net, conv, &channels);
        if let Some(bias) = &mut net.convs[conv].bias {
            let mut data = get(bias);
            some(rng, outputs, 0.3)
                .into_iter()
                .for_each(|c| data[c] = 0.0);
            set(bias, data);
        }
    }
    for norm in &mut net.norms {
        let mut gamma = get(&norm.gamma);
        some(rng, gamma.len(), 0.1)
            .into_iter()
            .for_each(|c| gamma[c] = 0.0);
        set(&mut norm.gamma, gamma);
    }
    for linear in &mut net.linears {
        let [inputs, outputs] = linear.weight.dims();
        let mut data = get(&linear.weight);
        for input in some(rng, inputs, 0.2) {
            data[input * outputs..(input + 1) * outputs].fill(0.0);
        }
        set(&mut linear.weight, data);
    }
}

fn matrix(layer: &Option<Layer>) -> Option<&Matrix> {
    match layer {
        Some(Layer::Matrix(matrix)) => Some(matrix),
        _ => None,
    }
}

/// The channels that stay, by sweeps over all nodes until nothing changes: what the analysis must
/// find with its classes and marks.
fn needed(analysis: &Analysis<'_>, options: &ShrinkOptions) -> Vec<Vec<bool>> {
    let graph = analysis.graph;
    let nodes = graph.nodes();
    let mut needed: Vec<Vec<bool>> = (0..nodes.len())
        .map(|node| vec![false; graph.shape(node)[0]])
        .collect();
    fn tie(needed: &mut [Vec<bool>], a: [usize; 2], b: [usize; 2]) {
        let either = needed[a[0]][a[1]] || needed[b[0]][b[1]];
        needed[a[0]][a[1]] = either;
        needed[b[0]][b[1]] = either;
    }
    loop {
        let before = needed.clone();
        for (index, node) in nodes.iter().enumerate() {
            let channels = graph.shape(index)[0];
            let inputs = &node.inputs;
            match &node.op {
                Op::Input { .. } => needed[index].fill(true),
                Op::Output => {
                    needed[index].fill(true);
                    needed[inputs[0]].fill(true);
                }
                Op::Opaque { .. } => {
                    needed[index].fill(true);
                    needed[inputs[0]].fill(true);
                }
                Op::Conv { .. } | Op::Linear { .. } => {
                    let matrix = matrix(&analysis.layers[index]).unwrap();
                    if matrix.groups > 1 && !options.depthwise {
                        needed[index].fill(true);
                        needed[inputs[0]].fill(true);
                    } else if matrix.groups > 1 {
                        let each = matrix.outputs / matrix.groups;
                        (0..channels)
                            .for_each(|c| tie(&mut needed, [index, c], [inputs[0], c / each]));
                    } else {
                        for output in (0..channels).filter(|&c| before[index][c]) {
                            for (input, _) in matrix.row(output) {
                                let folds = match analysis.values.seen(index, input) {
                                    Some(c) => c == 0.0 || analysis.sink(index).is_some(),
                                    None => false,
                                };
                                needed[inputs[0]][input] |= !folds;
                            }
                        }
                    }
                }
                Op::Flatten => {
                    let each = channels / graph.shape(inputs[0])[0];
                    (0..channels).for_each(|c| tie(&mut needed, [index, c], [inputs[0], c / each]));
                }
                Op::Concat => {
                    let mut at = 0;
                    for &input in inputs {
                        for channel in 0..graph.shape(input)[0] {
                            tie(&mut needed, [index, at], [input, channel]);
                            at += 1;
                        }
                    }
                }
                Op::PadChannels { before, .. } => {
                    let inside = graph.shape(inputs[0])[0];
                    for channel in 0..channels {
                        match channel.checked_sub(*before).filter(|&c| c < inside) {
                            Some(c) => tie(&mut needed, [index, channel], [inputs[0], c]),
                            None => needed[index][channel] = true,
                        }
                    }
                }
                _ => {
                    for &input in inputs {
                        (0..channels).for_each(|c| tie(&mut needed, [index, c], [input, c]));
                    }
                }
            }
        }
        if needed == before {
            return needed;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn a_random_network_computes_the_same(seed: u64, length in 3usize..24, depthwise: bool) {
        let rng = &mut ChaCha8Rng::seed_from_u64(seed);
        let mut net = network(rng, length);
        prune(&mut net, rng);
        let options = ShrinkOptions::new().with_depthwise(depthwise).with_tolerance(1e-5);
        let shape = [3, SIZE, SIZE];
        let small = shrink(net.clone(), &shape, &options, Net::forward).unwrap();

        // The marks are those of plain sweeps, apart from layers that keep one channel.
        let graph = net.channel_graph(&shape).unwrap();
        let analysis = Analysis::new(&graph, layers(&net, &graph).unwrap(), &options).unwrap();
        let needed = needed(&analysis, &options);
        if needed.iter().all(|node| node.contains(&true)) {
            for (node, needed) in needed.iter().enumerate() {
                for (channel, &needed) in needed.iter().enumerate() {
                    prop_assert_eq!(analysis.cause(node, channel).is_some(), needed);
                }
            }
        }

        // Nothing is left to cut, except from a depthwise convolution of one input: it has become
        // an ordinary one, whose outputs go one by one.
        if !small.model.convs.iter().any(|conv| conv.groups == 1 && conv.weight.dims()[1] == 1) {
            let graph = small.model.channel_graph(&shape).unwrap();
            let again = ShrinkPlan::new(&small.model, &graph, &options).unwrap();
            let idle = again.cuts().iter().all(|cut| cut.axes.is_empty());
            prop_assert!(idle, "{}\n{}", small.plan.report(), again.report());
        }
        // With constants dropped at borders the output may change, but everything still fits.
        for constants in [Constants::Fold, Constants::Zero] {
            let options = options.with_constants(constants);
            let less = shrink(net.clone(), &shape, &options, Net::forward).unwrap();
            prop_assert!(less.difference.max_abs_diff.is_finite());
        }
        // The plan survives JSON.
        let plan = ShrinkPlan::from_json(&small.plan.to_json()).unwrap();
        prop_assert_eq!(&plan, &small.plan);
    }
}
