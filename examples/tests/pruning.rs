//! The whole pipeline on small networks and drawn images: interrupted and resumed, deployed.
#![cfg(feature = "flex")]

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use burn::module::Module;
use burn::tensor::Device;
use burn_admm::evolve::EvolveConfig;
use burn_admm::{AdmmConfig, Plan, SparsityReport, fold};
use burn_sparse::Sparsity;
use examples::data::{ImageDataset, LoadOptions, Source, load};
use examples::report::Report;
use examples::training::{
    Context, DENSE_FILE, EvolveRecipe, Method, Optimizer, PACKED_FILE, Pattern, Recipe,
    ReweightedRecipe, Scheme, TrainingError, deploy, lenet_plan, prune, summarise, train_dense,
};
use models::weights::{save, to_bytes};
use models::{Cifar6Config, Classifier, LeNet5Config, ResNetConfig};

/// Initial weights come from the device's generator, which all threads share: one test at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn images(size: usize, grey: bool) -> ImageDataset {
    let options = LoadOptions {
        limit: Some(60),
        test_limit: Some(20),
        size: Some(size),
        grey,
        ..LoadOptions::default()
    };
    load(Source::Shapes, &options).unwrap()
}

fn recipe(optimizer: Optimizer) -> Recipe {
    Recipe {
        optimizer,
        batch: 16,
        lr: 0.01,
        compress_lr: 0.005,
        retrain_lr: 0.005,
        warmup_epochs: 0.5,
        epochs: 2,
        admm_iterations: 2,
        admm_epochs: 1,
        retrain_epochs: 2,
        admm: AdmmConfig::new().with_rho(0.05),
        evolve: EvolveRecipe {
            trials: 2,
            rate: 1.0,
            config: EvolveConfig::new().with_tolerance(0.1).with_step(0.5),
        },
        reweighted: ReweightedRecipe::default(),
        seed: 3,
    }
}

/// What must not depend on interruptions: all weights, and all numbers but times.
#[derive(Debug, PartialEq)]
struct Outcome {
    weights: u64,
    report: Report,
}

struct Task<'a, B, P> {
    data: &'a ImageDataset,
    recipe: Recipe,
    build: B,
    plan: P,
    method: Method,
}

impl<M, B, P> Task<'_, B, P>
where
    M: Classifier,
    B: Fn(&Device) -> M + Copy,
    P: Fn(&M) -> Plan,
{
    fn run(
        &self,
        folder: &Path,
        resume: bool,
        stop_after: Option<usize>,
    ) -> Result<Outcome, TrainingError> {
        let epochs = self.recipe.epochs + self.recipe.pruning_epochs();
        let context = Context::new(self.data, &self.recipe, &Device::flex(), epochs)?
            .with_resume(resume)
            .with_stop_after(stop_after)
            .quiet();
        let dense = train_dense(&context, self.build, &folder.join("dense"))?;
        let plan = (self.plan)(&dense.model);
        let model = dense.model.clone();
        let target = folder.join("pruned");
        let pruned = prune(&context, self.build, model, &plan, self.method, &target)?;
        let report = summarise(&context, "small", "flex", &dense, &pruned)?;
        let mut hasher = DefaultHasher::new();
        to_bytes(&fold(pruned.model.valid()))?.hash(&mut hasher);
        let weights = hasher.finish();
        Ok(Outcome { weights, report })
    }

    /// Stops after every single epoch.
    fn in_pieces(&self, folder: &Path) -> (Outcome, usize) {
        let mut pieces = 1;
        loop {
            match self.run(folder, true, Some(1)) {
                Ok(outcome) => return (outcome, pieces),
                Err(TrainingError::Stopped { .. }) => pieces += 1,
                Err(error) => panic!("{error}"),
            }
        }
    }

    fn check(&self) {
        let folder = tempfile::tempdir().unwrap();
        let whole = self.run(&folder.path().join("a"), false, None).unwrap();
        let (pieces, count) = self.in_pieces(&folder.path().join("b"));
        assert_eq!(
            count,
            self.recipe.epochs + self.recipe.epochs_of(self.method)
        );
        assert_eq!(pieces, whole, "{}", self.method);
        let again = self.run(&folder.path().join("a"), true, Some(0)).unwrap();
        assert_eq!(again, whole, "{}: a finished run", self.method);
    }
}

