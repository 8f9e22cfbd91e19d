use burn_sparse::WeightShape;
use faer::linalg::solvers::Solve;
use faer::{Mat, MatRef, Side};
use serde::{Deserialize, Serialize};

use super::DecomposeError;
use super::matrix::{Mode, by_input, by_output, check, energy, relative, to_f32};

/// When the alternation of [`Cp::new`] ends.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct CpConfig {
    /// Rounds at most.
    pub iterations: usize,
    /// It ends once a round lowers `‖K − K̂‖ / ‖K‖` by less than this.
    pub tolerance: f64,
}

impl Default for CpConfig {
    /// Two hundred rounds at most, and a tolerance of `1e-6`.
    fn default() -> Self {
        Self {
            iterations: 200,
            tolerance: 1e-6,
        }
    }
}

/// A convolution as a 1×1, a depthwise one and a 1×1.
///
/// ```text
/// K[o, i, r, s] ≈ Σ_a O[o, a] · D[a, r, s] · I[i, a]
///
/// reduce     1×1, C → a          Iᵀ as [a, C, 1, 1]
/// depthwise  R×S, a → a, groups  D as [a, 1, R, S], with stride, padding and dilation of the layer
/// expand     1×1, a → N          O as [N, a, 1, 1], with the bias of the layer
/// ```
///
/// The canonical polyadic decomposition of `K` as a tensor `N × C × (R·S)` by alternating least squares,
/// which lowers the error from round to round but may end beside the best one; for kernels of one
/// position it is the truncated SVD. Lebedev et al.: *Speeding-up convolutional neural networks using
/// fine-tuned CP-decomposition*, ICLR 2015; Kolda and Bader, *Tensor decompositions and applications*,
/// SIAM Review 51(3), 2009, figure 3.3.
///
/// # Example
/// ```
/// use burn_admm::decompose::{Cp, CpConfig};
/// use burn_sparse::WeightShape;
///
/// // One blur for every pair of channels, stronger or weaker.
/// let blur = [1.0, 2.0, 1.0, 2.0, 4.0, 2.0, 1.0, 2.0, 1.0];
/// let pairs = [1.0, 2.0, 2.0, 4.0, 3.0, 6.0];
/// let weights: Vec<f32> = pairs.iter().flat_map(|pair| blur.map(|w| w * pair)).collect();
/// let cp = Cp::new(&weights, WeightShape::new(3, 2, [3, 3]), 1, CpConfig::default())?;
/// assert!(cp.relative_error() < 1e-4);
/// assert_eq!(cp.parameters(), 3 + 2 + 9);
/// # Ok::<(), burn_admm::decompose::DecomposeError>(())
/// ```
#[derive(Debug, Clone)]
pub struct Cp {
    shape: WeightShape,
    /// `N × a`.
    output: Mat<f64>,
    /// `C × a`.
    input: Mat<f64>,
    /// `(R·S) × a`.
    spatial: Mat<f64>,
    energy: f64,
    error: f64,
    iterations: usize,
}

impl Cp {
    /// With `rank` channels between, of weights row after row.
    ///
    /// # Errors
    /// [`DecomposeError::Rank`] for a rank of 0 or above the product of the two smaller sides, which is
    /// always enough; [`DecomposeError::Setting`] for a tolerance that is no number of at least 0;
    /// [`DecomposeError::Shape`] and [`DecomposeError::NonFinite`] for weights that do not fill the shape
    /// or are no numbers.
    pub fn new(
        weights: &[f32],
        shape: WeightShape,
        rank: usize,
        config: CpConfig,
    ) -> Result<Self, DecomposeError> {
        check(weights, shape)?;
        if config.tolerance.is_nan() || config.tolerance < 0.0 {
            return Err(DecomposeError::Setting {
                name: "tolerance",
                value: config.tolerance,
                expected: "a number of at least 0",
            });
        }
        let mut sides = [shape.rows, shape.channels, shape.positions()];
        sides.sort_unstable();
        let max = sides[0] * sides[1];
        if rank == 0 || rank > max {
            return Err(DecomposeError::Rank {
                what: "the rank",
                rank,
                max,
                shape,
            });
        }
        let unfolded = [
            by_output(weights, shape),
            by_input(weights, shape),
            by_position(weights, shape),
        ];
        let mut cp = Self {
            shape,
            output: start(&unfolded[0], rank, shape)?,
            input: start(&unfolded[1], rank, shape)?,
            spatial: start(&unfolded[2], rank, shape)?,
            energy: energy(unfolded[0].as_ref()),
            error: f64::INFINITY,
            iterations: 0,
        };
        cp.alternate(&unfolded, config);
        if !cp.error.is_finite() {
            return Err(DecomposeError::NoConvergence { shape });
        }
        Ok(cp)
    }

    fn alternate(&mut self, unfolded: &[Mat<f64>; 3], config: CpConfig) {
        // Of the columns that the other two factors span, see `products`.
        for round in 1..=config.iterations.max(1) {
            let (output, input, spatial) = (&self.output, &self.input, &self.spatial);
            let output = solved(&unfolded[0], input, spatial, output);
            let input = solved(&unfolded[1], &output, spatial, input);
            let spatial = solved(&unfolded[2], &output, &input, spatial);
            let model = &spatial * products(&output, &input).transpose();
            let error = energy((&unfolded[2] - model).as_ref());
            let before = self.relative_error();
            if error.is_nan() || error >= self.error {
                break;
            }
            (self.output, self.input, self.spatial) = (output, input, spatial);
            (self.error, self.iterations) = (error, round);
            if before - self.relative_error() < config.tolerance {
                break;
            }
        }
        self.balance();
    }

