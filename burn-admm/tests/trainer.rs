//! ADMM inside Burn's trainer, end to end on a small task.
#![cfg(feature = "train")]

use std::path::Path;
use std::sync::{Arc, Mutex};

use burn::data::dataloader::batcher::Batcher;
use burn::data::dataloader::{DataLoader, DataLoaderBuilder};
use burn::data::dataset::InMemDataset;
use burn::module::{Module, Param};
use burn::nn::Linear;
use burn::nn::loss::CrossEntropyLossConfig;
use burn::optim::lr_scheduler::constant::ConstantLr;
use burn::optim::momentum::MomentumConfig;
use burn::optim::{GradientsParams, SgdConfig};
use burn::tensor::{Device, Int, Tensor, TensorData, activation::relu};
use burn::train::metric::{AccuracyMetric, LossMetric};
use burn::train::{
    ClassificationOutput, InferenceStep, Learner, LearningResult, SupervisedTraining, TrainOutput,
    TrainStep,
};
use burn_admm::admm::Divergence;
use burn_admm::train::{AdmmModel, AdmmTraining, LineRenderer, ValueMetric, state_path};
use burn_admm::{Admm, AdmmConfig, AdmmError, Masks, Plan, SparsityReport, fold};
use burn_sparse::Sparsity;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

#[derive(Module, Debug)]
struct Net {
    a: Linear,
    b: Linear,
    c: Linear,
}

impl Net {
    /// The same in every run: the device's own generator is shared by all tests.
    fn new(device: &Device, seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut linear = |d_in: usize, d_out: usize| {
            let bound = (d_in as f32).sqrt().recip();
            let mut random = |len: usize| -> Vec<f32> {
                (0..len).map(|_| rng.random_range(-bound..bound)).collect()
            };
            let weight = TensorData::new(random(d_in * d_out), [d_in, d_out]);
            let bias = TensorData::new(random(d_out), [d_out]);
            Linear {
                weight: Param::from_tensor(Tensor::from_data(weight, device)),
                bias: Some(Param::from_tensor(Tensor::from_data(bias, device))),
            }
        };
        Self {
            a: linear(8, 32),
            b: linear(32, 32),
            c: linear(32, 3),
        }
    }

    fn classify(&self, batch: Batch) -> ClassificationOutput {
        let x = relu(self.b.forward(relu(self.a.forward(batch.x))));
        let output = self.c.forward(x);
        let loss = CrossEntropyLossConfig::new()
            .init(&output.device())
            .forward(output.clone(), batch.y.clone());
        ClassificationOutput::new(loss, output, batch.y)
    }
}

impl TrainStep for Net {
    type Input = Batch;
    type Output = ClassificationOutput;

    fn step(&self, batch: Batch) -> TrainOutput<ClassificationOutput> {
        let output = self.classify(batch);
        TrainOutput::new(self, output.loss.backward(), output)
    }
}

impl InferenceStep for Net {
    type Input = Batch;
    type Output = ClassificationOutput;

    fn step(&self, batch: Batch) -> ClassificationOutput {
        self.classify(batch)
    }
}

type Item = ([f32; 8], i64);

#[derive(Clone, Debug)]
struct Batch {
    x: Tensor<2>,
    y: Tensor<1, Int>,
}

struct ToBatch;

impl Batcher<Item, Batch> for ToBatch {
    fn batch(&self, items: Vec<Item>, device: &Device) -> Batch {
        let n = items.len();
        let x: Vec<f32> = items.iter().flat_map(|item| item.0).collect();
        let y: Vec<i64> = items.iter().map(|item| item.1).collect();
        Batch {
            x: Tensor::from_data(TensorData::new(x, [n, 8]), device),
            y: Tensor::from_data(TensorData::new(y, [n]), device),
        }
    }
}

/// Three classes, told apart by which of three sums of inputs is largest.
fn loader(seed: u64, items: usize) -> Arc<dyn DataLoader<Batch>> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let items = (0..items)
        .map(|_| {
            let x: [f32; 8] = core::array::from_fn(|_| rng.random_range(-1.0..1.0));
            let sums = [x[0] + x[1], x[2] - x[3], x[4] + x[5]];
            let class = (0..3).max_by(|a, b| sums[*a].total_cmp(&sums[*b])).unwrap();
            (x, class as i64)
        })
        .collect();
    DataLoaderBuilder::new(ToBatch)
        .batch_size(32)
        .build(InMemDataset::new(items))
}

