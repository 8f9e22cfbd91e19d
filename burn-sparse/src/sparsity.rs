//! The one vocabulary for "which weights may be non-zero".
//!
//! Projections (training), formats (storage) and reports all speak it, so that what was trained
//! is what is packed and what is printed.

use serde::{Deserialize, Serialize};

use crate::SparseError;

/// How much of a weight stays: as a fraction of zeros, or as an exact count of non-zeros.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", try_from = "RawBudget")]
pub enum Budget {
    /// Fraction of zeros, in `[0, 1)`.
    Sparsity(f64),
    /// Exact number of non-zeros (of the whole weight, or of one output channel).
    Nnz(usize),
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum RawBudget {
    Sparsity(f64),
    Nnz(usize),
}

impl TryFrom<RawBudget> for Budget {
    type Error = SparseError;

    fn try_from(raw: RawBudget) -> Result<Self, SparseError> {
        match raw {
            RawBudget::Sparsity(sparsity) => Self::sparsity(sparsity),
            RawBudget::Nnz(nnz) => Ok(Self::Nnz(nnz)),
        }
    }
}

impl Budget {
    /// A checked fraction of zeros.
    ///
    /// # Errors
    /// [`SparseError::SparsityOutOfRange`] outside `[0, 1)` and for NaN.
    pub fn sparsity(sparsity: f64) -> Result<Self, SparseError> {
        if (0.0..1.0).contains(&sparsity) {
            Ok(Self::Sparsity(sparsity))
        } else {
            Err(SparseError::SparsityOutOfRange(sparsity))
        }
    }

    /// The number of entries kept out of `len`: `round((1 - s) * len)`, never fewer than one of a
    /// non-empty set (a network with an emptied layer has no gradient left to learn from).
    ///
    /// # Errors
    /// [`SparseError::TooManyNonZeros`] when a count exceeds `len`,
    /// [`SparseError::SparsityOutOfRange`] when a fraction is out of range.
    pub fn keep(&self, len: usize) -> Result<usize, SparseError> {
        match *self {
            Self::Sparsity(s) => {
                Self::sparsity(s)?;
                let keep = ((1.0 - s) * len as f64).round() as usize;
                Ok(keep.clamp(usize::from(len > 0), len))
            }
            Self::Nnz(asked) if asked > len => Err(SparseError::TooManyNonZeros {
                asked,
                available: len,
                what: format!("a set of {len} weights"),
            }),
            Self::Nnz(nnz) => Ok(nnz),
        }
    }
}

/// Which weights of a layer may be non-zero.
///
/// A layer is seen as a matrix of `rows` output channels by `row_len` weights each
/// (`in_channels / groups * kernel` for a convolution, `d_input` for a linear layer).
///
/// # Example
/// ```
/// use burn_sparse::Sparsity;
///
/// let sparsity = Sparsity::row_balanced(0.9)?;
/// assert_eq!(sparsity.nnz(64, 576)?, 64 * 58); // 58 of 576 in every output channel
/// # Ok::<(), burn_sparse::SparseError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind", content = "budget")]
#[non_exhaustive]
pub enum Sparsity {
    /// Any entry, a budget for the whole weight (ADMM-NN, section 3).
    Unstructured(Budget),
    /// Any entry, the same budget in every output channel (Pietroń and Żurek, section 3): every
    /// row of the packed weight has the same length, so no thread waits for a longer one.
    RowBalanced(Budget),
}

impl Sparsity {
    /// Unstructured, by fraction of zeros.
    ///
    /// # Errors
    /// [`SparseError::SparsityOutOfRange`] outside `[0, 1)`.
    pub fn unstructured(sparsity: f64) -> Result<Self, SparseError> {
        Budget::sparsity(sparsity).map(Self::Unstructured)
    }

    /// The same number of non-zeros in every output channel, by fraction of zeros.
    ///
    /// # Errors
    /// [`SparseError::SparsityOutOfRange`] outside `[0, 1)`.
    pub fn row_balanced(sparsity: f64) -> Result<Self, SparseError> {
        Budget::sparsity(sparsity).map(Self::RowBalanced)
    }

    /// The same pattern with another budget.
    #[must_use]
    pub fn with_budget(self, budget: Budget) -> Self {
        match self {
            Self::Unstructured(_) => Self::Unstructured(budget),
            Self::RowBalanced(_) => Self::RowBalanced(budget),
        }
    }

    /// The budget, whatever the pattern.
    pub fn budget(&self) -> Budget {
        match *self {
            Self::Unstructured(budget) | Self::RowBalanced(budget) => budget,
        }
    }

    /// Non-zeros kept in a weight of `rows` output channels by `row_len`.
    ///
    /// # Errors
    /// As [`Budget::keep`].
    pub fn nnz(&self, rows: usize, row_len: usize) -> Result<usize, SparseError> {
        match self {
            Self::Unstructured(budget) => budget.keep(rows * row_len),
            Self::RowBalanced(budget) => Ok(rows * budget.keep(row_len)?),
        }
    }

    /// Density `nnz / (rows * row_len)` that results for a weight of that shape; 0 if it is empty.
    ///
    /// # Errors
    /// As [`Budget::keep`].
    pub fn density(&self, rows: usize, row_len: usize) -> Result<f64, SparseError> {
        let total = rows * row_len;
        if total == 0 {
            return Ok(0.0);
        }
        Ok(self.nnz(rows, row_len)? as f64 / total as f64)
    }
}

impl core::fmt::Display for Sparsity {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let name = match self {
            Self::Unstructured(_) => "unstructured",
            Self::RowBalanced(_) => "row-balanced",
        };
        match self.budget() {
            Budget::Sparsity(s) => write!(f, "{name} {:.1} %", 100.0 * s),
            Budget::Nnz(nnz) => write!(f, "{name} {nnz} non-zeros"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sparsity_outside_the_unit_interval_is_refused() {
        for bad in [-0.1, 1.0, 1.5, f64::NAN, f64::INFINITY] {
            assert!(matches!(
                Sparsity::unstructured(bad),
                Err(SparseError::SparsityOutOfRange(_))
            ));
        }
        let json = r#"{"kind":"row_balanced","budget":{"sparsity":1.0}}"#;
        assert!(serde_json::from_str::<Sparsity>(json).is_err());
    }

    #[test]
    fn counts_are_exact_and_never_empty_a_layer() {
        assert_eq!(
            Sparsity::unstructured(0.95).unwrap().nnz(10, 10).unwrap(),
            5
        );
        assert_eq!(
            Sparsity::row_balanced(0.999).unwrap().nnz(4, 10).unwrap(),
            4
        );
        assert_eq!(Sparsity::row_balanced(0.0).unwrap().nnz(4, 10).unwrap(), 40);
        assert_eq!(Sparsity::unstructured(0.5).unwrap().nnz(0, 10).unwrap(), 0);
    }

    #[test]
    fn more_non_zeros_than_weights_is_an_error() {
        let error = Sparsity::RowBalanced(Budget::Nnz(11))
            .nnz(4, 10)
            .unwrap_err();
        assert!(error.to_string().contains("11 non-zeros"), "{error}");
    }

    #[test]
    fn json_round_trip() {
        let sparsity = Sparsity::Unstructured(Budget::Nnz(7));
        let json = serde_json::to_string(&sparsity).unwrap();
        assert_eq!(serde_json::from_str::<Sparsity>(&json).unwrap(), sparsity);
    }
}
