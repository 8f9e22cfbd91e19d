//! What can go wrong in this crate, with the numbers that show why.

/// An error of `burn-sparse`.
///
/// Constructors, files and plans return it. `Tensor`-level functions panic with its text instead,
/// as Burn's own operations do on a wrong shape.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SparseError {
    /// A sparsity outside `[0, 1)`, or not a number.
    #[error("sparsity must lie in [0, 1), got {0}")]
    SparsityOutOfRange(f64),
    /// A count of non-zeros that the weight cannot hold.
    #[error("{asked} non-zeros asked of {what}, which holds only {available}")]
    TooManyNonZeros {
        /// Non-zeros asked for.
        asked: usize,
        /// Entries available.
        available: usize,
        /// The weight, row or layer meant.
        what: String,
    },
    /// A rate of groups at which a layer would lose all of them.
    #[error(
        "nothing would stay of {groups} {what}; ask for less sparsity here, or for exactly one of them"
    )]
    EmptiesLayer {
        /// Groups of the layer.
        groups: usize,
        /// What they are.
        what: &'static str,
    },
    /// A block without rows or columns, or larger than the weight.
    #[error("blocks of {}×{} {}", .block[0], .block[1], match .weight {
        Some([rows, columns]) => format!("do not fit a weight of {rows}×{columns}; use smaller ones"),
        None => "are empty; both sides must be at least 1".to_owned(),
    })]
    Block {
        /// Rows and columns of a block.
        block: [usize; 2],
        /// Rows and columns of the weight, if it is too small.
        weight: Option<[usize; 2]>,
    },
    /// A pool of kernel patterns that is none.
    #[error("pool of patterns: {0}")]
    PatternPool(String),
    /// A pattern that a weight cannot have.
    #[error("{scheme} sparsity does not fit: {reason}")]
    Scheme {
        /// The pattern.
        scheme: &'static str,
        /// Why not.
        reason: String,
    },
    /// A shape that does not fit: wrong rank, wrong length, channels that do not match.
    #[error("{0}")]
    Shape(String),
    /// A convolution whose channels its groups do not divide.
    #[error("{channels} {what} channels are not divisible by {groups} groups")]
    Groups {
        /// Channels that should be divisible.
        channels: usize,
        /// `"input"` or `"output"`.
        what: &'static str,
        /// Number of groups.
        groups: usize,
    },
    /// Bits of a code that no code can have.
    #[error("codes have 1 to 16 bits, got {0}")]
    Bits(u8),
    /// A range of inputs from which no steps can be made.
    #[error(
        "inputs from {} to {} cannot be divided into 255 steps; give the lowest and the highest input \
         that samples have, both finite",
        .range[0], .range[1]
    )]
    InputRange {
        /// Lowest and highest.
        range: [f32; 2],
    },
    /// A NaN or an infinity among weights that were to be packed.
    #[error("weight {index} of {what} is {value}; only finite weights can be packed")]
    NonFinite {
        /// Flat index of the first offender.
        index: usize,
        /// Its value.
        value: f32,
        /// The layer or tensor.
        what: String,
    },
    /// A broken invariant of a compressed format.
    #[error("invalid {format}: {reason}")]
    Format {
        /// The format, such as `"CSR"`.
        format: &'static str,
        /// The invariant that does not hold.
        reason: String,
    },
    /// A packed layer that does not reproduce the layer it came from.
    #[error(
        "{layer}: packed and unpacked outputs differ by {difference:e}, more than {tolerance:e}"
    )]
    Mismatch {
        /// The layer's path.
        layer: String,
        /// The largest absolute difference.
        difference: f64,
        /// What was allowed.
        tolerance: f64,
    },
    /// A checkpoint that is broken, truncated, altered or of another version.
    #[error("checkpoint {path}: {reason}")]
    Checkpoint {
        /// The file.
        path: String,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// Reading or writing failed.
    #[error("{path}: {source}")]
    Io {
        /// The file or folder.
        path: String,
        /// The system's answer.
        source: std::io::Error,
    },
}

impl SparseError {
    /// A [`SparseError::Shape`] from anything that can be shown.
    pub fn shape(reason: impl core::fmt::Display) -> Self {
        Self::Shape(reason.to_string())
    }
}
