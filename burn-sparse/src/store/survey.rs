//! Everything a model holds, with its paths.

use std::collections::VecDeque;

use burn::module::{Module, ModuleVisitor, Param, ParamId, Parameter};
use burn::tensor::{Bool, Device, Int, Tensor, TensorData};

use super::fail;
use crate::{
    SparseError,
    nn::{AnyWeight, NamedWeight, weights},
};

/// What a parameter holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Float,
    Int,
    Bool,
}

/// A weight of a layer of this crate.
pub(super) struct Layer {
    /// The path of the weight, `conv1.weight`.
    pub(super) path: String,
    pub(super) weight: AnyWeight,
}

/// A parameter or running statistic that is not packed.
pub(super) struct Dense {
    pub(super) path: String,
    pub(super) shape: Vec<usize>,
    pub(super) kind: Kind,
    pub(super) device: Device,
    /// Only if asked for.
    pub(super) data: Option<TensorData>,
}

/// The layers and the parameters of a model.
#[derive(Default)]
pub(super) struct Survey {
    pub(super) layers: Vec<Layer>,
    pub(super) tensors: Vec<Dense>,
    stack: Vec<String>,
    queue: VecDeque<NamedWeight>,
    read: bool,
    packed_depth: Option<usize>,
    error: Option<String>,
}

impl Survey {
    /// Visits `model`, reading the values if asked to.
    pub(super) fn of<M: Module>(model: &M, read: bool, at: &str) -> Result<Self, SparseError> {
        let mut survey = Self {
            queue: weights(model).into(),
            read,
            ..Self::default()
        };
        model.visit(&mut survey);
        match survey.error.take() {
            None => Ok(survey),
            Some(reason) => Err(fail(at, reason)),
        }
    }

    /// Whether the next weight is the one visited now. Both traversals go the same way, so the
    /// order tells even clones apart, which share their id.
    fn is_next(&self, id: Option<ParamId>) -> bool {
        self.queue.front().is_some_and(|next| {
            next.path == self.stack.join(".")
                && match id {
                    Some(id) => !next.weight.is_packed() && next.weight.id() == id,
                    None => next.weight.is_packed(),
                }
        })
    }

    fn take_layer(&mut self) {
        if let Some(next) = self.queue.pop_front() {
            self.layers.push(Layer {
                path: self.stack.join("."),
                weight: next.weight,
            });
        }
    }

    fn add<T: Parameter>(
        &mut self,
        param: &Param<T>,
        kind: Kind,
        device: Device,
        read: impl FnOnce(T) -> Result<TensorData, String>,
    ) {
        if self.packed_depth.is_some() || self.error.is_some() {
            return;
        }
        if self.is_next(Some(param.id)) {
            self.take_layer();
        }
        let path = self.stack.join(".");
        let data = match self.read.then(|| read(param.val())).transpose() {
            Ok(data) => data,
            Err(error) => {
                self.error = Some(format!("`{path}` cannot be read from its device: {error}"));
                return;
            }
        };
        let shape = param.lazy_shape().as_slice().to_vec();
        self.tensors.push(Dense {
            path,
            shape,
            kind,
            device,
            data,
        });
    }
}

impl ModuleVisitor for Survey {
    fn enter_module(&mut self, name: &str, container_type: &str) {
        if container_type == "Reparameterization" {
            let path = self.stack.join(".");
            self.error.get_or_insert(format!(
                "`{path}` has a mask or an adapter attached; fold it (`burn_admm::fold` for masks, \
                 `Module::materialize` for all) before saving or loading a checkpoint"
            ));
        }
        if container_type == "Struct:PackedWeight" && name == "values" && self.is_next(None) {
            self.take_layer();
            self.packed_depth = Some(self.stack.len());
        }
        self.stack.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.stack.pop();
        if self.packed_depth == Some(self.stack.len()) {
            self.packed_depth = None;
        }
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.add(param, Kind::Float, param.lazy_device(), |tensor| {
            tensor.try_into_data().map_err(|error| error.to_string())
        });
    }

    fn visit_int<const D: usize>(&mut self, param: &Param<Tensor<D, Int>>) {
        self.add(param, Kind::Int, param.lazy_device(), |tensor| {
            tensor.try_into_data().map_err(|error| error.to_string())
        });
    }

    fn visit_bool<const D: usize>(&mut self, param: &Param<Tensor<D, Bool>>) {
        self.add(param, Kind::Bool, param.lazy_device(), |tensor| {
            tensor.try_into_data().map_err(|error| error.to_string())
        });
    }
}
