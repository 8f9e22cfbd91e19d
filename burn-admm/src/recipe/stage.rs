//! What can be asked for.

use burn_sparse::pack::Choice;
use serde::{Deserialize, Serialize};

use crate::mapping::{Difficulty, MapBudget, OptionConfig};
use crate::quantize::QuantPlan;
use crate::shrink::ShrinkOptions;
use crate::{AdmmConfig, Plan};

/// One stage of a [`Recipe`](super::Recipe). In JSON `{"stage": "train", "epochs": 5}`: the name of the stage
/// beside its fields; those with a default may be left out.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "stage", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Stage {
    /// `choose`: the plan of later stages, by a budget.
    Choose(Choose),
    /// `train`: training under whatever masks and levels there are.
    Train(Train),
    /// `admm`: ADMM towards a plan, then projection.
    Admm(AdmmPruning),
    /// `one_shot`: projection at once.
    OneShot(OneShot),
    /// `gradual`: masks that grow from epoch to epoch.
    Gradual(GradualPruning),
    /// `quantise`: ADMM towards levels, rounding, and training on them.
    Quantise(Quantise),
    /// `shrink`: emptied channels are cut out.
    Shrink(Shrink),
    /// `pack`: layers in the form that is fastest, verified.
    Pack(Pack),
}

/// The names of all stages.
pub(super) const NAMES: [&str; 8] = [
    "choose", "train", "admm", "one_shot", "gradual", "quantise", "shrink", "pack",
];

impl Stage {
    /// Its name, as in JSON.
    pub fn name(&self) -> &'static str {
        let at = match self {
            Self::Choose(_) => 0,
            Self::Train(_) => 1,
            Self::Admm(_) => 2,
            Self::OneShot(_) => 3,
            Self::Gradual(_) => 4,
            Self::Quantise(_) => 5,
            Self::Shrink(_) => 6,
            Self::Pack(_) => 7,
        };
        NAMES[at]
    }

    /// Epochs of training in it. Those of a choice are not counted: how many it takes is not known before.
    pub fn epochs(&self) -> usize {
        match self {
            Self::Train(stage) => stage.epochs,
            Self::Admm(stage) => stage.iterations.saturating_mul(stage.epochs),
            Self::Gradual(stage) => stage.epochs,
            Self::Quantise(stage) => stage.towards().saturating_add(stage.tune_epochs),
            Self::Choose(_) | Self::OneShot(_) | Self::Shrink(_) | Self::Pack(_) => 0,
        }
    }

    /// The plan of a stage that prunes; none for one that follows a [choice](Choose).
    pub(super) fn plan(&self) -> Option<Option<&Plan>> {
        match self {
            Self::Admm(stage) => Some(stage.plan.as_ref()),
            Self::OneShot(stage) => Some(stage.plan.as_ref()),
            Self::Gradual(stage) => Some(stage.plan.as_ref()),
            _ => None,
        }
    }
}

/// Who chooses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChooseBy {
    /// The least sum of losses that layers alone cost ([`Offers::select`](crate::mapping::Offers::select)).
    #[default]
    Cost,
    /// The rules of [`map_by_rules`](crate::mapping::map_by_rules), at the lowest sparsity that is fast enough.
    Rules,
    /// A search by a [policy](crate::mapping::SearchMethod::Policy).
    Policy,
    /// A search by [chance](crate::mapping::SearchMethod::Random).
    Random,
    /// A search by [evolution](crate::mapping::SearchMethod::Evolution).
    Evolution,
}

/// Chooses a plan within a budget: layers are timed and pruned one at a time, see [`mapping`](crate::mapping).
/// The model stays as it is. Stages that prune without a plan of their own follow what was chosen.
///
/// Rules and searches keep a bound on latency, and no other. A bound on loss is kept as
/// [`within_budget`](crate::mapping::within_budget) does, each trial being one-shot pruning with `short_epochs` or
/// `full_epochs` of training after it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Choose {
    /// The bounds; in JSON text such as `"latency=0.5x,loss=1.0"`.
    pub budget: MapBudget,
    /// Who chooses; by default the cost of layers.
    pub by: ChooseBy,
    /// Schemes and sparsities to choose from.
    pub options: OptionConfig,
    /// For rules: how much the network has to know.
    pub difficulty: Difficulty,
    /// Candidates of a search; 32 by default.
    pub evaluations: usize,
    /// Of a search; 0 by default.
    pub seed: u64,
    /// Epochs of short training; 1 by default.
    pub short_epochs: usize,
    /// Epochs of full training; 3 by default.
    pub full_epochs: usize,
}

impl Choose {
    /// The defaults within a budget.
    pub fn new(budget: MapBudget) -> Self {
        Self {
            budget,
            by: ChooseBy::default(),
            options: OptionConfig::default(),
            difficulty: Difficulty::default(),
            evaluations: 32,
            seed: 0,
            short_epochs: 1,
            full_epochs: 3,
        }
    }
}

