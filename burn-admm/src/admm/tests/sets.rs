//! Constraints of several sets: kernel patterns and connectivity, each with a dual of its own.

use std::path::Path;

use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn_sparse::{Budget, PatternPool, Pool};

use super::*;
use crate::Masks;

#[derive(Module, Debug)]
struct Net {
    conv: Conv2d,
    point: Conv2d,
}

const PATH: &str = "conv.weight";

fn net(seed: u64) -> Net {
    let device = device();
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let conv = |channels, kernel| {
        Conv2dConfig::new(channels, kernel)
            .with_bias(false)
            .init(&device)
    };
    let net = Net {
        conv: conv([3, 4], [3, 3]),
        point: conv([4, 2], [1, 1]),
    };
    let mut random = |len| (0..len).map(|_| rng.random_range(-1.0f32..1.0)).collect();
    let net = set(net, PATH, random(108));
    set(net, "point.weight", random(8))
}

fn walk(net: Net, rng: &mut ChaCha8Rng) -> Net {
    let moved = get(&net, PATH)
        .iter()
        .map(|w| w + rng.random_range(-0.3..0.3f32))
        .collect();
    set(net, PATH, moved)
}

/// Patterns on `conv`, the first convolution, and connectivity on `point`.
fn patterns() -> Plan {
    Plan::kernel_patterns(0.75, 3)
        .unwrap()
        .with_first_convolution_kept(false)
}

fn pool(admm: &Admm) -> PatternPool {
    match admm.plan().layer(PATH).unwrap().sparsity {
        Sparsity::KernelPattern {
            pool: Pool::Given(pool),
            ..
        } => pool,
        other => panic!("{other:?}"),
    }
}

#[test]
fn each_set_has_a_feasible_copy_and_a_dual() {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let mut model = net(1);
    let mut admm = Admm::new(&model, &patterns(), constant(0.1)).unwrap();
    let mut sums = [vec![0.0f64; 108], vec![0.0f64; 108]];
    for _ in 0..6 {
        model = walk(model, &mut rng);
        let info = admm.update(&model).unwrap();
        let w = get(&model, PATH);
        let sets: Vec<_> = admm.sets(PATH).unwrap().collect();
        assert_eq!(sets.len(), 2);
        assert_eq!(admm.z(PATH).unwrap(), sets[0].z);
        assert_eq!(admm.u(PATH).unwrap(), sets[0].u);
        for (sum, set) in sums.iter_mut().zip(&sets) {
            for (i, sum) in sum.iter_mut().enumerate() {
                *sum += f64::from(w[i]) - f64::from(set.z[i]);
                assert!((*sum - f64::from(set.u[i])).abs() < 1e-5);
            }
        }
        // Every kernel within a pattern; as many kernels as asked for, whole.
        for kernel in sets[0].z.chunks(9) {
            let support = (0..9).fold(0, |mask, p| mask | u16::from(kernel[p] != 0.0) << p);
            assert!(pool(&admm).masks().contains(&support));
        }
        let kernels = sets[1]
            .z
            .chunks(9)
            .filter(|kernel| kernel.iter().all(|&w| w != 0.0));
        let whole = kernels.count();
        assert_eq!(9 * whole, sets[1].z.iter().filter(|&&w| w != 0.0).count());
        let budget = Sparsity::kernel_pattern(0.75, 3).unwrap();
        let shape = admm.plan().layer(PATH).unwrap().view.shape();
        assert_eq!(4 * whole, budget.nnz(shape).unwrap());

        // The layer reports the larger of both, and the table shows both.
        let layer = &info.layers[0];
        assert_eq!(layer.sets.len(), 2);
        let norm =
            |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>().sqrt();
        let size = norm(&mut w.iter().map(|&w| w.into()));
        for (set, state) in layer.sets.iter().zip(&sets) {
            let apart = w
                .iter()
                .zip(state.z)
                .map(|(&w, &z)| f64::from(w) - f64::from(z));
            assert!((set.primal_residual - norm(&mut { apart }) / size).abs() < 1e-12);
            assert!(set.primal_residual <= layer.primal_residual);
            assert!(set.dual_norm <= layer.dual_norm && set.dual_residual <= layer.dual_residual);
        }
        let table = info.to_table();
        assert_eq!(table.lines().count(), 1 + 3 + 1, "{table}");
        assert!(
            table.contains("  kernel-pattern") && table.contains("  connectivity"),
            "{table}"
        );
        assert_eq!(info.layers[1].sets.len(), 1);
        assert!(admm.sets("conv.bias").is_none());
    }
}

