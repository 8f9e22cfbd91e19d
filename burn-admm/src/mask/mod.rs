//! Masks that keep pruned weights at zero whatever the optimiser does.

mod collection;
mod reparameterization;

pub use collection::{LayerMask, Masks, fold};
pub use reparameterization::Mask;

#[cfg(test)]
mod tests;
