//! Device code of the sparse convolution.

use cubecl::prelude::*;

use super::{
    ConvTile,
    shape::{ConvShape, first_image, offset_of, place},
};
use crate::kernel::finish::finish;

/// `out[n,k,p] = act(bias[k] + residual[n,k,p] + sum_j values[j] * x[n, offsets[j] + place(p)])`.
///
/// Cubes count output channels fastest: those that run together read the same input.
#[cube(launch_unchecked, address_type = "dynamic")]
#[allow(
    clippy::too_many_arguments,
    reason = "a kernel takes its tensors one by one"
)]
pub(crate) fn sparse_conv_kernel<E: Float>(
    input: &[E],
    values: &[E],
    offsets: &[i32],
    row_ptr: &[i32],
    bias: ComptimeOption<&[E]>,
    residual: ComptimeOption<&[E]>,
    output: &mut [E],
    shape: &ConvShape,
    #[comptime] tile: ConvTile,
    #[comptime] relu: bool,
    #[define(E)] _dtype: ElemType,
) {
    let row = CUBE_POS % shape.rows;
    let tile_pos = CUBE_POS / shape.rows;
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

        let mut sums = Array::<f32>::new(comptime!(tile.pixels * tile.sub_batch));
        #[unroll]
        for s in 0..comptime!(tile.pixels * tile.sub_batch) {
            sums[s] = 0.0f32;
        }

        let end = min(row_ptr[row + 1] as usize, shape.nnz);
        let start = min(row_ptr[row] as usize, end);
        if comptime!(tile.chunk == 0) {
            walk_direct::<E>(
                input, values, offsets, start, end, &places, &mut sums, shape, tile,
            );
        } else {
            walk_staged::<E>(
                input, values, offsets, start, end, &places, &mut sums, shape, tile,
            );
        }

        let bias: ComptimeOption<f32> = bias.map(|bias| f32::cast_from(bias[row]));
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
                        let sum = sums[comptime!(p * tile.sub_batch + b)] + bias;
                        finish::<E>(sum, at, &residual, output, relu);
                    }
                }
            }
        }
    }
}

/// Adds what one entry contributes to every pixel and image of a unit.
#[cube]
fn add_entry<E: Float>(
    input: &[E],
    value: f32,
    offset: u32,
    places: &Array<usize>,
    sums: &mut Array<f32>,
    shape: &ConvShape,
    #[comptime] tile: ConvTile,
) {
    #[unroll]
    for p in 0..tile.pixels {
        let at = places[p] + offset as usize;
        #[unroll]
        for b in 0..tile.sub_batch {
            sums[comptime!(p * tile.sub_batch + b)] +=
                value * f32::cast_from(input[at + b * shape.image]);
        }
    }
}

/// Walks the entries of a row where they are: no shared memory, no synchronisation.
#[cube]
#[allow(
    clippy::needless_range_loop,
    clippy::too_many_arguments,
    reason = "device code has no iterators over slices, and takes its tensors one by one"
)]
fn walk_direct<E: Float>(
    input: &[E],
    values: &[E],
    offsets: &[i32],
    start: usize,
    end: usize,
    places: &Array<usize>,
    sums: &mut Array<f32>,
    shape: &ConvShape,
    #[comptime] tile: ConvTile,
) {
    for j in start..end {
        let offset = offset_of(offsets, j, shape);
        let value = f32::cast_from(values[j]);
        add_entry::<E>(input, value, offset, places, sums, shape, tile);
    }
}

/// Stages the entries of a row in shared memory, a chunk at a time, and walks each chunk.
#[cube]
#[allow(
    clippy::too_many_arguments,
    reason = "a kernel takes its tensors one by one"
)]
fn walk_staged<E: Float>(
    input: &[E],
    values: &[E],
    offsets: &[i32],
    start: usize,
    end: usize,
    places: &Array<usize>,
    sums: &mut Array<f32>,
    shape: &ConvShape,
    #[comptime] tile: ConvTile,
) {
    let mut staged_values = Shared::<[f32]>::new_slice(tile.chunk);
    let mut staged_offsets = Shared::<[u32]>::new_slice(tile.chunk);
    for from in range_stepped(start, end, tile.chunk) {
        let len = min(end - from, tile.chunk);
        for i in range_stepped(UNIT_POS as usize, len, tile.units) {
            staged_values[i] = f32::cast_from(values[from + i]);
            staged_offsets[i] = offset_of(offsets, from + i, shape);
        }
        sync_cube();
        let whole = len - len % tile.unroll;
        for j in range_stepped(0usize, whole, tile.unroll) {
            #[unroll]
            for u in 0..tile.unroll {
                add_entry::<E>(
                    input,
                    staged_values[j + u],
                    staged_offsets[j + u],
                    places,
                    sums,
                    shape,
                    tile,
                );
            }
        }
        for j in whole..len {
            add_entry::<E>(
                input,
                staged_values[j],
                staged_offsets[j],
                places,
                sums,
                shape,
                tile,
            );
        }
        sync_cube();
    }
}
