//! The bench as its user runs it: reports that are written, compared and drawn.
#![cfg(feature = "flex")]

use std::fs;
use std::path::Path;

use clap::Parser;
use examples::bench::{BenchError, BenchReport, Command, Ending, execute};

#[derive(Parser)]
struct Program {
    #[command(subcommand)]
    command: Command,
}

fn bench(args: &[&str]) -> Result<Ending, BenchError> {
    let args = ["bench"].iter().chain(args);
    execute(&Program::try_parse_from(args).unwrap().command)
}

const SUITE: &str = "\
# Small enough for a test.
conv kind=conv in=8 out=12 size=9x7 kernel=3 stride=2 padding=1 count=2
grouped kind=conv in=8 out=8 size=9 kernel=3 groups=4
text kind=conv1d in=16 out=8 size=20 kernel=3
fc kind=linear in=32 out=10
";

fn run(folder: &Path, more: &[&str]) -> (Ending, BenchReport) {
    let suite = folder.join("suite.txt");
    fs::write(&suite, SUITE).unwrap();
    let (suite, output) = (suite.to_str().unwrap(), folder.to_str().unwrap());
    let args = [
        "run", "--suite", suite, "--output", output, "--device", "flex",
    ];
    let ending = bench(&[&args[..], &["--runs", "3"], more].concat()).unwrap();
    let report = BenchReport::load(&folder.join("report.json")).unwrap();
    (ending, report)
}

#[test]
fn a_run_measures_every_combination_and_compares_with_itself() {
    let dir = tempfile::tempdir().unwrap();
    let conditions = [
        "--sparsity",
        "0.5,0.9,0.5",
        "--pattern",
        "unstructured,blocks4",
        "--batch",
        "1,3",
    ];
    let (ending, report) = run(dir.path(), &conditions);
    assert_eq!(ending, Ending::Well);
    assert_eq!((report.rows.len(), report.failures()), (4 * 2 * 2 * 2, 0));
    for row in &report.rows {
        let measured = row.measured().unwrap();
        assert_eq!(measured.counts.nnz, measured.counts.stored);
        assert!((measured.counts.sparsity - row.key.sparsity).abs() < 0.05);
        assert!(measured.gflops.equivalent >= measured.gflops.sparse);
        assert_eq!(
            measured.verified.unwrap().checked,
            measured.verified.unwrap().outputs
        );
    }
    let table = report.table();
    assert!(table.contains("of 32 rows"), "{table}");
    let path = dir.path().join("report.json");
    let path = path.to_str().unwrap();
    let output = dir.path().join("comparison");
    let ending = bench(&["compare", path, path, "--output", output.to_str().unwrap()]).unwrap();
    assert_eq!(ending, Ending::Well);
    let json = fs::read(output.join("report.json")).unwrap();
    let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
    assert_eq!(json["rows"].as_array().unwrap().len(), 32);
    assert_eq!(json["rows"][0]["verdict"], "same");
}

#[test]
fn a_regression_ends_a_comparison_with_a_finding() {
    let dir = tempfile::tempdir().unwrap();
    let (_, mut report) = run(dir.path(), &["--layer", "conv|fc", "--no-verify"]);
    let old = dir.path().join("report.json");
    let new = dir.path().join("new.json");
    // A hundred times slower, and the dense rival as it was.
    for row in &mut report.rows {
        assert!(row.measured().unwrap().verified.is_none());
        let examples::bench::Outcome::Measured(measured) = &mut row.outcome else {
            panic!("{row:?}")
        };
        let sparse = &mut measured.pair.sparse;
        (sparse.median, sparse.spread) = (sparse.median * 100.0, 0.0);
    }
    report.save(&new).unwrap();
    let (old, new) = (old.to_str().unwrap(), new.to_str().unwrap());
    assert_eq!(bench(&["compare", old, new]).unwrap(), Ending::Found(2));
    assert_eq!(bench(&["compare", new, old]).unwrap(), Ending::Well);
}

