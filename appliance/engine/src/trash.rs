//! The trash: deleted volumes that can be had back until their pool's time for that is over.
//!
//! Invariant: a volume is deleted when its tag says `trash`; from then on nobody is served it, its name is free and its
//! size is promised to nobody. What is in the trash is removed in one commit, so that it is there whole or gone.

use std::collections::HashSet;
use std::path::PathBuf;

use cistern_host::TagChange;
use cistern_model::{
    EventKind, PoolId, Principal, Severity, TrashedVolume, UndeleteRequest, Volume, VolumeId, refuse_hidden,
};
use jiff::Timestamp;

use crate::EngineError;
use crate::engine::Engine;
use crate::error::Doing as _;
use crate::pools::{no_pool, power_lost, refuse_missing, refuse_unready};
use crate::tags::{self, Stage, VolumeTags, trash_tag};
use crate::view::{PoolView, View, VolumeView};
use crate::volumes::{LIMIT, visible, volume_lock};

impl Engine {
    /// The trash that the caller may see, the oldest first.
    pub fn trash(&self, by: &Principal) -> Vec<TrashedVolume> {
        let view = self.view();
        let mut all: Vec<TrashedVolume> = view
            .pools
            .values()
            .flat_map(|pool| pool.trash.iter().map(move |(id, volume)| (pool, id, volume)))
            .filter(|(pool, _, volume)| visible(by, pool, volume))
            .map(|(pool, id, volume)| volume.to_trashed(*id, pool))
            .collect();
        all.sort_by_key(|volume| (volume.deleted, volume.id));
        all
    }

    /// Takes a volume back out of the trash: its id, its export, its clients and what is in it are as they were.
    pub fn undelete(&self, by: &Principal, id: VolumeId, request: &UndeleteRequest) -> Result<Volume, EngineError> {
        let _operation = self.0.operations.begin(LIMIT);
        let (pool, volume) = match self.visible_trash(by, id) {
            Ok(found) => found,
            Err(_) if self.visible_volume(by, id).is_ok() => return self.undeleted_before(by, id, request),
            Err(error) => return Err(error),
        };
        if let Some(new) = request.name.as_ref().filter(|new| **new != volume.tags.name) {
            refuse_hidden("volume name", new.as_str())?;
        }
        let name = request.name.clone().unwrap_or_else(|| volume.tags.name.clone());
        let _one = self.0.names.hold(trash_lock(id))?;
        let _name = self.0.names.hold(volume_lock(pool.id, &name))?;
        let (pool, volume) = self.visible_trash(by, id)?;
        refuse_unready(&pool)?;
        let tags = VolumeTags {
            name: name.clone(),
            state: Stage::Ready,
            deleted: None,
            deleted_unsure: false,
            ..volume.tags.clone()
        };
        let change = volume.tags.change_to(&tags);
        let taken_back = self.0.lvm.change(pool.id, || {
            {
                let view = self.view();
                let pool = view.pools.get(&pool.id).ok_or_else(|| no_pool(&pool.vg()))?;
                if pool.volumes.values().any(|other| other.tags.name == name) {
                    return Err(EngineError::NameTaken(format!(
                        "the name {name} is in use in pool {}; give another one for the volume that is to come back",
                        pool.tags.name
                    )));
                }
                self.refuse_beyond(pool, pool.taken_by(tags.size))?;
            }
            let tagged = self.0.host.lvm.tag_lv(&pool.vg(), &id.to_string(), &change);
            tagged.doing(|| format!("take volume {name} back out of the trash"))?;
            self.change_view(|view| {
                let pool = view.pools.get_mut(&pool.id)?;
                let mut volume = pool.trash.remove(&id)?;
                volume.tags = tags;
                pool.volumes.insert(id, volume);
                Some(())
            });
            Ok(())
        })?;
        self.after_lvm(taken_back)?;
        if !volume.active {
            self.change_lvm(
                pool.id,
                || format!("activate the device of volume {name}"),
                || {
                    self.0
                        .host
                        .lvm
                        .activate_lv(&pool.vg(), &id.to_string(), self.activation(pool.id))
                },
                |view| {
                    if let Some(volume) = view.volume_mut(id) {
                        volume.active = true;
                    }
                },
            )?;
        }
        let path = self.path_of(id);
        let mounted = self.mounted(&path)?;
        self.bring_up(pool.id, id, &mounted.then_some(path).into_iter().collect())?;
        self.publish_volume(id)?;
        let message = format!(
            "volume {name} of pool {} was taken back out of the trash",
            pool.tags.name
        );
        self.record(
            EventKind::VolumeUndeleted,
            Severity::Info,
            Some(id.to_string()),
            Some(by),
            message,
        );
        self.volume_model(id)
    }

