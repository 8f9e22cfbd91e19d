//! Compressed sparse rows, one row per output channel.

use serde::{Deserialize, Serialize};

use crate::{ConvProblem, SparseError, Sparsity};

/// A weight matrix of `rows` output channels by `row_len` weights, holding only its non-zeros.
///
/// For a convolution the column of weight `(c, r, s)` is `(c * R + r) * S + s`, for a linear layer
/// the input feature. The matrix
///
/// ```text
/// [ 5 0 0 1 ]      values   5 1 | 2 | 7 3
/// [ 0 2 0 0 ]      columns  0 3 | 1 | 1 2
/// [ 0 7 3 0 ]      row_ptr  0 2 3 5
/// ```
///
/// has `nnz` 5. After [`equalised`](Self::equalised) every row has the same number of entries, the
/// form of Pietroń and Żurek (section 3.2): short rows gain stored zeros next to their entries.
///
/// # Invariants
/// Checked by every constructor and by deserialising:
/// - `row_ptr` has `rows + 1` entries, starts at 0, never falls and ends at `values.len()`;
/// - `columns` is as long as `values`, ascends strictly within a row and stays below `row_len`;
/// - values are finite, and there are at most `i32::MAX` of them (indices are 32-bit on devices).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "RawCsr")]
pub struct Csr {
    rows: usize,
    row_len: usize,
    row_ptr: Vec<u32>,
    columns: Vec<u32>,
    values: Vec<f32>,
}

#[derive(Deserialize)]
struct RawCsr {
    rows: usize,
    row_len: usize,
    row_ptr: Vec<u32>,
    columns: Vec<u32>,
    values: Vec<f32>,
}

impl TryFrom<RawCsr> for Csr {
    type Error = SparseError;

    fn try_from(raw: RawCsr) -> Result<Self, SparseError> {
        Self::new(
            [raw.rows, raw.row_len],
            raw.row_ptr,
            raw.columns,
            raw.values,
        )
    }
}

fn invalid(reason: String) -> SparseError {
    SparseError::Format {
        format: "CSR",
        reason,
    }
}

impl Csr {
    /// Checks the invariants and takes the buffers.
    ///
    /// # Errors
    /// [`SparseError::Format`] naming the broken invariant, [`SparseError::NonFinite`] for a NaN
    /// or an infinity.
    pub fn new(
        [rows, row_len]: [usize; 2],
        row_ptr: Vec<u32>,
        columns: Vec<u32>,
        values: Vec<f32>,
    ) -> Result<Self, SparseError> {
        if values.len() > i32::MAX as usize || row_len > i32::MAX as usize {
            return Err(invalid(format!(
                "{} entries in rows of {row_len}; indices are 32-bit",
                values.len()
            )));
        }
        if row_ptr.len().checked_sub(1) != Some(rows) {
            return Err(invalid(format!(
                "{} row pointers for {rows} rows",
                row_ptr.len()
            )));
        }
        if columns.len() != values.len() {
            return Err(invalid(format!(
                "{} columns, {} values",
                columns.len(),
                values.len()
            )));
        }
        if row_ptr[0] != 0 || row_ptr[rows] as usize != values.len() {
            return Err(invalid(format!(
                "row pointers run from {} to {}, values from 0 to {}",
                row_ptr[0],
                row_ptr[rows],
                values.len()
            )));
        }
        if let Some(row) = row_ptr.windows(2).position(|pair| pair[0] > pair[1]) {
            return Err(invalid(format!("row pointers fall after row {row}")));
        }
        for row in 0..rows {
            let row_columns = &columns[row_ptr[row] as usize..row_ptr[row + 1] as usize];
            if row_columns.windows(2).any(|pair| pair[0] >= pair[1]) {
                return Err(invalid(format!("columns of row {row} do not ascend")));
            }
            if row_columns
                .last()
                .is_some_and(|&last| last as usize >= row_len)
            {
                return Err(invalid(format!(
                    "row {row} has column {}, rows are {row_len} long",
                    row_columns[row_columns.len() - 1]
                )));
            }
        }
        check_finite(&values, "a CSR matrix")?;
        Ok(Self {
            rows,
            row_len,
            row_ptr,
            columns,
            values,
        })
    }

