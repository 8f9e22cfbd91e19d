//! Gradients, phases, pruning.

use burn::optim::decay::WeightDecayConfig;
use burn::optim::momentum::MomentumConfig;
use burn::optim::{AdamConfig, GradientsParams, ModuleOptimizer, SgdConfig};

use super::*;
use crate::admm::AdmmError;

pub(super) fn sgd() -> ModuleOptimizer {
    let momentum = MomentumConfig::new().with_momentum(0.9).with_nesterov(true);
    SgdConfig::new()
        .with_momentum(Some(momentum))
        .with_weight_decay(Some(WeightDecayConfig::new(1e-2)))
        .init()
}

pub(super) fn train(
    mut model: Net,
    penni: &mut Penni,
    optimizer: &mut ModuleOptimizer,
    steps: usize,
) -> Net {
    let x = input(&device());
    for _ in 0..steps {
        let gradients = GradientsParams::from_grads(model.loss(&x).backward(), &model);
        let gradients = penni.step(&model, 0.05, optimizer, gradients).unwrap();
        model = penni
            .compose(optimizer.step(0.05, model, gradients))
            .unwrap();
    }
    model
}

fn start(plan: &PenniPlan, config: PenniConfig) -> (Net, Penni) {
    let model = Net::new(&device());
    let penni = Penni::new(&model, plan, config).unwrap();
    (penni.compose(model).unwrap(), penni)
}

fn loss(model: &Net) -> f64 {
    f64::from(model.loss(&input(&device())).into_scalar::<f32>())
}

#[test]
fn the_model_holds_the_products() {
    let original = Net::new(&device());
    let (model, penni) = start(&PenniPlan::new(3).with_pointwise(true), PenniConfig::new());
    let shared = penni.shared().unwrap();
    let paths: Vec<&str> = shared.iter().map(|(path, _)| path.as_str()).collect();
    assert_eq!(paths, ["body.weight", "pointwise.weight", "wide.weight"]);
    for (path, shared) in &shared {
        assert_near(&get(&model, path), &shared.reconstruct(), path);
    }
    // All others are as they were, and so are the ids.
    assert_eq!(get(&model, "stem.weight"), get(&original, "stem.weight"));
    assert_eq!(
        get(&model, "pointwise.weight"),
        get(&original, "pointwise.weight")
    );
    let composed = penni.compose(original.clone()).unwrap();
    assert_eq!(composed.body.weight.id, original.body.weight.id);
    assert!(composed.body.weight.val().is_require_grad());
    assert!(
        !penni
            .compose(original.clone().no_grad())
            .unwrap()
            .body
            .weight
            .is_require_grad()
    );

    let error = penni.compose(original.body).unwrap_err();
    assert!(
        matches!(
            error,
            PenniError::Weights(AdmmError::Model { found: None, .. })
        ),
        "{error}"
    );
}

/// The step of plain descent at rate one is the gradient; finite differences of the loss agree.
#[test]
fn gradients_are_those_of_the_factors() {
    let lambda = 1e-2;
    let plan = PenniPlan::new(3).with_pointwise(true);
    let config = PenniConfig::new().with_lambda(lambda).with_interval(1);
    for phase in [Phase::Coefficients, Phase::Basis] {
        let (model, mut penni) = start(&plan, config);
        if phase == Phase::Basis {
            assert_eq!(penni.end_epoch().unwrap(), phase);
        }
        let before = penni.shared().unwrap();
        let gradients =
            GradientsParams::from_grads(model.loss(&input(&device())).backward(), &model);
        let mut plain = SgdConfig::new().init();
        let others = penni.step(&model, 1.0, &mut plain, gradients).unwrap();
        assert!(others.get::<4>(model.body.weight.id).is_none());
        assert!(others.get::<4>(model.stem.weight.id).is_some());
        let after = penni.shared().unwrap();
        for (index, (path, old)) in before.iter().enumerate() {
            let moves_a = phase == Phase::Coefficients || path == "pointwise.weight";
            for (coefficients, values, moved) in [
                (true, old.coefficients(), after[index].1.coefficients()),
                (false, old.basis(), after[index].1.basis()),
            ] {
                if coefficients != moves_a {
                    assert_eq!(values, moved, "{path} rests");
                    continue;
                }
                for at in (0..values.len()).step_by(1 + values.len() / 7) {
                    let h = 1e-2;
                    let with = |by: f32| {
                        let (mut a, mut m) = (old.coefficients().to_vec(), old.basis().to_vec());
                        (if coefficients { &mut a } else { &mut m })[at] += by;
                        let shared = SharedKernels::new(old.shape(), old.count(), a, m).unwrap();
                        loss(&set(model.clone(), path, shared.reconstruct()))
                    };
                    let mut expected = (with(h) - with(-h)) / f64::from(2.0 * h);
                    if coefficients {
                        expected += lambda * f64::from(values[at].signum());
                    }
                    let found = f64::from(values[at] - moved[at]);
                    assert!(
                        (found - expected).abs() < 2e-4,
                        "{path} {at}: {found} {expected}"
                    );
                }
            }
        }
    }
}

