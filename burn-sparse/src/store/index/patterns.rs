//! Where entries are, told by the pattern of each 3×3 kernel.
//!
//! One bit says that every kernel is kept; four give the number of patterns less one, nine each pattern's
//! positions, the lowest first. Then, for each row and channel: unless all are kept, a bit that
//! says whether this kernel is; and of a kernel that is kept the number of its pattern, in as few bits as
//! count the patterns.

use crate::format::{Csr, PatternKernels};
use crate::{PatternPool, WeightShape};

use super::bits::{Reader, Writer};
use super::rows::Rows;

/// Bits of the number of patterns.
const COUNT: usize = 4;

/// Bits that tell `patterns` of them apart.
fn width(patterns: usize) -> usize {
    patterns.next_power_of_two().trailing_zeros() as usize
}

/// The index of a matrix of 3×3 kernels that follow at most sixteen patterns exactly.
pub(super) fn encode(csr: &Csr) -> Option<Vec<u8>> {
    let channels = csr.row_len() / PatternPool::POSITIONS;
    let shape = WeightShape::new(csr.rows(), channels, [3, 3]);
    let kernels = PatternKernels::from_csr(csr, shape, None).ok()?;
    if kernels.stored() != csr.stored() {
        // A kernel with fewer entries than its pattern.
        return None;
    }
    let pool = kernels.pool();
    let all = kernels.kernels() == csr.rows() * channels;
    let mut bits = Writer::default();
    bits.bit(all);
    bits.number(pool.len() - 1, COUNT);
    for &pattern in pool.masks() {
        bits.number(usize::from(pattern), PatternPool::POSITIONS);
    }
    for pattern in kernels.patterns() {
        if !all {
            bits.bit(pattern.is_some());
        }
        if let Some(pattern) = pattern {
            bits.number(pattern, width(pool.len()));
        }
    }
    Some(bits.into_bytes())
}

/// Row pointers and columns of a matrix of `stored` entries, of kernels of `positions`; the reason if this
/// is not its index.
pub(super) fn decode(
    bytes: &[u8],
    [rows, row_len]: [usize; 2],
    positions: usize,
    stored: usize,
) -> Result<(Vec<u32>, Vec<u32>), String> {
    if positions != PatternPool::POSITIONS || !row_len.is_multiple_of(positions) {
        return Err(format!("rows of {row_len} have no 3×3 kernels"));
    }
    let mut bits = Reader::new(bytes);
    let all = bits.bit()?;
    let patterns = bits.number(COUNT)? + 1;
    let masks = (0..patterns)
        .map(|_| Ok(bits.number(PatternPool::POSITIONS)? as u16))
        .collect::<Result<Vec<_>, String>>()?;
    let pool = PatternPool::from_masks(&masks).map_err(|error| error.to_string())?;
    let positions: Vec<Vec<usize>> = pool.into();
    let mut found = Rows::new(rows, stored);
    for row in 0..rows {
        for first in (0..row_len).step_by(PatternPool::POSITIONS) {
            if !all && !bits.bit()? {
                continue;
            }
            let pattern = bits.number(width(patterns))?;
            let positions = positions
                .get(pattern)
                .ok_or_else(|| format!("its index names pattern {pattern} of {patterns}"))?;
            let columns = positions.iter().map(|position| first + position);
            found.add(&[row], positions.len(), columns)?;
        }
    }
    bits.finish()?;
    found.finish()
}

#[cfg(test)]
mod tests {
    use super::super::testing::{restored, written};
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_position_comes_back(
            pool in prop::sample::subsequence(PatternPool::natural(), 1..16),
            rows in 0usize..6,
            channels in 0usize..5,
            kernels in prop::collection::vec(0usize..20, 30),
            kept in any::<bool>(),
        ) {
            let mut dense = Vec::new();
            for kernel in &kernels[..rows * channels] {
                let pattern = pool.get(if kept { kernel % pool.len() } else { *kernel });
                let mask = pattern.copied().unwrap_or(0);
                dense.extend((0..9).map(|at| f32::from(mask >> at & 1) * (1.0 + f32::from(at as u8))));
            }
            let csr = Csr::from_dense(&dense, [rows, channels * 9]).unwrap();
            let bytes = encode(&csr).unwrap();
            prop_assert_eq!(restored(&csr, decode(&bytes, [rows, channels * 9], 9, csr.stored())), csr);
        }
    }

    #[test]
    fn three_bits_tell_eight_patterns_apart() {
        let pool = &PatternPool::natural()[..8];
        let dense: Vec<f32> = (0..16 * 16 * 9)
            .map(|at| f32::from(pool[at / 9 % 8] >> (at % 9) & 1))
            .collect();
        let csr = Csr::from_dense(&dense, [16, 16 * 9]).unwrap();
        let bits: usize = 1 + 4 + 8 * 9 + 16 * 16 * 3;
        assert_eq!(encode(&csr).unwrap().len(), bits.div_ceil(8));
        // A weight that training left at zero.
        let mut hole = dense;
        *hole.iter_mut().find(|value| **value != 0.0).unwrap() = 0.0;
        assert!(encode(&Csr::from_dense(&hole, [16, 16 * 9]).unwrap()).is_none());
        // No 3×3 kernels at all.
        assert!(encode(&Csr::from_dense(&[1.0; 8], [2, 4]).unwrap()).is_none());
    }

    #[test]
    fn what_no_encoder_writes_is_named() {
        // Not all are kept, and the three patterns are the first three positions.
        let head = [(0, 1), (2, COUNT), (1, 9), (2, 9), (4, 9)];
        let kernel = |pattern| [(1, 1), (pattern, 2)];
        let index =
            |kernels: &[&[(usize, usize)]]| written(&[&head, &kernels.concat()[..]].concat());
        let decode = |bytes: &[u8]| decode(bytes, [2, 9], 9, 2);
        let good = index(&[&kernel(0), &kernel(1)]);
        assert_eq!(decode(&good), Ok((vec![0, 1, 2], vec![0, 1])));
        for (bytes, reason) in [
            (vec![0], "ends early"),
            (vec![0; 8], "no pattern of 9 positions"),
            (index(&[&kernel(3)]), "pattern 3 of 3"),
            (index(&[&[(0, 1)], &kernel(1)]), "1 entries, not 2"),
            ([good.clone(), vec![0]].concat(), "10 bits are left"),
        ] {
            let error = decode(&bytes).unwrap_err();
            assert!(error.contains(reason), "{reason}: {error}");
        }
        for (shape, positions, reason) in [
            ([2, 9], 9, "more than 1"),
            ([2, 9], 3, "no 3×3 kernels"),
            ([2, 10], 9, "no 3×3 kernels"),
        ] {
            let error = super::decode(&good, shape, positions, 1).unwrap_err();
            assert!(error.contains(reason), "{error}");
        }
    }
}
