//! What a bench leaves behind: every number it prints, in `report.json`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{BenchError, Growth, Machine, NetworkRow, Row, ThreadPeak};
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
    /// What its processor can do, with each number of threads that rows were measured with; on
    /// `flex` only.
    #[serde(default)]
    pub peaks: Vec<ThreadPeak>,
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
            peaks: Vec::new(),
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
}

#[cfg(test)]
pub(crate) mod tests {
    use burn_sparse::cpu::{Peak, Share};

    use super::*;
    use crate::bench::{
        Bytes, Counts, Dtype, Gflops, Key, Measured, Outcome, Pair, Pattern, Verified,
    };

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
                share: Some(Share {
                    flops: 0.25,
                    loads: Some(0.5),
                    second_loads: Some(0.75),
                }),
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
            peaks: vec![ThreadPeak {
                threads: 2,
                peak: Peak {
                    flops: 5e10,
                    loads: 3e9,
                    second_loads: 2e9,
                },
            }],
            ..BenchReport::new("bench".into(), machine, settings, "s".into())
        }
    }

    #[test]
    fn reports_from_before_there_were_peaks_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("report.json");
        let report = report(vec![row("a", &[[1.0, 2.0]])]);
        let mut json = serde_json::to_value(&report).unwrap();
        assert!(json["peaks"][0]["flops"].is_f64() && json["rows"][0]["share"]["loads"].is_f64());
        json.as_object_mut().unwrap().remove("peaks");
        json["rows"][0].as_object_mut().unwrap().remove("share");
        std::fs::write(&path, json.to_string()).unwrap();
        let old = BenchReport::load(&path).unwrap();
        assert!(old.peaks.is_empty() && old.rows[0].measured().unwrap().share.is_none());
        assert!(!old.table().contains("peak of"));
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
}
