//! Small networks whose answer is known.

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::net::*;
use crate::shrink::*;

const SHAPE: [usize; 3] = [2, 6, 5];

/// Builds a network from its forward pass, with random parameters.
fn net(forward: impl FnOnce(&mut Maker, Flow) -> Flow) -> Net {
    let mut maker = Maker::new(&Device::flex());
    let graph = ChannelGraph::of(SHAPE, |x| forward(&mut maker, x)).unwrap();
    let mut net = maker.finish(graph);
    randomise(&mut net, &mut ChaCha8Rng::seed_from_u64(7));
    net
}

/// Shrinks, to outputs that agree to 1e-5 of the largest.
fn small(net: &Net, options: ShrinkOptions) -> Shrunk<Net> {
    let options = options.with_tolerance(1e-5);
    shrink(net.clone(), &SHAPE, &options, Net::forward).unwrap()
}

fn channels(net: &Net) -> Vec<[usize; 2]> {
    let dims = net.convs.iter().map(|conv| conv.weight.dims());
    dims.map(|[out, inputs, ..]| [inputs, out]).collect()
}

/// Biases of zero, so that emptied filters emit nothing.
fn without_bias(net: &mut Net) {
    for conv in &mut net.convs {
        if let Some(bias) = &mut conv.bias {
            let len = bias.dims()[0];
            set(bias, vec![0.0; len]);
        }
    }
}

#[test]
fn constants_move_into_biases_where_no_padding_is() {
    let mut net = net(|m, x| {
        let x = m.conv(&x, [2, 6], PADDED);
        let x = m.norm(&x, 6).activation(Activation::Sigmoid);
        m.conv(&x, [6, 4], Conv { kernel: 3, ..PLAIN })
    });
    empty_filters(&mut net, 0, &[0, 3, 4]);
    let shrunk = small(&net, ShrinkOptions::new());
    assert_eq!(channels(&shrunk.model), [[2, 3], [3, 4]]);
    assert_eq!(shrunk.model.norms[0].gamma.dims(), [3]);
    let report = shrunk.plan.report();
    let conv = report.layer("convs.0").unwrap();
    assert_eq!(conv.outputs, [6, 3]);
    assert_eq!(conv.params, [6 * 18 + 6, 3 * 18 + 3]);
    assert_eq!(conv.macs, [6 * 18 * 30, 3 * 18 * 30]);
    assert_eq!(conv.kept, []);
    assert_eq!(report.params()[1], shrunk.model.num_params() as u64 - 2 * 3);
}

#[test]
fn a_norm_takes_constants_for_a_layer_without_bias() {
    let without = Conv {
        bias: false,
        ..PLAIN
    };
    let mut net = net(|m, x| {
        let x = m.conv(&x, [2, 5], PLAIN).relu();
        let x = m.conv(&x, [5, 3], without);
        m.norm(&x, 3)
    });
    let bias = net.convs[0].bias.as_mut().unwrap();
    set(bias, vec![0.5; 5]);
    empty_filters(&mut net, 0, &[1, 2]);
    let shrunk = small(&net, ShrinkOptions::new());
    assert_eq!(channels(&shrunk.model), [[2, 3], [3, 3]]);
    assert!(shrunk.plan.cuts().iter().any(|cut| {
        cut.parameter == "norms.0.running_mean" && cut.axes.is_empty() && cut.add.len() == 3
    }));
    // The masked network still has its own statistics.
    assert_eq!(small(&net, ShrinkOptions::new()).plan, shrunk.plan);
}

