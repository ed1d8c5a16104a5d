//! What is exported: one file in exports.d, made effective by exportfs(8).
//!
//! The truth is exportfs' own table: mountd answers the kernel out of it, it is there whether the server runs or not,
//! and the server's unit empties it when it stops. The kernel's list holds only what clients have asked for.

mod table;

use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::run::Run;
use super::{file, mounts};
use crate::{ExportEntry, Exports, HostError};

const FILE: &str = "/run/cistern/exports.d/cistern.exports";
const TABLE: &str = "/var/lib/nfs/etab";
const THREADS: &str = "/proc/fs/nfsd/threads";
const UNLOCK: &str = "/proc/fs/nfsd/unlock_filesystem";
/// The kernel's caches of answers about exports.
const CACHES: [&str; 3] = ["nfsd.fh", "nfsd.export", "auth.unix.ip"];
const LIMIT: Duration = Duration::from_secs(60);

/// This machine's exports.
#[derive(Debug, Default)]
pub(super) struct LinuxExports {
    /// One change at a time: file and table belong together.
    change: Mutex<()>,
}

impl Exports for LinuxExports {
    fn current(&self) -> Result<Vec<ExportEntry>, HostError> {
        let text = file::read_if_there("list exports", TABLE)?;
        Ok(table::parse(&text.unwrap_or_default()))
    }

    fn replace(&self, entries: &[ExportEntry]) -> Result<(), HostError> {
        let operation = "export volumes";
        let _one = self.change.lock().unwrap_or_else(PoisonError::into_inner);
        let text = table::render(entries);
        let wanted = table::served(entries);
        let written = file::read_if_there(operation, FILE)?.is_some_and(|there| there == text);
        if written && self.current()? == wanted {
            // exportfs makes the kernel forget all answers, and every client pays for asking again.
            return Ok(());
        }
        // Over a directory that is not there exportfs fails, and with it the start of the server.
        for entry in &wanted {
            std::fs::create_dir_all(&entry.path).map_err(|source| file::io(operation, &entry.path, source))?;
        }
        file::replace(operation, Path::new(FILE), &text)?;
        let args = ["-r".to_owned()];
        let run = Run {
            operation,
            program: "exportfs",
            args: &args,
            limit: LIMIT,
        };
        let output = run.finished()?;
        // It fails over a path that it cannot look at, having exported it nevertheless: the table decides.
        if self.current()? == wanted {
            return Ok(());
        }
        if output.status.success() {
            return Err(HostError::Unexpected {
                operation: operation.to_owned(),
                detail: format!("exportfs was content, but {TABLE} is not what was asked for"),
            });
        }
        Err(run.failed(&output))
    }

    fn release(&self, path: &Path) -> Result<(), HostError> {
        let operation = format!("make the NFS server let go of {}", path.display());
        // Revoking while the server is stopped can crash the kernel.
        let threads = file::read_if_there(&operation, THREADS)?;
        let running = threads
            .and_then(|text| text.trim().parse::<u32>().ok())
            .is_some_and(|threads| threads > 0);
        let mounted = mounts::all()?.iter().any(|mount| mount.entry.target == path);
        if !running || !mounted {
            return Ok(());
        }
        for cache in CACHES {
            // Whatever number is written, everything in the cache expires.
            file::tell(&operation, format!("/proc/net/rpc/{cache}/flush"), "1\n")?;
        }
        file::tell(&operation, UNLOCK, &format!("{}\n", path.display()))
    }
}
