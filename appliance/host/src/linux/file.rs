//! Small files of the kernel's and the system's, read and written whole.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use jiff::Timestamp;

use crate::HostError;

/// The whole text.
pub(super) fn read(operation: &str, path: impl AsRef<Path>) -> Result<String, HostError> {
    fs::read_to_string(&path).map_err(|source| io(operation, path, source))
}

/// The whole text; none if the file is not there.
pub(super) fn read_if_there(operation: &str, path: impl AsRef<Path>) -> Result<Option<String>, HostError> {
    match fs::read_to_string(&path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(io(operation, path, source)),
    }
}

/// When the file was last changed.
pub(super) fn modified(operation: &str, path: impl AsRef<Path>) -> Result<Timestamp, HostError> {
    let time = fs::metadata(&path).and_then(|found| found.modified());
    let time = time.and_then(|time| Timestamp::try_from(time).map_err(io::Error::other));
    time.map_err(|source| io(operation, path, source))
}

/// Writes to a file that is there, in one write(2): the kernel's own files take a command a write.
pub(super) fn tell(operation: &str, path: impl AsRef<Path>, text: &str) -> Result<(), HostError> {
    let write = || {
        fs::OpenOptions::new()
            .write(true)
            .open(&path)?
            .write_all(text.as_bytes())
    };
    write().map_err(|source| io(operation, &path, source))
}

/// Replaces a file at once: a reader sees the old text or the new one.
pub(super) fn replace(operation: &str, path: &Path, text: &str) -> Result<(), HostError> {
    let write = || {
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory)?;
        }
        let new = path.with_extension("new");
        fs::write(&new, text)?;
        fs::rename(&new, path)
    };
    write().map_err(|source| io(operation, path, source))
}

/// An error about a file.
pub(super) fn io(operation: &str, path: impl AsRef<Path>, source: io::Error) -> HostError {
    HostError::Io {
        operation: format!("{operation}: {}", path.as_ref().display()),
        source,
    }
}
