//! Tiles of the sparse product, known when its kernels are compiled.

use cubecl::ir::HardwareProperties;

use crate::kernel::{
    ConvKernel,
    panels::{MAX_SUMS, first_broken},
};

/// How a sparse product is computed, and with which tile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LinearTile {
    /// `lanes` units share a row.
    Gather(GatherTile),
    /// The same with values as codes, for weights with [`Codes`](crate::kernel::Codes).
    GatherCodes(GatherTile),
    /// `lanes` units share a band of rows. For weights with [`Panels`](crate::kernel::Panels).
    GatherPanels(GatherTile),
    /// The same with values as codes, for weights with panels and [`Codes`](crate::kernel::Codes).
    GatherPanelCodes(GatherTile),
    /// A sparse convolution of the transposed input.
    Stream(ConvKernel),
}

impl core::fmt::Display for LinearTile {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Gather(tile) => write!(f, "gather_{tile}"),
            Self::GatherCodes(tile) => write!(f, "gather_codes_{tile}"),
            Self::GatherPanels(tile) => write!(f, "gather_panels_{tile}"),
            Self::GatherPanelCodes(tile) => write!(f, "gather_panel_codes_{tile}"),
            Self::Stream(kernel) => write!(f, "stream_{kernel}"),
        }
    }
}

/// What a cube of the gathering product works on: `units / lanes` rows, `inputs` inputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct GatherTile {
    /// Units of a cube.
    pub units: usize,
    /// Units that share a row; a power of two.
    pub lanes: usize,
    /// Inputs for which a unit uses each entry that it has loaded.
    pub inputs: usize,
}

impl GatherTile {
    /// A tile of `[units, lanes, inputs]`.
    pub const fn new([units, lanes, inputs]: [usize; 3]) -> Self {
        Self {
            units,
            lanes,
            inputs,
        }
    }

    /// Rows of a cube.
    pub(crate) const fn rows(&self) -> usize {
        self.units / self.lanes
    }

    /// The first rule that this tile breaks for `m` inputs on this hardware, as a sentence.
    ///
    /// # Errors
    /// The sentence.
    pub fn check(&self, m: usize, hardware: &HardwareProperties) -> Result<(), String> {
        self.check_bands(1, m, hardware)
    }

    /// The first rule that this tile breaks for bands of `height` rows and `m` inputs on this
    /// hardware, as a sentence.
    ///
    /// # Errors
    /// The sentence.
    pub fn check_bands(
        &self,
        height: usize,
        m: usize,
        hardware: &HardwareProperties,
    ) -> Result<(), String> {
        let rules = [
            (
                self.lanes.is_power_of_two() && self.units >= 1 && self.inputs >= 1,
                "lanes must be a power of two, units and inputs at least 1",
            ),
            (
                self.units.is_multiple_of(self.lanes.max(1)),
                "lanes must divide the units of a cube",
            ),
            (
                self.units <= hardware.max_units_per_cube as usize,
                "a cube must not have more units than the device allows",
            ),
            (self.inputs <= m, "a tile must not have more inputs than m"),
            (self.inputs <= 16, "inputs must not exceed 16 accumulators"),
            (
                height * self.inputs <= MAX_SUMS,
                "rows of a band * inputs must not exceed 64 sums",
            ),
            (
                self.lanes == 1
                    || self.units * self.inputs * height * 4 <= hardware.max_shared_memory_size,
                "partial sums must fit shared memory",
            ),
        ];
        first_broken(self, &rules)
    }
}

impl core::fmt::Display for GatherTile {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let Self {
            units,
            lanes,
            inputs,
        } = self;
        write!(f, "units{units}_lanes{lanes}_inputs{inputs}")
    }
}
