//! What a stage keeps on disk, so that it can be stopped after any epoch.
//!
//! Large files carry the epoch in their name and are never overwritten; `state.json`, renamed into
//! place after them, says which ones count. So the folder is consistent at every moment.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use burn::module::Module;
use burn::optim::ModuleOptimizer;
use burn_admm::AdmmInfo;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::TrainingError;
use crate::output::{OutputDir, OutputError};

pub(super) const STATE: &str = "state.json";
const VERSION: u32 = 1;
/// How names of files of a stage start.
const OURS: [&str; 8] = [
    "model-",
    "optimizer-",
    "admm-",
    "reweighted-",
    "click-",
    "penni-",
    "evolve-",
    "best-",
];
/// Longest state or settings file that is read.
const MAX_BYTES: u64 = 16 << 20;

/// A number of ten digits: written as JSON and read back it is the same, bit for bit, so that a
/// resumed run compares and reports it as an uninterrupted one does.
pub fn short(value: f64) -> f64 {
    format!("{value:.9e}").parse().unwrap_or(value)
}

/// One outer iteration of ADMM, for logs and reports, in numbers that survive saving.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct IterationRecord {
    /// Outer iterations done, this one included.
    pub iteration: usize,
    /// Its rho.
    pub rho: f64,
    /// Relative primal residual.
    pub primal_residual: f64,
    /// Relative dual residual.
    pub dual_residual: f64,
    /// Part of the constrained weights that is zero in `Z`.
    pub sparsity: f64,
}

impl From<&AdmmInfo> for IterationRecord {
    fn from(info: &AdmmInfo) -> Self {
        Self {
            iteration: info.iteration,
            rho: short(info.rho),
            primal_residual: short(info.primal_residual),
            dual_residual: short(info.dual_residual),
            sparsity: short(info.sparsity),
        }
    }
}

/// One epoch, for logs and reports.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EpochRecord {
    /// Epoch of the stage, from 1.
    pub epoch: usize,
    /// Mean loss.
    pub loss: f64,
    /// Accuracy on the training images as they were trained on.
    pub train_accuracy: f64,
    /// Accuracy on the validation images.
    pub valid_accuracy: f64,
    /// Relative primal residual of ADMM, after an outer iteration.
    pub primal_residual: Option<f64>,
    /// Relative dual residual of ADMM, after an outer iteration.
    pub dual_residual: Option<f64>,
    /// Part of the constrained weights that is masked, where a mask is on.
    pub sparsity: Option<f64>,
}

/// The best validation epoch so far.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Best {
    pub(super) epoch: usize,
    pub(super) accuracy: f64,
    pub(super) file: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct State {
    version: u32,
    pub(super) stage: String,
    pub(super) epochs_done: usize,
    /// Steps of gradual pruning.
    pub(super) steps: u64,
    pub(super) model: Option<String>,
    pub(super) optimizer: Option<String>,
    /// State of what acts on the weights.
    #[serde(alias = "admm")]
    pub(super) compression: Option<String>,
    /// Time that the epochs took.
    #[serde(default)]
    pub(super) seconds: f64,
    pub(super) best: Option<Best>,
    pub(super) history: Vec<EpochRecord>,
}

impl State {
    pub(super) fn new(stage: &str) -> Self {
        Self {
            version: VERSION,
            stage: stage.into(),
            epochs_done: 0,
            steps: 0,
            model: None,
            optimizer: None,
            compression: None,
            seconds: 0.0,
            best: None,
            history: Vec::new(),
        }
    }

    fn files(&self) -> impl Iterator<Item = &str> {
        let best = self.best.as_ref().map(|best| best.file.as_str());
        let others = [&self.model, &self.optimizer, &self.compression];
        others
            .into_iter()
            .filter_map(|file| file.as_deref())
            .chain(best)
    }
}

/// The folder of one stage.
#[derive(Debug)]
pub(super) struct StageDir(OutputDir);

