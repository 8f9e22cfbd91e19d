//! `text_cnn_prune` as a program, on a few made-up reviews: stopped and resumed, with broken files, and
//! its times.
#![cfg(feature = "flex")]

use std::fs;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use clap::Parser;
use examples::bench::BenchReport;
use examples::data::DataError;
use examples::report::Report;
use examples::training::{DENSE_FILE, PACKED_FILE, SETTINGS, TrainingError, read_json};

#[path = "../text_cnn_prune.rs"]
#[allow(dead_code, reason = "its main is for the program")]
mod text_cnn_prune;

/// Initial weights and dropout come from the device's generator, which all threads share: one test at a
/// time.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Forty reviews of each class, of different lengths.
fn reviews(folder: &Path) {
    fs::create_dir_all(folder).unwrap();
    let words = ["a", "film", "about", "it's", "people", "and", "time"];
    let telling = [["dull", "bad", "tired"], ["fine", "good", "moving"]];
    for (name, telling) in ["rt-polarity.neg", "rt-polarity.pos"]
        .into_iter()
        .zip(telling)
    {
        let line = |i: usize| {
            let mut line: Vec<&str> = (0..i % 9).map(|j| words[(i * 5 + j * 3) % 7]).collect();
            line.insert(i % (line.len() + 1), telling[i % 3]);
            line.join(" ") + "\n"
        };
        let lines: String = (0..40).map(line).collect();
        fs::write(folder.join(name), lines).unwrap();
    }
}

fn parse(folder: &Path, more: &[&str]) -> text_cnn_prune::Args {
    let data = folder.parent().unwrap().join("reviews");
    if !data.exists() {
        reviews(&data);
    }
    let (data, output) = (data.to_string_lossy(), folder.to_string_lossy());
    let args = [
        "x", "--device", "flex", "--output", &output, "--data", &data,
    ];
    let small = ["--embedding", "12", "--maps", "6", "--batch", "16"];
    let few = [
        "--epochs",
        "1",
        "--admm-iterations",
        "2",
        "--admm-epochs",
        "1",
        "--retrain-epochs",
        "1",
    ];
    let args = [&args[..], &small, &few, more].concat();
    text_cnn_prune::Args::try_parse_from(args).unwrap()
}

/// A run of 1 + 3 dense epochs and 3 of pruning.
fn run(folder: &Path, more: &[&str]) -> Result<Vec<Report>, TrainingError> {
    text_cnn_prune::run(&parse(folder, more))
}

/// All that does not depend on the clock: which form of a layer is faster is measured.
fn steady(report: &Report) -> Report {
    let mut extra = report.extra.clone();
    for key in ["network_ms", "convs_ms"] {
        assert!(extra.remove(key).is_some(), "{key}");
    }
    Report {
        extra,
        layers: Vec::new(),
        accuracy_pruned: 0.0,
        bytes_packed_file: 0,
        max_abs_diff: 0.0,
        latency_ms: Default::default(),
        ..report.clone()
    }
}

fn file(folder: &Path, name: &str) -> std::path::PathBuf {
    folder.join("seed-42").join(name)
}

#[test]
fn a_run_stopped_after_any_epoch_ends_the_same() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    for method in ["admm", "gradual", "one-shot"] {
        let here = |name: &str| folder.path().join(format!("{method}-{name}"));
        let (a, b) = (here("a"), here("b"));
        let with = |more: &[&'static str]| [&["--method", method], more].concat();
        let whole = run(&a, &with(&[])).unwrap().remove(0);
        let mut count = 1;
        let mut args = with(&["--stop-after", "1"]);
        let parts = loop {
            match run(&b, &args) {
                Ok(mut reports) => break reports.remove(0),
                Err(TrainingError::Stopped { .. }) => count += 1,
                Err(error) => panic!("{error}"),
            }
            args = with(&["--stop-after", "1", "--resume"]);
        };
        assert_eq!(count, 7, "{method}");
        assert_eq!(steady(&parts), steady(&whole), "{method}");
        let weights = |folder: &Path| fs::read(file(folder, DENSE_FILE)).unwrap();
        assert!(weights(&a) == weights(&b), "{method}: the weights differ");

        let saved = Report::load(&a.join("report.json")).unwrap();
        assert!(saved.max_abs_diff < 1e-4, "{}", saved.max_abs_diff);
        assert!(saved.bytes_packed_file > 0 && file(&a, PACKED_FILE).is_file());
        // Three convolutions and the classifier, and times of one and of fifty sentences.
        assert_eq!(
            (saved.layers.len(), saved.latency_ms.by_batch.len()),
            (4, 2)
        );
        assert_eq!(saved.extra["convs_ms"].as_array().unwrap().len(), 6);
        let number = |key: &str| saved.extra[key].as_f64().unwrap();
        assert_eq!(number("conv_weights"), 6.0 * 12.0 * (3.0 + 4.0 + 5.0));
        assert!((number("conv_sparsity") - 0.875).abs() < 0.01, "{method}");
        // Equal epochs.
        let epochs = |of: &serde_json::Value| of["history"].as_array().map_or(0, Vec::len);
        let (dense, pruned) = (&saved.extra["dense"], &saved.extra["pruned"]);
        let of_pruning = epochs(&pruned["compress"]) + epochs(&pruned["retrain"]);
        assert_eq!((epochs(&dense["further"]), of_pruning), (3, 3), "{method}");
        let compress = if method == "one-shot" { 0 } else { 2 };
        assert_eq!(epochs(&pruned["compress"]), compress);
        assert!(
            saved.table().contains("(64 training sentences)"),
            "{}",
            saved.table()
        );

        // A finished run has nothing to train, and says the same again.
        let again = run(&a, &with(&["--resume"])).unwrap().remove(0);
        assert_eq!(steady(&again), steady(&whole), "{method}");
    }
}

