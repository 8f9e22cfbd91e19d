use serde::{Deserialize, Serialize};

use super::Origin;

/// What a trial tries.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Candidate {
    /// Where it comes from.
    pub origin: Origin,
    /// The fraction of zeros of each layer of the plan, in its order.
    pub sparsities: Vec<f64>,
    /// The weights that it keeps, over all layers.
    pub nnz: usize,
    /// A number from the random state of training, for the generators of devices: seeded with it at the
    /// beginning of a trial (`device.seed(seed)`), dropout repeats when a rewound trial is repeated.
    pub seed: u64,
}

/// How a trial ended.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Verdict {
    /// The number of the trial, from 1.
    pub trial: u64,
    /// Where its vector came from.
    pub origin: Origin,
    /// Whether it was kept; otherwise everything was rewound.
    pub kept: bool,
    /// Batches that it trained.
    pub batches: u64,
    /// The fraction of zeros that it tried, over all layers of the plan.
    pub sparsity: f64,
    /// The accuracy that it ended with.
    pub accuracy: f64,
    /// The best accuracy of networks that were kept, this one included.
    pub best: f64,
    /// Mean migration of the layers, by their weights.
    pub migration: f64,
}

impl core::fmt::Display for Verdict {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(
            f,
            "trial {}, {}: {:.2} % zeros, accuracy {:.4} (best {:.4}): {}",
            self.trial,
            self.origin,
            100.0 * self.sparsity,
            self.accuracy,
            self.best,
            if self.kept { "kept" } else { "rewound" }
        )
    }
}
