//! LeNet-5 on MNIST: its presets.

use super::args::admm;
use super::{EvolveRecipe, Optimizer, Recipe, ReweightedRecipe};
use crate::cli::Preset;

/// The numbers of a preset: `quick` for a tenth of MNIST, `full` for all of it, where an epoch has
/// steps enough to make larger batches of them.
#[must_use]
pub fn lenet_recipe(preset: Preset, seed: u64) -> Recipe {
    let recipe = Recipe {
        optimizer: Optimizer::Adam { weight_decay: 5e-5 },
        batch: 64,
        lr: 1e-3,
        compress_lr: 1e-3,
        retrain_lr: 1e-3,
        warmup_epochs: 0.0,
        epochs: 4,
        admm_iterations: 4,
        admm_epochs: 1,
        retrain_epochs: 4,
        admm: admm(5e-2, 2.0),
        evolve: EvolveRecipe::default(),
        reweighted: ReweightedRecipe::default(),
        seed,
    };
    match preset {
        Preset::Quick => recipe,
        Preset::Full => Recipe {
            batch: 128,
            epochs: 6,
            ..recipe
        },
    }
}