#[test]
fn the_penalty_is_the_sum_of_both_terms_and_so_is_its_gradient() {
    let mut rng = ChaCha8Rng::seed_from_u64(2);
    let rho = 0.37;
    let start = net(2);
    let mut admm = Admm::new(&start, &patterns(), constant(rho)).unwrap();
    let model = walk(start, &mut rng);
    admm.update(&model).unwrap();
    let model = walk(model, &mut rng);
    let (mut value, mut gradient) = (0.0, vec![0.0f64; 108]);
    for path in [PATH, "point.weight"] {
        let w = get(&model, path);
        for set in admm.sets(path).unwrap() {
            for i in 0..w.len() {
                let difference = f64::from(w[i]) - f64::from(set.z[i]) + f64::from(set.u[i]);
                value += 0.5 * rho * difference * difference;
                if path == PATH {
                    gradient[i] += rho * difference;
                }
            }
        }
    }
    let penalty = admm.penalty(&model);
    let computed: f32 = penalty.clone().into_scalar();
    // 224 squares summed in f32.
    assert!((f64::from(computed) - value).abs() <= 224.0 * f64::from(f32::EPSILON) * value);
    let grads = penalty.backward();
    let ones = GradientsParams::from_grads(model.conv.weight.val().sum().backward(), &model);
    let added = admm.add_gradient(&model, ones);
    let floats = |t: Tensor<4>| t.into_data().try_to_vec::<f32>().unwrap();
    let analytic = floats(model.conv.weight.grad(&grads).unwrap());
    let direct = floats(added.get::<4>(model.conv.weight.id).unwrap());
    for i in 0..108 {
        assert!((f64::from(analytic[i]) - gradient[i]).abs() < 1e-6);
        assert!((f64::from(direct[i]) - 1.0 - gradient[i]).abs() < 1e-6);
    }
}

#[test]
fn both_duals_pull_weights_into_the_intersection() {
    let mut model = net(3);
    let mut admm = Admm::new(&model, &patterns(), constant(1.0)).unwrap();
    let mut last = f64::INFINITY;
    for _ in 0..40 {
        for _ in 0..10 {
            let grads = admm.penalty(&model).backward();
            let grads = GradientsParams::from_grads(grads, &model);
            let step = |weight: Param<Tensor<4>>| {
                let gradient = grads.get::<4>(weight.id).unwrap();
                weight.map(|w| {
                    Tensor::from_inner(w.inner() - gradient.mul_scalar(0.2)).require_grad()
                })
            };
            model.conv.weight = step(model.conv.weight);
            model.point.weight = step(model.point.weight);
        }
        last = admm.update(&model).unwrap().primal_residual;
    }
    assert!(last < 1e-2, "primal residual {last}");
    // What is left after projection is within both.
    let masks = Masks::project(&model, admm.plan()).unwrap();
    assert_eq!(masks.nnz(), admm.plan().nnz());
    for kernel in masks.layer(PATH).unwrap().keep.chunks(9) {
        let support = (0..9).fold(0, |mask, p| mask | u16::from(kernel[p]) << p);
        assert!(support == 0 || pool(&admm).masks().contains(&support));
    }
}

