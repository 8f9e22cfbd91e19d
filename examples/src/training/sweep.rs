//! Schemes and sparsities side by side: accuracy against time.

use std::collections::BTreeMap;
use std::fmt;

use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};

use super::{Elsewhere, Moments, Scheme};
use crate::figure::{Figure, FigureError, Line};
use crate::report::{DensePacked, Latency, Report};

/// A network pruned by one scheme to one sparsity from one seed.
#[derive(Clone, Debug)]
pub struct Cell {
    /// Which weights may stay.
    pub scheme: Scheme,
    /// The sparsity that was asked for; 0 if layers found their own.
    pub asked: f64,
    /// What came of it.
    pub report: Report,
    /// What it does on other devices, by their names.
    pub on: BTreeMap<String, Elsewhere>,
}

/// Many runs from the same dense networks, compared by scheme and sparsity.
///
/// As JSON `{"rows": [...], "runs": [...]}`: the lines of the table, and the reports.
#[derive(Clone, Debug, Default)]
pub struct Sweep {
    cells: Vec<Cell>,
}

/// All seeds of a scheme at a sparsity. Times are means of medians, in milliseconds.
#[derive(Clone, Debug, Serialize)]
struct Row {
    scheme: Scheme,
    asked: f64,
    seeds: usize,
    /// Zeros of all weights, those of dense layers among them.
    sparsity: f64,
    accuracy_dense: Moments,
    accuracy_projected: Moments,
    accuracy_pruned: Moments,
    /// Dense minus pruned.
    accuracy_lost: Moments,
    dense_ms: BTreeMap<usize, f64>,
    packed_ms: BTreeMap<usize, f64>,
    /// Dense file over packed file.
    smaller: f64,
    /// The largest of all seeds.
    max_abs_diff: f64,
    /// Times on other devices.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    on: BTreeMap<String, Times>,
}

/// Times of all seeds on another device, and the largest difference there.
#[derive(Clone, Debug, Default, Serialize)]
struct Times {
    dense_ms: BTreeMap<usize, f64>,
    packed_ms: BTreeMap<usize, f64>,
    max_abs_diff: f64,
}

impl Times {
    fn of(all: &[&Elsewhere]) -> Self {
        let latencies = || all.iter().map(|there| &there.latency_ms);
        Self {
            dense_ms: means(latencies(), |time| time.dense),
            packed_ms: means(latencies(), |time| time.packed),
            max_abs_diff: all
                .iter()
                .map(|there| there.max_abs_diff)
                .fold(0.0, f64::max),
        }
    }
}

/// By batch size, the mean over seeds.
fn means<'a>(
    latencies: impl Iterator<Item = &'a Latency>,
    form: fn(&DensePacked) -> f64,
) -> BTreeMap<usize, f64> {
    let mut all: BTreeMap<usize, Vec<f64>> = BTreeMap::new();
    for (batch, time) in latencies.flat_map(|latency| &latency.by_batch) {
        all.entry(*batch).or_default().push(form(time));
    }
    all.into_iter()
        .map(|(batch, times)| (batch, Moments::of(times).mean))
        .collect()
}

/// How many times faster packed is at a batch size.
fn faster(
    dense_ms: &BTreeMap<usize, f64>,
    packed_ms: &BTreeMap<usize, f64>,
    batch: usize,
) -> Option<f64> {
    Some(dense_ms.get(&batch)? / packed_ms.get(&batch)?)
}

impl Row {
    fn of(cells: &[&Cell]) -> Self {
        let reports = || cells.iter().map(|cell| &cell.report);
        let mean = |value: fn(&Report) -> f64| Moments::of(reports().map(value));
        let latencies = || reports().map(|report| &report.latency_ms);
        let mut on: BTreeMap<&String, Vec<&Elsewhere>> = BTreeMap::new();
        for (name, there) in cells.iter().flat_map(|cell| &cell.on) {
            on.entry(name).or_default().push(there);
        }
        Self {
            scheme: cells[0].scheme,
            asked: cells[0].asked,
            seeds: cells.len(),
            sparsity: mean(|report| report.sparsity).mean,
            accuracy_dense: mean(|report| report.accuracy_dense),
            accuracy_projected: mean(|report| report.accuracy_projected),
            accuracy_pruned: mean(|report| report.accuracy_pruned),
            accuracy_lost: mean(|report| report.accuracy_dense - report.accuracy_pruned),
            dense_ms: means(latencies(), |time| time.dense),
            packed_ms: means(latencies(), |time| time.packed),
            smaller: mean(|report| report.bytes_dense as f64 / report.bytes_packed_file as f64)
                .mean,
            max_abs_diff: reports().map(|r| r.max_abs_diff).fold(0.0, f64::max),
            on: on
                .into_iter()
                .map(|(name, all)| (name.clone(), Times::of(&all)))
                .collect(),
        }
    }

