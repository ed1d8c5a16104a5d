//! What of a volume changes while it is served: its name, labels and owner, and its size.
//!
//! Invariant: a request is judged as a whole before anything of it is done. A volume only grows, in this order: device,
//! size tag, filesystem. Until the tag is committed nothing was promised, and a device that is larger than its filesystem
//! harms nobody; from then on reconcile finishes the growth.

use std::collections::BTreeSet;

use cistern_model::{
    Bytes, EventKind, Labels, PoolId, Principal, Role, Severity, Volume, VolumeChange, VolumeId, refuse_hidden,
};

use crate::EngineError;
use crate::clients::refuse_unsettled;
use crate::engine::Engine;
use crate::error::Doing as _;
use crate::names::Held;
use crate::pools::{no_pool, refuse_missing, refuse_unready};
use crate::tags::VolumeTags;
use crate::view::{PoolView, VolumeView};
use crate::volumes::{BLOCK, LIMIT, volume_lock};

impl Engine {
    /// Changes what is given in the request, and nothing else. Asked for again it is no change.
    pub fn change_volume(&self, by: &Principal, id: VolumeId, change: &VolumeChange) -> Result<Volume, EngineError> {
        let _operation = self.0.operations.begin(LIMIT);
        let (_names, pool, volume) = self.hold_for_change(by, id, change)?;
        refuse_unsettled(id, &volume)?;
        let tags = self.judge_change(by, &pool, &volume, change)?;
        let size = larger_size(id, &volume, change)?;
        if tags == volume.tags && size.is_none() {
            // What was answered with an error may have stopped before its end.
            if change.size.is_some() && volume.trouble.is_none() {
                self.fill_device(id, &volume)?;
            }
            return self.volume_model(id);
        }
        refuse_missing(&pool)?;
        if let Some(size) = size {
            refuse_unready(&pool)?;
            refuse_unserved(id, &volume)?;
            self.refuse_beyond(&pool_of(self, pool.id)?, growth(&pool, &volume, size))?;
        }
        if tags != volume.tags {
            self.retag_volume(pool.id, id, &tags, "the change")?;
            let what = told(&volume.tags, &tags);
            let message = format!("volume {} of pool {}: {what}", volume.tags.name, pool.tags.name);
            self.record(
                EventKind::VolumeChanged,
                Severity::Info,
                Some(id.to_string()),
                Some(by),
                message,
            );
        }
        if let Some(size) = size {
            self.grow(&pool, id, size)?;
            let message = format!("volume {} of pool {} has {size:#} now", tags.name, pool.tags.name);
            self.record(
                EventKind::VolumeChanged,
                Severity::Info,
                Some(id.to_string()),
                Some(by),
                message,
            );
        }
        self.volume_model(id)
    }

    /// A volume, its name and the name that it is to have: both are kept from others, always in the same order.
    fn hold_for_change(
        &self,
        by: &Principal,
        id: VolumeId,
        change: &VolumeChange,
    ) -> Result<(Vec<Held<'_>>, PoolView, VolumeView), EngineError> {
        loop {
            let (pool, volume) = self.visible_volume(by, id)?;
            let names = change.name.iter().chain([&volume.tags.name]);
            let locks: BTreeSet<String> = names.map(|name| volume_lock(pool.id, name)).collect();
            let held = locks
                .into_iter()
                .map(|lock| self.0.names.hold(lock))
                .collect::<Result<Vec<_>, _>>()?;
            let (pool, now) = self.visible_volume(by, id)?;
            if now.tags.name == volume.tags.name {
                return Ok((held, pool, now));
            }
        }
    }

    /// The tags that the volume is to have, its size left out.
    fn judge_change(
        &self,
        by: &Principal,
        pool: &PoolView,
        volume: &VolumeView,
        change: &VolumeChange,
    ) -> Result<VolumeTags, EngineError> {
        let mut tags = volume.tags.clone();
        if let Some(owner) = change.owner.as_ref().filter(|owner| **owner != tags.owner) {
            if by.role != Role::Admin {
                return Err(EngineError::Forbidden(format!(
                    "only an admin may give volume {} to {owner}; the token {} has the role {}",
                    volume.tags.name, by.owner, by.role
                )));
            }
            tags.owner.clone_from(owner);
        }
        if let Some(name) = change.name.as_ref().filter(|name| **name != tags.name) {
            let view = self.view();
            let mut others = view
                .pools
                .get(&pool.id)
                .into_iter()
                .flat_map(|pool| pool.volumes.values());
            if others.any(|other| other.tags.name == *name) {
                return Err(EngineError::NameTaken(format!(
                    "the name {name} is in use in pool {}; choose another",
                    pool.tags.name
                )));
            }
            refuse_hidden("volume name", name.as_str())?;
            tags.name.clone_from(name);
        }
        if let Some(labels) = &change.labels {
            refuse_hidden_labels(labels, &tags.labels)?;
            tags.labels.clone_from(labels);
        }
        if let Some(schedule) = change.schedule {
            tags.schedule = schedule;
        }
        Ok(tags)
    }

