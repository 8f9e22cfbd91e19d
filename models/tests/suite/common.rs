//! What several tests share.

use std::collections::BTreeMap;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Device, Tensor, TensorData};
use models::{ResNetConfig, Shortcut};

/// The network of the fixtures: three stages of one block, 2 to 8 channels, 3 classes.
pub(crate) fn tiny() -> ResNetConfig {
    ResNetConfig::cifar(1, 3)
        .with_width(2)
        .with_shortcut(Shortcut::Projection)
}

/// The values of the fixtures: a formula of the tensor's name and the position.
pub(crate) fn values(name: &str, count: usize) -> Vec<f32> {
    let seed: usize = name.bytes().map(usize::from).sum();
    let shift = if name.ends_with("running_var") {
        0.5
    } else {
        -0.5
    };
    (0..count)
        .map(|i| (((i * 7919 + seed * 104_729) % 2003) as f64 / 2003.0 + shift) as f32)
        .collect()
}

/// A tensor of small numbers of either sign.
pub(crate) fn image<const D: usize>(shape: [usize; D], device: &Device) -> Tensor<D> {
    let data = values("image", shape.iter().product());
    Tensor::from_data(TensorData::new(data, shape), device)
}

pub(crate) fn floats<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().try_to_vec().expect("f32")
}

/// The largest difference, relative to the largest magnitude.
pub(crate) fn difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    let scale = a.iter().fold(f32::MIN_POSITIVE, |m, v| m.max(v.abs()));
    a.iter()
        .zip(b)
        .fold(0.0_f32, |m, (x, y)| m.max((x - y).abs()))
        / scale
}

/// The shapes of the parameters by Burn's paths, without initialising any.
pub(crate) fn shapes<M: Module>(model: &M) -> BTreeMap<String, Vec<usize>> {
    #[derive(Default)]
    struct Shapes {
        path: Vec<String>,
        shapes: BTreeMap<String, Vec<usize>>,
    }
    impl ModuleVisitor for Shapes {
        fn enter_module(&mut self, name: &str, _container: &str) {
            self.path.push(name.to_owned());
        }
        fn exit_module(&mut self, _name: &str, _container: &str) {
            self.path.pop();
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.shapes
                .insert(self.path.join("."), param.lazy_shape().as_slice().to_vec());
        }
    }
    let mut visitor = Shapes::default();
    model.visit(&mut visitor);
    visitor.shapes
}

/// Gives batch norms statistics and affine parameters other than the identity, and biases values.
pub(crate) fn scramble<M: Module>(model: M) -> M {
    #[derive(Default)]
    struct Scramble {
        path: Vec<String>,
    }
    impl ModuleMapper for Scramble {
        fn enter_module(&mut self, name: &str, _container: &str) {
            self.path.push(name.to_owned());
        }
        fn exit_module(&mut self, _name: &str, _container: &str) {
            self.path.pop();
        }
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            let path = self.path.join(".");
            let shift = match path.rsplit('.').next() {
                Some("gamma" | "running_var") => 1.0,
                Some("beta" | "running_mean" | "bias") => 0.0,
                _ => return param,
            };
            param.map(|tensor| {
                let shape = tensor.dims();
                let data = values(&path, tensor.shape().num_elements());
                let noise = Tensor::from_data(TensorData::new(data, shape), &tensor.device());
                // `values` of a running_var are positive as they are.
                if path.ends_with("running_var") {
                    noise
                } else {
                    noise + shift
                }
            })
        }
    }
    model.map(&mut Scramble::default())
}
