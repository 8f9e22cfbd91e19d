//! The pruning pipeline that `resnet50_prune` and `lenet5_prune` share, and what keeps a loop of
//! one's own ([`Snapshots`]) and Burn's trainer ([`TrainerCheckpoints`]) resumable.
//!
//! ```text
//! train_dense ─► prune: compress (ADMM, gradual or nothing) ─► project ─► retrain under the mask
//!             ─► deploy: fold ─► pack ─► verify ─► save ─► load again ─► verify ─► measure
//! ```
//!
//! Every stage is saved after every epoch and continues from there ([`Context::with_resume`]); on
//! Flex the result is the same bit for bit. Every method trains for the same number of epochs
//! after the dense network ([`Recipe::pruning_epochs`]). Epochs are chosen on the validation
//! images; the test images are looked at for reported accuracies only.

mod args;
mod clock;
mod comparison;
mod compression;
mod contest;
mod cut;
mod densities;
mod deploy;
mod elsewhere;
mod error;
mod evaluate;
mod lenet;
mod mapper;
mod moments;
mod offers;
mod penni;
mod pipeline;
mod quantize;
mod recipe;
mod resnet;
mod scheme;
mod snapshots;
mod stage;
mod start;
mod state;
mod summary;
mod sweep;
mod taught;
mod trainer;
mod tucker;
mod tucker_table;

pub use args::{LoopArgs, Pattern, PenniArgs, PruneArgs, ReweightedArgs};
pub use clock::rank_times;
pub use comparison::Comparison;
pub use contest::{Assignment, Contest, DenseEntry, Entry};
pub use cut::{CUT_FILE, Cut, cut};
pub use densities::{Densities, lenet_plan};
pub use deploy::{
    DENSE_FILE, Deployed, PACKED_FILE, deploy, deploy_factored, deploy_shared, latency,
};
pub use elsewhere::{Elsewhere, deploy_on};
pub use error::{TrainingError, exit_code};
pub use evaluate::{accuracy, hits, mean_loss};
pub use lenet::lenet_recipe;
pub use mapper::{Mapper, validated};
pub use moments::Moments;
pub use offers::{Measured, by_rules, in_turns, latency_file, network_of, offers, packed_as};
pub use penni::{PenniRecipe, Shared, SharedResults, share};
pub(crate) use pipeline::own;
pub use pipeline::{Dense, PruneResults, Pruned, check_plan, prune, train_dense, train_on};
pub use quantize::{QuantRecipe, QuantResults, Quantised, quantise};
pub use recipe::{EvolveRecipe, LearningRate, Method, Optimizer, Recipe, ReweightedRecipe};
pub use resnet::{
    check_images, config_of, network, recipe_of, resnet_limits, resnet_recipe, resnet_stem,
};
pub use scheme::Scheme;
pub use snapshots::{Snapshot, Snapshots};
pub use stage::Context;
pub use start::StartArgs;
pub use state::{EpochRecord, IterationRecord, SETTINGS, read_json, settle, short};
pub use summary::summarise;
pub use sweep::{Cell, Sweep};
pub use trainer::TrainerCheckpoints;
pub use tucker::{FactorResults, Factored, RankMethod, decompose};
pub use tucker_table::{TuckerCell, TuckerTable};
