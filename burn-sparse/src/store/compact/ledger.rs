//! Where the bytes of a network went: dense, pruned, quantised, file.

use core::fmt;

use serde::{Deserialize, Serialize};

use super::coding::{LevelKind, Positions, TensorCoding, Values};
use super::content::Content;
use super::manifest::Manifest;
use super::skeleton::Slot;
use super::tensor::Bytes;

/// One tensor in a [`Ledger`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerRow {
    /// Its path, such as `conv1.weight`.
    pub name: String,
    /// Whether publications count it among the weights: a float tensor of two dimensions or more.
    pub is_weight: bool,
    /// Elements.
    pub elements: usize,
    /// Elements that are not zero.
    pub nnz: usize,
    /// Stored elements: more than `nnz` where zeros are stored.
    pub stored: usize,
    /// Bits that codes of the non-zeros need, or of an element where there are no codes.
    pub bits: u32,
    /// `nonzero`, `signed` or `codebook` (see [`Levels`](crate::quant::Levels)), or `none`.
    pub levels: String,
    /// How places are told.
    pub positions: Positions,
    /// How values are told.
    pub values: Values,
    /// Bytes of values or their codes in the file.
    pub value_bytes: u64,
    /// Bytes of what tells where they are.
    pub index_bytes: u64,
    /// Bytes of scales or of a codebook.
    pub codebook_bytes: u64,
}

/// Sizes of a set of tensors from step to step, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chain {
    /// Elements.
    pub elements: u64,
    /// Elements that are not zero.
    pub nnz: u64,
    /// Dense, as f32: `4 · elements`.
    pub dense_bytes: u64,
    /// Pruned, values alone, as f32: `4 · nnz`.
    pub pruned_bytes: u64,
    /// Pruned, values as f32 and an index of 16 bits each: `6 · nnz`.
    pub pruned_indexed_bytes: u64,
    /// Quantised, values alone: the sum of `nnz · bits / 8`, rounded up.
    pub quantised_bytes: u64,
}

/// What a compact checkpoint takes, and how small each step made the network.
///
/// The bytes of the file are exact: `value_bytes`, `index_bytes`, `codebook_bytes` and `rest_bytes`
/// make `file_bytes`, and the first three are the sums of the rows. The steps before the file are
/// calculated (see [`Chain`]). Publications state ratios by two conventions, which differ by a factor
/// of three and more: values alone, and everything that must be stored. Both are here, of weights
/// alone (as publications count) and of all parameters.
///
/// Displays as a table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    /// The weights of the layers of this crate, then all other parameters and statistics.
    pub layers: Vec<LedgerRow>,
    /// Of weights.
    pub weights: Chain,
    /// Of all parameters and statistics.
    pub all: Chain,
    /// Of values or their codes.
    pub value_bytes: u64,
    /// Of what tells where they are.
    pub index_bytes: u64,
    /// Of scales and codebooks.
    pub codebook_bytes: u64,
    /// Of the header, checksums and what the range coder needs to end.
    pub rest_bytes: u64,
    /// Of the whole file.
    pub file_bytes: u64,
}

impl LedgerRow {
    pub(super) fn new(slot: &Slot, coding: &TensorCoding, content: &Content, bytes: Bytes) -> Self {
        let (elements, nnz) = (slot.grid.len(), content.nnz());
        let codes = coding.values.codes();
        // Where zeros have codes too, a pruned weight would do with fewer bits.
        let bits = codes.map(|(bits, _)| content.bits_without_zeros().unwrap_or(bits));
        let levels = match codes {
            None => "none",
            Some((_, LevelKind::Nonzero { .. })) => "nonzero",
            Some((_, LevelKind::Signed { .. })) => "signed",
            Some((_, LevelKind::Codebook { .. })) => "codebook",
        };
        Self {
            name: slot.path.clone(),
            is_weight: slot.is_weight(),
            elements,
            nnz,
            stored: coding.stored.unwrap_or(elements),
            bits: bits.map_or(8 * coding.dtype.size() as u32, u32::from),
            levels: levels.to_owned(),
            positions: coding.positions,
            values: coding.values,
            value_bytes: bytes.values,
            index_bytes: bytes.index,
            codebook_bytes: bytes.codebook,
        }
    }

    /// Bytes in the file, without those of the header.
    pub fn bytes(&self) -> u64 {
        self.value_bytes + self.index_bytes + self.codebook_bytes
    }
}

