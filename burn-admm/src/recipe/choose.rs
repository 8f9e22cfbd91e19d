//! A plan within a budget, by what the crate's mapping measures.

use std::path::{Path, PathBuf};

use burn::module::Module;
use burn::tensor::Device;
use burn_sparse::nn::Trace;
use serde::{Deserialize, Serialize};

use super::run::floats;
use super::state::{Chosen, Folder};
use super::{Choose, ChooseBy, Epoch, LoopError, StageError, TrainingLoop};
use crate::admm::StateError;
use crate::baseline::one_shot;
use crate::hardware::Effort;
use crate::mapping::{
    LatencyTable, LayerOptions, Mapping, MappingError, Offers, Rest, RuleConfig, SearchConfig,
    SearchLog, SearchMethod, Selection, Sensitivity, cases_of_rules, layer_options, map_by_rules,
    median_ms, search, within_budget,
};
use crate::{Plan, atomic, fold};

/// Measurements after which a file is written anew.
const EVERY: usize = 16;

/// What was measured of a network.
#[derive(Serialize, Deserialize)]
struct KeptOffers {
    network: String,
    offers: Offers,
}

impl KeptOffers {
    /// Offers of this network that can be trusted.
    fn read(file: &Path, network: &str) -> Option<Offers> {
        let bytes = std::fs::read(file).ok()?;
        let kept: Self = serde_json::from_slice(&bytes).ok()?;
        (kept.network == network && kept.offers.check().is_ok()).then_some(kept.offers)
    }

    /// Keeps them, and gives them as they will be read.
    fn write(self, file: &Path) -> Result<Offers, StateError> {
        let io = |source| StateError::Io {
            path: file.to_owned(),
            source,
        };
        let json = serde_json::to_vec(&self).map_err(|error| io(error.into()))?;
        atomic::write_json(file, json).map_err(io)?;
        Ok(Self::read(file, &self.network).unwrap_or(self.offers))
    }
}

struct Chooser<'a, L: TrainingLoop> {
    training: &'a mut L,
    /// Dense, with gradients and without.
    model: &'a L::Model,
    valid: L::Model,
    stage: usize,
    /// Epochs before.
    number: usize,
    folder: Option<&'a Folder>,
    device: Device,
}

pub(super) fn choose<L: TrainingLoop>(
    training: &mut L,
    model: &L::Model,
    by: &Choose,
    (stage, number): (usize, usize),
    folder: Option<&Folder>,
) -> Result<Chosen, StageError> {
    let valid = model.valid();
    let device = valid.devices().into_iter().next().unwrap_or_default();
    let mut chooser = Chooser {
        training,
        model,
        valid,
        stage,
        number,
        folder,
        device,
    };
    let trace = {
        let (training, valid) = (&*chooser.training, &chooser.valid);
        Trace::of(|| drop(training.forward(valid)))
    };
    let (mapping, details) = match by.by {
        ChooseBy::Rules => chooser.by_rules(by, &trace)?,
        ChooseBy::Cost => {
            let offers = chooser.offers(by, &trace)?;
            let selection = match by.budget.loss {
                None => offers.select(&by.budget)?,
                Some(_) => {
                    let trained = chooser.trial(&Plan::dense(), by.full_epochs)?;
                    let dense = [chooser.accuracy()?, trained];
                    let found = within_budget(&offers, &by.budget, dense, |selection, effort| {
                        let epochs = match effort {
                            Effort::Proxy => by.short_epochs,
                            Effort::Full => by.full_epochs,
                        };
                        chooser.trial(&selection.mapping.plan()?, epochs)
                    })?;
                    found.selection
                }
            };
            described(&offers, selection)
        }
        ChooseBy::Policy => chooser.by_search(by, &trace, SearchMethod::Policy)?,
        ChooseBy::Random => chooser.by_search(by, &trace, SearchMethod::Random)?,
        ChooseBy::Evolution => chooser.by_search(by, &trace, SearchMethod::Evolution)?,
    };
    let plan = mapping.plan()?;
    if plan.rules().is_empty() {
        let reason = format!(
            "the dense network keeps {} already; ask for more",
            by.budget
        );
        return Err(MappingError::Settings(reason).into());
    }
    Ok(Chosen {
        plan,
        details: format!("{mapping}{details}"),
    })
}