    /// What is asked to be taken back out of the trash and is there: it was done, unless it has another name than was asked for.
    fn undeleted_before(&self, by: &Principal, id: VolumeId, request: &UndeleteRequest) -> Result<Volume, EngineError> {
        let (_, volume) = self.visible_volume(by, id)?;
        let name = &volume.tags.name;
        if let Some(other) = request.name.as_ref().filter(|other| *other != name) {
            return Err(EngineError::Conflict(format!(
                "volume {id} is not in the trash, and its name is {name}, not {other}; to change that: cistern volumes rename {id} NAME"
            )));
        }
        self.publish_if_stale()?;
        self.volume_model(id)
    }

    /// Removes a volume that is in the trash, for good.
    pub fn purge(&self, by: &Principal, id: VolumeId) -> Result<(), EngineError> {
        let _operation = self.0.operations.begin(LIMIT);
        self.visible_trash(by, id)?;
        let _one = self.0.names.hold(trash_lock(id))?;
        let (pool, volume) = self.visible_trash(by, id)?;
        refuse_missing(&pool)?;
        self.remove_trashed(pool.id, id)?;
        let message = format!(
            "volume {} of pool {} was removed from the trash",
            volume.tags.name, pool.tags.name
        );
        self.record(
            EventKind::VolumePurged,
            Severity::Info,
            Some(id.to_string()),
            Some(by),
            message,
        );
        Ok(())
    }

    /// Changes how long a pool keeps its trash.
    pub(crate) fn change_trash_time(&self, by: &Principal, pool: &PoolView, seconds: u32) -> Result<(), EngineError> {
        if seconds == pool.tags.trash_seconds {
            return Ok(());
        }
        let change = TagChange {
            add: vec![trash_tag(seconds)],
            remove: vec![trash_tag(pool.tags.trash_seconds)],
        };
        self.change_lvm(
            pool.id,
            || format!("note how long pool {} keeps its trash", pool.tags.name),
            || self.0.host.lvm.tag_vg(&pool.vg(), &change),
            |view| {
                if let Some(pool) = view.pools.get_mut(&pool.id) {
                    pool.tags.trash_seconds = seconds;
                }
            },
        )?;
        let message = format!("pool {} keeps deleted volumes for {seconds} s now", pool.tags.name);
        let object = Some(pool.id.to_string());
        self.record(EventKind::PoolChanged, Severity::Info, object, Some(by), message);
        Ok(())
    }

    /// Removes the volume that has been in a pool's trash for the longest, to give its space back; none if there is none.
    /// For when the pool runs short; announced by an event.
    pub fn purge_oldest(&self, pool: PoolId, why: &str) -> Result<Option<TrashedVolume>, EngineError> {
        let _operation = self.0.operations.begin(LIMIT);
        let oldest = self.trash(&Principal::local());
        for volume in oldest.into_iter().filter(|volume| volume.pool == pool) {
            let Some(_one) = self.0.names.try_hold(trash_lock(volume.id)) else {
                continue;
            };
            if self.visible_trash(&Principal::local(), volume.id).is_err() {
                continue;
            }
            match self.remove_trashed(pool, volume.id) {
                Ok(()) => {}
                Err(error) if power_lost(&error) => return Err(error),
                Err(error) => {
                    tracing::warn!(%error, volume = %volume.id, "it could not be purged");
                    continue;
                }
            }
            let message = format!(
                "volume {} was removed from the trash early to make room in pool {}: {why}",
                volume.name, volume.pool_name
            );
            self.record(
                EventKind::VolumePurged,
                Severity::Warning,
                Some(volume.id.to_string()),
                None,
                message,
            );
            return Ok(Some(volume));
        }
        Ok(None)
    }