    /// Keeps what is not positive zero of a dense row-major matrix, so that
    /// [`to_dense`](Self::to_dense) gives every bit back, the sign of `-0.0` included.
    ///
    /// # Errors
    /// [`SparseError::Shape`] when the length is not `rows * row_len`,
    /// [`SparseError::NonFinite`] for a NaN or an infinity.
    ///
    /// # Example
    /// ```
    /// use burn_sparse::format::Csr;
    ///
    /// let dense = [5.0, 0.0, 0.0, 1.0, 0.0, 2.0, 0.0, 0.0, 0.0, 7.0, 3.0, 0.0];
    /// let csr = Csr::from_dense(&dense, [3, 4])?;
    /// assert_eq!(csr.nnz(), 5);
    /// assert_eq!(csr.row_ptr(), [0, 2, 3, 5]);
    /// assert_eq!(csr.to_dense(), dense);
    /// # Ok::<(), burn_sparse::SparseError>(())
    /// ```
    pub fn from_dense(dense: &[f32], [rows, row_len]: [usize; 2]) -> Result<Self, SparseError> {
        if rows.checked_mul(row_len) != Some(dense.len()) {
            return Err(SparseError::shape(format!(
                "{} weights do not make {rows} rows of {row_len}",
                dense.len()
            )));
        }
        let mut row_ptr = Vec::with_capacity(rows + 1);
        let (mut columns, mut values) = (Vec::new(), Vec::new());
        row_ptr.push(0);
        for row in 0..rows {
            for (column, &value) in dense[row * row_len..][..row_len].iter().enumerate() {
                if value.to_bits() != 0 {
                    columns.push(column as u32);
                    values.push(value);
                }
            }
            row_ptr.push(values.len() as u32);
        }
        Self::new([rows, row_len], row_ptr, columns, values)
    }

    /// The dense row-major matrix.
    pub fn to_dense(&self) -> Vec<f32> {
        let mut dense = vec![0.0; self.rows * self.row_len];
        for row in 0..self.rows {
            for (column, value) in self.row(row) {
                dense[row * self.row_len + column] = value;
            }
        }
        dense
    }

    /// The same matrix with equally many entries in every row: rows shorter than the longest gain
    /// explicit zeros in the free columns nearest after (then before) their entries, so that the
    /// added loads hit cache lines that the row reads anyway.
    ///
    /// Prefer training with [`Sparsity::RowBalanced`], which leaves nothing to add.
    #[must_use]
    pub fn equalised(&self) -> Self {
        let target = (0..self.rows)
            .map(|row| self.row_nnz(row))
            .max()
            .unwrap_or(0);
        let mut row_ptr = Vec::with_capacity(self.rows + 1);
        let (mut columns, mut values) = (Vec::new(), Vec::new());
        row_ptr.push(0u32);
        let mut taken = vec![false; self.row_len];
        for row in 0..self.rows {
            let mut entries: Vec<(usize, f32)> = self.row(row).collect();
            entries.iter().for_each(|&(column, _)| taken[column] = true);
            let anchors: Vec<usize> = entries.iter().map(|&(column, _)| column).collect();
            let mut add = |column: usize, entries: &mut Vec<(usize, f32)>| {
                if entries.len() < target && !taken[column] {
                    taken[column] = true;
                    entries.push((column, 0.0));
                }
            };
            for distance in 1..=self.row_len {
                for &anchor in &anchors {
                    if anchor + distance < self.row_len {
                        add(anchor + distance, &mut entries);
                    }
                    if anchor >= distance {
                        add(anchor - distance, &mut entries);
                    }
                }
                if entries.len() == target {
                    break;
                }
            }
            // An empty row has no entries to stand next to.
            (0..self.row_len).for_each(|column| add(column, &mut entries));
            entries.sort_unstable_by_key(|&(column, _)| column);
            for (column, value) in entries {
                taken[column] = false;
                columns.push(column as u32);
                values.push(value);
            }
            row_ptr.push(values.len() as u32);
        }
        Self {
            rows: self.rows,
            row_len: self.row_len,
            row_ptr,
            columns,
            values,
        }
    }

    /// Output channels.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Weights of an output channel, zeros included.
    pub fn row_len(&self) -> usize {
        self.row_len
    }

    /// Where each row starts in [`values`](Self::values); `rows + 1` entries.
    pub fn row_ptr(&self) -> &[u32] {
        &self.row_ptr
    }

    /// Column of each entry.
    pub fn columns(&self) -> &[u32] {
        &self.columns
    }

