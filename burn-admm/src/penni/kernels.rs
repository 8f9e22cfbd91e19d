use burn_sparse::WeightShape;
use faer::Mat;

use crate::decompose::DecomposeError;
use crate::decompose::matrix::{Mode, check, energy, relative, to_f32};

/// What a layer's kernels have in common: the singular values of all its kernels, one a row.
///
/// The rows are **not centred**. Principal components of centred rows need the mean kernel beside them;
/// with the singular vectors of the rows as they are nothing has to be remembered, and `d = k²` of them
/// give every weight back.
///
/// # Example
/// ```
/// use burn_admm::penni::KernelSpectrum;
/// use burn_sparse::WeightShape;
///
/// // Twelve 2×2 kernels, all multiples of one.
/// let weights: Vec<f32> = (0..48).map(|i| (1 + i / 4) as f32 * [1.0, 2.0, -1.0, 0.5][i % 4]).collect();
/// let spectrum = KernelSpectrum::new(&weights, WeightShape::new(3, 4, [2, 2]))?;
/// assert!(spectrum.relative_error(1)? < 1e-6);
/// let shared = spectrum.decompose(1)?;
/// assert_eq!((shared.coefficients().len(), shared.basis().len()), (12, 4));
/// # Ok::<(), burn_admm::decompose::DecomposeError>(())
/// ```
#[derive(Debug, Clone)]
pub struct KernelSpectrum {
    shape: WeightShape,
    /// Positions × kernels.
    kernels: Mat<f64>,
    mode: Mode,
    energy: f64,
}

impl KernelSpectrum {
    /// Of weights row after row: output channels, input channels, kernel positions.
    ///
    /// # Errors
    /// [`DecomposeError::Shape`] and [`DecomposeError::NonFinite`] for weights that do not fill the shape
    /// or are no numbers.
    pub fn new(weights: &[f32], shape: WeightShape) -> Result<Self, DecomposeError> {
        check(weights, shape)?;
        let positions = shape.positions();
        let kernels = Mat::from_fn(positions, weights.len() / positions, |p, i| {
            f64::from(weights[i * positions + p])
        });
        Ok(Self {
            shape,
            mode: Mode::of(kernels.as_ref(), shape)?,
            energy: energy(kernels.as_ref()),
            kernels,
        })
    }

    /// The weight's shape.
    pub fn shape(&self) -> WeightShape {
        self.shape
    }

    /// `‖W‖²`.
    pub fn energy(&self) -> f64 {
        self.energy
    }

    /// Squared singular values, falling; `k²` of them.
    pub fn values(&self) -> &[f64] {
        &self.mode.values
    }

    /// `‖W − A M‖²` with `count` basis kernels: the squared singular values that are left out. No other
    /// basis of as many has a smaller one (Eckart and Young, 1936).
    ///
    /// # Errors
    /// [`DecomposeError::Rank`] for no kernel or more than `k²`.
    pub fn discarded(&self, count: usize) -> Result<f64, DecomposeError> {
        self.check(count)?;
        // A sum of nothing is -0.0, which would be printed.
        Ok(self.mode.discarded(count) + 0.0)
    }

    /// `‖W − A M‖ / ‖W‖` with `count` basis kernels; 0 for a weight of zeros.
    ///
    /// # Errors
    /// As [`discarded`](Self::discarded).
    pub fn relative_error(&self, count: usize) -> Result<f64, DecomposeError> {
        Ok(relative(self.discarded(count)?, self.energy))
    }

    /// The nearest weight with `count` basis kernels.
    ///
    /// # Errors
    /// As [`discarded`](Self::discarded).
    pub fn decompose(&self, count: usize) -> Result<SharedKernels, DecomposeError> {
        self.check(count)?;
        let vectors = self.mode.leading(count);
        let coefficients = self.kernels.transpose() * vectors;
        Ok(SharedKernels {
            shape: self.shape,
            count,
            coefficients: to_f32(coefficients.as_ref()),
            basis: to_f32(vectors.transpose()),
        })
    }

