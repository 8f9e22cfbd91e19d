use burn_sparse::WeightShape;
use faer::{Mat, MatRef};

use super::DecomposeError;
use super::matrix::{Mode, by_output, check, energy, relative, to_f32};

/// A matrix as a product of two of rank `r`: `W ≈ A · B`, for linear layers and 1×1 convolutions.
///
/// ```text
/// W: N × M     A = U √Σ: N × r     B = √Σ Vᵀ: r × M
/// ```
///
/// By the truncated singular value decomposition, so no other pair of rank `r` has a smaller squared
/// error, which is the sum of the squared singular values left out (Eckart and Young, 1936). `√Σ` goes to
/// both, which leaves their weights of one size.
///
/// # Example
/// ```
/// use burn_admm::decompose::LowRank;
/// use burn_sparse::WeightShape;
///
/// // An outer product has rank one.
/// let weights: Vec<f32> = (0..12).map(|i| ((i / 4 + 1) * (i % 4 + 1)) as f32).collect();
/// let low_rank = LowRank::new(&weights, WeightShape::matrix(3, 4), 1)?;
/// assert!(low_rank.relative_error() < 1e-6);
/// assert_eq!(low_rank.parameters(), 3 + 4);
/// # Ok::<(), burn_admm::decompose::DecomposeError>(())
/// ```
#[derive(Debug, Clone)]
pub struct LowRank {
    left: Mat<f64>,
    right: Mat<f64>,
    energy: f64,
    error: f64,
}

impl LowRank {
    /// Of weights row after row. A convolution counts as `N × (C·R·S)`: an R×S convolution to `r`
    /// channels, and a 1×1 to all.
    ///
    /// # Errors
    /// [`DecomposeError::Rank`] for a rank of 0 or above the smaller side, [`DecomposeError::Shape`] and
    /// [`DecomposeError::NonFinite`] for weights that do not fill the shape or are no numbers.
    pub fn new(weights: &[f32], shape: WeightShape, rank: usize) -> Result<Self, DecomposeError> {
        check(weights, shape)?;
        Self::of(by_output(weights, shape).as_ref(), shape, rank)
    }

    pub(super) fn of(
        matrix: MatRef<'_, f64>,
        shape: WeightShape,
        rank: usize,
    ) -> Result<Self, DecomposeError> {
        let max = matrix.nrows().min(matrix.ncols());
        if rank == 0 || rank > max {
            return Err(DecomposeError::Rank {
                what: "the rank",
                rank,
                max,
                shape,
            });
        }
        let wide = matrix.nrows() <= matrix.ncols();
        let matrix = shorter(matrix);
        let mode = Mode::of(matrix, shape)?;
        let vectors = mode.leading(rank);
        let rest = vectors.transpose() * matrix;
        let energy_of = energy(matrix);
        let error = (energy_of - energy(rest.as_ref())).max(0.0);
        let root: Vec<f64> = (0..rank)
            .map(|i| rest.row(i).squared_norm_l2().powf(0.25))
            .collect();
        let short = Mat::from_fn(matrix.nrows(), rank, |i, j| vectors[(i, j)] * root[j]);
        let long = Mat::from_fn(rank, matrix.ncols(), |i, j| {
            if root[i] > 0.0 {
                rest[(i, j)] / root[i]
            } else {
                0.0
            }
        });
        let (left, right) = if wide {
            (short, long)
        } else {
            (long.transpose().to_owned(), short.transpose().to_owned())
        };
        Ok(Self {
            left,
            right,
            energy: energy_of,
            error,
        })
    }

    /// Squared singular values, falling.
    pub(super) fn values(
        matrix: MatRef<'_, f64>,
        shape: WeightShape,
    ) -> Result<Vec<f64>, DecomposeError> {
        Ok(Mode::of(shorter(matrix), shape)?.values)
    }

    /// The rank `r`.
    pub fn rank(&self) -> usize {
        self.left.ncols()
    }

    /// `A`, `[N, r]`: the layer that comes second.
    pub fn left(&self) -> Vec<f32> {
        to_f32(self.left.as_ref())
    }

    /// `B`, `[r, M]`: the layer that comes first.
    pub fn right(&self) -> Vec<f32> {
        to_f32(self.right.as_ref())
    }

    /// Weights of both factors: `r · (N + M)`. They are fewer than those of the matrix for
    /// `r < N · M / (N + M)`.
    pub fn parameters(&self) -> usize {
        self.rank() * (self.left.nrows() + self.right.ncols())
    }

    /// `‖W − A B‖²`.
    pub fn squared_error(&self) -> f64 {
        self.error
    }

    /// `‖W‖²`.
    pub fn energy(&self) -> f64 {
        self.energy
    }

    /// `‖W − A B‖ / ‖W‖`; 0 for a matrix of zeros.
    pub fn relative_error(&self) -> f64 {
        relative(self.error, self.energy)
    }

    /// `A B`, row after row.
    pub fn reconstruct(&self) -> Vec<f32> {
        to_f32((&self.left * &self.right).as_ref())
    }
}

/// The matrix seen from its shorter side: its Gram matrix is the smaller one.
fn shorter(matrix: MatRef<'_, f64>) -> MatRef<'_, f64> {
    match matrix.nrows() <= matrix.ncols() {
        true => matrix,
        false => matrix.transpose(),
    }
}
