//! What a bench leaves behind: every number it prints, in `report.json`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::row::percent;
use super::table::{Table, bytes, digits, verdict};
use super::{BenchError, Growth, Machine, Measured, NetworkRow, Outcome, Row};
use crate::output::{OutputError, write_atomic};
use crate::report::Report;

/// Longest report that is read.
const MAX_BYTES: u64 = 64 << 20;
/// The format of reports; another one cannot be compared.
const VERSION: u32 = 1;

/// How rows were measured.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// Most timed runs of each form.
    pub runs: usize,
    /// Seconds after which no further round is started.
    pub budget: f64,
    /// Whether kernels were verified first.
    pub verify: bool,
    /// Seed of weights and inputs.
    pub seed: u64,
}

/// The content of `report.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BenchReport {
    /// The format.
    pub version: u32,
    /// The command line.
    pub command: String,
    /// What it ran on.
    pub machine: Machine,
    /// Versions of the crates.
    pub versions: BTreeMap<String, String>,
    /// How rows were measured.
    pub settings: Settings,
    /// Where the layers come from.
    pub suite: String,
    /// The rows.
    pub rows: Vec<Row>,
    /// Whole networks.
    #[serde(default)]
    pub networks: Vec<NetworkRow>,
    /// What varied, if something did.
    #[serde(default)]
    pub growth: Option<Growth>,
}

impl BenchReport {
    /// A report without rows yet.
    #[must_use]
    pub fn new(command: String, machine: Machine, settings: Settings, suite: String) -> Self {
        Self {
            version: VERSION,
            command,
            machine,
            versions: Report::versions(),
            settings,
            suite,
            rows: Vec::new(),
            networks: Vec::new(),
            growth: None,
        }
    }

    /// Rows and networks that failed.
    #[must_use]
    pub fn failures(&self) -> usize {
        let rows = self.rows.iter().filter(|row| row.measured().is_none());
        let networks = self.networks.iter();
        let networks = networks.filter(|row| row.outcome.measured().is_none());
        rows.count() + networks.count()
    }

