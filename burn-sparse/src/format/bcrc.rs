//! Rows with the same columns, their columns held once.

use serde::{Deserialize, Serialize};

use super::{Csr, alike::alike, csr::check_finite};
use crate::SparseError;

/// Block column-row compact: rows are reordered so that those with the same columns follow each
/// other, and each list of columns is held once (Niu et al., "GRIM", TPAMI 2021, section 4.3).
///
/// ```text
/// [ 0 5 0 1 ]      reorder         0 2 1      rows 0 and 2 store the same columns
/// [ 2 0 7 3 ]      occurrence      0 2 3      the first stored row of each group
/// [ 0 4 0 6 ]      column_ptr      0 2 5      where its columns start
///                  columns         1 3 | 0 2 3
///                  values          5 1 | 4 6 | 2 7 3
/// ```
///
/// A stored row starts where its group's rows before it end, so no offset of rows is held. Where rows
/// are pruned block by block, lists of columns of whole rows seldom agree, and this becomes
/// [`Csr`] with another order; [`BlockPanels`](super::BlockPanels) are the form for those.
///
/// # Invariants
/// Checked by every constructor and by deserialising: `reorder` is a permutation of the rows;
/// `occurrence` rises from 0 to their number and `column_ptr` from 0 to the number of columns, with as
/// many entries; columns ascend strictly within a group and lie below `row_len`; values are finite,
/// and there are as many as rows and columns of the groups say, at most `i32::MAX`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "RawBcrc")]
pub struct Bcrc {
    row_len: usize,
    reorder: Vec<u32>,
    occurrence: Vec<u32>,
    column_ptr: Vec<u32>,
    columns: Vec<u32>,
    values: Vec<f32>,
}

/// The parts of a [`Bcrc`], not checked yet.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct RawBcrc {
    /// Weights of a row, zeros included.
    pub row_len: usize,
    /// The row of the matrix that each stored row is.
    pub reorder: Vec<u32>,
    /// The first stored row of each group, and the number of rows.
    pub occurrence: Vec<u32>,
    /// Where the columns of each group start, and their number.
    pub column_ptr: Vec<u32>,
    /// Columns, group by group.
    pub columns: Vec<u32>,
    /// Values, stored row by stored row.
    pub values: Vec<f32>,
}

fn invalid(reason: impl core::fmt::Display) -> SparseError {
    SparseError::Format {
        format: "BCRC",
        reason: reason.to_string(),
    }
}

impl TryFrom<RawBcrc> for Bcrc {
    type Error = SparseError;

    fn try_from(raw: RawBcrc) -> Result<Self, SparseError> {
        Self::new(raw)
    }
}

impl Bcrc {
    /// Checks the invariants and takes the buffers.
    ///
    /// # Errors
    /// [`SparseError::Format`] naming the broken invariant, [`SparseError::NonFinite`] for a NaN or an
    /// infinity.
    pub fn new(raw: RawBcrc) -> Result<Self, SparseError> {
        let RawBcrc {
            row_len,
            reorder,
            occurrence,
            column_ptr,
            columns,
            values,
        } = raw;
        if values.len() > i32::MAX as usize || row_len > i32::MAX as usize {
            return Err(invalid("more than 31 bits can count"));
        }
        let mut sorted = reorder.clone();
        sorted.sort_unstable();
        if sorted.iter().zip(0..).any(|(&row, index)| row != index) {
            return Err(invalid("the order of rows is no permutation"));
        }
        let rises = |ptr: &[u32], end: usize| {
            ptr.first() == Some(&0)
                && ptr.last().is_some_and(|&last| last as usize == end)
                && ptr.windows(2).all(|pair| pair[0] <= pair[1])
        };
        if !rises(&occurrence, reorder.len()) {
            return Err(invalid("occurrences do not rise to the number of rows"));
        }
        if column_ptr.len() != occurrence.len() || !rises(&column_ptr, columns.len()) {
            return Err(invalid(
                "column pointers do not rise to the number of columns",
            ));
        }
        let mut entries = 0usize;
        for (group, (rows, list)) in occurrence.windows(2).zip(column_ptr.windows(2)).enumerate() {
            let list = &columns[list[0] as usize..list[1] as usize];
            if list.windows(2).any(|pair| pair[0] >= pair[1])
                || list.last().is_some_and(|&last| last as usize >= row_len)
            {
                return Err(invalid(format!(
                    "columns of group {group} do not ascend below {row_len}"
                )));
            }
            entries = entries.saturating_add((rows[1] - rows[0]) as usize * list.len());
        }
        if entries != values.len() {
            return Err(invalid(format!(
                "{} values for {entries} entries",
                values.len()
            )));
        }
        check_finite(&values, "a BCRC matrix")?;
        Ok(Self {
            row_len,
            reorder,
            occurrence,
            column_ptr,
            columns,
            values,
        })
    }

