use burn::module::{Devices, Module, ModuleMapper, ModuleVisitor};
use burn::optim::lr_scheduler::module_lr_scheduler::ModuleLearningRate;
use burn::optim::{GradientsParams, ModuleOptimizer, MultiGradientsParams};
use burn::tensor::Device;
use burn::train::{InferenceStep, TrainOutput, TrainStep};

use super::AdmmTraining;

/// A model in training under ADMM. As a [`Module`] it is the model itself: the same parameter
/// paths, records and devices.
#[derive(Debug, Clone)]
pub struct AdmmModel<M> {
    model: M,
    training: AdmmTraining,
}

impl<M> AdmmModel<M> {
    pub(super) fn new(model: M, training: AdmmTraining) -> Self {
        Self { model, training }
    }

    /// The model.
    pub fn inner(&self) -> &M {
        &self.model
    }

    /// The model, out of its wrapper.
    pub fn into_inner(self) -> M {
        self.model
    }

    fn with(self, f: impl FnOnce(M) -> M) -> Self {
        Self {
            model: f(self.model),
            training: self.training,
        }
    }
}

impl<M: core::fmt::Display> core::fmt::Display for AdmmModel<M> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.model.fmt(f)
    }
}

impl<M: Module> Module for AdmmModel<M> {
    fn collect_devices(&self, devices: Devices) -> Devices {
        self.model.collect_devices(devices)
    }

    fn fork(self, device: &Device) -> Self {
        self.with(|model| model.fork(device))
    }

    fn to_device(self, device: &Device) -> Self {
        self.with(|model| model.to_device(device))
    }

    fn train(self) -> Self {
        self.with(Module::train)
    }

    fn valid(&self) -> Self {
        Self {
            model: self.model.valid(),
            training: self.training.clone(),
        }
    }

    fn materialize(self) -> Self {
        self.with(Module::materialize)
    }

    fn visit<V: ModuleVisitor>(&self, visitor: &mut V) {
        self.model.visit(visitor);
    }

    fn map<P: ModuleMapper>(self, mapper: &mut P) -> Self {
        self.with(|model| model.map(mapper))
    }
}

impl<M: Module + TrainStep> TrainStep for AdmmModel<M> {
    type Input = M::Input;
    type Output = M::Output;

    fn step(&self, item: Self::Input) -> TrainOutput<Self::Output> {
        let TrainOutput { grads, item } = self.model.step(item);
        TrainOutput {
            grads: self.training.add_gradient(&self.model, grads),
            item,
        }
    }

    fn optimize(
        self,
        optim: &mut ModuleOptimizer,
        lr: ModuleLearningRate,
        grads: GradientsParams,
    ) -> Self {
        let stepped = self.with(|model| model.optimize(optim, lr, grads));
        stepped.training.after_step(&stepped.model);
        stepped
    }

    fn optimize_multi(
        self,
        optim: &mut ModuleOptimizer,
        lr: ModuleLearningRate,
        grads: MultiGradientsParams,
    ) -> Self {
        let stepped = self.with(|model| model.optimize_multi(optim, lr, grads));
        stepped.training.after_step(&stepped.model);
        stepped
    }
}

impl<M: InferenceStep> InferenceStep for AdmmModel<M> {
    type Input = M::Input;
    type Output = M::Output;

    fn step(&self, item: Self::Input) -> Self::Output {
        self.model.step(item)
    }
}
