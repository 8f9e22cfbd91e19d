//! The kernels of a sparse convolution and the tile for single entries, known when it is compiled.

use cubecl::ir::HardwareProperties;

use crate::kernel::{MatrixTile, PanelTile};

/// How a sparse convolution is computed, and with which tile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ConvKernel {
    /// Row by row, entry by entry.
    Entries(ConvTile),
    /// Band by band: an input is loaded once for all rows of a panel. For weights with
    /// [`Panels`](crate::kernel::Panels).
    Panels(PanelTile),
    /// Band by band, by matrix units. For weights with [`Panels`](crate::kernel::Panels).
    MatrixUnits(MatrixTile),
}

impl From<ConvTile> for ConvKernel {
    fn from(tile: ConvTile) -> Self {
        Self::Entries(tile)
    }
}

impl core::fmt::Display for ConvKernel {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Entries(tile) => write!(f, "{tile}"),
            Self::Panels(tile) => write!(f, "panels_{tile}"),
            Self::MatrixUnits(tile) => write!(f, "matrix_units_{tile}"),
        }
    }
}

/// What a cube of the sparse convolution works on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ConvTile {
    /// Units of a cube.
    pub units: usize,
    /// Output pixels of each unit.
    pub pixels: usize,
    /// Images for which a unit uses each value that it has loaded.
    pub sub_batch: usize,
    /// Entries staged in shared memory at a time; 0 reads them where they are.
    pub chunk: usize,
    /// Entries walked between two loop tests.
    pub unroll: usize,
}

/// Accumulators that a unit keeps in registers at most.
const MAX_ACCUMULATORS: usize = 32;

impl ConvTile {
    /// `[units, pixels, sub_batch]` with entries staged as suits the number of units.
    pub const fn staged([units, pixels, sub_batch]: [usize; 3]) -> Self {
        Self {
            units,
            pixels,
            sub_batch,
            chunk: if units < 64 { 64 } else { 128 },
            unroll: if pixels * sub_batch < 8 { 4 } else { 2 },
        }
    }

    /// `[units, pixels, sub_batch]` without shared memory, and so without synchronisation.
    pub const fn direct([units, pixels, sub_batch]: [usize; 3]) -> Self {
        Self {
            units,
            pixels,
            sub_batch,
            chunk: 0,
            unroll: if pixels * sub_batch < 8 { 4 } else { 2 },
        }
    }

    /// Output pixels of a cube, counted over groups of images.
    pub(crate) const fn items(&self) -> usize {
        self.units * self.pixels
    }

    /// The first rule that this tile breaks for `batch` images on this hardware, as a sentence.
    ///
    /// # Errors
    /// The sentence.
    pub fn check(&self, batch: usize, hardware: &HardwareProperties) -> Result<(), String> {
        let rules = [
            (
                self.units >= 1 && self.pixels >= 1 && self.sub_batch >= 1 && self.unroll >= 1,
                "units, pixels, sub_batch and unroll must be at least 1",
            ),
            (
                self.units <= hardware.max_units_per_cube as usize,
                "a cube must not have more units than the device allows",
            ),
            (
                self.sub_batch <= batch,
                "sub_batch must not exceed the batch",
            ),
            (
                self.pixels * self.sub_batch <= MAX_ACCUMULATORS,
                "pixels * sub_batch must not exceed 32 accumulators",
            ),
            (
                self.chunk * 8 <= hardware.max_shared_memory_size,
                "staged entries must fit shared memory",
            ),
        ];
        match rules.iter().find(|(holds, _)| !holds) {
            None => Ok(()),
            Some((_, rule)) => Err(format!("{self}: {rule}")),
        }
    }
}

impl core::fmt::Display for ConvTile {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let Self {
            units,
            pixels,
            sub_batch,
            chunk,
            unroll,
        } = self;
        write!(
            f,
            "units{units}_pixels{pixels}_sub_batch{sub_batch}_chunk{chunk}_unroll{unroll}"
        )
    }
}
