//! Batch norms in two numbers for each channel.

use std::collections::HashMap;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::Tensor;

/// How the derived traversal names the fields of a [`BatchNorm`](burn::nn::BatchNorm).
const CONTAINER: &str = "Struct:BatchNorm";
const FIELDS: [&str; 4] = ["gamma", "beta", "running_mean", "running_var"];

/// What each field of a batch norm becomes, by its path.
type Norms = HashMap<Vec<String>, HashMap<&'static str, Tensor<1>>>;

/// The path of the module that is visited, and which field of a batch norm it is.
#[derive(Default)]
struct Place {
    path: Vec<String>,
    field: Option<&'static str>,
}

impl Place {
    fn enter(&mut self, name: &str, container: &str) {
        let fields = FIELDS.iter().filter(|_| container == CONTAINER);
        self.field = fields.copied().find(|field| *field == name);
        self.path.push(name.to_owned());
    }

    fn exit(&mut self) {
        self.path.pop();
        self.field = None;
    }

    /// The path of the batch norm and the name of its field, if this is one.
    fn of_norm(&self) -> Option<(Vec<String>, &'static str)> {
        let field = self.field?;
        Some((self.path[..self.path.len() - 1].to_vec(), field))
    }
}

#[derive(Default)]
struct Collect {
    place: Place,
    norms: Norms,
}

impl ModuleVisitor for Collect {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.place.enter(name, container);
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.place.exit();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some((norm, field)) = self.place.of_norm() {
            let values = param.val().flatten::<1>(0, D - 1);
            self.norms.entry(norm).or_default().insert(field, values);
        }
    }
}

struct Replace {
    place: Place,
    norms: Norms,
}

impl ModuleMapper for Replace {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.place.enter(name, container);
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.place.exit();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some((norm, field)) = self.place.of_norm() else {
            return param;
        };
        let replaced = self
            .norms
            .get_mut(&norm)
            .and_then(|norm| norm.remove(field));
        match replaced {
            Some(values) => param.map(|old| values.reshape(old.dims())),
            None => param,
        }
    }
}

