//! Host side of the convolutions with panels.

use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::{MatrixTile, PanelTile, matrix::panel_matrix_kernel, plain::panel_conv_kernel};
use crate::kernel::{
    Entries, Epilogue,
    base::{address_type, empty_like, float_elem, grid},
    sparse_conv::Layout,
};

/// What a weight without panels is told.
pub(super) const NO_PANELS: &str = "this weight comes without panels; run it by its entries";

/// Runs one plain tile on an input that is stretched already.
///
/// # Errors
/// The rule of [`PanelTile::check`] that `tile` breaks, or that there are no panels.
pub(crate) fn plain(
    input: CubeTensor,
    entries: Entries,
    epilogue: Epilogue,
    layout: &Layout,
    tile: PanelTile,
) -> Result<CubeTensor, String> {
    let elem = float_elem(input.dtype);
    let output = empty_like(&input, layout.shape.clone());
    if output.meta.num_elements() == 0 {
        return Ok(output);
    }
    let nnz = entries.nnz();
    let panels = entries.panels.ok_or(NO_PANELS)?;
    let height = panels.height();
    let client = output.client.clone();
    tile.check(height, layout.batch, &client.properties().hardware)?;
    let (tiles, shape) = layout.arguments(nnz, tile.sub_batch, tile.items())?;
    let cubes = tiles * panels.bands();
    let (index, panels) = panels.arguments();
    let address = address_type([&input, &entries.values, &index, &output]);
    // SAFETY: bands are below their count, and what is read of the index is below its length, which
    // the constructor of `Panels` checked. What the index says is brought into bounds: panels and
    // columns below their counts, entries below theirs, rows compared before anything is stored.
    // Offsets are at most what lets the last pixel of the last image be the last element of the input.
    // Every tensor has the length that the layout says, checked by the callers.
    unsafe {
        panel_conv_kernel::launch_unchecked(
            &client,
            grid(&client, cubes),
            CubeDim::new_1d(tile.units as u32),
            address,
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
            shape,
            panels,
            tile,
            height,
            epilogue.relu,
            elem,
        );
    }
    Ok(output)
}

/// Runs one tile by matrix units on an input that is stretched already.
///
/// # Errors
/// The rule of [`MatrixTile::check`] that `tile` breaks, or that there are no panels.
pub(crate) fn matrix(
    input: CubeTensor,
    entries: Entries,
    epilogue: Epilogue,
    layout: &Layout,
    tile: MatrixTile,
) -> Result<CubeTensor, String> {
    let elem = float_elem(input.dtype);
    let output = empty_like(&input, layout.shape.clone());
    if output.meta.num_elements() == 0 {
        return Ok(output);
    }
    let nnz = entries.nnz();
    let panels = entries.panels.ok_or(NO_PANELS)?;
    let height = panels.height();
    let client = output.client.clone();
    tile.check(height, elem, client.properties())?;
    let (tiles, shape) = layout.arguments(nnz, 1, tile.items())?;
    let cubes = tiles * panels.bands();
    let (index, panels) = panels.arguments();
    let address = address_type([&input, &entries.values, &index, &output]);
    // SAFETY: as for the plain kernel. In shared memory, tiles end with the rows, columns and pixels
    // for which there is room, by the rules that the tile was checked for.
    unsafe {
        panel_matrix_kernel::launch_unchecked(
            &client,
            grid(&client, cubes),
            CubeDim::new_1d(tile.units() as u32),
            address,
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
            shape,
            panels,
            tile,
            height,
            epilogue.relu,
            elem,
        );
    }
    Ok(output)
}
