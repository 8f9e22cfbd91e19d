//! What each stage does.

use burn::module::Module;
use burn::tensor::Bytes;
use burn_sparse::nn::Trace;
use burn_sparse::pack::{self, PackConfig, pack};
use burn_sparse::store::compact;

use super::dress::{masked, on_levels, regain};
use super::run::{Outcome, Run, floats};
use super::{AdmmPruning, Epoch, GradualPruning, Pack, Quantise, Shrink, StageError, TrainingLoop};
use crate::baseline::{Gradual, GradualSchedule};
use crate::shrink::{Difference, Shrunk, shrink_compared};
use crate::{Admm, Masks, fold};

/// Epochs with one optimiser.
pub(super) struct Segment {
    pub(super) stage: usize,
    /// Epochs of the stage before it.
    pub(super) from: usize,
    pub(super) epochs: usize,
    pub(super) lr: Option<f64>,
}

/// What acts on the weights besides the loss.
pub(super) enum Work {
    Nothing,
    /// With an update after so many epochs.
    Admm(Box<Admm>, usize),
    Gradual(Box<Gradual>),
}

impl Work {
    fn admm(&self) -> Option<&Admm> {
        match self {
            Self::Admm(admm, _) => Some(admm),
            _ => None,
        }
    }
}

impl<L: TrainingLoop> Run<'_, L> {
    /// Trains, from where a state left it.
    pub(super) fn train(
        &mut self,
        mut model: L::Model,
        segment: &Segment,
        work: &mut Work,
    ) -> Result<L::Model, StageError> {
        let done = self.progress.epochs - segment.from;
        let mut optimizer = self.training.optimizer();
        if let Some(bytes) = self.optimizer.take()
            && done > 0
        {
            optimizer = optimizer.from_bytes(Bytes::from_bytes_vec(bytes))?;
        }
        let name = self.recipe.stages()[segment.stage].name();
        for index in done..segment.epochs {
            let epoch = Epoch {
                stage: segment.stage,
                name,
                number: self.progress.number,
                index,
                epochs: segment.epochs,
                lr: segment.lr,
                admm: work.admm(),
            };
            let trained = self.training.epoch(model, &mut optimizer, &epoch);
            model = trained.map_err(StageError::Loop)?;
            match work {
                Work::Nothing => {}
                Work::Admm(admm, every) => {
                    if (index + 1).is_multiple_of(*every) {
                        let info = admm.update(&model)?;
                        let residuals = [info.primal_residual as f32, info.dual_residual as f32];
                        self.progress.residuals.push(residuals);
                    }
                }
                Work::Gradual(gradual) => {
                    let earlier = Masks::attached(&model);
                    (model, _) = gradual.step(model)?;
                    model = regain(model, &earlier)?;
                    self.progress.masked = masked(&model);
                }
            }
            self.progress.epochs += 1;
            self.progress.number += 1;
            self.save(&model, Some(&optimizer), work.admm())?;
        }
        Ok(model)
    }

    /// As it was when the state was saved.
    fn resumed(&mut self, mut admm: Admm) -> Result<Box<Admm>, StageError> {
        if let Some(path) = self.admm.take() {
            admm.restore(path)?;
        }
        Ok(Box::new(admm))
    }

    pub(super) fn admm(
        &mut self,
        at: usize,
        stage: &AdmmPruning,
        model: L::Model,
    ) -> Result<L::Model, StageError> {
        let plan = self.plan(stage.plan.as_ref());
        let admm = Admm::new(&model, &plan, stage.config)?;
        let mut work = Work::Admm(self.resumed(admm)?, stage.epochs);
        let segment = Segment {
            stage: at,
            from: 0,
            epochs: stage.iterations * stage.epochs,
            lr: stage.lr,
        };
        let model = self.train(model, &segment, &mut work)?;
        let Some(admm) = work.admm() else {
            return Ok(model);
        };
        let earlier = Masks::attached(&model);
        let masks = Masks::project(&model, admm.plan())?;
        Ok(regain(masks.attach(model)?, &earlier)?)
    }

    pub(super) fn gradual(
        &mut self,
        at: usize,
        stage: &GradualPruning,
        model: L::Model,
    ) -> Result<L::Model, StageError> {
        let plan = self.plan(stage.plan.as_ref()).resolve(&model)?;
        let schedule = GradualSchedule::new(stage.initial, 1, stage.epochs as u64, 1)?;
        let gradual = Gradual::new(schedule, plan).at_step(self.progress.epochs as u64);
        let segment = Segment {
            stage: at,
            from: 0,
            epochs: stage.epochs,
            lr: stage.lr,
        };
        self.train(model, &segment, &mut Work::Gradual(Box::new(gradual)))
    }

    pub(super) fn quantise(
        &mut self,
        at: usize,
        stage: &Quantise,
        mut model: L::Model,
    ) -> Result<L::Model, StageError> {
        let towards = stage.towards();
        if self.progress.levels.is_none() {
            if towards > 0 {
                let admm = stage.plan.admm(&model, stage.config)?;
                let mut work = Work::Admm(self.resumed(admm)?, stage.epochs);
                let segment = Segment {
                    stage: at,
                    from: 0,
                    epochs: towards,
                    lr: stage.lr,
                };
                model = self.train(model, &segment, &mut work)?;
            }
            model = on_levels(model, &stage.plan)?;
            self.progress.levels = Some(at);
        }
        let segment = Segment {
            stage: at,
            from: towards,
            epochs: stage.tune_epochs,
            lr: stage.lr,
        };
        self.train(model, &segment, &mut Work::Nothing)
    }

    pub(super) fn shrink(
        &mut self,
        stage: &Shrink,
        model: L::Model,
        outcome: &mut Outcome<L::Model>,
    ) -> Result<L::Model, StageError> {
        let training = &*self.training;
        let graph = training.channel_graph(&model).map_err(StageError::Loop)?;
        let graph = graph.ok_or(StageError::NoGraph)?;
        let expected = floats(training.forward(&fold(model.valid())));
        let differs = |small: &L::Model| {
            Difference::between(&expected, &floats(training.forward(&small.valid())))
        };
        let groups = |model: &mut L::Model, layer: &str, groups: usize| {
            training.set_groups(model, layer, groups)
        };
        let shrunk = shrink_compared(model, &graph, &stage.options, groups, differs)?;
        let Shrunk {
            model,
            plan,
            difference,
        } = shrunk;
        outcome.details = plan.report().to_string();
        outcome.difference =
            Some(difference.max_abs_diff / difference.largest.max(f64::MIN_POSITIVE));
        self.progress.shrunk = Some(plan);
        self.progress.levels = None;
        Ok(model)
    }

    pub(super) fn pack(
        &mut self,
        stage: &Pack,
        model: &L::Model,
        outcome: &mut Outcome<L::Model>,
    ) -> Result<L::Model, StageError> {
        let training = &*self.training;
        let masked = model.valid();
        let plain = training.fold(fold(masked.clone()));
        let trace = Trace::of(|| drop(training.forward(&plain)));
        let config = PackConfig::measure(trace)
            .with_choice(stage.choice)
            .with_min_sparsity(stage.min_sparsity);
        let (packed, report) = pack(plain.clone(), &config)?;
        // As whoever loads it will have it.
        let (bytes, _) = compact::to_bytes(&packed)?;
        let packed = compact::from_bytes(plain.clone(), &bytes)?;
        let outputs = [&masked, &packed].map(|model| floats(training.forward(model)));
        let [expected, found] = outputs;
        let difference = match expected.len() == found.len() {
            true => pack::Difference::between(&expected, &found).max_rel,
            false => f64::INFINITY,
        };
        if difference.is_nan() || difference > stage.tolerance {
            return Err(StageError::Differs {
                difference,
                tolerance: stage.tolerance,
            });
        }
        outcome.difference = Some(difference);
        outcome.details = report.to_string();
        outcome.packed = Some((plain, bytes));
        self.progress.levels = None;
        Ok(packed)
    }
}