    /// The sparsity that was asked for, if one was.
    fn asked(&self) -> String {
        if self.asked > 0.0 {
            format!("{:.1}%", 100.0 * self.asked)
        } else {
            "-".into()
        }
    }

    fn batches(&self) -> impl Iterator<Item = usize> + '_ {
        self.packed_ms.keys().copied()
    }
}

/// The batch sizes at which both forms were timed.
fn batches_of(times: &Times) -> impl Iterator<Item = usize> + '_ {
    let both = |batch: &&usize| times.dense_ms.contains_key(*batch);
    times.packed_ms.keys().filter(both).copied()
}

impl Sweep {
    /// Adds a run.
    pub fn add(&mut self, cell: Cell) {
        self.cells.push(cell);
    }

    /// The runs, in the order in which they were added.
    #[must_use]
    pub fn cells(&self) -> &[Cell] {
        &self.cells
    }

    /// By scheme and sparsity, in the order in which they came.
    fn rows(&self) -> Vec<Row> {
        let mut groups: Vec<Vec<&Cell>> = Vec::new();
        for cell in &self.cells {
            let same = |group: &&mut Vec<&Cell>| {
                (group[0].scheme, group[0].asked) == (cell.scheme, cell.asked)
            };
            match groups.iter_mut().find(same) {
                Some(group) => group.push(cell),
                None => groups.push(vec![cell]),
            }
        }
        groups.iter().map(|cells| Row::of(cells)).collect()
    }

    /// Accuracy against the time of the packed network for a single image, one line per scheme
    /// through its sparsities; the dense network is a point. `None` without runs.
    ///
    /// # Errors
    /// [`FigureError`] if it cannot be drawn.
    pub fn figure(&self) -> Result<Option<String>, FigureError> {
        let rows = self.rows();
        let Some(first) = self.cells.first() else {
            return Ok(None);
        };
        let point = |times: &BTreeMap<usize, f64>, accuracy: Moments| {
            times.get(&1).map(|&ms| (ms, 100.0 * accuracy.mean))
        };
        // Every row measured the dense network anew.
        let dense: Vec<(f64, f64)> = rows
            .iter()
            .filter_map(|row| point(&row.dense_ms, row.accuracy_dense))
            .collect();
        let centre = |part: fn(&(f64, f64)) -> f64| Moments::of(dense.iter().map(part)).mean;
        let mut lines = vec![Line {
            name: "dense".into(),
            points: vec![(centre(|point| point.0), centre(|point| point.1))],
        }];
        for row in &rows {
            let name = row.scheme.to_string();
            let at = point(&row.packed_ms, row.accuracy_pruned);
            match lines.iter_mut().find(|line| line.name == name) {
                Some(line) => line.points.extend(at),
                None => lines.push(Line {
                    name,
                    points: at.into_iter().collect(),
                }),
            }
        }
        let report = &first.report;
        let seeds = rows.iter().map(|row| row.seeds).max().unwrap_or(0);
        let figure = Figure {
            title: format!(
                "{} on {}: accuracy against latency",
                report.arch, report.dataset
            ),
            subtitle: format!(
                "{}, batch 1, mean of {seeds} seed{}; along a line the sparsity rises to the left",
                report.device,
                if seeds == 1 { "" } else { "s" }
            ),
            x: "milliseconds of the packed network".into(),
            y: "test images classified rightly, %".into(),
            logarithmic: false,
        };
        figure.draw(&lines)
    }
}

impl Serialize for Sweep {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let runs: Vec<&Report> = self.cells.iter().map(|cell| &cell.report).collect();
        let mut fields = serializer.serialize_struct("Sweep", 2)?;
        fields.serialize_field("rows", &self.rows())?;
        fields.serialize_field("runs", &runs)?;
        fields.end()
    }
}

