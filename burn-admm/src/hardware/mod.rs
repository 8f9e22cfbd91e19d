//! Pruning where it pays: ratios that the device rewards, and dense layers where it does not.
//!
//! A sparse layer is faster than a dense one only from some ratio on, its break-even. Pruned less than
//! that it costs accuracy and gains nothing, so it had better stay dense and leave its share of
//! the accuracy to layers that gain. Ren et al., "ADMM-NN" (ASPLOS 2019), section 4: they find the
//! break-even of one convolution by synthesis, 2.22; here it is measured on the device at hand.
//!
//! 1. [`break_even`] measures, for every layer of this workspace's kinds in a network, the time of random
//!    sparse weights against the dense layer's;
//! 2. [`hardware_aware`] finds ratios: as far as accuracy allows in proportion to the ratios it starts
//!    from, layers below break-even dense again, and then the others further, those with most
//!    multiplications first. What a ratio costs is asked of a short run; the result is confirmed by a
//!    full one.
//!
//! Both are for a plan to start training from: [`HardwareRatios::plan`].

mod aware;
mod break_even;

pub use aware::{
    Effort, HardwareConfig, HardwareError, HardwareLayer, HardwareRatios, LayerRatio,
    hardware_aware,
};
pub use break_even::{BreakEven, BreakEvenError, break_even};

#[cfg(test)]
mod tests;
