//! What acts on the weights while a stage trains.

use std::path::Path;

use burn::optim::{GradientsParams, ModuleOptimizer};
use burn::tensor::Tensor;
use burn_admm::baseline::Gradual;
use burn_admm::click_train::ClickTrain;
use burn_admm::evolve::{Evolution, Verdict};
use burn_admm::penni::Penni;
use burn_admm::plan::ResolvedPlan;
use burn_admm::reweighted::{Reweighted, Threshold};
use burn_admm::{Admm, AdmmError, AdmmInfo, Masks, Plan};
use models::Classifier;

use super::TrainingError;
use super::taught::Teacher;

/// What happens to the weights beside the steps of the optimiser.
#[derive(Debug)]
pub(super) enum Compression {
    /// Nothing, or a fixed mask.
    None,
    /// The penalty of ADMM; an update after every so many epochs.
    Admm { admm: Box<Admm>, epochs: usize },
    /// Growing masks.
    Gradual(Gradual),
    /// A penalty whose coefficients are refreshed after every so many epochs, and what prunes in the end.
    Reweighted {
        penalty: Box<Reweighted>,
        epochs: usize,
        threshold: Option<Threshold>,
    },
    /// The outputs of a teacher as targets.
    Taught(Teacher),
    /// Importance, then a group lasso on what will go. The plan is what a resumed run starts from.
    Click { run: Box<ClickTrain>, plan: Plan },
    /// Weights that are products of factors, which train in their place.
    Shared(Box<Penni>),
    /// Trials of so many batches. The plan is what a resumed run starts from.
    Evolve {
        run: Box<Evolution>,
        plan: Plan,
        batches: usize,
    },
}

impl Compression {
    /// Before the forward pass of a step.
    pub(super) fn before_step<M: Classifier>(
        &mut self,
        model: &M,
        optimizer: &ModuleOptimizer,
    ) -> Result<(), TrainingError> {
        if let Self::Evolve { run, .. } = self
            && run.trial().is_none()
        {
            run.begin(model, optimizer)?;
        }
        Ok(())
    }

    /// The step whose learning rate the batch of this index of an epoch has: trials start anew.
    pub(super) fn rate_step(&self, step: usize, index: usize) -> usize {
        match self {
            Self::Evolve { batches, .. } => index % batches,
            _ => step,
        }
    }

    /// The loss of a step with the penalty, if there is one whose gradient the loss carries.
    pub(super) fn penalised<M: Classifier>(
        &self,
        model: &M,
        loss: Tensor<1>,
        (images, logits): (Tensor<4>, Tensor<2>),
    ) -> Tensor<1> {
        match self {
            Self::Taught(teacher) => teacher.loss(loss, logits, images),
            Self::Reweighted { penalty, .. } => loss + penalty.penalty(model),
            Self::Click { run, .. } => match run.penalty(model) {
                Some(penalty) => loss + penalty,
                None => loss,
            },
            Self::None
            | Self::Admm { .. }
            | Self::Gradual(_)
            | Self::Shared(_)
            | Self::Evolve { .. } => loss,
        }
    }

    /// Before the optimiser takes the gradients of a step at this learning rate.
    pub(super) fn gradients<M: Classifier>(
        &mut self,
        model: &M,
        gradients: GradientsParams,
        (lr, optimizer): (f64, &mut ModuleOptimizer),
    ) -> Result<GradientsParams, TrainingError> {
        match self {
            Self::Admm { admm, .. } => return Ok(admm.add_gradient(model, gradients)),
            Self::Shared(penni) => return Ok(penni.step(model, lr, optimizer, gradients)?),
            Self::Click { run, .. } => run.observe(model, &gradients),
            Self::Evolve { run, .. } => run.observe(model, &gradients)?,
            Self::None | Self::Gradual(_) | Self::Reweighted { .. } | Self::Taught(_) => {}
        }
        Ok(gradients)
    }

    /// After the optimiser's step.
    pub(super) fn after_step<M: Classifier>(&mut self, mut model: M) -> Result<M, TrainingError> {
        Ok(match self {
            Self::Evolve { run, .. } => {
                run.step(&mut model)?;
                model
            }
            Self::Gradual(gradual) => gradual.step(model)?.0,
            Self::Click { run, .. } => run.step(model)?,
            Self::Shared(penni) => penni.compose(model)?,
            Self::None | Self::Admm { .. } | Self::Reweighted { .. } | Self::Taught(_) => model,
        })
    }

    /// After the batch of this index, of so many of the epoch: ends a trial that is over, with the
    /// accuracy of the network. The last batch of an epoch ends one in any case.
    pub(super) fn judge<M: Classifier>(
        &mut self,
        (model, optimizer): (&mut M, &mut ModuleOptimizer),
        (index, of_epoch): (usize, usize),
        accuracy: impl Fn(&M) -> Result<f64, TrainingError>,
    ) -> Result<Option<Verdict>, TrainingError> {
        let Self::Evolve { run, batches, .. } = self else {
            return Ok(None);
        };
        let done = index + 1;
        if !done.is_multiple_of(*batches) && done < of_epoch {
            return Ok(None);
        }
        let accuracy = accuracy(model)?;
        Ok(Some(run.end(model, optimizer, accuracy)?))
    }

