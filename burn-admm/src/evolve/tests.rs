use burn::module::Module;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{BatchNorm, BatchNormConfig, Linear, LinearConfig};
use burn::optim::{AdamConfig, GradientsParams, ModuleOptimizer};
use burn::tensor::{Device, Tensor, TensorData};
use burn_sparse::Sparsity;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;
use crate::plan::Plan;
use crate::testing::set;

mod clusters;
mod errors;
mod masks;
mod proposals;
mod rewinding;
mod scoring;
mod states;

/// With running statistics, which are shared between clones.
#[derive(Module, Debug)]
struct Net {
    conv: Conv2d,
    norm: BatchNorm,
    fc: Linear,
}

const CONV: &str = "conv.weight";
const FC: &str = "fc.weight";
/// Weights of the two layers.
const SIZES: [usize; 2] = [72, 60];

fn device() -> Device {
    Device::flex().autodiff()
}

fn random(len: usize, seed: u64) -> Vec<f32> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    (0..len).map(|_| rng.random_range(-1.0f32..1.0)).collect()
}

fn net() -> Net {
    let device = device();
    let net = Net {
        conv: Conv2dConfig::new([2, 4], [3, 3])
            .with_bias(false)
            .init(&device),
        norm: BatchNormConfig::new(4).init(&device),
        fc: LinearConfig::new(4, 15).with_bias(false).init(&device),
    };
    let net = set(net, CONV, random(SIZES[0], 1));
    set(net, FC, random(SIZES[1], 2))
}

fn loss(net: &Net, seed: u64) -> Tensor<1> {
    let x = TensorData::new(random(6 * 2 * 25, 100 + seed), [6, 2, 5, 5]);
    let x = Tensor::<4>::from_data(x, &device());
    let y = net.norm.forward(net.conv.forward(x));
    let y = y.mean_dim(3).mean_dim(2).flatten::<2>(1, 3);
    (net.fc.forward(y) - 1.0).square().mean()
}

/// Unstructured, up to 90 % in the convolution and 95 % in the other.
fn plan() -> Plan {
    Plan::new(Sparsity::unstructured(0.95).unwrap())
        .with_sparsity(CONV, Sparsity::unstructured(0.9).unwrap())
        .unwrap()
        .with_first_convolution_kept(false)
        .with_last_linear_kept(false)
}

fn config() -> EvolveConfig {
    EvolveConfig::new().with_tolerance(0.05).with_seed(3)
}

fn optimizer() -> ModuleOptimizer {
    AdamConfig::new().init()
}

/// An evolution, its network and its optimiser.
struct Task {
    evolution: Evolution,
    net: Net,
    optimizer: ModuleOptimizer,
}

impl Task {
    fn new(config: EvolveConfig) -> Self {
        let net = net();
        let evolution = Evolution::new(&net, &plan(), config, 0.5).unwrap();
        Self {
            net: evolution.attach(net).unwrap(),
            evolution,
            optimizer: optimizer(),
        }
    }

    fn begin(&mut self) -> Candidate {
        let candidate = self.evolution.begin(&self.net, &self.optimizer);
        candidate.unwrap().clone()
    }

    /// Batches that are drawn from the random state of training.
    fn batches(&mut self, count: usize) {
        for _ in 0..count {
            let seed = self.evolution.random().random::<u64>() % 1000;
            let gradients = loss(&self.net, seed).backward();
            let gradients = GradientsParams::from_grads(gradients, &self.net);
            self.evolution.observe(&self.net, &gradients).unwrap();
            self.net = self.optimizer.step(0.02, self.net.clone(), gradients);
            self.evolution.step(&mut self.net).unwrap();
        }
    }

    fn end(&mut self, accuracy: f64) -> Verdict {
        let end = self
            .evolution
            .end(&mut self.net, &mut self.optimizer, accuracy);
        end.unwrap()
    }