#[test]
fn growth_draws_every_layer_and_keeps_its_numbers() {
    let dir = tempfile::tempdir().unwrap();
    let output = dir.path().to_str().unwrap();
    let layer = "kind=conv in=8 out=8 size=10 kernel=3 padding=1";
    for (axis, points) in [
        ("sparsity", 7),
        ("channels", 4),
        ("image", 4),
        ("batch", 4),
        ("threads", 2),
    ] {
        let args = [
            "growth",
            "--axis",
            axis,
            "--layer",
            layer,
            "--layer",
            "fc kind=linear in=8 out=4",
            "--runs",
            "3",
            "--device",
            "flex",
            "--output",
            output,
        ];
        let values = ["--values", "1,2"];
        let more = if axis == "threads" { &values[..] } else { &[] };
        assert_eq!(bench(&[&args[..], more].concat()).unwrap(), Ending::Well);
        let report = BenchReport::load(&dir.path().join("report.json")).unwrap();
        let growth = report.growth.unwrap();
        assert_eq!(growth.curves.len(), 2);
        assert_eq!(growth.curves[0].points.len(), points, "{axis}");
        for curve in &growth.curves {
            let skipped = axis == "image" && curve.layer == "fc";
            assert_eq!(curve.skipped.is_empty(), !skipped, "{curve:?}");
            assert_eq!(curve.plot.is_none(), skipped);
            if let Some(plot) = &curve.plot {
                let svg = fs::read_to_string(dir.path().join(plot)).unwrap();
                assert!(svg.contains("dense") && svg.contains("</svg>"));
            }
        }
    }
}

#[test]
fn what_cannot_be_done_is_an_error_that_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let output = dir.path().to_str().unwrap();
    let suite = dir.path().join("hostile.txt");
    let hostile = suite.to_str().unwrap();
    let huge = "a kind=conv in=268435456 out=268435456 size=268435456 kernel=4096";
    for (text, args, says) in [
        (
            huge,
            vec!["run", "--suite", hostile],
            "line 1: the input has",
        ),
        (
            "a",
            vec!["run", "--suite", hostile],
            "line 1: kind is missing",
        ),
        ("", vec!["run", "--suite", "resnet18"], "resnet18"),
        (
            "",
            vec!["run", "--layer", "nothing"],
            "no layer of resnet50",
        ),
        ("", vec!["run", "--layer", "["], "--layer"),
        (
            "",
            vec!["run", "--suite", "vgg16", "--network"],
            "--network",
        ),
        ("", vec!["run", "--batch", "1000000"], "the input has"),
        (
            "",
            vec!["compare", hostile, hostile],
            "no report of `bench`",
        ),
        (
            "",
            vec!["run", "--layer", "^$", "--network", "--batch", "999"],
            "more than 256",
        ),
        (
            "",
            vec!["growth", "--axis", "sparsity", "--sparsity", "0.5"],
            "--values",
        ),
        ("", vec!["growth", "--axis", "batch"], "no layer"),
        (
            "",
            vec!["growth", "--axis", "batch", "--layer", "x", "--values", "3"],
            "kind is missing",
        ),
        (
            "",
            vec![
                "growth", "--axis", "batch", "--suite", "text_cnn", "--values", "0.5",
            ],
            "--values",
        ),
    ] {
        fs::write(&suite, text).unwrap();
        let mut args = args;
        if args[0] != "compare" {
            args.extend(["--device", "flex", "--output", output]);
        }
        let error = bench(&args).unwrap_err().to_string();
        assert!(error.contains(says), "{args:?}: {error}");
    }
}

