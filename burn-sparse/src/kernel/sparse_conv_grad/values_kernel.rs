//! Device code of the gradient for the values.

use cubecl::prelude::*;

use super::GradValuesTile;

/// Sizes known at launch.
#[derive(CubeType, CubeLaunch)]
pub(crate) struct GradValuesShape {
    pub(crate) nnz: usize,
    /// Output channels, and blocks of entries of each that are worked on at a time.
    pub(crate) rows: usize,
    pub(crate) splits: usize,
    pub(crate) batch: usize,
    /// Output rows and columns.
    pub(crate) height: usize,
    pub(crate) width: usize,
    /// Elements between two rows of the stretched input, and of one stretched image.
    pub(crate) cols: usize,
    pub(crate) image: usize,
    /// The largest offset within bounds.
    pub(crate) limit: u32,
    /// The number of lanes as images, rows and columns: how far a lane goes at a time.
    pub(crate) step_image: usize,
    pub(crate) step_row: usize,
    pub(crate) step_col: usize,
}

/// `out[j] = sum_{n,e,f} grad[n,k,e,f] * x[n, offsets[j] + e*cols + f]` for every entry `j` of
/// output channel `k`.
#[cube(launch_unchecked, address_type = "dynamic")]
pub(crate) fn grad_values_kernel<E: Float>(
    input: &[E],
    grad: &[E],
    offsets: &[i32],
    row_ptr: &[i32],
    output: &mut [E],
    shape: &GradValuesShape,
    #[comptime] tile: GradValuesTile,
    #[define(E)] _dtype: ElemType,
) {
    let blocks = comptime!(tile.units / tile.lanes);
    let row = CUBE_POS % shape.rows;
    let split = CUBE_POS / shape.rows * blocks + UNIT_POS as usize / tile.lanes;
    if split < shape.splits {
        let end = min(row_ptr[row + 1] as usize, shape.nnz);
        let start = min(row_ptr[row] as usize, end);
        for block in range_stepped(
            start + split * tile.entries,
            end,
            shape.splits * tile.entries,
        ) {
            let mut sums = sum_places::<E>(input, grad, offsets, row, block, end, shape, tile);
            if comptime!(tile.lanes > 1) {
                sums = add_lanes(&sums, tile);
            }
            let lane = UNIT_POS as usize % tile.lanes;
            if lane == 0 {
                #[unroll]
                for i in 0..tile.entries {
                    if block + i < end {
                        output[block + i] = E::cast_from(sums[i]);
                    }
                }
            }
        }
    }
}

/// A lane's share of the sums over images and pixels of the entries from `block` on.
#[cube]
#[allow(
    clippy::too_many_arguments,
    reason = "a kernel takes its tensors one by one"
)]
fn sum_places<E: Float>(
    input: &[E],
    grad: &[E],
    offsets: &[i32],
    row: usize,
    block: usize,
    end: usize,
    shape: &GradValuesShape,
    #[comptime] tile: GradValuesTile,
) -> Array<f32> {
    let mut sums = Array::<f32>::new(tile.entries);
    let mut places = Array::<usize>::new(tile.entries);
    #[unroll]
    for i in 0..tile.entries {
        sums[i] = 0.0f32;
        // Past the last entry, repeat it; the sum is not stored.
        places[i] = min(offsets[min(block + i, end - 1)] as u32, shape.limit) as usize;
    }
    let pixels = shape.height * shape.width;
    let lane = UNIT_POS as usize % tile.lanes;
    let mut image = lane / pixels;
    let mut e = lane % pixels / shape.width;
    let mut f = lane % shape.width;
    while image < shape.batch {
        let g = f32::cast_from(grad[(image * shape.rows + row) * pixels + e * shape.width + f]);
        let at = image * shape.image + e * shape.cols + f;
        #[unroll]
        for i in 0..tile.entries {
            sums[i] += g * f32::cast_from(input[at + places[i]]);
        }
        // To the lane's next pixel: add with carries instead of dividing.
        f += shape.step_col;
        e += shape.step_row;
        image += shape.step_image;
        if f >= shape.width {
            f -= shape.width;
            e += 1;
        }
        if e >= shape.height {
            e -= shape.height;
            image += 1;
        }
    }
    sums
}

/// Adds the sums of all units of a cube, halving as it goes.
#[cube]
fn add_lanes(sums: &Array<f32>, #[comptime] tile: GradValuesTile) -> Array<f32> {
    let mut partial = Shared::<[f32]>::new_slice(comptime!(tile.units * tile.entries));
    let unit = UNIT_POS as usize;
    #[unroll]
    for i in 0..tile.entries {
        partial[unit + comptime!(i * tile.units)] = sums[i];
    }
    sync_cube();
    #[unroll]
    for level in 0..comptime!(tile.units.ilog2() as usize) {
        let half = comptime!(tile.units >> (level + 1));
        if unit < half {
            #[unroll]
            for i in 0..tile.entries {
                let at = unit + comptime!(i * tile.units);
                let other = partial[at + half];
                partial[at] += other;
            }
        }
        sync_cube();
    }
    let mut totals = Array::<f32>::new(tile.entries);
    #[unroll]
    for i in 0..tile.entries {
        totals[i] = partial[comptime!(i * tile.units)];
    }
    // Before the next block overwrites what others have yet to read.
    sync_cube();
    totals
}