const BATCHES: usize = 10;

type Log = Arc<Mutex<Vec<u8>>>;

fn launch(
    training: &AdmmTraining,
    model: Net,
    folder: &Path,
    epochs: usize,
    resume: Option<usize>,
    lr: f64,
) -> (LearningResult<AdmmModel<Net>>, String) {
    let log: Log = Arc::default();
    let supervised = SupervisedTraining::new(folder, loader(1, 32 * BATCHES), loader(2, 128))
        .metrics((AccuracyMetric::new(), LossMetric::new()))
        .with_application_logger(None)
        .num_epochs(epochs);
    let mut supervised = training
        .register(supervised, folder)
        .renderer(Box::new(LineRenderer::to(log.clone())))
        .with_default_checkpointers();
    if let Some(epoch) = resume {
        supervised = supervised.checkpoint(epoch);
    }
    let optim = SgdConfig::new()
        .with_momentum(Some(MomentumConfig::new()))
        .init();
    let result = supervised.launch(Learner::new(
        training.wrap(model),
        optim,
        ConstantLr::new(lr),
    ));
    let log = String::from_utf8(log.lock().unwrap().clone()).unwrap();
    (result, log)
}

fn plan() -> Plan {
    Plan::new(Sparsity::row_balanced(0.75).unwrap())
}

fn admm(model: &Net) -> Admm {
    Admm::new(model, &plan(), AdmmConfig::new().with_rho(0.05)).unwrap()
}

#[test]
fn trains_prunes_and_retrains_with_metrics_in_plain_lines() {
    let device = Device::flex().autodiff();
    let folder = tempfile::tempdir().unwrap();
    let model = Net::new(&device, 1);
    let training = AdmmTraining::new(admm(&model), 2 * BATCHES);
    let resolved = training.with_admm(|admm| admm.plan().clone());
    let (result, log) = launch(&training, model, folder.path(), 8, None, 0.1);
    training.result().unwrap();
    assert!(result.error.is_none() && result.interrupted.is_none());

    let history = training.history();
    assert_eq!(
        history.len(),
        4,
        "an outer iteration every two of eight epochs"
    );
    assert!(
        history[3].primal_residual < history[0].primal_residual,
        "{history:?}"
    );
    let last = log
        .lines()
        .find(|line| line.starts_with("epoch 8/8 train:"))
        .expect(&log);
    for name in [
        "Accuracy",
        "Loss",
        "Rho",
        "Primal residual",
        "Dual residual",
        "Sparsity 0.75",
    ] {
        assert!(last.contains(name), "no {name} in {last}");
    }
    let valid = log
        .lines()
        .find(|line| line.starts_with("epoch 8/8 valid:"))
        .expect(&log);
    assert!(
        valid.contains("Accuracy") && valid.contains("Loss"),
        "{valid}"
    );
    let first = log
        .lines()
        .find(|line| line.starts_with("epoch 1/8 train:"))
        .expect(&log);
    assert!(
        first.contains("Primal residual -"),
        "no residual before the first update: {first}"
    );

    // Masked retraining needs no wrapper.
    let model = result.model.into_inner().train();
    let masks = Masks::project(&model, &resolved).unwrap();
    let masked = masks.attach(model).unwrap();
    let retraining = SupervisedTraining::<Net>::new(
        folder.path().join("retrain"),
        loader(1, 32 * BATCHES),
        loader(2, 128),
    )
    .metric_train_numeric(ValueMetric::constant("Sparsity", true, 0.75))
    .renderer(Box::new(LineRenderer::to(Arc::new(Mutex::new(Vec::new())))))
    .with_application_logger(None)
    .num_epochs(4);
    let optim = SgdConfig::new()
        .with_momentum(Some(MomentumConfig::new()))
        .init();
    let result = retraining.launch(Learner::new(masked, optim, ConstantLr::new(0.1)));
    let pruned = fold(result.model);
    let report = SparsityReport::new(&pruned).unwrap();
    assert_eq!(report.layer("a.weight").unwrap().nnz, 32 * 2);
    assert_eq!(report.layer("b.weight").unwrap().nnz, 32 * 8);

    let batch = loader(2, 128).iter().next().unwrap().unwrap();
    let output = pruned.classify(batch.clone());
    let right: i64 = output
        .output
        .argmax(1)
        .squeeze_dim::<1>(1)
        .equal(batch.y)
        .int()
        .sum()
        .into_scalar();
    assert!(
        right >= 20,
        "{right} of 32 right after retraining: above chance (11) by far"
    );
}

