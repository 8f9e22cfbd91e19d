//! CPU kernels on slices: no Burn types, vectorised for the instruction set found at run time
//! (`pulp`: AVX-512, AVX2 with FMA, NEON, or portable code), threaded with rayon.

mod accumulate;
mod columns;
mod dense_conv;
mod gemm;
mod sparse_conv;
mod sparse_conv_grad;
mod sparse_linear;
mod stretch;

pub use dense_conv::{dense_conv, dense_conv_grad_input, dense_conv_grad_weight};
pub use sparse_conv::sparse_conv;
pub use sparse_conv_grad::{sparse_conv_grad_input, sparse_conv_grad_values};
pub use sparse_linear::sparse_linear;
pub use stretch::{stretch, unstretch};

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

/// What happens to a sum before it is stored: `act(sum + bias + residual)`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Finish<'a> {
    /// One per output channel.
    pub bias: Option<&'a [f32]>,
    /// Of the output's shape.
    pub residual: Option<&'a [f32]>,
    /// Whether negative results become zero.
    pub relu: bool,
}

impl Finish<'_> {
    /// Finishes a run of outputs of `channel` that starts at flat index `start` of the output.
    #[inline(always)]
    pub(crate) fn store(&self, sums: &[f32], channel: usize, start: usize, out: &mut [f32]) {
        let bias = self.bias.map_or(0.0, |bias| bias[channel]);
        match self.residual {
            Some(residual) => {
                let residual = &residual[start..start + out.len()];
                for ((out, &sum), &residual) in out.iter_mut().zip(sums).zip(residual) {
                    *out = sum + bias + residual;
                }
            }
            None => {
                for (out, &sum) in out.iter_mut().zip(sums) {
                    *out = sum + bias;
                }
            }
        }
        if self.relu {
            // Unlike `f32::max`, a comparison lets NaN through, as the dense activation does.
            for out in out.iter_mut() {
                *out = if *out < 0.0 { 0.0 } else { *out };
            }
        }
    }
}
