use std::path::Path;

use burn::module::Module;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{Linear, LinearConfig};
use burn::tensor::{Device, Tensor};
use burn_sparse::{PatternPool, Pool, Sparsity};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;
use crate::Plan;
use crate::admm::{AdmmError, StateError};
use crate::mask::{Masks, fold};
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

fn net(seed: u64) -> Net {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut random = |len| (0..len).map(|_| rng.random_range(-1.0f32..1.0)).collect();
    let net = Net {
        conv: Conv2dConfig::new([3, 4], [3, 3]).init(&device()),
        fc: LinearConfig::new(7, 5).init(&device()),
    };
    let net = set(net, CONV, random(108));
    set(net, FC, random(35))
}

fn plan(sparsity: Sparsity) -> Plan {
    Plan::new(sparsity)
        .with_first_convolution_kept(false)
        .with_last_linear_kept(false)
}

fn config() -> ReweightedConfig {
    ReweightedConfig::new().with_lambda(0.05).with_epsilon(0.02)
}

/// The groups of every pattern on `conv`, by the indices of their entries, said without the module.
fn groups(sparsity: Sparsity, weights: &[f32]) -> Vec<Vec<usize>> {
    let at = |i: usize| (i / 27, i % 27, i % 27 / 9, i % 9);
    let by = |key: &dyn Fn(usize) -> (usize, usize, usize)| {
        let mut groups = std::collections::BTreeMap::<_, Vec<usize>>::new();
        (0..108).for_each(|i| groups.entry(key(i)).or_default().push(i));
        groups.into_values().collect::<Vec<_>>()
    };
    match sparsity {
        Sparsity::Filter(_) => by(&|i| (at(i).0, 0, 0)),
        Sparsity::Channel(_) => by(&|i| (at(i).2, 0, 0)),
        Sparsity::Column(_) => by(&|i| (at(i).1, 0, 0)),
        Sparsity::Connectivity(_) => by(&|i| (at(i).0, at(i).2, 0)),
        Sparsity::Punched {
            filters, channels, ..
        } => by(&|i| (at(i).0 / filters, at(i).2 / channels, at(i).3)),
        Sparsity::BlockColumnRow { block, .. } => {
            let mut rows = by(&|i| (at(i).0, at(i).1 / block[1], 0));
            rows.extend(by(&|i| (at(i).0 / block[0], at(i).1, 0)));
            rows
        }
        Sparsity::KernelPattern {
            pool: Pool::Given(pool),
            ..
        } => {
            let energy = |kernel: usize, mask: u16| -> f64 {
                let kept = (0..9).filter(|p| mask >> p & 1 == 1);
                kept.map(|p| f64::from(weights[9 * kernel + p]).powi(2))
                    .sum()
            };
            let best = |kernel: usize| {
                let mut masks = pool.masks().to_vec();
                masks.sort_by(|&a, &b| energy(kernel, b).total_cmp(&energy(kernel, a)));
                masks[0]
            };
            by(&|i| (i / 9, usize::from(best(i / 9) >> (i % 9) & 1), 0))
        }
        other => panic!("{other}"),
    }
}

fn patterns() -> Vec<Sparsity> {
    let pool = PatternPool::new([[1, 3, 4, 5], [4, 5, 7, 8], [0, 1, 3, 4]]).unwrap();
    vec![
        Sparsity::filter(0.5).unwrap(),
        Sparsity::channel(0.5).unwrap(),
        Sparsity::column(0.5).unwrap(),
        Sparsity::connectivity(0.5).unwrap(),
        Sparsity::punched(0.5, [3, 2]).unwrap(),
        Sparsity::block_column_row(0.5, [3, 5]).unwrap(),
        Sparsity::KernelPattern {
            pool: Pool::Given(pool),
            budget: burn_sparse::Budget::Sparsity(0.5),
        },
    ]
}

/// Nothing but the convolution.
fn on_conv(sparsity: Sparsity) -> Plan {
    Plan::dense().with_sparsity(CONV, sparsity).unwrap()
}

