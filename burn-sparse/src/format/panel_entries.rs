//! Which rows of a matrix read the same inputs, as kernels on a card walk them.

use core::ops::Range;
use std::collections::HashMap;

use super::{Alike, Csr, alike};
use crate::{SparseError, cpu::Sharing};

/// An index beside the entries of a [`Csr`]: bands of rows, and the panels of each band, which are
/// rows that store the same columns.
///
/// A kernel that computes a whole band loads the input of a column once for all rows of its panel.
/// Values stay where the [`Csr`] has them, so training them changes nothing here: within a panel the
/// entries of a row follow each other, and one number says where they start.
///
/// Neighbouring blocks in which the same rows agree are one panel. Rows that agree wherever they store
/// anything are put into the same band, wherever they stand; bands know their rows. The longest bands
/// come first, so that the last to run are short.
///
/// The matrix, in bands of two rows,
///
/// ```text
/// [ 0 5 0 1 | 0 0 0 0 ]      entries 0 1
/// [ 0 2 0 7 | 3 0 0 0 ]      entries 2 3 4
/// ```
///
/// has one band of two panels: rows 0 and 1 with two columns, from entries 0 and 2 on; row 1 with one
/// column, entry 4.
///
/// # Example
/// ```
/// use burn_sparse::format::{Csr, PanelEntries};
///
/// let dense = [0., 5., 0., 1., 0., 0., 0., 0.,
///              0., 2., 0., 7., 3., 0., 0., 0.];
/// let panels = PanelEntries::new(&Csr::from_dense(&dense, [2, 8])?, 1, 2, 4)?;
/// assert_eq!((panels.bands(), panels.panels()), (1, 2));
/// // Five entries, three loads.
/// assert_eq!((panels.stored(), panels.columns()), (5, 3));
/// # Ok::<(), burn_sparse::SparseError>(())
/// ```
///
/// # References
/// The load redundancy elimination of GRIM (Niu et al., TPAMI 2021), with a dense panel for each set
/// of rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PanelEntries {
    height: usize,
    rows: usize,
    stored: usize,
    bands: usize,
    panels: usize,
    columns: usize,
    index: Vec<i32>,
}

/// Rows of a band before it is written down.
struct Band {
    rows: Vec<usize>,
    panels: Vec<Panel>,
}

/// Rows of a band with the same columns.
struct Panel {
    /// Where the entries of each row of the band start, if it is one of the panel's.
    starts: Vec<Option<u32>>,
    columns: u32,
}

/// Heights of bands that kernels are tuned for.
const HEIGHTS: [usize; 3] = [4, 8, 16];

/// Neighbouring rows that are looked at when blocks are chosen, at each of several places.
const SAMPLE: usize = 16;
const PLACES: usize = 4;

/// What taking up a panel costs, in columns.
const PANEL: usize = 2;

/// Loads and panels for each entry at which sharing pays: a kernel does more for each load then.
const WORTH: f64 = 0.5;

impl PanelEntries {
    /// Most rows of a band: kernels keep a sum for each.
    pub const HIGHEST: usize = 16;

    /// Stands for no row and no entry in [`index`](Self::index).
    pub const NONE: i32 = -1;

    /// The panels of `csr` in bands of `height` rows that do not straddle the `groups` of a
    /// convolution, looked for in blocks of `width` columns.
    ///
    /// # Errors
    /// [`SparseError::Groups`] if groups do not divide the rows; [`SparseError::Block`] for a height
    /// beyond 1 to [`HIGHEST`](Self::HIGHEST) or a width of 0; [`SparseError::Shape`] where 31 bits
    /// cannot count what the index holds.
    pub fn new(csr: &Csr, groups: usize, height: usize, width: usize) -> Result<Self, SparseError> {
        if groups == 0 || !csr.rows().is_multiple_of(groups) {
            return Err(SparseError::Groups {
                channels: csr.rows(),
                what: "output",
                groups,
            });
        }
        if height == 0 || height > Self::HIGHEST || width == 0 {
            return Err(SparseError::Block {
                block: [height, width],
                weight: (height > Self::HIGHEST).then_some([Self::HIGHEST, csr.row_len()]),
            });
        }
        let mut bands: Vec<Band> = all_bands(csr, groups, height, width).collect();
        bands.sort_by_key(|band| core::cmp::Reverse(band.columns()));
        let panels: usize = bands.iter().map(|band| band.panels.len()).sum();
        let columns: usize = bands.iter().map(Band::columns).sum();
        let len = Self::sections(height, bands.len(), panels, columns)[4] + columns;
        if len > i32::MAX as usize {
            return Err(SparseError::shape(format!(
                "panels of a weight of {} rows and {} entries take an index of {len} numbers, more \
                 than 31 bits can count; run it without panels",
                csr.rows(),
                csr.stored()
            )));
        }
        Ok(Self {
            height,
            rows: csr.rows(),
            stored: csr.stored(),
            bands: bands.len(),
            panels,
            columns,
            index: index(&bands, height, len),
        })
    }

