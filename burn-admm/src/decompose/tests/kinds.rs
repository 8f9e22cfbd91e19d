//! Networks of other factors than Tucker's.

use burn::module::Module;
use burn::nn::PaddingConfig2d;
use burn::optim::{GradientsParams, SgdConfig};
use burn::tensor::{Device, Distribution, Tensor};
use burn_sparse::nn::{
    Conv1d, Conv1dConfig, Conv2d, Conv2dConfig, FactorForm, Linear, LinearConfig, Trace,
    multiply_factors, weights,
};

use super::*;
use crate::{AdmmConfig, Projection};

#[derive(Module, Debug)]
struct Net {
    stem: Conv2d,
    strided: Conv2d,
    tall: Conv2d,
    pointwise: Conv2d,
    head: Linear,
}

impl Net {
    fn new(device: &Device) -> Self {
        let conv = |channels, kernel| Conv2dConfig::new(channels, kernel);
        Self {
            stem: conv([3, 7], [3, 3])
                .with_padding(PaddingConfig2d::Same)
                .init(device),
            strided: conv([7, 9], [5, 3])
                .with_stride([2, 3])
                .with_dilation([1, 2])
                .with_padding(PaddingConfig2d::Explicit(2, 0, 1, 3))
                .init(device),
            tall: conv([9, 6], [3, 1]).with_bias(false).init(device),
            pointwise: conv([6, 8], [1, 1]).init(device),
            head: LinearConfig::new(8, 5).init(device),
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<2> {
        let x = self.strided.forward(self.stem.forward(x)).tanh();
        let x = self.pointwise.forward(self.tall.forward(x));
        self.head.forward(x.mean_dims(&[2, 3]).flatten::<2>(1, 3))
    }
}

const NAMES: [&str; 5] = ["stem", "strided", "tall", "pointwise", "head"];

fn input(device: &Device) -> Tensor<4> {
    Tensor::random([2, 3, 15, 14], Distribution::Default, device)
}

fn difference(a: &Net, b: &Net, x: Tensor<4>) -> f32 {
    let difference = a.forward(x.clone()) - b.forward(x);
    difference.abs().max().into_scalar()
}

fn fixed(rank: usize, kind: FactorKind) -> RankChoice {
    RankChoice::new(RankRule::Fixed(Ranks::new(rank, rank))).with_kind(kind)
}

/// Every layer, named, with as many channels between.
fn plan(net: &Net, ranks: [usize; 5], kind: FactorKind) -> RankPlan {
    let x = input(&Device::flex());
    let trace = Trace::of(|| drop(net.forward(x)));
    let rules = NAMES.into_iter().zip(ranks);
    let plan = rules.fold(RankPlan::none(), |plan, (name, rank)| {
        plan.with_rule(format!("{name}.weight"), fixed(rank, kind))
            .unwrap()
    });
    plan.with_geometry(net, &trace)
}

#[test]
fn all_channels_between_change_nothing() {
    let device = Device::flex();
    let net = Net::new(&device);
    // As many as there can be, and no more.
    let too_many = plan(&net, [9, 28, 6, 6, 5], FactorKind::Spatial);
    let error = too_many.explain(&net).unwrap_err().to_string();
    assert!(
        error.contains("strided.weight") && error.contains("28"),
        "{error}"
    );
    let plan = plan(&net, [9, 27, 6, 6, 5], FactorKind::Spatial);
    let report = plan.explain(&net).unwrap();
    let most = [(9, "stem"), (27, "strided"), (6, "tall")];
    for (rank, name) in most {
        let layer = report.layer(&format!("{name}.weight")).unwrap();
        assert_eq!(layer.ranks, Some(Ranks::new(rank, rank)), "{report}");
        assert!(layer.relative_error < 1e-6);
    }
    let factors = plan.decompose(&net, HooiConfig::default()).unwrap();
    let small = factor(net.clone(), &factors).unwrap();
    assert!(difference(&net, &small, input(&device)) < 1e-5);
    let form = |conv: &Conv2d| conv.weight.factors().unwrap().form();
    let forms = [&small.stem, &small.strided, &small.tall, &small.pointwise].map(form);
    let (spatial, tucker) = (FactorForm::Spatial, FactorForm::Tucker);
    // With kernels of width or height 1 they are a truncated SVD.
    assert_eq!(forms, [spatial, spatial, tucker, tucker]);
}

#[test]
fn networks_compute_what_their_factors_multiply_to_at_the_stated_cost() {
    let device = Device::flex();
    let net = Net::new(&device);
    for (kind, ranks) in [
        (FactorKind::Spatial, [4, 5, 3, 3, 2]),
        (FactorKind::Spatial, [1, 12, 1, 1, 1]),
        (FactorKind::Cp, [6, 11, 4, 3, 2]),
        (FactorKind::Cp, [1, 2, 7, 1, 1]),
    ] {
        let plan = plan(&net, ranks, kind);
        let report = plan.explain(&net).unwrap();
        let factors = plan.decompose(&net, HooiConfig::default()).unwrap();
        assert_eq!(factors.len(), 5);
        let small = factor(net.clone(), &factors).unwrap();
        let whole = multiply_factors(small.clone());
        for (layer, rank) in factors.iter().zip(ranks) {
            let positions = layer.factors.shape().positions();
            let named = match (&layer.factors, positions) {
                (LayerFactors::Tucker(_), 1) => true,
                (LayerFactors::Spatial(_), _) => kind == FactorKind::Spatial,
                (LayerFactors::Cp(_), _) => kind == FactorKind::Cp,
                _ => false,
            };
            assert!(named, "{}", layer.path);
            assert_eq!(layer.factors.ranks(), Ranks::new(rank, rank));
            let stated = report.layer(&layer.path).unwrap().relative_error;
            let found = layer.factors.relative_error();
            assert!((stated - found).abs() < 1e-6, "{stated} {found}");
            let product = weights(&whole);
            let product = product.iter().find(|n| n.path == layer.path).unwrap();
            let product = product.weight.to_csr().unwrap().to_dense();
            let error = squared_distance(&product, &layer.factors.reconstruct()).sqrt();
            assert!(error < 1e-5, "{}: {error}", layer.path);
        }
        assert!(difference(&small, &whole, input(&device)) < 1e-5);

        let named = weights(&small);
        let stored = |n: &burn_sparse::nn::NamedWeight| n.weight.matrix().iter().product::<usize>();
        let sum: usize = named.iter().map(stored).sum();
        assert_eq!(report.parameters()[1], sum, "{report}");
        let trace = Trace::of(|| drop(small.forward(input(&device))));
        let macs = named.iter().map(|n| {
            let problem = trace.problem(n.weight.id()).unwrap();
            assert_eq!(problem.groups, n.groups, "{}", n.path);
            problem.dense_macs()
        });
        assert_eq!(report.macs()[1], macs.sum::<u64>(), "{kind}: {report}");
        if kind == FactorKind::Spatial {
            assert!(report.to_string().contains("spatial"), "{report}");
        }
    }
}

#[test]
fn a_rank_that_a_weight_has_is_found_and_loses_nothing() {
    let shape = shape(9, 7, [3, 5]);
    let planted = SpatialSvd::new(&random(shape, 3), shape, 4).unwrap();
    let weights = planted.reconstruct();
    let mut conv = Conv2dConfig::new([7, 9], [3, 5]).init(&Device::flex());
    let data = burn::tensor::TensorData::new(weights, [9, 7, 3, 5]);
    conv.weight =
        burn::module::Param::from_tensor(Tensor::<4>::from_data(data, &Device::flex())).into();
    let plan = |rule| RankPlan::new(RankChoice::new(rule).with_kind(FactorKind::Spatial));
    for rule in [RankRule::Energy(0.999_999), RankRule::Evbmf] {
        let report = plan(rule).explain(&conv).unwrap();
        assert_eq!(report.layers[0].ranks, Some(Ranks::new(4, 4)), "{report}");
        assert!(report.layers[0].relative_error < 1e-5);
    }
    for part in [0.3, 0.6, 0.9] {
        let report = plan(RankRule::Energy(part)).explain(&conv).unwrap();
        let error = report.layers[0].relative_error;
        assert!(error * error <= 1.0 - part + 1e-9, "{report}");
    }
}

#[test]
fn budgets_choose_among_channels_between_too() {
    let net = Net::new(&Device::flex());
    let x = input(&Device::flex());
    let trace = Trace::of(|| drop(net.forward(x)));
    let energy = RankChoice::new(RankRule::Energy(1.0));
    let plan = RankPlan::new(energy.with_kind(FactorKind::Spatial)).with_geometry(&net, &trace);
    for ratio in [1.2, 2.0] {
        for budget in [
            RankBudget::flop_ratio(ratio),
            RankBudget::compression(ratio),
        ] {
            let within = plan.within(&net, budget).unwrap();
            let report = within.explain(&net).unwrap();
            let [now, then] = match budget.limited {
                Limited::Macs => report.macs().map(|macs| macs as f64),
                Limited::Parameters => report.parameters().map(|weights| weights as f64),
            };
            assert!(now / then >= ratio, "{ratio}: {report}");
            let kinds = report.layers.iter().filter(|layer| layer.ranks.is_some());
            assert!(kinds.clone().count() > 0);
            assert!(kinds.into_iter().all(|l| l.kind == FactorKind::Spatial));
        }
    }
    // The clock is for Tucker's factors.
    let mut times = RankTimes::new(4);
    times
        .measure(&net, &plan, &Device::flex(), |_, _| {})
        .unwrap();
    assert!(times.layers.is_empty());
    let none = plan.within_time(&net, &times, 0.5);
    assert!(matches!(none, Err(RankPlanError::NoTimes)));
}

#[test]
fn what_a_kind_cannot_do_is_said() {
    let device = Device::flex();
    let net = Net::new(&device);
    let energy = RankChoice::new(RankRule::Energy(0.9)).with_kind(FactorKind::Cp);
    let error = RankPlan::new(energy).explain(&net).unwrap_err();
    assert!(error.to_string().contains("fixed ranks"), "{error}");
    let cp = RankPlan::new(fixed(2, FactorKind::Cp));
    let error = cp.within(&net, RankBudget::compression(2.0)).unwrap_err();
    assert!(error.to_string().contains("fixed ranks"), "{error}");
    let error = cp.admm(&net, AdmmConfig::new()).unwrap_err();
    assert!(error.to_string().contains("nearest weight"), "{error}");
    for kind in [FactorKind::Spatial, FactorKind::Cp] {
        let error = RankPlan::new(fixed(0, kind)).explain(&net).unwrap_err();
        assert!(error.to_string().contains("the rank is 0"), "{error}");
    }
    // Lines have no columns; grouped layers have no factors of any kind.
    let line: Conv1d = Conv1dConfig::new(6, 8, 3).init(&device);
    let grouped = Conv2dConfig::new([6, 8], [3, 3])
        .with_groups(2)
        .init(&device);
    let both = (line, grouped);
    let report = RankPlan::new(fixed(2, FactorKind::Spatial))
        .explain(&both)
        .unwrap();
    assert!(report.layers[0].reason.contains("2-D"), "{report}");
    assert_eq!(report.layers[1].reason, "2 groups");
    // But a depthwise core.
    let plan = RankPlan::new(fixed(3, FactorKind::Cp));
    let factors = plan.decompose(&both, HooiConfig::default()).unwrap();
    let small = factor(both, &factors).unwrap();
    let x = Tensor::<3>::random([2, 6, 9], Distribution::Default, &device);
    let whole = multiply_factors(small.clone());
    let difference = small.0.forward(x.clone()) - whole.0.forward(x);
    assert!(difference.abs().max().into_scalar::<f32>() < 1e-5);
}

#[test]
fn kinds_are_written_and_read() {
    let choice = fixed(3, FactorKind::Spatial);
    let text = serde_json::to_string(&choice).unwrap();
    assert_eq!(serde_json::from_str::<RankChoice>(&text).unwrap(), choice);
    // Plans from before there were kinds.
    let old = r#"{"rule": "evbmf", "multiple": 1, "least": 1}"#;
    let old: RankChoice = serde_json::from_str(old).unwrap();
    assert_eq!(old.kind(), FactorKind::Tucker);
    assert_eq!("cp".parse(), Ok(FactorKind::Cp));
    assert!("svd".parse::<FactorKind>().unwrap_err().contains("spatial"));
}

#[test]
fn projecting_keeps_what_fits_and_comes_as_near_as_loops() {
    for (seed, shape) in SHAPES.into_iter().enumerate() {
        let weights = random(shape, 70 + seed as u64);
        let most = (shape.channels * shape.kernel[0]).min(shape.rows * shape.kernel[1]);
        for rank in [1, most.div_ceil(2), most] {
            let projection = SpatialRank::new(rank);
            let near = projection.project(&weights, shape).unwrap();
            let again = projection.project(&near.values, shape).unwrap();
            assert_eq!(again.values, near.values, "{shape} by {rank}");
            let naive = projection.project_naive(&weights, shape).unwrap();
            let [a, b] = [&near.values, &naive.values].map(|v| squared_distance(v, &weights));
            assert!(
                (a - b).abs() <= 1e-6 * energy(&weights),
                "{shape} by {rank}: {a} {b}"
            );
        }
        assert!(SpatialRank::new(most + 1).project(&weights, shape).is_err());
    }
}

#[test]
fn training_comes_to_the_channels_between() {
    let device = Device::flex().autodiff();
    let mut model = Net::new(&device);
    let x = input(&device);
    let plan = RankPlan::none()
        .with_rule("strided.weight", fixed(4, FactorKind::Spatial))
        .unwrap();
    let error = |model: &Net| {
        let report = plan.explain(model).unwrap();
        report.layer("strided.weight").unwrap().relative_error
    };
    let before = error(&model);
    let config = AdmmConfig::new().with_rho(0.5);
    let mut admm = plan.admm(&model, config).unwrap();
    for _ in 0..20 {
        let mut optimizer = SgdConfig::new().init();
        for _ in 0..10 {
            let loss = (model.forward(x.clone()) - 0.3).square().mean();
            let loss = loss + admm.penalty(&model);
            let gradients = GradientsParams::from_grads(loss.backward(), &model);
            model = optimizer.step(0.1, model, gradients);
        }
        admm.update(&model).unwrap();
    }
    let after = error(&model);
    assert!(after < 0.1 * before && after < 0.05, "{before} to {after}");

    // The state of other factors is refused, by layer.
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("admm.safetensors");
    admm.save(&file).unwrap();
    plan.admm(&model, config).unwrap().restore(&file).unwrap();
    let other = RankPlan::none()
        .with_rule("strided.weight", fixed(4, FactorKind::Tucker))
        .unwrap();
    let refused = other.admm(&model, config).unwrap().restore(&file);
    let refused = refused.unwrap_err().to_string();
    assert!(refused.contains("spatial ranks [4, 4]"), "{refused}");
}

#[test]
fn factors_of_every_kind_are_fine_tuned() {
    let device = Device::flex().autodiff();
    let x = input(&device);
    for (kind, ranks) in [
        (FactorKind::Spatial, [4, 5, 3, 3, 2]),
        (FactorKind::Cp, [6, 11, 4, 3, 2]),
    ] {
        let net = Net::new(&device);
        let target = net.forward(x.clone()).detach();
        let factors = plan(&net, ranks, kind)
            .decompose(&net, HooiConfig::default())
            .unwrap();
        let mut small = factor(net, &factors).unwrap();
        let loss = |net: &Net| (net.forward(x.clone()) - target.clone()).square().mean();
        let before: f32 = loss(&small).into_scalar();
        let mut optimizer = SgdConfig::new().init();
        for _ in 0..40 {
            let gradients = GradientsParams::from_grads(loss(&small).backward(), &small);
            small = optimizer.step(0.05, small, gradients);
        }
        let after: f32 = loss(&small).into_scalar();
        assert!(after < 0.7 * before, "{kind}: {before} to {after}");
        assert!(weights(&small).iter().filter(|n| n.factor).count() >= 10);
    }
}
