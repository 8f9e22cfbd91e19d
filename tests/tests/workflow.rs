//! The whole way on every device: train, prune with ADMM, retrain under the mask, fold, pack, run.

use burn::module::Module;
use burn::optim::{GradientsParams, ModuleOptimizer, SgdConfig};
use burn::tensor::{Device, Distribution, Int, Tensor, activation::log_softmax};
use burn_admm::click_train::{ClickTrain, ClickTrainConfig, Stage};
use burn_admm::reweighted::{Reweighted, ReweightedConfig, Threshold};
use burn_admm::{Admm, AdmmConfig, Masks, Plan, SparsityReport, fold};
use burn_sparse::{
    Sparsity,
    nn::{Activation, Conv2d, Conv2dConfig, Linear, LinearConfig, Trace, weights},
    pack::{self, Choice, Format, PackConfig},
};
use tests::devices_with_shared_memory as devices;

#[derive(Module, Debug)]
struct Net {
    conv1: Conv2d,
    conv2: Conv2d,
    hidden: Linear,
    fc: Linear,
}

impl Net {
    fn new(device: &Device) -> Self {
        Self {
            conv1: Conv2dConfig::new([1, 6], [3, 3]).init(device),
            conv2: Conv2dConfig::new([6, 12], [3, 3])
                .with_stride([2, 2])
                .init(device),
            hidden: LinearConfig::new(12 * 2 * 2, 24).init(device),
            fc: LinearConfig::new(24, 2).init(device),
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<2> {
        let x = self.conv1.forward_fused(x, None, Activation::Relu);
        let x = self.conv2.forward_fused(x, None, Activation::Relu);
        let x = self
            .hidden
            .forward_fused(x.flatten::<2>(1, 3), None, Activation::Relu);
        self.fc.forward(x)
    }
}

/// Noise with a brighter left or right half: learnable in a few steps, on any backend.
fn batch(device: &Device, size: usize) -> (Tensor<4>, Tensor<1, Int>) {
    let noise = Tensor::<4>::random([size, 1, 7, 7], Distribution::Normal(0.0, 0.5), device);
    let labels: Vec<i32> = (0..size as i32).map(|i| i % 2).collect();
    let sides: Vec<f32> = (0..size * 49)
        .map(|i| f32::from((i % 7 < 3) == (i / 49 % 2 == 0)))
        .collect();
    let sides = tests::tensor(&sides, [size, 1, 7, 7], device);
    (noise + sides, Tensor::from_ints(labels.as_slice(), device))
}

fn loss(model: &Net, (x, y): &(Tensor<4>, Tensor<1, Int>)) -> Tensor<1> {
    let log = log_softmax(model.forward(x.clone()), 1);
    let size = y.dims()[0];
    log.gather(1, y.clone().reshape([size, 1])).mean().neg()
}

fn accuracy(model: &Net, (x, y): &(Tensor<4>, Tensor<1, Int>)) -> f64 {
    let size = y.dims()[0];
    let hits = model
        .forward(x.clone())
        .argmax(1)
        .reshape([size])
        .equal(y.clone());
    f64::from(hits.int().sum().into_scalar::<i32>()) / size as f64
}

#[test]
fn train_prune_pack_and_run_on_every_device() {
    for (name, plain) in devices() {
        plain.seed(7);
        let device = plain.clone().autodiff();
        let mut model = Net::new(&device);
        let plan = Plan::new(Sparsity::row_balanced(0.75).unwrap());
        let mut optim: ModuleOptimizer = SgdConfig::new().init();
        let mut train = |model: Net, admm: Option<&Admm>, steps: usize| {
            (0..steps).fold(model, |model, _| {
                let mut value = loss(&model, &batch(&device, 32));
                if let Some(admm) = admm {
                    value = value + admm.penalty(&model);
                }
                let grads = GradientsParams::from_grads(value.backward(), &model);
                optim.step(0.1, model, grads)
            })
        };
        model = train(model, None, 25);
        let config = AdmmConfig::default().with_rho(0.1);
        let mut admm = Admm::new(&model, &plan, config).unwrap();
        for _ in 0..3 {
            model = train(model, Some(&admm), 6);
            admm.update(&model).unwrap();
        }
        let resolved = plan.resolve(&model).unwrap();
        let masks = Masks::project(&model, &resolved).unwrap();
        model = masks.attach(model).unwrap();
        model = train(model, None, 10);
        let model = masks.fold(model).valid();
        let sparsity = SparsityReport::new(&model).unwrap();
        // Of conv2 and hidden three quarters are zero; the first and the last layer are dense.
        assert_eq!(sparsity.nnz, 54 + 12 * 14 + 24 * 12 + 48, "{name}");

        let test = batch(&plain, 64);
        let masked = accuracy(&model, &test);
        assert!(masked > 0.8, "{name}: {masked}");
        let trace = Trace::of(|| {
            model.forward(test.0.clone());
        });
        let config = PackConfig::default()
            .with_choice(Choice::Csr)
            .with_trace(trace)
            .with_runs(1);
        let (packed, report) = pack::pack(model.clone(), &config).unwrap();
        assert!(
            report
                .layers
                .iter()
                .all(|layer| layer.format == Format::Csr),
            "{report}"
        );
        assert_eq!(report.nnz(), sparsity.nnz);
        let mut inputs = pack::random_inputs([5, 1, 7, 7], 2, &plain);
        inputs.push(test.0.clone());
        let same = pack::verify(|x| model.forward(x), |x| packed.forward(x), &inputs);
        assert!(same.max_abs < 1e-3, "{name}: {same:?}");
        assert_eq!(accuracy(&packed, &test), masked, "{name}");
        assert!(
            weights(&packed)
                .iter()
                .all(|named| named.weight.is_packed())
        );
    }
}

/// What needs no rates, and what needs no second run.
#[test]
fn reweighted_and_clicktrain_prune_on_every_device() {
    for (name, plain) in devices() {
        plain.seed(9);
        let device = plain.clone().autodiff();
        let test = batch(&plain, 64);
        let mut optim: ModuleOptimizer = SgdConfig::new().init();

        let plan = Plan::kernel_patterns(0.7, 4).unwrap();
        let mut model = Net::new(&device);
        let mut click = ClickTrain::new(&model, &plan, ClickTrainConfig::of_run(45)).unwrap();
        let mut penalties = 0;
        for _ in 0..45 {
            let mut value = loss(&model, &batch(&device, 32));
            if let Some(penalty) = click.penalty(&model) {
                penalties += 1;
                assert!(
                    f64::from(penalty.clone().into_scalar::<f32>()) > 0.0,
                    "{name}"
                );
                value = value + penalty;
            }
            let gradients = GradientsParams::from_grads(value.backward(), &model);
            click.observe(&model, &gradients);
            model = optim.step(0.1, model, gradients);
            model = click.step(model).unwrap();
        }
        assert_eq!(click.stage(), Stage::Pruned, "{name}");
        assert!(penalties > 5, "{name}: {penalties}");
        let kept = Masks::attached(&model).nnz();
        let clicked = fold(model).valid();
        assert!(
            SparsityReport::new(&clicked).unwrap().nnz <= kept + 54 + 48,
            "{name}"
        );
        let masked = accuracy(&clicked, &test);
        assert!(masked > 0.8, "{name}: {masked}");

        let plan = Plan::new(Sparsity::column(0.5).unwrap());
        let config = ReweightedConfig::new()
            .with_lambda(1e-2)
            .with_learning_rate(0.1);
        let mut model = Net::new(&device);
        let mut reweighted = Reweighted::new(&model, &plan, config).unwrap();
        for _ in 0..4 {
            for _ in 0..10 {
                let value = loss(&model, &batch(&device, 32)) + reweighted.penalty(&model);
                let gradients = GradientsParams::from_grads(value.backward(), &model);
                model = optim.step(0.1, model, gradients);
            }
            reweighted.refresh(&model).unwrap();
        }
        let threshold = Threshold::new(0.5).unwrap().keeping_one();
        let masks = reweighted.prune(&model, threshold).unwrap();
        let pruned = masks.fold(masks.attach(model).unwrap()).valid();
        // Some columns of both layers went, and what stays was found on this device.
        for (path, weights) in [("conv2.weight", 12 * 54), ("hidden.weight", 48 * 24)] {
            let nnz = SparsityReport::new(&pruned)
                .unwrap()
                .layer(path)
                .unwrap()
                .nnz;
            assert!(
                nnz > 0 && nnz < weights,
                "{name}: {path} keeps {nnz} of {weights}"
            );
        }
    }
}
