//! What the pools of this appliance export, kept beside them: while none of a pool's disks is here, or its key is not, its clients wait
//! for it as those of a pool do that lacks a disk, and are not told that there is no such thing.
//!
//! Invariant: what is kept here opens nothing. Nothing is mounted there, and before anything is, what stands in the pool itself has taken
//! its place.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use cistern_host::{ExportEntry, ExportUsers};
use cistern_model::{Client, PoolId, Squash};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::EngineError;
use crate::engine::Engine;
use crate::error::Doing as _;
use crate::kept::{Kept, Record};
use crate::tags::Stage;

/// What pools export, and whether some of it stands in for a pool.
#[derive(Debug, Default)]
pub(crate) struct ExportsHad {
    kept: Kept<ByPool>,
    stand_in: AtomicBool,
    /// Whether what a supervisor before this one left was looked at.
    looked: AtomicBool,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
struct ByPool(BTreeMap<PoolId, Vec<Had>>);

impl Record for ByPool {
    const NAME: &str = "exports.json";
    const WITHOUT: &str = "the clients of a pool none of whose disks is here may be told that there is no such volume";
}

/// One export.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Had {
    path: PathBuf,
    fsid: Uuid,
    clients: Vec<Client>,
    squash: Squash,
    anonymous_uid: u32,
    anonymous_gid: u32,
}

impl From<ExportEntry> for Had {
    fn from(entry: ExportEntry) -> Self {
        Had {
            path: entry.path,
            fsid: entry.fsid,
            clients: entry.clients,
            squash: entry.users.squash,
            anonymous_uid: entry.users.anonymous_uid,
            anonymous_gid: entry.users.anonymous_gid,
        }
    }
}

impl From<Had> for ExportEntry {
    fn from(had: Had) -> Self {
        ExportEntry {
            path: had.path,
            fsid: had.fsid,
            clients: had.clients,
            users: ExportUsers {
                squash: had.squash,
                anonymous_uid: had.anonymous_uid,
                anonymous_gid: had.anonymous_gid,
            },
        }
    }
}

impl Engine {
    /// Notes what is exported, if it has changed. What changed just before the power went may lack: its clients are told no then.
    pub(crate) fn note_exports(&self) {
        let now: BTreeMap<PoolId, Vec<Had>> = {
            let view = self.view();
            let ready = view.pools.values().filter(|pool| pool.tags.state == Stage::Ready);
            let had = |entries: Vec<ExportEntry>| entries.into_iter().map(Had::from).collect();
            ready.map(|pool| (pool.id, had(self.exports_of(pool)))).collect()
        };
        let away = match self.pools_away() {
            Ok(away) => away,
            Err(error) => return self.note_keeping(&Err(error)),
        };
        let kept = self.change_kept(&self.0.exports_had.kept, |ByPool(all)| {
            all.retain(|id, _| away.contains(id));
            all.extend(now);
        });
        self.note_keeping(&kept);
    }

    /// What the pools that are away exported when they were here, to be exported now.
    pub(crate) fn exports_of_pools_away(&self) -> Vec<ExportEntry> {
        let entries = self.exports_kept_of_pools_away();
        self.0.exports_had.stand_in.store(!entries.is_empty(), Ordering::SeqCst);
        entries
    }

    /// What the pools that are away exported when they were here. Nothing, where that cannot be read: it is told, and keeps nothing else
    /// from being served.
    pub(crate) fn exports_kept_of_pools_away(&self) -> Vec<ExportEntry> {
        let read = self.pools_away().and_then(|away| {
            if away.is_empty() {
                return Ok(Vec::new());
            }
            let ByPool(all) = self.kept(&self.0.exports_had.kept)?;
            let of_those = all.into_iter().filter(|(id, _)| away.contains(id));
            Ok(of_those.flat_map(|(_, had)| had).map(ExportEntry::from).collect())
        });
        read.unwrap_or_else(|error| {
            self.note_keeping(&Err(error));
            Vec::new()
        })
    }

    /// Makes the exports what the pools say that have come, before anything of theirs is mounted. What stands in for one may have been left
    /// by a supervisor that ended before it came.
    pub(crate) fn publish_what_has_come(&self) -> Result<(), EngineError> {
        let had = &self.0.exports_had;
        let left = || self.0.host.exports.current().doing(|| "list the exports".to_owned());
        if had.stand_in.load(Ordering::SeqCst) || !had.looked.load(Ordering::SeqCst) && !left()?.is_empty() {
            self.publish()?;
        }
        had.looked.store(true, Ordering::SeqCst);
        Ok(())
    }
}