    /// Groups the rows of a matrix. Every stored entry is kept, stored zeros as well; rows without any
    /// entry form the last group.
    ///
    /// # Example
    /// ```
    /// use burn_sparse::format::{Bcrc, Csr};
    ///
    /// let dense = [0., 5., 0., 1., 2., 0., 7., 3., 0., 4., 0., 6.];
    /// let bcrc = Bcrc::from_csr(&Csr::from_dense(&dense, [3, 4])?);
    /// assert_eq!((bcrc.reorder(), bcrc.groups()), (&[0, 2, 1][..], 2));
    /// assert_eq!(bcrc.to_csr().to_dense(), dense);
    /// # Ok::<(), burn_sparse::SparseError>(())
    /// ```
    pub fn from_csr(csr: &Csr) -> Self {
        let mut bcrc = Self {
            row_len: csr.row_len(),
            reorder: Vec::with_capacity(csr.rows()),
            occurrence: vec![0],
            column_ptr: vec![0],
            columns: Vec::new(),
            values: Vec::with_capacity(csr.stored()),
        };
        for alike in alike(csr.row_ptr(), csr.columns(), 0..csr.rows(), usize::MAX) {
            bcrc.columns
                .extend_from_slice(&csr.columns()[alike.entries[0].clone()]);
            for row in &alike.entries {
                bcrc.values.extend_from_slice(&csr.values()[row.clone()]);
            }
            bcrc.close(alike.rows);
        }
        let empty: Vec<usize> = (0..csr.rows())
            .filter(|&row| csr.row_nnz(row) == 0)
            .collect();
        if !empty.is_empty() {
            bcrc.close(empty);
        }
        bcrc
    }

    fn close(&mut self, rows: Vec<usize>) {
        self.reorder.extend(rows.into_iter().map(|row| row as u32));
        self.occurrence.push(self.reorder.len() as u32);
        self.column_ptr.push(self.columns.len() as u32);
    }

    /// The same matrix in its own order of rows.
    pub fn to_csr(&self) -> Csr {
        let mut rows: Vec<Vec<(u32, f32)>> = vec![Vec::new(); self.reorder.len()];
        let mut values = self.values.as_slice();
        for group in 0..self.groups() {
            let columns = self.columns_of(group);
            for stored in self.rows_of(group) {
                let (own, rest) = values.split_at(columns.len());
                values = rest;
                rows[stored as usize] = columns.iter().copied().zip(own.iter().copied()).collect();
            }
        }
        super::csr::from_rows([self.reorder.len(), self.row_len], rows)
    }

    /// The row of the matrix that each stored row is.
    pub fn reorder(&self) -> &[u32] {
        &self.reorder
    }

    /// Groups of rows with the same columns.
    pub fn groups(&self) -> usize {
        self.occurrence.len() - 1
    }

