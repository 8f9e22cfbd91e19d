//! The examples with loops of their own, as programs: stopped and resumed, and with broken files.
#![cfg(feature = "flex")]

use std::fs;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use burn::tensor::Device;
use burn_admm::decompose::RankTimes;
use clap::Parser;
use examples::compress::{Size, Table};
use examples::output::OutputError;
use examples::report::Report;
use examples::training::{
    Comparison, DENSE_FILE, PACKED_FILE, SETTINGS, Sweep, TrainingError, TuckerTable,
};
use models::{Arch, ModelConfig, Stem, weights};

#[path = "../block_prune.rs"]
#[allow(dead_code, reason = "its main is for the program")]
mod block_prune;
#[path = "../compressed_size.rs"]
#[allow(dead_code, reason = "its main is for the program")]
mod compressed_size;
#[path = "../custom_loop.rs"]
#[allow(dead_code, reason = "its main is for the program")]
mod custom_loop;
#[path = "../evolve_prune.rs"]
#[allow(dead_code, reason = "its main is for the program")]
mod evolve_prune;
#[path = "../lenet5_compress.rs"]
#[allow(dead_code, reason = "its main is for the program")]
mod lenet5_compress;
#[path = "../mixed_network.rs"]
#[allow(dead_code, reason = "its main is for the program")]
mod mixed_network;
#[path = "../penni_compress.rs"]
#[allow(dead_code, reason = "its main is for the program")]
mod penni_compress;
#[path = "../trainer_prune.rs"]
#[allow(dead_code, reason = "its main is for the program")]
mod trainer_prune;
#[path = "../tucker_compress.rs"]
#[allow(dead_code, reason = "its main is for the program")]
mod tucker_compress;

/// Initial weights come from the device's generator, which all threads share: one test at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

type Outcome = Result<Report, TrainingError>;

fn custom(folder: &Path, more: &[&str]) -> Outcome {
    let output = folder.to_string_lossy();
    let args = ["x", "--device", "flex", "--output", &output];
    let small = ["--limit", "80", "--epochs", "2"];
    custom_loop::run(&custom_loop::Args::parse_from(
        [&args[..], &small, more].concat(),
    ))
}

fn trainer(folder: &Path, more: &[&str]) -> Outcome {
    let output = folder.to_string_lossy();
    let args = ["x", "--device", "flex", "--output", &output];
    let small = ["--dataset", "shapes", "--image-size", "16", "--epochs", "4"];
    let few = ["--limit", "120", "--limit-test", "40"];
    trainer_prune::run(&trainer_prune::Args::parse_from(
        [&args[..], &small, &few, more].concat(),
    ))
}

