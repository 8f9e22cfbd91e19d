//! Dense panels within the blocks of a matrix.

use serde::{Deserialize, Serialize};

use super::{Csr, alike::alike, csr::check_finite};
use crate::SparseError;

/// A weight matrix cut into blocks of rows by columns, each of which holds dense panels: the rows of
/// a panel store the same columns, so each input that is loaded serves all of them.
///
/// What block column-row pruning leaves of a block is one panel (Niu et al., "GRIM", TPAMI 2021);
/// of any other matrix it is one panel for each set of columns that occurs in the block, so nothing is
/// ever filled up with zeros. The matrix, in blocks of two rows by four columns,
///
/// ```text
/// [ 0 5 0 1 | 0 0 0 0 ]      block 0: rows 0 1, columns 1 3, values 5 1 | 2 7
/// [ 0 2 0 7 | 3 0 0 0 ]      block 1: row 1, column 0, value 3
/// ```
///
/// is held as `block_ptr` 0 1 2, `row_ptr` 0 2 3, `rows` 0 1 1, `column_ptr` 0 2 3, `columns` 1 3 0 and
/// `values` 5 1 2 7 3. Row and column ids count from the start of their block.
///
/// # Invariants
/// Checked by every constructor and by deserialising:
/// - the sides of a block lie in 1 to 65,536, and `block_ptr` has an entry for each block, bands of
///   rows outermost, and one more;
/// - all three pointers start at 0, never fall (those of panels rise) and end with what they point at;
/// - ids ascend strictly within a panel and lie within their block, which edges may cut off;
/// - the panels of a block have no row in common;
/// - values are finite, panel by panel and row by row, and there are at most `i32::MAX` of them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "RawPanels")]
pub struct BlockPanels {
    shape: [usize; 2],
    block: [usize; 2],
    block_ptr: Vec<u32>,
    row_ptr: Vec<u32>,
    rows: Vec<u16>,
    column_ptr: Vec<u32>,
    columns: Vec<u16>,
    values: Vec<f32>,
    /// Where the values of each panel start: follows from the rest.
    #[serde(skip)]
    value_ptr: Vec<u32>,
}

/// The parts of a [`BlockPanels`], not checked yet.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct RawPanels {
    /// Rows of the matrix, and their length.
    pub shape: [usize; 2],
    /// Rows and columns of a block.
    pub block: [usize; 2],
    /// The first panel of each block, and the number of panels.
    pub block_ptr: Vec<u32>,
    /// Where the rows of each panel start, and their number.
    pub row_ptr: Vec<u32>,
    /// Rows of all panels, within their blocks.
    pub rows: Vec<u16>,
    /// Where the columns of each panel start, and their number.
    pub column_ptr: Vec<u32>,
    /// Columns of all panels, within their blocks.
    pub columns: Vec<u16>,
    /// Values, panel by panel, row by row.
    pub values: Vec<f32>,
}

/// One dense panel of a [`BlockPanels`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PanelView<'a> {
    /// Row and column of the matrix where the block starts.
    pub origin: [usize; 2],
    /// Its rows, counted from there.
    pub rows: &'a [u16],
    /// Its columns, counted from there.
    pub columns: &'a [u16],
    /// `rows` by `columns` values.
    pub values: &'a [f32],
}

/// Longest side of a block: ids are 16 bits wide.
const LONGEST: usize = 1 << 16;

fn invalid(reason: impl core::fmt::Display) -> SparseError {
    SparseError::Format {
        format: "block panels",
        reason: reason.to_string(),
    }
}

impl TryFrom<RawPanels> for BlockPanels {
    type Error = SparseError;

    fn try_from(raw: RawPanels) -> Result<Self, SparseError> {
        Self::new(raw)
    }
}

/// `len + 1` pointers from 0 to `end` that do not fall.
fn check_pointers(name: &str, ptr: &[u32], len: usize, end: usize) -> Result<(), SparseError> {
    if ptr.len().checked_sub(1) != Some(len) {
        return Err(invalid(format!("{} {name} for {len} parts", ptr.len())));
    }
    if ptr[0] != 0 || ptr[len] as usize != end || ptr.windows(2).any(|pair| pair[0] > pair[1]) {
        return Err(invalid(format!("{name} do not rise from 0 to {end}")));
    }
    Ok(())
}

fn ascend_below(ids: &[u16], end: usize) -> bool {
    ids.windows(2).all(|pair| pair[0] < pair[1])
        && ids.last().is_none_or(|&last| usize::from(last) < end)
}

