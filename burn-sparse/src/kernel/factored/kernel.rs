//! Device code of the fused strip.

use cubecl::prelude::*;

use super::config::{FactorShape, StripTile};
use crate::kernel::finish::finish;

/// Sizes known at launch.
#[derive(CubeType, CubeLaunch)]
pub(crate) struct StripShape {
    /// Channels of the input and of the output.
    pub(crate) channels: usize,
    pub(crate) outputs: usize,
    /// Input rows and columns, and zeros above and to the left of them.
    pub(crate) height: usize,
    pub(crate) width: usize,
    pub(crate) top: usize,
    pub(crate) left: usize,
    pub(crate) out_height: usize,
    pub(crate) out_width: usize,
    /// Cubes in all, and along columns and rows.
    pub(crate) cubes: usize,
    pub(crate) strips: usize,
    pub(crate) row_tiles: usize,
}

/// Where a cube works, and its unit within it.
#[derive(CubeType)]
struct Place {
    image: usize,
    first_row: usize,
    first_col: usize,
    unit: usize,
    /// Along pixels and along channels.
    lane: usize,
    rank_lane: usize,
}

/// `out = act(expand (core ∗ (reduce x)) + bias + residual)`, for `rows × cols` outputs of an image.
///
/// What enters and what leaves the core stays in shared memory, by pixel. Pixels that the core reads outside
/// of the image are zeros: nothing is added before it. The first factor, `reduce`, is `[D1, C]`, `core`
/// `[D2, D1, R, S]`, the last, `expand`, `[N, D2]`; a factor that is not there is not read.
#[cube(launch_unchecked, address_type = "dynamic")]
#[allow(
    clippy::too_many_arguments,
    reason = "a kernel takes its tensors one by one"
)]
pub(crate) fn factored_strip_kernel<E: Float>(
    input: &[E],
    first_factor: &[E],
    core: &[E],
    last_factor: &[E],
    bias: ComptimeOption<&[E]>,
    residual: ComptimeOption<&[E]>,
    output: &mut [E],
    shape: &StripShape,
    #[comptime] tile: StripTile,
    #[comptime] factors: FactorShape,
    #[comptime] relu: bool,
    #[define(E)] _dtype: ElemType,
) {
    // The grid may be larger than the work; whole cubes stay out together.
    if CUBE_POS < shape.cubes {
        let rest = CUBE_POS / shape.strips;
        let unit = UNIT_POS as usize;
        let place = Place {
            image: rest / shape.row_tiles,
            first_row: rest % shape.row_tiles * tile.rows,
            first_col: CUBE_POS % shape.strips * tile.cols,
            unit,
            lane: unit % tile.lanes,
            rank_lane: unit / tile.lanes,
        };

        let mut entering =
            Shared::<[E]>::new_slice(comptime!(tile.window_pixels(&factors) * factors.pitch(0)));
        if comptime!(factors.reduce) {
            reduce_inputs::<E>(
                input,
                first_factor,
                &mut entering,
                &place,
                shape,
                tile,
                factors,
            );
        } else {
            let count = comptime!(tile.window_pixels(&factors));
            for i in range_stepped(unit, comptime!(count * factors.ranks[0]), tile.units) {
                let value =
                    read_window::<E>(input, i / count, i % count, &place, shape, tile, factors);
                entering[i % count * comptime!(factors.pitch(0)) + i / count] = value;
            }
        }
        sync_cube();

        let count = comptime!(tile.rows * tile.cols);
        let taps = comptime!(factors.window.kernel[0] * factors.window.kernel[1]);
        let mut sums = Array::<f32>::new(comptime!(tile.pixels * tile.ranks));
        let mut places = Array::<usize>::new(tile.pixels);
        let mut columns = Array::<usize>::new(tile.ranks);
        let mut leaving = Shared::<[E]>::new_slice(comptime!(match factors.expand {
            true => tile.rows * tile.cols * factors.pitch(1),
            false => 1,
        }));
        for first in range_stepped(0usize, count, comptime!(tile.span())) {
            core_places(first, &mut places, &place, tile, factors);
            for rank in range_stepped(0usize, comptime!(factors.ranks[1]), comptime!(tile.block()))
            {
                zero(&mut sums, tile);
                for r in 0..comptime!(factors.window.kernel[0]) {
                    for s in 0..comptime!(factors.window.kernel[1]) {
                        let tap = r * comptime!(factors.window.kernel[1]) + s;
                        let at =
                            r * comptime!(factors.window.dilation[0] * tile.window(&factors)[1])
                                + s * comptime!(factors.window.dilation[1]);
                        rows_of(
                            rank + place.rank_lane,
                            comptime!(factors.ranks[1]).runtime(),
                            comptime!(factors.ranks[0] * taps).runtime(),
                            tap,
                            &mut columns,
                            tile,
                        );
                        accumulate::<E>(
                            &entering,
                            &places,
                            at * comptime!(factors.pitch(0)),
                            1usize,
                            core,
                            &columns,
                            taps,
                            comptime!(factors.ranks[0]).runtime(),
                            &mut sums,
                            tile,
                        );
                    }
                }
                if comptime!(factors.expand) {
                    keep::<E>(
                        &sums,
                        &mut leaving,
                        first,
                        rank,
                        &place,
                        count,
                        comptime!(factors.ranks[1]),
                        comptime!(factors.pitch(1)),
                        tile,
                    );
                } else {
                    store::<E>(
                        &sums, &bias, &residual, output, first, rank, &place, shape, tile, relu,
                    );
                }
            }
        }

        if comptime!(factors.expand) {
            sync_cube();
            for first in range_stepped(0usize, count, comptime!(tile.span())) {
                #[unroll]
                for p in 0..tile.pixels {
                    let pixel = min(
                        first + place.lane + comptime!(p * tile.lanes),
                        comptime!(count - 1),
                    );
                    places[p] = pixel * comptime!(factors.pitch(1));
                }
                for rank in range_stepped(0usize, shape.outputs, comptime!(tile.block())) {
                    zero(&mut sums, tile);
                    rows_of(
                        rank + place.rank_lane,
                        shape.outputs,
                        comptime!(factors.ranks[1]).runtime(),
                        0usize,
                        &mut columns,
                        tile,
                    );
                    accumulate::<E>(
                        &leaving,
                        &places,
                        0usize,
                        1usize,
                        last_factor,
                        &columns,
                        1usize,
                        comptime!(factors.ranks[1]).runtime(),
                        &mut sums,
                        tile,
                    );
                    store::<E>(
                        &sums, &bias, &residual, output, first, rank, &place, shape, tile, relu,
                    );
                }
            }
        }
    }
}

