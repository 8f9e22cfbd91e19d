use std::collections::HashMap;

use burn::module::Module;
use burn::optim::{GradientsParams, ModuleOptimizer};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::live_mask::{self, Attach};
use super::observe::{base_weights, check_finite, gradients_of};
use super::population::{Individual, Population};
use super::propose::Proposer;
use super::score::{mask, scores};
use super::snapshot::Snapshot;
use super::space::Space;
use super::statistics::{Migration, Statistics};
use super::{Candidate, EvolveConfig, EvolveError, Verdict};
use crate::mask::fold;
use crate::plan::Plan;

/// Keeps the two random states apart.
const OF_TRAINING: u64 = 0x7261_696e;

/// An evolution; see the [module documentation](crate::evolve).
#[derive(Debug)]
pub struct Evolution {
    pub(super) config: EvolveConfig,
    pub(super) space: Space,
    index: HashMap<String, usize>,
    pub(super) layers: Vec<Layer>,
    pub(super) population: Population,
    /// The vector of the network, outside of trials.
    pub(super) present: Individual,
    pub(super) best: f64,
    pub(super) rewinds: usize,
    /// Batches that the network has been trained on and that were not rewound.
    pub(super) position: u64,
    /// What proposals are drawn from. It is never rewound: the next proposal should be another one.
    pub(super) proposals: ChaCha8Rng,
    /// What training may draw from. It is rewound.
    pub(super) random: ChaCha8Rng,
    pub(super) history: Vec<Verdict>,
    pub(super) trial: Option<Trial>,
}

/// A layer, in storage order.
#[derive(Debug, Default)]
pub(super) struct Layer {
    pub(super) keep: Vec<bool>,
    pub(super) statistics: Statistics,
    migration: Migration,
    gradient: Option<Vec<f32>>,
}

#[derive(Debug)]
pub(super) struct Trial {
    pub(super) candidate: Candidate,
    batches: u64,
    snapshot: Snapshot,
}

impl Evolution {
    /// Begins with a network of this accuracy: any number that grows as the network gets better, judged
    /// on data that it does not train on. The layers are those of the plan, and the sparsity that it
    /// gives a layer is the most that the layer may reach.
    ///
    /// # Errors
    /// [`EvolveError::Config`] for settings out of range, [`Plan`](EvolveError::Plan) for a plan that
    /// does not fit the model, [`NothingConstrained`](EvolveError::NothingConstrained),
    /// [`Fixed`](EvolveError::Fixed) for a pattern without a budget, [`Accuracy`](EvolveError::Accuracy)
    /// for one that is no number, [`Weights`](EvolveError::Weights) for weights that are not finite.
    pub fn new<M: Module>(
        model: &M,
        plan: &Plan,
        config: EvolveConfig,
        accuracy: f64,
    ) -> Result<Self, EvolveError> {
        if !accuracy.is_finite() {
            return Err(EvolveError::Accuracy(accuracy));
        }
        let mut evolution = Self::fresh(model, plan, config, accuracy)?;
        let nothing = vec![0.0; evolution.space.len()];
        let keeps = evolution.keeps(&fold(model.clone()), &nothing, false)?;
        for (layer, keep) in evolution.layers.iter_mut().zip(keeps) {
            layer.keep = keep;
        }
        evolution.populate(accuracy)?;
        Ok(evolution)
    }

    /// Without masks and population.
    pub(super) fn fresh<M: Module>(
        model: &M,
        plan: &Plan,
        config: EvolveConfig,
        accuracy: f64,
    ) -> Result<Self, EvolveError> {
        config.validate()?;
        let space = Space::new(plan.resolve(model)?)?;
        let sparsities = vec![0.0; space.len()];
        let paths = space.layers().iter().map(|layer| layer.path.clone());
        Ok(Self {
            index: paths.enumerate().map(|(i, path)| (path, i)).collect(),
            layers: space.layers().iter().map(|_| Layer::default()).collect(),
            population: Population::default(),
            present: Individual {
                nnz: space.nnz(&sparsities)?,
                sparsities,
                accuracy,
            },
            best: accuracy,
            rewinds: 0,
            position: 0,
            proposals: ChaCha8Rng::seed_from_u64(config.seed),
            random: ChaCha8Rng::seed_from_u64(config.seed ^ OF_TRAINING),
            history: Vec::new(),
            trial: None,
            config,
            space,
        })
    }

    /// Random vectors of low sparsity.
    fn populate(&mut self, accuracy: f64) -> Result<(), EvolveError> {
        for _ in 0..self.config.population {
            let mut sparsities = Vec::with_capacity(self.space.len());
            for at in 0..self.space.len() {
                let drawn = self.config.initial * self.proposals.random::<f64>();
                sparsities.push(drawn.min(self.space.most(at)));
            }
            let one = Individual {
                nnz: self.space.nnz(&sparsities)?,
                sparsities,
                accuracy,
            };
            self.population.0.push(one);
        }
        Ok(())
    }