impl BlockPanels {
    /// Checks the invariants and takes the buffers.
    ///
    /// # Errors
    /// [`SparseError::Format`] naming the broken invariant, [`SparseError::Block`] for a block without
    /// rows or columns, [`SparseError::NonFinite`] for a NaN or an infinity.
    pub fn new(raw: RawPanels) -> Result<Self, SparseError> {
        let RawPanels {
            shape,
            block,
            block_ptr,
            row_ptr,
            rows,
            column_ptr,
            columns,
            values,
        } = raw;
        check_block(block)?;
        if values.len() > i32::MAX as usize || shape.iter().any(|&side| side > i32::MAX as usize) {
            return Err(invalid("more than 31 bits can count"));
        }
        let blocks = [0, 1].map(|axis| shape[axis].div_ceil(block[axis]));
        // As many as the file brings pointers for, so nothing is allocated for a bold claim.
        let Some(count) = blocks[0].checked_mul(blocks[1]) else {
            return Err(invalid("more blocks than memory can hold"));
        };
        let panels = row_ptr.len().saturating_sub(1);
        check_pointers("block pointers", &block_ptr, count, panels)?;
        check_pointers("row pointers", &row_ptr, panels, rows.len())?;
        check_pointers("column pointers", &column_ptr, panels, columns.len())?;
        let mut value_ptr = Vec::with_capacity(panels);
        let mut entries = 0;
        for index in 0..count {
            let at = [index / blocks[1], index % blocks[1]];
            let side = |axis: usize| block[axis].min(shape[axis] - at[axis] * block[axis]);
            let mut seen: Vec<u16> = Vec::new();
            for panel in block_ptr[index] as usize..block_ptr[index + 1] as usize {
                let rows = &rows[row_ptr[panel] as usize..row_ptr[panel + 1] as usize];
                let columns = &columns[column_ptr[panel] as usize..column_ptr[panel + 1] as usize];
                if rows.is_empty() || columns.is_empty() {
                    return Err(invalid(format!("panel {panel} is empty")));
                }
                if !ascend_below(rows, side(0)) || !ascend_below(columns, side(1)) {
                    let [height, width] = [side(0), side(1)];
                    return Err(invalid(format!(
                        "ids of panel {panel} do not ascend within their block of {height}×{width}"
                    )));
                }
                seen.extend_from_slice(rows);
                value_ptr.push(entries as u32);
                entries += rows.len() * columns.len();
            }
            seen.sort_unstable();
            if seen.windows(2).any(|pair| pair[0] == pair[1]) {
                return Err(invalid(format!("two panels of block {index} share a row")));
            }
        }
        if entries != values.len() {
            return Err(invalid(format!(
                "{} values for panels of {entries} entries",
                values.len()
            )));
        }
        check_finite(&values, "block panels")?;
        Ok(Self {
            shape,
            block,
            block_ptr,
            row_ptr,
            rows,
            column_ptr,
            columns,
            values,
            value_ptr,
        })
    }

    /// The panels of a matrix in blocks of `block`. Every stored entry is kept, stored zeros as well.
    ///
    /// # Errors
    /// [`SparseError::Block`] for a block without rows or columns, or with sides beyond 65,536.
    ///
    /// # Example
    /// ```
    /// use burn_sparse::format::{BlockPanels, Csr};
    ///
    /// let dense = [0., 5., 0., 1., 0., 0., 0., 0.,
    ///              0., 2., 0., 7., 3., 0., 0., 0.];
    /// let panels = BlockPanels::from_csr(&Csr::from_dense(&dense, [2, 8])?, [2, 4])?;
    /// let first = panels.panels(0).next().unwrap();
    /// assert_eq!((first.rows, first.columns), (&[0, 1][..], &[1, 3][..]));
    /// assert_eq!(panels.to_csr().to_dense(), dense);
    /// # Ok::<(), burn_sparse::SparseError>(())
    /// ```
    pub fn from_csr(csr: &Csr, block: [usize; 2]) -> Result<Self, SparseError> {
        check_block(block)?;
        let shape = [csr.rows(), csr.row_len()];
        let blocks = [0, 1].map(|axis| shape[axis].div_ceil(block[axis]));
        let mut panels = Self {
            shape,
            block,
            block_ptr: vec![0],
            row_ptr: vec![0],
            rows: Vec::new(),
            column_ptr: vec![0],
            columns: Vec::new(),
            values: Vec::with_capacity(csr.stored()),
            value_ptr: Vec::new(),
        };
        for band in 0..blocks[0] {
            let first = band * block[0];
            let members = first..(first + block[0]).min(csr.rows());
            let mut done = 0;
            for alike in alike(csr.row_ptr(), csr.columns(), members, block[1]) {
                let columns = &csr.columns()[alike.entries[0].clone()];
                let at = columns[0] as usize / block[1];
                // Blocks before this one are complete.
                (done..at).for_each(|_| panels.block_ptr.push(panels.row_ptr.len() as u32 - 1));
                done = at;
                let start = (at * block[1]) as u32;
                panels
                    .rows
                    .extend(alike.rows.iter().map(|&row| (row - first) as u16));
                panels.row_ptr.push(panels.rows.len() as u32);
                panels
                    .columns
                    .extend(columns.iter().map(|&column| (column - start) as u16));
                panels.column_ptr.push(panels.columns.len() as u32);
                panels.value_ptr.push(panels.values.len() as u32);
                for row in alike.entries {
                    panels.values.extend_from_slice(&csr.values()[row]);
                }
            }
            (done..blocks[1]).for_each(|_| panels.block_ptr.push(panels.row_ptr.len() as u32 - 1));
        }
        Ok(panels)
    }