impl fmt::Display for Sweep {
    /// A line per scheme and sparsity: accuracies in percent, over several seeds as mean ±
    /// deviation, and how many times faster and smaller the packed network is.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = self.rows();
        let batches: Vec<usize> = rows
            .first()
            .map_or(Vec::new(), |row| row.batches().collect());
        write!(
            f,
            "{:<14} {:>6} {:>7} {:>15} {:>15} {:>15} {:>8}",
            "scheme", "asked", "zeros", "dense", "pruned", "lost, points", "smaller"
        )?;
        for batch in &batches {
            write!(f, " {:>14}", format!("faster, b{batch}"))?;
        }
        writeln!(f)?;
        for row in &rows {
            write!(
                f,
                "{:<14} {:>6} {:>6.1}% {:>15} {:>15} {:>15} {:>7.2}x",
                row.scheme,
                row.asked(),
                100.0 * row.sparsity,
                row.accuracy_dense.percent(),
                row.accuracy_pruned.percent(),
                row.accuracy_lost.percent(),
                row.smaller,
            )?;
            for batch in &batches {
                match faster(&row.dense_ms, &row.packed_ms, *batch) {
                    Some(faster) => write!(f, " {faster:>13.2}x")?,
                    None => write!(f, " {:>14}", "-")?,
                }
            }
            writeln!(f)?;
        }
        let elsewhere = rows.iter().flat_map(|row| {
            row.on.iter().flat_map(move |(name, times)| {
                batches_of(times).map(move |b| (row, name, times, b))
            })
        });
        for (index, (row, name, times, batch)) in elsewhere.enumerate() {
            if index == 0 {
                writeln!(
                    f,
                    "\n{:<14} {:>6} {:<24} {:>5} {:>10} {:>10} {:>8}",
                    "scheme", "asked", "on", "batch", "dense, ms", "packed, ms", "faster"
                )?;
            }
            let (dense, packed) = (times.dense_ms[&batch], times.packed_ms[&batch]);
            writeln!(
                f,
                "{:<14} {:>6} {name:<24} {batch:>5} {dense:>10.3} {packed:>10.3} {:>7.2}x",
                row.scheme,
                row.asked(),
                dense / packed
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(scheme: &str, asked: f64, seed: u64, accuracy: f64, packed: f64) -> Cell {
        let time = DensePacked { dense: 2.0, packed };
        Cell {
            scheme: scheme.parse().unwrap(),
            asked,
            on: BTreeMap::new(),
            report: Report {
                arch: "small".into(),
                dataset: "mnist".into(),
                accuracy_dense: 0.99,
                accuracy_pruned: accuracy,
                bytes_dense: 300,
                bytes_packed_file: 100,
                latency_ms: Latency::new([(1, time), (32, time)].into()),
                seed,
                ..Report::default()
            },
        }
    }

    #[test]
    fn other_devices_have_lines_of_their_own() {
        let mut sweep = Sweep::default();
        for seed in [1, 2] {
            sweep.add(cell("bcr8x64", 0.9, seed, 0.97, 1.0));
            sweep.add(cell("columns", 0.0, seed, 0.9, 0.5));
        }
        assert_eq!(sweep.to_string().lines().count(), 3);
        let time = |dense| DensePacked { dense, packed: 2.0 };
        let there = |dense, max_abs_diff| Elsewhere {
            latency_ms: Latency::new([(1, time(dense))].into()),
            max_abs_diff,
            accuracy: 0.9,
            kinds: [("csr".to_string(), 1)].into(),
        };
        let times = [(9.0, 1e-6), (4.0, 0.0), (11.0, 1e-5)];
        for (cell, (dense, diff)) in sweep.cells.iter_mut().zip(times) {
            cell.on.insert("vulkan".into(), there(dense, diff));
        }
        assert_eq!(sweep.rows()[0].on["vulkan"].max_abs_diff, 1e-5);
        let text = sweep.to_string();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 3 + 2 + 2, "{text}");
        // The mean of both seeds, and the one seed that was measured there.
        assert!(
            lines[5].contains("vulkan") && lines[5].ends_with("5.00x"),
            "{text}"
        );
        assert!(
            lines[6].starts_with("columns") && lines[6].ends_with("2.00x"),
            "{text}"
        );
        // No sparsity was asked for.
        assert!(lines[6].contains(" - "), "{text}");
        let json = serde_json::to_value(&sweep).unwrap();
        assert_eq!(json["rows"][0]["on"]["vulkan"]["dense_ms"]["1"], 10.0);
    }

    #[test]
    fn seeds_are_averaged_and_schemes_are_lines() {
        let mut sweep = Sweep::default();
        assert!(sweep.figure().unwrap().is_none());
        for (seed, accuracy) in [(1, 0.97), (2, 0.98)] {
            sweep.add(cell("bcr8x64", 0.9, seed, accuracy, 1.0));
            sweep.add(cell("columns", 0.9, seed, accuracy - 0.1, 0.5));
            sweep.add(cell("bcr8x64", 0.8, seed, accuracy, 1.6));
        }
        let text = sweep.to_string();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 4, "{text}");
        assert!(lines[0].ends_with("faster, b32"), "{text}");
        for part in [
            "bcr8x64",
            "90.0%",
            "97.50 ± 0.71",
            "1.50 ± 0.71",
            "3.00x",
            "2.00x",
        ] {
            assert!(lines[1].contains(part), "{part}: {text}");
        }
        let svg = sweep.figure().unwrap().unwrap();
        for part in ["small on mnist", "mean of 2 seeds", "dense", "columns"] {
            assert!(svg.contains(part), "{part}");
        }
        let json = serde_json::to_value(&sweep).unwrap();
        assert_eq!(json["rows"].as_array().unwrap().len(), 3);
        assert_eq!(json["rows"][1]["scheme"], "columns");
        assert_eq!(json["rows"][1]["packed_ms"]["1"], 0.5);
        assert_eq!(json["runs"].as_array().unwrap().len(), 6);
    }
}
