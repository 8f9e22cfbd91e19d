//! Which layers take the place of one.

use std::fmt;
use std::str::FromStr;

use burn_sparse::{ConvProblem, WeightShape};
use serde::{Deserialize, Serialize};

use super::{Cp, DecomposeError, Ranks, SpatialSvd, Tucker2};

/// Which decomposition a layer gets.
///
/// | | layers in a row | ranks | for |
/// |---|---|---|---|
/// | [`Tucker`](Self::Tucker) | 1×1, R×S, 1×1 | two | most convolutions; it is measured, fused and trained for |
/// | [`Spatial`](Self::Spatial) | R×1, 1×S | one | large kernels, and layers with few channels |
/// | [`Cp`](Self::Cp) | 1×1, R×S for each channel alone, 1×1 | one | devices with fast depthwise layers |
///
/// Kernels of one position and linear layers have one decomposition, whatever the kind: two factors by the
/// truncated SVD.
///
/// Where a kind has one rank, [`Ranks`] hold it twice, and of two that differ the smaller counts.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum FactorKind {
    /// [`Tucker2`].
    #[default]
    Tucker,
    /// [`SpatialSvd`], of 2-D convolutions. Ranks by all rules and budgets, and ADMM.
    Spatial,
    /// [`Cp`]. Fixed ranks only, and no ADMM: nothing tells what a rank leaves out before the factors are
    /// found, and what is found is no nearest point.
    Cp,
}

impl FactorKind {
    /// The name in files and messages.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tucker => "tucker",
            Self::Spatial => "spatial",
            Self::Cp => "cp",
        }
    }

    /// What it comes to for a weight of this shape: where kernels have one position, all are one.
    #[must_use]
    pub fn of(self, shape: WeightShape) -> Self {
        match shape.positions() {
            1 => Self::Tucker,
            _ => self,
        }
    }

    /// The most channels between that a weight of this shape has a use for, of kinds with one rank.
    pub(super) fn most(self, shape: WeightShape) -> Option<usize> {
        let [height, width] = shape.kernel;
        match self.of(shape) {
            Self::Tucker => None,
            Self::Spatial => Some((shape.channels * height).min(shape.rows * width)),
            Self::Cp => {
                let mut sides = [shape.rows, shape.channels, shape.positions()];
                sides.sort_unstable();
                Some(sides[0] * sides[1])
            }
        }
    }

    /// The ranks that lose nothing.
    pub fn full(self, shape: WeightShape) -> Ranks {
        self.most(shape)
            .map_or_else(|| Ranks::full(shape), |most| Ranks::new(most, most))
    }

    /// Weights of the factors. With `d` for the one rank:
    ///
    /// ```text
    /// spatial  d · (C · R + N · S)
    /// CP       d · (C + R · S + N)
    /// ```
    ///
    /// [`Ranks::parameters`] has those of Tucker.
    pub fn parameters(self, ranks: Ranks, shape: WeightShape) -> usize {
        self.macs(ranks, shape, [1; 3])
    }

    /// Multiply-adds of an image: `positions` are those of the input, those between a convolution along
    /// columns and one along rows, and those of the output.
    fn macs(self, ranks: Ranks, shape: WeightShape, positions: [usize; 3]) -> usize {
        let [inputs, between, outputs] = positions;
        let [height, width] = shape.kernel;
        let rank = ranks.output.min(ranks.input);
        match self.of(shape) {
            Self::Tucker => ranks.macs(shape, inputs, outputs),
            Self::Spatial => {
                rank * (shape.channels * height * between + shape.rows * width * outputs)
            }
            Self::Cp => {
                rank * (shape.channels * inputs + (shape.positions() + shape.rows) * outputs)
            }
        }
    }

    /// Multiply-adds of the factors in the place of a convolution of one group, all images together.
    ///
    /// ```text
    /// spatial  d · (C · R · H'W + N · S · H'W')
    /// CP       d · (C · HW + (R · S + N) · H'W')
    /// ```
    ///
    /// with `HW` positions of the input and `H'W'` of the output.
    pub fn macs_of(self, ranks: Ranks, problem: &ConvProblem) -> u64 {
        let [rows, channels] = [problem.out_channels, problem.in_channels];
        let shape = WeightShape::new(rows, channels, problem.kernel);
        let ([height, width], [down, across]) = (problem.input, problem.output());
        let positions = [height * width, down * width, down * across];
        let positions = positions.map(|count| count * problem.batch);
        self.macs(ranks, shape, positions) as u64
    }
}

