//! Time against one thing that varies, ours beside the dense rival, and where they cross.

use serde::{Deserialize, Serialize};

use super::row::percent;
use super::table::{Table, digits, verdict};
use super::{Axis, Case, Row};

/// A point of a curve.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// The value on the axis.
    pub at: f64,
    /// Index of its row in the report.
    pub row: usize,
}

/// Where both forms are equally fast, on the straight line between two measured points.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Crossing {
    /// The value on the axis.
    pub at: f64,
    /// Whether sparse is faster above it, or below.
    pub sparse_above: bool,
}

/// Where the ratio of sparse to dense passes one, between neighbours of `(value, ratio)`.
///
/// ```
/// let crossings = examples::bench::crossings(&[(0.5, 1.4), (0.8, 1.1), (0.9, 0.6)]);
/// assert_eq!(crossings.len(), 1);
/// assert!((crossings[0].at - 0.82).abs() < 1e-9 && crossings[0].sparse_above);
/// ```
#[must_use]
pub fn crossings(points: &[(f64, f64)]) -> Vec<Crossing> {
    let wins = |ratio: f64| ratio < 1.0;
    points
        .windows(2)
        .filter(|pair| wins(pair[0].1) != wins(pair[1].1))
        .map(|pair| {
            let [(x0, r0), (x1, r1)] = [pair[0], pair[1]];
            Crossing {
                at: x0 + (1.0 - r0) / (r1 - r0) * (x1 - x0),
                sparse_above: wins(r1),
            }
        })
        .collect()
}

/// A layer under conditions of which one varies.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Curve {
    /// Name of the layer.
    pub layer: String,
    /// Its shape before anything varies.
    pub shape: String,
    /// What does not vary.
    pub conditions: String,
    /// What was measured, ascending.
    pub points: Vec<Point>,
    /// Where sparse and dense cross.
    pub crossings: Vec<Crossing>,
    /// Values that could not be measured, and why.
    pub skipped: Vec<String>,
    /// The drawing, beside the report.
    pub plot: Option<String>,
}

impl Curve {
    /// A curve without points.
    #[must_use]
    pub fn new(axis: Axis, case: &Case) -> Self {
        let mut conditions = Vec::new();
        if axis != Axis::Sparsity {
            conditions.push(format!("{} zeros", percent(case.sparsity)));
        }
        conditions.push(case.pattern.to_string());
        if axis != Axis::Batch {
            conditions.push(format!("batch {}", case.batch));
        }
        conditions.push(case.dtype.to_string());
        Self {
            layer: case.layer.name().to_string(),
            shape: case.layer.shape(),
            conditions: conditions.join(", "),
            points: Vec::new(),
            crossings: Vec::new(),
            skipped: Vec::new(),
            plot: None,
        }
    }

    /// Looks for crossings among the points that could be measured.
    pub fn settle(&mut self, rows: &[Row]) {
        self.crossings = crossings(&self.ratios(rows));
    }

    fn ratios(&self, rows: &[Row]) -> Vec<(f64, f64)> {
        let measured = |point: &Point| Some((point.at, rows.get(point.row)?.measured()?));
        let points = self.points.iter().filter_map(measured);
        points.map(|(at, m)| (at, m.pair.ratio.median)).collect()
    }

    /// From where on sparse is faster, in words.
    #[must_use]
    pub fn break_even(&self, axis: Axis, rows: &[Row]) -> String {
        let ratios = self.ratios(rows);
        let (Some(first), Some(last)) = (ratios.first(), ratios.last()) else {
            return "not measured".into();
        };
        let range = format!("{} to {}", axis.show(first.0), axis.show(last.0));
        match (self.crossings.as_slice(), last.1 < 1.0) {
            ([], true) => format!("sparse wins from {range}"),
            ([], false) => format!("dense wins from {range}"),
            (crossings, _) => {
                let words = crossings.iter().map(|crossing| {
                    let side = if crossing.sparse_above {
                        "above"
                    } else {
                        "below"
                    };
                    format!("{side} {}", axis.show(crossing.at))
                });
                let words: Vec<_> = words.collect();
                format!("sparse wins {}", words.join(", "))
            }
        }
    }
}

