//! Device code of the product with panels whose sums are in registers.

use cubecl::prelude::*;

use super::{
    PanelTile,
    index::{
        PanelShape, column, entry_of, first_column, first_panel, mask_of, panel_of, record_of,
        row_of, value_of,
    },
};
use crate::kernel::{
    finish::finish,
    sparse_conv::{ConvShape, first_image, offset_of, place},
};

/// `out[n,k,p] = act(bias[k] + residual[n,k,p] + sum_j values[j] * x[n, offsets[j] + place(p)])` for
/// the rows `k` of a band.
///
/// Cubes count bands fastest: those that run together read the same input.
#[cube(launch_unchecked, address_type = "dynamic")]
#[allow(
    clippy::too_many_arguments,
    reason = "a kernel takes its tensors one by one"
)]
pub(crate) fn panel_conv_kernel<E: Float>(
    input: &[E],
    values: &[E],
    offsets: &[i32],
    index: &[i32],
    bias: ComptimeOption<&[E]>,
    residual: ComptimeOption<&[E]>,
    output: &mut [E],
    shape: &ConvShape,
    panels: &PanelShape,
    #[comptime] tile: PanelTile,
    #[comptime] height: usize,
    #[comptime] relu: bool,
    #[define(E)] _dtype: ElemType,
) {
    let band = CUBE_POS % panels.bands;
    let tile_pos = CUBE_POS / panels.bands;
    // The grid may be larger than the work; whole cubes stay out together.
    if tile_pos < shape.tiles {
        let first_item = tile_pos * comptime!(tile.units * tile.pixels) + UNIT_POS as usize;
        let mut places = Array::<usize>::new(tile.pixels);
        #[unroll]
        for p in 0..tile.pixels {
            places[p] = place(
                first_item + comptime!(p * tile.units),
                shape,
                tile.sub_batch,
            );
        }

        let mut sums = Array::<f32>::new(comptime!(height * tile.pixels * tile.sub_batch));
        #[unroll]
        for s in 0..comptime!(height * tile.pixels * tile.sub_batch) {
            sums[s] = 0.0f32;
        }

        let end = first_panel(index, band + 1, panels);
        let start = min(first_panel(index, band, panels), end);
        if comptime!(tile.chunk == 0) {
            walk_direct::<E>(
                input, values, offsets, index, start, end, &places, &mut sums, shape, panels, tile,
                height,
            );
        } else {
            walk_staged::<E>(
                input, values, offsets, index, start, end, &places, &mut sums, shape, panels, tile,
                height,
            );
        }

        #[unroll]
        for r in 0..height {
            let row = row_of(index, band, r, height);
            if row < shape.rows as u32 {
                let row = row as usize;
                let bias: ComptimeOption<f32> = bias.as_ref().map(|bias| f32::cast_from(bias[row]));
                let bias = bias.unwrap_or_else(|| 0.0f32);
                #[unroll]
                for p in 0..tile.pixels {
                    let item = first_item + comptime!(p * tile.units);
                    if item < shape.items {
                        let group = item / shape.pixels;
                        let pixel = item % shape.pixels;
                        let first = first_image(group, shape, tile.sub_batch);
                        let at = row * shape.out_row + pixel * shape.out_pixel;
                        #[unroll]
                        for b in 0..tile.sub_batch {
                            // Images that the last group shares with the one before are stored there.
                            if first + b >= group * tile.sub_batch {
                                let at = at + (first + b) * shape.out_image;
                                let sum =
                                    sums[comptime!((r * tile.pixels + p) * tile.sub_batch + b)];
                                finish::<E>(sum + bias, at, &residual, output, relu);
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Loads the input of a column for every pixel and image of a unit.
#[cube]
fn load<E: Float>(
    input: &[E],
    offset: u32,
    places: &Array<usize>,
    inputs: &mut Array<f32>,
    shape: &ConvShape,
    #[comptime] u: usize,
    #[comptime] tile: PanelTile,
) {
    #[unroll]
    for p in 0..tile.pixels {
        let at = places[p] + offset as usize;
        #[unroll]
        for b in 0..tile.sub_batch {
            inputs[comptime!((u * tile.pixels + p) * tile.sub_batch + b)] =
                f32::cast_from(input[at + b * shape.image]);
        }
    }
}

/// Adds what a loaded column contributes to the sums of a row.
#[cube]
fn add(
    value: f32,
    inputs: &Array<f32>,
    sums: &mut Array<f32>,
    #[comptime] u: usize,
    #[comptime] r: usize,
    #[comptime] tile: PanelTile,
) {
    #[unroll]
    for i in 0..comptime!(tile.pixels * tile.sub_batch) {
        sums[comptime!(r * tile.pixels * tile.sub_batch + i)] +=
            value * inputs[comptime!(u * tile.pixels * tile.sub_batch + i)];
    }
}

/// Walks the panels of a band with values and offsets where they are: no shared memory, no
/// synchronisation.
#[cube]
#[allow(
    clippy::too_many_arguments,
    reason = "a kernel takes its tensors one by one"
)]
fn walk_direct<E: Float>(
    input: &[E],
    values: &[E],
    offsets: &[i32],
    index: &[i32],
    start: usize,
    end: usize,
    places: &Array<usize>,
    sums: &mut Array<f32>,
    shape: &ConvShape,
    panels: &PanelShape,
    #[comptime] tile: PanelTile,
    #[comptime] height: usize,
) {
    let mut starts = Array::<usize>::new(height);
    for panel in start..end {
        let to = first_column(index, panel + 1, panels);
        let len = min(to - min(first_column(index, panel, panels), to), panels.nnz);
        let record = record_of(panel, panels, height);
        let mask = mask_of(index, record);
        let entry = min(index[record] as usize, panels.nnz - len);
        #[unroll]
        for r in 0..height {
            starts[r] = min(index[record + comptime!(2 + r)] as usize, panels.nnz - len);
        }
        let whole = len - len % tile.unroll;
        for c in range_stepped(0usize, whole, tile.unroll) {
            columns_direct::<E>(
                input,
                values,
                offsets,
                entry,
                c,
                mask,
                &starts,
                places,
                sums,
                shape,
                tile.unroll,
                tile,
                height,
            );
        }
        for c in whole..len {
            columns_direct::<E>(
                input, values, offsets, entry, c, mask, &starts, places, sums, shape, 1usize, tile,
                height,
            );
        }
    }
}

/// `count` columns of a panel from the one with number `c` on.
#[cube]
#[allow(
    clippy::too_many_arguments,
    reason = "a kernel takes its tensors one by one"
)]
fn columns_direct<E: Float>(
    input: &[E],
    values: &[E],
    offsets: &[i32],
    entry: usize,
    c: usize,
    mask: u32,
    starts: &Array<usize>,
    places: &Array<usize>,
    sums: &mut Array<f32>,
    shape: &ConvShape,
    #[comptime] count: usize,
    #[comptime] tile: PanelTile,
    #[comptime] height: usize,
) {
    let mut inputs = Array::<f32>::new(comptime!(count * tile.pixels * tile.sub_batch));
    #[unroll]
    for u in 0..count {
        let offset = offset_of(offsets, entry + c + u, shape);
        load::<E>(input, offset, places, &mut inputs, shape, u, tile);
    }
    #[unroll]
    for r in 0..height {
        if mask & comptime!(1u32 << r as u32) != 0 {
            #[unroll]
            for u in 0..count {
                let value = f32::cast_from(values[starts[r] + c + u]);
                add(value, &inputs, sums, u, r, tile);
            }
        }
    }
}

/// Stages the columns of a band in shared memory, a chunk at a time across its panels, and walks the
/// panels in each chunk.
#[cube]
#[allow(
    clippy::too_many_arguments,
    reason = "a kernel takes its tensors one by one"
)]
fn walk_staged<E: Float>(
    input: &[E],
    values: &[E],
    offsets: &[i32],
    index: &[i32],
    start: usize,
    end: usize,
    places: &Array<usize>,
    sums: &mut Array<f32>,
    shape: &ConvShape,
    panels: &PanelShape,
    #[comptime] tile: PanelTile,
    #[comptime] height: usize,
) {
    // Row by row, so that units which copy neighbours read and write neighbours.
    let mut staged_values = Shared::<[f32]>::new_slice(comptime!(height * tile.chunk));
    let mut staged_offsets = Shared::<[u32]>::new_slice(tile.chunk);
    let to = first_column(index, end, panels);
    let from = min(first_column(index, start, panels), to);
    for at in range_stepped(from, to, tile.chunk) {
        let len = min(to - at, tile.chunk);
        for i in range_stepped(
            UNIT_POS as usize,
            comptime!(height * tile.chunk),
            tile.units,
        ) {
            let c = i % tile.chunk;
            if c < len {
                let column = column(index, at + c, panels, height);
                let value = value_of::<E>(values, index, &column, i / tile.chunk, panels);
                staged_values[i] = f32::cast_from(value);
            }
        }
        for c in range_stepped(UNIT_POS as usize, len, tile.units) {
            let column = column(index, at + c, panels, height);
            let entry = entry_of(index, &column, panels);
            staged_offsets[c] = offset_of(offsets, entry, shape);
        }
        sync_cube();
        let mut c = 0usize;
        while c < len {
            let panel = panel_of(index, at + c, panels);
            let mask = mask_of(index, record_of(panel, panels, height));
            // A panel ends behind its columns, whatever the index says.
            let behind = max(first_column(index, panel + 1, panels), at + c + 1);
            let stop = min(behind - at, len);
            let whole = stop - (stop - c) % tile.unroll;
            while c < whole {
                columns_staged::<E>(
                    input,
                    &staged_values,
                    &staged_offsets,
                    c,
                    mask,
                    places,
                    sums,
                    shape,
                    tile.unroll,
                    tile,
                    height,
                );
                c += tile.unroll;
            }
            while c < stop {
                columns_staged::<E>(
                    input,
                    &staged_values,
                    &staged_offsets,
                    c,
                    mask,
                    places,
                    sums,
                    shape,
                    1usize,
                    tile,
                    height,
                );
                c += 1usize;
            }
        }
        sync_cube();
    }
}

/// `count` staged columns from the one with number `c` on.
#[cube]
#[allow(
    clippy::too_many_arguments,
    reason = "a kernel takes its tensors one by one"
)]
fn columns_staged<E: Float>(
    input: &[E],
    staged_values: &Shared<[f32]>,
    staged_offsets: &Shared<[u32]>,
    c: usize,
    mask: u32,
    places: &Array<usize>,
    sums: &mut Array<f32>,
    shape: &ConvShape,
    #[comptime] count: usize,
    #[comptime] tile: PanelTile,
    #[comptime] height: usize,
) {
    let mut inputs = Array::<f32>::new(comptime!(count * tile.pixels * tile.sub_batch));
    #[unroll]
    for u in 0..count {
        load::<E>(
            input,
            staged_offsets[c + u],
            places,
            &mut inputs,
            shape,
            u,
            tile,
        );
    }
    #[unroll]
    for r in 0..height {
        if mask & comptime!(1u32 << r as u32) != 0 {
            #[unroll]
            for u in 0..count {
                let value = staged_values[comptime!(r * tile.chunk) + c + u];
                add(value, &inputs, sums, u, r, tile);
            }
        }
    }
}
