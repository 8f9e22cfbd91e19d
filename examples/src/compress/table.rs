//! All cells by method and ratio.

use std::fmt;

use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};

use super::Cell;
use crate::figure::{Figure, FigureError, Line};
use crate::training::{Method, Moments};

/// Cells, compared by method and ratio.
///
/// As JSON `{"rows": [...], "cells": [...]}`: the lines of the table, and what they are means of.
#[derive(Clone, Debug, Default)]
pub struct Table {
    cells: Vec<Cell>,
}

/// All seeds of a method at a ratio.
#[derive(Clone, Debug, Serialize)]
struct Row {
    method: Method,
    ratio: f64,
    levels: String,
    seeds: usize,
    /// Weights for each that is not zero, counted in the network.
    fewer: f64,
    accuracy_dense: Moments,
    accuracy_pruned: Moments,
    /// In 16 bits.
    accuracy_pruned_halves: Option<Moments>,
    accuracy_quantised: Moments,
    /// Of the network that was read back from its file.
    accuracy_file: Moments,
    /// In 16 bits.
    accuracy_file_halves: Option<Moments>,
    /// Dense minus file.
    accuracy_lost: Moments,
    /// Bytes of the weights as f32 over bytes of their codes.
    values_only: f64,
    /// Bytes of the weights as f32, without biases, over bytes of the whole file, with them.
    whole_file: f64,
    bytes: f64,
    /// The largest of all seeds.
    max_abs_diff: f64,
}

impl Row {
    fn of(cells: &[&Cell]) -> Self {
        let mean = |of: fn(&Cell) -> f64| Moments::of(cells.iter().map(|cell| of(cell)));
        let some = |of: fn(&Cell) -> Option<f64>| {
            let all: Option<Vec<f64>> = cells.iter().map(|cell| of(cell)).collect();
            all.map(Moments::of)
        };
        let first = &cells[0].setting;
        Self {
            method: first.method,
            ratio: first.ratio,
            levels: first.levels.to_string(),
            seeds: cells.len(),
            fewer: mean(|c| c.weights as f64 / c.nnz.max(1) as f64).mean,
            accuracy_dense: mean(|c| c.accuracy_dense),
            accuracy_pruned: mean(|c| c.accuracy_pruned),
            accuracy_pruned_halves: some(|c| c.accuracy_pruned_halves),
            accuracy_quantised: mean(|c| c.accuracy_quantised),
            accuracy_file: mean(|c| c.file.accuracy),
            accuracy_file_halves: some(|c| c.file.accuracy_halves),
            accuracy_lost: mean(|c| c.accuracy_dense - c.file.accuracy),
            values_only: mean(|c| c.file.ledger.weights.values_alone()).mean,
            whole_file: mean(|c| c.file.ledger.everything_of_weights()).mean,
            bytes: mean(|c| c.file.bytes as f64).mean,
            max_abs_diff: cells
                .iter()
                .map(|c| c.file.max_abs_diff)
                .fold(0.0, f64::max),
        }
    }
}

impl Table {
    /// Adds a cell.
    pub fn add(&mut self, cell: Cell) {
        self.cells.push(cell);
    }

    /// The cells, in the order in which they were added.
    #[must_use]
    pub fn cells(&self) -> &[Cell] {
        &self.cells
    }

    fn rows(&self) -> Vec<Row> {
        let mut groups: Vec<Vec<&Cell>> = Vec::new();
        for cell in &self.cells {
            let same = |group: &&mut Vec<&Cell>| group[0].setting == cell.setting;
            match groups.iter_mut().find(same) {
                Some(group) => group.push(cell),
                None => groups.push(vec![cell]),
            }
        }
        groups.iter().map(|cells| Row::of(cells)).collect()
    }

    /// Accuracy over the ratio, a line for each method; none of fewer than two ratios.
    ///
    /// # Errors
    /// [`FigureError`] where it cannot be drawn.
    pub fn figure(&self) -> Result<Option<String>, FigureError> {
        let rows = self.rows();
        let several = several_levels(&rows);
        let mut lines: Vec<Line> = Vec::new();
        for row in &rows {
            let name = match several {
                true => format!("{}, {}", row.method, row.levels),
                false => row.method.name().to_owned(),
            };
            let point = (row.fewer, 100.0 * row.accuracy_file.mean);
            match lines.iter_mut().find(|line| line.name == name) {
                Some(line) => line.points.push(point),
                None => lines.push(Line {
                    name,
                    points: vec![point],
                }),
            }
        }
        if lines.iter().all(|line| line.points.len() < 2) {
            return Ok(None);
        }
        let seeds = rows.iter().map(|row| row.seeds).max().unwrap_or(0);
        let figure = Figure {
            title: "accuracy of the network that was read back from its file".into(),
            subtitle: format!(
                "mean of {seeds} seed{}, the same number of epochs for every method",
                if seeds == 1 { "" } else { "s" }
            ),
            x: "weights for each that is kept".into(),
            y: "test images classified rightly, %".into(),
            logarithmic: false,
        };
        figure.draw(&lines)
    }
}

/// Whether rows differ in their levels.
fn several_levels(rows: &[Row]) -> bool {
    rows.iter().any(|row| row.levels != rows[0].levels)
}

impl Serialize for Table {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("Table", 2)?;
        fields.serialize_field("rows", &self.rows())?;
        fields.serialize_field("cells", &self.cells)?;
        fields.end()
    }
}

impl fmt::Display for Table {
    /// A line per method, ratio and levels: accuracies in percent, over several seeds as mean ± deviation. Columns of
    /// 16 bits and of levels are there where they say something.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = self.rows();
        let halves = rows.iter().any(|row| row.accuracy_file_halves.is_some());
        let levels = several_levels(&rows);
        write!(
            f,
            "{:<8} {:>6} {:>5} {:>7} {:>13} {:>13} {:>13} {:>13} {:>8} {:>7} {:>7}",
            "method",
            "asked",
            "seeds",
            "fewer",
            "dense",
            "pruned",
            "file",
            "lost, points",
            "values",
            "file",
            "bytes"
        )?;
        if halves {
            write!(f, " {:>13} {:>13}", "pruned, f16", "file, f16")?;
        }
        writeln!(f, "{}", if levels { "  levels" } else { "" })?;
        for row in &rows {
            write!(
                f,
                "{:<8} {:>5}x {:>5} {:>6.1}x {:>13} {:>13} {:>13} {:>13} {:>7.0}x {:>6.1}x {:>7.0}",
                row.method,
                row.ratio,
                row.seeds,
                row.fewer,
                row.accuracy_dense.percent(),
                row.accuracy_pruned.percent(),
                row.accuracy_file.percent(),
                row.accuracy_lost.percent(),
                row.values_only,
                row.whole_file,
                row.bytes,
            )?;
            if halves {
                let cells = [row.accuracy_pruned_halves, row.accuracy_file_halves];
                let [pruned, file] = cells.map(|cell| cell.map_or("-".into(), Moments::percent));
                write!(f, " {pruned:>13} {file:>13}")?;
            }
            match levels {
                true => writeln!(f, "  {}", row.levels)?,
                false => writeln!(f)?,
            }
        }
        Ok(())
    }
}
