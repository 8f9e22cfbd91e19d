use burn::module::Module;

use crate::admm::AdmmError;
use crate::mask::Masks;
use crate::plan::ResolvedPlan;

/// One-shot magnitude pruning (Han et al., 2015, one round): keeps the largest magnitudes that the
/// plan allows, all at once, and returns the masked model, ready to be retrained.
///
/// For a comparison at equal epochs, retrain for as many epochs as ADMM takes for its outer
/// iterations and its retraining together.
///
/// # Errors
/// As [`Masks::project`] and [`Masks::attach`].
pub fn one_shot<M: Module>(model: M, plan: &ResolvedPlan) -> Result<M, AdmmError> {
    Masks::project(&model, plan)?.attach(model)
}
