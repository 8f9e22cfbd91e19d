//! A whole compression run as one value that is written down, checked, explained, carried out and gone on with.
//!
//! A [`Recipe`] is a list of [`Stage`]s in their order. Each calls what the crate has; what it adds is that they
//! come one after the other, that masks hold from stage to stage, and that nobody has to write the loop over them:
//!
//! | stage | does | with |
//! |---|---|---|
//! | [`choose`](Choose) | a plan within a budget | [`mapping`](crate::mapping) |
//! | [`train`](Train) | trains under the masks and levels that there are | your loop |
//! | [`admm`](AdmmPruning) | ADMM towards a plan, then projection | [`Admm`](crate::Admm), [`Masks`](crate::Masks) |
//! | [`one_shot`](OneShot), [`gradual`](GradualPruning) | the rivals of ADMM | [`baseline`](crate::baseline) |
//! | [`quantise`](Quantise) | levels for what is left | [`quantize`](crate::quantize) |
//! | [`shrink`](Shrink) | cuts emptied channels out | [`shrink`](crate::shrink) |
//! | [`pack`](Pack) | packs, and compares with the masked network | [`burn_sparse::pack`] |
//!
//! Data, loss and learning rate are yours: [`TrainingLoop`] says how an epoch of your model goes.
//!
//! # Order
//! A plan is chosen before anything is pruned, and some stage must follow it. Stages that prune add up. Weights are
//! quantised once, and not pruned afterwards: masks would take their levels away. After channels were cut out only
//! packing may follow, and packing is last. Everything else is refused ([`RecipeError`]) before anything is trained.
//!
//! # Example
//! ```
//! use burn::module::Module;
//! use burn::optim::{AdamConfig, GradientsParams, ModuleOptimizer};
//! use burn::tensor::{Device, Distribution, Tensor, TensorData, activation::relu};
//! use burn_admm::recipe::{Epoch, LoopError, Recipe, TrainingLoop};
//! use burn_sparse::nn::{Linear, LinearConfig};
//!
//! #[derive(Module, Debug)]
//! struct Mlp {
//!     hidden: Linear,
//!     head: Linear,
//! }
//!
//! impl Mlp {
//!     fn forward(&self, x: Tensor<2>) -> Tensor<2> {
//!         self.head.forward(relu(self.hidden.forward(x)))
//!     }
//! }
//!
//! /// Your data; here one batch.
//! struct Training(Tensor<2>, Tensor<2>);
//!
//! impl TrainingLoop for Training {
//!     type Model = Mlp;
//!
//!     fn optimizer(&self) -> ModuleOptimizer {
//!         AdamConfig::new().init()
//!     }
//!
//!     fn epoch(&mut self, mut model: Mlp, optimizer: &mut ModuleOptimizer, epoch: &Epoch<'_>) -> Result<Mlp, LoopError> {
//!         for _ in 0..10 {
//!             let loss = (model.forward(self.0.clone()) - self.1.clone()).square().mean();
//!             let loss = epoch.loss(loss, &model); // with the penalty, where there is one
//!             let gradients = GradientsParams::from_grads(loss.backward(), &model);
//!             model = optimizer.step(epoch.lr(1e-2), model, gradients);
//!         }
//!         Ok(model)
//!     }
//!
//!     fn accuracy(&mut self, model: &Mlp) -> Result<f64, LoopError> {
//!         let off = model.forward(self.0.clone().inner()) - self.1.clone().inner();
//!         Ok(1.0 - f64::from(off.square().mean().into_scalar::<f32>()))
//!     }
//!
//!     fn forward(&self, model: &Mlp) -> TensorData {
//!         model.forward(self.0.clone().inner()).into_data()
//!     }
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let device = Device::flex().autodiff();
//! let model = Mlp {
//!     hidden: LinearConfig::new(8, 32).init(&device),
//!     head: LinearConfig::new(32, 4).init(&device),
//! };
//! let x = Tensor::random([64, 8], Distribution::Default, &device);
//! let y = x.clone().slice([0..64, 0..4]);
//!
//! let recipe = Recipe::from_json(r#"{"stages": [
//!     {"stage": "train", "epochs": 2},
//!     {"stage": "admm", "iterations": 3, "config": {"rho": 0.01},
//!      "plan": {"default": {"sparse": {"kind": "row_balanced", "budget": {"sparsity": 0.75}}}}},
//!     {"stage": "train", "epochs": 2, "lr": 0.005},
//!     {"stage": "pack", "choice": "csr"}
//! ]}"#)?;
//! println!("{}", recipe.explain(&model)?);
//! let compressed = recipe.run(model, &mut Training(x, y))?;
//! println!("{}", compressed.report);
//! assert_eq!(compressed.report.stages[1].after.nnz, 32 * 2 + 32 * 4);
//! assert!(compressed.model.hidden.weight.packed().is_some());
//! # Ok(())
//! # }
//! ```

mod check;
mod choose;
mod dress;
mod error;
mod explain;
mod read;
mod report;
mod run;
mod stage;
mod state;
#[cfg(test)]
mod tests;
mod training;
mod work;