    /// The same matrix as rows: every entry comes back, stored zeros as well.
    pub fn to_csr(&self) -> Csr {
        let mut rows: Vec<Vec<(u32, f32)>> = vec![Vec::new(); self.shape[0]];
        for panel in (0..self.blocks()).flat_map(|block| self.panels(block)) {
            let values = panel.values.chunks_exact(panel.columns.len());
            for (&row, values) in panel.rows.iter().zip(values) {
                let columns = panel
                    .columns
                    .iter()
                    .map(|&c| (panel.origin[1] + usize::from(c)) as u32);
                rows[panel.origin[0] + usize::from(row)]
                    .extend(columns.zip(values.iter().copied()));
            }
        }
        // Blocks of a band come in the order of their columns.
        super::csr::from_rows(self.shape, rows)
    }

    /// Rows of the matrix, and their length.
    pub fn shape(&self) -> [usize; 2] {
        self.shape
    }

    /// Rows and columns of a block.
    pub fn block(&self) -> [usize; 2] {
        self.block
    }

    /// Blocks, bands of rows outermost; those at the edges may be cut off.
    pub fn blocks(&self) -> usize {
        self.block_ptr.len() - 1
    }

    /// The panels of a block: none if it is empty.
    ///
    /// # Panics
    /// If there is no such block.
    pub fn panels(&self, block: usize) -> impl Iterator<Item = PanelView<'_>> + '_ {
        let across = self.shape[1].div_ceil(self.block[1]).max(1);
        let origin = [
            block / across * self.block[0],
            block % across * self.block[1],
        ];
        (self.block_ptr[block] as usize..self.block_ptr[block + 1] as usize).map(move |panel| {
            let rows = &self.rows[self.row_ptr[panel] as usize..self.row_ptr[panel + 1] as usize];
            let columns = self.column_ptr[panel] as usize..self.column_ptr[panel + 1] as usize;
            let columns = &self.columns[columns];
            let values = &self.values[self.value_ptr[panel] as usize..];
            PanelView {
                origin,
                rows,
                columns,
                values: &values[..rows.len() * columns.len()],
            }
        })
    }

    /// Stored entries.
    pub fn stored(&self) -> usize {
        self.values.len()
    }

    /// Bytes of everything but the values, of lists or of bits, whichever take fewer.
    ///
    /// Lists: each id as narrow as its block allows, one byte for sides up to 256, two beyond; one or two
    /// for the numbers of rows and columns of a panel, and for the number of panels of a block. Bits: one
    /// for each block, and for each panel one more and one for each row and column of its block, which is
    /// less of narrow blocks. [Checkpoints](crate::store) write either.
    pub fn index_bytes(&self) -> usize {
        let width = |side: usize| if side <= 256 { 1 } else { 2 };
        let [row, column] = self.block.map(width);
        let panels = self.row_ptr.len() - 1;
        let lists = self.rows.len() * row
            + self.columns.len() * column
            + panels * (row + column)
            + self.blocks() * row;
        let of_panel = |panel: PanelView<'_>| {
            let side = |axis: usize| self.block[axis].min(self.shape[axis] - panel.origin[axis]);
            1 + side(0) + side(1)
        };
        let bits: usize = (0..self.blocks())
            .map(|block| 1 + self.panels(block).map(of_panel).sum::<usize>())
            .sum();
        lists.min(bits.div_ceil(8))
    }
}

