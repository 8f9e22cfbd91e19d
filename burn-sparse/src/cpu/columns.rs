//! Images as matrices: one row per weight of an output channel, one column per output pixel.

use core::ops::Range;

use super::team;
use crate::ConvProblem;

/// Elements of a matrix that stay in the caches while they are written and multiplied.
const ELEMENTS: usize = 1 << 20;

/// Rows that one task should at least fill, in elements.
const TASK: usize = 1 << 13;

/// The outputs along one axis that one weight of the kernel sees, and where it sees them.
#[derive(Debug, Clone, Copy)]
struct Reach {
    /// Outputs whose input exists.
    outputs: (usize, usize),
    /// The input of the first of these.
    first: usize,
}

impl Reach {
    fn new(problem: &ConvProblem, axis: usize, tap: usize) -> Self {
        let (stride, before) = (problem.stride[axis], problem.padding[axis][0]);
        let at = tap * problem.dilation[axis];
        let start = before.saturating_sub(at).div_ceil(stride);
        let end = (problem.input[axis] + before)
            .saturating_sub(at)
            .div_ceil(stride)
            .min(problem.output()[axis]);
        Self {
            outputs: (start, end.max(start)),
            first: (start * stride + at).saturating_sub(before),
        }
    }
}

/// The images of one group as columns.
#[derive(Debug, Clone)]
pub(crate) struct Columns<'a> {
    problem: ConvProblem,
    group: usize,
    images: Range<usize>,
    /// Height and width of the output.
    output: [usize; 2],
    /// Of each kernel row and each kernel column.
    reach: [&'a [Reach]; 2],
}

