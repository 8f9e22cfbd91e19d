//! The dense matrix product, by the `gemm` crate that Flex uses too.

use gemm::Parallelism;

use super::threads;

/// A matrix in a slice, at any strides.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Matrix<'a> {
    data: &'a [f32],
    rows: usize,
    cols: usize,
    row_stride: usize,
    col_stride: usize,
}

impl<'a> Matrix<'a> {
    /// Rows one after the other.
    ///
    /// # Panics
    /// If the slice has not `rows * cols` elements.
    pub(crate) fn new(data: &'a [f32], [rows, cols]: [usize; 2]) -> Self {
        assert_eq!(data.len(), rows * cols, "a {rows}x{cols} matrix");
        Self {
            data,
            rows,
            cols,
            row_stride: cols,
            col_stride: 1,
        }
    }

    pub(crate) fn transpose(self) -> Self {
        Self {
            rows: self.cols,
            cols: self.rows,
            row_stride: self.col_stride,
            col_stride: self.row_stride,
            ..self
        }
    }
}

/// `out = a b`, or `out += a b`, for a row-major `out` of `a.rows * b.cols` elements.
///
/// # Panics
/// On shapes that do not fit.
pub(crate) fn gemm(out: &mut [f32], a: Matrix<'_>, b: Matrix<'_>, accumulate: bool) {
    let (m, n, k) = (a.rows, b.cols, a.cols);
    assert_eq!(b.rows, k, "inner dimensions");
    assert_eq!(out.len(), m * n, "a {m}x{n} product");
    if m * n == 0 {
        return;
    }
    if k == 0 {
        if !accumulate {
            out.fill(0.0);
        }
        return;
    }
    let parallelism = match threads() {
        1 => Parallelism::None,
        threads => Parallelism::Rayon(threads),
    };
    // SAFETY: `out` is m x n row-major and borrowed uniquely. Strides of `a` and `b` are those of
    // a row-major matrix with as many elements as its slice, or of its transpose, as only `new`
    // and `transpose` make them; so all m x k and k x n elements lie within.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out.as_mut_ptr(),
            1,
            n as isize,
            accumulate,
            a.data.as_ptr(),
            a.col_stride as isize,
            a.row_stride as isize,
            b.data.as_ptr(),
            b.col_stride as isize,
            b.row_stride as isize,
            f32::from(u8::from(accumulate)),
            1.0,
            false,
            false,
            false,
            parallelism,
        );
    }
}
