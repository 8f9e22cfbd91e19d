use std::path::Path;

use burn::module::Module;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{Linear, LinearConfig};
use burn::optim::{GradientsParams, ModuleOptimizer, SgdConfig};
use burn::tensor::{Device, Tensor, TensorData};
use burn_sparse::{Pool, Sparsity};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;
use crate::mask::{Masks, fold};
use crate::plan::Plan;
use crate::projection::projection_of;
use crate::testing::{get, set};

#[derive(Module, Debug)]
struct Net {
    conv: Conv2d,
    fc: Linear,
}

const CONV: &str = "conv.weight";
const FC: &str = "fc.weight";

fn device() -> Device {
    Device::flex().autodiff()
}

fn random(len: usize, seed: u64) -> Vec<f32> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    (0..len).map(|_| rng.random_range(-1.0f32..1.0)).collect()
}

fn net() -> Net {
    let net = Net {
        conv: Conv2dConfig::new([2, 4], [3, 3])
            .with_bias(false)
            .init(&device()),
        fc: LinearConfig::new(4, 3).with_bias(false).init(&device()),
    };
    let net = set(net, CONV, random(72, 1));
    set(net, FC, random(12, 2))
}

fn loss(net: &Net, seed: u64) -> Tensor<1> {
    let x = TensorData::new(random(3 * 2 * 25, 100 + seed), [3, 2, 5, 5]);
    let x = Tensor::<4>::from_data(x, &device());
    let y = net
        .conv
        .forward(x)
        .mean_dim(3)
        .mean_dim(2)
        .flatten::<2>(1, 3);
    (net.fc.forward(y) - 1.0).square().mean()
}

fn plan() -> Plan {
    Plan::kernel_patterns(0.75, 2)
        .unwrap()
        .with_sparsity(FC, Sparsity::row_balanced(0.5).unwrap())
        .unwrap()
        .with_first_convolution_kept(false)
}

fn config() -> ClickTrainConfig {
    ClickTrainConfig {
        patterns_at: 4,
        prune_at: 8,
        lambda: 0.05,
        decay: 0.5,
    }
}

