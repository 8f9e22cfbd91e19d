//! What the launches of gathering products share.

use burn_cubecl::tensor::CubeTensor;
use cubecl::{ir::AddressType, prelude::*};

use super::{config::GatherTile, kernel::LinearShapeLaunch, launch::dims};
use crate::kernel::base::{address_type, empty_like, grid};

/// Where a product goes, and how many cubes work on it.
pub(crate) struct Gathering {
    pub(crate) output: CubeTensor,
    pub(crate) cubes: CubeCount,
    pub(crate) dim: CubeDim,
    pub(crate) address: AddressType,
    pub(crate) shape: LinearShapeLaunch,
}

impl Gathering {
    /// For `nnz` entries in `rows`, which make `bands` of `height`. `operands` are the tensors that may be
    /// longest.
    ///
    /// # Errors
    /// The rule of [`GatherTile::check_bands`] that `tile` breaks, or that there are no features.
    pub(crate) fn new(
        input: &CubeTensor,
        [rows, nnz]: [usize; 2],
        [bands, height]: [usize; 2],
        tile: GatherTile,
        operands: &[&CubeTensor],
    ) -> Result<Self, String> {
        let [m, features] = dims(input);
        if features == 0 {
            return Err("an input without features has nothing to multiply".to_string());
        }
        let output = empty_like(input, [m, rows]);
        let client = &output.client;
        tile.check_bands(height, m, &client.properties().hardware)?;
        let row_tiles = bands.div_ceil(tile.rows());
        let m_tiles = m.div_ceil(tile.inputs);
        Ok(Self {
            cubes: grid(client, row_tiles * m_tiles),
            dim: CubeDim::new_1d(tile.units as u32),
            address: address_type(operands.iter().copied().chain([input, &output])),
            shape: LinearShapeLaunch::new(nnz, rows, row_tiles, m, m_tiles, features),
            output,
        })
    }
}
