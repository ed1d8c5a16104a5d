//! Small files on the state partition. Invariant: a file that is replaced has its old or its new text at every moment, and
//! after a power cut; what was synced stays.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use super::file;
use crate::{HostError, Records};

/// On the state partition; a tmpfs where there is none.
const DIRECTORY: &str = "/var/lib/cistern/engine";
/// No file of ours comes near this; one that does is not ours.
const LARGEST: u64 = 64 << 20;

/// A folder of small files.
#[derive(Debug)]
pub(super) struct LinuxRecords {
    directory: PathBuf,
}

impl Default for LinuxRecords {
    fn default() -> Self {
        LinuxRecords::at(DIRECTORY)
    }
}

impl LinuxRecords {
    pub(super) fn at(directory: impl Into<PathBuf>) -> Self {
        LinuxRecords {
            directory: directory.into(),
        }
    }

    /// The parent must be there: if the state partition is not, nothing is made in its place.
    fn ensure_directory(&self) -> io::Result<()> {
        match fs::create_dir(&self.directory) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

impl Records for LinuxRecords {
    fn read(&self, name: &str) -> Result<Option<String>, HostError> {
        let path = self.directory.join(name);
        let read = || {
            let mut bytes = Vec::new();
            File::open(&path)?.take(LARGEST).read_to_end(&mut bytes)?;
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        };
        match read() {
            Ok(text) => Ok(Some(text)),
            Err(error) if io::Error::kind(&error) == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(file::io("read a record", path, source)),
        }
    }

    fn replace(&self, name: &str, text: &str) -> Result<(), HostError> {
        let path = self.directory.join(name);
        let replace = || {
            self.ensure_directory()?;
            let new = self.directory.join(format!("{name}.new"));
            let mut opened = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&new)?;
            opened.write_all(text.as_bytes())?;
            opened.sync_all()?;
            fs::rename(&new, &path)?;
            File::open(&self.directory)?.sync_all()
        };
        replace().map_err(|source| file::io("replace a record", &path, source))
    }

    fn remove(&self, name: &str) -> Result<(), HostError> {
        let path = self.directory.join(name);
        let remove = || {
            fs::remove_file(&path)?;
            File::open(&self.directory)?.sync_all()
        };
        match remove() {
            Err(error) if io::Error::kind(&error) != io::ErrorKind::NotFound => {
                Err(file::io("remove a record", &path, error))
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }

    fn append(&self, name: &str, text: &str) -> Result<(), HostError> {
        let path = self.directory.join(name);
        let append = || {
            self.ensure_directory()?;
            let mut opened = OpenOptions::new().append(true).create(true).mode(0o600).open(&path)?;
            opened.write_all(text.as_bytes())
        };
        append().map_err(|source| file::io("add to a record", &path, source))
    }

    fn sync(&self, name: &str) -> Result<(), HostError> {
        let path = self.directory.join(name);
        let sync = || {
            File::open(&path)?.sync_all()?;
            File::open(&self.directory)?.sync_all()
        };
        match sync() {
            Err(error) if io::Error::kind(&error) != io::ErrorKind::NotFound => {
                Err(file::io("make a record durable", &path, error))
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn what_is_appended_and_replaced_reads_back_and_is_root_s_alone() {
        let dir = tempfile::tempdir().unwrap();
        let records = LinuxRecords::at(dir.path().join("engine"));
        assert_eq!(records.read("log").unwrap(), None);
        records.sync("log").unwrap();
        records.append("log", "a\n").unwrap();
        records.append("log", "b\n").unwrap();
        records.sync("log").unwrap();
        assert_eq!(records.read("log").unwrap().as_deref(), Some("a\nb\n"));
        records.replace("log", "c\n").unwrap();
        records.append("log", "d\n").unwrap();
        assert_eq!(records.read("log").unwrap().as_deref(), Some("c\nd\n"));
        let mode = fs::metadata(dir.path().join("engine/log"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path().join("engine")).unwrap().count(), 1);
    }

    #[test]
    fn bytes_that_are_no_text_do_not_keep_the_rest_from_being_read() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("log"), b"good\n\xff\xfe").unwrap();
        let text = LinuxRecords::at(dir.path()).read("log").unwrap().unwrap();
        assert!(text.starts_with("good\n"));
    }

    #[test]
    fn without_a_state_partition_nothing_is_made_in_its_place() {
        let dir = tempfile::tempdir().unwrap();
        let records = LinuxRecords::at(dir.path().join("gone/engine"));
        assert!(records.append("log", "a").is_err() && records.replace("log", "a").is_err());
        assert!(!dir.path().join("gone").exists());
    }
}