fn check_block(block: [usize; 2]) -> Result<(), SparseError> {
    if block.contains(&0) || block.iter().any(|&side| side > LONGEST) {
        return Err(SparseError::Block {
            block,
            weight: block
                .iter()
                .any(|&side| side > LONGEST)
                .then_some([LONGEST; 2]),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::testing::{bits, sparse_matrix};
    use super::*;

    fn raw(panels: &BlockPanels) -> RawPanels {
        serde_json::from_str(&serde_json::to_string(panels).unwrap()).unwrap()
    }

    proptest! {
        #[test]
        fn every_bit_and_every_stored_zero_comes_back(
            (dense, shape) in sparse_matrix(),
            block in [1usize..7, 1usize..9],
            equalise in any::<bool>(),
        ) {
            let csr = Csr::from_dense(&dense, shape).unwrap();
            let csr = if equalise { csr.equalised() } else { csr };
            let panels = BlockPanels::from_csr(&csr, block).unwrap();
            prop_assert_eq!(&panels.to_csr(), &csr);
            prop_assert_eq!(bits(&panels.to_csr().to_dense()), bits(&dense));
            prop_assert_eq!(panels.stored(), csr.stored());
            prop_assert_eq!(BlockPanels::new(raw(&panels)).unwrap(), panels);
        }
    }

    #[test]
    fn a_block_pruned_by_rows_and_columns_is_one_panel() {
        let mut dense = vec![0.0; 8 * 32];
        for row in [1, 4, 6] {
            for column in [0, 7, 16, 31] {
                dense[row * 32 + column] = (row * 32 + column) as f32 + 1.0;
            }
        }
        let csr = Csr::from_dense(&dense, [8, 32]).unwrap();
        let panels = BlockPanels::from_csr(&csr, [8, 32]).unwrap();
        let only: Vec<_> = panels.panels(0).collect();
        assert_eq!(only.len(), 1);
        assert_eq!(
            (only[0].rows, only[0].columns),
            (&[1, 4, 6][..], &[0, 7, 16, 31][..])
        );
        // A bit for the block, one for the panel, and one for each row and column.
        assert_eq!(panels.index_bytes(), (1 + 1 + 8 + 32usize).div_ceil(8));
        // The last band and the last block are smaller; most blocks are empty.
        let ragged = BlockPanels::from_csr(&csr, [3, 10]).unwrap();
        assert_eq!(ragged.blocks(), 3 * 4);
        assert_eq!(ragged.panels(2).count(), 0);
        assert_eq!(ragged.to_csr(), csr);
    }

    #[test]
    fn broken_invariants_are_named() {
        let csr = Csr::from_dense(&[1.0, 2.0, 0.0, 0.0, 3.0, 4.0], [2, 3]).unwrap();
        let good = BlockPanels::from_csr(&csr, [2, 2]).unwrap();
        type Break = fn(&mut RawPanels);
        let cases: [(&str, Break); 12] = [
            ("block pointers", |p| {
                p.block_ptr.truncate(p.block_ptr.len() - 1)
            }),
            ("block pointers", |p| p.block_ptr[1] = 9),
            ("block pointers", |p| p.shape = [1 << 30, 1 << 30]),
            ("31 bits", |p| p.shape = [usize::MAX, 1]),
            ("block pointers", |p| p.row_ptr.clear()),
            ("row pointers", |p| p.row_ptr[0] = 1),
            ("column pointers", |p| p.column_ptr[1] = 99),
            ("ascend", |p| p.columns[0] = 2),
            ("share a row", |p| p.rows[1] = 0),
            ("values", |p| p.values.truncate(p.values.len() - 1)),
            ("is NaN", |p| p.values[0] = f32::NAN),
            ("empty", |p| p.block = [0, 2]),
        ];
        for (reason, break_it) in cases {
            let mut parts = raw(&good);
            break_it(&mut parts);
            let error = BlockPanels::new(parts).unwrap_err().to_string();
            assert!(error.contains(reason), "{reason}: {error}");
        }
        assert!(BlockPanels::from_csr(&csr, [1, LONGEST + 1]).is_err());
        assert!(BlockPanels::from_csr(&csr, [0, 1]).is_err());
    }
}
