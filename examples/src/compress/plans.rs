//! What is pruned how far, and which levels the rest gets, by network.

use std::fmt;
use std::str::FromStr;

use burn::module::Module;
use burn_admm::Plan;
use burn_admm::plan::ResolvedPlan;
use burn_admm::quantize::{QuantPlan, Quantization};
use burn_sparse::nn::{NamedWeight, weights};
use burn_sparse::{Budget, Sparsity};
use models::Arch;
use serde::{Deserialize, Serialize};

use crate::training::{Densities, Pattern, TrainingError};

/// Levels by pattern of parameter paths, the last that matches wins: `conv*=uniform3,fc*=uniform2`.
///
/// ```
/// use examples::compress::Levels;
///
/// let levels: Levels = "conv*=uniform3,fc*=uniform2,*.bias=symmetric6".parse()?;
/// assert_eq!(levels.to_string(), "conv*=uniform3,fc*=uniform2,*.bias=symmetric6");
/// assert!("conv*=stars".parse::<Levels>().is_err());
/// # Ok::<(), String>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Levels(Vec<(String, Quantization)>);

impl FromStr for Levels {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let rules = text.split(',').map(|rule| {
            let (pattern, levels) = rule.split_once('=').ok_or_else(|| {
                format!("`{rule}` is no rule; write layer=levels, as in fc*=uniform2")
            })?;
            let levels = levels.parse().map_err(|error| format!("{error}"))?;
            Ok((pattern.to_owned(), levels))
        });
        rules.collect::<Result<_, String>>().map(Self)
    }
}

impl fmt::Display for Levels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rules = self
            .0
            .iter()
            .map(|(pattern, levels)| format!("{pattern}={levels}"));
        f.pad(&rules.collect::<Vec<_>>().join(","))
    }
}

impl TryFrom<String> for Levels {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Levels> for String {
    fn from(levels: Levels) -> Self {
        levels.to_string()
    }
}

impl Levels {
    /// The plan for the layers of a network: a rule `fc*` is for the weights of layers of that name,
    /// and `*.bias` for the biases of all that have one.
    ///
    /// # Errors
    /// [`TrainingError::Plan`] for a pattern that cannot be read.
    pub fn plan<M: Module>(&self, model: &M) -> Result<QuantPlan, TrainingError> {
        let layers = weights(model);
        let mut plan = QuantPlan::none();
        for (pattern, levels) in &self.0 {
            if pattern == "*.bias" {
                for layer in &layers {
                    if let Some(bias) = bias_of(model, &layer.layer)? {
                        plan = plan.with_rule(bias, *levels)?;
                    }
                }
                continue;
            }
            let pattern = match pattern.as_str() {
                "*" => "**.weight".to_owned(),
                name => format!("{name}.weight"),
            };
            plan = plan.with_rule(pattern, *levels)?;
        }
        Ok(plan)
    }
}

/// The path of the bias of a layer, if it has one.
fn bias_of<M: Module>(model: &M, layer: &str) -> Result<Option<String>, TrainingError> {
    let path = format!("{layer}.bias");
    let found = Plan::dense().explain(model)?.parameter(&path).is_some();
    Ok(found.then_some(path))
}

/// [`Levels`] of a network unless others are asked for. LeNet-5 gets those of Ren et al. (2019): three
/// bits for convolutions, two for products. So do `AlexNet` and VGG-16 (five and three) and ResNet-50
/// (six).
#[must_use]
pub fn defaults(arch: Arch) -> &'static str {
    match arch {
        Arch::LeNet5 => "conv*=uniform3,fc*=uniform2,*.bias=symmetric6",
        Arch::LeNet300 => "fc*=uniform3,*.bias=symmetric6",
        Arch::AlexNet | Arch::Vgg16 => {
            "features.*=uniform5,classifier.*=uniform3,*.bias=symmetric8"
        }
        Arch::ResNet50 => "*=uniform6",
        _ => "*=uniform4",
    }
}

