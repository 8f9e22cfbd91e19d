//! Each stage alone, and what is told before any of them runs.

use burn::module::Module;
use burn_sparse::Sparsity;
use burn_sparse::pack::Choice;

use super::net::{Net, Training, bits};
use crate::quantize::{QuantPlan, Quantization};
use crate::recipe::{
    AdmmPruning, Choose, ChooseBy, Compressed, GradualPruning, OneShot, Pack, Quantise, Recipe,
    RecipeError, Shrink, Stage, StageError, Train,
};
use crate::{AdmmConfig, Masks, Plan, SparsityReport, fold};

fn plan() -> Plan {
    Plan::new(Sparsity::row_balanced(0.75).unwrap())
}

fn run(stages: impl Into<Vec<Stage>>) -> (Compressed<Net>, Training) {
    let mut training = Training::new(None);
    let recipe = Recipe::new(stages).unwrap();
    let compressed = recipe.run(Net::new(1), &mut training).unwrap();
    assert_eq!(compressed.report.stages.len(), recipe.stages().len());
    assert_eq!(training.ended.len(), recipe.stages().len());
    println!("{}", compressed.report);
    (compressed, training)
}

/// The layers that `plan` is for.
const PRUNED: [&str; 2] = ["conv2.weight", "hidden.weight"];

fn left(model: &Net) -> [usize; 2] {
    let report = SparsityReport::new(&fold(model.valid())).unwrap();
    PRUNED.map(|path| report.layer(path).unwrap().nnz)
}

fn expected() -> [usize; 2] {
    let resolved = plan().resolve(&Net::new(1)).unwrap();
    PRUNED.map(|path| resolved.layer(path).unwrap().nnz)
}

#[test]
fn training_alone_trains() {
    let (dense, training) = run([Train::new(6).into()]);
    let report = &dense.report;
    assert!(report.end().accuracy > report.start.accuracy, "{report}");
    assert_eq!(report.end().nnz, report.end().weights);
    let of: Vec<_> = training
        .epochs
        .iter()
        .map(|epoch| (epoch.1, epoch.2))
        .collect();
    assert_eq!(of, (0..6).map(|at| (at, (at, 6))).collect::<Vec<_>>());
}

#[test]
fn every_way_of_pruning_ends_at_the_plan() {
    let mut admm = AdmmPruning::new(plan(), 2);
    admm.epochs = 2;
    admm.config = AdmmConfig::new().with_rho(1e-2);
    for stage in [
        Stage::from(admm),
        OneShot { plan: Some(plan()) }.into(),
        GradualPruning::new(plan(), 3).into(),
    ] {
        let name = stage.name();
        let (pruned, _) = run([stage, Train::new(2).into()]);
        assert_eq!(left(&pruned.model), expected(), "{name}");
        let residuals = pruned.report.stages[0].residuals.len();
        assert_eq!(residuals, if name == "admm" { 2 } else { 0 }, "{name}");
        assert_eq!(Masks::attached(&pruned.model).layers().len(), 2);
        assert!(pruned.report.end().bytes < pruned.report.start.bytes);
    }
}

#[test]
fn masks_hold_from_stage_to_stage() {
    let only = |path: &str| Plan::dense().with_sparsity(path, Sparsity::unstructured(0.5).unwrap());
    let levels = QuantPlan::none().with_rule("hidden.weight", Quantization::uniform(3).unwrap());
    let (model, _) = run([
        OneShot {
            plan: Some(only("conv1.weight").unwrap()),
        }
        .into(),
        AdmmPruning::new(only("conv2.weight").unwrap(), 1).into(),
        GradualPruning::new(only("hidden.weight").unwrap(), 2).into(),
        Quantise::new(levels.unwrap(), 2).into(),
        Train::new(1).into(),
    ]);
    let report = SparsityReport::new(&model.model).unwrap();
    for (path, weights) in [
        ("conv1.weight", 54),
        ("conv2.weight", 432),
        ("hidden.weight", 384),
    ] {
        assert_eq!(report.layer(path).unwrap().nnz, weights / 2, "{path}");
    }
    assert_eq!(report.layer("head.weight").unwrap().nnz, 36);
}

#[test]
fn levels_are_few_and_zeros_stay() {
    let mut quantise = Quantise::new(QuantPlan::new(Quantization::uniform(3).unwrap()), 2);
    quantise.iterations = 2;
    let (model, training) = run([OneShot { plan: Some(plan()) }.into(), quantise.into()]);
    assert_eq!(left(&model.model), expected());
    for (path, values) in bits(&fold(model.model.valid())) {
        if path.ends_with(".weight") && !path.starts_with("norm") {
            let mut values = values;
            values.sort_unstable();
            values.dedup();
            assert!(values.len() <= 9, "{path} has {} values", values.len());
        }
    }
    // A fresh optimiser on the levels.
    let of: Vec<_> = training.epochs.iter().map(|epoch| epoch.2).collect();
    assert_eq!(of, [(0, 2), (1, 2), (0, 2), (1, 2)]);
    let [pruned, quantised] = [0, 1].map(|at| model.report.stages[at].after.bytes);
    assert!(quantised < pruned, "{quantised} bytes of {pruned}");
}

