//! Residual networks: He, Zhang, Ren and Sun, *Deep Residual Learning for Image Recognition*.

mod block;
#[cfg(feature = "shrink")]
mod channels;
mod config;
mod network;
mod shape;

pub use block::{Block, BlockKind, Shortcut};
pub use config::ResNetConfig;
pub use network::ResNet;