impl StageDir {
    pub(super) fn open(path: PathBuf) -> Result<Self, OutputError> {
        OutputDir::create(path).map(Self)
    }

    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.0.file(name)
    }

    /// The state of an earlier run, if there is one.
    pub(super) fn load(&self, stage: &str) -> Result<Option<State>, TrainingError> {
        let path = self.file(STATE);
        if !path.exists() {
            return Ok(None);
        }
        let broken = |reason: String| TrainingError::State {
            path: path.clone(),
            reason,
        };
        let state: State = read_json(&path)?;
        if state.version != VERSION {
            return Err(broken(format!("version {}, not {VERSION}", state.version)));
        }
        if state.stage != stage || state.history.len() != state.epochs_done {
            return Err(broken(format!("not a state of the stage {stage}")));
        }
        // Names only: a state file must not make us read elsewhere.
        if !state.files().all(plain_name) {
            return Err(broken("names files outside its folder".into()));
        }
        Ok(Some(state))
    }

    /// Makes `state` the one that counts and removes the files of earlier ones.
    pub(super) fn commit(&self, state: &State) -> Result<(), OutputError> {
        let files: Vec<&str> = state.files().collect();
        self.commit_as(state, &files)
    }

    /// [`commit`](Self::commit) of a state of any form that names `files`.
    pub(super) fn commit_as(
        &self,
        state: &impl Serialize,
        files: &[&str],
    ) -> Result<(), OutputError> {
        self.0.write(STATE, |file| {
            serde_json::to_writer_pretty(&mut *file, state)?;
            Ok(())
        })?;
        self.sweep(|name| name == STATE || files.contains(&name));
        Ok(())
    }

    /// Forgets an earlier run.
    pub(super) fn clear(&self) {
        self.sweep(|_| false);
    }

    /// Removes our files, but those to keep. A file that cannot be removed only takes up space.
    fn sweep(&self, keep: impl Fn(&str) -> bool) {
        let Ok(entries) = fs::read_dir(self.0.path()) else {
            return;
        };
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let ours = name == STATE || OURS.iter().any(|prefix| name.starts_with(prefix));
            if ours && !keep(&name) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }

    pub(super) fn save_model<M: Module>(&self, name: &str, model: &M) -> Result<(), TrainingError> {
        let path = self.file(name);
        model
            .clone()
            .save_file(&path)
            .map_err(|source| TrainingError::Record { path, source })
    }

    pub(super) fn load_model<M: Module>(&self, name: &str, fresh: M) -> Result<M, TrainingError> {
        let path = self.file(name);
        fresh
            .try_load_file(&path)
            .map_err(|error| unreadable(path, &error))
    }

    pub(super) fn save_optimizer(
        &self,
        name: &str,
        optimizer: &ModuleOptimizer,
    ) -> Result<(), TrainingError> {
        let path = self.file(name);
        optimizer
            .save(&path)
            .map_err(|source| TrainingError::Record { path, source })
    }

    pub(super) fn load_optimizer(
        &self,
        name: &str,
        fresh: ModuleOptimizer,
    ) -> Result<ModuleOptimizer, TrainingError> {
        let path = self.file(name);
        fresh.load(&path).map_err(|error| unreadable(path, &error))
    }
}

/// A model or optimiser that cannot be read.
pub(super) fn unreadable(path: PathBuf, error: &impl std::fmt::Display) -> TrainingError {
    let reason = error.to_string();
    TrainingError::State { path, reason }
}

/// Reads a JSON file of at most 16 MiB.
///
/// # Errors
/// [`TrainingError::State`] if it cannot be read, is longer, or holds something else.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T, TrainingError> {
    let mut text = Vec::new();
    let read = File::open(path).and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut text));
    read.map_err(|error| unreadable(path.into(), &error))?;
    if text.len() as u64 > MAX_BYTES {
        return Err(unreadable(path.into(), &"longer than such a file is"));
    }
    serde_json::from_slice(&text).map_err(|error| unreadable(path.into(), &error))
}

/// Whether a name is that of a file in the same folder.
pub(super) fn plain_name(name: &str) -> bool {
    !name.contains(['/', '\\', ':']) && !name.starts_with('.')
}

/// How deep below the folder of a run its stages are.
const DEEPEST: usize = 4;

/// The file that marks a run and holds its settings.
pub const SETTINGS: &str = "run.json";

/// Writes the settings of a new run, or checks that a resumed one has the same. A new run forgets the
/// stages of an older one in its folder, those that it has not come to as well, so that it can be
/// stopped and resumed.
///
/// # Errors
/// [`TrainingError::OtherRun`] naming the first setting that differs, [`TrainingError::State`] for
/// a file that is no settings file, [`TrainingError::Output`] if it cannot be written.
///
/// # Panics
/// If the settings cannot be written as a JSON object.
pub fn settle(
    dir: &OutputDir,
    settings: &impl Serialize,
    resume: bool,
) -> Result<(), TrainingError> {
    let given = serde_json::to_value(settings).expect("settings are valid JSON");
    let path = dir.file(SETTINGS);
    if !resume {
        forget_stages(dir.path(), DEEPEST)?;
        let text = serde_json::to_vec_pretty(&given).expect("settings are valid JSON");
        dir.write(SETTINGS, |file| file.write_all(&text))?;
        return Ok(());
    }
    let saved: Value = read_json(&path)?;
    match difference("", &saved, &given) {
        Some((key, saved, given)) => Err(TrainingError::OtherRun {
            path,
            key,
            saved,
            given,
        }),
        None => Ok(()),
    }
}

