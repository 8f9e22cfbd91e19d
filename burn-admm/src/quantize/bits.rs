//! How many bits each layer needs.

use burn::module::Module;
use serde::Serialize;

use super::{QuantPlan, Quantization, QuantizeError};
use crate::fold;
use crate::plan::PlanError;
use crate::table::Table;

/// What must not be exceeded.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum BitBudget {
    /// Accuracy that may be lost against the network as it was given, as a fraction: 0.005 is half a
    /// point. The fewest bytes win.
    Lost(f64),
    /// Bytes of all codes. The highest accuracy wins.
    Bytes(u64),
}

/// Bits of one layer.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct LayerBits {
    /// The parameter.
    pub path: String,
    /// Weights that are not pruned.
    pub nnz: usize,
    /// Its levels.
    pub quantization: Quantization,
    /// Accuracy with this layer alone on levels, by bits.
    pub alone: Vec<(u8, f64)>,
}

/// What [`QuantPlan::choose_bits`] found.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct BitChoice {
    /// The layers, in traversal order.
    pub layers: Vec<LayerBits>,
    /// Accuracy of the network as it was given.
    pub before: f64,
    /// Accuracy with all layers rounded to their levels, nothing trained.
    pub after: f64,
    /// Bytes of all codes: `Σ nnz · bits / 8`, each layer rounded up.
    pub bytes: u64,
    /// Times that the network was evaluated.
    pub evaluations: usize,
}

impl BitChoice {
    /// A rule for each layer.
    ///
    /// # Errors
    /// [`PlanError::Pattern`] for the path of a parameter that is no pattern.
    pub fn plan(&self) -> Result<QuantPlan, PlanError> {
        let mut layers = self.layers.iter();
        layers.try_fold(QuantPlan::none(), |plan, layer| {
            plan.with_rule(layer.path.clone(), layer.quantization)
        })
    }
}

impl core::fmt::Display for BitChoice {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let mut table = Table::new(["layer", "nnz", "levels", "alone"]).right_aligned(&[1, 3]);
        for layer in &self.layers {
            let bits = layer.quantization.bits();
            let alone = layer.alone.iter().find(|(tried, _)| *tried == bits);
            table.row([
                layer.path.clone(),
                layer.nnz.to_string(),
                layer.quantization.to_string(),
                alone.map_or(String::new(), |(_, a)| format!("{:.2} %", 100.0 * a)),
            ]);
        }
        write!(
            f,
            "{table}{} bytes; {:.2} % before, {:.2} % after",
            self.bytes,
            100.0 * self.before,
            100.0 * self.after
        )
    }
}

/// Why no bits could be chosen.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BitsError<E> {
    /// The plan or the weights.
    #[error(transparent)]
    Quantize(#[from] QuantizeError),
    /// The evaluation failed.
    #[error("evaluating the network: {0}")]
    Evaluate(E),
    /// No bits to choose from.
    #[error("bits from {low} to {high}: {reason}")]
    Range {
        /// The fewest.
        low: u8,
        /// The most.
        high: u8,
        /// What is wrong.
        reason: &'static str,
    },
    /// A budget that no choice meets.
    #[error("{asked} cannot be met; the nearest is {nearest}")]
    Unreachable {
        /// What was asked for.
        asked: String,
        /// What there is.
        nearest: String,
    },
}

fn bytes(nnz: usize, bits: u8) -> u64 {
    (nnz as u64 * u64::from(bits)).div_ceil(8)
}

struct Search<'a, M, F> {
    model: &'a M,
    evaluate: F,
    evaluations: usize,
}

impl<M: Module, E, F: FnMut(&M) -> Result<f64, E>> Search<'_, M, F> {
    fn accuracy(&mut self, layers: &[(&str, Quantization)]) -> Result<f64, BitsError<E>> {
        let mut plan = QuantPlan::none();
        for (path, quantization) in layers {
            plan = plan
                .with_rule(*path, *quantization)
                .map_err(QuantizeError::from)?;
        }
        let rounded = if layers.is_empty() {
            self.model.clone()
        } else {
            fold(plan.attach(self.model.clone())?)
        };
        self.evaluations += 1;
        (self.evaluate)(&rounded).map_err(BitsError::Evaluate)
    }
}

