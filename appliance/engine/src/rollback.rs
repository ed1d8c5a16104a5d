//! Rolling a volume back: it becomes what one of its snapshots is, under its own id, name and export.
//!
//! Invariant: from the commit of `state=rolling-back` on it is finished, by the request or by reconcile, and nobody sees
//! anything of the volume until it is. At each moment all that is to be known is in tags: the volume's own LV says what
//! it is to become; its replacement, a copy of the snapshot beside it, carries all of the volume's tags and the word that
//! it is done. In order:
//!
//! 1. the tag; unexport, release, unmount (if that fails, nothing has changed yet, and it is taken back);
//! 2. what it holds is kept as a snapshot, unless that is not wanted;
//! 3. the copy, `next-...`, mounted once: until it is known that it can be, all is taken back if something fails;
//! 4. the volume's LV is removed; 5. the copy takes its name;
//! 6. mount, grow to the volume's size, export, `state=ready`.

use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use cistern_model::{
    EventKind, PoolId, Principal, RollbackRequest, Severity, SnapshotId, SnapshotName, Volume, VolumeId,
};
use uuid::Uuid;

use crate::EngineError;
use crate::clients::refuse_unsettled;
use crate::engine::{Engine, locked};
use crate::error::Doing as _;
use crate::pools::{power_lost, refuse_unready};
use crate::snapshots::{no_snapshot, snapshot_lock, unsettled};
use crate::tags::{Rollback, Stage, VolumeTags};
use crate::view::{Copied, VolumeView, copy_name};
use crate::volumes::{LIMIT, no_volume, volume_lock};

/// When one is gone on with that could not be finished.
pub(crate) const ROLLBACK_AGAIN: Duration = Duration::from_secs(300);

impl Engine {
    /// Makes a volume what one of its snapshots is. What its clients have open there is cut off.
    pub fn roll_back(&self, by: &Principal, id: VolumeId, request: &RollbackRequest) -> Result<Volume, EngineError> {
        let _operation = self.0.operations.begin(LIMIT);
        let to = request.snapshot;
        self.visible_snapshot(by, to)?;
        // `snapshot` sorts before `volume`: the one order of all who hold both.
        let _snapshot = self.0.names.hold(snapshot_lock(to))?;
        let (_name, pool, mut volume) = self.hold_volume(by, id)?;
        let mut same = false;
        if volume.tags.state == Stage::RollingBack {
            // What was begun and broke off goes on first. If something else was asked for then, this is still to be done.
            same = matches!(&volume.tags.rollback, Some(Rollback::To { snapshot, keep })
                if *snapshot == to && keep.is_none() == request.discard);
            self.owe_rollback(id, self.finish_rollback(pool.id, id))?;
            volume = self.visible_volume(by, id)?.1;
        }
        if !same {
            refuse_unsettled(id, &volume)?;
            let (_, snapshot) = self.visible_snapshot(by, to)?;
            if snapshot.tags.volume != id {
                return Err(EngineError::Invalid(format!(
                    "snapshot {} is none of volume {}; make a new volume of it",
                    snapshot.tags.name, volume.tags.name
                )));
            }
            if snapshot.tags.state != Stage::Ready {
                return Err(unsettled(to, &snapshot));
            }
            refuse_unready(&pool)?;
            self.refuse_full_pool(pool.id, "copies")?;
            let keep = (!request.discard).then(|| SnapshotId::from_uuid(Uuid::new_v4()));
            self.owe_rollback(id, self.begin_rollback(pool.id, id, &volume, to, keep))?;
            self.owe_rollback(id, self.finish_rollback(pool.id, id))?;
        }
        let message = format!("volume {} of pool {} was rolled back", volume.tags.name, pool.tags.name);
        self.record(
            EventKind::VolumeRolledBack,
            Severity::Info,
            Some(id.to_string()),
            Some(by),
            message,
        );
        self.volume_model(id)
    }

    /// One that failed half way, and could not be taken back, is gone on with by a look at all: nobody may ask again.
    fn owe_rollback(&self, id: VolumeId, outcome: Result<(), EngineError>) -> Result<(), EngineError> {
        let stage = || self.view().volume(id).map(|(_, volume)| volume.tags.state);
        if outcome.is_err() && stage() == Some(Stage::RollingBack) {
            self.0.failures.owed.store(true, Ordering::SeqCst);
        }
        outcome
    }

    /// Says that it is to be, and withdraws the volume. What cannot be withdrawn stays as it is.
    fn begin_rollback(
        &self,
        pool: PoolId,
        id: VolumeId,
        volume: &VolumeView,
        snapshot: SnapshotId,
        keep: Option<SnapshotId>,
    ) -> Result<(), EngineError> {
        let tags = VolumeTags {
            state: Stage::RollingBack,
            rollback: Some(Rollback::To { snapshot, keep }),
            ..volume.tags.clone()
        };
        let noted = self.retag_volume(pool, id, &tags, "the rolling back");
        // One that failed may have been done: then a later start would roll back what clients write from now on.
        let begun = noted.and_then(|()| self.withdraw(id));
        begun.map_err(|error| self.take_rollback_back(pool, id, volume, error))
    }

