//! Weights in the order in which the kernel reads them.

use core::ops::Range;

use super::{Panel, Plan, Working, panels::Panels};
use crate::{ConvProblem, SparseError, cpu::Rows};

/// The entries of a weight matrix, block by block of input channels, in each block group by group
/// of output channels, in each group by position: a byte offset into the working layout, then one
/// value for every channel of the group.
#[derive(Debug, Clone)]
pub(super) struct Stream {
    /// Offsets and the bits of values.
    pub(super) words: Vec<u32>,
    /// First word of group `g` of block `b` at `b * (groups + 1) + g`.
    pub(super) starts: Vec<u32>,
    /// Groups of `plan.rows` output channels.
    pub(super) groups: usize,
    /// Which channels the groups hold, if they are not neighbours.
    pub(super) panels: Option<Panels>,
}

fn too_large(problem: &ConvProblem) -> SparseError {
    SparseError::shape(format!(
        "an image of {:?} under this kernel exceeds 32-bit offsets",
        problem.input_shape()
    ))
}

/// Where the columns of a weight matrix find their inputs, as byte offsets into the working layout.
pub(super) struct Places {
    /// Of the first group of channels; looked up for every entry, since packing orders a weight once for
    /// every plan that it times.
    columns: Vec<u32>,
    /// Bytes between the channels of groups, and output channels of a group.
    group: usize,
    rows_of_group: usize,
}

impl Places {
    pub(super) fn new(problem: &ConvProblem, working: &Working) -> Result<Self, SparseError> {
        let bytes = working
            .channel_stride()
            .checked_mul(problem.in_channels)
            .and_then(|elements| elements.checked_mul(4));
        if bytes.is_none_or(|bytes| bytes > u32::MAX as usize) {
            return Err(too_large(problem));
        }
        let [kh, kw] = problem.kernel;
        let channels = problem.in_channels / problem.groups;
        let column = |column: usize| {
            let (channel, tap) = (column / (kh * kw), column % (kh * kw));
            4 * working.offset(channel, tap / kw, tap % kw) as u32
        };
        Ok(Self {
            columns: (0..channels * kh * kw).map(column).collect(),
            group: 4 * channels * working.channel_stride(),
            rows_of_group: (problem.out_channels / problem.groups).max(1),
        })
    }

    fn base(&self, row: usize) -> u32 {
        (row / self.rows_of_group * self.group) as u32
    }

    pub(super) fn of(&self, row: usize, column: usize) -> u32 {
        self.base(row) + self.columns[column]
    }
}

impl Stream {
    /// Of no entries, where others do the work.
    pub(super) fn empty() -> Self {
        Self {
            words: Vec::new(),
            starts: Vec::new(),
            groups: 0,
            panels: None,
        }
    }

    pub(super) fn new(
        problem: &ConvProblem,
        matrix: Rows<'_>,
        plan: &Plan,
        working: &Working,
    ) -> Result<Self, SparseError> {
        let places = Places::new(problem, working)?;
        let rows = plan.rows;
        let (kh, kw) = (problem.kernel[0], problem.kernel[1]);
        let channels = problem.in_channels / problem.groups;
        let groups = problem.out_channels.div_ceil(rows);
        let blocks = plan.blocks.clamp(1, channels.max(1));
        if let Some(panel) = plan.panel {
            let place = |row: usize, column: u32| places.of(row, column as usize);
            return Self::of_panels(problem, matrix, rows, panel, place);
        }
        let mut words = Vec::with_capacity(matrix.columns.len() * (rows + 1) / rows + rows);
        let mut starts = Vec::with_capacity(blocks * (groups + 1));
        // Where each row of a group stands; rows are worked off block by block.
        let mut next: Vec<u32> = matrix.row_ptr[..problem.out_channels].to_vec();
        for block in 0..blocks {
            let end = ((block + 1) * channels / blocks * kh * kw) as u32;
            for group in 0..groups {
                starts.push(position(&words, problem)?);
                let members = group * rows..((group + 1) * rows).min(problem.out_channels);
                let base = places.base(members.start);
                if rows == 1 {
                    let (from, to) = (next[group], matrix.row_ptr[group + 1]);
                    let rest = &matrix.columns[from as usize..to as usize];
                    let len = rest.partition_point(|&column| column < end);
                    let values = &matrix.values[from as usize..][..len];
                    words.extend(rest[..len].iter().zip(values).flat_map(|(&column, value)| {
                        [base + places.columns[column as usize], value.to_bits()]
                    }));
                    next[group] = from + len as u32;
                    continue;
                }
                let head = |row: usize, next: &[u32]| {
                    let at = next[row];
                    (at < matrix.row_ptr[row + 1])
                        .then(|| matrix.columns[at as usize])
                        .filter(|&column| column < end)
                };
                while let Some(column) = members.clone().filter_map(|row| head(row, &next)).min() {
                    words.push(base + places.columns[column as usize]);
                    for row in members.clone() {
                        if head(row, &next) == Some(column) {
                            words.push(matrix.values[next[row] as usize].to_bits());
                            next[row] += 1;
                        } else {
                            words.push(0);
                        }
                    }
                    // The last group may have fewer channels than the kernel computes.
                    words.extend((members.len()..rows).map(|_| 0));
                }
            }
            starts.push(position(&words, problem)?);
        }
        Ok(Self {
            words,
            starts,
            groups,
            panels: None,
        })
    }