fn bits(model: &Net) -> Vec<u32> {
    [&model.a, &model.b, &model.c]
        .into_iter()
        .flat_map(|layer| {
            layer
                .weight
                .val()
                .into_data()
                .iter::<f32>()
                .collect::<Vec<_>>()
        })
        .map(f32::to_bits)
        .collect()
}

#[test]
fn resumes_from_a_checkpoint_bit_equal() {
    let device = Device::flex().autodiff();
    let model = Net::new(&device, 1);
    let folder = tempfile::tempdir().unwrap();
    // 15 steps to an iteration: the checkpoint falls into the middle of one.
    let training = AdmmTraining::new(admm(&model), 15);
    let (through, _) = launch(&training, model.clone(), folder.path(), 4, None, 0.05);
    training.result().unwrap();

    // A run that stops after three epochs, and another that goes on from there.
    let folder = tempfile::tempdir().unwrap();
    let training = AdmmTraining::new(admm(&model), 15);
    launch(&training, model, folder.path(), 3, None, 0.05);
    training.result().unwrap();
    assert!(
        !state_path(folder.path(), 1).exists(),
        "only the last two are kept"
    );

    let fresh = Net::new(&device, 2);
    let config = AdmmConfig::new().with_rho(0.05);
    let admm = Admm::resume(&fresh, &plan(), config, state_path(folder.path(), 3)).unwrap();
    assert_eq!((admm.iteration(), admm.steps()), (2, 0));
    let training = AdmmTraining::new(admm, 15);
    let (resumed, log) = launch(&training, fresh, folder.path(), 4, Some(3), 0.05);
    training.result().unwrap();
    assert!(!log.contains("epoch 3/4 train"), "{log}");
    assert_eq!(bits(resumed.model.inner()), bits(through.model.inner()));
}

#[test]
fn divergence_stops_the_training_with_a_typed_error() {
    let device = Device::flex().autodiff();
    let model = Net::new(&device, 1);
    let folder = tempfile::tempdir().unwrap();
    let training = AdmmTraining::new(admm(&model), BATCHES);
    let (result, _) = launch(&training, model, folder.path(), 50, None, 1e30);
    let error = training.result().unwrap_err();
    assert!(
        matches!(
            error,
            AdmmError::Diverged {
                iteration: 1,
                cause: Divergence::Weight { .. },
                ..
            }
        ),
        "{error}"
    );
    let reason = result.interrupted.expect("an interruption").reason.unwrap();
    assert!(reason.contains("diverged in outer iteration 1"), "{reason}");
    assert!(training.history().is_empty());
}

#[test]
fn the_wrapper_is_the_model_as_a_module() {
    let device = Device::flex().autodiff();
    let model = Net::new(&device, 1);
    let wrapped = AdmmTraining::new(admm(&model), 1).wrap(model.clone());
    assert_eq!(wrapped.num_params(), model.num_params());
    assert_eq!(wrapped.to_string(), model.to_string());
    let loaded = Net::new(&device, 2).load_record(wrapped.clone().into_record());
    assert_eq!(bits(&loaded), bits(&model));

    // The gradient of a step is that of loss plus penalty.
    let batch = loader(5, 32).iter().next().unwrap().unwrap();
    let step = TrainStep::step(&wrapped, batch.clone()).grads;
    let admm = admm(&model);
    let loss = model.classify(batch).loss + admm.penalty(&model);
    let grads = GradientsParams::from_grads(loss.backward(), &model);
    let [a, b] = [&step, &grads].map(|g| g.get::<2>(model.b.weight.id).unwrap().into_data());
    a.assert_approx_eq::<f32>(&b, burn::tensor::Tolerance::rel_abs(1e-5, 1e-6));
}
