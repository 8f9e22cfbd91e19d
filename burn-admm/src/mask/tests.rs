use burn::module::Module;
use burn::nn::{Linear, LinearConfig};
use burn::optim::decay::WeightDecayConfig;
use burn::optim::momentum::MomentumConfig;
use burn::optim::{AdamConfig, AdamWConfig, GradientsParams, ModuleOptimizer, SgdConfig};
use burn::tensor::{Device, Distribution, Tensor, activation::tanh};
use burn_sparse::Sparsity;

use super::*;
use crate::plan::{Plan, ResolvedPlan};
use crate::{AdmmError, SparsityReport};

#[derive(Module, Debug)]
struct Mlp {
    a: Linear,
    b: Linear,
}

impl Mlp {
    fn new(device: &Device) -> Self {
        Self {
            a: LinearConfig::new(6, 10).init(device),
            b: LinearConfig::new(10, 3).init(device),
        }
    }

    /// With tanh: a unit that relu switches off for all inputs would not train.
    fn loss(&self, x: Tensor<2>, y: Tensor<2>) -> Tensor<1> {
        let d = self.b.forward(tanh(self.a.forward(x))) - y;
        d.clone().mul(d).mean()
    }
}

fn plan(model: &Mlp) -> ResolvedPlan {
    let plan = Plan::new(Sparsity::row_balanced(0.5).unwrap()).with_last_linear_kept(false);
    plan.resolve(model).unwrap()
}

fn data(device: &Device) -> (Tensor<2>, Tensor<2>) {
    let normal = Distribution::Normal(0.0, 1.0);
    (
        Tensor::random([16, 6], normal, device),
        Tensor::random([16, 3], normal, device),
    )
}

fn train(
    mut model: Mlp,
    optim: &mut ModuleOptimizer,
    steps: usize,
    xy: &(Tensor<2>, Tensor<2>),
) -> Mlp {
    for _ in 0..steps {
        let grads = model.loss(xy.0.clone(), xy.1.clone()).backward();
        let grads = GradientsParams::from_grads(grads, &model);
        model = optim.step(0.05, model, grads);
    }
    model
}

fn weight(linear: &Linear) -> Vec<f32> {
    linear.weight.val().into_data().try_to_vec::<f32>().unwrap()
}

