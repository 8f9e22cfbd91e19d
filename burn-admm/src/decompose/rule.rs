use burn_sparse::WeightShape;
use serde::{Deserialize, Serialize};

use super::kind::check_rank;
use super::{DecomposeError, FactorKind, Ranks, Spectra, evbmf_rank};

/// How the ranks of a layer are found.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum RankRule {
    /// These. A layer with fewer channels is refused by its path: give it a rule of its own.
    Fixed(Ranks),
    /// The smallest that keep this part of the squared norm for certain: each mode may discard half of
    /// what may go, so that the error of the HOSVD stays below `(1 − part) · ‖K‖²`. Where there is one rank, it
    /// may discard all of it.
    Energy(f64),
    /// What stands out of noise, by [`evbmf_rank`] of both unfoldings.
    Evbmf,
}

/// A [`RankRule`], with what devices like.
///
/// Time over ranks is a staircase: a core of 33 channels takes as long as one of 48 or 64. Ranks are
/// therefore rounded **up** to a multiple, and a least rank keeps small layers alive.
///
/// # Example
/// ```
/// use burn_admm::decompose::{RankChoice, RankRule, Ranks, Spectra};
/// use burn_sparse::WeightShape;
///
/// let weights: Vec<f32> = (0..32 * 48 * 9).map(|i| (i as f32 * 0.7).sin()).collect();
/// let spectra = Spectra::new(&weights, WeightShape::new(32, 48, [3, 3]))?;
/// // Waves of one frequency have two dimensions.
/// let choice = RankChoice::new(RankRule::Energy(0.999)).with_multiple(8);
/// assert_eq!(choice.ranks(&spectra)?, Ranks::new(8, 8));
/// # Ok::<(), burn_admm::decompose::DecomposeError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct RankChoice {
    rule: RankRule,
    multiple: usize,
    least: usize,
    #[serde(default)]
    kind: FactorKind,
}

impl RankChoice {
    /// This rule, ranks as they come.
    pub fn new(rule: RankRule) -> Self {
        Self {
            rule,
            multiple: 1,
            least: 1,
            kind: FactorKind::default(),
        }
    }

    /// Factors of another kind than Tucker's.
    ///
    /// # Example
    /// ```
    /// use burn::tensor::{Device, Tensor};
    /// use burn_admm::decompose::{
    ///     FactorKind, HooiConfig, RankChoice, RankPlan, RankRule, Ranks, factor,
    /// };
    /// use burn_sparse::nn::{Conv2dConfig, FactorForm};
    ///
    /// let device = Device::flex();
    /// let conv = Conv2dConfig::new([8, 12], [5, 5]).init(&device);
    /// // Six channels between a convolution of 5×1 and one of 1×5.
    /// let choice = RankChoice::new(RankRule::Fixed(Ranks::new(6, 6)));
    /// let plan = RankPlan::new(choice.with_kind(FactorKind::Spatial));
    /// let small = factor(conv.clone(), &plan.decompose(&conv, HooiConfig::default())?)?;
    /// let factors = small.weight.factors().unwrap();
    /// assert_eq!(factors.form(), FactorForm::Spatial);
    /// assert_eq!(factors.parameters(), 6 * (8 * 5 + 12 * 5));
    /// assert_eq!(small.forward(Tensor::zeros([1, 8, 9, 9], &device)).dims(), [1, 12, 5, 5]);
    /// # Ok::<(), burn_admm::decompose::RankPlanError>(())
    /// ```
    #[must_use]
    pub fn with_kind(mut self, kind: FactorKind) -> Self {
        self.kind = kind;
        self
    }

    /// The kind of factors.
    pub fn kind(&self) -> FactorKind {
        self.kind
    }

    /// Rounds up to multiples of this; 16 and 32 suit matrix units and warps.
    #[must_use]
    pub fn with_multiple(mut self, multiple: usize) -> Self {
        self.multiple = multiple.max(1);
        self
    }

