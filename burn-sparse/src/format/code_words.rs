//! Values as codes, in the order in which devices read them.

use super::Csr;
use crate::{
    SparseError,
    quant::{Levels, Quantized},
};

/// The values of a [`Csr`] as codes of few bits in words of 32, with the numbers that they stand for: an
/// index beside a matrix, as [`PanelEntries`](super::PanelEntries), which kernels of devices read instead
/// of the values.
///
/// # Example
/// ```
/// use burn_sparse::format::{CodeWords, Csr};
///
/// let csr = Csr::from_dense(&[0.5, 0.0, -0.5, 0.25], [2, 2])?;
/// let codes = CodeWords::find(&csr).expect("few levels");
/// // Four levels (-0.5, -0.25, 0.25, 0.5), a scale for each row, and three codes in a word.
/// assert_eq!((codes.bits(), codes.index().len()), (2, 4 + 2 + 1));
/// # Ok::<(), burn_sparse::SparseError>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct CodeWords {
    index: Vec<i32>,
    bits: u8,
    integers: bool,
    rows: usize,
    stored: usize,
}

impl CodeWords {
    /// Most bits of a code: its table has an entry for each.
    pub const MOST_BITS: u8 = 8;

    /// The codes of `csr`, if its values are levels of at most [`MOST_BITS`](Self::MOST_BITS) bits.
    pub fn find(csr: &Csr) -> Option<Self> {
        let quantized = Quantized::find_within(csr.values(), csr.row_ptr(), Self::MOST_BITS)?;
        Self::new(csr, &quantized).ok()
    }

    /// The codes of `quantized` for the entries of `csr`, whose own values are not looked at.
    ///
    /// # Errors
    /// [`SparseError::Format`] if there are not as many codes as entries or scales as rows, or for codes
    /// of more than [`MOST_BITS`](Self::MOST_BITS) bits.
    pub fn new(csr: &Csr, quantized: &Quantized) -> Result<Self, SparseError> {
        let (codes, levels) = (quantized.codes(), quantized.levels());
        let (bits, rows, stored) = (codes.bits(), csr.rows(), csr.stored());
        let invalid = |reason: String| {
            Err(SparseError::Format {
                format: "codes",
                reason,
            })
        };
        let most = Self::MOST_BITS;
        if bits > most {
            return invalid(format!(
                "codes of {bits} bits; kernels take {most}: quantise to fewer, or keep floats"
            ));
        }
        if codes.len() != stored {
            let codes = codes.len();
            return invalid(format!("{codes} codes for a matrix of {stored} entries"));
        }
        let scales = match levels {
            Levels::Codebook(_) => vec![1.0; rows],
            Levels::Nonzero { scales } | Levels::Signed { scales } if scales.len() == 1 => {
                vec![scales[0]; rows]
            }
            Levels::Nonzero { scales } | Levels::Signed { scales } => scales.clone(),
        };
        if scales.len() != rows {
            let scales = scales.len();
            return invalid(format!("{scales} scales for a matrix of {rows} rows"));
        }
        let number = |code: u16| match levels {
            Levels::Codebook(codebook) => codebook.get(usize::from(code)).copied().unwrap_or(0.0),
            _ => levels.integer(code, bits) as f32,
        };
        let table = (0..1u16 << bits).map(number);
        let mut index: Vec<i32> = table
            .chain(scales)
            .map(|number| number.to_bits().cast_signed())
            .collect();
        let per_word = 32 / usize::from(bits);
        let mut words = vec![0u32; stored.div_ceil(per_word)];
        for (at, code) in codes.iter().enumerate() {
            words[at / per_word] |= u32::from(code) << (at % per_word * usize::from(bits));
        }
        index.extend(words.into_iter().map(u32::cast_signed));
        Ok(Self {
            index,
            bits,
            integers: matches!(levels, Levels::Signed { .. }),
            rows,
            stored,
        })
    }

    /// `[table (2^bits) | scale (rows) | words]`. The first two are the bits of f32 numbers; a word holds
    /// as many whole codes as fit, the first in its lowest bits.
    pub fn index(&self) -> &[i32] {
        &self.index
    }

    /// Bits of a code.
    pub fn bits(&self) -> usize {
        self.bits.into()
    }

    /// Whether code `c` is the integer `c - 2^(bits - 1)`, of which the table need not be asked.
    pub fn integers(&self) -> bool {
        self.integers
    }

    /// Rows of the matrix.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Entries of the matrix.
    pub fn stored(&self) -> usize {
        self.stored
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quant::BitCodes;

    /// Value of entry `j` of a row as a kernel computes it.
    fn value(codes: &CodeWords, row: usize, j: usize) -> f32 {
        let number = |at: usize| f32::from_bits(codes.index()[at].cast_unsigned());
        let per_word = 32 / codes.bits();
        let word = codes.index()[(1 << codes.bits()) + codes.rows() + j / per_word];
        let shift = j % per_word * codes.bits();
        let code = (word.cast_unsigned() >> shift) as usize & ((1 << codes.bits()) - 1);
        let level = match codes.integers() {
            true => (code as i32 - (1 << (codes.bits() - 1))) as f32,
            false => number(code),
        };
        level * number((1 << codes.bits()) + row)
    }

    #[test]
    fn words_give_back_the_values() {
        let dense: Vec<f32> = (0..60)
            .map(|i| match i % 3 {
                0 => 0.0,
                _ => ((i * 7 % 11) as f32 - 5.5) * if i < 30 { 0.5 } else { 0.125 },
            })
            .collect();
        let csr = Csr::from_dense(&dense, [4, 15]).unwrap();
        let codes = CodeWords::find(&csr).unwrap();
        assert_eq!((codes.rows(), codes.stored()), (4, csr.stored()));
        for row in 0..4 {
            for j in csr.row_ptr()[row] as usize..csr.row_ptr()[row + 1] as usize {
                assert_eq!(
                    value(&codes, row, j),
                    csr.values()[j],
                    "row {row}, entry {j}"
                );
            }
        }
    }

    #[test]
    fn values_of_many_levels_and_none_at_all() {
        let dense: Vec<f32> = (1..=300).map(|i| (i as f32).sqrt()).collect();
        assert!(CodeWords::find(&Csr::from_dense(&dense, [3, 100]).unwrap()).is_none());
        let empty = Csr::from_dense(&[0.0; 6], [2, 3]).unwrap();
        assert!(CodeWords::find(&empty).is_none_or(|codes| codes.stored() == 0));
    }

    #[test]
    fn codes_that_do_not_fit_are_refused() {
        let csr = Csr::from_dense(&[1.0; 12], [4, 3]).unwrap();
        for (len, bits, scales, says) in [
            (13, 4, 1, "codes for a matrix"),
            (12, 9, 1, "codes of 9 bits"),
            (12, 4, 3, "3 scales"),
        ] {
            let codes = BitCodes::new(bits, (0..len).map(|_| 0)).unwrap();
            let levels = Levels::Signed {
                scales: vec![1.0; scales],
            };
            let quantized = Quantized::new(codes, levels, scales).unwrap();
            let error = CodeWords::new(&csr, &quantized).unwrap_err();
            assert!(matches!(error, SparseError::Format { .. }));
            assert!(error.to_string().contains(says), "{error}");
        }
    }
}