/// Reads weights for each that stays, for the command line.
///
/// # Errors
/// A sentence for the command line.
pub fn ratio(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if value >= 1.0 && value.is_finite() => Ok(value),
        _ => Err("expected a number of at least 1, such as 85".into()),
    }
}

/// Weights for each that a published compression of a network keeps: joint pruning and quantisation of Ren
/// et al. (2019), of LeNet-300-100 that of Han et al. (2015). Six for networks of which there is none.
#[must_use]
pub fn published_ratio(arch: Arch) -> f64 {
    match arch {
        Arch::LeNet5 => 167.0,
        Arch::LeNet300 => 12.0,
        Arch::AlexNet => 27.0,
        Arch::Vgg16 => 20.0,
        Arch::ResNet50 => 7.08,
        _ => 6.0,
    }
}

/// The plan that leaves one in `ratio` of the weights: by published densities for LeNet-5,
/// LeNet-300-100 and `AlexNet`, with those that are given instead; of other networks the first
/// convolution and the last product keep a fifth at least, and all other layers one density, unless
/// densities of all layers that are to be pruned are given. Of the hidden biases of the first two about
/// as many stay as units will.
///
/// # Errors
/// [`TrainingError::Plan`] or [`TrainingError::Settings`] for a network that is not that one.
pub fn prune_plan<M: Module>(
    arch: Arch,
    model: &M,
    ratio: f64,
    densities: &Densities,
) -> Result<Plan, TrainingError> {
    let sparsity = 1.0 - 1.0 / ratio;
    let published = match arch {
        Arch::LeNet5 => Densities::lenet(),
        Arch::LeNet300 => Densities::lenet300(),
        Arch::AlexNet => Densities::alexnet(),
        _ => Densities::default(),
    };
    let all = published.with(densities);
    if all.is_empty() {
        return ends_kept(model, sparsity);
    }
    let plan = all.plan(model, sparsity, Pattern::Unstructured)?;
    match arch {
        Arch::LeNet5 | Arch::LeNet300 => {
            let resolved = plan.resolve(model)?;
            hidden_biases(model, plan, &resolved)
        }
        _ => Ok(plan),
    }
}

/// Units of a hidden product that can be left: biases of others only move the next layer's.
fn hidden_biases<M: Module>(
    model: &M,
    mut plan: Plan,
    resolved: &ResolvedPlan,
) -> Result<Plan, TrainingError> {
    let layers = weights(model);
    let products = layers.iter().filter(|layer| layer.layer.starts_with("fc"));
    let hidden: Vec<_> = products.collect();
    for layer in hidden.iter().take(hidden.len().saturating_sub(1)) {
        let (Some(spec), Some(bias)) = (
            resolved.layer(&format!("{}.weight", layer.layer)),
            bias_of(model, &layer.layer)?,
        ) else {
            continue;
        };
        let rows = spec.view.rows();
        // Forty weights make a unit that is worth a bias.
        let keep = (spec.nnz / 40).clamp(1, rows);
        plan = plan.with_sparsity(bias, Sparsity::Unstructured(Budget::Nnz(keep)))?;
    }
    Ok(plan)
}

