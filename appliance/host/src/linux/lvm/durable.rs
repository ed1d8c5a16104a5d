//! That what LVM has committed outlives a power cut.
//!
//! LVM writes its metadata past the page cache, but asks no disk to write its own cache out (2.03.31 has no fsync and no
//! FUA on that way): what it calls committed may be lost until something else flushes those disks. A change that was
//! answered would be undone, and a client that was taken away may write again.
//!
//! Invariant: when a call that commits returns without an error, one disk at least of its group keeps the commit (LVM
//! takes the newest of all copies and mends the others); what a call with an error may have committed is written out
//! before the next report tells of it, as far as there is a disk to write to.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use super::LinuxLvm;
use crate::linux::file;
use crate::{HostError, PhysicalVolume};

/// As long as a command waits for its disks.
const LIMIT: Duration = Duration::from_secs(120);

/// Where each group's metadata lies, as far as it is known without asking LVM, and which groups owe a flush.
#[derive(Debug, Default)]
pub(super) struct Commits(Mutex<Groups>);

#[derive(Debug, Default)]
struct Groups {
    nodes: BTreeMap<String, BTreeSet<PathBuf>>,
    owing: BTreeSet<String>,
}

impl Commits {
    fn locked(&self) -> MutexGuard<'_, Groups> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// These belong to the group from now on too.
    pub(super) fn joined(&self, vg: &str, nodes: &[PathBuf]) {
        let mut groups = self.locked();
        groups
            .nodes
            .entry(vg.to_owned())
            .or_default()
            .extend(nodes.iter().cloned());
    }

    /// It belongs to the group no more.
    pub(super) fn parted(&self, vg: &str, node: &Path) {
        if let Some(nodes) = self.locked().nodes.get_mut(vg) {
            nodes.remove(node);
        }
    }

    fn begin(&self, vg: &str) {
        self.locked().owing.insert(vg.to_owned());
    }

    fn of(&self, vg: &str) -> BTreeSet<PathBuf> {
        self.locked().nodes.get(vg).cloned().unwrap_or_default()
    }

    fn kept(&self, vg: &str) {
        self.locked().owing.remove(vg);
    }

    /// What a report says of all groups. One that owes a flush keeps the nodes it had: LVM may just have parted them.
    fn learn(&self, pvs: &[PhysicalVolume]) -> Vec<String> {
        let mut groups = self.locked();
        let Groups { nodes, owing } = &mut *groups;
        nodes.retain(|vg, _| owing.contains(vg));
        for pv in pvs {
            if let (Some(vg), Some(node)) = (&pv.vg, &pv.node) {
                nodes.entry(vg.clone()).or_default().insert(node.clone());
            }
        }
        owing.iter().cloned().collect()
    }
}

impl LinuxLvm {
    /// Does what commits something to a group, and makes it durable. All such commands go through here.
    pub(super) fn commit<T>(
        &self,
        operation: &str,
        vg: &str,
        command: impl FnOnce() -> Result<T, HostError>,
    ) -> Result<T, HostError> {
        self.commits.begin(vg);
        let done = command()?;
        self.keep(operation, vg)?;
        Ok(done)
    }

    /// Notes where the groups lie, and makes up for the flushes of commands that failed.
    pub(super) fn learn(&self, operation: &str, pvs: &[PhysicalVolume]) {
        for vg in self.commits.learn(pvs) {
            // A group whose disks are all gone does not keep the others from being seen.
            if let Err(error) = self.keep(operation, &vg) {
                tracing::warn!(%error, vg, "what was changed last may be lost in a power cut");
            }
        }
    }

    fn keep(&self, operation: &str, vg: &str) -> Result<(), HostError> {
        let mut nodes = self.commits.of(vg);
        // LVM has not written to these.
        let hidden = self.sight.hidden().clone();
        nodes.retain(|node| !hidden.contains(node));
        flush(operation, nodes)?;
        self.commits.kept(vg);
        Ok(())
    }
}

