//! Layers with known weights, and numbers out of tensors.

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{Device, Tensor, TensorData};
use burn_sparse::catalogue;

/// Sequences of the tests: `[d_input, d_hidden, batch, steps]`, one of everything included.
pub(crate) const SHAPES: [[usize; 4]; 7] = [
    [5, 7, 1, 100],
    [13, 1, 3, 100],
    [1, 33, 3, 100],
    [39, 40, 1, 100],
    [3, 16, 5, 17],
    [1, 1, 1, 1],
    [17, 65, 2, 9],
];

/// Largest difference allowed between two ways to compute hidden states, which are below 1: the
/// sums of a step have at most 105 terms of magnitude below 1, so that each rounds by at most
/// `105 * 2^-24`, 6e-6, and far less in the mean; the gates, whose slopes are at most 1, forget
/// old roundings about as fast as new ones come.
pub(crate) const CLOSE: f64 = 1e-5;

struct Fill {
    density: f64,
    scale: f32,
    seed: u64,
}

impl ModuleMapper for Fill {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        self.seed += 1;
        let (density, seed) = (if D == 2 { self.density } else { 1.0 }, self.seed);
        let scale = self.scale;
        param.map(|tensor| {
            let shape = tensor.dims();
            let mut values = catalogue::weight(shape.iter().product(), density, seed);
            values.iter_mut().for_each(|value| *value *= scale);
            let tensor = Tensor::from_data(TensorData::new(values, shape), &tensor.device());
            if tensor.is_autodiff() {
                tensor.require_grad()
            } else {
                tensor
            }
        })
    }
}

/// The module with reproducible parameters, of matrices only `density` other than zero, scaled so
/// that the sums of `fan_in` products have a variance of about one third.
pub(crate) fn filled<M: Module>(module: M, density: f64, fan_in: usize, seed: u64) -> M {
    let scale = 1.0 / (density * fan_in as f64).max(1.0).sqrt() as f32;
    module.map(&mut Fill {
        density,
        scale,
        seed: 1000 * seed,
    })
}

pub(crate) fn tensor<const D: usize>(
    values: &[f32],
    shape: [usize; D],
    device: &Device,
) -> Tensor<D> {
    Tensor::from_data(TensorData::new(values.to_vec(), shape), device)
}

/// Reproducible values in `[-1, 1)`.
pub(crate) fn random<const D: usize>(shape: [usize; D], seed: u64, device: &Device) -> Tensor<D> {
    let values = catalogue::values(shape.iter().product(), seed);
    tensor(&values, shape, device)
}

pub(crate) fn floats<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().try_to_vec().unwrap()
}

pub(crate) fn assert_close(what: &str, actual: &[f32], expected: &[f64], bound: f64) {
    assert_eq!(actual.len(), expected.len(), "{what}: number of elements");
    for (index, (&a, &e)) in actual.iter().zip(expected).enumerate() {
        let difference = (f64::from(a) - e).abs();
        assert!(
            difference <= bound,
            "{what}: {a} at {index}, expected {e}; off by {difference:e}, allowed {bound:e}"
        );
    }
}

/// [`assert_close`] of two tensors.
pub(crate) fn assert_same<const D: usize>(what: &str, actual: Tensor<D>, expected: Tensor<D>) {
    assert_eq!(actual.dims(), expected.dims(), "{what}");
    let expected: Vec<f64> = floats(expected).into_iter().map(f64::from).collect();
    assert_close(what, &floats(actual), &expected, CLOSE);
}
