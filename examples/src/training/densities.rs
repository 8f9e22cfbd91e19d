//! Plans by densities, published or given: how much each layer keeps.

use std::fmt;
use std::str::FromStr;

use burn::module::Module;
use burn_admm::{Plan, PlanError};
use burn_sparse::nn::{NamedWeight, weights};
use burn_sparse::{Budget, Sparsity};
use serde::{Deserialize, Serialize};

use super::{Pattern, TrainingError};

/// Layer densities of the network pruned 71 times in Zhang et al. (2018), the first
/// convolution, which sees the image, keeps most, and the large product next to nothing.
const DENSITIES: [(&str, f64); 4] = [
    ("conv1", 0.20),
    ("conv2", 0.08),
    ("fc1", 0.009),
    ("fc2", 0.07),
];

/// Densities of LeNet-300-100 in Han et al. (2015), table 4.
const DENSITIES_300: [(&str, f64); 3] = [("fc1", 0.08), ("fc2", 0.09), ("fc3", 0.26)];

/// Layer densities of the `AlexNet` pruned 21 times in Zhang et al. (2018).
const DENSITIES_ALEXNET: [(&str, f64); 8] = [
    ("features.0", 0.81),
    ("features.3", 0.20),
    ("features.6", 0.19),
    ("features.8", 0.20),
    ("features.10", 0.20),
    ("classifier.1", 0.028),
    ("classifier.4", 0.059),
    ("classifier.6", 0.093),
];

/// Densities of layers relative to each other: `conv1=0.3,fc1=0.01`. A common factor gives the ratio that
/// is asked for.
///
/// `erk` stands for all layers that are not named. A layer with `o × i` channels and kernels of `h × w` then has
/// the density `(o + i + h + w) / (o · i · h · w)`: wide layers become much sparser than narrow ones, which have
/// less to spare. Named densities are on the same scale: with 1 a layer stays whole. It is the *Erdős–Rényi kernel* of Evci et al., *Rigging the lottery: making all tickets
/// winners*, ICML 2020, section 3.
///
/// ```
/// use examples::training::Densities;
///
/// let densities: Densities = "conv1=0.3,fc1=0.01".parse()?;
/// assert_eq!(densities.to_string(), "conv1=0.3,fc1=0.01");
/// assert!("conv1=none".parse::<Densities>().is_err());
/// let all: Densities = "erk,fc=0.02".parse()?;
/// assert_eq!(all.to_string(), "erk,fc=0.02");
/// # Ok::<(), String>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Densities {
    layers: Vec<(String, f64)>,
    /// Whether layers that are not named have densities by their shape.
    erk: bool,
}

impl Densities {
    /// Those of a publication.
    fn published(densities: &[(&str, f64)]) -> Self {
        Self {
            layers: densities.iter().map(|&(n, d)| (n.to_owned(), d)).collect(),
            erk: false,
        }
    }

    /// That of Zhang et al. (2018) for LeNet-5.
    #[must_use]
    pub fn lenet() -> Self {
        Self::published(&DENSITIES)
    }

    /// That of Han et al. (2015) for LeNet-300-100.
    #[must_use]
    pub fn lenet300() -> Self {
        Self::published(&DENSITIES_300)
    }

    /// That of Zhang et al. (2018) for `AlexNet`.
    #[must_use]
    pub fn alexnet() -> Self {
        Self::published(&DENSITIES_ALEXNET)
    }

    /// Whether no layer is named, nor all of them.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.layers.is_empty() && !self.erk
    }

    /// These with the densities of the layers that `other` names instead of their own, or `other` alone if it
    /// has densities for all layers.
    #[must_use]
    pub fn with(mut self, other: &Self) -> Self {
        if other.erk {
            return other.clone();
        }
        for (name, density) in &other.layers {
            match self.layers.iter_mut().find(|(own, _)| own == name) {
                Some((_, own)) => *own = *density,
                None => self.layers.push((name.clone(), *density)),
            }
        }
        self
    }

    /// The plan that leaves `1 - sparsity` of the weights of these layers, unstructured to the very
    /// weight, row-balanced to the nearest whole number per output channel.
    ///
    /// # Errors
    /// [`TrainingError::Settings`] for a network without one of these layers.
    pub fn plan<M: Module>(
        &self,
        model: &M,
        sparsity: f64,
        pattern: Pattern,
    ) -> Result<Plan, TrainingError> {
        let mut layers = self.layers.clone();
        if self.erk {
            let named = |layer: &str| self.layers.iter().any(|(name, _)| is(layer, name));
            let rest = weights(model).into_iter();
            let rest = rest.filter(|layer| !named(&layer.layer));
            layers.extend(rest.map(|layer| (layer.layer.clone(), erk(&layer))));
        }
        plan(model, &layers, sparsity, pattern)
    }
}

