//! What a training loop of one's own keeps on disk, so that it can be stopped after any epoch.

use std::cell::Cell;
use std::path::{Path, PathBuf};

use burn::module::Module;
use burn::optim::ModuleOptimizer;
use burn::store::{ModuleRecord, RecordError};
use burn::tensor::Bytes;
use burn_admm::{Admm, AdmmError};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::TrainingError;
use super::state::{STATE, StageDir, plain_name, read_json, unreadable};
use crate::output::write_atomic;

const VERSION: u32 = 1;

/// A folder with the state after the last epoch: model, optimiser, ADMM, and whatever else the
/// loop counts.
///
/// Files carry the epoch in their name and are written whole; `state.json`, renamed into place after
/// them, says which ones count. So the folder is consistent at every moment.
///
/// ```
/// use burn::module::Module;
/// use burn::nn::{Linear, LinearConfig};
/// use burn::optim::AdamConfig;
/// use burn::tensor::Device;
/// use examples::training::Snapshots;
///
/// # let folder = tempfile::tempdir()?;
/// let snapshots = Snapshots::open(folder.path(), 7)?;
/// let net: Linear = LinearConfig::new(3, 2).init(&Device::flex());
/// let losses = vec![0.5];
/// snapshots.save(1, &losses, &net, &AdamConfig::new().init(), None)?;
///
/// let saved = snapshots.load::<Vec<f64>>()?.expect("one was saved");
/// assert_eq!((saved.epochs_done, &saved.progress), (1, &losses));
/// let net = saved.model(LinearConfig::new(3, 2).init(&Device::flex()))?;
/// let optimizer = saved.optimizer(AdamConfig::new().init())?;
/// # let _: (Linear, burn::optim::ModuleOptimizer) = (net, optimizer);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Snapshots {
    dir: StageDir,
    epochs: usize,
    /// How many epochs more may be saved before the run stops.
    left: Cell<Option<usize>>,
}

/// A saved state.
#[derive(Clone, Debug)]
pub struct Snapshot<P> {
    /// Epochs done.
    pub epochs_done: usize,
    /// What the loop keeps beside its weights.
    pub progress: P,
    folder: PathBuf,
    files: Files,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Files {
    model: String,
    optimizer: String,
    admm: Option<String>,
}

impl Files {
    fn names(&self) -> Vec<&str> {
        let mut names = vec![self.model.as_str(), &self.optimizer];
        names.extend(self.admm.as_deref());
        names
    }
}

#[derive(Serialize, Deserialize)]
struct Index<P> {
    version: u32,
    epochs_done: usize,
    files: Files,
    progress: P,
}

impl Snapshots {
    /// Opens a folder, creating it if need be, for a run of `epochs` epochs in all.
    ///
    /// # Errors
    /// [`TrainingError::Output`].
    pub fn open(folder: impl Into<PathBuf>, epochs: usize) -> Result<Self, TrainingError> {
        Ok(Self {
            dir: StageDir::open(folder.into())?,
            epochs,
            left: Cell::new(None),
        })
    }

    /// Lets [`save`](Self::save) stop the run once it has saved so many epochs: what `--stop-after`
    /// asks for.
    #[must_use]
    pub fn with_stop_after(self, epochs: Option<usize>) -> Self {
        self.left.set(epochs);
        self
    }

    /// Epochs of the whole run.
    #[must_use]
    pub fn epochs(&self) -> usize {
        self.epochs
    }

    /// Begins a run: with `resume` from the state that was saved last, if there is one, otherwise
    /// from none, and an earlier run is forgotten.
    ///
    /// # Errors
    /// Those of [`load`](Self::load).
    pub fn start<P: DeserializeOwned>(
        &self,
        resume: bool,
    ) -> Result<Option<Snapshot<P>>, TrainingError> {
        if resume {
            return self.load();
        }
        self.dir.clear();
        Ok(None)
    }

