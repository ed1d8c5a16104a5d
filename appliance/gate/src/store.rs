//! Files that outlive a power cut. Invariant: a file has its old or its new content at every moment, never a part.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use thiserror::Error;

/// A file that could not be read or replaced.
#[derive(Debug, Error)]
#[error("cannot {what} {path}")]
pub struct StoreError {
    what: &'static str,
    path: String,
    #[source]
    source: io::Error,
}

impl StoreError {
    pub(crate) fn new(what: &'static str, path: &Path, source: io::Error) -> Self {
        StoreError {
            what,
            path: path.display().to_string(),
            source,
        }
    }
}

/// Replaces `path` with `content` and this mode, durably: a new file beside it is written and synced, takes its name, and
/// the directory is synced.
pub fn replace(path: &Path, content: &[u8], mode: u32) -> Result<(), StoreError> {
    let fail = |source| StoreError::new("replace", path, source);
    let directory = path.parent().unwrap_or(Path::new("."));
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let fresh = directory.join(name);
    // What an interrupted replacement left may have another mode.
    match fs::remove_file(&fresh) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(fail(e)),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&fresh)
        .map_err(fail)?;
    file.write_all(content).map_err(fail)?;
    file.sync_all().map_err(fail)?;
    fs::rename(&fresh, path).map_err(fail)?;
    File::open(directory).and_then(|d| d.sync_all()).map_err(fail)
}

/// The content of a file; none if it is not there.
pub fn read(path: &Path) -> Result<Option<Vec<u8>>, StoreError> {
    match fs::read(path) {
        Ok(content) => Ok(Some(content)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(StoreError::new("read", path, e)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_replaced_file_has_its_mode_whatever_was_left_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        fs::write(dir.path().join("key.new"), "left over").unwrap();
        replace(&path, b"one", 0o600).unwrap();
        replace(&path, b"two", 0o600).unwrap();
        assert_eq!(read(&path).unwrap().unwrap(), b"two");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        assert_eq!(read(&dir.path().join("none")).unwrap(), None);
    }
}