    /// The panels of a convolution's weight with kernels of `positions` weights, if its rows share so
    /// much that it could pay: loads and panels are at most half of the entries. Blocks and bands are
    /// chosen by what a few of the rows share.
    ///
    /// # Example
    /// ```
    /// use burn_sparse::format::{Csr, PanelEntries};
    ///
    /// // Four rows with the same columns, then four with others.
    /// let dense: Vec<f32> = (0..8 * 64).map(|i| ((i % 64) % 8 == i / 256) as u8 as f32).collect();
    /// let csr = Csr::from_dense(&dense, [8, 64])?;
    /// let panels = PanelEntries::find(&csr, 1, 1).unwrap();
    /// assert_eq!((panels.height(), panels.columns() * 4), (4, csr.stored()));
    ///
    /// let diagonal: Vec<f32> = (0..64).map(|i| (i % 9 == 0) as u8 as f32).collect();
    /// assert!(PanelEntries::find(&Csr::from_dense(&diagonal, [8, 8])?, 1, 1).is_none());
    /// # Ok::<(), burn_sparse::SparseError>(())
    /// ```
    pub fn find(csr: &Csr, positions: usize, groups: usize) -> Option<Self> {
        if groups == 0 || !csr.rows().is_multiple_of(groups) {
            return None;
        }
        let sample = sample(csr.rows(), csr.rows() / groups);
        let cost = |height, width| -> usize {
            let rows = sample.iter().cloned();
            let bands = rows.flat_map(|rows| bands(csr, rows, height, width));
            bands.map(|band| band.cost()).sum()
        };
        let mut widths = Vec::new();
        // Kernel patterns agree kernel by kernel and nowhere else.
        if positions > 1 {
            widths.push(positions);
        }
        let sharing = Sharing::of(csr, positions);
        if sharing.rows >= 4 {
            widths.extend([csr.row_len(), 64, 16]);
            widths.extend(sharing.panel.map(|panel| panel.columns));
        }
        widths.retain(|&width| width > 0);
        let highest = HEIGHTS[HEIGHTS.len() - 1];
        let (least, width) = widths
            .into_iter()
            .map(|width| (cost(highest, width), width))
            .min_by_key(|(cost, _)| *cost)?;
        // Lower bands keep fewer sums and are spread more evenly.
        let height = HEIGHTS
            .into_iter()
            .find(|&height| cost(height, width) as f64 <= 1.1 * least as f64)
            .unwrap_or(highest);
        // The whole matrix, band by band: an index of what does not share would be far larger than it.
        let all: usize = all_bands(csr, groups, height, width)
            .map(|band| band.cost())
            .sum();
        if csr.stored() == 0 || all as f64 > WORTH * csr.stored() as f64 {
            return None;
        }
        Self::new(csr, groups, height, width).ok()
    }

    /// Rows of a band; the last of a group may have fewer.
    pub fn height(&self) -> usize {
        self.height
    }

    /// Rows of the matrix.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Entries of the matrix.
    pub fn stored(&self) -> usize {
        self.stored
    }

    /// Bands of rows.
    pub fn bands(&self) -> usize {
        self.bands
    }

    /// Panels of all bands.
    pub fn panels(&self) -> usize {
        self.panels
    }

    /// Columns of all panels: inputs that are loaded for each output pixel.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// What kernels read, with `h` rows of a band, `b` bands, `p` panels and `c` columns:
    ///
    /// | numbers | what |
    /// |---|---|
    /// | `b * h` | the rows of each band |
    /// | `b + 1` | the first panel of each band, and their number |
    /// | `p + 1` | the first column of each panel, counted over all of them, and their number |
    /// | `p * (2 + h)` | of each panel: the first entry of its first row, a bit for each of its rows, the first entry of each row of the band |
    /// | `c` | the panel of each column |
    ///
    /// [`NONE`](Self::NONE) stands for rows that a band does not have, and for the first entry of rows
    /// that are not in a panel.
    pub fn index(&self) -> &[i32] {
        &self.index
    }