    fn check(&self, count: usize) -> Result<(), DecomposeError> {
        let max = self.shape.positions();
        if (1..=max).contains(&count) {
            return Ok(());
        }
        Err(DecomposeError::Rank {
            what: "the number of basis kernels",
            rank: count,
            max,
            shape: self.shape,
        })
    }
}

/// A weight as combinations of a few kernels that its layer shares: `W = A · M`.
///
/// ```text
/// W[o, c, ·] = Σ_b A[o, c, b] · M[b, ·]
///
/// M  d × k²        basis kernels
/// A  (N·C) × d     coefficients; as a matrix N × (C·d), column c·d + b belongs to kernel b on channel c
/// ```
///
/// A layer in this form can be run as `d` kernels on each input channel, then a sparse 1×1 convolution.
/// Kernels that no output needs are not counted: with `P` output positions, `m` pairs of channel and kernel
/// that some output uses and `nnz` coefficients that are not zero,
///
/// ```text
/// multiply-adds  (m·k² + nnz) · P     instead of  N·C·k²·P
/// ```
///
/// Li, Liu, Wu, Chen: *PENNI: pruned kernel sharing for efficient CNN inference*, ICML 2020.
#[derive(Debug, Clone, PartialEq)]
pub struct SharedKernels {
    shape: WeightShape,
    count: usize,
    coefficients: Vec<f32>,
    basis: Vec<f32>,
}

impl SharedKernels {
    /// Of `N·C·d` coefficients and `d·k²` entries of basis kernels.
    ///
    /// # Errors
    /// [`DecomposeError::Rank`] for no kernel or more than `k²`, [`DecomposeError::Shape`] for another
    /// number of entries, [`DecomposeError::NonFinite`] for entries that are no numbers.
    pub fn new(
        shape: WeightShape,
        count: usize,
        coefficients: Vec<f32>,
        basis: Vec<f32>,
    ) -> Result<Self, DecomposeError> {
        let max = shape.positions();
        if count == 0 || count > max {
            return Err(DecomposeError::Rank {
                what: "the number of basis kernels",
                rank: count,
                max,
                shape,
            });
        }
        for (entries, rows, channels) in [
            (&coefficients, shape.rows, shape.channels),
            (&basis, 1, max),
        ] {
            check(entries, WeightShape::new(rows, channels, [1, count]))?;
        }
        Ok(Self {
            shape,
            count,
            coefficients,
            basis,
        })
    }

    /// The weight's shape.
    pub fn shape(&self) -> WeightShape {
        self.shape
    }

    /// Basis kernels, `d`.
    pub fn count(&self) -> usize {
        self.count
    }

    /// `A`, `[N, C, d]`.
    pub fn coefficients(&self) -> &[f32] {
        &self.coefficients
    }

    /// `M`, `[d, k²]`.
    pub fn basis(&self) -> &[f32] {
        &self.basis
    }

    /// Coefficients that are not zero.
    pub fn nnz(&self) -> usize {
        self.coefficients.iter().filter(|&&a| a != 0.0).count()
    }

    /// Basis kernels that some coefficient uses.
    pub fn used(&self) -> usize {
        let column = |b: &usize| {
            self.coefficients
                .iter()
                .skip(*b)
                .step_by(self.count)
                .any(|&a| a != 0.0)
        };
        (0..self.count).filter(column).count()
    }

    /// Pairs of an input channel and a basis kernel that some output uses: the kernels that have to be run.
    pub fn maps(&self) -> usize {
        let columns = self.shape.channels * self.count;
        let used = |column: &usize| {
            let rows = self.coefficients.iter().skip(*column).step_by(columns);
            rows.into_iter().any(|&a| a != 0.0)
        };
        (0..columns).filter(used).count()
    }

    /// Numbers that are not zero: coefficients, and the basis kernels in use.
    pub fn parameters(&self) -> usize {
        match self.shape.positions() {
            // The only kernel of a 1×1 convolution is 1.
            1 => self.nnz(),
            positions => self.nnz() + self.used() * positions,
        }
    }

