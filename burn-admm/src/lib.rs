//! ADMM pruning for any Burn module.
//!
//! Pruning asks for weights `W` that minimise a loss `f(W)` under a constraint `W ∈ S`, such as
//! "at most k non-zeros". The alternating direction method of multipliers keeps a feasible copy `Z`
//! and a scaled dual `U` of each constrained weight and alternates between three updates:
//!
//! ```text
//! W ← argmin f(W) + Σ rho/2 ‖W − Z + U‖²     by any optimiser, for some steps or epochs
//! Z ← Π(W + U)                               Π: the nearest point of S
//! U ← U + W − Z                              and U ← U · rho/rho' whenever rho becomes rho'
//! ```
//!
//! so that the weights drift towards the constraint while they are still free to make up for it.
//! Afterwards they are projected once and for all, and what is left is retrained under a mask.
//!
//! | Stage | Here |
//! |---|---|
//! | say what may stay | [`Plan`]: a [`Sparsity`](burn_sparse::Sparsity) per parameter, by path pattern |
//! | train under it | [`Admm`]: [`penalty`](Admm::penalty) into the loss, [`update`](Admm::update) per outer iteration |
//! | project and retrain | [`Masks`], attached to the unmodified model; [`fold`] writes them into the weights |
//! | look at what came out | [`SparsityReport`] |
//! | find the rates in training instead | [`reweighted`]: a penalty on groups, and a threshold |
//! | cut emptied channels out | [`shrink`]: a smaller dense network with the same output |
//! | prune within one training run | [`click_train`] |
//! | let layers find their own rates, and take back what hurts | [`evolve`]: trials and rewinding |
//! | prune only where the device rewards it | [`hardware`]: measured break-even ratios |
//! | give what is left few bits | [`quantize`]: levels by ADMM, then straight-through training |
//! | have fewer channels between instead | [`decompose`]: Tucker, CP and truncated SVDs |
//! | know what each layer would take | [`mapping`]: tables of times, and a model between them |
//! | or share kernels between channels | [`penni`]: a basis for each layer, and sparse coefficients |
//! | keep what the large network knew | [`Distillation`]: its outputs as targets |
//! | write all of it down, and go on where it was | [`recipe`]: the stages of a run as one value |
//! | compare | [`baseline`]: magnitude pruning in one shot and gradually |
#![cfg_attr(
    feature = "train",
    doc = "| let Burn's trainer do it | [`train`]: the same as a wrapper around your model |"
)]
//!
//! Models need no change: parameters are found by walking the [`Module`](burn::module::Module).
//!
//! # A complete loop
//! ```
//! use burn::module::Module;
//! use burn::nn::{Linear, LinearConfig};
//! use burn::optim::{AdamConfig, GradientsParams};
//! use burn::tensor::{Device, Distribution, Tensor, activation::relu};
//! use burn_admm::{Admm, AdmmConfig, Masks, Plan, SparsityReport, fold};
//! use burn_sparse::Sparsity;
//!
//! #[derive(Module, Debug)]
//! struct Mlp {
//!     hidden: Linear,
//!     head: Linear,
//! }
//!
//! impl Mlp {
//!     fn loss(&self, x: Tensor<2>, y: Tensor<2>) -> Tensor<1> {
//!         let difference = self.head.forward(relu(self.hidden.forward(x))) - y;
//!         difference.clone().mul(difference).mean()
//!     }
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let device = Device::flex().autodiff();
//! let mut model = Mlp {
//!     hidden: LinearConfig::new(8, 32).init(&device),
//!     head: LinearConfig::new(32, 4).init(&device),
//! };
//! let x = Tensor::random([64, 8], Distribution::Default, &device);
//! let y = x.clone().slice([0..64, 0..4]);
//!
//! // 1. Which weights may stay. `explain` prints a table with the reason for each parameter.
//! let plan = Plan::new(Sparsity::row_balanced(0.75)?);
//! println!("{}", plan.explain(&model)?);
//!
//! // 2. Train under it: the penalty goes into the loss, an update ends each outer iteration.
//! let mut admm = Admm::new(&model, &plan, AdmmConfig::new().with_rho(1e-2))?;
//! for _ in 0..5 {
//!     // A fresh optimiser (or learning-rate schedule) for each outer iteration.
//!     let mut optimizer = AdamConfig::new().init();
//!     for _ in 0..10 {
//!         let loss = model.loss(x.clone(), y.clone()) + admm.penalty(&model);
//!         admm.check_loss(loss.clone().into_scalar::<f32>().into())?;
//!         let gradients = GradientsParams::from_grads(loss.backward(), &model);
//!         model = optimizer.step(1e-2, model, gradients);
//!     }
//!     println!("{}", admm.update(&model)?);
//!     // Stop at any point: `model.clone().save_file(..)`, `optimizer.save(..)`, `admm.save(..)`;
//!     // go on with `load_file`, `load` and `Admm::resume`, bit for bit the same.
//! }
//!
//! // 3. Project, and retrain what is left with a fresh optimiser and no penalty.
//! let masks = Masks::project(&model, admm.plan())?;
//! model = masks.attach(model)?;
//! let mut optimizer = AdamConfig::new().init();
//! for _ in 0..20 {
//!     let loss = model.loss(x.clone(), y.clone());
//!     let gradients = GradientsParams::from_grads(loss.backward(), &model);
//!     model = optimizer.step(1e-2, model, gradients);
//! }
//!
//! // 4. Write the zeros into the weights, and count them there.
//! let model = fold(model);
//! let report = SparsityReport::new(&model)?;
//! assert_eq!(report.layer("hidden.weight").unwrap().nnz, 32 * 2);
//! println!("{report}");
//! # Ok(())
//! # }
//! ```
//!
//! # References
//! - Boyd, Parikh, Chu, Peleato, Eckstein: *Distributed optimization and statistical learning via
//!   the alternating direction method of multipliers*, 2011 (scaled form: section 3.1.1; rho:
//!   section 3.4.1).
//! - Zhang et al.: *A systematic DNN weight pruning framework using alternating direction method of
//!   multipliers*, ECCV 2018.
//! - Ren et al.: *ADMM-NN: an algorithm-hardware co-design framework of DNNs using alternating
//!   direction methods of multipliers*, ASPLOS 2019.
//! - Pietroń and Żurek: *When deep learning models on GPU can be accelerated by taking advantage of
//!   unstructured sparsity*, 2020 (row-balanced weights, evolutionary pruning).
//! - Niu et al.: *PatDNN: achieving real-time DNN execution on mobile devices with pattern-based weight
//!   pruning*, ASPLOS 2020 (kernel patterns and connectivity, two duals).
//! - Dong et al.: *RTMobile: beyond real-time mobile acceleration of RNNs for speech recognition*, DAC
//!   2020, and Niu et al.: *GRIM*, TPAMI 2021 (columns and rows of blocks).
//! - Gong et al.: *Automatic mapping of the best-suited DNN pruning schemes for real-time mobile
//!   acceleration*, ACM TODAES 27(5), 2022 (punched blocks, reweighted regularisation).
//! - Yin, Sui, Liao, Yuan: *Towards efficient tensor decomposition-based DNN model compression with
//!   optimization framework*, CVPR 2021 (Tucker ranks as the constraint).
//! - Li, Liu, Wu, Chen: *PENNI: pruned kernel sharing for efficient CNN inference*, ICML 2020.
//! - Zhu and Gupta: *To prune, or not to prune*, 2017 (gradual pruning).

pub mod admm;
mod atomic;
pub mod baseline;
pub mod click_train;
mod constant;
pub mod decompose;
mod distill;
pub mod evolve;
pub mod hardware;
mod knapsack;
mod layout;
pub mod mapping;
pub mod mask;
mod params;
pub mod penni;
pub mod plan;
pub mod projection;
pub mod quantize;
pub mod recipe;
pub mod report;
pub mod reweighted;
pub mod shrink;
mod state_file;
mod table;
#[cfg(test)]
mod testing;
#[cfg(feature = "train")]
pub mod train;

pub use admm::{Admm, AdmmConfig, AdmmError, AdmmInfo, RhoSchedule};
pub use distill::Distillation;
pub use layout::MatrixView;
pub use mask::{Mask, Masks, fold};
pub use params::Role;
pub use plan::{Plan, PlanError};
pub use projection::Projection;
pub use recipe::Recipe;
pub use report::SparsityReport;
