use burn::module::Param;

use super::*;
use crate::params::read_base;
use crate::testing::get;
use crate::{Masks, SparsityReport, fold};

fn base(net: &Net, path: &str) -> Vec<f32> {
    read_base(net, |p| p == path).unwrap().remove(0).data
}

#[test]
fn pruned_weights_are_zero_and_train_on_unseen() {
    let mut task = Task::new(config().with_step(0.6).with_layers(1.0));
    task.begin();
    task.batches(1);
    let masks = task.evolution.masks();
    let keep = masks.layer(CONV).unwrap().keep.clone();
    assert!(keep.iter().filter(|&&keep| !keep).count() > 30);
    let before = base(&task.net, CONV);
    for (w, keep) in get(&task.net, CONV).iter().zip(&keep) {
        assert!(*keep || w.to_bits() == 0, "{w}");
    }
    // The gradient of a pruned weight is what it would be if the weight were there, at zero.
    let gradients = GradientsParams::from_grads(loss(&task.net, 9).backward(), &task.net);
    let through = gradients.get::<4>(task.net.conv.weight.id).unwrap();
    let folded = fold(task.net.clone());
    let gradients = GradientsParams::from_grads(loss(&folded, 9).backward(), &folded);
    let dense = gradients.get::<4>(folded.conv.weight.id).unwrap();
    let values = |t: Tensor<4>| t.into_data().try_to_vec::<f32>().unwrap();
    assert_eq!(values(through), values(dense));
    task.batches(1);
    let after = base(&task.net, CONV);
    let moved = |at: &usize| before[*at] != after[*at];
    assert!((0..SIZES[0]).filter(|&at| !keep[at]).filter(moved).count() > 30);
}

#[test]
fn what_has_grown_comes_back() {
    let mut task = Task::new(config().with_step(0.6).with_layers(1.0));
    task.begin();
    task.batches(1);
    let before = task.evolution.masks();
    task.batches(12);
    let after = task.evolution.masks();
    let keeps = |masks: &Masks| masks.layer(CONV).unwrap().keep.clone();
    let pairs: Vec<(bool, bool)> = keeps(&before).into_iter().zip(keeps(&after)).collect();
    assert!(pairs.contains(&(false, true)) && pairs.contains(&(true, false)));
    task.end(0.5);
    let moved = task.evolution.statistics()[0].migration;
    assert!(moved > 0.0 && moved < 2.0, "{moved}");
    assert!(task.evolution.history()[0].migration > 0.0);
}

#[test]
fn the_result_is_an_ordinary_mask() {
    let mut task = Task::new(config());
    for _ in 0..5 {
        task.trial(0.5);
    }
    let nnz = task.evolution.present().nnz;
    let effective = get(&task.net, CONV);
    let net = task.evolution.masks().attach(task.net).unwrap();
    assert_eq!(get(&net, CONV), effective);
    let report = SparsityReport::new(&fold(net.clone())).unwrap();
    let zeros = report.weights - report.nnz;
    assert_eq!(zeros, SIZES[0] + SIZES[1] - nnz);
    // Retraining does not bring anything back.
    let mut optimizer = optimizer();
    let gradients = GradientsParams::from_grads(loss(&net, 1).backward(), &net);
    let net = optimizer.step(0.1, net, gradients);
    assert_eq!(Masks::attached(&net).nnz(), nnz);
    let after = get(&net, CONV);
    let zero = |(a, b): (&f32, &f32)| *a != 0.0 || *b == 0.0;
    assert!(effective.iter().zip(&after).all(zero));
}

#[test]
fn other_patterns_evolve_too() {
    let device = device();
    let plain: Linear = LinearConfig::new(20, 30).with_bias(false).init(&device);
    let x = Tensor::<2>::ones([3, 20], &device);
    for sparsity in [
        Sparsity::row_balanced(0.9),
        Sparsity::column(0.9),
        Sparsity::filter(0.8),
        Sparsity::block_column_row(0.9, [10, 10]),
        Sparsity::punched(0.8, [5, 5]),
    ] {
        let plan = Plan::new(sparsity.unwrap()).with_last_linear_kept(false);
        let config = config().with_step(0.5);
        let mut evolution = Evolution::new(&plain, &plan, config, 0.5).unwrap();
        let mut net = evolution.attach(plain.clone()).unwrap();
        let mut optimizer = optimizer();
        for _ in 0..8 {
            evolution.begin(&net, &optimizer).unwrap();
            let gradients = net.forward(x.clone()).square().mean().backward();
            let gradients = GradientsParams::from_grads(gradients, &net);
            evolution.observe(&net, &gradients).unwrap();
            net = optimizer.step(1e-3, net, gradients);
            evolution.step(&mut net).unwrap();
            evolution.end(&mut net, &mut optimizer, 0.5).unwrap();
        }
        let most = evolution.plan().nnz();
        let name = evolution.plan().layers()[0].sparsity.name();
        assert_eq!(evolution.present().nnz, most, "{name}");
        assert!(Masks::attached(&net).nnz() <= most, "{name}");
    }
}

#[test]
fn earlier_zeros_compete_anew_and_frozen_layers_are_refused() {
    let masked = {
        let net = net();
        let plan = plan().resolve(&net).unwrap();
        Masks::project(&net, &plan).unwrap().attach(net).unwrap()
    };
    let evolution = Evolution::new(&masked, &plan(), config(), 0.5).unwrap();
    let net = evolution.attach(masked.clone()).unwrap();
    assert_eq!(Masks::attached(&net).nnz(), 132);
    assert_eq!(get(&net, CONV), get(&masked, CONV));

    let mut task = Task::new(config());
    task.net.conv.weight = set_frozen(task.net.conv.weight);
    task.begin();
    let gradients = GradientsParams::from_grads(loss(&task.net, 1).backward(), &task.net);
    task.evolution.observe(&task.net, &gradients).unwrap();
    let error = task.evolution.step(&mut task.net).unwrap_err();
    assert!(
        matches!(&error, EvolveError::Unobserved(path) if path == CONV),
        "{error}"
    );
}

fn set_frozen<const D: usize>(param: Param<Tensor<D>>) -> Param<Tensor<D>> {
    param.set_require_grad(false)
}

#[test]
fn without_a_coefficient_gradients_are_not_needed() {
    let mut task = Task::new(config().with_score(1.0, 0.0));
    task.begin();
    task.evolution.step(&mut task.net).unwrap();
    let verdict = task.end(0.5);
    assert!(verdict.kept && verdict.sparsity > 0.0);
}
