//! CPU kernels on slices: no Burn types, vectorised for the instruction set found at run time
//! ([`Isa`]: AVX-512, AVX2 with FMA, NEON, or portable code), threaded with rayon.

mod accumulate;
mod batch_norm;
mod buffer;
mod bundles;
mod cell;
mod chain;
mod columns;
mod cover;
mod dense_conv;
mod dense_linear;
mod direct;
mod gemm;
#[cfg(all(test, unix))]
mod guarded;
mod images;
mod int8;
mod isa;
mod max_pool;
mod max_pool_grad;
mod peak;
mod pool;
mod sharing;
mod sparse_conv_grad;
mod sparse_linear;
mod storage;
mod stretch;
mod team;

pub use batch_norm::{Affine, Moments, Upstream, batch_norm_train, batch_norm_train_grad};
pub use buffer::{ALIGN, Buffer, allocations, trim};
pub use bundles::{Bundles, Order, RowFinish};
pub use cell::{gru_cell, lstm_cell};
pub use chain::{Chain, ChainWeights};
pub use dense_conv::{dense_conv, dense_conv_grad_input, dense_conv_grad_weight};
pub use dense_linear::dense_linear_row;
pub use direct::{
    Direct, Fold, MOST_ROWS, Panel, Plan, ROWS, SharedConv, SharedWeights, Sharing, padded_plane,
};
pub use images::{Images, ImagesMut, Residual};
pub use int8::{InputScale, Int8Weight, int8_conv, int8_linear};
pub use isa::{ISA_VARIABLE, Isa};
pub use max_pool::max_pool;
pub use max_pool_grad::max_pool_grad;
pub use peak::{Peak, Share};
pub(crate) use pool::{alone, threads};
pub use pool::{bound_pool, on_pool};
pub(crate) use sharing::widths as block_widths;
pub use sparse_conv_grad::{sparse_conv_grad_input, sparse_conv_grad_values};
pub use sparse_linear::sparse_linear;
pub use storage::Storage;
pub use stretch::{stretch, unstretch};

use crate::format::Csr;
use cover::{Piece, cover};

/// A sparse weight as slices: entries `row_ptr[k]..row_ptr[k + 1]` belong to output channel `k`.
#[derive(Debug, Clone, Copy)]
pub struct Entries<'a> {
    /// Value of each entry.
    pub values: &'a [f32],
    /// Offset into the stretched image (convolution), or column (linear layer), of each entry.
    pub offsets: &'a [i32],
    /// Start of each row; rows + 1 entries.
    pub row_ptr: &'a [i32],
}

impl<'a> Entries<'a> {
    pub(crate) fn row(&self, row: usize) -> (&'a [f32], &'a [i32]) {
        let range = self.row_ptr[row] as usize..self.row_ptr[row + 1] as usize;
        (&self.values[range.clone()], &self.offsets[range])
    }

    pub(crate) fn rows(&self) -> usize {
        self.row_ptr.len() - 1
    }
}

/// A sparse matrix as slices: columns instead of [`Entries`]' offsets.
#[derive(Debug, Clone, Copy)]
pub struct Rows<'a> {
    /// Start of each row; rows + 1 entries.
    pub row_ptr: &'a [u32],
    /// Column of each entry, ascending in a row.
    pub columns: &'a [u32],
    /// Value of each entry.
    pub values: &'a [f32],
}

impl Rows<'_> {
    /// Whether rows follow each other, and columns ascend within each and lie below `columns`.
    pub(crate) fn is_matrix(&self, columns: usize) -> bool {
        let entries = self.columns.len();
        let ends = self.row_ptr.first() == Some(&0)
            && self.row_ptr.last().map(|&end| end as usize) == Some(entries);
        ends && self.values.len() == entries
            && self.row_ptr.is_sorted()
            && self.row_ptr.windows(2).all(|row| {
                let row = &self.columns[row[0] as usize..row[1] as usize];
                row.is_sorted_by(|a, b| a < b) && row.last().is_none_or(|&c| (c as usize) < columns)
            })
    }
}

