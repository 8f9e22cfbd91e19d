//! What tells where the entries of a packed weight are, as bytes: one file for each kind.

mod bits;
mod blocks;
mod panels;
mod patterns;
mod punched;
mod rows;
mod search;
#[cfg(test)]
mod testing;

use super::manifest::Index;
use crate::{cpu::Sharing, format::Csr};

/// The smallest index of bytes of a matrix whose kernels have so many positions.
pub(super) fn smallest(csr: &Csr, positions: usize) -> Option<(Index, Vec<u8>)> {
    let whole = [csr.rows(), csr.row_len()].map(|side| side.clamp(1, 1 << 16));
    let shared = Sharing::of(csr, positions).panel;
    let shared = shared.map(|panel| [panel.rows, panel.columns]);
    let found = search::panels(csr, positions);
    let lists = [Some(whole), shared, found].into_iter().flatten();
    let lists = lists.filter_map(|block| Some((Index::Panels, panels::encode(csr, block)?)));
    let blocks = found.and_then(|block| Some((Index::Blocks, blocks::encode(csr, block)?)));
    let patterns = (positions == crate::PatternPool::POSITIONS)
        .then(|| Some((Index::Patterns, patterns::encode(csr)?)))
        .flatten();
    let punched = search::punched(csr, positions)
        .and_then(|block| Some((Index::Punched, punched::encode(csr, positions, block)?)));
    lists
        .chain(blocks)
        .chain(patterns)
        .chain(punched)
        .min_by_key(|(_, bytes)| bytes.len())
}

/// Row pointers and columns of a matrix of `stored` entries, whose kernels have so many positions; the
/// reason if these are not the bytes of such an index.
pub(super) fn decode(
    index: Index,
    bytes: &[u8],
    shape: [usize; 2],
    positions: usize,
    stored: usize,
) -> Result<(Vec<u32>, Vec<u32>), String> {
    match index {
        Index::Panels => panels::decode(bytes, shape, stored),
        Index::Blocks => blocks::decode(bytes, shape, stored),
        Index::Patterns => patterns::decode(bytes, shape, positions, stored),
        Index::Punched => punched::decode(bytes, shape, positions, stored),
        Index::Columns | Index::Mask => Err(format!("{index:?} are no bytes")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::testing::csr;
    use super::*;

    const KINDS: [Index; 4] = [
        Index::Panels,
        Index::Blocks,
        Index::Patterns,
        Index::Punched,
    ];

    proptest! {
        #[test]
        fn altered_bytes_are_refused_or_another_index(
            csr in csr(),
            kernels in any::<bool>(),
            at in any::<prop::sample::Index>(),
            byte in any::<u8>(),
            cut in any::<bool>(),
        ) {
            let positions = if kernels && csr.row_len().is_multiple_of(9) { 9 } else { 1 };
            let (index, mut bytes) = smallest(&csr, positions).unwrap();
            let at = at.index(bytes.len());
            if cut {
                bytes.truncate(at);
            } else {
                bytes[at] = byte;
            }
            let shape = [csr.rows(), csr.row_len()];
            if let Ok((row_ptr, columns)) = decode(index, &bytes, shape, positions, csr.stored()) {
                // Whatever it names is within the matrix, or the matrix says what is wrong.
                let values = vec![1.0; columns.len()];
                let _ = Csr::new(shape, row_ptr, columns, values);
            }
        }

        #[test]
        fn noise_is_refused(
            bytes in prop::collection::vec(any::<u8>(), 0..40),
            kind in prop::sample::select(KINDS.to_vec()),
            row_len in prop::sample::select(vec![0usize, 9, 63, 70]),
            positions in prop::sample::select(vec![0usize, 1, 7, 9]),
        ) {
            let _ = decode(kind, &bytes, [7, row_len], positions, 9);
        }
    }
}
