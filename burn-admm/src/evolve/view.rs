//! What an evolution can be asked.

use rand_chacha::ChaCha8Rng;

use super::population::Individual;
use super::statistics::Statistics;
use super::{Candidate, Evolution, EvolveConfig, Verdict};
use crate::mask::{LayerMask, Masks};
use crate::plan::ResolvedPlan;

impl Evolution {
    /// What the layers keep now, for masked retraining: `masks()?.attach(model)`, with a fresh optimiser.
    pub fn masks(&self) -> Masks {
        let layers = self.space.layers().iter().zip(&self.layers);
        let masks = layers.map(|(spec, layer)| LayerMask {
            path: spec.path.clone(),
            shape: spec.shape.clone(),
            keep: layer.keep.clone(),
        });
        Masks::within(masks.collect(), &Masks::default())
    }

    /// The random state of training: what data order and augmentation may be drawn from. Rewinding puts
    /// it back, so that a trial that is repeated sees what it saw.
    pub fn random(&mut self) -> &mut ChaCha8Rng {
        &mut self.random
    }

    /// Batches that the network has been trained on and that were not rewound: a data order that depends
    /// on this number alone needs no random state.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// The trial that was begun.
    pub fn trial(&self) -> Option<&Candidate> {
        self.trial.as_ref().map(|trial| &trial.candidate)
    }

    /// All trials that have ended, but those that were abandoned.
    pub fn history(&self) -> &[Verdict] {
        &self.history
    }

    /// The vector of the network, without that of a trial that has not ended.
    pub fn present(&self) -> &Individual {
        &self.present
    }

    /// The fraction of zeros of the network over all layers of the plan, without a trial that has not
    /// ended. It never falls.
    pub fn sparsity(&self) -> f64 {
        self.space.sparsity(self.present.nnz)
    }

    /// The best accuracy of networks that were kept, the first one included.
    pub fn best(&self) -> f64 {
        self.best
    }

    /// The vectors that live.
    pub fn population(&self) -> &[Individual] {
        &self.population.0
    }

    /// What has been learnt about each layer of the plan, in its order.
    pub fn statistics(&self) -> Vec<Statistics> {
        self.layers.iter().map(|layer| layer.statistics).collect()
    }

    /// The layers, with the most that each may reach.
    pub fn plan(&self) -> &ResolvedPlan {
        self.space.plan()
    }

    /// The settings.
    pub fn config(&self) -> &EvolveConfig {
        &self.config
    }
}
