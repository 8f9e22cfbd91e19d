//! A convolution without data: its geometry, its checks and the layout its input is stretched to.

use serde::{Deserialize, Serialize};

use crate::SparseError;

/// Geometry of a 2-D convolution (1-D ones have `height = 1`, linear layers one pixel per row).
///
/// Every layer below takes it: the formats compute offsets from it, the kernels their loops, the
/// benches their FLOPs.
///
/// # Shapes
/// - input `[batch, in_channels, input[0], input[1]]`
/// - weight `[out_channels, in_channels / groups, kernel[0], kernel[1]]`
/// - output `[batch, out_channels, output()[0], output()[1]]`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ConvProblem {
    /// Images `N`.
    pub batch: usize,
    /// Input channels `C`.
    pub in_channels: usize,
    /// Output channels `K`.
    pub out_channels: usize,
    /// Input height and width.
    pub input: [usize; 2],
    /// Kernel height and width.
    pub kernel: [usize; 2],
    /// Step between outputs, vertical and horizontal.
    pub stride: [usize; 2],
    /// Zeros before and after, vertical then horizontal: `[[top, bottom], [left, right]]`.
    pub padding: [[usize; 2]; 2],
    /// Distance between kernel elements.
    pub dilation: [usize; 2],
    /// Groups that divide the channels.
    pub groups: usize,
}

impl ConvProblem {
    /// A convolution with stride and dilation 1, no padding and one group.
    pub fn new(
        batch: usize,
        [in_channels, out_channels]: [usize; 2],
        input: [usize; 2],
        kernel: [usize; 2],
    ) -> Self {
        Self {
            batch,
            in_channels,
            out_channels,
            input,
            kernel,
            stride: [1, 1],
            padding: [[0, 0], [0, 0]],
            dilation: [1, 1],
            groups: 1,
        }
    }

    /// With another stride.
    #[must_use]
    pub fn with_stride(mut self, stride: [usize; 2]) -> Self {
        self.stride = stride;
        self
    }

    /// With the same padding on both sides of an axis.
    #[must_use]
    pub fn with_padding(mut self, [vertical, horizontal]: [usize; 2]) -> Self {
        self.padding = [[vertical, vertical], [horizontal, horizontal]];
        self
    }

    /// With another dilation.
    #[must_use]
    pub fn with_dilation(mut self, dilation: [usize; 2]) -> Self {
        self.dilation = dilation;
        self
    }

    /// With groups.
    #[must_use]
    pub fn with_groups(mut self, groups: usize) -> Self {
        self.groups = groups;
        self
    }

    /// With another batch.
    #[must_use]
    pub fn with_batch(mut self, batch: usize) -> Self {
        self.batch = batch;
        self
    }

    /// Checks that the numbers describe a convolution.
    ///
    /// # Errors
    /// [`SparseError::Groups`] when groups do not divide the channels, [`SparseError::Shape`] for
    /// zero strides, dilations, groups or kernels, and for a kernel larger than the padded input.
    pub fn check(&self) -> Result<(), SparseError> {
        let zero = |pair: [usize; 2]| pair.contains(&0);
        if zero(self.stride) || zero(self.dilation) || zero(self.kernel) || self.groups == 0 {
            return Err(SparseError::shape(format!(
                "stride {:?}, dilation {:?}, kernel {:?} and groups {} must all be at least 1",
                self.stride, self.dilation, self.kernel, self.groups
            )));
        }
        for (channels, what) in [(self.in_channels, "input"), (self.out_channels, "output")] {
            if !channels.is_multiple_of(self.groups) {
                return Err(SparseError::Groups {
                    channels,
                    what,
                    groups: self.groups,
                });
            }
        }
        let (padded, extent) = (self.padded(), self.extent());
        for axis in 0..2 {
            if padded[axis] < extent[axis] {
                return Err(SparseError::shape(format!(
                    "kernel {:?} with dilation {:?} spans {extent:?}, more than the padded input \
                     {padded:?}",
                    self.kernel, self.dilation
                )));
            }
        }
        Ok(())
    }

