//! Host side of the core convolution.

use burn::backend::ops::FloatTensorOps;
use burn::tensor::DType;
use burn_cubecl::{
    CubeBackend, kernel::into_contiguous, ops::numeric::empty_device_contiguous_dtype,
    tensor::CubeTensor,
};
use cubecl::prelude::*;

use super::{
    config::{CoreTile, CoreWindow},
    kernel::{CoreShapeLaunch, SplitShapeLaunch, add_splits_kernel, core_conv_kernel},
    select,
};
use crate::{
    ConvProblem,
    kernel::{
        Choice, Epilogue,
        base::{address_type, empty_like, flat_units, float_elem, grid, same_dtype, with_shape},
    },
};

/// The weight `[N, C, R, S]` of a convolution in the order of [`core_conv`], `[C, R, S, N]`: units of
/// neighbouring output channels read neighbouring weights. Done once for a weight.
///
/// # Panics
/// If the weight has not four dimensions.
pub fn core_weight(weight: CubeTensor) -> CubeTensor {
    let shape: &[usize] = weight.meta.shape();
    assert_eq!(shape.len(), 4, "a weight [N, C, R, S], got {shape:?}");
    into_contiguous(CubeBackend::float_permute(weight, &[1, 2, 3, 0]))
}

/// Direct convolution of few channels, such as the core of a Tucker decomposition, after TDC (Xiang et
/// al., `PPoPP` 2023), `[B, N, H', W']`:
///
/// `out[b,n,e,f] = act(bias[n] + residual[b,n,e,f] + sum_{c,r,s} w[c,r,s,n] * x[b,c,e*u+r*d,f*v+s*d])`
///
/// for `input [B, C, H, W]` and a `weight [C, R, S, N]` from [`core_weight`]. Where TDC adds up chunks of
/// input channels by atomic additions, a cube here goes through all of them, or, where that leaves
/// multiprocessors idle, parts of the channels are summed apart and added by a second kernel: results do
/// not depend on the order in which cubes run. Any stride, padding, dilation and kernel size that fits
/// registers; sums are f32 whatever the dtype.
///
/// # Panics
/// If a tensor does not have the shape or dtype that `problem` and the input ask for, for groups, for an
/// input without channels, or if a tile (a forced one, or all candidates) breaks its rules on this device.
pub fn core_conv(
    input: CubeTensor,
    weight: CubeTensor,
    epilogue: Epilogue,
    problem: &ConvProblem,
    choice: Choice<CoreTile>,
) -> CubeTensor {
    try_core_conv(input, weight, epilogue, problem, choice).unwrap_or_else(|rule| panic!("{rule}"))
}

/// [`core_conv`], with the rule that is broken as an error.
pub(crate) fn try_core_conv(
    input: CubeTensor,
    weight: CubeTensor,
    epilogue: Epilogue,
    problem: &ConvProblem,
    choice: Choice<CoreTile>,
) -> Result<CubeTensor, String> {
    let operands = Operands::new(input, weight, epilogue, problem);
    match choice {
        Choice::Tuned => select::tuned(operands),
        Choice::Heuristic => {
            let tile = select::heuristic(&operands)?;
            launch(operands, tile)
        }
        Choice::Forced(tile) => launch(operands, tile),
    }
}

/// Tensors that fit a problem.
#[derive(Debug, Clone)]
pub(super) struct Operands {
    pub(super) input: CubeTensor,
    weight: CubeTensor,
    pub(super) epilogue: Epilogue,
    pub(super) problem: ConvProblem,
}

impl Operands {
    pub(super) fn new(
        input: CubeTensor,
        weight: CubeTensor,
        epilogue: Epilogue,
        problem: &ConvProblem,
    ) -> Self {
        // Kernels are launched without checks: sizes that contradict each other must not get there.
        if let Err(error) = problem.check() {
            panic!("{error}");
        }
        let input = with_shape(input, &problem.input_shape(), "input");
        let [outputs, channels, height, width] = problem.weight_shape();
        let weight = with_shape(weight, &[channels, height, width, outputs], "weight");
        let epilogue = epilogue.prepared(input.dtype, outputs, &problem.output_shape().into());
        Self {
            weight: same_dtype(weight, input.dtype, "weight"),
            input,
            epilogue,
            problem: *problem,
        }
    }
}