    /// Gives the three factors of a component one norm.
    fn balance(&mut self) {
        for a in 0..self.rank() {
            let norms = [&self.output, &self.input, &self.spatial].map(|f| f.col(a).norm_l2());
            let size = norms.iter().product::<f64>().cbrt();
            let factors = [&mut self.output, &mut self.input, &mut self.spatial];
            for (factor, norm) in factors.into_iter().zip(norms) {
                let scale = if norm > 0.0 { size / norm } else { 0.0 };
                for i in 0..factor.nrows() {
                    factor[(i, a)] *= scale;
                }
            }
        }
    }

    /// Shape of the weight that was decomposed.
    pub fn shape(&self) -> WeightShape {
        self.shape
    }

    /// `‖K‖²`.
    pub fn energy(&self) -> f64 {
        self.energy
    }

    /// Channels between.
    pub fn rank(&self) -> usize {
        self.output.ncols()
    }

    /// Rounds of alternation that it took.
    pub fn iterations(&self) -> usize {
        self.iterations
    }

    /// The first convolution, `[a, C, 1, 1]`.
    pub fn reduce(&self) -> Vec<f32> {
        to_f32(self.input.transpose())
    }

    /// The depthwise convolution, `[a, 1, R, S]`.
    pub fn depthwise(&self) -> Vec<f32> {
        to_f32(self.spatial.transpose())
    }

    /// The last convolution, `[N, a, 1, 1]`.
    pub fn expand(&self) -> Vec<f32> {
        to_f32(self.output.as_ref())
    }

    /// Weights of all three: `a · (N + C + R·S)`.
    pub fn parameters(&self) -> usize {
        self.macs(1, 1)
    }

    /// Multiply-adds of an image: `a · C` for every position of its input, `a · (R·S + N)` for every
    /// position of its output.
    pub fn macs(&self, inputs: usize, outputs: usize) -> usize {
        let after = self.shape.positions() + self.shape.rows;
        self.rank() * (self.shape.channels * inputs + after * outputs)
    }

    /// `‖K − K̂‖²`.
    pub fn squared_error(&self) -> f64 {
        self.error
    }

    /// `‖K − K̂‖ / ‖K‖`; 0 for a weight of zeros.
    pub fn relative_error(&self) -> f64 {
        relative(self.error, self.energy)
    }

    /// `K̂`, row after row.
    pub fn reconstruct(&self) -> Vec<f32> {
        to_f32((&self.output * products(&self.input, &self.spatial).transpose()).as_ref())
    }
}

/// `(R·S) × (N·C)`.
fn by_position(weights: &[f32], shape: WeightShape) -> Mat<f64> {
    let positions = shape.positions();
    Mat::from_fn(positions, shape.rows * shape.channels, |k, j| {
        f64::from(weights[j * positions + k])
    })
}

/// The Khatri-Rao product: column `a` holds all products of an entry of column `a` of each.
fn products(a: &Mat<f64>, b: &Mat<f64>) -> Mat<f64> {
    let inner = b.nrows();
    Mat::from_fn(a.nrows() * inner, a.ncols(), |i, j| {
        a[(i / inner, j)] * b[(i % inner, j)]
    })
}

/// The leading subspace, and where a mode has too few directions, waves that no two columns share.
fn start(unfolded: &Mat<f64>, rank: usize, shape: WeightShape) -> Result<Mat<f64>, DecomposeError> {
    let mode = Mode::of(unfolded.as_ref(), shape)?;
    let rows = unfolded.nrows();
    let known = mode.leading(rank.min(rows));
    let scale = 1.0 / (rows as f64).sqrt();
    Ok(Mat::from_fn(rows, rank, |i, a| {
        if a < known.ncols() {
            known[(i, a)]
        } else {
            // Neither periodic in `i` nor in `a`, and the same on every machine.
            scale * ((i + 1) as f64 * (a + 1) as f64 * 0.754_877_666).sin()
        }
    }))
}

/// Least squares for one factor: `X (A ⊙ B) [(AᵀA) ∗ (BᵀB)]⁻¹`.
fn solved(unfolded: &Mat<f64>, a: &Mat<f64>, b: &Mat<f64>, before: &Mat<f64>) -> Mat<f64> {
    let right = unfolded * products(a, b);
    let (of_a, of_b) = (a.transpose() * a, b.transpose() * b);
    let rank = of_a.nrows();
    let trace: f64 = (0..rank).map(|i| of_a[(i, i)] * of_b[(i, i)]).sum();
    // Columns that have become alike make this singular; a trace of 1e-12 is below f32.
    let ridge = 1e-12 * trace.max(f64::MIN_POSITIVE) / rank as f64;
    let normal = Mat::from_fn(rank, rank, |i, j| {
        of_a[(i, j)] * of_b[(i, j)] + if i == j { ridge } else { 0.0 }
    });
    let transposed: MatRef<'_, f64> = right.transpose();
    match normal.llt(Side::Lower) {
        Ok(factored) => factored.solve(transposed).transpose().to_owned(),
        Err(_) => before.clone(),
    }
}
