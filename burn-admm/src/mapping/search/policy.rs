//! A policy that learns which offers are rewarded, layer after layer.

use burn::module::{Module, ModuleMapper, Param};
use burn::nn::{Embedding, EmbeddingConfig};
use burn::optim::{AdamConfig, GradientsParams, ModuleOptimizer};
use burn::tensor::{Device, Int, Tensor, TensorData, activation::log_softmax};
use burn_sparse::nn::{Gru, GruConfig, Linear, LinearConfig};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::Strategy;

/// Features of an offer, and of a layer.
const EMBEDDED: usize = 16;

/// Features that the policy remembers from layer to layer.
const HIDDEN: usize = 32;

const LEARNING_RATE: f64 = 5e-3;

/// How fast the baseline forgets.
const MEMORY: f64 = 0.9;

/// What uncertainty is worth: without it the policy settles on the first good candidate.
const ENTROPY: f64 = 1e-2;

/// `π(a_t | a_1 … a_{t−1})`: a recurrent network that reads the layer and the offer before.
#[derive(Module, Debug)]
struct Policy {
    /// Of the offer of the layer before; the first layer reads one that no layer has.
    offer: Embedding,
    layer: Embedding,
    gru: Gru,
    head: Linear,
}

impl Policy {
    fn new(counts: &[usize], rng: &mut ChaCha8Rng, device: &Device) -> Self {
        let most = counts.iter().copied().max().unwrap_or(1);
        let policy = Self {
            offer: EmbeddingConfig::new(most + 1, EMBEDDED).init(device),
            layer: EmbeddingConfig::new(counts.len(), EMBEDDED).init(device),
            gru: GruConfig::new(2 * EMBEDDED, HIDDEN, true).init(device),
            head: LinearConfig::new(HIDDEN, most).init(device),
        };
        policy.map(&mut Drawn(rng))
    }

    /// Decides all layers of `batch` candidates, and gives the logarithms of the probabilities of all offers of each
    /// layer, `[batch, offers]`. `choose` takes the layer's index and these.
    fn decide(
        &self,
        batch: usize,
        counts: &[usize],
        device: &Device,
        mut choose: impl FnMut(usize, &Tensor<2>) -> Vec<usize>,
    ) -> Vec<Tensor<2>> {
        let most = self.head.weight.dims()[1];
        let mut before = vec![most; batch];
        let mut state = None;
        let mut all = Vec::new();
        for (at, &count) in counts.iter().enumerate() {
            let embedded = |of: &Embedding, ids: &[usize]| {
                let rows: Tensor<3> = of.forward(ids_of(ids, device).reshape([batch, 1]));
                rows.reshape([batch, EMBEDDED])
            };
            let read = [
                embedded(&self.offer, &before),
                embedded(&self.layer, &vec![at; batch]),
            ];
            let hidden = self.gru.step(Tensor::cat(read.into(), 1), state);
            let scores = self.head.forward(hidden.clone()).narrow(1, 0, count);
            let probable = log_softmax(scores, 1);
            before = choose(at, &probable);
            all.push(probable);
            state = Some(hidden);
        }
        all
    }
}

fn ids_of(ids: &[usize], device: &Device) -> Tensor<1, Int> {
    let ids: Vec<i64> = ids.iter().map(|&id| id as i64).collect();
    let count = ids.len();
    Tensor::from_data(TensorData::new(ids, [count]), device)
}

/// First weights that do not disturb the generator of the device.
struct Drawn<'a>(&'a mut ChaCha8Rng);

impl ModuleMapper for Drawn<'_> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        param.map(|tensor| {
            let shape = tensor.dims();
            // Scaled by the features that are summed.
            let bound = if D < 2 {
                0.0
            } else {
                (1.0 / HIDDEN as f32).sqrt()
            };
            let values = (0..shape.iter().product())
                .map(|_| bound * self.0.random_range(-1.0..1.0f32))
                .collect::<Vec<f32>>();
            let drawn = Tensor::from_data(TensorData::new(values, shape), &tensor.device());
            if tensor.is_require_grad() {
                drawn.require_grad()
            } else {
                drawn
            }
        })
    }
}

/// The policy and its training by REINFORCE: `θ += η Σ_t (R − b) ∇ log π(a_t)`, `b` an exponential mean of rewards.
pub(super) struct Learner {
    counts: Vec<usize>,
    policy: Policy,
    optimizer: ModuleOptimizer,
    baseline: Option<f64>,
    device: Device,
    rng: ChaCha8Rng,
}

impl Learner {
    pub(super) fn new(counts: &[usize], seed: u64, device: &Device) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let device = device.clone().inner().autodiff();
        Self {
            counts: counts.to_vec(),
            policy: Policy::new(counts, &mut rng, &device),
            optimizer: AdamConfig::new().init(),
            baseline: None,
            device,
            rng,
        }
    }
}

impl Strategy for Learner {
    fn propose(&mut self, count: usize) -> Vec<Vec<usize>> {
        let mut choices = vec![Vec::new(); count];
        let device = self.device.clone().inner();
        let rng = &mut self.rng;
        self.policy
            .valid()
            .decide(count, &self.counts, &device, |_, probable| {
                let values: Vec<f32> = probable.to_data().iter::<f32>().collect();
                let rows = values.chunks(values.len() / count);
                let drawn: Vec<usize> = rows.map(|row| draw(row, rng)).collect();
                for (choice, &offer) in choices.iter_mut().zip(&drawn) {
                    choice.push(offer);
                }
                drawn
            });
        choices
    }

    fn learn(&mut self, choices: &[Vec<usize>], rewards: &[f64]) {
        if choices.is_empty() {
            return;
        }
        let batch = choices.len();
        let mean = rewards.iter().sum::<f64>() / batch as f64;
        let baseline = self.baseline.unwrap_or(mean);
        let advantages: Vec<f32> = rewards
            .iter()
            .map(|reward| (reward - baseline) as f32)
            .collect();
        self.baseline = Some(MEMORY * baseline + (1.0 - MEMORY) * mean);
        let device = &self.device;
        let advantages: Tensor<2> =
            Tensor::from_data(TensorData::new(advantages, [batch, 1]), device);
        let taken = |at: usize| choices.iter().map(|choice| choice[at]).collect::<Vec<_>>();
        let probable = self
            .policy
            .decide(batch, &self.counts, device, |at, _| taken(at));
        let mut loss = Tensor::<1>::zeros([1], device);
        for (at, probable) in probable.into_iter().enumerate() {
            let ids = ids_of(&taken(at), device).reshape([batch, 1]);
            let chosen = probable.clone().gather(1, ids);
            let uncertain = (probable.clone().exp() * probable).sum_dim(1).neg();
            loss =
                loss - (chosen * advantages.clone()).mean() - uncertain.mean().mul_scalar(ENTROPY);
        }
        let gradients = GradientsParams::from_grads(loss.backward(), &self.policy);
        self.policy = self
            .optimizer
            .step(LEARNING_RATE, self.policy.clone(), gradients);
    }
}

/// An index, with the probabilities whose logarithms these are.
fn draw(probable: &[f32], rng: &mut ChaCha8Rng) -> usize {
    let mut left = rng.random_range(0.0..1.0f64);
    for (at, value) in probable.iter().enumerate() {
        left -= f64::from(value.exp());
        if left < 0.0 {
            return at;
        }
    }
    probable.len() - 1
}