    /// Input height and width with padding.
    pub fn padded(&self) -> [usize; 2] {
        core::array::from_fn(|i| self.input[i] + self.padding[i][0] + self.padding[i][1])
    }

    /// Input rows and columns that the dilated kernel spans.
    pub fn extent(&self) -> [usize; 2] {
        core::array::from_fn(|i| self.dilation[i] * (self.kernel[i] - 1) + 1)
    }

    /// Output height and width `floor((padded - extent) / stride) + 1`.
    ///
    /// # Panics
    /// If the kernel does not fit the padded input; see [`check`](Self::check).
    pub fn output(&self) -> [usize; 2] {
        let (padded, extent) = (self.padded(), self.extent());
        core::array::from_fn(|i| (padded[i] - extent[i]) / self.stride[i] + 1)
    }

    /// `[batch, out_channels, height, width]` of the output.
    pub fn output_shape(&self) -> [usize; 4] {
        let [height, width] = self.output();
        [self.batch, self.out_channels, height, width]
    }

    /// `[batch, in_channels, height, width]` of the input.
    pub fn input_shape(&self) -> [usize; 4] {
        [self.batch, self.in_channels, self.input[0], self.input[1]]
    }

    /// `[out_channels, in_channels / groups, height, width]` of the weight.
    pub fn weight_shape(&self) -> [usize; 4] {
        [
            self.out_channels,
            self.in_channels / self.groups,
            self.kernel[0],
            self.kernel[1],
        ]
    }

    /// Weights per output channel, `in_channels / groups * kernel height * kernel width`.
    pub fn row_len(&self) -> usize {
        self.in_channels / self.groups * self.kernel[0] * self.kernel[1]
    }

    /// Multiply-accumulates with `nnz` non-zeros: one for each non-zero, output pixel and image.
    pub fn macs(&self, nnz: usize) -> u64 {
        let [height, width] = self.output();
        nnz as u64 * (self.batch * height * width) as u64
    }

    /// Multiply-accumulates of the dense convolution.
    pub fn dense_macs(&self) -> u64 {
        self.macs(self.out_channels * self.row_len())
    }

    /// The layout in which one offset per weight serves every output pixel.
    pub fn stretched(&self) -> Stretched {
        Stretched::new(self)
    }
}

/// The stretched input: padded, and split into one plane per stride phase, so that for every
/// non-zero the inputs of neighbouring outputs are neighbours too.
///
/// Weight `(c, r, s)` of a channel reads, for output pixel `(e, f)`, the padded input at
/// `(e*u + r*d, f*v + s*d)`. Writing `r*d = a*u + p` and `s*d = b*v + q`, that is row `e + a`,
/// column `f + b` of the plane of phase `(p, q)`. So with planes of `rows x cols`
///
/// `offset(c, r, s) = ((c * phases[0] + p) * phases[1] + q) * rows * cols + a * cols + b`
///
/// and the input lies at `offset + e * cols + f` whatever the stride: unit steps along a row. For
/// stride 1 there is one phase and this is the stretched padded input of Escoin and of Pietroń and
/// Żurek (section 3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Stretched {
    /// Stride phases that the kernel reads, vertical and horizontal.
    pub phases: [usize; 2],
    /// Rows of a phase plane.
    pub rows: usize,
    /// Columns of a phase plane: the distance between output rows in it.
    pub cols: usize,
    stride: [usize; 2],
    dilation: [usize; 2],
    kernel: [usize; 2],
}

impl Stretched {
    fn new(problem: &ConvProblem) -> Self {
        let padded = problem.padded();
        // A 1x1 kernel of stride 2 reads one phase in four: the others are never copied.
        let phases = core::array::from_fn(|i| {
            (0..problem.kernel[i])
                .map(|k| k * problem.dilation[i] % problem.stride[i] + 1)
                .max()
                .unwrap_or(1)
        });
        Self {
            phases,
            rows: padded[0].div_ceil(problem.stride[0]),
            cols: padded[1].div_ceil(problem.stride[1]),
            stride: problem.stride,
            dilation: problem.dilation,
            kernel: problem.kernel,
        }
    }