/// The input of a channel at a pixel of the window that the core reads; zero outside of the image.
#[cube]
fn read_window<E: Float>(
    input: &[E],
    channel: usize,
    pixel: usize,
    place: &Place,
    shape: &StripShape,
    #[comptime] tile: StripTile,
    #[comptime] factors: FactorShape,
) -> E {
    let cols = comptime!(tile.window(&factors)[1]);
    let y = place.first_row * comptime!(factors.window.stride[0]) + pixel / cols;
    let x = place.first_col * comptime!(factors.window.stride[1]) + pixel % cols;
    let inside = y >= shape.top
        && y < shape.top + shape.height
        && x >= shape.left
        && x < shape.left + shape.width;
    let mut value = E::from_int(0);
    if inside {
        let row = (place.image * shape.channels + channel) * shape.height + y - shape.top;
        value = input[row * shape.width + x - shape.left];
    }
    value
}

/// `entering[pixel][b] = sum_c reduce[b,c] * x[c,pixel]` for all pixels that the core reads.
#[cube]
fn reduce_inputs<E: Float>(
    input: &[E],
    first_factor: &[E],
    entering: &mut Shared<[E]>,
    place: &Place,
    shape: &StripShape,
    #[comptime] tile: StripTile,
    #[comptime] factors: FactorShape,
) {
    let count = comptime!(tile.window_pixels(&factors));
    let span = comptime!(tile.span());
    let mut staged = Shared::<[E]>::new_slice(comptime!(tile.chunk * span));
    let mut sums = Array::<f32>::new(comptime!(tile.pixels * tile.ranks));
    let mut places = Array::<usize>::new(tile.pixels);
    let mut columns = Array::<usize>::new(tile.ranks);
    #[unroll]
    for p in 0..tile.pixels {
        places[p] = place.lane + comptime!(p * tile.lanes);
    }
    for first in range_stepped(0usize, count, span) {
        for rank in range_stepped(0usize, comptime!(factors.ranks[0]), comptime!(tile.block())) {
            zero(&mut sums, tile);
            for from in range_stepped(0usize, shape.channels, tile.chunk) {
                let len = min(shape.channels - from, tile.chunk);
                for i in range_stepped(place.unit, len * span, tile.units) {
                    let mut value = E::from_int(0);
                    let pixel = first + i % span;
                    if pixel < count {
                        let channel = from + i / span;
                        value =
                            read_window::<E>(input, channel, pixel, place, shape, tile, factors);
                    }
                    staged[i] = value;
                }
                sync_cube();
                rows_of(
                    rank + place.rank_lane,
                    comptime!(factors.ranks[0]).runtime(),
                    shape.channels,
                    from,
                    &mut columns,
                    tile,
                );
                accumulate::<E>(
                    &staged,
                    &places,
                    0usize,
                    span,
                    first_factor,
                    &columns,
                    1usize,
                    len,
                    &mut sums,
                    tile,
                );
                sync_cube();
            }
            keep::<E>(
                &sums,
                entering,
                first,
                rank,
                place,
                count,
                comptime!(factors.ranks[0]),
                comptime!(factors.pitch(0)),
                tile,
            );
        }
    }
}

