//! Where entries are, told by the kernel positions that blocks keep.
//!
//! First come the rows and channels of a block less one, in 16 bits each. Then, for each block of the
//! matrix (bands of rows outermost), a bit for each position of its kernels. A block at an edge is smaller.

use crate::WeightShape;
use crate::format::{Csr, Punched};

use super::bits::{Reader, Writer};
use super::rows::Rows;

/// Bits of a side of a block.
const SIDE: usize = 16;

/// The index of a matrix of which every block of rows by channels keeps the same positions in each kernel.
pub(super) fn encode(csr: &Csr, positions: usize, block: [usize; 2]) -> Option<Vec<u8>> {
    if block.iter().any(|side| !(1..=1 << SIDE).contains(side)) || positions == 0 {
        return None;
    }
    let shape = WeightShape::new(csr.rows(), csr.row_len() / positions, [1, positions]);
    let punched = Punched::from_csr(csr, shape, block).ok()?;
    if punched.stored() != csr.stored() {
        return None;
    }
    let mut bits = Writer::default();
    bits.number(block[0] - 1, SIDE);
    bits.number(block[1] - 1, SIDE);
    let blocks = csr.rows().div_ceil(block[0]) * shape.channels.div_ceil(block[1]);
    for index in 0..blocks {
        let mask = punched.mask(index);
        (0..positions).for_each(|at| bits.bit(mask[at / 8] >> (at % 8) & 1 == 1));
    }
    Some(bits.into_bytes())
}

/// Row pointers and columns of a matrix of `stored` entries, of kernels of `positions`; the reason if this
/// is not its index. That columns ascend in a row is left to the constructor of the matrix.
pub(super) fn decode(
    bytes: &[u8],
    [rows, row_len]: [usize; 2],
    positions: usize,
    stored: usize,
) -> Result<(Vec<u32>, Vec<u32>), String> {
    if positions == 0 || !row_len.is_multiple_of(positions) {
        return Err(format!("rows of {row_len} have no kernels of {positions}"));
    }
    let mut bits = Reader::new(bytes);
    let block = [bits.number(SIDE)? + 1, bits.number(SIDE)? + 1];
    let channels = row_len / positions;
    let mut found = Rows::new(rows, stored);
    for first in (0..rows).step_by(block[0]) {
        let of_rows: Vec<usize> = (first..rows.min(first + block[0])).collect();
        for channel in (0..channels).step_by(block[1]) {
            let kept = bits.ids(positions)?;
            let kernels = channel..channels.min(channel + block[1]);
            let len = kernels.len() * kept.len();
            let columns = kernels.flat_map(|c| kept.iter().map(move |at| c * positions + at));
            found.add(&of_rows, len, columns)?;
        }
    }
    bits.finish()?;
    found.finish()
}

#[cfg(test)]
mod tests {
    use super::super::testing::restored;
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_position_comes_back(
            [rows, channels, positions] in [0usize..9, 0usize..9, 1usize..12],
            block in [1usize..5, 1usize..5],
            kept in prop::collection::vec(prop::bool::weighted(0.3), 81 * 12),
        ) {
            let row_len = channels * positions;
            let across = channels.div_ceil(block[1]);
            let dense: Vec<f32> = (0..rows * row_len)
                .map(|at| {
                    let (row, column) = (at / row_len, at % row_len);
                    let (channel, position) = (column / positions, column % positions);
                    let block = row / block[0] * across + channel / block[1];
                    f32::from(u8::from(kept[block * positions + position]))
                })
                .collect();
            let csr = Csr::from_dense(&dense, [rows, row_len]).unwrap();
            let bytes = encode(&csr, positions, block).unwrap();
            let decoded = decode(&bytes, [rows, row_len], positions, csr.stored());
            prop_assert_eq!(restored(&csr, decoded), csr);
        }
    }

    #[test]
    fn a_block_takes_a_bit_for_each_position() {
        let dense: Vec<f32> = (0..16 * 72)
            .map(|at| f32::from(u8::from(at % 9 == 4)))
            .collect();
        let csr = Csr::from_dense(&dense, [16, 72]).unwrap();
        let bits: usize = 2 * SIDE + 4 * 9;
        assert_eq!(encode(&csr, 9, [8, 4]).unwrap().len(), bits.div_ceil(8));
        // One kernel keeps another position.
        let mut other = dense;
        other[3] = 1.0;
        let other = Csr::from_dense(&other, [16, 72]).unwrap();
        assert!(encode(&other, 9, [8, 4]).is_none());
        assert!(encode(&csr, 9, [0, 4]).is_none());
        assert!(encode(&csr, 0, [8, 4]).is_none());
    }

    #[test]
    fn what_no_encoder_writes_is_named() {
        // Blocks of two rows by one channel, of a matrix of two rows and three kernels of one position.
        let bytes = |mask: u8| vec![1, 0, 0, 0, mask];
        let decode = |bytes: &[u8]| decode(bytes, [2, 3], 1, 2);
        assert_eq!(decode(&bytes(0b010)), Ok((vec![0, 1, 2], vec![1, 1])));
        for (bytes, reason) in [
            (vec![1, 0], "ends early"),
            (vec![1, 0, 0, 0], "ends early"),
            (bytes(0), "0 entries, not 2"),
            (bytes(0b11), "more than 2"),
            (bytes(0b1010), "5 bits are left"),
        ] {
            let error = decode(&bytes).unwrap_err();
            assert!(error.contains(reason), "{reason}: {error}");
        }
        let error = super::decode(&bytes(0b10), [2, 3], 2, 2).unwrap_err();
        assert!(error.contains("no kernels of 2"), "{error}");
    }
}
