//! A network in 16 bits.

use burn::module::{ModuleMapper, Param, ParamId};
use burn::tensor::{FloatDType, Tensor};
use burn_sparse::nn::weights;
use models::Classifier;

use crate::training::{Context, TrainingError, accuracy};

/// Makes halves of some weights.
struct Halve(Vec<ParamId>);

impl ModuleMapper for Halve {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        match self.0.contains(&param.id) {
            true => param.map(|weight| weight.cast(FloatDType::F16)),
            false => param,
        }
    }
}

/// The part of the test images that a network classifies rightly if the weights of its layers are rounded to f16,
/// and what goes into a layer and what comes out of it as well. Sums within a layer are the device's.
///
/// # Errors
/// [`TrainingError::Read`] if the device fails.
pub(super) fn in_halves<M: Classifier>(context: &Context, model: M) -> Result<f64, TrainingError> {
    let ids = weights(&model).into_iter().map(|named| named.weight.id());
    // A layer computes in the numbers of its weight.
    let mut halve = Halve(ids.collect());
    let model = model.map(&mut halve);
    accuracy(&model, context.data, &context.data.test, &context.device)
}
