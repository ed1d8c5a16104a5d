//! Snapshots: made by hand, listed, deleted, served. Here a request is judged; the steps are in `snapshot_steps`.
//!
//! Invariant: a snapshot's name is unique among its volume's. One of a single volume is made in one commit, whole; those
//! of a group are all there or none is: each is `creating` until the last is made, and one that is `ready` says that all
//! were. Whose it is goes by its volume, for as long as there is that.

use std::collections::BTreeSet;

use cistern_host::ThinSize;
use cistern_model::{
    Client, EventKind, GroupSnapshotRequest, MOST_IN_GROUP, Page, Period, PoolId, Principal, Severity, Snapshot,
    SnapshotId, SnapshotName, SnapshotRequest, VolumeId, refuse_hidden,
};
use jiff::Timestamp;
use uuid::Uuid;

use crate::EngineError;
use crate::clients::{refuse_clients, refuse_unsettled};
use crate::engine::Engine;
use crate::error::Doing as _;
use crate::names::Held;
use crate::pools::{power_lost, refuse_incomplete, refuse_missing, refuse_unready};
use crate::tags::{self, SnapshotTags, Stage};
use crate::view::{DATA, PoolView, SnapshotView, VolumeView};
use crate::volumes::{Created, LIMIT, bare, not_the_callers};

/// Which snapshots to list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SnapshotFilter {
    /// Those in this pool, by name or id.
    pub pool: Option<String>,
    /// Those of this volume, which may be gone.
    pub volume: Option<VolumeId>,
    /// Those of this name.
    pub name: Option<SnapshotName>,
}

/// A volume of which a snapshot is made, with its pool.
type Member = (PoolView, VolumeId, VolumeView);

impl Engine {
    /// Makes a snapshot of a volume, or gives the one of this name.
    pub fn create_snapshot(
        &self,
        by: &Principal,
        volume: VolumeId,
        request: &SnapshotRequest,
    ) -> Result<Created<Snapshot>, EngineError> {
        let _operation = self.0.operations.begin(LIMIT);
        let (_name, pool, view) = self.hold_volume(by, volume)?;
        if let Some((id, there)) = self.snapshot_named(pool.id, volume, &request.name) {
            return match there.tags.state {
                Stage::Ready => Ok(Created {
                    object: self.snapshot_model(id, None)?,
                    created: false,
                }),
                Stage::Creating | Stage::Deleting | Stage::RollingBack | Stage::Trash => Err(unsettled(id, &there)),
            };
        }
        refuse_hidden("snapshot name", request.name.as_str())?;
        refuse_unsettled(volume, &view)?;
        let id = self.take_snapshot(&pool, volume, &view, &request.name, BTreeSet::new())?;
        let message = format!("snapshot {} of volume {} was made", request.name, view.tags.name);
        self.record(
            EventKind::SnapshotCreated,
            Severity::Info,
            Some(id.to_string()),
            Some(by),
            message,
        );
        Ok(Created {
            object: self.snapshot_model(id, None)?,
            created: true,
        })
    }

    /// Makes a snapshot of a volume whose name is held.
    pub(crate) fn take_snapshot(
        &self,
        pool: &PoolView,
        volume: VolumeId,
        view: &VolumeView,
        name: &SnapshotName,
        scheduled: BTreeSet<Period>,
    ) -> Result<SnapshotId, EngineError> {
        refuse_unready(pool)?;
        self.refuse_full_for_snapshot(pool.id)?;
        let id = SnapshotId::from_uuid(Uuid::new_v4());
        let tags = SnapshotTags {
            scheduled,
            ..self.snapshot_tags(volume, view, name)
        };
        self.copy_to_snapshot(pool.id, volume, id, tags)?;
        Ok(id)
    }

    pub(crate) fn snapshot_tags(&self, volume: VolumeId, view: &VolumeView, name: &SnapshotName) -> SnapshotTags {
        SnapshotTags {
            name: name.clone(),
            state: Stage::Ready,
            volume,
            volume_name: view.tags.name.clone(),
            size: view.tags.size,
            owner: view.tags.owner.clone(),
            created: tags::moment(self.0.host.machine.now()),
            scheduled: BTreeSet::new(),
            group: None,
            clients: BTreeSet::new(),
        }
    }

