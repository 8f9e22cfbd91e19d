//! Random weights whose zeros follow a pattern.

use std::fmt;
use std::str::FromStr;

use burn_admm::projection::{ProjectionError, projection_of};
use burn_sparse::format::Csr;
use burn_sparse::{Budget, ConvProblem, PatternPool, Pool, SparseError, Sparsity, WeightShape};
use rand::seq::{SliceRandom, index};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

/// Which weights are not zero.
///
/// ```
/// use examples::bench::Pattern;
///
/// let pattern: Pattern = "bcr8x64".parse()?;
/// assert_eq!(pattern, Pattern::Bcr([8, 64]));
/// assert_eq!(pattern.to_string(), "bcr8x64");
/// assert!("stars".parse::<Pattern>().is_err());
/// # Ok::<(), String>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Pattern {
    /// Any, equally many in every output channel.
    #[default]
    Unstructured,
    /// The same positions in so many consecutive output channels.
    Blocks(usize),
    /// Rows and columns of blocks of so many output channels and weights.
    Bcr([usize; 2]),
    /// The same kernel positions in blocks of so many output and input channels.
    Punched([usize; 2]),
    /// Four positions of each 3×3 kernel by one of so many patterns, and whole kernels; only whole
    /// kernels of other sizes.
    Kernels(usize),
    /// Whole output channels.
    Filters,
    /// The same weights of all output channels.
    Columns,
}

/// Most channels or weights on a side of a block.
const MOST: usize = 1 << 16;

/// What [`Pattern`] reads, for messages.
const NAMES: &str = "unstructured, blocks4 (any number of channels), bcr8x64, punched8x4 (any sides), \
                     kernels8 (1 to 16 patterns), filters, columns";

impl FromStr for Pattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let unknown = || {
            let text: String = text.chars().take(40).collect();
            format!("`{text}` is no pattern; there are {NAMES}")
        };
        let number = |text: &str| {
            let digits = text.bytes().all(|byte| byte.is_ascii_digit());
            text.parse()
                .ok()
                .filter(|n| digits && (1..=MOST).contains(n))
        };
        let sides = |text: &str| {
            let (rows, columns) = text.split_once('x')?;
            Some([number(rows)?, number(columns)?])
        };
        let found = if let Some(rest) = text.strip_prefix("blocks") {
            number(rest).map(Self::Blocks)
        } else if let Some(rest) = text.strip_prefix("bcr") {
            sides(rest).map(Self::Bcr)
        } else if let Some(rest) = text.strip_prefix("punched") {
            sides(rest).map(Self::Punched)
        } else if let Some(rest) = text.strip_prefix("kernels") {
            number(rest).filter(|&n| n <= 16).map(Self::Kernels)
        } else {
            match text {
                "unstructured" => Some(Self::Unstructured),
                "filters" => Some(Self::Filters),
                "columns" => Some(Self::Columns),
                _ => None,
            }
        };
        found.ok_or_else(unknown)
    }
}

impl TryFrom<String> for Pattern {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Pattern> for String {
    fn from(pattern: Pattern) -> Self {
        pattern.to_string()
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&match self {
            Self::Unstructured => "unstructured".to_owned(),
            Self::Blocks(rows) => format!("blocks{rows}"),
            Self::Bcr([rows, columns]) => format!("bcr{rows}x{columns}"),
            Self::Punched([filters, channels]) => format!("punched{filters}x{channels}"),
            Self::Kernels(patterns) => format!("kernels{patterns}"),
            Self::Filters => "filters".to_owned(),
            Self::Columns => "columns".to_owned(),
        })
    }
}

