//! What a run leaves behind: `report.json` for machines, a table for people.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use burn_sparse::pack::{Format, PackedLayer};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::cli::command_line;
use crate::data::ImageDataset;
use crate::output::{OutputError, write_atomic};

/// Longest report that is read.
const MAX_BYTES: u64 = 64 << 20;

/// The result of one pruning run, the content of `report.json`.
///
/// Accuracies are fractions of the test images (0 to 1), sizes are bytes on disk, times are median
/// milliseconds of a whole batch.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Network, such as `resnet50`.
    pub arch: String,
    /// Image set that was really used.
    pub dataset: String,
    /// Images trained on, without those held out for validation.
    pub train_images: usize,
    /// What they are if not images, such as `recordings`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub items: String,
    /// What became of the network if it was not pruned, such as `factored`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub form: String,
    /// The name of the method, such as `admm`, `oneshot` or `bsp`.
    pub method: String,
    /// Part of all weights that is zero, counted in the final network.
    pub sparsity: f64,
    /// Weights that are not zero.
    pub nnz: usize,
    /// All weights.
    pub weights: usize,
    /// Accuracy of the trained dense network.
    pub accuracy_dense: f64,
    /// Accuracy right after projection, before retraining.
    pub accuracy_projected: f64,
    /// Accuracy after retraining under the mask.
    pub accuracy_pruned: f64,
    /// Size of the dense checkpoint.
    pub bytes_dense: u64,
    /// Size of the packed checkpoint file.
    pub bytes_packed_file: u64,
    /// Largest absolute difference of any logit between the masked and the packed network.
    pub max_abs_diff: f64,
    /// Times of the whole network.
    pub latency_ms: Latency,
    /// One entry per layer with a weight.
    pub layers: Vec<LayerReport>,
    /// The command line.
    pub command: String,
    /// The seed.
    pub seed: u64,
    /// The device.
    pub device: String,
    /// Versions of the crates that computed this.
    pub versions: BTreeMap<String, String>,
    /// Whatever an example has to add.
    #[serde(default)]
    pub extra: Map<String, Value>,
}

/// Times of the whole network: those of batch 1 by themselves, and all by batch size.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// Dense, batch 1.
    pub dense: f64,
    /// Packed, batch 1.
    pub packed: f64,
    /// Every batch size that was measured.
    #[serde(default)]
    pub by_batch: BTreeMap<usize, DensePacked>,
}

impl Latency {
    /// Times by batch size; the one of batch 1 (or the smallest) is also the headline.
    #[must_use]
    pub fn new(by_batch: BTreeMap<usize, DensePacked>) -> Self {
        let first = by_batch.values().next().copied().unwrap_or_default();
        Self {
            dense: first.dense,
            packed: first.packed,
            by_batch,
        }
    }
}

/// A time of the dense and of the packed form.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DensePacked {
    /// Dense milliseconds.
    pub dense: f64,
    /// Packed milliseconds.
    pub packed: f64,
}

/// One layer of a [`Report`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LayerReport {
    /// Path in the network, such as `layer1.0.conv2`.
    pub name: String,
    /// Shape of the weight.
    pub shape: Vec<usize>,
    /// Part of the weights that is zero.
    pub sparsity: f64,
    /// The form that runs: `dense`, `csr`, …
    pub kind: String,
    /// Dense milliseconds, if measured.
    pub dense_ms: Option<f64>,
    /// Milliseconds of the best packed form, if one was measured, whether or not it was chosen.
    pub packed_ms: Option<f64>,
}

impl From<&PackedLayer> for LayerReport {
    fn from(layer: &PackedLayer) -> Self {
        Self {
            name: layer.layer.clone(),
            shape: layer.shape.clone(),
            sparsity: layer.sparsity(),
            kind: match layer.format {
                Format::Dense => "dense".into(),
                Format::Csr => "csr".into(),
                Format::Blocks => "blocks".into(),
                Format::Tile => "tile".into(),
            },
            dense_ms: layer.dense_ms,
            packed_ms: layer.packed_ms,
        }
    }
}

