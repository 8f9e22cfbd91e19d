//! Device code: one unit writes one element of the stretched input.

use cubecl::prelude::*;

/// Strides and phases, few enough in practice to compile a kernel for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct StretchLayout {
    pub(crate) stride_y: usize,
    pub(crate) stride_x: usize,
    pub(crate) phases_y: usize,
    pub(crate) phases_x: usize,
}

/// Sizes known at launch.
#[derive(CubeType, CubeLaunch)]
pub(crate) struct StretchShape {
    /// Elements to write.
    pub(crate) len: usize,
    /// Input rows and columns.
    pub(crate) height: usize,
    pub(crate) width: usize,
    /// Rows and columns of a phase plane.
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    /// Zeros above and to the left.
    pub(crate) top: usize,
    pub(crate) left: usize,
}

/// `out[.., p, q, i, j] = padded[.., i*u + p, j*v + q]`.
#[cube(launch_unchecked, address_type = "dynamic")]
pub(crate) fn stretch_kernel<E: Numeric>(
    input: &[E],
    output: &mut [E],
    shape: &StretchShape,
    #[comptime] layout: StretchLayout,
    #[define(E)] _dtype: ElemType,
) {
    let at = ABSOLUTE_POS;
    if at < shape.len {
        let col = at % shape.cols;
        let rest = at / shape.cols;
        let row = rest % shape.rows;
        let rest = rest / shape.rows;
        let q = rest % layout.phases_x;
        let rest = rest / layout.phases_x;
        let p = rest % layout.phases_y;
        let channel = rest / layout.phases_y;
        let y = row * layout.stride_y + p;
        let x = col * layout.stride_x + q;
        let inside = y >= shape.top
            && y < shape.top + shape.height
            && x >= shape.left
            && x < shape.left + shape.width;
        let mut value = E::from_int(0);
        if inside {
            let source = channel * shape.height + y - shape.top;
            value = input[source * shape.width + x - shape.left];
        }
        output[at] = value;
    }
}
