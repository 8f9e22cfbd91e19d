//! Rows that share their entries without being neighbours.

use core::ops::Range;
use std::collections::HashMap;

use super::Panel;
use crate::{ConvProblem, SparseError, cpu::Rows};

/// Most output channels of a band: the sums of one must fit beside a tile.
const MOST_ROWS: usize = 64;

/// The channel of a place in a group that has fewer.
pub(super) const NOBODY: u32 = u32::MAX;

/// Output channels in bands, and the groups of channels that share loads within each band.
///
/// A channel occurs in as many groups as it has blocks with entries, so sums are kept until its band
/// is done.
#[derive(Debug, Clone)]
pub(super) struct Panels {
    /// First channel of each band, and the end of the last.
    bounds: Vec<usize>,
    /// First group of each band, and the end of the last.
    first: Vec<usize>,
    /// The channels of each group, [`NOBODY`] in the places that are left.
    pub(super) members: Vec<u32>,
}

impl Panels {
    /// Bands of `panel.rows` channels that do not straddle the groups of the convolution: those read
    /// different inputs.
    pub(super) fn new(problem: &ConvProblem, panel: Panel) -> Self {
        let per_group = problem.out_channels / problem.groups;
        let height = panel.rows.clamp(1, MOST_ROWS);
        let starts = (0..problem.groups).flat_map(|group| {
            (0..per_group)
                .step_by(height)
                .map(move |row| group * per_group + row)
        });
        Self {
            bounds: starts.chain([problem.out_channels]).collect(),
            first: vec![0],
            members: Vec::new(),
        }
    }

    pub(super) fn bands(&self) -> usize {
        self.bounds.len() - 1
    }

    pub(super) fn channels(&self, bands: Range<usize>) -> Range<usize> {
        self.bounds[bands.start]..self.bounds[bands.end]
    }

    pub(super) fn groups(&self, bands: Range<usize>) -> Range<usize> {
        self.first[bands.start]..self.first[bands.end]
    }

    /// Hands every group of at most `rows` rows to `group` with the entries of each of them, and notes
    /// whom it holds.
    pub(super) fn visit(
        &mut self,
        matrix: Rows<'_>,
        columns: usize,
        rows: usize,
        mut group: impl FnMut(&[usize], &[Range<usize>]) -> Result<(), SparseError>,
    ) -> Result<(), SparseError> {
        for band in 0..self.bands() {
            let channels = self.channels(band..band + 1);
            for (members, entries) in alike(matrix, channels, columns) {
                for (members, entries) in members.chunks(rows).zip(entries.chunks(rows)) {
                    group(members, entries)?;
                    self.members.extend(members.iter().map(|&row| row as u32));
                    self.members.extend((members.len()..rows).map(|_| NOBODY));
                }
            }
            self.first.push(self.members.len() / rows);
        }
        Ok(())
    }
}

/// Rows that store the same columns of a block, and where each of them stores them.
pub(crate) type Alike = (Vec<usize>, Vec<Range<usize>>);

/// For each block of `columns` columns of some rows, the rows that store the same ones, in the order
/// of the blocks and of their first rows.
pub(crate) fn alike(matrix: Rows<'_>, rows: Range<usize>, columns: usize) -> Vec<Alike> {
    let mut next: Vec<usize> = rows
        .clone()
        .map(|row| matrix.row_ptr[row] as usize)
        .collect();
    let mut found = Vec::new();
    // The blocks are those in which any row has entries left.
    while let Some(column) = rows
        .clone()
        .zip(&next)
        .filter(|&(row, &at)| at < matrix.row_ptr[row + 1] as usize)
        .map(|(_, &at)| matrix.columns[at])
        .min()
    {
        let columns = columns.max(1);
        let end = (column as usize / columns + 1).saturating_mul(columns);
        let mut known: HashMap<&[u32], usize> = HashMap::new();
        let mut of_block: Vec<Alike> = Vec::new();
        for (row, at) in rows.clone().zip(&mut next) {
            let rest = &matrix.columns[*at..matrix.row_ptr[row + 1] as usize];
            let stored = &rest[..rest.partition_point(|&column| (column as usize) < end)];
            if stored.is_empty() {
                continue;
            }
            let index = *known.entry(stored).or_insert_with(|| {
                of_block.push(Alike::default());
                of_block.len() - 1
            });
            of_block[index].0.push(row);
            of_block[index].1.push(*at..*at + stored.len());
            *at += stored.len();
        }
        found.append(&mut of_block);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_alike_in_a_block_are_found_wherever_they_stand() {
        // Columns 0..4 and 4..8: rows 0 and 2 agree in the first block, 0 and 1 in the second.
        let matrix = Rows {
            row_ptr: &[0, 3, 5, 8, 8],
            columns: &[1, 3, 6, 2, 6, 1, 3, 7],
            values: &[1.0; 8],
        };
        let found = alike(matrix, 0..4, 4);
        let members: Vec<_> = found.iter().map(|(members, _)| members.clone()).collect();
        assert_eq!(members, [vec![0, 2], vec![1], vec![0, 1], vec![2]]);
        assert_eq!(found[0].1, [0..2, 5..7]);
        assert_eq!(found[2].1, [2..3, 4..5]);
        // One block: no two agree.
        assert_eq!(alike(matrix, 0..4, usize::MAX).len(), 3);
        assert!(alike(matrix, 3..4, 4).is_empty());
    }

    #[test]
    fn bands_end_with_the_groups_of_the_convolution() {
        let problem = ConvProblem::new(1, [4, 10], [3, 3], [1, 1]).with_groups(2);
        let panels = Panels::new(
            &problem,
            Panel {
                rows: 4,
                columns: 2,
            },
        );
        assert_eq!(panels.bounds, [0, 4, 5, 9, 10]);
    }
}