#[test]
fn a_layer_without_bias_or_norm_keeps_constants() {
    let without = Conv {
        bias: false,
        ..PLAIN
    };
    let mut net = net(|m, x| {
        let x = m.conv(&x, [2, 5], PLAIN).relu();
        m.conv(&x, [5, 3], without)
    });
    set(
        net.convs[0].bias.as_mut().unwrap(),
        vec![0.5, 0.5, -0.5, 0.5, 0.5],
    );
    empty_filters(&mut net, 0, &[1, 2]);
    let shrunk = small(&net, ShrinkOptions::new());
    // Filter 2 emits relu(-0.5) = 0.
    assert_eq!(channels(&shrunk.model), [[2, 4], [4, 3]]);
    let kept = &shrunk.plan.report().layer("convs.0").unwrap().kept;
    assert_eq!(kept.len(), 1);
    assert_eq!(kept[0].channels, 1);
    let reader = "conv `convs.1`".to_owned();
    assert_eq!(kept[0].reason, Reason::NoBias { reader });
}

/// Two emptied filters, one of which emits 0.5, before a convolution with zero padding.
fn padded() -> Net {
    let mut net = net(|m, x| {
        let x = m.conv(&x, [2, 4], PADDED).relu();
        m.conv(&x, [4, 3], PADDED)
    });
    set(
        net.convs[0].bias.as_mut().unwrap(),
        vec![0.1, 0.5, -0.5, 0.1],
    );
    empty_filters(&mut net, 0, &[1, 2]);
    net
}

#[test]
fn zero_padding_keeps_constants() {
    let shrunk = small(&padded(), ShrinkOptions::new());
    assert_eq!(channels(&shrunk.model), [[2, 3], [3, 3]]);
    let kept = &shrunk.plan.report().layer("convs.0").unwrap().kept;
    let reader = "conv `convs.1`".to_owned();
    assert_eq!(kept[0].reason, Reason::Border { reader });
    let table = shrunk.plan.report().to_string();
    assert!(table.contains("under zero padding"), "{table}");
}

#[test]
fn constants_under_zero_padding_go_on_request_and_the_error_is_told() {
    let net = padded();
    let zero = small(&net, ShrinkOptions::new().with_constants(Constants::Zero));
    let fold = small(&net, ShrinkOptions::new().with_constants(Constants::Fold));
    assert_eq!(channels(&zero.model), [[2, 2], [2, 3]]);
    assert_eq!(channels(&fold.model), [[2, 2], [2, 3]]);
    // What is missing is the constant times the weights that read it, at most.
    let weight = get(&net.convs[1].weight);
    let sums = (0..3).map(|o| {
        let kernel = &weight[o * 36 + 9..o * 36 + 18];
        let partial = |range: &[usize]| range.iter().map(|&k| f64::from(kernel[k])).sum::<f64>();
        // Inside, and the three kernels rows or columns at each border.
        let all = partial(&[0, 1, 2, 3, 4, 5, 6, 7, 8]);
        let windows = [
            all,
            partial(&[3, 4, 5, 6, 7, 8]),
            partial(&[0, 1, 2, 3, 4, 5]),
            partial(&[1, 2, 4, 5, 7, 8]),
            partial(&[0, 1, 3, 4, 6, 7]),
            partial(&[4, 5, 7, 8]),
            partial(&[3, 4, 6, 7]),
            partial(&[1, 2, 4, 5]),
            partial(&[0, 1, 3, 4]),
        ];
        let largest = |shift: f64| {
            let shifted = windows.iter().map(|window| (0.5 * (window - shift)).abs());
            shifted.fold(0.0, f64::max)
        };
        (largest(0.0), largest(all))
    });
    let (mut zeroed, mut folded) = (0.0f64, 0.0f64);
    sums.for_each(|(z, f)| (zeroed, folded) = (zeroed.max(z), folded.max(f)));
    assert!((zero.difference.max_abs_diff - zeroed).abs() < 1e-5);
    assert!((fold.difference.max_abs_diff - folded).abs() < 1e-5);
}