/// All numbers of a report that do not depend on the clock: which form of a layer is faster is
/// measured, so everything that follows from it may differ.
fn steady(report: &Report) -> Report {
    let mut extra = report.extra.clone();
    extra.remove("packing");
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

/// A run that is stopped after every `step` epochs is the one that went through, to the bit.
fn check(run: fn(&Path, &[&str]) -> Outcome, step: &str, pieces: usize) {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (folder.path().join("a"), folder.path().join("b"));
    let whole = run(&a, &[]).unwrap();
    let mut count = 1;
    let mut args = vec!["--stop-after", step];
    let parts = loop {
        match run(&b, &args) {
            Ok(report) => break report,
            Err(TrainingError::Stopped { .. }) => count += 1,
            Err(error) => panic!("{error}"),
        }
        args = vec!["--stop-after", step, "--resume"];
    };
    assert_eq!(count, pieces);
    assert_eq!(steady(&parts), steady(&whole));
    let weights = |folder: &Path| fs::read(folder.join(DENSE_FILE)).unwrap();
    assert!(weights(&a) == weights(&b), "the weights differ");

    let saved = Report::load(&a.join("report.json")).unwrap();
    assert_eq!(steady(&saved).nnz, whole.nnz);
    assert!(saved.max_abs_diff < 1e-3, "{}", saved.max_abs_diff);
    assert!(saved.bytes_packed_file > 0 && a.join(PACKED_FILE).is_file());
    assert!(saved.latency_ms.dense > 0.0 && saved.layers.len() == 4);
    assert!(saved.sparsity > 0.8, "{}", saved.sparsity);
    let text = fs::read_to_string(a.join("report.json")).unwrap();
    for key in ["max_abs_diff", "command", "versions", "primal_residual"] {
        assert!(text.contains(&format!("\"{key}\"")), "{key}");
    }
    // A finished run has nothing to train, and says the same again.
    let again = run(&a, &["--resume"]).unwrap();
    assert_eq!(steady(&again), steady(&whole));
}

/// Errors of `--resume` on folders that hold no run, another one, or a broken one.
fn refuses(run: fn(&Path, &[&str]) -> Outcome) {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path().join("run");
    let error = run(&here, &["--resume"]).unwrap_err();
    let nothing = OutputError::NothingToResume {
        path: here.clone(),
        marker: SETTINGS.into(),
    };
    assert_eq!(error.to_string(), nothing.to_string());
    fs::write(folder.path().join("file"), b"").unwrap();
    let error = run(&folder.path().join("file"), &[]).unwrap_err();
    assert!(error.to_string().contains("--output"), "{error}");

    run(&here, &["--stop-after", "1"]).unwrap_err();
    let error = run(&here, &["--resume", "--lr", "0.5"]).unwrap_err();
    assert!(matches!(error, TrainingError::OtherRun { .. }), "{error}");
    fs::write(here.join(SETTINGS), b"\xff{").unwrap();
    let error = run(&here, &["--resume"]).unwrap_err();
    assert!(matches!(error, TrainingError::State { .. }), "{error}");
}

/// Few small images, one epoch of each stage.
const TINY: [&str; 14] = [
    "--dataset",
    "shapes",
    "--image-size",
    "8",
    "--limit",
    "40",
    "--limit-test",
    "20",
    "--epochs",
    "1",
    "--admm-iterations",
    "1",
    "--retrain-epochs",
    "1",
];

fn blocks(folder: &Path, more: &[&str]) -> Result<Sweep, TrainingError> {
    let output = folder.to_string_lossy();
    let args = ["x", "--device", "flex", "--output", &output];
    block_prune::run(&block_prune::Args::parse_from(
        [&args[..], &TINY, more].concat(),
    ))
}

fn tucker(folder: &Path, more: &[&str]) -> Result<TuckerTable, TrainingError> {
    let output = folder.to_string_lossy();
    let args = ["x", "--device", "flex", "--output", &output];
    tucker_compress::run(&tucker_compress::Args::parse_from(
        [&args[..], &TINY, more].concat(),
    ))
}

/// Without what depends on the clock.
fn untimed(report: &Report) -> Report {
    let mut report = steady(report);
    let clocked = |key: &str| key.starts_with("seconds") || key.starts_with("latency_ms");
    report.extra.retain(|key, _| !clocked(key));
    report
}

#[test]
fn emptied_filters_are_cut_out() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let more = [
        "--arch",
        "resnet20",
        "--width",
        "0.5",
        "--scheme",
        "filters,blocks4",
    ];
    let more = [&more[..], &["--sparsity", "0.5"]].concat();
    let sweep = blocks(folder.path(), &more).unwrap();
    let [filters, blocks] = sweep.cells() else {
        panic!("{} cells", sweep.cells().len());
    };
    let extra = &filters.report.extra;
    let cut = extra.get("cut").unwrap_or_else(|| panic!("{extra:?}"));
    let number = |value: &serde_json::Value| value.as_f64().unwrap();
    for pair in ["parameters", "macs"] {
        assert!(number(&cut[pair][1]) < 0.9 * number(&cut[pair][0]), "{cut}");
    }
    let scale = number(&cut["largest"]).max(1.0);
    assert!(number(&cut["max_abs_diff"]) < 1e-4 * scale, "{cut}");
    assert!((number(&cut["accuracy"]) - filters.report.accuracy_pruned).abs() < 0.06);
    assert!(number(&cut["latency_ms"]["packed"]) > 0.0);
    assert!(!blocks.report.extra.contains_key("cut"));
}

#[test]
fn layers_find_their_own_rates_by_a_threshold() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let more = [
        "--arch",
        "resnet20",
        "--width",
        "0.5",
        "--scheme",
        "punched4x4,columns",
    ];
    let by = [
        "--method",
        "reweighted",
        "--lambda",
        "0.01",
        "--threshold",
        "0.9",
    ];
    let more = [&more[..], &by].concat();
    let whole = blocks(&at("a"), &more).unwrap();
    assert_eq!(whole.cells().len(), 2);
    for cell in whole.cells() {
        assert_eq!(cell.asked, 0.0);
        // Groups of about one size: a threshold just below it parts layers differently.
        let rates: Vec<f64> = cell.report.layers.iter().map(|l| l.sparsity).collect();
        assert!(rates.iter().any(|&rate| rate > 0.05), "{rates:?}");
        assert!(
            rates.iter().any(|&rate| (rate - rates[2]).abs() > 0.02),
            "{rates:?}"
        );
        assert!(cell.report.max_abs_diff < 1e-3);
    }
    assert!(
        whole.to_string().lines().nth(1).unwrap().contains(" - "),
        "{whole}"
    );
    let error = blocks(&at("b"), &[&more[..], &["--stop-after", "3"]].concat());
    assert!(matches!(error, Err(TrainingError::Stopped { .. })));
    let parts = blocks(&at("b"), &[&more[..], &["--resume"]].concat()).unwrap();
    let steady = |sweep: &Sweep| -> Vec<Report> {
        let cells = sweep.cells().iter();
        cells.map(|cell| untimed(&cell.report)).collect()
    };
    assert_eq!(steady(&parts), steady(&whole));
    // Where no penalty is, nothing can be below it.
    for name in ["--threshold", "--lambda"] {
        let error = blocks(&at("c"), &[name, "0.5"]).unwrap_err().to_string();
        assert!(
            error.contains(name) && error.contains("reweighted"),
            "{error}"
        );
    }
}

