//! Device code of the gradient for the input.

use cubecl::prelude::*;

use super::GradInputTile;

/// Sizes known at launch.
#[derive(CubeType, CubeLaunch)]
pub(crate) struct GradInputShape {
    pub(crate) nnz: usize,
    /// Output channels.
    pub(crate) rows: usize,
    /// Input channels, and elements of a stretched one.
    pub(crate) channels: usize,
    pub(crate) channel_stride: usize,
    /// Groups of images times input pixels, and tiles that cover them.
    pub(crate) items: usize,
    pub(crate) tiles: usize,
    pub(crate) batch: usize,
    /// Input rows times columns, and columns.
    pub(crate) pixels: usize,
    pub(crate) width: usize,
    /// Zeros above and to the left, strides, and phases that some weight reads.
    pub(crate) top: usize,
    pub(crate) left: usize,
    pub(crate) stride_y: usize,
    pub(crate) stride_x: usize,
    pub(crate) phases_y: usize,
    pub(crate) phases_x: usize,
    /// Elements of a phase plane, and of one of its rows.
    pub(crate) plane: usize,
    pub(crate) cols: usize,
    /// Output rows and columns.
    pub(crate) out_height: usize,
    pub(crate) out_width: usize,
}

/// Where an entry reads, and what it connects to: with it a unit finds the output pixel that the
/// entry connects to its input pixel.
#[derive(CubeType)]
struct Entry {
    value: f32,
    /// First element of the output channel in the gradient of an image.
    channel: u32,
    /// Where the entry reads for output pixel `(0, 0)`.
    place: Place,
}

/// Entries of one input channel in shared memory, decoded once for all units of a cube.
#[derive(CubeType)]
struct Stage {
    values: Shared<[f32]>,
    channels: Shared<[u32]>,
    planes: Shared<[u32]>,
    rows: Shared<[i32]>,
    cols: Shared<[i32]>,
}

/// Phase plane, row and column of an input pixel.
#[derive(CubeType)]
struct Place {
    plane: u32,
    row: i32,
    col: i32,
}

/// `out[n,c,y,x] = sum_j values[j] * grad[n, row(j), e, f]` over the entries `j` of channel `c`
/// and the pixel `(e, f)` for which `j` reads `(y, x)`, if there is one.
#[cube(launch_unchecked, address_type = "dynamic")]
pub(crate) fn grad_input_kernel<E: Float>(
    grad: &[E],
    values: &[E],
    offsets: &[i32],
    transpose: &[i32],
    output: &mut [E],
    shape: &GradInputShape,
    #[comptime] tile: GradInputTile,
    #[define(E)] _dtype: ElemType,
) {
    let channel = CUBE_POS % shape.channels;
    let tile_pos = CUBE_POS / shape.channels;
    if tile_pos < shape.tiles {
        let item = tile_pos * tile.units + UNIT_POS as usize;
        let clamped = min(item, shape.items - 1);
        let group = clamped / shape.pixels;
        let pixel = clamped % shape.pixels;
        let first = min(group * tile.sub_batch, shape.batch - tile.sub_batch);
        let place = place_of(pixel, shape);

        let out_pixels = shape.out_height * shape.out_width;
        let image = shape.rows * out_pixels;
        let mut sums = Array::<f32>::new(tile.sub_batch);
        #[unroll]
        for b in 0..tile.sub_batch {
            sums[b] = 0.0f32;
        }

        let end = min(transpose[channel + 1] as usize, shape.nnz);
        let start = min(transpose[channel] as usize, end);
        let base = first * image;
        if comptime!(tile.chunk == 0) {
            for at in start..end {
                let entry = decode::<E>(values, offsets, transpose, at, channel, shape);
                add_entry::<E>(grad, &entry, &place, base, image, &mut sums, shape, tile);
            }
        } else {
            let mut stage = Stage {
                values: Shared::<[f32]>::new_slice(tile.chunk),
                channels: Shared::<[u32]>::new_slice(tile.chunk),
                planes: Shared::<[u32]>::new_slice(tile.chunk),
                rows: Shared::<[i32]>::new_slice(tile.chunk),
                cols: Shared::<[i32]>::new_slice(tile.chunk),
            };
            for from in range_stepped(start, end, tile.chunk) {
                let len = min(end - from, tile.chunk);
                for i in range_stepped(UNIT_POS as usize, len, tile.units) {
                    let entry = decode::<E>(values, offsets, transpose, from + i, channel, shape);
                    stage.values[i] = entry.value;
                    stage.channels[i] = entry.channel;
                    stage.planes[i] = entry.place.plane;
                    stage.rows[i] = entry.place.row;
                    stage.cols[i] = entry.place.col;
                }
                sync_cube();
                for j in 0..len {
                    let entry = Entry {
                        value: stage.values[j],
                        channel: stage.channels[j],
                        place: Place {
                            plane: stage.planes[j],
                            row: stage.rows[j],
                            col: stage.cols[j],
                        },
                    };
                    add_entry::<E>(grad, &entry, &place, base, image, &mut sums, shape, tile);
                }
                sync_cube();
            }
        }

        if item < shape.items {
            let at = channel * shape.pixels + pixel;
            #[unroll]
            for b in 0..tile.sub_batch {
                // Images that the last group shares with the one before are stored there.
                if first + b >= group * tile.sub_batch {
                    output[(first + b) * shape.channels * shape.pixels + at] =
                        E::cast_from(sums[b]);
                }
            }
        }
    }
}

