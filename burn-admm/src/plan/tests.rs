use burn::module::{Module, Param};
use burn::nn::conv::{Conv2d, Conv2dConfig, ConvTranspose2d, ConvTranspose2dConfig};
use burn::nn::{
    BatchNorm, BatchNormConfig, Embedding, EmbeddingConfig, Linear, LinearConfig, LinearLayout,
};
use burn::tensor::{Device, Tensor};
use burn_sparse::{Budget, SparseError, Sparsity};

use super::*;
use crate::Role;

mod structured;

#[derive(Module, Debug)]
struct Odd {
    scores: Param<Tensor<3>>,
}

#[derive(Module, Debug)]
struct Net {
    embedding: Embedding,
    conv1: Conv2d,
    norm: BatchNorm,
    blocks: Vec<Conv2d>,
    up: ConvTranspose2d,
    odd: Odd,
    fc1: Linear,
    fc2: Linear,
    scale: Param<Tensor<1>>,
}

fn net() -> Net {
    let device = Device::flex();
    let conv = |i, o| Conv2dConfig::new([i, o], [3, 3]).init(&device);
    Net {
        embedding: EmbeddingConfig::new(10, 4).init(&device),
        conv1: conv(3, 8),
        norm: BatchNormConfig::new(8).init(&device),
        blocks: vec![conv(8, 8), conv(8, 16)],
        up: ConvTranspose2dConfig::new([16, 6], [2, 2]).init(&device),
        odd: Odd {
            scores: Param::from_tensor(Tensor::ones([5, 2, 3], &device)),
        },
        fc1: LinearConfig::new(20, 30)
            .with_layout(LinearLayout::Col)
            .init(&device),
        fc2: LinearConfig::new(30, 10).init(&device),
        scale: Param::from_tensor(Tensor::ones([4], &device)),
    }
}

fn half() -> Sparsity {
    Sparsity::row_balanced(0.5).unwrap()
}

fn names(plan: &ResolvedPlan) -> Vec<&str> {
    plan.layers()
        .iter()
        .map(|layer| layer.path.as_str())
        .collect()
}

#[test]
fn globs_match_whole_paths() {
    let cases: &[(&str, &[&str], &[&str])] = &[
        ("**", &["a", "a.b.c"], &[]),
        ("*", &["a", "abc"], &["a.b"]),
        ("a.*.c", &["a.b.c", "a.bb.c"], &["a.c", "a.b.b.c"]),
        (
            "a.**.c",
            &["a.c", "a.b.c", "a.b.b.c"],
            &["ab.c", "a.bc", "a.b.cc"],
        ),
        ("**.c", &["c", "a.c", "a.b.c"], &["ac", "c.a"]),
        ("a.**", &["a", "a.b", "a.b.c"], &["ab", "b.a"]),
        (
            "conv?.weight",
            &["conv1.weight"],
            &["conv.weight", "conv12.weight", "conv..weight"],
        ),
        (
            "layer*.w*",
            &["layer.w", "layer12.weight"],
            &["layer1.0.weight"],
        ),
        ("a+b.(c)", &["a+b.(c)"], &["aab.c"]),
    ];
    for (glob, yes, no) in cases {
        let pattern = Pattern::new(*glob).unwrap();
        yes.iter()
            .for_each(|path| assert!(pattern.matches(path), "{glob} should match {path}"));
        no.iter()
            .for_each(|path| assert!(!pattern.matches(path), "{glob} should not match {path}"));
    }
    for bad in [
        "",
        ".",
        "a..b",
        "a.",
        ".a",
        "a.**b",
        "***",
        &"a".repeat(2000),
    ] {
        assert!(
            matches!(Pattern::new(bad), Err(PlanError::Pattern { .. })),
            "{bad}"
        );
    }
}

#[test]
fn the_usual_parameters_stay_dense() {
    let explanation = Plan::new(half()).explain(&net()).unwrap();
    let constrained: Vec<&str> = explanation
        .parameters
        .iter()
        .filter(|p| p.sparsity.is_some())
        .map(|p| p.path.as_str())
        .collect();
    assert_eq!(
        constrained,
        [
            "blocks.0.weight",
            "blocks.1.weight",
            "up.weight",
            "odd.scores",
            "fc1.weight"
        ]
    );
    let why = |path: &str| explanation.parameter(path).unwrap().reason.clone();
    assert!(why("embedding.weight").contains("embedding"));
    assert!(why("conv1.weight").contains("first convolution"));
    assert!(why("fc2.weight").contains("last linear"));
    assert!(why("conv1.bias").contains("bias"));
    assert!(why("norm.gamma").contains("normalisation"));
    assert!(why("norm.running_mean").contains("normalisation"));
    assert!(why("scale").contains("vector"));
    assert_eq!(
        explanation.parameter("fc1.weight").unwrap().role,
        Role::Linear
    );
    assert_eq!(
        explanation.parameter("odd.scores").unwrap().role,
        Role::Other
    );

    let table = explanation.to_string();
    assert!(table.contains("blocks.1.weight"), "{table}");
    assert!(
        table.lines().last().unwrap().starts_with("5 of "),
        "{table}"
    );
    assert!(table.lines().all(|line| line == line.trim_end()), "{table}");
}

