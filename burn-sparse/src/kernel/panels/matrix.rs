//! Device code of the product with panels by matrix units.

use cubecl::{
    cmma::{self, MatrixIdent, MatrixLayout},
    prelude::*,
};

use super::{
    MatrixTile,
    config::DEPTH,
    index::{PanelShape, column, entry_of, first_column, first_panel, row_of, value_of},
};
use crate::kernel::{
    finish::finish,
    sparse_conv::{ConvShape, offset_of, place},
};

/// As [`panel_conv_kernel`](super::plain::panel_conv_kernel), the columns of a band as one matrix of
/// rows by columns, times the inputs that they gather.
///
/// Values of rows that a panel does not have are zeros, and so are values and inputs behind the last
/// column, as far as tiles reach.
#[cube(launch_unchecked, address_type = "dynamic")]
#[allow(
    clippy::too_many_arguments,
    reason = "a kernel takes its tensors one by one"
)]
pub(crate) fn panel_matrix_kernel<E: Float>(
    input: &[E],
    values: &[E],
    offsets: &[i32],
    index: &[i32],
    bias: ComptimeOption<&[E]>,
    residual: ComptimeOption<&[E]>,
    output: &mut [E],
    shape: &ConvShape,
    panels: &PanelShape,
    #[comptime] tile: MatrixTile,
    #[comptime] height: usize,
    #[comptime] relu: bool,
    #[define(E)] _dtype: ElemType,
) {
    let rows = comptime!(MatrixTile::rows(height));
    let units = comptime!(tile.units());
    let items = comptime!(tile.items());
    let band = CUBE_POS % panels.bands;
    let tile_pos = CUBE_POS / panels.bands;
    // The grid may be larger than the work; whole cubes stay out together.
    if tile_pos < shape.tiles {
        let unit = UNIT_POS as usize;
        let first_item = tile_pos * items + unit;
        let mut places = Array::<usize>::new(tile.pixels);
        #[unroll]
        for p in 0..tile.pixels {
            places[p] = place(first_item + comptime!(p * units), shape, 1usize);
        }

        // Matrix units load from addresses that are multiples of 32.
        let mut weights = Shared::<[E]>::new_aligned_slice(comptime!(rows * tile.chunk), 32usize);
        let mut inputs = Shared::<[E]>::new_aligned_slice(comptime!(tile.chunk * items), 32usize);
        let mut sums = Shared::<[f32]>::new_aligned_slice(comptime!(rows * items), 32usize);
        let mut staged_offsets = Shared::<[u32]>::new_slice(tile.chunk);
        let mut fragments = Sequence::<cmma::Matrix<f32>>::new();
        if comptime!(tile.emulated) {
            for i in range_stepped(unit, comptime!(rows * items), units) {
                sums[i] = 0.0f32;
            }
        } else {
            #[unroll]
            for _ in 0..comptime!(tile.tiles(height)) {
                fragments.push(cmma::Matrix::<f32>::from_value(
                    MatrixIdent::Accumulator,
                    rows,
                    comptime!(MatrixTile::width(height)),
                    DEPTH,
                    MatrixLayout::Undefined,
                    0.0f32,
                ));
            }
        }

        let to = first_column(index, first_panel(index, band + 1, panels), panels);
        let from = min(
            first_column(index, first_panel(index, band, panels), panels),
            to,
        );
        for at in range_stepped(from, to, tile.chunk) {
            let len = min(to - at, tile.chunk);
            for i in range_stepped(unit, comptime!(rows * tile.chunk), units) {
                let r = i / tile.chunk;
                let c = i % tile.chunk;
                let mut value = E::from_int(0);
                if r < height && c < len {
                    let column = column(index, at + c, panels, height);
                    value = value_of::<E>(values, index, &column, r, panels);
                }
                weights[i] = value;
            }
            for c in range_stepped(unit, len, units) {
                let column = column(index, at + c, panels, height);
                let entry = entry_of(index, &column, panels);
                staged_offsets[c] = offset_of(offsets, entry, shape);
            }
            sync_cube();
            let steps = len.div_ceil(DEPTH);
            for c in 0..len {
                let offset = staged_offsets[c] as usize;
                #[unroll]
                for p in 0..tile.pixels {
                    inputs[c * items + unit + comptime!(p * units)] = input[places[p] + offset];
                }
            }
            for c in len..steps * DEPTH {
                #[unroll]
                for p in 0..tile.pixels {
                    inputs[c * items + unit + comptime!(p * units)] = E::from_int(0);
                }
            }
            sync_cube();
            for step in 0..steps {
                multiply::<E>(&weights, &inputs, &mut sums, &fragments, step, tile, height);
            }
            sync_cube();
        }

        if comptime!(!tile.emulated) {
            #[unroll]
            for t in 0..comptime!(tile.tiles(height)) {
                let first = first_pixel(t, tile, height);
                cmma::store(
                    &mut sums[first..comptime!(rows * items)],
                    fragments.index(t),
                    items as u32,
                    MatrixLayout::RowMajor,
                );
            }
        }
        sync_cube();

        #[unroll]
        for p in 0..tile.pixels {
            let own = unit + comptime!(p * units);
            let item = tile_pos * items + own;
            if item < shape.items {
                let at =
                    item / shape.pixels * shape.out_image + item % shape.pixels * shape.out_pixel;
                for r in 0..height {
                    let row = row_of(index, band, r, height);
                    if row < shape.rows as u32 {
                        let row = row as usize;
                        let bias: ComptimeOption<f32> =
                            bias.as_ref().map(|bias| f32::cast_from(bias[row]));
                        let sum = sums[r * items + own] + bias.unwrap_or_else(|| 0.0f32);
                        finish::<E>(sum, at + row * shape.out_row, &residual, output, relu);
                    }
                }
            }
        }
    }
}