#[test]
fn a_chain_collapses_to_a_fixed_point() {
    // Only output channel 0 of the last but one layer is read; each layer before passes one
    // channel on, so that everything else goes, from the back and from the front.
    let mut net = net(|m, x| {
        let x = m.conv(&x, [2, 6], PADDED).relu();
        let x = m.conv(&x, [6, 6], PADDED).relu();
        let x = m.conv(&x, [6, 6], PADDED).relu();
        m.conv(&x, [6, 2], PADDED)
    });
    without_bias(&mut net);
    empty_inputs(&mut net, 3, &[1, 2, 3, 4, 5]);
    empty_inputs(&mut net, 2, &[0, 1, 2, 3]);
    empty_filters(&mut net, 0, &[2, 3, 4, 5]);
    // Filter 5 of layer 1 reads only what layer 0 no longer gives.
    let mut weight = get(&net.convs[1].weight);
    weight[5 * 54..5 * 54 + 18].fill(0.0);
    set(&mut net.convs[1].weight, weight);
    let shrunk = small(&net, ShrinkOptions::new());
    assert_eq!(channels(&shrunk.model), [[2, 2], [2, 1], [1, 1], [1, 2]]);
}

/// A residual block: the stem's channels plus those of two convolutions.
fn residual() -> Net {
    let mut net = net(|m, x| {
        let x = m.conv(&x, [2, 5], PADDED);
        let x = m.norm(&x, 5).relu();
        let y = m
            .conv(
                &x,
                [5, 4],
                Conv {
                    stride: 1,
                    ..PADDED
                },
            )
            .relu();
        let y = m.conv(&y, [4, 5], PADDED);
        let sum = x.add(&y).relu();
        m.conv(
            &sum,
            [5, 3],
            Conv {
                kernel: 3,
                stride: 2,
                ..PLAIN
            },
        )
    });
    without_bias(&mut net);
    // Channels 1 and 2 of the stem are zero after the relu.
    let mut beta = get(&net.norms[0].beta);
    let mut gamma = get(&net.norms[0].gamma);
    for channel in [1, 2] {
        (beta[channel], gamma[channel]) = (-0.1, 0.0);
    }
    set(&mut net.norms[0].beta, beta);
    set(&mut net.norms[0].gamma, gamma);
    empty_filters(&mut net, 0, &[1, 2]);
    net
}

#[test]
fn a_residual_stream_loses_channels_where_all_branches_agree() {
    let mut net = residual();
    empty_filters(&mut net, 2, &[1, 2]);
    let shrunk = small(&net, ShrinkOptions::new());
    assert_eq!(channels(&shrunk.model), [[2, 3], [3, 4], [4, 3], [3, 3]]);
    assert_eq!(shrunk.model.norms[0].beta.dims(), [3]);
}

#[test]
fn a_residual_stream_keeps_channels_where_branches_disagree() {
    let mut net = residual();
    empty_filters(&mut net, 2, &[2, 3]);
    let shrunk = small(&net, ShrinkOptions::new());
    assert_eq!(channels(&shrunk.model), [[2, 4], [4, 4], [4, 4], [4, 3]]);
    let reader = "conv `convs.3`".to_owned();
    let report = shrunk.plan.report();
    for layer in ["convs.0", "convs.2"] {
        let kept = &report.layer(layer).unwrap().kept;
        let reason = Reason::Residual {
            reader: reader.clone(),
        };
        let found = kept.iter().find(|kept| !kept.inputs).unwrap();
        assert_eq!((found.channels, &found.reason), (1, &reason), "{report}");
    }
}

#[test]
fn a_stream_that_nobody_reads_goes_with_the_loop_that_feeds_it() {
    // Channel 0 of the sum is written from itself, and read by nothing else.
    let mut net = residual();
    empty_inputs(&mut net, 3, &[0]);
    let mut weight = get(&net.convs[1].weight);
    // Filter 0 of the branch reads only channel 0, and only filter 0 of the branch does.
    weight[9..45].fill(0.0);
    for filter in 1..4 {
        weight[filter * 45..filter * 45 + 9].fill(0.0);
    }
    set(&mut net.convs[1].weight, weight);
    // Only channel 0 of the sum reads filter 0 of the branch.
    let mut weight = get(&net.convs[2].weight);
    for filter in 1..5 {
        weight[filter * 36..filter * 36 + 9].fill(0.0);
    }
    set(&mut net.convs[2].weight, weight);
    empty_filters(&mut net, 2, &[1, 2]);
    let shrunk = small(&net, ShrinkOptions::new());
    assert_eq!(channels(&shrunk.model), [[2, 2], [2, 3], [3, 2], [2, 3]]);
}