    /// Puts a served volume, whose name is held, into the trash.
    pub(crate) fn put_into_trash(
        &self,
        by: &Principal,
        pool: &PoolView,
        id: VolumeId,
        volume: &VolumeView,
    ) -> Result<(), EngineError> {
        let _trash = self.0.names.hold(trash_lock(id))?;
        let tags = VolumeTags {
            state: Stage::Trash,
            deleted: Some(tags::moment(self.0.host.machine.now())),
            deleted_unsure: !self.clock_was_kept(),
            ..volume.tags.clone()
        };
        let change = volume.tags.change_to(&tags);
        self.change_lvm(
            pool.id,
            || format!("put volume {id} into the trash"),
            || self.0.host.lvm.tag_lv(&pool.vg(), &id.to_string(), &change),
            |view| {
                let Some(pool) = view.pools.get_mut(&pool.id) else {
                    return;
                };
                if let Some(mut volume) = pool.volumes.remove(&id) {
                    volume.tags = tags;
                    volume.exported = false;
                    volume.trouble = None;
                    pool.trash.insert(id, volume);
                }
            },
        )?;
        let message = format!(
            "volume {} of pool {} was deleted; it is in the trash for {} s",
            volume.tags.name, pool.tags.name, pool.tags.trash_seconds
        );
        self.record(
            EventKind::VolumeTrashed,
            Severity::Info,
            Some(id.to_string()),
            Some(by),
            message,
        );
        self.publish_volume(id)?;
        self.let_go(&self.path_of(id))
    }

    /// A volume that is asked to be deleted and is in the trash: what may have failed the last time is made up for.
    pub(crate) fn trash_again(&self, by: &Principal, id: VolumeId) -> Result<bool, EngineError> {
        if self.visible_trash(by, id).is_err() {
            return Ok(false);
        }
        let _one = self.0.names.hold(trash_lock(id))?;
        if self.visible_trash(by, id).is_ok() {
            self.publish_if_stale()?;
            self.let_go(&self.path_of(id))?;
        }
        Ok(true)
    }

    /// Removes what has been in the trash for its pool's time. Only while something keeps the clock right: one that runs
    /// ahead would take all of it at once, for good. Of what was deleted by a clock that nothing kept, which may have been
    /// behind by any time, the time begins now. Fails only if the machine is gone.
    pub(crate) fn purge_old(&self, now: Timestamp) -> Result<(), EngineError> {
        let unsure: Vec<(PoolId, VolumeId)> = {
            let view = self.view();
            let trash = view
                .pools
                .values()
                .flat_map(|pool| pool.trash.iter().map(move |one| (pool.id, one)));
            let unsure = trash.filter(|(_, (_, volume))| volume.tags.deleted_unsure);
            unsure.map(|(pool, (id, _))| (pool, *id)).collect()
        };
        let mut due = self.trash(&Principal::local());
        due.retain(|volume| volume.purged <= now && !unsure.contains(&(volume.pool, volume.id)));
        if (due.is_empty() && unsure.is_empty()) || !self.clock_was_kept() {
            return Ok(());
        }
        // What is for good wants it to be so now.
        if !due.is_empty() && !self.0.host.machine.clock_is_kept().unwrap_or(false) {
            return Ok(());
        }
        let whole = |pool: &PoolId| {
            self.view()
                .pools
                .get(pool)
                .is_some_and(|pool| pool.missing == 0 && pool.active)
        };
        for (pool, id) in unsure {
            let Some(_one) = self.0.names.try_hold(trash_lock(id)).filter(|_| whole(&pool)) else {
                continue;
            };
            match self.date_trashed(pool, id, now) {
                Err(error) if power_lost(&error) => return Err(error),
                Err(error) => tracing::warn!(error = error.problem().detail, "a deleted volume has no sure date yet"),
                Ok(()) => {}
            }
        }
        for volume in due {
            let _operation = self.0.operations.begin(LIMIT);
            let Some(_one) = self.0.names.try_hold(trash_lock(volume.id)) else {
                continue;
            };
            if !whole(&volume.pool) || self.visible_trash(&Principal::local(), volume.id).is_err() {
                continue;
            }
            match self.remove_trashed(volume.pool, volume.id) {
                Ok(()) => {
                    let message = format!("volume {} of pool {} is gone for good", volume.name, volume.pool_name);
                    let object = Some(volume.id.to_string());
                    self.record(EventKind::VolumePurged, Severity::Info, object, None, message);
                }
                Err(error) if power_lost(&error) => return Err(error),
                Err(error) => tracing::warn!(error = error.problem().detail, "the trash was not emptied"),
            }
        }
        Ok(())
    }