/// The networks that have other layers than a ResNet, with the schemes that follow their channels.
#[test]
fn other_networks_are_pruned_by_other_schemes() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().to_string_lossy();
    for (arch, width, schemes) in [
        ("vgg16bn", "0.125", "columns,filters"),
        ("mobilenetv2", "0.25", "punched8x4,channels"),
    ] {
        let data = ["--dataset", "shapes", "--image-size", "32", "--limit", "20"];
        let short = ["--limit-test", "10", "--epochs", "1", "--method", "oneshot"];
        let short = [
            &short[..],
            &["--admm-iterations", "1", "--retrain-epochs", "1"],
        ]
        .concat();
        let of = ["--arch", arch, "--width", width, "--scheme", schemes];
        let common = [
            "x",
            "--device",
            "flex",
            "--output",
            &output,
            "--sparsity",
            "0.9",
        ];
        let args = [
            &common[..],
            &data,
            &short,
            &of,
            &["--keep-one", "--measure-on", "flex"],
        ]
        .concat();
        let sweep = block_prune::run(&block_prune::Args::parse_from(args)).unwrap();
        assert_eq!(sweep.cells().len(), 2, "{arch}");
        for cell in sweep.cells() {
            let report = &cell.report;
            assert!(report.sparsity > 0.5, "{arch}: {}", report.sparsity);
            assert!(
                report.max_abs_diff < 1e-3,
                "{arch}: {}",
                report.max_abs_diff
            );
            assert!(cell.on["flex"].max_abs_diff < 1e-3, "{arch}: {:?}", cell.on);
            assert_eq!(
                report.extra["on"]["flex"]["accuracy"],
                cell.on["flex"].accuracy
            );
            // Whole channels go, or the report says which layer keeps them.
            let cut = ["cut", "cut_refused"].map(|key| report.extra.contains_key(key));
            assert_eq!(
                cut.contains(&true),
                cell.scheme.empties_channels(),
                "{arch}"
            );
        }
    }
}

#[test]
fn ranks_by_the_clock_are_measured_once() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let kept = folder.path().join("times.json");
    let path = kept.to_string_lossy();
    let more = [
        "--width", "0.5", "--method", "direct", "--time", "1.05", "--times", &path,
    ];
    // On a machine with other things to do, no ranks may be faster; their times are kept all the same.
    let first = tucker(&folder.path().join("a"), &more);
    assert!(matches!(first, Ok(_) | Err(TrainingError::Ranks(_))));
    let mut times = RankTimes::load(&kept).unwrap();
    assert!(times.layers.len() > 3);
    for layer in &mut times.layers {
        let dense = layer.dense_ms;
        let timed = layer.factored_ms.iter_mut();
        timed.for_each(|(_, ms)| *ms = 0.5 * dense);
    }
    times.save(&kept).unwrap();
    let text = std::fs::read_to_string(&kept).unwrap();
    let [one, two] = ["b", "c"].map(|run| tucker(&folder.path().join(run), &more).unwrap());
    let ranks = |table: &TuckerTable| table.runs()[0].report.extra["ranks"].clone();
    assert_eq!(ranks(&one), ranks(&two));
    assert_eq!(std::fs::read_to_string(&kept).unwrap(), text);
    // The published rule on the same times, with ours beside it.
    let rule = [
        "--width", "0.5", "--method", "direct", "--choose", "tdc", "--flops", "1.5", "--times",
        &path,
    ];
    let tdc = tucker(&folder.path().join("e"), &rule).unwrap();
    assert_eq!(std::fs::read_to_string(&kept).unwrap(), text);
    for (table, chosen) in [(&tdc, "tdc"), (&one, "knapsack")] {
        let choices = &table.runs()[0].report.extra["choices"];
        assert_eq!(choices["chosen"], chosen);
        for rule in ["tdc", "knapsack"] {
            let costs = &choices[rule]["predicted"];
            let of = |key: &str| costs[key].as_f64().unwrap();
            assert!(of("ms") < of("dense_ms") && of("timed") > 3.0, "{choices}");
            assert!(of("discarded") > 0.0 && of("flop_ratio") > 1.0, "{choices}");
        }
        let discarded = |rule: &str| choices[rule]["predicted"]["discarded"].as_f64().unwrap();
        if chosen == "tdc" {
            assert!(discarded("knapsack") <= discarded("tdc"), "{choices}");
            let ratio = choices["tdc"]["predicted"]["flop_ratio"].as_f64().unwrap();
            let found = &table.runs()[0].report.extra["flop_ratio"];
            assert_eq!(found.as_f64(), Some(ratio));
        }
    }
    for wrong in [
        &["--choose", "tdc", "--size", "2"][..],
        &["--time", "2", "--factors", "spatial"],
        &["--times", &path],
    ] {
        let error = tucker(&folder.path().join("f"), wrong).unwrap_err();
        assert!(matches!(error, TrainingError::Settings(_)), "{error}");
    }
    std::fs::write(&kept, "{").unwrap();
    let broken = tucker(&folder.path().join("d"), &more).unwrap_err();
    assert!(matches!(broken, TrainingError::Times(_)), "{broken}");
}

