//! Host side of the gradient for the input.

use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::{
    GradInputTile,
    input_kernel::{GradInputShapeLaunch, grad_input_kernel},
};
use crate::{
    ConvProblem,
    kernel::{
        Choice, Entries,
        base::{address_type, empty_like, float_elem, grid, index_tensor, with_shape},
    },
};

/// Gradient of [`sparse_conv`](crate::kernel::sparse_conv) (before bias, residual and activation)
/// for its input, `[N, C, H, W]`, from `grad [N, K, E, F]`.
///
/// `transpose` is the pattern by input channel, `[ptr (C + 1) | entry (stored) | row (stored)]`:
/// the entries `entry[ptr[c]..ptr[c + 1]]` read channel `c` and belong to output channels
/// `row[..]`. Sums are f32 whatever the dtype; pixels that no weight reads get 0.
///
/// # Panics
/// If a tensor does not have the shape or dtype that `problem` and `grad` ask for, or if a forced
/// tile breaks its rules on this device.
pub fn sparse_conv_grad_input(
    grad: CubeTensor,
    entries: Entries,
    transpose: CubeTensor,
    problem: &ConvProblem,
    choice: Choice<GradInputTile>,
) -> CubeTensor {
    let grad = with_shape(grad, &problem.output_shape(), "gradient");
    let elem = float_elem(grad.dtype);
    let nnz = entries.nnz();
    let entries = entries.prepared(&grad, problem.out_channels);
    let transpose = index_tensor(transpose, "transposed pattern");
    assert_eq!(
        transpose.meta.num_elements(),
        problem.in_channels + 1 + 2 * nnz,
        "the transposed pattern of {} channels and {nnz} entries",
        problem.in_channels
    );
    let output = empty_like(&grad, problem.input_shape());
    if output.meta.num_elements() == 0 {
        return output;
    }
    let client = output.client.clone();
    let tile = match choice {
        Choice::Forced(tile) => tile,
        Choice::Tuned | Choice::Heuristic => GradInputTile::heuristic(&client, problem.batch),
    };
    tile.check(problem.batch, &client.properties().hardware)
        .unwrap_or_else(|rule| panic!("{rule}"));
    let layout = problem.stretched();
    let [out_height, out_width] = problem.output();
    let image = problem.out_channels * out_height * out_width;
    assert!(
        image <= u32::MAX as usize,
        "an output image of {image} elements exceeds 32-bit offsets"
    );
    let pixels = problem.input[0] * problem.input[1];
    let items = problem.batch.div_ceil(tile.sub_batch) * pixels;
    let tiles = items.div_ceil(tile.units);
    let address = address_type([&grad, &entries.values, &transpose, &output]);
    // SAFETY: channels, items and images are below their counts; pointers, entries and output
    // channels read from the pattern are cut to theirs; the gradient is read only where the output
    // pixel lies inside the output. Every tensor has its length checked above.
    unsafe {
        grad_input_kernel::launch_unchecked(
            &client,
            grid(&client, tiles * problem.in_channels),
            CubeDim::new_1d(tile.units as u32),
            address,
            grad.into_buffer_arg(),
            entries.values.into_buffer_arg(),
            entries.indices.into_buffer_arg(),
            transpose.into_buffer_arg(),
            output.clone().into_buffer_arg(),
            GradInputShapeLaunch::new(
                nnz,
                problem.out_channels,
                problem.in_channels,
                layout.channel_stride(),
                items,
                tiles,
                problem.batch,
                pixels,
                problem.input[1],
                problem.padding[0][0],
                problem.padding[1][0],
                problem.stride[0],
                problem.stride[1],
                layout.phases[0],
                layout.phases[1],
                layout.plane(),
                layout.cols,
                out_height,
                out_width,
            ),
            tile,
            elem,
        );
    }
    output
}
