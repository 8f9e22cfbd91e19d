//! Rows that share their entries without being neighbours.

use core::ops::Range;

use super::Panel;
use crate::{
    ConvProblem, SparseError,
    cpu::Rows,
    format::{Alike, alike},
};

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
            let found = alike(matrix.row_ptr, matrix.columns, channels, columns);
            for Alike {
                rows: members,
                entries,
            } in found
            {
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

#[cfg(test)]
mod tests {
    use super::*;

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