    /// Attaches the masks of the evolution to the model. What it wears already is folded first, so that
    /// zeros of an earlier mask compete anew.
    ///
    /// A model into which a record of this one loads is a fresh one to which the same evolution was
    /// attached.
    ///
    /// # Errors
    /// As [`Masks::attach`](crate::Masks::attach).
    pub fn attach<M: Module>(&self, model: M) -> Result<M, EvolveError> {
        self.masks().check(&model)?;
        let layers = self.space.layers().iter().zip(&self.layers);
        let keeps = layers.map(|(spec, layer)| (spec.path.as_str(), &layer.keep[..]));
        Ok(fold(model).apply_reparameterization(Attach(keeps.collect())))
    }

    /// Begins a trial: proposes a vector, and copies all that the trial may change. The masks follow
    /// with the first [`step`](Self::step).
    ///
    /// # Errors
    /// [`EvolveError::InTrial`] before the end of the last one.
    pub fn begin<M: Module>(
        &mut self,
        model: &M,
        optimizer: &ModuleOptimizer,
    ) -> Result<&Candidate, EvolveError> {
        if self.trial.is_some() {
            return Err(EvolveError::InTrial("begin"));
        }
        let statistics: Vec<Statistics> = self.layers.iter().map(|l| l.statistics).collect();
        let proposer = Proposer {
            config: &self.config,
            space: &self.space,
            population: &self.population,
            statistics: &statistics,
            present: &self.present,
            rewinds: self.rewinds,
        };
        let (origin, sparsities) = proposer.propose(&mut self.proposals)?;
        let keeps = self.layers.iter().map(|layer| layer.keep.clone()).collect();
        let random = (self.random.clone(), self.position);
        let snapshot = Snapshot::take(model, optimizer, keeps, random);
        for layer in &mut self.layers {
            (layer.migration, layer.gradient) = (Migration::default(), None);
        }
        let candidate = Candidate {
            origin,
            nnz: self.space.nnz(&sparsities)?,
            sparsities,
            seed: self.random.random(),
        };
        let trial = self.trial.insert(Trial {
            candidate,
            batches: 0,
            snapshot,
        });
        Ok(&trial.candidate)
    }

    /// Takes note of the gradients of a batch, before the optimiser takes them. They are copied to the
    /// host, unless they count nothing ([`EvolveConfig::gradient`]).
    ///
    /// # Errors
    /// [`EvolveError::Gradient`] for one that is not finite, [`NoTrial`](EvolveError::NoTrial),
    /// [`Weights`](EvolveError::Weights) if a device fails.
    pub fn observe<M: Module>(
        &mut self,
        model: &M,
        gradients: &GradientsParams,
    ) -> Result<(), EvolveError> {
        if self.trial.is_none() {
            return Err(EvolveError::NoTrial("observe"));
        }
        if self.config.gradient == 0.0 {
            return Ok(());
        }
        let slot = |path: &str| self.index.get(path).copied();
        for (slot, values) in gradients_of(model, gradients, slot)? {
            if let Some(index) = values.iter().position(|value| !value.is_finite()) {
                return Err(EvolveError::Gradient {
                    path: self.space.layers()[slot].path.clone(),
                    index,
                    value: values[index],
                });
            }
            self.layers[slot].gradient = Some(values);
        }
        Ok(())
    }

    /// Ends a batch, after the optimiser's step: chooses the masks anew, by the weights as they are now
    /// and the gradients of the batch.
    ///
    /// # Errors
    /// [`EvolveError::NoTrial`], [`Unobserved`](EvolveError::Unobserved) for a layer without a gradient,
    /// [`NotAttached`](EvolveError::NotAttached) for one without a mask,
    /// [`Weights`](EvolveError::Weights) for weights that are not finite, a model that lacks a layer, or
    /// a device that fails. The trial can be [rewound](Self::rewind) then.
    pub fn step<M: Module>(&mut self, model: &mut M) -> Result<(), EvolveError> {
        let Some(trial) = &self.trial else {
            return Err(EvolveError::NoTrial("step"));
        };
        let (first, sparsities) = (trial.batches == 0, trial.candidate.sparsities.clone());
        let keeps = self.keeps(model, &sparsities, true)?;
        let specs = self.space.layers().iter().zip(&keeps);
        let masks = specs.map(|(spec, keep)| (spec.path.as_str(), &keep[..]));
        live_mask::replace(model, masks.collect())?;
        for (layer, keep) in self.layers.iter_mut().zip(keeps) {
            // What the first batch changes, the new sparsity asks for.
            if !first {
                layer.migration.add(&layer.keep, &keep);
            }
            (layer.keep, layer.gradient) = (keep, None);
        }
        if let Some(trial) = &mut self.trial {
            trial.batches += 1;
        }
        self.position += 1;
        Ok(())
    }