/// Where an input pixel lies in the stretched input; a pixel of a phase that no weight reads gets
/// a plane that no entry has.
#[cube]
fn place_of(pixel: usize, shape: &GradInputShape) -> Place {
    let y = pixel / shape.width + shape.top;
    let x = pixel % shape.width + shape.left;
    let p = y % shape.stride_y;
    let q = x % shape.stride_x;
    let mut plane = (p * shape.phases_x + q) as u32;
    if p >= shape.phases_y || q >= shape.phases_x {
        plane = u32::MAX;
    }
    Place {
        plane,
        row: (y / shape.stride_y) as i32,
        col: (x / shape.stride_x) as i32,
    }
}

/// The `at`-th entry of the transposed pattern.
#[cube]
fn decode<E: Float>(
    values: &[E],
    offsets: &[i32],
    transpose: &[i32],
    at: usize,
    channel: usize,
    shape: &GradInputShape,
) -> Entry {
    let entries = shape.channels + 1;
    let entry = min(transpose[entries + at] as usize, shape.nnz - 1);
    let row = min(transpose[entries + shape.nnz + at] as usize, shape.rows - 1);
    let offset = offsets[entry] as usize - channel * shape.channel_stride;
    let within = offset % shape.plane;
    Entry {
        value: f32::cast_from(values[entry]),
        channel: (row * shape.out_height * shape.out_width) as u32,
        place: Place {
            plane: (offset / shape.plane) as u32,
            row: (within / shape.cols) as i32,
            col: (within % shape.cols) as i32,
        },
    }
}

/// Adds what one entry contributes to the pixel of a unit, in every image of its group.
#[cube]
#[allow(
    clippy::too_many_arguments,
    reason = "a kernel takes its tensors one by one"
)]
fn add_entry<E: Float>(
    grad: &[E],
    entry: &Entry,
    place: &Place,
    base: usize,
    image: usize,
    sums: &mut Array<f32>,
    shape: &GradInputShape,
    #[comptime] tile: GradInputTile,
) {
    if entry.place.plane == place.plane {
        let e = place.row - entry.place.row;
        let f = place.col - entry.place.col;
        if e >= 0 && f >= 0 && e < shape.out_height as i32 && f < shape.out_width as i32 {
            let at = base + entry.channel as usize + e as usize * shape.out_width + f as usize;
            #[unroll]
            for b in 0..tile.sub_batch {
                sums[b] += entry.value * f32::cast_from(grad[at + b * image]);
            }
        }
    }
}
