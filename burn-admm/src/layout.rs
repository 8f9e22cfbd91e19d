//! A weight of any rank seen as a matrix of output channels.

use burn_sparse::WeightShape;
use serde::Serialize;

/// How a weight tensor is read as a matrix of `rows` output channels by `row_len` weights.
///
/// Axis `a` of the tensor counts output channels; row `r` of the matrix holds every weight whose
/// index along `a` is `r`, in storage order. For `a = 0` (convolutions) the matrix is the storage
/// itself; for `a = 1` (Burn's `Linear`, transposed convolutions) rows are gathered and scattered.
///
/// # Example
/// ```
/// use burn_admm::MatrixView;
///
/// // A linear layer with 3 inputs and 2 outputs is stored as [3, 2].
/// let view = MatrixView::new(&[3, 2], 1);
/// assert_eq!((view.rows(), view.row_len()), (2, 3));
/// assert_eq!(view.gather(&[1, 10, 2, 20, 3, 30]), [1, 2, 3, 10, 20, 30]);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct MatrixView {
    axis: usize,
    outer: usize,
    rows: usize,
    inner: usize,
    /// Height and width of the kernel that patterns of positions see.
    kernel: [usize; 2],
}

impl MatrixView {
    /// The view of a tensor of `shape` whose axis `axis` counts output channels.
    ///
    /// A scalar (rank 0) is a 1 × 1 matrix.
    ///
    /// # Panics
    /// If `axis` is not an axis of a shape of rank 1 or more.
    pub fn new(shape: &[usize], axis: usize) -> Self {
        if shape.is_empty() {
            return Self {
                axis: 0,
                outer: 1,
                rows: 1,
                inner: 1,
                kernel: [1, 1],
            };
        }
        assert!(
            axis < shape.len(),
            "axis {axis} of a tensor of shape {shape:?}"
        );
        Self {
            axis,
            outer: shape[..axis].iter().product(),
            rows: shape[axis],
            inner: shape[axis + 1..].iter().product(),
            kernel: [1, 1],
        }
    }

    /// The same view of a convolution's weight: all axes after the first two are its kernel. Patterns
    /// then tell input channels from positions.
    ///
    /// # Panics
    /// If `shape` is not the shape of this view, or its axis is not one of the first two.
    #[must_use]
    pub fn with_kernel_of(mut self, shape: &[usize]) -> Self {
        assert_eq!(
            Self::new(shape, self.axis),
            Self {
                kernel: [1, 1],
                ..self
            }
        );
        assert!(self.axis < 2, "axis {} belongs to the kernel", self.axis);
        if let [_, _, height @ .., width] = shape {
            self.kernel = [height.iter().product(), *width];
        }
        self
    }

    /// What patterns see: output channels, input channels and the kernel.
    pub fn shape(&self) -> WeightShape {
        let positions = self.kernel[0] * self.kernel[1];
        let channels = self.row_len().checked_div(positions).unwrap_or(0);
        WeightShape::new(self.rows, channels, self.kernel)
    }

    /// The axis of the tensor that counts output channels.
    pub fn axis(&self) -> usize {
        self.axis
    }

    /// Output channels.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Weights of one output channel.
    pub fn row_len(&self) -> usize {
        self.outer * self.inner
    }

    /// All weights.
    pub fn len(&self) -> usize {
        self.rows * self.row_len()
    }

    /// Whether the weight has no entry at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Storage order → row after row.
    ///
    /// # Panics
    /// If `stored` has another length than [`len`](Self::len).
    pub fn gather<T: Copy>(&self, stored: &[T]) -> Vec<T> {
        self.check(stored.len());
        if self.outer == 1 {
            return stored.to_vec();
        }
        let mut rows = Vec::with_capacity(stored.len());
        for row in 0..self.rows {
            for outer in 0..self.outer {
                let start = (outer * self.rows + row) * self.inner;
                rows.extend_from_slice(&stored[start..start + self.inner]);
            }
        }
        rows
    }

    /// Row after row → storage order: the inverse of [`gather`](Self::gather).
    ///
    /// # Panics
    /// If `rows` has another length than [`len`](Self::len).
    pub fn scatter<T: Copy>(&self, rows: &[T]) -> Vec<T> {
        self.check(rows.len());
        if self.outer == 1 {
            return rows.to_vec();
        }
        let mut stored = Vec::with_capacity(rows.len());
        for outer in 0..self.outer {
            for row in 0..self.rows {
                let start = row * self.row_len() + outer * self.inner;
                stored.extend_from_slice(&rows[start..start + self.inner]);
            }
        }
        stored
    }

    fn check(&self, len: usize) {
        assert_eq!(
            len,
            self.len(),
            "{len} weights where {} rows of {} were expected",
            self.rows,
            self.row_len()
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gather_and_scatter_are_inverse_along_every_axis() {
        for shape in [
            &[3, 4][..],
            &[5, 1],
            &[2, 3, 4],
            &[2, 3, 2, 5],
            &[7],
            &[0, 4],
            &[4, 0],
        ] {
            let data: Vec<usize> = (0..shape.iter().product()).collect();
            for axis in 0..shape.len() {
                let view = MatrixView::new(shape, axis);
                assert_eq!(view.rows(), shape[axis]);
                assert_eq!(
                    view.scatter(&view.gather(&data)),
                    data,
                    "{shape:?} axis {axis}"
                );
            }
        }
    }

    #[test]
    fn rows_hold_one_index_of_the_axis() {
        let view = MatrixView::new(&[2, 3, 2], 1);
        let data: Vec<usize> = (0..12).collect();
        assert_eq!(view.gather(&data), [0, 1, 6, 7, 2, 3, 8, 9, 4, 5, 10, 11]);
    }

    #[test]
    fn kernels_are_the_axes_after_the_channels() {
        let seen =
            |shape: &[usize], axis| MatrixView::new(shape, axis).with_kernel_of(shape).shape();
        assert_eq!(seen(&[8, 4, 3, 5], 0), WeightShape::new(8, 4, [3, 5]));
        assert_eq!(seen(&[8, 4, 3], 0), WeightShape::new(8, 4, [1, 3]));
        assert_eq!(seen(&[8, 4, 2, 3, 5], 0), WeightShape::new(8, 4, [6, 5]));
        // Transposed: input channels first.
        assert_eq!(seen(&[4, 8, 3, 3], 1), WeightShape::new(8, 4, [3, 3]));
        assert_eq!(
            MatrixView::new(&[4, 8], 1).shape(),
            WeightShape::matrix(8, 4)
        );
        assert_eq!(seen(&[8, 4, 0, 3], 0).len(), 0);
    }
}
