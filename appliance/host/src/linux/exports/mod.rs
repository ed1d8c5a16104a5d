//! What is exported: one file in exports.d, and exportfs' table beside it.
//!
//! The truth is that table: mountd answers the kernel out of it, it is there whether the server runs or not, and the
//! server's unit empties it when it stops and fills it from the file when it starts. Both are written here, whole, from
//! lines that are kept; then the kernel forgets the answers that changed, and no others. exportfs itself would need more
//! than half a second for each change where there are thousands of exports, and make every client ask again.

mod cleaning;
mod kernel;
mod sessions;
mod table;
mod under_way;
mod waiting;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use cistern_model::Client;

use self::cleaning::Cleaning;
use self::kernel::Stale;
use self::table::Table;
use self::waiting::Waiting;
use super::{file, mounts};
use crate::{ExportEntry, Exports, HostError, NfsSession};

const FILE: &str = "/run/cistern/exports.d/cistern.exports";
const TABLE: &str = "/var/lib/nfs/etab";
const THREADS: &str = "/proc/fs/nfsd/threads";
const UNLOCK: &str = "/proc/fs/nfsd/unlock_filesystem";
/// The kernel's caches of answers about exports.
const CACHES: [&str; 3] = [HANDLES, EXPORTS, ADDRESSES];
const EXPORTS: &str = "nfsd.export";
const HANDLES: &str = "nfsd.fh";
const ADDRESSES: &str = "auth.unix.ip";

/// How long mountd may be at an answer, and how often within that it is looked for one that is late.
const LATE_ANSWER: Duration = Duration::from_millis(50);
const LATE_ANSWERS: u32 = 3;

/// This machine's exports.
#[derive(Debug, Default)]
pub(super) struct LinuxExports {
    /// The table as it was last read or written, and by what to see whether anybody else has written it. One change at a
    /// time: file and table belong together.
    known: Mutex<Option<(Stamp, Table)>>,
    cleaning: Cleaning,
    waiting: Waiting,
}

/// What tells one version of a file from the next: a file that is replaced has another inode, one that is rewritten
/// another time.
type Stamp = (u64, i64, i64, u64);

impl LinuxExports {
    fn known(&self) -> MutexGuard<'_, Option<(Stamp, Table)>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, operation: &str, change: impl FnOnce(&Table) -> Table) -> Result<(), HostError> {
        let mut known = self.known();
        let stamp = stamp(operation)?;
        // Taken: after an error nothing is known until a change has succeeded.
        let (old, sure) = match known.take() {
            Some((then, table)) if Some(then) == stamp => (table, true),
            Some(_) | None => (read(operation)?, false),
        };
        let new = change(&old);
        let changes = old.changes(&new);
        let text = new.exports();
        let written = file::read_if_there(operation, FILE)?.is_some_and(|there| there == text);
        if !written {
            // exportfs, when the server starts, fails over a directory that is not there.
            for entry in new.entries().filter(|entry| !entry.path.exists()) {
                fs::create_dir_all(&entry.path).map_err(|source| file::io(operation, &entry.path, source))?;
            }
            file::replace(operation, Path::new(FILE), &text)?;
        }
        if !changes.is_empty() {
            file::replace(operation, Path::new(TABLE), &new.etab())?;
        }
        // From here on mountd gives the new answers; what the kernel knows from before must go.
        match Forgetting::after(sure, &changes) {
            Forgetting::Nothing => {}
            Forgetting::What => forget(operation, &old, &new, &changes)?,
            Forgetting::All => flush(operation)?,
        }
        *known = self::stamp(operation)?.map(|stamp| (stamp, new));
        Ok(())
    }
}

/// Which of its answers the kernel is to forget after a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Forgetting {
    Nothing,
    /// Those that the change is about.
    What,
    All,
}

impl Forgetting {
    /// `sure`: the table before the change was written here, and the kernel forgot then what was to be forgotten. Else the
    /// table may say already what is asked for, and the kernel something else: a supervisor that died, or failed, between
    /// the one and the other leaves that, and no comparison of tables shows it.
    fn after(sure: bool, changes: &table::Changes) -> Forgetting {
        match (sure, changes.is_empty()) {
            (false, _) => Forgetting::All,
            (true, true) => Forgetting::Nothing,
            (true, false) => Forgetting::What,
        }
    }
}

