//! Matrices for the tests of all formats.

use proptest::prelude::*;

/// Small matrices with many zeros, negative ones among them, and with no entry at all.
pub(super) fn sparse_matrix() -> impl Strategy<Value = (Vec<f32>, [usize; 2])> {
    (0usize..9, 0usize..13)
        .prop_flat_map(|(rows, row_len)| (values(rows * row_len), Just([rows, row_len])))
}

pub(super) fn values(len: usize) -> impl Strategy<Value = Vec<f32>> {
    let value = prop_oneof![4 => Just(0.0f32), 1 => Just(-0.0f32), 3 => -2.0f32..2.0];
    prop::collection::vec(value, len)
}

pub(super) fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}
