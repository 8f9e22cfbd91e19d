use serde::{Deserialize, Serialize};

use crate::SparseError;

/// How much of a weight stays: as a fraction of zeros, or as an exact count of what is kept.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", try_from = "RawBudget")]
pub enum Budget {
    /// Fraction of zeros, in `[0, 1)`.
    Sparsity(f64),
    /// Exact number of non-zeros, or of groups where a pattern keeps or drops groups as a whole
    /// ([`Sparsity`](super::Sparsity) says which for each of its patterns).
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
            Self::Sparsity(s) => Ok(rounded(s, len)?.clamp(usize::from(len > 0), len)),
            Self::Nnz(asked) if asked > len => Err(SparseError::TooManyNonZeros {
                asked,
                available: len,
                what: format!("a set of {len} weights"),
            }),
            Self::Nnz(nnz) => Ok(nnz),
        }
    }

    /// The number of groups kept out of `groups`: `round((1 - s) * groups)`. A layer of few groups
    /// is easily emptied, so nothing is rounded up in silence: ask for `Budget::Nnz(1)` to keep one.
    ///
    /// # Errors
    /// [`SparseError::EmptiesLayer`] if no group of a non-empty layer would be kept, otherwise as
    /// [`keep`](Self::keep). `what` names the groups in the message.
    pub fn keep_groups(&self, groups: usize, what: &'static str) -> Result<usize, SparseError> {
        let keep = match *self {
            Self::Sparsity(s) => rounded(s, groups)?,
            Self::Nnz(asked) if asked > groups => {
                return Err(SparseError::TooManyNonZeros {
                    asked,
                    available: groups,
                    what: format!("a layer of {groups} {what}"),
                });
            }
            Self::Nnz(asked) => asked,
        };
        if keep == 0 && groups > 0 {
            return Err(SparseError::EmptiesLayer { groups, what });
        }
        Ok(keep)
    }
}

fn rounded(sparsity: f64, len: usize) -> Result<usize, SparseError> {
    Budget::sparsity(sparsity)?;
    Ok(((1.0 - sparsity) * len as f64).round() as usize)
}

impl core::fmt::Display for Budget {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Sparsity(s) => write!(f, "{:.1} %", 100.0 * s),
            Self::Nnz(nnz) => write!(f, "{nnz} kept"),
        }
    }
}