#[test]
fn joined_and_flattened_channels_keep_their_order() {
    let mut net = net(|m, x| {
        let a = m.conv(&x, [2, 3], PADDED).relu();
        let b = m.conv(&x, [2, 4], PLAIN).relu();
        let x = a.concat([&b]).pool(PoolSpec {
            kernel: vec![3, 3],
            stride: vec![2, 2],
            padding: Padding::Explicit(vec![[1, 1]; 2]),
            ..PoolSpec::every(&[1, 1])
        });
        let x = m.linear(&x.flatten(), [7 * 9, 6]).relu();
        m.linear(&x, [6, 2])
    });
    empty_filters(&mut net, 0, &[1]);
    empty_filters(&mut net, 1, &[0, 3]);
    let shrunk = small(&net, ShrinkOptions::new());
    assert_eq!(channels(&shrunk.model), [[2, 2], [2, 2]]);
    assert_eq!(shrunk.model.linears[0].weight.dims(), [4 * 9, 6]);
}

#[test]
fn depthwise_convolutions_are_cut_on_request() {
    let mut net = net(|m, x| {
        let x = m.conv(&x, [2, 4], PLAIN).relu();
        let x = m.conv(
            &x,
            [4, 8],
            Conv {
                groups: 4,
                ..PADDED
            },
        );
        m.conv(&x, [8, 3], PLAIN)
    });
    without_bias(&mut net);
    empty_filters(&mut net, 0, &[1]);
    let whole = small(&net, ShrinkOptions::new());
    assert_eq!(channels(&whole.model), [[2, 4], [1, 8], [8, 3]]);
    let kept = &whole.plan.report().layer("convs.0").unwrap().kept;
    let node = "conv `convs.1`".to_owned();
    assert_eq!(kept[0].reason, Reason::Whole { node });

    let cut = small(&net, ShrinkOptions::new().with_depthwise(true));
    assert_eq!(channels(&cut.model), [[2, 3], [1, 6], [6, 3]]);
    assert_eq!(cut.model.convs[1].groups, 3);
    assert_eq!(cut.plan.groups()["convs.1"], 3);
    let report = cut.plan.report().layer("convs.1").unwrap();
    assert_eq!(report.params, [8 * 9 + 8, 6 * 9 + 6]);
    // Without a function that sets the groups it is refused, by name.
    let error = cut.plan.apply(net).unwrap_err();
    assert!(matches!(error, ShrinkError::Groups { layer, groups: 3 } if layer == "convs.1"));
}

#[test]
fn other_groups_stay_whole() {
    let mut net = net(|m, x| {
        let x = m.conv(&x, [2, 4], PLAIN).relu();
        let x = m.conv(&x, [4, 6], Conv { groups: 2, ..PLAIN });
        m.conv(&x, [6, 3], PLAIN)
    });
    empty_filters(&mut net, 0, &[1]);
    empty_filters(&mut net, 1, &[0, 5]);
    let whole = small(&net, ShrinkOptions::new().with_depthwise(true));
    assert_eq!(channels(&whole.model), [[2, 4], [2, 6], [6, 3]]);
    assert!(whole.plan.cuts().is_empty());
    assert!(
        whole
            .plan
            .report()
            .to_string()
            .contains("`convs.1` keeps all channels")
    );
}