impl Exports for LinuxExports {
    fn current(&self) -> Result<Vec<ExportEntry>, HostError> {
        Ok(read("list exports")?.entries().cloned().collect())
    }

    fn replace(&self, entries: &[ExportEntry]) -> Result<(), HostError> {
        self.change("export volumes", |_| Table::new(entries))
    }

    fn set(&self, entry: &ExportEntry) -> Result<(), HostError> {
        self.change(&format!("export {}", entry.path.display()), |old| {
            let mut new = old.clone();
            new.set(entry);
            new
        })
    }

    fn remove(&self, path: &Path) -> Result<(), HostError> {
        self.change(&format!("no longer export {}", path.display()), |old| {
            let mut new = old.clone();
            new.remove(path);
            new
        })
    }

    fn sessions(&self) -> Result<Vec<NfsSession>, HostError> {
        sessions::all()
    }

    fn expire(&self, session: &str) -> Result<(), HostError> {
        sessions::expire(session)
    }

    fn settle(&self, entry: &ExportEntry) -> Result<(), HostError> {
        let operation = format!("wait for what is under way at {}", entry.path.display());
        let stale = Stale {
            path: Some(&entry.path),
            fsid: Some(entry.fsid),
            peers: Some(&entry.clients),
            newcomers: &[],
        };
        // What mountd began to answer from the old table may come after the new one was told.
        for _ in 0..LATE_ANSWERS {
            thread::sleep(LATE_ANSWER);
            tell_cache(&operation, EXPORTS, |content| {
                kernel::exports(&kernel::allowed(content), &stale)
            })?;
            tell_cache(&operation, HANDLES, |content| {
                kernel::handles(&kernel::allowed(content), &stale)
            })?;
        }
        entry
            .clients
            .iter()
            .try_for_each(|client| under_way::wait(&operation, client))
    }

    fn answer_waiting(&self, unserved: &BTreeSet<PathBuf>) -> Result<(), HostError> {
        let operation = "answer clients that wait";
        self.waiting.answer(operation, &read(operation)?, unserved)
    }

    fn release(&self, path: &Path) -> Result<(), HostError> {
        let operation = format!("make the NFS server let go of {}", path.display());
        if !can_revoke(&operation, path)? {
            return Ok(());
        }
        // All of them: an answer that is past its time holds its path until the whole cache is cleaned.
        self.cleaning.clean(&operation)?;
        file::tell(&operation, UNLOCK, &format!("{}\n", path.display()))
    }
}

/// Whether something is mounted there and the server runs: revoking while it is stopped can crash the kernel.
fn can_revoke(operation: &str, path: &Path) -> Result<bool, HostError> {
    let threads = file::read_if_there(operation, THREADS)?;
    let running = threads
        .and_then(|text| text.trim().parse::<u32>().ok())
        .is_some_and(|threads| threads > 0);
    Ok(running && mounts::all()?.iter().any(|mount| mount.entry.target == path))
}

fn read(operation: &str) -> Result<Table, HostError> {
    let text = file::read_if_there(operation, TABLE)?;
    Ok(table::parse(&text.unwrap_or_default()))
}

