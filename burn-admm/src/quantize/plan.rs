//! Which parameters get which levels.

use burn::module::Module;
use burn_sparse::{Budget, Sparsity};
use serde::{Deserialize, Serialize};

use super::{Quantization, QuantizeError, Scope};
use crate::admm::read_layers;
use crate::mask::Masks;
use crate::params::{Parameter, Role, parameters};
use crate::plan::{Pattern, PlanError, ResolvedLayer, ResolvedPlan, nearest};
use crate::{Admm, AdmmConfig, AdmmError};

/// Levels for the parameters whose path matches, or none.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QuantRule {
    /// Glob over dotted parameter paths.
    pub pattern: Pattern,
    /// Its levels; `null` leaves the parameters as they are.
    pub quantization: Option<Quantization>,
}

/// Which levels each parameter gets: a default and ordered rules, where **the last rule that matches
/// wins**.
///
/// The default and rules with wildcards are for the weights of convolutions, linear layers and other
/// matrices, first and last layer included, as publications count them. Vectors, normalisation layers
/// and embeddings stay as they are unless a rule names them without wildcards.
///
/// # Example
/// ```
/// use burn_admm::quantize::{QuantPlan, Quantization};
///
/// // 3 bits for convolutions and 2 for linear layers, as ADMM-NN compressed LeNet-5.
/// let plan = QuantPlan::new(Quantization::uniform(3)?)
///     .with_rule("fc*.weight", Quantization::uniform(2)?)?
///     .with_rule("fc1.bias", Quantization::symmetric(8)?)?;
/// let json = plan.to_json();
/// assert_eq!(QuantPlan::from_json(&json)?, plan);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QuantPlan {
    default: Option<Quantization>,
    #[serde(default)]
    rules: Vec<QuantRule>,
}

impl QuantPlan {
    /// The same levels for all weights.
    pub fn new(quantization: Quantization) -> Self {
        Self {
            default: Some(quantization),
            rules: Vec::new(),
        }
    }

    /// No levels but those that rules will name.
    pub fn none() -> Self {
        Self {
            default: None,
            rules: Vec::new(),
        }
    }

    /// Adds a rule after all others: it wins over them.
    ///
    /// # Errors
    /// [`PlanError::Pattern`] for a pattern that cannot be read.
    pub fn with_rule(
        mut self,
        pattern: impl Into<String>,
        quantization: impl Into<Option<Quantization>>,
    ) -> Result<Self, PlanError> {
        let pattern = Pattern::new(pattern)?;
        self.rules.push(QuantRule {
            pattern,
            quantization: quantization.into(),
        });
        Ok(self)
    }

    /// The same kinds of levels, all in so many bits.
    ///
    /// # Errors
    /// [`QuantizeError::Bits`] for bits that a kind does not have.
    pub fn with_bits(mut self, bits: u8) -> Result<Self, QuantizeError> {
        let set = |levels: Option<Quantization>| levels.map(|l| l.with_bits(bits)).transpose();
        self.default = set(self.default)?;
        for rule in &mut self.rules {
            rule.quantization = set(rule.quantization)?;
        }
        Ok(self)
    }

    /// Reads a plan from JSON.
    ///
    /// # Errors
    /// [`PlanError::Json`] for text that is not a plan.
    pub fn from_json(json: &str) -> Result<Self, PlanError> {
        Ok(serde_json::from_str(json)?)
    }