    /// Elements of one phase plane.
    pub fn plane(&self) -> usize {
        self.rows * self.cols
    }

    /// Elements between two input channels.
    pub fn channel_stride(&self) -> usize {
        self.phases[0] * self.phases[1] * self.plane()
    }

    /// The offset of weight `(channel, r, s)`, `channel` counted over all groups.
    pub fn offset(&self, channel: usize, r: usize, s: usize) -> usize {
        let (y, x) = (r * self.dilation[0], s * self.dilation[1]);
        let phase = (y % self.stride[0]) * self.phases[1] + x % self.stride[1];
        channel * self.channel_stride()
            + phase * self.plane()
            + (y / self.stride[0]) * self.cols
            + x / self.stride[1]
    }

    /// Where input pixel `(y, x)` of the *padded* plane lies within its channel, if any weight
    /// reads it.
    pub fn position(&self, y: usize, x: usize) -> Option<usize> {
        let (p, q) = (y % self.stride[0], x % self.stride[1]);
        (p < self.phases[0] && q < self.phases[1]).then(|| {
            (p * self.phases[1] + q) * self.plane()
                + (y / self.stride[0]) * self.cols
                + x / self.stride[1]
        })
    }

    /// Whether the layout is the plain input: nothing padded, nothing split.
    pub fn is_identity(&self, problem: &ConvProblem) -> bool {
        problem.stride == [1, 1] && problem.padding == [[0, 0], [0, 0]]
    }

    /// The offset of a flat weight column `(c * R + r) * S + s` of group `group`.
    pub fn column_offset(&self, column: usize, group: usize, channels_per_group: usize) -> usize {
        let [kh, kw] = self.kernel;
        let (channel, tap) = (column / (kh * kw), column % (kh * kw));
        self.offset(group * channels_per_group + channel, tap / kw, tap % kw)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every weight and output pixel finds the padded input it should, phases or not.
    #[test]
    fn offsets_reach_the_pixel_the_definition_names() {
        for (stride, dilation, kernel, padding) in [
            ([1, 1], [1, 1], [3, 3], [1, 1]),
            ([2, 2], [1, 1], [3, 3], [1, 1]),
            ([2, 2], [1, 1], [1, 1], [0, 0]),
            ([3, 2], [2, 1], [2, 5], [0, 2]),
            ([4, 1], [2, 3], [2, 2], [1, 0]),
            ([2, 3], [1, 2], [7, 1], [3, 0]),
        ] {
            let problem = ConvProblem::new(1, [2, 1], [9, 11], kernel)
                .with_stride(stride)
                .with_dilation(dilation)
                .with_padding(padding);
            problem.check().unwrap();
            let layout = problem.stretched();
            let [height, width] = problem.output();
            for c in 0..2 {
                for (r, s) in (0..kernel[0]).flat_map(|r| (0..kernel[1]).map(move |s| (r, s))) {
                    for (e, f) in (0..height).flat_map(|e| (0..width).map(move |f| (e, f))) {
                        let (y, x) = (
                            e * stride[0] + r * dilation[0],
                            f * stride[1] + s * dilation[1],
                        );
                        let expected = c * layout.channel_stride() + layout.position(y, x).unwrap();
                        assert_eq!(layout.offset(c, r, s) + e * layout.cols + f, expected);
                    }
                }
            }
        }
    }

    #[test]
    fn channels_not_divisible_by_groups_are_refused() {
        let problem = ConvProblem::new(1, [6, 4], [5, 5], [3, 3]).with_groups(4);
        assert!(matches!(
            problem.check(),
            Err(SparseError::Groups {
                channels: 6,
                what: "input",
                groups: 4
            })
        ));
    }

    #[test]
    fn a_kernel_larger_than_the_input_is_refused() {
        let problem = ConvProblem::new(1, [1, 1], [2, 2], [3, 3]);
        assert!(
            problem
                .check()
                .unwrap_err()
                .to_string()
                .contains("spans [3, 3]")
        );
        assert!(problem.with_padding([1, 1]).check().is_ok());
    }
}
