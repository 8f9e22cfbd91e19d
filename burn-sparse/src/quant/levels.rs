//! What codes stand for.

use super::BitCodes;
use crate::SparseError;

/// The numbers that codes of one weight stand for. Scales are one for the whole weight, or one for
/// each row (output channel).
#[derive(Debug, Clone, PartialEq)]
pub enum Levels {
    /// Code `c` of `b` bits is `k · scale` with `k = c − 2^(b−1)` below the middle and
    /// `k = c − 2^(b−1) + 1` from there on: equal intervals without zero.
    Nonzero {
        /// One, or one for each row; positive.
        scales: Vec<f32>,
    },
    /// Code `c` of `b` bits is `(c − 2^(b−1)) · scale`: equal intervals with zero.
    Signed {
        /// One, or one for each row; positive.
        scales: Vec<f32>,
    },
    /// Code `c` is `codebook[c]`.
    Codebook(
        /// At most `2^bits` finite numbers.
        Vec<f32>,
    ),
}

impl Levels {
    /// The integer of a code of `bits` bits; of a codebook the code itself.
    pub fn integer(&self, code: u16, bits: u8) -> i32 {
        let (code, half) = (i32::from(code), 1 << (bits - 1));
        match self {
            Self::Nonzero { .. } if code >= half => code - half + 1,
            Self::Nonzero { .. } | Self::Signed { .. } => code - half,
            Self::Codebook(_) => code,
        }
    }

    /// The number that a code of `bits` bits stands for in `row`.
    ///
    /// # Panics
    /// For a row without a scale and a code outside the codebook; [`Quantized::new`] refuses both.
    pub fn value(&self, code: u16, bits: u8, row: usize) -> f32 {
        match self {
            Self::Nonzero { scales } | Self::Signed { scales } => {
                let scale = if scales.len() == 1 {
                    scales[0]
                } else {
                    scales[row]
                };
                self.integer(code, bits) as f32 * scale
            }
            Self::Codebook(codebook) => codebook[usize::from(code)],
        }
    }

    /// Scales, or entries of the codebook.
    pub fn numbers(&self) -> &[f32] {
        match self {
            Self::Nonzero { scales } | Self::Signed { scales } => scales,
            Self::Codebook(codebook) => codebook,
        }
    }

    /// `"nonzero"`, `"signed"` or `"codebook"`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Nonzero { .. } => "nonzero",
            Self::Signed { .. } => "signed",
            Self::Codebook(_) => "codebook",
        }
    }
}

/// The values of a weight as codes, row after row.
///
/// # Example
/// ```
/// use burn_sparse::quant::{Levels, Quantized};
///
/// // Two rows of stored values, all multiples of 0.25.
/// let values = [0.25, -0.5, 0.5, 0.25, -0.25];
/// let quantized = Quantized::find(&values, &[0, 3, 5]).expect("few levels");
/// assert_eq!(quantized.codes().bits(), 2);
/// assert_eq!(quantized.levels(), &Levels::Nonzero { scales: vec![0.25] });
/// assert_eq!(quantized.values(&[0, 3, 5]), values);
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Quantized {
    codes: BitCodes,
    levels: Levels,
}

fn invalid(reason: String) -> SparseError {
    SparseError::Format {
        format: "levels",
        reason,
    }
}

