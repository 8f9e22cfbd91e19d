//! What the tests of several modules share.

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{Tensor, TensorData};
use rand::Rng;
use rand_chacha::ChaCha8Rng;

use crate::params::{Position, read};

/// Replaces the values of one parameter.
pub(crate) fn set<M: Module>(model: M, path: &str, values: Vec<f32>) -> M {
    struct Set<'a>(Position, &'a str, Vec<f32>);
    impl ModuleMapper for Set<'_> {
        fn enter_module(&mut self, name: &str, container: &str) {
            self.0.enter(name, container);
        }
        fn exit_module(&mut self, _: &str, _: &str) {
            self.0.exit();
        }
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            if self.0.path() != self.1 {
                return param;
            }
            let values = self.2.clone();
            param.map(|t| {
                let data = TensorData::new(values, t.shape());
                Tensor::from_data(data, &t.device()).require_grad()
            })
        }
    }
    model.map(&mut Set(Position::default(), path, values))
}

/// The effective values of one parameter.
pub(crate) fn get<M: Module>(model: &M, path: &str) -> Vec<f32> {
    read(model, |p| p == path).unwrap().remove(0).data
}

/// A number from the standard normal distribution, after Box and Muller.
pub(crate) fn gaussian(rng: &mut ChaCha8Rng) -> f32 {
    let (a, b): (f64, f64) = (1.0 - rng.random::<f64>(), rng.random());
    ((-2.0 * a.ln()).sqrt() * (core::f64::consts::TAU * b).cos()) as f32
}