impl<'a> From<&'a Csr> for Rows<'a> {
    fn from(csr: &'a Csr) -> Self {
        Self {
            row_ptr: csr.row_ptr(),
            columns: csr.columns(),
            values: csr.values(),
        }
    }
}

/// What happens to a sum before it is stored: `act(sum + bias + residual)`.
#[derive(Debug, Clone, Copy)]
pub struct Finish<'a, T = f32> {
    /// One per output channel.
    pub bias: Option<&'a [f32]>,
    /// What else is added.
    pub residual: Residual<'a, T>,
    /// Whether negative results become zero.
    pub relu: bool,
}

impl<T> Default for Finish<'_, T> {
    /// The sum as it is.
    fn default() -> Self {
        Self {
            bias: None,
            residual: Residual::None,
            relu: false,
        }
    }
}

/// Values that are converted at once: few enough to stay in the first cache.
const CONVERTED: usize = 256;

impl<T: Storage> Finish<'_, T> {
    /// Finishes neighbouring outputs of a channel, from element `at` of its plane on.
    #[inline(always)]
    pub(crate) fn store(
        &self,
        sums: &[f32],
        image: usize,
        channel: usize,
        at: usize,
        out: &mut [T],
    ) {
        let len = out.len();
        let residual = match &self.residual {
            Residual::Images(residual) => Some(&residual.plane(image, channel)[at..at + len]),
            Residual::None | Residual::Output => None,
        };
        let sums = &sums[..len];
        let (bias, relu) = (self.bias.map_or(0.0, |bias| bias[channel]), self.relu);
        let in_place = matches!(self.residual, Residual::Output);
        if let (Some(out), false) = (T::as_f32s_mut(out), in_place) {
            let mut store = Store {
                sums,
                bias,
                residual: residual.and_then(T::as_f32s),
                relu,
                out,
            };
            cover(len, &mut store);
            return;
        }
        // Pieces may cover an output twice, so what they add must lie somewhere else.
        let mut line = [0.0; CONVERTED];
        let mut more = [0.0; CONVERTED];
        for from in (0..len).step_by(CONVERTED) {
            let part = from..len.min(from + CONVERTED);
            let (line, more) = (&mut line[..part.len()], &mut more[..part.len()]);
            let add = match residual {
                Some(residual) => Some(&residual[part.clone()]),
                None => in_place.then_some(&out[part.clone()]),
            };
            let add = add.map(|add| {
                T::widen(add, more);
                &*more
            });
            let mut store = Store {
                sums: &sums[part.clone()],
                bias,
                residual: add,
                relu,
                out: &mut *line,
            };
            cover(part.len(), &mut store);
            T::narrow(line, &mut out[part]);
        }
    }
}

struct Store<'a> {
    sums: &'a [f32],
    bias: f32,
    residual: Option<&'a [f32]>,
    relu: bool,
    out: &'a mut [f32],
}

impl Piece for Store<'_> {
    #[inline(always)]
    fn run<const N: usize>(&mut self, at: usize) {
        const WITHIN: &str = "pieces lie within";
        let mut y: [f32; N] = *self.sums[at..].first_chunk().expect(WITHIN);
        y = y.map(|y| y + self.bias);
        if let Some(residual) = self.residual {
            let residual: &[f32; N] = residual[at..].first_chunk().expect(WITHIN);
            for (y, &residual) in y.iter_mut().zip(residual) {
                *y += residual;
            }
        }
        if self.relu {
            // Unlike `f32::max`, a comparison lets NaN through, as the dense activation does.
            y = y.map(|y| if y < 0.0 { 0.0 } else { y });
        }
        *self.out[at..].first_chunk_mut().expect(WITHIN) = y;
    }
}
