//! Device code of the core convolution.

use cubecl::prelude::*;

use super::config::{CoreCube, CoreTile, CoreWindow};
use crate::kernel::finish::finish;

/// Sizes known at launch.
#[derive(CubeType, CubeLaunch)]
pub(crate) struct CoreShape {
    pub(crate) channels: usize,
    pub(crate) outputs: usize,
    /// Input rows and columns, and zeros above and to the left of them.
    pub(crate) height: usize,
    pub(crate) width: usize,
    pub(crate) top: usize,
    pub(crate) left: usize,
    pub(crate) out_height: usize,
    pub(crate) out_width: usize,
    /// Cubes in all, and along output channels, columns, rows and parts of the input channels.
    pub(crate) cubes: usize,
    pub(crate) blocks: usize,
    pub(crate) strips: usize,
    pub(crate) row_tiles: usize,
    pub(crate) splits: usize,
    /// Input channels of a part, and elements of the sums of one.
    pub(crate) split_channels: usize,
    pub(crate) len: usize,
}

/// `out[n,k,e,f] = act(bias[k] + residual[n,k,e,f] + sum_{c,r,s} w[c,r,s,k] * x[n,c,e*u+r*d,f*v+s*d])`;
/// of one part of the channels `c`, where there are several, at `out[split]`.
///
/// An input is loaded once for all outputs of a unit that read it. Units of neighbouring output channels
/// read the same inputs and neighbouring weights.
#[cube(launch_unchecked, address_type = "dynamic")]
#[allow(
    clippy::too_many_arguments,
    reason = "a kernel takes its tensors one by one"
)]
pub(crate) fn core_conv_kernel<E: Float, O: Float>(
    input: &[E],
    weights: &[E],
    bias: ComptimeOption<&[O]>,
    residual: ComptimeOption<&[O]>,
    output: &mut [O],
    shape: &CoreShape,
    #[comptime] tile: CoreTile,
    #[comptime] cube: CoreCube,
    #[comptime] window: CoreWindow,
    #[comptime] relu: bool,
    #[define(E, O)] _dtypes: [ElemType; 2],
) {
    // The grid may be larger than the work; whole cubes stay out together.
    if CUBE_POS < shape.cubes {
        let block = CUBE_POS % shape.blocks;
        let rest = CUBE_POS / shape.blocks;
        let strip = rest % shape.strips;
        let rest = rest / shape.strips;
        let row_tile = rest % shape.row_tiles;
        let rest = rest / shape.row_tiles;
        let split = rest % shape.splits;
        let image = rest / shape.splits;

        let unit = UNIT_POS as usize;
        let own = block * cube.channels + unit % cube.channels;
        // Units past the last output channel repeat it, and store nothing.
        let k = min(own, shape.outputs - 1);
        let first_row = row_tile * tile.rows;
        let strip_col = strip * comptime!(cube.columns * tile.cols);
        let own_col = unit / cube.channels * tile.cols;

        let mut sums = Array::<f32>::new(comptime!(tile.rows * tile.cols));
        #[unroll]
        for s in 0..comptime!(tile.rows * tile.cols) {
            sums[s] = 0.0f32;
        }

        let start = split * shape.split_channels;
        let end = min(start + shape.split_channels, shape.channels);
        let origin = Origin {
            channel: image * shape.channels,
            y: first_row * comptime!(window.stride[0]),
            x: strip_col * comptime!(window.stride[1]),
            own: own_col * comptime!(window.stride[1]),
        };
        if comptime!(tile.chunk == 0) {
            walk_direct::<E>(
                input, weights, start, end, k, &origin, &mut sums, shape, tile, window,
            );
        } else {
            walk_staged::<E>(
                input, weights, start, end, k, &origin, &mut sums, shape, tile, cube, window,
            );
        }

        let bias: ComptimeOption<f32> = bias.map(|bias| f32::cast_from(bias[k]));
        let bias = bias.unwrap_or_else(|| 0.0f32);
        if own < shape.outputs {
            #[unroll]
            for i in 0..tile.rows {
                let e = first_row + i;
                #[unroll]
                for j in 0..tile.cols {
                    let f = strip_col + own_col + j;
                    if e < shape.out_height && f < shape.out_width {
                        let row = (image * shape.outputs + k) * shape.out_height + e;
                        let at = split * shape.len + row * shape.out_width + f;
                        let sum = sums[comptime!(i * tile.cols + j)] + bias;
                        finish::<O>(sum, at, &residual, output, relu);
                    }
                }
            }
        }
    }
}

/// Where a cube and its unit start reading, counted from the padded corner.
#[derive(CubeType)]
struct Origin {
    /// First channel of the image.
    channel: usize,
    y: usize,
    x: usize,
    /// Columns from there to the unit's own.
    own: usize,
}

/// The padded input at `(y, x)` of a channel.
#[cube]
pub(crate) fn padded<E: Float>(
    input: &[E],
    channel: usize,
    y: usize,
    x: usize,
    shape: &CoreShape,
) -> E {
    let inside = y >= shape.top
        && y < shape.top + shape.height
        && x >= shape.left
        && x < shape.left + shape.width;
    let mut value = E::from_int(0);
    if inside {
        let row = channel * shape.height + y - shape.top;
        value = input[row * shape.width + x - shape.left];
    }
    value
}

/// The weights of an input and an output channel.
#[cube]
fn load_taps<E: Float>(
    weights: &[E],
    channel: usize,
    k: usize,
    taps: &mut Array<f32>,
    shape: &CoreShape,
    #[comptime] window: CoreWindow,
) {
    let count = comptime!(window.kernel[0] * window.kernel[1]);
    #[unroll]
    for t in 0..count {
        taps[t] = f32::cast_from(weights[(channel * count + t) * shape.outputs + k]);
    }
}

