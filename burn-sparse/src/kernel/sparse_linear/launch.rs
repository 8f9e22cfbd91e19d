//! Host side of the sparse product.

use burn::backend::ops::FloatTensorOps;
use burn_cubecl::{CubeBackend, kernel::into_contiguous, tensor::CubeTensor};
use cubecl::prelude::*;

use super::{
    LinearTile,
    config::GatherTile,
    kernel::{LinearShapeLaunch, sparse_linear_kernel},
    select,
};
use crate::kernel::{
    Choice, ConvKernel, Entries, Epilogue, Panels,
    base::{address_type, empty_like, float_elem, grid},
    panels, sparse_conv,
};

/// Sparse product of `input [m, d]`, `[m, rows]`:
///
/// `out[m,k] = act(bias[k] + residual[m,k] + sum_j values[j] * x[m, columns[j]])`
///
/// with `j` over the entries of row `k`. Sums are f32 whatever the dtype.
///
/// # Panics
/// If a tensor does not have the shape or dtype that the input and `rows` ask for, or if a forced
/// tile breaks its rules on this device.
pub fn sparse_linear(
    input: CubeTensor,
    entries: Entries,
    epilogue: Epilogue,
    rows: usize,
    choice: Choice<LinearTile>,
) -> CubeTensor {
    let input = into_contiguous(input);
    let [m, _] = dims(&input);
    let entries = entries.prepared(&input, rows);
    let epilogue = epilogue.prepared(input.dtype, rows, &[m, rows].into());
    match choice {
        Choice::Tuned => select::tuned(input, entries, epilogue, rows),
        Choice::Heuristic => {
            let height = entries.panels.as_ref().map(Panels::height);
            let tile = select::heuristic(&input.client, m, height);
            launch(input, entries, epilogue, rows, tile)
        }
        Choice::Forced(tile) => launch(input, entries, epilogue, rows, tile),
    }
    .unwrap_or_else(|rule| panic!("{rule}"))
}

/// Inputs and features of `[m, d]`.
pub(crate) fn dims(input: &CubeTensor) -> [usize; 2] {
    let shape: &[usize] = input.meta.shape();
    shape
        .try_into()
        .unwrap_or_else(|_| panic!("a sparse product takes an input [m, d], got {shape:?}"))
}

/// Runs one tile.
///
/// # Errors
/// The rule that `tile` breaks.
pub(super) fn launch(
    input: CubeTensor,
    entries: Entries,
    epilogue: Epilogue,
    rows: usize,
    tile: LinearTile,
) -> Result<CubeTensor, String> {
    match tile {
        LinearTile::Gather(tile) => gather(input, entries, epilogue, rows, tile),
        LinearTile::GatherPanels(tile) => panels::gather(input, entries, epilogue, rows, tile),
        LinearTile::Stream(kernel) => stream(input, entries, epilogue, rows, kernel),
    }
}

/// The product as a convolution of one image, whose pixels are the inputs.
fn stream(
    input: CubeTensor,
    entries: Entries,
    epilogue: Epilogue,
    rows: usize,
    kernel: ConvKernel,
) -> Result<CubeTensor, String> {
    let [m, features] = dims(&input);
    let layout = sparse_conv::Layout {
        shape: vec![m, rows],
        batch: 1,
        rows,
        pixels: m,
        width: m.max(1),
        cols: m,
        image: features * m,
        scale: m,
        out_image: 0,
        out_row: 1,
        out_pixel: rows,
    };
    let transposed = CubeBackend::float_swap_dims(input, 0, 1);
    sparse_conv::launch(
        into_contiguous(transposed),
        entries,
        epilogue,
        &layout,
        kernel,
    )
}

fn gather(
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
    let client = output.client.clone();
    tile.check(m, &client.properties().hardware)?;
    let nnz = entries.nnz();
    let row_tiles = rows.div_ceil(tile.rows());
    let m_tiles = m.div_ceil(tile.inputs);
    let longest = [&input, &entries.values, &output]
        .map(|tensor| tensor.meta.num_elements())
        .into_iter()
        .max();
    // SAFETY: rows and inputs are below their counts, entries between row pointers that are cut to
    // the number of entries, and columns are cut to the number of features. Every tensor has the
    // length that the shape says, checked by the caller.
    unsafe {
        sparse_linear_kernel::launch_unchecked(
            &client,
            grid(&client, row_tiles * m_tiles),
            CubeDim::new_1d(tile.units as u32),
            address_type(longest.unwrap_or(0)),
            input.into_buffer_arg(),
            entries.values.into_buffer_arg(),
            entries.indices.into_buffer_arg(),
            entries.row_ptr.into_buffer_arg(),
            epilogue.bias.map(|bias| bias.into_buffer_arg()).into(),
            epilogue
                .residual
                .map(|residual| residual.into_buffer_arg())
                .into(),
            output.clone().into_buffer_arg(),
            LinearShapeLaunch::new(nnz, rows, row_tiles, m, m_tiles, features),
            tile,
            epilogue.relu,
            elem,
        );
    }
    Ok(output)
}
