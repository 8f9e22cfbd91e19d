//! The tile of the fused strip and the factors it is for, known when the kernel is compiled.

use cubecl::ir::HardwareProperties;

use crate::{
    ConvProblem,
    kernel::{core_conv::CoreWindow, panels::first_broken},
};

/// What a cube of the fused [`factored_conv`](super::factored_conv) works on: `rows × cols` outputs of an
/// image, all channels. `lanes` units stand side by side along pixels, the others along channels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct StripTile {
    /// Output rows of a cube, TH.
    pub rows: usize,
    /// Output columns of a cube; all of them, or a strip where they do not fit.
    pub cols: usize,
    /// Units of a cube.
    pub units: usize,
    /// Units along pixels; the others, `units / lanes`, along channels.
    pub lanes: usize,
    /// Pixels whose sums a unit keeps at once.
    pub pixels: usize,
    /// Channels whose sums a unit keeps at once.
    pub ranks: usize,
    /// Input channels staged in shared memory at a time.
    pub chunk: usize,
}

/// Sums that a unit keeps in registers at most.
const MAX_SUMS: usize = 64;

impl StripTile {
    /// `[rows, cols]` outputs by `[units, lanes]` units that keep `[pixels, ranks]` sums each, with chunks
    /// of 8 input channels.
    pub const fn new(
        [rows, cols]: [usize; 2],
        [units, lanes]: [usize; 2],
        [pixels, ranks]: [usize; 2],
    ) -> Self {
        Self {
            rows,
            cols,
            units,
            lanes,
            pixels,
            ranks,
            chunk: 8,
        }
    }

    /// Pixels of all units together.
    pub(crate) const fn span(&self) -> usize {
        self.lanes * self.pixels
    }

    /// Units along channels.
    pub(crate) const fn rank_lanes(&self) -> usize {
        self.units / self.lanes
    }

    /// Channels of all units together.
    pub(crate) const fn block(&self) -> usize {
        self.rank_lanes() * self.ranks
    }

    /// Rows, columns and pixels of what the core reads.
    pub(crate) const fn window(&self, factors: &FactorShape) -> [usize; 2] {
        [
            factors.window.span(0, self.rows),
            factors.window.span(1, self.cols),
        ]
    }

    pub(crate) const fn window_pixels(&self, factors: &FactorShape) -> usize {
        let [rows, cols] = self.window(factors);
        rows * cols
    }

    /// Cubes of a problem.
    pub(crate) fn cubes(&self, problem: &ConvProblem) -> usize {
        let [height, width] = problem.output();
        problem.batch * height.div_ceil(self.rows) * width.div_ceil(self.cols)
    }

    /// Shared memory in bytes: what enters the core, what leaves it, and staged inputs, of `size` bytes
    /// each.
    pub(crate) fn shared_bytes(&self, factors: &FactorShape, size: usize) -> usize {
        let entering = self.window_pixels(factors) * factors.pitch(0);
        let leaving = match factors.expand {
            true => self.rows * self.cols * factors.pitch(1),
            false => 0,
        };
        let staged = match factors.reduce {
            true => self.chunk * self.span(),
            false => 0,
        };
        (entering + leaving + staged) * size
    }

    /// The first rule that this tile breaks for factors of elements of `size` bytes on this hardware, as a
    /// sentence.
    ///
    /// # Errors
    /// The sentence.
    pub(crate) fn check(
        &self,
        factors: &FactorShape,
        size: usize,
        hardware: &HardwareProperties,
    ) -> Result<(), String> {
        let counts = [self.rows, self.cols, self.lanes, self.pixels, self.ranks];
        if counts.contains(&0) || self.chunk == 0 || self.units < self.lanes {
            return Err(format!(
                "{self}: rows, cols, lanes, pixels, ranks and chunk must be at least 1, units lanes"
            ));
        }
        let rules = [
            (
                self.units.is_multiple_of(self.lanes),
                "lanes must divide the units of a cube",
            ),
            (
                self.units <= hardware.max_units_per_cube as usize,
                "a cube must not have more units than the device allows",
            ),
            (
                self.pixels * self.ranks <= MAX_SUMS,
                "pixels * ranks must not exceed 64 sums",
            ),
            (
                self.shared_bytes(factors, size) <= hardware.max_shared_memory_size,
                "what is between the factors must fit shared memory",
            ),
        ];
        first_broken(self, &rules)
    }
}

impl core::fmt::Display for StripTile {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let Self {
            rows,
            cols,
            units,
            lanes,
            pixels,
            ranks,
            chunk,
        } = self;
        write!(
            f,
            "strip{rows}x{cols}_units{units}_lanes{lanes}_pixels{pixels}_ranks{ranks}_chunk{chunk}"
        )
    }
}

/// The part of a chain of factors that a kernel is compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct FactorShape {
    /// Channels that enter and leave the core, `[D1, D2]`.
    pub(crate) ranks: [usize; 2],
    pub(crate) window: CoreWindow,
    /// Whether there is a first, and a last factor.
    pub(crate) reduce: bool,
    pub(crate) expand: bool,
}

impl FactorShape {
    /// Elements between two pixels before (0) or behind (1) the core: odd, so that neighbouring pixels lie
    /// in different banks.
    pub(crate) const fn pitch(&self, side: usize) -> usize {
        self.ranks[side] | 1
    }
}