#[test]
fn lenet_stopped_after_any_epoch_ends_the_same() {
    let _alone = alone();
    let data = images(16, true);
    for method in Method::ALL {
        let config = LeNet5Config::new(10).with_input([1, 16, 16]);
        Task {
            data: &data,
            recipe: recipe(Optimizer::Adam { weight_decay: 5e-5 }),
            build: |device: &Device| config.init(device),
            plan: |model: &_| lenet_plan(model, 0.9, Pattern::Unstructured).unwrap(),
            method,
        }
        .check();
    }
}

#[test]
fn a_residual_network_stopped_after_any_epoch_ends_the_same() {
    let _alone = alone();
    let data = images(16, false);
    let mut config = ResNetConfig::cifar(1, 10).with_width(8);
    config.blocks = vec![1, 1];
    let sgd = Optimizer::Sgd {
        momentum: 0.9,
        weight_decay: 1e-3,
    };
    for method in [Method::Admm, Method::Gradual] {
        Task {
            data: &data,
            recipe: recipe(sgd),
            build: |device: &Device| config.init(device),
            plan: |_: &_| Plan::new(Sparsity::row_balanced(0.75).unwrap()),
            method,
        }
        .check();
    }
}

#[test]
fn evolutions_stopped_after_any_epoch_end_the_same() {
    let _alone = alone();
    let data = images(16, false);
    let config = Cifar6Config::new(10)
        .with_input([3, 16, 16])
        .with_width(4)
        .with_hidden(12);
    for scheme in ["unstructured", "row-balanced"] {
        let scheme: Scheme = scheme.parse().unwrap();
        Task {
            data: &data,
            recipe: recipe(Optimizer::Adam { weight_decay: 0.0 }),
            build: |device: &Device| config.init(device),
            plan: |model: &_| scheme.plan(model, 0.9).unwrap(),
            method: Method::Evolve,
        }
        .check();
    }
}

#[test]
fn structured_methods_stopped_after_any_epoch_end_the_same() {
    let _alone = alone();
    let data = images(16, false);
    let mut config = ResNetConfig::cifar(1, 10).with_width(8);
    config.blocks = vec![1, 1];
    for (method, scheme) in [
        (Method::Reweighted, "bcr4x16"),
        (Method::Clicktrain, "kernels4"),
    ] {
        let scheme: Scheme = scheme.parse().unwrap();
        Task {
            data: &data,
            recipe: recipe(Optimizer::Adam { weight_decay: 0.0 }),
            build: |device: &Device| config.init(device),
            plan: |model: &_| scheme.plan(model, 0.75).unwrap(),
            method,
        }
        .check();
    }
}