#[test]
fn an_emptied_layer_keeps_one_channel_or_is_refused() {
    let mut net = residual();
    empty_filters(&mut net, 1, &[0, 1, 2, 3]);
    let shrunk = small(&net, ShrinkOptions::new());
    assert_eq!(shrunk.model.convs[1].weight.dims()[0], 1);
    let kept = &shrunk.plan.report().layer("convs.1").unwrap().kept;
    assert!(kept.iter().any(|kept| kept.reason == Reason::Last));

    let refuse = ShrinkOptions::new().with_emptied(Emptied::Refuse);
    let error = shrink(net, &SHAPE, &refuse, Net::forward).unwrap_err();
    assert!(matches!(error, ShrinkError::Emptied { layer } if layer == "conv `convs.1`"));
}

#[test]
fn a_network_of_zeros_keeps_one_channel_everywhere() {
    let mut net = residual();
    for conv in 0..4 {
        let filters: Vec<usize> = (0..net.convs[conv].weight.dims()[0]).collect();
        empty_filters(&mut net, conv, &filters);
    }
    let shrunk = shrink(net, &SHAPE, &ShrinkOptions::new(), Net::forward).unwrap();
    // The stem and the branch end in one sum; the output stays what it is.
    assert_eq!(channels(&shrunk.model), [[2, 1], [1, 1], [1, 1], [1, 3]]);
    assert_eq!(shrunk.difference.max_abs_diff, 0.0);
}

#[test]
fn zero_padded_shortcuts_keep_the_channels_they_add() {
    let mut net = net(|m, x| {
        let x = m.conv(&x, [2, 4], PADDED).relu();
        let y = m.conv(
            &x,
            [4, 7],
            Conv {
                stride: 2,
                ..PADDED
            },
        );
        let shortcut = x.pool(PoolSpec::every(&[2, 2])).pad_channels(1, 2);
        let sum = y.add(&shortcut).relu();
        m.conv(&sum, [7, 2], PLAIN)
    });
    without_bias(&mut net);
    // Channels 0 and 2 of the stem meet 1 and 3 of the branch; 0 of the branch meets padding.
    empty_filters(&mut net, 0, &[0, 2]);
    empty_filters(&mut net, 1, &[0, 1, 3]);
    let shrunk = small(&net, ShrinkOptions::new());
    assert_eq!(channels(&shrunk.model), [[2, 2], [2, 5], [5, 2]]);
    let kept = &shrunk.plan.report().layer("convs.1").unwrap().kept;
    let reason = Reason::Whole {
        node: "pad channels".into(),
    };
    assert!(kept.iter().any(|kept| kept.reason == reason), "{kept:?}");
}

#[test]
fn a_network_with_norms_trains_on_and_its_clones_stay() {
    let device = Device::flex().autodiff();
    let mut maker = Maker::new(&device);
    let graph = ChannelGraph::of(SHAPE, |x| {
        let x = maker.conv(&x, [2, 6], PADDED);
        let x = maker.norm(&x, 6).relu().resize([1, 1]).flatten();
        maker.linear(&x, [6, 3])
    });
    let mut net = maker.finish(graph.unwrap());
    randomise(&mut net, &mut ChaCha8Rng::seed_from_u64(3));
    empty_filters(&mut net, 0, &[1, 4]);
    let shrunk = small(&net, ShrinkOptions::new());
    let small = shrunk.model;
    assert_eq!(small.norms[0].running_var.value().dims(), [4]);
    assert_eq!(net.norms[0].running_var.value().dims(), [6]);
    assert!(small.norms[0].training.is_enabled());

    let x = Tensor::ones([2, 2, 6, 5], &device);
    let gradients = small.forward(x).sum().backward();
    let gradient = small.convs[0].weight.val().grad(&gradients).unwrap();
    assert_eq!(gradient.dims(), [4, 2, 3, 3]);
    let mean = small.norms[0].running_mean.value();
    assert!(!mean.is_require_grad());
}
