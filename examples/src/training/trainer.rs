//! The checkpoints of Burn's trainer, found and checked before it resumes.

use std::fs;
use std::path::{Path, PathBuf};

use burn::module::Module;
use burn::optim::ModuleOptimizer;
use burn::optim::lr_scheduler::LrSchedulerRecord;
use burn_admm::train::state_path;
use burn_admm::{Admm, AdmmError};

use super::TrainingError;
use super::state::unreadable;
use crate::output::OutputError;

/// The checkpoints that Burn's trainer and
/// [`AdmmTraining::register`](burn_admm::train::AdmmTraining::register) leave in a folder.
///
/// The trainer panics where a checkpoint cannot be read. A checkpoint is four files, and a process
/// that is killed may leave the last one incomplete; but the one before it is kept, too.
#[derive(Clone, Debug)]
pub struct TrainerCheckpoints {
    folder: PathBuf,
}

impl TrainerCheckpoints {
    /// The checkpoints of the trainer that works in `folder`.
    #[must_use]
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self {
            folder: folder.into(),
        }
    }

    fn file(&self, name: &str, epoch: usize) -> PathBuf {
        self.folder
            .join("checkpoint")
            .join(format!("{name}-{epoch}.bpk"))
    }

    /// The epochs that have a checkpoint, or a part of one, the last one first.
    #[must_use]
    pub fn epochs(&self) -> Vec<usize> {
        let mut epochs: Vec<usize> = self.files().map(|(epoch, _)| epoch).collect();
        epochs.sort_unstable_by(|a, b| b.cmp(a));
        epochs.dedup();
        epochs
    }

    fn files(&self) -> impl Iterator<Item = (usize, PathBuf)> {
        let entries = fs::read_dir(self.folder.join("checkpoint"));
        let paths = entries.into_iter().flatten().flatten().map(|e| e.path());
        paths.filter_map(|path| Some((epoch_of(&path)?, path)))
    }

    /// Removes the checkpoints of an earlier run, so that none of them passes for one of the next.
    ///
    /// # Errors
    /// [`OutputError`] for a file that cannot be removed.
    pub fn clear(&self) -> Result<(), OutputError> {
        for (_, path) in self.files() {
            fs::remove_file(&path).map_err(|e| OutputError::from_io(&path, e))?;
        }
        Ok(())
    }

    /// Restores `admm` from the last complete checkpoint and returns its epoch; `None` if there
    /// never was one. Loads everything that the trainer is going to load, into clones.
    ///
    /// # Errors
    /// What is wrong with the last checkpoint, if there are some but none can be read:
    /// [`TrainingError::State`] or [`TrainingError::Admm`].
    pub fn restore<M: Module>(
        &self,
        model: &M,
        optimizer: &ModuleOptimizer,
        admm: &mut Admm,
    ) -> Result<Option<usize>, TrainingError> {
        let mut first = None;
        for epoch in self.epochs() {
            match self.try_restore(epoch, model, optimizer, admm) {
                Ok(()) => return Ok(Some(epoch)),
                Err(error) => first = first.or(Some(error)),
            }
        }
        first.map_or(Ok(None), Err)
    }

    fn try_restore<M: Module>(
        &self,
        epoch: usize,
        model: &M,
        optimizer: &ModuleOptimizer,
        admm: &mut Admm,
    ) -> Result<(), TrainingError> {
        let path = self.file("model", epoch);
        let loaded = model.clone().try_load_file(&path);
        loaded.map_err(|error| unreadable(path, &error))?;
        let path = self.file("optim", epoch);
        let loaded = optimizer.clone().load(&path);
        loaded.map_err(|error| unreadable(path, &error))?;
        let path = self.file("scheduler", epoch);
        let loaded = LrSchedulerRecord::load(&path);
        loaded.map_err(|error| unreadable(path, &error))?;
        let path = state_path(&self.folder, epoch);
        Ok(admm.restore(path).map_err(AdmmError::from)?)
    }
}

/// The epoch of a file of a checkpoint.
fn epoch_of(path: &Path) -> Option<usize> {
    let (name, epoch) = path.file_stem()?.to_str()?.split_once('-')?;
    let ours = match path.extension()?.to_str()? {
        "bpk" => ["model", "optim", "scheduler"].contains(&name),
        "safetensors" => name == "admm",
        _ => false,
    };
    ours.then(|| epoch.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_of_checkpoints_count() {
        let folder = tempfile::tempdir().unwrap();
        let checkpoints = TrainerCheckpoints::new(folder.path());
        assert!(checkpoints.epochs().is_empty());
        let inside = folder.path().join("checkpoint");
        fs::create_dir(&inside).unwrap();
        for name in [
            "model-2.bpk",
            "optim-10.bpk",
            "admm-9.safetensors",
            "model-x.bpk",
            "model-7.txt",
            "notes-8.bpk",
            "admm-3.bpk",
        ] {
            fs::write(inside.join(name), b"").unwrap();
        }
        assert_eq!(checkpoints.epochs(), [10, 9, 2]);
        checkpoints.clear().unwrap();
        assert!(checkpoints.epochs().is_empty());
        assert_eq!(fs::read_dir(&inside).unwrap().count(), 4);
    }
}
