//! Ways to factors, side by side.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use super::{Moments, RankMethod};
use crate::report::Report;

/// A network decomposed in one way from one seed.
#[derive(Clone, Debug, Serialize)]
pub struct TuckerCell {
    /// How.
    pub method: RankMethod,
    /// What came of it.
    pub report: Report,
}

/// Many runs, compared by method.
///
/// As JSON `{"rows": [...], "runs": [...]}`: the lines of the table, and the reports.
#[derive(Clone, Debug, Default, Serialize)]
pub struct TuckerTable {
    rows: Vec<Row>,
    runs: Vec<TuckerCell>,
}

/// All seeds of a method. Times are means of medians, in milliseconds.
#[derive(Clone, Debug, Serialize)]
struct Row {
    method: RankMethod,
    seeds: usize,
    /// How many times fewer weights.
    fewer: f64,
    accuracy_dense: Moments,
    /// Of ADMM, before its network was decomposed.
    #[serde(skip_serializing_if = "Option::is_none")]
    accuracy_towards: Option<Moments>,
    accuracy_decomposed: Moments,
    accuracy_tuned: Moments,
    /// Dense minus fine-tuned.
    accuracy_lost: Moments,
    /// Dense over factored.
    faster: BTreeMap<usize, f64>,
    /// Dense file over packed file.
    smaller: f64,
    /// The largest of all seeds.
    max_abs_diff: f64,
}

impl Row {
    fn of(method: RankMethod, cells: &[TuckerCell]) -> Option<Self> {
        let reports = || {
            let cells = cells.iter().filter(|cell| cell.method == method);
            cells.map(|cell| &cell.report)
        };
        let first = reports().next()?;
        let mean = |value: fn(&Report) -> f64| Moments::of(reports().map(value));
        let faster = first.latency_ms.by_batch.keys().map(|&batch| {
            let times = reports().filter_map(|report| report.latency_ms.by_batch.get(&batch));
            let ratio = times.map(|time| time.dense / time.packed);
            (batch, Moments::of(ratio).mean)
        });
        let towards = |report: &Report| {
            let results = report.extra.get("decomposition")?;
            results.get("accuracy_towards")?.as_f64()
        };
        let towards: Option<Vec<f64>> = reports().map(towards).collect();
        Some(Self {
            method,
            seeds: reports().count(),
            fewer: mean(|r| r.weights as f64 / r.nnz.max(1) as f64).mean,
            accuracy_dense: mean(|r| r.accuracy_dense),
            accuracy_towards: towards.map(Moments::of),
            accuracy_decomposed: mean(|r| r.accuracy_projected),
            accuracy_tuned: mean(|r| r.accuracy_pruned),
            accuracy_lost: mean(|r| r.accuracy_dense - r.accuracy_pruned),
            faster: faster.collect(),
            smaller: mean(|r| r.bytes_dense as f64 / r.bytes_packed_file as f64).mean,
            max_abs_diff: reports().map(|r| r.max_abs_diff).fold(0.0, f64::max),
        })
    }
}

impl TuckerTable {
    /// Adds a run.
    pub fn add(&mut self, cell: TuckerCell) {
        self.runs.push(cell);
        let rows = RankMethod::ALL.iter();
        self.rows = rows.filter_map(|&m| Row::of(m, &self.runs)).collect();
    }

    /// The runs, in the order in which they were added.
    #[must_use]
    pub fn runs(&self) -> &[TuckerCell] {
        &self.runs
    }
}

/// A table in Markdown.
impl fmt::Display for TuckerTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let batches: Vec<usize> = match self.rows.first() {
            Some(row) => row.faster.keys().copied().collect(),
            None => return f.write_str("no runs"),
        };
        write!(
            f,
            "| factors by | seeds | weights | dense % | before % | decomposed % | fine-tuned % | lost | file |"
        )?;
        for batch in &batches {
            write!(f, " speed, batch {batch} |")?;
        }
        write!(f, "\n|---|--:|--:|--:|--:|--:|--:|--:|--:|")?;
        writeln!(f, "{}", "--:|".repeat(batches.len()))?;
        for row in &self.rows {
            write!(
                f,
                "| {} | {} | {:.2}× fewer | {} | {} | {} | {} | {} | {:.2}× smaller |",
                row.method,
                row.seeds,
                row.fewer,
                row.accuracy_dense.percent(),
                row.accuracy_towards.map_or("–".into(), |m| m.percent()),
                row.accuracy_decomposed.percent(),
                row.accuracy_tuned.percent(),
                row.accuracy_lost.percent(),
                row.smaller
            )?;
            for batch in &batches {
                match row.faster.get(batch) {
                    Some(faster) => write!(f, " {faster:.2}× |")?,
                    None => write!(f, " – |")?,
                }
            }
            writeln!(f)?;
        }
        Ok(())
    }
}
