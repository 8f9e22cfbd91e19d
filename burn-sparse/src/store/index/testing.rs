//! Matrices and bytes for the tests of all indices.

use proptest::prelude::*;

use super::bits::Writer;
use crate::format::Csr;

pub(super) fn csr() -> impl Strategy<Value = Csr> {
    (0usize..9, 0usize..200).prop_flat_map(|(rows, row_len)| {
        let value = prop_oneof![4 => Just(0.0f32), 1 => -2.0f32..2.0];
        prop::collection::vec(value, rows * row_len)
            .prop_map(move |dense| Csr::from_dense(&dense, [rows, row_len]).unwrap())
    })
}

/// The matrix of the values of `csr` at the positions that were read.
pub(super) fn restored(csr: &Csr, decoded: Result<(Vec<u32>, Vec<u32>), String>) -> Csr {
    let (row_ptr, columns) = decoded.unwrap();
    let values = csr.values().to_vec();
    Csr::new([csr.rows(), csr.row_len()], row_ptr, columns, values).unwrap()
}

/// Numbers of so many bits each.
pub(super) fn written(numbers: &[(usize, usize)]) -> Vec<u8> {
    let mut bits = Writer::default();
    for &(number, width) in numbers {
        bits.number(number, width);
    }
    bits.into_bytes()
}
