//! Codebooks and scales, and the values of codes.

use burn::tensor::DType;

use super::coder::Coder;
use super::coding::LevelKind;
use super::elements::{Elements, of_f32};
use crate::quant::{BitCodes, Levels, Quantized};

/// Whether a row has entries.
fn has_entries(ends: &[u32]) -> bool {
    ends[0] < ends[1]
}

/// One scale, or one for each row with entries. The others are never asked for, and 1.
fn code_scales(coder: &mut impl Coder, own: &[f32], per_row: bool, row_ptr: &[u32]) -> Vec<f32> {
    let mut scale = |own: Option<&f32>| {
        let bits = own.map_or(0, |scale| scale.to_bits());
        f32::from_bits(coder.plain(u64::from(bits), 32) as u32)
    };
    if !per_row {
        return vec![scale(own.first())];
    }
    (row_ptr.windows(2).enumerate())
        .map(|(row, ends)| {
            if has_entries(ends) {
                scale(own.get(row))
            } else {
                1.0
            }
        })
        .collect()
}

/// Codes the numbers of levels: scales of 32 bits, entries of a codebook as wide as the elements are.
/// `own` is what is written; a decoder has none.
pub(super) fn code(
    coder: &mut impl Coder,
    kind: LevelKind,
    own: Option<&Levels>,
    dtype: DType,
    row_ptr: &[u32],
) -> Result<Levels, String> {
    let numbers = own.map_or(&[][..], Levels::numbers);
    Ok(match kind {
        LevelKind::Nonzero { per_row } => Levels::Nonzero {
            scales: code_scales(coder, numbers, per_row, row_ptr),
        },
        LevelKind::Signed { per_row } => Levels::Signed {
            scales: code_scales(coder, numbers, per_row, row_ptr),
        },
        LevelKind::Codebook { entries } => {
            let mut codebook = Elements::zeros(dtype.size(), entries);
            for at in 0..entries {
                let own = numbers.get(at).and_then(|number| of_f32(*number, dtype));
                let bits = coder.plain(own.unwrap_or(0), 8 * dtype.size() as u32);
                codebook.set(at, bits);
            }
            let codebook = codebook.to_f32(dtype);
            Levels::Codebook(codebook.ok_or("has a codebook of numbers that are no f32")?)
        }
    })
}

/// The elements that codes stand for; the reason if they stand for nothing.
pub(super) fn elements(
    bits: u8,
    codes: Vec<u16>,
    levels: Levels,
    dtype: DType,
    row_ptr: &[u32],
) -> Result<Elements, String> {
    let quantised = BitCodes::new(bits, codes)
        .and_then(|codes| Quantized::new(codes, levels, row_ptr.len() - 1))
        .map_err(|error| format!("has {error}"))?;
    let values = quantised.values(row_ptr);
    let mut elements = Elements::zeros(dtype.size(), values.len());
    for (at, value) in values.into_iter().enumerate() {
        let bits = of_f32(value, dtype).ok_or("has codes, but holds no floats")?;
        elements.set(at, bits);
    }
    Ok(elements)
}
