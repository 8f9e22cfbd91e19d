//! What a run keeps on disk, so that it goes on where it was.

use std::fs;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{RecipeReport, Stage, StageError};
use crate::admm::StateError;
use crate::shrink::ShrinkPlan;
use crate::{Admm, Plan, atomic};

const VERSION: u64 = 1;

/// Bytes of the index at most.
const MOST: u64 = 64 << 20;

const INDEX: &str = "recipe-state.json";

/// What a [`Choose`](super::Choose) has found.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Chosen {
    pub(super) plan: Plan,
    /// As text.
    pub(super) details: String,
}

/// How far a run is.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Progress {
    version: u64,
    /// As JSON, to be compared.
    recipe: String,
    /// Stages done.
    pub(super) stage: usize,
    /// Epochs of the present stage that are done.
    pub(super) epochs: usize,
    /// Epochs of all stages that are done.
    pub(super) number: usize,
    /// Of the present stage.
    pub(super) seconds: f64,
    /// Of the present stage.
    pub(super) residuals: Vec<[f32; 2]>,
    /// Parameters with a mask.
    pub(super) masked: Vec<String>,
    /// The stage whose levels the weights are on.
    pub(super) levels: Option<usize>,
    pub(super) shrunk: Option<ShrinkPlan>,
    pub(super) chosen: Option<Chosen>,
    pub(super) report: RecipeReport,
    /// How often it was saved: files have the number in their names.
    saves: u64,
    files: Files,
}

/// The files that belong to a state, by their checksums.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Files {
    model: Option<u32>,
    optimizer: Option<u32>,
    packed: Option<u32>,
    /// Has a checksum of its own.
    admm: bool,
}

impl Progress {
    pub(super) fn new(recipe: &str, report: RecipeReport, masked: Vec<String>) -> Self {
        Self {
            version: VERSION,
            recipe: recipe.to_owned(),
            stage: 0,
            epochs: 0,
            number: 0,
            seconds: 0.0,
            residuals: Vec::new(),
            masked,
            levels: None,
            shrunk: None,
            chosen: None,
            report,
            saves: 0,
            files: Files::default(),
        }
    }

    /// What is wrong with one that was read, if anything.
    fn problem(&self, stages: &[Stage]) -> Option<String> {
        let stage = stages.get(self.stage);
        let epochs = stage.map_or(0, Stage::epochs);
        let levels = self.levels.and_then(|at| stages.get(at));
        // Epochs with ADMM, where the present stage has some.
        let towards = match stage {
            Some(Stage::Admm(_)) => epochs,
            Some(Stage::Quantise(quantise)) => quantise.towards(),
            _ => 0,
        };
        let rounded = self.levels == Some(self.stage);
        if self.stage > stages.len() || self.report.stages.len() != self.stage {
            Some(format!(
                "{} stages are done of {}",
                self.stage,
                stages.len()
            ))
        } else if self.epochs > epochs {
            Some(format!("{} epochs are done of {epochs}", self.epochs))
        } else if self.levels.is_some() && !matches!(levels, Some(Stage::Quantise(_))) {
            Some("levels of a stage that gives none".to_owned())
        } else if rounded && self.epochs < towards {
            Some("the weights are on levels too early".to_owned())
        } else if self.files.model.is_none() && self.files.packed.is_none() {
            Some("it has no weights".to_owned())
        } else if self.epochs > 0 && self.files.optimizer.is_none() {
            Some("it has no optimiser".to_owned())
        } else if self.epochs > 0 && self.epochs <= towards && !rounded && !self.files.admm {
            Some("it has no state of ADMM".to_owned())
        } else {
            None
        }
    }
}

/// What is saved beside the progress.
#[derive(Default)]
pub(super) struct Contents<'a> {
    pub(super) model: Option<&'a [u8]>,
    pub(super) optimizer: Option<&'a [u8]>,
    pub(super) packed: Option<&'a [u8]>,
    pub(super) admm: Option<&'a Admm>,
}

/// A state that was read.
pub(super) struct Loaded {
    pub(super) progress: Progress,
    pub(super) model: Option<Vec<u8>>,
    pub(super) optimizer: Option<Vec<u8>>,
    pub(super) packed: Option<Vec<u8>>,
    /// The file of ADMM.
    pub(super) admm: Option<PathBuf>,
}

/// The folder of a run. Files carry a number in their names and are written whole; the index, renamed into place
/// after them, says which ones count, so the folder is consistent at every moment.
#[derive(Debug, Clone)]
pub(super) struct Folder {
    path: PathBuf,
}

impl Folder {
    pub(super) fn open(path: &Path) -> Result<Self, StateError> {
        fs::create_dir_all(path).map_err(|source| io(path, source))?;
        Ok(Self {
            path: path.to_owned(),
        })
    }

    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The index, for messages.
    pub(super) fn index(&self) -> PathBuf {
        self.file(INDEX)
    }

