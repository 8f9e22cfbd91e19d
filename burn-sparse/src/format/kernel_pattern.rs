//! 3×3 kernels that follow the patterns of a pool.

use core::ops::Range;

use serde::{Deserialize, Serialize};

use super::{Csr, csr::check_finite};
use crate::{PatternPool, SparseError, WeightShape};

/// A weight of 3×3 kernels of which each that stays follows a pattern: filter-kernel-reordered weights
/// (Niu et al., "PatDNN", ASPLOS 2020, section 5).
///
/// Filters are ordered by how many kernels they keep, and the kernels of a filter by their pattern, so
/// that all kernels of a pattern are one run without branches:
///
/// | part | for each | says |
/// |---|---|---|
/// | `reorder` | stored filter | which filter it is |
/// | `runs` | stored filter and pattern | how many kernels follow that pattern |
/// | `channels` | kernel | which input channel it is for |
/// | `values` | kernel and entry | the weights, positions ascending |
///
/// # Invariants
/// Checked by every constructor and by deserialising: `reorder` is a permutation of the filters;
/// `runs` has an entry for each filter and pattern, and their sum is the number of kernels; channels
/// ascend strictly within a run, lie below the number of channels and occur once in a filter; values
/// are finite, and there are [`entries`](PatternPool::entries) for each kernel.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "RawPatternKernels")]
pub struct PatternKernels {
    filters: usize,
    in_channels: usize,
    pool: PatternPool,
    reorder: Vec<u32>,
    runs: Vec<u32>,
    channels: Vec<u32>,
    values: Vec<f32>,
}

/// The parts of a [`PatternKernels`], not checked yet.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct RawPatternKernels {
    /// Output channels.
    pub filters: usize,
    /// Input channels that each of them sees.
    pub in_channels: usize,
    /// The patterns.
    pub pool: PatternPool,
    /// The filter that each stored one is.
    pub reorder: Vec<u32>,
    /// Kernels of each stored filter that follow each pattern.
    pub runs: Vec<u32>,
    /// The input channel of each kernel.
    pub channels: Vec<u32>,
    /// The weights of each kernel at the positions of its pattern, ascending.
    pub values: Vec<f32>,
}

/// Kernels of a filter that follow one pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Run {
    filter: usize,
    pattern: u16,
    kernels: Range<usize>,
}

fn invalid(reason: impl core::fmt::Display) -> SparseError {
    SparseError::Format {
        format: "pattern kernels",
        reason: reason.to_string(),
    }
}

impl TryFrom<RawPatternKernels> for PatternKernels {
    type Error = SparseError;

    fn try_from(raw: RawPatternKernels) -> Result<Self, SparseError> {
        Self::new(raw)
    }
}

impl PatternKernels {
    /// Checks the invariants and takes the buffers.
    ///
    /// # Errors
    /// [`SparseError::Format`] naming the broken invariant, [`SparseError::NonFinite`] for a NaN or an
    /// infinity.
    pub fn new(raw: RawPatternKernels) -> Result<Self, SparseError> {
        let RawPatternKernels {
            filters,
            in_channels,
            pool,
            reorder,
            runs,
            channels,
            values,
        } = raw;
        let mut sorted = reorder.clone();
        sorted.sort_unstable();
        if reorder.len() != filters || sorted.iter().zip(0..).any(|(&row, index)| row != index) {
            return Err(invalid(format!(
                "the order is no permutation of {filters} filters"
            )));
        }
        let kernels = runs.iter().map(|&run| run as usize).sum::<usize>();
        if filters.checked_mul(pool.len()) != Some(runs.len()) || kernels != channels.len() {
            return Err(invalid(format!(
                "{} runs of {kernels} kernels for {filters} filters, {} patterns and {} channels",
                runs.len(),
                pool.len(),
                channels.len()
            )));
        }
        if channels.len().checked_mul(pool.entries()) != Some(values.len())
            || values.len() > i32::MAX as usize
            || in_channels > i32::MAX as usize / PatternPool::POSITIONS
        {
            return Err(invalid(format!(
                "{} values for {} kernels of {}",
                values.len(),
                channels.len(),
                pool.entries()
            )));
        }
        check_finite(&values, "pattern kernels")?;
        let kernels = Self {
            filters,
            in_channels,
            pool,
            reorder,
            runs,
            channels,
            values,
        };
        let mut last: Option<(usize, Vec<u32>)> = None;
        for Run {
            filter,
            kernels: run,
            ..
        } in kernels.all_runs()
        {
            let channels = &kernels.channels[run];
            let seen = match &mut last {
                Some((same, seen)) if *same == filter => seen,
                _ => &mut last.insert((filter, Vec::new())).1,
            };
            seen.extend_from_slice(channels);
            let mut once = seen.clone();
            once.sort_unstable();
            if channels.windows(2).any(|pair| pair[0] >= pair[1])
                || once.windows(2).any(|pair| pair[0] == pair[1])
                || once
                    .last()
                    .is_some_and(|&last| last as usize >= in_channels)
            {
                return Err(invalid(format!(
                    "channels of filter {filter} do not ascend below {in_channels}, each once"
                )));
            }
        }
        Ok(kernels)
    }