    /// Serves a volume again as it was, which cannot become what it was to be; gives back why. Its own LV is untouched.
    fn take_rollback_back(&self, pool: PoolId, id: VolumeId, volume: &VolumeView, why: EngineError) -> EngineError {
        if power_lost(&why) {
            return why;
        }
        match self.serve_as_it_was(pool, id, volume) {
            Ok(()) => why,
            Err(error) if power_lost(&error) => error,
            Err(error) => {
                tracing::warn!(error = error.problem().detail, volume = %id, "its rolling back was not taken back");
                why
            }
        }
    }

    fn serve_as_it_was(&self, pool: PoolId, id: VolumeId, volume: &VolumeView) -> Result<(), EngineError> {
        // The copy may be all there is by now, if what removed the rest told that it had not.
        self.read_lvm()?;
        let copy = self.view().volume(id).map(|(_, volume)| volume.copy);
        match copy {
            Some(Copied::No) => {}
            Some(Copied::Beside) => self.change_lvm(
                pool,
                || format!("remove the copy that volume {id} was to become"),
                || self.0.host.lvm.remove_lv(&pool.to_string(), &copy_name(id)),
                |view| {
                    if let Some(volume) = view.volume_mut(id) {
                        volume.copy = Copied::No;
                    }
                },
            )?,
            // It is the volume by now, or there is none.
            Some(Copied::Alone) | None => return Ok(()),
        }
        if let Some(Rollback::To { keep: Some(keep), .. }) = volume.tags.rollback {
            let lock = self.0.names.try_hold(snapshot_lock(keep));
            let served = self
                .view()
                .snapshot(keep)
                .map(|(_, kept)| !kept.tags.clients.is_empty());
            // One that somebody found of use stays: it holds what the volume does.
            if lock.is_some() && served == Some(false) {
                self.remove_snapshot(pool, keep)?;
            }
        }
        let tags = VolumeTags {
            state: Stage::Ready,
            rollback: None,
            ..volume.tags.clone()
        };
        self.retag_volume(pool, id, &tags, "that nothing is rolled back")?;
        let path = self.path_of(id);
        let mounted = self.mounted(&path)?;
        self.bring_up(pool, id, &mounted.then_some(path).into_iter().collect())?;
        self.publish_volume(id)
    }

    fn withdraw(&self, id: VolumeId) -> Result<(), EngineError> {
        self.change_view(|view| {
            if let Some(volume) = view.volume_mut(id) {
                volume.exported = false;
            }
        });
        self.publish_volume(id)?;
        self.let_go(&self.path_of(id))
    }

    /// Goes on from whatever step the rolling back of a volume has reached, to its end. Its name is held.
    fn finish_rollback(&self, pool: PoolId, id: VolumeId) -> Result<(), EngineError> {
        let (vg, lv, copy) = (pool.to_string(), id.to_string(), copy_name(id));
        let lvm = &self.0.host.lvm;
        loop {
            let volume = self.view().volume(id).map(|(_, volume)| volume.clone());
            let volume = volume.ok_or_else(|| no_volume(id))?;
            let doing = |what: &str| format!("{what} of volume {} ({id}), which is rolled back", volume.tags.name);
            match (&volume.tags.rollback, volume.copy) {
                (Some(Rollback::To { snapshot, keep }), Copied::No) => {
                    let copied = self
                        .withdraw(id)
                        .and_then(|()| keep.map_or(Ok(()), |keep| self.keep_as(pool, id, &volume, keep)))
                        .and_then(|()| self.copy_snapshot(pool, id, &volume, *snapshot));
                    copied.map_err(|error| self.take_rollback_back(pool, id, &volume, error))?;
                }
                (Some(Rollback::To { .. }), Copied::Beside) => {
                    // What cannot be mounted takes nothing's place.
                    let proved = self.withdraw(id).and_then(|()| self.prove_copy(pool, id, &volume));
                    proved.map_err(|error| self.take_rollback_back(pool, id, &volume, error))?;
                    // Between this command and the next the view cannot say what there is: it is read anew.
                    let removed = self.0.lvm.change(pool, || lvm.remove_lv(&vg, &lv))?;
                    let read = self.read_lvm();
                    match self.view().volume(id).map(|(_, now)| now.copy) {
                        Some(Copied::Alone) => {}
                        Some(Copied::No | Copied::Beside) | None => {
                            removed.doing(|| doing("remove the device"))?;
                            read?;
                        }
                    }
                }
                (_, Copied::Alone) => {
                    self.change_lvm(
                        pool,
                        || doing("rename the copy"),
                        || lvm.rename_lv(&vg, &copy, &lv),
                        |view| {
                            if let Some(volume) = view.volume_mut(id) {
                                volume.copy = Copied::No;
                            }
                        },
                    )?;
                }
                (Some(Rollback::Done), Copied::No) => return self.show_again(pool, id, &volume),
                (Some(Rollback::Done) | None, _) => {
                    return Err(EngineError::Conflict(format!("volume {id} is not being rolled back")));
                }
            }
        }
    }

