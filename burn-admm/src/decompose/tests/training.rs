//! ADMM towards ranks: what gets them, that they are reached, what is saved.

use burn::module::Module;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{Linear, LinearConfig};
use burn::optim::{GradientsParams, SgdConfig};
use burn::tensor::{Device, Distribution, Tensor};

use super::*;
use crate::testing::{get, set};
use crate::{Admm, AdmmConfig, AdmmError, PlanError, Projection};

#[derive(Module, Debug)]
struct Net {
    stem: Conv2d,
    body: Conv2d,
    pointwise: Conv2d,
    head: Linear,
}

impl Net {
    fn new(device: &Device) -> Self {
        Self {
            stem: Conv2dConfig::new([1, 6], [3, 3]).init(device),
            body: Conv2dConfig::new([6, 8], [3, 3]).init(device),
            pointwise: Conv2dConfig::new([8, 4], [1, 1]).init(device),
            head: LinearConfig::new(16, 3).init(device),
        }
    }

    fn loss(&self, x: &Tensor<4>) -> Tensor<1> {
        let x = self.stem.forward(x.clone()).tanh();
        let x = self.body.forward(x).tanh();
        let x = self.pointwise.forward(x);
        let logits = self.head.forward(x.flatten::<2>(1, 3));
        (logits - 0.3).square().mean()
    }
}

fn device() -> Device {
    Device::flex().autodiff()
}

fn input(device: &Device) -> Tensor<4> {
    Tensor::random([4, 1, 6, 6], Distribution::Uniform(-1.0, 1.0), device)
}

fn fixed(output: usize, input: usize) -> RankChoice {
    RankChoice::new(RankRule::Fixed(Ranks::new(output, input)))
}

fn train(mut model: Net, admm: &mut Admm, x: &Tensor<4>, rounds: usize) -> (Net, Vec<f64>) {
    let mut residuals = Vec::new();
    for _ in 0..rounds {
        let mut optimizer = SgdConfig::new().init();
        for _ in 0..20 {
            let loss = model.loss(x) + admm.penalty(&model);
            let gradients = GradientsParams::from_grads(loss.backward(), &model);
            model = optimizer.step(0.1, model, gradients);
        }
        residuals.push(admm.update(&model).unwrap().primal_residual);
    }
    (model, residuals)
}

#[test]
fn what_gains_gets_ranks_and_the_rest_says_why_not() {
    let model = Net::new(&device());
    let report = RankPlan::new(fixed(2, 2)).explain(&model).unwrap();
    let of = |path: &str| report.layer(path).unwrap();
    assert_eq!(of("body.weight").ranks, Some(Ranks::new(2, 2)));
    assert_eq!(of("body.weight").parameters, 6 * 2 + 2 * 2 * 9 + 2 * 8);
    assert!(of("body.weight").relative_error > 0.1);
    for (path, why) in [
        ("stem.weight", "one input channel"),
        ("pointwise.weight", "1×1"),
        ("head.weight", "no convolution"),
    ] {
        assert!(
            of(path).ranks.is_none() && of(path).reason.contains(why),
            "{path}"
        );
    }
    let text = report.to_string();
    assert!(
        text.contains("[2, 2]") && text.contains("default"),
        "{text}"
    );

    let whole = RankPlan::new(fixed(8, 6)).explain(&model).unwrap();
    let body = whole.layer("body.weight").unwrap();
    assert!(body.ranks.is_none() && body.reason.contains("no fewer weights"));
}

#[test]
fn factors_are_those_of_the_ranks_that_a_plan_resolves_to() {
    let model = Net::new(&device());
    let body: Vec<f32> = model.body.weight.val().into_data().iter().collect();
    let energy = RankChoice::new(RankRule::Energy(0.6));
    for choice in [energy, fixed(2, 3)] {
        let plan = RankPlan::new(choice);
        let resolved = plan.resolve(&model).unwrap();
        let ranks = resolved.layers()[0].ranks.unwrap();
        let factors = plan.decompose(&model, HooiConfig::default()).unwrap();
        assert_eq!(
            (factors.len(), factors[0].path.as_str()),
            (1, "body.weight")
        );
        let spectra = Spectra::new(&body, shape(8, 6, [3, 3])).unwrap();
        let expected = spectra.hooi(ranks, HooiConfig::default()).unwrap();
        assert_eq!(factors[0].factors.ranks(), ranks);
        assert_eq!(factors[0].factors.reconstruct(), expected.reconstruct());
    }
    let config = HooiConfig::default();
    let nothing = RankPlan::new(fixed(8, 6)).decompose(&model, config);
    let error = nothing.unwrap_err();
    assert!(
        matches!(error, RankPlanError::Admm(AdmmError::NothingConstrained)),
        "{error}"
    );
}