    /// Multiply-adds for each output position: `m·k² + nnz`.
    pub fn macs(&self) -> usize {
        match self.shape.positions() {
            1 => self.nnz(),
            positions => self.nnz() + self.maps() * positions,
        }
    }

    /// `A · M`, row after row.
    pub fn reconstruct(&self) -> Vec<f32> {
        let positions = self.shape.positions();
        let mut weights = Vec::with_capacity(self.shape.len());
        for row in self.coefficients.chunks_exact(self.count) {
            weights.extend((0..positions).map(|p| {
                let kernels = row.iter().zip(self.basis.chunks_exact(positions));
                let terms = kernels.map(|(&a, kernel)| f64::from(a) * f64::from(kernel[p]));
                terms.sum::<f64>() as f32
            }));
        }
        weights
    }

    /// The same weight with orthonormal basis kernels: with `Mᵀ = Q R`, `M ← Qᵀ` and `A ← A Rᵀ`.
    ///
    /// A threshold on coefficients means the same for all of them only so: a kernel twice as long has
    /// coefficients half as large.
    ///
    /// # Example
    /// ```
    /// use burn_admm::penni::SharedKernels;
    /// use burn_sparse::WeightShape;
    ///
    /// let shape = WeightShape::new(1, 1, [1, 2]);
    /// let shared = SharedKernels::new(shape, 1, vec![2.0], vec![3.0, 4.0])?;
    /// let unit = shared.orthonormal();
    /// assert!((unit.coefficients()[0] - 10.0).abs() < 1e-5);
    /// assert!((unit.basis()[0] - 0.6).abs() < 1e-6);
    /// # Ok::<(), burn_admm::decompose::DecomposeError>(())
    /// ```
    #[must_use]
    pub fn orthonormal(&self) -> Self {
        let (d, positions) = (self.count, self.shape.positions());
        let transposed = Mat::from_fn(positions, d, |p, b| {
            f64::from(self.basis[b * positions + p])
        });
        let qr = transposed.qr();
        let (q, r) = (qr.compute_thin_Q(), qr.thin_R());
        // Signs are free: coefficients keep theirs where R is diagonal.
        let sign: Vec<f64> = (0..d)
            .map(|b| if r[(b, b)] < 0.0 { -1.0 } else { 1.0 })
            .collect();
        let turn = Mat::from_fn(d, d, |i, b| if i < b { 0.0 } else { sign[b] * r[(b, i)] });
        let old = Mat::from_fn(self.coefficients.len() / d, d, |i, b| {
            f64::from(self.coefficients[i * d + b])
        });
        let basis = Mat::from_fn(d, positions, |b, p| sign[b] * q[(p, b)]);
        Self {
            coefficients: to_f32((old * turn).as_ref()),
            basis: to_f32(basis.as_ref()),
            ..*self
        }
    }

    /// The same with zeros where `pruned` says so.
    pub(super) fn without(&self, pruned: &[bool]) -> Self {
        let coefficients = self.coefficients.iter().zip(pruned);
        let coefficients = coefficients.map(|(&a, &pruned)| if pruned { 0.0 } else { a });
        Self {
            coefficients: coefficients.collect(),
            ..self.clone()
        }
    }

    /// What is left of the layer with these of its output and input channels.
    ///
    /// # Panics
    /// If an index is out of range.
    #[must_use]
    pub fn select(&self, outputs: &[usize], inputs: &[usize]) -> Self {
        let (channels, d) = (self.shape.channels, self.count);
        let mut coefficients = Vec::with_capacity(outputs.len() * inputs.len() * d);
        for &output in outputs {
            for &input in inputs {
                assert!(input < channels, "input channel {input} of {channels}");
                let at = (output * channels + input) * d;
                coefficients.extend_from_slice(&self.coefficients[at..at + d]);
            }
        }
        Self {
            shape: WeightShape::new(outputs.len(), inputs.len(), self.shape.kernel),
            count: d,
            coefficients,
            basis: self.basis.clone(),
        }
    }
}
