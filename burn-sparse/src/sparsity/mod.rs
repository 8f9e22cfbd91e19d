//! The one vocabulary for "which weights may be non-zero".
//!
//! Projections (training), formats (storage) and reports all speak it, so that what was trained
//! is what is packed and what is printed.

mod budget;
mod json;
mod kernel_pattern;
mod shape;

use serde::{Deserialize, Serialize};

pub use budget::Budget;
pub use kernel_pattern::{PatternPool, Pool};
pub use shape::WeightShape;

use crate::SparseError;
use json::RawSparsity;

/// How the rows and columns of a block are chosen by
/// [`Sparsity::BlockColumnRow`]. The nearest choice is hard to find (it is a maximum-weight
/// biclique), so both are heuristics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BlockSearch {
    /// Columns by their norm, then rows by what is left of theirs: as published (RTMobile).
    Sequential,
    /// Columns and rows in turns until neither changes, from both starts, whichever keeps more.
    #[default]
    Alternating,
}

/// Which weights of a layer may be non-zero.
///
/// A layer is seen as a matrix of `rows` output channels by `channels` input channels times the
/// kernel's positions (see [`WeightShape`]). Blocks that stand over an edge are cut off there.
///
/// # Example
/// ```
/// use burn_sparse::{Sparsity, WeightShape};
///
/// let shape = WeightShape::new(64, 64, [3, 3]);
/// let sparsity = Sparsity::row_balanced(0.9)?;
/// assert_eq!(sparsity.nnz(shape)?, 64 * 58); // 58 of 576 in every output channel
/// let sparsity = Sparsity::filter(0.75)?;
/// assert_eq!(sparsity.nnz(shape)?, 16 * 576); // 16 whole output channels
/// # Ok::<(), burn_sparse::SparseError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "RawSparsity", into = "RawSparsity")]
#[non_exhaustive]
pub enum Sparsity {
    /// Any entry, a budget for the whole weight (ADMM-NN, section 3).
    Unstructured(Budget),
    /// Any entry, the same budget in every output channel (Pietroń and Żurek, section 3): every
    /// row of the packed weight has the same length, so no thread waits for a longer one.
    RowBalanced(Budget),
    /// Each `rows` consecutive output channels keep the same entries, so that a kernel loads an
    /// input once for all of them; the budget holds in every output channel.
    SharedPattern {
        /// Output channels that share a pattern.
        rows: usize,
        /// For every output channel.
        budget: Budget,
    },
    /// Whole rows and whole columns of each block independently: what stays of a block is a smaller
    /// dense one (Niu et al., "GRIM", TPAMI 2021; for linear layers also Gong et al., 2022).
    BlockColumnRow {
        /// Rows and columns of a block.
        block: [usize; 2],
        /// Rows kept of a block, by fraction of rows that go or by their count.
        rows: Budget,
        /// For every block: as many columns are kept as come nearest to it with those rows.
        budget: Budget,
        /// How they are chosen.
        search: BlockSearch,
    },
    /// The same kernel positions in all `filters × channels` kernels of a block; the budget counts
    /// positions of blocks over the layer (Gong et al., 2022; YOLObile).
    Punched {
        /// Output channels of a block.
        filters: usize,
        /// Input channels of a block.
        channels: usize,
        /// For all blocks' positions together.
        budget: Budget,
    },
    /// Each 3×3 kernel follows a pattern of a pool, and the budget counts kernels that stay (Niu et
    /// al., "PatDNN", ASPLOS 2020). In training these are two constraints, each with its own dual.
    KernelPattern {
        /// The patterns.
        pool: Pool,
        /// For kernels.
        budget: Budget,
    },
    /// Whole kernels, whatever their size (connectivity); the budget counts kernels.
    Connectivity(Budget),
    /// Whole output channels; the budget counts them (StructADMM).
    Filter(Budget),
    /// Whole input channels; the budget counts them (StructADMM).
    Channel(Budget),
    /// The same entries of all output channels; the budget counts columns (StructADMM).
    Column(Budget),
    /// At most `n` of each `m` consecutive input channels, at each position of the kernel and in
    /// each output channel. Channels that are left over count as a group of their own.
    NofM {
        /// Entries kept.
        n: usize,
        /// Entries of a group.
        m: usize,
    },
}