#[test]
fn rules_win_in_order_and_may_name_anything_with_two_sides() {
    let model = Net::new(&device());
    let plan = RankPlan::new(fixed(2, 2))
        .with_rule("body.*", None)
        .unwrap()
        .with_rule("pointwise.weight", fixed(2, 2))
        .unwrap()
        .with_rule("head.weight", fixed(1, 1))
        .unwrap();
    let resolved = plan.resolve(&model).unwrap();
    let paths: Vec<&str> = resolved.layers().iter().map(|l| l.path.as_str()).collect();
    assert_eq!(paths, ["pointwise.weight", "head.weight"]);
    assert_eq!(RankPlan::from_json(&plan.to_json()).unwrap(), plan);
    assert!(RankPlan::from_json("{\"default\": 3}").is_err());

    let unknown = RankPlan::none()
        .with_rule("boddy.weight", fixed(1, 1))
        .unwrap();
    let error = unknown.resolve(&model).unwrap_err();
    assert!(matches!(
        error,
        RankPlanError::Plan(PlanError::UnknownPattern { .. })
    ));
    let bias = RankPlan::none()
        .with_rule("body.bias", fixed(1, 1))
        .unwrap();
    assert!(matches!(
        bias.resolve(&model),
        Err(RankPlanError::NoMatrix { .. })
    ));
    let nothing = RankPlan::none().resolve(&model).unwrap_err();
    assert!(matches!(
        nothing,
        RankPlanError::Admm(AdmmError::NothingConstrained)
    ));
    let zero = RankPlan::new(fixed(0, 1)).resolve(&model).unwrap_err();
    assert!(zero.to_string().contains("body.weight"), "{zero}");
    let too_many = RankPlan::new(fixed(9, 6)).resolve(&model).unwrap_err();
    let says = "parameter `body.weight`: the output rank is 9";
    assert!(too_many.to_string().starts_with(says), "{too_many}");
    let broken = set(model, "body.weight", vec![f32::NAN; 8 * 6 * 9]);
    let error = RankPlan::new(fixed(2, 2)).explain(&broken).unwrap_err();
    assert!(matches!(error, RankPlanError::Layer { .. }));
}

#[test]
fn training_comes_to_the_ranks_and_decomposing_then_loses_little() {
    let device = device();
    let (model, x) = (Net::new(&device), input(&device));
    let plan = RankPlan::new(fixed(2, 2));
    let before = plan
        .explain(&model)
        .unwrap()
        .layer("body.weight")
        .unwrap()
        .relative_error;
    let mut admm = plan.admm(&model, AdmmConfig::new().with_rho(0.5)).unwrap();
    let (model, residuals) = train(model, &mut admm, &x, 30);
    let after = plan
        .explain(&model)
        .unwrap()
        .layer("body.weight")
        .unwrap()
        .relative_error;
    assert!(
        after < 0.02 && after < 0.1 * before,
        "{before} to {after}: {residuals:?}"
    );
    let factors = plan.decompose(&model, HooiConfig::default()).unwrap();
    assert_eq!(factors.len(), 1);
    assert_eq!(factors[0].path, "body.weight");
    let rebuilt = factors[0].factors.reconstruct();
    let error = squared_distance(&rebuilt, &get(&model, "body.weight"));
    assert!(error.sqrt() <= 1.001 * after * energy(&rebuilt).sqrt());
    // The feasible copy has these ranks, whatever the weights are.
    let shape = shape(8, 6, [3, 3]);
    let z = admm.sets("body.weight").unwrap().next().unwrap().z.to_vec();
    assert_eq!(
        TuckerRank::new(Ranks::new(2, 2))
            .project(&z, shape)
            .unwrap()
            .values,
        z
    );
}

#[test]
fn an_interrupted_run_ends_the_same() {
    let device = device();
    let (model, x) = (Net::new(&device), input(&device));
    let plan = RankPlan::new(fixed(3, 2));
    let config = AdmmConfig::new().with_rho(0.3);
    let mut admm = plan.admm(&model, config).unwrap();
    let (model, _) = train(model, &mut admm, &x, 3);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("admm.safetensors");
    admm.save(&file).unwrap();
    let mut again = plan.admm(&model, config).unwrap();
    again.restore(&file).unwrap();
    let (whole, _) = train(model.clone(), &mut admm, &x, 3);
    let (parts, _) = train(model.clone(), &mut again, &x, 3);
    assert_eq!(get(&whole, "body.weight"), get(&parts, "body.weight"));

    // The state of other ranks is refused, by layer.
    let mut other = RankPlan::new(fixed(2, 2)).admm(&model, config).unwrap();
    let error = other.restore(&file).unwrap_err().to_string();
    assert!(
        error.contains("ranks [3, 2]") && error.contains("ranks [2, 2]"),
        "{error}"
    );
}