    /// The plan as indented JSON.
    ///
    /// # Panics
    /// Never: every plan can be written as JSON.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("a plan holds only strings and finite numbers")
    }

    /// The levels of one parameter.
    fn levels_of(&self, parameter: &Parameter) -> Option<Quantization> {
        let protected = parameter.weights() == 0
            || matches!(parameter.role, Role::Vector | Role::Norm | Role::Embedding);
        let rule = self.rules.iter().rev().find(|rule| {
            rule.pattern.matches(&parameter.path) && (!protected || rule.pattern.is_literal())
        });
        match rule {
            Some(rule) => rule.quantization,
            None if protected => None,
            None => self.default,
        }
    }

    /// The parameters of `model` that get levels. What counts as pruned are the zeros of an attached
    /// mask, or, without one, weights that are zero.
    ///
    /// # Errors
    /// [`PlanError::UnknownPattern`] for a rule that matches no parameter,
    /// [`QuantizeError::Codebook`] for a codebook larger than the weights that are left,
    /// [`AdmmError::NothingConstrained`] if no parameter gets levels, [`AdmmError::Read`] if a device
    /// fails.
    pub fn resolve<M: Module>(&self, model: &M) -> Result<ResolvedPlan, QuantizeError> {
        Ok(ResolvedPlan::new(self.layers(model)?.0))
    }

    /// The same, with what is kept of each, in storage order.
    pub(super) fn layers<M: Module>(
        &self,
        model: &M,
    ) -> Result<(Vec<ResolvedLayer>, Vec<Vec<bool>>), QuantizeError> {
        let parameters = parameters(model);
        for rule in &self.rules {
            if !parameters.iter().any(|p| rule.pattern.matches(&p.path)) {
                let near = nearest(rule.pattern.as_str(), &parameters);
                let pattern = rule.pattern.to_string();
                return Err(PlanError::UnknownPattern { pattern, near }.into());
            }
        }
        let chosen = parameters
            .into_iter()
            .filter_map(|parameter| Some((self.levels_of(&parameter)?, parameter)));
        let mut layers: Vec<ResolvedLayer> = chosen
            .map(|(quantization, parameter)| ResolvedLayer::with_levels(parameter, quantization))
            .collect();
        if layers.is_empty() {
            return Err(AdmmError::NothingConstrained.into());
        }
        let weights = read_layers(model, &layers)?;
        let masks = Masks::attached(model);
        let mut keeps = Vec::with_capacity(layers.len());
        for (layer, weight) in layers.iter_mut().zip(weights) {
            let keep: Vec<bool> = match masks.layer(&layer.path) {
                Some(mask) => mask.keep.clone(),
                None => weight.data.iter().map(|&w| w != 0.0).collect(),
            };
            layer.nnz = keep.iter().filter(|&&keep| keep).count();
            layer.sparsity = Sparsity::Unstructured(Budget::Nnz(layer.nnz));
            check_codebook(layer)?;
            keeps.push(keep);
        }
        Ok((layers, keeps))
    }

    /// ADMM towards these levels: `Z` is the nearest quantised weight, with levels fitted anew at
    /// every update. Train with it as with [`Admm`] for pruning, saving and resuming included.
    ///
    /// Pruned weights ([`resolve`](Self::resolve)) are zero in `Z` too; keep their mask attached while
    /// training, so that they stay so.
    ///
    /// # Errors
    /// As [`resolve`](Self::resolve) and [`Admm::new`].
    pub fn admm<M: Module>(&self, model: &M, config: AdmmConfig) -> Result<Admm, QuantizeError> {
        let (layers, keeps) = self.layers(model)?;
        Ok(Admm::on_levels(model, layers, keeps, config)?)
    }
}

/// Codebooks are for at least as many weights as they have entries.
fn check_codebook(layer: &ResolvedLayer) -> Result<(), QuantizeError> {
    let Some(quantization) = layer.quantization else {
        return Ok(());
    };
    if !matches!(quantization.kind(), super::LevelKind::Codebook) {
        return Ok(());
    }
    let (entries, values) = match quantization.scope() {
        Scope::Layer => (1 << quantization.bits(), layer.nnz),
        Scope::Channel => (1 << quantization.bits(), layer.view.row_len()),
    };
    // A layer without weights has nothing to look up.
    if values > 0 && entries > values {
        let what = layer.path.clone();
        return Err(QuantizeError::Codebook {
            what,
            entries,
            values,
        });
    }
    Ok(())
}
