//! Densely connected networks: Huang, Liu, van der Maaten and Weinberger, *Densely Connected
//! Convolutional Networks*, CVPR 2017.

mod block;
#[cfg(feature = "shrink")]
mod channels;
mod config;
mod network;
mod shape;

pub use block::{DenseBlock, DenseLayer, DenseTransition};
pub use config::DenseNetConfig;
pub use network::{DenseFeatures, DenseNet};
