//! A sparse matrix times one vector: neighbouring rows side by side in vector lanes.
//!
//! With a single vector nothing is used twice but the vector itself, and a row of non-zeros reads
//! it at scattered places, one scalar load each. [`Order`] lays the matrix out so that one vector
//! instruction serves many rows, and says how; [`Bundles`] is that order with values.

mod coded;
mod codes;
mod decode;
mod kernel;
#[cfg(target_arch = "x86_64")]
mod lookup;
mod order;
mod panels;
#[cfg(test)]
mod tests;
mod unit;

use std::sync::Arc;

use super::{Buffer, Rows, team, threads};
use crate::{SparseError, quant::Quantized};
use codes::Codes;

pub use order::Order;

/// Rows of a bundle.
pub(super) const BUNDLE: usize = 16;

/// Entries, stored zeros included, that one task should at least have: some microseconds of work,
/// as long as it takes to wake another thread.
const TASK: usize = 1 << 16;

/// What happens to a row's sum before it is stored: `act(sum + bias + residual)`.
#[derive(Debug, Clone, Copy, Default)]
pub struct RowFinish<'a> {
    /// One per row of the matrix.
    pub bias: Option<&'a [f32]>,
    /// One per row of the matrix.
    pub residual: Option<&'a [f32]>,
    /// Whether negative results become zero.
    pub relu: bool,
}

/// A sparse matrix for its product with a single vector.
///
/// # Example
/// ```
/// use std::sync::Arc;
/// use burn_sparse::cpu::{Bundles, Isa, Order, RowFinish, Rows};
/// use burn_sparse::format::Csr;
///
/// let csr = Csr::from_dense(&[0.0, 2.0, 0.0, 1.0, 0.0, 4.0], [2, 3])?;
/// let order = Order::new(Rows::from(&csr), csr.row_len(), Isa::current());
/// let bundles = Bundles::new(Arc::new(order), csr.values());
/// let mut y = [0.0; 2];
/// bundles.run(&[3.0, 5.0, 7.0], RowFinish::default(), &mut y);
/// assert_eq!(y, [10.0, 31.0]);
/// # Ok::<(), burn_sparse::SparseError>(())
/// ```
#[derive(Debug)]
pub struct Bundles {
    order: Arc<Order>,
    values: Values,
}

#[derive(Debug)]
enum Values {
    Floats(Buffer),
    Codes(Codes),
}

impl Bundles {
    /// Vectors up to which one after the other is faster than all at once: from four on, a
    /// non-zero is worth loading once for a vector of them.
    pub const MOST_VECTORS: usize = 3;

    /// Puts the values of a matrix, entry by entry, into its order, as they are.
    ///
    /// # Panics
    /// If there are not as many values as the matrix has entries.
    pub fn new(order: Arc<Order>, values: &[f32]) -> Self {
        assert_entries(&order, values.len());
        let mut ordered = Buffer::new(order.slots());
        order.fill(values, &mut ordered);
        Self {
            order,
            values: Values::Floats(ordered),
        }
    }

    /// Puts the values of a matrix into its order: as codes of few bits, if they have few levels
    /// ([`Quantized::find_within`]) and reading less makes up for turning codes into numbers, or else
    /// as they are.
    ///
    /// | instruction set | numbers | codes | from floats of |
    /// |---|---|---|---|
    /// | AVX-512 | up to 32 different ones | 2 to 5 bits, picked from a table in registers | 256 KiB |
    /// | | integers of 8 bits | 8 bits | 256 KiB |
    /// | | `±1 .. ±128` beside a zero | 10 bits | 8 MiB |
    /// | AVX2 | up to 8 different ones | 3 bits, picked | 1 MiB |
    /// | | integers of 4 bits | 4 bits | 4 MiB |
    /// | | 16 different ones, other integers | 4 bits, picked; 10 bits | 8 MiB |
    ///
    /// Scattered entries (layout `windows`) become codes with AVX-512 from 1.25 MiB on; finding the
    /// elements of the vector takes most of their time. Integers may have a scale for each row, with
    /// which the sum of the row is multiplied. Other instruction sets and single entries (layout
    /// `rows`) stay floats, where no gain was measured; [`coded`](Self::coded) runs on all.
    ///
    /// # Panics
    /// If there are not as many values as the matrix has entries.
    pub fn compact(order: Arc<Order>, matrix: Rows<'_>) -> Self {
        assert_entries(&order, matrix.values.len());
        match Codes::find(&order, matrix) {
            Some(codes) => Self {
                order,
                values: Values::Codes(codes),
            },
            None => Self::new(order, matrix.values),
        }
    }