    /// Writes the report, whole or not at all.
    ///
    /// # Errors
    /// [`OutputError`] if it cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), OutputError> {
        write_atomic(path, |file| {
            serde_json::to_writer_pretty(&mut *file, self)?;
            file.write_all(b"\n")
        })
    }

    /// Reads a report.
    ///
    /// # Errors
    /// [`BenchError::Report`] if it cannot be read, or is none.
    pub fn load(path: &Path) -> Result<Self, BenchError> {
        let invalid = |reason: String| BenchError::Report {
            path: path.to_path_buf(),
            reason,
        };
        let file = File::open(path).map_err(|error| invalid(error.to_string()))?;
        let mut text = Vec::new();
        file.take(MAX_BYTES + 1)
            .read_to_end(&mut text)
            .map_err(|error| invalid(error.to_string()))?;
        if text.len() as u64 > MAX_BYTES {
            return Err(invalid(format!("longer than {MAX_BYTES} bytes")));
        }
        let report: Self = serde_json::from_slice(&text)
            .map_err(|error| invalid(format!("no report of `bench`: {error}")))?;
        if report.version != VERSION {
            let version = report.version;
            return Err(invalid(format!(
                "its format is {version}, not {VERSION}; measure again"
            )));
        }
        Ok(report)
    }

    /// The report as aligned text.
    #[must_use]
    pub fn table(&self) -> String {
        let settings = &self.settings;
        let mut text = format!(
            "{} on {}\nmedian of at most {} rounds (sparse, dense) or {} s, ± half the distance of \
             the quartiles; seed {}\n\n",
            self.suite, self.machine, settings.runs, settings.budget, settings.seed
        );
        if !self.rows.is_empty() {
            text.push_str(&self.rows_table());
            text.push_str(&self.totals());
        }
        for network in &self.networks {
            text.push_str(&format!("{network}\n"));
        }
        text
    }

    fn rows_table(&self) -> String {
        let mut table = Table::new(&[
            "layer",
            "zeros",
            "pattern",
            "batch",
            "dtype",
            "threads",
            "dense ms",
            "sparse ms",
            "GF/s",
            "as dense",
            "dense GF/s",
            "weight",
            "dense",
            "error",
            "of bound",
            "",
        ]);
        let mut checked = (0, 0);
        for row in &self.rows {
            let key = &row.key;
            let mut cells = vec![
                key.layer.clone(),
                percent(key.sparsity),
                key.pattern.to_string(),
                key.batch.to_string(),
                key.dtype.to_string(),
                row.threads_used.to_string(),
            ];
            match &row.outcome {
                Outcome::Measured(measured) => {
                    cells.extend(numbers(measured));
                    if let Some(verified) = measured.verified {
                        checked.0 += verified.checked;
                        checked.1 += verified.outputs;
                    }
                }
                Outcome::Failed { reason } => {
                    cells.extend(std::iter::repeat_n(String::from("-"), 9));
                    cells.push(format!("FAILED: {reason}"));
                }
            }
            table.push(cells);
        }
        let mut text = format!("{table}\n");
        if checked.1 > 0 {
            text.push_str(&format!(
                "verified before timing: {} of {} outputs of the sparse kernels, and as many of \
                 the dense ones\n",
                checked.0, checked.1
            ));
        }
        let measured: Vec<_> = self.rows.iter().filter_map(Row::measured).collect();
        let wins = measured.iter().filter(|row| row.dense_wins).count();
        text.push_str(&format!("dense wins in {wins} of {} rows", measured.len()));
        match self.rows.len() - measured.len() {
            0 => text.push('\n'),
            failed => text.push_str(&format!("; {failed} rows FAILED\n")),
        }
        if measured.iter().any(|row| row.dense_reduced) {
            text.push_str(
                "reduced: the dense kernel multiplies or sums with fewer digits than its operands \
                 have\n",
            );
        }
        text
    }

    /// The layers of the network by count, for each set of conditions.
    fn totals(&self) -> String {
        if self.growth.is_some() {
            return String::new();
        }
        let mut text = String::new();
        let mut seen = Vec::new();
        for row in &self.rows {
            let key = &row.key;
            let condition = (key.sparsity, key.pattern, key.batch, key.dtype);
            if seen.contains(&condition) {
                continue;
            }
            seen.push(condition);
            let rows = self.rows.iter().filter(|row| {
                let key = &row.key;
                (key.sparsity, key.pattern, key.batch, key.dtype) == condition
            });
            let (mut dense, mut sparse, mut best, mut layers) = (0.0, 0.0, 0.0, 0);
            for (row, measured) in rows.filter_map(|row| Some((row, row.measured()?))) {
                let count = row.count as f64;
                let pair = &measured.pair;
                dense += count * pair.dense.median;
                sparse += count * pair.sparse.median;
                best += count * pair.dense.median.min(pair.sparse.median);
                layers += row.count;
            }
            text.push_str(&format!(
                "{} {}, batch {}, {}: {layers} layers, each alone: dense {} ms, sparse {} ms, the \
                 faster of each {} ms\n",
                percent(key.sparsity),
                key.pattern,
                key.batch,
                key.dtype,
                digits(dense),
                digits(sparse),
                digits(best)
            ));
        }
        text
    }
}

fn numbers(measured: &Measured) -> Vec<String> {
    let time =
        |t: &crate::timing::Timing| format!("{} ±{}", digits(t.median), digits(t.spread / 2.0));
    let (pair, counts) = (&measured.pair, &measured.counts);
    let (error, of_bound) = match measured.verified {
        Some(v) => (format!("{:.1e}", v.max_error), percent_of(v.of_bound)),
        None => ("-".into(), "-".into()),
    };
    let mut words = format!(
        "{} ±{:.0} %",
        verdict(pair.ratio.median),
        50.0 * pair.ratio.spread / pair.ratio.median
    );
    if measured.dense_reduced {
        words.push_str(", reduced");
    }
    vec![
        time(&pair.dense),
        time(&pair.sparse),
        digits(measured.gflops.sparse),
        digits(measured.gflops.equivalent),
        digits(measured.gflops.dense),
        bytes(counts.bytes.values + counts.bytes.index),
        bytes(counts.bytes.dense),
        error,
        of_bound,
        words,
    ]
}