/// Has disks write out what they were given, all at once. Fails if none could.
pub(in crate::linux) fn flush(operation: &str, nodes: impl IntoIterator<Item = PathBuf>) -> Result<(), HostError> {
    let begun = Instant::now();
    let (sender, flushed) = mpsc::channel();
    let mut waiting = BTreeSet::new();
    for node in nodes {
        waiting.insert(node.clone());
        let sender = sender.clone();
        // By itself: one that hangs in the kernel comes back only when its disk does.
        thread::spawn(move || sender.send((flush_one(&node), node)));
    }
    drop(sender);
    let (mut kept, mut failure) = (waiting.is_empty(), None);
    while !waiting.is_empty() {
        match flushed.recv_timeout(LIMIT.saturating_sub(begun.elapsed())) {
            Ok((Ok(()), node)) => {
                waiting.remove(&node);
                kept = true;
            }
            Ok((Err(source), node)) => {
                waiting.remove(&node);
                let error = file::io(&format!("{operation}: write it out"), &node, source);
                tracing::warn!(%error, "a disk has not written out what it was given");
                failure = Some(error);
            }
            Err(_) => {
                tracing::warn!(
                    ?waiting,
                    "disks have not written out what they were given, and are not waited for"
                );
                failure = failure.or(Some(HostError::TimedOut {
                    operation: format!("{operation}: write it out"),
                    limit: LIMIT,
                }));
                break;
            }
        }
    }
    tracing::debug!(ms = begun.elapsed().as_millis() as u64, "written out: {operation}");
    match failure {
        Some(error) if !kept => Err(error),
        Some(_) | None => Ok(()),
    }
}

/// Of a block device that is a flush of its cache, passed down through the layers between.
fn flush_one(node: &Path) -> io::Result<()> {
    File::open(node)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::HostErrorKind;

    fn pv(vg: Option<&str>, node: &str) -> PhysicalVolume {
        PhysicalVolume {
            uuid: node.to_owned(),
            node: Some(node.into()),
            returned: None,
            vg: vg.map(str::to_owned),
            size: cistern_model::Bytes::gib(1),
            free: cistern_model::Bytes::ZERO,
        }
    }

    #[test]
    fn one_disk_that_has_written_it_out_suffices_and_none_does_not() {
        let there = tempfile::NamedTempFile::new().unwrap();
        let (there, gone) = (there.path().to_owned(), PathBuf::from("/nonexistent/disk"));
        flush("test", [there.clone(), gone.clone()]).unwrap();
        flush("test", [there]).unwrap();
        flush("test", []).unwrap();
        let error = flush("test", [gone]).unwrap_err();
        assert!(error.to_string().contains("write it out: /nonexistent/disk"), "{error}");
        assert_ne!(error.kind(), HostErrorKind::TimedOut);
    }

    #[test]
    fn a_group_s_disks_are_those_of_the_last_report_and_those_that_joined() {
        let commits = Commits::default();
        assert!(
            commits
                .learn(&[
                    pv(Some("p"), "/a"),
                    pv(Some("p"), "/b"),
                    pv(Some("q"), "/c"),
                    pv(None, "/d")
                ])
                .is_empty()
        );
        commits.joined("p", &["/e".into()]);
        assert_eq!(commits.of("p"), ["/a", "/b", "/e"].map(PathBuf::from).into());
        commits.learn(&[pv(Some("p"), "/a")]);
        assert_eq!(commits.of("p"), ["/a"].map(PathBuf::from).into());
        assert!(commits.of("q").is_empty());
    }

    #[test]
    fn a_change_whose_outcome_is_unknown_owes_a_flush_until_it_is_done() {
        let directory = tempfile::tempdir().unwrap();
        let node = directory.path().join("disk");
        let lvm = LinuxLvm::default();
        lvm.commits.joined("p", std::slice::from_ref(&node));
        let failed = || -> Result<(), HostError> {
            Err(HostError::TimedOut {
                operation: String::new(),
                limit: LIMIT,
            })
        };
        assert!(lvm.commit("test", "p", failed).is_err());
        let owing = || lvm.commits.locked().owing.contains("p");
        lvm.learn("test", &[]);
        assert!(owing() && lvm.commits.of("p").contains(&node));
        std::fs::write(&node, "").unwrap();
        lvm.learn("test", &[]);
        assert!(!owing());
        lvm.learn("test", &[]);
        assert!(lvm.commits.of("p").is_empty());
    }
}
