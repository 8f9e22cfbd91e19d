//! Sentences as lessons of a network.

use burn::tensor::{Device, Int, Tensor};
use models::TextCnn;

use crate::data::text::{Sentences, TextBatch, TextDataset, TextLoader};
use crate::sequence::{Batches, Context, Lessons, Part};
use crate::training::Recipe;

/// Sentences, and what is done to them and to the network while it learns.
#[derive(Clone, Debug)]
pub struct TextLessons {
    /// The sentences.
    pub data: TextDataset,
    /// Each word becomes an unknown one with this probability, in training only.
    pub word_dropout: f64,
    /// Largest norm of the weights that lead to a class, kept after every step.
    pub head_norm: f64,
}

/// What all stages of one seed share.
pub type TextContext<'a> = Context<'a, TextLessons>;

impl TextLessons {
    fn split(&self, part: Part) -> &Sentences {
        match part {
            Part::Valid => &self.data.valid,
            Part::Test => &self.data.test,
        }
    }
}

impl Lessons for TextLessons {
    type Model = TextCnn;
    type Batch = TextBatch;

    fn items(&self, part: Part) -> usize {
        self.split(part).len()
    }

    fn training(&self, recipe: &Recipe, epoch: usize, device: &Device) -> Batches<'_, TextBatch> {
        let loader = TextLoader::train(&self.data, recipe.batch, recipe.seed);
        let loader = loader.with_word_dropout(self.word_dropout);
        Box::new(loader.epoch(epoch, device))
    }

    fn stored(&self, part: Part, batch: usize, device: &Device) -> Batches<'_, TextBatch> {
        Box::new(TextLoader::eval(self.split(part), batch).epoch(0, device))
    }

    fn logits(model: &TextCnn, batch: &TextBatch) -> Tensor<2> {
        model.forward(batch.words.clone())
    }

    fn labels(batch: &TextBatch) -> (Tensor<1, Int>, &[u32]) {
        (batch.labels.clone(), &batch.targets)
    }

    fn after_step(&self, model: TextCnn) -> TextCnn {
        model.with_head_norm(self.head_norm)
    }
}
