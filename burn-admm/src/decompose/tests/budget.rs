//! Ranks of a whole network within a budget.

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use burn_sparse::nn::{Conv2d, Conv2dConfig, Linear, LinearConfig, Trace};

use super::*;

#[derive(Module, Debug)]
struct Net {
    wide: Conv2d,
    narrow: Conv2d,
    head: Linear,
}

impl Net {
    /// The first layer has ranks `[2, 2]`, the second all.
    fn new() -> Self {
        let device = Device::flex();
        let mut net = Self {
            wide: Conv2dConfig::new([8, 10], [3, 3]).init(&device),
            narrow: Conv2dConfig::new([10, 6], [3, 3]).init(&device),
            head: LinearConfig::new(6, 5).init(&device),
        };
        let low = Spectra::new(&random(shape(10, 8, [3, 3]), 5), shape(10, 8, [3, 3])).unwrap();
        let low = low.hosvd(Ranks::new(2, 2)).unwrap().reconstruct();
        let data = burn::tensor::TensorData::new(low, [10, 8, 3, 3]);
        let param = burn::module::Param::from_tensor(Tensor::<4>::from_data(data, &device));
        net.wide.weight = param.into();
        net
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<2> {
        let x = self.narrow.forward(self.wide.forward(x));
        self.head.forward(x.mean_dims(&[2, 3]).flatten::<2>(1, 3))
    }

    fn plan(&self) -> RankPlan {
        let x = Tensor::zeros([1, 8, 12, 12], &Device::flex());
        let trace = Trace::of(|| drop(self.forward(x)));
        RankPlan::new(RankChoice::new(RankRule::Energy(1.0))).with_geometry(self, &trace)
    }
}

#[test]
fn budgets_are_kept_where_it_costs_least() {
    let net = Net::new();
    let plan = net.plan();
    for ratio in [1.05, 1.5, 2.0, 4.0, 8.0] {
        for (budget, of) in [
            (RankBudget::flop_ratio(ratio), Limited::Macs),
            (RankBudget::compression(ratio), Limited::Parameters),
        ] {
            let report = plan.within(&net, budget).unwrap().explain(&net).unwrap();
            let [now, then] = match of {
                Limited::Macs => report.macs().map(|macs| macs as f64),
                Limited::Parameters => report.parameters().map(|weights| weights as f64),
            };
            assert!(now / then >= ratio, "{ratio}: {report}");
        }
    }
    // What has low ranks already gives first, and loses nothing.
    let within = plan.within(&net, RankBudget::flop_ratio(1.5)).unwrap();
    let report = within.explain(&net).unwrap();
    let wide = report.layer("wide.weight").unwrap();
    assert!(wide.relative_error < 1e-6, "{report}");
    assert!(
        report.layer("narrow.weight").unwrap().ranks.is_none(),
        "{report}"
    );
    assert!(report.layer("head.weight").unwrap().ranks.is_none());
}

#[test]
fn steps_are_multiples_or_all_channels() {
    let net = Net::new();
    let budget = RankBudget::flop_ratio(2.5).with_multiple(4);
    let report = net.plan().within(&net, budget).unwrap();
    let report = report.explain(&net).unwrap();
    for layer in report.layers.iter().filter(|layer| layer.ranks.is_some()) {
        let ranks = layer.ranks.unwrap();
        let fits = |rank: usize, all: usize| rank.is_multiple_of(4) || rank == all;
        assert!(fits(ranks.output, layer.shape[0]) && fits(ranks.input, layer.shape[1]));
    }
    assert!(report.flop_ratio() >= 2.5);
}

#[test]
fn what_cannot_be_reached_is_said_with_what_can() {
    let net = Net::new();
    let plan = net.plan();
    let error = plan
        .within(&net, RankBudget::flop_ratio(1000.0))
        .unwrap_err();
    let RankPlanError::Budget { least, asked, .. } = error else {
        panic!("{error}");
    };
    assert!(least > asked);
    // And that much can indeed be had.
    let budget = RankBudget {
        part: least * 1.000_001,
        ..RankBudget::flop_ratio(1.0)
    };
    assert!(plan.within(&net, budget).is_ok());
    let blind = RankPlan::new(RankChoice::new(RankRule::Energy(1.0)));
    let unknown = blind.within(&net, RankBudget::flop_ratio(2.0));
    assert!(matches!(unknown, Err(RankPlanError::NoGeometry)));
    assert!(blind.within(&net, RankBudget::compression(2.0)).is_ok());
}

#[test]
fn budgets_and_steps_that_are_none_are_refused() {
    let net = Net::new();
    for part in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        let budget = RankBudget {
            part,
            ..RankBudget::compression(2.0)
        };
        let error = net.plan().within(&net, budget).unwrap_err();
        assert!(matches!(error, RankPlanError::Part(_)), "{part}: {error}");
    }
    let json = r#"{"default": {"rule": "evbmf", "multiple": 0, "least": 1}}"#;
    let error = RankPlan::from_json(json)
        .unwrap()
        .explain(&net)
        .unwrap_err();
    assert!(error.to_string().contains("multiple"), "{error}");
    let json =
        r#"{"default": {"rule": {"energy": 0.5}, "multiple": 2, "least": 18446744073709551615}}"#;
    let report = RankPlan::from_json(json).unwrap().explain(&net).unwrap();
    assert!(
        report.layer("wide.weight").unwrap().ranks.is_none(),
        "{report}"
    );
}
