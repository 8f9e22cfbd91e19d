//! From stage to stage.

use std::path::{Path, PathBuf};
use std::time::Instant;

use burn::module::Module;
use burn::optim::ModuleOptimizer;
use burn::store::ModuleRecord;
use burn::tensor::{Bytes, TensorData};
use burn_sparse::store::compact;

use super::choose::choose;
use super::dress::{keep_all, masked, on_levels, regain};
use super::report::Standing;
use super::state::{Contents, Folder, Loaded, Progress};
use super::work::{Segment, Work};
use super::{
    OneShot, Recipe, RecipeError, RecipeReport, Stage, StageError, StageReport, TrainingLoop,
};
use crate::admm::StateError;
use crate::baseline::one_shot;
use crate::evolve::settle;
use crate::params::read;
use crate::{Admm, AdmmError, Masks, Plan, SparsityReport, fold};

/// What a [`Recipe`] has made of a model.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Compressed<M> {
    /// The network: packed, if that was asked for. Otherwise as it was trained last, masks and levels attached, so
    /// that it can train on; [`fold`] it before use.
    pub model: M,
    /// What every stage did.
    pub report: RecipeReport,
}

/// What a stage leaves besides the model.
pub(super) struct Outcome<M> {
    pub(super) difference: Option<f64>,
    pub(super) details: String,
    /// The dense model and the bytes of the packed one.
    pub(super) packed: Option<(M, Vec<u8>)>,
}

pub(super) struct Run<'a, L: TrainingLoop> {
    pub(super) recipe: &'a Recipe,
    pub(super) training: &'a mut L,
    folder: Option<Folder>,
    pub(super) progress: Progress,
    /// Of a state that was loaded, until the stage goes on that it is of.
    pub(super) optimizer: Option<Vec<u8>>,
    pub(super) admm: Option<PathBuf>,
    /// When time was last counted.
    since: Instant,
}

pub(super) fn run<L: TrainingLoop>(
    recipe: &Recipe,
    model: L::Model,
    training: &mut L,
    folder: Option<&Path>,
) -> Result<Compressed<L::Model>, RecipeError> {
    // Whatever can be refused is refused before anything is trained.
    recipe.explain(&model)?;
    for (at, stage) in recipe.stages().iter().enumerate() {
        if matches!(stage, Stage::Shrink(_)) {
            let graph = training.channel_graph(&model).map_err(StageError::Loop);
            let graph = graph.and_then(|graph| graph.ok_or(StageError::NoGraph));
            graph.map_err(|source| failed(at, stage, source))?;
        }
    }
    let folder = folder.map(Folder::open).transpose()?;
    let text = recipe.to_json();
    let loaded = match &folder {
        Some(folder) => folder.load(&text, recipe.stages())?,
        None => None,
    };
    let since = Instant::now();
    let first = |source| failed(0, &recipe.stages()[0], source);
    let (mut run, mut model) = match loaded {
        Some(loaded) => {
            let model = restored(recipe, training, model, &loaded, folder.as_ref())?;
            let run = Run {
                recipe,
                training,
                folder,
                progress: loaded.progress,
                optimizer: loaded.optimizer,
                admm: loaded.admm,
                since,
            };
            (run, model)
        }
        None => {
            let valid = model.valid();
            let plain = fold(valid.clone());
            let start = standing(training, &valid, &plain, &plain).map_err(first)?;
            let report = RecipeReport {
                start,
                stages: Vec::new(),
            };
            let mut run = Run {
                recipe,
                training,
                folder,
                progress: Progress::new(&text, report, masked(&model)),
                optimizer: None,
                admm: None,
                since,
            };
            run.save(&model, None, None).map_err(first)?;
            (run, model)
        }
    };
    for at in run.progress.stage..recipe.stages().len() {
        let stage = &recipe.stages()[at];
        model = run
            .stage(at, stage, model)
            .map_err(|source| failed(at, stage, source))?;
    }
    Ok(Compressed {
        model,
        report: run.progress.report,
    })
}

fn failed(stage: usize, of: &Stage, source: StageError) -> RecipeError {
    RecipeError::Stage {
        stage,
        name: of.name(),
        source: Box::new(source),
    }
}

/// The model of a state, from one of the same structure.
fn restored<L: TrainingLoop>(
    recipe: &Recipe,
    training: &L,
    model: L::Model,
    loaded: &Loaded,
    folder: Option<&Folder>,
) -> Result<L::Model, RecipeError> {
    let mismatch = |error: &dyn core::fmt::Display| StateError::Mismatch {
        path: folder.map_or_else(PathBuf::new, Folder::index),
        reason: error.to_string(),
    };
    let progress = &loaded.progress;
    let mut model = model;
    if let Some(plan) = &progress.shrunk {
        let groups = |model: &mut L::Model, layer: &str, groups: usize| {
            training.set_groups(model, layer, groups)
        };
        model = plan
            .apply_with(model, groups)
            .map_err(|error| mismatch(&error))?;
    }
    if let Some(bytes) = &loaded.packed {
        let plain = training.fold(fold(model.valid()));
        return Ok(compact::from_bytes(plain, bytes).map_err(|error| mismatch(&error))?);
    }
    model = keep_all(model, &progress.masked).map_err(|error| mismatch(&error))?;
    let levels = progress.levels.and_then(|at| recipe.stages().get(at));
    if let Some(Stage::Quantise(quantise)) = levels {
        model = on_levels(model, &quantise.plan).map_err(|error| mismatch(&error))?;
    }
    settle(&model);
    let bytes = loaded.model.clone().unwrap_or_default();
    let record = ModuleRecord::from_bytes(Bytes::from_bytes_vec(bytes));
    let restored = record.and_then(|record| model.try_load_record(record));
    Ok(restored.map_err(|error| mismatch(&error))?)
}