impl Sparsity {
    /// Unstructured, by fraction of zeros.
    ///
    /// # Errors
    /// [`SparseError::SparsityOutOfRange`] outside `[0, 1)`.
    pub fn unstructured(sparsity: f64) -> Result<Self, SparseError> {
        Budget::sparsity(sparsity).map(Self::Unstructured)
    }

    /// The same number of non-zeros in every output channel, by fraction of zeros.
    ///
    /// # Errors
    /// [`SparseError::SparsityOutOfRange`] outside `[0, 1)`.
    pub fn row_balanced(sparsity: f64) -> Result<Self, SparseError> {
        Budget::sparsity(sparsity).map(Self::RowBalanced)
    }

    /// Patterns shared by `rows` output channels each, by fraction of zeros.
    ///
    /// # Errors
    /// [`SparseError::SparsityOutOfRange`] outside `[0, 1)`, [`SparseError::Block`] for no rows.
    pub fn shared_pattern(sparsity: f64, rows: usize) -> Result<Self, SparseError> {
        let budget = Budget::sparsity(sparsity)?;
        Self::SharedPattern { rows, budget }.checked()
    }

    /// Columns and rows of blocks, by fraction of zeros. A block keeps half of its rows if at least
    /// four are left then, which is how many share a load in the fastest kernels; all of them if not.
    ///
    /// # Errors
    /// [`SparseError::SparsityOutOfRange`] outside `[0, 1)`, [`SparseError::Block`] for an empty
    /// block.
    pub fn block_column_row(sparsity: f64, block: [usize; 2]) -> Result<Self, SparseError> {
        let halved = block[0] >= 8 && sparsity >= 0.5;
        Self::BlockColumnRow {
            block,
            rows: Budget::Sparsity(if halved { 0.5 } else { 0.0 }),
            budget: Budget::sparsity(sparsity)?,
            search: BlockSearch::default(),
        }
        .checked()
    }

    /// Kernel positions of blocks of `filters × channels` kernels, by fraction of zeros.
    ///
    /// # Errors
    /// [`SparseError::SparsityOutOfRange`] outside `[0, 1)`, [`SparseError::Block`] for an empty
    /// block.
    pub fn punched(sparsity: f64, [filters, channels]: [usize; 2]) -> Result<Self, SparseError> {
        Self::Punched {
            filters,
            channels,
            budget: Budget::sparsity(sparsity)?,
        }
        .checked()
    }

    /// Four positions of each 3×3 kernel, by one of `patterns` patterns found in the network, and as
    /// many whole kernels less as it takes to reach this fraction of zeros (none below 5/9).
    ///
    /// # Errors
    /// [`SparseError::SparsityOutOfRange`] outside `[0, 1)`, [`SparseError::PatternPool`] for no
    /// pattern or more than sixteen.
    pub fn kernel_pattern(sparsity: f64, patterns: usize) -> Result<Self, SparseError> {
        let budget = Budget::sparsity(sparsity)?;
        let pool = Pool::Found(patterns);
        Ok(Self::KernelPattern { pool, budget }.checked()?.at(sparsity))
    }

    /// Whole kernels, by fraction of zeros.
    ///
    /// # Errors
    /// [`SparseError::SparsityOutOfRange`] outside `[0, 1)`.
    pub fn connectivity(sparsity: f64) -> Result<Self, SparseError> {
        Budget::sparsity(sparsity).map(Self::Connectivity)
    }