    /// Changes a volume's tags to these, in one commit.
    pub(crate) fn retag_volume(
        &self,
        pool: PoolId,
        id: VolumeId,
        tags: &VolumeTags,
        what: &str,
    ) -> Result<(), EngineError> {
        let now = self.view().volume(id).map(|(_, volume)| volume.tags.clone());
        let change = now.map(|now| now.change_to(tags)).unwrap_or_default();
        self.change_lvm(
            pool,
            || format!("note {what} of volume {id}"),
            || self.0.host.lvm.tag_lv(&pool.to_string(), &id.to_string(), &change),
            |view| {
                if let Some(volume) = view.volume_mut(id) {
                    volume.tags = tags.clone();
                }
            },
        )
    }

    /// Makes a served volume larger.
    fn grow(&self, pool: &PoolView, id: VolumeId, size: Bytes) -> Result<(), EngineError> {
        let vg = pool.vg();
        let doing = || format!("grow the device of volume {id}");
        let device = size.round_up(pool.extent);
        let grown = self.0.lvm.change(pool.id, || {
            let view = pool_of(self, pool.id)?;
            let volume = view.volumes.get(&id).ok_or_else(|| crate::volumes::no_volume(id))?;
            refuse_unready(&view)?;
            self.refuse_beyond(&view, growth(&view, volume, size))?;
            if volume.device < device {
                self.0.host.lvm.extend_thin(&vg, &id.to_string(), size).doing(doing)?;
                self.change_view(|view| {
                    if let Some(volume) = view.volume_mut(id) {
                        volume.device = device;
                    }
                });
            }
            let tags = VolumeTags {
                size,
                ..volume.tags.clone()
            };
            let change = volume.tags.change_to(&tags);
            let noted = self.0.host.lvm.tag_lv(&vg, &id.to_string(), &change);
            noted.doing(|| format!("note the size of volume {id}"))?;
            self.change_view(|view| {
                if let Some(volume) = view.volume_mut(id) {
                    volume.tags = tags;
                }
            });
            Ok(())
        })?;
        self.after_lvm(grown)?;
        let (_, volume) = self.visible_volume(&Principal::local(), id)?;
        self.fill_device(id, &volume)
    }

    /// Makes a mounted volume's filesystem as large as its tags say. Nothing happens if it is.
    pub(crate) fn fill_device(&self, id: VolumeId, volume: &VolumeView) -> Result<(), EngineError> {
        let grown = self.0.host.filesystems.grow_xfs(&self.path_of(id), volume.tags.size);
        grown.doing(|| format!("grow the filesystem of volume {} ({id})", volume.tags.name))
    }
}

/// Refuses labels that were not there before and of which not all is seen.
pub(crate) fn refuse_hidden_labels(labels: &Labels, before: &Labels) -> Result<(), EngineError> {
    for label in labels.iter().filter(|label| !before.contains(label)) {
        refuse_hidden("label", label.value())?;
    }
    Ok(())
}

fn pool_of(engine: &Engine, id: PoolId) -> Result<PoolView, EngineError> {
    engine
        .view()
        .pools
        .get(&id)
        .cloned()
        .ok_or_else(|| no_pool(&id.to_string()))
}

/// What is to be promised beyond what is.
fn growth(pool: &PoolView, volume: &VolumeView, size: Bytes) -> Bytes {
    pool.taken_by(size).saturating_sub(pool.taken_by(volume.tags.size))
}

/// The size that is asked for, if that is more than there is.
fn larger_size(id: VolumeId, volume: &VolumeView, change: &VolumeChange) -> Result<Option<Bytes>, EngineError> {
    let Some(asked) = change.size else { return Ok(None) };
    let (size, has) = (asked.round_up(BLOCK), volume.tags.size);
    if !size.get().is_multiple_of(BLOCK.get()) {
        return Err(EngineError::Invalid(format!(
            "a volume of {asked:#} is larger than any pool"
        )));
    }
    if size < has {
        return Err(EngineError::Invalid(format!(
            "volume {} ({id}) has {has:#}, and a volume cannot be made smaller; {asked:#} were asked for",
            volume.tags.name
        )));
    }
    Ok((size > has).then_some(size))
}

fn refuse_unserved(id: VolumeId, volume: &VolumeView) -> Result<(), EngineError> {
    match &volume.trouble {
        None => Ok(()),
        Some(why) => Err(EngineError::Unavailable(format!(
            "volume {} ({id}) is not served: {why}",
            volume.tags.name
        ))),
    }
}

/// What changed, in words.
fn told(old: &VolumeTags, new: &VolumeTags) -> String {
    let mut parts = Vec::new();
    if old.name != new.name {
        parts.push(format!("it is called {} now", new.name));
    }
    if old.owner != new.owner {
        parts.push(format!("it belongs to {} now", new.owner));
    }
    if old.labels != new.labels {
        parts.push("its labels were changed".to_owned());
    }
    if old.schedule != new.schedule {
        parts.push(format!("its snapshots are kept by the schedule {} now", new.schedule));
    }
    parts.join(", ")
}
