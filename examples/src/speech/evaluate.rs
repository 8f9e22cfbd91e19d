//! How many recordings a network gets right.

use burn::module::Module;
use burn::nn::loss::CrossEntropyLossConfig;
use burn::tensor::Device;
use models::SpeechGru;
use serde::{Deserialize, Serialize};

use crate::data::speech::{Padding, SpeechDataset, SpeechLoader, Utterances};
use crate::training::{TrainingError, hits, short};

/// Recordings per forward pass when nothing is trained.
pub(super) const EVAL_BATCH: usize = 100;

/// A network on the recordings of a split.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SpeechScore {
    /// The part that it classifies rightly, 0 without recordings.
    pub accuracy: f64,
    /// The mean cross-entropy, in nats.
    pub loss: f64,
}

impl SpeechScore {
    /// Whether this is the better one: more right, or as many at a lower loss.
    #[must_use]
    pub fn beats(&self, other: &Self) -> bool {
        (self.accuracy, -self.loss) > (other.accuracy, -other.loss)
    }
}

/// Scores a network, masked, dense or packed, on a split.
///
/// # Errors
/// [`TrainingError::Read`] if the device fails.
pub fn score(
    model: &SpeechGru,
    data: &SpeechDataset,
    split: &Utterances,
    device: &Device,
) -> Result<SpeechScore, TrainingError> {
    let (model, device) = (model.valid(), device.clone().inner());
    let cross_entropy = CrossEntropyLossConfig::new().init(&device);
    let (mut right, mut loss) = (0, 0.0);
    let loader = SpeechLoader::eval(data, split, EVAL_BATCH).with_padding(Padding::Longest);
    for batch in loader.epoch(0, &device) {
        let logits = model.forward(batch.features, batch.lengths);
        right += hits(&logits, &batch.targets)?;
        let mean = cross_entropy.forward(logits, batch.labels);
        loss += f64::from(mean.into_scalar::<f32>()) * batch.targets.len() as f64;
    }
    let count = split.len().max(1) as f64;
    Ok(SpeechScore {
        accuracy: short(right as f64 / count),
        loss: short(loss / count),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_equally_many_right_the_surer_one_is_better() {
        let score = |accuracy, loss| SpeechScore { accuracy, loss };
        assert!(score(0.9, 0.5).beats(&score(0.8, 0.1)));
        assert!(score(0.9, 0.1).beats(&score(0.9, 0.2)));
        assert!(!score(0.9, 0.1).beats(&score(0.9, 0.1)));
    }
}
