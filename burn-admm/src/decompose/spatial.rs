use burn_sparse::WeightShape;
use faer::Mat;

use super::matrix::check;
use super::{DecomposeError, LowRank};

/// A convolution as a vertical one and a horizontal one.
///
/// ```text
/// K[o, i, r, s] ≈ Σ_d H[o, d, s] · V[d, i, r]
///
/// vertical    R×1, C → d   V as [d, C, R, 1], with the vertical stride and padding
/// horizontal  1×S, d → N   H as [N, d, 1, S], with the horizontal ones and the bias
/// ```
///
/// The truncated SVD of the weight as a matrix `(C·R) × (N·S)`, so no other pair with `d` channels between
/// has a smaller squared error. Jaderberg, Vedaldi, Zisserman: *Speeding up convolutional neural networks
/// with low rank expansions*, BMVC 2014, scheme 2.
///
/// # Example
/// ```
/// use burn_admm::decompose::SpatialSvd;
/// use burn_sparse::WeightShape;
///
/// // A blur is the same vertically and horizontally: one channel between is enough.
/// let blur = [1.0, 2.0, 1.0, 2.0, 4.0, 2.0, 1.0, 2.0, 1.0];
/// let spatial = SpatialSvd::new(&blur, WeightShape::new(1, 1, [3, 3]), 1)?;
/// assert!(spatial.factors().relative_error() < 1e-6);
/// assert_eq!(spatial.vertical().len(), 3);
/// # Ok::<(), burn_admm::decompose::DecomposeError>(())
/// ```
#[derive(Debug, Clone)]
pub struct SpatialSvd {
    shape: WeightShape,
    /// `(C·R) × (N·S)`.
    factors: LowRank,
}

impl SpatialSvd {
    /// With `channels` channels between the two, of weights row after row.
    ///
    /// # Errors
    /// As [`LowRank::new`]; up to `min(C·R, N·S)` channels are possible.
    pub fn new(
        weights: &[f32],
        shape: WeightShape,
        channels: usize,
    ) -> Result<Self, DecomposeError> {
        check(weights, shape)?;
        let factors = LowRank::of(crossed(weights, shape).as_ref(), shape, channels)?;
        Ok(Self { shape, factors })
    }

    /// Squared singular values of the matrix that is cut, falling: those that so many channels leave out add up to
    /// the squared error.
    ///
    /// # Errors
    /// [`DecomposeError::Shape`] and [`DecomposeError::NonFinite`] for weights that do not fill the shape
    /// or are no numbers.
    pub fn values(weights: &[f32], shape: WeightShape) -> Result<Vec<f64>, DecomposeError> {
        check(weights, shape)?;
        LowRank::values(crossed(weights, shape).as_ref(), shape)
    }

    /// Shape of the weight that was decomposed.
    pub fn shape(&self) -> WeightShape {
        self.shape
    }

    /// Both factors as they were found: `(C·R) × d` and `d × (N·S)`.
    pub fn factors(&self) -> &LowRank {
        &self.factors
    }

    /// The first convolution, `[d, C, R, 1]`.
    pub fn vertical(&self) -> Vec<f32> {
        let (left, d) = (self.factors.left(), self.factors.rank());
        let rows = left.len() / d;
        let entry = |i: usize| left[(i % rows) * d + i / rows];
        (0..left.len()).map(entry).collect()
    }

    /// The second convolution, `[N, d, 1, S]`.
    pub fn horizontal(&self) -> Vec<f32> {
        let right = self.factors.right();
        let (d, width) = (self.factors.rank(), self.shape.kernel[1]);
        let columns = self.shape.rows * width;
        let mut weights = Vec::with_capacity(right.len());
        for o in 0..self.shape.rows {
            for channel in 0..d {
                let start = channel * columns + o * width;
                weights.extend_from_slice(&right[start..start + width]);
            }
        }
        weights
    }

    /// Multiply-adds of an image whose first convolution has `between` positions and whose second one
    /// `outputs`.
    pub fn macs(&self, between: usize, outputs: usize) -> usize {
        let [height, width] = self.shape.kernel;
        let (vertical, horizontal) = (self.shape.channels * height, self.shape.rows * width);
        self.factors.rank() * (vertical * between + horizontal * outputs)
    }

    /// The weight that both are in place of, row after row.
    pub fn reconstruct(&self) -> Vec<f32> {
        let product = self.factors.reconstruct();
        let [height, width] = self.shape.kernel;
        let columns = self.shape.rows * width;
        let mut weights = Vec::with_capacity(product.len());
        for o in 0..self.shape.rows {
            for vertical in 0..self.shape.channels * height {
                let start = vertical * columns + o * width;
                weights.extend_from_slice(&product[start..start + width]);
            }
        }
        weights
    }
}

/// `(C·R) × (N·S)`.
fn crossed(weights: &[f32], shape: WeightShape) -> Mat<f64> {
    let [height, width] = shape.kernel;
    Mat::from_fn(
        shape.channels * height,
        shape.rows * width,
        |vertical, horizontal| {
            let (i, r) = (vertical / height, vertical % height);
            let (o, s) = (horizontal / width, horizontal % width);
            f64::from(weights[((o * shape.channels + i) * height + r) * width + s])
        },
    )
}
