//! Random weights whose zeros follow a pattern.

use std::fmt;

use burn_sparse::format::Csr;
use burn_sparse::{Budget, ConvProblem, SparseError};
use clap::ValueEnum;
use rand::seq::index;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

/// Which weights are not zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[value(rename_all = "lowercase")]
pub enum Pattern {
    /// Any, equally many in every output channel
    #[default]
    Unstructured,
    /// The same positions in 2 consecutive output channels
    Blocks2,
    /// The same positions in 4 consecutive output channels
    Blocks4,
    /// The same positions in 8 consecutive output channels
    Blocks8,
}

impl Pattern {
    /// How many consecutive output channels share their positions.
    #[must_use]
    pub const fn rows(self) -> usize {
        match self {
            Self::Unstructured => 1,
            Self::Blocks2 => 2,
            Self::Blocks4 => 4,
            Self::Blocks8 => 8,
        }
    }

    /// A random weight with `round((1 - sparsity) * row length)` non-zeros in every output channel
    /// (at least one), their magnitudes within a factor of two of each other and such that outputs
    /// have about the magnitude of inputs.
    ///
    /// # Errors
    /// [`SparseError::SparsityOutOfRange`] outside `[0, 1)`.
    ///
    /// ```
    /// use burn_sparse::ConvProblem;
    /// use examples::bench::Pattern;
    ///
    /// let problem = ConvProblem::new(1, [64, 8], [9, 9], [3, 3]);
    /// let csr = Pattern::Blocks4.weight(&problem, 0.9, 1)?;
    /// assert_eq!(csr.nnz_per_row(), Some(58));
    /// assert_eq!(csr.shared_rows(), 4);
    /// # Ok::<(), burn_sparse::SparseError>(())
    /// ```
    pub fn weight(
        self,
        problem: &ConvProblem,
        sparsity: f64,
        seed: u64,
    ) -> Result<Csr, SparseError> {
        let (rows, row_len) = (problem.out_channels, problem.row_len());
        let keep = Budget::sparsity(sparsity)?.keep(row_len)?;
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let scale = (keep as f32).sqrt().recip();
        let per_group = rows / problem.groups;
        let mut row_ptr = Vec::with_capacity(rows + 1);
        let mut columns = Vec::with_capacity(rows * keep);
        let mut values = Vec::with_capacity(rows * keep);
        let mut shared: Vec<u32> = Vec::new();
        row_ptr.push(0);
        for row in 0..rows {
            // Blocks end with their group: what the columns mean changes there.
            if (row % per_group).is_multiple_of(self.rows()) {
                let chosen = index::sample(&mut rng, row_len, keep);
                shared = chosen.into_iter().map(|column| column as u32).collect();
                shared.sort_unstable();
            }
            columns.extend_from_slice(&shared);
            values.extend((0..keep).map(|_| {
                let magnitude = rng.random_range(0.75f32..1.5) * scale;
                if rng.random() { magnitude } else { -magnitude }
            }));
            row_ptr.push(values.len() as u32);
        }
        Csr::new([rows, row_len], row_ptr, columns, values)
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Unstructured => "unstructured",
            Self::Blocks2 => "blocks2",
            Self::Blocks4 => "blocks4",
            Self::Blocks8 => "blocks8",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_equally_long_and_blocks_share_columns() {
        let problem = ConvProblem::new(1, [6, 14], [9, 9], [3, 3]).with_groups(2);
        for pattern in Pattern::value_variants() {
            for sparsity in [0.0, 0.5, 0.99] {
                let csr = pattern.weight(&problem, sparsity, 3).unwrap();
                let keep = [27, 14, 1][(sparsity * 2.0).round() as usize];
                assert_eq!((csr.nnz_per_row(), csr.nnz()), (Some(keep), 14 * keep));
                let columns = |row| csr.row(row).map(|(c, _)| c).collect::<Vec<_>>();
                for row in (0..14).filter(|row| row % 7 % pattern.rows() != 0) {
                    assert_eq!(columns(row), columns(row - 1), "{pattern} {row}");
                }
                assert_eq!(csr, pattern.weight(&problem, sparsity, 3).unwrap());
                assert_ne!(csr, pattern.weight(&problem, sparsity, 4).unwrap());
            }
        }
        assert!(Pattern::Blocks2.weight(&problem, 1.0, 0).is_err());
    }

    #[test]
    fn the_command_line_the_report_and_the_table_use_one_name() {
        for pattern in Pattern::value_variants() {
            let name = pattern.to_string();
            let value = pattern.to_possible_value().unwrap();
            assert_eq!(value.get_name(), name);
            assert_eq!(serde_json::to_value(pattern).unwrap(), name);
        }
    }
}