impl Pattern {
    /// A random weight of this pattern, the magnitudes of its non-zeros within a factor of two of each
    /// other and such that outputs have about the magnitude of inputs.
    ///
    /// Unstructured and in blocks, `round((1 - sparsity) * row length)` are not zero in every output
    /// channel, at least one. The others are what the projection of training leaves of random
    /// weights; blocks larger than the weight are cut to it.
    ///
    /// # Errors
    /// [`SparseError`] for a sparsity outside `[0, 1)`, or one that would empty the layer.
    ///
    /// ```
    /// use burn_sparse::ConvProblem;
    /// use examples::bench::Pattern;
    ///
    /// let problem = ConvProblem::new(1, [64, 8], [9, 9], [3, 3]);
    /// let csr = Pattern::Blocks(4).weight(&problem, 0.9, 1)?;
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
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let shape = WeightShape::new(
            problem.out_channels,
            problem.row_len() / (problem.kernel[0] * problem.kernel[1]).max(1),
            problem.kernel,
        );
        let (row_ptr, columns) = match self.sparsity(shape, sparsity, &mut rng)? {
            None => self.neighbours(problem, sparsity, &mut rng)?,
            Some(sparsity) => projected(sparsity, shape, &mut rng)?,
        };
        let scale = (columns.len() as f32 / shape.rows.max(1) as f32)
            .sqrt()
            .recip();
        let values = (0..columns.len()).map(|_| {
            let magnitude = rng.random_range(0.75f32..1.5) * scale;
            if rng.random() { magnitude } else { -magnitude }
        });
        let values = values.collect();
        Csr::new([shape.rows, shape.row_len()], row_ptr, columns, values)
    }

    /// What training would ask for, if the pattern is one for which positions are not drawn here.
    fn sparsity(
        self,
        shape: WeightShape,
        sparsity: f64,
        rng: &mut ChaCha8Rng,
    ) -> Result<Option<Sparsity>, SparseError> {
        let fit = |[height, width]: [usize; 2], across: usize| {
            [height.min(shape.rows.max(1)), width.min(across.max(1))]
        };
        Ok(Some(match self {
            Self::Unstructured | Self::Blocks(_) => return Ok(None),
            Self::Bcr(block) => Sparsity::block_column_row(sparsity, fit(block, shape.row_len()))?,
            Self::Punched(block) => Sparsity::punched(sparsity, fit(block, shape.channels))?,
            Self::Kernels(patterns) if shape.kernel == [3, 3] => {
                let mut natural = PatternPool::natural();
                natural.shuffle(rng);
                let pool = Pool::Given(PatternPool::from_masks(&natural[..patterns])?);
                let budget = Budget::Sparsity(0.0);
                Sparsity::KernelPattern { pool, budget }.at(sparsity)
            }
            Self::Kernels(_) => Sparsity::connectivity(sparsity)?,
            Self::Filters => Sparsity::filter(sparsity)?,
            Self::Columns => Sparsity::column(sparsity)?,
        }))
    }

    /// Random positions, the same in neighbouring rows.
    fn neighbours(
        self,
        problem: &ConvProblem,
        sparsity: f64,
        rng: &mut ChaCha8Rng,
    ) -> Result<Positions, SparseError> {
        let (rows, row_len) = (problem.out_channels, problem.row_len());
        let keep = Budget::sparsity(sparsity)?.keep(row_len)?;
        let shared = match self {
            Self::Blocks(rows) => rows,
            _ => 1,
        };
        let per_group = rows / problem.groups;
        let (mut row_ptr, mut columns) = (vec![0], Vec::with_capacity(rows * keep));
        let mut chosen: Vec<u32> = Vec::new();
        for row in 0..rows {
            // Blocks end with their group: what the columns mean changes there.
            if (row % per_group).is_multiple_of(shared) {
                let sample = index::sample(rng, row_len, keep);
                chosen = sample.into_iter().map(|column| column as u32).collect();
                chosen.sort_unstable();
            }
            columns.extend_from_slice(&chosen);
            row_ptr.push(columns.len() as u32);
        }
        Ok((row_ptr, columns))
    }
}

/// Row pointers and columns.
type Positions = (Vec<u32>, Vec<u32>);