    /// The rows of a group, as the matrix counts them.
    ///
    /// # Panics
    /// If there is no such group.
    pub fn rows_of(&self, group: usize) -> impl Iterator<Item = u32> + '_ {
        let stored = self.occurrence[group] as usize..self.occurrence[group + 1] as usize;
        self.reorder[stored].iter().copied()
    }

    /// The columns that all rows of a group store.
    ///
    /// # Panics
    /// If there is no such group.
    pub fn columns_of(&self, group: usize) -> &[u32] {
        &self.columns[self.column_ptr[group] as usize..self.column_ptr[group + 1] as usize]
    }

    /// Values, stored row by stored row.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// Bytes of everything but the values: two for a row or column number below 65,536, else four.
    pub fn index_bytes(&self) -> usize {
        let width = |len: usize| if len <= 1 << 16 { 2 } else { 4 };
        let row = width(self.reorder.len());
        self.reorder.len() * row
            + self.occurrence.len() * row
            + self.column_ptr.len() * width(self.columns.len())
            + self.columns.len() * width(self.row_len)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::testing::{bits, sparse_matrix};
    use super::*;

    fn raw(bcrc: &Bcrc) -> RawBcrc {
        serde_json::from_str(&serde_json::to_string(bcrc).unwrap()).unwrap()
    }

    proptest! {
        #[test]
        fn every_bit_and_every_stored_zero_comes_back(
            (dense, shape) in sparse_matrix(),
            equalise in any::<bool>(),
        ) {
            let csr = Csr::from_dense(&dense, shape).unwrap();
            let csr = if equalise { csr.equalised() } else { csr };
            let bcrc = Bcrc::from_csr(&csr);
            prop_assert_eq!(&bcrc.to_csr(), &csr);
            prop_assert_eq!(bits(&bcrc.to_csr().to_dense()), bits(&dense));
            prop_assert_eq!(Bcrc::new(raw(&bcrc)).unwrap(), bcrc);
        }
    }

    /// 512 × 512 at 90 %, columns pruned for each band: bytes of the index against those of CSR.
    #[test]
    fn bands_that_share_columns_need_a_fraction_of_the_index() {
        for (band, most) in [(4, 0.30), (8, 0.20), (16, 0.20), (32, 0.20)] {
            let dense: Vec<f32> = (0..512usize * 512)
                .map(|i| {
                    let (row, column) = (i / 512, i % 512);
                    let kept = (column * 7919 + row / band * 104_729) % 512 < 51;
                    f32::from(u8::from(kept))
                })
                .collect();
            let csr = Csr::from_dense(&dense, [512, 512]).unwrap();
            let rows = 2 * csr.columns().len() + 4 * csr.row_ptr().len();
            let ratio = Bcrc::from_csr(&csr).index_bytes() as f64 / rows as f64;
            assert!(ratio <= most, "bands of {band}: {ratio}");
        }
    }

    #[test]
    fn broken_invariants_are_named() {
        let csr = Csr::from_dense(&[1.0, 2.0, 0.0, 0.0, 3.0, 4.0], [2, 3]).unwrap();
        let good = Bcrc::from_csr(&csr);
        type Break = fn(&mut RawBcrc);
        let cases: [(&str, Break); 9] = [
            ("permutation", |b| b.reorder[0] = 1),
            ("permutation", |b| b.reorder[0] = 9),
            ("occurrences", |b| b.occurrence.clear()),
            ("occurrences", |b| b.occurrence[1] = 9),
            ("column pointers", |b| {
                b.column_ptr.truncate(b.column_ptr.len() - 1)
            }),
            ("ascend", |b| b.columns[0] = 2),
            ("ascend", |b| b.row_len = 1),
            ("values", |b| b.values.truncate(b.values.len() - 1)),
            ("is NaN", |b| b.values[0] = f32::NAN),
        ];
        for (reason, break_it) in cases {
            let mut parts = raw(&good);
            break_it(&mut parts);
            let error = Bcrc::new(parts).unwrap_err().to_string();
            assert!(error.contains(reason), "{reason}: {error}");
        }
    }
}
