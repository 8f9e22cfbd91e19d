//! The dense matrix product, by the `gemm` crate that Flex uses too.

use gemm::Parallelism;

use super::{team, threads};

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
        Self::with_stride(data, [rows, cols], cols)
    }

    /// Rows that start `stride` elements after one another.
    ///
    /// # Panics
    /// If a row is longer than that, or the slice has not `rows * stride` elements.
    pub(crate) fn with_stride(data: &'a [f32], [rows, cols]: [usize; 2], stride: usize) -> Self {
        assert!(cols <= stride, "rows of {cols} every {stride}");
        assert_eq!(data.len(), rows * stride, "a {rows}x{stride} matrix");
        Self {
            data,
            rows,
            cols,
            row_stride: stride,
            col_stride: 1,
        }
    }

    /// Columns `start..end`.
    fn columns(self, start: usize, end: usize) -> Self {
        Self {
            data: &self.data[start * self.col_stride..],
            cols: end - start,
            ..self
        }
    }

    /// Rows `start..end`.
    fn rows(self, start: usize, end: usize) -> Self {
        self.transpose().columns(start, end).transpose()
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

/// Where a product goes: row-major, rows `stride` elements after one another.
#[derive(Debug)]
pub(crate) struct Output<'a> {
    data: &'a mut [f32],
    stride: usize,
}

impl<'a> Output<'a> {
    /// Rows one after the other.
    pub(crate) fn new(data: &'a mut [f32], cols: usize) -> Self {
        Self { data, stride: cols }
    }

    /// Rows that start `stride` elements after one another.
    pub(crate) fn with_stride(data: &'a mut [f32], stride: usize) -> Self {
        Self { data, stride }
    }
}

/// Length of the parts of a long inner dimension; each part is a task.
const PART: usize = 512;
/// Elements of a result up to which the inner dimension is split: more, and there are enough of them
/// to share out.
const SMALL: usize = 1 << 16;

/// `out = a b`, or `out += a b`.
///
/// Results depend on the shapes alone, not on the number of threads.
///
/// # Panics
/// On shapes that do not fit.
pub(crate) fn gemm(out: Output<'_>, a: Matrix<'_>, b: Matrix<'_>, accumulate: bool) {
    let (m, n, k) = (a.rows, b.cols, a.cols);
    assert_eq!(b.rows, k, "inner dimensions");
    assert!(
        n <= out.stride || m * n == 0,
        "rows of {n} every {}",
        out.stride
    );
    assert_eq!(out.data.len(), m * out.stride, "a {m}x{n} product");
    if m * n == 0 {
        return;
    }
    if k == 0 {
        if !accumulate {
            out.data.fill(0.0);
        }
        return;
    }
    if k < 2 * PART || m * n > SMALL {
        return product(out, a, b, accumulate, threads());
    }
    let mut parts = vec![Vec::new(); k.div_ceil(PART)];
    team::for_each(parts.iter_mut().enumerate(), |(part, sums)| {
        let (start, end) = (part * PART, (part * PART + PART).min(k));
        let (a, b) = (a.columns(start, end), b.rows(start, end));
        *sums = vec![0.0; m * n];
        product(Output::new(sums, n), a, b, false, 1);
    });
    for (row, out) in out.data.chunks_mut(out.stride).enumerate() {
        let out = &mut out[..n];
        if !accumulate {
            out.fill(0.0);
        }
        for part in &parts {
            let part = &part[row * n..][..n];
            out.iter_mut().zip(part).for_each(|(out, sum)| *out += sum);
        }
    }
}

fn product(out: Output<'_>, a: Matrix<'_>, b: Matrix<'_>, accumulate: bool, threads: usize) {
    let (m, n, k) = (a.rows, b.cols, a.cols);
    let parallelism = match threads {
        1 => Parallelism::None,
        threads => Parallelism::Rayon(threads),
    };
    // SAFETY: `out` holds m rows of n elements at its stride, as `gemm` has checked or made it, and is
    // borrowed uniquely. Strides of `a` and `b` are those of a row-major matrix whose slice holds all
    // of its rows, of a part of its rows or columns, or of the transpose of one, as only the functions
    // of `Matrix` make them; so all m x k and k x n elements lie within.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out.data.as_mut_ptr(),
            1,
            out.stride as isize,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue;

    fn pool(threads: usize) -> rayon::ThreadPool {
        let builder = rayon::ThreadPoolBuilder::new().num_threads(threads);
        builder.build().unwrap()
    }

    #[test]
    fn long_products_match_sums_at_any_stride_and_number_of_threads() {
        for (m, n, k, pad) in [
            (3, 5, 2000, 0),
            (1, 1, 1024, 16),
            (2, 300, 1500, 7),
            (4, 3, 9, 2),
            (2, 2, 0, 1),
        ] {
            let stride = k + pad;
            let (a, b) = (
                catalogue::values(m * stride, 1),
                catalogue::values(n * stride, 2),
            );
            let out_stride = n + pad;
            let run = |threads, accumulate| {
                let mut out = vec![0.5; m * out_stride];
                pool(threads).install(|| {
                    let a = Matrix::with_stride(&a, [m, k], stride);
                    let b = Matrix::with_stride(&b, [n, k], stride).transpose();
                    gemm(Output::with_stride(&mut out, out_stride), a, b, accumulate);
                });
                out
            };
            for accumulate in [false, true] {
                let out = run(2, accumulate);
                assert_eq!(out, run(1, accumulate));
                for (row, column) in (0..m).flat_map(|row| (0..n).map(move |column| (row, column)))
                {
                    let terms = (0..k).map(|i| {
                        f64::from(a[row * stride + i]) * f64::from(b[column * stride + i])
                    });
                    let expected = terms.sum::<f64>() + if accumulate { 0.5 } else { 0.0 };
                    let off = (f64::from(out[row * out_stride + column]) - expected).abs();
                    assert!(off <= 1e-6 * (k as f64 + 1.0), "{m}x{n}x{k}: {off}");
                }
            }
        }
    }
}
