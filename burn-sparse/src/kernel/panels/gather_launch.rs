//! Host side of the gathering product with panels.

use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::{
    gather::panel_linear_kernel,
    launch::{NO_PANELS, longest},
};
use crate::kernel::{
    Entries, Epilogue,
    base::{address_type, empty_like, float_elem, grid},
    sparse_linear::{GatherTile, LinearShapeLaunch, dims},
};

/// Runs one tile.
///
/// # Errors
/// The rule of [`GatherTile::check_bands`] that `tile` breaks, or that there are no panels.
pub(crate) fn launch(
    input: CubeTensor,
    entries: Entries,
    epilogue: Epilogue,
    rows: usize,
    tile: GatherTile,
) -> Result<CubeTensor, String> {
    let elem = float_elem(input.dtype);
    let [m, features] = dims(&input);
    let output = empty_like(&input, [m, rows]);
    if output.meta.num_elements() == 0 {
        return Ok(output);
    }
    if features == 0 {
        return Err("an input without features has nothing to multiply".to_string());
    }
    let nnz = entries.nnz();
    let panels = entries.panels.ok_or(NO_PANELS)?;
    let height = panels.height();
    let client = output.client.clone();
    tile.check_bands(height, m, &client.properties().hardware)?;
    let band_tiles = panels.bands().div_ceil(tile.rows());
    let m_tiles = m.div_ceil(tile.inputs);
    let (index, panels) = panels.arguments();
    let longest = longest([&input, &entries.values, &index, &output]);
    // SAFETY: bands and inputs are below their counts, and what is read of the index is below its
    // length, which the constructor of `Panels` checked. What the index says is brought into bounds:
    // panels, columns and entries below their counts, rows compared before anything is stored, and
    // input features cut to their number. Every tensor has the length that the shape says, checked by
    // the caller.
    unsafe {
        panel_linear_kernel::launch_unchecked(
            &client,
            grid(&client, band_tiles * m_tiles),
            CubeDim::new_1d(tile.units as u32),
            address_type(longest),
            input.into_buffer_arg(),
            entries.values.into_buffer_arg(),
            entries.indices.into_buffer_arg(),
            index.into_buffer_arg(),
            epilogue.bias.map(|bias| bias.into_buffer_arg()).into(),
            epilogue
                .residual
                .map(|residual| residual.into_buffer_arg())
                .into(),
            output.clone().into_buffer_arg(),
            LinearShapeLaunch::new(nnz, rows, band_tiles, m, m_tiles, features),
            panels,
            tile,
            height,
            epilogue.relu,
            elem,
        );
    }
    Ok(output)
}
