//! The steps by which snapshots are made, shown to clients, and taken away. Invariant: each can be repeated; no
//! filesystem stays frozen, whatever happens; a snapshot whose tags say that it is being made or deleted is finished or
//! taken away by reconcile.

use std::collections::{BTreeSet, HashSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use cistern_host::{Activation, Filesystems};
use cistern_model::{EventKind, Owner, PoolId, PoolState, Severity, SnapshotId, SnapshotName, VolumeId};
use uuid::Uuid;

use crate::EngineError;
use crate::engine::Engine;
use crate::error::Doing as _;
use crate::pools::power_lost;
use crate::snapshots::{no_snapshot, snapshot_lock};
use crate::tags::{Rollback, SnapshotTags, Stage};
use crate::view::{PoolView, SnapshotView, VolumeView};
use crate::volumes::LIMIT;

/// Filesystems that are frozen until this is dropped.
struct Frozen<'a> {
    filesystems: &'a dyn Filesystems,
    paths: Vec<PathBuf>,
}

impl Frozen<'_> {
    fn freeze(&mut self, path: &Path) -> Result<(), EngineError> {
        // Noted first: whether one that failed took effect is not known, and thawing one that is not frozen is no error.
        self.paths.push(path.to_owned());
        let frozen = self.filesystems.freeze(path);
        frozen.doing(|| format!("hold the writes to {} back", path.display()))
    }
}

impl Drop for Frozen<'_> {
    fn drop(&mut self) {
        for path in self.paths.iter().rev() {
            // A second try: nothing may stay frozen because of one failure.
            if let Err(error) = self.filesystems.thaw(path).or_else(|_| self.filesystems.thaw(path)) {
                tracing::error!(%error, path = %path.display(), "a filesystem could not be thawed");
            }
        }
    }
}

impl Engine {
    /// Makes a snapshot's LV, whole, with its tags.
    pub(crate) fn copy_to_snapshot(
        &self,
        pool: PoolId,
        volume: VolumeId,
        id: SnapshotId,
        tags: SnapshotTags,
    ) -> Result<(), EngineError> {
        let (vg, origin, lv) = (pool.to_string(), volume.to_string(), id.to_string());
        let written = tags.write();
        let device = self
            .view()
            .volume(volume)
            .map_or(tags.size, |(_, volume)| volume.device);
        self.change_lvm(
            pool,
            || format!("make a snapshot of volume {volume}"),
            || self.0.host.lvm.create_thin_snapshot(&vg, &origin, &lv, &written, false),
            |view| {
                let known = SnapshotView {
                    tags,
                    device,
                    active: false,
                    trouble: None,
                };
                view.pools.get_mut(&pool).map(|pool| pool.snapshots.insert(id, known));
            },
        )
    }

    /// Makes snapshots of volumes at one moment; if one fails, none is left.
    pub(crate) fn take_group(
        &self,
        volumes: &[(PoolView, VolumeId, VolumeView)],
        name: &SnapshotName,
    ) -> Result<Vec<SnapshotId>, EngineError> {
        let group = Uuid::new_v4();
        let outcome = self.copy_group(volumes, name, group);
        if let Err(error) = &outcome
            && !power_lost(error)
        {
            if matches!(error, EngineError::Host { .. }) {
                self.look_after_failure();
            }
            // Asking again does it otherwise, and a look at all.
            let _ = self.undo_group(group);
        }
        let made = outcome?;
        self.finish_group(group)?;
        Ok(made)
    }

    /// Removes what there is of a group that was begun. What cannot be removed is left to a look at all.
    ///
    /// # Errors
    /// The last of those that removing one gave.
    pub(crate) fn undo_group(&self, group: Uuid) -> Result<(), EngineError> {
        let mut outcome = Ok(());
        for (pool, id, _) in self.group(group) {
            if let Err(undo) = self.remove_snapshot(pool, id) {
                tracing::warn!(%undo, snapshot = %id, "what was begun could not be undone");
                self.0.failures.owed.store(true, Ordering::SeqCst);
                outcome = Err(undo);
            }
        }
        outcome
    }