#[test]
fn factors_are_held_against_burns_and_timed_beside_them() {
    let dir = tempfile::tempdir().unwrap();
    let output = dir.path().to_str().unwrap();
    let suite = dir.path().join("suite.txt");
    let layers = "a kind=conv in=12 out=20 size=9x7 kernel=3 stride=2 padding=1\n\
                  point kind=conv in=12 out=20 size=9 kernel=1\n\
                  fc kind=linear in=30 out=20\n";
    std::fs::write(&suite, layers).unwrap();
    let suite = suite.to_str().unwrap();
    let common = ["--device", "flex", "--budget", "0", "--output", output];
    let asked = [
        "tucker", "--suite", suite, "--ranks", "5,4", "--batch", "1,3",
    ];
    let ending = bench(&[&asked[..], &common].concat()).unwrap();
    assert_eq!(ending, Ending::Well);
    let text = std::fs::read_to_string(dir.path().join("report.json")).unwrap();
    let report: serde_json::Value = serde_json::from_str(&text).unwrap();
    let rows = report["rows"].as_array().unwrap();
    // What has no ranks is left out.
    assert_eq!(rows.len(), 2);
    for row in rows {
        assert_eq!(row["name"], "a");
        assert!(row["max_rel_diff"].as_f64().unwrap() < 1e-4);
        assert_eq!(row["forms"].as_array().unwrap().len(), 4);
    }
    // The core alone, strips asked for by name, and other numbers; what flex does not have is said.
    let forms = [
        "tucker",
        "--suite",
        suite,
        "--ranks",
        "5,4",
        "--forms",
        "core,core_between,strip,burn_three",
        "--dtype",
        "f32,f16",
        "--model",
    ];
    let ending = bench(&[&forms[..], &common].concat()).unwrap();
    assert_eq!(ending, Ending::Well);
    let text = std::fs::read_to_string(dir.path().join("report.json")).unwrap();
    let more: serde_json::Value = serde_json::from_str(&text).unwrap();
    let [full, half] = [&more["rows"][0], &more["rows"][1]];
    assert_eq!(
        (&full["dtype"], &half["dtype"]),
        (&"f32".into(), &"f16".into())
    );
    let names = |key: &str, row: &serde_json::Value| -> Vec<String> {
        let forms = row[key].as_array().unwrap().iter();
        forms
            .map(|form| form["name"].as_str().unwrap().to_owned())
            .collect()
    };
    let all = ["burn_three", "core", "core_between", "strip", "factors"];
    assert_eq!(names("forms", full), all);
    assert!(full["max_rel_diff"].as_f64().unwrap() < 1e-4);
    if half["skipped"].is_null() {
        assert_eq!(names("forms", half), ["burn_three", "factors"]);
        assert_eq!(names("absent", half), ["core", "core_between", "strip"]);
        let reason = half["absent"][0]["reason"].as_str().unwrap();
        assert!(reason.contains("f32"), "{reason}");
    }
    let tiles = more["tiles"].as_array().unwrap();
    assert!(
        tiles[0]["absent"].as_str().unwrap().contains("flex"),
        "{tiles:?}"
    );
    assert_eq!(tiles[0]["problem"]["in_channels"], 4);
    assert!(report["tiles"].is_null());
    assert_eq!(
        rows[1]["macs"].as_u64(),
        rows[0]["macs"].as_u64().map(|macs| 3 * macs)
    );
    for wrong in [
        &["tucker", "--layer", "nothing"][..],
        &["tucker", "--suite", suite, "--ranks", "500,4"],
    ] {
        let all = [wrong, &common].concat();
        assert!(bench(&all).is_err(), "{wrong:?}");
    }
    for wrong in [
        &["bench", "tucker", "--suite", suite, "--ranks", "0,4"][..],
        &["bench", "tucker", "--suite", suite],
    ] {
        assert!(Program::try_parse_from(wrong).is_err(), "{wrong:?}");
    }
}

#[test]
fn shared_kernels_are_timed_beside_the_layer_that_they_compose() {
    let dir = tempfile::tempdir().unwrap();
    let output = dir.path().to_str().unwrap();
    let suite = dir.path().join("suite.txt");
    let layers = "a kind=conv in=6 out=5 size=9x7 kernel=3 stride=2 padding=1\n\
                  point kind=conv in=12 out=20 size=9 kernel=1\n\
                  fc kind=linear in=30 out=20\n";
    std::fs::write(&suite, layers).unwrap();
    let suite = suite.to_str().unwrap();
    let common = ["--device", "flex", "--budget", "0", "--output", output];
    let asked = [
        "shared",
        "--suite",
        suite,
        "--batch",
        "1,3",
        "--density",
        "0,0.2",
        "--kernels",
        "20",
    ];
    let ending = bench(&[&asked[..], &common].concat()).unwrap();
    assert_eq!(ending, Ending::Well);
    let text = std::fs::read_to_string(dir.path().join("report.json")).unwrap();
    let report: serde_json::Value = serde_json::from_str(&text).unwrap();
    let rows = report["rows"].as_array().unwrap();
    // 1x1 kernels and linear layers are left out; more kernels than positions there cannot be.
    assert_eq!(rows.len(), 4);
    for row in rows {
        assert_eq!(
            (&row["name"], row["kernels"].as_u64()),
            (&"a".into(), Some(9))
        );
        assert!(row["max_rel_diff"].as_f64().unwrap() < 1e-4);
        assert!(row["time"]["sparse"]["median"].as_f64().unwrap() > 0.0);
    }
    assert_eq!(rows[0]["nnz"], 0);
    let none = [&["shared", "--layer", "nothing"][..], &common].concat();
    assert!(bench(&none).is_err());
    for wrong in [["--density", "1.5"], ["--kernels", "0"]] {
        let asked = [&["bench", "shared"][..], &wrong].concat();
        assert!(Program::try_parse_from(asked).is_err(), "{wrong:?}");
    }
}