    /// Makes snapshots of several volumes at one moment, or gives those of this name.
    pub fn create_group_snapshot(
        &self,
        by: &Principal,
        request: &GroupSnapshotRequest,
    ) -> Result<Created<Vec<Snapshot>>, EngineError> {
        let _operation = self.0.operations.begin(LIMIT);
        let ids: BTreeSet<VolumeId> = request.volumes.iter().copied().collect();
        if ids.is_empty() || ids.len() > MOST_IN_GROUP || ids.len() != request.volumes.len() {
            return Err(EngineError::Invalid(format!(
                "name each volume once, and 1 to {MOST_IN_GROUP} of them"
            )));
        }
        let (_names, volumes) = self.hold_volumes(by, &ids)?;
        let found: Vec<_> = volumes
            .iter()
            .filter_map(|(pool, id, _)| self.snapshot_named(pool.id, *id, &request.name))
            .collect();
        if let Some((_, first)) = found.first() {
            let group = first.tags.group;
            let of_group = group.is_some() && found.iter().all(|(_, s)| s.tags.group == group);
            let members = group.map_or(0, |group| self.group(group).len());
            match group.filter(|_| of_group && members == found.len()) {
                Some(group) if found.len() == volumes.len() => {
                    // What made them may have been cut short after the last.
                    self.finish_group(group)?;
                    let object = self.models(found.iter().map(|(id, _)| *id))?;
                    return Ok(Created { object, created: false });
                }
                // Some of a request that failed, and that could not be undone then.
                Some(group) if found.iter().all(|(_, s)| s.tags.state == Stage::Creating) => self.undo_group(group)?,
                _ => {
                    return Err(EngineError::NameTaken(format!(
                        "a snapshot {} of one of these volumes was made otherwise; choose another name",
                        request.name
                    )));
                }
            }
        }
        refuse_hidden("snapshot name", request.name.as_str())?;
        for (pool, id, volume) in &volumes {
            refuse_unsettled(*id, volume)?;
            refuse_unready(pool)?;
            self.refuse_full_for_snapshot(pool.id)?;
            if let Some(why) = &volume.trouble {
                return Err(EngineError::Unavailable(format!(
                    "volume {} is not served: {why}",
                    volume.tags.name
                )));
            }
        }
        let made = self.take_group(&volumes, &request.name)?;
        let message = format!(
            "snapshots {} of {} volumes were made at one moment",
            request.name,
            made.len()
        );
        self.record(EventKind::SnapshotCreated, Severity::Info, None, Some(by), message);
        let object = self.models(made.into_iter())?;
        Ok(Created { object, created: true })
    }

    fn models(&self, ids: impl Iterator<Item = SnapshotId>) -> Result<Vec<Snapshot>, EngineError> {
        ids.map(|id| self.snapshot_model(id, None)).collect()
    }

    /// Several volumes, while nobody else works on any. Their names are held in one order, whoever asks.
    pub(crate) fn hold_volumes(
        &self,
        by: &Principal,
        ids: &BTreeSet<VolumeId>,
    ) -> Result<(Vec<Held<'_>>, Vec<Member>), EngineError> {
        let seen = || -> Result<Vec<(PoolView, VolumeId, VolumeView)>, EngineError> {
            ids.iter()
                .map(|id| self.visible_volume(by, *id).map(|(pool, volume)| (pool, *id, volume)))
                .collect()
        };
        let names = |volumes: &[(PoolView, VolumeId, VolumeView)]| -> BTreeSet<String> {
            let lock = |(pool, _, volume): &(PoolView, VolumeId, VolumeView)| {
                crate::volumes::volume_lock(pool.id, &volume.tags.name)
            };
            volumes.iter().map(lock).collect()
        };
        loop {
            let wanted = names(&seen()?);
            let held = wanted
                .iter()
                .map(|name| self.0.names.hold(name.clone()))
                .collect::<Result<Vec<_>, _>>()?;
            let volumes = seen()?;
            if names(&volumes) == wanted {
                return Ok((held, volumes));
            }
        }
    }

    /// Snapshots that the caller may see, by id, those after `after`; with `sizes`, what of their pools they take, which
    /// is counted for each pool as a whole.
    pub fn snapshots(
        &self,
        by: &Principal,
        filter: &SnapshotFilter,
        sizes: bool,
        limit: usize,
        after: Option<SnapshotId>,
    ) -> Result<Page<Snapshot>, EngineError> {
        let _operation = self.0.operations.begin(LIMIT);
        self.refuse_to_list(by, filter.pool.as_deref())?;
        let mut found: Vec<SnapshotId> = {
            let view = self.view();
            let in_filter = |pool: &&PoolView| {
                let named = |text: &String| pool.tags.name.as_str() == text || pool.id.to_string() == *text;
                filter.pool.as_ref().is_none_or(named) && by.may_use_pool(&pool.tags.name)
            };
            let pools = view.pools.values().filter(in_filter);
            let all = pools.flat_map(|pool| pool.snapshots.iter().map(move |(id, snapshot)| (pool, id, snapshot)));
            let wanted = all.filter(|(pool, id, snapshot)| {
                after.is_none_or(|after| **id > after)
                    && by.may_touch(pool.owner_of(snapshot))
                    && filter.volume.is_none_or(|volume| snapshot.tags.volume == volume)
                    && filter.name.as_ref().is_none_or(|name| snapshot.tags.name == *name)
            });
            wanted.map(|(_, id, _)| *id).collect()
        };
        if let (true, None, Some(name), None) = (found.is_empty(), after, &filter.name, &filter.pool) {
            self.refuse_as_none("snapshot", by, name.as_str())?;
        }
        found.sort();
        let more = found.len() > limit;
        found.truncate(limit);
        let items = self.with_sizes(&found, sizes)?;
        let next = items.last().filter(|_| more).map(|snapshot| snapshot.id.to_string());
        Ok(Page { items, next })
    }

