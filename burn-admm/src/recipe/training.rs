use burn::module::Module;
use burn::optim::{GradientsParams, ModuleOptimizer};
use burn::tensor::{Tensor, TensorData};

use super::{StageError, StageReport};
use crate::Admm;
use crate::shrink::ChannelGraph;

/// Whatever goes wrong in a training loop; `?` makes one of any error.
pub type LoopError = Box<dyn std::error::Error + Send + Sync>;

/// Your training loop, as a [`Recipe`](super::Recipe) calls it: how an epoch goes, and how good a model is.
///
/// The recipe decides how many epochs there are, what penalty each has, when masks are attached and when the
/// optimiser starts afresh; data, loss and learning rate are yours. A loop that does the same in the epoch of a
/// [number](Epoch::number) each time (order of the data, what is drawn: `device.seed(..)` at its start) makes a
/// run that was interrupted end with the weights with which it would have ended.
pub trait TrainingLoop {
    /// The network.
    type Model: Module;

    /// A fresh optimiser. Each stage starts with one; its state is saved after every epoch.
    fn optimizer(&self) -> ModuleOptimizer;

    /// Trains for an epoch. The penalty goes into every step: [`Epoch::loss`] before `backward()`, or
    /// [`Epoch::gradients`] after it.
    ///
    /// # Errors
    /// Whatever ends the run.
    fn epoch(
        &mut self,
        model: Self::Model,
        optimizer: &mut ModuleOptimizer,
        epoch: &Epoch<'_>,
    ) -> Result<Self::Model, LoopError>;

    /// The accuracy of a model without gradients ([`valid`](Module::valid)), from 0 to 1: on data that are not those
    /// of the final test if anything is chosen by it.
    ///
    /// # Errors
    /// Whatever ends the run.
    fn accuracy(&mut self, model: &Self::Model) -> Result<f64, LoopError>;

    /// The loss of a model without gradients, on the same samples each time: what layers are
    /// [chosen](super::Choose) by. By default `1 − accuracy`.
    ///
    /// # Errors
    /// Whatever ends the run.
    fn loss(&mut self, model: &Self::Model) -> Result<f64, LoopError> {
        Ok(1.0 - self.accuracy(model)?)
    }

    /// The outputs of a model without gradients for some input, the same each time: by them layers are
    /// [traced](burn_sparse::nn::Trace) and timed, and the packed network is compared with the masked one.
    fn forward(&self, model: &Self::Model) -> TensorData;

    /// What is done to a model before it is packed or timed, such as
    /// [folding batch norms](burn_sparse::nn::fold_batch_norm); by default nothing. It must not change outputs.
    fn fold(&self, model: Self::Model) -> Self::Model {
        model
    }

    /// Who feeds whom, for recipes that [cut channels out](super::Shrink); by default nobody says.
    ///
    /// # Errors
    /// Whatever ends the run.
    fn channel_graph(&self, _model: &Self::Model) -> Result<Option<ChannelGraph>, LoopError> {
        Ok(None)
    }

    /// Sets the groups of a depthwise convolution, as [`ChannelModel::set_groups`](crate::shrink::ChannelModel::set_groups).
    fn set_groups(&self, _model: &mut Self::Model, _layer: &str, _groups: usize) -> bool {
        false
    }

    /// Is told when a stage has ended, to print it.
    fn ended(&mut self, _report: &StageReport) {}
}

/// An epoch, as a [`TrainingLoop`] is asked for it.
#[derive(Debug)]
pub struct Epoch<'a> {
    pub(super) stage: usize,
    pub(super) name: &'static str,
    pub(super) number: usize,
    pub(super) index: usize,
    pub(super) epochs: usize,
    pub(super) lr: Option<f64>,
    pub(super) admm: Option<&'a Admm>,
}

impl Epoch<'_> {
    /// The stage, counted from 0, and its name.
    pub fn stage(&self) -> (usize, &'static str) {
        (self.stage, self.name)
    }

    /// Its number in the whole run, from 0: for the order of the data and the seed of what is drawn.
    pub fn number(&self) -> usize {
        self.number
    }

    /// Its number since the optimiser was fresh, from 0, and how many there are: for schedules of the learning rate.
    pub fn of(&self) -> (usize, usize) {
        (self.index, self.epochs)
    }

    /// The learning rate that the recipe asks for, or that of the loop.
    pub fn lr(&self, own: f64) -> f64 {
        self.lr.unwrap_or(own)
    }

    /// The loss with the penalty of the stage, if it has one ([`Admm::penalty`]).
    ///
    /// # Panics
    /// If the model lacks a constrained parameter.
    pub fn loss<M: Module>(&self, loss: Tensor<1>, model: &M) -> Tensor<1> {
        match self.admm {
            Some(admm) => loss + admm.penalty(model),
            None => loss,
        }
    }

    /// The gradients with those of the penalty, if there is one ([`Admm::add_gradient`]): the same training as with
    /// [`loss`](Self::loss), cheaper.
    ///
    /// # Panics
    /// If the model lacks a constrained parameter.
    pub fn gradients<M: Module>(&self, gradients: GradientsParams, model: &M) -> GradientsParams {
        match self.admm {
            Some(admm) => admm.add_gradient(model, gradients),
            None => gradients,
        }
    }

    /// Checks the loss of a step.
    ///
    /// # Errors
    /// If it is a NaN or an infinity; with ADMM it names the layer that is furthest from its constraint.
    pub fn check_loss(&self, loss: f64) -> Result<(), LoopError> {
        match self.admm {
            Some(admm) => Ok(admm.check_loss(loss)?),
            None if !loss.is_finite() => Err(StageError::Diverged(loss).into()),
            None => Ok(()),
        }
    }
}