/// All layers but the ends at one density, such that all together have `sparsity`.
fn ends_kept<M: Module>(model: &M, sparsity: f64) -> Result<Plan, TrainingError> {
    let layers = weights(model);
    let size = |layer: &NamedWeight| layer.weight.matrix().iter().product::<usize>() as f64;
    let ends: Vec<_> = match &layers[..] {
        [first, .., last] => vec![first, last],
        one => one.iter().collect(),
    };
    let of_ends = sparsity.min(0.8);
    let all: f64 = layers.iter().map(size).sum();
    let in_ends: f64 = ends.iter().map(|layer| size(layer)).sum();
    // Where the ends alone have more weights than may stay, the others keep as many as asked for.
    let rest = (sparsity * all - of_ends * in_ends) / (all - in_ends);
    let rest = if rest < 1.0 { rest.max(0.0) } else { sparsity };
    let mut plan = Plan::new(Sparsity::unstructured(rest)?);
    for layer in ends {
        let kept = Sparsity::unstructured(of_ends)?;
        plan = plan.with_sparsity(format!("{}.weight", layer.layer), kept)?;
    }
    Ok(plan)
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use burn::tensor::Device;
    use burn_admm::Masks;
    use models::{Model, ModelConfig};

    use super::*;

    #[test]
    fn every_network_has_plans_that_fit_it() {
        let device = Device::flex();
        for (arch, ratio) in [
            (Arch::LeNet5, 167.0),
            (Arch::LeNet300, 23.0),
            (Arch::ResNet20, 6.0),
            (Arch::AlexNet, 27.0),
        ] {
            let model: Model = ModelConfig::new(arch).init(&device);
            let plan = prune_plan(arch, &model, ratio, &Densities::default())
                .unwrap()
                .resolve(&model)
                .unwrap();
            let weights = plan.layers().iter().filter(|l| l.path.ends_with("weight"));
            let nnz: usize = weights.clone().map(|layer| layer.nnz).sum();
            let all: usize = weights.map(|layer| layer.weights()).sum();
            let got = all as f64 / nnz as f64;
            assert!((got / ratio - 1.0).abs() < 0.01, "{arch}: {got}");

            let masked = Masks::project(&model, &plan)
                .unwrap()
                .attach(model)
                .unwrap();
            let levels: Levels = defaults(arch).parse().unwrap();
            let levels = levels.plan(&masked).unwrap().resolve(&masked).unwrap();
            let biases = levels.layers().iter().filter(|l| l.path.ends_with("bias"));
            let expected = match arch {
                Arch::LeNet5 => 4,
                Arch::LeNet300 => 3,
                Arch::AlexNet => 8,
                _ => 0,
            };
            assert_eq!(biases.count(), expected, "{arch}");
        }
    }

    #[test]
    fn densities_move_weights_between_layers_at_one_ratio() {
        let model: Model = ModelConfig::new(Arch::LeNet5).init(&Device::flex());
        let counts = |densities: &Densities| {
            let plan = prune_plan(Arch::LeNet5, &model, 190.0, densities).unwrap();
            let plan = plan.resolve(&model).unwrap();
            let of = |path: &str| plan.layer(path).unwrap().nnz;
            let layers = ["conv1", "conv2", "fc1", "fc2"].map(|name| of(&format!("{name}.weight")));
            (layers[0], layers.iter().sum::<usize>())
        };
        let (few, all) = counts(&Densities::default());
        let (many, same) = counts(&"conv1=0.5,fc1=0.008,fc2=0.2".parse().unwrap());
        assert!(many > 2 * few, "{many} {few}");
        assert_eq!(all, same);

        // A network without published ones takes those that it is given, and keeps the other layers.
        let model: Model = ModelConfig::new(Arch::ResNet20).init(&Device::flex());
        let one = "conv1=1".parse().unwrap();
        let plan = prune_plan(Arch::ResNet20, &model, 2.0, &one).unwrap();
        assert_eq!(plan.resolve(&model).unwrap().layers().len(), 1);
        let wrong = "conv9=0.5".parse().unwrap();
        let error = prune_plan(Arch::ResNet20, &model, 2.0, &wrong).unwrap_err();
        assert!(error.to_string().contains("no layer `conv9`"), "{error}");
    }

    #[test]
    fn rules_that_mean_nothing_are_explained() {
        for (text, says) in [
            ("fc1", "no rule"),
            ("fc1=uniform99", "1 to 16"),
            ("fc1=", "names no"),
        ] {
            let error = text.parse::<Levels>().unwrap_err();
            assert!(error.contains(says), "{text}: {error}");
        }
    }
}