impl QuantPlan {
    /// Chooses the bits of each layer of this plan, between `low` and `high`, by rounding and
    /// evaluating: no training. The kinds of levels are those of the plan, its bits are no matter.
    ///
    /// First, each layer alone is rounded to every number of bits. Then all layers start with the most
    /// bits, and again and again the layer loses one whose accuracy alone falls least for the bytes it
    /// saves; after each such step the whole network is evaluated. Ren et al., "ADMM-NN" (ASPLOS 2019),
    /// section 5: bits decrease until accuracy breaks.
    ///
    /// `evaluate` gives the accuracy of a network between 0 and 1, on validation data.
    ///
    /// # Errors
    /// [`BitsError::Range`] for no bits to choose from, [`QuantizeError::Bits`] for bits that a kind does not
    /// have, before anything is evaluated; [`BitsError::Unreachable`] for a budget
    /// that cannot be met, naming the nearest; otherwise those of [`attach`](Self::attach) and of
    /// `evaluate`.
    ///
    /// # Example
    /// ```
    /// use burn::nn::LinearConfig;
    /// use burn::tensor::{Device, Distribution, Tensor};
    /// use burn_admm::quantize::{BitBudget, QuantPlan, Quantization};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let device = Device::flex();
    /// let model = vec![LinearConfig::new(16, 32).init(&device), LinearConfig::new(32, 4).init(&device)];
    /// let x = Tensor::<2>::random([64, 16], Distribution::Default, &device);
    /// let run = |m: &Vec<burn::nn::Linear>| m[1].forward(m[0].forward(x.clone())).argmax(1);
    /// let labels = run(&model);
    ///
    /// let plan = QuantPlan::new(Quantization::uniform(8)?);
    /// let choice = plan.choose_bits(&model, [2, 8], BitBudget::Lost(0.05), |model| {
    ///     let right = run(model).equal(labels.clone()).int().sum();
    ///     Ok::<_, std::convert::Infallible>(f64::from(right.into_scalar::<i32>()) / 64.0)
    /// })?;
    /// println!("{choice}");
    /// assert!(choice.after >= 0.95 && choice.bytes < (16 * 32 + 32 * 4));
    /// # Ok(())
    /// # }
    /// ```
    pub fn choose_bits<M: Module, E>(
        &self,
        model: &M,
        [low, high]: [u8; 2],
        budget: BitBudget,
        evaluate: impl FnMut(&M) -> Result<f64, E>,
    ) -> Result<BitChoice, BitsError<E>> {
        if low > high {
            let reason = "there are none";
            return Err(BitsError::Range { low, high, reason });
        }
        self.clone().with_bits(high)?;
        let resolved = self.clone().with_bits(low)?.resolve(model)?;
        let mut search = Search {
            model,
            evaluate,
            evaluations: 0,
        };
        let before = search.accuracy(&[])?;
        let mut layers = Vec::new();
        for spec in resolved.layers() {
            let Some(quantization) = spec.quantization else {
                continue;
            };
            let mut alone = Vec::new();
            for bits in low..=high {
                let rounded = quantization.with_bits(bits)?;
                alone.push((bits, search.accuracy(&[(&spec.path, rounded)])?));
            }
            layers.push(LayerBits {
                path: spec.path.clone(),
                nnz: spec.nnz,
                quantization: quantization.with_bits(high)?,
                alone,
            });
        }

        let (mut after, mut size) = (search.all(&layers)?, total(&layers));
        let met = |after: f64, size: u64| match budget {
            BitBudget::Lost(lost) => before - after <= lost,
            BitBudget::Bytes(most) => size <= most,
        };
        let unreachable = |asked, nearest| Err(BitsError::Unreachable { asked, nearest });
        if let BitBudget::Lost(lost) = budget
            && !met(after, size)
        {
            return unreachable(
                format!("a loss of {:.2} points", 100.0 * lost),
                format!(
                    "{:.2} points with {high} bits everywhere",
                    100.0 * (before - after)
                ),
            );
        }
        // Layers whose next bit broke the accuracy.
        let mut stuck = vec![false; layers.len()];
        while !(matches!(budget, BitBudget::Bytes(_)) && met(after, size)) {
            let candidates = (0..layers.len())
                .filter(|&i| !stuck[i] && layers[i].quantization.bits() > low && layers[i].nnz > 0);
            let cost = |&i: &usize| cost_of_a_bit(&layers[i], low);
            let Some(next) = candidates.min_by(|a, b| cost(a).total_cmp(&cost(b))) else {
                break;
            };
            let kept = layers[next].quantization;
            layers[next].quantization = kept.with_bits(kept.bits() - 1)?;
            let accuracy = search.all(&layers)?;
            let fewer = total(&layers);
            if matches!(budget, BitBudget::Lost(_)) && !met(accuracy, fewer) {
                layers[next].quantization = kept;
                stuck[next] = true;
            } else {
                (after, size) = (accuracy, fewer);
            }
        }
        if let BitBudget::Bytes(most) = budget
            && !met(after, size)
        {
            let asked = format!("{most} bytes of codes");
            return unreachable(asked, format!("{size} bytes with {low} bits everywhere"));
        }
        Ok(BitChoice {
            layers,
            before,
            after,
            bytes: size,
            evaluations: search.evaluations,
        })
    }
}

impl<M: Module, E, F: FnMut(&M) -> Result<f64, E>> Search<'_, M, F> {
    fn all(&mut self, layers: &[LayerBits]) -> Result<f64, BitsError<E>> {
        let rules: Vec<(&str, Quantization)> = layers
            .iter()
            .map(|layer| (layer.path.as_str(), layer.quantization))
            .collect();
        self.accuracy(&rules)
    }
}

fn total(layers: &[LayerBits]) -> u64 {
    let of = |layer: &LayerBits| bytes(layer.nnz, layer.quantization.bits());
    layers.iter().map(of).sum()
}

/// Accuracy that one bit less costs the layer alone, for each byte that it saves.
fn cost_of_a_bit(layer: &LayerBits, low: u8) -> f64 {
    let bits = layer.quantization.bits();
    let accuracy = |bits: u8| layer.alone[usize::from(bits - low)].1;
    let saved = bytes(layer.nnz, bits) - bytes(layer.nnz, bits - 1);
    (accuracy(bits) - accuracy(bits - 1)) / (saved as f64).max(1.0)
}
