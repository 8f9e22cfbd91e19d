//! Tables on disk: they are of a machine, and stay.

use std::io::Read;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::table::check;
use super::{KERNELS, LatencyTable};
use crate::atomic;

/// Bytes of a file at most: some hundred thousand entries.
const MOST: u64 = 64 << 20;

/// A table that cannot be kept or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LatencyFileError {
    /// The file.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// It does not hold times.
    #[error("{}: {reason}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

/// What [`LatencyTable::open`] or [`Sensitivity::open`](super::Sensitivity::open) has found or begun.
#[derive(Debug)]
pub struct Opened<T> {
    /// What can be trusted; nothing where there was no file, or none worth keeping.
    pub table: T,
    /// Why what was in the file is not used, to be shown as a warning.
    pub dropped: Option<String>,
}

/// What is kept in a file, and not believed when it is read.
pub(in crate::mapping) trait Kept: Serialize + DeserializeOwned {
    /// What is wrong with it, if anything.
    fn check(&self) -> Result<(), String>;
}

/// What a file holds, unless it is damaged or `stale` says why it is not wanted.
pub(in crate::mapping) fn open<T: Kept>(
    path: &Path,
    new: impl FnOnce() -> T,
    stale: impl FnOnce(&T) -> Option<String>,
) -> Result<Opened<T>, LatencyFileError> {
    let reason = match load::<T>(path) {
        Ok(table) => match stale(&table) {
            None => {
                return Ok(Opened {
                    table,
                    dropped: None,
                });
            }
            Some(reason) => Some(format!("{}: {reason}", path.display())),
        },
        Err(LatencyFileError::Io { source, .. })
            if source.kind() == std::io::ErrorKind::NotFound =>
        {
            None
        }
        Err(error @ LatencyFileError::Io { .. }) => return Err(error),
        Err(error) => Some(error.to_string()),
    };
    Ok(Opened {
        table: new(),
        dropped: reason.map(|reason| format!("{reason}; it is measured again")),
    })
}

/// As JSON, in a temporary file first, so that an interrupted write leaves an older one as it was.
pub(in crate::mapping) fn save<T: Kept>(kept: &T, path: &Path) -> Result<(), LatencyFileError> {
    let io = |source| LatencyFileError::Io {
        path: path.to_owned(),
        source,
    };
    let json = serde_json::to_vec(kept).map_err(|error| io(error.into()))?;
    atomic::write_json(path, json).map_err(io)
}

fn load<T: Kept>(path: &Path) -> Result<T, LatencyFileError> {
    let io = |source| LatencyFileError::Io {
        path: path.to_owned(),
        source,
    };
    let invalid = |reason: String| LatencyFileError::Invalid {
        path: path.to_owned(),
        reason,
    };
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(io)?;
    file.take(MOST + 1).read_to_end(&mut bytes).map_err(io)?;
    if bytes.len() as u64 > MOST {
        return Err(invalid(format!("more than {MOST} bytes")));
    }
    let kept: T = serde_json::from_slice(&bytes).map_err(|error| invalid(error.to_string()))?;
    kept.check().map_err(invalid)?;
    Ok(kept)
}

impl LatencyTable {
    /// The table in a file, of this device and of these kernels. What is damaged, of another device or of other
    /// kernels is not used: the table begins anew, with the reason in [`Opened::dropped`], and the file is
    /// overwritten when it is [saved](Self::save).
    ///
    /// # Errors
    /// [`LatencyFileError::Io`] if there is a file that cannot be read.
    pub fn open(path: &Path, device: &str) -> Result<Opened<Self>, LatencyFileError> {
        let stale = |table: &Self| {
            if table.device != device {
                let other = &table.device;
                return Some(format!("times of `{other}`, not of `{device}`"));
            }
            let version = table.kernels;
            let other = || format!("times of kernels of version {version}, not {KERNELS}");
            (version != KERNELS).then(other)
        };
        open(path, || Self::new(device), stale)
    }

    /// Keeps it as JSON: in a temporary file first, so that an interrupted write leaves an older one as it was.
    ///
    /// # Errors
    /// [`LatencyFileError::Io`].
    pub fn save(&self, path: &Path) -> Result<(), LatencyFileError> {
        save(self, path)
    }

    /// Reads a table, whatever device it is of, and checks every entry.
    ///
    /// # Errors
    /// [`LatencyFileError`].
    pub fn load(path: &Path) -> Result<Self, LatencyFileError> {
        load(path)
    }
}

impl Kept for LatencyTable {
    fn check(&self) -> Result<(), String> {
        for entry in &self.entries {
            check(entry).map_err(|reason| format!("{:?}: {reason}", entry.case))?;
        }
        Ok(())
    }
}