    /// Whole output channels, by fraction of zeros.
    ///
    /// # Errors
    /// [`SparseError::SparsityOutOfRange`] outside `[0, 1)`.
    pub fn filter(sparsity: f64) -> Result<Self, SparseError> {
        Budget::sparsity(sparsity).map(Self::Filter)
    }

    /// Whole input channels, by fraction of zeros.
    ///
    /// # Errors
    /// [`SparseError::SparsityOutOfRange`] outside `[0, 1)`.
    pub fn channel(sparsity: f64) -> Result<Self, SparseError> {
        Budget::sparsity(sparsity).map(Self::Channel)
    }

    /// Whole columns, by fraction of zeros.
    ///
    /// # Errors
    /// [`SparseError::SparsityOutOfRange`] outside `[0, 1)`.
    pub fn column(sparsity: f64) -> Result<Self, SparseError> {
        Budget::sparsity(sparsity).map(Self::Column)
    }

    /// At most `n` of each `m` input channels.
    ///
    /// # Errors
    /// [`SparseError::Scheme`] unless `1 ≤ n ≤ m`.
    pub fn n_of_m(n: usize, m: usize) -> Result<Self, SparseError> {
        Self::NofM { n, m }.checked()
    }

    /// Short name of the pattern, without its numbers.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Unstructured(_) => "unstructured",
            Self::RowBalanced(_) => "row-balanced",
            Self::SharedPattern { .. } => "shared-pattern",
            Self::BlockColumnRow { .. } => "block column-row",
            Self::Punched { .. } => "punched",
            Self::KernelPattern { .. } => "kernel-pattern",
            Self::Connectivity(_) => "connectivity",
            Self::Filter(_) => "filter",
            Self::Channel(_) => "channel",
            Self::Column(_) => "column",
            Self::NofM { .. } => "n-of-m",
        }
    }

    /// The same pattern for another overall fraction of zeros, clamped to what the pattern can
    /// reach; `NofM` has only the one it names.
    #[must_use]
    pub fn at(self, sparsity: f64) -> Self {
        let budget = Budget::Sparsity(sparsity);
        match self {
            Self::Unstructured(_) => Self::Unstructured(budget),
            Self::RowBalanced(_) => Self::RowBalanced(budget),
            Self::SharedPattern { rows, .. } => Self::SharedPattern { rows, budget },
            Self::BlockColumnRow {
                block,
                rows,
                search,
                ..
            } => Self::BlockColumnRow {
                block,
                rows: match rows {
                    // Fewer zeros than those of the rows alone: some rows come back.
                    Budget::Sparsity(rows) => Budget::Sparsity(rows.min(sparsity)),
                    Budget::Nnz(_) => rows,
                },
                budget,
                search,
            },
            Self::Punched {
                filters, channels, ..
            } => Self::Punched {
                filters,
                channels,
                budget,
            },
            Self::KernelPattern { pool, .. } => {
                let of_kept = pool.entries() as f64 / PatternPool::POSITIONS as f64;
                let kernels = (1.0 - (1.0 - sparsity) / of_kept).max(0.0);
                let budget = Budget::Sparsity(kernels);
                Self::KernelPattern { pool, budget }
            }
            Self::Connectivity(_) => Self::Connectivity(budget),
            Self::Filter(_) => Self::Filter(budget),
            Self::Channel(_) => Self::Channel(budget),
            Self::Column(_) => Self::Column(budget),
            Self::NofM { n, m } => Self::NofM { n, m },
        }
    }

    /// Rows and columns kept of a block of `rows × columns` by
    /// [`BlockColumnRow`](Self::BlockColumnRow), never fewer than one of either.
    ///
    /// # Errors
    /// As [`Budget::keep`].
    pub fn kept_of_block(
        rows: Budget,
        budget: Budget,
        [block_rows, block_columns]: [usize; 2],
    ) -> Result<[usize; 2], SparseError> {
        let area = budget.keep(block_rows * block_columns)?;
        let rows = rows.keep(block_rows)?.max(usize::from(block_rows > 0));
        let columns = (area as f64 / rows.max(1) as f64).round() as usize;
        let least = usize::from(block_columns > 0);
        Ok([rows, columns.clamp(least, block_columns.max(least))])
    }

    /// Non-zeros that this pattern allows in a weight of that shape. Where groups at the edges are
    /// smaller than others it is the most that may be kept.
    ///
    /// # Errors
    /// [`SparseError::Block`] for a block larger than the weight, [`SparseError::EmptiesLayer`] for a
    /// rate at which nothing would stay, [`SparseError::Scheme`] for a pattern that the weight cannot
    /// have, otherwise as [`Budget::keep`].
    pub fn nnz(&self, shape: WeightShape) -> Result<usize, SparseError> {
        self.checked()?;
        let WeightShape { rows, channels, .. } = shape;
        let (row_len, positions) = (shape.row_len(), shape.positions());
        if shape.is_empty() {
            return Ok(0);
        }
        match *self {
            Self::Unstructured(budget) => budget.keep(shape.len()),
            Self::RowBalanced(budget) => Ok(rows * budget.keep(row_len)?),
            Self::SharedPattern {
                rows: shared,
                budget,
            } => {
                fits([shared, 1], [rows, row_len])?;
                Ok(rows * budget.keep(row_len)?)
            }
            Self::BlockColumnRow {
                block,
                rows: kept,
                budget,
                ..
            } => {
                fits(block, [rows, row_len])?;
                let mut nnz = 0;
                for (height, times) in pieces(rows, block[0]) {
                    for (width, more) in pieces(row_len, block[1]) {
                        let [r, c] = Self::kept_of_block(kept, budget, [height, width])?;
                        nnz += r * c * times * more;
                    }
                }
                Ok(nnz)
            }
            Self::Punched {
                filters,
                channels: wide,
                budget,
            } => {
                fits([filters, wide], [rows, channels])?;
                let mut sizes = Vec::new();
                for (height, times) in pieces(rows, filters) {
                    for (width, more) in pieces(channels, wide) {
                        sizes.push((height * width, times * more * positions));
                    }
                }
                let groups = sizes.iter().map(|(_, count)| count).sum();
                let mut left = budget.keep_groups(groups, "punched positions")?;
                sizes.sort_by_key(|&(size, _)| core::cmp::Reverse(size));
                Ok(sizes
                    .into_iter()
                    .map(|(size, count)| {
                        let taken = count.min(left);
                        left -= taken;
                        size * taken
                    })
                    .sum())
            }
            Self::KernelPattern { pool, budget } => {
                if shape.kernel != [3, 3] {
                    return Err(SparseError::Scheme {
                        scheme: self.name(),
                        reason: format!(
                            "patterns are for 3×3 kernels, and these are {}×{}; use connectivity",
                            shape.kernel[0], shape.kernel[1]
                        ),
                    });
                }
                Ok(budget.keep_groups(rows * channels, "kernels")? * pool.entries())
            }
            Self::Connectivity(budget) => {
                Ok(budget.keep_groups(rows * channels, "kernels")? * positions)
            }
            Self::Filter(budget) => Ok(budget.keep_groups(rows, "output channels")? * row_len),
            Self::Channel(budget) => {
                Ok(budget.keep_groups(channels, "input channels")? * rows * positions)
            }
            Self::Column(budget) => Ok(budget.keep_groups(row_len, "columns")? * rows),
            Self::NofM { n, m } => {
                Ok((channels / m * n + (channels % m).min(n)) * positions * rows)
            }
        }
    }

    /// The same pattern with one group kept: of kernels, positions, filters, channels or columns. What
    /// has no groups stays as it is, for its budgets never leave nothing.
    ///
    /// ```
    /// use burn_sparse::{Sparsity, WeightShape};
    ///
    /// let shape = WeightShape::matrix(4, 9);
    /// let filters = Sparsity::filter(0.9)?;
    /// assert!(filters.nnz(shape).is_err());
    /// assert_eq!(filters.keeping_one_group().nnz(shape)?, 9);
    /// # Ok::<(), burn_sparse::SparseError>(())
    /// ```
    #[must_use]
    pub fn keeping_one_group(mut self) -> Self {
        match &mut self {
            Self::Punched { budget, .. }
            | Self::KernelPattern { budget, .. }
            | Self::Connectivity(budget)
            | Self::Filter(budget)
            | Self::Channel(budget)
            | Self::Column(budget) => *budget = Budget::Nnz(1),
            Self::Unstructured(_)
            | Self::RowBalanced(_)
            | Self::SharedPattern { .. }
            | Self::BlockColumnRow { .. }
            | Self::NofM { .. } => {}
        }
        self
    }

    /// Density `nnz / len` that results for a weight of that shape; 0 if it is empty.
    ///
    /// # Errors
    /// As [`nnz`](Self::nnz).
    pub fn density(&self, shape: WeightShape) -> Result<f64, SparseError> {
        if shape.is_empty() {
            return Ok(0.0);
        }
        Ok(self.nnz(shape)? as f64 / shape.len() as f64)
    }

    fn checked(self) -> Result<Self, SparseError> {
        match self {
            Self::SharedPattern { rows, .. } => not_empty([rows, 1])?,
            Self::BlockColumnRow { block, .. } => not_empty(block)?,
            Self::Punched {
                filters, channels, ..
            } => not_empty([filters, channels])?,
            Self::KernelPattern { pool, .. } => pool.check()?,
            Self::NofM { n, m } if n == 0 || n > m => {
                return Err(SparseError::Scheme {
                    scheme: self.name(),
                    reason: format!("{n} of {m} cannot be kept; n must lie in 1 to m"),
                });
            }
            _ => {}
        }
        Ok(self)
    }
}

