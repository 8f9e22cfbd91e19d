//! Patterns that do not fit every weight, and pools found in the network.

use burn::tensor::TensorData;
use burn_sparse::{PatternPool, Pool};

use super::*;

#[derive(Module, Debug)]
struct Net {
    stem: Conv2d,
    wide: Conv2d,
    point: Conv2d,
    up: ConvTranspose2d,
    fc: Linear,
    head: Linear,
}

fn net() -> Net {
    let device = Device::flex();
    let conv = |i, o, k| Conv2dConfig::new([i, o], [k, k]).init(&device);
    Net {
        stem: conv(3, 8, 3),
        wide: conv(8, 16, 3),
        point: conv(16, 8, 1),
        up: ConvTranspose2dConfig::new([8, 4], [3, 3]).init(&device),
        fc: LinearConfig::new(20, 30).init(&device),
        head: LinearConfig::new(30, 10).init(&device),
    }
}

/// A network whose kernels all prefer the given positions (with the centre), but for some.
fn preferring(most: [usize; 3], some: [usize; 3], every: usize) -> Net {
    let mut net = net();
    let device = Device::flex();
    let kernels = |count: usize, first: usize| {
        (0..count).flat_map(move |kernel| {
            let positions = if (first + kernel).is_multiple_of(every) {
                some
            } else {
                most
            };
            (0..9).map(move |p| f32::from(u8::from(positions.contains(&p))) + 0.125)
        })
    };
    let wide: Vec<f32> = kernels(128, 0).collect();
    let up: Vec<f32> = kernels(32, 0).collect();
    let wide = Tensor::from_data(TensorData::new(wide, [16, 8, 3, 3]), &device);
    let up = Tensor::from_data(TensorData::new(up, [8, 4, 3, 3]), &device);
    net.wide.weight = Param::from_tensor(wide);
    net.up.weight = Param::from_tensor(up);
    net
}

const A: u16 = 0b0_0011_1010;
const B: u16 = 0b1_1011_0000;

fn pool(plan: &ResolvedPlan, path: &str) -> PatternPool {
    match plan.layer(path).unwrap().sparsity {
        Sparsity::KernelPattern {
            pool: Pool::Given(pool),
            ..
        } => pool,
        other => panic!("{path} has {other:?}"),
    }
}

#[test]
fn kernel_patterns_go_where_kernels_are_three_by_three() {
    let plan = Plan::kernel_patterns(0.75, 4).unwrap();
    let net = net();
    let resolved = plan.resolve(&net).unwrap();
    let kinds: Vec<&str> = resolved
        .layers()
        .iter()
        .map(|l| l.sparsity.name())
        .collect();
    assert_eq!(
        names(&resolved),
        ["wide.weight", "point.weight", "up.weight", "fc.weight"]
    );
    let connectivity = "connectivity";
    assert_eq!(
        kinds,
        [
            "kernel-pattern",
            connectivity,
            "kernel-pattern",
            connectivity
        ]
    );
    for layer in resolved.layers() {
        let sparsity = 1.0 - layer.nnz as f64 / layer.weights() as f64;
        assert!((sparsity - 0.75).abs() < 0.02, "{}: {sparsity}", layer.path);
        let patterns = layer.path.starts_with("wide") || layer.path.starts_with("up");
        assert_eq!(layer.patterns, patterns.then_some(4));
    }
    let why = plan.explain(&net).unwrap();
    let reason = &why.parameter("point.weight").unwrap().reason;
    assert_eq!(reason, "default, other kernels");
    // Both say the same, and JSON keeps it.
    assert_eq!(Plan::from_json(&plan.to_json()).unwrap(), plan);
    assert!(!Plan::new(half()).to_json().contains("other_kernels"));
}

#[test]
fn kernel_patterns_elsewhere_are_refused_by_name() {
    let patterns = Sparsity::kernel_pattern(0.75, 4).unwrap();
    let plan = Plan::new(patterns);
    let error = plan.resolve(&net()).unwrap_err();
    let text = error.to_string();
    assert!(
        matches!(&error, PlanError::Unfit { path, .. } if path == "point.weight"),
        "{text}"
    );
    assert!(
        text.contains("8×16") && text.contains("by default"),
        "{text}"
    );
    assert!(text.contains("use connectivity in a rule"), "{text}");
    assert!(plan.explain(&net()).is_err());
    // The rule that it advises.
    let ruled = plan
        .with_sparsity("point.weight", half())
        .and_then(|plan| plan.with_dense("fc.weight"))
        .unwrap();
    assert_eq!(ruled.resolve(&net()).unwrap().layers().len(), 3);
    // Named, it is refused whatever holds for other kernels.
    let named = Plan::kernel_patterns(0.75, 4)
        .unwrap()
        .with_sparsity("point.weight", patterns)
        .unwrap();
    let error = named.resolve(&net()).unwrap_err().to_string();
    assert!(
        error.contains("by its own rule") && error.ends_with("use connectivity"),
        "{error}"
    );
}

#[test]
fn blocks_and_rates_that_do_not_fit_are_refused_by_name() {
    let refused = |plan: Plan| {
        let error = plan.resolve(&net()).unwrap_err();
        match &error {
            PlanError::Unfit { path, .. } => (path.clone(), error.to_string()),
            other => panic!("{other}"),
        }
    };
    let (path, text) = refused(Plan::new(Sparsity::punched(0.5, [8, 4]).unwrap()));
    assert_eq!(path, "up.weight", "{text}");
    assert!(text.contains("blocks of 8×4"), "{text}");
    let (path, _) = refused(Plan::new(Sparsity::block_column_row(0.5, [16, 8]).unwrap()));
    assert_eq!(path, "point.weight");
    let (path, text) = refused(Plan::new(Sparsity::filter(0.95).unwrap()));
    assert_eq!(path, "point.weight");
    assert!(text.contains("8 output channels"), "{text}");
    assert!(text.contains("a rule for this parameter"), "{text}");
}