    fn copy_group(
        &self,
        volumes: &[(PoolView, VolumeId, VolumeView)],
        name: &SnapshotName,
        group: Uuid,
    ) -> Result<Vec<SnapshotId>, EngineError> {
        // Whoever writes waits for all of them: nothing is to come between two, and least of all what takes long.
        let _turn = self.0.lvm.turn(volumes.iter().map(|(pool, ..)| pool.id).collect())?;
        let mut frozen = Frozen {
            filesystems: &*self.0.host.filesystems,
            paths: Vec::new(),
        };
        for (_, id, _) in volumes {
            frozen.freeze(&self.path_of(*id))?;
        }
        let mut made = Vec::new();
        for (pool, volume, view) in volumes {
            let id = SnapshotId::from_uuid(Uuid::new_v4());
            let tags = SnapshotTags {
                state: Stage::Creating,
                group: Some(group),
                ..self.snapshot_tags(*volume, view, name)
            };
            self.copy_to_snapshot(pool.id, *volume, id, tags)?;
            made.push(id);
        }
        Ok(made)
    }

    /// Notes of all snapshots of a group, of which none is missing, that they are ready.
    pub(crate) fn finish_group(&self, group: Uuid) -> Result<(), EngineError> {
        for (pool, id, snapshot) in self.group(group) {
            if snapshot.tags.state == Stage::Creating {
                self.retag_snapshot(pool, id, |tags| tags.state = Stage::Ready)?;
            }
        }
        Ok(())
    }

    /// Changes this of a snapshot's tags and nothing else, whatever else is being done to it meanwhile.
    pub(crate) fn retag_snapshot(
        &self,
        pool: PoolId,
        id: SnapshotId,
        change: impl Fn(&mut SnapshotTags),
    ) -> Result<(), EngineError> {
        let now = self.view().snapshot(id).map(|(_, snapshot)| snapshot.tags.clone());
        let differs = now.map(|now| {
            let mut new = now.clone();
            change(&mut new);
            now.change_to(&new)
        });
        let differs = differs.unwrap_or_default();
        self.change_lvm(
            pool,
            || format!("note the change of snapshot {id}"),
            || self.0.host.lvm.tag_lv(&pool.to_string(), &id.to_string(), &differs),
            |view| {
                if let Some(snapshot) = view.snapshot_mut(id) {
                    change(&mut snapshot.tags);
                }
            },
        )
    }

    /// Notes on a volume's snapshots whose they are, before it goes for good: until then its own tag says that, and it may have been
    /// given away since they were made.
    pub(crate) fn note_whose_snapshots(&self, pool: PoolId, volume: VolumeId) -> Result<(), EngineError> {
        let stale: Vec<(SnapshotId, Owner)> = {
            let view = self.view();
            let Some(pool) = view.pools.get(&pool) else {
                return Ok(());
            };
            let of_volume = pool.snapshots.iter().filter(|(_, s)| s.tags.volume == volume);
            let stale = of_volume.filter(|(_, s)| s.tags.owner != *pool.owner_of(s));
            stale.map(|(id, s)| (*id, pool.owner_of(s).clone())).collect()
        };
        for (id, owner) in stale {
            let _operation = self.0.operations.begin(LIMIT);
            match self.retag_snapshot(pool, id, |tags| tags.owner.clone_from(&owner)) {
                // It was deleted meanwhile.
                Err(_) if self.view().snapshot(id).is_none() => {}
                noted => noted?,
            }
        }
        Ok(())
    }

    /// Takes a snapshot away for good. Its lock is held.
    pub(crate) fn drop_snapshot(
        &self,
        pool: &PoolView,
        id: SnapshotId,
        snapshot: &SnapshotView,
    ) -> Result<(), EngineError> {
        let wanted = {
            let view = self.view();
            let mut volumes = view.pools.values().flat_map(|pool| pool.volumes.values());
            volumes
                .any(|volume| matches!(&volume.tags.rollback, Some(Rollback::To { snapshot, .. }) if *snapshot == id))
        };
        if wanted {
            return Err(EngineError::Conflict(format!(
                "its volume is being rolled back to snapshot {}; ask again when that is done",
                snapshot.tags.name
            )));
        }
        // One that nobody can have open goes in one commit; else what was begun must be known.
        if snapshot.active && snapshot.tags.state != Stage::Deleting {
            self.retag_snapshot(pool.id, id, |tags| tags.state = Stage::Deleting)?;
        }
        self.remove_snapshot(pool.id, id)
    }