fn scalar(tensor: Tensor<1>) -> f64 {
    tensor.into_scalar::<f32>().into()
}

#[test]
fn penalty_and_gradient_follow_their_definition() {
    for sparsity in patterns() {
        let start = net(1);
        let mut reweighted = Reweighted::new(&start, &on_conv(sparsity), config()).unwrap();
        let at_refresh = net(2);
        reweighted.refresh(&at_refresh).unwrap();
        assert_eq!(reweighted.refreshes(), 1);
        let old = get(&at_refresh, CONV);
        let energy = |w: &[f32], group: &[usize]| -> f64 {
            group.iter().map(|&i| f64::from(w[i]).powi(2)).sum()
        };
        let groups: Vec<(f64, Vec<usize>)> = groups(sparsity, &old)
            .into_iter()
            .map(|group| (1.0 / (energy(&old, &group) + 0.02), group))
            .collect();
        let by_hand = |w: &[f32]| -> f64 {
            let terms = groups.iter().map(|(alpha, group)| alpha * energy(w, group));
            0.05 * terms.sum::<f64>()
        };

        // Other weights than those of the refresh: coefficients are constants, norms are not.
        let model = net(3);
        let w = get(&model, CONV);
        let penalty = reweighted.penalty(&model);
        let expected = by_hand(&w);
        // Coefficients rounded to f32, and at most 216 terms summed in f32.
        let rounding = 220.0 * f64::from(f32::EPSILON);
        let value = scalar(penalty.clone());
        assert!(
            (value - expected).abs() <= rounding * expected,
            "{sparsity}: {value} {expected}"
        );

        let grads = penalty.backward();
        let gradient = model.conv.weight.grad(&grads).unwrap().into_data();
        let gradient = gradient.try_to_vec::<f32>().unwrap();
        assert!(
            gradient.iter().all(|&g| g != 0.0),
            "{sparsity}: the gradient vanishes"
        );
        assert!(model.fc.weight.grad(&grads).is_none());
        for i in 0..w.len() {
            let (mut up, mut down) = (w.clone(), w.clone());
            up[i] += 1e-2;
            down[i] -= 1e-2;
            let h = f64::from(up[i]) - f64::from(down[i]);
            // Quadratic: central differences are exact up to rounding.
            let slope = (by_hand(&up) - by_hand(&down)) / h;
            let error = (slope - f64::from(gradient[i])).abs();
            assert!(
                error <= 1e-5 * (1.0 + slope.abs()),
                "{sparsity} {i}: {slope} {}",
                gradient[i]
            );
        }
        // Without autodiff it is just a number.
        assert!((scalar(reweighted.penalty(&model.valid())) - value).abs() <= rounding * value);
    }
}

/// Rows of norm 1 and 0.01.
fn uneven() -> (Linear, Plan) {
    let linear = LinearConfig::new(4, 2).with_bias(false).init(&device());
    // Stored [inputs, outputs].
    let values = (0..8)
        .map(|i| if i % 2 == 0 { 0.5 } else { 0.005 })
        .collect();
    let plan = plan(Sparsity::filter(0.5).unwrap());
    (set(linear, "weight", values), plan)
}

fn norms(model: &Linear) -> [f64; 2] {
    let w = get(model, "weight");
    let norm = |row| {
        let row = w.iter().skip(row).step_by(2);
        row.map(|&w| f64::from(w).powi(2)).sum::<f64>().sqrt()
    };
    [norm(0), norm(1)]
}

