//! The columns of each row, as an index that is being read names them.

/// Columns of all rows of a matrix, never more of them than there are values.
pub(super) struct Rows {
    columns: Vec<Vec<u32>>,
    stored: usize,
    entries: usize,
}

impl Rows {
    /// Of a matrix of so many rows and stored entries, none of them named yet.
    pub(super) fn new(rows: usize, stored: usize) -> Self {
        Self {
            columns: vec![Vec::new(); rows],
            stored,
            entries: 0,
        }
    }

    /// Adds the same columns, of which `len` are given, to some rows.
    pub(super) fn add(
        &mut self,
        rows: &[usize],
        len: usize,
        columns: impl Iterator<Item = usize> + Clone,
    ) -> Result<(), String> {
        self.entries = self.entries.saturating_add(rows.len().saturating_mul(len));
        if self.entries > self.stored {
            return Err(format!("its index names more than {} entries", self.stored));
        }
        for &row in rows {
            let columns = columns.clone().map(|column| column as u32);
            self.columns[row].extend(columns);
        }
        Ok(())
    }

    /// Row pointers and columns.
    pub(super) fn finish(self) -> Result<(Vec<u32>, Vec<u32>), String> {
        let Self {
            columns,
            stored,
            entries,
        } = self;
        if entries != stored {
            return Err(format!("its index names {entries} entries, not {stored}"));
        }
        let ends = columns.iter().scan(0, |end, row| {
            *end += row.len() as u32;
            Some(*end)
        });
        let row_ptr = core::iter::once(0).chain(ends).collect();
        Ok((row_ptr, columns.into_iter().flatten().collect()))
    }
}
