//! What the device code of all sparse convolutions shares: sizes, and where pixels lie.

use cubecl::prelude::*;

/// Sizes known at launch.
#[derive(CubeType, CubeLaunch)]
pub(crate) struct ConvShape {
    /// Stored entries and output channels.
    pub(crate) nnz: usize,
    pub(crate) rows: usize,
    /// Groups of images times output pixels: what units are assigned to.
    pub(crate) items: usize,
    /// Tiles that cover the items.
    pub(crate) tiles: usize,
    /// Output pixels of an image, and of one of its rows.
    pub(crate) pixels: usize,
    pub(crate) width: usize,
    /// Elements between two rows of the stretched input.
    pub(crate) cols: usize,
    /// Images, and elements of one stretched image.
    pub(crate) batch: usize,
    pub(crate) image: usize,
    /// What indices are multiplied by to become offsets, and the largest offset within bounds.
    pub(crate) scale: u32,
    pub(crate) limit: u32,
    /// Output elements between images, between output channels and between pixels.
    pub(crate) out_image: usize,
    pub(crate) out_row: usize,
    pub(crate) out_pixel: usize,
}

/// First image of a group of `sub_batch`. Where the batch is no multiple of it, the last group
/// reaches back instead of past the end, and so every image is computed by some group.
#[cube]
pub(crate) fn first_image(group: usize, shape: &ConvShape, #[comptime] sub_batch: usize) -> usize {
    min(group * sub_batch, shape.batch - sub_batch)
}

/// Where the pixel of an item lies in the first image of its group; units beyond the last item
/// repeat it, and store nothing.
#[cube]
pub(crate) fn place(item: usize, shape: &ConvShape, #[comptime] sub_batch: usize) -> usize {
    let item = min(item, shape.items - 1);
    let pixel = item % shape.pixels;
    first_image(item / shape.pixels, shape, sub_batch) * shape.image
        + (pixel / shape.width) * shape.cols
        + pixel % shape.width
}

/// The offset of an entry, brought into bounds.
#[cube]
pub(crate) fn offset_of(offsets: &[i32], j: usize, shape: &ConvShape) -> u32 {
    min(offsets[j] as u32 * shape.scale, shape.limit)
}