#[test]
fn ways_to_factors_stopped_and_resumed_end_the_same() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (folder.path().join("a"), folder.path().join("b"));
    let more = ["--width", "0.5", "--method", "admm,direct,scratch"];
    let more = [&more[..], &["--flops", "2.5", "--distill", "4"]].concat();
    let whole = tucker(&a, &more).unwrap();
    assert_eq!(whole.runs().len(), 3);
    assert!(matches!(
        tucker(&b, &[&more[..], &["--stop-after", "5"]].concat()),
        Err(TrainingError::Stopped { .. })
    ));
    let parts = tucker(&b, &[&more[..], &["--resume"]].concat()).unwrap();
    for (part, whole) in parts.runs().iter().zip(whole.runs()) {
        let (part, whole) = (untimed(&part.report), untimed(&whole.report));
        for (key, value) in &whole.extra {
            assert_eq!(
                part.extra.get(key),
                Some(value),
                "{key} of {}",
                whole.method
            );
        }
        assert_eq!(part, whole);
    }

    let text = fs::read_to_string(a.join("report.json")).unwrap();
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(json["rows"].as_array().unwrap().len(), 3);
    for run in json["runs"].as_array().unwrap() {
        let report = &run["report"];
        assert!(report["max_abs_diff"].as_f64().unwrap() < 1e-3, "{report}");
        let ratio = report["extra"]["flop_ratio"].as_f64().unwrap();
        assert!((2.5..2.7).contains(&ratio), "{ratio}");
        let of = |key: &str| report[key].as_u64().unwrap();
        assert!(of("bytes_packed_file") < of("bytes_dense"));
        assert!(of("nnz") < of("weights"));
    }
    let table = whole.to_string();
    assert!(table.contains("| scratch | 1 |"), "{table}");
    let json_of = |method: usize| &json["rows"][method]["accuracy_towards"];
    assert!(json_of(0)["mean"].is_number() && json_of(1).is_null());

    // One run is one report, as everywhere.
    let one = ["--width", "0.5", "--size", "3", "--multiple", "4"];
    let one = tucker(&folder.path().join("c"), &one).unwrap();
    let report = Report::load(&folder.path().join("c").join("report.json")).unwrap();
    let run = &one.runs()[0].report;
    assert_eq!(
        (report.nnz, &report.method, report.bytes_packed_file),
        (run.nnz, &run.method, run.bytes_packed_file)
    );
    assert!(report.sparsity >= 1.0 - 1.0 / 3.0);
    assert!(report.table().contains("factored"), "{}", report.table());

    // Columns and rows in the place of three.
    let two = ["--width", "0.5", "--size", "1.5", "--factors", "spatial"];
    let two = [&two[..], &["--method", "admm,scratch"]].concat();
    let spatial = tucker(&folder.path().join("s"), &two).unwrap();
    for run in spatial.runs() {
        let report = &run.report;
        assert_eq!(report.extra["budget"]["factors"], "spatial");
        assert!(report.sparsity >= 1.0 - 1.0 / 1.5 && report.max_abs_diff < 1e-3);
    }

    let error = tucker(&folder.path().join("d"), &["--flops", "900"]).unwrap_err();
    let error = error.to_string();
    assert!(error.contains("multiply-adds are too few"), "{error}");
}

#[test]
fn a_sweep_stopped_and_resumed_ends_the_same() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (folder.path().join("a"), folder.path().join("b"));
    let schemes = ["--scheme", "bcr4x16,kernels4,2of4", "--sparsity", "0.8,0.9"];
    let small = ["--arch", "resnet20", "--width", "0.5", "--seeds", "2"];
    let more = [&schemes[..], &small].concat();
    let whole = blocks(&a, &more).unwrap();
    // 2of4 has one sparsity.
    assert_eq!(whole.cells().len(), 2 * 5);
    assert!(matches!(
        blocks(&b, &[&more[..], &["--stop-after", "7"]].concat()),
        Err(TrainingError::Stopped { .. })
    ));
    let parts = blocks(&b, &[&more[..], &["--resume"]].concat()).unwrap();
    let steady = |sweep: &Sweep| -> Vec<Report> {
        let cells = sweep.cells().iter();
        cells.map(|cell| untimed(&cell.report)).collect()
    };
    assert_eq!(steady(&parts), steady(&whole));

    let text = fs::read_to_string(a.join("report.json")).unwrap();
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(json["rows"].as_array().unwrap().len(), 5);
    for row in json["rows"].as_array().unwrap() {
        assert!(row["max_abs_diff"].as_f64().unwrap() < 1e-3, "{row}");
        assert_eq!(row["seeds"], 2);
    }
    let svg = fs::read_to_string(a.join("accuracy-latency.svg")).unwrap();
    assert!(svg.contains("bcr4x16"), "{svg}");

    for (wrong, says) in [
        (["--scheme", "stars"], "no pattern"),
        (["--arch", "vgg16"], "32x32"),
    ] {
        let error = blocks(&folder.path().join("c"), &wrong).unwrap_err();
        assert!(error.to_string().contains(says), "{error}");
    }
}

fn compress(folder: &Path, more: &[&str]) -> Result<Table, TrainingError> {
    let output = folder.to_string_lossy();
    let args = ["x", "--device", "flex", "--output", &output];
    let data = [
        "--dataset",
        "shapes",
        "--image-size",
        "16",
        "--limit",
        "60",
        "--limit-test",
        "20",
    ];
    let short = [
        "--epochs",
        "1",
        "--admm-iterations",
        "1",
        "--retrain-epochs",
        "1",
        "--quant-iterations",
        "1",
        "--tune-epochs",
        "1",
    ];
    lenet5_compress::run(&lenet5_compress::Args::parse_from(
        [&args[..], &data, &short, more].concat(),
    ))
}