fn not_empty(block: [usize; 2]) -> Result<(), SparseError> {
    if block.contains(&0) {
        return Err(SparseError::Block {
            block,
            weight: None,
        });
    }
    Ok(())
}

/// Whether a block is no larger than the weight.
fn fits(block: [usize; 2], weight: [usize; 2]) -> Result<(), SparseError> {
    if block[0] > weight[0] || block[1] > weight[1] {
        return Err(SparseError::Block {
            block,
            weight: Some(weight),
        });
    }
    Ok(())
}

/// The lengths into which blocks of `block` cut `len`, and how often each occurs.
fn pieces(len: usize, block: usize) -> impl Iterator<Item = (usize, usize)> {
    [(block, len / block), (len % block, 1)]
        .into_iter()
        .filter(|&(length, times)| length > 0 && times > 0)
}

impl core::fmt::Display for Sparsity {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let name = self.name();
        match *self {
            Self::Unstructured(Budget::Nnz(nnz)) | Self::RowBalanced(Budget::Nnz(nnz)) => {
                write!(f, "{name} {nnz} non-zeros")
            }
            Self::Unstructured(budget)
            | Self::RowBalanced(budget)
            | Self::Connectivity(budget)
            | Self::Filter(budget)
            | Self::Channel(budget)
            | Self::Column(budget) => write!(f, "{name} {budget}"),
            Self::SharedPattern { rows, budget } => write!(f, "{name} of {rows} {budget}"),
            Self::BlockColumnRow {
                block: [height, width],
                budget,
                ..
            } => write!(f, "{name} {height}×{width} {budget}"),
            Self::Punched {
                filters,
                channels,
                budget,
            } => write!(f, "{name} {filters}×{channels} {budget}"),
            Self::KernelPattern { pool, budget } => {
                let patterns = match pool {
                    Pool::Found(patterns) => patterns,
                    Pool::Given(pool) => pool.len(),
                };
                write!(f, "{name} {patterns} patterns, kernels {budget}")
            }
            Self::NofM { n, m } => write!(f, "{n} of {m}"),
        }
    }
}

#[cfg(test)]
mod tests;
