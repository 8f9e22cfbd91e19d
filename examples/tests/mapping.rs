//! The examples that choose schemes, as programs: stopped and resumed, and with broken files.
#![cfg(feature = "flex")]

use std::fs;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use clap::Parser;
use examples::report::Report;
use examples::training::{Contest, TrainingError};

#[path = "../auto_prune.rs"]
#[allow(dead_code, reason = "its main is for the program")]
mod auto_prune;
#[path = "../map_compare.rs"]
#[allow(dead_code, reason = "its main is for the program")]
mod map_compare;

/// Initial weights come from the device's generator, which all threads share: one test at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn auto(folder: &Path, more: &[&str]) -> Result<Report, TrainingError> {
    let output = folder.to_string_lossy();
    let times = folder.with_extension("times.json");
    let args = ["x", "--device", "flex", "--output", &output, "--times"];
    let images = [
        &times.to_string_lossy(),
        "--dataset",
        "shapes",
        "--image-size",
        "28",
    ];
    let few = ["--arch", "lenet5", "--limit", "60", "--limit-test", "20"];
    let short = [
        "--epochs",
        "1",
        "--admm-iterations",
        "1",
        "--admm-epochs",
        "1",
    ];
    let short = [&short[..], &["--retrain-epochs", "1"]].concat();
    auto_prune::run(&auto_prune::Args::parse_from(
        [&args[..], &images, &few, &short, more].concat(),
    ))
}

#[test]
fn schemes_are_chosen_within_a_budget_and_a_resumed_run_keeps_them() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path().join("a");
    // One epoch of dense training, two on, and the first of training towards the schemes.
    let budget = ["--budget", "size=0.4x"];
    let stopped = auto(&here, &[&budget[..], &["--stop-after", "4"]].concat()).unwrap_err();
    assert!(
        matches!(stopped, TrainingError::Stopped { .. }),
        "{stopped}"
    );
    let offers = fs::read(here.join("offers.json")).unwrap();
    let report = auto(&here, &[&budget[..], &["--resume"]].concat()).unwrap();
    assert_eq!(fs::read(here.join("offers.json")).unwrap(), offers);
    assert!(report.max_abs_diff < 1e-4, "{}", report.max_abs_diff);
    assert!(report.bytes_packed_file < report.bytes_dense * 6 / 10);
    let found = &report.extra["found"];
    let predicted = report.extra["selection"]["bytes"].as_f64().unwrap();
    assert!(predicted <= 0.4 * report.extra["predicted_dense"]["bytes"].as_f64().unwrap());
    assert_eq!(found["trials"].as_array().unwrap().len(), 1);
    for file in ["network.json", "network.dot", "pareto.svg"] {
        assert!(here.join(file).is_file(), "{file}");
    }
    // Times are kept for the next run, and damage is no obstacle.
    let times = here.with_extension("times.json");
    assert!(fs::metadata(&times).unwrap().len() > 1000);
    fs::write(&times, "{").unwrap();
    let loss = auto(&here, &["--budget", "loss=100"]).unwrap();
    let trials = loss.extra["found"]["trials"].as_array().unwrap();
    let full = trials
        .iter()
        .filter(|trial| trial["effort"] == "full")
        .count();
    assert!(trials.len() > full && full > 0);

    let nothing = auto(&here, &["--budget", "latency=0.001x"]).unwrap_err();
    assert!(nothing.to_string().contains("out of reach"), "{nothing}");
    let twice = auto(&here, &["--budget", "loss=1", "--max-loss", "2"]).unwrap_err();
    assert!(twice.to_string().contains("differ"), "{twice}");
    fs::write(here.join("offers.json"), "{}").unwrap();
    let broken = auto(&here, &["--budget", "latency=0.001x", "--resume"]).unwrap_err();
    assert!(broken.to_string().contains("offers.json"), "{broken}");
}

