//! Runs that are interrupted anywhere.

use std::fs;
use std::path::Path;

use super::net::{Net, Training, bits};
use crate::admm::StateError;
use crate::recipe::{Compressed, Recipe, RecipeError, RecipeReport};

/// Every stage that trains, and packing that measures nothing.
const WHOLE: &str = r#"{"stages": [
    {"stage": "train", "epochs": 2},
    {"stage": "admm", "iterations": 2, "epochs": 2, "config": {"rho": 0.01},
     "plan": {"default": {"sparse": {"kind": "row_balanced", "budget": {"sparsity": 0.5}}}}},
    {"stage": "train", "epochs": 1, "lr": 0.003},
    {"stage": "gradual", "epochs": 2,
     "plan": {"default": {"sparse": {"kind": "unstructured", "budget": {"sparsity": 0.75}}}}},
    {"stage": "quantise", "iterations": 1, "tune_epochs": 2,
     "plan": {"default": {"kind": "uniform", "bits": 4},
              "rules": [{"pattern": "hidden.weight", "quantization": {"kind": "codebook", "bits": 3}},
                        {"pattern": "conv2.weight", "quantization": null}]}},
    {"stage": "train", "epochs": 1},
    {"stage": "pack", "choice": "csr"}
]}"#;

const STRUCTURED: &str = r#"{"stages": [
    {"stage": "one_shot", "plan": {"default": "dense", "rules": [
        {"pattern": "conv2.weight", "constraint": {"sparse": {"kind": "filter", "budget": {"sparsity": 0.5}}}}]}},
    {"stage": "train", "epochs": 1},
    {"stage": "shrink"}
]}"#;

fn without_times(mut report: RecipeReport) -> RecipeReport {
    // What JSON keeps of a double may be off in its last digit.
    let single = |value: &mut f64| *value = f64::from(*value as f32);
    let standings = report.stages.iter_mut().map(|stage| &mut stage.after);
    for standing in standings.chain([&mut report.start]) {
        single(&mut standing.accuracy);
        single(&mut standing.sparsity);
    }
    for stage in &mut report.stages {
        stage.seconds = 0.0;
        // Packing says how long layers took.
        stage.details.clear();
    }
    report
}

fn same(a: &Compressed<Net>, b: &Compressed<Net>) {
    for (a, b) in bits(&a.model).iter().zip(&bits(&b.model)) {
        assert!(a == b, "{} and {} differ", a.0, b.0);
    }
    assert_eq!(
        without_times(a.report.clone()),
        without_times(b.report.clone())
    );
}

fn run(
    recipe: &Recipe,
    folder: &Path,
    fuel: Option<usize>,
    seed: u64,
) -> Result<Compressed<Net>, RecipeError> {
    recipe.run_in(folder, Net::new(seed), &mut Training::new(fuel))
}

#[test]
fn interrupted_anywhere_it_ends_where_it_would_have_ended() {
    for json in [WHOLE, STRUCTURED] {
        let recipe = Recipe::from_json(json).unwrap();
        let mut training = Training::new(None);
        let in_memory = recipe.run(Net::new(1), &mut training).unwrap();
        let calls = training.calls;
        let folder = tempfile::tempdir().unwrap();
        let whole = run(&recipe, folder.path(), None, 1).unwrap();
        same(&in_memory, &whole);
        // The run that has ended gives its result again, whatever weights it is shown, and trains nothing.
        same(&whole, &run(&recipe, folder.path(), Some(0), 2).unwrap());

        for fuel in 1..calls {
            let folder = tempfile::tempdir().unwrap();
            let error = run(&recipe, folder.path(), Some(fuel), 1).unwrap_err();
            assert!(error.to_string().contains("out of fuel"), "{error}");
            let resumed = run(&recipe, folder.path(), None, 2).unwrap();
            same(&whole, &resumed);
        }
        // One call at a time.
        let folder = tempfile::tempdir().unwrap();
        let crawled = (0..3 * calls).find_map(|_| run(&recipe, folder.path(), Some(2), 1).ok());
        same(&whole, &crawled.expect("every run does something"));
        // One state is left, and no files of others.
        let names = fs::read_dir(folder.path()).unwrap().count();
        assert!(names <= 2, "{names} files");
    }
}

#[test]
fn a_choice_is_kept() {
    let json = r#"{"stages": [
        {"stage": "choose", "budget": "size=0.6x", "options": {"sparsities": [0.5, 0.9], "families": ["row_balanced"]}},
        {"stage": "one_shot"}, {"stage": "train", "epochs": 1}]}"#;
    let recipe = Recipe::from_json(json).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let whole = run(&recipe, folder.path(), None, 1).unwrap();
    for fuel in 1..4 {
        let folder = tempfile::tempdir().unwrap();
        run(&recipe, folder.path(), Some(fuel), 1).unwrap_err();
        // Weights count until the choice is made, and come from the state.
        same(&whole, &run(&recipe, folder.path(), None, 2).unwrap());
    }
}

#[test]
fn the_state_of_another_recipe_is_refused() {
    let recipe = Recipe::from_json(WHOLE).unwrap();
    let folder = tempfile::tempdir().unwrap();
    run(&recipe, folder.path(), Some(4), 1).unwrap_err();
    let other = Recipe::from_json(&WHOLE.replace("\"epochs\": 2}", "\"epochs\": 3}")).unwrap();
    let error = run(&other, folder.path(), None, 1).unwrap_err();
    assert!(
        matches!(error, RecipeError::State(StateError::Mismatch { .. })),
        "{error}"
    );
    assert!(error.to_string().contains("another recipe"), "{error}");
}

/// Every file cut short, gone, or with single bytes changed: an error or the right result, no panic.
#[test]
fn a_damaged_state_is_an_error() {
    let recipe = Recipe::from_json(WHOLE).unwrap();
    let folder = tempfile::tempdir().unwrap();
    // In the middle of ADMM: start, two epochs and their end, three epochs.
    run(&recipe, folder.path(), Some(7), 1).unwrap_err();
    let paths: Vec<_> = fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    let names: Vec<_> = paths
        .iter()
        .map(|path| path.file_name().unwrap().to_owned())
        .collect();
    assert_eq!(paths.len(), 4, "{names:?}");
    for path in &paths {
        let whole = fs::read(path).unwrap();
        let tried = || {
            run(&recipe, folder.path(), Some(0), 1)
                .map(drop)
                .unwrap_err()
        };
        let say = |error: RecipeError| match error {
            RecipeError::State(error) => error.to_string(),
            // ADMM's own file is read by its stage.
            RecipeError::Stage { source, .. } => source.to_string(),
            error => panic!("{error}"),
        };
        for len in [0, 1, whole.len() / 2, whole.len() - 2] {
            fs::write(path, &whole[..len]).unwrap();
            let error = say(tried());
            assert!(
                error.contains(path.file_name().unwrap().to_str().unwrap()),
                "{error}"
            );
        }
        for at in (0..whole.len()).step_by(1 + whole.len() / 60) {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x11;
            fs::write(path, &bytes).unwrap();
            say(tried());
        }
        fs::remove_file(path).unwrap();
        if path.extension().unwrap() != "json" {
            say(tried());
        }
        fs::write(path, &whole).unwrap();
    }
    run(&recipe, folder.path(), None, 1).unwrap();
}