#[test]
fn compression_stopped_and_resumed_ends_the_same() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (folder.path().join("a"), folder.path().join("b"));
    let more = ["--ratio", "4,20", "--via", "4", "--method", "admm,oneshot"];
    let whole = compress(&a, &more).unwrap();
    assert_eq!(whole.cells().len(), 4);
    for stop in ["3", "6"] {
        let resume: &[&str] = if stop == "3" { &[] } else { &["--resume"] };
        assert!(matches!(
            compress(&b, &[&more[..], &["--stop-after", stop], resume].concat()),
            Err(TrainingError::Stopped { .. })
        ));
    }
    let parts = compress(&b, &[&more[..], &["--resume"]].concat()).unwrap();
    let json = |table: &Table| serde_json::to_value(table).unwrap();
    assert_eq!(json(&parts), json(&whole));

    for cell in whole.cells() {
        // What the ledger says is what lies on the disk, and what the loaded network gets right.
        let name = match cell.setting.via.len() {
            0 => format!("{}-4", cell.setting.method),
            _ => format!("{}-4-20", cell.setting.method),
        };
        let path = a.join("seed-42").join(name).join(examples::compress::FILE);
        assert_eq!(fs::metadata(path).unwrap().len(), cell.file.bytes);
        assert_eq!(cell.file.ledger.file_bytes, cell.file.bytes);
        assert_eq!(cell.file.accuracy, cell.accuracy_quantised);
        assert!(cell.file.max_abs_diff < 1e-4, "{}", cell.file.max_abs_diff);
        let kept = cell.weights as f64 / cell.nnz as f64;
        assert!((kept / cell.setting.ratio - 1.0).abs() < 0.05, "{kept}");
    }
    let [four, twenty] = [&whole.cells()[0], &whole.cells()[1]];
    assert!(twenty.file.bytes * 2 < four.file.bytes);
    let text = fs::read_to_string(a.join("report.json")).unwrap();
    let report: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(report["results"]["rows"].as_array().unwrap().len(), 4);

    let error = compress(&folder.path().join("c"), &["--levels", "fc9=uniform2"]).unwrap_err();
    assert!(error.to_string().contains("fc9.weight"), "{error}");
}

fn mixed(folder: &Path, more: &[&str]) -> Result<Vec<mixed_network::Row>, TrainingError> {
    let output = folder.to_string_lossy();
    let args = ["x", "--device", "flex", "--runs", "3", "--output", &output];
    mixed_network::run(&mixed_network::Args::parse_from([&args[..], more].concat()))
}

#[test]
fn levels_are_tried_side_by_side_on_one_pruned_network() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (folder.path().join("a"), folder.path().join("b"));
    let pruned = ["--ratio", "4", "--method", "oneshot"];
    let first = ["--levels", "*=uniform4"];
    let both = [&first[..], &["--levels", "*=codebook3", "--halves"]].concat();
    let stopped = compress(&a, &[&pruned[..], &both, &["--stop-after", "8"]].concat());
    assert!(matches!(stopped, Err(TrainingError::Stopped { .. })));
    let table = compress(&a, &[&pruned[..], &both, &["--resume"]].concat()).unwrap();
    let [uniform, codebook] = table.cells() else {
        panic!("{table}");
    };
    assert_eq!(uniform.accuracy_pruned, codebook.accuracy_pruned);
    assert_eq!(uniform.nnz, codebook.nnz);
    for cell in [uniform, codebook] {
        let halves = [cell.accuracy_pruned_halves, cell.file.accuracy_halves];
        let near = |half: Option<f64>, whole: f64| (half.unwrap() - whole).abs() < 0.11;
        assert!(near(halves[0], cell.accuracy_pruned), "{cell:?}");
        assert!(near(halves[1], cell.file.accuracy), "{cell:?}");
    }
    let folder = a.join("seed-42/oneshot-4");
    let bytes = |name: &str| fs::metadata(folder.join(name)).unwrap().len();
    assert_eq!(bytes(examples::compress::FILE), uniform.file.bytes);
    let second = format!("levels-2/{}", examples::compress::FILE);
    assert_eq!(bytes(&second), codebook.file.bytes);
    let text = table.to_string();
    assert!(
        text.contains("file, f16") && text.contains("*=codebook3"),
        "{text}"
    );

    // The dense network trains as long as before: levels are alternatives, not stages.
    let alone = compress(&b, &[&pruned[..], &first].concat()).unwrap();
    let alone = &alone.cells()[0];
    assert_eq!(alone.accuracy_dense, uniform.accuracy_dense);
    assert_eq!(alone.file.accuracy, uniform.file.accuracy);
    assert_eq!(alone.file.bytes, uniform.file.bytes);
    assert!(alone.file.accuracy_halves.is_none());
}