    /// The kernels of a matrix that follow `pool`, or of `None`, the patterns that occur in it. A kernel
    /// with fewer entries than its pattern, because training left one at zero, is filled up.
    ///
    /// # Errors
    /// [`SparseError::Shape`] for a matrix that is not of this shape, [`SparseError::Scheme`] for other
    /// kernels than 3×3, for a kernel that follows no pattern, and for more than sixteen patterns.
    ///
    /// # Example
    /// ```
    /// use burn_sparse::{WeightShape, format::{Csr, PatternKernels}};
    ///
    /// // One filter, two channels: a cross without its right arm, and nothing.
    /// let mut dense = [0.0; 18];
    /// for position in [1, 3, 4, 7] {
    ///     dense[position] = 2.0;
    /// }
    /// let csr = Csr::from_dense(&dense, [1, 18])?;
    /// let kernels = PatternKernels::from_csr(&csr, WeightShape::new(1, 2, [3, 3]), None)?;
    /// assert_eq!((kernels.kernels(), kernels.pool().masks()), (1, &[0b0_1001_1010][..]));
    /// assert_eq!(kernels.to_csr(), csr);
    /// # Ok::<(), burn_sparse::SparseError>(())
    /// ```
    pub fn from_csr(
        csr: &Csr,
        shape: WeightShape,
        pool: Option<PatternPool>,
    ) -> Result<Self, SparseError> {
        const POSITIONS: usize = PatternPool::POSITIONS;
        let scheme = |reason: String| SparseError::Scheme {
            scheme: "kernel-pattern",
            reason,
        };
        if shape.kernel != [3, 3] {
            return Err(scheme(format!("a weight of {shape} has no 3×3 kernels")));
        }
        if [csr.rows(), csr.row_len()] != [shape.rows, shape.row_len()] {
            return Err(SparseError::shape(format!(
                "{} rows of {} are no weight of {shape}",
                csr.rows(),
                csr.row_len()
            )));
        }
        let of_filter = |row: usize| {
            let mut kernels: Vec<(u32, u16, [f32; POSITIONS])> = Vec::new();
            for (column, value) in csr.row(row) {
                let (channel, position) = ((column / POSITIONS) as u32, column % POSITIONS);
                let mut kernel = match kernels.pop() {
                    Some(kernel) if kernel.0 == channel => kernel,
                    before => {
                        kernels.extend(before);
                        (channel, 0, [0.0; POSITIONS])
                    }
                };
                kernel.1 |= 1 << position;
                kernel.2[position] = value;
                kernels.push(kernel);
            }
            kernels
        };
        let mut filters: Vec<_> = (0..csr.rows()).map(|row| (row, of_filter(row))).collect();
        let pool = match pool {
            Some(pool) => pool,
            None => occurring(filters.iter().flat_map(|(_, kernels)| kernels).map(|k| k.1))
                .map_err(|error| scheme(error.to_string()))?,
        };
        filters.sort_by_key(|(_, kernels)| core::cmp::Reverse(kernels.len()));
        let mut result = Self {
            filters: shape.rows,
            in_channels: shape.channels,
            pool,
            reorder: Vec::with_capacity(filters.len()),
            runs: Vec::with_capacity(filters.len() * pool.len()),
            channels: Vec::new(),
            values: Vec::new(),
        };
        for (filter, kernels) in filters {
            let mut of_pattern = vec![Vec::new(); pool.len()];
            for kernel in &kernels {
                let fits = |pattern: &u16| kernel.1 & !pattern == 0;
                let pattern = pool.masks().iter().position(fits).ok_or_else(|| {
                    scheme(format!(
                        "the kernel of filter {filter} and channel {} follows no pattern",
                        kernel.0
                    ))
                })?;
                of_pattern[pattern].push(kernel);
            }
            result.reorder.push(filter as u32);
            for (kernels, &pattern) in of_pattern.iter().zip(pool.masks()) {
                result.runs.push(kernels.len() as u32);
                for (channel, _, values) in kernels {
                    result.channels.push(*channel);
                    result
                        .values
                        .extend(positions(pattern).map(|position| values[position]));
                }
            }
        }
        Ok(result)
    }

