//! What a checkpoint takes, and where it goes.

use core::fmt;

use serde::{Deserialize, Serialize};

/// The sizes of a checkpoint, in bytes.
///
/// `file_bytes` is the sum of `value_bytes`, `index_bytes`, `tensor_bytes` and `manifest_bytes`.
/// Displays as a table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreReport {
    /// Of the whole file.
    pub file_bytes: u64,
    /// Of the values of packed layers and of sparse parameters.
    pub value_bytes: u64,
    /// Of their columns, row pointers and masks.
    pub index_bytes: u64,
    /// Of all parameters that are written whole.
    pub tensor_bytes: u64,
    /// Of the header, which holds the manifest.
    pub manifest_bytes: u64,
    /// What the same model takes with all parameters dense, as f32.
    pub dense_bytes: u64,
    /// The layers of this crate, in the order of the model.
    pub layers: Vec<LayerReport>,
}

/// The sizes of one layer's weight.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerReport {
    /// The weight's path, such as `layer1.0.conv1.weight`.
    pub weight: String,
    /// `linear`, `conv1d` or `conv2d`.
    pub kind: String,
    /// The shape of the dense weight.
    pub shape: Vec<usize>,
    /// Whether it is packed, or runs dense.
    pub packed: bool,
    /// Entries stored and non-zeros among them; `None` if all of it is stored.
    pub stored: Option<[usize; 2]>,
    /// Bytes in the file, those of indices and masks included.
    pub bytes: u64,
    /// Bytes of the dense weight as f32.
    pub dense_bytes: u64,
}

impl StoreReport {
    /// How many times smaller the file is than the dense parameters as f32.
    pub fn compression(&self) -> f64 {
        self.dense_bytes as f64 / self.file_bytes as f64
    }
}

impl fmt::Display for StoreReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self
            .layers
            .iter()
            .map(|layer| layer.weight.len())
            .max()
            .unwrap_or(0)
            .max(13);
        writeln!(
            f,
            "{:width$}  {:6}  {:6}  {:>16}  {:>10}  {:>8}  {:>12}  {:>12}",
            "weight", "kind", "runs", "shape", "stored", "density", "bytes", "dense bytes"
        )?;
        for layer in &self.layers {
            let shape = layer
                .shape
                .iter()
                .map(usize::to_string)
                .collect::<Vec<_>>()
                .join("x");
            let (stored, density) = match layer.stored {
                Some([stored, nnz]) => {
                    let total: usize = layer.shape.iter().product();
                    let density = 100.0 * nnz as f64 / total.max(1) as f64;
                    (stored.to_string(), format!("{density:.2} %"))
                }
                None => ("all".to_string(), String::new()),
            };
            let runs = if layer.packed { "packed" } else { "dense" };
            writeln!(
                f,
                "{:width$}  {:6}  {runs:6}  {shape:>16}  {stored:>10}  {density:>8}  {:>12}  {:>12}",
                layer.weight, layer.kind, layer.bytes, layer.dense_bytes
            )?;
        }
        let parts = [
            ("values", self.value_bytes),
            ("indices", self.index_bytes),
            ("whole tensors", self.tensor_bytes),
            ("manifest", self.manifest_bytes),
        ];
        // Under the column of bytes: five others and their gaps before it.
        let indent = 6 + 6 + 16 + 10 + 8 + 10;
        for (name, bytes) in parts {
            writeln!(f, "{name:width$}{:indent$}  {bytes:>12}", "")?;
        }
        write!(
            f,
            "{:width$}{:indent$}  {:>12}  {:>12}  {:.2} times smaller",
            "file",
            "",
            self.file_bytes,
            self.dense_bytes,
            self.compression()
        )
    }
}
