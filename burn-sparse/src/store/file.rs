//! Reading no more than there is, writing all or nothing.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use super::manifest::{self, FIRST, Manifest};
use crate::SparseError;

fn io_error(at: &str, source: io::Error) -> SparseError {
    SparseError::Io {
        path: at.to_string(),
        source,
    }
}

fn not_a_file() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidInput,
        "this is a folder or a device; name a file for the checkpoint",
    )
}

/// A checkpoint whose header has been checked.
pub(super) struct Opened {
    pub(super) manifest: Manifest,
    file: File,
    head: Vec<u8>,
    total: u64,
}

/// Opens a file, and says how long it is.
fn open_file(path: &Path) -> io::Result<(File, u64)> {
    // Asked before opening: opening a named pipe would wait for a writer.
    if !fs::metadata(path)?.is_file() {
        return Err(not_a_file());
    }
    let file = File::open(path)?;
    let total = file.metadata()?.len();
    Ok((file, total))
}

/// The first bytes of a file, up to `len`.
fn read_first(file: &mut File, len: usize) -> io::Result<Vec<u8>> {
    let mut first = Vec::with_capacity(len);
    file.by_ref().take(len as u64).read_to_end(&mut first)?;
    Ok(first)
}

/// Opens a checkpoint and checks its header and its length.
pub(super) fn open(path: &Path, at: &str) -> Result<Opened, SparseError> {
    let io = |error| io_error(at, error);
    let (mut file, total) = open_file(path).map_err(io)?;
    let mut head = read_first(&mut file, FIRST).map_err(io)?;
    let end = manifest::header_end(&head, total, at)?;
    read_more(&mut file, &mut head, end).map_err(io)?;
    let manifest = manifest::parse(&head, total, at)?;
    Ok(Opened {
        manifest,
        file,
        head,
        total,
    })
}

/// A whole file, if `check` accepts its first `first` bytes.
pub(super) fn read(
    path: &Path,
    at: &str,
    first: usize,
    check: impl FnOnce(&[u8]) -> Result<(), SparseError>,
) -> Result<Vec<u8>, SparseError> {
    let io = |error| io_error(at, error);
    let (mut file, total) = open_file(path).map_err(io)?;
    let head = read_first(&mut file, first).map_err(io)?;
    check(&head)?;
    read_rest(file, head, total).map_err(io)
}

/// All of a file of `total` bytes whose first bytes have been read.
fn read_rest(mut file: File, mut head: Vec<u8>, total: u64) -> io::Result<Vec<u8>> {
    let len = usize::try_from(total)
        .map_err(|_| io::Error::new(io::ErrorKind::OutOfMemory, "larger than memory"))?;
    read_more(&mut file, &mut head, len)?;
    Ok(head)
}

impl Opened {
    /// The whole file.
    pub(super) fn into_bytes(self, at: &str) -> Result<Vec<u8>, SparseError> {
        read_rest(self.file, self.head, self.total).map_err(|error| io_error(at, error))
    }
}

/// Reads until `bytes` has `len` bytes, asking for no more memory than that.
fn read_more(file: &mut File, bytes: &mut Vec<u8>, len: usize) -> io::Result<()> {
    let start = bytes.len();
    bytes
        .try_reserve_exact(len.saturating_sub(start))
        .map_err(|_| io::Error::new(io::ErrorKind::OutOfMemory, "larger than memory"))?;
    bytes.resize(len, 0);
    file.read_exact(&mut bytes[start.min(len)..])
}

/// Puts a file in the place of `path` once `write` has filled it and the disk has it. Whatever
/// fails, the file that was there stays as it was and no other is left behind.
pub(super) fn replace(
    path: &Path,
    at: &str,
    write: impl FnOnce(&mut File) -> io::Result<()>,
) -> Result<(), SparseError> {
    let io = |error| io_error(at, error);
    // A link keeps pointing at the file; renaming over it would replace the link.
    let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
    if fs::metadata(&target).is_ok_and(|found| !found.is_file()) {
        return Err(io(not_a_file()));
    }
    let folder = match target.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let mut builder = tempfile::Builder::new();
    builder.prefix(".burn-sparse-");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        // What any new file gets, less the process's mask; temporary files are private otherwise.
        builder.permissions(fs::Permissions::from_mode(0o666));
    }
    let mut file = builder.tempfile_in(folder).map_err(io)?;
    write(file.as_file_mut()).map_err(io)?;
    file.as_file().sync_all().map_err(io)?;
    file.persist(&target).map_err(|error| io(error.error))?;
    // The file is complete and in place; this makes the rename survive a power cut where the
    // system can do that for folders.
    #[cfg(unix)]
    let _ = File::open(folder).and_then(|folder| folder.sync_all());
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect()
    }

    fn full_disk(file: &mut File) -> io::Result<()> {
        file.write_all(&[7; 100_000])?;
        #[cfg(target_os = "linux")]
        return fs::OpenOptions::new()
            .write(true)
            .open("/dev/full")?
            .write_all(b"one byte more");
        #[cfg(not(target_os = "linux"))]
        return Err(io::ErrorKind::StorageFull.into());
    }

    #[test]
    fn a_full_disk_leaves_the_old_file_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model");
        let error = replace(&path, "model", full_disk).unwrap_err();
        assert!(
            matches!(&error, SparseError::Io { source, .. }
                if source.kind() == io::ErrorKind::StorageFull),
            "{error}"
        );
        assert!(names(folder.path()).is_empty());

        fs::write(&path, b"the old one").unwrap();
        replace(&path, "model", full_disk).unwrap_err();
        assert_eq!(fs::read(&path).unwrap(), b"the old one");
        assert_eq!(names(folder.path()), ["model"]);

        replace(&path, "model", |file| file.write_all(b"the new one")).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"the new one");
        assert_eq!(names(folder.path()), ["model"]);
    }

    #[cfg(unix)]
    #[test]
    fn links_are_followed_and_devices_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let (file, link) = (folder.path().join("run-7"), folder.path().join("latest"));
        fs::write(&file, b"old").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        replace(&link, "latest", |file| file.write_all(b"new")).unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"new");
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());

        let write = |_: &mut File| -> io::Result<()> { panic!("nothing is to be written") };
        for path in [Path::new("/dev/null"), folder.path()] {
            assert!(matches!(
                replace(path, "x", write),
                Err(SparseError::Io { .. })
            ));
            assert!(matches!(open(path, "x"), Err(SparseError::Io { .. })));
        }
    }
}