    /// What each layer keeps at these sparsities, by its stored weights.
    fn keeps<M: Module>(
        &self,
        model: &M,
        sparsities: &[f64],
        observed: bool,
    ) -> Result<Vec<Vec<bool>>, EvolveError> {
        let EvolveConfig {
            magnitude,
            gradient,
            ..
        } = self.config;
        let observed = observed && gradient > 0.0;
        let weights = base_weights(model, self.space.layers())?;
        let mut keeps = Vec::with_capacity(weights.len());
        for (at, weight) in weights.iter().enumerate() {
            let spec = self.space.layer_at(at, sparsities[at])?;
            let gradients = self.layers[at].gradient.as_deref();
            if observed && gradients.is_none() {
                return Err(EvolveError::Unobserved(spec.path));
            }
            let gradients = gradients.filter(|_| observed);
            // Before the first batch there is magnitude alone, whatever it counts later.
            let magnitude = if observed {
                magnitude
            } else {
                magnitude.max(1.0)
            };
            check_finite(&spec.path, weight)?;
            let scores = scores(weight, gradients, magnitude, gradient);
            keeps.push(mask(&spec, &scores)?);
        }
        Ok(keeps)
    }

    /// Ends a trial with the accuracy of the network: keeps it, or, if accuracy has fallen by more than
    /// the tolerance below the best, rewinds model, optimiser, masks and random state to what they were
    /// when it began.
    ///
    /// # Errors
    /// [`EvolveError::NoTrial`], [`EmptyTrial`](EvolveError::EmptyTrial),
    /// [`Accuracy`](EvolveError::Accuracy) for one that is no number: the trial can be
    /// [rewound](Self::rewind) then. [`Rewind`](EvolveError::Rewind) if the model is another one.
    pub fn end<M: Module>(
        &mut self,
        model: &mut M,
        optimizer: &mut ModuleOptimizer,
        accuracy: f64,
    ) -> Result<Verdict, EvolveError> {
        let Some(trial) = &self.trial else {
            return Err(EvolveError::NoTrial("end"));
        };
        if !accuracy.is_finite() {
            return Err(EvolveError::Accuracy(accuracy));
        }
        if trial.batches == 0 {
            return Err(EvolveError::EmptyTrial);
        }
        let kept = accuracy >= self.best - self.config.tolerance;
        if !kept {
            trial.snapshot.restore(model, optimizer)?;
        }
        let Some(trial) = self.trial.take() else {
            return Err(EvolveError::NoTrial("end"));
        };
        self.learn(&trial.candidate, accuracy);
        let Candidate {
            origin,
            sparsities,
            nnz,
            ..
        } = trial.candidate;
        if kept {
            self.rewinds = 0;
            self.best = self.best.max(accuracy);
            self.present = Individual {
                sparsities,
                nnz,
                accuracy,
            };
            let EvolveConfig {
                population,
                clusters,
                ..
            } = self.config;
            self.population
                .insert(self.present.clone(), population, clusters);
        } else {
            self.forget(trial.snapshot);
        }
        let verdict = Verdict {
            trial: self.history.len() as u64 + 1,
            origin,
            kept,
            batches: trial.batches,
            sparsity: self.space.sparsity(nnz),
            accuracy,
            best: self.best,
            migration: self.mean_migration(),
        };
        self.history.push(verdict);
        Ok(verdict)
    }

    /// Abandons a trial, whatever has gone wrong in it, and puts model, optimiser, masks and random
    /// state back to what they were when it began.
    ///
    /// # Errors
    /// [`EvolveError::NoTrial`], [`Rewind`](EvolveError::Rewind) if the model is another one.
    pub fn rewind<M: Module>(
        &mut self,
        model: &mut M,
        optimizer: &mut ModuleOptimizer,
    ) -> Result<(), EvolveError> {
        let Some(trial) = &self.trial else {
            return Err(EvolveError::NoTrial("rewind"));
        };
        trial.snapshot.restore(model, optimizer)?;
        if let Some(trial) = self.trial.take() {
            self.forget(trial.snapshot);
        }
        Ok(())
    }

    /// Takes over what was before a trial.
    fn forget(&mut self, snapshot: Snapshot) {
        for (layer, keep) in self.layers.iter_mut().zip(snapshot.keeps) {
            layer.keep = keep;
        }
        (self.random, self.position) = (snapshot.random, snapshot.position);
        self.rewinds += 1;
    }

    /// Learns about the layers that have grown, and about all masks.
    fn learn(&mut self, candidate: &Candidate, accuracy: f64) {
        let EvolveConfig {
            tolerance,
            step,
            memory,
            ..
        } = self.config;
        let lost = (self.present.accuracy - accuracy) / tolerance;
        let vectors = self.present.sparsities.iter().zip(&candidate.sparsities);
        for (layer, (before, now)) in self.layers.iter_mut().zip(vectors) {
            let grown = (now - before) / (step * (1.0 - before));
            layer.statistics.learn(lost, grown, memory);
            layer.statistics.migration = layer.migration.mean();
        }
    }

    fn mean_migration(&self) -> f64 {
        let layers = self.space.layers().iter().zip(&self.layers);
        let moved = layers.map(|(spec, l)| spec.weights() as f64 * l.statistics.migration);
        moved.sum::<f64>() / self.space.plan().weights().max(1) as f64
    }
}
