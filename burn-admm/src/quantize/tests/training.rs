//! Training under levels: what stays, what moves, what is saved.

use burn::module::{Module, Param};
use burn::nn::{Linear, LinearConfig};
use burn::optim::{AdamConfig, GradientsParams, SgdConfig};
use burn::tensor::{Device, Distribution, Tensor, TensorData};
use burn_sparse::{Budget, Sparsity};

use super::super::{QuantPlan, Quantization, QuantizeError, Scope};
use crate::testing::{get, set};
use crate::{Admm, AdmmConfig, AdmmError, Masks, Plan, fold};

#[derive(Module, Debug)]
struct Net {
    hidden: Linear,
    head: Linear,
}

impl Net {
    fn new(device: &Device) -> Self {
        Self {
            hidden: LinearConfig::new(6, 8).init(device),
            head: LinearConfig::new(8, 3).init(device),
        }
    }

    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        self.head.forward(self.hidden.forward(x).tanh())
    }

    fn loss(&self, x: &Tensor<2>) -> Tensor<1> {
        let target = x.clone().slice([0..x.dims()[0], 0..3]);
        (self.forward(x.clone()) - target).square().mean()
    }
}

fn device() -> Device {
    Device::flex().autodiff()
}

fn pruned(device: &Device) -> Net {
    let model = Net::new(device);
    let plan = Plan::new(Sparsity::unstructured(0.5).unwrap()).with_last_linear_kept(false);
    let plan = plan.resolve(&model).unwrap();
    Masks::project(&model, &plan)
        .unwrap()
        .attach(model)
        .unwrap()
}

fn input(device: &Device) -> Tensor<2> {
    Tensor::random([16, 6], Distribution::Uniform(-1.0, 1.0), device)
}

fn all() -> Vec<Quantization> {
    [
        "uniform2",
        "uniform3/channel",
        "powers3",
        "codebook2",
        "codebook1/channel",
        "fixed4",
        "symmetric4/channel",
        "asymmetric3",
    ]
    .map(|name| name.parse().unwrap())
    .to_vec()
}

#[test]
fn after_every_step_zeros_are_zeros_and_weights_are_on_levels() {
    let device = device();
    let x = input(&device);
    for quantization in all() {
        let model = pruned(&device);
        let masks = Masks::attached(&model);
        let mut model = QuantPlan::new(quantization).attach(model).unwrap();
        assert_eq!(Masks::attached(&model), masks, "{quantization}");
        let mut optimizer = AdamConfig::new().init();
        let before = model.loss(&x).into_scalar::<f32>();
        for _ in 0..30 {
            let gradients = GradientsParams::from_grads(model.loss(&x).backward(), &model);
            model = optimizer.step(1e-2, model, gradients);
            for mask in masks.layers() {
                let stored = get(&model, &mask.path);
                let zeros = stored.iter().zip(&mask.keep).filter(|(_, keep)| !**keep);
                assert!(
                    zeros.clone().all(|(w, _)| w.to_bits() == 0),
                    "{quantization}"
                );
                // A linear weight is stored with its output channels last.
                let rows = if mask.path == "head.weight" { 3 } else { 8 };
                let per_row = quantization.scope() == Scope::Channel;
                for row in 0..rows {
                    let of_row = stored
                        .iter()
                        .zip(&mask.keep)
                        .enumerate()
                        .filter(|(i, (_, keep))| **keep && (!per_row || i % rows == row));
                    let mut levels: Vec<u32> = of_row.map(|(_, (w, _))| w.to_bits()).collect();
                    levels.sort_unstable();
                    levels.dedup();
                    assert!(
                        levels.len() <= 1 << quantization.bits(),
                        "{quantization}: {levels:?}"
                    );
                }
            }
        }
        let after = model.loss(&x).into_scalar::<f32>();
        assert!(after < before, "{quantization}: {before} to {after}");
        let again = QuantPlan::new(quantization).resolve(&model).unwrap();
        assert_eq!(again.nnz(), masks.nnz(), "{quantization}");
        let folded = fold(model.clone());
        let difference = (folded.forward(x.clone()) - model.forward(x.clone()))
            .abs()
            .max();
        assert_eq!(difference.into_scalar::<f32>(), 0.0);
    }
}