/// The same function with batch norms that are told in two numbers for each channel instead of four:
///
/// ```text
/// g = gamma / sqrt(var + eps)
/// gamma' = g · sqrt(1 + eps)     beta' = beta − mean · g     mean' = 0     var' = 1
/// ```
///
/// Means and variances are those of a fresh network then, and a checkpoint has next to nothing to say of them. For
/// inference; outputs are the same but for rounding. The weights of convolutions stay as they are, on their levels if
/// they were quantised, which they would leave if the norms were [folded](super::fold_batch_norm) into them: so
/// condense and save, load, and fold.
///
/// `epsilon` is that of all batch norms of the model; Burn's and PyTorch's is 1e-5 unless set. The model is not changed,
/// nor are the running statistics that its clones share.
///
/// # Example
/// ```
/// use burn::nn::BatchNormConfig;
/// use burn::tensor::{Device, Distribution, Tensor};
/// use burn_sparse::nn::condense_batch_norms;
///
/// let device = Device::flex();
/// let norm = BatchNormConfig::new(3).init(&device);
/// norm.running_mean.update(Tensor::from_data([0.5, -1.0, 2.0], &device));
/// norm.running_var.update(Tensor::from_data([4.0, 0.25, 1.0], &device));
/// let condensed = condense_batch_norms(&norm, 1e-5);
/// let x = Tensor::<4>::random([2, 3, 4, 4], Distribution::Default, &device);
/// let difference = (condensed.forward(x.clone()) - norm.forward(x)).abs().max();
/// assert!(difference.into_scalar::<f32>() < 1e-5);
/// assert_eq!(condensed.running_mean.value().into_data().try_to_vec::<f32>().unwrap(), [0.0; 3]);
/// ```
#[must_use]
pub fn condense_batch_norms<M: Module>(model: &M, epsilon: f64) -> M {
    // A copy with running statistics of its own, all updates among them.
    let model = model.valid();
    let mut found = Collect::default();
    model.visit(&mut found);
    let mut norms = Norms::new();
    for (path, mut fields) in found.norms {
        let [gamma, beta, mean, var] = FIELDS.map(|field| fields.remove(field));
        let (Some(gamma), Some(beta), Some(mean), Some(var)) = (gamma, beta, mean, var) else {
            continue;
        };
        let scale = gamma / (var.clone() + epsilon).sqrt();
        let condensed = [
            ("gamma", scale.clone() * (1.0 + epsilon).sqrt()),
            ("beta", beta - mean.clone() * scale),
            ("running_mean", mean.zeros_like()),
            ("running_var", var.ones_like()),
        ];
        norms.insert(path, condensed.into());
    }
    let place = Place::default();
    model.map(&mut Replace { place, norms })
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use burn::nn::{BatchNorm, BatchNormConfig};
    use burn::tensor::{Device, Distribution};

    use super::*;
    use crate::nn::{Conv2d, Conv2dConfig, fold_batch_norm};

    #[derive(Module, Debug)]
    struct Net {
        conv: Conv2d,
        norms: Vec<Option<BatchNorm>>,
    }

    impl Net {
        fn new(device: &Device) -> Self {
            let norm = |epsilon| {
                let norm = BatchNormConfig::new(4).with_epsilon(epsilon).init(device);
                let some =
                    |low, high| Tensor::<1>::random([4], Distribution::Uniform(low, high), device);
                norm.running_mean.update(some(-2.0, 2.0));
                norm.running_var.update(some(0.01, 9.0));
                BatchNorm {
                    gamma: norm.gamma.clone().map(|_| some(-1.0, 1.0)),
                    beta: norm.beta.clone().map(|_| some(-1.0, 1.0)),
                    ..norm
                }
            };
            let net = Self {
                conv: Conv2dConfig::new([2, 4], [3, 3]).init(device),
                norms: vec![Some(norm(1e-3)), None, Some(norm(1e-3))],
            };
            // Settles the updates.
            net.valid()
        }

        fn forward(&self, x: Tensor<4>) -> Tensor<4> {
            let norms = self.norms.iter().flatten();
            norms.fold(self.conv.forward(x), |x, norm| norm.forward(x))
        }
    }

    fn apart(a: Tensor<4>, b: Tensor<4>) -> f32 {
        (a - b).abs().max().into_scalar()
    }

    #[test]
    fn the_function_stays_and_so_do_weights_and_the_model_it_came_from() {
        let device = Device::flex();
        let net = Net::new(&device);
        let x = Tensor::<4>::random([3, 2, 7, 5], Distribution::Normal(0.0, 2.0), &device);
        let before = net.forward(x.clone());
        let condensed = condense_batch_norms(&net, 1e-3);
        let scale = before.clone().abs().max().into_scalar::<f32>();
        assert!(apart(condensed.forward(x.clone()), before.clone()) < 1e-5 * scale.max(1.0));
        // Neither the model nor its running statistics have changed.
        assert_eq!(apart(net.forward(x.clone()), before.clone()), 0.0);
        let weight = |net: &Net| net.conv.weight.val().into_data();
        assert_eq!(weight(&condensed), weight(&net));
        for norm in condensed.norms.iter().flatten() {
            let data = |tensor: Tensor<1>| tensor.into_data().try_to_vec::<f32>().unwrap();
            assert_eq!(data(norm.running_mean.value()), [0.0; 4]);
            assert_eq!(data(norm.running_var.value()), [1.0; 4]);
        }
        // Folded afterwards, it is the folded network.
        let first = |net: &Net| fold_batch_norm(net.conv.clone(), net.norms[0].as_ref().unwrap());
        let folded = first(&condensed).forward(x.clone());
        assert!(apart(folded, first(&net).forward(x)) < 1e-4 * scale.max(1.0));
    }

    #[test]
    fn models_without_batch_norms_are_left_alone() {
        let device = Device::flex();
        let conv = Conv2dConfig::new([2, 4], [3, 3]).init(&device);
        let same = condense_batch_norms(&conv, 1e-5);
        assert_eq!(same.weight.val().into_data(), conv.weight.val().into_data());
    }
}