#[test]
fn a_small_group_vanishes_while_a_large_one_hardly_moves() {
    let (mut model, plan) = uneven();
    let config = ReweightedConfig::new()
        .with_lambda(0.1)
        .with_learning_rate(0.1)
        .with_epsilon(0.05);
    let mut reweighted = Reweighted::new(&model, &plan, config).unwrap();
    let [large, small] = norms(&model);
    assert!((large - 1.0).abs() < 1e-6 && (small - 0.01).abs() < 1e-8);
    let mut steps = 0;
    while norms(&model)[1] >= 1e-4 {
        steps += 1;
        assert!(steps < 100, "the small group is still {}", norms(&model)[1]);
        let grads = reweighted.penalty(&model).backward();
        let gradient = model.weight.grad(&grads).unwrap();
        model.weight = model
            .weight
            .map(|w| Tensor::from_inner(w.inner() - gradient.mul_scalar(0.1)).require_grad());
        if steps % 5 == 0 {
            reweighted.refresh(&model).unwrap();
        }
    }
    assert!(
        norms(&model)[0] > 0.7,
        "the large group shrank to {}",
        norms(&model)[0]
    );
    let masks = reweighted
        .prune(&model, Threshold::new(0.01).unwrap())
        .unwrap();
    assert_eq!(masks.nnz(), 4);
    assert!(masks.layers()[0].keep.iter().step_by(2).all(|&keep| keep));
}

