//! `gru_speech` as a program, on drawn tones: stopped and resumed, with broken files, and its sweep.
#![cfg(feature = "flex")]

use std::f32::consts::TAU;
use std::fs;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use clap::Parser;
use examples::report::Report;
use examples::speech::StepSweep;
use examples::training::{DENSE_FILE, PACKED_FILE, SETTINGS, TrainingError, read_json};
use hound::{SampleFormat, WavSpec, WavWriter};

#[path = "../gru_speech.rs"]
#[allow(dead_code, reason = "its main is for the program")]
mod gru_speech;

/// Initial weights come from the device's generator, which all threads share: one test at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A pitch for each digit, four recordings of different lengths; the first is for the test.
fn tones(folder: &Path) {
    fs::create_dir_all(folder).unwrap();
    let spec = WavSpec {
        channels: 1,
        sample_rate: 8000,
        bits_per_sample: 16,
        sample_format: SampleFormat::Int,
    };
    for digit in 0..10 {
        for (number, index) in [0, 5, 6, 7].into_iter().enumerate() {
            let path = folder.join(format!("{digit}_nobody_{index}.wav"));
            let mut writer = WavWriter::create(path, spec).unwrap();
            let hz = 250.0 * 1.32f32.powi(digit);
            for n in 0..900 + 400 * number {
                let value = (n as f32 * hz / 8000.0 * TAU).sin();
                writer.write_sample((value * 9000.0) as i16).unwrap();
            }
            writer.finalize().unwrap();
        }
    }
}

/// A run of 1 + 6 dense epochs and 3 of each step.
fn run(folder: &Path, more: &[&str]) -> Result<Vec<Report>, TrainingError> {
    let data = folder.parent().unwrap().join("tones");
    if !data.exists() {
        tones(&data);
    }
    let (data, output) = (data.to_string_lossy(), folder.to_string_lossy());
    let args = [
        "x", "--device", "flex", "--output", &output, "--data", &data,
    ];
    let small = [
        "--hidden", "12", "--batch", "8", "--blocks", "3", "--rate", "4",
    ];
    let few = [
        "--epochs",
        "1",
        "--admm-iterations",
        "2",
        "--retrain-epochs",
        "1",
    ];
    let args = [&args[..], &small, &few, more].concat();
    gru_speech::run(&gru_speech::Args::try_parse_from(args).unwrap())
}