    /// Where the five parts of [`index`](Self::index) start.
    pub(crate) fn sections(
        height: usize,
        bands: usize,
        panels: usize,
        columns: usize,
    ) -> [usize; 5] {
        let mut at = 0;
        [
            bands * height,
            bands + 1,
            panels + 1,
            panels * (2 + height),
            columns,
        ]
        .map(|len| {
            let start = at;
            at += len;
            start
        })
    }
}

impl Band {
    fn columns(&self) -> usize {
        self.panels.iter().map(|panel| panel.columns as usize).sum()
    }

    /// Loads and what taking up panels costs, in loads.
    fn cost(&self) -> usize {
        self.columns() + PANEL * self.panels.len()
    }
}

/// Some rows, a few at each of several places, that lie within a group each.
fn sample(rows: usize, per_group: usize) -> Vec<Range<usize>> {
    let place = |i: usize| {
        let row = i * rows / PLACES;
        let group = row / per_group.max(1) * per_group;
        let start = group + (row - group) / SAMPLE * SAMPLE;
        start..(start + SAMPLE).min(group + per_group)
    };
    let mut places: Vec<_> = (0..PLACES).map(place).collect();
    places.dedup();
    places
}

/// The bands of all groups.
fn all_bands(
    csr: &Csr,
    groups: usize,
    height: usize,
    width: usize,
) -> impl Iterator<Item = Band> + '_ {
    let per_group = csr.rows() / groups;
    (0..groups).flat_map(move |group| {
        let rows = group * per_group..(group + 1) * per_group;
        bands(csr, rows, height, width)
    })
}

/// The bands of some rows, one after the other.
fn bands(
    csr: &Csr,
    rows: Range<usize>,
    height: usize,
    width: usize,
) -> impl Iterator<Item = Band> + '_ {
    let rows: Vec<usize> = match width < csr.row_len() {
        true => rows.collect(),
        false => together(csr, rows),
    };
    (0..rows.len().div_ceil(height)).map(move |band| {
        let rows = &rows[band * height..rows.len().min((band + 1) * height)];
        let found = alike(csr.row_ptr(), csr.columns(), rows.iter().copied(), width);
        Band {
            rows: rows.to_vec(),
            panels: panels(rows, found),
        }
    })
}

/// Rows with the same columns behind the first of them, in the order of the first ones.
fn together(csr: &Csr, rows: Range<usize>) -> Vec<usize> {
    let columns =
        |row: usize| &csr.columns()[csr.row_ptr()[row] as usize..csr.row_ptr()[row + 1] as usize];
    let mut first = HashMap::new();
    let mut keyed: Vec<(usize, usize)> = rows
        .map(|row| (*first.entry(columns(row)).or_insert(row), row))
        .collect();
    keyed.sort_unstable();
    keyed.into_iter().map(|(_, row)| row).collect()
}

/// The panels of a band. What continues a panel of the same rows is joined to it.
fn panels(rows: &[usize], found: Vec<Alike>) -> Vec<Panel> {
    let mut panels: Vec<Panel> = Vec::new();
    // The last panel of each row. Its entries follow each other, so nothing else continues a panel.
    let mut last = vec![usize::MAX; rows.len()];
    for alike in found {
        let mut starts = vec![None; rows.len()];
        let mut members = Vec::with_capacity(alike.rows.len());
        for (row, entries) in alike.rows.iter().zip(&alike.entries) {
            // Rows are found in the order in which they were given.
            let from = members.last().map_or(0, |&place| place + 1);
            let place = from + rows[from..].iter().position(|r| r == row).unwrap_or(0);
            starts[place] = Some(entries.start as u32);
            members.push(place);
        }
        let columns = alike.entries[0].len() as u32;
        let before = last[members[0]];
        let joins = panels.get(before).is_some_and(|panel| {
            panel.starts.iter().flatten().count() == members.len()
                && members.iter().all(|&place| last[place] == before)
        });
        if joins {
            panels[before].columns += columns;
            continue;
        }
        members.iter().for_each(|&place| last[place] = panels.len());
        panels.push(Panel { starts, columns });
    }
    panels
}