    fn all_runs(&self) -> impl Iterator<Item = Run> + '_ {
        let mut start = 0;
        self.runs.iter().enumerate().map(move |(index, &len)| {
            let kernels = start..start + len as usize;
            start = kernels.end;
            Run {
                filter: self.reorder[index / self.pool.len()] as usize,
                pattern: self.pool.pattern(index % self.pool.len()),
                kernels,
            }
        })
    }

    /// The same matrix as rows, the zeros of filled kernels included.
    pub fn to_csr(&self) -> Csr {
        let mut rows: Vec<Vec<(u32, f32)>> = vec![Vec::new(); self.filters];
        let entries = self.pool.entries();
        for Run {
            filter,
            pattern,
            kernels,
        } in self.all_runs()
        {
            for kernel in kernels {
                let first = self.channels[kernel] * PatternPool::POSITIONS as u32;
                let values = &self.values[kernel * entries..][..entries];
                let columns = positions(pattern).map(|position| first + position as u32);
                rows[filter].extend(columns.zip(values.iter().copied()));
            }
        }
        // Runs are ordered by pattern, rows by column.
        rows.iter_mut()
            .for_each(|row| row.sort_unstable_by_key(|entry| entry.0));
        super::csr::from_rows(
            [self.filters, self.in_channels * PatternPool::POSITIONS],
            rows,
        )
    }

    /// The number in the pool of each kernel's pattern, the kernels of a filter in the order of their
    /// channels and the filters in their own; nothing of kernels that do not stay.
    pub(crate) fn patterns(&self) -> Vec<Option<usize>> {
        let mut patterns = vec![None; self.filters * self.in_channels];
        for (index, run) in self.all_runs().enumerate() {
            for &channel in &self.channels[run.kernels] {
                patterns[run.filter * self.in_channels + channel as usize] =
                    Some(index % self.pool.len());
            }
        }
        patterns
    }

    /// The patterns.
    pub fn pool(&self) -> &PatternPool {
        &self.pool
    }

    /// Kernels that stay.
    pub fn kernels(&self) -> usize {
        self.channels.len()
    }

    /// Stored entries.
    pub fn stored(&self) -> usize {
        self.values.len()
    }

    /// Bytes of everything but the values: two for a filter, a channel or a length of a run below
    /// 65,536, else four, and two for each pattern.
    pub fn index_bytes(&self) -> usize {
        let width = |len: usize| if len <= 1 << 16 { 2 } else { 4 };
        self.reorder.len() * width(self.filters)
            + (self.runs.len() + self.channels.len()) * width(self.in_channels)
            + self.pool.len() * 2
    }
}

/// The positions of a pattern, ascending.
fn positions(pattern: u16) -> impl Iterator<Item = usize> {
    (0..PatternPool::POSITIONS).filter(move |position| pattern & (1 << position) != 0)
}