/// All that does not depend on the clock: which form of a layer is faster is measured.
fn steady(report: &Report) -> Report {
    let mut extra = report.extra.clone();
    for key in ["utterance_ms", "step_ms"] {
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

#[test]
fn a_run_stopped_after_any_epoch_ends_the_same() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (folder.path().join("a"), folder.path().join("b"));
    let whole = run(&a, &[]).unwrap().remove(0);
    let mut count = 1;
    let mut args = vec!["--stop-after", "1"];
    let parts = loop {
        match run(&b, &args) {
            Ok(mut reports) => break reports.remove(0),
            Err(TrainingError::Stopped { .. }) => count += 1,
            Err(error) => panic!("{error}"),
        }
        args = vec!["--stop-after", "1", "--resume"];
    };
    assert_eq!(count, 13);
    assert_eq!(steady(&parts), steady(&whole));
    let file = |folder: &Path, name: &str| folder.join("seed-42").join(name);
    let weights = |folder: &Path| fs::read(file(folder, DENSE_FILE)).unwrap();
    assert!(weights(&a) == weights(&b), "the weights differ");

    let saved = Report::load(&a.join("report.json")).unwrap();
    assert!(saved.max_abs_diff < 1e-4, "{}", saved.max_abs_diff);
    assert!(saved.bytes_packed_file > 0 && file(&a, PACKED_FILE).is_file());
    assert!(saved.latency_ms.dense > 0.0 && saved.layers.len() == 3);
    let number = |key: &str| saved.extra[key].as_f64().unwrap();
    assert_eq!(number("recurrent_weights"), 3.0 * 12.0 * (40.0 + 12.0));
    assert!((number("rate") - 4.0).abs() < 0.3, "{}", number("rate"));
    // What stays after the second step is part of what stayed after the first.
    let steps = saved.extra["steps"].as_array().unwrap();
    let nnz = |i: usize| steps[i]["nnz"].as_u64().unwrap();
    assert!(steps.len() == 2 && nnz(1) < nnz(0));
    assert_eq!(number("recurrent_nnz"), nnz(1) as f64);
    // Equal epochs.
    let epochs = |of: &serde_json::Value| of["history"].as_array().unwrap().len();
    let dense = epochs(&saved.extra["dense"]["further"]);
    let pruned = steps
        .iter()
        .map(|step| epochs(&step["admm"]) + epochs(&step["retrain"]));
    assert_eq!(dense, pruned.sum::<usize>());
    assert!(saved.table().contains("(20 training recordings)"));

    // A finished run has nothing to train, and says the same again.
    let again = run(&a, &["--resume"]).unwrap().remove(0);
    assert_eq!(steady(&again), steady(&whole));
    // A new one does not take over the later stages of the old one.
    let error = run(&a, &["--stop-after", "1"]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "stopped after epoch 0 of dense-on; continue with --resume"
    );
    assert!(!file(&a, "rows-retrain/state.json").exists());
}

#[test]
fn seeds_are_compared_and_rows_alone_reach_the_rate() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path().join("run");
    let reports = run(&here, &["--steps", "1", "--seeds", "2", "--layers", "2"]).unwrap();
    assert_eq!(reports.iter().map(|r| r.seed).collect::<Vec<_>>(), [42, 43]);
    assert_ne!(steady(&reports[0]), steady(&reports[1]));
    for report in &reports {
        let (rate, steps) = (&report.extra["rate"], &report.extra["steps"]);
        assert!((rate.as_f64().unwrap() - 4.0).abs() < 0.05, "{rate}");
        assert_eq!(
            (steps.as_array().unwrap().len(), report.layers.len()),
            (1, 5)
        );
        let own = here
            .join(format!("seed-{}", report.seed))
            .join("report.json");
        assert_eq!(steady(&Report::load(&own).unwrap()).nnz, report.nnz);
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
    let error = run(&here, &["--layers", "9"]).unwrap_err();
    assert!(matches!(error, TrainingError::Speech(_)), "{error}");
    let (nowhere, output) = (folder.path().join("nowhere"), here.to_string_lossy());
    let nowhere = nowhere.to_string_lossy();
    let args = [
        "x", "--device", "flex", "--output", &output, "--data", &nowhere,
    ];
    let error = gru_speech::run(&gru_speech::Args::parse_from(args)).unwrap_err();
    assert!(matches!(error, TrainingError::Data(_)), "{error}");

    // In the middle of the row step's ADMM.
    run(&here, &["--stop-after", "11"]).unwrap_err();
    let error = run(&here, &["--resume", "--bands", "3"]).unwrap_err();
    assert!(error.to_string().contains("`bsp.bands` = 4"), "{error}");
    for name in ["admm-1.safetensors", "model-1.bpk", "state.json"] {
        let path = here.join("seed-42/rows-admm").join(name);
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
    let parse = |args: &[&str]| gru_speech::Args::try_parse_from([&["x"], args].concat());
    for (args, says) in [
        (["--rate", "0.9"], "at least 1 and"),
        (["--rate", "inf"], "at least 1"),
        (["--steps", "3"], "1..=2"),
        (["--latency=0", "--seeds=2"], "at least 1"),
        (["--latency", "--resume"], "cannot be used with"),
    ] {
        let error = parse(&args).unwrap_err().to_string();
        assert!(error.contains(says), "{args:?}: {error}");
    }
    let usual = parse(&["--latency"]).unwrap();
    assert_eq!(format!("{usual:?}").matches("2048").count(), 1);
}

#[test]
fn steps_of_several_sizes_are_measured_and_drawn() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().to_string_lossy();
    let args = [
        "x",
        "--device",
        "flex",
        "--output",
        &output,
        "--latency",
        "24,10,24",
    ];
    let args = gru_speech::Args::try_parse_from(args).unwrap();
    gru_speech::latency(&args, &[24, 10, 24]).unwrap();
    let sweep: StepSweep = read_json(&folder.path().join("report.json")).unwrap();
    let sizes: Vec<usize> = sweep.points.iter().map(|point| point.hidden).collect();
    assert_eq!(sizes, [10, 24]);
    for point in &sweep.points {
        assert_eq!(point.weights, 3 * point.hidden * (40 + point.hidden));
        assert!(point.nnz < point.weights / 6 && point.nnz > point.weights / 16);
        // Two products of at most 40 terms through functions of slope 1 at most.
        assert!(point.max_abs_diff < 1e-5 && point.step.dense.median > 0.0);
    }
    let svg = fs::read_to_string(folder.path().join(&sweep.plot)).unwrap();
    assert!(svg.starts_with("<svg") && svg.contains("hidden units") && svg.contains("24"));
}