    /// The same for a dense weight whose elements are `value(row, column)`: every group lists all columns.
    pub(super) fn of_dense(
        problem: &ConvProblem,
        value: impl Fn(usize, usize) -> f32,
        plan: &Plan,
        working: &Working,
    ) -> Result<Self, SparseError> {
        let places = Places::new(problem, working)?;
        let rows = plan.rows;
        let taps = problem.kernel[0] * problem.kernel[1];
        let channels = problem.in_channels / problem.groups;
        let groups = problem.out_channels.div_ceil(rows);
        let blocks = plan.blocks.clamp(1, channels.max(1));
        let len = groups
            .checked_mul(problem.row_len())
            .and_then(|entries| entries.checked_mul(rows + 1));
        let len = len.filter(|&len| u32::try_from(len).is_ok());
        let mut words = Vec::with_capacity(len.ok_or_else(|| too_large(problem))?);
        let mut starts = Vec::with_capacity(blocks * (groups + 1));
        for block in 0..blocks {
            let [from, to] = [block, block + 1].map(|edge| edge * channels / blocks * taps);
            for group in 0..groups {
                starts.push(words.len() as u32);
                let members = group * rows..((group + 1) * rows).min(problem.out_channels);
                for column in from..to {
                    words.push(places.of(members.start, column));
                    words.extend(members.clone().map(|row| value(row, column).to_bits()));
                    // The last group may have fewer channels than the kernel computes.
                    words.extend((members.len()..rows).map(|_| 0));
                }
            }
            starts.push(words.len() as u32);
        }
        Ok(Self {
            words,
            starts,
            groups,
            panels: None,
        })
    }

    /// Band by band of output channels, in each block by block, and in each block group by group of
    /// rows that store the same columns. `place` is the byte offset of a row's column.
    fn of_panels(
        problem: &ConvProblem,
        matrix: Rows<'_>,
        rows: usize,
        panel: Panel,
        place: impl Fn(usize, u32) -> u32,
    ) -> Result<Self, SparseError> {
        let mut panels = Panels::new(problem, panel);
        let mut words = Vec::with_capacity(matrix.columns.len() * (rows + 1) / rows);
        let mut starts = Vec::new();
        panels.visit(matrix, panel.columns, rows, |members, entries| {
            starts.push(position(&words, problem)?);
            for index in 0..entries[0].len() {
                let first = entries[0].start + index;
                words.push(place(members[0], matrix.columns[first]));
                words.extend(
                    entries
                        .iter()
                        .map(|row| matrix.values[row.start + index].to_bits()),
                );
                words.extend((entries.len()..rows).map(|_| 0));
            }
            Ok(())
        })?;
        let groups = starts.len();
        starts.push(position(&words, problem)?);
        Ok(Self {
            words,
            starts,
            groups,
            panels: Some(panels),
        })
    }

    /// Runs of output channels that tasks do not divide further: groups of neighbours, or bands.
    pub(super) fn units(&self) -> usize {
        self.panels.as_ref().map_or(self.groups, Panels::bands)
    }

    /// The output channels of some units, the last of which may have fewer than `rows`.
    pub(super) fn channels(&self, units: Range<usize>, rows: usize, all: usize) -> Range<usize> {
        match &self.panels {
            Some(panels) => panels.channels(units),
            None => units.start * rows..(units.end * rows).min(all),
        }
    }

    /// Units as many at a time as leave no more than `most` rows of sums, but at least one: bands are
    /// small, and groups smaller.
    pub(super) fn at_once(
        &self,
        units: Range<usize>,
        most: usize,
        rows: usize,
    ) -> impl Iterator<Item = Range<usize>> {
        let mut start = units.start;
        core::iter::from_fn(move || {
            let fits = |end: usize| match &self.panels {
                Some(panels) => panels.channels(start..end).len() < most,
                None => (end - start) * rows <= most,
            };
            let mut end = start;
            while end < units.end && (end == start || fits(end + 1)) {
                end += 1;
            }
            let run = start..end;
            start = end;
            (!run.is_empty()).then_some(run)
        })
    }

    /// The starts of all groups of `block`, and the end of the last.
    pub(super) fn block(&self, block: usize) -> &[u32] {
        &self.starts[block * (self.groups + 1)..][..self.groups + 1]
    }
}

fn position(words: &[u32], problem: &ConvProblem) -> Result<u32, SparseError> {
    u32::try_from(words.len()).map_err(|_| too_large(problem))
}
