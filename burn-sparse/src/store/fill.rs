//! Values into the parameters of a model.

use std::collections::BTreeMap;

use burn::module::{Module, ModuleMapper, Param, Parameter};
use burn::tensor::{Bool, Device, Int, Tensor, TensorData};

use crate::nn::{self, AnyWeight, replace_weights};

/// Values that passed all checks, and where they go.
pub(super) struct Ready {
    pub(super) data: TensorData,
    pub(super) device: Device,
}

/// The model with these weights of layers, and `values` in all other parameters.
pub(super) fn fill<M: Module>(
    model: M,
    weights: Vec<AnyWeight>,
    values: BTreeMap<String, Ready>,
) -> M {
    // Settles the updates of running statistics that training left pending, which would take the
    // place of those loaded now.
    drop(model.valid());
    let model = replace_weights(model, weights.clone()).map(&mut Fill::new(values));
    // Nobody knows what a mapper did to packed values; this one did nothing.
    let filled = nn::weights(&model).into_iter().map(|filled| filled.weight);
    let weights = weights.into_iter().zip(filled);
    let weights = weights.map(|(weight, filled)| match weight.is_packed() {
        true => weight,
        false => filled,
    });
    let weights = weights.collect();
    replace_weights(model, weights)
}

/// Puts the values into the parameters.
struct Fill {
    path: Vec<String>,
    values: BTreeMap<String, Ready>,
}

impl Fill {
    fn new(values: BTreeMap<String, Ready>) -> Self {
        Self {
            path: Vec::new(),
            values,
        }
    }

    /// The parameter with the value of its path, in the layout it has in memory: what load and
    /// save mappers would do to it is undone by its being saved so.
    fn fill<T: Parameter>(&mut self, param: Param<T>, read: impl FnOnce(Ready) -> T) -> Param<T> {
        let Some(ready) = self.values.remove(&self.path.join(".")) else {
            return param;
        };
        let tensor = read(ready);
        param.map(|old| tensor.set_require_grad(old.is_require_grad()))
    }
}

impl ModuleMapper for Fill {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        self.fill(param, |Ready { data, device }| {
            let dtype = data.dtype();
            Tensor::from_data(data, (&device, dtype))
        })
    }

    fn map_int<const D: usize>(&mut self, param: Param<Tensor<D, Int>>) -> Param<Tensor<D, Int>> {
        self.fill(param, |Ready { data, device }| {
            let dtype = data.dtype();
            Tensor::from_data(data, (&device, dtype))
        })
    }

    fn map_bool<const D: usize>(
        &mut self,
        param: Param<Tensor<D, Bool>>,
    ) -> Param<Tensor<D, Bool>> {
        self.fill(param, |Ready { data, device }| {
            Tensor::from_data(data, &device)
        })
    }
}