/// What a projection leaves of random weights.
fn projected(
    sparsity: Sparsity,
    shape: WeightShape,
    rng: &mut ChaCha8Rng,
) -> Result<Positions, SparseError> {
    let random: Vec<f32> = (0..shape.len())
        .map(|_| rng.random_range(-1.0..1.0))
        .collect();
    let kept = projection_of(sparsity)
        .and_then(|projection| projection.project(&random, shape))
        .map_err(|error| match error {
            ProjectionError::Budget(error) => error,
            other => SparseError::shape(other),
        })?;
    let (mut row_ptr, mut columns) = (vec![0], Vec::with_capacity(kept.nnz()));
    for row in kept.mask.chunks(shape.row_len().max(1)).take(shape.rows) {
        let of_row = row.iter().zip(0u32..).filter(|(keep, _)| **keep);
        columns.extend(of_row.map(|(_, column)| column));
        row_ptr.push(columns.len() as u32);
    }
    Ok((row_ptr, columns))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Pattern; 9] = [
        Pattern::Unstructured,
        Pattern::Blocks(2),
        Pattern::Blocks(4),
        Pattern::Blocks(8),
        Pattern::Bcr([8, 64]),
        Pattern::Punched([4, 2]),
        Pattern::Kernels(8),
        Pattern::Filters,
        Pattern::Columns,
    ];

    #[test]
    fn rows_are_equally_long_and_blocks_share_columns() {
        let problem = ConvProblem::new(1, [6, 14], [9, 9], [3, 3]).with_groups(2);
        for pattern in &ALL[..4] {
            for sparsity in [0.0, 0.5, 0.99] {
                let csr = pattern.weight(&problem, sparsity, 3).unwrap();
                let keep = [27, 14, 1][(sparsity * 2.0).round() as usize];
                assert_eq!((csr.nnz_per_row(), csr.nnz()), (Some(keep), 14 * keep));
                let columns = |row| csr.row(row).map(|(c, _)| c).collect::<Vec<_>>();
                let Pattern::Blocks(shared) = pattern else {
                    continue;
                };
                for row in (0..14).filter(|row| row % 7 % shared != 0) {
                    assert_eq!(columns(row), columns(row - 1), "{pattern} {row}");
                }
            }
        }
        assert!(Pattern::Blocks(2).weight(&problem, 1.0, 0).is_err());
    }

    #[test]
    fn every_pattern_has_about_the_zeros_asked_for_and_repeats_with_its_seed() {
        for kernel in [[3, 3], [1, 1]] {
            let problem = ConvProblem::new(1, [64, 32], [9, 9], kernel);
            for pattern in ALL {
                let csr = pattern.weight(&problem, 0.75, 3).unwrap();
                let density = csr.nnz() as f64 / (32 * problem.row_len()) as f64;
                assert!((density - 0.25).abs() < 0.03, "{pattern}: {density}");
                assert_eq!(csr, pattern.weight(&problem, 0.75, 3).unwrap());
                assert_ne!(csr, pattern.weight(&problem, 0.75, 4).unwrap());
            }
        }
        let small = ConvProblem::new(1, [2, 2], [9, 9], [1, 1]);
        assert!(Pattern::Bcr([8, 64]).weight(&small, 0.5, 1).is_ok());
        assert!(Pattern::Filters.weight(&small, 0.9, 1).is_err());
    }

    #[test]
    fn the_command_line_the_report_and_the_table_use_one_name() {
        for pattern in ALL {
            let name = pattern.to_string();
            assert_eq!(name.parse::<Pattern>().unwrap(), pattern);
            assert_eq!(serde_json::to_value(pattern).unwrap(), name);
            assert_eq!(
                serde_json::from_value::<Pattern>(name.into()).unwrap(),
                pattern
            );
        }
        for bad in [
            "",
            "blocks",
            "blocks0",
            "blocks+4",
            "bcr8",
            "bcr8x",
            "bcr8x0",
            "kernels17",
        ] {
            assert!(bad.parse::<Pattern>().is_err(), "{bad}");
        }
        assert!(serde_json::from_str::<Pattern>("\"stars\"").is_err());
    }
}
