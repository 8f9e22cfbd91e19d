//! Gradients of the sparse convolution for its input and its values.

use super::{
    Entries, accumulate,
    stretch::{stretch, unstretch},
    team,
};
use crate::ConvProblem;

/// The output gradient with the row distance of the stretched input and zeros in the gaps, so that
/// a whole plane is one contiguous run: `[batch, out_channels, span]`.
fn stretch_grad(grad: &[f32], problem: &ConvProblem) -> (Vec<f32>, usize) {
    let [height, width] = problem.output();
    let cols = problem.stretched().cols;
    let span = (height - 1) * cols + width;
    let mut out = vec![0.0; problem.batch * problem.out_channels * span];
    team::chunks(&mut out, span, 1, |index, out| {
        let plane = &grad[index * height * width..][..height * width];
        for (e, row) in plane.chunks_exact(width).enumerate() {
            out[e * cols..][..width].copy_from_slice(row);
        }
    });
    (out, span)
}

/// `dv_j = sum_{n,e,f} grad[n,k,e,f] x[n, off_j + e*cols + f]`, one per entry.
///
/// `row_ptr` and `offsets` are those of the forward pass; `input` and `grad` have the problem's
/// input and output shapes.
///
/// # Panics
/// If a slice is shorter than `problem` says, or an offset lies outside the stretched image.
pub fn sparse_conv_grad_values(
    input: &[f32],
    grad: &[f32],
    offsets: &[i32],
    row_ptr: &[i32],
    problem: &ConvProblem,
) -> Vec<f32> {
    let mut out = vec![0.0; offsets.len()];
    if problem.output_shape().contains(&0) {
        return out;
    }
    let image = problem.in_channels * problem.stretched().channel_stride();
    let stretched = stretch(input, problem);
    let (grad, span) = stretch_grad(grad, problem);
    let arch = accumulate::arch();
    let mut rows = Vec::with_capacity(problem.out_channels);
    let mut rest = out.as_mut_slice();
    for pair in row_ptr.windows(2) {
        let (row, after) = rest.split_at_mut((pair[1] - pair[0]) as usize);
        rows.push(row);
        rest = after;
    }
    team::for_each(rows.into_iter().enumerate(), |(k, row)| {
        let offsets = &offsets[row_ptr[k] as usize..row_ptr[k + 1] as usize];
        for n in 0..problem.batch {
            let grad = &grad[(n * problem.out_channels + k) * span..][..span];
            let input = &stretched[n * image..];
            for (out, &offset) in row.iter_mut().zip(offsets) {
                let window = &input[offset as usize..][..span];
                *out += arch.dispatch(accumulate::Dot { a: grad, b: window });
            }
        }
    });
    out
}

/// `dx`, the gradient for the input: every entry adds its scaled output gradient back to where it
/// read. `transpose` is `[ptr (in_channels + 1) | entry | row]` as in
/// [`SparseOps`](crate::ops::SparseOps).
///
/// # Panics
/// If a slice is shorter than `problem` says.
pub fn sparse_conv_grad_input(
    grad: &[f32],
    entries: Entries<'_>,
    transpose: &[i32],
    problem: &ConvProblem,
) -> Vec<f32> {
    let [height, width] = problem.input;
    let plane = height * width;
    let channels = problem.in_channels;
    let mut out = vec![0.0; problem.batch * channels * plane];
    if problem.output_shape().contains(&0) || out.is_empty() {
        return out;
    }
    let stored = entries.values.len();
    let (ptr, rest) = transpose.split_at(channels + 1);
    let (entry, row) = rest.split_at(stored);
    let channel_stride = problem.stretched().channel_stride();
    let (grad, span) = stretch_grad(grad, problem);
    let arch = accumulate::arch();
    team::chunks_init(
        &mut out,
        plane,
        1,
        || vec![0.0; channel_stride],
        |stretched, index, out| {
            let (n, c) = (index / channels, index % channels);
            stretched.fill(0.0);
            for at in ptr[c] as usize..ptr[c + 1] as usize {
                let j = entry[at] as usize;
                let local = entries.offsets[j] as usize - c * channel_stride;
                let start = (n * problem.out_channels + row[at] as usize) * span;
                arch.dispatch(accumulate::Axpy {
                    scale: entries.values[j],
                    x: &grad[start..][..span],
                    y: &mut stretched[local..][..span],
                });
            }
            unstretch(stretched, problem, out);
        },
    );
    out
}
