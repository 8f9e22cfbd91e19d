//! Stored weights and their gradients, on the host.

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::{Tensor, TensorReadError};

use super::EvolveError;
use crate::admm::{AdmmError, in_order};
use crate::params::{Position, read_base};
use crate::plan::ResolvedLayer;
use crate::projection::ProjectionError;

/// The weights of these layers without their masks, in storage order.
pub(super) fn base_weights<M: Module>(
    model: &M,
    specs: &[ResolvedLayer],
) -> Result<Vec<Vec<f32>>, AdmmError> {
    let wanted = |path: &str| specs.iter().any(|spec| spec.path == path);
    let weights = in_order(read_base(model, wanted)?, specs)?;
    Ok(weights.into_iter().map(|weight| weight.data).collect())
}

/// The gradients of the parameters for which there is a slot, of those that have one.
pub(super) fn gradients_of<M: Module>(
    model: &M,
    gradients: &GradientsParams,
    slot: impl Fn(&str) -> Option<usize>,
) -> Result<Vec<(usize, Vec<f32>)>, AdmmError> {
    struct Visit<'a, F> {
        position: Position,
        gradients: &'a GradientsParams,
        slot: F,
        found: Vec<(usize, Vec<f32>)>,
        error: Option<(String, TensorReadError)>,
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
            let path = self.position.path();
            let Some(slot) = (self.slot)(&path) else {
                return;
            };
            let Some(gradient) = self.gradients.get::<D>(param.id) else {
                return;
            };
            match gradient.try_into_vec_as::<f32>() {
                Ok(values) => self.found.push((slot, values)),
                Err(error) => self.error = Some((path, error)),
            }
        }
    }
    let mut visit = Visit {
        position: Position::default(),
        gradients,
        slot,
        found: Vec::new(),
        error: None,
    };
    model.visit(&mut visit);
    match visit.error {
        Some(error) => Err(error.into()),
        None => Ok(visit.found),
    }
}

/// That weights are numbers; otherwise the first that is none.
pub(super) fn check_finite(path: &str, weights: &[f32]) -> Result<(), EvolveError> {
    let Some(index) = weights.iter().position(|weight| !weight.is_finite()) else {
        return Ok(());
    };
    let value = weights[index];
    Err(EvolveError::Weights(AdmmError::Projection {
        path: path.to_owned(),
        source: ProjectionError::NonFinite { index, value },
    }))
}
