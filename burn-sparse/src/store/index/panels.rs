//! Where entries are, told by the panels of blocks.
//!
//! All numbers are LEB128: seven bits to a byte, the lowest first, the highest bit set in all but the
//! last. First come the rows and columns of a block. Then, for each block of the matrix (bands of rows
//! outermost), the number of its panels; for each panel the number of its rows, the rows, the number
//! of its columns and the columns. Rows and columns count from the start of their block; the first
//! stands as it is, each other as the number of those left out before it.

use crate::format::{BlockPanels, Csr};

use super::rows::Rows;

fn put(out: &mut Vec<u8>, mut number: usize) {
    while number > 0x7f {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn put_ids(out: &mut Vec<u8>, ids: &[u16]) {
    put(out, ids.len());
    let mut next = 0;
    for id in ids.iter().map(|&id| usize::from(id)) {
        put(out, id - next);
        next = id + 1;
    }
}

/// The index of a matrix whose panels lie in blocks of `block`; of none that panels cannot hold.
pub(super) fn encode(csr: &Csr, block: [usize; 2]) -> Option<Vec<u8>> {
    let panels = BlockPanels::from_csr(csr, block).ok()?;
    let mut out = Vec::new();
    put(&mut out, block[0]);
    put(&mut out, block[1]);
    for block in 0..panels.blocks() {
        put(&mut out, panels.panels(block).count());
        for panel in panels.panels(block) {
            put_ids(&mut out, panel.rows);
            put_ids(&mut out, panel.columns);
        }
    }
    Some(out)
}

struct Reader<'a> {
    bytes: &'a [u8],
}

impl Reader<'_> {
    fn number(&mut self) -> Result<usize, String> {
        let mut number = 0;
        for shift in (0..28).step_by(7) {
            let (&byte, rest) = self.bytes.split_first().ok_or("its index ends early")?;
            self.bytes = rest;
            number |= usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err("its index holds a number that is too large".to_owned())
    }

    /// Ascending ids below `end`, at least one.
    fn ids(&mut self, end: usize) -> Result<Vec<usize>, String> {
        let count = self.number()?;
        if count == 0 || count > end || count > self.bytes.len() {
            return Err(format!("its index names {count} of {end} rows or columns"));
        }
        let mut ids = Vec::with_capacity(count);
        let mut next = 0;
        for _ in 0..count {
            let id = next + self.number()?;
            if id >= end {
                return Err(format!("its index names row or column {id} of {end}"));
            }
            ids.push(id);
            next = id + 1;
        }
        Ok(ids)
    }
}

/// Row pointers and columns of a matrix of `stored` entries; the reason if this is not its index.
/// That columns ascend in a row is left to the constructor of the matrix.
pub(super) fn decode(
    bytes: &[u8],
    [rows, row_len]: [usize; 2],
    stored: usize,
) -> Result<(Vec<u32>, Vec<u32>), String> {
    let mut reader = Reader { bytes };
    let block = [reader.number()?, reader.number()?];
    if block.contains(&0) {
        return Err("its index has blocks without rows or columns".to_owned());
    }
    let across = row_len.div_ceil(block[1]);
    let blocks = rows.div_ceil(block[0]).saturating_mul(across);
    // Each block takes a byte at least.
    if blocks > reader.bytes.len() {
        return Err(format!("its index is too short for {blocks} blocks"));
    }
    let mut found = Rows::new(rows, stored);
    for index in 0..blocks {
        let start = [index / across * block[0], index % across * block[1]];
        let side = [
            block[0].min(rows - start[0]),
            block[1].min(row_len - start[1]),
        ];
        for _ in 0..reader.number()? {
            let mut of_rows = reader.ids(side[0])?;
            let of_columns = reader.ids(side[1])?;
            of_rows.iter_mut().for_each(|row| *row += start[0]);
            let columns = of_columns.iter().map(|column| start[1] + column);
            found.add(&of_rows, of_columns.len(), columns)?;
        }
    }
    if !reader.bytes.is_empty() {
        let left = reader.bytes.len();
        return Err(format!("{left} bytes are left over after its index"));
    }
    found.finish()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::testing::csr;
    use super::*;

    fn side() -> impl Strategy<Value = [usize; 2]> {
        let wide = prop_oneof![1usize..12, Just(150), Just(65536)];
        (1usize..12, wide).prop_map(|(height, width)| [height, width])
    }

    proptest! {
        #[test]
        fn every_position_comes_back(csr in csr(), block in side()) {
            let bytes = encode(&csr, block).unwrap();
            let shape = [csr.rows(), csr.row_len()];
            let (row_ptr, columns) = decode(&bytes, shape, csr.stored()).unwrap();
            prop_assert_eq!(row_ptr, csr.row_ptr());
            prop_assert_eq!(columns, csr.columns());
        }

        #[test]
        fn altered_bytes_are_refused_or_another_index(
            csr in csr(),
            block in side(),
            at in any::<prop::sample::Index>(),
            byte in any::<u8>(),
            cut in any::<bool>(),
        ) {
            let mut bytes = encode(&csr, block).unwrap();
            let at = at.index(bytes.len());
            if cut {
                bytes.truncate(at);
            } else {
                bytes[at] = byte;
            }
            let shape = [csr.rows(), csr.row_len()];
            if let Ok((row_ptr, columns)) = decode(&bytes, shape, csr.stored()) {
                // Whatever it names is within the matrix, or the matrix says what is wrong.
                let values = vec![1.0; columns.len()];
                let _ = Csr::new(shape, row_ptr, columns, values);
            }
        }

        #[test]
        fn noise_is_refused(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let _ = decode(&bytes, [7, 70], 9);
        }
    }

    #[test]
    fn a_panel_takes_a_byte_for_each_row_and_column() {
        let mut dense = vec![0.0; 8 * 64];
        for row in [0, 3, 4, 7] {
            (0..64)
                .step_by(5)
                .for_each(|column| dense[row * 64 + column] = 1.0);
        }
        let csr = Csr::from_dense(&dense, [8, 64]).unwrap();
        assert_eq!(encode(&csr, [8, 64]).unwrap().len(), 2 + 1 + 1 + 4 + 1 + 13);
        assert!(encode(&csr, [8, 1 << 17]).is_none());
    }

    #[test]
    fn what_no_encoder_writes_is_named() {
        for (bytes, reason) in [
            (&[][..], "ends early"),
            (&[0, 3], "without rows"),
            (&[0x80, 0x80, 0x80, 0x80, 1], "too large"),
            (&[1, 1, 0], "too short for 6 blocks"),
            (&[2, 3, 1, 0], "names 0 of 2"),
            (&[2, 3, 1, 1, 2, 1, 0], "row or column 2 of 2"),
            (&[2, 3, 1, 1, 0, 3, 0, 0, 0], "more than 2"),
            (&[2, 3, 1, 1, 0, 1, 0], "1 entries, not 2"),
            (&[2, 3, 1, 1, 0, 2, 0, 0, 9], "1 bytes are left"),
        ] {
            let error = decode(bytes, [2, 3], 2).unwrap_err();
            assert!(error.contains(reason), "{reason}: {error}");
        }
    }
}
