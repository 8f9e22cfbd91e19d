//! The updates, the penalty, the schedules and the state file, on small modules.

use burn::module::{Module, Param};
use burn::nn::{Linear, LinearConfig};
use burn::optim::GradientsParams;
use burn::tensor::{DType, Device, Tensor, TensorData};
use burn_sparse::Sparsity;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;
use crate::plan::Plan;
use crate::projection::{ProjectionError, projection_of};
use crate::testing::{get, set};

#[derive(Module, Debug)]
struct Two {
    a: Linear,
    b: Param<Tensor<3>>,
}

fn device() -> Device {
    Device::flex().autodiff()
}

fn model(seed: u64) -> Two {
    let device = device();
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let b: Vec<f32> = (0..24).map(|_| rng.random_range(-1.0..1.0)).collect();
    let b = Tensor::from_data(TensorData::new(b, [4, 3, 2]), &device);
    let model = Two {
        a: LinearConfig::new(5, 6).init(&device),
        b: Param::from_tensor(b),
    };
    let a = (0..30).map(|_| rng.random_range(-1.0f32..1.0)).collect();
    set(model, "a.weight", a)
}

fn plan() -> Plan {
    Plan::new(Sparsity::row_balanced(0.6).unwrap()).with_last_linear_kept(false)
}

fn constant(rho: f64) -> AdmmConfig {
    AdmmConfig::new()
        .with_rho(rho)
        .with_schedule(RhoSchedule::Constant)
}

/// A stand-in for training: a random walk.
fn walk(model: Two, rng: &mut ChaCha8Rng) -> Two {
    ["a.weight", "b"].into_iter().fold(model, |model, path| {
        let moved = get(&model, path)
            .iter()
            .map(|w| w + rng.random_range(-0.3..0.3f32))
            .collect();
        set(model, path, moved)
    })
}

#[test]
fn starts_feasible_with_zero_duals_and_leaves_the_model_alone() {
    let model = model(1);
    let before = get(&model, "a.weight");
    let admm = Admm::new(&model, &plan(), AdmmConfig::new()).unwrap();
    assert_eq!(get(&model, "a.weight"), before, "Z must not alias W");
    let z = admm.z("a.weight").unwrap();
    // [5, 6]: an output channel is a column, 2 of its 5 weights stay.
    for column in 0..6 {
        let kept: Vec<f32> = (0..5).map(|row| z[row * 6 + column].abs()).collect();
        let dropped = (0..5).filter(|row| kept[*row] == 0.0);
        assert_eq!(kept.iter().filter(|w| **w != 0.0).count(), 2);
        let smallest = kept
            .iter()
            .copied()
            .filter(|w| *w != 0.0)
            .fold(f32::MAX, f32::min);
        for row in dropped {
            assert!(before[row * 6 + column].abs() <= smallest);
        }
    }
    assert!(admm.u("b").unwrap().iter().all(|u| *u == 0.0));
    assert!(admm.z("a.bias").is_none());
}

#[test]
fn the_dual_is_the_sum_of_the_primal_differences() {
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    let mut model = model(2);
    let mut admm = Admm::new(&model, &plan(), constant(1e-2)).unwrap();
    let mut sums = [vec![0.0f64; 30], vec![0.0f64; 24]];
    for k in 1..=12 {
        model = walk(model, &mut rng);
        let info = admm.update(&model).unwrap();
        assert_eq!((info.iteration, admm.iteration()), (k, k));
        for (sum, path) in sums.iter_mut().zip(["a.weight", "b"]) {
            let (w, z, u) = (
                get(&model, path),
                admm.z(path).unwrap(),
                admm.u(path).unwrap(),
            );
            for i in 0..sum.len() {
                sum[i] += f64::from(w[i]) - f64::from(z[i]);
                assert!(
                    (sum[i] - f64::from(u[i])).abs() < 1e-5,
                    "{path} {i} after {k}"
                );
            }
        }
    }
}

#[test]
fn residuals_are_what_they_are_defined_to_be() {
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    let start = model(3);
    let mut admm = Admm::new(&start, &plan(), constant(1e-2)).unwrap();
    let z_prev = [
        admm.z("a.weight").unwrap().to_vec(),
        admm.z("b").unwrap().to_vec(),
    ];
    let moved = walk(start, &mut rng);
    let info = admm.update(&moved).unwrap();
    let norm = |d: &[f32], e: Option<&[f32]>| -> f64 {
        (0..d.len())
            .map(|i| (f64::from(d[i]) - e.map_or(0.0, |e| f64::from(e[i]))).powi(2))
            .sum()
    };
    let (mut primal, mut dual, mut all) = (0.0, 0.0, 0.0);
    for (i, path) in ["a.weight", "b"].into_iter().enumerate() {
        let (w, z) = (get(&moved, path), admm.z(path).unwrap());
        let (p, d, n) = (norm(&w, Some(z)), norm(z, Some(&z_prev[i])), norm(&w, None));
        assert!((info.layers[i].primal_residual - (p / n).sqrt()).abs() < 1e-12);
        assert!((info.layers[i].dual_residual - (d / n).sqrt()).abs() < 1e-12);
        let u = norm(admm.u(path).unwrap(), None);
        assert!((info.layers[i].dual_norm - (u / n).sqrt()).abs() < 1e-12);
        (primal, dual, all) = (primal + p, dual + d, all + n);
    }
    assert!((info.primal_residual - (primal / all).sqrt()).abs() < 1e-12);
    assert!((info.dual_residual - (dual / all).sqrt()).abs() < 1e-12);
    assert!(info.to_table().lines().count() == 3 && info.to_string().contains("iteration 1"));
}

#[test]
fn step_counts_and_updates() {
    let start = model(10);
    let mut admm = Admm::new(&start, &plan(), constant(1e-2)).unwrap();
    let updates: Vec<bool> = (0..7)
        .map(|_| admm.step(&start, 3).unwrap().is_some())
        .collect();
    assert_eq!(updates, [false, false, true, false, false, true, false]);
    assert_eq!((admm.steps(), admm.iteration()), (1, 2));
}

#[test]
fn admm_pulls_weights_onto_the_constraint() {
    // Without a task loss, minimising the penalty leads to a feasible point.
    let device = device();
    let mut rng = ChaCha8Rng::seed_from_u64(12);
    let w: Vec<f32> = (0..48).map(|_| rng.random_range(-2.0..2.0)).collect();
    let w = Tensor::<2>::from_data(TensorData::new(w, [6, 8]), &device);
    #[derive(Module, Debug)]
    struct Lone {
        w: Param<Tensor<2>>,
    }
    let mut model = Lone {
        w: Param::from_tensor(w),
    };
    let plan = Plan::new(Sparsity::unstructured(0.75).unwrap());
    let mut admm = Admm::new(&model, &plan, constant(1.0)).unwrap();
    let mut last = f64::INFINITY;
    for _ in 0..15 {
        for _ in 0..10 {
            let grads = admm.penalty(&model).backward();
            let g = model.w.grad(&grads).unwrap();
            model = Lone {
                w: model
                    .w
                    .map(|w| Tensor::from_inner(w.inner() - g.mul_scalar(0.3)).require_grad()),
            };
        }
        last = admm.update(&model).unwrap().primal_residual;
    }
    assert!(last < 1e-3, "primal residual {last}");
    let spec = &admm.plan().layers()[0];
    let projected = projection_of(spec.sparsity)
        .unwrap()
        .project(&get(&model, "w"), spec.view.shape())
        .unwrap();
    assert_eq!(projected.nnz(), 12);
}

mod divergence;
mod penalty;
mod schedule;
mod sets;
mod state;
