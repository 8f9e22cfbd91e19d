use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use burn::store::RecordError;
use burn::tensor::TensorReadError;
use burn_admm::baseline::ScheduleError;
use burn_admm::click_train::ClickTrainError;
use burn_admm::decompose::{RankPlanError, RankTimesError};
use burn_admm::evolve::EvolveError;
use burn_admm::mapping::MappingError;
use burn_admm::penni::PenniError;
use burn_admm::quantize::QuantizeError;
use burn_admm::reweighted::ReweightedError;
use burn_admm::shrink::ShrinkError;
use burn_admm::{AdmmError, PlanError};
use burn_sparse::SparseError;
use models::weights::WeightsError;
use models::{SpeechGruError, TextCnnError};

use crate::bench::BenchError;
use crate::data::DataError;
use crate::device::DeviceError;
use crate::figure::FigureError;
use crate::output::OutputError;
use crate::report::ReportError;
use crate::timing::TimingError;

/// Why a run ended early.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainingError {
    /// The loss is no number any more.
    #[error(
        "{stage}: the loss is {loss} in epoch {epoch}; start again with a learning rate below \
         {lr:.2e}: --lr"
    )]
    Diverged {
        /// The stage.
        stage: String,
        /// Its epoch, from 1.
        epoch: usize,
        /// The loss.
        loss: f64,
        /// The learning rate at that step.
        lr: f64,
    },
    /// As many epochs were run as `--stop-after` allows; all is saved.
    #[error("stopped after epoch {epoch} of {stage}; continue with --resume")]
    Stopped {
        /// The stage.
        stage: String,
        /// Its last epoch, from 1.
        epoch: usize,
    },
    /// A saved state that cannot be read or does not fit.
    #[error("{}: {reason}; start again without --resume", path.display())]
    State {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The saved run was started with another setting.
    #[error(
        "{}: this run has `{key}` = {saved}, now it is {given}; repeat the command line of the run, \
         or start another one with another --output", path.display()
    )]
    OtherRun {
        /// The file with the settings.
        path: PathBuf,
        /// The setting.
        key: String,
        /// Its value in the saved run.
        saved: String,
        /// Its value now.
        given: String,
    },
    /// Settings or data that leave nothing to do.
    #[error("{0}")]
    Settings(String),
    /// Burn's trainer stopped with an error.
    #[error("Burn's trainer: {0}; continue from the last checkpoint with --resume")]
    Trainer(Arc<burn::train::TrainingError>),
    /// Model or optimiser could not be written.
    #[error("{}: {source}", path.display())]
    Record {
        /// The file.
        path: PathBuf,
        /// What Burn says.
        source: RecordError,
    },
    /// A value could not be read from the device.
    #[error("reading from the device: {0}")]
    Read(#[from] TensorReadError),
    /// Pruning failed or diverged.
    #[error(transparent)]
    Admm(#[from] AdmmError),
    /// Reweighted regularisation.
    #[error(transparent)]
    Reweighted(Box<ReweightedError>),
    /// Pruning within one training run.
    #[error(transparent)]
    Click(Box<ClickTrainError>),
    /// Evolution.
    #[error(transparent)]
    Evolve(Box<EvolveError>),
    /// Quantisation.
    #[error(transparent)]
    Quantize(Box<QuantizeError>),
    /// Ranks, and the factors of a network.
    #[error(transparent)]
    Ranks(Box<RankPlanError>),
    /// Times of ranks that cannot be kept or used.
    #[error(transparent)]
    Times(#[from] RankTimesError),
    /// Shared kernels.
    #[error(transparent)]
    Penni(Box<PenniError>),
    /// Choosing a scheme for each layer.
    #[error(transparent)]
    Mapping(Box<MappingError>),
    /// Cutting channels out.
    #[error(transparent)]
    Shrink(Box<ShrinkError>),
    /// The plan does not fit the network.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The schedule of gradual pruning.
    #[error(transparent)]
    Schedule(#[from] ScheduleError),
    /// Packing, verifying or storing the packed network failed.
    #[error(transparent)]
    Sparse(#[from] SparseError),
    /// The dense checkpoint could not be written.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// The images.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The device.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The output folder.
    #[error(transparent)]
    Output(#[from] OutputError),
    /// A figure.
    #[error(transparent)]
    Figure(#[from] FigureError),
    /// The report.
    #[error(transparent)]
    Report(#[from] ReportError),
    /// Measuring.
    #[error(transparent)]
    Timing(#[from] TimingError),
    /// Measuring two forms in turns, or drawing what was measured.
    #[error(transparent)]
    Bench(Box<BenchError>),
    /// The configuration of a speech classifier.
    #[error(transparent)]
    Speech(#[from] SpeechGruError),
    /// The configuration of a text classifier.
    #[error(transparent)]
    Text(#[from] TextCnnError),
}

// Boxed: an error should not be larger than what a function usually returns.

impl From<BenchError> for TrainingError {
    fn from(error: BenchError) -> Self {
        Self::Bench(Box::new(error))
    }
}

impl From<ReweightedError> for TrainingError {
    fn from(error: ReweightedError) -> Self {
        Self::Reweighted(Box::new(error))
    }
}

impl From<QuantizeError> for TrainingError {
    fn from(error: QuantizeError) -> Self {
        match error {
            QuantizeError::Admm(error) => Self::Admm(error),
            QuantizeError::Plan(error) => Self::Plan(error),
            error => Self::Quantize(Box::new(error)),
        }
    }
}

impl From<RankPlanError> for TrainingError {
    fn from(error: RankPlanError) -> Self {
        match error {
            RankPlanError::Admm(error) => Self::Admm(error),
            RankPlanError::Plan(error) => Self::Plan(error),
            error => Self::Ranks(Box::new(error)),
        }
    }
}

impl From<EvolveError> for TrainingError {
    fn from(error: EvolveError) -> Self {
        match error {
            EvolveError::Weights(error) => Self::Admm(error),
            EvolveError::Plan(error) => Self::Plan(error),
            error => Self::Evolve(Box::new(error)),
        }
    }
}

impl From<PenniError> for TrainingError {
    fn from(error: PenniError) -> Self {
        match error {
            PenniError::Weights(error) => Self::Admm(error),
            PenniError::Plan(error) => Self::Plan(error),
            error => Self::Penni(Box::new(error)),
        }
    }
}

impl From<MappingError> for TrainingError {
    fn from(error: MappingError) -> Self {
        match error {
            MappingError::Pruning(error) => Self::Admm(error),
            MappingError::Plan(error) => Self::Plan(error),
            error => Self::Mapping(Box::new(error)),
        }
    }
}

impl From<ShrinkError> for TrainingError {
    fn from(error: ShrinkError) -> Self {
        Self::Shrink(Box::new(error))
    }
}

impl From<ClickTrainError> for TrainingError {
    fn from(error: ClickTrainError) -> Self {
        Self::Click(Box::new(error))
    }
}

/// How a program ends: an error goes to standard error, but a run that stopped where it was told
/// to is none.
pub fn exit_code<T, E: Into<Box<dyn Error>>>(result: Result<T, E>) -> ExitCode {
    let Err(error) = result else {
        return ExitCode::SUCCESS;
    };
    let error = error.into();
    if let Some(stopped @ TrainingError::Stopped { .. }) = error.downcast_ref() {
        println!("{stopped}");
        return ExitCode::SUCCESS;
    }
    eprintln!("error: {error}");
    ExitCode::FAILURE
}