#[test]
fn zeros_stay_zero_through_momentum_weight_decay_and_adam() {
    let device = Device::flex().autodiff();
    let xy = data(&device);
    type Named = (&'static str, fn() -> ModuleOptimizer);
    let optimisers: [Named; 4] = [
        ("momentum", || {
            SgdConfig::new()
                .with_momentum(Some(MomentumConfig::new().with_momentum(0.9)))
                .init()
        }),
        ("decay", || {
            SgdConfig::new()
                .with_weight_decay(Some(WeightDecayConfig::new(0.1)))
                .init()
        }),
        ("adam", || AdamConfig::new().init()),
        ("adamw", || AdamWConfig::new().with_weight_decay(0.1).init()),
    ];
    for (name, optim) in optimisers {
        let dense = Mlp::new(&device);
        // The optimiser has momentum for the dense weights: the hard case.
        let mut optim = optim();
        let dense = train(dense, &mut optim, 5, &xy);
        let plan = plan(&dense);
        let masks = Masks::project(&dense, &plan).unwrap();
        let ids = (dense.a.weight.id, dense.b.weight.id);
        let masked = masks.attach(dense).unwrap();
        assert_eq!((masked.a.weight.id, masked.b.weight.id), ids);
        let before = weight(&masked.a);
        let masked = train(masked, &mut optim, 10, &xy);
        let after = weight(&masked.a);
        let keep = &masks.layer("a.weight").unwrap().keep;
        for i in 0..keep.len() {
            if keep[i] {
                assert_ne!(
                    after[i], before[i],
                    "{name}: kept weight {i} does not train"
                );
            } else {
                assert_eq!(
                    after[i].to_bits(),
                    0,
                    "{name}: pruned weight {i} is {}",
                    after[i]
                );
            }
        }
        assert_eq!(Masks::attached(&masked), masks, "{name}");

        let report = SparsityReport::new(&masked).unwrap();
        let folded = fold(masked);
        assert_eq!((folded.a.weight.id, folded.b.weight.id), ids);
        assert!(folded.a.weight.is_require_grad());
        assert!(Masks::attached(&folded).layers().is_empty());
        let base = folded
            .a
            .weight
            .base()
            .into_data()
            .try_to_vec::<f32>()
            .unwrap();
        assert_eq!(
            base.iter().map(|w| w.to_bits()).collect::<Vec<_>>(),
            after.iter().map(|w| w.to_bits()).collect::<Vec<_>>()
        );
        assert_eq!(SparsityReport::new(&folded).unwrap(), report);
        assert_eq!((report.nnz, report.weights), (plan.nnz(), 90));
        assert!(report.to_string().contains("50.00 % zeros"), "{report}");
    }
}

#[test]
fn a_fresh_optimiser_leaves_even_the_stored_base_at_zero() {
    let device = Device::flex().autodiff();
    let xy = data(&device);
    let model = Mlp::new(&device);
    let masks = Masks::project(&model, &plan(&model)).unwrap();
    let model = masks.attach(model).unwrap();
    let model = train(model, &mut AdamConfig::new().init(), 10, &xy);
    let base = model
        .a
        .weight
        .base()
        .into_data()
        .try_to_vec::<f32>()
        .unwrap();
    for (w, keep) in base.iter().zip(&masks.layer("a.weight").unwrap().keep) {
        assert!(*keep || *w == 0.0);
    }
}

#[test]
fn a_kept_weight_that_is_zero_is_still_trained() {
    let device = Device::flex().autodiff();
    let xy = data(&device);
    let mut model = Mlp::new(&device);
    model.a.weight = model
        .a
        .weight
        .map(|w| Tensor::zeros(w.shape(), &w.device()).require_grad());
    model.a.bias = model
        .a
        .bias
        .map(|b| b.map(|b| Tensor::ones(b.shape(), &b.device()).require_grad()));
    let masks = Masks::project(&model, &plan(&model)).unwrap();
    assert_eq!(masks.layer("a.weight").unwrap().nnz(), 30);
    let model = train(
        masks.attach(model).unwrap(),
        &mut SgdConfig::new().init(),
        2,
        &xy,
    );
    assert!(weight(&model.a).iter().any(|w| *w != 0.0));
}

#[test]
fn unfreezing_does_not_train_the_mask_and_validation_keeps_it() {
    let device = Device::flex().autodiff();
    let xy = data(&device);
    let model = Mlp::new(&device);
    let masks = Masks::project(&model, &plan(&model)).unwrap();
    let model = masks.attach(model).unwrap();
    assert_eq!(model.num_params(), Mlp::new(&device).num_params());
    let model = model.freeze().unfreeze().valid().train().fork(&device);
    let model = train(model, &mut SgdConfig::new().init(), 3, &xy);
    assert_eq!(Masks::attached(&model), masks);
    assert_eq!(Masks::attached(&model.valid()), masks);
    assert_eq!(weight(&model.valid().a), weight(&model.a));
}

#[test]
fn pruned_nan_and_negative_weights_fold_to_positive_zero() {
    let device = Device::flex();
    let w = Tensor::<2>::from_data([[f32::NAN, -1.0], [f32::NEG_INFINITY, -2.0]], &device);
    let folded = Mask::new(&[false, false, false, true], &device).apply_to(w);
    let bits: Vec<u32> = folded
        .into_data()
        .try_to_vec::<f32>()
        .unwrap()
        .iter()
        .map(|w| w.to_bits())
        .collect();
    assert_eq!(bits, [0, 0, 0, (-2.0f32).to_bits()]);
}

#[test]
fn new_masks_replace_old_ones_and_prune_further() {
    let device = Device::flex().autodiff();
    let model = Mlp::new(&device);
    let first = Masks::project(&model, &plan(&model)).unwrap();
    let model = first.attach(model).unwrap();
    let tighter = Plan::new(Sparsity::row_balanced(0.8).unwrap()).with_last_linear_kept(false);
    let second = Masks::project(&model, &tighter.resolve(&model).unwrap()).unwrap();
    let model = second.attach(model).unwrap();
    assert_eq!(Masks::attached(&model), second);
    for (a, b) in first.layers().iter().zip(second.layers()) {
        assert!(
            a.keep.iter().zip(&b.keep).all(|(a, b)| *a || !*b),
            "pruned weights came back"
        );
    }
}

#[test]
fn a_masked_model_resumes_bit_equal() {
    let device = Device::flex().autodiff();
    let xy = data(&device);
    let model = Mlp::new(&device);
    let plan = plan(&model);
    let mut optim = AdamConfig::new().init();
    let model = Masks::project(&model, &plan)
        .unwrap()
        .attach(model)
        .unwrap();
    let half = train(model, &mut optim, 4, &xy);
    let record = half.clone().into_record().into_bytes().unwrap();
    let optim_record = optim.into_bytes().unwrap();
    let through = train(half, &mut optim, 4, &xy);

    let fresh = Masks::keep_all(&plan).attach(Mlp::new(&device)).unwrap();
    let resumed = fresh.load_record(burn::store::ModuleRecord::from_bytes(record).unwrap());
    let mut optim = AdamConfig::new().init().from_bytes(optim_record).unwrap();
    let resumed = train(resumed, &mut optim, 4, &xy);
    assert_eq!(Masks::attached(&resumed), Masks::attached(&through));
    for (a, b) in [(&resumed.a, &through.a), (&resumed.b, &through.b)] {
        let bits = |l: &Linear| weight(l).iter().map(|w| w.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(a), bits(b));
    }
}

#[test]
fn masks_of_another_model_are_an_error() {
    let device = Device::flex();
    let model = Mlp::new(&device);
    let plan = plan(&model);
    let masks = Masks::keep_all(&plan);
    let error = masks.attach(model.a.clone()).unwrap_err();
    assert!(
        matches!(error, AdmmError::Model { found: None, .. }),
        "{error}"
    );
    assert!(Masks::project(&model.a, &plan).is_err());
}