#[test]
fn a_factor_at_rest_does_not_move_though_it_has_momentum_and_decay() {
    let config = PenniConfig::new().with_lambda(1e-3).with_interval(1);
    let (model, mut penni) = start(&PenniPlan::new(4), config);
    let mut optimizer = sgd();
    let model = train(model, &mut penni, &mut optimizer, 4);
    let at = |penni: &Penni| penni.shared().unwrap().swap_remove(0).1;
    let first = at(&penni);
    assert_eq!(penni.end_epoch().unwrap(), Phase::Basis);
    // The coefficients have momentum now, and would decay.
    let model = train(model, &mut penni, &mut optimizer, 4);
    let second = at(&penni);
    assert_eq!(first.coefficients(), second.coefficients());
    assert_ne!(first.basis(), second.basis());
    assert_eq!(penni.end_epoch().unwrap(), Phase::Coefficients);
    // At rest they are orthonormal again, and the weights are what they were.
    let resting = at(&penni);
    assert_near(&resting.reconstruct(), &second.reconstruct(), "turned");
    train(model, &mut penni, &mut optimizer, 4);
    assert_eq!(at(&penni).basis(), resting.basis());
    assert_ne!(at(&penni).coefficients(), resting.coefficients());
    assert_eq!(penni.epochs(), 2);
}

#[test]
fn training_lowers_the_loss_and_the_penalty_the_coefficients() {
    let sums = [0.0, 3e-2].map(|lambda| {
        let config = PenniConfig::new().with_lambda(lambda).with_interval(1);
        let (mut model, mut penni) = start(&PenniPlan::new(4), config);
        let mut optimizer = sgd();
        let before = loss(&model);
        for _ in 0..4 {
            model = train(model, &mut penni, &mut optimizer, 15);
            penni.end_epoch().unwrap();
        }
        assert!(loss(&model) < 0.5 * before, "{before} {}", loss(&model));
        let shared = penni.shared().unwrap();
        let sum: f64 = shared
            .iter()
            .flat_map(|(_, s)| s.coefficients())
            .map(|a| f64::from(a.abs()))
            .sum();
        assert!((penni.penalty().unwrap() - lambda * sum).abs() < 1e-9);
        sum
    });
    assert!(sums[1] < 0.7 * sums[0], "{sums:?}");
}

#[test]
fn small_coefficients_become_zero_and_stay_it() {
    for optimizer in [sgd, || AdamConfig::new().init()] {
        let config = PenniConfig::new().with_interval(1).with_threshold(1.0);
        let plan = PenniPlan::new(5).with_pointwise(true);
        let (model, mut penni) = start(&plan, config);
        let mut moving = optimizer();
        let model = train(model, &mut penni, &mut moving, 3);
        penni.end_epoch().unwrap();
        let model = train(model, &mut penni, &mut moving, 3);
        let unpruned = penni.shared().unwrap();
        let report = penni.prune().unwrap();
        assert_eq!(
            (penni.phase(), penni.penalty().unwrap()),
            (Phase::Tuning, 0.0)
        );
        let pruned = penni.shared().unwrap();
        for ((path, old), (_, new)) in unpruned.iter().zip(&pruned) {
            let layer = report.layer(path).unwrap();
            // Pruning was by the coefficients of orthonormal kernels.
            let old = if old.shape().positions() > 1 {
                old.orthonormal()
            } else {
                old.clone()
            };
            let a = old.coefficients();
            let n = a.len() as f64;
            let mean = a.iter().map(|&a| f64::from(a)).sum::<f64>() / n;
            let std = (a
                .iter()
                .map(|&a| (f64::from(a) - mean).powi(2))
                .sum::<f64>()
                / n)
                .sqrt();
            for (&old, &new) in a.iter().zip(new.coefficients()) {
                assert_eq!(new, if f64::from(old.abs()) < std { 0.0 } else { old });
            }
            let zeros = new.coefficients().iter().filter(|&&a| a == 0.0).count();
            assert_eq!(layer.nnz, layer.coefficients - zeros);
            // Of a normal distribution two thirds.
            assert!(
                (0.4..0.9).contains(&(zeros as f64 / n)),
                "{path}: {zeros} of {n}"
            );
        }
        assert!(report.to_string().contains("of the coefficients are zero"));
        assert_eq!(report.parameters()[0], 8 * 6 * 9 + 8 * 4 + 4 * 5 * 6);

        // The old optimiser has momentum for what has gone.
        let model = penni.compose(model).unwrap();
        let model = train(model, &mut penni, &mut moving, 5);
        let tuned = penni.shared().unwrap();
        for ((path, old), (_, new)) in pruned.iter().zip(&tuned) {
            let zero = |a: &f32| *a == 0.0;
            let pairs = old.coefficients().iter().zip(new.coefficients());
            pairs.for_each(|(old, new)| assert_eq!(zero(old), zero(new)));
            assert_ne!(old.coefficients(), new.coefficients());
            let moves = old.shape().positions() > 1;
            assert_eq!(old.basis() != new.basis(), moves, "{path}");
            assert_near(&get(&model, path), &new.reconstruct(), path);
        }
        assert_eq!(penni.end_epoch().unwrap(), Phase::Tuning);
        let again = penni.prune().unwrap();
        assert!(again.sparsity() >= report.sparsity());
        let kept = tuned[0].1.basis();
        assert_eq!(penni.shared().unwrap()[0].1.basis(), kept);
    }
}

#[test]
fn frozen_layers_stay_and_divergence_has_a_name() {
    let (mut model, mut penni) = start(&PenniPlan::new(3), PenniConfig::new());
    model.body = model.body.no_grad();
    let before = penni.shared().unwrap();
    let model = train(model, &mut penni, &mut sgd(), 2);
    let after = penni.shared().unwrap();
    assert_eq!(before[0], after[0]);
    assert_ne!(before[1], after[1]);

    let mut gradients = GradientsParams::new();
    let dims = model.wide.weight.dims();
    let nan = Tensor::<4>::full(dims, f32::NAN, &Device::flex());
    gradients.register(model.wide.weight.id, nan);
    penni.step(&model, 0.1, &mut sgd(), gradients).unwrap();
    let error = penni.prune().unwrap_err();
    let named = matches!(&error, PenniError::NonFinite { path, .. } if path == "wide.weight");
    assert!(named, "{error}");
}
