//! Schemes and sparsities side by side: accuracy against time.

use std::collections::BTreeMap;
use std::fmt;

use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};

use super::{Moments, Scheme};
use crate::figure::{Figure, FigureError, Line};
use crate::report::Report;

/// A network pruned by one scheme to one sparsity from one seed.
#[derive(Clone, Debug)]
pub struct Cell {
    /// Which weights may stay.
    pub scheme: Scheme,
    /// The sparsity that was asked for.
    pub asked: f64,
    /// What came of it.
    pub report: Report,
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
}

impl Row {
    fn of(cells: &[&Cell]) -> Self {
        let reports = || cells.iter().map(|cell| &cell.report);
        let mean = |value: fn(&Report) -> f64| Moments::of(reports().map(value));
        let times = |packed: bool| {
            let mut all: BTreeMap<usize, Vec<f64>> = BTreeMap::new();
            for (batch, time) in reports().flat_map(|report| &report.latency_ms.by_batch) {
                let time = if packed { time.packed } else { time.dense };
                all.entry(*batch).or_default().push(time);
            }
            all.into_iter()
                .map(|(batch, times)| (batch, Moments::of(times).mean))
                .collect()
        };
        Self {
            scheme: cells[0].scheme,
            asked: cells[0].asked,
            seeds: cells.len(),
            sparsity: mean(|report| report.sparsity).mean,
            accuracy_dense: mean(|report| report.accuracy_dense),
            accuracy_projected: mean(|report| report.accuracy_projected),
            accuracy_pruned: mean(|report| report.accuracy_pruned),
            accuracy_lost: mean(|report| report.accuracy_dense - report.accuracy_pruned),
            dense_ms: times(false),
            packed_ms: times(true),
            smaller: mean(|report| report.bytes_dense as f64 / report.bytes_packed_file as f64)
                .mean,
            max_abs_diff: reports().map(|r| r.max_abs_diff).fold(0.0, f64::max),
        }
    }

    /// How many times faster packed is, at a batch size.
    fn faster(&self, batch: usize) -> Option<f64> {
        Some(self.dense_ms.get(&batch)? / self.packed_ms.get(&batch)?)
    }

    fn batches(&self) -> impl Iterator<Item = usize> + '_ {
        self.packed_ms.keys().copied()
    }
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
                "{:<14} {:>5.1}% {:>6.1}% {:>15} {:>15} {:>15} {:>7.2}x",
                row.scheme,
                100.0 * row.asked,
                100.0 * row.sparsity,
                row.accuracy_dense.percent(),
                row.accuracy_pruned.percent(),
                row.accuracy_lost.percent(),
                row.smaller,
            )?;
            for batch in &batches {
                match row.faster(*batch) {
                    Some(faster) => write!(f, " {faster:>13.2}x")?,
                    None => write!(f, " {:>14}", "-")?,
                }
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{DensePacked, Latency};

    fn cell(scheme: &str, asked: f64, seed: u64, accuracy: f64, packed: f64) -> Cell {
        let time = DensePacked { dense: 2.0, packed };
        Cell {
            scheme: scheme.parse().unwrap(),
            asked,
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
