//! Host side of the sparse product.

use super::{
    LinearTile, codes::codes_of, config::GatherTile, gathering::Gathering,
    kernel::sparse_linear_kernel, select,
};
use crate::kernel::{
    Choice, Codes, ConvKernel, Entries, Epilogue,
    base::{empty_like, float_elem},
    panels, sparse_conv,
};
use burn::backend::ops::FloatTensorOps;
use burn_cubecl::{CubeBackend, kernel::into_contiguous, tensor::CubeTensor};

/// Sparse product of `input [m, d]`, `[m, rows]`:
///
/// `out[m,k] = act(bias[k] + residual[m,k] + sum_j values[j] * x[m, columns[j]])`
///
/// with `j` over the entries of row `k`. Sums are f32 whatever the dtype.
///
/// # Panics
/// If a tensor does not have the shape or dtype that the input and `rows` ask for, if panels or codes are
/// those of another weight, or if a forced tile breaks its rules on this device.
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
            let tile = select::heuristic(&input.client, m, &entries);
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

const NO_CODES: &str = "the values of this weight are no codes";

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
    let [m, _] = dims(&input);
    if m == 0 || rows == 0 {
        return Ok(empty_like(&input, [m, rows]));
    }
    match tile {
        LinearTile::Gather(tile) => gather(input, entries, None, epilogue, rows, tile),
        LinearTile::GatherCodes(tile) => {
            let codes = entries.codes.clone().ok_or(NO_CODES)?;
            gather(input, entries, Some(codes), epilogue, rows, tile)
        }
        LinearTile::GatherPanels(tile) => {
            panels::gather(input, entries, None, epilogue, rows, tile)
        }
        LinearTile::GatherPanelCodes(tile) => {
            let codes = entries.codes.clone().ok_or(NO_CODES)?;
            panels::gather(input, entries, Some(codes), epilogue, rows, tile)
        }
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
    codes: Option<Codes>,
    epilogue: Epilogue,
    rows: usize,
    tile: GatherTile,
) -> Result<CubeTensor, String> {
    let elem = float_elem(input.dtype);
    let nnz = entries.nnz();
    let (codes, coding) = codes_of(codes);
    let operands = [&entries.values, &entries.indices];
    let gathering = Gathering::new(&input, [rows, nnz], [rows, 1], tile, &operands)?;
    let client = gathering.output.client.clone();
    // SAFETY: rows and inputs are below their counts, entries between row pointers that are cut to
    // the number of entries, and columns are cut to the number of features. The index of codes has a
    // number for every code, row and entry, as `codes_of` says. Every tensor has the
    // length that the shape says, checked by the caller.
    unsafe {
        sparse_linear_kernel::launch_unchecked(
            &client,
            gathering.cubes,
            gathering.dim,
            gathering.address,
            input.into_buffer_arg(),
            entries.values.into_buffer_arg(),
            codes.map(|codes| codes.into_buffer_arg()).into(),
            entries.indices.into_buffer_arg(),
            entries.row_ptr.into_buffer_arg(),
            epilogue.bias.map(|bias| bias.into_buffer_arg()).into(),
            epilogue
                .residual
                .map(|residual| residual.into_buffer_arg())
                .into(),
            gathering.output.clone().into_buffer_arg(),
            gathering.shape,
            coding,
            tile,
            epilogue.relu,
            elem,
        );
    }
    Ok(gathering.output)
}
