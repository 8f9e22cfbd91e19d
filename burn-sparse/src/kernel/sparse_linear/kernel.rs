//! Device code of the gathering sparse product.

use cubecl::prelude::*;

use super::{
    coding::{Coding, scale_of, value_of},
    config::GatherTile,
};
use crate::kernel::finish::finish;

/// Sizes known at launch.
#[derive(CubeType, CubeLaunch)]
pub(crate) struct LinearShape {
    pub(crate) nnz: usize,
    /// Output features, and cubes that cover them or their bands.
    pub(crate) rows: usize,
    pub(crate) row_tiles: usize,
    /// Inputs, and cubes that cover them.
    pub(crate) m: usize,
    pub(crate) m_tiles: usize,
    /// Input features.
    pub(crate) features: usize,
}

/// `out[m,k] = act(bias[k] + residual[m,k] + sum_j values[j] * x[m, columns[j]])`, with codes instead of
/// values where `coding` has bits.
#[cube(launch_unchecked, address_type = "dynamic")]
#[allow(
    clippy::too_many_arguments,
    reason = "a kernel takes its tensors one by one"
)]
pub(crate) fn sparse_linear_kernel<E: Float>(
    input: &[E],
    values: &[E],
    codes: ComptimeOption<&[i32]>,
    columns: &[i32],
    row_ptr: &[i32],
    bias: ComptimeOption<&[E]>,
    residual: ComptimeOption<&[E]>,
    output: &mut [E],
    shape: &LinearShape,
    #[comptime] coding: Coding,
    #[comptime] tile: GatherTile,
    #[comptime] relu: bool,
    #[define(E)] _dtype: ElemType,
) {
    let m_tile = CUBE_POS / shape.row_tiles;
    if m_tile < shape.m_tiles {
        let lane = UNIT_POS as usize % tile.lanes;
        let own_row = CUBE_POS % shape.row_tiles * comptime!(tile.units / tile.lanes)
            + UNIT_POS as usize / tile.lanes;
        // Units past the last row repeat it, and the last tile of inputs reaches back.
        let row = min(own_row, shape.rows - 1);
        let first = min(m_tile * tile.inputs, shape.m - tile.inputs);

        let mut sums = gather::<E>(
            input, values, &codes, columns, row_ptr, row, lane, first, shape, coding, tile,
        );
        if comptime!(tile.lanes > 1) {
            sums = add_lanes(&sums, lane, tile.units, tile.lanes, tile.inputs);
        }

        if lane == 0 && own_row < shape.rows {
            let bias: ComptimeOption<f32> = bias.map(|bias| f32::cast_from(bias[row]));
            let bias = bias.unwrap_or_else(|| 0.0f32);
            let scale = scale_of(&codes, row, coding);
            #[unroll]
            for i in 0..tile.inputs {
                if first + i >= m_tile * tile.inputs {
                    let at = (first + i) * shape.rows + row;
                    finish::<E>(sums[i] * scale + bias, at, &residual, output, relu);
                }
            }
        }
    }
}

/// A lane's share of the entries of a row, for every input of the tile.
#[cube]
#[allow(
    clippy::too_many_arguments,
    reason = "a kernel takes its tensors one by one"
)]
fn gather<E: Float>(
    input: &[E],
    values: &[E],
    codes: &ComptimeOption<&[i32]>,
    columns: &[i32],
    row_ptr: &[i32],
    row: usize,
    lane: usize,
    first: usize,
    shape: &LinearShape,
    #[comptime] coding: Coding,
    #[comptime] tile: GatherTile,
) -> Array<f32> {
    let mut sums = Array::<f32>::new(tile.inputs);
    #[unroll]
    for i in 0..tile.inputs {
        sums[i] = 0.0f32;
    }
    let end = min(row_ptr[row + 1] as usize, shape.nnz);
    let start = min(row_ptr[row] as usize, end);
    for j in range_stepped(start + lane, end, tile.lanes) {
        let value = value_of::<E>(values, codes, shape.rows, j, coding);
        let at = first * shape.features + min(columns[j] as usize, shape.features - 1);
        #[unroll]
        for i in 0..tile.inputs {
            sums[i] += value * f32::cast_from(input[at + i * shape.features]);
        }
    }
    sums
}

/// Adds the `count` sums of the lanes of a row or band into its first lane's, halving as it goes.
#[cube]
pub(crate) fn add_lanes(
    sums: &Array<f32>,
    lane: usize,
    #[comptime] units: usize,
    #[comptime] lanes: usize,
    #[comptime] count: usize,
) -> Array<f32> {
    let mut partial = Shared::<[f32]>::new_slice(comptime!(units * count));
    let unit = UNIT_POS as usize;
    #[unroll]
    for i in 0..count {
        partial[unit + comptime!(i * units)] = sums[i];
    }
    sync_cube();
    #[unroll]
    for level in 0..comptime!(lanes.ilog2() as usize) {
        let half = comptime!(lanes >> (level + 1));
        if lane < half {
            #[unroll]
            for i in 0..count {
                let at = unit + comptime!(i * units);
                let other = partial[at + half];
                partial[at] += other;
            }
        }
        sync_cube();
    }
    let mut totals = Array::<f32>::new(count);
    #[unroll]
    for i in 0..count {
        totals[i] = partial[unit + comptime!(i * units)];
    }
    totals
}
