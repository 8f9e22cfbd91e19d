//! Host side of the gathering product with panels.

use burn_cubecl::tensor::CubeTensor;

use super::{gather::panel_linear_kernel, launch::NO_PANELS};
use crate::kernel::{
    Codes, Entries, Epilogue,
    base::float_elem,
    sparse_linear::{GatherTile, Gathering, codes_of},
};

/// Runs one tile, on `codes` instead of values if there are some.
///
/// # Errors
/// The rule of [`GatherTile::check_bands`] that `tile` breaks, or that there are no panels.
pub(crate) fn launch(
    input: CubeTensor,
    entries: Entries,
    codes: Option<Codes>,
    epilogue: Epilogue,
    rows: usize,
    tile: GatherTile,
) -> Result<CubeTensor, String> {
    let elem = float_elem(input.dtype);
    let nnz = entries.nnz();
    let panels = entries.panels.ok_or(NO_PANELS)?;
    let (bands, height) = (panels.bands(), panels.height());
    let (index, panels) = panels.arguments();
    let (codes, coding) = codes_of(codes);
    let operands = [&entries.values, &index];
    let gathering = Gathering::new(&input, [rows, nnz], [bands, height], tile, &operands)?;
    let client = gathering.output.client.clone();
    // SAFETY: bands and inputs are below their counts, and what is read of the index is below its
    // length, which the constructor of `Panels` checked. What the index says is brought into bounds:
    // panels, columns and entries below their counts, rows compared before anything is stored, and
    // input features cut to their number. The index of codes has a number for every code, row and entry,
    // as `codes_of` says. Every tensor has the length that the shape says, checked by the caller.
    unsafe {
        panel_linear_kernel::launch_unchecked(
            &client,
            gathering.cubes,
            gathering.dim,
            gathering.address,
            input.into_buffer_arg(),
            entries.values.into_buffer_arg(),
            codes.map(|codes| codes.into_buffer_arg()).into(),
            entries.indices.into_buffer_arg(),
            index.into_buffer_arg(),
            epilogue.bias.map(|bias| bias.into_buffer_arg()).into(),
            epilogue
                .residual
                .map(|residual| residual.into_buffer_arg())
                .into(),
            gathering.output.clone().into_buffer_arg(),
            gathering.shape,
            panels,
            coding,
            tile,
            height,
            epilogue.relu,
            elem,
        );
    }
    Ok(gathering.output)
}