fn train(
    mut net: Net,
    click: &mut ClickTrain,
    optimizer: &mut ModuleOptimizer,
    steps: core::ops::Range<u64>,
) -> Net {
    for step in steps {
        let mut total = loss(&net, step);
        if let Some(penalty) = click.penalty(&net) {
            total = total + penalty;
        }
        let gradients = GradientsParams::from_grads(total.backward(), &net);
        click.observe(&net, &gradients);
        net = optimizer.step(0.05, net, gradients);
        net = click.step(net).unwrap();
    }
    net
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

#[test]
fn importance_is_the_mean_of_squared_changes() {
    let mut net = net();
    let mut click = ClickTrain::new(&net, &plan(), config()).unwrap();
    let mut optimizer = SgdConfig::new().init();
    let mut expected = vec![0.0f64; 72];
    for step in 0..3 {
        let gradients = GradientsParams::from_grads(loss(&net, step).backward(), &net);
        let gradient = gradients.get::<4>(net.conv.weight.id).unwrap();
        let gradient = gradient.into_data().try_to_vec::<f32>().unwrap();
        for ((sum, g), w) in expected.iter_mut().zip(gradient).zip(get(&net, CONV)) {
            let now = (f64::from(g) * f64::from(w)).powi(2);
            *sum = if step == 0 {
                0.5 * now
            } else {
                0.5 * *sum + 0.5 * now
            };
        }
        click.observe(&net, &gradients);
        net = optimizer.step(0.05, net, gradients);
        net = click.step(net).unwrap();
    }
    let importance = click.layers[0].importance.clone().unwrap();
    let importance = importance.into_data().try_to_vec::<f32>().unwrap();
    for (got, expected) in importance.iter().zip(expected) {
        assert!(
            (f64::from(*got) - expected).abs() <= 1e-5 * expected.max(1e-12),
            "{got} {expected}"
        );
    }
}

#[test]
fn masks_keep_what_is_important_by_patterns_found_then() {
    let net = net();
    let mut click = ClickTrain::new(&net, &plan(), config()).unwrap();
    let before = click.plan().clone();
    let net = train(net, &mut click, &mut SgdConfig::new().init(), 0..4);
    assert_eq!(click.stage(), Stage::Regularised);
    let masks = click.masks().unwrap();
    for (spec, layer) in click.plan().layers().iter().zip(&click.layers) {
        let importance = layer.importance.clone().unwrap().into_data();
        let roots: Vec<f32> = importance.iter::<f32>().map(f32::sqrt).collect();
        let roots = spec.view.gather(&roots);
        let kept = projection_of(spec.sparsity).unwrap();
        let kept = kept.project(&roots, spec.view.shape()).unwrap();
        let mask = masks.layer(&spec.path).unwrap();
        assert_eq!(spec.view.gather(&mask.keep), kept.mask, "{}", spec.path);
        assert_eq!(mask.nnz(), spec.nnz);
    }
    let pool = |plan: &crate::plan::ResolvedPlan| match plan.layer(CONV).unwrap().sparsity {
        Sparsity::KernelPattern {
            pool: Pool::Given(pool),
            ..
        } => pool,
        other => panic!("{other}"),
    };
    assert_eq!(pool(click.plan()).len(), 2);
    assert_ne!(pool(&before), pool(click.plan()), "found in other weights");
    drop(net);
}

#[test]
fn the_penalty_is_a_group_lasso_with_its_gradient() {
    let net = net();
    let mut click = ClickTrain::new(&net, &plan(), config()).unwrap();
    assert!(click.penalty(&net).is_none(), "not in the warm-up");
    let net = train(net, &mut click, &mut SgdConfig::new().init(), 0..4);
    let masks = click.masks().unwrap();
    let naive = |net: &Net| {
        let mut sum = 0.0f64;
        for (path, positions) in [(CONV, 9), (FC, 1)] {
            let keep = &masks.layer(path).unwrap().keep;
            let weights = get(net, path);
            for (kernel, keep) in weights.chunks(positions).zip(keep.chunks(positions)) {
                let outside = kernel.iter().zip(keep).filter(|(_, keep)| !**keep);
                sum += outside
                    .map(|(&w, _)| f64::from(w).powi(2))
                    .sum::<f64>()
                    .sqrt();
            }
        }
        0.05 * sum
    };
    let penalty = click.penalty(&net).unwrap();
    let value = f64::from(penalty.clone().into_scalar::<f32>());
    assert!((value - naive(&net)).abs() < 1e-5, "{value}");

    let gradients = GradientsParams::from_grads(penalty.backward(), &net);
    let gradient = gradients.get::<4>(net.conv.weight.id).unwrap();
    let gradient = gradient.into_data().try_to_vec::<f32>().unwrap();
    let weights = get(&net, CONV);
    let mut largest = 0.0f64;
    for at in (0..72).step_by(5) {
        let moved = |by: f32| {
            let mut weights = weights.clone();
            weights[at] += by;
            naive(&set(net.clone(), CONV, weights))
        };
        let difference = (moved(1e-2) - moved(-1e-2)) / 2e-2;
        let got = f64::from(gradient[at]);
        largest = largest.max(got.abs());
        assert!((got - difference).abs() < 2e-3, "{at}: {got} {difference}");
        if masks.layer(CONV).unwrap().keep[at] {
            assert!(got.abs() < 1e-6, "{at}: {got}");
        }
    }
    assert!(largest > 1e-3, "the penalty has a gradient");
}

#[test]
fn a_run_ends_pruned_and_stays_so() {
    let dropped = |lambda: f64| {
        let net = net();
        let config = config().with_lambda(lambda);
        let mut click = ClickTrain::new(&net, &plan(), config).unwrap();
        let mut optimizer = SgdConfig::new().init();
        let net = train(net, &mut click, &mut optimizer, 0..7);
        let masks = click.masks().unwrap();
        let keep = &masks.layer(CONV).unwrap().keep;
        let weights = get(&net, CONV);
        let outside = weights.iter().zip(keep).filter(|(_, keep)| !**keep);
        let size = outside.map(|(w, _)| w.abs()).sum::<f32>();
        let net = train(net, &mut click, &mut optimizer, 7..12);
        assert_eq!(click.stage(), Stage::Pruned);
        assert!(click.penalty(&net).is_none());
        assert_eq!(Masks::attached(&net).nnz(), click.plan().nnz());
        let folded = get(&fold(net), CONV);
        let stay = folded
            .iter()
            .zip(keep)
            .all(|(w, keep)| *keep || w.to_bits() == 0);
        assert!(stay, "{folded:?}");
        size
    };
    let (plain, drawn) = (dropped(0.0), dropped(2.0));
    assert!(drawn < 0.8 * plain, "{drawn} {plain}");
}

#[test]
fn what_cannot_work_is_refused() {
    let net = net();
    let new = |config| ClickTrain::new(&net, &plan(), config).unwrap_err();
    let stages = |patterns_at, prune_at| ClickTrainConfig {
        patterns_at,
        prune_at,
        ..config()
    };
    for (config, reason) in [
        (stages(0, 4), "after 0 steps"),
        (stages(4, 4), "attached after 4"),
        (config().with_lambda(f64::NAN), "lambda"),
        (config().with_lambda(-1.0), "lambda"),
        (config().with_decay(1.0), "decay"),
    ] {
        let error = new(config).to_string();
        assert!(error.contains(reason), "{reason}: {error}");
    }
    let dense = ClickTrain::new(&net, &Plan::dense(), config());
    assert!(matches!(dense, Err(ClickTrainError::NothingConstrained)));

    let mut click = ClickTrain::new(&net, &plan(), stages(1, 2)).unwrap();
    let error = click.step(net.clone()).unwrap_err().to_string();
    assert!(error.contains(CONV) && error.contains("observe"), "{error}");
}

#[test]
fn a_resumed_run_is_the_same_bit_for_bit() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("click.safetensors");
    let whole = {
        let net = net();
        let mut click = ClickTrain::new(&net, &plan(), config()).unwrap();
        get(
            &train(net, &mut click, &mut SgdConfig::new().init(), 0..11),
            CONV,
        )
    };
    for stop in [0, 2, 4, 6, 9] {
        let net = net();
        let mut click = ClickTrain::new(&net, &plan(), config()).unwrap();
        let net = train(net, &mut click, &mut SgdConfig::new().init(), 0..stop);
        click.save(&path).unwrap();
        let mut resumed = ClickTrain::resume(&net, &plan(), config(), &path).unwrap();
        assert_eq!((resumed.steps(), resumed.plan()), (stop, click.plan()));
        // Plain gradient descent has no state of its own.
        let net = train(net, &mut resumed, &mut SgdConfig::new().init(), stop..11);
        assert_eq!(bits(&get(&net, CONV)), bits(&whole), "stopped after {stop}");
    }
}

#[test]
fn broken_states_are_refused() {
    let start = net();
    let mut click = ClickTrain::new(&start, &plan(), config()).unwrap();
    let net = train(start, &mut click, &mut SgdConfig::new().init(), 0..5);
    let bytes = click.to_bytes().unwrap();
    let restore = |bytes: Vec<u8>, config| {
        let mut fresh = ClickTrain::new(&net, &plan(), config).unwrap();
        fresh.restore_bytes(Path::new("state"), bytes, |_| Device::flex())
    };
    restore(bytes.clone(), config()).unwrap();
    for cut in [0, 7, 20, bytes.len() / 2, bytes.len() - 1] {
        assert!(
            restore(bytes[..cut].to_vec(), config()).is_err(),
            "cut at {cut}"
        );
    }
    for at in (0..bytes.len()).step_by(97) {
        let mut flipped = bytes.clone();
        flipped[at] ^= 4;
        assert!(restore(flipped, config()).is_err(), "flipped {at}");
    }
    let later = ClickTrainConfig {
        patterns_at: 7,
        ..config()
    };
    let error = restore(bytes, later).unwrap_err().to_string();
    assert!(error.contains("after 5 steps masks were chosen"), "{error}");
}