impl fmt::Display for FactorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for FactorKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let all = [Self::Tucker, Self::Spatial, Self::Cp];
        let found = all.into_iter().find(|kind| kind.name() == text);
        found.ok_or_else(|| format!("`{text}` is no decomposition; expected tucker, spatial or cp"))
    }
}

/// The factors of a weight.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum LayerFactors {
    /// Of [`FactorKind::Tucker`].
    Tucker(Tucker2),
    /// Of [`FactorKind::Spatial`].
    Spatial(SpatialSvd),
    /// Of [`FactorKind::Cp`].
    Cp(Cp),
}

impl LayerFactors {
    /// Shape of the weight that was decomposed.
    pub fn shape(&self) -> WeightShape {
        match self {
            Self::Tucker(tucker) => tucker.shape(),
            Self::Spatial(spatial) => spatial.shape(),
            Self::Cp(cp) => cp.shape(),
        }
    }

    /// Their ranks; those of kinds with one hold it twice.
    pub fn ranks(&self) -> Ranks {
        let both = |rank| Ranks::new(rank, rank);
        match self {
            Self::Tucker(tucker) => tucker.ranks(),
            Self::Spatial(spatial) => both(spatial.factors().rank()),
            Self::Cp(cp) => both(cp.rank()),
        }
    }

    /// Rounds of alternation that it took; 0 for what is found at once.
    pub fn iterations(&self) -> usize {
        match self {
            Self::Tucker(tucker) => tucker.iterations(),
            Self::Spatial(_) => 0,
            Self::Cp(cp) => cp.iterations(),
        }
    }

    /// `‖K − K̂‖²`.
    pub fn squared_error(&self) -> f64 {
        match self {
            Self::Tucker(tucker) => tucker.squared_error(),
            Self::Spatial(spatial) => spatial.factors().squared_error(),
            Self::Cp(cp) => cp.squared_error(),
        }
    }

    /// `‖K‖²`.
    pub fn energy(&self) -> f64 {
        match self {
            Self::Tucker(tucker) => tucker.energy(),
            Self::Spatial(spatial) => spatial.factors().energy(),
            Self::Cp(cp) => cp.energy(),
        }
    }

    /// `‖K − K̂‖ / ‖K‖`; 0 for a weight of zeros.
    pub fn relative_error(&self) -> f64 {
        super::matrix::relative(self.squared_error(), self.energy())
    }

    /// `K̂`, row after row.
    pub fn reconstruct(&self) -> Vec<f32> {
        match self {
            Self::Tucker(tucker) => tucker.reconstruct(),
            Self::Spatial(spatial) => spatial.reconstruct(),
            Self::Cp(cp) => cp.reconstruct(),
        }
    }
}

impl From<Tucker2> for LayerFactors {
    fn from(tucker: Tucker2) -> Self {
        Self::Tucker(tucker)
    }
}

impl From<SpatialSvd> for LayerFactors {
    fn from(spatial: SpatialSvd) -> Self {
        Self::Spatial(spatial)
    }
}

impl From<Cp> for LayerFactors {
    fn from(cp: Cp) -> Self {
        Self::Cp(cp)
    }
}

/// An error for a rank that a kind with one cannot have.
pub(super) fn check_rank(
    kind: FactorKind,
    ranks: Ranks,
    shape: WeightShape,
) -> Result<(), DecomposeError> {
    let Some(max) = kind.most(shape) else {
        return ranks.check(shape);
    };
    let rank = ranks.output.min(ranks.input);
    if rank == 0 || rank > max {
        return Err(DecomposeError::Rank {
            what: "the rank",
            rank,
            max,
            shape,
        });
    }
    Ok(())
}
