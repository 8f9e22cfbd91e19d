//! A tensor as it is coded: its matrix, which elements are stored, and what they are.

use burn::tensor::DType;

use super::elements::Elements;
use super::places::Grid;
use crate::{format::Csr, quant::Quantized};

/// A tensor to be written, or one that was read.
#[derive(Debug, Clone)]
pub(super) struct Content {
    pub(super) grid: Grid,
    pub(super) dtype: DType,
    /// Which places of the matrix are stored, row after row.
    pub(super) taken: Vec<bool>,
    /// The elements there.
    pub(super) stored: Elements,
    pub(super) packed: bool,
    /// Whether zeros that make rows equally long were left out.
    pub(super) equalised: bool,
}

/// The elements of a matrix of `rows` rows, column by column.
fn transpose(elements: &Elements, rows: usize) -> Elements {
    let columns = elements.len().checked_div(rows).unwrap_or(0);
    elements.pick((0..columns).flat_map(|column| (0..rows).map(move |row| row * columns + column)))
}

impl Content {
    /// Of a parameter whose elements lie as `grid` says, or column by column: what is not positive
    /// zero is stored.
    pub(super) fn dense(grid: Grid, transposed: bool, dtype: DType, elements: Elements) -> Self {
        let elements = if transposed {
            transpose(&elements, grid.columns)
        } else {
            elements
        };
        let taken: Vec<bool> = (0..elements.len())
            .map(|at| elements.get(at) != 0)
            .collect();
        let stored = elements.pick((0..taken.len()).filter(|at| taken[*at]));
        Self {
            grid,
            dtype,
            taken,
            stored,
            packed: false,
            equalised: false,
        }
    }

    /// Of a packed weight. Zeros that [`Csr::equalised`] puts back are left out.
    pub(super) fn packed(grid: Grid, csr: &Csr) -> Self {
        let kept = without_zeros(csr);
        let equalised = kept.stored() < csr.stored() && same(&kept.equalised(), csr);
        let csr = if equalised { &kept } else { csr };
        let mut taken = vec![false; grid.len()];
        for row in 0..csr.rows() {
            csr.row(row)
                .for_each(|(column, _)| taken[row * grid.columns + column] = true);
        }
        let values = csr.values().iter().flat_map(|value| value.to_le_bytes());
        Self {
            grid,
            dtype: DType::F32,
            taken,
            stored: Elements::new(4, values.collect()),
            packed: true,
            equalised,
        }
    }

    /// All elements of the matrix, positive zeros included.
    pub(super) fn all(&self) -> Elements {
        let mut all = Elements::zeros(self.stored.width(), self.taken.len());
        for (at, stored) in self.places().zip(0..) {
            all.set(at, self.stored.get(stored));
        }
        all
    }

    /// All elements as the parameter holds them.
    pub(super) fn into_dense(self, transposed: bool) -> Vec<u8> {
        let all = self.all();
        if transposed {
            transpose(&all, self.grid.rows).into_bytes()
        } else {
            all.into_bytes()
        }
    }

    /// The packed weight again.
    pub(super) fn into_csr(self) -> Result<Csr, crate::SparseError> {
        let row_ptr = row_ptr(self.grid, &self.taken);
        let columns = self.places().map(|at| (at % self.grid.columns) as u32);
        let values = (0..self.stored.len()).map(|at| f32::from_bits(self.stored.get(at) as u32));
        let sides = [self.grid.rows, self.grid.columns];
        let csr = Csr::new(sides, row_ptr, columns.collect(), values.collect())?;
        Ok(if self.equalised { csr.equalised() } else { csr })
    }

    /// The places that are stored.
    pub(super) fn places(&self) -> impl Iterator<Item = usize> + '_ {
        where_taken(&self.taken)
    }

    /// Stored elements that are no zeros, negative ones included.
    pub(super) fn nnz(&self) -> usize {
        let magnitude = |at| match self.dtype {
            dtype if dtype.is_float() => {
                self.stored.get(at) << (64 - 8 * self.stored.width() as u32 + 1)
            }
            _ => self.stored.get(at),
        };
        (0..self.stored.len())
            .filter(|at| magnitude(*at) != 0)
            .count()
    }

    /// Bits of codes of the stored elements that are not positive zeros, if there are such zeros.
    pub(super) fn bits_without_zeros(&self) -> Option<u8> {
        let kept: Vec<usize> = (0..self.stored.len())
            .filter(|at| self.stored.get(*at) != 0)
            .collect();
        if kept.len() == self.stored.len() {
            return None;
        }
        let mut taken = vec![false; self.taken.len()];
        let places: Vec<usize> = self.places().collect();
        kept.iter().for_each(|&at| taken[places[at]] = true);
        let values = self.stored.pick(kept.into_iter()).to_f32(self.dtype)?;
        let quantised = Quantized::find(&values, &row_ptr(self.grid, &taken))?;
        Some(quantised.codes().bits())
    }

    /// Which rows hold anything but positive zeros.
    pub(super) fn alive_rows(&self) -> Vec<bool> {
        let mut alive = vec![false; self.grid.rows];
        for (at, stored) in self.places().zip(0..) {
            alive[at / self.grid.columns] |= self.stored.get(stored) != 0;
        }
        alive
    }
}

/// Where `taken` is true.
pub(super) fn where_taken(taken: &[bool]) -> impl Iterator<Item = usize> + '_ {
    (0..taken.len()).filter(|at| taken[*at])
}

/// Where the stored elements of each row start.
pub(super) fn row_ptr(grid: Grid, taken: &[bool]) -> Vec<u32> {
    let mut row_ptr = vec![0; grid.rows + 1];
    for row in 0..grid.rows {
        let row_taken = &taken[row * grid.columns..][..grid.columns];
        let stored = row_taken.iter().filter(|taken| **taken).count() as u32;
        row_ptr[row + 1] = row_ptr[row] + stored;
    }
    row_ptr
}

fn without_zeros(csr: &Csr) -> Csr {
    let (mut columns, mut values) = (Vec::new(), Vec::new());
    let mut row_ptr = vec![0];
    for row in 0..csr.rows() {
        for (column, value) in csr.row(row).filter(|(_, value)| value.to_bits() != 0) {
            columns.push(column as u32);
            values.push(value);
        }
        row_ptr.push(values.len() as u32);
    }
    Csr::new([csr.rows(), csr.row_len()], row_ptr, columns, values)
        .expect("entries of a matrix, less some")
}

/// Whether two matrices agree bit by bit.
fn same(a: &Csr, b: &Csr) -> bool {
    let bits = |csr: &Csr| csr.values().iter().map(|v| v.to_bits()).collect::<Vec<_>>();
    a.row_ptr() == b.row_ptr() && a.columns() == b.columns() && bits(a) == bits(b)
}