    /// The state that was saved last; `None` if none was.
    ///
    /// # Errors
    /// [`TrainingError::State`] for a file that is no state of this loop.
    pub fn load<P: DeserializeOwned>(&self) -> Result<Option<Snapshot<P>>, TrainingError> {
        let path = self.dir.file(STATE);
        if !path.exists() {
            return Ok(None);
        }
        let broken = |reason: String| unreadable(path.clone(), &reason);
        let index: Index<P> = read_json(&path)?;
        if index.version != VERSION {
            return Err(broken(format!("version {}, not {VERSION}", index.version)));
        }
        if index.epochs_done > self.epochs {
            let (done, all) = (index.epochs_done, self.epochs);
            return Err(broken(format!("{done} epochs are done of {all}")));
        }
        // Names only: a state file must not make us read elsewhere.
        if !index.files.names().into_iter().all(plain_name) {
            return Err(broken("names files outside its folder".into()));
        }
        Ok(Some(Snapshot {
            epochs_done: index.epochs_done,
            progress: index.progress,
            folder: path.parent().unwrap_or(Path::new(".")).to_path_buf(),
            files: index.files,
        }))
    }

    /// Saves the state after an epoch in the place of the one before.
    ///
    /// # Errors
    /// [`TrainingError::Record`], [`TrainingError::Admm`] or [`TrainingError::Output`] if something
    /// cannot be written; the state before is then intact. [`TrainingError::Stopped`], with all
    /// saved, where [`with_stop_after`](Self::with_stop_after) says so.
    pub fn save<M: Module, P: Serialize>(
        &self,
        epochs_done: usize,
        progress: &P,
        model: &M,
        optimizer: &ModuleOptimizer,
        admm: Option<&Admm>,
    ) -> Result<(), TrainingError> {
        let files = Files {
            model: format!("model-{epochs_done}.bpk"),
            optimizer: format!("optimizer-{epochs_done}.bpk"),
            admm: admm.map(|_| format!("admm-{epochs_done}.safetensors")),
        };
        self.write(&files.model, model.clone().into_record().into_bytes())?;
        self.write(&files.optimizer, optimizer.to_record().into_bytes())?;
        if let (Some(admm), Some(name)) = (admm, &files.admm) {
            admm.save(self.dir.file(name)).map_err(AdmmError::from)?;
        }
        let index = Index {
            version: VERSION,
            epochs_done,
            files,
            progress,
        };
        self.dir.commit_as(&index, &index.files.names())?;
        let left = self.left.get().map(|left| left.saturating_sub(1));
        self.left.set(left);
        if left == Some(0) && epochs_done < self.epochs {
            return Err(TrainingError::Stopped {
                stage: self.epochs.to_string(),
                epoch: epochs_done,
            });
        }
        Ok(())
    }

    fn write(&self, name: &str, bytes: Result<Bytes, RecordError>) -> Result<(), TrainingError> {
        let path = self.dir.file(name);
        match bytes {
            Ok(bytes) => Ok(write_atomic(&path, |file| file.write_all(&bytes))?),
            Err(source) => Err(TrainingError::Record { path, source }),
        }
    }
}

impl<P> Snapshot<P> {
    /// The model, loaded into a fresh one of the same structure, masks included.
    ///
    /// # Errors
    /// [`TrainingError::State`] if the file is missing, broken or of another model.
    pub fn model<M: Module>(&self, fresh: M) -> Result<M, TrainingError> {
        let path = self.folder.join(&self.files.model);
        ModuleRecord::load(&path)
            .and_then(|record| fresh.try_load_record(record))
            .map_err(|error| unreadable(path, &error))
    }

    /// The optimiser, loaded into a fresh one of the same kind.
    ///
    /// # Errors
    /// [`TrainingError::State`] if the file is missing or broken.
    pub fn optimizer(&self, fresh: ModuleOptimizer) -> Result<ModuleOptimizer, TrainingError> {
        let path = self.folder.join(&self.files.optimizer);
        fresh.load(&path).map_err(|error| unreadable(path, &error))
    }

