//! `MobileNetV2`: Sandler, Howard, Zhu, Zhmoginov and Chen, *`MobileNetV2`: Inverted Residuals and
//! Linear Bottlenecks*.

mod block;
mod config;
mod network;
mod shape;

pub use block::{InvertedBranch, InvertedResidual};
pub use config::{MobileNetStage, MobileNetV2Config};
pub use network::{MobileNetLayer, MobileNetV2};