    /// A snapshot; with `sizes`, what of its pool it takes.
    pub fn snapshot(&self, by: &Principal, id: SnapshotId, sizes: bool) -> Result<Snapshot, EngineError> {
        let _operation = self.0.operations.begin(LIMIT);
        self.visible_snapshot(by, id)?;
        self.with_sizes(&[id], sizes)?.pop().ok_or_else(|| no_snapshot(id))
    }

    fn with_sizes(&self, ids: &[SnapshotId], sizes: bool) -> Result<Vec<Snapshot>, EngineError> {
        let mut counted: std::collections::BTreeMap<PoolId, std::collections::BTreeMap<String, ThinSize>> =
            std::collections::BTreeMap::new();
        let mut items = Vec::new();
        for id in ids {
            // It may have gone meanwhile.
            let Ok((pool, _)) = self.visible_snapshot(&Principal::local(), *id) else {
                continue;
            };
            if sizes && pool.active && !counted.contains_key(&pool.id) {
                let of_pool = self.0.host.lvm.thin_sizes(&pool.vg(), DATA);
                let of_pool = of_pool.doing(|| format!("count what the snapshots of pool {} take", pool.tags.name))?;
                counted.insert(pool.id, of_pool);
            }
            let size = counted.get(&pool.id).and_then(|of_pool| of_pool.get(&id.to_string()));
            items.extend(self.snapshot_model(*id, size.copied()).ok());
        }
        Ok(items)
    }

    /// Deletes a snapshot, whoever has it mounted.
    pub fn delete_snapshot(&self, by: &Principal, id: SnapshotId) -> Result<(), EngineError> {
        let _operation = self.0.operations.begin(LIMIT);
        self.visible_snapshot(by, id)?;
        let _name = self.0.names.hold(snapshot_lock(id))?;
        let (pool, snapshot) = self.visible_snapshot(by, id)?;
        refuse_missing(&pool)?;
        self.drop_snapshot(&pool, id, &snapshot)?;
        let message = format!(
            "snapshot {} of volume {} was deleted",
            snapshot.tags.name, snapshot.tags.volume_name
        );
        self.record(
            EventKind::SnapshotDeleted,
            Severity::Info,
            Some(id.to_string()),
            Some(by),
            message,
        );
        Ok(())
    }

    /// Serves a snapshot, read-only, to these clients and no others; to nobody if there are none.
    pub fn serve_snapshot(&self, by: &Principal, id: SnapshotId, clients: &[Client]) -> Result<Snapshot, EngineError> {
        let _operation = self.0.operations.begin(LIMIT);
        self.visible_snapshot(by, id)?;
        let _name = self.0.names.hold(snapshot_lock(id))?;
        let (pool, snapshot) = self.visible_snapshot(by, id)?;
        if snapshot.tags.state != Stage::Ready {
            return Err(unsettled(id, &snapshot));
        }
        refuse_clients(clients)?;
        let clients: BTreeSet<Client> = clients.iter().copied().collect();
        if snapshot.tags.clients != clients {
            // As with a volume's clients: LVM changes the tags of what it can activate, also in a group that lacks a disk.
            refuse_incomplete(&pool)?;
            self.retag_snapshot(pool.id, id, |tags| tags.clients.clone_from(&clients))?;
            let whom = match clients.len() {
                0 => "nobody may mount".to_owned(),
                count => format!("{count} client(s) may mount"),
            };
            let message = format!(
                "{whom} snapshot {} of volume {}",
                snapshot.tags.name, snapshot.tags.volume_name
            );
            self.record(
                EventKind::SnapshotChanged,
                Severity::Info,
                Some(id.to_string()),
                Some(by),
                message,
            );
        }
        self.show_snapshot(pool.id, id)?;
        self.snapshot_model(id, None)
    }