#[test]
fn a_search_goes_on_where_it_was_stopped() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (folder.path().join("a"), folder.path().join("b"));
    let search = [
        "--budget",
        "latency=0.9x",
        "--by",
        "policy",
        "--evaluations",
        "10",
    ];
    let stopped = auto(&b, &[&search[..], &["--stop-after", "12"]].concat()).unwrap_err();
    assert!(
        matches!(stopped, TrainingError::Stopped { .. }),
        "{stopped}"
    );
    // The first round is kept.
    let log = fs::read_to_string(b.join("search.json")).unwrap();
    assert!(log.matches("[[").count() > 0 && log.len() > 100, "{log}");
    let parts = auto(&b, &[&search[..], &["--resume"]].concat()).unwrap();
    // The other run sees the same times.
    fs::create_dir_all(&a).unwrap();
    auto(&a, &[&search[..], &["--stop-after", "4"]].concat()).unwrap_err();
    fs::copy(b.join("offers.json"), a.join("offers.json")).unwrap();
    // Nor does it matter how many devices there are.
    let two = ["--resume", "--devices", "flex,flex"];
    let whole = auto(&a, &[&search[..], &two].concat()).unwrap();
    assert_eq!(whole.extra["found"], parts.extra["found"]);
    assert_eq!(whole.accuracy_pruned, parts.accuracy_pruned);
    let history = &whole.extra["found"]["search"]["history"];
    assert_eq!(history.as_array().unwrap().len(), 10);

    let other = auto(&a, &["--budget", "size=0.5x", "--by", "random"]).unwrap_err();
    assert!(other.to_string().contains("latency"), "{other}");
    let none = auto(&a, &["--budget", "size=0.5x", "--devices", "flex"]).unwrap_err();
    assert!(none.to_string().contains("--by policy"), "{none}");
}

fn compare(folder: &Path, more: &[&str]) -> Result<Contest, TrainingError> {
    let output = folder.to_string_lossy();
    // The times are those of this machine, not of this folder.
    let times = folder.with_file_name("times.json");
    let times = times.to_string_lossy();
    let args = [
        "x", "--device", "flex", "--output", &output, "--times", &times,
    ];
    let images = [
        "--dataset",
        "shapes",
        "--image-size",
        "12",
        "--width",
        "0.5",
    ];
    let few = ["--limit", "60", "--limit-test", "20", "--assignments", "1"];
    let short = [
        "--epochs",
        "1",
        "--admm-iterations",
        "1",
        "--retrain-epochs",
        "1",
    ];
    let search = [
        "--evaluations",
        "2",
        "--latency",
        "0.95,0.9",
        "--searched",
        "0.95",
    ];
    map_compare::run(&map_compare::Args::parse_from(
        [&args[..], &images, &few, &short, &search, more].concat(),
    ))
}

/// What does not depend on the clock once times of layers are known.
fn steady(contest: &Contest) -> Vec<(String, u64, f64, f64, f64)> {
    let entries = contest.entries().iter();
    entries
        .map(|entry| {
            let accuracy = (entry.accuracy, entry.sparsity, entry.predicted_ms);
            (
                entry.way.clone(),
                entry.seed,
                accuracy.0,
                accuracy.1,
                accuracy.2,
            )
        })
        .collect()
}

#[test]
fn ways_of_choosing_are_compared_and_a_resumed_run_compares_the_same() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path().join("a");
    let stopped = compare(&here, &["--stop-after", "7"]).unwrap_err();
    assert!(
        matches!(stopped, TrainingError::Stopped { .. }),
        "{stopped}"
    );
    let offers = fs::read(here.join("seed-42/offers.json")).unwrap();
    let contest = compare(&here, &["--resume"]).unwrap();
    assert_eq!(fs::read(here.join("seed-42/offers.json")).unwrap(), offers);
    for entry in contest.entries() {
        assert!(entry.max_abs_diff < 1e-4, "{entry:?}");
        assert!(entry.ms > 0.0 && entry.sparsity > 0.0, "{entry:?}");
    }
    // Searches at one bound, all else that is in reach at both.
    let count = |way: &str| {
        let entries = contest.entries().iter();
        entries.filter(|entry| entry.way == way).count()
    };
    assert_eq!(
        [count("policy"), count("random"), count("evolution")],
        [1; 3]
    );
    let again = compare(&here, &["--resume"]).unwrap();
    assert_eq!(steady(&again), steady(&contest));

    let report = fs::read_to_string(here.join("report.json")).unwrap();
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    assert_eq!(report["searches"].as_array().unwrap().len(), 3);
    assert_eq!(
        report["contest"]["assignments"].as_array().unwrap().len(),
        2
    );
    assert!(here.join("accuracy-latency.svg").is_file());

    let fresh = compare(&here, &["--method", "clicktrain"]).unwrap_err();
    assert!(fresh.to_string().contains("trained networks"), "{fresh}");
}
