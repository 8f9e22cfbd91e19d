//! Rows that store the same columns.

use core::ops::Range;
use std::collections::HashMap;

/// Rows that store the same columns of a block, and where each of them stores them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Alike {
    /// The rows, in the order in which they were given.
    pub(crate) rows: Vec<usize>,
    /// The entries of each row in this block: as many for each.
    pub(crate) entries: Vec<Range<usize>>,
}

/// For each block of `width` columns of some rows of a matrix, the rows that store the same ones, in
/// the order of the blocks and of their first rows. Rows without an entry in a block are left out.
pub(crate) fn alike(
    row_ptr: &[u32],
    columns: &[u32],
    rows: impl Iterator<Item = usize> + Clone,
    width: usize,
) -> Vec<Alike> {
    let width = width.max(1);
    let mut next: Vec<usize> = rows.clone().map(|row| row_ptr[row] as usize).collect();
    let mut found = Vec::new();
    // The next block is that of the first column that any row has left.
    while let Some(column) = rows
        .clone()
        .zip(&next)
        .filter(|&(row, &at)| at < row_ptr[row + 1] as usize)
        .map(|(_, &at)| columns[at])
        .min()
    {
        let end = (column as usize / width + 1).saturating_mul(width);
        let mut known: HashMap<&[u32], usize> = HashMap::new();
        let mut of_block: Vec<Alike> = Vec::new();
        for (row, at) in rows.clone().zip(&mut next) {
            let rest = &columns[*at..row_ptr[row + 1] as usize];
            let stored = &rest[..rest.partition_point(|&column| (column as usize) < end)];
            if stored.is_empty() {
                continue;
            }
            let index = *known.entry(stored).or_insert_with(|| {
                of_block.push(Alike::default());
                of_block.len() - 1
            });
            of_block[index].rows.push(row);
            of_block[index].entries.push(*at..*at + stored.len());
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
        let (row_ptr, columns) = ([0, 3, 5, 8, 8], [1, 3, 6, 2, 6, 1, 3, 7]);
        let found = alike(&row_ptr, &columns, 0..4, 4);
        let rows: Vec<_> = found.iter().map(|alike| alike.rows.clone()).collect();
        assert_eq!(rows, [vec![0, 2], vec![1], vec![0, 1], vec![2]]);
        assert_eq!(found[0].entries, [0..2, 5..7]);
        assert_eq!(found[2].entries, [2..3, 4..5]);
        // One block: no two agree.
        assert_eq!(alike(&row_ptr, &columns, 0..4, usize::MAX).len(), 3);
        assert!(alike(&row_ptr, &columns, 3..4, 4).is_empty());
    }
}
