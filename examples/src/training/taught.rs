//! A teacher whose outputs are targets.

use std::fmt;

use burn::tensor::Tensor;
use burn_admm::Distillation;
use models::Classifier;

/// A network that is not trained, as a function of images, and how much its outputs count.
pub(super) struct Teacher {
    forward: Box<dyn Fn(Tensor<4>) -> Tensor<2>>,
    distillation: Distillation,
}

impl fmt::Debug for Teacher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Teacher")
            .field("distillation", &self.distillation)
            .finish_non_exhaustive()
    }
}

impl Teacher {
    /// This network, as it is in inference.
    pub(super) fn new<M: Classifier + 'static>(model: &M, distillation: Distillation) -> Self {
        let model = model.valid();
        Self {
            forward: Box::new(move |images| model.forward(images)),
            distillation,
        }
    }

    /// The loss on labels and the divergence from what the teacher says of `images`, which need no
    /// gradient.
    pub(super) fn loss(&self, loss: Tensor<1>, logits: Tensor<2>, images: Tensor<4>) -> Tensor<1> {
        let targets = Tensor::from_inner((self.forward)(images.inner()));
        self.distillation.loss(loss, logits, targets)
    }
}
