use std::io::IsTerminal;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use burn::module::Module;
use burn::optim::GradientsParams;
use burn::train::checkpoint::{
    CheckpointingStrategy, ComposedCheckpointingStrategy, KeepLastNCheckpoints,
};
use burn::train::{Interrupter, LearnerModel, SupervisedTraining};

use super::{AdmmCheckpoints, AdmmModel, LineRenderer, ValueMetric};
use crate::admm::{Admm, AdmmError, AdmmInfo, StateError};

/// ADMM shared between the trainer, the model in it and the metrics; cloning shares it.
///
/// A diverging training is stopped at the next update, by its non-finite weights or its growing
/// dual; the loss itself is the model's own affair and not seen here.
///
/// Works with one device and with several under one optimiser. Not with distributed data parallel
/// training, where every device would count steps of its own.
#[derive(Debug, Clone)]
pub struct AdmmTraining {
    shared: Arc<Mutex<Shared>>,
}

struct Shared {
    admm: Admm,
    steps_per_iteration: usize,
    history: Vec<AdmmInfo>,
    error: Option<AdmmError>,
    interrupter: Interrupter,
}

impl core::fmt::Debug for Shared {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("AdmmTraining")
            .field("iteration", &self.admm.iteration())
            .field("rho", &self.admm.rho())
            .field("steps_per_iteration", &self.steps_per_iteration)
            .field("error", &self.error)
            .finish_non_exhaustive()
    }
}

impl AdmmTraining {
    /// Ends an outer iteration after every `steps_per_iteration` optimiser steps; for `n` epochs
    /// that is `n` times the number of batches.
    ///
    /// # Panics
    /// If `steps_per_iteration` is zero.
    pub fn new(admm: Admm, steps_per_iteration: usize) -> Self {
        assert!(
            steps_per_iteration > 0,
            "an outer iteration needs at least one step, got 0"
        );
        let shared = Shared {
            admm,
            steps_per_iteration,
            history: Vec::new(),
            error: None,
            interrupter: Interrupter::new(),
        };
        Self {
            shared: Arc::new(Mutex::new(shared)),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The model for the trainer.
    pub fn wrap<M: Module>(&self, model: M) -> AdmmModel<M> {
        AdmmModel::new(model, self.clone())
    }

    /// Prepares a trainer: adds rho, both residuals and the sparsity of `Z` as training metrics,
    /// lets a divergence stop the training, saves the ADMM state with every checkpoint in
    /// `directory`, and prints plain lines where stdout is no terminal. In a terminal Burn's own
    /// renderer stays: the dashboard, with the feature `tui`.
    ///
    /// Keeps the last two checkpoints. To keep others, call `with_checkpointing_strategy` with an
    /// [`AdmmCheckpoints`] of your own afterwards.
    #[must_use]
    pub fn register<M>(
        &self,
        training: SupervisedTraining<AdmmModel<M>>,
        directory: impl AsRef<Path>,
    ) -> SupervisedTraining<AdmmModel<M>>
    where
        M: Module,
        AdmmModel<M>: LearnerModel,
    {
        self.lock().interrupter = training.interrupter();
        let training = training
            .metric_train_numeric(self.rho_metric())
            .metric_train_numeric(self.primal_metric())
            .metric_train_numeric(self.dual_metric())
            .metric_train_numeric(self.sparsity_metric())
            .with_checkpointing_strategy(self.checkpoints(directory, two_last()));
        if std::io::stdout().is_terminal() {
            training
        } else {
            training.renderer(Box::new(LineRenderer::new()))
        }
    }

    /// A checkpointing strategy that does what `inner` says and keeps the ADMM state beside each
    /// checkpoint.
    pub fn checkpoints(
        &self,
        directory: impl AsRef<Path>,
        inner: impl CheckpointingStrategy + 'static,
    ) -> AdmmCheckpoints {
        AdmmCheckpoints::new(self.clone(), directory.as_ref().to_owned(), Box::new(inner))
    }

    /// Metric "Rho".
    pub fn rho_metric(&self) -> ValueMetric {
        let training = self.clone();
        ValueMetric::new("Rho", false, move || Some(training.lock().admm.rho()))
    }

    /// Metric "Primal residual": `‖W − Z‖ / ‖W‖` at the last update.
    pub fn primal_metric(&self) -> ValueMetric {
        let training = self.clone();
        ValueMetric::new("Primal residual", false, move || {
            training
                .lock()
                .history
                .last()
                .map(|info| info.primal_residual)
        })
    }

    /// Metric "Dual residual": `‖Z − Z_prev‖ / ‖W‖` at the last update.
    pub fn dual_metric(&self) -> ValueMetric {
        let training = self.clone();
        ValueMetric::new("Dual residual", false, move || {
            training
                .lock()
                .history
                .last()
                .map(|info| info.dual_residual)
        })
    }

    /// Metric "Sparsity": the fraction of zeros that projecting the constrained weights leaves.
    pub fn sparsity_metric(&self) -> ValueMetric {
        ValueMetric::constant("Sparsity", true, self.lock().admm.plan().sparsity())
    }

    /// The outer iterations so far (since a resume).
    pub fn history(&self) -> Vec<AdmmInfo> {
        self.lock().history.clone()
    }

    /// Gives access to the state, for example to save it elsewhere.
    pub fn with_admm<T>(&self, f: impl FnOnce(&mut Admm) -> T) -> T {
        f(&mut self.lock().admm)
    }

    /// What stopped the training, if anything did. The error is handed out once.
    ///
    /// # Errors
    /// The first error of an update or of saving the state.
    pub fn result(&self) -> Result<(), AdmmError> {
        self.lock().error.take().map_or(Ok(()), Err)
    }

    /// Adds the penalty's gradient.
    pub(super) fn add_gradient<M: Module>(
        &self,
        model: &M,
        grads: GradientsParams,
    ) -> GradientsParams {
        self.lock().admm.add_gradient(model, grads)
    }

    /// Counts an optimiser step and updates when it is time.
    pub(super) fn after_step<M: Module>(&self, model: &M) {
        let mut shared = self.lock();
        if shared.error.is_some() {
            return;
        }
        let steps = shared.steps_per_iteration;
        match shared.admm.step(model, steps) {
            Ok(Some(info)) => shared.history.push(info),
            Ok(None) => {}
            Err(error) => shared.fail(error),
        }
    }

    pub(super) fn save(&self, path: &Path) -> Result<(), StateError> {
        self.lock().admm.save(path)
    }

    pub(super) fn fail(&self, error: AdmmError) {
        self.lock().fail(error);
    }
}

impl Shared {
    fn fail(&mut self, error: AdmmError) {
        self.interrupter.stop(Some(&error.to_string()));
        self.error.get_or_insert(error);
    }
}

fn two_last() -> ComposedCheckpointingStrategy {
    ComposedCheckpointingStrategy::builder()
        .add(KeepLastNCheckpoints::new(2))
        .build()
}