/// The density of a layer by its shape, not above 1.
fn erk(layer: &NamedWeight) -> f64 {
    let shape = layer.weight.shape();
    let (sum, product) = (
        shape.iter().sum::<usize>() as f64,
        shape.iter().product::<usize>() as f64,
    );
    (sum / product).min(1.0)
}

/// Whether a layer goes by a name. The network may be part of another module, whose field then stands before it.
fn is(layer: &str, name: &str) -> bool {
    let inside = layer.strip_suffix(name);
    inside.is_some_and(|before| before.is_empty() || before.ends_with('.'))
}

impl FromStr for Densities {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let layer = |text: &str| {
            let (name, density) = text.split_once('=')?;
            let density: f64 = density.parse().ok()?;
            let fits = !name.is_empty() && density > 0.0 && density <= 1.0;
            fits.then(|| (name.to_owned(), density))
        };
        let mut all = Self::default();
        for text in text.split(',') {
            if text == "erk" {
                all.erk = true;
                continue;
            }
            let named = layer(text).ok_or_else(|| {
                format!(
                    "`{text}` is no density; write layer=part that stays, as in conv1=0.3, or erk for densities \
                     by the shapes of layers"
                )
            })?;
            all = all.with(&Self {
                layers: vec![named],
                erk: false,
            });
        }
        Ok(all)
    }
}

impl fmt::Display for Densities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let erk = self.erk.then(|| "erk".to_owned());
        let layers = self.layers.iter();
        let layers = layers.map(|(name, part)| format!("{name}={part}"));
        f.pad(&erk.into_iter().chain(layers).collect::<Vec<_>>().join(","))
    }
}

impl TryFrom<String> for Densities {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.as_str() {
            "" => Ok(Self::default()),
            text => text.parse(),
        }
    }
}

impl From<Densities> for String {
    fn from(densities: Densities) -> Self {
        densities.to_string()
    }
}

/// Weights kept of each layer, so that `keep` are kept in total: the densities above by a common
/// factor, whole layers where that exceeds 1, and the largest layer takes up the rounding.
fn budgets(sizes: &[usize], densities: &[f64], keep: usize) -> Vec<usize> {
    let mut counts = vec![0; sizes.len()];
    let mut whole = vec![false; sizes.len()];
    loop {
        let part = |which: bool| -> f64 {
            let layers = sizes.iter().zip(densities).zip(&whole);
            layers
                .filter(|(_, w)| **w == which)
                .map(|((&n, d), _)| n as f64 * if which { 1.0 } else { *d })
                .sum()
        };
        let factor = (keep as f64 - part(true)).max(0.0) / part(false).max(f64::MIN_POSITIVE);
        let mut changed = false;
        for (i, (&n, d)) in sizes.iter().zip(densities).enumerate() {
            if !whole[i] && factor * d >= 1.0 {
                (whole[i], changed) = (true, true);
            }
            counts[i] = if whole[i] {
                n
            } else {
                ((factor * d * n as f64).round() as usize).clamp(1, n)
            };
        }
        if !changed {
            break;
        }
    }
    let total: usize = counts.iter().sum();
    if let Some(largest) = (0..sizes.len()).max_by_key(|&i| (!whole[i], sizes[i])) {
        let rest = (counts[largest] + keep).saturating_sub(total);
        counts[largest] = rest.clamp(1, sizes[largest]);
    }
    counts
}

/// The plan that leaves `1 - sparsity` of all weights of LeNet-5, unstructured to the very weight,
/// row-balanced to the nearest whole number per output channel.
///
/// # Errors
/// [`TrainingError::Settings`] for a network without these four layers.
pub fn lenet_plan<M: Module>(
    model: &M,
    sparsity: f64,
    pattern: Pattern,
) -> Result<Plan, TrainingError> {
    Densities::lenet().plan(model, sparsity, pattern)
}

fn plan<M: Module>(
    model: &M,
    densities: &[(String, f64)],
    sparsity: f64,
    pattern: Pattern,
) -> Result<Plan, TrainingError> {
    let layers = weights(model);
    let find = |name: &str| layers.iter().find(|layer| is(&layer.layer, name));
    let size = |name| find(name).map_or(0, |layer| layer.weight.matrix().iter().product());
    let sizes: Vec<usize> = densities.iter().map(|(name, _)| size(name)).collect();
    if let Some(i) = sizes.iter().position(|&size| size == 0) {
        let names: Vec<&str> = densities.iter().map(|(name, _)| name.as_str()).collect();
        return Err(TrainingError::Settings(format!(
            "the network has no layer `{}`; these densities are for one of {}",
            names[i],
            names.join(", ")
        )));
    }
    let total: usize = sizes.iter().sum();
    let keep = ((1.0 - sparsity) * total as f64).round() as usize;
    let shares: Vec<f64> = densities.iter().map(|(_, density)| *density).collect();
    let counts = budgets(&sizes, &shares, keep);
    let mut plan = Plan::dense();
    for (i, (name, _)) in densities.iter().enumerate() {
        let sparsity = match pattern {
            Pattern::Unstructured => Sparsity::Unstructured(Budget::Nnz(counts[i])),
            Pattern::RowBalanced => {
                Sparsity::row_balanced(1.0 - counts[i] as f64 / sizes[i] as f64)?
            }
        };
        if let Some(layer) = find(name) {
            plan = with(plan, &layer.layer, sparsity)?;
        }
    }
    Ok(plan)
}