    /// Keeps what a volume holds as a snapshot, unless that was done.
    fn keep_as(&self, pool: PoolId, id: VolumeId, volume: &VolumeView, keep: SnapshotId) -> Result<(), EngineError> {
        if self.view().snapshot(keep).is_some() {
            return Ok(());
        }
        let now = self.0.host.machine.now();
        let base = format!("before-rollback-{}", now.strftime("%Y-%m-%dT%H:%M:%SZ"));
        let name = self.free_snapshot_name(pool, id, &base)?;
        let tags = self.snapshot_tags(id, volume, &name);
        self.copy_to_snapshot(pool, id, keep, tags)
    }

    /// That name, or one like it, which no snapshot of the volume has.
    pub(crate) fn free_snapshot_name(
        &self,
        pool: PoolId,
        volume: VolumeId,
        base: &str,
    ) -> Result<SnapshotName, EngineError> {
        let mut name: SnapshotName = base.parse()?;
        let mut number = 1;
        while self.snapshot_named(pool, volume, &name).is_some() {
            number += 1;
            name = format!("{base}-{number}").parse()?;
        }
        Ok(name)
    }

    /// Makes the LV that the volume's is to be replaced by.
    fn copy_snapshot(
        &self,
        pool: PoolId,
        id: VolumeId,
        volume: &VolumeView,
        snapshot: SnapshotId,
    ) -> Result<(), EngineError> {
        if self.view().snapshot(snapshot).is_none() {
            return Err(no_snapshot(snapshot));
        }
        let (vg, origin, copy) = (pool.to_string(), snapshot.to_string(), copy_name(id));
        let tags = VolumeTags {
            rollback: Some(Rollback::Done),
            ..volume.tags.clone()
        };
        self.change_lvm(
            pool,
            || format!("copy snapshot {snapshot} for volume {id}"),
            || {
                self.0
                    .host
                    .lvm
                    .create_thin_snapshot(&vg, &origin, &copy, &tags.write(), true)
            },
            |view| {
                if let Some(volume) = view.volume_mut(id) {
                    volume.copy = Copied::Beside;
                }
            },
        )
    }

    /// Serves what a volume has become, and says that it is ready.
    fn show_again(&self, pool: PoolId, id: VolumeId, volume: &VolumeView) -> Result<(), EngineError> {
        let (vg, lv, path) = (pool.to_string(), id.to_string(), self.path_of(id));
        let doing = |what: &str| format!("{what} of volume {} ({id}), which was rolled back", volume.tags.name);
        if !volume.active {
            self.change_lvm(
                pool,
                || doing("activate the device"),
                || self.0.host.lvm.activate_lv(&vg, &lv, self.activation(pool)),
                |view| {
                    if let Some(volume) = view.volume_mut(id) {
                        volume.active = true;
                    }
                },
            )?;
        }
        // The snapshot may be of a time when the volume was smaller.
        self.enlarge_device(pool, id)?;
        let up = match self.mounted(&path)? {
            true => Ok(()),
            false => {
                let mounted = self.0.host.filesystems.mount(&self.0.host.lvm.node(&vg, &lv), &path);
                mounted.doing(|| doing("mount the filesystem"))
            }
        };
        let up = up.and_then(|()| self.fill_device(id, volume));
        let trouble = match &up {
            Ok(()) => None,
            Err(error) if power_lost(error) => return up,
            // It is rolled back all the same: it can be deleted, and rolled back to another snapshot.
            Err(error) => Some(error.problem().detail),
        };
        let tags = VolumeTags {
            state: Stage::Ready,
            rollback: None,
            ..volume.tags.clone()
        };
        self.change_view(|view| {
            if let Some(volume) = view.volume_mut(id) {
                volume.exported = true;
                volume.trouble = trouble;
            }
        });
        self.publish_volume(id)?;
        self.retag_volume(pool, id, &tags, "that it was rolled back")?;
        up
    }

    /// Where the copy that a volume is to become is mounted, to see whether it can be.
    pub(crate) fn copy_path(&self, volume: VolumeId) -> PathBuf {
        self.0.config.volumes_dir.join(copy_name(volume))
    }

