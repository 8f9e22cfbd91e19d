//! What stages need to know of a data set and of its network.

use burn::module::Module;
use burn::tensor::{Device, Int, Tensor};

use crate::training::Recipe;

/// A part of a data set that nothing is trained on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// What a checkpoint is chosen on.
    Valid,
    /// What the final accuracy is of.
    Test,
}

/// Batches, made one at a time.
pub type Batches<'a, B> = Box<dyn ExactSizeIterator<Item = B> + 'a>;

/// A data set, and the network that is to classify its items.
pub trait Lessons {
    /// The network.
    type Model: Module;
    /// Some items on a device.
    type Batch;

    /// Items of a part.
    fn items(&self, part: Part) -> usize;

    /// The batches of a training epoch, the same ones for the same recipe and epoch.
    fn training(&self, recipe: &Recipe, epoch: usize, device: &Device) -> Batches<'_, Self::Batch>;

    /// The items of a part in stored order, at most `batch` at a time.
    fn stored(&self, part: Part, batch: usize, device: &Device) -> Batches<'_, Self::Batch>;

    /// Class scores before the softmax, `[batch, classes]`.
    fn logits(model: &Self::Model, batch: &Self::Batch) -> Tensor<2>;

    /// Class numbers, `[batch]`, and the same on the host.
    fn labels(batch: &Self::Batch) -> (Tensor<1, Int>, &[u32]);

    /// The network after a step of the optimiser: what constraints leave of it.
    fn after_step(&self, model: Self::Model) -> Self::Model {
        model
    }
}