    /// Puts the saved state of ADMM in the place of a fresh one's.
    ///
    /// # Errors
    /// [`TrainingError::State`] if none was saved, [`TrainingError::Admm`] if it is missing, broken
    /// or of another plan.
    pub fn restore(&self, admm: &mut Admm) -> Result<(), TrainingError> {
        let Some(name) = &self.files.admm else {
            let path = self.folder.join(STATE);
            return Err(unreadable(path, &"names no state of ADMM"));
        };
        let path = self.folder.join(name);
        Ok(admm.restore(path).map_err(AdmmError::from)?)
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use std::fs;

    use burn::nn::{Linear, LinearConfig};
    use burn::optim::{AdamConfig, GradientsParams};
    use burn::tensor::{Device, Tensor};

    use super::*;

    fn net() -> Linear {
        LinearConfig::new(6, 4).init(&Device::flex().autodiff())
    }

    fn saved() -> (tempfile::TempDir, Snapshots) {
        let folder = tempfile::tempdir().unwrap();
        let snapshots = Snapshots::open(folder.path(), 7).unwrap();
        let (model, mut optimizer) = (net(), AdamConfig::new().init());
        let x = Tensor::ones([2, 6], &Device::flex().autodiff());
        let gradients = model.forward::<2>(x).square().mean().backward();
        let gradients = GradientsParams::from_grads(gradients, &model);
        let model = optimizer.step(0.1, model, gradients);
        snapshots.save(3, &7, &model, &optimizer, None).unwrap();
        (folder, snapshots)
    }

    #[test]
    fn only_the_last_state_is_kept() {
        let (folder, snapshots) = saved();
        snapshots
            .save(4, &8, &net(), &AdamConfig::new().init(), None)
            .unwrap();
        let mut names: Vec<_> = fs::read_dir(folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, ["model-4.bpk", "optimizer-4.bpk", "state.json"]);
        let snapshots = snapshots.with_stop_after(Some(2));
        let save = |epoch| snapshots.save(epoch, &8, &net(), &AdamConfig::new().init(), None);
        save(5).unwrap();
        assert_eq!(
            save(6).unwrap_err().to_string(),
            "stopped after epoch 6 of 7; continue with --resume"
        );
        save(7).unwrap();
        let few = Snapshots::open(folder.path(), 6).unwrap();
        let error = few.load::<u8>().unwrap_err();
        assert!(
            error.to_string().contains("7 epochs are done of 6"),
            "{error}"
        );
        assert!(snapshots.start::<u8>(true).unwrap().is_some());
        assert!(snapshots.start::<u8>(false).unwrap().is_none());
        assert!(snapshots.load::<u8>().unwrap().is_none());
    }

    /// Every file cut at many places, and with single bytes changed: an error or a value, no panic.
    #[test]
    fn broken_files_are_errors_that_say_so() {
        let (folder, snapshots) = saved();
        for name in ["state.json", "model-3.bpk", "optimizer-3.bpk"] {
            let path = folder.path().join(name);
            let whole = fs::read(&path).unwrap();
            let load = || -> Result<(), TrainingError> {
                let saved = snapshots.load::<u8>()?.expect("the file is there");
                saved.model(net())?;
                saved.optimizer(AdamConfig::new().init())?;
                Ok(())
            };
            for len in (0..whole.len()).step_by(whole.len() / 40) {
                fs::write(&path, &whole[..len]).unwrap();
                let error = load().unwrap_err();
                assert!(
                    matches!(error, TrainingError::State { .. }),
                    "{name} {len}: {error}"
                );
                assert!(error.to_string().contains("without --resume"), "{error}");
            }
            for at in 0..whole.len().min(400) {
                let mut bytes = whole.clone();
                bytes[at] ^= 0x81;
                fs::write(&path, &bytes).unwrap();
                if let Err(error) = load() {
                    assert!(matches!(error, TrainingError::State { .. }), "{error}");
                }
            }
            fs::write(&path, &whole).unwrap();
            load().unwrap();
        }
        fs::remove_file(folder.path().join("model-3.bpk")).unwrap();
        let saved = snapshots.load::<u8>().unwrap().unwrap();
        let error = saved.model(net()).unwrap_err();
        assert!(error.to_string().contains("model-3.bpk"), "{error}");
    }

    #[test]
    fn names_of_other_folders_are_refused() {
        let (folder, snapshots) = saved();
        let path = folder.path().join("state.json");
        let text = fs::read_to_string(&path).unwrap();
        for name in ["../model-3.bpk", "/etc/passwd", "..\\x", "c:x", ".."] {
            let name = serde_json::to_string(name).unwrap();
            fs::write(&path, text.replace("\"model-3.bpk\"", &name)).unwrap();
            let error = snapshots.load::<u8>().unwrap_err();
            assert!(error.to_string().contains("outside"), "{error}");
        }
    }
}
