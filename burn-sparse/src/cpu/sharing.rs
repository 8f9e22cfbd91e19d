//! Which output channels of a weight share loads.

use super::{Panel, Sharing};
use crate::format::{Csr, alike};

/// Output channels that share a load in the widest kernel.
const WIDEST: usize = 4;

/// What taking up and storing the sums of a group costs, in entries of the group.
const GROUP: usize = 2;

/// Rows that are looked at: patterns are the same all over a layer.
const SAMPLE: usize = 64;

/// Rows of a first look, which tells that a weight has no blocks in a fraction of the time.
const FEW: usize = 16;

/// Widths of the first look: rows that agree in wider blocks agree in these, too.
const LOOK: [usize; 2] = [16, 64];

/// Bands that are tried.
const HEIGHTS: [usize; 5] = [4, 8, 16, 32, 64];

impl Sharing {
    /// What the rows of `csr` have in common: neighbours that agree nearly everywhere, or else blocks
    /// in which rows agree, or else nothing. A kernel has `positions`.
    pub fn of(csr: &Csr, positions: usize) -> Self {
        let rows = csr.shared_rows();
        let panel = (rows < WIDEST)
            .then(|| Self::panel_of(csr, positions))
            .flatten();
        panel.unwrap_or(Self::neighbours(rows))
    }

    /// The blocks in which rows of `csr` share most, if they share so much that it could pay: what a
    /// group of four does for one entry takes as long as two entries of single rows.
    pub fn panel_of(csr: &Csr, positions: usize) -> Option<Self> {
        if !LOOK.iter().any(|&columns| agrees(csr, columns)) {
            return None;
        }
        let rows = csr.rows().min(SAMPLE);
        let stored = csr.row_ptr()[rows] as usize;
        let most = 0.45 * stored as f64;
        let (least, columns) = widths(csr.row_len(), positions)
            .into_iter()
            .map(|columns| (cost(csr, rows, SAMPLE, columns), columns))
            // Of equals the first, which is the widest.
            .min_by_key(|(cost, _)| *cost)?;
        if least as f64 > most {
            return None;
        }
        // Lower bands are spread over threads more evenly and keep their sums nearer.
        let rows = HEIGHTS
            .into_iter()
            .find(|&height| cost(csr, rows, height, columns) as f64 <= 1.02 * least as f64)
            .unwrap_or(SAMPLE);
        let panel = Some(Panel { rows, columns });
        Some(Self {
            rows: WIDEST,
            panel,
        })
    }
}

/// Whether some rows have entries in common at all, beyond what chance does.
fn agrees(csr: &Csr, columns: usize) -> bool {
    let rows = csr.rows().min(FEW);
    let stored = csr.row_ptr()[rows] as usize;
    let loads: usize = alike(csr.row_ptr(), csr.columns(), 0..rows, columns)
        .iter()
        .map(|alike| alike.rows.len().div_ceil(WIDEST) * alike.entries[0].len())
        .sum();
    stored > 0 && loads as f64 <= 0.7 * stored as f64
}

/// Widths of blocks worth trying, the widest first: all columns, powers of two, and whole kernels.
pub(crate) fn widths(row_len: usize, positions: usize) -> Vec<usize> {
    let powers = || (2..=9).map(|power| 1 << power);
    let kernels = powers().map(|channels: usize| channels * positions);
    let mut widths: Vec<usize> = powers().chain(kernels).filter(|&w| w < row_len).collect();
    widths.push(row_len.max(1));
    widths.sort_unstable_by(|a, b| b.cmp(a));
    widths.dedup();
    widths
}

fn cost(csr: &Csr, rows: usize, height: usize, columns: usize) -> usize {
    (0..rows)
        .step_by(height)
        .flat_map(|first| {
            alike(
                csr.row_ptr(),
                csr.columns(),
                first..(first + height).min(rows),
                columns,
            )
        })
        .map(|alike| alike.rows.len().div_ceil(WIDEST) * (alike.entries[0].len() + GROUP))
        .sum()
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng, seq::index::sample};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    /// Zeros but for the entries of each block that `keep` holds on to.
    fn weight(rows: usize, row_len: usize, keep: impl Fn(usize, usize) -> bool) -> Csr {
        let mut dense = vec![0.0; rows * row_len];
        for (index, value) in dense.iter_mut().enumerate() {
            if keep(index / row_len, index % row_len) {
                *value = 1.0 + index as f32;
            }
        }
        Csr::from_dense(&dense, [rows, row_len]).unwrap()
    }

    #[test]
    fn blocks_are_found_and_noise_is_not() {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        // Blocks of 8 by 64: four rows and twelve columns of each, others in every block.
        let mut some = |of: usize, count: usize| {
            let chosen = sample(&mut rng, of, count).into_iter();
            chosen.fold(0u64, |mask, index| mask | 1 << index)
        };
        let kept: Vec<_> = (0..8 * 9).map(|_| (some(8, 4), some(64, 12))).collect();
        let blocks = weight(64, 576, |row, column| {
            let (rows, columns) = kept[row / 8 * 9 + column / 64];
            rows & (1 << (row % 8)) != 0 && columns & (1 << (column % 64)) != 0
        });
        let panel = Some(Panel {
            rows: 8,
            columns: 64,
        });
        assert_eq!(Sharing::of(&blocks, 9), Sharing { rows: 4, panel });

        let noise: Vec<bool> = (0..64 * 576).map(|_| rng.random_bool(0.1)).collect();
        let sharing = |keep: &dyn Fn(usize, usize) -> bool| Sharing::of(&weight(64, 576, keep), 9);
        assert_eq!(sharing(&|r, c| noise[r * 576 + c]), Sharing::neighbours(1));
        assert_eq!(
            sharing(&|r, c| noise[r / 2 * 576 + c]),
            Sharing::neighbours(2)
        );
        assert_eq!(sharing(&|_, _| false), Sharing::neighbours(1));
        assert_eq!(sharing(&|_, _| true), Sharing::neighbours(4));
    }
}
