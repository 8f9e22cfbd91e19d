//! The tile of the core convolution and its window, known when the kernel is compiled.

use cubecl::ir::HardwareProperties;

use crate::{ConvProblem, kernel::panels::first_broken};

/// What a unit and a cube of the [core convolution](super::core_conv) work on.
///
/// A cube has one unit for each pair of an output channel and a column tile, channels fastest, as in TDC.
/// Where that is more than [`units`](Self::units), columns are cut into strips, and output channels into
/// blocks, of cubes of their own.
///
/// # Example
/// ```
/// use burn_sparse::kernel::CoreTile;
///
/// // 2 × 3 outputs for each unit, 16 input channels at a time, all of them in one cube.
/// let tile = CoreTile::staged([2, 3, 16]);
/// assert_eq!((tile.rows, tile.cols, tile.chunk, tile.splits), (2, 3, 16, 1));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CoreTile {
    /// Output rows of a unit, TDC's TH.
    pub rows: usize,
    /// Output columns of a unit, TDC's TW.
    pub cols: usize,
    /// Input channels staged in shared memory at a time, TDC's TC; 0 reads them where they are.
    pub chunk: usize,
    /// Units of a cube at most.
    pub units: usize,
    /// Parts of the input channels, each summed by cubes of its own. More than one writes partial sums,
    /// which a second kernel adds.
    pub splits: usize,
}

/// Numbers that a unit keeps in registers at most: sums, the weights of a channel, a row of inputs.
const MAX_REGISTERS: usize = 160;

/// What a unit needs in registers besides those numbers, roughly: addresses and counters.
const OTHER_REGISTERS: usize = 24;

impl CoreTile {
    /// `[TH, TW, TC]` in cubes of up to 256 units, without splitting the input channels.
    pub const fn staged([rows, cols, chunk]: [usize; 3]) -> Self {
        Self {
            rows,
            cols,
            chunk,
            units: 256,
            splits: 1,
        }
    }

    /// `[TH, TW]` in cubes of up to `units` units, without shared memory and so without synchronisation.
    pub const fn direct([rows, cols]: [usize; 2], units: usize) -> Self {
        Self {
            units,
            ..Self::staged([rows, cols, 0])
        }
    }

    /// With cubes of up to so many units.
    #[must_use]
    pub const fn with_units(mut self, units: usize) -> Self {
        self.units = units;
        self
    }

    /// With the input channels in so many parts.
    #[must_use]
    pub const fn with_splits(mut self, splits: usize) -> Self {
        self.splits = splits;
        self
    }

    /// Output channels and column tiles of a cube.
    pub(crate) fn cube(&self, problem: &ConvProblem) -> CoreCube {
        let limit = self.units.max(1);
        let columns = problem.output()[1].div_ceil(self.cols.max(1)).max(1);
        let channels = problem.out_channels.clamp(1, limit);
        let strips = columns.div_ceil((limit / channels).max(1));
        CoreCube {
            channels,
            columns: columns.div_ceil(strips),
        }
    }

    /// Input channels of a part: whole chunks.
    pub(crate) fn split_channels(&self, channels: usize) -> usize {
        let chunk = self.chunk.max(1);
        channels.div_ceil(chunk).div_ceil(self.splits.max(1)).max(1) * chunk
    }

    /// Cubes of one part of the input channels.
    pub(crate) fn cubes(&self, problem: &ConvProblem) -> usize {
        let cube = self.cube(problem);
        let [height, width] = problem.output();
        problem.batch
            * height.div_ceil(self.rows)
            * width.div_ceil(self.cols * cube.columns)
            * problem.out_channels.div_ceil(cube.channels)
    }

    /// Staged inputs in bytes, for elements of `size` bytes.
    pub(crate) fn shared_bytes(&self, problem: &ConvProblem, size: usize) -> usize {
        let window = CoreWindow::of(problem);
        let columns = self.cube(problem).columns * self.cols;
        self.chunk * window.span(0, self.rows) * window.span(1, columns) * size
    }

    /// Registers of a unit, roughly; what the assembler makes of it is in the compile test's table.
    pub(crate) fn registers(&self, problem: &ConvProblem) -> usize {
        self.numbers(problem) + OTHER_REGISTERS
    }

    pub(crate) fn fits_registers(&self, problem: &ConvProblem) -> bool {
        self.numbers(problem) <= MAX_REGISTERS
    }

    fn numbers(&self, problem: &ConvProblem) -> usize {
        let window = CoreWindow::of(problem);
        self.rows * self.cols + window.kernel[0] * window.kernel[1] + window.span(1, self.cols)
    }

    /// The first rule that this tile breaks for a convolution of elements of `size` bytes on this
    /// hardware, as a sentence.
    ///
    /// # Errors
    /// The sentence.
    pub fn check(
        &self,
        problem: &ConvProblem,
        size: usize,
        hardware: &HardwareProperties,
    ) -> Result<(), String> {
        if self.rows == 0 || self.cols == 0 || self.units == 0 || self.splits == 0 {
            return Err(format!(
                "{self}: rows, cols, units and splits must be at least 1"
            ));
        }
        let rules = [
            (
                problem.groups == 1 && problem.in_channels >= 1,
                "the core convolution takes one group, of at least one channel",
            ),
            (
                self.cube(problem).units() <= hardware.max_units_per_cube as usize,
                "a cube must not have more units than the device allows",
            ),
            (
                self.fits_registers(problem),
                "sums, weights of a channel and a row of inputs must not exceed 160 registers",
            ),
            (
                self.shared_bytes(problem, size) <= hardware.max_shared_memory_size,
                "staged channels must fit shared memory",
            ),
            (
                self.splits <= problem.in_channels.div_ceil(self.chunk.max(1)),
                "there must not be more splits than chunks of input channels",
            ),
        ];
        first_broken(self, &rules)
    }
}

impl core::fmt::Display for CoreTile {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let Self {
            rows,
            cols,
            chunk,
            units,
            splits,
        } = self;
        write!(
            f,
            "core_{rows}x{cols}_chunk{chunk}_units{units}_splits{splits}"
        )
    }
}

/// How the units of a cube are shared out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct CoreCube {
    pub(crate) channels: usize,
    pub(crate) columns: usize,
}

impl CoreCube {
    pub(crate) const fn units(&self) -> usize {
        self.channels * self.columns
    }
}

/// The part of a convolution that a kernel is compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct CoreWindow {
    pub(crate) kernel: [usize; 2],
    pub(crate) stride: [usize; 2],
    pub(crate) dilation: [usize; 2],
}

impl CoreWindow {
    pub(crate) fn of(problem: &ConvProblem) -> Self {
        Self {
            kernel: problem.kernel,
            stride: problem.stride,
            dilation: problem.dilation,
        }
    }

    /// Inputs that so many outputs span along an axis: TDC's `TH + R - 1` at stride and dilation 1.
    pub(crate) const fn span(&self, axis: usize, outputs: usize) -> usize {
        (outputs - 1) * self.stride[axis] + self.dilation[axis] * (self.kernel[axis] - 1) + 1
    }

    /// Whether the `at`-th input of that span is read by kernel element `k` for output `o`.
    pub(crate) const fn meets(&self, axis: usize, at: usize, o: usize, k: usize) -> bool {
        o * self.stride[axis] + k * self.dilation[axis] == at
    }

    /// Whether any output reads the `at`-th input of the span of so many.
    pub(crate) fn reads(&self, axis: usize, at: usize, outputs: usize) -> bool {
        (0..outputs).any(|o| (0..self.kernel[axis]).any(|k| self.meets(axis, at, o, k)))
    }
}