#[test]
fn what_stays_dense_is_timed_beside_burn() {
    let dir = tempfile::tempdir().unwrap();
    let output = dir.path().to_str().unwrap();
    let suite = dir.path().join("suite.txt");
    let layers = "first kind=conv in=3 out=8 size=11x9 kernel=5 stride=2 padding=2\n\
                  apart kind=conv in=6 out=4 size=9 kernel=3 dilation=2 groups=2\n\
                  text kind=conv1d in=5 out=7 size=12 kernel=3\n\
                  fc kind=linear in=30 out=20\n";
    std::fs::write(&suite, layers).unwrap();
    let suite = suite.to_str().unwrap();
    let common = ["--device", "flex", "--budget", "0", "--output", output];
    let asked = [
        "dense",
        "--suite",
        suite,
        "--batch",
        "1,3",
        "--pool",
        "6x9x7:3/2",
    ];
    let ending = bench(&[&asked[..], &common].concat()).unwrap();
    assert_eq!(ending, Ending::Well);
    let text = std::fs::read_to_string(dir.path().join("report.json")).unwrap();
    let report: serde_json::Value = serde_json::from_str(&text).unwrap();
    let rows = report["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 10);
    for row in rows {
        assert!(row["max_rel_diff"].as_f64().unwrap() < 1e-4, "{row}");
        for form in ["burn", "ours", "packed"] {
            assert!(row[form]["median"].as_f64().unwrap() > 0.0, "{row}");
        }
    }
    assert!(bench(&[&["dense", "--layer", "nothing"][..], &common].concat()).is_err());
}

#[test]
fn ranks_are_timed_and_drawn() {
    let dir = tempfile::tempdir().unwrap();
    let layer = "kind=conv in=12 out=20 size=9x7 kernel=3 padding=1";
    let output = dir.path().to_str().unwrap();
    let args = ["ranks", "--layer", layer, "--step", "8", "--device", "flex"];
    let ending = bench(&[&args[..], &["--output", output]].concat()).unwrap();
    assert_eq!(ending, Ending::Well);
    let svg = std::fs::read_to_string(dir.path().join("ranks-1.svg")).unwrap();
    assert!(svg.contains("undivided") && svg.contains("as multiply-adds say"));
    let text = std::fs::read_to_string(dir.path().join("report.json")).unwrap();
    let report: serde_json::Value = serde_json::from_str(&text).unwrap();
    // Two steps and all channels of 12, two and all of 20, without all of both.
    let timed = &report["times"]["layers"][0]["factored_ms"];
    assert_eq!(timed.as_array().unwrap().len(), 2 * 3 - 1);
}

#[test]
fn a_network_is_decomposed_within_a_budget_and_timed() {
    let dir = tempfile::tempdir().unwrap();
    let output = dir.path().to_str().unwrap();
    let common = ["--device", "flex", "--output", output];
    let asked = [
        "decompose",
        "--arch",
        "resnet20",
        "--rounds",
        "1",
        "--flops",
        "2",
    ];
    let ending = bench(&[&asked[..], &common].concat()).unwrap();
    assert_eq!(ending, Ending::Well);
    let text = std::fs::read_to_string(dir.path().join("report.json")).unwrap();
    let report: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert!(report["flop_ratio"].as_f64().unwrap() >= 2.0);
    assert!(report["decomposing"].as_f64().unwrap() > 0.0);
    let rows = report["rows"].as_array().unwrap();
    assert!(!rows.is_empty());
    for row in rows {
        assert!(row["rounds"].as_u64().unwrap() <= 1);
        assert!((0.0..1.0).contains(&row["relative_error"].as_f64().unwrap()));
    }
    let some = rows.len();
    let all = [&asked[..], &["--all"], &common].concat();
    bench(&all).unwrap();
    let text = std::fs::read_to_string(dir.path().join("report.json")).unwrap();
    let report: serde_json::Value = serde_json::from_str(&text).unwrap();
    let rows = report["rows"].as_array().unwrap();
    // The shortcuts of resnet20 have no weights: the classifier is all that comes on top.
    assert!(rows.len() >= some && rows.len() <= 20, "{}", rows.len());
    // No ranks take a thousandth of the work.
    let asked = ["decompose", "--arch", "resnet20", "--flops", "1000"];
    assert!(bench(&[&asked[..], &common].concat()).is_err());
    assert!(Program::try_parse_from(["bench", "decompose", "--flops", "0.5"]).is_err());
}