use std::path::Path;

use serde::{Deserialize, Serialize};

pub use error::{RecipeError, StageError};
pub use explain::{ExplainedParameter, ExplainedStage, RecipeExplanation};
pub use report::{RecipeReport, StageReport, Standing};
pub use run::Compressed;
pub use stage::{
    AdmmPruning, Choose, ChooseBy, GradualPruning, OneShot, Pack, Quantise, Shrink, Stage, Train,
};
pub use training::{Epoch, LoopError, TrainingLoop};

/// The stages of a compression run, in their order; see the [module documentation](crate::recipe).
///
/// There is none that contradicts itself: it is checked when it is made and when it is read.
///
/// # Example
/// ```
/// use burn_admm::Plan;
/// use burn_admm::recipe::{AdmmPruning, Pack, Recipe, Train};
/// use burn_sparse::Sparsity;
///
/// let plan = Plan::new(Sparsity::row_balanced(0.9)?);
/// let recipe = Recipe::new([
///     AdmmPruning::new(plan, 8).into(),
///     Train::new(5).into(),
///     Pack::default().into(),
/// ])?;
/// assert_eq!(Recipe::from_json(&recipe.to_json())?, recipe);
///
/// let error = Recipe::new([Pack::default().into(), Train::new(5).into()]).unwrap_err();
/// assert_eq!(error.to_string(), "stages[0] (pack): packing must be the last stage, and `train` follows");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "serde_json::Value")]
pub struct Recipe {
    stages: Vec<Stage>,
}

impl TryFrom<serde_json::Value> for Recipe {
    type Error = RecipeError;

    fn try_from(recipe: serde_json::Value) -> Result<Self, RecipeError> {
        Self::new(read::stages(recipe)?)
    }
}

impl Recipe {
    /// These stages, checked.
    ///
    /// # Errors
    /// [`RecipeError::Stages`], [`RecipeError::Field`] for a number out of range and a plan or budget that is missing or
    /// says nothing, [`RecipeError::Order`] for stages that contradict each other.
    pub fn new(stages: impl Into<Vec<Stage>>) -> Result<Self, RecipeError> {
        let stages = stages.into();
        check::check(&stages)?;
        Ok(Self { stages })
    }

    /// The stages.
    pub fn stages(&self) -> &[Stage] {
        &self.stages
    }

    /// Epochs of training in all stages, without those of choices.
    pub fn epochs(&self) -> usize {
        let epochs = self.stages.iter().map(Stage::epochs);
        epochs.fold(0, usize::saturating_add)
    }

    /// Reads a recipe from JSON of at most 256 KiB.
    ///
    /// # Errors
    /// [`RecipeError::Json`] for text that is no recipe at all, [`RecipeError::Field`] naming stage and field for
    /// unknown stages, fields that are missing, unknown or of another type, and the errors of [`new`](Self::new).
    pub fn from_json(json: &str) -> Result<Self, RecipeError> {
        if json.len() > read::MOST_BYTES {
            let (bytes, most) = (json.len(), read::MOST_BYTES);
            return Err(RecipeError::Json(format!(
                "{bytes} bytes, more than {most}"
            )));
        }
        let value: serde_json::Value =
            serde_json::from_str(json).map_err(|error| RecipeError::Json(error.to_string()))?;
        Self::try_from(value)
    }

    /// The recipe as indented JSON.
    ///
    /// # Panics
    /// Never: every recipe can be written as JSON.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("a recipe has only strings and finite numbers")
    }

    /// Carries the recipe out on a model with gradients (built on `device.autodiff()`), with nothing on disk.
    ///
    /// # Errors
    /// [`RecipeError::Stage`] with the stage that does not fit the model or failed. Plans are tried on the model
    /// before anything is trained.
    ///
    /// # Panics
    /// If the loop does, or a device fails while masks are read.
    pub fn run<L: TrainingLoop>(
        &self,
        model: L::Model,
        training: &mut L,
    ) -> Result<Compressed<L::Model>, RecipeError> {
        run::run(self, model, training, None)
    }

    /// As [`run`](Self::run), with a state in `folder` that is saved after every epoch and every stage. Called
    /// again after an interruption, with a model of the same structure (its weights do not matter), the run goes on
    /// there, and ends with the weights with which it would have ended, bit for bit, if the loop is
    /// [the same every time](TrainingLoop). A run that has ended gives its result again.
    ///
    /// Times that a [choice](Choose) and [packing](Pack) go by are measured, and a stage that is interrupted while it
    /// measures may decide something else the second time; what was decided stays.
    ///
    /// # Errors
    /// As [`run`](Self::run), and [`RecipeError::State`] for a folder that cannot be written, or whose state is damaged,
    /// of another recipe or of another model.
    ///
    /// # Panics
    /// As [`run`](Self::run).
    pub fn run_in<L: TrainingLoop>(
        &self,
        folder: impl AsRef<Path>,
        model: L::Model,
        training: &mut L,
    ) -> Result<Compressed<L::Model>, RecipeError> {
        run::run(self, model, training, Some(folder.as_ref()))
    }
}
