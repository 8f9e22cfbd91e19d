//! The augmented Lagrangian's quadratic term and its gradient.

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::{DType, Tensor};

use super::Admm;
use super::layer::Layer;
use crate::constant::compute_dtype;
use crate::params::Position;

impl Admm {
    /// `Σ rho/2 ‖W − Z + U‖²` over the constrained parameters: a tensor of one element on the
    /// model's device, to be added to the loss before `backward()`. A constraint of several sets
    /// ([`sets`](Self::sets)) has such a term for each of them, all with the same rho.
    ///
    /// `Z` and `U` are constants, so the gradient reaches the weights only: `rho (W − Z + U)`.
    /// They stay on the device between updates. Computed in f32 (f64 for f64 weights) and returned
    /// in the dtype of the first constrained parameter.
    ///
    /// # Panics
    /// If the model lacks a constrained parameter or has it in another shape.
    pub fn penalty<M: Module>(&self, model: &M) -> Tensor<1> {
        let mut penalty = Penalty {
            admm: self,
            position: Position::default(),
            sum: None,
            seen: 0,
        };
        model.visit(&mut penalty);
        self.check_all_seen(penalty.seen);
        let (sum, dtype) = penalty.sum.expect("at least one layer");
        sum.mul_scalar(0.5 * self.rho).cast(dtype)
    }

    /// Adds the gradient of [`penalty`](Self::penalty), `rho (W − Z + U)`, to gradients that a
    /// training step has computed without it: the same training, cheaper (no backward pass through
    /// the penalty), and possible where the loss cannot be reached. Parameters without a gradient stay without.
    ///
    /// # Panics
    /// If the model lacks a constrained parameter or has it in another shape.
    #[must_use]
    pub fn add_gradient<M: Module>(&self, model: &M, grads: GradientsParams) -> GradientsParams {
        let mut add = AddGradient {
            admm: self,
            position: Position::default(),
            grads,
            seen: 0,
        };
        model.visit(&mut add);
        self.check_all_seen(add.seen);
        add.grads
    }

    fn layer_at<const D: usize>(&self, position: &Position, w: &Tensor<D>) -> Option<&Layer> {
        if position.inside_reparameterization() {
            return None;
        }
        let path = position.path();
        let layer = &self.layers[*self.index.get(&path)?];
        let (shape, expected) = (w.dims(), &layer.spec.shape);
        assert_eq!(
            &shape[..],
            &expected[..],
            "shape of parameter `{path}` has changed"
        );
        Some(layer)
    }

    fn check_all_seen(&self, seen: usize) {
        assert_eq!(
            seen,
            self.layers.len(),
            "the model has {seen} of the {} constrained parameters",
            self.layers.len()
        );
    }
}

struct Penalty<'a> {
    admm: &'a Admm,
    position: Position,
    sum: Option<(Tensor<1>, DType)>,
    seen: usize,
}

impl ModuleVisitor for Penalty<'_> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.position.enter(name, container);
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.position.exit();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let w = param.val();
        let Some(layer) = self.admm.layer_at(&self.position, &w) else {
            return;
        };
        let dtype = w.dtype();
        let (device, autodiff) = (w.device().inner(), w.is_autodiff());
        let w = w.cast(compute_dtype(dtype)).reshape([-1]);
        for set in &layer.sets {
            let target = set.target(&device, compute_dtype(dtype));
            let target = if autodiff {
                Tensor::from_inner(target)
            } else {
                target
            };
            let difference = w.clone() - target;
            let term = difference.clone().mul(difference).sum();
            self.sum = Some(match self.sum.take() {
                None => (term, dtype),
                // The first layer's device and precision decide where the sum is formed.
                Some((sum, dtype)) => {
                    let term = term.to_device(&sum.device()).cast(sum.dtype());
                    (sum + term, dtype)
                }
            });
        }
        self.seen += 1;
    }
}

struct AddGradient<'a> {
    admm: &'a Admm,
    position: Position,
    grads: GradientsParams,
    seen: usize,
}

impl ModuleVisitor for AddGradient<'_> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.position.enter(name, container);
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.position.exit();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let w = param.val();
        let Some(layer) = self.admm.layer_at(&self.position, &w) else {
            return;
        };
        self.seen += 1;
        let Some(grad) = self.grads.remove::<D>(param.id) else {
            return;
        };
        let (shape, dtype) = (w.shape(), w.dtype());
        let w = w.inner().cast(compute_dtype(dtype));
        let device = grad.device();
        let grad = layer.sets.iter().fold(grad, |grad, set| {
            let target = set.target(&w.device(), compute_dtype(dtype));
            let difference = w.clone() - target.reshape(shape.clone());
            let term = difference.mul_scalar(self.admm.rho).cast(grad.dtype());
            grad + term.to_device(&device)
        });
        self.grads.register(param.id, grad);
    }
}