#[test]
fn emptied_channels_are_cut_out_and_the_rest_is_packed() {
    let filters = Plan::dense()
        .with_sparsity("conv2.weight", Sparsity::filter(0.5).unwrap())
        .unwrap();
    let pack = Pack {
        choice: Choice::Csr,
        ..Pack::default()
    };
    let (small, _) = run([
        OneShot {
            plan: Some(filters),
        }
        .into(),
        Train::new(1).into(),
        Shrink::default().into(),
        pack.into(),
    ]);
    let [.., shrunk, packed] = &small.report.stages[..] else {
        panic!("four stages");
    };
    assert_eq!(small.model.conv2.bias.as_ref().unwrap().dims()[0], 4);
    assert!(small.model.conv2.weight.packed().is_some());
    for stage in [shrunk, packed] {
        assert!(
            stage.difference.is_some_and(|d| d < 1e-4),
            "{:?}",
            stage.difference
        );
        assert!(!stage.details.is_empty());
        assert_eq!(stage.after.accuracy, small.report.stages[1].after.accuracy);
    }
}

#[test]
fn a_plan_is_chosen_and_followed() {
    let mut choose = Choose::new("size=0.6x".parse().unwrap());
    choose.options.sparsities = vec![0.5, 0.75, 0.9];
    let (model, _) = run([
        choose.into(),
        OneShot::default().into(),
        Train::new(1).into(),
    ]);
    let end = model.report.end();
    assert!(end.sparsity > 0.3, "{}", model.report);
    assert!(model.report.stages[0].details.contains("conv2.weight"));
    // The choice itself leaves the model as it is.
    assert_eq!(model.report.stages[0].after, model.report.start);

    let mut choose = Choose::new("loss=60".parse().unwrap());
    choose.options.sparsities = vec![0.5, 0.75];
    (choose.short_epochs, choose.full_epochs) = (1, 1);
    let stages = [choose.into(), OneShot::default().into()];
    let found = Recipe::new(stages)
        .unwrap()
        .run(Net::new(1), &mut Training::new(None));
    // Where nothing is faster than dense on this machine, nothing can be chosen.
    if let Err(error) = found {
        let RecipeError::Stage {
            stage: 0, source, ..
        } = &error
        else {
            panic!("{error}");
        };
        assert!(matches!(**source, StageError::Mapping(_)), "{error}");
    }
}

#[test]
fn searches_and_rules_choose_too() {
    for by in [
        ChooseBy::Random,
        ChooseBy::Evolution,
        ChooseBy::Policy,
        ChooseBy::Rules,
    ] {
        let mut choose = Choose::new("latency=0.9x".parse().unwrap());
        choose.options.sparsities = vec![0.5, 0.9];
        (choose.by, choose.evaluations) = (by, 3);
        let stages = [choose.into(), OneShot::default().into()];
        let found = Recipe::new(stages)
            .unwrap()
            .run(Net::new(1), &mut Training::new(None));
        match found {
            Ok(found) => assert!(found.report.end().sparsity > 0.0, "{by:?}"),
            Err(RecipeError::Stage {
                stage: 0, source, ..
            }) => {
                assert!(
                    matches!(*source, StageError::Mapping(_)),
                    "{by:?}: {source}"
                );
            }
            Err(error) => panic!("{by:?}: {error}"),
        }
    }
}

#[test]
fn nothing_is_trained_for_a_plan_that_does_not_fit() {
    let stages = [
        Train::new(1).into(),
        OneShot {
            plan: Some(plan().with_dense("convolution.weight").unwrap()),
        }
        .into(),
    ];
    let mut training = Training::new(None);
    let error = Recipe::new(stages)
        .unwrap()
        .run(Net::new(1), &mut training)
        .unwrap_err();
    let text = error.to_string();
    assert!(
        text.starts_with("stages[1] (one_shot): pattern `convolution.weight`"),
        "{text}"
    );
    assert_eq!(training.calls, 0);
    // Kernel patterns of kernels with one position, whether a stage names them or all of its network has them.
    let patterns = Sparsity::kernel_pattern(0.75, 4).unwrap();
    let named = Plan::dense().with_sparsity("hidden.weight", patterns);
    for (plan, origin) in [
        (named.unwrap(), "by its own rule"),
        (Plan::new(patterns), "by default"),
    ] {
        let stages = [Train::new(1).into(), AdmmPruning::new(plan, 2).into()];
        let recipe = Recipe::new(stages).unwrap();
        // As it was written to a file.
        let recipe = Recipe::from_json(&recipe.to_json()).unwrap();
        let error = recipe.run(Net::new(1), &mut training).unwrap_err();
        let text = error.to_string();
        for part in [
            "stages[1] (admm)",
            "hidden.weight",
            "3×3",
            origin,
            "connectivity",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert_eq!(training.calls, 0);
    }
    let nothing = OneShot {
        plan: Some(Plan::dense()),
    };
    let error = Recipe::new([nothing.into()])
        .unwrap()
        .explain(&Net::new(1))
        .unwrap_err();
    assert!(
        error.to_string().contains("constrains no parameter"),
        "{error}"
    );
}

#[test]
fn an_explanation_names_stages_and_parameters() {
    let recipe = Recipe::new([
        Train::new(2).into(),
        AdmmPruning::new(plan(), 3).into(),
        Quantise::new(QuantPlan::new(Quantization::uniform(3).unwrap()), 1).into(),
        Pack::default().into(),
    ])
    .unwrap();
    let net = Net::new(1);
    let before = bits(&net);
    let explained = recipe.explain(&net).unwrap();
    assert_eq!(bits(&net), before);
    let text = explained.to_string();
    for part in [
        "0. train: 2 epochs",
        "1. admm: 3 outer iterations of 1 epochs",
        "hidden.weight",
        "96 of 384 stay",
        "uniform3",
        "a layer of burn_sparse::nn",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
    let admm = &explained.stages[1].parameters;
    let first = admm.iter().find(|p| p.path == "conv1.weight").unwrap();
    assert_eq!(first.what, "as it is");
}
