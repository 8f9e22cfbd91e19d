//! The numbers of the presets.

use burn_admm::{AdmmConfig, RhoSchedule};

use crate::cli::Preset;
use crate::training::{EvolveRecipe, Optimizer, Recipe, ReweightedRecipe};

/// Probability with which training makes a word an unknown one.
pub const WORD_DROPOUT: f64 = 0.1;
/// Largest norm of the weights of a class: Kim's constraint (2014, section 3.1).
pub const HEAD_NORM: f64 = 3.0;

/// Sentences that a preset trains on and tests with; nothing for all of them.
#[must_use]
pub const fn limits(preset: Preset) -> (Option<usize>, Option<usize>) {
    match preset {
        Preset::Quick => (Some(2000), Some(500)),
        Preset::Full => (None, None),
    }
}

/// The numbers of a preset: `quick` for a part of the sentences, `full` for all of them.
///
/// Batches of 50 and the constraint on the classifier are Kim's, Adam stands in for his Adadelta.
/// A few epochs are enough: without pretrained vectors the network knows its training sentences by
/// heart after that, and slower rates later on keep both networks from forgetting all others.
#[must_use]
pub fn recipe(preset: Preset, seed: u64) -> Recipe {
    let schedule = RhoSchedule::Multiplicative {
        factor: 3.0,
        max: 1.0,
    };
    // A part of the sentences is as soon known by heart as all of them, but in more epochs.
    let epochs = match preset {
        Preset::Quick => 8,
        Preset::Full => 4,
    };
    Recipe {
        optimizer: Optimizer::Adam { weight_decay: 0.0 },
        batch: 50,
        lr: 1e-3,
        compress_lr: 5e-4,
        retrain_lr: 3e-4,
        warmup_epochs: 0.0,
        epochs,
        admm_iterations: 2,
        admm_epochs: epochs / 4,
        retrain_epochs: epochs / 2,
        admm: AdmmConfig::new().with_rho(1e-2).with_schedule(schedule),
        evolve: EvolveRecipe::default(),
        reweighted: ReweightedRecipe::default(),
        seed,
    }
}