#[test]
fn gradients_go_straight_through_and_the_interval_learns() {
    let device = device();
    let model: Linear = LinearConfig::new(1, 4).with_bias(false).init(&device);
    // Steps of -3 (clamped to -2), -0.6, 0.3 and 1.2 of an interval of 0.5.
    let model = set(model, "weight", vec![-1.0, -0.5, 0.5, 1.0]);
    let plan = QuantPlan::new(Quantization::uniform(2).unwrap());
    let attached = plan.attach(model).unwrap();
    let attached = set_base(attached, [-1.5, -0.3, 0.15, 0.6]);
    let x = Tensor::<2>::ones([1, 1], &device);
    let y = attached.forward(x);
    let levels: Vec<f32> = y.clone().into_data().try_into_vec().unwrap();
    assert_eq!(levels, [-1.0, -0.5, 0.5, 0.5]);
    let mut gradients = GradientsParams::from_grads(y.sum().backward(), &attached);
    let of_weight = gradients.remove::<2>(attached.weight.id).unwrap();
    let of_weight: Vec<f32> = of_weight.into_data().try_into_vec().unwrap();
    assert_eq!(of_weight, [0.0, 1.0, 1.0, 1.0]);
    let mut scale = None;
    struct Find<'a>(&'a mut Option<Vec<f32>>, GradientsParams);
    impl burn::module::ModuleVisitor for Find<'_> {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if let Some(gradient) = self.1.remove::<D>(param.id) {
                *self.0 = Some(gradient.into_data().try_into_vec().unwrap());
            }
        }
    }
    attached.visit(&mut Find(&mut scale, gradients));
    // q times n - w/q, and the end of the range where it is clamped; times 1/sqrt(4 weights * 2).
    let sum = -2.0 + (-1.0 + 0.6) + (1.0 - 0.3) + (1.0 - 1.2);
    let expected = 0.5 * sum / 8.0f32.sqrt();
    let scale = scale.expect("the interval has a gradient")[0];
    assert!((scale - expected).abs() < 1e-6, "{scale} and {expected}");
}

/// One step of gradient descent on the codebook is the weights' own, projected onto those that share numbers.
#[test]
fn numbers_of_a_codebook_move_as_the_mean_of_their_weights() {
    let device = device();
    let model: Linear = LinearConfig::new(1, 6).with_bias(false).init(&device);
    let model = set(model, "weight", vec![-1.0, 0.5, 0.01, -1.1, 0.6, 0.7]);
    let plan = Plan::new(Sparsity::Unstructured(Budget::Nnz(5))).with_last_linear_kept(false);
    let plan = plan.resolve(&model).unwrap();
    let masks = Masks::project(&model, &plan).unwrap();
    let plan = QuantPlan::new(Quantization::codebook(1).unwrap());
    let attached = plan.attach(masks.attach(model).unwrap()).unwrap();
    let before = get(&attached, "weight");
    assert_eq!(before[2].to_bits(), 0);
    // The gradients of the weights are 1 to 6.
    let slopes = Tensor::<2>::from_data([[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]], &device);
    let loss = (attached.forward(Tensor::ones([1, 1], &device)) * slopes).sum();
    let gradients = GradientsParams::from_grads(loss.backward(), &attached);
    let mut optimizer = SgdConfig::new().init();
    let stepped = get(&optimizer.step(0.01, attached, gradients), "weight");
    let means = [2.5, 13.0 / 3.0, 0.0, 2.5, 13.0 / 3.0, 13.0 / 3.0];
    for ((before, after), mean) in before.iter().zip(&stepped).zip(means) {
        assert!(
            (before - after - 0.01 * mean).abs() < 1e-6,
            "{before} to {after}"
        );
    }
}

/// An interval far below the learning rate, which an optimiser that trained it as a number would take
/// through zero.
#[test]
fn intervals_smaller_than_a_step_do_not_collapse() {
    let device = device();
    let x = input(&device);
    for name in ["symmetric8", "uniform8/channel", "asymmetric8"] {
        let model = pruned(&device);
        let largest = |model: &Net| {
            let weights = get(model, "hidden.weight").into_iter();
            weights.fold(0.0f32, |most, w| most.max(w.abs()))
        };
        let before = largest(&model);
        let mut model = QuantPlan::new(name.parse().unwrap()).attach(model).unwrap();
        let mut optimizer = AdamConfig::new().init();
        for _ in 0..50 {
            let gradients = GradientsParams::from_grads(model.loss(&x).backward(), &model);
            model = optimizer.step(1e-2, model, gradients);
        }
        let after = largest(&model);
        assert!(
            after > 0.4 * before && after < 3.0 * before,
            "{name}: {before} to {after}"
        );
    }
}

/// A kept weight of zero is no reason to invent large ones.
#[test]
fn layers_of_nothing_but_zeros_stay_about_zero() {
    let device = device();
    for name in [
        "uniform3",
        "uniform3/channel",
        "powers3",
        "codebook2",
        "symmetric4",
        "asymmetric4",
    ] {
        let model = set(pruned(&device), "hidden.weight", vec![0.0; 48]);
        let model = fold(QuantPlan::new(name.parse().unwrap()).attach(model).unwrap());
        let largest = get(&model, "hidden.weight")
            .iter()
            .fold(0.0f32, |m, w| m.max(w.abs()));
        assert!(largest < 1e-20, "{name}: {largest}");
    }
}