#[test]
fn a_deployed_network_is_the_masked_one() {
    let _alone = alone();
    let data = images(16, false);
    let mut config = ResNetConfig::cifar(1, 10).with_width(16);
    config.blocks = vec![1, 1];
    let build = |device: &Device| config.init(device);
    let recipe = Recipe {
        epochs: 1,
        admm_iterations: 1,
        retrain_epochs: 1,
        ..recipe(Optimizer::Adam { weight_decay: 0.0 })
    };
    let folder = tempfile::tempdir().unwrap();
    let context = Context::new(&data, &recipe, &Device::flex(), 3)
        .unwrap()
        .quiet();
    let dense = train_dense(&context, build, &folder.path().join("dense")).unwrap();
    let plan = Plan::new(Sparsity::row_balanced(0.9).unwrap());
    let target = folder.path().join("oneshot");
    let model = dense.model.clone();
    let pruned = prune(&context, build, model, &plan, Method::Oneshot, &target).unwrap();
    let deployed = deploy(&context, build, &pruned, &target).unwrap();
    assert!(deployed.max_abs_diff < 1e-3, "{}", deployed.max_abs_diff);
    assert_eq!(deployed.accuracy, pruned.results.accuracy_masked);
    assert!(target.join(DENSE_FILE).is_file() && target.join(PACKED_FILE).is_file());

    let mut report = summarise(&context, "small", "flex", &dense, &pruned).unwrap();
    deployed.add_to(&mut report);
    report.save(&target.join("report.json")).unwrap();
    assert_eq!(report.nnz, deployed.packing.nnz());
    assert_eq!(report.latency_ms.by_batch.len(), 2);
    assert!(report.layers.iter().any(|layer| layer.sparsity > 0.85));
    let zeros = SparsityReport::new(&fold(pruned.model.valid())).unwrap();
    assert_eq!((report.nnz, report.weights), (zeros.nnz, zeros.weights));
}

#[test]
fn a_learning_rate_out_of_reason_is_an_error_that_says_so() {
    let _alone = alone();
    let data = images(16, true);
    let config = LeNet5Config::new(10).with_input([1, 16, 16]);
    let build = |device: &Device| config.init(device);
    let sgd = Optimizer::Sgd {
        momentum: 0.9,
        weight_decay: 0.0,
    };
    let recipe = Recipe {
        lr: 1e20,
        warmup_epochs: 0.0,
        ..recipe(sgd)
    };
    let folder = tempfile::tempdir().unwrap();
    let context = Context::new(&data, &recipe, &Device::flex(), 2)
        .unwrap()
        .quiet();
    let error = train_dense(&context, build, folder.path()).unwrap_err();
    assert!(matches!(error, TrainingError::Diverged { .. }), "{error}");
    assert!(error.to_string().contains("--lr"), "{error}");
}

#[test]
fn trained_weights_are_taken_as_they_are_or_trained_on() {
    let _alone = alone();
    let data = images(16, true);
    let config = LeNet5Config::new(10).with_input([1, 16, 16]);
    let build = |device: &Device| config.init(device);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("mine.safetensors");
    let device = Device::flex();
    device.seed(99);
    let mine = build(&device);
    save(&mine, &file).unwrap();

    let recipe = Recipe {
        epochs: 0,
        ..recipe(Optimizer::Adam { weight_decay: 0.0 })
    };
    let train = |recipe: &Recipe, resume, file: &Path, to: &str| {
        let context = Context::new(&data, recipe, &device, recipe.epochs)?
            .with_resume(resume)
            .with_weights(Some(file.into()))
            .quiet();
        train_dense(&context, build, &folder.path().join(to))
    };
    let bytes = |model: &_| to_bytes(model).unwrap();
    let as_they_are = train(&recipe, false, &file, "a").unwrap();
    assert_eq!(bytes(&as_they_are.model.valid()), bytes(&mine));
    assert_eq!((as_they_are.epoch, as_they_are.history.len()), (0, 0));

    // What was started from is kept, whatever becomes of the file.
    device.seed(100);
    save(&build(&device), &file).unwrap();
    let again = train(&recipe, true, &file, "a").unwrap();
    assert_eq!(bytes(&again.model.valid()), bytes(&mine));
    assert_eq!(again.accuracy, as_they_are.accuracy);

    save(&mine, &file).unwrap();
    let longer = Recipe {
        epochs: 3,
        ..recipe
    };
    let on = train(&longer, false, &file, "b").unwrap();
    assert_eq!(on.history.len(), 3);
    let none = train(&recipe, false, &folder.path().join("none"), "c").unwrap_err();
    assert!(matches!(none, TrainingError::Weights(_)), "{none}");
}