#[test]
fn a_mixed_network_is_the_masked_one_and_a_second_run_finds_it() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let args = [
        "--arch",
        "lenet5",
        "--sparsity",
        "0.9,0.95",
        "--batch",
        "3",
        "--levels",
        "*=codebook4",
    ];
    let found = mixed(folder.path(), &args).unwrap();
    assert_eq!(found.len(), 2);
    for row in &found {
        // f16 has eleven bits, and logits are sums of hundreds of terms through four layers.
        assert!(row.max_rel_diff < 1e-2, "{}", row.max_rel_diff);
        assert!(row.layers == 4 && row.sparse_layers <= 4);
        assert!(
            row.networks
                .iter()
                .all(|network| network.milliseconds.median > 0.0)
        );
    }
    let again = mixed(folder.path(), &[&args[..], &["--resume"]].concat()).unwrap();
    let difference =
        |rows: &[mixed_network::Row]| rows.iter().map(|row| row.max_abs_diff).sum::<f32>();
    let [kept, measured] = [difference(&again), difference(&found)];
    // JSON may lose the last digit.
    assert!(
        (kept - measured).abs() <= 1e-12 * measured,
        "{kept} {measured}"
    );
    assert!(folder.path().join("report.json").is_file());
    let two = ["--arch", "lenet5,lenet300", "--weights", "w.safetensors"];
    assert!(mixed(folder.path(), &two).is_err());
}

fn sizes(folder: &Path, more: &[&str]) -> Result<Vec<Size>, TrainingError> {
    let output = folder.to_string_lossy();
    let args = ["x", "--device", "flex", "--output", &output];
    compressed_size::run(&compressed_size::Args::parse_from(
        [&args[..], more].concat(),
    ))
}

#[test]
fn sizes_are_those_of_the_files_and_a_second_run_finds_them() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let both = ["--arch", "lenet300,lenet5", "--ratio", "40"];
    let found = sizes(folder.path(), &both).unwrap();
    assert_eq!(found.len(), 2);
    for size in &found {
        let path = folder
            .path()
            .join(size.arch.name())
            .join(examples::compress::FILE);
        assert_eq!(fs::metadata(path).unwrap().len(), size.bytes);
        assert_eq!(size.ledger.file_bytes, size.bytes);
        // Logits near one, of sums of hundreds of terms.
        assert!(size.max_abs_diff < 1e-4, "{}", size.max_abs_diff);
        let kept = size.weights as f64 / size.nnz as f64;
        assert!((kept / 40.0 - 1.0).abs() < 0.01, "{kept}");
        assert!(size.random && size.ledger.everything_of_weights() > 100.0);
    }
    // What is done is found, and what is not done, or was of other settings, is not.
    let stored = folder.path().join("lenet5/size.json");
    let text = fs::read_to_string(&stored).unwrap();
    fs::write(
        &stored,
        text.replace("\"max_abs_diff\": 0", "\"max_abs_diff\": 7"),
    )
    .unwrap();
    fs::remove_file(folder.path().join("lenet300/size.json")).unwrap();
    let again = sizes(folder.path(), &[&both[..], &["--resume"]].concat()).unwrap();
    assert_eq!(again[0], found[0]);
    assert!(again[1].max_abs_diff >= 7.0);
    fs::write(&stored, text.replace("\"ratio\": 40", "\"ratio\": 41")).unwrap();
    let again = sizes(folder.path(), &[&both[..], &["--resume"]].concat()).unwrap();
    assert_eq!(again, found);
    let other = sizes(folder.path(), &["--arch", "lenet5", "--resume"]).unwrap_err();
    assert!(matches!(other, TrainingError::OtherRun { .. }), "{other}");

    // Weights of one's own.
    let path = folder.path().join("own.safetensors");
    let own = models::ModelConfig::new(models::Arch::LeNet300).with_classes(7);
    models::weights::save(&own.init(&burn::tensor::Device::flex()), &path).unwrap();
    let path = path.to_string_lossy();
    let given = ["--arch", "lenet300", "--ratio", "5", "--weights", &path];
    let found = sizes(&folder.path().join("own"), &given).unwrap();
    assert_eq!(
        (found[0].random, found[0].weights),
        (false, 235_200 + 30_000 + 700)
    );
    let error = sizes(folder.path(), &["--weights", &path]).unwrap_err();
    assert!(error.to_string().contains("--arch"), "{error}");
}

#[test]
fn the_custom_loop_stopped_after_any_epoch_ends_the_same() {
    let _alone = alone();
    check(custom, "1", 6);
}

#[test]
fn the_trainer_stopped_after_some_epochs_ends_the_same() {
    let _alone = alone();
    check(trainer, "1", 4);
}

#[test]
fn the_custom_loop_refuses_what_is_no_run() {
    let _alone = alone();
    refuses(custom);
    let folder = tempfile::tempdir().unwrap();
    custom(folder.path(), &["--stop-after", "3"]).unwrap_err();
    for name in ["admm-3.safetensors", "model-3.bpk", "state.json"] {
        let path = folder.path().join(name);
        let len = fs::metadata(&path).unwrap().len();
        let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
        file.set_len(len / 2).unwrap();
        let error = custom(folder.path(), &["--resume"]).unwrap_err();
        assert!(error.to_string().contains(name), "{error}");
    }
}