/// Runs one tile.
///
/// # Errors
/// The rule that `tile` breaks.
pub(super) fn launch(operands: Operands, tile: CoreTile) -> Result<CubeTensor, String> {
    let Operands {
        input,
        weight,
        epilogue,
        problem,
    } = operands;
    let elem = float_elem(input.dtype);
    let output = empty_like(&input, problem.output_shape());
    let len = output.meta.num_elements();
    if len == 0 {
        return Ok(output);
    }
    let client = output.client.clone();
    tile.check(&problem, elem.size(), &client.properties().hardware)?;
    // Rounding to whole chunks may leave the last parts without channels.
    let split_channels = tile.split_channels(problem.in_channels);
    let splits = problem.in_channels.div_ceil(split_channels);
    let cube = tile.cube(&problem);
    let [out_height, out_width] = problem.output();
    let cubes = tile.cubes(&problem) * splits;
    let shape = CoreShapeLaunch::new(
        problem.in_channels,
        problem.out_channels,
        problem.input[0],
        problem.input[1],
        problem.padding[0][0],
        problem.padding[1][0],
        out_height,
        out_width,
        cubes,
        problem.out_channels.div_ceil(cube.channels),
        out_width.div_ceil(tile.cols * cube.columns),
        out_height.div_ceil(tile.rows),
        splits,
        split_channels,
        len,
    );
    let (sums, dtype, first) = match splits {
        1 => (output.clone(), elem, epilogue.clone()),
        _ => {
            let shape = [splits, len].into();
            let device = output.device.clone();
            let partial = empty_device_contiguous_dtype(client.clone(), device, shape, DType::F32);
            (partial, float_elem(DType::F32), Epilogue::default())
        }
    };
    let address = address_type([&input, &weight, &sums]);
    // SAFETY: output channels, rows and columns are compared with their counts before a store, and a
    // part's sums lie below `splits * len`, the length of `sums`. Inputs are read inside the image only,
    // weights for channels below the number of channels and an output channel that is cut to theirs.
    // Every tensor has the length that the problem says, checked by `Operands`; staged inputs are
    // written before they are read, and a unit's span ends where that of its cube does.
    unsafe {
        core_conv_kernel::launch_unchecked(
            &client,
            grid(&client, cubes),
            CubeDim::new_1d(cube.units() as u32),
            address,
            input.into_buffer_arg(),
            weight.into_buffer_arg(),
            first.bias.map(|bias| bias.into_buffer_arg()).into(),
            first
                .residual
                .map(|residual| residual.into_buffer_arg())
                .into(),
            sums.clone().into_buffer_arg(),
            shape,
            tile,
            cube,
            CoreWindow::of(&problem),
            first.relu,
            [elem, dtype],
        );
    }
    if splits > 1 {
        let pixels = out_height * out_width;
        add_splits(sums, epilogue, &output, splits, pixels);
    }
    Ok(output)
}

/// Adds the sums of all parts into the output.
fn add_splits(
    sums: CubeTensor,
    epilogue: Epilogue,
    output: &CubeTensor,
    splits: usize,
    pixels: usize,
) {
    let client = output.client.clone();
    let len = output.meta.num_elements();
    let outputs = output.meta.shape()[1];
    let units = flat_units(&client);
    let address = address_type([&sums, output]);
    // SAFETY: a unit writes only below `len`, the output's length, and `sums` has as many for each part.
    unsafe {
        add_splits_kernel::launch_unchecked(
            &client,
            grid(&client, len.div_ceil(units as usize)),
            CubeDim::new_1d(units),
            address,
            sums.into_buffer_arg(),
            epilogue.bias.map(|bias| bias.into_buffer_arg()).into(),
            epilogue
                .residual
                .map(|residual| residual.into_buffer_arg())
                .into(),
            output.clone().into_buffer_arg(),
            SplitShapeLaunch::new(len, splits, outputs, pixels),
            epilogue.relu,
            float_elem(output.dtype),
        );
    }
}
