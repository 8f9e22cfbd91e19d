//! Output folders and files: checked before the work starts, written whole or not at all.

use std::fs;
use std::io::{self, BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

/// Why something could not be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OutputError {
    /// Something that is no folder stands where the folder should be.
    #[error("{}: not a folder; choose another with --output", path.display())]
    NotAFolder {
        /// The path.
        path: PathBuf,
    },
    /// The system refuses writing there.
    #[error("{}: {source}; choose a folder you may write to with --output", path.display())]
    NoPermission {
        /// The file or folder.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The disk, or the user's part of it, is full.
    #[error("{}: {source}; free some space or choose another disk with --output", path.display())]
    DiskFull {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// `--resume` was given, but there is nothing to resume.
    #[error("{} holds no run to resume ({marker} is missing); leave out --resume", path.display())]
    NothingToResume {
        /// The folder.
        path: PathBuf,
        /// The file that was looked for.
        marker: String,
    },
    /// Anything else the system may answer.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
}

impl OutputError {
    /// Sorts a system error by what its reader can do about it.
    #[must_use]
    pub fn from_io(path: &Path, source: io::Error) -> Self {
        let path = path.to_path_buf();
        match source.kind() {
            ErrorKind::NotADirectory | ErrorKind::AlreadyExists => Self::NotAFolder { path },
            ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
                Self::NoPermission { path, source }
            }
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
                Self::DiskFull { path, source }
            }
            _ => Self::Io { path, source },
        }
    }
}

/// A folder that exists and was writable when it was opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputDir {
    path: PathBuf,
}

impl OutputDir {
    /// Creates the folder (and its parents) if need be and proves that it can be written to, so
    /// that a long run does not fail at its end.
    ///
    /// # Errors
    /// [`OutputError`] after the system's answer.
    pub fn create(path: impl Into<PathBuf>) -> Result<Self, OutputError> {
        let path = path.into();
        fs::create_dir_all(&path).map_err(|e| OutputError::from_io(&path, e))?;
        // One block, so that a full disk shows here already; the file goes with its handle.
        let mut probe = NamedTempFile::new_in(&path).map_err(|e| OutputError::from_io(&path, e))?;
        probe
            .write_all(&[0; 4096])
            .and_then(|()| probe.as_file().sync_data())
            .map_err(|e| OutputError::from_io(&path, e))?;
        Ok(Self { path })
    }