#[test]
fn output_channels_are_found_by_module_type() {
    let plan = Plan::new(half()).resolve(&net()).unwrap();
    let view = |path: &str| {
        let view = plan.layer(path).unwrap().view;
        (view.axis(), view.rows(), view.row_len())
    };
    assert_eq!(view("blocks.1.weight"), (0, 16, 72));
    assert_eq!(view("up.weight"), (1, 6, 64));
    assert_eq!(view("fc1.weight"), (1, 30, 20));
    assert_eq!(view("odd.scores"), (0, 5, 6));
    let fc1 = plan.layer("fc1.weight").unwrap();
    assert_eq!(
        (fc1.nnz, fc1.weights(), &fc1.shape[..]),
        (300, 600, &[20, 30][..])
    );
}

#[test]
fn the_last_matching_rule_wins_and_names_override_protection() {
    let plan = Plan::new(half())
        .with_sparsity("conv1.weight", Sparsity::unstructured(0.25).unwrap())
        .and_then(|p| p.with_sparsity("**", Sparsity::unstructured(0.75).unwrap()))
        .and_then(|p| p.with_dense("blocks.*.weight"))
        .and_then(|p| p.with_sparsity("blocks.1.weight", Sparsity::RowBalanced(Budget::Nnz(1))))
        .unwrap();
    let resolved = plan.resolve(&net()).unwrap();
    assert_eq!(
        names(&resolved),
        [
            "conv1.weight",
            "blocks.1.weight",
            "up.weight",
            "odd.scores",
            "fc1.weight"
        ]
    );
    assert_eq!(resolved.layer("conv1.weight").unwrap().nnz, 162);
    assert_eq!(resolved.layer("blocks.1.weight").unwrap().nnz, 16);
    assert_eq!(resolved.layer("fc1.weight").unwrap().nnz, 150);

    let all = Plan::new(half())
        .with_first_convolution_kept(false)
        .with_last_linear_kept(false);
    let resolved = all.resolve(&net()).unwrap();
    assert!(resolved.layer("conv1.weight").is_some() && resolved.layer("fc2.weight").is_some());
    assert!(Plan::dense().resolve(&net()).unwrap().layers().is_empty());
}

#[test]
fn an_unknown_pattern_lists_near_matches() {
    let plan = Plan::new(half()).with_dense("block.1.weight").unwrap();
    let error = plan.resolve(&net()).unwrap_err();
    let PlanError::UnknownPattern { pattern, near } = &error else {
        panic!("{error}")
    };
    assert_eq!(pattern, "block.1.weight");
    assert_eq!(near[0], "blocks.1.weight");
    assert!(
        error.to_string().contains("did you mean `blocks.1.weight`"),
        "{error}"
    );
    assert!(plan.explain(&net()).is_err());
}

#[test]
fn a_rule_that_can_have_no_effect_is_an_error() {
    let plan = Plan::new(half()).with_sparsity("**.bias", half()).unwrap();
    let error = plan.resolve(&net()).unwrap_err();
    assert!(
        matches!(&error, PlanError::NoEffect { matched, .. } if matched.len() == 6),
        "{error}"
    );
}

#[test]
fn more_non_zeros_than_weights_names_the_parameter() {
    let plan = Plan::new(half())
        .with_sparsity("blocks.0.weight", Sparsity::RowBalanced(Budget::Nnz(73)))
        .unwrap();
    let error = plan.resolve(&net()).unwrap_err();
    assert!(error.to_string().contains("blocks.0.weight"), "{error}");
    assert!(matches!(
        error,
        PlanError::Budget {
            source: SparseError::TooManyNonZeros {
                asked: 73,
                available: 72,
                ..
            },
            ..
        }
    ));
}

#[test]
fn json_round_trips_and_is_validated() {
    let plan = Plan::new(half())
        .with_dense("fc?.weight")
        .and_then(|p| p.with_sparsity("conv1.weight", Sparsity::Unstructured(Budget::Nnz(9))))
        .unwrap()
        .with_last_linear_kept(false);
    assert_eq!(Plan::from_json(&plan.to_json()).unwrap(), plan);
    for bad in [
        "",
        "{}",
        r#"{"default":"sparse"}"#,
        r#"{"default":{"sparse":{"kind":"row_balanced","budget":{"sparsity":1.0}}}}"#,
        r#"{"default":{"sparse":{"kind":"row_balanced","budget":{"nnz":-1}}}}"#,
        r#"{"default":"dense","rules":[{"pattern":"a..b","constraint":"dense"}]}"#,
        r#"{"default":"dense","rules":[{"pattern":"a","constraint":"dense","x":1}]}"#,
        r#"{"default":"dense","extra":1}"#,
    ] {
        assert!(
            matches!(Plan::from_json(bad), Err(PlanError::Json(_))),
            "{bad}"
        );
    }
}
