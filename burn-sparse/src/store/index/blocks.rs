//! Where entries are, told by a bit for each row and column of the blocks.
//!
//! First come the rows and columns of a block less one, in 16 bits each. Then, for each block of the
//! matrix (bands of rows outermost) and each of its panels: a one, a bit for each row of the block and a
//! bit for each column; and a zero after the last panel. Blocks at the edges have fewer rows and columns.

use crate::format::{BlockPanels, Csr};

use super::bits::{Reader, Writer};
use super::rows::Rows;

/// Bits of a side of a block.
const SIDE: usize = 16;

/// The index of a matrix whose panels lie in blocks of `block`; of none that panels cannot hold.
pub(super) fn encode(csr: &Csr, block: [usize; 2]) -> Option<Vec<u8>> {
    let panels = BlockPanels::from_csr(csr, block).ok()?;
    let mut bits = Writer::default();
    bits.number(block[0] - 1, SIDE);
    bits.number(block[1] - 1, SIDE);
    for index in 0..panels.blocks() {
        for panel in panels.panels(index) {
            let side = |axis: usize| block[axis].min(panels.shape()[axis] - panel.origin[axis]);
            bits.bit(true);
            bits.ids(side(0), panel.rows);
            bits.ids(side(1), panel.columns);
        }
        bits.bit(false);
    }
    Some(bits.into_bytes())
}

/// Row pointers and columns of a matrix of `stored` entries; the reason if this is not its index.
/// That columns ascend in a row is left to the constructor of the matrix.
pub(super) fn decode(
    bytes: &[u8],
    [rows, row_len]: [usize; 2],
    stored: usize,
) -> Result<(Vec<u32>, Vec<u32>), String> {
    let mut bits = Reader::new(bytes);
    let block = [bits.number(SIDE)? + 1, bits.number(SIDE)? + 1];
    let across = row_len.div_ceil(block[1]);
    let blocks = rows.div_ceil(block[0]).saturating_mul(across);
    // Each block takes a bit at least.
    if blocks > bits.left() {
        return Err(format!("its index is too short for {blocks} blocks"));
    }
    let mut found = Rows::new(rows, stored);
    for index in 0..blocks {
        let start = [index / across * block[0], index % across * block[1]];
        let side = [
            block[0].min(rows - start[0]),
            block[1].min(row_len - start[1]),
        ];
        while bits.bit()? {
            let mut of_rows = bits.ids(side[0])?;
            let of_columns = bits.ids(side[1])?;
            if of_rows.is_empty() || of_columns.is_empty() {
                return Err("its index has a panel without rows or columns".to_owned());
            }
            of_rows.iter_mut().for_each(|row| *row += start[0]);
            let columns = of_columns.iter().map(|column| start[1] + column);
            found.add(&of_rows, of_columns.len(), columns)?;
        }
    }
    bits.finish()?;
    found.finish()
}

#[cfg(test)]
mod tests {
    use super::super::testing::{csr, restored, written};
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_position_comes_back(csr in csr(), block in [1usize..12, 1usize..150]) {
            let bytes = encode(&csr, block).unwrap();
            prop_assert_eq!(restored(&csr, decode(&bytes, [csr.rows(), csr.row_len()], csr.stored())), csr);
        }
    }

    #[test]
    fn a_block_takes_a_bit_for_each_row_and_column() {
        let mut dense = vec![0.0; 8 * 32];
        for row in [0, 3, 4, 7] {
            (0..16)
                .step_by(5)
                .for_each(|column| dense[row * 32 + column] = 1.0);
        }
        let csr = Csr::from_dense(&dense, [8, 32]).unwrap();
        // The sides of blocks, a block of one panel, and an empty one.
        let bits = 2 * SIDE + (1 + 8 + 16 + 1) + 1;
        assert_eq!(encode(&csr, [8, 16]).unwrap().len(), bits.div_ceil(8));
    }

    #[test]
    fn what_no_encoder_writes_is_named() {
        let head = |block: [usize; 2], rest: &[(usize, usize)]| {
            let sides = block.map(|side| (side - 1, SIDE));
            written(&[&sides, rest].concat())
        };
        // Of the only block: whether there is a panel, its rows, its columns, and so on.
        let panel = |rows, columns| [(1, 1), (rows, 2), (columns, 3)];
        let one = |rows, columns| head([2, 3], &[&panel(rows, columns)[..], &[(0, 1)]].concat());
        assert_eq!(
            decode(&one(0b11, 0b100), [2, 3], 2),
            Ok((vec![0, 1, 2], vec![2, 2]))
        );
        for (bytes, reason) in [
            (vec![1, 0, 2], "ends early"),
            (head([2, 3], &[]), "too short for 1 blocks"),
            (head([1, 1], &[]), "too short for 6 blocks"),
            (
                head([2, 3], &[&panel(1, 1)[..], &[(1, 1)]].concat()),
                "ends early",
            ),
            (one(0, 0b11), "without rows"),
            (one(1, 0), "without rows"),
            (one(0b11, 0b11), "more than 2"),
            (one(1, 1), "1 entries, not 2"),
            ([one(1, 0b11), vec![0]].concat(), "9 bits are left"),
        ] {
            let error = decode(&bytes, [2, 3], 2).unwrap_err();
            assert!(error.contains(reason), "{reason}: {error}");
        }
    }
}