    /// Notes that what is in the trash was deleted now. Its lock is held.
    fn date_trashed(&self, pool: PoolId, id: VolumeId, now: Timestamp) -> Result<(), EngineError> {
        let _operation = self.0.operations.begin(LIMIT);
        let Ok((_, volume)) = self.visible_trash(&Principal::local(), id) else {
            return Ok(());
        };
        let tags = VolumeTags {
            deleted: Some(tags::moment(now)),
            deleted_unsure: false,
            ..volume.tags.clone()
        };
        let change = volume.tags.change_to(&tags);
        self.change_lvm(
            pool,
            || format!("note when volume {id} was deleted"),
            || self.0.host.lvm.tag_lv(&pool.to_string(), &id.to_string(), &change),
            |view| {
                if let Some(volume) = view.pools.get_mut(&pool).and_then(|pool| pool.trash.get_mut(&id)) {
                    volume.tags = tags;
                }
            },
        )
    }

    /// Unmounts what is in the trash and was not unmounted before the supervisor broke off. Fails only if the machine is
    /// gone.
    pub(crate) fn withdraw_trash(&self, mounted: &HashSet<PathBuf>) -> Result<(), EngineError> {
        for volume in self.trash(&Principal::local()) {
            let path = self.path_of(volume.id);
            if !mounted.contains(&path) {
                continue;
            }
            let Some(_one) = self.0.names.try_hold(trash_lock(volume.id)) else {
                continue;
            };
            match self.let_go(&path) {
                Ok(()) => {}
                Err(error) if power_lost(&error) => return Err(error),
                Err(error) => tracing::warn!(error = error.problem().detail, "a deleted volume is still mounted"),
            }
        }
        Ok(())
    }

    /// Its lock is held.
    fn remove_trashed(&self, pool: PoolId, id: VolumeId) -> Result<(), EngineError> {
        // First: one that cannot be unmounted stays, and so do its snapshots.
        self.let_go(&self.path_of(id))?;
        self.drop_scheduled(pool, id)?;
        let removed = self.change_lvm(
            pool,
            || format!("remove volume {id} from the trash"),
            || self.0.host.lvm.remove_lv(&pool.to_string(), &id.to_string()),
            |view| {
                view.pools.get_mut(&pool).map(|pool| pool.trash.remove(&id));
            },
        );
        match removed {
            // The error was in the telling: it is gone.
            Err(_) if self.view().trashed(id).is_none() => Ok(()),
            other => other,
        }
    }

    fn visible_trash(&self, by: &Principal, id: VolumeId) -> Result<(PoolView, VolumeView), EngineError> {
        self.visible_of(View::trashed, by, id)
    }
}

/// The lock's name for a volume in the trash; its own name is free.
fn trash_lock(id: VolumeId) -> String {
    format!("trash {id}")
}
