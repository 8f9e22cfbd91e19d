//! Device code of the product with panels for few inputs.

use cubecl::prelude::*;

use super::index::{
    PanelShape, column, entry_of, first_column, first_panel, position, row_of, start_of,
};
use crate::kernel::{
    finish::finish,
    sparse_linear::{Coding, GatherTile, LinearShape, add_lanes, scale_of, value_of},
};

/// `out[m,k] = act(bias[k] + residual[m,k] + sum_j values[j] * x[m, columns[j]])`: `lanes` units share
/// a band, and each input that a lane gathers serves all rows of its panel. Codes instead of values where
/// `coding` has bits.
#[cube(launch_unchecked, address_type = "dynamic")]
#[allow(
    clippy::too_many_arguments,
    reason = "a kernel takes its tensors one by one"
)]
pub(crate) fn panel_linear_kernel<E: Float>(
    input: &[E],
    values: &[E],
    codes: ComptimeOption<&[i32]>,
    columns: &[i32],
    index: &[i32],
    bias: ComptimeOption<&[E]>,
    residual: ComptimeOption<&[E]>,
    output: &mut [E],
    shape: &LinearShape,
    panels: &PanelShape,
    #[comptime] coding: Coding,
    #[comptime] tile: GatherTile,
    #[comptime] height: usize,
    #[comptime] relu: bool,
    #[define(E)] _dtype: ElemType,
) {
    let m_tile = CUBE_POS / shape.row_tiles;
    if m_tile < shape.m_tiles {
        let lane = UNIT_POS as usize % tile.lanes;
        let own_band = CUBE_POS % shape.row_tiles * comptime!(tile.units / tile.lanes)
            + UNIT_POS as usize / tile.lanes;
        // Units past the last band repeat it, and the last tile of inputs reaches back.
        let band = min(own_band, panels.bands - 1);
        let first = min(m_tile * tile.inputs, shape.m - tile.inputs);

        let mut sums = gather::<E>(
            input, values, &codes, columns, index, band, lane, first, shape, panels, coding, tile,
            height,
        );
        if comptime!(tile.lanes > 1) {
            sums = add_lanes(
                &sums,
                lane,
                tile.units,
                tile.lanes,
                comptime!(height * tile.inputs),
            );
        }

        if lane == 0 && own_band < panels.bands {
            #[unroll]
            for r in 0..height {
                let row = row_of(index, band, r, height);
                if row < shape.rows as u32 {
                    let row = row as usize;
                    let bias: ComptimeOption<f32> =
                        bias.as_ref().map(|bias| f32::cast_from(bias[row]));
                    let bias = bias.unwrap_or_else(|| 0.0f32);
                    let scale = scale_of(&codes, row, coding);
                    #[unroll]
                    for i in 0..tile.inputs {
                        if first + i >= m_tile * tile.inputs {
                            let at = (first + i) * shape.rows + row;
                            let sum = sums[comptime!(r * tile.inputs + i)] * scale + bias;
                            finish::<E>(sum, at, &residual, output, relu);
                        }
                    }
                }
            }
        }
    }
}

/// A lane's share of the columns of a band, for every row of the band and input of the tile.
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
    index: &[i32],
    band: usize,
    lane: usize,
    first: usize,
    shape: &LinearShape,
    panels: &PanelShape,
    #[comptime] coding: Coding,
    #[comptime] tile: GatherTile,
    #[comptime] height: usize,
) -> Array<f32> {
    let mut sums = Array::<f32>::new(comptime!(height * tile.inputs));
    #[unroll]
    for i in 0..comptime!(height * tile.inputs) {
        sums[i] = 0.0f32;
    }
    let mut inputs = Array::<f32>::new(tile.inputs);
    let to = first_column(index, first_panel(index, band + 1, panels), panels);
    let from = min(
        first_column(index, first_panel(index, band, panels), panels),
        to,
    );
    for number in range_stepped(from + lane, to, tile.lanes) {
        let column = column(index, number, panels, height);
        let entry = entry_of(index, &column, panels);
        let at = first * shape.features + min(columns[entry] as usize, shape.features - 1);
        #[unroll]
        for i in 0..tile.inputs {
            inputs[i] = f32::cast_from(input[at + i * shape.features]);
        }
        #[unroll]
        for r in 0..height {
            let start = start_of(index, &column, r);
            if start >= 0 {
                let entry = position(start, &column, panels);
                let value = value_of::<E>(values, codes, shape.rows, entry, coding);
                #[unroll]
                for i in 0..tile.inputs {
                    sums[comptime!(r * tile.inputs + i)] += value * inputs[i];
                }
            }
        }
    }
    sums
}