    /// Puts codes into the order of a matrix, whether they are faster or not.
    ///
    /// # Errors
    /// [`SparseError::Format`] if there are not as many codes as entries or scales as rows, and for
    /// more different numbers than kernels take: 256, or integers from -512 to 511.
    ///
    /// # Example
    /// ```
    /// use std::sync::Arc;
    /// use burn_sparse::cpu::{Bundles, Isa, Order, RowFinish, Rows};
    /// use burn_sparse::{format::Csr, quant::Quantized};
    ///
    /// let csr = Csr::from_dense(&[0.5, 1.0, -0.5, 2.0, 0.5, 0.5], [2, 3])?;
    /// let order = Order::new(Rows::from(&csr), csr.row_len(), Isa::current());
    /// let quantized = Quantized::find(csr.values(), csr.row_ptr()).expect("few levels");
    /// let bundles = Bundles::coded(Arc::new(order), &quantized)?;
    /// assert!(bundles.bits() <= 8);
    /// let mut y = [0.0; 2];
    /// bundles.run(&[1.0, 2.0, 4.0], RowFinish::default(), &mut y);
    /// assert_eq!(y, [0.5, 5.0]);
    /// # Ok::<(), burn_sparse::SparseError>(())
    /// ```
    pub fn coded(order: Arc<Order>, quantized: &Quantized) -> Result<Self, SparseError> {
        let values = Values::Codes(Codes::new(&order, quantized)?);
        Ok(Self { order, values })
    }

    /// Bits of a stored value: 32, or those of a code.
    pub fn bits(&self) -> usize {
        match &self.values {
            Values::Floats(_) => 32,
            Values::Codes(codes) => usize::from(codes.decoder.bits()),
        }
    }

    /// Bytes of the stored values, zeros of the layout included, and of their scales.
    pub fn value_bytes(&self) -> usize {
        match &self.values {
            Values::Floats(values) => size_of_val(&**values),
            Values::Codes(codes) => codes.bytes().len() + size_of_val(&*codes.scales),
        }
    }

    /// How the matrix is laid out.
    pub fn order(&self) -> &Order {
        &self.order
    }

    /// `out[k] = act(bias[k] + residual[k] + sum_j v_kj x[column_kj])`. Sums are f32, each by one
    /// thread in an order of its own.
    ///
    /// Stored zeros stand where rows of a bundle differ: a NaN or an infinity in `x` may make
    /// outputs NaN that have no weight on it, as it does with a dense matrix.
    ///
    /// # Panics
    /// If a slice has another length than the matrix asks for.
    pub fn run(&self, x: &[f32], finish: RowFinish<'_>, out: &mut [f32]) {
        let (rows, d_input) = (self.order.rows(), self.order.d_input());
        let lens = [Some(&*out), finish.bias, finish.residual].map(|slice| slice.map(<[f32]>::len));
        assert!(
            x.len() == d_input && lens.iter().flatten().all(|&len| len == rows),
            "a matrix of {rows} rows by {d_input}, a vector of {}, and an output, bias and \
             residual of {lens:?}",
            x.len()
        );
        let mut padded;
        let x = if d_input < self.order.reach() {
            padded = [0.0; order::MOST_REACH];
            padded[..d_input].copy_from_slice(x);
            &padded[..self.order.reach()]
        } else {
            x
        };
        let unit = self.order.part_rows();
        let units = rows.div_ceil(unit);
        let tasks = (self.order.slots() / TASK)
            .clamp(1, threads())
            .min(units.max(1));
        if tasks == 1 {
            self.part(x, 0, finish, out);
            return;
        }
        let part = units.div_ceil(tasks);
        team::chunks(out, part * unit, 1, |task, out| {
            self.part(x, task * part, finish, out)
        });
    }
}

fn assert_entries(order: &Order, values: usize) {
    let entries = order.entries();
    assert!(
        values == entries,
        "{values} values for a matrix of {entries} entries"
    );
}
