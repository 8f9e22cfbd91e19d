use burn_sparse::WeightShape;
use serde::{Deserialize, Serialize};

use super::{DecomposeError, Ranks, Spectra, evbmf_rank};

/// How the ranks of a layer are found.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum RankRule {
    /// These, or as many as the layer has.
    Fixed(Ranks),
    /// The smallest that keep this part of the squared norm for certain: each mode may discard half of
    /// what may go, so that the error of the HOSVD stays below `(1 − part) · ‖K‖²`.
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
}

impl RankChoice {
    /// This rule, ranks as they come.
    pub fn new(rule: RankRule) -> Self {
        Self {
            rule,
            multiple: 1,
            least: 1,
        }
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

    /// The ranks of a layer.
    ///
    /// # Errors
    /// [`DecomposeError::Rank`] for fixed ranks of 0, [`DecomposeError::Setting`] for a part of the energy
    /// outside `(0, 1]` and for multiples of 0.
    pub fn ranks(&self, spectra: &Spectra) -> Result<Ranks, DecomposeError> {
        let shape = spectra.shape();
        let fixed = self.fixed(shape)?;
        let found = match self.rule {
            RankRule::Fixed(ranks) => fixed.unwrap_or(ranks),
            RankRule::Energy(part) => {
                if !(part > 0.0 && part <= 1.0) {
                    return Err(DecomposeError::Setting {
                        name: "the part of the energy",
                        value: part,
                        expected: "a number above 0 and at most 1",
                    });
                }
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
        Ok(self.rounded(found, shape))
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
        // Zero is a mistake; too many is the same as all.
        let all = Ranks::new(shape.rows, shape.channels);
        ranks.min(all).check(shape)?;
        Ok(Some(self.rounded(ranks, shape)))
    }

    fn rounded(&self, found: Ranks, shape: WeightShape) -> Ranks {
        let round = |rank: usize, channels: usize| {
            let rank = rank.max(self.least).min(channels);
            let up = rank.checked_next_multiple_of(self.multiple);
            up.map_or(channels, |rank| rank.min(channels))
        };
        Ranks {
            output: round(found.output, shape.rows),
            input: round(found.input, shape.channels),
        }
    }
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