#[test]
fn a_resumed_run_keeps_the_pool_that_it_was_started_with() {
    let mut rng = ChaCha8Rng::seed_from_u64(4);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("admm.safetensors");
    let mut model = net(4);
    let mut admm = Admm::new(&model, &patterns(), constant(0.1)).unwrap();
    for _ in 0..3 {
        model = walk(model, &mut rng);
        admm.update(&model).unwrap();
    }
    admm.save(&path).unwrap();
    // Other weights prefer other patterns.
    let other = net(5);
    let mut resumed = Admm::new(&other, &patterns(), constant(0.1)).unwrap();
    assert_ne!(pool(&resumed), pool(&admm));
    resumed.restore(&path).unwrap();
    assert_eq!(resumed.plan(), admm.plan());
    for _ in 0..3 {
        model = walk(model, &mut rng);
        assert_eq!(
            resumed.update(&model).unwrap(),
            admm.update(&model).unwrap()
        );
    }
    for (a, b) in resumed.sets(PATH).unwrap().zip(admm.sets(PATH).unwrap()) {
        assert_eq!((a.sparsity, a.z, a.u), (b.sparsity, b.z, b.u));
    }
    assert_eq!(
        Masks::project(&model, resumed.plan()).unwrap(),
        Masks::project(&model, admm.plan()).unwrap()
    );

    // A pool that the plan gives must be that of the file.
    let given = |pool: PatternPool| {
        let sparsity = Sparsity::KernelPattern {
            pool: Pool::Given(pool),
            budget: match Sparsity::kernel_pattern(0.75, 3).unwrap() {
                Sparsity::KernelPattern { budget, .. } => budget,
                _ => Budget::Sparsity(0.0),
            },
        };
        patterns().with_sparsity(PATH, sparsity).unwrap()
    };
    let (same, foreign) = (pool(&admm), PatternPool::new([[0, 1, 2, 4]]).unwrap());
    Admm::resume(&other, &given(same), constant(0.1), &path).unwrap();
    let error = Admm::resume(&other, &given(foreign), constant(0.1), &path).unwrap_err();
    assert!(error.to_string().contains("another pool"), "{error}");
    // Nor may it hold more patterns than are asked for.
    let fewer = Plan::kernel_patterns(0.75, 1)
        .unwrap()
        .with_first_convolution_kept(false);
    let error = Admm::resume(&other, &fewer, constant(0.1), &path).unwrap_err();
    assert!(error.to_string().contains("another pool"), "{error}");
}

#[test]
fn copies_outside_of_the_pool_of_the_file_are_refused() {
    let model = net(6);
    let mut admm = Admm::new(&model, &patterns(), constant(0.1)).unwrap();
    let bytes = admm.to_bytes();
    let at = |needle: &str| {
        bytes
            .windows(needle.len())
            .position(|w| w == needle.as_bytes())
    };
    // The first pattern loses a position to another one: still a pool, but not that of Z.
    let masks = pool(&admm).masks().to_vec();
    let positions = |mask: u16| {
        let kept: Vec<_> = (0..9)
            .filter(|p| mask >> p & 1 == 1)
            .map(|p| p.to_string())
            .collect();
        format!("[{}]", kept.join(","))
    };
    let swapped = PatternPool::natural()
        .into_iter()
        .find(|mask| !masks.contains(mask))
        .unwrap();
    let (from, to) = (positions(masks[0]), positions(swapped));
    let mut altered = bytes.clone();
    let start = at(&from).expect("the pool is in the file");
    altered[start..start + to.len()].copy_from_slice(to.as_bytes());
    let altered = super::state::with_checksum(altered);
    let error = admm.restore_bytes(Path::new("x"), altered).unwrap_err();
    assert!(matches!(error, StateError::Corrupt { .. }), "{error}");
    assert!(error.to_string().contains("not within"), "{error}");
    // And no pool at all.
    let mut altered = bytes.clone();
    let start = at(&from).unwrap();
    altered[start..start + from.len()].copy_from_slice(b"[9,9,9,9]");
    let altered = super::state::with_checksum(altered);
    let error = admm.restore_bytes(Path::new("x"), altered).unwrap_err();
    assert!(matches!(error, StateError::Corrupt { .. }), "{error}");
}