impl Columns<'_> {
    /// Batches small enough for the caches, alike in size: `f` is called with each of them for
    /// each group.
    pub(crate) fn each(problem: &ConvProblem, mut f: impl FnMut(&Columns<'_>)) {
        let output = problem.output();
        let [ys, xs] = [0, 1].map(|axis| -> Vec<Reach> {
            (0..problem.kernel[axis])
                .map(|tap| Reach::new(problem, axis, tap))
                .collect()
        });
        let image = (output[0] * output[1] * problem.row_len()).max(1);
        let most = (ELEMENTS / image).clamp(1, problem.batch.max(1));
        let size = problem.batch.div_ceil(problem.batch.div_ceil(most).max(1));
        for group in 0..problem.groups {
            for start in (0..problem.batch).step_by(size.max(1)) {
                f(&Columns {
                    problem: *problem,
                    group,
                    images: start..(start + size).min(problem.batch),
                    output,
                    reach: [&ys, &xs],
                });
            }
        }
    }

    /// Rows and columns of the matrix.
    pub(crate) fn shape(&self) -> [usize; 2] {
        [self.problem.row_len(), self.images.len() * self.pixels()]
    }

    /// Distance of rows, here and in the matrices of outputs. Rows a multiple of a kilobyte apart would
    /// share few sets of the caches, and products that read along many rows at once take three times
    /// as long.
    pub(crate) fn stride(&self) -> usize {
        let cols = self.shape()[1];
        if cols > 0 && cols.is_multiple_of(256) {
            cols + 16
        } else {
            cols
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.shape()[0] * self.stride()
    }

    /// Output channels of the group.
    pub(crate) fn channels(&self) -> Range<usize> {
        let channels = self.problem.out_channels / self.problem.groups;
        self.group * channels..(self.group + 1) * channels
    }

    /// The weights of the group within those of the layer.
    pub(crate) fn weights(&self) -> Range<usize> {
        let Range { start, end } = self.channels();
        start * self.problem.row_len()..end * self.problem.row_len()
    }

    fn pixels(&self) -> usize {
        self.output[0] * self.output[1]
    }

    /// Where the outputs lie as a matrix `[channels, pixels]`, if they do: for a single image.
    pub(crate) fn outputs(&self) -> Option<Range<usize>> {
        let Range { start, end } = self.channels();
        let pixels = self.pixels();
        let image = self.images.start * self.problem.out_channels;
        (self.images.len() == 1).then(|| (image + start) * pixels..(image + end) * pixels)
    }

    /// Where the input already is the matrix: a single image under a 1x1 kernel that moves pixel
    /// by pixel.
    pub(crate) fn inputs(&self) -> Option<Range<usize>> {
        let problem = &self.problem;
        let direct = problem.kernel == [1, 1]
            && problem.stride == [1, 1]
            && problem.padding == [[0, 0], [0, 0]]
            && self.images.len() == 1;
        let channels = problem.in_channels / problem.groups;
        let start = self.images.start * problem.in_channels + self.group * channels;
        let plane = self.pixels();
        direct.then(|| start * plane..(start + channels) * plane)
    }

    /// The input channel of row `row`, and which outputs see it.
    fn row(&self, row: usize) -> (usize, Reach, Reach) {
        let problem = &self.problem;
        let [kh, kw] = problem.kernel;
        let channel = self.group * (problem.in_channels / problem.groups) + row / (kh * kw);
        let [ys, xs] = self.reach;
        (channel, ys[row / kw % kh], xs[row % kw])
    }

    /// Writes the matrix of `input` into `out`, zero where a weight sees padding.
    pub(crate) fn gather(&self, input: &[f32], out: &mut [f32]) {
        let [rows, cols] = self.shape();
        if rows * cols == 0 {
            return;
        }
        let problem = &self.problem;
        let [height, width] = problem.input;
        let out_width = self.output[1];
        team::chunks(out, self.stride(), TASK.div_ceil(cols), |row, out| {
            let (channel, ys, xs) = self.row(row);
            let (from, to) = xs.outputs;
            let images = out[..cols].chunks_mut(self.pixels());
            for (image, out) in self.images.clone().zip(images) {
                let plane = (image * problem.in_channels + channel) * height * width;
                let (top, bottom) = ys.outputs;
                if from == to || top == bottom {
                    out.fill(0.0);
                    continue;
                }
                out[..top * out_width].fill(0.0);
                out[bottom * out_width..].fill(0.0);
                let lines = out[top * out_width..bottom * out_width].chunks_mut(out_width);
                for (i, out) in lines.enumerate() {
                    let y = ys.first + i * problem.stride[0];
                    let line = &input[plane + y * width..][..width];
                    out[..from].fill(0.0);
                    out[to..].fill(0.0);
                    let seen = line[xs.first..].iter().step_by(problem.stride[1]);
                    if problem.stride[1] == 1 {
                        out[from..to].copy_from_slice(&line[xs.first..][..to - from]);
                    } else {
                        for (out, &value) in out[from..to].iter_mut().zip(seen) {
                            *out = value;
                        }
                    }
                }
            }
        });
    }

    /// The transpose of [`gather`](Self::gather): adds every element to the input pixel it was
    /// read from.
    pub(crate) fn scatter_add(&self, matrix: &[f32], input: &mut [f32]) {
        let (rows, stride) = (self.shape()[0], self.stride());
        let problem = &self.problem;
        let [height, width] = problem.input;
        let plane = height * width;
        if rows * stride * plane == 0 {
            return;
        }
        let out_width = self.output[1];
        let (taps, pixels) = (problem.kernel[0] * problem.kernel[1], self.pixels());
        let channels = problem.in_channels / problem.groups;
        let image = problem.in_channels * plane;
        let images = &mut input[self.images.start * image..self.images.end * image];
        team::chunks(images, plane, TASK.div_ceil(taps * pixels), |index, out| {
            let (image, channel) = (index / problem.in_channels, index % problem.in_channels);
            if channel / channels != self.group {
                return;
            }
            for row in channel % channels * taps..(channel % channels + 1) * taps {
                let (_, ys, xs) = self.row(row);
                let (from, to) = xs.outputs;
                if from == to {
                    continue;
                }
                let pixels = &matrix[row * stride + image * pixels..][..pixels];
                for e in ys.outputs.0..ys.outputs.1 {
                    let y = ys.first + (e - ys.outputs.0) * problem.stride[0];
                    let sums = &pixels[e * out_width..][from..to];
                    let line = &mut out[y * width..][..width][xs.first..];
                    if problem.stride[1] == 1 {
                        for (out, &value) in line.iter_mut().zip(sums) {
                            *out += value;
                        }
                    } else {
                        let seen = line.iter_mut().step_by(problem.stride[1]);
                        for (out, &value) in seen.zip(sums) {
                            *out += value;
                        }
                    }
                }
            }
        });
    }

    /// The outputs of these images as a matrix `[channels, images * pixels]`.
    pub(crate) fn gather_outputs(&self, outputs: &[f32], matrix: &mut [f32]) {
        let (pixels, cols) = (self.pixels(), self.shape()[1]);
        if cols == 0 {
            return;
        }
        let channels = self.channels();
        let len = self.stride() * channels.len().min(matrix.len() / self.stride());
        team::chunks(
            &mut matrix[..len],
            self.stride(),
            TASK.div_ceil(cols),
            |index, row| {
                let channel = channels.start + index;
                for (image, row) in self.images.clone().zip(row[..cols].chunks_mut(pixels)) {
                    let at = (image * self.problem.out_channels + channel) * pixels;
                    row.copy_from_slice(&outputs[at..at + pixels]);
                }
            },
        );
    }

    /// The inverse of [`gather_outputs`](Self::gather_outputs).
    pub(crate) fn scatter_outputs(&self, matrix: &[f32], outputs: &mut [f32]) {
        let (pixels, stride) = (self.pixels(), self.stride());
        if stride == 0 {
            return;
        }
        let channels = self.channels();
        let image = self.problem.out_channels * pixels;
        let images = &mut outputs[self.images.start * image..self.images.end * image];
        team::chunks(images, pixels, TASK.div_ceil(pixels), |index, out| {
            let (image, channel) = (
                index / self.problem.out_channels,
                index % self.problem.out_channels,
            );
            if channels.contains(&channel) {
                let at = (channel - channels.start) * stride + image * pixels;
                out.copy_from_slice(&matrix[at..at + pixels]);
            }
        });
    }
}