    /// No rank below this, unless there are fewer channels.
    #[must_use]
    pub fn with_least(mut self, least: usize) -> Self {
        self.least = least.max(1);
        self
    }

    /// The Tucker ranks of a layer, whatever the [kind](Self::kind).
    ///
    /// # Errors
    /// [`DecomposeError::Rank`] for fixed ranks of 0 or above the layer's, [`DecomposeError::Setting`] for a part of the energy
    /// outside `(0, 1]` and for multiples of 0.
    pub fn ranks(&self, spectra: &Spectra) -> Result<Ranks, DecomposeError> {
        let shape = spectra.shape();
        let tucker = self.with_kind(FactorKind::Tucker);
        let fixed = tucker.fixed(shape)?;
        let found = match self.rule {
            RankRule::Fixed(ranks) => fixed.unwrap_or(ranks),
            RankRule::Energy(part) => {
                check_part(part)?;
                let may_go = 0.5 * (1.0 - part) * spectra.energy();
                Ranks {
                    output: enough(spectra.output_values(), may_go),
                    input: enough(spectra.input_values(), may_go),
                }
            }
            RankRule::Evbmf => {
                let of = |values, channels: usize, others: usize| {
                    evbmf_rank(values, [channels, others * shape.positions()])
                };
                Ranks {
                    output: of(spectra.output_values(), shape.rows, shape.channels),
                    input: of(spectra.input_values(), shape.channels, shape.rows),
                }
            }
        };
        Ok(tucker.rounded(found, shape))
    }

    /// The rank of a decomposition that has one, of the squared singular values that it is cut from.
    pub(super) fn one_rank(
        &self,
        shape: WeightShape,
        values: &[f64],
    ) -> Result<Ranks, DecomposeError> {
        if let Some(fixed) = self.fixed(shape)? {
            return Ok(fixed);
        }
        let [height, width] = shape.kernel;
        let rank = match self.rule {
            RankRule::Energy(part) => {
                check_part(part)?;
                enough(values, (1.0 - part) * values.iter().sum::<f64>())
            }
            _ => evbmf_rank(values, [shape.channels * height, shape.rows * width]),
        };
        Ok(self.rounded(Ranks::new(rank, rank), shape))
    }

    /// The ranks of a rule that needs no weights for them.
    pub(super) fn fixed(&self, shape: WeightShape) -> Result<Option<Ranks>, DecomposeError> {
        // Plans come from files, too.
        if self.multiple == 0 {
            return Err(DecomposeError::Setting {
                name: "the multiple of ranks",
                value: 0.0,
                expected: "at least 1",
            });
        }
        let RankRule::Fixed(ranks) = self.rule else {
            return Ok(None);
        };
        check_rank(self.kind, ranks, shape)?;
        Ok(Some(self.rounded(ranks, shape)))
    }

    fn rounded(&self, found: Ranks, shape: WeightShape) -> Ranks {
        let round = |rank: usize, channels: usize| {
            let rank = rank.max(self.least).min(channels);
            let up = rank.checked_next_multiple_of(self.multiple);
            up.map_or(channels, |rank| rank.min(channels))
        };
        if let Some(most) = self.kind.most(shape) {
            let rank = round(found.output.min(found.input), most);
            return Ranks::new(rank, rank);
        }
        Ranks {
            output: round(found.output, shape.rows),
            input: round(found.input, shape.channels),
        }
    }
}

fn check_part(part: f64) -> Result<(), DecomposeError> {
    if part > 0.0 && part <= 1.0 {
        return Ok(());
    }
    Err(DecomposeError::Setting {
        name: "the part of the energy",
        value: part,
        expected: "a number above 0 and at most 1",
    })
}

/// The smallest rank that leaves out at most this.
fn enough(values: &[f64], may_go: f64) -> usize {
    let mut left_out = 0.0;
    let small = values.iter().rev().take_while(|value| {
        left_out += **value;
        left_out <= may_go
    });
    (values.len() - small.count()).max(1)
}
