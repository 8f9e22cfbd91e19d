//! Direct sparse convolution: every non-zero adds a scaled, shifted run of the stretched input.

use std::borrow::Cow;

use rayon::prelude::*;

use super::{Entries, Finish, accumulate, stretch::stretch};
use crate::ConvProblem;

/// Outputs of one channel of one image in the stretched layout, gaps between rows included.
fn span(problem: &ConvProblem) -> usize {
    let [height, width] = problem.output();
    (height - 1) * problem.stretched().cols + width
}

/// `out[n,k,e,f] = act(bias[k] + residual[n,k,e,f] + sum_j v_j x[n, off_j + e*cols + f])`
/// with `entries` holding offsets into the stretched image
/// ([`Csr::offsets`](crate::format::Csr::offsets)).
///
/// `input` is `[batch, in_channels, height, width]`, `out` has `problem.output_shape()`; every
/// element of it is written. Sums are f32, in the order of the entries.
///
/// # Panics
/// If a slice is shorter than `problem` says, or an offset lies outside the stretched image.
pub fn sparse_conv(
    input: &[f32],
    entries: Entries<'_>,
    finish: Finish<'_>,
    problem: &ConvProblem,
    out: &mut [f32],
) {
    let [batch, channels, height, width] = problem.output_shape();
    if batch * channels * height * width == 0 {
        return;
    }
    let layout = problem.stretched();
    let image = problem.in_channels * layout.channel_stride();
    let sums_len = span(problem).next_multiple_of(16);
    // The plain input serves where vector loads end exactly where it does.
    let plain = layout.is_identity(problem) && span(problem) == sums_len;
    let stretched: Cow<'_, [f32]> = if plain {
        input.into()
    } else {
        stretch(input, problem).into()
    };
    let arch = accumulate::arch();
    let plane = height * width;
    let work = (entries.values.len() / channels).max(1) * sums_len;
    out.par_chunks_exact_mut(plane)
        .enumerate()
        .with_min_len((16_384 / work).max(1))
        .for_each_init(
            || vec![0.0; sums_len],
            |sums, (index, out)| {
                let (n, k) = (index / channels, index % channels);
                let input = &stretched[n * image..];
                arch.dispatch(accumulate::Row {
                    entries,
                    row: k,
                    input,
                    sums: &mut *sums,
                });
                for (e, out) in out.chunks_exact_mut(width).enumerate() {
                    let start = index * plane + e * width;
                    finish.store(&sums[e * layout.cols..][..width], k, start, out);
                }
            },
        );
}