/// The patterns that occur, those with the most positions; others must be part of one of them.
fn occurring(masks: impl Iterator<Item = u16>) -> Result<PatternPool, SparseError> {
    let mut masks: Vec<u16> = masks.collect();
    masks.sort_unstable();
    masks.dedup();
    let most = masks.iter().map(|mask| mask.count_ones()).max();
    masks.retain(|mask| Some(mask.count_ones()) == most);
    if masks.is_empty() {
        // Nothing stays; any pattern will do.
        return PatternPool::from_masks(&PatternPool::natural()[..1]);
    }
    PatternPool::from_masks(&masks)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::testing::bits;
    use super::*;

    fn raw(kernels: &PatternKernels) -> RawPatternKernels {
        serde_json::from_str(&serde_json::to_string(kernels).unwrap()).unwrap()
    }

    /// Kernels of a random pool, some pruned, some with a zero inside their pattern.
    fn pruned() -> impl Strategy<Value = (Vec<f32>, WeightShape, PatternPool)> {
        let natural = PatternPool::natural();
        let pool = prop::sample::subsequence(natural, 1..9);
        (0usize..6, 0usize..5, pool).prop_flat_map(|(filters, channels, pool)| {
            let kernel = (
                0..pool.len() + 2,
                prop::collection::vec(-2.0f32..2.0, 9),
                any::<bool>(),
            );
            let shape = WeightShape::new(filters, channels, [3, 3]);
            let kernels = prop::collection::vec(kernel, filters * channels);
            kernels.prop_map(move |kernels| {
                let mut dense = Vec::new();
                for (pattern, values, hole) in kernels {
                    let mask = pool.get(pattern).copied().unwrap_or(0);
                    dense.extend(values.iter().enumerate().map(|(position, &value)| {
                        let kept = mask & (1 << position) != 0 && !(hole && position == 4);
                        if kept { value } else { 0.0 }
                    }));
                }
                (dense, shape, PatternPool::from_masks(&pool).unwrap())
            })
        })
    }

    proptest! {
        #[test]
        fn every_bit_comes_back((dense, shape, pool) in pruned()) {
            let csr = Csr::from_dense(&dense, [shape.rows, shape.row_len()]).unwrap();
            let kernels = PatternKernels::from_csr(&csr, shape, Some(pool)).unwrap();
            prop_assert_eq!(bits(&kernels.to_csr().to_dense()), bits(&dense));
            prop_assert_eq!(kernels.stored(), 4 * kernels.kernels());
            prop_assert_eq!(&PatternKernels::new(raw(&kernels)).unwrap(), &kernels);
            // Most kept first.
            let counts: Vec<usize> = kernels
                .runs
                .chunks(pool.len())
                .map(|runs| runs.iter().sum::<u32>() as usize)
                .collect();
            prop_assert!(counts.windows(2).all(|pair| pair[0] >= pair[1]));
        }
    }

    #[test]
    fn what_follows_no_pattern_is_refused() {
        let shape = WeightShape::new(1, 1, [3, 3]);
        let csr = Csr::from_dense(&[1.0; 9], [1, 9]).unwrap();
        let pool = PatternPool::new([[0, 1, 3, 4]]).unwrap();
        let error = PatternKernels::from_csr(&csr, shape, Some(pool)).unwrap_err();
        assert!(error.to_string().contains("follows no pattern"), "{error}");
        // All nine positions are a pattern, too.
        let own = PatternKernels::from_csr(&csr, shape, None).unwrap();
        assert_eq!(own.pool().entries(), 9);
        let flat = WeightShape::new(1, 9, [1, 1]);
        assert!(PatternKernels::from_csr(&csr, flat, None).is_err());
        assert!(PatternKernels::from_csr(&csr, WeightShape::new(1, 2, [3, 3]), None).is_err());
        let many: Vec<f32> = (0..17 * 9).map(|i| f32::from(i % 9 != i / 9 % 9)).collect();
        let many: Vec<f32> = many
            .iter()
            .enumerate()
            .map(|(i, &v)| {
                // Seventeen kernels of seven positions, no two alike.
                let second = (i / 9 / 9 + 1 + i / 9) % 9;
                if i % 9 == second { 0.0 } else { v }
            })
            .collect();
        let csr = Csr::from_dense(&many, [1, 17 * 9]).unwrap();
        let error = PatternKernels::from_csr(&csr, WeightShape::new(1, 17, [3, 3]), None);
        assert!(error.unwrap_err().to_string().contains("more than 16"));
    }

    #[test]
    fn broken_invariants_are_named() {
        let shape = WeightShape::new(2, 2, [3, 3]);
        let mut dense = vec![0.0; 36];
        for kernel in 0..4 {
            for position in [0, 1, 3 + kernel % 2, 4 + kernel % 2] {
                dense[9 * kernel + position] = 1.0;
            }
        }
        let csr = Csr::from_dense(&dense, [2, 18]).unwrap();
        let good = PatternKernels::from_csr(&csr, shape, None).unwrap();
        type Break = fn(&mut RawPatternKernels);
        let cases: [(&str, Break); 9] = [
            ("permutation", |k| k.reorder[0] = 1),
            ("permutation", |k| k.reorder.truncate(k.reorder.len() - 1)),
            ("permutation", |k| k.filters = usize::MAX),
            ("runs of", |k| k.runs[0] = u32::MAX),
            ("runs of", |k| k.channels.truncate(k.channels.len() - 1)),
            ("each once", |k| k.channels[0] = 2),
            ("each once", |k| k.channels[0] = k.channels[1]),
            ("values", |k| k.values.truncate(k.values.len() - 1)),
            ("is NaN", |k| k.values[0] = f32::NAN),
        ];
        for (reason, break_it) in cases {
            let mut parts = raw(&good);
            break_it(&mut parts);
            let error = PatternKernels::new(parts).unwrap_err().to_string();
            assert!(error.contains(reason), "{reason}: {error}");
        }
    }
}