impl Quantized {
    /// Checks that every code has a finite value.
    ///
    /// # Errors
    /// [`SparseError::Format`] for no scale, scales that are neither one nor one for each of `rows`,
    /// scales that are not positive and finite or whose largest multiple is not finite, a codebook
    /// that is empty or larger than the bits can say, numbers that are not finite, and a code that
    /// points outside the codebook.
    pub fn new(codes: BitCodes, levels: Levels, rows: usize) -> Result<Self, SparseError> {
        let bits = codes.bits();
        match &levels {
            Levels::Nonzero { scales } | Levels::Signed { scales } => {
                if scales.len() != 1 && scales.len() != rows {
                    let found = scales.len();
                    return Err(invalid(format!("{found} scales for {rows} rows")));
                }
                let largest = (1u32 << (bits - 1)) as f32;
                let unfit = |scale: &f32| !(*scale > 0.0 && (largest * scale).is_finite());
                if let Some(row) = scales.iter().position(unfit) {
                    let scale = scales[row];
                    return Err(invalid(format!(
                        "scale {row} is {scale}; it must be positive and {largest} times it finite"
                    )));
                }
            }
            Levels::Codebook(codebook) => {
                if codebook.is_empty() && !codes.is_empty() || codebook.len() > 1 << bits {
                    let entries = codebook.len();
                    return Err(invalid(format!(
                        "a codebook of {entries} entries for codes of {bits} bits"
                    )));
                }
                if let Some(at) = codebook.iter().position(|value| !value.is_finite()) {
                    let value = codebook[at];
                    return Err(invalid(format!("entry {at} of the codebook is {value}")));
                }
                let entries = codebook.len();
                if let Some(code) = codes.iter().find(|&code| usize::from(code) >= entries) {
                    return Err(invalid(format!(
                        "code {code} points outside a codebook of {entries} entries"
                    )));
                }
            }
        }
        Ok(Self { codes, levels })
    }

    /// The codes.
    pub fn codes(&self) -> &BitCodes {
        &self.codes
    }

    /// What they stand for.
    pub fn levels(&self) -> &Levels {
        &self.levels
    }

    /// The values again, bit for bit. Row `r` has those from `row_ptr[r]` to `row_ptr[r + 1]`.
    ///
    /// # Panics
    /// If the rows do not cover the codes, or have no scale.
    pub fn values(&self, row_ptr: &[u32]) -> Vec<f32> {
        let end = row_ptr.last().map_or(0, |&end| end as usize);
        assert_eq!(end, self.codes.len(), "rows of {end} values");
        let bits = self.codes.bits();
        let mut values = Vec::with_capacity(end);
        for (row, ends) in row_ptr.windows(2).enumerate() {
            let codes = (ends[0]..ends[1]).map(|at| self.codes.get(at as usize));
            values.extend(codes.map(|code| self.levels.value(code, bits, row)));
        }
        values
    }

    /// Bytes of the codes and of the scales or the codebook.
    pub fn bytes(&self) -> usize {
        self.codes.as_bytes().len() + 4 * self.levels.numbers().len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_of_codes_have_no_zero_or_one() {
        let scales = vec![1.0];
        let nonzero = Levels::Nonzero {
            scales: scales.clone(),
        };
        let of = |levels: &Levels, bits: u8| -> Vec<i32> {
            (0..1 << bits).map(|c| levels.integer(c, bits)).collect()
        };
        assert_eq!(of(&nonzero, 2), [-2, -1, 1, 2]);
        assert_eq!(of(&nonzero, 1), [-1, 1]);
        assert_eq!(of(&Levels::Signed { scales }, 2), [-2, -1, 0, 1]);
    }

    #[test]
    fn what_cannot_be_levels_is_refused() {
        let codes = |codes: &[u16]| BitCodes::new(2, codes.iter().copied()).unwrap();
        let nonzero = |scales: &[f32]| Levels::Nonzero {
            scales: scales.to_vec(),
        };
        for (levels, says) in [
            (nonzero(&[]), "0 scales"),
            (nonzero(&[1.0, 1.0]), "2 scales for 3 rows"),
            (nonzero(&[0.0]), "scale 0 is 0"),
            (nonzero(&[1.0, -1.0, 1.0]), "scale 1 is -1"),
            (nonzero(&[f32::MAX]), "scale 0"),
            (nonzero(&[f32::NAN]), "scale 0"),
            (Levels::Codebook(vec![]), "0 entries"),
            (Levels::Codebook(vec![1.0; 5]), "5 entries"),
            (Levels::Codebook(vec![1.0, f32::NAN, 2.0]), "entry 1"),
            (Levels::Codebook(vec![1.0, 2.0]), "code 2 points outside"),
        ] {
            let error = Quantized::new(codes(&[1, 2]), levels, 3).unwrap_err();
            assert!(error.to_string().contains(says), "{error}");
        }
        assert!(Quantized::new(codes(&[]), Levels::Codebook(vec![]), 3).is_ok());
    }
}
