//! One line of the result: a layer with a sparsity, on a device.

use burn_sparse::ConvProblem;
use burn_sparse::cpu::Share;
use burn_sparse::format::Csr;
use serde::{Deserialize, Serialize};

use super::{Dtype, Pair, Pattern, Verified};

/// What was measured. Two rows of two reports compare if theirs are equal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Key {
    /// Name of the layer.
    pub layer: String,
    /// Its shape, as a suite has it.
    pub shape: String,
    /// The sparsity asked for.
    pub sparsity: f64,
    /// Which weights are zero.
    pub pattern: Pattern,
    /// Images, or texts.
    pub batch: usize,
    /// Type of the numbers.
    pub dtype: Dtype,
    /// Threads, where they are what is varied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threads: Option<usize>,
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.layer)?;
        if self.layer != self.shape {
            write!(f, " ({})", self.shape)?;
        }
        write!(
            f,
            ", {} {}, batch {}, {}",
            percent(self.sparsity),
            self.pattern,
            self.batch,
            self.dtype
        )?;
        match self.threads {
            Some(threads) => write!(f, ", {threads} threads"),
            None => Ok(()),
        }
    }
}

/// A fraction as `90 %`, with as many digits as it was given.
pub(crate) fn percent(fraction: f64) -> String {
    let rounded = (fraction * 1e6).round() / 1e4;
    format!("{rounded} %")
}

/// Bytes of operands. Those of the weight are of its rows of non-zeros: a value and a column of 32
/// bits for each, and where each row starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bytes {
    /// Stored values.
    pub values: u64,
    /// Their positions.
    pub index: u64,
    /// The dense weight.
    pub dense: u64,
    /// The input.
    pub input: u64,
    /// The output.
    pub output: u64,
}

/// What the weight turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Counts {
    /// All weights.
    pub weights: usize,
    /// Those that are not zero.
    pub nnz: usize,
    /// Those that are stored.
    pub stored: usize,
    /// Part that is zero, counted.
    pub sparsity: f64,
    /// Multiply-adds of the non-zeros.
    pub macs: u64,
    /// Multiply-adds of the dense layer.
    pub dense_macs: u64,
    /// Bytes of the operands.
    pub bytes: Bytes,
}

impl Counts {
    /// Counts a weight for a problem.
    #[must_use]
    pub fn of(csr: &Csr, problem: &ConvProblem, dtype: Dtype) -> Self {
        let size = dtype.bytes();
        let elements = |shape: [usize; 4]| shape.iter().product::<usize>();
        let weights = elements(problem.weight_shape());
        let (nnz, stored) = (csr.nnz(), csr.stored());
        Self {
            weights,
            nnz,
            stored,
            sparsity: 1.0 - nnz as f64 / weights.max(1) as f64,
            macs: problem.macs(nnz),
            dense_macs: problem.dense_macs(),
            bytes: Bytes {
                values: stored as u64 * size,
                index: (stored + csr.rows() + 1) as u64 * 4,
                dense: weights as u64 * size,
                input: elements(problem.input_shape()) as u64 * size,
                output: elements(problem.output_shape()) as u64 * size,
            },
        }
    }
}

/// Operations per second, two for each multiply-add, in units of 10⁹.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Gflops {
    /// What the sparse kernel computes.
    pub sparse: f64,
    /// What a dense kernel would have computed in its time.
    pub equivalent: f64,
    /// What the dense kernel computes.
    pub dense: f64,
}

impl Gflops {
    /// From counts and times.
    #[must_use]
    pub fn of(counts: &Counts, pair: &Pair) -> Self {
        let rate = |macs: u64, ms: f64| 2.0 * macs as f64 / (ms * 1e6);
        Self {
            sparse: rate(counts.macs, pair.sparse.median),
            equivalent: rate(counts.dense_macs, pair.sparse.median),
            dense: rate(counts.dense_macs, pair.dense.median),
        }
    }
}

/// Times and what they mean.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// What the weight turned out to be.
    pub counts: Counts,
    /// Both times and their ratio.
    #[serde(flatten)]
    pub pair: Pair,
    /// Operations per second.
    pub gflops: Gflops,
    /// Parts of the processor's rates that the sparse kernel reached: of its multiply-adds, counting
    /// those of weights that are not zero, and of its loads where they are known. `None` on devices
    /// other than `flex`, and in older reports.
    #[serde(default)]
    pub share: Option<Share>,
    /// Whether the dense kernel was not slower.
    pub dense_wins: bool,
    /// How right the sparse kernel was; `None` if nobody looked.
    pub verified: Option<Verified>,
    /// How right the dense kernel was.
    pub dense_verified: Option<Verified>,
    /// Whether the dense kernel computes with fewer digits than its operands have.
    pub dense_reduced: bool,
}

/// How it went.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "snake_case")]
pub enum Outcome<T> {
    /// It was measured.
    Measured(Box<T>),
    /// A kernel was wrong or could not run.
    Failed {
        /// Why.
        reason: String,
    },
}

impl<T> Outcome<T> {
    /// The numbers, if there are any.
    #[must_use]
    pub fn measured(&self) -> Option<&T> {
        match self {
            Self::Measured(measured) => Some(measured),
            Self::Failed { .. } => None,
        }
    }
}

/// What was measured, where with, and how it went.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// What was measured.
    #[serde(flatten)]
    pub key: Key,
    /// How often the network has the layer.
    pub count: usize,
    /// Threads that took part.
    pub threads_used: usize,
    /// How it went.
    #[serde(flatten)]
    pub outcome: Outcome<Measured>,
}

impl Row {
    /// The numbers, if there are any.
    #[must_use]
    pub fn measured(&self) -> Option<&Measured> {
        self.outcome.measured()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_and_bytes_are_counted() {
        let problem = ConvProblem::new(2, [4, 3], [5, 5], [3, 3]);
        let csr = Pattern::Unstructured.weight(&problem, 0.75, 1).unwrap();
        let counts = Counts::of(&csr, &problem, Dtype::F16);
        assert_eq!((counts.weights, counts.nnz, counts.stored), (108, 27, 27));
        assert_eq!(counts.sparsity, 0.75);
        assert_eq!((counts.macs, counts.dense_macs), (27 * 18, 108 * 18));
        let bytes = counts.bytes;
        assert_eq!((bytes.values, bytes.index, bytes.dense), (54, 124, 216));
        assert_eq!((bytes.input, bytes.output), (400, 108));
        let pair = Pair::of(&[[1e-3, 2e-3]]).unwrap();
        let gflops = Gflops::of(&counts, &pair);
        assert!((gflops.sparse - 2.0 * 486.0 / 1e3).abs() < 1e-9);
        assert!((gflops.equivalent - 4.0 * gflops.sparse).abs() < 1e-9);
        assert!((gflops.dense - 2.0 * gflops.sparse).abs() < 1e-9);
    }

    #[test]
    fn keys_are_one_line() {
        let key = Key {
            layer: "fc".into(),
            shape: "kind=linear in=3 out=2".into(),
            sparsity: 0.985,
            pattern: Pattern::Blocks(4),
            batch: 1,
            dtype: Dtype::Bf16,
            threads: None,
        };
        let line = "fc (kind=linear in=3 out=2), 98.5 % blocks4, batch 1, bf16";
        assert_eq!(key.to_string(), line);
        assert_eq!(percent(0.9), "90 %");
        assert_eq!(percent(0.07), "7 %");
    }
}