#[test]
fn seeds_have_test_splits_of_their_own_and_are_compared() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path().join("run");
    let reports = run(&here, &["--seeds", "2", "--sparsity", "0.5"]).unwrap();
    assert_eq!(reports.iter().map(|r| r.seed).collect::<Vec<_>>(), [42, 43]);
    assert_ne!(steady(&reports[0]), steady(&reports[1]));
    for report in &reports {
        let own = here
            .join(format!("seed-{}", report.seed))
            .join("report.json");
        assert_eq!(steady(&Report::load(&own).unwrap()).nnz, report.nnz);
        assert_eq!(report.extra["conv_sparsity"], 0.5);
        // The second seed's words are others than the first's.
        let model = &report.extra["model"];
        let words = model["words"].as_u64().unwrap();
        assert!(report.weights as u64 > 12 * words, "{words}");
    }
    let all: serde_json::Value = read_json(&here.join("report.json")).unwrap();
    assert_eq!(all["methods"][0]["seeds"], 2);
}

#[test]
fn what_is_no_run_or_cannot_be_is_refused() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path().join("run");
    let error = run(&here, &["--resume"]).unwrap_err();
    assert!(
        error.to_string().contains("holds no run to resume"),
        "{error}"
    );
    let error = run(&here, &["--lr", "1e38"]).unwrap_err();
    assert!(matches!(error, TrainingError::Diverged { .. }), "{error}");
    let plain = |data: &str, maps: &str| {
        let (data, output) = (folder.path().join(data), here.to_string_lossy());
        let data = data.to_string_lossy();
        let args = [
            "x", "--device", "flex", "--output", &output, "--data", &data,
        ];
        let args = [&args[..], &["--maps", maps]].concat();
        text_cnn_prune::run(&text_cnn_prune::Args::parse_from(args)).unwrap_err()
    };
    let error = plain("reviews", "9000");
    assert!(matches!(error, TrainingError::Text(_)), "{error}");
    let error = plain("nowhere", "4");
    let no_file = matches!(error, TrainingError::Data(DataError::Io { .. }));
    assert!(no_file, "{error}");

    // In the middle of ADMM.
    run(&here, &["--stop-after", "5"]).unwrap_err();
    let error = run(&here, &["--resume", "--sparsity", "0.5"]).unwrap_err();
    assert!(error.to_string().contains("`sparsity` = 0.875"), "{error}");
    for name in ["admm-1.safetensors", "model-1.bpk", "state.json"] {
        let path = here.join("seed-42/admm").join(name);
        let len = fs::metadata(&path).unwrap().len();
        let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
        file.set_len(len / 2).unwrap();
        let error = run(&here, &["--resume"]).unwrap_err();
        assert!(error.to_string().contains(name), "{error}");
    }
    fs::write(here.join(SETTINGS), b"\xff{").unwrap();
    let error = run(&here, &["--resume"]).unwrap_err();
    assert!(matches!(error, TrainingError::State { .. }), "{error}");
}

#[test]
fn arguments_that_mean_nothing_are_explained() {
    let parse = |args: &[&str]| text_cnn_prune::Args::try_parse_from([&["x"], args].concat());
    for (args, says) in [
        (["--sparsity", "1"], "[0, 1)"),
        (["--method", "clicktrain"], "one-shot"),
        (["--method", "magic"], "one-shot"),
        (["--word-dropout", "-0.1"], "[0, 1)"),
        (["--latency", "--resume"], "cannot be used with"),
    ] {
        let error = parse(&args).unwrap_err().to_string();
        assert!(error.contains(says), "{args:?}: {error}");
    }
    for method in ["admm", "gradual", "oneshot", "one-shot"] {
        parse(&["--method", method]).unwrap();
    }
}

#[test]
fn layers_and_network_are_timed_without_training() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path().join("run");
    let args = parse(&here, &["--latency"]);
    let report = text_cnn_prune::latency(&args).unwrap();
    assert_eq!(report.failures(), 0, "{}", report.table());
    // Three windows at two batches, two windows at three sparsities.
    assert_eq!(
        (report.rows.len(), report.networks.len()),
        (3 * 2 + 2 * 3, 2)
    );
    let batches: Vec<usize> = report.networks.iter().map(|row| row.batch).collect();
    assert_eq!(batches, [1, 50]);
    for row in &report.networks {
        let measured = row.outcome.measured().unwrap();
        assert!(measured.max_rel_diff < 1e-4 && measured.layers == 4);
        assert!(measured.pair.dense.median > 0.0);
    }
    let saved = BenchReport::load(&here.join("report.json")).unwrap();
    assert_eq!(saved.rows.len(), report.rows.len());
}
