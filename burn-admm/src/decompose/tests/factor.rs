//! Factors in the place of weights: the network computes what its product would.

use burn::module::Module;
use burn::nn::PaddingConfig2d;
use burn::tensor::{Device, Distribution, Tensor};
use burn_sparse::nn::{
    Conv1d, Conv1dConfig, Conv2d, Conv2dConfig, Linear, LinearConfig, Trace, multiply_factors,
    weights,
};

use super::*;

#[derive(Module, Debug)]
struct Net {
    stem: Conv2d,
    strided: Conv2d,
    grouped: Conv2d,
    pointwise: Conv2d,
    line: Conv1d,
    head: Linear,
}

impl Net {
    fn new() -> Self {
        let device = Device::flex();
        let conv = |channels, kernel| Conv2dConfig::new(channels, kernel);
        Self {
            stem: conv([3, 12], [3, 3]).init(&device),
            strided: conv([12, 16], [3, 2])
                .with_stride([2, 2])
                .with_padding(PaddingConfig2d::Explicit(1, 0, 1, 1))
                .init(&device),
            grouped: conv([16, 16], [3, 3]).with_groups(2).init(&device),
            pointwise: conv([16, 14], [1, 1]).with_stride([2, 1]).init(&device),
            line: Conv1dConfig::new(14, 10, 3).init(&device),
            head: LinearConfig::new(10, 8).init(&device),
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<2> {
        let x = self.strided.forward(self.stem.forward(x)).tanh();
        let x = self.pointwise.forward(self.grouped.forward(x)).tanh();
        let x = self.line.forward(x.flatten::<3>(2, 3));
        self.head.forward(x.mean_dim(2).squeeze_dim::<2>(2))
    }
}

fn input() -> Tensor<4> {
    let device = Device::flex();
    Tensor::random([2, 3, 14, 13], Distribution::Default, &device)
}

fn difference(a: &Net, b: &Net, x: Tensor<4>) -> f32 {
    let difference = a.forward(x.clone()) - b.forward(x);
    difference.abs().max().into_scalar()
}

fn fixed(output: usize, input: usize) -> RankChoice {
    RankChoice::new(RankRule::Fixed(Ranks::new(output, input)))
}

/// Every layer but the grouped one, named.
fn plan(net: &Net, ranks: [[usize; 2]; 5]) -> RankPlan {
    let trace = Trace::of(|| drop(net.forward(input())));
    let names = ["stem", "strided", "pointwise", "line", "head"];
    let rules = names.into_iter().zip(ranks);
    rules
        .fold(RankPlan::new(fixed(2, 2)), |plan, (name, [d2, d1])| {
            plan.with_rule(format!("{name}.weight"), fixed(d2, d1))
                .unwrap()
        })
        .with_geometry(net, &trace)
}

#[test]
fn full_ranks_change_nothing() {
    let net = Net::new();
    let full = [[12, 3], [16, 12], [14, 14], [10, 14], [8, 8]];
    let factors = plan(&net, full)
        .decompose(&net, HooiConfig::default())
        .unwrap();
    assert_eq!(factors.len(), 5);
    let chained = factor(net.clone(), &factors).unwrap();
    assert!(difference(&net, &chained, input()) < 1e-5);
    // What loses no channels is a single layer, or two.
    let names: Vec<_> = weights(&chained).into_iter().map(|n| n.layer).collect();
    let expected = [
        "stem.core",
        "strided.core",
        "grouped",
        "pointwise.core",
        "pointwise.expand",
        "line.core",
        "head.core",
        "head.expand",
    ];
    assert_eq!(names, expected);
}

#[test]
fn the_chain_is_the_decomposition_and_costs_what_the_report_says() {
    let net = Net::new();
    for ranks in [
        [[5, 2], [6, 5], [3, 7], [4, 3], [2, 5]],
        [[5, 3], [16, 5], [7, 3], [10, 3], [3, 3]],
        [[12, 1], [3, 12], [1, 1], [2, 14], [1, 1]],
    ] {
        let plan = plan(&net, ranks);
        let report = plan.explain(&net).unwrap();
        let grouped = report.layer("grouped.weight").unwrap();
        assert!(
            grouped.ranks.is_none() && grouped.reason.contains("2 groups"),
            "{report}"
        );
        let factors = plan.decompose(&net, HooiConfig::default()).unwrap();
        let small = factor(net.clone(), &factors).unwrap();

        // Its product is the reconstruction, layer by layer.
        let whole = multiply_factors(small.clone());
        for layer in &factors {
            let named = weights(&whole);
            let weight = named.iter().find(|n| n.path == layer.path).unwrap();
            let product = weight.weight.to_csr().unwrap().to_dense();
            let rebuilt = layer.factors.reconstruct();
            let error = squared_distance(&product, &rebuilt).sqrt();
            assert!(error < 1e-5, "{}: {error}", layer.path);
        }
        assert!(difference(&small, &whole, input()) < 1e-5);
        assert!(difference(&small, &net, input()) > 1e-3);

        // Weights and multiply-adds are those of the layers that run.
        let named = weights(&small);
        let stored = |n: &burn_sparse::nn::NamedWeight| n.weight.matrix().iter().product::<usize>();
        assert_eq!(
            report.parameters()[1],
            named.iter().map(stored).sum::<usize>()
        );
        let trace = Trace::of(|| drop(small.forward(input())));
        let macs = named.iter().map(|n| {
            let problem = trace.problem(n.weight.id()).unwrap();
            problem.dense_macs()
        });
        assert_eq!(report.macs()[1], macs.sum::<u64>());
        let trace = Trace::of(|| drop(net.forward(input())));
        let macs = weights(&net)
            .into_iter()
            .map(|n| trace.problem(n.weight.id()).unwrap().dense_macs());
        assert_eq!(report.macs()[0], macs.sum::<u64>());
        let [now, then] = report.macs();
        assert!((report.flop_ratio() - now as f64 / then as f64).abs() < 1e-12);
    }
}

#[test]
fn layers_of_others_are_named() {
    let device = Device::flex();
    let theirs = burn::nn::conv::Conv2dConfig::new([6, 8], [3, 3]).init(&device);
    let plan = RankPlan::new(fixed(2, 2));
    let factors = plan.decompose(&theirs, HooiConfig::default()).unwrap();
    let error = factor(theirs, &factors).unwrap_err();
    assert!(
        matches!(&error, RankPlanError::NoLayer { path } if path == "weight"),
        "{error}"
    );
    // And factors of another weight.
    let other = Conv2dConfig::new([6, 9], [3, 3]).init(&device);
    let error = factor(other, &factors).unwrap_err();
    assert!(matches!(error, RankPlanError::Factors { .. }), "{error}");
}

/// Seen running or not, named or not, by a plan or by hand.
#[test]
fn grouped_layers_keep_their_weights() {
    let device = Device::flex();
    let net = Net::new();
    let depthwise = Conv2dConfig::new([16, 32], [3, 3])
        .with_groups(16)
        .init(&device);
    let line = Conv1dConfig::new(8, 8, 3).with_groups(4).init(&device);
    let model = (net, depthwise, line);
    let cases = [
        ("0.grouped.weight", "2 groups", 2),
        ("1.weight", "depthwise, 16 groups", 16),
        ("2.weight", "4 groups", 4),
    ];
    for named in [false, true] {
        let mut plan = RankPlan::new(fixed(2, 2));
        if named {
            for (path, ..) in cases {
                plan = plan.with_rule(path, fixed(1, 1)).unwrap();
            }
        }
        let report = plan.explain(&model).unwrap();
        for (path, reason, _) in cases {
            let layer = report.layer(path).unwrap();
            assert!(layer.ranks.is_none(), "{report}");
            assert_eq!(layer.reason, reason);
        }
        let factors = plan.decompose(&model, HooiConfig::default()).unwrap();
        let paths: Vec<_> = factors.iter().map(|layer| layer.path.as_str()).collect();
        assert_eq!(
            paths,
            ["0.stem.weight", "0.strided.weight", "0.line.weight"]
        );
        let small = factor(model.clone(), &factors).unwrap();
        assert_eq!(small.0.forward(input()).dims(), [2, 8]);
    }
    let budget = RankBudget::compression(1.2);
    let plan = RankPlan::new(fixed(2, 2)).within(&model, budget).unwrap();
    let report = plan.explain(&model).unwrap();
    assert!(report.layer("0.grouped.weight").unwrap().ranks.is_none());

    for (path, _, groups) in cases {
        let named = weights(&model);
        let weight = named.iter().find(|n| n.path == path).unwrap();
        assert_eq!(weight.groups, groups);
        let dims = weight.weight.shape();
        let kernel = [1, dims[2], *dims.get(3).unwrap_or(&1)];
        let shape = shape(dims[0], dims[1], [kernel[1], kernel[2]]);
        let tucker = Spectra::new(&random(shape, 4), shape).unwrap();
        let by_hand = Decomposed {
            path: path.into(),
            factors: tucker.hosvd(Ranks::new(1, 1)).unwrap().into(),
        };
        let error = factor(model.clone(), &[by_hand]).unwrap_err();
        assert!(
            matches!(&error, RankPlanError::Groups { path: p, groups: g } if p == path && *g == groups),
            "{error}"
        );
    }
}

#[test]
fn factors_are_decomposed_once() {
    let net = Net::new();
    let plan = plan(&net, [[5, 2], [6, 5], [3, 7], [4, 3], [2, 5]]);
    let factors = plan.decompose(&net, HooiConfig::default()).unwrap();
    let small = factor(net, &factors).unwrap();
    let again = RankPlan::new(fixed(2, 2)).with_rule("strided.weight.core", fixed(2, 2));
    let report = again.unwrap().explain(&small).unwrap();
    for layer in &report.layers {
        let path = layer.path.as_str();
        let expected = path.contains(".weight.").then_some("a factor already");
        assert!(
            layer.ranks.is_none() || path == "grouped.weight",
            "{report}"
        );
        assert!(expected.is_none_or(|why| layer.reason == why), "{report}");
    }
    // By hand, there is a core to decompose, but no room for its factors.
    let core = burn_sparse::WeightShape::new(6, 5, [3, 2]);
    let tucker = Spectra::new(&random(core, 3), core).unwrap();
    let by_hand = Decomposed {
        path: "strided.weight.core".into(),
        factors: tucker.hosvd(Ranks::new(2, 2)).unwrap().into(),
    };
    let error = factor(small, &[by_hand]).unwrap_err();
    assert!(error.to_string().contains("factors of its own"), "{error}");
}

#[test]
fn what_trained_goes_on_training() {
    let device = Device::flex().autodiff();
    let conv = |trains| {
        let mut conv = Conv2dConfig::new([6, 8], [3, 3]).init(&device);
        let param = conv.weight.dense().unwrap().clone();
        conv.weight = param.set_require_grad(trains).into();
        conv
    };
    let x = Tensor::<4>::random([1, 6, 5, 5], Distribution::Default, &device);
    for trains in [true, false] {
        let model = conv(trains);
        let factors = RankPlan::new(fixed(2, 2)).decompose(&model, HooiConfig::default());
        let small = factor(model, &factors.unwrap()).unwrap();
        let loss = small.forward(x.clone()).sum();
        let gradients = loss.backward();
        for (name, weight) in small.weight.factors().unwrap().named() {
            let gradient = weight.dense().unwrap().val().grad(&gradients);
            assert_eq!(gradient.is_some(), trains, "{name}");
        }
        let whole = multiply_factors(small);
        let gradients = whole.forward(x.clone()).sum().backward();
        let gradient = whole.weight.dense().unwrap().val().grad(&gradients);
        assert_eq!(gradient.is_some(), trains);
        // Also by way of inference, where nothing requires gradients.
        if trains {
            let again = burn::module::Module::train(multiply_factors(whole.valid()));
            assert!(again.weight.dense().unwrap().val().is_require_grad());
        }
    }
}