    fn trial(&mut self, accuracy: f64) -> Verdict {
        self.begin();
        self.batches(3);
        self.end(accuracy)
    }

    /// The network with its masks and ids, as a file.
    fn bytes(&self) -> Vec<u8> {
        // Running statistics hold their last update back until they are asked for.
        drop(self.net.valid());
        let record = self.net.clone().into_record();
        record.into_bytes().unwrap().to_vec()
    }

    /// All numbers of the network, running statistics included, as bits, and its masks.
    fn numbers(&self) -> (Vec<Vec<u32>>, crate::Masks) {
        drop(self.net.valid());
        let all = crate::params::read_base(&self.net, |_| true).unwrap();
        assert_eq!(all.len(), 6);
        let bits = |values: Vec<f32>| values.iter().map(|v| v.to_bits()).collect();
        let all = all.into_iter().map(|weight| bits(weight.data));
        (all.collect(), crate::Masks::attached(&self.net))
    }
}

#[test]
fn sparsity_never_falls_and_accuracy_stays_within_the_tolerance() {
    let mut task = Task::new(config());
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    let (mut best, mut sparsity, mut kept) = (0.5f64, 0.0, 0);
    for number in 1..=60 {
        // The sparser the worse, with some luck.
        let candidate = task.begin();
        task.batches(2);
        let zeros = 1.0 - candidate.nnz as f64 / 132.0;
        let accuracy = 0.55 - 0.1 * zeros * zeros + 0.03 * rng.random::<f64>();
        let verdict = task.end(accuracy);
        assert_eq!((verdict.trial, verdict.batches), (number, 2));
        assert_eq!(verdict.kept, accuracy >= best - 0.05, "{verdict}");
        if verdict.kept {
            best = best.max(accuracy);
            kept += 1;
            assert_eq!(task.evolution.sparsity(), zeros);
        }
        assert_eq!((verdict.best, task.evolution.best()), (best, best));
        assert!(task.evolution.sparsity() >= sparsity);
        sparsity = task.evolution.sparsity();
        assert!(task.evolution.present().accuracy >= best - 0.05);
        assert_eq!(task.evolution.position(), 2 * kept);
        assert!(task.evolution.population().len() <= 8);
        let masks = task.evolution.masks();
        assert_eq!(masks, crate::Masks::attached(&task.net));
        // Before the first trial that is kept all weights are.
        assert_eq!(masks.nnz(), task.evolution.present().nnz);
    }
    assert!(sparsity > 0.4, "{sparsity}");
    assert_eq!(task.evolution.history().len(), 60);
    let rewound = task.evolution.history().iter().any(|v| !v.kept);
    assert!(rewound, "the limit was reached");
}

#[test]
fn everything_goes_to_its_most_when_nothing_is_lost() {
    // The masks of so small layers are always in motion.
    let still = EvolveConfig {
        damping: 0.0,
        ..config()
    };
    let mut task = Task::new(still.with_step(0.5));
    for _ in 0..40 {
        task.trial(0.6);
    }
    // 90 % of 72 and 95 % of 60.
    assert_eq!(task.evolution.present().nnz, 7 + 3);
    let task = {
        let mut task = Task::new(still.with_step(0.5).with_target(0.75));
        for _ in 0..30 {
            task.trial(0.6);
        }
        task
    };
    assert_eq!(task.evolution.present().nnz, 132 / 4);
    assert_eq!(task.evolution.sparsity(), 0.75);
}

#[test]
fn the_same_seed_gives_the_same_evolution() {
    let run = |seed| {
        let mut task = Task::new(config().with_seed(seed));
        for trial in 0..8 {
            task.trial(if trial % 3 == 1 { 0.4 } else { 0.5 });
        }
        let random = task.evolution.random().clone();
        (task.evolution.history().to_vec(), task.numbers(), random)
    };
    assert!(run(1) == run(1));
    assert!(run(1).0 != run(2).0);
}
