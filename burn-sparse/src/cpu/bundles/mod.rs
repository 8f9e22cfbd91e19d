//! A sparse matrix times one vector: neighbouring rows side by side in vector lanes.
//!
//! With a single vector nothing is used twice but the vector itself, and a row of non-zeros reads
//! it at scattered places, one scalar load each. [`Order`] lays the matrix out so that one vector
//! instruction serves many rows, and says how; [`Bundles`] is that order with values.

mod kernel;
#[cfg(target_arch = "x86_64")]
mod lookup;
mod order;
mod panels;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use rayon::prelude::*;

use super::{Buffer, threads};

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
    values: Buffer,
}

impl Bundles {
    /// Vectors up to which one after the other is faster than all at once: from four on, a
    /// non-zero is worth loading once for a vector of them.
    pub const MOST_VECTORS: usize = 3;

    /// Puts the values of a matrix, entry by entry, into its order.
    ///
    /// # Panics
    /// If there are not as many values as the matrix has entries.
    pub fn new(order: Arc<Order>, values: &[f32]) -> Self {
        assert!(
            values.len() == order.entries(),
            "{} values for a matrix of {} entries",
            values.len(),
            order.entries()
        );
        let mut ordered = Buffer::new(order.slots());
        order.fill(values, &mut ordered);
        Self {
            order,
            values: ordered,
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
        let tasks = (self.values.len() / TASK)
            .clamp(1, threads())
            .min(units.max(1));
        if tasks == 1 {
            self.part(x, 0, finish, out);
            return;
        }
        let part = units.div_ceil(tasks);
        out.par_chunks_mut(part * unit)
            .enumerate()
            .for_each(|(task, out)| self.part(x, task * part, finish, out));
    }
}
