//! Reweighted dynamic regularisation: structured sparsity without a rate per layer.
//!
//! Where ADMM is told how much of each layer stays, this adds to the loss a penalty on the groups of
//! each layer's pattern,
//!
//! ```text
//! lambda Σ_g alpha_g ‖W_g‖²,     alpha_g = 1 / (‖W_g‖² + epsilon) at the last refresh
//! ```
//!
//! which draws small groups to zero and leaves large ones alone: with coefficients that are fresh,
//! it counts the groups that are not near zero. After training, the groups that have become small are
//! pruned, and how many those are in which layer comes out of the training itself (Gong et al., ACM
//! TODAES 27(5), 2022; after Candès, Wakin and Boyd, 2008).
//!
//! 1. [`Reweighted::new`], for a [`Plan`](crate::Plan) of structured patterns, whose budgets do not
//!    matter here;
//! 2. [`penalty`](Reweighted::penalty) into the loss of every step,
//!    [`refresh`](Reweighted::refresh) every few epochs;
//! 3. [`prune`](Reweighted::prune) by a [`Threshold`], and masked retraining.
//!
//! | pattern | groups |
//! |---|---|
//! | filter, channel, column, connectivity, punched | those that stay or go |
//! | block column-row | the rows of every block, and its columns: each weight is in two groups |
//! | kernel patterns | of every kernel, the entries of its best pattern and the entries outside |
//!
//! Other patterns keep a fixed number of entries in every row or group and have no rates to find.
//!
//! A network with batch norms can shrink the weights before them without changing its output, and so
//! lower the penalty for nothing: the threshold is relative to each layer's own size, and folding the
//! norms before (`burn_sparse::nn::fold_batch_norm`) takes that freedom away.
//!
//! # Example
//! ```
//! use burn::nn::{Linear, LinearConfig};
//! use burn::optim::{GradientsParams, SgdConfig};
//! use burn::tensor::{Device, Distribution, Tensor};
//! use burn_admm::reweighted::{Reweighted, ReweightedConfig, Threshold};
//! use burn_admm::Plan;
//! use burn_sparse::Sparsity;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let device = Device::flex().autodiff();
//! let mut model: Linear = LinearConfig::new(8, 16).init(&device);
//! let x = Tensor::<2>::random([32, 8], Distribution::Default, &device);
//!
//! let plan = Plan::new(Sparsity::filter(0.5)?).with_last_linear_kept(false);
//! let config = ReweightedConfig::new().with_lambda(1e-2).with_learning_rate(0.1);
//! let mut reweighted = Reweighted::new(&model, &plan, config)?;
//! let mut optimizer = SgdConfig::new().init();
//! for step in 1..=20 {
//!     // A task that needs only four of the sixteen outputs.
//!     let loss = (model.forward(x.clone()).narrow(1, 0, 4) - 1.0).square().mean();
//!     let loss = loss + reweighted.penalty(&model);
//!     let gradients = GradientsParams::from_grads(loss.backward(), &model);
//!     model = optimizer.step(0.1, model, gradients);
//!     if step % 5 == 0 {
//!         reweighted.refresh(&model)?;
//!     }
//! }
//! let masks = reweighted.prune(&model, Threshold::new(0.5)?.keeping_one())?;
//! let model = masks.attach(model)?; // retrain what is left
//! # Ok(())
//! # }
//! ```

mod config;
mod error;
mod families;
mod solver;
mod state;
mod threshold;

pub use config::ReweightedConfig;
pub use error::ReweightedError;
pub use solver::Reweighted;
pub use threshold::Threshold;

#[cfg(test)]
mod tests;
