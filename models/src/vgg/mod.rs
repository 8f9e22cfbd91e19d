//! VGG: Simonyan and Zisserman, *Very Deep Convolutional Networks for Large-Scale Image
//! Recognition*.

#[cfg(feature = "shrink")]
mod channels;
mod config;
pub(crate) mod layer;
mod network;

#[cfg(feature = "shrink")]
pub(crate) use channels::trace;
pub use config::{VggConfig, VggHead};
pub use layer::{VggClassifier, VggLayer};
pub use network::Vgg;