#[test]
fn the_trainer_goes_back_to_the_last_whole_checkpoint() {
    let _alone = alone();
    refuses(trainer);
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    trainer(here, &["--stop-after", "3"]).unwrap_err();
    let file = |name: &str| here.join("checkpoint").join(name);
    // As if it had been killed while it wrote.
    fs::write(file("optim-3.bpk"), b"BURN").unwrap();
    fs::remove_file(file("scheduler-3.bpk")).unwrap();
    let resumed = trainer(here, &["--resume"]).unwrap();
    let whole = tempfile::tempdir().unwrap();
    let whole = trainer(whole.path(), &[]).unwrap();
    assert_eq!(steady(&resumed), steady(&whole));

    for epoch in [3, 4] {
        fs::write(file(&format!("model-{epoch}.bpk")), b"").unwrap();
    }
    let error = trainer(here, &["--resume"]).unwrap_err();
    assert!(matches!(error, TrainingError::State { .. }), "{error}");
    let text = error.to_string();
    assert!(
        text.contains("model-4.bpk") && text.contains("without --resume"),
        "{text}"
    );

    // A fresh run does not take over the checkpoints of the old one.
    trainer(here, &["--stop-after", "1"]).unwrap_err();
    assert!(file("model-1.bpk").is_file() && !file("model-4.bpk").exists());
}

fn penni(folder: &Path, more: &[&str]) -> Outcome {
    let output = folder.to_string_lossy();
    let args = ["x", "--device", "flex", "--output", &output];
    let images = ["--dataset", "shapes", "--image-size", "8"];
    let few = ["--limit", "40", "--limit-test", "20", "--width", "0.5"];
    let short = ["--epochs", "1", "--alternate-epochs", "2"];
    let short = [&short[..], &["--tune-epochs", "2", "--threshold", "1.5"]].concat();
    penni_compress::run(&penni_compress::Args::parse_from(
        [&args[..], &images, &few, &short, more].concat(),
    ))
}

#[test]
fn shared_kernels_stopped_and_resumed_end_the_same() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (folder.path().join("a"), folder.path().join("b"));
    let whole = penni(&a, &["--pointwise"]).unwrap();
    // One epoch of dense training, four on, two in turns, two of fine-tuning: stops in both of the last two.
    for stop in ["6", "2"] {
        let resume: &[&str] = if stop == "6" { &[] } else { &["--resume"] };
        let args = [&["--pointwise", "--stop-after", stop], resume].concat();
        let stopped = penni(&b, &args).unwrap_err();
        assert!(
            matches!(stopped, TrainingError::Stopped { .. }),
            "{stopped}"
        );
    }
    let parts = penni(&b, &["--pointwise", "--resume"]).unwrap();
    assert_eq!(untimed(&parts), untimed(&whole));

    let report = Report::load(&a.join("report.json")).unwrap();
    assert!(report.max_abs_diff < 1e-4, "{}", report.max_abs_diff);
    assert!(
        report.nnz < report.weights && report.sparsity > 0.5,
        "{}",
        report.sparsity
    );
    assert!(report.latency_ms.dense > 0.0 && report.table().contains("shared"));
    assert!(
        report.extra["latency_ms_composed"]["packed"]
            .as_f64()
            .unwrap()
            > 0.0
    );
    let number = |key: &str| report.extra[key].as_u64().unwrap();
    assert!(number("parameters_shrunk") <= number("parameters"));
    assert!(number("macs_shared") < number("macs") && number("macs_shrunk") <= number("macs"));
    let sharing = &report.extra["sharing"];
    assert!(sharing["shrink_max_abs_diff"][0].as_f64().unwrap() < 1e-4);
    for key in ["pruned", "shrunk"] {
        assert_eq!(
            sharing[key]["layers"].as_array().unwrap().len(),
            19,
            "{key}"
        );
    }

    // A state that is cut short is named.
    penni(&b, &["--stop-after", "6"]).unwrap_err();
    let state = b.join("alternate").join("penni-1.safetensors");
    let len = fs::metadata(&state).unwrap().len();
    let file = fs::OpenOptions::new().write(true).open(&state).unwrap();
    file.set_len(len / 2).unwrap();
    let error = penni(&b, &["--resume"]).unwrap_err();
    assert!(error.to_string().contains("penni-1"), "{error}");
}

#[test]
fn examples_start_from_trained_weights() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    // Other networks than the default one, with a stem and a head that the file tells.
    let device = Device::flex();
    for (arch, classes) in [
        (Arch::Cifar6, 10),
        (Arch::ResNet18, 10),
        (Arch::ResNet20, 7),
    ] {
        let config = ModelConfig::new(arch)
            .with_classes(classes)
            .with_input([3, 8, 8])
            .with_stem(Stem::Cifar)
            .with_width(0.125);
        weights::save(&config.init(&device), at(arch.name())).unwrap();
    }
    let started = |name: &str, more: &[&'static str]| -> Vec<String> {
        let output = at("run").to_string_lossy().into_owned();
        let file = at(name).to_string_lossy().into_owned();
        let images = ["--dataset", "shapes", "--image-size", "8"];
        let few = ["--limit", "40", "--limit-test", "20", "--width", "0.125"];
        let args = ["x", "--device", "flex", "--arch", name, "--weights", &file];
        [&args[..], &["--output", &output], &images, &few, more]
            .concat()
            .iter()
            .map(ToString::to_string)
            .collect()
    };
    let short = ["--admm-iterations", "1", "--retrain-epochs", "1"];
    let tucker = |name: &str, more: &[&'static str]| {
        let args = started(name, &[&short[..], more].concat());
        tucker_compress::run(&tucker_compress::Args::parse_from(args))
    };
    let table = tucker("cifar6", &["--method", "admm,direct"]).unwrap();
    for cell in table.runs() {
        assert_eq!(cell.report.extra["recipe"]["epochs"], 0);
        assert!(cell.report.max_abs_diff < 1e-3);
    }
    let stem = fs::read_to_string(at("run").join(SETTINGS)).unwrap();
    assert!(stem.contains("cifar6"), "{stem}");
    let report = penni_compress::run(&penni_compress::Args::parse_from(started(
        "resnet18",
        &["--alternate-epochs", "1", "--tune-epochs", "1"],
    )));
    let report = report.unwrap();
    assert_eq!(report.extra["recipe"]["epochs"], 0);
    assert!(report.max_abs_diff < 1e-4, "{}", report.max_abs_diff);
    let blocks = |more: &[&'static str]| {
        let args = started("cifar6", &[&short[..], more].concat());
        block_prune::run(&block_prune::Args::parse_from(args))
    };
    let sweep = blocks(&["--scheme", "blocks4", "--epochs", "1"]).unwrap();
    assert_eq!(sweep.cells()[0].report.extra["recipe"]["epochs"], 1);

    let seven = tucker("resnet20", &[]).unwrap_err().to_string();
    assert!(
        seven.contains("7 classes") && seven.contains("--dataset"),
        "{seven}"
    );
    let scratch = tucker("cifar6", &["--method", "scratch"]).unwrap_err();
    assert!(scratch.to_string().contains("--weights"), "{scratch}");
    let click = blocks(&["--method", "clicktrain"]).unwrap_err();
    assert!(click.to_string().contains("--weights"), "{click}");
}

