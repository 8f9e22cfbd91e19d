//! Pruning within one ordinary training run (Zhang et al., "`ClickTrain`", ICS 2021).
//!
//! ADMM needs a trained network, and then trains it twice more. This needs the epochs of one training
//! run, which it divides:
//!
//! | stage | what happens |
//! |---|---|
//! | warm-up | ordinary training; each weight gathers its importance `I ← decay · I + (1 − decay) · (g·w)²`, the first-order change of the loss if it went |
//! | patterns | once: of each constrained layer the mask that keeps most importance, with kernel patterns found in the whole network |
//! | regularised | a group lasso on what the mask drops, kernel by kernel: `lambda Σ_k ‖W_k outside‖₂` |
//! | pruned | the mask is attached; what is left trains on |
//!
//! The published method chooses kernel patterns and connectivity; here any
//! [`Sparsity`](burn_sparse::Sparsity) of a [`Plan`](crate::Plan) can be chosen by importance, since a
//! projection of `√I` keeps the entries of largest summed importance.
//!
//! # Example
//! ```
//! use burn::nn::{Linear, LinearConfig};
//! use burn::optim::{GradientsParams, SgdConfig};
//! use burn::tensor::{Device, Distribution, Tensor};
//! use burn_admm::click_train::{ClickTrain, ClickTrainConfig, Stage};
//! use burn_admm::{Masks, Plan};
//! use burn_sparse::Sparsity;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let device = Device::flex().autodiff();
//! let mut model: Linear = LinearConfig::new(8, 4).init(&device);
//! let x = Tensor::<2>::random([32, 8], Distribution::Default, &device);
//! let plan = Plan::new(Sparsity::row_balanced(0.5)?).with_last_linear_kept(false);
//!
//! let steps = 30;
//! let mut click = ClickTrain::new(&model, &plan, ClickTrainConfig::of_run(steps))?;
//! let mut optimizer = SgdConfig::new().init();
//! for _ in 0..steps {
//!     let mut loss = model.forward(x.clone()).square().mean();
//!     if let Some(penalty) = click.penalty(&model) {
//!         loss = loss + penalty;
//!     }
//!     let gradients = GradientsParams::from_grads(loss.backward(), &model);
//!     click.observe(&model, &gradients);
//!     model = optimizer.step(0.1, model, gradients);
//!     model = click.step(model)?;
//! }
//! assert_eq!(click.stage(), Stage::Pruned);
//! assert_eq!(Masks::attached(&model).nnz(), 4 * 4);
//! # Ok(())
//! # }
//! ```

mod config;
mod error;
mod importance;
mod run;
mod state;

pub use config::{ClickTrainConfig, Stage};
pub use error::ClickTrainError;
pub use run::ClickTrain;

#[cfg(test)]
mod tests;
