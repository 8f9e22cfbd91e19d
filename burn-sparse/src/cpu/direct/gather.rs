//! Copies images into the layout that a layer reads.

use pulp::{Simd, WithSimd};

use super::Working;
use crate::{
    ConvProblem,
    cpu::{Buffer, Images, Isa, Storage},
};

/// Writes the strip of `image` whose outputs begin at row `start` into `out`, as many channels from
/// `first` on as there is room for, zero where a weight sees padding. Elements that no valid output
/// reads are left as they are. Of a [fold](super::Fold), `image` is the first image, and all are written;
/// `problem` is the convolution of one.
pub(super) fn gather<T: Storage>(
    images: Images<'_, T>,
    [image, first, start]: [usize; 3],
    problem: &ConvProblem,
    working: &Working,
    isa: Isa,
    out: &mut [f32],
) {
    // Rows of the image that the strip reads, for types that are widened first.
    let [height, width] = problem.input;
    let top = (start * problem.stride[0]).saturating_sub(problem.padding[0][0]);
    let read = working.rows * problem.stride[0] + working.row_phases;
    let rows = top.min(height) * width..(top + read).min(height) * width;
    let mut wide = None;
    let rows_of_image = working.rows_of_image();
    for n in 0..working.fold.images {
        let above = n * working.fold.period * working.cols;
        let channels = out.chunks_exact_mut(working.channel_stride());
        for (c, out) in (first..problem.in_channels).zip(channels) {
            let plane = images.plane(image + n, c);
            let input = match T::as_f32s(plane) {
                Some(plane) => plane,
                None => {
                    let wide: &mut Buffer = wide.get_or_insert_with(|| Buffer::new(height * width));
                    T::widen(&plane[rows.clone()], &mut wide[rows.clone()]);
                    &wide[..]
                }
            };
            isa.dispatch(Plane {
                input,
                problem,
                working,
                start,
                rows: rows_of_image,
                above,
                out,
            });
        }
    }
}

/// One channel of an image.
struct Plane<'a> {
    input: &'a [f32],
    problem: &'a ConvProblem,
    working: &'a Working,
    start: usize,
    /// Rows of the image in the working layout, and elements of other images above it.
    rows: usize,
    above: usize,
    out: &'a mut [f32],
}

impl WithSimd for Plane<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Self {
            input,
            problem,
            working,
            start: strip,
            rows,
            above: others,
            out,
        } = self;
        let [height, width] = problem.input;
        let [u, v] = problem.stride;
        let [top, left] = [problem.padding[0][0], problem.padding[1][0]];
        let copies = working.first.len();
        for (index, out) in out.chunks_exact_mut(working.plane).enumerate() {
            let (phase, first) = (index / copies, working.first[index % copies]);
            // The columns of this copy that lie in the image: first + x * v - left in 0..width.
            let from = left.saturating_sub(first).div_ceil(v).min(working.used);
            let to = (width + left)
                .saturating_sub(first)
                .div_ceil(v)
                .clamp(from, working.used);
            let start = (first + from * v).saturating_sub(left);
            // The rows likewise: (strip + a) * u + phase - top in 0..height.
            let above = top.saturating_sub(strip * u + phase).div_ceil(u);
            let end = (height + top).saturating_sub(phase).div_ceil(u);
            let above = above.min(rows);
            let below = end.saturating_sub(strip).clamp(above, rows);
            let out = &mut out[others..];
            let (zeros, out) = out.split_at_mut(above * working.cols);
            zeros.fill(0.0);
            let (out, zeros) = out.split_at_mut((below - above) * working.cols);
            zeros[..(rows - below) * working.cols].fill(0.0);
            if above == below {
                continue;
            }
            if from == to {
                out.fill(0.0);
                continue;
            }
            let y = (strip + above) * u + phase - top;
            let runs = RowsOf {
                input: &input[y * width + start..],
                step: width * u,
                out,
                cols: working.cols,
                from,
                to,
                used: working.used,
            };
            match (v, to - from) {
                (1, 16..) => runs.each(copy::<16>),
                (1, 8..) => runs.each(copy::<8>),
                (1, 4..) => runs.each(copy::<4>),
                (1, _) => runs.each(copy::<1>),
                (2, _) => runs.each(every_second),
                _ => runs.each(
                    #[inline(always)]
                    |row, out| every(v, row, out),
                ),
            }
        }
    }
}

/// Rows of a copy that lie in the image, all alike.
struct RowsOf<'a> {
    /// From the first element that is copied on.
    input: &'a [f32],
    /// Elements from row to row.
    step: usize,
    out: &'a mut [f32],
    cols: usize,
    /// The columns that are copied; the others up to `used` are zero.
    from: usize,
    to: usize,
    used: usize,
}

impl RowsOf<'_> {
    // Plain loops: adaptors over rows this short cost more than the rows.
    #[inline(always)]
    fn each(self, copy: impl Fn(&[f32], &mut [f32])) {
        let rows = self.out.len() / self.cols;
        for row in 0..rows {
            let out = &mut self.out[row * self.cols..][..self.used];
            for zero in &mut out[..self.from] {
                *zero = 0.0;
            }
            for zero in &mut out[self.to..] {
                *zero = 0.0;
            }
            copy(&self.input[row * self.step..], &mut out[self.from..self.to]);
        }
    }
}

/// The first elements of a row, at least `N`. Rows are too short for the call of a `memcpy` to pay;
/// the last piece overlaps the one before it.
#[inline(always)]
fn copy<const N: usize>(from: &[f32], to: &mut [f32]) {
    let len = to.len();
    let from = &from[..len];
    let mut at = 0;
    while at + N <= len {
        to[at..at + N].copy_from_slice(&from[at..at + N]);
        at += N;
    }
    if at < len {
        to[len - N..].copy_from_slice(&from[len - N..]);
    }
}

#[inline(always)]
fn every(step: usize, row: &[f32], out: &mut [f32]) {
    for (i, out) in out.iter_mut().enumerate() {
        *out = row[i * step];
    }
}

/// Pairs are what the compiler vectorises.
#[inline(always)]
fn every_second(row: &[f32], out: &mut [f32]) {
    let (pairs, rest) = row.as_chunks::<2>();
    for (out, pair) in out.iter_mut().zip(pairs) {
        *out = pair[0];
    }
    if let ([last], Some(out)) = (rest, out.get_mut(pairs.len())) {
        *out = *last;
    }
}
