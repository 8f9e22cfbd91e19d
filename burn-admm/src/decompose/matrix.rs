//! Matrices in f64: unfoldings of a weight, and the subspaces that hold most of one.

use burn_sparse::WeightShape;
use faer::{Mat, MatRef, Side};

use super::DecomposeError;

/// Output channels × (input channels · positions): the weight as it is stored.
pub(super) fn by_output(weights: &[f32], shape: WeightShape) -> Mat<f64> {
    let row_len = shape.row_len();
    Mat::from_fn(shape.rows, row_len, |n, j| {
        f64::from(weights[n * row_len + j])
    })
}

/// Input channels × (output channels · positions).
pub(super) fn by_input(weights: &[f32], shape: WeightShape) -> Mat<f64> {
    let positions = shape.positions();
    let row_len = shape.row_len();
    Mat::from_fn(shape.channels, shape.rows * positions, |c, j| {
        let (n, k) = (j / positions, j % positions);
        f64::from(weights[n * row_len + c * positions + k])
    })
}

/// `a × (b · positions)` as `b × (a · positions)`.
pub(super) fn swapped(matrix: MatRef<'_, f64>, positions: usize) -> Mat<f64> {
    let inner = matrix.ncols() / positions;
    Mat::from_fn(inner, matrix.nrows() * positions, |b, j| {
        let (a, k) = (j / positions, j % positions);
        matrix[(a, b * positions + k)]
    })
}

/// `‖M‖²`.
pub(crate) fn energy(matrix: MatRef<'_, f64>) -> f64 {
    let columns = 0..matrix.ncols();
    columns.map(|j| matrix.col(j).squared_norm_l2()).sum()
}

/// The norm of an error beside that of a weight, of their squares; 0 for a weight of zeros.
pub(crate) fn relative(error: f64, energy: f64) -> f64 {
    if energy > 0.0 {
        (error / energy).sqrt()
    } else {
        0.0
    }
}

/// Row after row, rounded to f32.
pub(crate) fn to_f32(matrix: MatRef<'_, f64>) -> Vec<f32> {
    let mut values = Vec::with_capacity(matrix.nrows() * matrix.ncols());
    for i in 0..matrix.nrows() {
        values.extend((0..matrix.ncols()).map(|j| matrix[(i, j)] as f32));
    }
    values
}

/// Weights that can be decomposed: finite, and as many as the shape holds.
pub(crate) fn check(weights: &[f32], shape: WeightShape) -> Result<(), DecomposeError> {
    let WeightShape {
        rows,
        channels,
        kernel,
    } = shape;
    let len = [kernel[1], channels, rows]
        .into_iter()
        .try_fold(kernel[0], usize::checked_mul);
    if len != Some(weights.len()) || weights.is_empty() {
        let len = weights.len();
        return Err(DecomposeError::Shape { len, shape });
    }
    match weights.iter().position(|w| !w.is_finite()) {
        Some(index) => Err(DecomposeError::NonFinite {
            index,
            value: weights[index],
        }),
        None => Ok(()),
    }
}

/// All left singular vectors of a matrix, the largest first, and the squares of its singular values.
///
/// By the eigenvectors of `M Mᵀ`: its rows are few where its columns are many. Small singular values lose
/// digits in the square, but the vectors are orthonormal whatever happens, and what a projection onto
/// them keeps is counted from the projection itself.
#[derive(Debug, Clone)]
pub(crate) struct Mode {
    /// Squared singular values, falling.
    pub(crate) values: Vec<f64>,
    vectors: Mat<f64>,
}

impl Mode {
    pub(crate) fn of(
        unfolding: MatRef<'_, f64>,
        shape: WeightShape,
    ) -> Result<Self, DecomposeError> {
        let gram = unfolding * unfolding.transpose();
        let eigen = gram
            .self_adjoint_eigen(Side::Lower)
            .map_err(|_| DecomposeError::NoConvergence { shape })?;
        let (vectors, values) = (eigen.U(), eigen.S().column_vector());
        let n = gram.nrows();
        // They come rising.
        let sign: Vec<f64> = (0..n).map(|j| sign(vectors, j)).collect();
        Ok(Self {
            values: (0..n).rev().map(|j| values[j].max(0.0)).collect(),
            vectors: Mat::from_fn(n, n, |i, j| {
                let from = n - 1 - j;
                sign[from] * vectors[(i, from)]
            }),
        })
    }

    /// The first `rank` vectors, as columns.
    pub(crate) fn leading(&self, rank: usize) -> MatRef<'_, f64> {
        self.vectors.as_ref().subcols(0, rank)
    }

    /// The energy that the first `rank` vectors leave out.
    pub(crate) fn discarded(&self, rank: usize) -> f64 {
        // The smallest first, so that they are not lost beside the large ones.
        self.values[rank..].iter().rev().sum()
    }
}

/// A vector and its negative are both right: the one whose largest entry is positive is taken, so that
/// results are comparable.
fn sign(vectors: MatRef<'_, f64>, column: usize) -> f64 {
    let mut largest = 0.0_f64;
    for i in 0..vectors.nrows() {
        let value = vectors[(i, column)];
        if value.abs() > largest.abs() {
            largest = value;
        }
    }
    if largest < 0.0 { -1.0 } else { 1.0 }
}