fn described(offers: &Offers, selection: Selection) -> (Mapping, String) {
    let [ms, bytes] = offers.dense();
    let details = format!(
        "predicted {:.3} ms of {ms:.3} and {:.0} bytes of {bytes:.0}",
        selection.ms, selection.bytes
    );
    (selection.mapping, details)
}

impl<L: TrainingLoop> Chooser<'_, L> {
    /// A file of the state, if there is a folder.
    fn file(&self, name: &str) -> Option<PathBuf> {
        Some(self.folder?.file(name))
    }

    fn accuracy(&mut self) -> Result<f64, StageError> {
        self.training
            .accuracy(&self.valid)
            .map_err(StageError::Loop)
    }

    /// The accuracy of the dense network after one-shot pruning and so many epochs.
    fn trial(&mut self, plan: &Plan, epochs: usize) -> Result<f64, StageError> {
        // Running statistics of a clone would be those of the model.
        let mut model = self.model.valid().train();
        let plan = plan.resolve(&model)?;
        if !plan.layers().is_empty() {
            model = one_shot(model, &plan)?;
        }
        let mut optimizer = self.training.optimizer();
        for index in 0..epochs {
            let epoch = Epoch {
                stage: self.stage,
                name: "choose",
                number: self.number + index,
                index,
                epochs,
                lr: None,
                admm: None,
            };
            let trained = self.training.epoch(model, &mut optimizer, &epoch);
            model = trained.map_err(StageError::Loop)?;
        }
        let accuracy = self.training.accuracy(&model.valid());
        accuracy.map_err(StageError::Loop)
    }

    /// Milliseconds of a forward pass of the dense network.
    fn whole(&self) -> Result<f64, StageError> {
        let plain = self.training.fold(fold(self.valid.clone()));
        let forward = || drop(floats(self.training.forward(&plain)));
        Ok(median_ms(&forward, &self.device)?)
    }

    /// The times of all cases, those from an earlier run among them.
    fn times(&self, cases: &[crate::mapping::LatencyCase]) -> Result<LatencyTable, StageError> {
        let device = format!("{:?}", self.device);
        let file = self.file("times.json");
        let mut table = match &file {
            Some(file) => {
                LatencyTable::open(file, &device)
                    .map_err(MappingError::from)?
                    .table
            }
            None => LatencyTable::new(device),
        };
        table.measure(cases, &self.device, |table, done, all| match &file {
            Some(file) if done % EVERY == EVERY - 1 || done == all => Ok(table.save(file)?),
            _ => Ok(()),
        })?;
        Ok(table)
    }

    /// What each scheme costs the dense network.
    fn losses(
        &mut self,
        layers: &[LayerOptions],
        network: &str,
    ) -> Result<Sensitivity, StageError> {
        let file = self.file(&format!("sensitivity-{}.json", self.stage));
        let mut known = match &file {
            Some(file) => {
                Sensitivity::open(file, network)
                    .map_err(MappingError::from)?
                    .table
            }
            None => Sensitivity::new(network),
        };
        let mut failed: Option<LoopError> = None;
        let training = &mut *self.training;
        let measured = known.measure(
            &self.valid,
            layers,
            |model| {
                training.loss(model).map_err(|error| {
                    let text = error.to_string();
                    failed = Some(error);
                    MappingError::Stopped(text)
                })
            },
            |known, done, all| match &file {
                Some(file) if done % EVERY == EVERY - 1 || done == all => Ok(known.save(file)?),
                _ => Ok(()),
            },
        );
        match failed {
            Some(error) => Err(StageError::Loop(error)),
            None => {
                measured?;
                Ok(known)
            }
        }
    }

    /// All that the network could become, as it was measured first: a search that goes on needs the same.
    fn offers(&mut self, by: &Choose, trace: &Trace) -> Result<Offers, StageError> {
        let loss = self.training.loss(&self.valid).map_err(StageError::Loop)?;
        // Other weights have another loss.
        let network = format!("a network of loss {loss:e}");
        let file = self.file(&format!("offers-{}.json", self.stage));
        let kept = file
            .as_deref()
            .and_then(|file| KeptOffers::read(file, &network));
        if let Some(offers) = kept {
            return Ok(offers);
        }
        let layers = layer_options(&self.valid, trace, &by.options)?;
        let cases: Vec<_> = layers.iter().flat_map(LayerOptions::cases).collect();
        let table = self.times(&cases)?;
        let losses = self.losses(&layers, &network)?;
        let mut offers = Offers::new(&layers, &table, &losses, Rest::default())?;
        let [_, bytes] = offers.dense();
        offers.rest.bytes = (4.0 * self.valid.num_params() as f64 - bytes).max(0.0);
        let offers = offers.with_whole(self.whole()?);
        match file {
            Some(file) => Ok(KeptOffers { network, offers }.write(&file)?),
            None => Ok(offers),
        }
    }

    fn by_search(
        &mut self,
        by: &Choose,
        trace: &Trace,
        method: SearchMethod,
    ) -> Result<(Mapping, String), StageError> {
        let offers = self.offers(by, trace)?;
        let [dense, _] = offers.dense();
        let target = by.budget.latency.map_or(dense, |bound| bound.of(dense));
        let config = SearchConfig {
            evaluations: by.evaluations,
            seed: by.seed,
            ..SearchConfig::new(method, target)
        };
        // Accuracies are of these offers and of as much training.
        let name = format!("{config:?} {} {offers:?}", by.short_epochs);
        let name = format!("{:08x}", crc32fast::hash(name.as_bytes()));
        let file = self.file(&format!("search-{}.json", self.stage));
        let mut log = match &file {
            Some(file) => {
                SearchLog::open(file, &name)
                    .map_err(MappingError::from)?
                    .table
            }
            None => SearchLog::new(name),
        };
        let device = self.device.clone();
        let found = search(
            &offers,
            &config,
            &device,
            &mut log,
            |candidates| {
                let one = |selection: &Selection| {
                    let plan = selection.mapping.plan().map_err(StageError::from)?;
                    self.trial(&plan, by.short_epochs)
                };
                candidates.iter().map(one).collect()
            },
            |log, _, _| match &file {
                Some(file) => Ok(log.save(file).map_err(MappingError::from)?),
                None => Ok(()),
            },
        )?;
        Ok(described(&offers, found.best))
    }

    /// By rules, at the lowest sparsity that is fast enough.
    fn by_rules(&mut self, by: &Choose, trace: &Trace) -> Result<(Mapping, String), StageError> {
        let whole = self.whole()?;
        let limit = by.budget.latency.map_or(whole, |bound| bound.of(whole));
        let mut sparsities = by.options.sparsities.clone();
        sparsities.sort_by(f64::total_cmp);
        let mut nearest = f64::INFINITY;
        for sparsity in sparsities {
            let config = RuleConfig {
                sparsity,
                difficulty: by.difficulty,
                ..RuleConfig::default()
            };
            let table = self.times(&cases_of_rules(&self.valid, trace, &config)?)?;
            let mapping = map_by_rules(&self.valid, trace, &table, &config)?;
            // As `Offers::with_whole` sees it: layers alone may take longer than the network.
            let [dense, mapped] = mapping.ms();
            let ms = match dense <= whole {
                true => whole - dense + mapped,
                false => mapped * whole / dense,
            };
            if ms <= limit {
                let details = format!("predicted {ms:.3} ms of {whole:.3}");
                return Ok((mapping, details));
            }
            nearest = nearest.min(ms);
        }
        let nearest = format!("latency={:.2}x ({nearest:.3} ms)", nearest / whole);
        let asked = by.budget.to_string();
        Err(MappingError::Unreachable { asked, nearest }.into())
    }
}
