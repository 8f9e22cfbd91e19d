//! Device code of the gathering sparse product with values as codes.

use cubecl::prelude::*;

use super::{
    config::GatherTile,
    kernel::{LinearShape, add_lanes},
};
use crate::kernel::finish::finish;

/// How codes lie in words and become numbers, known when a kernel is compiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Coding {
    /// Bits of a code; a word of 32 holds as many whole codes as fit, the first in its lowest bits.
    pub(crate) bits: usize,
    /// Whether code `c` is the integer `c - 2^(bits - 1)`; entry `c` of the table otherwise.
    pub(crate) integers: bool,
}

/// `out[m,k] = act(bias[k] + residual[m,k] + scales[k] * sum_j number(codes[j]) * x[m, columns[j]])`.
#[cube(launch_unchecked, address_type = "dynamic")]
#[allow(
    clippy::too_many_arguments,
    reason = "a kernel takes its tensors one by one"
)]
pub(crate) fn coded_linear_kernel<E: Float>(
    input: &[E],
    codes: &[i32],
    table: &[f32],
    scales: &[f32],
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
            input, codes, table, columns, row_ptr, row, lane, first, shape, coding, tile,
        );
        if comptime!(tile.lanes > 1) {
            sums = add_lanes(&sums, lane, tile.units, tile.lanes, tile.inputs);
        }

        if lane == 0 && own_row < shape.rows {
            let bias: ComptimeOption<f32> = bias.map(|bias| f32::cast_from(bias[row]));
            let bias = bias.unwrap_or_else(|| 0.0f32);
            let scale = scales[row];
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
    codes: &[i32],
    table: &[f32],
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
        let value = number(codes, table, j, coding);
        let at = first * shape.features + min(columns[j] as usize, shape.features - 1);
        #[unroll]
        for i in 0..tile.inputs {
            sums[i] += value * f32::cast_from(input[at + i * shape.features]);
        }
    }
    sums
}

/// What code `j` stands for.
#[cube]
fn number(codes: &[i32], table: &[f32], j: usize, #[comptime] coding: Coding) -> f32 {
    let per_word = comptime!(32 / coding.bits);
    let word = codes[j / per_word] as u32;
    let shift = (j % per_word) as u32 * comptime!(coding.bits as u32);
    let code = (word >> shift) & comptime!((1u32 << coding.bits) - 1);
    if comptime!(coding.integers) {
        f32::cast_from(code as i32 - comptime!(1i32 << (coding.bits - 1)))
    } else {
        // The table has an entry for every code.
        table[code as usize]
    }
}
