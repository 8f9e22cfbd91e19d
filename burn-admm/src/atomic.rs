//! Files that are whole or not there.

use std::io::{self, Write};
use std::path::Path;

/// Writes a file to the disk under another name beside it, then renames it, so that an interrupted write leaves an
/// older one as it was.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}

/// Writes JSON and an end of line so, and makes the folder if there is none.
pub(crate) fn write_json(path: &Path, mut json: Vec<u8>) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    json.push(b'\n');
    write(path, &json)
}
