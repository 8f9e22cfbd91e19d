use burn::nn::loss::CrossEntropyLossConfig;
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

/// Mean cross-entropy of the first `most` images of a split, with the network's running statistics and without
/// augmentation; 0 for a split without images.
///
/// # Errors
/// [`TrainingError::Read`] if the device fails.
pub fn mean_loss<M: Classifier>(
    model: &M,
    data: &ImageDataset,
    split: &Split,
    most: usize,
    device: &Device,
) -> Result<f64, TrainingError> {
    let device = device.clone().inner();
    let split = split.select(&(0..split.len().min(most)).collect::<Vec<_>>());
    let cross_entropy = CrossEntropyLossConfig::new().init(&device);
    let mut sum = 0.0;
    for batch in Loader::eval(data, &split, EVAL_BATCH).epoch(0, &device) {
        let count = batch.targets.len() as f64;
        let loss = cross_entropy.forward(model.forward(batch.images), batch.labels);
        let loss: Vec<f32> = loss.try_to_data_as::<f32>()?.iter::<f32>().collect();
        sum += count * loss.iter().map(|&loss| f64::from(loss)).sum::<f64>();
    }
    Ok(sum / split.len().max(1) as f64)
}
