//! Which weights may stay.

use burn_admm::Plan;
use burn_sparse::Sparsity;

use crate::training::TrainingError;

/// Of every output channel of all convolutions the same part may stay, word vectors and classifier
/// stay dense. Each convolution reads words, so none is a first one to be kept.
///
/// # Errors
/// [`TrainingError::Sparse`] for a sparsity outside `[0, 1)`.
///
/// ```
/// use burn::tensor::Device;
/// use models::TextCnnConfig;
///
/// let model = TextCnnConfig::new(20, 2).init(&Device::flex())?;
/// let plan = examples::text::plan(0.875)?.resolve(&model)?;
/// assert_eq!(plan.layers().len(), 3);
/// // Of 900 weights a channel, 113 stay: 112.5 is no number of weights.
/// assert!((plan.sparsity() - 0.875).abs() < 1e-3);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn plan(sparsity: f64) -> Result<Plan, TrainingError> {
    let plan = Plan::dense().with_first_convolution_kept(false);
    Ok(plan.with_sparsity("convs.*.weight", Sparsity::row_balanced(sparsity)?)?)
}
