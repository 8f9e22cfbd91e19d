//! Saving an evolution between two trials, and going on with it, bit for bit.
//!
//! A [state file](crate::state_file) of tensors `kept.<path>` (zeros and ones) in the parameter's shape,
//! with vectors, statistics, counters and both random states as JSON.

use std::path::Path;

use burn::module::Module;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::population::Individual;
use super::statistics::Statistics;
use super::{Evolution, EvolveConfig, EvolveError, Origin, Verdict};
use crate::plan::{Identity, Plan};
use crate::state_file::{self, Named, Opened};

const VERSION: u64 = 1;
const KIND: &str = "burn_evolve";

/// Floats are kept as their bits.
#[derive(Serialize, Deserialize)]
struct Meta {
    version: u64,
    best: u64,
    rewinds: usize,
    position: u64,
    present: Member,
    population: Vec<Member>,
    history: Vec<Past>,
    proposals: Generator,
    random: Generator,
    layers: Vec<LayerMeta>,
}

#[derive(Serialize, Deserialize)]
struct LayerMeta {
    identity: Identity,
    sensitivity: u64,
    migration: u64,
}

#[derive(Serialize, Deserialize)]
struct Member {
    sparsities: Vec<u64>,
    accuracy: u64,
}

#[derive(Serialize, Deserialize)]
struct Past {
    origin: Origin,
    kept: bool,
    batches: u64,
    sparsity: u64,
    accuracy: u64,
    best: u64,
    migration: u64,
}

/// Where a random state is.
#[derive(Serialize, Deserialize)]
struct Generator {
    seed: [u8; 32],
    stream: u64,
    /// The upper and the lower half of the position.
    word: [u64; 2],
}

impl From<&ChaCha8Rng> for Generator {
    fn from(rng: &ChaCha8Rng) -> Self {
        let word = rng.get_word_pos();
        Self {
            seed: rng.get_seed(),
            stream: rng.get_stream(),
            word: [(word >> 64) as u64, word as u64],
        }
    }
}

impl From<&Generator> for ChaCha8Rng {
    fn from(saved: &Generator) -> Self {
        let mut rng = Self::from_seed(saved.seed);
        rng.set_stream(saved.stream);
        rng.set_word_pos(u128::from(saved.word[0]) << 64 | u128::from(saved.word[1]));
        rng
    }
}

impl From<&Individual> for Member {
    fn from(one: &Individual) -> Self {
        Self {
            sparsities: one.sparsities.iter().map(|s| s.to_bits()).collect(),
            accuracy: one.accuracy.to_bits(),
        }
    }
}

impl From<&Verdict> for Past {
    fn from(verdict: &Verdict) -> Self {
        Self {
            origin: verdict.origin,
            kept: verdict.kept,
            batches: verdict.batches,
            sparsity: verdict.sparsity.to_bits(),
            accuracy: verdict.accuracy.to_bits(),
            best: verdict.best.to_bits(),
            migration: verdict.migration.to_bits(),
        }
    }
}

impl Past {
    fn verdict(&self, index: usize) -> Option<Verdict> {
        let floats = [self.sparsity, self.accuracy, self.best, self.migration].map(f64::from_bits);
        let [sparsity, accuracy, best, migration] = floats;
        floats.iter().all(|f| f.is_finite()).then_some(Verdict {
            trial: index as u64 + 1,
            origin: self.origin,
            kept: self.kept,
            batches: self.batches,
            sparsity,
            accuracy,
            best,
            migration,
        })
    }
}