    fn numbered(&self, what: &str, saves: u64) -> PathBuf {
        let ending = match what {
            "admm" => "safetensors",
            "packed" => "bin",
            _ => "bpk",
        };
        self.file(&format!("{what}-{saves}.{ending}"))
    }

    /// Saves a state in the place of the one before. The progress comes back as a later run will read it, to the
    /// last bit.
    pub(super) fn save(
        &self,
        progress: &mut Progress,
        contents: &Contents<'_>,
    ) -> Result<(), StageError> {
        progress.saves += 1;
        let write = |what: &str, bytes: Option<&[u8]>| -> Result<Option<u32>, StateError> {
            let Some(bytes) = bytes else {
                return Ok(None);
            };
            let path = self.numbered(what, progress.saves);
            atomic::write(&path, bytes).map_err(|source| io(&path, source))?;
            Ok(Some(crc32fast::hash(bytes)))
        };
        let files = Files {
            model: write("model", contents.model)?,
            optimizer: write("optimizer", contents.optimizer)?,
            packed: write("packed", contents.packed)?,
            admm: contents.admm.is_some(),
        };
        if let Some(admm) = contents.admm {
            admm.save(self.numbered("admm", progress.saves))?;
        }
        progress.files = files;
        let index = self.index();
        let json = serde_json::to_vec(&progress).map_err(|error| io(&index, error.into()))?;
        let read = serde_json::from_slice(&json).map_err(|error| io(&index, error.into()))?;
        atomic::write_json(&index, json).map_err(|source| io(&index, source))?;
        *progress = read;
        self.sweep(progress.saves);
        Ok(())
    }

    /// Removes the files of other saves; one that stays does no harm.
    fn sweep(&self, saves: u64) {
        let Ok(entries) = fs::read_dir(&self.path) else {
            return;
        };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let number = name.to_str().and_then(|name| {
                let (what, rest) = name.split_once('-')?;
                let (number, _) = rest.split_once('.')?;
                ["model", "optimizer", "packed", "admm"]
                    .contains(&what)
                    .then(|| number.parse::<u64>().ok())?
            });
            if number.is_some_and(|number| number != saves) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }

    /// The state of a run of this recipe, if there is one.
    pub(super) fn load(
        &self,
        recipe: &str,
        stages: &[Stage],
    ) -> Result<Option<Loaded>, StateError> {
        let index = self.index();
        let corrupt = |reason: String| StateError::Corrupt {
            path: index.clone(),
            reason,
        };
        let file = match fs::File::open(&index) {
            Ok(file) => file,
            Err(source) if source.kind() == ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(io(&index, source)),
        };
        let mut json = Vec::new();
        let read = file.take(MOST + 1).read_to_end(&mut json);
        read.map_err(|source| io(&index, source))?;
        if json.len() as u64 > MOST {
            return Err(corrupt(format!("more than {MOST} bytes")));
        }
        #[derive(Deserialize)]
        struct VersionOnly {
            version: u64,
        }
        let parsed = serde_json::from_slice(&json);
        let VersionOnly { version } = parsed.map_err(|error| corrupt(error.to_string()))?;
        if version != VERSION {
            return Err(StateError::Version {
                path: index,
                found: version,
                expected: VERSION,
            });
        }
        let parsed = serde_json::from_slice(&json);
        let progress: Progress = parsed.map_err(|error| corrupt(error.to_string()))?;
        if progress.recipe != recipe {
            return Err(StateError::Mismatch {
                path: index,
                reason: "it is of another recipe; go on with that one, or use another folder"
                    .to_owned(),
            });
        }
        if let Some(problem) = progress.problem(stages) {
            return Err(corrupt(problem));
        }
        let read = |what: &str, crc: Option<u32>| -> Result<Option<Vec<u8>>, StateError> {
            let Some(crc) = crc else {
                return Ok(None);
            };
            let path = self.numbered(what, progress.saves);
            let bytes = fs::read(&path).map_err(|source| io(&path, source))?;
            match crc32fast::hash(&bytes) == crc {
                true => Ok(Some(bytes)),
                false => Err(StateError::Corrupt {
                    path,
                    reason: "its checksum is another: cut short or altered".to_owned(),
                }),
            }
        };
        let files = &progress.files;
        Ok(Some(Loaded {
            model: read("model", files.model)?,
            optimizer: read("optimizer", files.optimizer)?,
            packed: read("packed", files.packed)?,
            admm: files.admm.then(|| self.numbered("admm", progress.saves)),
            progress,
        }))
    }
}

fn io(path: &Path, source: std::io::Error) -> StateError {
    StateError::Io {
        path: path.to_owned(),
        source,
    }
}