    /// Value of each entry.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// Entries of a row as `(column, value)`.
    pub fn row(&self, row: usize) -> impl Iterator<Item = (usize, f32)> + '_ {
        let range = self.row_ptr[row] as usize..self.row_ptr[row + 1] as usize;
        self.columns[range.clone()]
            .iter()
            .map(|&c| c as usize)
            .zip(self.values[range].iter().copied())
    }

    /// Stored entries of a row.
    pub fn row_nnz(&self, row: usize) -> usize {
        (self.row_ptr[row + 1] - self.row_ptr[row]) as usize
    }

    /// True non-zeros: stored zeros do not count.
    pub fn nnz(&self) -> usize {
        self.values.iter().filter(|&&value| value != 0.0).count()
    }

    /// Stored entries, the zeros of [`equalised`](Self::equalised) included.
    pub fn stored(&self) -> usize {
        self.values.len()
    }

    /// `nnz / (rows * row_len)`; 0 for an empty matrix.
    pub fn density(&self) -> f64 {
        let total = self.rows * self.row_len;
        if total == 0 {
            0.0
        } else {
            self.nnz() as f64 / total as f64
        }
    }

    /// The number of entries that every row has, if it is the same.
    pub fn nnz_per_row(&self) -> Option<usize> {
        let first = (self.rows > 0).then(|| self.row_nnz(0))?;
        (1..self.rows)
            .all(|row| self.row_nnz(row) == first)
            .then_some(first)
    }

    /// How many neighbouring rows (4, 2 or 1) have so nearly the same columns that they are worth
    /// running as one: with stored zeros where they differ, at most a sixteenth more entries. Rows
    /// pruned in blocks that share a pattern do, and so do the rows of a dense matrix.
    pub fn shared_rows(&self) -> usize {
        [4, 2]
            .into_iter()
            .find(|&rows| {
                let stored = self.stored_in_blocks(rows);
                stored > 0 && 16 * (stored - self.stored().min(stored)) <= self.stored()
            })
            .unwrap_or(1)
    }

    /// Entries if blocks of `rows` neighbouring rows store the columns of all their rows.
    pub fn stored_in_blocks(&self, rows: usize) -> usize {
        let mut seen = vec![usize::MAX; self.row_len];
        (0..self.rows.div_ceil(rows.max(1)))
            .map(|block| {
                let members = block * rows..((block + 1) * rows).min(self.rows);
                let columns = self.row_ptr[members.start]..self.row_ptr[members.end];
                let mut union = 0;
                for &column in &self.columns[columns.start as usize..columns.end as usize] {
                    let seen = &mut seen[column as usize];
                    union += usize::from(*seen != block);
                    *seen = block;
                }
                union * members.len()
            })
            .sum()
    }

    /// The tightest [`Sparsity`] this matrix satisfies.
    pub fn sparsity(&self) -> Sparsity {
        use crate::Budget;
        match self.nnz_per_row() {
            Some(nnz) => Sparsity::RowBalanced(Budget::Nnz(nnz)),
            None => Sparsity::Unstructured(Budget::Nnz(self.stored())),
        }
    }

    /// Offsets of all entries into the stretched input of `problem` (see
    /// [`Stretched`](crate::problem::Stretched)), computed once for a layer and an input size.
    ///
    /// # Errors
    /// [`SparseError::Shape`] when the matrix is not the weight of `problem`, or when an offset
    /// does not fit 31 bits.
    pub fn offsets(&self, problem: &ConvProblem) -> Result<Vec<u32>, SparseError> {
        problem.check()?;
        if [self.rows, self.row_len] != [problem.out_channels, problem.row_len()] {
            return Err(SparseError::shape(format!(
                "a packed weight of {} rows by {} is not the weight {:?} of this convolution",
                self.rows,
                self.row_len,
                problem.weight_shape()
            )));
        }
        let layout = problem.stretched();
        let image = problem.in_channels.checked_mul(layout.channel_stride());
        if image.is_none_or(|len| len > i32::MAX as usize) {
            return Err(SparseError::shape(format!(
                "an image of {:?} stretched for this convolution exceeds 31-bit offsets",
                problem.input_shape()
            )));
        }
        let channels = problem.in_channels / problem.groups;
        let rows_per_group = self.rows / problem.groups;
        let mut offsets = Vec::with_capacity(self.stored());
        for row in 0..self.rows {
            let group = row / rows_per_group;
            offsets.extend(
                self.row(row)
                    .map(|(c, _)| layout.column_offset(c, group, channels) as u32),
            );
        }
        Ok(offsets)
    }
}

/// A matrix from the entries of each row, ascending and finite.
pub(super) fn from_rows([rows, row_len]: [usize; 2], entries: Vec<Vec<(u32, f32)>>) -> Csr {
    debug_assert_eq!(rows, entries.len());
    let ends = entries.iter().scan(0, |end, row| {
        *end += row.len() as u32;
        Some(*end)
    });
    let row_ptr = core::iter::once(0).chain(ends).collect();
    let (columns, values) = entries.into_iter().flatten().unzip();
    Csr {
        rows,
        row_len,
        row_ptr,
        columns,
        values,
    }
}

