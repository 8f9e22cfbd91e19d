//! How many items a network gets right.

use burn::module::Module;
use burn::nn::loss::CrossEntropyLossConfig;
use burn::tensor::Device;
use serde::{Deserialize, Serialize};

use super::{Lessons, Part};
use crate::training::{TrainingError, hits, short};

/// Items per forward pass when nothing is trained.
pub(crate) const EVAL_BATCH: usize = 100;

/// A network on the items of a split.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// The part that it classifies rightly, 0 without items.
    pub accuracy: f64,
    /// The mean cross-entropy, in nats.
    pub loss: f64,
}

impl Score {
    /// Whether this is the better one: more right, or as many at a lower loss.
    #[must_use]
    pub fn beats(&self, other: &Self) -> bool {
        (self.accuracy, -self.loss) > (other.accuracy, -other.loss)
    }
}

/// Scores a network, masked, dense or packed, on a part of a set.
///
/// # Errors
/// [`TrainingError::Read`] if the device fails.
pub fn score<L: Lessons>(
    model: &L::Model,
    data: &L,
    part: Part,
    device: &Device,
) -> Result<Score, TrainingError> {
    let (model, device) = (model.valid(), device.clone().inner());
    let cross_entropy = CrossEntropyLossConfig::new().init(&device);
    let (mut right, mut loss) = (0, 0.0);
    for batch in data.stored(part, EVAL_BATCH, &device) {
        let logits = L::logits(&model, &batch);
        let (labels, targets) = L::labels(&batch);
        right += hits(&logits, targets)?;
        let mean = cross_entropy.forward(logits, labels);
        loss += f64::from(mean.into_scalar::<f32>()) * targets.len() as f64;
    }
    let count = data.items(part).max(1) as f64;
    Ok(Score {
        accuracy: short(right as f64 / count),
        loss: short(loss / count),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_equally_many_right_the_surer_one_is_better() {
        let score = |accuracy, loss| Score { accuracy, loss };
        assert!(score(0.9, 0.5).beats(&score(0.8, 0.1)));
        assert!(score(0.9, 0.1).beats(&score(0.9, 0.2)));
        assert!(!score(0.9, 0.1).beats(&score(0.9, 0.1)));
    }
}
