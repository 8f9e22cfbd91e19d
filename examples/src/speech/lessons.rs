//! Recordings as lessons of a network.

use burn::tensor::{Device, Int, Tensor};
use models::SpeechGru;

use crate::data::speech::{Padding, SpeechBatch, SpeechDataset, SpeechLoader};
use crate::sequence::{Batches, Context, Lessons, Part};
use crate::training::Recipe;

/// What all stages of one seed share.
pub type SpeechContext<'a> = Context<'a, SpeechDataset>;

impl Lessons for SpeechDataset {
    type Model = SpeechGru;
    type Batch = SpeechBatch;

    fn items(&self, part: Part) -> usize {
        match part {
            Part::Valid => self.valid.len(),
            Part::Test => self.test.len(),
        }
    }

    fn training(&self, recipe: &Recipe, epoch: usize, device: &Device) -> Batches<'_, SpeechBatch> {
        let loader = SpeechLoader::train(self, recipe.batch, recipe.seed);
        Box::new(loader.with_padding(Padding::Longest).epoch(epoch, device))
    }

    fn stored(&self, part: Part, batch: usize, device: &Device) -> Batches<'_, SpeechBatch> {
        let split = match part {
            Part::Valid => &self.valid,
            Part::Test => &self.test,
        };
        let loader = SpeechLoader::eval(self, split, batch);
        Box::new(loader.with_padding(Padding::Longest).epoch(0, device))
    }

    fn logits(model: &SpeechGru, batch: &SpeechBatch) -> Tensor<2> {
        model.forward(batch.features.clone(), batch.lengths.clone())
    }

    fn labels(batch: &SpeechBatch) -> (Tensor<1, Int>, &[u32]) {
        (batch.labels.clone(), &batch.targets)
    }
}
