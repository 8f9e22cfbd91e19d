//! What packing did, and why.

use serde::Serialize;

use crate::cpu::Plan;

/// How a layer's weight is held after packing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// All entries; Burn's kernels.
    Dense,
    /// Rows of non-zeros; the kernels of this crate.
    Csr,
    /// Rows of non-zeros of which several share their positions, and so their loads: neighbours, or rows
    /// that agree in a block.
    Blocks,
    /// All entries, in register tiles of the CPU kernels of this crate.
    Tile,
}

impl core::fmt::Display for Format {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.pad(match self {
            Self::Dense => "dense",
            Self::Csr => "csr",
            Self::Blocks => "blocks",
            Self::Tile => "tile",
        })
    }
}

/// One layer.
#[derive(Debug, Clone, Serialize)]
pub struct PackedLayer {
    /// Path in the model, such as `layer1.0.conv1`.
    pub layer: String,
    /// `conv2d`, `conv1d` or `linear`.
    pub kind: String,
    /// Shape of the dense weight.
    pub shape: Vec<usize>,
    /// Entries of the dense weight.
    pub weights: usize,
    /// Entries that are not zero.
    pub nnz: usize,
    /// Entries stored if packed, stored zeros included.
    pub stored: usize,
    /// What was chosen.
    pub format: Format,
    /// Median milliseconds of the dense layer, if measured.
    pub dense_ms: Option<f64>,
    /// Median milliseconds of the packed layer, if measured; given where dense won, too.
    pub packed_ms: Option<f64>,
    /// Largest absolute difference between the outputs of both forms, if packed.
    pub max_abs_diff: Option<f64>,
    /// How the CPU kernels run it, where they do.
    pub plan: Option<Plan>,
    /// Why this format.
    pub reason: String,
}

impl PackedLayer {
    /// Fraction of zeros.
    pub fn sparsity(&self) -> f64 {
        if self.weights == 0 {
            0.0
        } else {
            1.0 - self.nnz as f64 / self.weights as f64
        }
    }
}

/// All layers of a packed model, in the order of traversal. Prints as a table.
#[derive(Debug, Clone, Serialize)]
pub struct PackReport {
    /// The layers.
    pub layers: Vec<PackedLayer>,
}

impl PackReport {
    /// Non-zeros of all layers.
    pub fn nnz(&self) -> usize {
        self.layers.iter().map(|layer| layer.nnz).sum()
    }

    /// Weights of all layers.
    pub fn weights(&self) -> usize {
        self.layers.iter().map(|layer| layer.weights).sum()
    }

    /// Fraction of zeros over all layers.
    pub fn sparsity(&self) -> f64 {
        let weights = self.weights();
        if weights == 0 {
            0.0
        } else {
            1.0 - self.nnz() as f64 / weights as f64
        }
    }

    /// The table of all layers: what each holds, what was measured, what was chosen and why.
    pub fn explain(&self) -> String {
        self.to_string()
    }

    /// Largest difference of any packed layer from its dense form; 0 if none was packed.
    pub fn max_abs_diff(&self) -> f64 {
        self.layers
            .iter()
            .filter_map(|layer| layer.max_abs_diff)
            .fold(0.0, f64::max)
    }
}

impl core::fmt::Display for PackReport {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let ms = |time: Option<f64>| time.map_or("-".to_string(), |time| format!("{time:.3}"));
        let width = self
            .layers
            .iter()
            .map(|layer| layer.layer.len())
            .max()
            .unwrap_or(0)
            .max(5);
        writeln!(
            f,
            "{:width$}  {:7}  {:>18}  {:>9}  {:>8}  {:6}  {:>9}  {:>9}  why",
            "layer", "kind", "shape", "nnz", "sparsity", "format", "dense ms", "packed ms"
        )?;
        for layer in &self.layers {
            writeln!(
                f,
                "{:width$}  {:7}  {:>18}  {:>9}  {:>7.2}%  {:6}  {:>9}  {:>9}  {}",
                layer.layer,
                layer.kind,
                format!("{:?}", layer.shape),
                layer.nnz,
                100.0 * layer.sparsity(),
                layer.format,
                ms(layer.dense_ms),
                ms(layer.packed_ms),
                layer.reason
            )?;
        }
        write!(
            f,
            "{} of {} weights are not zero ({:.2} % sparse)",
            self.nnz(),
            self.weights(),
            100.0 * self.sparsity()
        )
    }
}