/// What [`Chain::steps`] are.
const STEPS: [&str; 4] = [
    "dense, f32",
    "pruned, values alone",
    "pruned, with indices of 16 bits",
    "quantised, values alone",
];

fn ratio(large: u64, small: u64) -> f64 {
    large as f64 / small.max(1) as f64
}

impl Chain {
    fn of<'a>(rows: impl Iterator<Item = &'a LedgerRow>) -> Self {
        let (mut chain, mut bits) = (Self::default(), 0);
        for row in rows {
            chain.elements += row.elements as u64;
            chain.nnz += row.nnz as u64;
            bits += row.nnz as u64 * u64::from(row.bits);
        }
        Self {
            dense_bytes: 4 * chain.elements,
            pruned_bytes: 4 * chain.nnz,
            pruned_indexed_bytes: 6 * chain.nnz,
            quantised_bytes: bits.div_ceil(8),
            ..chain
        }
    }

    /// Bytes after each step.
    fn steps(&self) -> [u64; 4] {
        [
            self.dense_bytes,
            self.pruned_bytes,
            self.pruned_indexed_bytes,
            self.quantised_bytes,
        ]
    }

    /// How many times smaller the codes are than the dense elements: values alone, without indices,
    /// levels and headers.
    pub fn values_alone(&self) -> f64 {
        ratio(self.dense_bytes, self.quantised_bytes)
    }
}

impl Ledger {
    pub(super) fn new(manifest: &Manifest, layers: Vec<LedgerRow>) -> Self {
        Self {
            weights: Chain::of(layers.iter().filter(|row| row.is_weight)),
            all: Chain::of(layers.iter()),
            layers,
            value_bytes: manifest.value_bytes,
            index_bytes: manifest.index_bytes,
            codebook_bytes: manifest.codebook_bytes,
            rest_bytes: manifest.rest_bytes,
            file_bytes: manifest.file_bytes,
        }
    }

    /// How many times smaller the file is than all parameters as f32: everything counted.
    pub fn everything(&self) -> f64 {
        ratio(self.all.dense_bytes, self.file_bytes)
    }

    /// How many times smaller the file, which holds all parameters, is than the weights alone as f32:
    /// the ratio to compare with publications that count no biases.
    pub fn everything_of_weights(&self) -> f64 {
        ratio(self.weights.dense_bytes, self.file_bytes)
    }

    fn rows(&self, f: &mut fmt::Formatter<'_>, width: usize) -> fmt::Result {
        writeln!(
            f,
            "{:width$}  {:>10}  {:>9}  {:>4}  {:8}  {:>10}  {:>10}  {:>9}  places / values",
            "tensor", "elements", "nnz", "bits", "levels", "values", "index", "codebook"
        )?;
        for row in &self.layers {
            writeln!(
                f,
                "{:width$}  {:>10}  {:>9}  {:>4}  {:8}  {:>10}  {:>10}  {:>9}  {} / {}",
                row.name,
                row.elements,
                row.nnz,
                row.bits,
                row.levels,
                row.value_bytes,
                row.index_bytes,
                row.codebook_bytes,
                row.positions,
                row.values
            )?;
        }
        let indent = 10 + 9 + 4 + 8 + 6;
        writeln!(
            f,
            "{:width$}  {:indent$}  {:>10}  {:>10}  {:>9}  header and checksums {}",
            "file", "", self.value_bytes, self.index_bytes, self.codebook_bytes, self.rest_bytes
        )
    }
}

impl fmt::Display for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.layers.iter().map(|row| row.name.chars().count());
        self.rows(f, names.max().unwrap_or(0).max(6))?;
        writeln!(
            f,
            "\n{:34}  {:>14}  {:>9}  {:>14}  {:>9}",
            "bytes, and how many times smaller", "weights", "", "all parameters", ""
        )?;
        let line = |f: &mut fmt::Formatter<'_>, name: &str, [weights, all]: [u64; 2]| {
            write!(
                f,
                "{name:34}  {weights:>14}  {:>8.1}x  {all:>14}  {:>8.1}x",
                ratio(self.weights.dense_bytes, weights),
                ratio(self.all.dense_bytes, all)
            )
        };
        for (at, name) in STEPS.into_iter().enumerate() {
            line(f, name, [self.weights.steps()[at], self.all.steps()[at]])?;
            writeln!(f)?;
        }
        line(f, "file, everything counted", [self.file_bytes; 2])
    }
}