fn with(plan: Plan, layer: &str, sparsity: Sparsity) -> Result<Plan, PlanError> {
    // Without wildcards, so that it holds for the first convolution and the last product too.
    plan.with_sparsity(format!("{layer}.weight"), sparsity)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_that_are_named_replace_the_published_ones() {
        let given: Densities = "conv1=0.5,extra=1".parse().unwrap();
        let all = Densities::lenet().with(&given);
        let text = "conv1=0.5,conv2=0.08,fc1=0.009,fc2=0.07,extra=1";
        assert_eq!(all.to_string(), text);
        let shapes: Densities = "fc2=1,erk".parse().unwrap();
        assert_eq!(Densities::lenet().with(&shapes).to_string(), "erk,fc2=1");
        for wrong in [
            "",
            "conv1",
            "=0.5",
            "conv1=0",
            "conv1=-1",
            "conv1=NaN",
            "conv1=2",
        ] {
            assert!(wrong.parse::<Densities>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn budgets_add_up_and_no_layer_keeps_more_than_it_has() {
        let sizes = [500, 25_000, 400_000, 5_000];
        let densities = DENSITIES.map(|(_, d)| d);
        // The published counts themselves.
        assert_eq!(budgets(&sizes, &densities, 6_050), [100, 2_000, 3_600, 350]);
        for keep in [4, 100, 2_583, 21_525, 100_000, 300_000, 430_000, 430_500] {
            let counts = budgets(&sizes, &densities, keep);
            assert_eq!(counts.iter().sum::<usize>(), keep, "{keep}: {counts:?}");
            assert!(
                counts.iter().zip(&sizes).all(|(c, n)| c <= n && *c > 0),
                "{counts:?}"
            );
        }
    }

    #[cfg(feature = "flex")]
    #[test]
    fn the_plan_of_twenty_times_keeps_a_twentieth() {
        let device = burn::tensor::Device::flex();
        let model = models::LeNet5Config::new(10).init(&device);
        let plan = lenet_plan(&model, 0.95, Pattern::Unstructured).unwrap();
        let resolved = plan.resolve(&model).unwrap();
        assert_eq!((resolved.nnz(), resolved.layers().len()), (21_525, 4));
        let plan = lenet_plan(&model, 0.95, Pattern::RowBalanced).unwrap();
        let nnz = plan.resolve(&model).unwrap().nnz();
        assert!((20_000..23_000).contains(&nnz), "{nnz}");
        let other = models::ResNetConfig::resnet20(10).init(&device);
        assert!(lenet_plan(&other, 0.9, Pattern::Unstructured).is_err());
    }

    #[cfg(feature = "flex")]
    #[test]
    fn shapes_give_every_layer_a_density_of_which_some_are_replaced() {
        let device = burn::tensor::Device::flex();
        let model = models::ResNetConfig::resnet20(10).init(&device);
        let all = weights(&model);
        let total: usize = all
            .iter()
            .map(|l| l.weight.shape().iter().product::<usize>())
            .sum();
        let parts = |densities: &str, sparsity: f64| {
            let densities: Densities = densities.parse().unwrap();
            let plan = densities
                .plan(&model, sparsity, Pattern::Unstructured)
                .unwrap();
            let resolved = plan.resolve(&model).unwrap();
            assert_eq!(resolved.layers().len(), all.len());
            let keep = (1.0 - sparsity) * total as f64;
            assert_eq!(resolved.nnz(), keep.round() as usize);
            let layers = resolved.layers().iter();
            let part = layers.map(|l| (l.path.clone(), l.nnz as f64 / l.weights() as f64));
            part.collect::<std::collections::HashMap<_, _>>()
        };
        let erk = parts("erk", 0.9);
        // (16 + 16 + 3 + 3) / (16 * 16 * 9) against (64 + 64 + 3 + 3) / (64 * 64 * 9).
        let ratio = erk["layer1.0.conv1.weight"] / erk["layer3.1.conv1.weight"];
        assert!(
            (ratio / (38.0 * 16.0 / 134.0) - 1.0).abs() < 0.01,
            "{ratio}"
        );
        let replaced = parts("layer3.1.conv1=1,erk", 0.5);
        assert_eq!(replaced["layer3.1.conv1.weight"], 1.0);
        let half = parts("erk", 0.5);
        assert_eq!(half["fc.weight"], 1.0, "whole where the factor exceeds it");
        assert!("erk".parse::<Densities>().is_ok_and(|all| !all.is_empty()));
    }
}