fn percent_of(part: f64) -> String {
    format!("{:.1} %", 100.0 * part)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::bench::{Bytes, Counts, Dtype, Gflops, Key, Pair, Pattern, Verified};

    /// A row whose times are these rounds of `[sparse, dense]`.
    pub(crate) fn row(layer: &str, rounds: &[[f64; 2]]) -> Row {
        let key = Key {
            layer: layer.into(),
            shape: "kind=linear in=3 out=2".into(),
            sparsity: 0.9,
            pattern: Pattern::Unstructured,
            batch: 1,
            dtype: Dtype::F32,
            threads: None,
        };
        let counts = Counts {
            weights: 100,
            nnz: 10,
            stored: 10,
            sparsity: 0.9,
            macs: 1000,
            dense_macs: 10_000,
            bytes: Bytes {
                values: 40,
                index: 60,
                dense: 400,
                input: 80,
                output: 80,
            },
        };
        let pair = Pair::of(rounds).unwrap();
        let verified = Verified {
            checked: 5,
            outputs: 10,
            max_error: 1e-6,
            bound: 1e-5,
            of_bound: 0.25,
        };
        Row {
            key,
            count: 3,
            threads_used: 2,
            outcome: Outcome::Measured(Box::new(Measured {
                counts,
                pair,
                gflops: Gflops::of(&counts, &pair),
                dense_wins: pair.ratio.median >= 1.0,
                verified: Some(verified),
                dense_verified: None,
                dense_reduced: false,
            })),
        }
    }

    pub(crate) fn failed(layer: &str) -> Row {
        Row {
            outcome: Outcome::Failed {
                reason: "output 5 is wrong".into(),
            },
            ..row(layer, &[[1.0, 1.0]])
        }
    }

    pub(crate) fn report(rows: Vec<Row>) -> BenchReport {
        let settings = Settings {
            runs: 20,
            budget: 0.5,
            verify: true,
            seed: 1,
        };
        let machine = Machine {
            device: "flex".into(),
            ..Machine::default()
        };
        BenchReport {
            rows,
            ..BenchReport::new("bench".into(), machine, settings, "s".into())
        }
    }

    #[test]
    fn reports_come_back_as_written_and_others_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("report.json");
        let mut report = report(vec![row("a", &[[1.0, 2.0], [1.5, 2.0]]), failed("b")]);
        report.save(&path).unwrap();
        assert_eq!(BenchReport::load(&path).unwrap(), report);
        assert_eq!(report.failures(), 1);
        let json: serde_json::Value =
            serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        assert_eq!(json["rows"][0]["status"], "measured");
        assert_eq!(json["rows"][0]["sparse"]["median"], 1.25);
        assert_eq!(json["rows"][0]["pattern"], "unstructured");
        report.version = 9;
        report.save(&path).unwrap();
        let error = BenchReport::load(&path).unwrap_err().to_string();
        assert!(error.contains("format is 9"), "{error}");
        for text in ["", "{}", "[1", "{\"version\": 1e999}"] {
            std::fs::write(&path, text).unwrap();
            let error = BenchReport::load(&path).unwrap_err();
            assert!(matches!(error, BenchError::Report { .. }), "{error}");
        }
    }

    #[test]
    fn the_table_keeps_rows_where_dense_wins_and_rows_that_failed() {
        let rows = vec![
            row("fast", &[[1.0, 2.0]; 4]),
            row("slow", &[[3.0, 2.0]; 4]),
            failed("wrong"),
        ];
        let table = report(rows).table();
        let line = |name: &str| table.lines().find(|l| l.starts_with(name)).unwrap();
        assert!(line("fast").ends_with("2.00x faster ±0 %"), "{table}");
        assert!(line("slow").contains("1.50x slower: dense wins"));
        assert!(line("wrong").ends_with("FAILED: output 5 is wrong"));
        assert!(table.contains("dense wins in 1 of 2 rows; 1 rows FAILED"));
        assert!(table.contains("10 of 20 outputs"));
        let totals = "6 layers, each alone: dense 12.0 ms, sparse 12.0 ms, the faster of each 9.00";
        assert!(table.contains(totals), "{table}");
    }
}
