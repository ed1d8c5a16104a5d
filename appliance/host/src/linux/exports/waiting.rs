//! Clients that asked for an export while nothing was mounted there. mountd leaves their question unanswered, and the kernel puts it to
//! mountd no second time within two minutes; or, if they asked by its path, mountd says no for one minute.
//!
//! Invariant: who waits for an answer is told yes or nothing (see [`kernel`]), and no only of what cannot be served, if he would keep from
//! himself what can be. What is answered here is only which export a handle is of; what its client may do there mountd is asked for as ever.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use uuid::Uuid;

use super::super::{file, mounts};
use super::kernel::Reply;
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
    /// Answers those who asked for what is mounted by now, and those who asked for what is `unserved` and may use what is mounted.
    pub(super) fn answer(&self, operation: &str, table: &Table, unserved: &BTreeSet<PathBuf>) -> Result<(), HostError> {
        let there = mounted()?;
        self.forget_denials(operation, table, &there)?;
        let Some(content) = file::read_if_there(operation, format!("/proc/net/rpc/{HANDLES}/content"))? else {
            return Ok(());
        };
        let of: BTreeMap<Uuid, &ExportEntry> = table.entries().map(|entry| (entry.fsid, entry)).collect();
        let channel = format!("/proc/net/rpc/{HANDLES}/channel");
        let answers = kernel::answers(&content, until(), |fsid, domain| {
            reply(of.get(&fsid)?, domain, table, &there, unserved)
        });
        if answers.is_empty() {
            return Ok(());
        }
        // One that cannot be told keeps none of the others waiting.
        let tell = |told: Result<(), HostError>, line: &String| told.and(file::tell(operation, &channel, line));
        let told = answers.iter().map(|answer| &answer.line).fold(Ok(()), tell);
        // One that was unmounted meanwhile may have been answered with what lies under it.
        let there = mounted()?;
        let gone = answers.iter().filter(|answer| match &answer.reply {
            Reply::Of(path) => !there.contains(path),
            Reply::NotThere => false,
        });
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

/// What a domain is told of an export, if anything.
fn reply(
    entry: &ExportEntry,
    domain: &str,
    table: &Table,
    there: &HashSet<PathBuf>,
    unserved: &BTreeSet<PathBuf>,
) -> Option<Reply> {
    let open = |entry: &ExportEntry| there.contains(&entry.path) && kernel::is_of(domain, &entry.clients);
    if open(entry) {
        return Some(Reply::Of(entry.path.clone()));
    }
    let no = unserved.contains(&entry.path) && !there.contains(&entry.path) && table.entries().any(open);
    no.then_some(Reply::NotThere)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ExportUsers;

    fn entry(name: &str, client: &str) -> ExportEntry {
        ExportEntry {
            path: format!("/volumes/{name}").into(),
            fsid: Uuid::from_u128(1),
            clients: vec![client.parse().unwrap()],
            users: ExportUsers::default(),
        }
    }

    #[test]
    fn only_who_may_use_what_is_served_is_told_that_the_rest_is_not_there() {
        let entries = [
            entry("served", "10.0.0.1"),
            entry("lost", "10.0.0.0/24"),
            entry("late", "10.0.0.1"),
        ];
        let table = Table::new(&entries);
        let there = HashSet::from([entries[0].path.clone()]);
        let unserved = BTreeSet::from([entries[1].path.clone()]);
        let told = |entry: usize, domain: &str| reply(&entries[entry], domain, &table, &there, &unserved);
        let both = "10.0.0.0/24,10.0.0.1";
        assert_eq!(told(0, both), Some(Reply::Of("/volumes/served".into())));
        assert_eq!(told(1, both), Some(Reply::NotThere));
        // Nothing else is open to him, or it is not known yet whether it can be served.
        assert_eq!(told(1, "10.0.0.0/24"), None);
        assert_eq!(told(2, both), None);
        // It was mounted meanwhile.
        let there = HashSet::from(entries.clone().map(|entry| entry.path));
        let now = reply(&entries[1], both, &table, &there, &unserved);
        assert_eq!(now, Some(Reply::Of("/volumes/lost".into())));
    }
}
