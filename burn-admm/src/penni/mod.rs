//! Kernels that the channels of a layer share, with sparse coefficients (PENNI).
//!
//! The `N·C` kernels of a convolution are written as combinations of `d` of them, which the whole layer
//! shares; then most coefficients of these combinations are pruned, and channels that nothing uses any more
//! are cut out of the network.
//!
//! ```text
//! W ≈ A · M          W: (N·C) × k²     A: (N·C) × d     M: d × k²
//!
//! loss of training   L(A·M) + λ Σ|A|          A moves for some epochs, then M, then A again
//! pruning            A_i ← 0 where |A_i| < t · std(A), with orthonormal M
//! fine-tuning        L(A·M), zeros stay
//! ```
//!
//! Sharing alone saves little: `d` kernels on each channel and all coefficients cost
//! `d/N + d/k²` of the layer's multiply-adds. It is the zeros of `A` that count, and training with the
//! penalty makes them.
//!
//! | | |
//! |---|---|
//! | which layers, how many kernels | [`PenniPlan`], [`PenniReport`] |
//! | what that loses | [`KernelSpectrum`] |
//! | training | [`Penni`], beside a model that knows nothing of it |
//! | pruning | [`Penni::prune`], [`SharedReport`] |
//! | cutting channels out | [`shrink`](fn@crate::shrink::shrink), then [`Penni::shrunk`] for the factors of what is left |
//! | running | [`share`], then [`burn_sparse::pack`](fn@burn_sparse::pack::pack) |
//!
//! # Shrinking
//! A filter whose coefficients are all zero gives the same number everywhere, and a channel whose
//! coefficients are all zero is not read: [`shrink`](mod@crate::shrink) sees both in the composed weights,
//! and goes on to a fixed point. What an emptied filter gives after its norm and ReLU, `max(0, β + γ (b −
//! μ) / √(σ² + ε))`, is rarely zero. It moves into the bias of the layer that reads it, or into the running
//! mean of the norm behind that layer, wherever that is exact: without padding, in 1×1 convolutions, and
//! through pooling into linear layers. A convolution with zero padding would see zeros at the border
//! instead, so there [`Constants::Keep`](crate::shrink::Constants) keeps a channel unless its constant is
//! zero, and the shrunk network gives what the other one gave.
//!
//! # Example
//! ```
//! use burn::module::Module;
//! use burn::nn::conv::{Conv2d, Conv2dConfig};
//! use burn::optim::momentum::MomentumConfig;
//! use burn::optim::{GradientsParams, SgdConfig};
//! use burn::tensor::{Device, Distribution, Tensor};
//! use burn_admm::penni::{Penni, PenniConfig, PenniPlan};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let device = Device::flex().autodiff();
//! let mut model: Conv2d = Conv2dConfig::new([4, 8], [3, 3]).init(&device);
//! let x = Tensor::<4>::random([2, 4, 8, 8], Distribution::Default, &device);
//!
//! // 1. Five kernels instead of 32. `explain` says what that loses.
//! let plan = PenniPlan::new(5);
//! println!("{}", plan.explain(&model)?);
//! let mut penni = Penni::new(&model, &plan, PenniConfig::new().with_lambda(1e-3))?;
//! model = penni.compose(model)?;
//!
//! // 2. Train coefficients and kernels in turns; then prune, and train what is left.
//! for stage in ["alternate", "fine-tune"] {
//!     let momentum = MomentumConfig::new().with_nesterov(true);
//!     let mut optimizer = SgdConfig::new().with_momentum(Some(momentum)).init();
//!     for _epoch in 0..4 {
//!         for _step in 0..5 {
//!             let loss = (model.forward(x.clone()) - 0.1).square().mean();
//!             let gradients = GradientsParams::from_grads(loss.backward(), &model);
//!             let gradients = penni.step(&model, 0.05, &mut optimizer, gradients)?;
//!             model = penni.compose(optimizer.step(0.05, model, gradients))?;
//!         }
//!         penni.end_epoch()?;
//!     }
//!     if stage == "alternate" {
//!         println!("{}", penni.prune()?);
//!         model = penni.compose(model)?;
//!     }
//! }
//! let (path, shared) = &penni.shared()?[0];
//! assert_eq!((path.as_str(), shared.count()), ("weight", 5));
//! assert!(shared.nnz() < 4 * 8 * 5);
//! # Ok(())
//! # }
//! ```
//!
//! # Source
//! Li, Liu, Wu, Chen: *PENNI: pruned kernel sharing for efficient CNN inference*, ICML 2020: shared basis
//! kernels, alternating training, pruning and shrinking. Different here: rows are not centred, the factor
//! that rests gets no update at all, kernels are made orthonormal before coefficients are compared, and a
//! constant is folded only where that is exact.

mod config;
mod error;
mod factors;
mod kernels;
mod plan;
mod prune;
mod share;
mod state;
#[cfg(test)]
mod tests;
mod train;

pub use config::{PenniConfig, Phase};
pub use error::PenniError;
pub use kernels::{KernelSpectrum, SharedKernels};
pub use plan::{PenniDecision, PenniPlan, PenniReport, PenniRule};
pub use prune::{SharedLayer, SharedReport};
pub use share::share;
pub use train::Penni;
