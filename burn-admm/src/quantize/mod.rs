//! Weights in few bits, trained for it.
//!
//! Pruning constrains how many weights there are, quantisation what values they have. The order is
//! that of ADMM-NN (Ren et al., ASPLOS 2019): prune, retrain, quantise the survivors.
//!
//! 1. say which levels each weight gets: [`QuantPlan`], a [`Quantization`] per parameter by path
//!    pattern;
//! 2. draw the weights towards them while they train: [`QuantPlan::admm`], which is
//!    [`Admm`](crate::Admm) with another projection: the same penalty, the same updates;
//! 3. round and tune: [`QuantPlan::attach`] puts every weight on its levels and lets it train on,
//!    with straight-through gradients and learned intervals; after every step of the optimiser the
//!    weights are on levels and pruned weights are zero;
//! 4. [`fold`](crate::fold) writes the levels into the weights. Packing and checkpoints recognise them
//!    ([`burn_sparse::quant::Quantized::find`]); nobody has to tell them.
//!
//! | kind | levels | scope |
//! |---|---|---|
//! | [`Uniform`](LevelKind::Uniform) | equal intervals without zero | layer or output channel |
//! | [`PowersOfTwo`](LevelKind::PowersOfTwo) | powers of two | layer or output channel |
//! | [`Codebook`](LevelKind::Codebook) | k-means | layer or output channel |
//! | [`FixedPoint`](LevelKind::FixedPoint) | integer and fraction bits | layer or output channel |
//! | [`Symmetric`](LevelKind::Symmetric), [`Asymmetric`](LevelKind::Asymmetric) | integers and a scale | layer or output channel |
//!
//! Bits per layer are chosen under a budget of accuracy or bytes by [`QuantPlan::choose_bits`].
//! Activations get levels by [`ActivationQuantizer`], a layer of the model, with a range that is calibrated
//! by an [`Observer`] or learned.
//!
//! # Example
//! ```
//! use burn::nn::{Linear, LinearConfig};
//! use burn::optim::{AdamConfig, GradientsParams};
//! use burn::tensor::{Device, Distribution, Tensor};
//! use burn_admm::quantize::{QuantPlan, Quantization};
//! use burn_admm::{AdmmConfig, fold};
//! use burn_sparse::quant::Quantized;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let device = Device::flex().autodiff();
//! let mut model: Linear = LinearConfig::new(8, 4).init(&device);
//! let x = Tensor::<2>::random([32, 8], Distribution::Default, &device);
//! let loss = |model: &Linear| (model.forward(x.clone()) - 1.0).square().mean();
//!
//! let plan = QuantPlan::new(Quantization::uniform(3)?);
//! let mut admm = plan.admm(&model, AdmmConfig::new().with_rho(1e-2))?;
//! for _ in 0..3 {
//!     let mut optimizer = AdamConfig::new().init();
//!     for _ in 0..10 {
//!         let loss = loss(&model) + admm.penalty(&model);
//!         let gradients = GradientsParams::from_grads(loss.backward(), &model);
//!         model = optimizer.step(1e-2, model, gradients);
//!     }
//!     admm.update(&model)?;
//! }
//!
//! // Every weight on its level, and trained on from there.
//! let mut model = plan.attach(model)?;
//! let mut optimizer = AdamConfig::new().init();
//! for _ in 0..10 {
//!     let gradients = GradientsParams::from_grads(loss(&model).backward(), &model);
//!     model = optimizer.step(1e-3, model, gradients);
//! }
//! let weights = fold(model).weight.val().into_data().try_into_vec::<f32>().unwrap();
//! let quantized = Quantized::find(&weights, &[0, 32]).unwrap();
//! assert!(quantized.codes().bits() <= 3);
//! # Ok(())
//! # }
//! ```

mod activation;
mod attach;
mod bits;
mod error;
mod fit;
mod grid;
mod histogram;
mod levels;
mod plan;
mod projection;
mod saturation;
mod scheme;

pub use activation::{ActivationQuantizer, Observer};
pub use attach::OnLevels;
pub use bits::{BitBudget, BitChoice, BitsError, LayerBits};
pub use error::QuantizeError;
pub use grid::Grid;
pub use histogram::Histogram;
pub use plan::{QuantPlan, QuantRule};
pub use projection::OnGrid;
pub use saturation::Saturation;
pub use scheme::{LevelKind, Quantization, Scope};

#[cfg(test)]
mod tests;