/// A model that runs, one whose weights are counted, and one that is stored.
fn standing<L: TrainingLoop>(
    training: &mut L,
    running: &L::Model,
    counted: &L::Model,
    stored: &L::Model,
) -> Result<Standing, StageError> {
    let weights = read(counted, |_| true).map_err(AdmmError::from)?;
    let unsound = |values: &[f32]| values.iter().any(|value| !value.is_finite());
    if let Some(weight) = weights.into_iter().find(|weight| unsound(&weight.data)) {
        return Err(StageError::NonFinite(weight.path));
    }
    let accuracy = training.accuracy(running).map_err(StageError::Loop)?;
    if !accuracy.is_finite() {
        return Err(StageError::Accuracy(accuracy));
    }
    let zeros = SparsityReport::new(counted)?;
    let (bytes, _) = compact::to_bytes(stored)?;
    Ok(Standing {
        accuracy,
        sparsity: zeros.sparsity,
        nnz: zeros.nnz,
        weights: zeros.weights,
        bytes: bytes.len() as u64,
    })
}

pub(super) fn floats(data: TensorData) -> Vec<f32> {
    data.iter::<f32>().collect()
}

impl<L: TrainingLoop> Run<'_, L> {
    fn stage(&mut self, at: usize, stage: &Stage, model: L::Model) -> Result<L::Model, StageError> {
        let mut outcome = Outcome {
            difference: None,
            details: String::new(),
            packed: None,
        };
        let model = match stage {
            Stage::Choose(by) => {
                let number = self.progress.number;
                let chosen = choose(
                    self.training,
                    &model,
                    by,
                    (at, number),
                    self.folder.as_ref(),
                )?;
                outcome.details.clone_from(&chosen.details);
                self.progress.chosen = Some(chosen);
                model
            }
            Stage::Train(train) => {
                let segment = Segment {
                    stage: at,
                    from: 0,
                    epochs: train.epochs,
                    lr: train.lr,
                };
                self.train(model, &segment, &mut Work::Nothing)?
            }
            Stage::Admm(admm) => self.admm(at, admm, model)?,
            Stage::OneShot(OneShot { plan }) => {
                let plan = self.plan(plan.as_ref()).resolve(&model)?;
                let earlier = Masks::attached(&model);
                regain(one_shot(model, &plan)?, &earlier)?
            }
            Stage::Gradual(gradual) => self.gradual(at, gradual, model)?,
            Stage::Quantise(quantise) => self.quantise(at, quantise, model)?,
            Stage::Shrink(shrink) => self.shrink(shrink, model, &mut outcome)?,
            Stage::Pack(pack) => self.pack(pack, &model, &mut outcome)?,
        };
        self.end(at, stage, &model, outcome)?;
        Ok(model)
    }

    /// The plan of a stage that prunes.
    pub(super) fn plan(&self, own: Option<&Plan>) -> Plan {
        let chosen = self.progress.chosen.as_ref().map(|chosen| &chosen.plan);
        // A recipe that was checked has one of both.
        own.or(chosen).cloned().unwrap_or_else(Plan::dense)
    }

    /// Counts the time since it was counted last.
    fn lap(&mut self) {
        let now = Instant::now();
        self.progress.seconds += (now - self.since).as_secs_f64();
        self.since = now;
    }

    pub(super) fn save(
        &mut self,
        model: &L::Model,
        optimizer: Option<&ModuleOptimizer>,
        admm: Option<&Admm>,
    ) -> Result<(), StageError> {
        self.lap();
        let Some(folder) = &self.folder else {
            return Ok(());
        };
        settle(model);
        let model = model.clone().into_record().into_bytes()?;
        let optimizer = optimizer
            .map(|optimizer| optimizer.into_bytes())
            .transpose()?;
        let contents = Contents {
            model: Some(&model[..]),
            optimizer: optimizer.as_deref(),
            packed: None,
            admm,
        };
        folder.save(&mut self.progress, &contents)
    }

    fn end(
        &mut self,
        at: usize,
        stage: &Stage,
        model: &L::Model,
        outcome: Outcome<L::Model>,
    ) -> Result<(), StageError> {
        let after = match &outcome.packed {
            Some((plain, _)) => standing(self.training, model, plain, model)?,
            None => {
                let valid = model.valid();
                let plain = fold(valid.clone());
                standing(self.training, &valid, &plain, &plain)?
            }
        };
        self.lap();
        let report = StageReport {
            stage: at,
            name: stage.name().to_owned(),
            after,
            epochs: self.progress.epochs,
            seconds: core::mem::take(&mut self.progress.seconds),
            residuals: core::mem::take(&mut self.progress.residuals),
            // As residuals: of doubles, JSON may lose the last digit.
            difference: outcome.difference.map(|difference| difference as f32),
            details: outcome.details,
        };
        self.training.ended(&report);
        self.progress.masked = match (&outcome.packed, stage) {
            (None, Stage::Pack(_) | Stage::Shrink(_)) | (Some(_), _) => Vec::new(),
            _ => masked(model),
        };
        self.progress.report.stages.push(report);
        self.progress.stage = at + 1;
        self.progress.epochs = 0;
        match (&self.folder, &outcome.packed) {
            (Some(folder), Some((_, bytes))) => {
                let contents = Contents {
                    packed: Some(&bytes[..]),
                    ..Contents::default()
                };
                folder.save(&mut self.progress, &contents)
            }
            _ => self.save(model, None, None),
        }
    }
}
