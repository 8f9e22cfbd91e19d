//! Values into the parameters of a model.

use std::collections::BTreeMap;

use burn::module::{ModuleMapper, Param, Parameter};
use burn::tensor::{Bool, Device, Int, Tensor, TensorData};

/// Values that passed all checks, and where they go.
pub(super) struct Ready {
    pub(super) data: TensorData,
    pub(super) device: Device,
}

/// Puts the values into the parameters.
pub(super) struct Fill {
    path: Vec<String>,
    values: BTreeMap<String, Ready>,
}

impl Fill {
    pub(super) fn new(values: BTreeMap<String, Ready>) -> Self {
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