fn stamp(operation: &str) -> Result<Option<Stamp>, HostError> {
    match fs::metadata(TABLE) {
        Ok(meta) => Ok(Some((meta.ino(), meta.mtime(), meta.mtime_nsec(), meta.len()))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(file::io(operation, TABLE, source)),
    }
}

/// Makes the kernel forget the answers that changed.
fn forget(operation: &str, old: &Table, new: &Table, changes: &table::Changes) -> Result<(), HostError> {
    if changes.is_empty() {
        return Ok(());
    }
    let mut forgotten = Ok(());
    for (path, (before, after)) in changes {
        let same_users = match (before, after) {
            (Some(before), Some(after)) => before.users == after.users && before.fsid == after.fsid,
            (Some(_), None) | (None, Some(_)) | (None, None) => true,
        };
        let clients = |entry: &Option<ExportEntry>| entry.as_ref().map_or(Vec::new(), |entry| entry.clients.clone());
        let (before_clients, after_clients) = (clients(before), clients(after));
        let (gone, come) = (
            without(&before_clients, &after_clients),
            without(&after_clients, &before_clients),
        );
        let differing = [gone, come.clone()].concat();
        // One that could read and can write now, or the other way round, was there before.
        let plain = |clients: &[Client]| -> Vec<Client> { clients.iter().map(|c| c.with_read_only(false)).collect() };
        let newcomers = without(&plain(&come), &plain(&before_clients));
        for entry in [before, after].into_iter().flatten() {
            let stale = Stale {
                path: Some(path),
                fsid: Some(entry.fsid),
                peers: same_users.then_some(differing.as_slice()),
                newcomers: &newcomers,
            };
            let exports = tell_cache(operation, EXPORTS, |content| kernel::exports(content, &stale));
            let handles = tell_cache(operation, HANDLES, |content| kernel::handles(content, &stale));
            forgotten = forgotten.and(exports).and(handles);
        }
    }
    // Who is known at all decides under what name an address asks, and whether it sees the way to its exports.
    let (old, new) = (old.peers(), new.peers());
    let differing: Vec<Client> = old.symmetric_difference(&new).copied().collect();
    let newcomers: Vec<Client> = new.difference(&old).copied().collect();
    if !differing.is_empty() {
        for way in ways(changes.keys()) {
            let stale = Stale {
                path: Some(way),
                fsid: None,
                peers: None,
                newcomers: &newcomers,
            };
            forgotten = forgotten.and(tell_cache(operation, EXPORTS, |content| {
                kernel::exports(content, &stale)
            }));
        }
        let addresses = tell_cache(operation, ADDRESSES, |content| {
            kernel::addresses(content, &differing, &newcomers)
        });
        forgotten = forgotten.and(addresses);
    }
    // What cannot be told one by one is told as a whole.
    forgotten.or_else(|error: HostError| {
        tracing::warn!(%error, "single answers could not be taken back; all are");
        flush(operation)
    })
}

/// Of these clients those that are not among the others.
fn without(clients: &[Client], others: &[Client]) -> Vec<Client> {
    let left = clients.iter().filter(|client| !others.contains(client));
    left.copied().collect()
}

/// The directories above these.
fn ways<'a>(paths: impl Iterator<Item = &'a std::path::PathBuf>) -> std::collections::BTreeSet<&'a Path> {
    paths.flat_map(|path| path.ancestors().skip(1)).collect()
}

/// Gives a cache lines that are made from its content. A kernel whose server was never started has no caches.
fn tell_cache(operation: &str, cache: &str, lines: impl FnOnce(&str) -> Vec<String>) -> Result<(), HostError> {
    let Some(content) = file::read_if_there(operation, format!("/proc/net/rpc/{cache}/content"))? else {
        return Ok(());
    };
    for line in lines(&content) {
        file::tell(operation, format!("/proc/net/rpc/{cache}/channel"), &line)?;
    }
    Ok(())
}

fn flush(operation: &str) -> Result<(), HostError> {
    for cache in CACHES {
        let flush = format!("/proc/net/rpc/{cache}/flush");
        // Whatever number is written, everything in the cache expires. A kernel whose server was never started has none.
        if Path::new(&flush).exists() {
            file::tell(operation, flush, "1\n")?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_the_kernel_may_know_an_older_table_it_forgets_all() {
        let entry = ExportEntry {
            path: "/volumes/a".into(),
            fsid: uuid::Uuid::from_u128(1),
            clients: vec!["10.77.0.2".parse().unwrap()],
            users: crate::ExportUsers::default(),
        };
        let (none, one) = (Table::default(), Table::new(&[entry]));
        let (same, taken) = (none.changes(&none), one.changes(&none));
        // A supervisor that died after the table was written finds it as it should be.
        assert_eq!(Forgetting::after(false, &same), Forgetting::All);
        assert_eq!(Forgetting::after(false, &taken), Forgetting::All);
        assert_eq!(Forgetting::after(true, &same), Forgetting::Nothing);
        assert_eq!(Forgetting::after(true, &taken), Forgetting::What);
    }
}