/// The first pixel of a plane's tile within the cube.
#[cube]
fn first_pixel(
    #[comptime] t: usize,
    #[comptime] tile: MatrixTile,
    #[comptime] height: usize,
) -> usize {
    let plane = UNIT_POS as usize / tile.plane;
    plane * comptime!(tile.plane * tile.pixels) + comptime!(t * MatrixTile::width(height))
}

/// Adds a tile of values times a tile of inputs to each of a plane's tiles of sums.
#[cube]
fn multiply<E: Float>(
    weights: &Shared<[E]>,
    inputs: &Shared<[E]>,
    sums: &mut Shared<[f32]>,
    fragments: &Sequence<cmma::Matrix<f32>>,
    step: usize,
    #[comptime] tile: MatrixTile,
    #[comptime] height: usize,
) {
    let rows = comptime!(MatrixTile::rows(height));
    let width = comptime!(MatrixTile::width(height));
    let items = comptime!(tile.items());
    let first_weight = step * DEPTH;
    let first_input = step * comptime!(DEPTH * tile.items());
    if comptime!(tile.emulated) {
        #[unroll]
        for t in 0..comptime!(tile.tiles(height)) {
            let first = first_pixel(t, tile, height);
            for i in range_stepped(
                UNIT_POS as usize % tile.plane,
                comptime!(rows * width),
                tile.plane,
            ) {
                let r = i / width;
                let pixel = first + i % width;
                let mut sum = sums[r * items + pixel];
                for d in 0..DEPTH {
                    let value = f32::cast_from(weights[first_weight + r * tile.chunk + d]);
                    sum += value * f32::cast_from(inputs[first_input + d * items + pixel]);
                }
                sums[r * items + pixel] = sum;
            }
        }
    } else {
        let value = cmma::Matrix::<E>::from_slice(
            MatrixIdent::A,
            rows,
            width,
            DEPTH,
            MatrixLayout::RowMajor,
            &weights[first_weight..comptime!(rows * tile.chunk)],
            tile.chunk as u32,
        );
        #[unroll]
        for t in 0..comptime!(tile.tiles(height)) {
            let first = first_input + first_pixel(t, tile, height);
            let gathered = cmma::Matrix::<E>::from_slice(
                MatrixIdent::B,
                rows,
                width,
                DEPTH,
                MatrixLayout::RowMajor,
                &inputs[first..comptime!(tile.chunk * items)],
                items as u32,
            );
            cmma::execute(&value, &gathered, fragments.index(t), fragments.index(t));
        }
    }
}