#[test]
fn one_group_is_kept_of_layers_that_a_rate_would_empty() {
    let net = net();
    // The smallest layer of eight output channels, sixteen inputs and one position, and what one group of it is.
    let kernels = Sparsity::connectivity(0.999).unwrap();
    for (sparsity, path, group) in [
        (Sparsity::filter(0.95).unwrap(), "point.weight", 16),
        (Sparsity::channel(0.99).unwrap(), "point.weight", 8),
        (Sparsity::column(0.99).unwrap(), "point.weight", 8),
        (kernels, "point.weight", 1),
        (
            Sparsity::punched(0.999, [4, 4]).unwrap(),
            "point.weight",
            16,
        ),
        (Sparsity::kernel_pattern(0.995, 4).unwrap(), "up.weight", 4),
    ] {
        let plan = Plan::dense().with_sparsity(path, sparsity).unwrap();
        let error = plan.resolve(&net).unwrap_err();
        assert!(
            matches!(&error, PlanError::Unfit { path: at, .. } if at == path),
            "{sparsity:?}: {error}"
        );
        let plan = plan.with_one_group_kept(true);
        let layer = plan.resolve(&net).unwrap().layer(path).unwrap().clone();
        assert_eq!(layer.nnz, group, "{sparsity:?}");
        // JSON keeps what was asked for, and an explanation says where it took effect.
        assert_eq!(Plan::from_json(&plan.to_json()).unwrap(), plan);
        let explained = plan.explain(&net).unwrap();
        let reason = &explained.parameter(path).unwrap().reason;
        assert!(reason.ends_with("one group kept"), "{reason}");
        // Projected, one group of the weight is left.
        let kept = crate::Masks::project(&net, &plan.resolve(&net).unwrap()).unwrap();
        let kept = kept.layers()[0].keep.iter().filter(|&&keep| keep).count();
        assert_eq!(kept, group, "{sparsity:?}");
    }
    // A rate that leaves something is not touched.
    let half = Plan::new(Sparsity::filter(0.5).unwrap());
    let asked = half.clone().with_one_group_kept(true);
    let nnz = |plan: Plan| -> Vec<usize> {
        let resolved = plan.resolve(&net).unwrap();
        resolved.layers().iter().map(|layer| layer.nnz).collect()
    };
    assert_eq!(nnz(asked), nnz(half));
}

#[test]
fn empty_pools_are_refused_by_name() {
    for patterns in [0, 17] {
        let sparsity = Sparsity::KernelPattern {
            pool: Pool::Found(patterns),
            budget: Budget::Sparsity(0.5),
        };
        let error = Plan::new(sparsity).resolve(&net()).unwrap_err();
        assert!(
            matches!(&error, PlanError::Budget { path, source: SparseError::PatternPool(_), .. }
                if path == "wide.weight"),
            "{error}"
        );
    }
    assert!(Plan::kernel_patterns(0.5, 0).is_err());
}

#[test]
fn pools_are_found_in_all_layers_that_ask_together() {
    let net = preferring([1, 3, 5], [5, 7, 8], 5);
    let plan = Plan::kernel_patterns(0.8, 1)
        .unwrap()
        .with_sparsity("up.weight", Sparsity::kernel_pattern(0.8, 3).unwrap())
        .unwrap();
    let resolved = plan.resolve(&net).unwrap();
    assert_eq!(pool(&resolved, "wide.weight").masks(), [A]);
    // Only two occur.
    assert_eq!(pool(&resolved, "up.weight").masks(), [A, B]);
    assert_eq!(resolved.layer("up.weight").unwrap().patterns, Some(3));
    // A layer's own preference gives way to that of all.
    let net = preferring([5, 7, 8], [1, 3, 5], 3);
    let resolved = plan.resolve(&net).unwrap();
    assert_eq!(pool(&resolved, "up.weight").masks(), [B, A]);
    // Given pools are not touched.
    let given = PatternPool::from_masks(&[A]).unwrap();
    let sparsity = Sparsity::KernelPattern {
        pool: Pool::Given(given),
        budget: Budget::Sparsity(0.5),
    };
    let plan = plan.with_sparsity("up.weight", sparsity).unwrap();
    let resolved = plan.resolve(&net).unwrap();
    assert_eq!(pool(&resolved, "up.weight"), given);
    assert_eq!(resolved.layer("up.weight").unwrap().patterns, None);
}

#[test]
fn weights_without_patterns_are_named() {
    let mut net = net();
    net.wide.weight = net.wide.weight.map(|weight| weight.mul_scalar(f32::NAN));
    let plan = Plan::kernel_patterns(0.8, 4).unwrap();
    let error = plan.resolve(&net).unwrap_err();
    assert!(
        matches!(&error, PlanError::NonFinite { path, index: 0, .. } if path == "wide.weight"),
        "{error}"
    );
    // Nothing is read where nothing is to be found.
    assert!(plan.explain(&net).is_ok());
    assert!(Plan::new(half()).resolve(&net).is_ok());
}
