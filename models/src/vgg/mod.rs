//! VGG: Simonyan and Zisserman, *Very Deep Convolutional Networks for Large-Scale Image
//! Recognition*.

mod config;
mod layer;
mod network;

pub use config::{VggConfig, VggHead};
pub use layer::{VggClassifier, VggLayer};
pub use network::Vgg;