impl Evolution {
    /// Writes the state to `path`, to a temporary file beside it first. Together with the records of
    /// model and optimiser it is all that [`resume`](Self::resume) needs.
    ///
    /// # Errors
    /// [`EvolveError::InTrial`] during a trial, [`State`](EvolveError::State) if the file cannot be
    /// written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), EvolveError> {
        if self.trial().is_some() {
            return Err(EvolveError::InTrial("save"));
        }
        Ok(state_file::write(path.as_ref(), &self.to_bytes())?)
    }

    /// Continues from a state that [`save`](Self::save) has written, for the same model and plan. The
    /// settings are those given here, the random states those of the file.
    ///
    /// [Attach](Self::attach) the evolution to a fresh model, and load the model's record into that.
    ///
    /// # Errors
    /// [`EvolveError::State`] for a file that is missing, broken, of another version or made for another
    /// model or plan; otherwise as [`new`](Self::new).
    pub fn resume<M: Module>(
        model: &M,
        plan: &Plan,
        config: EvolveConfig,
        path: impl AsRef<Path>,
    ) -> Result<Self, EvolveError> {
        let mut evolution = Self::fresh(model, plan, config, 0.0)?;
        let path = path.as_ref();
        evolution.restore_bytes(path, state_file::read(path)?)?;
        Ok(evolution)
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let layers = || self.space.layers().iter().zip(&self.layers);
        let meta = Meta {
            version: VERSION,
            best: self.best.to_bits(),
            rewinds: self.rewinds,
            position: self.position,
            present: Member::from(&self.present),
            population: self.population.0.iter().map(Member::from).collect(),
            history: self.history.iter().map(Past::from).collect(),
            proposals: Generator::from(&self.proposals),
            random: Generator::from(&self.random),
            layers: layers()
                .map(|(spec, layer)| LayerMeta {
                    identity: Identity::of(spec),
                    sensitivity: layer.statistics.sensitivity.to_bits(),
                    migration: layer.statistics.migration.to_bits(),
                })
                .collect(),
        };
        let meta = serde_json::to_string(&meta).expect("strings and integers are valid JSON");
        let kept = layers().map(|(_, layer)| {
            let values = layer.keep.iter().map(|&keep| f32::from(u8::from(keep)));
            values.collect::<Vec<f32>>()
        });
        let kept: Vec<Vec<f32>> = kept.collect();
        let tensors: Vec<Named<'_>> = layers()
            .zip(&kept)
            .map(|((spec, _), kept)| (format!("kept.{}", spec.path), &spec.shape[..], &kept[..]))
            .collect();
        state_file::seal(KIND, meta, &tensors)
    }

    pub(super) fn restore_bytes(&mut self, path: &Path, bytes: Vec<u8>) -> Result<(), EvolveError> {
        let opened = Opened::new(path, KIND, bytes)?;
        opened.version(VERSION)?;
        let meta: Meta = opened.meta()?;
        let identities = meta.layers.iter().map(|layer| &layer.identity);
        Identity::check(path, identities, self.space.layers())?;
        let mut space = self.space.clone();
        space.restore(meta.layers.iter().map(|layer| &layer.identity));

        let number = |name: &str, bits: u64| {
            let value = f64::from_bits(bits);
            let broken = || opened.corrupt(format!("{name} is {value}"));
            value.is_finite().then_some(value).ok_or_else(broken)
        };
        let best = number("the best accuracy", meta.best)?;
        let member = |saved: &Member| {
            let sparsities: Vec<f64> = saved
                .sparsities
                .iter()
                .map(|&s| f64::from_bits(s))
                .collect();
            let fits = |(at, s): (usize, &f64)| (0.0..=space.most(at)).contains(s);
            if sparsities.len() != space.len() || !sparsities.iter().enumerate().all(fits) {
                let reason = format!("{sparsities:?} are no sparsities of these layers");
                return Err(EvolveError::State(opened.corrupt(reason)));
            }
            Ok(Individual {
                nnz: space.nnz(&sparsities)?,
                sparsities,
                accuracy: number("an accuracy", saved.accuracy)?,
            })
        };
        let present = member(&meta.present)?;
        let population: Vec<Individual> = meta
            .population
            .iter()
            .map(member)
            .collect::<Result<_, _>>()?;
        let past = meta.history.iter().enumerate();
        let history = past.map(|(index, saved)| saved.verdict(index));
        let Some(history) = history.collect::<Option<Vec<Verdict>>>() else {
            return Err(opened.corrupt("a trial with a number that is none").into());
        };
        if population.is_empty() {
            return Err(opened.corrupt("nothing lives").into());
        }

        let tensors = opened.tensors()?;
        let mut read = Vec::with_capacity(meta.layers.len());
        for (at, saved) in meta.layers.iter().enumerate() {
            let (path, shape) = (&saved.identity.path, &saved.identity.shape);
            let values = tensors.floats(&format!("kept.{path}"), shape)?;
            if let Some(other) = values.iter().find(|&&value| value != 0.0 && value != 1.0) {
                return Err(opened.corrupt(format!("kept.{path} holds {other}")).into());
            }
            let keep: Vec<bool> = values.iter().map(|&value| value == 1.0).collect();
            let (kept, most) = (
                keep.iter().filter(|&&keep| keep).count(),
                space.layer_at(at, present.sparsities[at])?.nnz,
            );
            if kept == 0 || kept > most {
                let reason = format!("kept.{path} keeps {kept} weights, its sparsity {most}");
                return Err(opened.corrupt(reason).into());
            }
            let statistics = Statistics {
                sensitivity: number("a sensitivity", saved.sensitivity)?,
                migration: number("a migration", saved.migration)?,
            };
            if statistics.migration < 0.0 {
                let reason = format!("a migration is {}", statistics.migration);
                return Err(opened.corrupt(reason).into());
            }
            read.push((keep, statistics));
        }

        for (layer, (keep, statistics)) in self.layers.iter_mut().zip(read) {
            (layer.keep, layer.statistics) = (keep, statistics);
        }
        self.space = space;
        self.present = present;
        self.population.0 = population;
        self.history = history;
        (self.best, self.rewinds, self.position) = (best, meta.rewinds, meta.position);
        self.proposals = ChaCha8Rng::from(&meta.proposals);
        self.random = ChaCha8Rng::from(&meta.random);
        Ok(())
    }
}
