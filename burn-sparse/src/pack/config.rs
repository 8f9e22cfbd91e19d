//! What packing may decide.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{Search, cache};
use crate::nn::Trace;

/// Who decides between dense and packed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Choice {
    /// Measurement, layer by layer: dense where dense wins.
    #[default]
    Auto,
    /// Every layer becomes sparse rows, faster or not.
    Csr,
    /// Every layer stays dense.
    Dense,
}

/// Settings of [`pack`](super::pack()).
#[derive(Debug, Clone)]
pub struct PackConfig {
    pub(super) choice: Choice,
    pub(super) trace: Trace,
    pub(super) min_sparsity: f64,
    pub(super) equalise: bool,
    pub(super) tolerance: Option<f64>,
    pub(super) runs: usize,
    pub(super) plans: Option<PathBuf>,
    pub(super) search: Search,
}

impl Default for PackConfig {
    /// Measured choice, from half of the weights zero on, rows equalised.
    fn default() -> Self {
        Self {
            choice: Choice::Auto,
            trace: Trace::default(),
            min_sparsity: 0.5,
            equalise: true,
            tolerance: None,
            runs: 9,
            plans: cache::default_path(),
            search: Search::default(),
        }
    }
}

impl PackConfig {
    /// A choice by measurement for layers of the geometry that `trace` saw: the default settings
    /// [with that trace](Self::with_trace).
    pub fn measure(trace: Trace) -> Self {
        Self::default().with_trace(trace)
    }

    /// The file in which the plans of the CPU kernels found fastest are kept, and the times of layers
    /// dense and packed, by CPU, layer and density; by default `burn-sparse/plans.json` in the user's
    /// cache folder. `None` measures every time, and so does every other device.
    #[must_use]
    pub fn with_plan_cache(mut self, path: impl Into<Option<PathBuf>>) -> Self {
        self.plans = path.into();
        self
    }

    /// How the plans of the CPU kernels are looked for; by default among a few that an analysis of
    /// each layer proposes. A search over all plans runs each layer twice for every evaluation, and
    /// what it finds is kept in the [cache](Self::with_plan_cache).
    #[must_use]
    pub fn with_search(mut self, search: Search) -> Self {
        self.search = search;
        self
    }

    /// Who decides; by default measurement.
    #[must_use]
    pub fn with_choice(mut self, choice: Choice) -> Self {
        self.choice = choice;
        self
    }

    /// The geometry of the layers, from a forward pass at the size and batch that matter. Without
    /// it nothing is timed and sparsity alone decides.
    #[must_use]
    pub fn with_trace(mut self, trace: Trace) -> Self {
        self.trace = trace;
        self
    }

    /// Fraction of zeros below which [`Choice::Auto`] does not make a layer sparse; 0.5 by default.
    /// On a CPU such a layer may still run as dense tiles, if that is faster.
    #[must_use]
    pub fn with_min_sparsity(mut self, min_sparsity: f64) -> Self {
        self.min_sparsity = min_sparsity;
        self
    }

    /// Whether nearly equal output channels get stored zeros up to the longest; on by default.
    #[must_use]
    pub fn with_equalise(mut self, equalise: bool) -> Self {
        self.equalise = equalise;
        self
    }

    /// Largest absolute difference allowed between a layer packed and dense, on random input of
    /// unit variance; by default derived from the layer's weights (see [`pack`](super::pack())).
    #[must_use]
    pub fn with_tolerance(mut self, tolerance: f64) -> Self {
        self.tolerance = Some(tolerance);
        self
    }

    /// Timed runs of the dense and the packed layer, of which the median counts; 9 by default.
    #[must_use]
    pub fn with_runs(mut self, runs: usize) -> Self {
        self.runs = runs.max(1);
        self
    }
}
