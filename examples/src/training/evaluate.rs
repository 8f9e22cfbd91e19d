use burn::tensor::{Device, Tensor};
use models::Classifier;

use super::TrainingError;
use crate::data::{ImageDataset, Loader, Split};

/// Images per forward pass when nothing is trained.
pub(super) const EVAL_BATCH: usize = 125;

/// How many of the predictions `[batch, classes]` are right.
///
/// # Errors
/// [`TrainingError::Read`] if the device fails.
pub fn hits(logits: &Tensor<2>, targets: &[u32]) -> Result<usize, TrainingError> {
    let values: Vec<f32> = logits.try_to_data_as::<f32>()?.iter::<f32>().collect();
    let classes = values.len() / targets.len().max(1);
    let right = |(row, target): (&[f32], &u32)| {
        let best = row.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
        best.is_some_and(|(class, _)| class == *target as usize)
    };
    Ok(values
        .chunks(classes.max(1))
        .zip(targets)
        .filter(|&pair| right(pair))
        .count())
}

/// The part of the images of a split that the network classifies rightly, with its running
/// statistics and without augmentation; 0 for a split without images.
///
/// # Errors
/// [`TrainingError::Read`] if the device fails.
pub fn accuracy<M: Classifier>(
    model: &M,
    data: &ImageDataset,
    split: &Split,
    device: &Device,
) -> Result<f64, TrainingError> {
    let model = model.valid();
    let device = device.clone().inner();
    let mut right = 0;
    for batch in Loader::eval(data, split, EVAL_BATCH).epoch(0, &device) {
        right += hits(&model.forward(batch.images), &batch.targets)?;
    }
    Ok(right as f64 / split.len().max(1) as f64)
}