#[cube]
fn zero(sums: &mut Array<f32>, #[comptime] tile: StripTile) {
    #[unroll]
    for s in 0..comptime!(tile.pixels * tile.ranks) {
        sums[s] = 0.0f32;
    }
}

/// Where the window of each of a unit's output pixels begins; those past the last repeat it.
#[cube]
fn core_places(
    first: usize,
    places: &mut Array<usize>,
    place: &Place,
    #[comptime] tile: StripTile,
    #[comptime] factors: FactorShape,
) {
    #[unroll]
    for p in 0..tile.pixels {
        let pixel = min(
            first + place.lane + comptime!(p * tile.lanes),
            comptime!(tile.rows * tile.cols - 1),
        );
        let row =
            pixel / tile.cols * comptime!(factors.window.stride[0] * tile.window(&factors)[1]);
        let col = pixel % tile.cols * comptime!(factors.window.stride[1]);
        places[p] = (row + col) * comptime!(factors.pitch(0));
    }
}

/// Where the weights of each of a unit's channels begin, in rows of `len`; channels past the last of
/// `count` repeat it.
#[cube]
fn rows_of(
    first: usize,
    count: usize,
    len: usize,
    at: usize,
    columns: &mut Array<usize>,
    #[comptime] tile: StripTile,
) {
    #[unroll]
    for r in 0..tile.ranks {
        let row = min(first + comptime!(r * tile.rank_lanes()), count - 1);
        columns[r] = row * len + at;
    }
}

/// `sums[rank][pixel] += sum_k weights[columns[rank] + k*weight_step] * operand[places[pixel] + at + k*step]`.
#[cube]
#[allow(
    clippy::too_many_arguments,
    reason = "device code takes its operands one by one"
)]
fn accumulate<E: Float>(
    operand: &Shared<[E]>,
    places: &Array<usize>,
    at: usize,
    #[comptime] step: usize,
    weights: &[E],
    columns: &Array<usize>,
    #[comptime] weight_step: usize,
    len: usize,
    sums: &mut Array<f32>,
    #[comptime] tile: StripTile,
) {
    let mut values = Array::<f32>::new(tile.pixels);
    for k in 0..len {
        #[unroll]
        for p in 0..tile.pixels {
            values[p] = f32::cast_from(operand[places[p] + at + k * step]);
        }
        #[unroll]
        for r in 0..tile.ranks {
            let weight = f32::cast_from(weights[columns[r] + k * weight_step]);
            #[unroll]
            for p in 0..tile.pixels {
                sums[comptime!(r * tile.pixels + p)] += weight * values[p];
            }
        }
    }
}

/// Keeps sums of `ranks` channels in shared memory, by pixel.
#[cube]
#[allow(
    clippy::too_many_arguments,
    reason = "device code takes its operands one by one"
)]
fn keep<E: Float>(
    sums: &Array<f32>,
    kept: &mut Shared<[E]>,
    first: usize,
    rank: usize,
    place: &Place,
    #[comptime] count: usize,
    #[comptime] ranks: usize,
    #[comptime] pitch: usize,
    #[comptime] tile: StripTile,
) {
    #[unroll]
    for r in 0..tile.ranks {
        let own = rank + place.rank_lane + comptime!(r * tile.rank_lanes());
        if own < ranks {
            #[unroll]
            for p in 0..tile.pixels {
                let pixel = first + place.lane + comptime!(p * tile.lanes);
                if pixel < count {
                    kept[pixel * pitch + own] = E::cast_from(sums[comptime!(r * tile.pixels + p)]);
                }
            }
        }
    }
}

/// Stores sums of output channels, with the epilogue.
#[cube]
#[allow(
    clippy::too_many_arguments,
    reason = "device code takes its operands one by one"
)]
fn store<E: Float>(
    sums: &Array<f32>,
    bias: &ComptimeOption<&[E]>,
    residual: &ComptimeOption<&[E]>,
    output: &mut [E],
    first: usize,
    rank: usize,
    place: &Place,
    shape: &StripShape,
    #[comptime] tile: StripTile,
    #[comptime] relu: bool,
) {
    #[unroll]
    for r in 0..tile.ranks {
        let own = rank + place.rank_lane + comptime!(r * tile.rank_lanes());
        if own < shape.outputs {
            let bias: ComptimeOption<f32> = bias.as_ref().map(|bias| f32::cast_from(bias[own]));
            let bias = bias.unwrap_or_else(|| 0.0f32);
            #[unroll]
            for p in 0..tile.pixels {
                let pixel = first + place.lane + comptime!(p * tile.lanes);
                let e = place.first_row + pixel / tile.cols;
                let f = place.first_col + pixel % tile.cols;
                let inside = e < shape.out_height && f < shape.out_width;
                if inside && pixel < comptime!(tile.rows * tile.cols) {
                    let row = (place.image * shape.outputs + own) * shape.out_height + e;
                    let sum = sums[comptime!(r * tile.pixels + p)] + bias;
                    finish::<E>(sum, row * shape.out_width + f, residual, output, relu);
                }
            }
        }
    }
}
