//! Plans by published densities: how much each layer keeps.

use burn::module::Module;
use burn_admm::{Plan, PlanError};
use burn_sparse::nn::weights;
use burn_sparse::{Budget, Sparsity};

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
    plan(model, &DENSITIES, sparsity, pattern)
}

/// The same for LeNet-300-100, with the densities of Han et al. (2015).
///
/// # Errors
/// [`TrainingError::Settings`] for a network without these three layers.
pub fn lenet300_plan<M: Module>(
    model: &M,
    sparsity: f64,
    pattern: Pattern,
) -> Result<Plan, TrainingError> {
    plan(model, &DENSITIES_300, sparsity, pattern)
}

/// The same for `AlexNet`, with the densities of Zhang et al. (2018).
///
/// # Errors
/// [`TrainingError::Settings`] for a network without these eight layers.
pub fn alexnet_plan<M: Module>(
    model: &M,
    sparsity: f64,
    pattern: Pattern,
) -> Result<Plan, TrainingError> {
    plan(model, &DENSITIES_ALEXNET, sparsity, pattern)
}

fn plan<M: Module>(
    model: &M,
    densities: &[(&str, f64)],
    sparsity: f64,
    pattern: Pattern,
) -> Result<Plan, TrainingError> {
    let layers = weights(model);
    // The network may be part of another module, whose field then stands before the name.
    let find = |name: &str| {
        let inside = format!(".{name}");
        layers
            .iter()
            .find(|layer| layer.layer == name || layer.layer.ends_with(&inside))
    };
    let size = |name| find(name).map_or(0, |layer| layer.weight.matrix().iter().product());
    let sizes: Vec<usize> = densities.iter().map(|(name, _)| size(name)).collect();
    if let Some(i) = sizes.iter().position(|&size| size == 0) {
        let names: Vec<&str> = densities.iter().map(|(name, _)| *name).collect();
        return Err(TrainingError::Settings(format!(
            "the network has no layer `{}`; this plan is for one of {}",
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
}
