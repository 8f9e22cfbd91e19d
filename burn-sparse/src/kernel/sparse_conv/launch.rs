//! Host side of the sparse convolution.

use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::{
    config::{ConvKernel, ConvTile},
    kernel::sparse_conv_kernel,
    select,
    shape::ConvShapeLaunch,
};
use crate::{
    ConvProblem,
    kernel::{
        Choice, Entries, Epilogue, Panels,
        base::{address_type, empty_like, float_elem, grid},
        panels, stretch,
    },
};

/// Sparse convolution of `input [N, C, H, W]`, `[N, K, E, F]`:
///
/// `out[n,k,e,f] = act(bias[k] + residual[n,k,e,f] + sum_j values[j] * x[n, offsets[j] + e*cols + f])`
///
/// with `x` the stretched input (see [`Stretched`](crate::problem::Stretched)) and `j` over the
/// entries of row `k`. Sums are f32 whatever the dtype.
///
/// # Panics
/// If a tensor does not have the shape or dtype that `problem` and the input ask for, or if a
/// forced tile breaks its rules on this device.
pub fn sparse_conv(
    input: CubeTensor,
    entries: Entries,
    epilogue: Epilogue,
    problem: &ConvProblem,
    choice: Choice<ConvKernel>,
) -> CubeTensor {
    let stretched = stretch(input, problem);
    let layout = Layout::of(problem);
    let entries = entries.prepared(&stretched, problem.out_channels);
    let epilogue = epilogue.prepared(
        stretched.dtype,
        problem.out_channels,
        &problem.output_shape().into(),
    );
    match choice {
        Choice::Tuned => select::tuned(stretched, entries, epilogue, layout, *problem),
        Choice::Heuristic => {
            let height = entries.panels.as_ref().map(Panels::height);
            let kernel = select::heuristic(&stretched.client, layout.batch, height);
            launch(stretched, entries, epilogue, &layout, kernel)
        }
        Choice::Forced(kernel) => launch(stretched, entries, epilogue, &layout, kernel),
    }
    .unwrap_or_else(|rule| panic!("{rule}"))
}

/// Where images, pixels and results lie; a convolution's, or a product's seen as one.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    pub(crate) shape: Vec<usize>,
    pub(crate) batch: usize,
    pub(crate) rows: usize,
    pub(crate) pixels: usize,
    pub(crate) width: usize,
    pub(crate) cols: usize,
    pub(crate) image: usize,
    pub(crate) scale: usize,
    pub(crate) out_image: usize,
    pub(crate) out_row: usize,
    pub(crate) out_pixel: usize,
}

impl Layout {
    fn of(problem: &ConvProblem) -> Self {
        let stretched = problem.stretched();
        let [height, width] = problem.output();
        Self {
            shape: problem.output_shape().to_vec(),
            batch: problem.batch,
            rows: problem.out_channels,
            pixels: height * width,
            width,
            cols: stretched.cols,
            image: problem.in_channels * stretched.channel_stride(),
            scale: 1,
            out_image: problem.out_channels * height * width,
            out_row: height * width,
            out_pixel: 1,
        }
    }

    /// The largest offset from which the last pixel is still inside the image.
    fn limit(&self) -> usize {
        let last = (self.pixels / self.width - 1) * self.cols + self.width - 1;
        self.image.saturating_sub(last + 1)
    }

    /// The tiles of `items` pixels that cover groups of `sub_batch` images, and what a kernel that
    /// walks them is told.
    ///
    /// # Errors
    /// A sentence that says why there is nothing to convolve, or too much.
    pub(crate) fn arguments(
        &self,
        nnz: usize,
        sub_batch: usize,
        items: usize,
    ) -> Result<(usize, ConvShapeLaunch), String> {
        if self.image == 0 {
            return Err("an input without channels has nothing to convolve".to_string());
        }
        let limit = u32::try_from(self.limit())
            .map_err(|_| format!("an image of {} elements exceeds 32-bit offsets", self.image))?;
        let total = self.batch.div_ceil(sub_batch) * self.pixels;
        let tiles = total.div_ceil(items);
        let shape = ConvShapeLaunch::new(
            nnz,
            self.rows,
            total,
            tiles,
            self.pixels,
            self.width,
            self.cols,
            self.batch,
            self.image,
            self.scale as u32,
            limit,
            self.out_image,
            self.out_row,
            self.out_pixel,
        );
        Ok((tiles, shape))
    }
}

/// Runs one kernel on an input that is stretched already.
///
/// # Errors
/// The rule that its tile breaks.
pub(crate) fn launch(
    input: CubeTensor,
    entries: Entries,
    epilogue: Epilogue,
    layout: &Layout,
    kernel: ConvKernel,
) -> Result<CubeTensor, String> {
    match kernel {
        ConvKernel::Entries(tile) => single(input, entries, epilogue, layout, tile),
        ConvKernel::Panels(tile) => panels::plain(input, entries, epilogue, layout, tile),
        ConvKernel::MatrixUnits(tile) => panels::matrix(input, entries, epilogue, layout, tile),
    }
}

fn single(
    input: CubeTensor,
    entries: Entries,
    epilogue: Epilogue,
    layout: &Layout,
    tile: ConvTile,
) -> Result<CubeTensor, String> {
    let elem = float_elem(input.dtype);
    let output = empty_like(&input, layout.shape.clone());
    if output.meta.num_elements() == 0 {
        return Ok(output);
    }
    let client = output.client.clone();
    tile.check(layout.batch, &client.properties().hardware)?;
    let (tiles, shape) = layout.arguments(entries.nnz(), tile.sub_batch, tile.items())?;
    let address = address_type([&input, &entries.values, &output]);
    // SAFETY: rows, items and images are below their counts, entries between row pointers that are
    // cut to the number of entries, and offsets at most `limit`, from where the last pixel of the
    // last image is the last element of the input. Every tensor has the length that the layout
    // says, checked by the callers.
    unsafe {
        sparse_conv_kernel::launch_unchecked(
            &client,
            grid(&client, tiles * layout.rows),
            CubeDim::new_1d(tile.units as u32),
            address,
            input.into_buffer_arg(),
            entries.values.into_buffer_arg(),
            entries.indices.into_buffer_arg(),
            entries.row_ptr.into_buffer_arg(),
            epilogue.bias.map(|bias| bias.into_buffer_arg()).into(),
            epilogue
                .residual
                .map(|residual| residual.into_buffer_arg())
                .into(),
            output.clone().into_buffer_arg(),
            shape,
            tile,
            epilogue.relu,
            elem,
        );
    }
    Ok(output)
}
