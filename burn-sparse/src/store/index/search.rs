//! Blocks in which an index takes few bytes.

use crate::cpu::block_widths;
use crate::format::{Csr, alike};

/// Rows that are looked at: patterns are the same all over a layer.
const SAMPLE: usize = 32;

/// Bands that are tried.
const HEIGHTS: [usize; 4] = [4, 8, 16, 32];

/// Channels of punched blocks that are tried.
const CHANNELS: [usize; 6] = [1, 2, 4, 8, 16, 32];

/// Width of the first look, which tells that a weight has no blocks in a fraction of the time.
const LOOK: usize = 16;

/// Entries of a sample, in panels of two rows and more and in all.
fn shared(csr: &Csr, rows: usize) -> [usize; 2] {
    alike(csr.row_ptr(), csr.columns(), 0..rows, LOOK)
        .iter()
        .fold([0, 0], |[shared, all], panel| {
            let entries = panel.rows.len() * panel.entries[0].len();
            let more = if panel.rows.len() > 1 { entries } else { 0 };
            [shared + more, all + entries]
        })
}

/// Bits that tell where the entries of the first rows are, in blocks of this size.
fn bits(csr: &Csr, rows: usize, [height, width]: [usize; 2]) -> usize {
    let bands = rows.div_ceil(height);
    let panels: usize = (0..bands)
        .map(|band| {
            let members = band * height..rows.min((band + 1) * height);
            alike(csr.row_ptr(), csr.columns(), members, width).len()
        })
        .sum();
    bands * csr.row_len().div_ceil(width) + panels * (1 + height + width)
}

/// The blocks whose panels take the fewest bits, of a matrix whose rows share columns at all.
pub(super) fn panels(csr: &Csr, positions: usize) -> Option<[usize; 2]> {
    let rows = csr.rows().min(SAMPLE);
    let [some, all] = shared(csr, rows);
    // Of single weights, a tenth of them left, about one in sixteen agrees by chance.
    if 5 * some < 2 * all || all == 0 {
        return None;
    }
    block_widths(csr.row_len(), positions)
        .into_iter()
        .filter(|&width| width >= LOOK)
        .flat_map(|width| HEIGHTS.map(|height| [height, width]))
        .min_by_key(|&block| bits(csr, rows, block))
}

/// The largest blocks of rows by channels whose kernels all keep the same positions, if any do.
pub(super) fn punched(csr: &Csr, positions: usize) -> Option<[usize; 2]> {
    if positions == 0 || csr.row_len() == 0 {
        return None;
    }
    let channels = csr.row_len().div_ceil(positions);
    let rows = csr.rows().min(SAMPLE);
    let mut kept = vec![false; rows * channels * positions];
    for row in 0..rows {
        csr.row(row)
            .for_each(|(column, _)| kept[row * channels * positions + column] = true);
    }
    let kernel = |row: usize, channel: usize| {
        let start = (row * channels + channel) * positions;
        &kept[start..start + positions]
    };
    let alike = |[height, width]: [usize; 2]| {
        (0..rows).all(|row| {
            (0..channels).all(|channel| {
                let first = [row / height * height, channel / width * width];
                kernel(row, channel) == kernel(first[0], first[1])
            })
        })
    };
    HEIGHTS
        .iter()
        .flat_map(|&height| CHANNELS.map(|width| [height, width]))
        .filter(|block| alike(*block))
        .max_by_key(|block| block[0] * block[1])
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    fn weight(rows: usize, row_len: usize, keep: impl Fn(usize, usize) -> bool) -> Csr {
        let dense: Vec<f32> = (0..rows * row_len)
            .map(|at| f32::from(u8::from(keep(at / row_len, at % row_len))))
            .collect();
        Csr::from_dense(&dense, [rows, row_len]).unwrap()
    }

    #[test]
    fn blocks_are_found_and_noise_is_not() {
        let rng = &mut ChaCha8Rng::seed_from_u64(7);
        let mut chance = |len: usize, part: f64| -> Vec<bool> {
            (0..len).map(|_| rng.random_bool(part)).collect()
        };
        let (rows, columns) = (chance(64 * 18, 0.5), chance(16 * 288, 0.2));
        // Blocks of 4 by 16, rows and columns of each.
        let blocks = weight(64, 288, |row, column| {
            rows[row * 18 + column / 16] && columns[row / 4 * 288 + column]
        });
        assert_eq!(panels(&blocks, 9), Some([4, 16]));
        assert_eq!(punched(&blocks, 9), None);
        // Blocks of 8 rows by 4 channels, positions of each.
        let positions = chance(8 * 8 * 9, 0.2);
        let holes = weight(64, 288, |row, column| {
            positions[(row / 8 * 8 + column / 36) * 9 + column % 9]
        });
        assert_eq!(punched(&holes, 9), Some([8, 4]));
        let noise = chance(64 * 288, 0.1);
        let noise = weight(64, 288, |row, column| noise[row * 288 + column]);
        assert_eq!((panels(&noise, 9), punched(&noise, 9)), (None, None));
        for empty in [[0, 9], [9, 0], [9, 9]] {
            let empty = weight(empty[0], empty[1], |_, _| false);
            assert_eq!(panels(&empty, 9), None);
        }
    }
}
