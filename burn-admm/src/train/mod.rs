//! ADMM inside the trainer of `burn-train`.
//!
//! [`AdmmTraining`] wraps a model that implements Burn's `TrainStep` and `InferenceStep`. The
//! wrapper adds the gradient of the penalty to the gradients of every step and ends an outer
//! iteration after every so many optimiser steps. Inputs, outputs, parameter paths and checkpoints
//! are those of the model itself, so all of its metrics work as before.
//!
//! ```no_run
//! use burn::lr_scheduler::constant::ConstantLr;
//! use burn::optim::SgdConfig;
//! use burn::train::metric::{AccuracyMetric, LossMetric};
//! use burn::train::{Learner, SupervisedTraining};
//! # use burn::train::{ClassificationOutput, InferenceStep, TrainStep};
//! use burn_admm::train::{AdmmModel, AdmmTraining};
//! use burn_admm::{Admm, AdmmConfig, Masks, Plan, fold};
//! use burn_sparse::Sparsity;
//! # use std::sync::Arc;
//! # use burn::data::dataloader::DataLoader;
//! # fn prune<M>(
//! #     model: M,
//! #     train: Arc<dyn DataLoader<<M as TrainStep>::Input>>,
//! #     valid: Arc<dyn DataLoader<<M as TrainStep>::Input>>,
//! # ) -> Result<(), Box<dyn std::error::Error>>
//! # where
//! #     M: burn::module::Module + core::fmt::Display + 'static
//! #         + TrainStep<Output = ClassificationOutput>
//! #         + InferenceStep<Input = <M as TrainStep>::Input, Output = ClassificationOutput>,
//! # {
//!
//! let plan = Plan::new(Sparsity::row_balanced(0.9)?);
//! let admm = Admm::new(&model, &plan, AdmmConfig::new())?;
//! let resolved = admm.plan().clone();
//! let training = AdmmTraining::new(admm, 2 * 390); // two epochs of 390 batches
//! let supervised = SupervisedTraining::<AdmmModel<M>>::new("run", train, valid)
//!     .metrics((AccuracyMetric::new(), LossMetric::new()))
//!     .with_default_checkpointers()
//!     .num_epochs(20);
//! let supervised = training.register(supervised, "run");
//!
//! let learner = Learner::new(training.wrap(model), SgdConfig::new().init(), ConstantLr::new(1e-2));
//! let result = supervised.launch(learner);
//! training.result()?; // a divergence is an error here
//!
//! let model = result.model.into_inner();
//! let masks = Masks::project(&model, &resolved)?;
//! let model = masks.attach(model)?; // retrain it like any other model, then fold it
//! # let _ = fold(model);
//! # Ok(())
//! # }
//! ```

mod checkpoint;
mod handle;
mod metric;
mod model;
mod renderer;

pub use checkpoint::{AdmmCheckpoints, state_path};
pub use handle::AdmmTraining;
pub use metric::ValueMetric;
pub use model::AdmmModel;
pub use renderer::LineRenderer;
