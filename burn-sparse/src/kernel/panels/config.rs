//! Tiles of the products with panels, known when their kernels are compiled.

use cubecl::ir::{DeviceProperties, ElemType, FloatKind, HardwareProperties, features::MmaConfig};

/// What a cube of the plain product works on, for a band of rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PanelTile {
    /// Units of a cube.
    pub units: usize,
    /// Output pixels of each unit.
    pub pixels: usize,
    /// Images for which a unit uses each value that it has loaded.
    pub sub_batch: usize,
    /// Columns staged in shared memory at a time; 0 reads values and offsets where they are.
    pub chunk: usize,
    /// Columns whose inputs are loaded at once.
    pub unroll: usize,
}

/// Sums that a unit keeps in registers at most: rows of a band, times pixels and images.
pub(crate) const MAX_SUMS: usize = 64;

/// Inputs that a unit keeps in registers at most.
const MAX_INPUTS: usize = 16;

impl PanelTile {
    /// `[units, pixels, sub_batch]` with values and offsets staged in shared memory.
    pub const fn staged([units, pixels, sub_batch]: [usize; 3]) -> Self {
        Self {
            chunk: 64,
            ..Self::direct([units, pixels, sub_batch])
        }
    }

    /// `[units, pixels, sub_batch]` without shared memory, and so without synchronisation.
    pub const fn direct([units, pixels, sub_batch]: [usize; 3]) -> Self {
        Self {
            units,
            pixels,
            sub_batch,
            chunk: 0,
            unroll: if pixels * sub_batch <= 4 { 4 } else { 2 },
        }
    }

    /// Output pixels of a cube, counted over groups of images.
    pub(crate) const fn items(&self) -> usize {
        self.units * self.pixels
    }

    /// Pixels and images of a unit.
    pub(crate) const fn places(&self) -> usize {
        self.pixels * self.sub_batch
    }

    /// The first rule that this tile breaks for bands of `height` rows and `batch` images on this
    /// hardware, as a sentence.
    ///
    /// # Errors
    /// The sentence.
    pub fn check(
        &self,
        height: usize,
        batch: usize,
        hardware: &HardwareProperties,
    ) -> Result<(), String> {
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
                height * self.places() <= MAX_SUMS,
                "rows of a band * pixels * sub_batch must not exceed 64 sums",
            ),
            (
                self.unroll * self.places() <= MAX_INPUTS,
                "unroll * pixels * sub_batch must not exceed 16 inputs",
            ),
            (
                self.chunk * (height + 1) * 4 <= hardware.max_shared_memory_size,
                "staged columns must fit shared memory",
            ),
        ];
        first_broken(self, &rules)
    }
}

impl core::fmt::Display for PanelTile {
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

/// What a cube of the product by matrix units works on, for a band of rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct MatrixTile {
    /// Planes of a cube, each of which multiplies its own tiles.
    pub planes: usize,
    /// Units of a plane.
    pub plane: usize,
    /// Output pixels whose inputs a unit gathers. A plane multiplies `plane * pixels` of them.
    pub pixels: usize,
    /// Columns gathered at a time; a multiple of 16.
    pub chunk: usize,
    /// Multiplies tiles by plain loops instead: all but one instruction of the kernel, for tests on
    /// devices without matrix units.
    pub emulated: bool,
}

/// Columns that matrix units multiply at once.
pub(crate) const DEPTH: usize = 16;

impl MatrixTile {
    /// `[planes, plane, pixels]` on 32 columns at a time.
    pub const fn new([planes, plane, pixels]: [usize; 3]) -> Self {
        Self {
            planes,
            plane,
            pixels,
            chunk: 2 * DEPTH,
            emulated: false,
        }
    }

    /// The same by plain loops.
    #[must_use]
    pub const fn emulated(mut self) -> Self {
        self.emulated = true;
        self
    }

    /// Units of a cube.
    pub(crate) const fn units(&self) -> usize {
        self.planes * self.plane
    }

    /// Output pixels of a cube, counted over all images.
    pub(crate) const fn items(&self) -> usize {
        self.units() * self.pixels
    }

    /// Rows of a tile for bands of `height` rows.
    pub(crate) const fn rows(height: usize) -> usize {
        if height <= 8 { 8 } else { 16 }
    }

    /// Pixels of a tile: as many as matrix units take with these rows.
    pub(crate) const fn width(height: usize) -> usize {
        if height <= 8 { 32 } else { 16 }
    }

    /// Tiles of a plane.
    pub(crate) const fn tiles(&self, height: usize) -> usize {
        self.plane * self.pixels / Self::width(height)
    }

    /// The first rule that this tile breaks for bands of `height` rows and inputs of type `elem` on
    /// this device, as a sentence.
    ///
    /// # Errors
    /// The sentence.
    pub fn check(
        &self,
        height: usize,
        elem: ElemType,
        device: &DeviceProperties,
    ) -> Result<(), String> {
        let hardware = &device.hardware;
        let [rows, width] = [Self::rows(height), Self::width(height)];
        let wanted = MmaConfig {
            a_type: elem,
            b_type: elem,
            cd_type: ElemType::Float(FloatKind::F32),
            m: rows as u32,
            n: width as u32,
            k: DEPTH as u32,
        };
        let halves = matches!(elem, ElemType::Float(FloatKind::F16 | FloatKind::BF16));
        let fixed = hardware.plane_size_min == hardware.plane_size_max;
        let rules = [
            (
                self.planes >= 1 && self.plane >= 1 && self.pixels >= 1,
                "planes, plane and pixels must be at least 1",
            ),
            (
                self.units() <= hardware.max_units_per_cube as usize,
                "a cube must not have more units than the device allows",
            ),
            (
                self.chunk >= DEPTH && self.chunk.is_multiple_of(DEPTH),
                "chunk must be a multiple of 16 columns",
            ),
            (
                (self.plane * self.pixels).is_multiple_of(width),
                "a plane's pixels must be a multiple of a tile's: 32 for up to 8 rows, 16 for more",
            ),
            (
                self.shared_bytes(height, elem.size()) <= hardware.max_shared_memory_size,
                "gathered columns and sums must fit shared memory",
            ),
            (
                self.emulated || halves,
                "matrix units take f16 and bf16 here, so that f32 stays f32",
            ),
            (
                self.emulated || (fixed && self.plane == hardware.plane_size_max as usize),
                "plane must be the number of units of this device's planes",
            ),
            (
                self.emulated || device.features.matmul.cmma.contains(&wanted),
                "this device has no matrix units for these tiles",
            ),
        ];
        first_broken(self, &rules)
    }

    /// Values and inputs of a chunk, of `size` bytes each, its offsets, and the sums.
    fn shared_bytes(&self, height: usize, size: usize) -> usize {
        let rows = Self::rows(height);
        let [values, inputs] = [rows, self.items()].map(|rows| rows * self.chunk * size);
        values + inputs + self.chunk * 4 + rows * self.items() * 4
    }
}

impl core::fmt::Display for MatrixTile {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let Self {
            planes,
            plane,
            pixels,
            chunk,
            emulated,
        } = self;
        write!(f, "planes{planes}x{plane}_pixels{pixels}_chunk{chunk}")?;
        if *emulated {
            f.write_str("_emulated")?;
        }
        Ok(())
    }
}

pub(crate) fn first_broken(
    tile: &impl core::fmt::Display,
    rules: &[(bool, &str)],
) -> Result<(), String> {
    match rules.iter().find(|(holds, _)| !holds) {
        None => Ok(()),
        Some((_, rule)) => Err(format!("{tile}: {rule}")),
    }
}
