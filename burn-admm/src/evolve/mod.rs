//! Evolutionary pruning with rewinding (Pietroń and Żurek, 2020, algorithm 1).
//!
//! Other methods are told how sparse each layer is to be. This one finds out: it tries more, trains for
//! some batches, looks at the accuracy, and takes back what went wrong.
//!
//! | | |
//! |---|---|
//! | [`begin`](Evolution::begin) | proposes a *sparsity vector*, one number for each layer, and copies weights, masks, optimiser and random state |
//! | [`observe`](Evolution::observe), [`step`](Evolution::step) | in every batch: the mask is chosen anew by magnitude and gradient ([`scores`]); pruned weights train on unseen ([`LiveMask`]) and may come back |
//! | [`end`](Evolution::end) | keeps the network, or rewinds all of it if accuracy fell by more than `ε` below the best |
//!
//! After a trial that was kept some layers grow by a step,
//!
//! ```text
//! Δ_l = step · (1 − s_l) / ((1 + sens_l) · (1 + damping · migration_l))
//! sens_l      ← memory · sens_l + (1 − memory) · ((accuracy before − after) / ε) / (part of a step that it grew)
//! migration_l   |entered ∪ left its mask| / |its mask|, mean over the batches of a trial
//! ```
//!
//! and are chosen with probabilities proportional to `1 / (1 + sens_l)`. After a rewind the next vector
//! is a mutation of one that did well, or a crossing of two. A population keeps those; when it is full,
//! k-means groups them, and the best few of each group stay, so that not all become alike.
//!
//! Between trials the network never gets denser, and its accuracy is never more than `ε` below the best
//! that it had.
//!
//! # What was left open, and how it is here
//! - The algorithm keeps a population of networks. Here one network has a population of vectors: the
//!   batches that there are train one network instead of being shared between several.
//! - Steps are parts of what a layer still has. Steps of a fixed size would be nothing at first and
//!   everything in the end: from 0.95 to 0.97 two fifths of the layer go.
//! - Which number high migration lowers is not known. Here it is the step.
//! - A layer is drawn by its sensitivity in units of the tolerance. In fractions of accuracy all would be
//!   near zero, and all layers alike.
//! - Rewinding loses what was learnt in the trial. After some rewinds in a row a trial changes nothing, so
//!   that a network at its limit can train. A rewound trial that is tried again with the same batches
//!   ends the same way: where the optimiser's own step loses more than the tolerance in one trial, as a
//!   high learning rate does, nothing is kept any more. Lower the rate, or train longer trials.
//!
//! # Example
//! ```
//! use burn::nn::{Linear, LinearConfig};
//! use burn::optim::{AdamConfig, GradientsParams};
//! use burn::tensor::{Device, Distribution, Tensor};
//! use burn_admm::evolve::{Evolution, EvolveConfig};
//! use burn_admm::{Masks, Plan, fold};
//! use burn_sparse::Sparsity;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let device = Device::flex().autodiff();
//! device.seed(7);
//! let mut model: Linear = LinearConfig::new(16, 4).init(&device);
//! let x = Tensor::<2>::random([32, 16], Distribution::Default, &device);
//! let y = x.clone().slice([0..32, 0..4]);
//! let loss = |model: &Linear| (model.forward(x.clone()) - y.clone()).square().mean();
//! // Any number that grows as the network gets better.
//! let accuracy = |model: &Linear| -f64::from(loss(model).into_scalar::<f32>());
//!
//! // The layers, and the most that each may lose.
//! let plan = Plan::new(Sparsity::unstructured(0.95)?).with_last_linear_kept(false);
//! let config = EvolveConfig::new().with_tolerance(0.01);
//! let mut evolution = Evolution::new(&model, &plan, config, accuracy(&model))?;
//! model = evolution.attach(model)?;
//! let mut optimizer = AdamConfig::new().init();
//! for _trial in 0..20 {
//!     evolution.begin(&model, &optimizer)?;
//!     for _batch in 0..10 {
//!         let gradients = GradientsParams::from_grads(loss(&model).backward(), &model);
//!         evolution.observe(&model, &gradients)?;
//!         model = optimizer.step(5e-3, model, gradients);
//!         evolution.step(&mut model)?;
//!     }
//!     let now = accuracy(&model);
//!     let verdict = evolution.end(&mut model, &mut optimizer, now)?;
//!     println!("{verdict}");
//!     // `evolution.save(..)` with the records of model and optimiser; `Evolution::resume(..)` goes on.
//! }
//! assert!(evolution.sparsity() > 0.3);
//! assert!(accuracy(&model) >= evolution.best() - 0.01);
//!
//! // What it has found, as an ordinary mask: retrain under it, fold, pack.
//! let model = evolution.masks().attach(model)?;
//! assert_eq!(Masks::attached(&model).nnz(), evolution.present().nnz);
//! let model = fold(model);
//! # let _: Linear = model;
//! # Ok(())
//! # }
//! ```

mod cluster;
mod config;
mod error;
mod live_mask;
mod observe;
mod population;
mod propose;
mod run;
mod score;
mod snapshot;
mod space;
mod state;
mod statistics;
mod verdict;
mod view;

pub use config::EvolveConfig;
pub use error::EvolveError;
pub use live_mask::LiveMask;
pub use population::Individual;
pub use propose::Origin;
pub use run::Evolution;
pub use score::scores;
pub(crate) use snapshot::settle;
pub use statistics::{Statistics, migration};
pub use verdict::{Candidate, Verdict};

#[cfg(test)]
mod tests;