    /// Withdraws a snapshot from its clients and removes it.
    pub(crate) fn remove_snapshot(&self, pool: PoolId, id: SnapshotId) -> Result<(), EngineError> {
        let active = self.view().snapshot(id).is_some_and(|(_, snapshot)| snapshot.active);
        if active {
            self.change_view(|view| {
                if let Some(snapshot) = view.snapshot_mut(id) {
                    snapshot.tags.clients = BTreeSet::new();
                }
            });
            self.publish()?;
            self.let_go(&self.snapshot_path(id))?;
        }
        let removed = self.change_lvm(
            pool,
            || format!("remove snapshot {id}"),
            || self.0.host.lvm.remove_lv(&pool.to_string(), &id.to_string()),
            |view| {
                view.pools.get_mut(&pool).map(|pool| pool.snapshots.remove(&id));
            },
        );
        match removed {
            // The error was in the telling: it is gone.
            Err(_) if self.view().snapshot(id).is_none() => Ok(()),
            other => other,
        }
    }

    /// Makes a snapshot's mount and export as its tags say.
    pub(crate) fn show_snapshot(&self, pool: PoolId, id: SnapshotId) -> Result<(), EngineError> {
        let (vg, lv, path) = (pool.to_string(), id.to_string(), self.snapshot_path(id));
        let lvm = &self.0.host.lvm;
        let snapshot = self.view().snapshot(id).map(|(_, snapshot)| snapshot.clone());
        let snapshot = snapshot.ok_or_else(|| no_snapshot(id))?;
        let doing = |what: &str| format!("{what} of snapshot {} ({id})", snapshot.tags.name);
        if snapshot.tags.clients.is_empty() {
            self.publish()?;
            if snapshot.active || self.mounted(&path)? {
                self.let_go(&path)?;
                self.change_lvm(
                    pool,
                    || doing("deactivate the device"),
                    || lvm.deactivate_lv(&vg, &lv),
                    |view| {
                        if let Some(snapshot) = view.snapshot_mut(id) {
                            snapshot.active = false;
                        }
                    },
                )?;
            }
            return Ok(());
        }
        if !self.mounted(&path)? {
            if !snapshot.active {
                self.change_lvm(
                    pool,
                    || doing("activate the device"),
                    || lvm.activate_lv(&vg, &lv, self.activation(pool)),
                    |view| {
                        if let Some(snapshot) = view.snapshot_mut(id) {
                            snapshot.active = true;
                        }
                    },
                )?;
            }
            let mounted = self.0.host.filesystems.mount_read_only(&lvm.node(&vg, &lv), &path);
            mounted.doing(|| doing("mount the filesystem"))?;
        }
        self.publish()
    }

    /// How a volume of an active pool is activated: the pool's own data were counted when it was.
    pub(crate) fn activation(&self, pool: PoolId) -> Activation {
        match self.view().pools.get(&pool).map(|pool| pool.missing) {
            Some(0) | None => Activation::Complete,
            Some(_) => Activation::Partial,
        }
    }

    pub(crate) fn snapshot_path(&self, id: SnapshotId) -> PathBuf {
        self.0.config.volumes_dir.join(id.to_string())
    }

    pub(crate) fn mounted(&self, path: &Path) -> Result<bool, EngineError> {
        let mounts = self.0.host.filesystems.mounts_below(&self.0.config.volumes_dir);
        let mounts = mounts.doing(|| "list the mounts".to_owned())?;
        Ok(mounts.iter().any(|mount| mount.target == path))
    }

    /// Nothing that was frozen when the supervisor broke off stays so.
    pub(crate) fn thaw_all(&self) -> Result<(), EngineError> {
        let mounts = self.0.host.filesystems.mounts_below(&self.0.config.volumes_dir);
        for mount in mounts.doing(|| "list the mounts".to_owned())? {
            let thawed = self.0.host.filesystems.thaw(&mount.target);
            match thawed.doing(|| format!("let the writes to {} go on", mount.target.display())) {
                Ok(()) => {}
                Err(error) if power_lost(&error) => return Err(error),
                Err(error) => tracing::error!(error = error.problem().detail, "it may stay frozen"),
            }
        }
        Ok(())
    }

