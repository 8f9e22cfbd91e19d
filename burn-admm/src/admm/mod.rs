//! The alternating direction method of multipliers over the weights of a module.

mod config;
mod error;
mod info;
mod layer;
mod penalty;
mod schedule;
mod set;
mod solver;
mod state;

pub use config::AdmmConfig;
pub use error::{AdmmError, Divergence, StateError};
pub use info::{AdmmInfo, LayerInfo, SetInfo};
pub use schedule::RhoSchedule;
pub use solver::{Admm, SetState};

pub(crate) use layer::project;
pub(crate) use solver::{in_order, read_layers};

#[cfg(test)]
mod tests;
