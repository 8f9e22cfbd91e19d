use burn_sparse::WeightShape;
use faer::{Mat, MatRef};
use serde::{Deserialize, Serialize};

use super::matrix::{Mode, energy, relative, swapped, to_f32};
use super::{DecomposeError, Ranks, Spectra};

/// When the alternation of [`Spectra::hooi`] ends.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct HooiConfig {
    /// Rounds at most; 0 is the HOSVD.
    pub iterations: usize,
    /// It ends once a round lowers `‖K − K̂‖ / ‖K‖` by less than this.
    pub tolerance: f64,
}

impl Default for HooiConfig {
    /// A hundred rounds at most, and a tolerance of `1e-4`, as `TensorLy` has them.
    fn default() -> Self {
        Self {
            iterations: 100,
            tolerance: 1e-4,
        }
    }
}

impl HooiConfig {
    pub(super) fn check(&self) -> Result<(), DecomposeError> {
        if self.tolerance >= 0.0 {
            return Ok(());
        }
        Err(DecomposeError::Setting {
            name: "tolerance",
            value: self.tolerance,
            expected: "a number of at least 0",
        })
    }
}

/// A weight as three convolutions in a row: 1×1 to few channels, a core, 1×1 to all channels.
///
/// ```text
/// K[o, i, r, s] ≈ Σ_a Σ_b U2[o, a] · G[a, b, r, s] · U1[i, b]
///
/// reduce  1×1, C → D1   U1ᵀ as [D1, C, 1, 1]
/// core    R×S, D1 → D2  G as [D2, D1, R, S], with stride, padding and dilation of the layer
/// expand  1×1, D2 → N   U2 as [N, D2, 1, 1], with the bias of the layer
/// ```
///
/// Nothing stands between the three: no bias, norm or activation. Stride in the first one would drop
/// positions that the core needs. Columns of `U1` and `U2` are orthonormal.
///
/// Tucker, 1966; Kim et al., *Compression of deep convolutional neural networks for fast and low power
/// mobile applications*, ICLR 2016, section 3.1; Yin et al., *Towards efficient tensor
/// decomposition-based DNN model compression with optimization framework*, CVPR 2021.
#[derive(Debug, Clone)]
pub struct Tucker2 {
    shape: WeightShape,
    ranks: Ranks,
    /// `C × D1`.
    reduce: Mat<f64>,
    /// `D2 × (D1·R·S)`.
    core: Mat<f64>,
    /// `N × D2`.
    expand: Mat<f64>,
    energy: f64,
    iterations: usize,
}

impl Tucker2 {
    /// Shape of the weight that was decomposed.
    pub fn shape(&self) -> WeightShape {
        self.shape
    }

    /// Ranks of both modes.
    pub fn ranks(&self) -> Ranks {
        self.ranks
    }

    /// Rounds of alternation that it took; 0 for a HOSVD.
    pub fn iterations(&self) -> usize {
        self.iterations
    }

    /// The first convolution, `[D1, C, 1, 1]`.
    pub fn reduce(&self) -> Vec<f32> {
        to_f32(self.reduce.transpose())
    }

    /// The core, `[D2, D1, R, S]`.
    pub fn core(&self) -> Vec<f32> {
        to_f32(self.core.as_ref())
    }

    /// The last convolution, `[N, D2, 1, 1]`.
    pub fn expand(&self) -> Vec<f32> {
        to_f32(self.expand.as_ref())
    }

    /// The factors that a layer needs, `[reduce, core, expand]`, as rows and their entries: where the first
    /// leaves all channels, or the last is square, it is multiplied into the core, and where the kernel
    /// has one position, two factors do.
    pub(super) fn chain(&self) -> [Option<Mat<f64>>; 3] {
        let positions = self.shape.positions();
        let (reduce, core, expand) = (&self.reduce, &self.core, &self.expand);
        if positions == 1 {
            return match self.ranks.input <= self.ranks.output {
                true => [
                    None,
                    Some(reduce.transpose().to_owned()),
                    Some(expand * core),
                ],
                false => [
                    None,
                    Some(core * reduce.transpose()),
                    Some(expand.to_owned()),
                ],
            };
        }
        let (mut chain, mut inner) = ([None, None, None], core.to_owned());
        if self.ranks.input == self.shape.channels {
            inner = swapped(
                (reduce * swapped(inner.as_ref(), positions)).as_ref(),
                positions,
            );
        } else {
            chain[0] = Some(reduce.transpose().to_owned());
        }
        if self.ranks.output == self.shape.rows {
            inner = expand * inner;
        } else {
            chain[2] = Some(expand.to_owned());
        }
        chain[1] = Some(inner);
        chain
    }

    /// `‖K − K̂‖²`. The factors are orthonormal, so this is `‖K‖² − ‖G‖²`.
    pub fn squared_error(&self) -> f64 {
        (self.energy - energy(self.core.as_ref())).max(0.0)
    }

    /// `‖K‖²`.
    pub fn energy(&self) -> f64 {
        self.energy
    }

    /// `‖K − K̂‖ / ‖K‖`; 0 for a weight of zeros.
    pub fn relative_error(&self) -> f64 {
        relative(self.squared_error(), self.energy)
    }

    /// `K̂`, row after row.
    pub fn reconstruct(&self) -> Vec<f32> {
        let positions = self.shape.positions();
        // D1 × (D2·R·S), then C × (D2·R·S), then back to D2 × (C·R·S).
        let inner = swapped(self.core.as_ref(), positions);
        let wide = swapped((&self.reduce * inner).as_ref(), positions);
        to_f32((&self.expand * wide).as_ref())
    }
}

/// The decomposition with these factors: the core is what the weight has in their subspaces.
fn with_factors(
    spectra: &Spectra,
    expand: MatRef<'_, f64>,
    reduce: MatRef<'_, f64>,
    iterations: usize,
) -> Tucker2 {
    let positions = spectra.shape.positions();
    let narrow = expand.transpose() * &spectra.by_output;
    let core = reduce.transpose() * swapped(narrow.as_ref(), positions);
    Tucker2 {
        shape: spectra.shape,
        ranks: Ranks::new(expand.ncols(), reduce.ncols()),
        reduce: reduce.to_owned(),
        core: swapped(core.as_ref(), positions),
        expand: expand.to_owned(),
        energy: spectra.energy,
        iterations,
    }
}

pub(super) fn hosvd(spectra: &Spectra, ranks: Ranks) -> Tucker2 {
    let expand = spectra.output.leading(ranks.output);
    with_factors(spectra, expand, spectra.input.leading(ranks.input), 0)
}

pub(super) fn hooi(
    spectra: &Spectra,
    ranks: Ranks,
    config: HooiConfig,
) -> Result<Tucker2, DecomposeError> {
    let shape = spectra.shape;
    let positions = shape.positions();
    let mut best = hosvd(spectra, ranks);
    for round in 1..=config.iterations {
        // The weight with few input channels, seen from its output channels.
        let narrow = best.reduce.transpose() * &spectra.by_input;
        let output = Mode::of(swapped(narrow.as_ref(), positions).as_ref(), shape)?;
        let expand = output.leading(ranks.output);
        // And the other way round.
        let narrow = expand.transpose() * &spectra.by_output;
        let input = Mode::of(swapped(narrow.as_ref(), positions).as_ref(), shape)?;
        let next = with_factors(spectra, expand, input.leading(ranks.input), round);
        let gain = best.relative_error() - next.relative_error();
        // Rounding can make it worse by a little, once nothing is left to gain.
        if gain > 0.0 {
            best = next;
        }
        if gain < config.tolerance {
            break;
        }
    }
    Ok(best)
}