/// Other weights under the same levels.
fn set_base(model: Linear, values: [f32; 4]) -> Linear {
    struct Base([f32; 4], bool);
    impl burn::module::ModuleMapper for Base {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            // The parameter comes before what is attached to it.
            if core::mem::replace(&mut self.1, false) {
                let data = TensorData::new(self.0.to_vec(), param.dims().to_vec());
                return param.map(|t| Tensor::from_data(data, &t.device()).require_grad());
            }
            param
        }
    }
    model.map(&mut Base(values, true))
}

#[test]
fn records_load_into_a_fresh_model_with_the_same_plan() {
    let device = device();
    for quantization in all() {
        let plan = QuantPlan::new(quantization);
        let model = plan.attach(pruned(&device)).unwrap();
        let fresh = plan.attach(pruned(&device)).unwrap();
        let loaded = fresh.load_record(model.clone().into_record());
        let x = input(&device);
        let difference = (loaded.forward(x.clone()) - model.forward(x)).abs().max();
        assert_eq!(difference.into_scalar::<f32>(), 0.0, "{quantization}");
    }
}

#[test]
fn admm_draws_weights_to_levels_and_never_revives_pruned_ones() {
    let device = device();
    let x = input(&device);
    for quantization in all() {
        let mut model = pruned(&device);
        let masks = Masks::attached(&model);
        let plan = QuantPlan::new(quantization);
        let config = AdmmConfig::new().with_rho(10.0);
        let mut admm = plan.admm(&model, config).unwrap();
        let mut last = f64::INFINITY;
        for _ in 0..6 {
            let mut optimizer = SgdConfig::new().init();
            for _ in 0..20 {
                let loss = model.loss(&x) + admm.penalty(&model);
                let gradients = GradientsParams::from_grads(loss.backward(), &model);
                model = optimizer.step(0.05, model, gradients);
            }
            last = admm.update(&model).unwrap().primal_residual;
            for mask in masks.layers() {
                let z = admm.z(&mask.path).unwrap();
                assert!(z.iter().zip(&mask.keep).all(|(z, keep)| *keep || *z == 0.0));
            }
        }
        assert!(last < 0.1, "{quantization}: {last}");

        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admm");
        admm.save(&path).unwrap();
        let mut again = plan.admm(&model, config).unwrap();
        again.restore(&path).unwrap();
        assert_eq!(again.iteration(), 6);
        for mask in masks.layers() {
            assert_eq!(again.z(&mask.path), admm.z(&mask.path));
            assert_eq!(again.u(&mask.path), admm.u(&mask.path));
        }
        let other = QuantPlan::new(Quantization::uniform(7).unwrap());
        let mut other = other.admm(&model, config).unwrap();
        let error = other.restore(&path).unwrap_err().to_string();
        assert!(error.contains("asks for uniform7"), "{error}");
        let sparse = Plan::new(Sparsity::unstructured(0.5).unwrap()).with_last_linear_kept(false);
        assert!(Admm::resume(&model, &sparse, config, &path).is_err());
    }
}

#[test]
fn plans_name_what_does_not_fit() {
    let device = device();
    let model = Net::new(&device);
    let three = Quantization::uniform(3).unwrap();
    let plan = QuantPlan::new(three);
    assert_eq!(plan.resolve(&model).unwrap().layers().len(), 2);
    let biases = plan.clone().with_rule("*.bias", three).unwrap();
    assert_eq!(biases.resolve(&model).unwrap().layers().len(), 2);
    let named = plan.clone().with_rule("head.bias", three).unwrap();
    assert_eq!(named.resolve(&model).unwrap().layers().len(), 3);
    let unknown = plan.clone().with_rule("tail.weight", three).unwrap();
    let error = unknown.resolve(&model).unwrap_err().to_string();
    assert!(error.contains("`head.weight`"), "{error}");
    let none = plan.clone().with_rule("**", None).unwrap().resolve(&model);
    assert!(matches!(
        none,
        Err(QuantizeError::Admm(AdmmError::NothingConstrained))
    ));
    let large = QuantPlan::new(Quantization::codebook(6).unwrap()).resolve(&model);
    let error = large.unwrap_err().to_string();
    assert!(error.contains("64 entries for 48 values"), "{error}");
    let nan = set(model, "head.weight", vec![f32::NAN; 24]);
    let error = plan.attach(nan).unwrap_err().to_string();
    assert!(
        error.contains("head.weight") && error.contains("NaN"),
        "{error}"
    );
}