    /// Mounts the copy that a volume is to become, before there is nothing else, and lets go of it.
    fn prove_copy(&self, pool: PoolId, id: VolumeId, volume: &VolumeView) -> Result<(), EngineError> {
        let (vg, copy) = (pool.to_string(), copy_name(id));
        let (node, path) = (self.0.host.lvm.node(&vg, &copy), self.copy_path(id));
        let mount = || match self.mounted(&path)? {
            true => Ok(()),
            false => {
                let mounted = self.0.host.filesystems.mount(&node, &path);
                let name = &volume.tags.name;
                mounted.doing(|| format!("mount what volume {name} ({id}) is to be rolled back to; it stays as it was"))
            }
        };
        let mounted = match mount() {
            Err(error) if !power_lost(&error) => {
                // After a restart it may not be active.
                self.change_lvm(
                    pool,
                    || format!("activate the copy that volume {id} is to become"),
                    || self.0.host.lvm.activate_lv(&vg, &copy, self.activation(pool)),
                    |_| {},
                )?;
                mount()
            }
            mounted => mounted,
        };
        mounted?;
        self.let_go(&path)
    }

    /// Finishes what was interrupted. Fails only if the machine is gone.
    pub(crate) fn finish_rollbacks(&self) -> Result<(), EngineError> {
        let now = Instant::now();
        let begun = self.volumes_in(|stage| stage == Stage::RollingBack);
        locked(&self.0.failures.unfinished).retain(|id, (_, tried)| {
            *tried = now;
            begun.iter().any(|(_, other)| other == id)
        });
        for (pool, id) in begun {
            let found = {
                let view = self.view();
                view.volume(id)
                    .map(|(pool, volume)| (pool.missing == 0 && pool.active, volume.tags.name.clone()))
            };
            let Some((true, name)) = found else { continue };
            let Some(_name) = self.0.names.try_hold(volume_lock(pool, &name)) else {
                continue;
            };
            let still = self.view().volume(id).map(|(_, volume)| volume.tags.state);
            if still != Some(Stage::RollingBack) {
                continue;
            }
            let finished = self.finish_rollback(pool, id);
            let ready = self.view().volume(id).map(|(_, volume)| volume.tags.state) == Some(Stage::Ready);
            let (severity, message) = match finished {
                Ok(()) => (
                    Severity::Info,
                    format!("volume {name}: its interrupted rolling back was finished"),
                ),
                Err(error) if power_lost(&error) => return Err(error),
                Err(error) if ready => (
                    Severity::Error,
                    format!(
                        "volume {name}, whose rolling back was interrupted: {}",
                        error.problem().detail
                    ),
                ),
                Err(error) => (
                    Severity::Error,
                    format!(
                        "volume {name} is not served, its rolling back cannot go on: {}",
                        error.problem().detail
                    ),
                ),
            };
            let left = self.view().volume(id).map(|(_, volume)| volume.tags.state) == Some(Stage::RollingBack);
            let told = {
                let mut unfinished = locked(&self.0.failures.unfinished);
                match left {
                    true => unfinished.insert(id, (message.clone(), Instant::now())),
                    false => unfinished.remove(&id),
                }
            };
            if told.is_some_and(|(told, _)| told == message) {
                continue;
            }
            self.record(
                EventKind::VolumeRolledBack,
                severity,
                Some(id.to_string()),
                None,
                message,
            );
        }
        Ok(())
    }

    /// Removes the snapshots that a volume's schedule made, which go for good with it; on those that stay it is noted whose they are.
    pub(crate) fn drop_scheduled(&self, pool: PoolId, volume: VolumeId) -> Result<(), EngineError> {
        let scheduled: Vec<SnapshotId> = {
            let view = self.view();
            let snapshots = view.pools.get(&pool).map(|pool| &pool.snapshots);
            let of_volume = snapshots.into_iter().flatten().filter(|(_, s)| s.tags.volume == volume);
            let scheduled = of_volume.filter(|(_, s)| !s.tags.scheduled.is_empty());
            scheduled.map(|(id, _)| *id).collect()
        };
        for id in scheduled {
            let _operation = self.0.operations.begin(LIMIT);
            let lock = self.0.names.try_hold(snapshot_lock(id));
            // Those before it took their time: it may be served since, or gone.
            let served = self.view().snapshot(id).map(|(_, s)| !s.tags.clients.is_empty());
            let Some(served) = served else { continue };
            // One that is read, or made a volume of, just now outlives its volume: as one made by hand.
            if lock.is_none() || served {
                self.retag_snapshot(pool, id, |tags| tags.scheduled.clear())?;
            } else {
                self.remove_snapshot(pool, id)?;
            }
        }
        self.note_whose_snapshots(pool, volume)
    }
}