/// Removes the states of all stages in a folder and the folders in it.
fn forget_stages(folder: &Path, depth: usize) -> Result<(), OutputError> {
    if folder.join(STATE).is_file() {
        StageDir::open(folder.into())?.clear();
    }
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    // Links are left alone: what they lead to is not in the folder.
    let folders = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    if depth > 0 {
        for entry in folders {
            forget_stages(&entry.path(), depth - 1)?;
        }
    }
    Ok(())
}

/// The first difference of two values: its path and both sides.
fn difference(path: &str, a: &Value, b: &Value) -> Option<(String, String, String)> {
    if let (Value::Object(a), Value::Object(b)) = (a, b) {
        let keys = a.keys().chain(b.keys().filter(|key| !a.contains_key(*key)));
        let mut pairs = keys.map(|key| {
            let path = if path.is_empty() {
                key.clone()
            } else {
                format!("{path}.{key}")
            };
            let of = |map: &serde_json::Map<String, Value>| map.get(key).cloned();
            (path, of(a).unwrap_or_default(), of(b).unwrap_or_default())
        });
        return pairs.find_map(|(path, a, b)| difference(&path, &a, &b));
    }
    if let (Some(a), Some(b)) = (a.as_f64(), b.as_f64())
        && (a - b).abs() <= 1e-12 * a.abs()
    {
        // The last digit of a number may change on its way through JSON.
        return None;
    }
    (a != b).then(|| (path.to_string(), a.to_string(), b.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_resumed_run_must_have_the_same_settings() {
        let folder = tempfile::tempdir().unwrap();
        let dir = OutputDir::create(folder.path()).unwrap();
        let settings = json!({"arch": "lenet5", "recipe": {"lr": 0.1, "seed": 3}});
        settle(&dir, &settings, false).unwrap();
        settle(&dir, &settings, true).unwrap();
        let other = json!({"arch": "lenet5", "recipe": {"lr": 0.2, "seed": 3}});
        let error = settle(&dir, &other, true).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("`recipe.lr` = 0.1, now it is 0.2"), "{text}");
        fs::write(dir.file(SETTINGS), b"{").unwrap();
        let error = settle(&dir, &settings, true).unwrap_err();
        assert!(matches!(error, TrainingError::State { .. }), "{error}");
    }

    #[test]
    fn a_new_run_forgets_the_stages_of_an_older_one() {
        let folder = tempfile::tempdir().unwrap();
        let dir = OutputDir::create(folder.path()).unwrap();
        let stage = StageDir::open(folder.path().join("seed-1/admm/retrain")).unwrap();
        let mut state = State::new("retrain");
        (state.epochs_done, state.model) = (0, Some("model-1.bpk".into()));
        fs::write(stage.file("model-1.bpk"), b"").unwrap();
        fs::write(stage.file("report.json"), b"").unwrap();
        stage.commit(&state).unwrap();
        settle(&dir, &json!({"lr": 0.1}), true).unwrap_err();
        assert!(stage.load("retrain").unwrap().is_some());
        settle(&dir, &json!({"lr": 0.1}), false).unwrap();
        assert_eq!(stage.load("retrain").unwrap(), None);
        assert!(!stage.file("model-1.bpk").exists() && stage.file("report.json").exists());
    }

    #[test]
    fn broken_and_foreign_states_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let dir = StageDir::open(folder.path().into()).unwrap();
        assert_eq!(dir.load("dense").unwrap(), None);
        let mut state = State::new("dense");
        dir.commit(&state).unwrap();
        assert_eq!(dir.load("dense").unwrap(), Some(state.clone()));
        assert!(dir.load("retrain").is_err());
        state.model = Some("../elsewhere".into());
        dir.commit(&state).unwrap();
        assert!(dir.load("dense").is_err());
        for text in [&b"{"[..], b"[]", b"{\"version\": 1}"] {
            fs::write(dir.file(STATE), text).unwrap();
            assert!(matches!(
                dir.load("dense"),
                Err(TrainingError::State { .. })
            ));
        }
        dir.clear();
        assert_eq!(dir.load("dense").unwrap(), None);
    }
}
