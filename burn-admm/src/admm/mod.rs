//! The alternating direction method of multipliers over the weights of a module.

mod config;
mod core;
mod error;
mod info;
mod layer;
mod penalty;
mod schedule;
mod state;

pub use self::config::AdmmConfig;
pub use self::core::Admm;
pub use self::error::{AdmmError, Divergence, StateError};
pub use self::info::{AdmmInfo, LayerInfo};
pub use self::schedule::RhoSchedule;

pub(crate) use self::core::read_layers;
pub(crate) use self::layer::project;

#[cfg(test)]
mod tests;
