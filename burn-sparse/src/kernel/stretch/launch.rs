//! Host side of [`stretch`].

use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::kernel::{StretchLayout, StretchShapeLaunch, stretch_kernel};
use crate::{
    ConvProblem,
    kernel::base::{address_type, empty_like, flat_units, float_elem, grid, with_shape},
};

/// Pads `input [N, C, H, W]` and splits it by stride phase into
/// `[N, C, phases[0] * phases[1], rows, cols]`, zero where padded.
///
/// Returns the input itself where the layout is the plain input, as for 1x1 kernels of stride 1.
///
/// # Panics
/// If `input` does not have the shape that `problem` says.
pub fn stretch(input: CubeTensor, problem: &ConvProblem) -> CubeTensor {
    let input = with_shape(input, &problem.input_shape(), "input");
    let layout = problem.stretched();
    if layout.is_identity(problem) {
        return input;
    }
    let elem = float_elem(input.dtype);
    let output = empty_like(
        &input,
        [
            problem.batch,
            problem.in_channels,
            layout.phases[0] * layout.phases[1],
            layout.rows,
            layout.cols,
        ],
    );
    let len = output.meta.num_elements();
    if len == 0 {
        return output;
    }
    let client = output.client.clone();
    let units = flat_units(&client);
    let address = address_type([&input, &output]);
    // SAFETY: a unit writes only below `len`, the output's length, and reads only where its pixel
    // lies inside the input.
    unsafe {
        stretch_kernel::launch_unchecked(
            &client,
            grid(&client, len.div_ceil(units as usize)),
            CubeDim::new_1d(units),
            address,
            input.into_buffer_arg(),
            output.clone().into_buffer_arg(),
            StretchShapeLaunch::new(
                len,
                problem.input[0],
                problem.input[1],
                layout.rows,
                layout.cols,
                problem.padding[0][0],
                problem.padding[1][0],
            ),
            StretchLayout {
                stride_y: problem.stride[0],
                stride_x: problem.stride[1],
                phases_y: layout.phases[0],
                phases_x: layout.phases[1],
            },
            elem,
        );
    }
    output
}