/// Adds what the `h`-th input row of a unit contributes to its sums.
#[cube]
fn add_row(
    row: &Array<f32>,
    taps: &Array<f32>,
    sums: &mut Array<f32>,
    #[comptime] h: usize,
    #[comptime] tile: CoreTile,
    #[comptime] window: CoreWindow,
) {
    #[unroll]
    for i in 0..tile.rows {
        #[unroll]
        for r in 0..comptime!(window.kernel[0]) {
            if comptime!(window.meets(0, h, i, r)) {
                #[unroll]
                for s in 0..comptime!(window.kernel[1]) {
                    #[unroll]
                    for j in 0..tile.cols {
                        sums[comptime!(i * tile.cols + j)] += row
                            [comptime!(j * window.stride[1] + s * window.dilation[1])]
                            * taps[comptime!(r * window.kernel[1] + s)];
                    }
                }
            }
        }
    }
}

/// Reads inputs where they are: no shared memory, no synchronisation.
#[cube]
#[allow(
    clippy::too_many_arguments,
    reason = "a kernel takes its tensors one by one"
)]
fn walk_direct<E: Float>(
    input: &[E],
    weights: &[E],
    start: usize,
    end: usize,
    k: usize,
    origin: &Origin,
    sums: &mut Array<f32>,
    shape: &CoreShape,
    #[comptime] tile: CoreTile,
    #[comptime] window: CoreWindow,
) {
    let span = comptime!(window.span(1, tile.cols));
    let mut taps = Array::<f32>::new(comptime!(window.kernel[0] * window.kernel[1]));
    let mut row = Array::<f32>::new(span);
    for c in start..end {
        load_taps::<E>(weights, c, k, &mut taps, shape, window);
        #[unroll]
        for h in 0..comptime!(window.span(0, tile.rows)) {
            if comptime!(window.reads(0, h, tile.rows)) {
                #[unroll]
                for x in 0..span {
                    if comptime!(window.reads(1, x, tile.cols)) {
                        row[x] = f32::cast_from(padded::<E>(
                            input,
                            origin.channel + c,
                            origin.y + h,
                            origin.x + origin.own + x,
                            shape,
                        ));
                    }
                }
                add_row(&row, &taps, sums, h, tile, window);
            }
        }
    }
}

/// Stages the inputs of all units of a cube, some channels at a time.
#[cube]
#[allow(
    clippy::too_many_arguments,
    reason = "a kernel takes its tensors one by one"
)]
fn walk_staged<E: Float>(
    input: &[E],
    weights: &[E],
    start: usize,
    end: usize,
    k: usize,
    origin: &Origin,
    sums: &mut Array<f32>,
    shape: &CoreShape,
    #[comptime] tile: CoreTile,
    #[comptime] cube: CoreCube,
    #[comptime] window: CoreWindow,
) {
    let span = comptime!(window.span(1, tile.cols));
    let pitch = comptime!(window.span(1, cube.columns * tile.cols));
    let plane = comptime!(window.span(0, tile.rows) * window.span(1, cube.columns * tile.cols));
    let mut staged = Shared::<[E]>::new_slice(comptime!(tile.chunk * plane));
    let mut taps = Array::<f32>::new(comptime!(window.kernel[0] * window.kernel[1]));
    let mut row = Array::<f32>::new(span);
    for from in range_stepped(start, end, tile.chunk) {
        let len = min(end - from, tile.chunk);
        for i in range_stepped(UNIT_POS as usize, len * plane, comptime!(cube.units())) {
            let within = i % plane;
            staged[i] = padded::<E>(
                input,
                origin.channel + from + i / plane,
                origin.y + within / pitch,
                origin.x + within % pitch,
                shape,
            );
        }
        sync_cube();
        for c in 0..len {
            load_taps::<E>(weights, from + c, k, &mut taps, shape, window);
            let first = c * plane + origin.own;
            #[unroll]
            for h in 0..comptime!(window.span(0, tile.rows)) {
                if comptime!(window.reads(0, h, tile.rows)) {
                    #[unroll]
                    for x in 0..span {
                        if comptime!(window.reads(1, x, tile.cols)) {
                            row[x] = f32::cast_from(staged[first + comptime!(h * pitch + x)]);
                        }
                    }
                    add_row(&row, &taps, sums, h, tile, window);
                }
            }
        }
        sync_cube();
    }
}

/// Sizes of the second pass, known at launch.
#[derive(CubeType, CubeLaunch)]
pub(crate) struct SplitShape {
    /// Outputs, parts, output channels and pixels of one.
    pub(crate) len: usize,
    pub(crate) splits: usize,
    pub(crate) outputs: usize,
    pub(crate) pixels: usize,
}

/// `out[n,k,p] = act(bias[k] + residual[n,k,p] + sum_split partial[split,n,k,p])`.
#[cube(launch_unchecked, address_type = "dynamic")]
pub(crate) fn add_splits_kernel<E: Float>(
    partial: &[f32],
    bias: ComptimeOption<&[E]>,
    residual: ComptimeOption<&[E]>,
    output: &mut [E],
    shape: &SplitShape,
    #[comptime] relu: bool,
    #[define(E)] _dtype: ElemType,
) {
    let at = ABSOLUTE_POS;
    if at < shape.len {
        let mut sum = 0.0f32;
        for split in 0..shape.splits {
            sum += partial[split * shape.len + at];
        }
        let k = at / shape.pixels % shape.outputs;
        let bias: ComptimeOption<f32> = bias.map(|bias| f32::cast_from(bias[k]));
        let sum = sum + bias.unwrap_or_else(|| 0.0f32);
        finish::<E>(sum, at, &residual, output, relu);
    }
}
