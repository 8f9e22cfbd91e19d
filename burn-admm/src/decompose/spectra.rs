use burn_sparse::WeightShape;

use super::matrix::{Mode, by_input, by_output, check, energy};
use super::tucker::{hooi, hosvd};
use super::{DecomposeError, HooiConfig, Ranks, Tucker2};
use faer::Mat;

/// Where the squared error of a truncated decomposition lies, before it has been computed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ErrorBounds {
    /// No decomposition of these ranks has a smaller one: `max(e0, e1)`.
    pub least: f64,
    /// That of the HOSVD is not larger: `e0 + e1`.
    pub most: f64,
}

/// The spectra of a weight seen from its output and from its input channels, from which decompositions
/// of any ranks are cut.
///
/// For a weight `K` of shape `[N, C, R, S]` with unfoldings `K0`: `N × (C·R·S)` and `K1`:
/// `C × (N·R·S)`, these are the eigenvalues of `K0 K0ᵀ` and `K1 K1ᵀ`: squares of singular values. With
/// `e0` and `e1` the sums of those that ranks `[D2, D1]` leave out,
///
/// ```text
/// max(e0, e1) ≤ ‖K − K̂‖² ≤ e0 + e1
/// ```
///
/// De Lathauwer, De Moor, Vandewalle: *A multilinear singular value decomposition*, 2000, property 10.
///
/// # Example
/// ```
/// use burn_admm::decompose::{HooiConfig, Ranks, Spectra};
/// use burn_sparse::WeightShape;
///
/// // Four output channels, three input channels, 3×3.
/// let shape = WeightShape::new(4, 3, [3, 3]);
/// let weights: Vec<f32> = (0..108).map(|i| ((i * i) as f32).sin()).collect();
/// let spectra = Spectra::new(&weights, shape)?;
/// let ranks = Ranks::new(2, 2);
/// let bounds = spectra.error_bounds(ranks)?;
/// let tucker = spectra.hooi(ranks, HooiConfig::default())?;
/// assert!(bounds.least <= tucker.squared_error() * 1.000001);
/// assert!(tucker.squared_error() <= bounds.most * 1.000001);
/// # Ok::<(), burn_admm::decompose::DecomposeError>(())
/// ```
#[derive(Debug, Clone)]
pub struct Spectra {
    pub(super) shape: WeightShape,
    /// `N × (C·R·S)`.
    pub(super) by_output: Mat<f64>,
    /// `C × (N·R·S)`.
    pub(super) by_input: Mat<f64>,
    pub(super) output: Mode,
    pub(super) input: Mode,
    pub(super) energy: f64,
}

/// The parts of a [`Spectra`] that tell what ranks leave out.
#[derive(Debug, Clone)]
pub(super) struct Tails {
    pub(super) shape: WeightShape,
    energy: f64,
    /// For every rank from 0, what is left out.
    output: Vec<f64>,
    input: Vec<f64>,
}

impl Tails {
    /// Of a decomposition with one rank, whose squared singular values these are.
    pub(super) fn of_one(shape: WeightShape, values: &[f64]) -> Self {
        let ranks = 0..=values.len();
        // The smallest first, so that they are not lost beside the large ones.
        let left_out = |rank: usize| values[rank..].iter().rev().sum();
        Self {
            shape,
            energy: values.iter().sum(),
            output: ranks.clone().map(left_out).collect(),
            input: ranks.map(|_| 0.0).collect(),
        }
    }

    /// `(e0 + e1) / ‖K‖²`; 0 for a weight of zeros.
    pub(super) fn discarded(&self, ranks: Ranks) -> f64 {
        if self.energy > 0.0 {
            (self.output[ranks.output] + self.input[ranks.input]) / self.energy
        } else {
            0.0
        }
    }
}

impl Spectra {
    /// Of weights row after row: output channels, input channels, kernel positions.
    ///
    /// Grouped convolutions are several weights, one for each group.
    ///
    /// # Errors
    /// [`DecomposeError::Shape`] and [`DecomposeError::NonFinite`] for weights that do not fill the shape
    /// or are no numbers.
    pub fn new(weights: &[f32], shape: WeightShape) -> Result<Self, DecomposeError> {
        check(weights, shape)?;
        let (by_output, by_input) = (by_output(weights, shape), by_input(weights, shape));
        let energy = energy(by_output.as_ref());
        Ok(Self {
            shape,
            output: Mode::of(by_output.as_ref(), shape)?,
            input: Mode::of(by_input.as_ref(), shape)?,
            by_output,
            by_input,
            energy,
        })
    }

    /// The weight's shape.
    pub fn shape(&self) -> WeightShape {
        self.shape
    }

    /// `‖K‖²`.
    pub fn energy(&self) -> f64 {
        self.energy
    }

    /// Squared singular values seen from the output channels, falling; `N` of them.
    pub fn output_values(&self) -> &[f64] {
        &self.output.values
    }

    /// Squared singular values seen from the input channels, falling; `C` of them.
    pub fn input_values(&self) -> &[f64] {
        &self.input.values
    }

    pub(super) fn tails(&self) -> Tails {
        let of = |mode: &Mode| {
            let ranks = 0..=mode.values.len();
            ranks.map(|rank| mode.discarded(rank)).collect()
        };
        Tails {
            shape: self.shape,
            energy: self.energy,
            output: of(&self.output),
            input: of(&self.input),
        }
    }

    /// Bounds of the squared error at these ranks.
    ///
    /// # Errors
    /// [`DecomposeError::Rank`] for ranks that the weight cannot have.
    pub fn error_bounds(&self, ranks: Ranks) -> Result<ErrorBounds, DecomposeError> {
        ranks.check(self.shape)?;
        let e0 = self.output.discarded(ranks.output);
        let e1 = self.input.discarded(ranks.input);
        Ok(ErrorBounds {
            least: e0.max(e1),
            most: e0 + e1,
        })
    }

    /// The truncated higher-order SVD: each factor is the leading subspace of its own mode.
    ///
    /// # Errors
    /// [`DecomposeError::Rank`] for ranks that the weight cannot have.
    pub fn hosvd(&self, ranks: Ranks) -> Result<Tucker2, DecomposeError> {
        ranks.check(self.shape)?;
        Ok(hosvd(self, ranks))
    }

    /// The HOSVD, refined by alternating between the two factors: never worse than [`hosvd`](Self::hosvd).
    ///
    /// De Lathauwer, De Moor, Vandewalle: *On the best rank-1 and rank-(R1, …, RN) approximation of
    /// higher-order tensors*, 2000, section 4.
    ///
    /// # Errors
    /// [`DecomposeError::Rank`] for ranks that the weight cannot have, [`DecomposeError::Setting`] for a
    /// tolerance that is no number of at least 0, [`DecomposeError::NoConvergence`] of an eigensolver.
    pub fn hooi(&self, ranks: Ranks, config: HooiConfig) -> Result<Tucker2, DecomposeError> {
        ranks.check(self.shape)?;
        config.check()?;
        hooi(self, ranks, config)
    }
}
