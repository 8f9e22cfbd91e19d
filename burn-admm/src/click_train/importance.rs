//! What the loss would change by, to first order, if a weight went.

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::Tensor;

use crate::constant::compute_dtype;
use crate::params::Position;

/// `(g·w)²` of the parameters of these paths that have a gradient, flat, without autodiff.
pub(super) fn importances<M: Module>(
    model: &M,
    gradients: &GradientsParams,
    slot: impl Fn(&str) -> Option<usize>,
) -> Vec<(usize, Tensor<1>)> {
    struct Visit<'a, F> {
        position: Position,
        gradients: &'a GradientsParams,
        slot: F,
        found: Vec<(usize, Tensor<1>)>,
    }
    impl<F: Fn(&str) -> Option<usize>> ModuleVisitor for Visit<'_, F> {
        fn enter_module(&mut self, name: &str, container: &str) {
            self.position.enter(name, container);
        }
        fn exit_module(&mut self, _: &str, _: &str) {
            self.position.exit();
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if self.position.inside_reparameterization() {
                return;
            }
            let Some(slot) = (self.slot)(&self.position.path()) else {
                return;
            };
            let Some(gradient) = self.gradients.get::<D>(param.id) else {
                return;
            };
            let weight = param.val().inner();
            let dtype = compute_dtype(weight.dtype());
            let change = gradient.to_device(&weight.device()).cast(dtype) * weight.cast(dtype);
            self.found.push((slot, change.square().reshape([-1])));
        }
    }
    let mut visit = Visit {
        position: Position::default(),
        gradients,
        slot,
        found: Vec::new(),
    };
    model.visit(&mut visit);
    visit.found
}