    /// [`create`](Self::create) for a run that leaves the file `marker` behind: with `resume` it
    /// must be there.
    ///
    /// # Errors
    /// [`OutputError::NothingToResume`], or those of [`create`](Self::create).
    pub fn for_run(
        path: impl Into<PathBuf>,
        marker: &str,
        resume: bool,
    ) -> Result<Self, OutputError> {
        let path = path.into();
        if resume && !path.join(marker).is_file() {
            return Err(OutputError::NothingToResume {
                path,
                marker: marker.into(),
            });
        }
        Self::create(path)
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A file in the folder.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// [`write_atomic`] of a file in the folder.
    ///
    /// # Errors
    /// Those of [`write_atomic`].
    pub fn write(
        &self,
        name: &str,
        write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> Result<PathBuf, OutputError> {
        let path = self.file(name);
        write_atomic(&path, write)?;
        Ok(path)
    }
}

/// Bytes of a file.
///
/// # Errors
/// [`OutputError`] with the path and the system's answer.
pub fn file_size(path: &Path) -> Result<u64, OutputError> {
    let metadata = fs::metadata(path).map_err(|e| OutputError::from_io(path, e))?;
    Ok(metadata.len())
}

/// Writes a file so that its path holds the old content or the whole new one, never a part: into a
/// temporary file in the same folder, to the disk, then renamed.
///
/// # Errors
/// [`OutputError`] with the path and the system's answer; the old file and the folder are then as
/// they were.
pub fn write_atomic(
    path: &Path,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<(), OutputError> {
    let failed = |error| OutputError::from_io(path, error);
    if path.is_dir() {
        return Err(failed(ErrorKind::IsADirectory.into()));
    }
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let file = tempfile::Builder::new()
        .prefix(".part-")
        .permissions_if_supported()
        .tempfile_in(folder)
        .map_err(failed)?;
    let mut buffer = BufWriter::new(file);
    write(&mut buffer)
        .and_then(|()| buffer.flush())
        .map_err(failed)?;
    let file = buffer.into_inner().map_err(|e| failed(e.into_error()))?;
    file.as_file().sync_all().map_err(failed)?;
    file.persist(path).map_err(|e| failed(e.error))?;
    Ok(())
}

/// Temporary files are private by default; results are as readable as other files.
trait PermissionsIfSupported {
    fn permissions_if_supported(&mut self) -> &mut Self;
}

impl PermissionsIfSupported for tempfile::Builder<'_, '_> {
    #[cfg(unix)]
    fn permissions_if_supported(&mut self) -> &mut Self {
        use std::os::unix::fs::PermissionsExt;
        // The process's umask still takes away from it.
        self.permissions(fs::Permissions::from_mode(0o666))
    }

    #[cfg(not(unix))]
    fn permissions_if_supported(&mut self) -> &mut Self {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let names = fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name());
        names.map(|n| n.to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn a_failed_write_leaves_the_old_file_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let out = OutputDir::create(dir.path().join("a/b")).unwrap();
        assert!(names(out.path()).is_empty());
        let path = out.write("r.json", |w| w.write_all(b"old")).unwrap();
        for (kind, full) in [(ErrorKind::StorageFull, true), (ErrorKind::Other, false)] {
            let error = out
                .write("r.json", |w| {
                    w.write_all(&[1; 100_000])?;
                    Err(kind.into())
                })
                .unwrap_err();
            assert_eq!(
                matches!(error, OutputError::DiskFull { .. }),
                full,
                "{error}"
            );
            assert!(error.to_string().contains("r.json"));
            assert_eq!(fs::read(&path).unwrap(), b"old");
            assert_eq!(names(out.path()), ["r.json"]);
        }
    }

    /// A real full device: `/dev/full` answers every write with "no space left".
    #[test]
    #[cfg(target_os = "linux")]
    fn a_full_disk_is_named() {
        let mut full = match fs::OpenOptions::new().write(true).open("/dev/full") {
            Ok(full) => full,
            Err(error) => return println!("SKIPPED output::a_full_disk_is_named: {error}"),
        };
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.bin");
        let error = write_atomic(&path, |_| full.write_all(b"x")).unwrap_err();
        assert!(matches!(error, OutputError::DiskFull { .. }), "{error}");
        assert!(error.to_string().contains("--output"));
        assert!(names(dir.path()).is_empty());
    }

    #[test]
    fn files_in_the_way_are_typed_errors() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, b"").unwrap();
        for path in [file.clone(), file.join("below")] {
            let error = OutputDir::create(&path).unwrap_err();
            assert!(matches!(error, OutputError::NotAFolder { .. }), "{error}");
        }
        let error = write_atomic(dir.path(), |_| Ok(())).unwrap_err();
        assert!(matches!(error, OutputError::Io { .. }), "{error}");
    }

    #[test]
    #[cfg(unix)]
    fn a_folder_without_write_permission_is_refused_at_once() {
        use std::os::unix::fs::PermissionsExt;
        let classified = OutputError::from_io(Path::new("x"), ErrorKind::PermissionDenied.into());
        assert!(matches!(classified, OutputError::NoPermission { .. }));
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o500)).unwrap();
        if fs::write(dir.path().join("probe"), b"").is_ok() {
            return println!(
                "SKIPPED output::a_folder_without_write_permission (real folder): this user may \
                 write anywhere"
            );
        }
        let error = OutputDir::create(dir.path()).unwrap_err();
        assert!(matches!(error, OutputError::NoPermission { .. }), "{error}");
        let error = OutputDir::create(dir.path().join("new")).unwrap_err();
        assert!(matches!(error, OutputError::NoPermission { .. }), "{error}");
    }

    #[test]
    fn resuming_needs_a_run() {
        let dir = tempfile::tempdir().unwrap();
        let error = OutputDir::for_run(dir.path(), "state.json", true).unwrap_err();
        assert!(matches!(error, OutputError::NothingToResume { .. }));
        let out = OutputDir::for_run(dir.path(), "state.json", false).unwrap();
        out.write("state.json", |w| w.write_all(b"{}")).unwrap();
        OutputDir::for_run(dir.path(), "state.json", true).unwrap();
    }
}
