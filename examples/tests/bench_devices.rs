//! The bench on every device but flex that this build has and this machine too.

use std::fs;
use std::path::Path;

use clap::Parser;
use examples::bench::{BenchError, BenchReport, Command, Dtype, Ending, execute};
use examples::device::{Backend, DeviceChoice, Selected, select};

#[derive(Parser)]
struct Program {
    #[command(subcommand)]
    command: Command,
}

fn bench(args: &[&str]) -> Result<Ending, BenchError> {
    let args = ["bench"].iter().chain(args);
    execute(&Program::try_parse_from(args).unwrap().command)
}

/// What is missing is a skip, named on the output, and a failure where `BURN_SPARSE_REQUIRE` asks
/// for it.
fn devices() -> Vec<(&'static str, Selected)> {
    let required = std::env::var("BURN_SPARSE_REQUIRE").unwrap_or_default();
    let mut found = Vec::new();
    for backend in Backend::ALL.into_iter().filter(|&b| b != Backend::Flex) {
        let name = backend.name();
        let selected = select(DeviceChoice::Named(backend, None)).map_err(|e| e.to_string());
        let usable = selected.and_then(|selected| match selected.crashes() {
            Some(reason) => Err(reason.to_string()),
            None => Ok(selected),
        });
        match usable {
            Ok(selected) => found.push((name, selected)),
            Err(reason) => {
                assert!(
                    !required.split(',').any(|required| required.trim() == name),
                    "BURN_SPARSE_REQUIRE asks for {name}: {reason}"
                );
                println!("SKIPPED {name}: {reason}");
            }
        }
    }
    found
}

/// Few and small: a software driver compiles and tries several kernels for each.
const SUITE: &str = "\
conv kind=conv in=8 out=12 size=9x7 kernel=3 stride=2 padding=1 count=2
text kind=conv1d in=16 out=8 size=20 kernel=3
fc kind=linear in=32 out=8
";

/// A run of the layers that `layer` finds: all rows measured, and right.
fn run(folder: &Path, device: &str, layer: &str, dtypes: &str) -> BenchReport {
    let suite = folder.join("suite.txt");
    fs::write(&suite, SUITE).unwrap();
    let (suite, output) = (suite.to_str().unwrap(), folder.to_str().unwrap());
    let args = [
        "run", "--suite", suite, "--output", output, "--device", device,
    ];
    let what = ["--layer", layer, "--dtype", dtypes, "--batch", "3"];
    let patterns = ["--pattern", "unstructured,blocks4"];
    let little = ["--runs", "3", "--budget", "0.1"];
    let ending = bench(&[&args[..], &what, &patterns, &little].concat()).unwrap();
    let report = BenchReport::load(&folder.join("report.json")).unwrap();
    assert_eq!(ending, Ending::Well, "{}", report.table());
    assert!(report.peaks.is_empty() && report.machine.isa.is_none());
    for row in &report.rows {
        let measured = row.measured().unwrap();
        let verified = measured.verified.unwrap();
        assert_eq!(verified.checked, verified.outputs);
        assert!(measured.dense_verified.is_some() && measured.share.is_none());
    }
    report
}

#[test]
fn rows_are_verified_and_timed_on_every_device() {
    let dir = tempfile::tempdir().unwrap();
    for (index, (name, selected)) in devices().into_iter().enumerate() {
        let half = Dtype::F16.runs_on(&selected.device);
        let dtypes = if half { "f32,f16" } else { "f32" };
        let report = run(dir.path(), name, "conv|text", dtypes);
        assert_eq!(report.rows.len(), 2 * 2 * if half { 2 } else { 1 });
        // Burn tries all its kernels for a product, which takes software devices ten seconds.
        if index == 0 {
            assert_eq!(run(dir.path(), name, "fc", "f32").rows.len(), 2);
        }
    }
}

/// Before anything runs: such a kernel ends some drivers for good.
#[test]
fn what_a_device_cannot_do_is_an_error_that_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let output = dir.path().to_str().unwrap();
    for (name, selected) in devices() {
        let layer = ["--layer", "^fc$", "--output", output, "--device", name];
        let error = |args: &[&str]| bench(&[args, &layer].concat()).unwrap_err().to_string();
        let text = error(&["run", "--threads", "2"]);
        assert!(text.contains("--threads: "), "{text}");
        let text = error(&["growth", "--axis", "threads", "--suite", "resnet50"]);
        assert!(text.contains("--axis threads: "), "{text}");
        if !Dtype::Bf16.runs_on(&selected.device) {
            let text = error(&["run", "--dtype", "f32,bf16"]);
            assert!(text.contains("does not compute in it"), "{text}");
        }
    }
}

/// Every form that a device has gives what Burn's convolutions give, and those that it lacks are named.
#[test]
fn factors_are_verified_and_timed_on_every_device() {
    let dir = tempfile::tempdir().unwrap();
    let suite = dir.path().join("suite.txt");
    // A factor on each side of the core, and one on one side.
    let layers = "\
both kind=conv in=12 out=16 size=9x7 kernel=3 stride=2 padding=1
one kind=conv in=8 out=20 size=6 kernel=3 padding=1
";
    fs::write(&suite, layers).unwrap();
    let (suite, output) = (suite.to_str().unwrap(), dir.path().to_str().unwrap());
    for (name, _) in devices() {
        let args = [
            "tucker", "--suite", suite, "--output", output, "--device", name,
        ];
        let what = [
            "--ranks", "8,8", "--batch", "3", "--runs", "3", "--budget", "0.1",
        ];
        let ending = bench(&[&args[..], &what].concat()).unwrap();
        let text = fs::read_to_string(dir.path().join("report.json")).unwrap();
        let report: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(ending, Ending::Well, "{text}");
        let rows = report["rows"].as_array().unwrap();
        assert_eq!(rows.len(), 2, "{name}");
        for row in rows {
            assert!(
                row["max_rel_diff"].as_f64().unwrap() <= 1e-4,
                "{name}: {row}"
            );
            let known = |key: &str| row[key].as_array().unwrap().len();
            assert_eq!(known("forms") + known("absent"), 7, "{name}: {row}");
            let factors = row["forms"].as_array().unwrap();
            assert!(factors.iter().any(|form| form["name"] == "factors"));
        }
    }
}