#[test]
fn settings_that_diverge_are_refused() {
    let model = net(4);
    let unstable = config().with_learning_rate(1.0);
    // The rule is 0.05 per group that a weight is in, and epsilon 0.02.
    for sparsity in patterns() {
        let error = Reweighted::new(&model, &on_conv(sparsity), unstable).unwrap_err();
        let groups = if sparsity.name() == "block column-row" {
            2.0
        } else {
            1.0
        };
        assert!(
            matches!(&error, ReweightedError::Unstable { path, least, .. }
                if path == CONV && (least - 0.05 * groups).abs() < 1e-12),
            "{error}"
        );
        let stable = unstable.with_epsilon(0.05 * groups);
        assert!(Reweighted::new(&model, &on_conv(sparsity), stable).is_ok());
    }
    // What the rule keeps off: a group of norm 0.01 that grows.
    let (model, _) = uneven();
    let step = |epsilon: f64| 1.0 - 2.0 * 0.1 * 0.1 / (norms(&model)[1].powi(2) + epsilon);
    assert!(step(0.005).abs() > 1.0 && step(0.01).abs() < 1.0);
    for bad in [
        config().with_lambda(0.0),
        config().with_epsilon(f64::NAN),
        config().with_learning_rate(-1.0),
    ] {
        assert!(matches!(
            bad.validate(),
            Err(ReweightedError::Config { .. })
        ));
    }
    assert!(Threshold::new(f64::NAN).is_err() && Threshold::new(-0.1).is_err());
    assert!(serde_json::from_str::<Threshold>(r#"{"tau":-1.0}"#).is_err());
    let threshold = Threshold::new(0.25).unwrap().keeping_one();
    let json = serde_json::to_string(&threshold).unwrap();
    assert_eq!(serde_json::from_str::<Threshold>(&json).unwrap(), threshold);
}

#[test]
fn a_threshold_finds_the_rate_of_each_layer() {
    for sparsity in patterns() {
        let model = net(5);
        let w = get(&model, CONV);
        let reweighted = Reweighted::new(&model, &on_conv(sparsity), config()).unwrap();
        let rms = |entries: &[usize]| {
            let squares = entries.iter().map(|&i| f64::from(w[i]).powi(2));
            (squares.sum::<f64>() / entries.len() as f64).sqrt()
        };
        let all: Vec<usize> = (0..108).collect();
        for tau in [0.0, 0.5, 0.9, 1.0, 1.1] {
            let kept = reweighted.prune(&model, Threshold::new(tau).unwrap());
            let mut expected = vec![true; 108];
            for group in groups(sparsity, &w) {
                // Of kernels only the patterns stay, and of a kernel's two groups they are larger.
                let outside =
                    matches!(sparsity, Sparsity::KernelPattern { .. }) && group.len() == 5;
                if outside || rms(&group) < tau * rms(&all) {
                    group.iter().for_each(|&i| expected[i] = false);
                }
            }
            // Groups that are all alike may all be too small.
            match kept {
                Err(error) => assert!(!expected.contains(&true), "{sparsity} above {tau}: {error}"),
                Ok(kept) => {
                    let keep = &kept.layer(CONV).unwrap().keep;
                    assert_eq!(keep, &expected, "{sparsity} above {tau}");
                }
            }
        }
        // So high that nothing reaches it.
        let threshold = Threshold::new(100.0).unwrap();
        let error = reweighted.prune(&model, threshold).unwrap_err();
        assert!(
            matches!(&error, ReweightedError::Empties { path, .. } if path == CONV),
            "{error}"
        );
        let one = reweighted.prune(&model, threshold.keeping_one()).unwrap();
        let keep = &one.layer(CONV).unwrap().keep;
        let kept: Vec<usize> = (0..108).filter(|&i| keep[i]).collect();
        assert!(!kept.is_empty());
        let groups = groups(sparsity, &w);
        let families = if sparsity.name() == "block column-row" {
            2
        } else {
            1
        };
        let around: Vec<_> = groups
            .iter()
            .filter(|g| kept.iter().all(|i| g.contains(i)))
            .collect();
        assert_eq!(around.len(), families, "{sparsity} keeps {kept:?}");
        if families == 1 {
            assert_eq!(around[0], &kept, "{sparsity}");
            assert!(groups.iter().all(|group| rms(group) <= rms(&kept) + 1e-12));
        }
    }
}

#[test]
fn zeros_of_an_attached_mask_stay() {
    let model = net(6);
    let filters = Plan::dense()
        .with_sparsity(CONV, Sparsity::filter(0.5).unwrap())
        .unwrap();
    let first = Masks::project(&model, &filters.resolve(&model).unwrap()).unwrap();
    let model = first.attach(model).unwrap();
    let columns = on_conv(Sparsity::column(0.5).unwrap());
    let reweighted = Reweighted::new(&model, &columns, config()).unwrap();
    let second = reweighted
        .prune(&model, Threshold::new(0.9).unwrap())
        .unwrap();
    let (first, second) = (first.layer(CONV).unwrap(), second.layer(CONV).unwrap());
    assert!(first.keep.iter().zip(&second.keep).all(|(a, b)| *a || !*b));
    assert!(0 < second.nnz() && second.nnz() < first.nnz());
}

#[test]
fn what_has_no_groups_or_does_not_fit_is_named() {
    let model = net(7);
    for sparsity in [
        Sparsity::row_balanced(0.5),
        Sparsity::unstructured(0.5),
        Sparsity::n_of_m(2, 4),
        Sparsity::shared_pattern(0.5, 2),
    ] {
        let error = Reweighted::new(&model, &plan(sparsity.unwrap()), config()).unwrap_err();
        assert!(
            matches!(&error, ReweightedError::NoGroups { path, .. } if path == CONV),
            "{error}"
        );
    }
    let dense = Reweighted::new(&model, &Plan::dense(), config()).unwrap_err();
    assert!(matches!(dense, ReweightedError::NothingConstrained));
    let filters = plan(Sparsity::filter(0.5).unwrap());
    let mut reweighted = Reweighted::new(&model, &filters, config()).unwrap();
    let mut broken = get(&model, FC);
    broken[3] = f32::NAN;
    let broken = set(model.clone(), FC, broken);
    let before = reweighted.coefficients(CONV).unwrap().to_vec();
    for error in [
        reweighted.refresh(&broken).unwrap_err(),
        reweighted
            .prune(&broken, Threshold::new(0.5).unwrap())
            .unwrap_err(),
    ] {
        assert!(
            matches!(&error, ReweightedError::Weights(AdmmError::Projection { path, .. }) if path == FC),
            "{error}"
        );
    }
    assert_eq!(reweighted.coefficients(CONV).unwrap(), before);
    assert!(reweighted.refresh(&model.fc).is_err());
    assert_eq!(fold(model).num_params(), 108 + 4 + 35 + 5);
}

#[test]
#[should_panic(expected = "the model has 0 of the 2 constrained parameters")]
fn the_penalty_of_a_foreign_model_panics() {
    let model = net(8);
    let filters = plan(Sparsity::filter(0.5).unwrap());
    let reweighted = Reweighted::new(&model, &filters, config()).unwrap();
    let _ = reweighted.penalty(&model.fc);
}

fn advanced() -> (Net, Reweighted, Plan) {
    let plan = Plan::kernel_patterns(0.75, 3)
        .unwrap()
        .with_first_convolution_kept(false)
        .with_last_linear_kept(false);
    let mut reweighted = Reweighted::new(&net(9), &plan, config()).unwrap();
    let model = net(10);
    reweighted.refresh(&model).unwrap();
    (model, reweighted, plan)
}

#[test]
fn a_resumed_state_is_bit_equal_and_keeps_its_pool() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("reweighted.safetensors");
    let (model, reweighted, plan) = advanced();
    reweighted.save(&path).unwrap();
    let other = net(11);
    assert_ne!(&plan.resolve(&other).unwrap(), reweighted.plan());
    let resumed = Reweighted::resume(&other, &plan, config(), &path).unwrap();
    assert_eq!(resumed.plan(), reweighted.plan());
    assert_eq!(resumed.refreshes(), 1);
    let bits = |reweighted: &Reweighted| scalar(reweighted.penalty(&model)).to_bits();
    assert_eq!(bits(&resumed), bits(&reweighted));
    let threshold = Threshold::new(0.8).unwrap();
    assert_eq!(
        resumed.prune(&model, threshold).unwrap(),
        reweighted.prune(&model, threshold).unwrap()
    );
    let filters = super::tests::plan(Sparsity::filter(0.5).unwrap());
    let error = Reweighted::resume(&other, &filters, config(), &path).unwrap_err();
    assert!(
        matches!(error, ReweightedError::State(StateError::Mismatch { .. })),
        "{error}"
    );
    let missing = folder.path().join("none");
    assert!(Reweighted::resume(&other, &plan, config(), missing).is_err());
}

#[test]
fn broken_files_are_errors() {
    let (_, mut reweighted, _) = advanced();
    let bytes = reweighted.to_bytes();
    let before = reweighted.coefficients(CONV).unwrap().to_vec();
    for len in 0..bytes.len() {
        let cut = bytes[..len].to_vec();
        assert!(reweighted.restore_bytes(Path::new("x"), cut).is_err());
    }
    for byte in 0..bytes.len() {
        let mut flipped = bytes.clone();
        flipped[byte] ^= 0x10;
        assert!(reweighted.restore_bytes(Path::new("x"), flipped).is_err());
    }
    // A negative coefficient in an otherwise sound file.
    let names: Vec<(String, Vec<usize>)> = (reweighted.plan().layers().iter())
        .map(|layer| (format!("alpha.{}", layer.path), layer.shape.clone()))
        .collect();
    let specs = reweighted.plan().layers().iter();
    let layers: Vec<_> = specs.map(crate::plan::Identity::of).collect();
    let meta = serde_json::json!({"version": 1, "refreshes": 1, "layers": layers}).to_string();
    let values: Vec<Vec<f32>> = (names.iter())
        .map(|(_, shape)| vec![-1.0; shape.iter().product()])
        .collect();
    let tensors: Vec<_> = (names.iter().zip(&values))
        .map(|((name, shape), values)| (name.clone(), &shape[..], &values[..]))
        .collect();
    let sealed = crate::state_file::seal("burn_reweighted", meta, &tensors);
    let error = reweighted
        .restore_bytes(Path::new("x"), sealed)
        .unwrap_err();
    assert!(error.to_string().contains("holds -1"), "{error}");
    // Errors leave the state alone.
    assert_eq!(reweighted.coefficients(CONV).unwrap(), before);
    reweighted.restore_bytes(Path::new("x"), bytes).unwrap();
    assert_eq!(reweighted.coefficients(CONV).unwrap(), before);
}
