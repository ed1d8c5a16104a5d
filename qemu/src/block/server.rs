//! The server: a socket, and the recordings whose disks are served on it.
//!
//! Invariant: a disk is served from the moment its recording exists until that is dropped, and then its connections end.
//! The socket goes with the last handle to the server.
//!
//! Not here: what is said on a connection (`serve`).

use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};

use cistern_model::Bytes;
use tokio::net::UnixListener;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;

use super::extent::{ExtentMap, SECTOR};
use super::handshake::{Export, Exports};
use super::recording::Recording;
use super::serve::connection;
use super::tape::{Drive, Tape};
use crate::error::{Error, Result};

/// The longest path of a socket that the kernel takes, its final zero included, is 108 bytes.
const LONGEST_PATH: usize = 100;
/// Threads that do the reading and writing of files.
const WORKERS: usize = 8;

/// What a disk of a recording is at the beginning.
#[derive(Clone, Debug)]
pub struct Medium {
    name: String,
    size: Option<Bytes>,
    base: Option<PathBuf>,
}

impl Medium {
    /// A disk of zeroes.
    pub fn blank(name: &str, size: Bytes) -> Medium {
        let (size, base) = (Some(size), None);
        Medium {
            name: name.into(),
            size,
            base,
        }
    }

    /// A disk that begins as a raw file, which is only read, and has its size.
    pub fn raw(name: &str, base: impl Into<PathBuf>) -> Medium {
        let (size, base) = (None, Some(base.into()));
        Medium {
            name: name.into(),
            size,
            base,
        }
    }

    /// Gives it this size; where its file ends it is zeroes.
    pub fn size(mut self, size: Bytes) -> Medium {
        self.size = Some(size);
        self
    }

    fn open(&self) -> Result<(Drive, ExtentMap)> {
        let problem = |problem: &str| Error::Block {
            problem: format!("disk {}: {problem}", self.name),
        };
        let valid = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if self.name.is_empty() || !self.name.chars().all(valid) {
            return Err(problem("its name is not made of A-Z a-z 0-9 - _ ."));
        }
        let base = match &self.base {
            Some(path) => Some(File::open(path).map_err(Error::io("opening", path))?),
            None => None,
        };
        let length = match (&base, &self.base) {
            (Some(file), Some(path)) => file.metadata().map_err(Error::io("reading", path))?.len(),
            _ => 0,
        };
        let size = self.size.map_or(length, Bytes::get);
        if size == 0 || !size.is_multiple_of(SECTOR) {
            return Err(problem("its size is no number of sectors of 512 bytes"));
        }
        let map = ExtentMap::new(base.is_none());
        Ok((Drive::new(&self.name, size / SECTOR, base.map(Arc::new)), map))
    }
}

/// A block server; clones are the same server. It runs on threads of its own.
#[derive(Clone, Debug)]
pub struct BlockServer {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    dir: PathBuf,
    socket: PathBuf,
    exports: Exports,
    next: AtomicU64,
    /// None only while it is dropped.
    runtime: Option<Runtime>,
}

impl BlockServer {
    /// Starts a server that keeps what is written in `dir`, which is made if it is not there. Its files have no name, so
    /// that nothing is left of them however this process ends.
    pub fn start(dir: impl AsRef<Path>) -> Result<BlockServer> {
        let dir = dir.as_ref();
        fs::create_dir_all(dir).map_err(Error::io("making", dir))?;
        let dir = fs::canonicalize(dir).map_err(Error::io("finding", dir))?;
        let socket = socket_path(&dir);
        if socket.exists() {
            fs::remove_file(&socket).map_err(Error::io("removing", &socket))?;
        }
        let runtime = Builder::new_multi_thread()
            .worker_threads(2)
            .max_blocking_threads(WORKERS)
            .thread_name("block server")
            .enable_all()
            .build()
            .map_err(Error::io("starting threads for", &socket))?;
        let exports = Exports::default();
        let listener = net::UnixListener::bind(&socket).map_err(Error::io("listening on", &socket))?;
        let listen = |listener: net::UnixListener| {
            listener.set_nonblocking(true)?;
            let _inside = runtime.enter();
            UnixListener::from_std(listener)
        };
        let listener = listen(listener).map_err(Error::io("listening on", &socket))?;
        runtime.spawn(accept(listener, Arc::clone(&exports)));
        let shared = Shared {
            dir,
            socket,
            exports,
            next: AtomicU64::new(0),
            runtime: Some(runtime),
        };
        Ok(BlockServer {
            shared: Arc::new(shared),
        })
    }

    /// Its socket.
    pub fn socket(&self) -> &Path {
        &self.shared.socket
    }

