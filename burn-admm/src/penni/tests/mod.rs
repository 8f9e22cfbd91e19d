use burn::module::Module;
use burn::nn::conv::{Conv2d, Conv2dConfig, ConvTranspose2d, ConvTranspose2dConfig};
use burn::nn::{Linear, LinearConfig};
use burn::tensor::{Device, Tensor, TensorData};
use burn_sparse::WeightShape;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::*;
use crate::testing::{gaussian, get, set};

mod kernels;
mod plan;
mod state;
mod training;

fn random(len: usize, seed: u64) -> Vec<f32> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    (0..len).map(|_| gaussian(&mut rng)).collect()
}

fn squared_distance(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    let pairs = a.iter().zip(b);
    pairs
        .map(|(&a, &b)| (f64::from(a) - f64::from(b)).powi(2))
        .sum()
}

fn assert_near(a: &[f32], b: &[f32], what: &str) {
    let scale = squared_distance(b, &vec![0.0; b.len()]).max(f64::MIN_POSITIVE);
    let error = (squared_distance(a, b) / scale).sqrt();
    assert!(error < 1e-6, "{what}: {error:e}");
}

#[derive(Module, Debug)]
struct Net {
    stem: Conv2d,
    body: Conv2d,
    pointwise: Conv2d,
    wide: Conv2d,
    head: Linear,
}

impl Net {
    fn new(device: &Device) -> Self {
        let conv = |channels, kernel| Conv2dConfig::new(channels, kernel).init(device);
        let mut net = Self {
            stem: conv([1, 6], [3, 3]),
            body: conv([6, 8], [3, 3]),
            pointwise: conv([8, 4], [1, 1]),
            wide: conv([4, 5], [2, 3]),
            head: LinearConfig::new(10, 3).init(device),
        };
        for (seed, path) in ["stem", "body", "pointwise", "wide", "head"]
            .iter()
            .enumerate()
        {
            let path = format!("{path}.weight");
            let len = get(&net, &path).len();
            let values = random(len, seed as u64).iter().map(|w| 0.3 * w).collect();
            net = set(net, &path, values);
        }
        net
    }

    fn loss(&self, x: &Tensor<4>) -> Tensor<1> {
        let x = self
            .body
            .forward(self.stem.forward(x.clone()).tanh())
            .tanh();
        let x = self.wide.forward(self.pointwise.forward(x)).tanh();
        let logits = self.head.forward(x.flatten::<2>(1, 3));
        (logits - 0.3).square().mean()
    }
}

fn device() -> Device {
    Device::flex().autodiff()
}

/// The same at every call.
fn input(device: &Device) -> Tensor<4> {
    let data = TensorData::new(random(4 * 7 * 8, 99), [4, 1, 7, 8]);
    Tensor::<4>::from_data(data, device).slice([0..4, 0..1, 0..6, 0..8])
}