/// As [`PanelEntries::index`] says.
fn index(bands: &[Band], height: usize, len: usize) -> Vec<i32> {
    const NONE: i32 = PanelEntries::NONE;
    let mut index = Vec::with_capacity(len);
    for band in bands {
        index.extend(band.rows.iter().map(|&row| row as i32));
        index.extend((band.rows.len()..height).map(|_| NONE));
    }
    let panels = || bands.iter().flat_map(|band| &band.panels);
    index.push(0);
    index.extend(bands.iter().scan(0, |sum, band| {
        *sum += band.panels.len() as i32;
        Some(*sum)
    }));
    index.push(0);
    index.extend(panels().scan(0, |sum, panel| {
        *sum += panel.columns as i32;
        Some(*sum)
    }));
    for panel in panels() {
        let starts = || panel.starts.iter().enumerate();
        let members = starts().filter_map(|(place, start)| start.map(|start| (place, start)));
        let (mut first, mut mask) = (NONE, 0);
        for (place, start) in members {
            first = if mask == 0 { start as i32 } else { first };
            mask |= 1 << place;
        }
        index.extend([first, mask]);
        index.extend(starts().map(|(_, start)| start.map_or(NONE, |start| start as i32)));
        index.extend((panel.starts.len()..height).map(|_| NONE));
    }
    for (number, panel) in panels().enumerate() {
        index.extend((0..panel.columns).map(|_| number as i32));
    }
    index
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::testing::sparse_matrix;
    use super::*;

    /// The entries of each row that the index leads to, in the order in which a kernel adds them, and
    /// the entry by whose column each finds its input.
    fn walk(panels: &PanelEntries) -> Vec<Vec<(usize, usize)>> {
        let [_, band_ptr, column_ptr, records, panel_of] =
            PanelEntries::sections(panels.height, panels.bands, panels.panels, panels.columns);
        let index = panels.index();
        let mut rows = vec![None; panels.rows];
        for band in 0..panels.bands {
            let mut sums = vec![Vec::new(); panels.height];
            for panel in index[band_ptr + band]..index[band_ptr + band + 1] {
                let panel = panel as usize;
                let record = records + panel * (2 + panels.height);
                let columns = index[column_ptr + panel]..index[column_ptr + panel + 1];
                for (i, column) in columns.enumerate() {
                    assert_eq!(index[panel_of + column as usize], panel as i32);
                    for (place, sum) in sums.iter_mut().enumerate() {
                        let start = index[record + 2 + place];
                        let member = index[record + 1] >> place & 1 == 1;
                        assert_eq!(member, start != PanelEntries::NONE);
                        if member {
                            sum.push((start as usize + i, index[record] as usize + i));
                        }
                    }
                }
            }
            for (place, sum) in sums.into_iter().enumerate() {
                match index[band * panels.height + place] {
                    PanelEntries::NONE => assert!(sum.is_empty()),
                    row => assert!(
                        rows[row as usize].replace(sum).is_none(),
                        "twice: row {row}"
                    ),
                }
            }
        }
        let all = rows
            .into_iter()
            .map(|row| row.expect("every row has a place"));
        all.collect()
    }

    proptest! {
        #[test]
        fn every_entry_of_every_row_is_reached_in_order(
            (dense, shape) in sparse_matrix(),
            height in 1..=PanelEntries::HIGHEST,
            width in 1usize..9,
            groups in 1usize..4,
        ) {
            let csr = Csr::from_dense(&dense, shape).unwrap();
            let groups = if shape[0].is_multiple_of(groups) { groups } else { 1 };
            for width in [width, usize::MAX] {
                let panels = PanelEntries::new(&csr, groups, height, width).unwrap();
                prop_assert_eq!(panels.index().len(), panels.index.capacity());
                for (row, walked) in walk(&panels).into_iter().enumerate() {
                    let (entries, loads): (Vec<_>, Vec<_>) = walked.into_iter().unzip();
                    let own = csr.row_ptr()[row] as usize..csr.row_ptr()[row + 1] as usize;
                    prop_assert_eq!(entries, own.clone().collect::<Vec<_>>());
                    let columns = loads.into_iter().map(|entry| csr.columns()[entry]);
                    prop_assert!(columns.eq(csr.columns()[own].iter().copied()));
                }
            }
        }
    }

    #[test]
    fn rows_that_agree_meet_in_a_band_wherever_they_stand() {
        // Rows 0 2 4 6 store columns 0 and 5, rows 1 3 5 7 columns 1 and 2.
        let mut dense = vec![0.0; 8 * 6];
        for row in 0..8 {
            for column in [[0, 5], [1, 2]][row % 2] {
                dense[row * 6 + column] = 1.0;
            }
        }
        let csr = Csr::from_dense(&dense, [8, 6]).unwrap();
        let panels = PanelEntries::new(&csr, 1, 4, 6).unwrap();
        assert_eq!(
            (panels.bands(), panels.panels(), panels.columns()),
            (2, 2, 4)
        );
        assert_eq!(panels.index()[..8], [0, 2, 4, 6, 1, 3, 5, 7]);
        // Two groups of a convolution read different inputs.
        let panels = PanelEntries::new(&csr, 2, 4, 6).unwrap();
        assert_eq!(panels.index()[..8], [0, 2, 1, 3, 4, 6, 5, 7]);
    }

    #[test]
    fn neighbouring_blocks_of_the_same_rows_are_one_panel() {
        let csr = Csr::from_dense(&[1.0; 4 * 12], [4, 12]).unwrap();
        let panels = PanelEntries::new(&csr, 1, 4, 3).unwrap();
        assert_eq!((panels.panels(), panels.columns()), (1, 12));
    }

    #[test]
    fn the_longest_bands_come_first() {
        let dense = [0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 1.0, 1.0, 0.0];
        let csr = Csr::from_dense(&dense, [3, 3]).unwrap();
        let panels = PanelEntries::new(&csr, 1, 1, 3).unwrap();
        assert_eq!(panels.index()[..3], [2, 1, 0]);
    }

    #[test]
    fn what_cannot_be_is_an_error() {
        let csr = Csr::from_dense(&[1.0; 12], [4, 3]).unwrap();
        assert!(matches!(
            PanelEntries::new(&csr, 3, 4, 3),
            Err(SparseError::Groups { groups: 3, .. })
        ));
        for (height, width) in [(0, 3), (17, 3), (4, 0)] {
            let error = PanelEntries::new(&csr, 1, height, width);
            assert!(matches!(error, Err(SparseError::Block { .. })));
        }
        assert!(PanelEntries::find(&csr, 1, 3).is_none());
    }

    #[test]
    fn what_a_few_rows_share_is_held_against_all() {
        // The places that are looked at agree, what is between them does not.
        let rows = 256;
        let dense: Vec<f32> = (0..rows * 64)
            .map(|i| {
                let (row, column) = (i / 64, i % 64);
                let looked_at = row % 64 < 16;
                let (a, b) = (row, column / 8);
                let scattered = (a * 7919 + b * 104_729 + a * b * 31) % 1009 % 8;
                let kept = column % 8 == if looked_at { 0 } else { scattered };
                f32::from(u8::from(kept))
            })
            .collect();
        let csr = Csr::from_dense(&dense, [rows, 64]).unwrap();
        assert!(PanelEntries::find(&csr, 1, 1).is_none());
        let few = Csr::from_dense(&dense[..16 * 64], [16, 64]).unwrap();
        assert!(PanelEntries::find(&few, 1, 1).is_some());
        assert!(PanelEntries::find(&few, 1, 2).is_some());
    }

    #[test]
    fn panels_are_found_where_rows_share_and_only_there() {
        let weight = |keep: &dyn Fn(usize, usize) -> bool| {
            let dense: Vec<f32> = (0..64 * 576)
                .map(|i| f32::from(u8::from(keep(i / 576, i % 576))))
                .collect();
            Csr::from_dense(&dense, [64, 576]).unwrap()
        };
        let hash = |a: usize, b: usize| (a * 7919 + b * 104_729 + a * b * 31) % 1009;
        // Bands of eight rows and blocks of 64 columns: half of the rows, a fifth of the columns.
        let blocks = weight(&|row, column| {
            let block = row / 8 * 9 + column / 64;
            hash(block, row % 8) % 2 == 0 && hash(block + 100, column % 64) % 5 == 0
        });
        let found = PanelEntries::find(&blocks, 9, 1).unwrap();
        assert!(found.columns() * 3 < blocks.stored());
        // One pattern of four for each kernel, of four patterns.
        let patterns = weight(&|row, column| {
            let pattern = hash(row, column / 9) % 4;
            [0, 1, 3, 4].contains(&((column % 9 + 9 - pattern) % 9))
        });
        let found = PanelEntries::find(&patterns, 9, 1).unwrap();
        assert!(found.columns() * 3 < patterns.stored());
        let noise = weight(&|row, column| hash(row, column) % 10 == 0);
        assert_eq!(PanelEntries::find(&noise, 9, 1), None);
        assert_eq!(PanelEntries::find(&weight(&|_, _| false), 9, 1), None);
    }
}