/// All curves of a sweep.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Growth {
    /// What varies.
    pub axis: Axis,
    /// The curves.
    pub curves: Vec<Curve>,
}

impl Growth {
    /// Each curve's points, and where each crosses.
    #[must_use]
    pub fn table(&self, rows: &[Row]) -> String {
        let axis = self.axis.to_string();
        let mut text = String::new();
        let mut summary = Table::new(&["layer", "conditions", "break-even"]);
        for curve in &self.curves {
            let mut table = Table::new(&[&axis, "dense ms", "sparse ms", "ratio", "spread", ""]);
            for point in &curve.points {
                let mut cells = vec![self.axis.show(point.at)];
                match rows.get(point.row).and_then(Row::measured) {
                    Some(measured) => {
                        let pair = &measured.pair;
                        cells.extend([
                            digits(pair.dense.median),
                            digits(pair.sparse.median),
                            digits(pair.ratio.median),
                            digits(pair.ratio.spread),
                            verdict(pair.ratio.median),
                        ]);
                    }
                    None => {
                        cells.extend(std::iter::repeat_n(String::from("-"), 4));
                        cells.push("FAILED".into());
                    }
                }
                table.push(cells);
            }
            text.push_str(&curve.layer);
            if curve.layer != curve.shape {
                text.push_str(&format!(" ({})", curve.shape));
            }
            text.push_str(&format!(", {}\n", curve.conditions));
            if !curve.points.is_empty() {
                text.push_str(&table.to_string());
            }
            for skipped in &curve.skipped {
                text.push_str(&format!("skipped {skipped}\n"));
            }
            text.push('\n');
            summary.push(vec![
                curve.layer.clone(),
                curve.conditions.clone(),
                curve.break_even(self.axis, rows),
            ]);
        }
        text.push_str(&summary.to_string());
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::report::tests::row;
    use crate::bench::{Dtype, Pattern};

    fn case(line: &str) -> Case {
        Case {
            layer: line.parse().unwrap(),
            sparsity: 0.9,
            pattern: Pattern::Blocks(4),
            batch: 2,
            dtype: Dtype::F32,
            threads: None,
        }
    }

    #[test]
    fn break_even_says_who_wins_where() {
        let rows: Vec<_> = [2.0, 1.0, 0.5]
            .map(|ratio| row("a", &[[ratio, 1.0]; 3]))
            .to_vec();
        let curve = |indices: &[usize]| {
            let mut curve = Curve::new(Axis::Sparsity, &case("kind=linear in=3 out=2"));
            let points = (0..).zip(indices);
            curve.points = points
                .map(|(i, &row)| Point {
                    at: 0.1 * f64::from(i),
                    row,
                })
                .collect();
            curve.settle(&rows);
            curve
        };
        for (indices, says) in [
            (&[0, 0][..], "dense wins from 0 % to 10 %"),
            (&[2, 2], "sparse wins from 0 % to 10 %"),
            // As fast as dense is no win.
            (&[0, 1, 2], "sparse wins above 10 %"),
            (&[2, 0], "sparse wins below 3.3 %"),
            (&[2, 0, 2], "sparse wins below 3.3 %, above 16.7 %"),
            (&[], "not measured"),
        ] {
            assert_eq!(curve(indices).break_even(Axis::Sparsity, &rows), says);
        }
        let growth = Growth {
            axis: Axis::Sparsity,
            curves: vec![curve(&[0, 1, 2])],
        };
        let table = growth.table(&rows);
        assert!(table.contains("2.00x slower: dense wins"), "{table}");
        assert!(table.ends_with("sparse wins above 10 %\n"), "{table}");
    }
}