/// Refuses the first value that is not finite.
pub(crate) fn check_finite(values: &[f32], what: &str) -> Result<(), SparseError> {
    match values.iter().position(|value| !value.is_finite()) {
        None => Ok(()),
        Some(index) => Err(SparseError::NonFinite {
            index,
            value: values[index],
            what: what.to_string(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::testing::{bits, sparse_matrix};
    use super::*;

    proptest! {
        #[test]
        fn dense_csr_dense_is_bit_equal((dense, shape) in sparse_matrix()) {
            let csr = Csr::from_dense(&dense, shape).unwrap();
            prop_assert_eq!(bits(&csr.to_dense()), bits(&dense));
            prop_assert_eq!(csr.nnz(), dense.iter().filter(|&&v| v != 0.0).count());
        }

        #[test]
        fn equal_rows_change_nothing_but_their_length((dense, shape) in sparse_matrix()) {
            let csr = Csr::from_dense(&dense, shape).unwrap();
            let equal = csr.equalised();
            prop_assert_eq!(bits(&equal.to_dense()), bits(&dense));
            prop_assert_eq!(equal.nnz(), csr.nnz());
            if shape[0] > 0 {
                let longest = (0..shape[0]).map(|row| csr.row_nnz(row)).max();
                prop_assert_eq!(equal.nnz_per_row(), longest);
            }
            // Still a valid matrix for the checking constructor.
            let Csr { rows, row_len, row_ptr, columns, values } = equal;
            prop_assert!(Csr::new([rows, row_len], row_ptr, columns, values).is_ok());
        }

        #[test]
        fn json_round_trip_validates((dense, shape) in sparse_matrix()) {
            let csr = Csr::from_dense(&dense, shape).unwrap();
            let json = serde_json::to_string(&csr).unwrap();
            prop_assert_eq!(serde_json::from_str::<Csr>(&json).unwrap(), csr);
        }
    }

    #[test]
    fn broken_invariants_are_named() {
        let wrong: [(&str, Result<Csr, SparseError>); 8] = [
            (
                "row pointers for",
                Csr::new([2, 3], vec![0, 1], vec![0], vec![1.0]),
            ),
            ("row pointers for", Csr::new([0, 3], vec![], vec![], vec![])),
            (
                "columns",
                Csr::new([1, 3], vec![0, 1], vec![0, 1], vec![1.0]),
            ),
            (
                "row pointers run",
                Csr::new([1, 3], vec![0, 2], vec![0], vec![1.0]),
            ),
            ("fall", Csr::new([2, 3], vec![0, 2, 1], vec![0], vec![1.0])),
            (
                "ascend",
                Csr::new([1, 3], vec![0, 2], vec![1, 1], vec![1.0, 2.0]),
            ),
            (
                "rows are 3 long",
                Csr::new([1, 3], vec![0, 1], vec![3], vec![1.0]),
            ),
            (
                "finite",
                Csr::new([1, 3], vec![0, 1], vec![2], vec![f32::NAN]),
            ),
        ];
        for (part, result) in wrong {
            let error = result.unwrap_err().to_string();
            assert!(error.contains(part), "{error:?} should mention {part:?}");
        }
        let json = r#"{"rows":1,"row_len":2,"row_ptr":[0,1],"columns":[9],"values":[1.0]}"#;
        assert!(serde_json::from_str::<Csr>(json).is_err());
    }

    #[test]
    fn rows_that_share_positions_are_found() {
        let csr = |dense: &[f32], shape| Csr::from_dense(dense, shape).unwrap();
        let row = [0., 2., 0., 0., 3., 0.];
        let shared = csr(&[row; 5].concat(), [5, 6]);
        assert_eq!(shared.shared_rows(), 4);
        // The last block has one row, and stores nothing for others.
        assert_eq!(shared.stored_in_blocks(4), 10);
        let mut pairs = [row; 4].concat();
        pairs[12..].rotate_right(1);
        assert_eq!(csr(&pairs, [4, 6]).shared_rows(), 2);
        assert_eq!(csr(&pairs, [4, 6]).stored_in_blocks(4), 16);
        let own = [1., 0., 0., 0., 0., 1., 1., 0., 0.];
        assert_eq!(csr(&own, [3, 3]).shared_rows(), 1);
        assert_eq!(csr(&[0.0; 12], [4, 3]).shared_rows(), 1);
        assert_eq!(csr(&[1.0; 12], [4, 3]).shared_rows(), 4);
    }

    #[test]
    fn fillers_stand_next_to_entries() {
        let dense = [0., 0., 1., 0., 0., 0., 1., 1., 0., 1., 0., 0.];
        let equal = Csr::from_dense(&dense, [2, 6]).unwrap().equalised();
        assert_eq!(equal.columns(), [1, 2, 3, 0, 1, 3]);
        assert_eq!(equal.nnz(), 4);
        assert_eq!(equal.stored(), 6);
    }
}