    /// A snapshot that the caller may see, and its pool.
    pub(crate) fn visible_snapshot(
        &self,
        by: &Principal,
        id: SnapshotId,
    ) -> Result<(PoolView, SnapshotView), EngineError> {
        let found = self.view().snapshot(id).map(|(pool, snapshot)| {
            let may = by.may_use_pool(&pool.tags.name) && by.may_touch(pool.owner_of(snapshot));
            (bare(pool), snapshot.clone(), may)
        });
        let (pool, snapshot, may) = found.ok_or_else(|| self.absent(by, no_snapshot(id)))?;
        match may {
            true => Ok((pool, snapshot)),
            false => Err(not_the_callers(by, "snapshot", &id.to_string())),
        }
    }

    pub(crate) fn snapshot_named(
        &self,
        pool: PoolId,
        volume: VolumeId,
        name: &SnapshotName,
    ) -> Option<(SnapshotId, SnapshotView)> {
        let view = self.view();
        let snapshots = view.pools.get(&pool).map(|pool| &pool.snapshots);
        let mut snapshots = snapshots.into_iter().flatten();
        snapshots
            .find(|(_, s)| s.tags.volume == volume && s.tags.name == *name)
            .map(|(id, s)| (*id, s.clone()))
    }

    /// The snapshots that were made together.
    pub(crate) fn group(&self, group: Uuid) -> Vec<(PoolId, SnapshotId, SnapshotView)> {
        let view = self.view();
        let mut members = Vec::new();
        for pool in view.pools.values() {
            let of_group = pool.snapshots.iter().filter(|(_, s)| s.tags.group == Some(group));
            members.extend(of_group.map(|(id, s)| (pool.id, *id, s.clone())));
        }
        members
    }

    pub(crate) fn snapshot_model(&self, id: SnapshotId, size: Option<ThinSize>) -> Result<Snapshot, EngineError> {
        let view = self.view();
        let (pool, snapshot) = view.snapshot(id).ok_or_else(|| no_snapshot(id))?;
        Ok(snapshot.to_model(id, pool, size))
    }

    /// Deletes the oldest snapshot of a pool that a schedule made, to give its space back; none if there is none. For
    /// when the pool runs short; announced by an event.
    pub fn shed_scheduled_snapshot(&self, pool: PoolId, why: &str) -> Result<Option<Snapshot>, EngineError> {
        let _operation = self.0.operations.begin(LIMIT);
        let mut candidates: Vec<(Timestamp, SnapshotId)> = {
            let view = self.view();
            let snapshots = view.pools.get(&pool).map(|pool| &pool.snapshots);
            let scheduled = snapshots.into_iter().flatten().filter(|(_, s)| s.can_be_shed());
            scheduled.map(|(id, s)| (s.tags.created, *id)).collect()
        };
        candidates.sort();
        for (_, id) in candidates {
            let Some(_name) = self.0.names.try_hold(snapshot_lock(id)) else {
                continue;
            };
            let Ok((view, snapshot)) = self.visible_snapshot(&Principal::local(), id) else {
                continue;
            };
            // Those before it took their time: it may be served since.
            if !snapshot.can_be_shed() {
                continue;
            }
            let model = self.snapshot_model(id, None)?;
            match self.drop_snapshot(&view, id, &snapshot) {
                Ok(()) => {}
                Err(error) if power_lost(&error) => return Err(error),
                // It is being rolled back to, or cannot be removed: the next oldest.
                Err(error) => {
                    tracing::warn!(%error, snapshot = %id, "it could not be shed");
                    continue;
                }
            }
            let message = format!(
                "snapshot {} of volume {} was deleted early to make room in pool {}: {why}",
                snapshot.tags.name, snapshot.tags.volume_name, view.tags.name
            );
            self.record(
                EventKind::SnapshotDeleted,
                Severity::Warning,
                Some(id.to_string()),
                None,
                message,
            );
            return Ok(Some(model));
        }
        Ok(None)
    }
}

/// The lock's name for a snapshot.
pub(crate) fn snapshot_lock(id: SnapshotId) -> String {
    format!("snapshot {id}")
}

pub(crate) fn no_snapshot(id: SnapshotId) -> EngineError {
    EngineError::NotFound {
        what: "snapshot",
        name: id.to_string(),
    }
}

pub(crate) fn unsettled(id: SnapshotId, snapshot: &SnapshotView) -> EngineError {
    EngineError::Conflict(format!(
        "snapshot {} ({id}) is being {}; ask again when that is done",
        snapshot.tags.name,
        if snapshot.tags.state == Stage::Creating {
            "made"
        } else {
            "deleted"
        }
    ))
}
