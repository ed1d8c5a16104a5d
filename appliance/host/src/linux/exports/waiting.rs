//! Clients that asked for an export while nothing was mounted there. mountd leaves their question unanswered, and the kernel puts it to
//! mountd no second time within two minutes; or, if they asked by its path, mountd says no for one minute.
//!
//! Invariant: who waits for an answer is told yes or nothing, never no (see [`kernel`]). What is answered here is only which export a
//! handle is of; what its client may do there mountd is asked for as ever.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use uuid::Uuid;

use super::super::{file, mounts};
use super::table::Table;
use super::{EXPORTS, HANDLES, kernel, tell_cache};
use crate::{ExportEntry, HostError};

/// How long an answer holds: long enough for who waits, and short beside mountd's own, which take over then.
const HOLDS: Duration = Duration::from_secs(120);

/// Who was told no because nothing was mounted.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    /// Path and domain of what had no yes while nothing was mounted there. What has none later may be a question that mountd is just
    /// answering, and is left to it.
    denied: Mutex<BTreeSet<(PathBuf, String)>>,
}

impl Waiting {
    /// Answers those who asked for what is mounted by now.
    pub(super) fn answer(&self, operation: &str, table: &Table) -> Result<(), HostError> {
        let there = mounted()?;
        self.forget_denials(operation, table, &there)?;
        let Some(content) = file::read_if_there(operation, format!("/proc/net/rpc/{HANDLES}/content"))? else {
            return Ok(());
        };
        let of: BTreeMap<Uuid, &ExportEntry> = table.entries().map(|entry| (entry.fsid, entry)).collect();
        let open = |fsid: Uuid, domain: &str| {
            let entry = of.get(&fsid)?;
            (there.contains(&entry.path) && kernel::is_of(domain, &entry.clients)).then(|| entry.path.clone())
        };
        let channel = format!("/proc/net/rpc/{HANDLES}/channel");
        let answers = kernel::answers(&content, until(), open);
        if answers.is_empty() {
            return Ok(());
        }
        // One that cannot be told keeps none of the others waiting.
        let tell = |told: Result<(), HostError>, line: &String| told.and(file::tell(operation, &channel, line));
        let told = answers.iter().map(|answer| &answer.line).fold(Ok(()), tell);
        // One that was unmounted meanwhile may have been answered with what lies under it.
        let there = mounted()?;
        let gone = answers.iter().filter(|answer| !there.contains(&answer.path));
        gone.map(|answer| &answer.taken_back).fold(told, tell)
    }

    fn forget_denials(&self, operation: &str, table: &Table, there: &HashSet<PathBuf>) -> Result<(), HostError> {
        let ours: HashSet<&PathBuf> = table.entries().map(|entry| &entry.path).collect();
        let mut denied = self.denied.lock().unwrap_or_else(PoisonError::into_inner);
        let mut still = BTreeSet::new();
        tell_cache(operation, EXPORTS, |content| {
            let mut lines = Vec::new();
            for (path, domain) in kernel::denied(content).filter(|(path, _)| ours.contains(path)) {
                let known = (path, domain.to_owned());
                if !there.contains(&known.0) {
                    still.insert(known);
                } else if denied.contains(&known) {
                    lines.push(kernel::no_longer(&known.0, domain));
                }
            }
            lines
        })?;
        *denied = still;
        Ok(())
    }
}

/// Where something is mounted.
fn mounted() -> Result<HashSet<PathBuf>, HostError> {
    Ok(mounts::all()?.into_iter().map(|mount| mount.entry.target).collect())
}

/// Until when an answer of now holds, in seconds of the wall clock.
fn until() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    (now + HOLDS).as_secs()
}
