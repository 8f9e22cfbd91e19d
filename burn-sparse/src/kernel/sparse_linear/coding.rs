//! Where a gathering product has its values from: floats, or codes that become numbers in registers.

use cubecl::prelude::*;
use serde::{Deserialize, Serialize};

/// How values are stored, known when a kernel is compiled; codes lie as
/// [`CodeWords::index`](crate::format::CodeWords::index) says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Coding {
    /// Bits of a code, or 0 for floats.
    pub(crate) bits: usize,
    /// Whether code `c` is the integer `c - 2^(bits - 1)`; entry `c` of the table otherwise.
    pub(crate) integers: bool,
}

impl Coding {
    /// Values are floats.
    pub(crate) const FLOATS: Self = Self {
        bits: 0,
        integers: false,
    };
}

/// Value of entry `j`; times the [scale](scale_of) of its row, for codes of a matrix of `rows` rows.
#[cube]
pub(crate) fn value_of<E: Float>(
    values: &[E],
    codes: &ComptimeOption<&[i32]>,
    rows: usize,
    j: usize,
    #[comptime] coding: Coding,
) -> f32 {
    if comptime!(coding.bits == 0) {
        f32::cast_from(values[j])
    } else {
        let per_word = comptime!(32 / coding.bits);
        let at = comptime!(1usize << coding.bits) + rows + j / per_word;
        let word: ComptimeOption<u32> = codes.as_ref().map(|codes| codes[at] as u32);
        let word = word.unwrap_or_else(|| 0u32);
        let shift = (j % per_word) as u32 * comptime!(coding.bits as u32);
        let code = (word >> shift) & comptime!((1u32 << coding.bits) - 1);
        if comptime!(coding.integers) {
            f32::cast_from(code as i32 - comptime!(1i32 << (coding.bits - 1)))
        } else {
            // The table has an entry for every code.
            let level: ComptimeOption<f32> = codes
                .as_ref()
                .map(|codes| f32::reinterpret(codes[code as usize]));
            level.unwrap_or_else(|| 0.0f32)
        }
    }
}

/// What the sum of a row is multiplied by.
#[cube]
pub(crate) fn scale_of(
    codes: &ComptimeOption<&[i32]>,
    row: usize,
    #[comptime] coding: Coding,
) -> f32 {
    let at = comptime!(1usize << coding.bits) + row;
    let scale: ComptimeOption<f32> = codes.as_ref().map(|codes| f32::reinterpret(codes[at]));
    scale.unwrap_or_else(|| 1.0f32)
}