impl LayerReport {
    /// Whether both forms were measured and the dense one was not slower.
    #[must_use]
    pub fn dense_wins(&self) -> bool {
        matches!((self.dense_ms, self.packed_ms), (Some(d), Some(p)) if d <= p)
    }
}

/// Why a report could not be written or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReportError {
    /// A number that JSON cannot hold; something diverged.
    #[error("{key} is {value}, not a finite number; the run diverged or was not measured")]
    NotFinite {
        /// The key in the report.
        key: String,
        /// Its value.
        value: f64,
    },
    /// Writing failed.
    #[error(transparent)]
    Output(#[from] OutputError),
    /// The file is no report.
    #[error("{}: {reason}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

impl Report {
    /// A report that says what was run, without results yet.
    #[must_use]
    pub fn of(arch: &str, method: &str, data: &ImageDataset, device: &str, seed: u64) -> Self {
        Self {
            arch: arch.into(),
            dataset: data.name.clone(),
            train_images: data.train.len(),
            method: method.into(),
            command: command_line(),
            seed,
            device: device.into(),
            versions: Self::versions(),
            ..Self::default()
        }
    }

    /// The versions every report names.
    #[must_use]
    pub fn versions() -> BTreeMap<String, String> {
        let own = env!("CARGO_PKG_VERSION");
        // The workspace pins Burn to this release.
        [("burn", "0.22.1"), ("burn-sparse", own), ("burn-admm", own)]
            .map(|(name, version)| (name.to_string(), version.to_string()))
            .into()
    }

    /// Checks that every number is finite.
    ///
    /// # Errors
    /// [`ReportError::NotFinite`] with the first key that is not.
    pub fn check(&self) -> Result<(), ReportError> {
        let mut numbers = vec![
            ("sparsity".to_string(), self.sparsity),
            ("accuracy_dense".into(), self.accuracy_dense),
            ("accuracy_projected".into(), self.accuracy_projected),
            ("accuracy_pruned".into(), self.accuracy_pruned),
            ("max_abs_diff".into(), self.max_abs_diff),
            ("latency_ms.dense".into(), self.latency_ms.dense),
            ("latency_ms.packed".into(), self.latency_ms.packed),
        ];
        for (batch, time) in &self.latency_ms.by_batch {
            numbers.push((format!("latency_ms.by_batch.{batch}.dense"), time.dense));
            numbers.push((format!("latency_ms.by_batch.{batch}.packed"), time.packed));
        }
        for layer in &self.layers {
            let own = [
                ("sparsity", Some(layer.sparsity)),
                ("dense_ms", layer.dense_ms),
                ("packed_ms", layer.packed_ms),
            ];
            let own = own
                .into_iter()
                .filter_map(|(key, value)| Some((key, value?)));
            numbers.extend(own.map(|(key, value)| (format!("layers.{}.{key}", layer.name), value)));
        }
        match numbers.into_iter().find(|(_, value)| !value.is_finite()) {
            Some((key, value)) => Err(ReportError::NotFinite { key, value }),
            None => Ok(()),
        }
    }

    /// Writes the report, whole or not at all.
    ///
    /// # Errors
    /// [`ReportError::NotFinite`] before anything is written, [`ReportError::Output`] if it cannot
    /// be written.
    pub fn save(&self, path: &Path) -> Result<(), ReportError> {
        self.check()?;
        write_atomic(path, |file| {
            serde_json::to_writer_pretty(&mut *file, self)?;
            file.write_all(b"\n")
        })?;
        Ok(())
    }

    /// Reads a report.
    ///
    /// # Errors
    /// [`ReportError::Invalid`] if it cannot be read or is no report.
    pub fn load(path: &Path) -> Result<Self, ReportError> {
        let invalid = |reason: String| ReportError::Invalid {
            path: path.to_path_buf(),
            reason,
        };
        let file = File::open(path).map_err(|e| invalid(e.to_string()))?;
        let mut text = Vec::new();
        file.take(MAX_BYTES)
            .read_to_end(&mut text)
            .map_err(|e| invalid(e.to_string()))?;
        serde_json::from_slice(&text).map_err(|e| invalid(e.to_string()))
    }

    /// The report as an aligned text, a summary and then a line per layer.
    #[must_use]
    pub fn table(&self) -> String {
        let items = match self.items.as_str() {
            "" => "images",
            items => items,
        };
        let mut text = format!(
            "{} on {} ({} training {items}), {}, {}, seed {}\n\n",
            self.arch, self.dataset, self.train_images, self.method, self.device, self.seed
        );
        text.push_str(&aligned(&self.summary_rows(), 1));
        if !self.layers.is_empty() {
            text.push('\n');
            text.push_str(&aligned(&self.layer_rows(), 2));
            let wins = self.layers.iter().filter(|l| l.dense_wins()).count();
            if wins > 0 {
                text.push_str(&format!(
                    "dense wins in {wins} of {} layers\n",
                    self.layers.len()
                ));
            }
        }
        text
    }

    fn summary_rows(&self) -> Vec<Vec<String>> {
        let percent = |part: f64| format!("{:.2} %", 100.0 * part);
        let row = |cells: [String; 4]| cells.to_vec();
        let (form, gone, after) = match self.form.as_str() {
            "" => ("pruned", "zeros", "retraining"),
            form => (form, "fewer", "fine-tuning"),
        };
        let mut rows = vec![
            row(["".into(), "dense".into(), form.into(), "".into()]),
            row([
                "weights".into(),
                self.weights.to_string(),
                self.nnz.to_string(),
                format!("{} {gone}", percent(self.sparsity)),
            ]),
            row([
                "accuracy".into(),
                percent(self.accuracy_dense),
                percent(self.accuracy_pruned),
                format!("{} before {after}", percent(self.accuracy_projected)),
            ]),
            row([
                "bytes on disk".into(),
                self.bytes_dense.to_string(),
                self.bytes_packed_file.to_string(),
                ratio(
                    self.bytes_dense as f64,
                    self.bytes_packed_file as f64,
                    "smaller",
                    "larger",
                ),
            ]),
        ];
        for (batch, time) in &self.latency_ms.by_batch {
            let verdict = ratio(time.dense, time.packed, "faster", "slower: dense wins");
            let cells = [
                format!("ms, batch {batch}"),
                ms(time.dense),
                ms(time.packed),
                verdict,
            ];
            rows.push(row(cells));
        }
        let diff = format!("{:.1e}", self.max_abs_diff);
        rows.push(row([
            "packed differs by".into(),
            "".into(),
            diff,
            "at most".into(),
        ]));
        rows
    }

    fn layer_rows(&self) -> Vec<Vec<String>> {
        let head = [
            "layer",
            "shape",
            "zeros",
            "kind",
            "dense ms",
            "packed ms",
            "",
        ];
        let mut rows = vec![head.map(String::from).to_vec()];
        for layer in &self.layers {
            let shape: Vec<_> = layer.shape.iter().map(ToString::to_string).collect();
            let time = |t: Option<f64>| t.map_or("-".into(), ms);
            let verdict = match (layer.dense_ms, layer.packed_ms) {
                _ if layer.dense_wins() => "dense wins".into(),
                (Some(dense), Some(packed)) => ratio(dense, packed, "faster", "slower"),
                _ => String::new(),
            };
            rows.push(vec![
                layer.name.clone(),
                shape.join("x"),
                format!("{:.1} %", 100.0 * layer.sparsity),
                layer.kind.clone(),
                time(layer.dense_ms),
                time(layer.packed_ms),
                verdict,
            ]);
        }
        rows
    }
}

/// Milliseconds with about three significant digits.
fn ms(value: f64) -> String {
    let digits = match value {
        v if v >= 100.0 => 0,
        v if v >= 10.0 => 1,
        v if v >= 1.0 => 2,
        _ => 3,
    };
    format!("{value:.digits$}")
}

/// `before / after` in words.
fn ratio(before: f64, after: f64, better: &str, worse: &str) -> String {
    if before <= 0.0 || after <= 0.0 {
        String::new()
    } else if before >= after {
        format!("{:.2}x {better}", before / after)
    } else {
        format!("{:.2}x {worse}", after / before)
    }
}

/// Pads the cells of each column to one width: the first `left` columns and the last to the left,
/// numbers to the right.
fn aligned(rows: &[Vec<String>], left: usize) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |c: usize| {
        rows.iter()
            .filter_map(|row| row.get(c))
            .map(|cell| cell.chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (c, cell) in row.iter().enumerate() {
            let width = widths[c];
            if c < left || c + 1 == columns {
                line.push_str(&format!("{cell:<width$}  "));
            } else {
                line.push_str(&format!("{cell:>width$}  "));
            }
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let layer = |name: &str, kind: &str, dense, packed| LayerReport {
            name: name.into(),
            shape: vec![64, 64, 3, 3],
            sparsity: 0.9,
            kind: kind.into(),
            dense_ms: dense,
            packed_ms: packed,
        };
        let times = |dense, packed| DensePacked { dense, packed };
        Report {
            form: String::new(),
            arch: "resnet20".into(),
            dataset: "cifar10".into(),
            train_images: 1800,
            items: String::new(),
            method: "admm".into(),
            sparsity: 0.9,
            nnz: 100,
            weights: 1000,
            accuracy_dense: 0.5,
            accuracy_projected: 0.2,
            accuracy_pruned: 0.45,
            bytes_dense: 4000,
            bytes_packed_file: 900,
            max_abs_diff: 1e-5,
            latency_ms: Latency::new([(1, times(10.0, 5.0)), (32, times(200.0, 250.0))].into()),
            layers: vec![
                layer("conv1", "dense", Some(1.0), None),
                layer("layer1.0.conv1", "csr", Some(2.0), Some(1.0)),
                layer("layer1.0.conv2", "dense", Some(2.0), Some(3.0)),
            ],
            command: "x".into(),
            seed: 42,
            device: "flex".into(),
            versions: Report::versions(),
            extra: Map::new(),
        }
    }

    #[test]
    fn the_json_has_the_keys_its_readers_expect() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("report.json");
        report().save(&path).unwrap();
        assert_eq!(Report::load(&path).unwrap(), report());
        let json: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        for key in "arch dataset train_images method sparsity nnz weights accuracy_dense \
                    accuracy_projected accuracy_pruned bytes_dense bytes_packed_file max_abs_diff \
                    latency_ms layers command seed device versions extra"
            .split_whitespace()
        {
            assert!(json.get(key).is_some(), "{key}");
        }
        assert_eq!(json["latency_ms"]["dense"], 10.0);
        assert_eq!(json["latency_ms"]["by_batch"]["32"]["packed"], 250.0);
        for key in "name shape sparsity kind dense_ms packed_ms".split_whitespace() {
            assert!(json["layers"][0].get(key).is_some(), "{key}");
        }
    }

    #[test]
    fn a_number_that_diverged_is_named_and_nothing_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("report.json");
        let mut broken = report();
        broken.layers[1].packed_ms = Some(f64::INFINITY);
        let error = broken.save(&path).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("layers.layer1.0.conv1.packed_ms"),
            "{error}"
        );
        broken.accuracy_dense = f64::NAN;
        assert!(
            broken
                .save(&path)
                .unwrap_err()
                .to_string()
                .contains("accuracy_dense")
        );
        assert!(!path.exists());
        std::fs::write(&path, b"{\"arch\": 3}").unwrap();
        assert!(matches!(
            Report::load(&path),
            Err(ReportError::Invalid { .. })
        ));
    }

    #[test]
    fn the_table_is_aligned_and_says_where_dense_wins() {
        let table = report().table();
        let lines: Vec<&str> = table.lines().collect();
        let layer = |name: &str| *lines.iter().find(|l| l.starts_with(name)).unwrap();
        assert!(layer("layer1.0.conv2").ends_with("dense wins"));
        assert!(layer("layer1.0.conv1").ends_with("2.00x faster"));
        assert!(!layer("conv1").contains("wins"));
        assert!(layer("ms, batch 32").ends_with("1.25x slower: dense wins"));
        assert!(layer("accuracy").contains("20.00 % before retraining"));
        assert!(table.contains("dense wins in 1 of 3 layers"));
        let column = |line: &str, cell: &str| line.find(cell).unwrap() + cell.len();
        assert_eq!(
            column(layer("layer  "), "zeros"),
            column(layer("conv1"), "90.0 %")
        );
    }
}
