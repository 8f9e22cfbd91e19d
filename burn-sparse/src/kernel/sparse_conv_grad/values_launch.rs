//! Host side of the gradient for the values.

use burn_cubecl::{ops::numeric::zeros_client, tensor::CubeTensor};
use cubecl::prelude::*;

use super::{
    GradValuesTile,
    values_kernel::{GradValuesShapeLaunch, grad_values_kernel},
};
use crate::{
    ConvProblem,
    kernel::{
        Choice,
        base::{address_type, empty_like, float_elem, grid, index_tensor, same_dtype, with_shape},
        stretch,
    },
};

/// Gradient of [`sparse_conv`](crate::kernel::sparse_conv) for its values, one per entry, from
/// `input [N, C, H, W]` and `grad [N, K, E, F]`:
///
/// `out[j] = sum_{n,e,f} grad[n,k,e,f] * x[n, offsets[j] + e*cols + f]`
///
/// with `x` the stretched input and `k` the row of entry `j`. Sums are f32 whatever the dtype.
///
/// # Panics
/// If a tensor does not have the shape or dtype that `problem` and `input` ask for, or if a forced
/// tile breaks its rules on this device.
pub fn sparse_conv_grad_values(
    input: CubeTensor,
    grad: CubeTensor,
    offsets: CubeTensor,
    row_ptr: CubeTensor,
    problem: &ConvProblem,
    choice: Choice<GradValuesTile>,
) -> CubeTensor {
    let elem = float_elem(input.dtype);
    let grad = same_dtype(
        with_shape(grad, &problem.output_shape(), "gradient"),
        input.dtype,
        "gradient",
    );
    let offsets = index_tensor(offsets, "offsets");
    let row_ptr = index_tensor(row_ptr, "row pointers");
    let rows = problem.out_channels;
    assert_eq!(
        row_ptr.meta.num_elements(),
        rows + 1,
        "{rows} rows need {} row pointers",
        rows + 1
    );
    let nnz = offsets.meta.num_elements();
    let output = empty_like(&input, [nnz]);
    if nnz == 0 {
        return output;
    }
    if problem.batch == 0 {
        return zeros_client(output.client, output.device, [nnz].into(), output.dtype);
    }
    let [height, width] = problem.output();
    let client = output.client.clone();
    let tile = match choice {
        Choice::Forced(tile) => tile,
        Choice::Tuned | Choice::Heuristic => {
            GradValuesTile::heuristic(&client, problem.batch * height * width)
        }
    };
    tile.check(&client.properties().hardware)
        .unwrap_or_else(|rule| panic!("{rule}"));
    let stretched = stretch(input, problem);
    let layout = problem.stretched();
    let image = problem.in_channels * layout.channel_stride();
    let last = (height - 1) * layout.cols + width - 1;
    let limit = u32::try_from(image.saturating_sub(last + 1))
        .unwrap_or_else(|_| panic!("an image of {image} elements exceeds 32-bit offsets"));
    // Enough for the blocks of a row of average length; longer rows take turns.
    let splits = nnz.div_ceil(rows).div_ceil(tile.entries);
    let pixels = height * width;
    let address = address_type([&stretched, &grad, &output]);
    // SAFETY: rows, images and pixels are below their counts, entries between row pointers that
    // are cut to the number of entries, and offsets at most `limit`, from where the last pixel of
    // the last image is the last element of the input. Every tensor has its length checked above.
    unsafe {
        grad_values_kernel::launch_unchecked(
            &client,
            grid(&client, splits.div_ceil(tile.blocks()) * rows),
            CubeDim::new_1d(tile.units as u32),
            address,
            stretched.into_buffer_arg(),
            grad.into_buffer_arg(),
            offsets.into_buffer_arg(),
            row_ptr.into_buffer_arg(),
            output.clone().into_buffer_arg(),
            GradValuesShapeLaunch::new(
                nnz,
                rows,
                splits,
                problem.batch,
                height,
                width,
                layout.cols,
                image,
                limit,
                tile.lanes / pixels,
                tile.lanes % pixels / width,
                tile.lanes % width,
            ),
            tile,
            elem,
        );
    }
    output
}
