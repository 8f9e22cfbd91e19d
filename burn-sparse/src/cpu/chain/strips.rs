//! Images in strips of output rows.

use crate::{ConvProblem, cpu};

/// Bytes of what lies between the factors of a strip: most of a second cache of usual size.
const BETWEEN: usize = 512 << 10;

/// The core of a strip as a convolution of its own, and where its rows are. Where it sees only padding, its
/// input has no rows.
#[derive(Debug, Clone, Copy)]
pub(super) struct Strip {
    pub(super) core: ConvProblem,
    /// First row that it reads.
    pub(super) input: usize,
    /// First row that it writes.
    pub(super) output: usize,
}

/// Strips of nearly equal height: as many as the second cache asks for, and if threads take a strip each, a
/// multiple of theirs.
pub(super) fn strips(problem: &ConvProblem, [d1, d2]: [usize; 2], shared: bool) -> Vec<Strip> {
    let [height, width] = problem.output();
    let [in_height, in_width] = problem.input;
    let row = d1 * in_width * problem.stride[0] + d2 * width;
    let threads = cpu::threads();
    let wanted = (4 * row * height).div_ceil(BETWEEN).max(1);
    // As many tasks as make every thread end at the same time.
    let images = problem.batch.max(1);
    let even = |strips: &usize| shared || (images * strips).is_multiple_of(threads);
    let most = wanted + threads;
    let count = (wanted..most).find(even).unwrap_or(wanted);
    let count = count.min(height);
    let extent = (problem.kernel[0] - 1) * problem.dilation[0] + 1;
    let [above, _] = problem.padding[0];
    let strip = |index: usize| {
        let rows = [index, index + 1].map(|edge| edge * height / count);
        // In rows of the padded input.
        let from = rows[0] * problem.stride[0];
        let to = (rows[1] - 1) * problem.stride[0] + extent;
        let first = from.saturating_sub(above).min(in_height);
        let last = to.saturating_sub(above).clamp(first, in_height);
        // Rows of padding above and below, those between first and last left out.
        let top = above.saturating_sub(from).min(to - from);
        let core = ConvProblem {
            batch: 1,
            in_channels: d1,
            out_channels: d2,
            input: [last - first, in_width],
            padding: [[top, to - from - top - (last - first)], problem.padding[1]],
            ..*problem
        };
        Strip {
            core,
            input: first,
            output: rows[0],
        }
    };
    (0..count).map(strip).collect()
}