fn evolve(folder: &Path, more: &[&str]) -> Result<Comparison, TrainingError> {
    let output = folder.to_string_lossy();
    let args = ["x", "--device", "flex", "--output", &output];
    let images = ["--dataset", "shapes", "--image-size", "16"];
    let few = ["--limit", "60", "--limit-test", "20", "--arch", "cifar6"];
    let small = ["--width", "0.125", "--batch", "16", "--epochs", "1"];
    let short = ["--admm-iterations", "2", "--retrain-epochs", "1"];
    let trials = ["--trials", "2", "--tolerance", "0.2", "--step", "0.5"];
    let all = [&args[..], &images, &few, &small, &short, &trials, more].concat();
    evolve_prune::run(&evolve_prune::Args::parse_from(all))
}

#[test]
fn an_evolution_stopped_and_resumed_ends_the_same() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (folder.path().join("a"), folder.path().join("b"));
    let both = ["--method", "evolve,gradual"];
    let whole = evolve(&a, &both).unwrap();
    let mut args = [&both[..], &["--stop-after", "1"]].concat();
    let mut pieces = 1;
    let parts = loop {
        match evolve(&b, &args) {
            Ok(parts) => break parts,
            Err(TrainingError::Stopped { .. }) => pieces += 1,
            Err(error) => panic!("{error}"),
        }
        args = [&both[..], &["--stop-after", "1", "--resume"]].concat();
    };
    assert_eq!(pieces, 1 + 2 * 3);
    let reports = |all: &Comparison| all.runs().iter().map(untimed).collect::<Vec<_>>();
    assert_eq!(reports(&parts), reports(&whole));

    let [evolved, gradual] = whole.runs() else {
        panic!("{whole}");
    };
    assert_eq!(
        (evolved.method.as_str(), gradual.method.as_str()),
        ("evolve", "gradual")
    );
    let found = |report: &Report| report.extra["pruned_layers_sparsity"].as_f64().unwrap();
    // The same number of zeros, but for rounding in each of four layers.
    assert!(found(evolved) > 0.2, "{}", found(evolved));
    let weights = 144.0 + 288.0 + 576.0 + 2048.0;
    assert!((found(evolved) - found(gradual)).abs() < 4.0 / weights);
    for report in [evolved, gradual] {
        assert!(report.max_abs_diff < 1e-3, "{}", report.max_abs_diff);
    }
    let trials = evolved.extra["pruning"]["trials"].as_array().unwrap();
    assert_eq!(trials.len(), 4);
    assert!(trials[0]["origin"] == "grown" && trials[0]["accuracy"].is_number());
    let gradual_on = evolve(
        &b,
        &["--method", "gradual", "--sparsity", "0.5,0.75", "--resume"],
    );
    let error = gradual_on.unwrap_err();
    assert!(matches!(error, TrainingError::OtherRun { .. }), "{error}");

    // A state that is cut short is named, and settings out of range are.
    evolve(&b, &["--method", "evolve", "--stop-after", "2"]).unwrap_err();
    let state = b.join("seed-42/evolve/compress/evolve-1.safetensors");
    let len = fs::metadata(&state).unwrap().len();
    let file = fs::OpenOptions::new().write(true).open(&state).unwrap();
    file.set_len(len / 2).unwrap();
    let error = evolve(&b, &["--method", "evolve", "--resume"]).unwrap_err();
    assert!(error.to_string().contains("evolve-1"), "{error}");
    let output = folder.path().join("c").to_string_lossy().into_owned();
    let args = [
        "x", "--device", "flex", "--output", &output, "--step", "1.5",
    ];
    let few = ["--dataset", "shapes", "--image-size", "16", "--limit", "20"];
    let args = evolve_prune::Args::parse_from([&args[..], &few].concat());
    let error = evolve_prune::run(&args).unwrap_err().to_string();
    assert!(error.contains("step is 1.5"), "{error}");
}