    /// Mounts the snapshots that are to be served. Fails only if the machine is gone.
    pub(crate) fn serve_snapshots(&self, mounted: &HashSet<PathBuf>) -> Result<(), EngineError> {
        for (pool, id, snapshot) in self.snapshots_in(|state| state == Stage::Ready) {
            let shown = mounted.contains(&self.snapshot_path(id));
            if snapshot.tags.clients.is_empty() && !snapshot.active && !shown {
                continue;
            }
            let Some(_name) = self.0.names.try_hold(snapshot_lock(id)) else {
                continue;
            };
            let state = self.view().pools.get(&pool).map(PoolView::state);
            let trouble = match state {
                Some(PoolState::Ready | PoolState::Degraded) => match self.show_snapshot(pool, id) {
                    Ok(()) => None,
                    Err(error) if power_lost(&error) => return Err(error),
                    Err(error) => Some(error.problem().detail),
                },
                Some(PoolState::Creating | PoolState::Deleting | PoolState::Incomplete) | None => {
                    Some("its pool is not complete".to_owned())
                }
            };
            let changed = self.change_view(|view| {
                let snapshot = view.snapshot_mut(id)?;
                let changed = snapshot.trouble != trouble;
                snapshot.trouble.clone_from(&trouble);
                Some(changed)
            });
            if changed == Some(true) {
                let name = &snapshot.tags.name;
                let (severity, message) = match trouble {
                    None => (Severity::Info, format!("snapshot {name} is served again")),
                    Some(why) => (Severity::Error, format!("snapshot {name} is not served: {why}")),
                };
                self.record(
                    EventKind::SnapshotChanged,
                    severity,
                    Some(id.to_string()),
                    None,
                    message,
                );
            }
        }
        Ok(())
    }

    /// Finishes or takes away what was interrupted. Fails only if the machine is gone.
    pub(crate) fn clear_snapshots(&self) -> Result<(), EngineError> {
        for (pool, id, snapshot) in self.snapshots_in(|state| state != Stage::Ready) {
            let whole = self
                .view()
                .pools
                .get(&pool)
                .is_some_and(|pool| pool.missing == 0 && pool.active);
            // The names of a group's volumes are held while it is made.
            let lock = crate::volumes::volume_lock(pool, &snapshot.tags.volume_name);
            let (Some(_volume), Some(_name)) = (self.0.names.try_hold(lock), self.0.names.try_hold(snapshot_lock(id)))
            else {
                continue;
            };
            if !whole || self.view().snapshot(id).is_none() {
                continue;
            }
            let members = snapshot.tags.group.map(|group| self.group(group)).unwrap_or_default();
            let all_made = members.iter().any(|(_, _, member)| member.tags.state == Stage::Ready);
            let outcome = match (snapshot.tags.state, snapshot.tags.group) {
                (Stage::Creating, Some(group)) if all_made => self.finish_group(group),
                _ => self.remove_snapshot(pool, id),
            };
            match outcome {
                Ok(()) => {}
                Err(error) if power_lost(&error) => return Err(error),
                Err(error) => {
                    let message = format!(
                        "snapshot {} could not be cleared up: {}",
                        snapshot.tags.name,
                        error.problem().detail
                    );
                    self.record(
                        EventKind::SnapshotChanged,
                        Severity::Warning,
                        Some(id.to_string()),
                        None,
                        message,
                    );
                }
            }
        }
        Ok(())
    }

    fn snapshots_in(&self, which: impl Fn(Stage) -> bool) -> Vec<(PoolId, SnapshotId, SnapshotView)> {
        let view = self.view();
        let mut found = Vec::new();
        for pool in view.pools.values() {
            let snapshots = pool.snapshots.iter().filter(|(_, snapshot)| which(snapshot.tags.state));
            found.extend(snapshots.map(|(id, snapshot)| (pool.id, *id, snapshot.clone())));
        }
        found
    }
}
