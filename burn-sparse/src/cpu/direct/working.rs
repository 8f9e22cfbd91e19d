//! The layout in which a layer reads its input.

use super::{Fold, Plan};
use crate::ConvProblem;

/// Elements past the last plane that vector loads may touch.
const SLACK: usize = 16;

/// A strip of one image as the kernel reads it: for every input channel, planes in which the inputs of
/// neighbouring outputs are neighbours whatever the stride.
///
/// Weight `(c, r, s)` sees, for output pixel `(e, f)`, the padded input at
/// `(e*u + r*d, f*v + s*d)`. With `r*d = a*u + p`, that is row `e + a` of the plane of row phase
/// `p`. Columns come in copies: copy `q` of a row holds its columns `first[q], first[q] + v, ..`.
/// Either there is one copy for each column phase, and `s*d = b*v + first[q]` shifts the load by
/// `b`; or there is one for each column `s` of the kernel with `first[s] = s*d`, and `b = 0`.
///
/// A strip of outputs sees its rows `e` counted from its own first one.
///
/// `offset = ((c * row_phases + p) * copies + q) * plane + a * cols + b`, and the input of output
/// pixel `(e, f)` lies at `offset + e * cols + f`.
#[derive(Debug, Clone)]
pub(crate) struct Working {
    /// First padded column of each copy of a row.
    pub(super) first: Vec<usize>,
    pub(super) row_phases: usize,
    /// Rows of a plane: for a strip of outputs, those that the kernel reads.
    pub(super) rows: usize,
    /// Rows of outputs to a strip.
    pub(super) strip: usize,
    /// Elements between rows.
    pub(super) cols: usize,
    /// Columns of each copy that are read for valid outputs.
    pub(super) used: usize,
    /// Elements between planes: whole cache lines.
    pub(super) plane: usize,
    /// Whether the plain input, its planes rounded up to whole cache lines, is this layout.
    pub(super) plain: bool,
    /// Images under each other, and rows from one to the next.
    pub(super) fold: Fold,
    shifted: bool,
    problem: ConvProblem,
}

/// Elements of a plane of `len` in the layouts of this crate: whole cache lines.
pub(crate) fn plane_stride(len: usize) -> usize {
    len.next_multiple_of(16)
}

impl Working {
    pub(crate) fn new(problem: &ConvProblem, plan: &Plan) -> Self {
        let [height, width] = problem.output();
        let height = height.min(plan.strip.max(1));
        let [u, v] = problem.stride;
        let reach = |axis: usize, tap: usize| tap * problem.dilation[axis];
        let last = |axis: usize| reach(axis, problem.kernel[axis] - 1);
        let row_phases = (0..problem.kernel[0])
            .map(|r| reach(0, r) % u + 1)
            .max()
            .unwrap_or(1);
        let (first, shift): (Vec<_>, _) = if plan.shifted {
            ((0..problem.kernel[1]).map(|s| reach(1, s)).collect(), 0)
        } else {
            let phases = (0..problem.kernel[1]).map(|s| reach(1, s) % v + 1).max();
            ((0..phases.unwrap_or(1)).collect(), last(1) / v)
        };
        let rows = height + last(0) / u;
        let used = width + shift;
        let cols = if plan.shifted {
            used.next_multiple_of(plan.align.max(1))
        } else {
            used
        };
        let plain = problem.kernel == [1, 1]
            && problem.stride == [1, 1]
            && problem.padding == [[0, 0], [0, 0]]
            && cols == width
            && height == problem.output()[0];
        Self {
            first,
            row_phases,
            rows,
            strip: height,
            cols,
            used,
            plane: plane_stride(rows * cols),
            plain,
            fold: Fold {
                images: 1,
                period: 0,
            },
            shifted: plan.shifted,
            problem: *problem,
        }
    }

    /// Rows of a plane that one image has.
    pub(super) fn rows_of_image(&self) -> usize {
        self.rows - (self.fold.images - 1) * self.fold.period
    }

    pub(super) fn channel_stride(&self) -> usize {
        self.row_phases * self.first.len() * self.plane
    }

    /// Elements of an image, those that vector loads may touch included.
    pub(super) fn image(&self) -> usize {
        self.problem.in_channels * self.channel_stride() + SLACK
    }

    /// Elements that the kernel may read.
    pub(super) fn needed(&self) -> usize {
        let planes = self.problem.in_channels * self.channel_stride();
        // Vectors that cover a plane of whole cache lines end with it.
        if self.plain { planes } else { planes + SLACK }
    }

    /// Where the output pixel `(0, 0)` finds the input of weight `(channel, r, s)`.
    pub(super) fn offset(&self, channel: usize, r: usize, s: usize) -> usize {
        let (y, x) = (r * self.problem.dilation[0], s * self.problem.dilation[1]);
        let [u, v] = self.problem.stride;
        let (copy, shift) = if self.shifted { (s, 0) } else { (x % v, x / v) };
        let plane = (channel * self.row_phases + y % u) * self.first.len() + copy;
        plane * self.plane + y / u * self.cols + shift
    }

    /// Strips of an image.
    pub(super) fn strips(&self) -> usize {
        self.problem.output()[0].div_ceil(self.strip)
    }

    /// Vectors that cover the outputs of a whole strip, the gaps between rows included.
    pub(super) fn vectors(&self, lanes: usize) -> usize {
        self.vectors_of(self.strip, lanes)
    }

    /// Vectors that cover some rows of outputs.
    pub(super) fn vectors_of(&self, rows: usize, lanes: usize) -> usize {
        ((rows - 1) * self.cols + self.problem.output()[1]).div_ceil(lanes)
    }

    /// Whether rows of outputs follow each other without gaps.
    pub(super) fn is_gapless(&self) -> bool {
        self.cols == self.problem.output()[1]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::AWKWARD;

    /// Loads of whole vectors from any weight's offset stay within the image.
    #[test]
    fn vector_loads_end_within_the_image() {
        for case in AWKWARD {
            for (shifted, align) in [(false, 1), (true, 1), (true, 8), (true, 16)] {
                let plan = Plan {
                    rows: 1,
                    vectors: 1,
                    blocks: 1,
                    shifted,
                    align,
                    strip: usize::MAX,
                    panel: None,
                    compiled: false,
                };
                let problem = &case.problem;
                let working = Working::new(problem, &plan);
                let [kh, kw] = problem.kernel;
                for lanes in [4, 8, 16] {
                    let last = working.offset(problem.in_channels - 1, kh - 1, kw - 1);
                    let end = last + working.vectors(lanes) * lanes;
                    assert!(end <= working.image(), "{}: {plan:?}", case.name);
                }
            }
        }
    }
}
