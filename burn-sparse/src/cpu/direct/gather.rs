//! Copies images into the layout that a layer reads.

use rayon::prelude::*;

use super::Working;
use crate::{ConvProblem, cpu::Images};

/// Elements that one task should at least write.
const TASK: usize = 1 << 14;

/// Writes `images` into `out` (`working.image()` elements each), zero where a weight sees padding.
/// Elements that no valid output reads are left as they are.
pub(super) fn gather(
    images: Images<'_>,
    problem: &ConvProblem,
    working: &Working,
    out: &mut [f32],
) {
    let channel = working.channel_stride();
    out.par_chunks_exact_mut(working.image())
        .enumerate()
        .for_each(|(n, out)| {
            out[..problem.in_channels * channel]
                .par_chunks_exact_mut(channel)
                .enumerate()
                .with_min_len(TASK.div_ceil(channel))
                .for_each(|(c, out)| plane(images.plane(n, c), problem, working, out));
        });
}

/// One channel.
fn plane(input: &[f32], problem: &ConvProblem, working: &Working, out: &mut [f32]) {
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
        for (a, out) in out
            .chunks_exact_mut(working.cols)
            .take(working.rows)
            .enumerate()
        {
            let out = &mut out[..working.used];
            let y = (a * u + phase).checked_sub(top).filter(|&y| y < height);
            let Some(y) = y.filter(|_| from < to) else {
                out.fill(0.0);
                continue;
            };
            out[..from].fill(0.0);
            out[to..].fill(0.0);
            let (row, out) = (&input[y * width..][..width][start..], &mut out[from..to]);
            match v {
                1 => out.copy_from_slice(&row[..to - from]),
                2 => every_second(row, out),
                _ => {
                    for (out, &x) in out.iter_mut().zip(row.iter().step_by(v)) {
                        *out = x;
                    }
                }
            }
        }
    }
}

/// Pairs are what the compiler vectorises.
fn every_second(row: &[f32], out: &mut [f32]) {
    let (pairs, rest) = row.as_chunks::<2>();
    for (out, pair) in out.iter_mut().zip(pairs) {
        *out = pair[0];
    }
    if let ([last], Some(out)) = (rest, out.get_mut(pairs.len())) {
        *out = *last;
    }
}