    /// Serves the disks of one machine and records what is written to them.
    pub fn record(&self, disks: impl IntoIterator<Item = Medium>) -> Result<Recording> {
        let mut drives: Vec<(Drive, ExtentMap)> = Vec::new();
        for disk in disks {
            if drives.iter().any(|(other, _)| other.name == disk.name) {
                let problem = format!("two disks are called {}", disk.name);
                return Err(Error::Block { problem });
            }
            drives.push(disk.open()?);
        }
        self.serve(drives, Vec::new())
    }

    /// Serves disks that begin as these maps into these files.
    pub(crate) fn serve(&self, drives: Vec<(Drive, ExtentMap)>, mut files: Vec<Arc<File>>) -> Result<Recording> {
        let id = format!("r{}", self.shared.next.fetch_add(1, Ordering::Relaxed));
        files.push(Arc::new(nameless(&self.shared.dir.join(format!("{id}.data")))?));
        let tape = Arc::new(Tape::new(drives, files));
        let (gone, withdrawn) = watch::channel(false);
        let mut exports = self.shared.exports.lock().unwrap_or_else(PoisonError::into_inner);
        for (disk, drive) in tape.drives.iter().enumerate() {
            let (tape, withdrawn) = (Arc::clone(&tape), withdrawn.clone());
            let export = Export { tape, disk, withdrawn };
            exports.insert(format!("{id}/{}", drive.name), export);
        }
        drop(exports);
        Ok(Recording::new(self.clone(), id, tape, gone))
    }

    /// Ends the service of a recording's disks.
    pub(crate) fn withdraw(&self, id: &str) {
        let mut exports = self.shared.exports.lock().unwrap_or_else(PoisonError::into_inner);
        exports.retain(|name, _| name.split('/').next() != Some(id));
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
        // Nobody is left to tell.
        let _ = fs::remove_file(&self.socket);
    }
}

async fn accept(listener: UnixListener, exports: Exports) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => drop(tokio::spawn(connection(stream, Arc::clone(&exports)))),
            // Out of descriptors, perhaps: some may be free soon.
            Err(_) => tokio::time::sleep(std::time::Duration::from_millis(50)).await,
        }
    }
}

/// In the server's directory, if the kernel takes a path of that length.
fn socket_path(dir: &Path) -> PathBuf {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let socket = dir.join("nbd.sock");
    if socket.as_os_str().as_bytes().len() <= LONGEST_PATH {
        return socket;
    }
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    std::env::temp_dir().join(format!("cistern-nbd-{}-{number}.sock", process::id()))
}

/// A file to read and write that has no name any more.
fn nameless(path: &Path) -> Result<File> {
    let open = || -> io::Result<File> {
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(path)?;
        fs::remove_file(path)?;
        Ok(file)
    };
    open().map_err(Error::io("making", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_that_cannot_be_is_refused_with_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let server = BlockServer::start(dir.path()).unwrap();
        let mib = Bytes::mib(1);
        let cases = [
            (
                vec![Medium::blank("D1", mib), Medium::blank("D1", mib)],
                "two disks are called D1",
            ),
            (vec![Medium::blank("a/b", mib)], "a/b"),
            (vec![Medium::blank("D1", Bytes::new(1000))], "sectors"),
            (vec![Medium::raw("D1", "/nowhere")], "/nowhere"),
        ];
        for (disks, expected) in cases {
            let error = server.record(disks).map(drop).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn what_is_scrambled_is_all_that_is_not_zero_and_nothing_outside() {
        let dir = tempfile::tempdir().unwrap();
        let server = BlockServer::start(dir.path()).unwrap();
        let disks = server.record([Medium::blank("D1", Bytes::mib(1))]).unwrap();
        for offset in [0, 8192, 65536] {
            let change = super::super::tape::Change {
                disk: 0,
                offset,
                through: true,
            };
            disks.tape.write(change, &[0x0f; 4096]).unwrap();
        }
        assert_eq!(disks.scramble("D1", 4096..1 << 20).unwrap(), 2);
        for (offset, byte) in [(0, 0x0f), (4096, 0), (8192, 0xf0), (65536, 0xf0)] {
            assert_eq!(disks.read("D1", offset, 4096).unwrap(), [byte; 4096], "{offset}");
        }
    }

    #[test]
    fn a_socket_whose_path_would_be_too_long_is_elsewhere_and_goes_with_the_server() {
        let dir = tempfile::tempdir().unwrap();
        let server = BlockServer::start(dir.path().join("long".repeat(40))).unwrap();
        let socket = server.socket().to_owned();
        assert!(socket.exists());
        drop(server);
        assert!(!socket.exists(), "{}", socket.display());
        let server = BlockServer::start(dir.path()).unwrap();
        assert_eq!(server.socket(), fs::canonicalize(dir.path()).unwrap().join("nbd.sock"));
    }
}
