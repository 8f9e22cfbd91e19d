use std::path::{Path, PathBuf};

use burn::train::checkpoint::{CheckpointingAction, CheckpointingStrategy};
use burn::train::metric::store::EventStoreClient;

use super::AdmmTraining;
use crate::admm::{AdmmError, StateError};

/// Keeps the ADMM state beside the trainer's own checkpoints.
///
/// The state is saved in the trainer's thread at the moment a checkpoint is taken, so that it
/// belongs to exactly that model. To resume from epoch `n`, build [`Admm`](crate::Admm) with
/// [`Admm::resume`](crate::Admm::resume) from [`state_path`]`(directory, n)` and call the trainer's
/// `checkpoint(n)`. Take the plan for the masks from it then: kernel patterns are those of the run.
pub struct AdmmCheckpoints {
    training: AdmmTraining,
    directory: PathBuf,
    inner: Box<dyn CheckpointingStrategy>,
}

/// Where the ADMM state of an epoch is kept: `<directory>/checkpoint/admm-<epoch>.safetensors`.
pub fn state_path(directory: impl AsRef<Path>, epoch: usize) -> PathBuf {
    directory
        .as_ref()
        .join("checkpoint")
        .join(format!("admm-{epoch}.safetensors"))
}

impl AdmmCheckpoints {
    pub(super) fn new(
        training: AdmmTraining,
        directory: PathBuf,
        inner: Box<dyn CheckpointingStrategy>,
    ) -> Self {
        Self {
            training,
            directory,
            inner,
        }
    }

    fn save(&self, epoch: usize) -> Result<(), StateError> {
        let path = state_path(&self.directory, epoch);
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(|source| StateError::Io {
                path: folder.to_owned(),
                source,
            })?;
        }
        self.training.save(&path)
    }

    fn delete(&self, epoch: usize) -> Result<(), StateError> {
        let path = state_path(&self.directory, epoch);
        match std::fs::remove_file(&path) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                Err(StateError::Io { path, source })
            }
            _ => Ok(()),
        }
    }
}

impl CheckpointingStrategy for AdmmCheckpoints {
    fn checkpointing(
        &mut self,
        epoch: usize,
        collector: &EventStoreClient,
    ) -> Vec<CheckpointingAction> {
        let actions = self.inner.checkpointing(epoch, collector);
        for action in &actions {
            let done = match action {
                CheckpointingAction::Delete(epoch) => self.delete(*epoch),
                CheckpointingAction::Save => self.save(epoch),
            };
            if let Err(error) = done {
                self.training.fail(AdmmError::State(error));
            }
        }
        actions
    }
}