/// Trains: the dense network if nothing was pruned, and otherwise what is left of it, on its levels if it has some.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Train {
    /// How long.
    pub epochs: usize,
    /// The learning rate, for loops that [ask](super::Epoch::lr).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lr: Option<f64>,
}

impl Train {
    /// For so many epochs, at the learning rate of the loop.
    pub fn new(epochs: usize) -> Self {
        Self { epochs, lr: None }
    }
}

/// [`Admm`](crate::Admm) towards a plan: outer iterations of some epochs each, one optimiser for all of them, and
/// projection at the end. What earlier stages pruned stays pruned.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AdmmPruning {
    /// Which weights may stay; none follows what was [chosen](Choose).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plan: Option<Plan>,
    /// Settings of ADMM.
    pub config: AdmmConfig,
    /// Outer iterations.
    pub iterations: usize,
    /// Epochs of each; 1 by default.
    pub epochs: usize,
    /// The learning rate, for loops that [ask](super::Epoch::lr).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lr: Option<f64>,
}

impl AdmmPruning {
    /// Outer iterations of an epoch each, with the defaults of ADMM.
    pub fn new(plan: impl Into<Option<Plan>>, iterations: usize) -> Self {
        Self {
            plan: plan.into(),
            config: AdmmConfig::default(),
            iterations,
            epochs: 1,
            lr: None,
        }
    }
}

/// [`one_shot`](crate::baseline::one_shot): the largest weights stay, and the others go at once.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct OneShot {
    /// Which weights may stay; none follows what was [chosen](Choose).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plan: Option<Plan>,
}

/// [`Gradual`](crate::baseline::Gradual) magnitude pruning with an epoch as its step: masks are made anew at the end
/// of every epoch, by the cubic schedule.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct GradualPruning {
    /// Which weights may stay in the end; none follows what was [chosen](Choose).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plan: Option<Plan>,
    /// Until the plan is reached.
    pub epochs: usize,
    /// Sparsity after the first epoch, from 0 to below 1; 0 by default.
    pub initial: f64,
    /// The learning rate, for loops that [ask](super::Epoch::lr).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lr: Option<f64>,
}

impl GradualPruning {
    /// From the dense network on, in so many epochs.
    pub fn new(plan: impl Into<Option<Plan>>, epochs: usize) -> Self {
        Self {
            plan: plan.into(),
            epochs,
            initial: 0.0,
            lr: None,
        }
    }
}

/// Levels for the weights that are left: ADMM towards them, rounding, and training on them
/// ([`quantize`](crate::quantize)). Masks hold, also those of parameters without levels.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Quantise {
    /// Which levels.
    pub plan: QuantPlan,
    /// Settings of ADMM.
    pub config: AdmmConfig,
    /// Outer iterations of ADMM before rounding; 0, the default, rounds at once.
    pub iterations: usize,
    /// Epochs of each; 1 by default.
    pub epochs: usize,
    /// Epochs on the levels; 0 by default.
    pub tune_epochs: usize,
    /// The learning rate, for loops that [ask](super::Epoch::lr).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lr: Option<f64>,
}

impl Quantise {
    /// Rounding, and so many epochs on the levels.
    pub fn new(plan: QuantPlan, tune_epochs: usize) -> Self {
        Self {
            plan,
            config: AdmmConfig::default(),
            iterations: 0,
            epochs: 1,
            tune_epochs,
            lr: None,
        }
    }

    /// Epochs before rounding.
    pub(super) fn towards(&self) -> usize {
        self.iterations.saturating_mul(self.epochs)
    }
}

/// Cuts out channels that carry nothing ([`shrink`](crate::shrink)), by the graph that the loop
/// [gives](super::TrainingLoop::channel_graph). Masks become zeros, so only packing may follow.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Shrink {
    /// How.
    pub options: ShrinkOptions,
}

/// Packs ([`pack`](burn_sparse::pack)), and compares the outputs of the packed network with those of the masked
/// one. What measurement prefers may differ from run to run, unless `choice` leaves it nothing to decide.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Pack {
    /// Who decides between dense and packed; by default measurement.
    pub choice: Choice,
    /// Part of zeros from which on a layer may be packed; a half by default.
    pub min_sparsity: f64,
    /// The largest difference of an output, as a part of the largest output; 1e-3 by default.
    pub tolerance: f64,
}

impl Default for Pack {
    fn default() -> Self {
        Self {
            choice: Choice::Auto,
            min_sparsity: 0.5,
            tolerance: 1e-3,
        }
    }
}

macro_rules! stages {
    ($($variant:ident($stage:ty)),* $(,)?) => {
        $(impl From<$stage> for Stage {
            fn from(stage: $stage) -> Self {
                Self::$variant(stage)
            }
        })*
    };
}

stages! {
    Choose(Choose), Train(Train), Admm(AdmmPruning), OneShot(OneShot), Gradual(GradualPruning), Quantise(Quantise),
    Shrink(Shrink), Pack(Pack),
}
