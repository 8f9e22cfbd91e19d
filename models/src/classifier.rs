//! What training, packing and measuring need from a network.

use burn::module::Module;
use burn::tensor::Tensor;
use burn_sparse::nn::image_by_image;

/// A network that maps images to class scores.
///
/// Programs that train, pack or measure are written against this trait; [`Model`](crate::Model)
/// implements it for an architecture chosen at run time.
pub trait Classifier: Module {
    /// Class scores before the softmax.
    ///
    /// # Shapes
    /// - `images`: `[batch, channels, height, width]`
    /// - output: `[batch, classes]`
    ///
    /// # Panics
    /// When the number of channels, or for networks of a fixed input size that size, is wrong.
    fn forward(&self, images: Tensor<4>) -> Tensor<2>;

    /// What [`forward`](Self::forward) gives, without recording gradients and in the order that
    /// suits the device: on a CPU, image by image (see [`image_by_image`]).
    fn infer(&self, images: Tensor<4>) -> Tensor<2>
    where
        Self: Sync,
    {
        image_by_image(images, |image| self.forward(image))
    }

    /// The same function with every batch norm folded into the convolution before it, so that
    /// bias, residual addition and ReLU run inside the convolution's kernel. Batch norms that no
    /// convolution directly precedes, as in a [`DenseNet`](crate::DenseNet), stay.
    ///
    /// For inference: the running statistics become constants. A network without batch norm is
    /// returned as it is.
    fn fold(self) -> Self;

    /// The number of classes.
    fn classes(&self) -> usize;
}
