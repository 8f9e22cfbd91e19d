//! The numbers of the presets.

use burn_admm::{AdmmConfig, RhoSchedule};

use crate::cli::Preset;
use crate::training::{EvolveRecipe, Optimizer, Recipe, ReweightedRecipe};

/// Recordings that a preset trains on and tests with; nothing for all of them.
#[must_use]
pub const fn limits(preset: Preset) -> (Option<usize>, Option<usize>) {
    match preset {
        Preset::Quick => (Some(1200), None),
        Preset::Full => (None, None),
    }
}

/// The numbers of a preset: `quick` for a part of the recordings, `full` for all of them and more
/// epochs. Iterations of ADMM and epochs of retraining are those of one step.
///
/// Rho stays below 0.5, as the gradient passes through time (the published runs keep to that, too).
#[must_use]
pub fn recipe(preset: Preset, seed: u64) -> Recipe {
    let schedule = RhoSchedule::Multiplicative {
        factor: 2.0,
        max: 0.5,
    };
    let recipe = Recipe {
        optimizer: Optimizer::Adam { weight_decay: 0.0 },
        batch: 32,
        lr: 4e-3,
        compress_lr: 1e-2,
        retrain_lr: 1e-2,
        warmup_epochs: 0.0,
        epochs: 8,
        admm_iterations: 3,
        admm_epochs: 1,
        retrain_epochs: 4,
        admm: AdmmConfig::new().with_rho(5e-2).with_schedule(schedule),
        evolve: EvolveRecipe::default(),
        reweighted: ReweightedRecipe::default(),
        seed,
    };
    match preset {
        Preset::Quick => recipe,
        Preset::Full => Recipe {
            epochs: 20,
            admm_iterations: 5,
            admm_epochs: 2,
            retrain_epochs: 10,
            ..recipe
        },
    }
}