    /// After so many epochs of the stage.
    pub(super) fn after_epoch<M: Classifier>(
        &mut self,
        model: &M,
        done: usize,
    ) -> Result<Option<AdmmInfo>, TrainingError> {
        match self {
            Self::Admm { admm, epochs } if done.is_multiple_of(*epochs) => {
                return Ok(Some(admm.update(model)?));
            }
            Self::Reweighted {
                penalty, epochs, ..
            } if done.is_multiple_of(*epochs) => {
                penalty.refresh(model)?;
            }
            Self::Shared(penni) => {
                penni.end_epoch()?;
            }
            _ => {}
        }
        Ok(None)
    }

    /// That a loss that is no number is ADMM's doing, with what to do about it.
    pub(super) fn check_loss(&self, loss: f64) -> Result<(), TrainingError> {
        if let Self::Admm { admm, .. } = self {
            admm.check_loss(loss)?;
        }
        Ok(())
    }

    /// The start of the name of its file, if it has a state.
    pub(super) fn file_prefix(&self) -> Option<&'static str> {
        match self {
            Self::None | Self::Gradual(_) | Self::Taught(_) => None,
            Self::Admm { .. } => Some("admm"),
            Self::Reweighted { .. } => Some("reweighted"),
            Self::Click { .. } => Some("click"),
            Self::Shared(_) => Some("penni"),
            Self::Evolve { .. } => Some("evolve"),
        }
    }

    /// Steps that have to be remembered.
    pub(super) fn steps(&self) -> u64 {
        match self {
            Self::Gradual(gradual) => gradual.steps(),
            _ => 0,
        }
    }

    pub(super) fn save(&self, path: &Path) -> Result<(), TrainingError> {
        match self {
            Self::None | Self::Gradual(_) | Self::Taught(_) => {}
            Self::Admm { admm, .. } => admm.save(path).map_err(AdmmError::from)?,
            Self::Reweighted { penalty, .. } => penalty.save(path).map_err(AdmmError::from)?,
            Self::Click { run, .. } => run.save(path)?,
            Self::Shared(penni) => penni.save(path)?,
            Self::Evolve { run, .. } => run.save(path)?,
        }
        Ok(())
    }

    /// Continues after `steps` steps, from the file that was saved, if one was. The model is the one
    /// of that time.
    pub(super) fn restore<M: Classifier>(
        &mut self,
        model: &M,
        steps: u64,
        path: Option<&Path>,
    ) -> Result<(), TrainingError> {
        match (self, path) {
            (Self::Gradual(gradual), _) => *gradual = gradual.clone().at_step(steps),
            (Self::Admm { admm, .. }, Some(path)) => {
                admm.restore(path).map_err(AdmmError::from)?;
            }
            (Self::Reweighted { penalty, .. }, Some(path)) => {
                penalty.restore(path).map_err(AdmmError::from)?;
            }
            (Self::Click { run, plan }, Some(path)) => {
                **run = ClickTrain::resume(model, plan, *run.config(), path)?;
            }
            (Self::Shared(penni), Some(path)) => penni.restore(path)?,
            (Self::Evolve { run, plan, .. }, Some(path)) => {
                **run = Evolution::resume(model, plan, *run.config(), path)?;
            }
            _ => {}
        }
        Ok(())
    }

    /// The plan that was trained under, with the kernel patterns that were found.
    pub(super) fn plan(&self) -> Option<&ResolvedPlan> {
        match self {
            Self::None | Self::Gradual(_) | Self::Taught(_) | Self::Shared(_) => None,
            Self::Admm { admm, .. } => Some(admm.plan()),
            Self::Reweighted { penalty, .. } => Some(penalty.plan()),
            Self::Click { run, .. } => Some(run.plan()),
            Self::Evolve { run, .. } => Some(run.plan()),
        }
    }

    /// The masks that were chosen while training, or are by a threshold; without them, weights are
    /// projected afterwards.
    pub(super) fn masks<M: Classifier>(&self, model: &M) -> Result<Option<Masks>, TrainingError> {
        match self {
            Self::Reweighted {
                penalty,
                threshold: Some(threshold),
                ..
            } => Ok(Some(penalty.prune(model, *threshold)?)),
            Self::Click { run, .. } => Ok(Some(run.masks()?)),
            Self::Evolve { run, .. } => Ok(Some(run.masks())),
            _ => Ok(None),
        }
    }

    /// The trials of an evolution.
    pub(super) fn trials(&self) -> Vec<Verdict> {
        match self {
            Self::Evolve { run, .. } => run.history().to_vec(),
            _ => Vec::new(),
        }
    }
}
