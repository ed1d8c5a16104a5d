//! Volumes: making, deleting and listing them. Here a request is judged; what is then done is in `volume_steps`.
//! Invariant: a name is unique in its pool, and what is promised never exceeds what the pool may promise: both are looked
//! at and noted as one, under the pool's lock.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use cistern_host::HostError;
use cistern_model::{
    Bytes, EventKind, Inodes, Label, Labels, MINIMUM_VOLUME, Page, PoolId, Principal, Severity, Volume, VolumeId,
    VolumeName, VolumeOptions, VolumeRequest, refuse_hidden,
};
use uuid::Uuid;

use crate::EngineError;
use crate::changes::refuse_hidden_labels;
use crate::clients::refuse_clients;
use crate::clones::Origin;
use crate::engine::Engine;
use crate::error::Doing as _;
use crate::names::Held;
use crate::nodes::refuse_published;
use crate::pools::{no_pool, power_lost, refuse_missing, refuse_unready};
use crate::tags::{self, OptionTags, Stage, VolumeTags};
use crate::view::{Copied, DATA, Filled, PoolView, View, VolumeView};
use crate::volume_options::refuse_options;

/// What came of a request to make a thing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Created<T> {
    /// The thing.
    pub object: T,
    /// Whether this request made it; else it was there.
    pub created: bool,
}

/// Which volumes to list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VolumeFilter {
    /// Those of this pool, by name or id.
    pub pool: Option<String>,
    /// Those of this name.
    pub name: Option<VolumeName>,
    /// Those that carry all of these labels.
    pub labels: Vec<Label>,
}

/// The blocks of XFS.
pub(crate) const BLOCK: Bytes = Bytes::new(4096);
/// The longest that a request on a volume can take: a few commands, each with a limit of its own.
pub(crate) const LIMIT: Duration = Duration::from_secs(1200);

impl Engine {
    /// Makes a volume, or gives the one of this name if it has this size. Of the size that is asked for, at least 300 MiB,
    /// in whole blocks of 4 KiB, its filesystem has exactly the bytes.
    pub fn create_volume(&self, by: &Principal, request: &VolumeRequest) -> Result<Created<Volume>, EngineError> {
        let _operation = self.0.operations.begin(LIMIT);
        let size = size_for(request)?;
        let options = request.options.apply(&VolumeOptions::default());
        refuse_options(&options)?;
        refuse_clients(&request.clients)?;
        let pool = self.pool_of_name(by, &request.pool)?;
        let _names = self.hold_for_creation(by, pool, request)?;
        let existing = {
            let view = self.view();
            let volumes = view.pools.get(&pool).map(|pool| &pool.volumes);
            let mut volumes = volumes.into_iter().flatten();
            volumes
                .find(|(_, v)| v.tags.name == request.name)
                .map(|(id, v)| (*id, v.clone()))
        };
        let (id, fresh) = match existing {
            Some((id, volume)) => {
                same_request(by, request, size, &volume)?;
                if volume.tags.state == Stage::Ready {
                    // The last step may have failed after it was ready.
                    if volume.trouble.is_none() {
                        self.give_root(pool, id)?;
                    }
                    self.publish_if_stale()?;
                    return Ok(Created {
                        object: self.volume_model(id)?,
                        created: false,
                    });
                }
                (id, false)
            }
            None => {
                refuse_hidden("volume name", request.name.as_str())?;
                refuse_hidden_labels(&request.labels, &Labels::default())?;
                let origin = self.origin(by, pool, request, size)?;
                (self.allot(by, pool, request, size, options, origin)?, true)
            }
        };
        if let Err(error) = self.finish_volume(pool, id, fresh) {
            // Nobody was told of it: it is taken away. If that fails too, asking again goes on with it.
            if !power_lost(&error)
                && self
                    .view()
                    .volume(id)
                    .is_some_and(|(_, v)| v.tags.state == Stage::Creating)
                && let Err(undo) = self.take_volume_away(pool, id)
            {
                tracing::warn!(%undo, volume = %id, "what was begun could not be undone");
            }
            return Err(error);
        }
        let volume = self.volume_model(id)?;
        let message = format!(
            "volume {} of {} was made in pool {}",
            volume.name, volume.size, volume.pool_name
        );
        self.record(
            EventKind::VolumeCreated,
            Severity::Info,
            Some(id.to_string()),
            Some(by),
            message,
        );
        Ok(Created {
            object: volume,
            created: true,
        })
    }

    /// Volumes that the caller may see, by id, those after `after`. Those in pools that are away are not among them; but who asks for a
    /// name, and for a pool, is not told that there is none where it may lie in such a pool.
    pub fn volumes(
        &self,
        by: &Principal,
        filter: &VolumeFilter,
        limit: usize,
        after: Option<VolumeId>,
    ) -> Result<Page<Volume>, EngineError> {
        let _operation = self.0.operations.begin(LIMIT);
        self.refuse_to_list(by, filter.pool.as_deref())?;
        let page = self.volumes_known(by, filter, limit, after);
        if let (true, None, Some(name), None) = (page.items.is_empty(), after, &filter.name, &filter.pool) {
            self.refuse_as_none("volume", by, name.as_str())?;
        }
        Ok(page)
    }

    /// Those that are known, also while the start has not ended.
    pub(crate) fn volumes_known(
        &self,
        by: &Principal,
        filter: &VolumeFilter,
        limit: usize,
        after: Option<VolumeId>,
    ) -> Page<Volume> {
        let mut page: Vec<(VolumeId, PoolView, VolumeView)> = Vec::new();
        let mut more = false;
        {
            let view = self.view();
            let in_filter = |pool: &PoolView| {
                let named = |text: &String| pool.tags.name.as_str() == text || pool.id.to_string() == *text;
                filter.pool.as_ref().is_none_or(named)
            };
            let mut all: Vec<(&VolumeId, &PoolView, &VolumeView)> = view
                .pools
                .values()
                .filter(|pool| in_filter(pool))
                .flat_map(|pool| pool.volumes.iter().map(move |(id, volume)| (id, pool, volume)))
                .filter(|(id, pool, volume)| {
                    after.is_none_or(|after| **id > after)
                        && visible(by, pool, volume)
                        && filter.name.as_ref().is_none_or(|name| volume.tags.name == *name)
                        && filter.labels.iter().all(|label| volume.tags.labels.contains(label))
                })
                .collect();
            all.sort_by_key(|(id, _, _)| **id);
            if all.len() > limit {
                more = true;
                all.truncate(limit);
            }
            for (id, pool, volume) in all {
                page.push((*id, bare(pool), volume.clone()));
            }
        }
        let items: Vec<Volume> = page
            .iter()
            .map(|(id, pool, volume)| volume.to_model(*id, pool, self.filled(*id, volume)))
            .collect();
        let next = if more {
            items.last().map(|volume| volume.id.to_string())
        } else {
            None
        };
        Page { items, next }
    }

    /// A volume.
    pub fn volume(&self, by: &Principal, id: VolumeId) -> Result<Volume, EngineError> {
        let _operation = self.0.operations.begin(LIMIT);
        self.visible_volume(by, id)?;
        self.volume_model(id)
    }

    /// Deletes a volume, whoever has it mounted: into its pool's trash, or for good where that keeps nothing.
    pub fn delete_volume(&self, by: &Principal, id: VolumeId) -> Result<(), EngineError> {
        let _operation = self.0.operations.begin(LIMIT);
        if self.trash_again(by, id)? {
            return Ok(());
        }
        let (_name, pool, volume) = self.hold_volume(by, id)?;
        refuse_missing(&pool)?;
        if volume.tags.state == Stage::RollingBack {
            return Err(EngineError::Conflict(format!(
                "volume {id} is being rolled back; ask again when that is done"
            )));
        }
        if volume.tags.state == Stage::Ready {
            refuse_published(id, &volume)?;
        }
        if volume.tags.state == Stage::Ready && pool.tags.trash_seconds > 0 {
            return self.put_into_trash(by, &pool, id, &volume);
        }
        if volume.tags.state != Stage::Deleting {
            self.change_lvm(
                pool.id,
                || format!("note the deletion of volume {id}"),
                || {
                    self.0
                        .host
                        .lvm
                        .tag_lv(&pool.vg(), &id.to_string(), &Stage::Deleting.change())
                },
                |view| {
                    if let Some(volume) = view.volume_mut(id) {
                        volume.tags.state = Stage::Deleting;
                    }
                },
            )?;
        }
        self.take_volume_away(pool.id, id)?;
        let message = format!("volume {} of pool {} was deleted", volume.tags.name, pool.tags.name);
        self.record(
            EventKind::VolumeDeleted,
            Severity::Info,
            Some(id.to_string()),
            Some(by),
            message,
        );
        Ok(())
    }

    /// Takes the space for a new volume and notes all that is to be known of it, in one commit.
    fn allot(
        &self,
        by: &Principal,
        pool: PoolId,
        request: &VolumeRequest,
        size: Bytes,
        options: VolumeOptions,
        origin: Option<Origin>,
    ) -> Result<VolumeId, EngineError> {
        let id = VolumeId::from_uuid(Uuid::new_v4());
        let tags = VolumeTags {
            name: request.name.clone(),
            state: Stage::Creating,
            size,
            owner: by.owner.clone(),
            created: tags::moment(self.0.host.machine.now()),
            clients: request.clients.iter().copied().collect(),
            nodes: BTreeMap::new(),
            nodes_were: BTreeSet::new(),
            options: OptionTags {
                options,
                // What a copy's root is, its source says, unless something else was asked for.
                root_pending: request.source.is_some() && request.options.names_root(),
            },
            labels: request.labels.clone(),
            schedule: request.schedule.unwrap_or_default(),
            source: request.source,
            deleted: None,
            deleted_unsure: false,
            rollback: None,
        };
        let lvm = &self.0.host.lvm;
        let made = self.0.lvm.change(pool, || {
            {
                let view = self.view();
                let pool = view.pools.get(&pool).ok_or_else(|| no_pool(request.pool.as_str()))?;
                refuse_unready(pool)?;
                self.refuse_beyond(pool, pool.taken_by(size))?;
            }
            self.refuse_full_for_volume(pool)?;
            let vg = pool.to_string();
            let made: Result<(), HostError> = match &origin {
                None => lvm.create_thin(&vg, DATA, &id.to_string(), size, &tags.write()),
                Some(origin) => lvm.create_thin_snapshot(&vg, &origin.lv, &id.to_string(), &tags.write(), true),
            };
            made.doing(|| format!("make the volume {} in pool {}", request.name, request.pool))?;
            self.change_view(|view| {
                let extent = view.pools.get(&pool).map_or(Bytes::ZERO, |pool| pool.extent);
                let known = VolumeView {
                    tags,
                    device: origin.map_or(size.round_up(extent), |origin| origin.device),
                    active: true,
                    exported: false,
                    trouble: None,
                    copy: Copied::No,
                };
                view.pools.get_mut(&pool).map(|pool| pool.volumes.insert(id, known));
            });
            Ok(())
        })?;
        let made = self.after_lvm(made);
        if let Err(error) = made {
            // The state was read anew: if it is there after all, it is taken away.
            if !power_lost(&error) && self.view().volume(id).is_some() {
                let _ = self.take_volume_away(pool, id);
            }
            return Err(error);
        }
        Ok(id)
    }

    /// Refuses to promise so much more than is promised.
    pub(crate) fn refuse_beyond(&self, pool: &PoolView, more: Bytes) -> Result<(), EngineError> {
        let available = pool.available(self.0.config.overcommit_percent);
        if more <= available {
            return Ok(());
        }
        Err(EngineError::NoSpace(format!(
            "pool {} has {available:#} left for volumes ({:#} in all, {:#} promised), and {more:#} were asked for",
            pool.tags.name,
            pool.promisable(self.0.config.overcommit_percent),
            pool.promised(),
        )))
    }

    /// A volume that the caller may see, and its pool, while nobody else works on it.
    pub(crate) fn hold_volume(
        &self,
        by: &Principal,
        id: VolumeId,
    ) -> Result<(Held<'_>, PoolView, VolumeView), EngineError> {
        let (mut pool, mut volume) = self.visible_volume(by, id)?;
        loop {
            let held = self.0.names.hold(volume_lock(pool.id, &volume.tags.name))?;
            // It may have gone, or been given another name, while this one was waited for.
            let (pool_now, now) = self.visible_volume(by, id)?;
            if now.tags.name == volume.tags.name {
                return Ok((held, pool_now, now));
            }
            (pool, volume) = (pool_now, now);
        }
    }

    /// A volume that the caller may see, and its pool.
    pub(crate) fn visible_volume(&self, by: &Principal, id: VolumeId) -> Result<(PoolView, VolumeView), EngineError> {
        self.visible_of(View::volume, by, id)
    }

    /// One that is found so. What was looked at is let go before it is asked whether it may lie in a pool that is away.
    pub(crate) fn visible_of(
        &self,
        find: for<'a> fn(&'a View, VolumeId) -> Option<(&'a PoolView, &'a VolumeView)>,
        by: &Principal,
        id: VolumeId,
    ) -> Result<(PoolView, VolumeView), EngineError> {
        let found = find(&self.view(), id).map(|(pool, volume)| (bare(pool), volume.clone()));
        let (pool, volume) = found.ok_or_else(|| self.absent(by, no_volume(id)))?;
        match visible(by, &pool, &volume) {
            true => Ok((pool, volume)),
            false => Err(not_the_callers(by, "volume", &id.to_string())),
        }
    }

    pub(crate) fn volume_model(&self, id: VolumeId) -> Result<Volume, EngineError> {
        let (pool, volume) = self.visible_volume(&Principal::local(), id)?;
        Ok(volume.to_model(id, &pool, self.filled(id, &volume)))
    }

    /// What a volume's files take, where that can be asked.
    fn filled(&self, id: VolumeId, volume: &VolumeView) -> Option<Filled> {
        if volume.tags.state != Stage::Ready || volume.trouble.is_some() {
            return None;
        }
        let usage = self.0.host.filesystems.usage(&self.path_of(id)).ok()?;
        Some(Filled {
            used: usage.total.saturating_sub(usage.free),
            inodes: Inodes {
                used: usage.inodes,
                total: usage.inodes_total,
            },
        })
    }
}

/// The pool without its other volumes, which may be thousands.
pub(crate) fn bare(pool: &PoolView) -> PoolView {
    PoolView {
        tags: pool.tags.clone(),
        nodes: Vec::new(),
        members: pool.members.clone(),
        returned: Vec::new(),
        raids: pool.raids.clone(),
        trouble: pool.trouble.clone(),
        volumes: std::collections::BTreeMap::new(),
        snapshots: std::collections::BTreeMap::new(),
        trash: std::collections::BTreeMap::new(),
        ..*pool
    }
}

pub(crate) fn visible(by: &Principal, pool: &PoolView, volume: &VolumeView) -> bool {
    by.may_use_pool(&pool.tags.name) && by.may_touch(&volume.tags.owner)
}

/// The lock's name for a volume.
pub(crate) fn volume_lock(pool: PoolId, name: &VolumeName) -> String {
    format!("volume {name} of {pool}")
}

pub(crate) fn no_volume(id: VolumeId) -> EngineError {
    EngineError::NotFound {
        what: "volume",
        name: id.to_string(),
    }
}

/// What is told of something that is there and that the caller may not see: that it is gone would have a cluster forget it.
pub(crate) fn not_the_callers(by: &Principal, what: &str, id: &str) -> EngineError {
    EngineError::Forbidden(format!(
        "{what} {id} is not token {}'s: a provisioner sees what it made itself, in the pools that it is bound to. Ask with the token \
         that made it, or have an admin give its volume to this one (`cistern volumes chown`)",
        by.owner
    ))
}

/// The size that a request comes to.
fn size_for(request: &VolumeRequest) -> Result<Bytes, EngineError> {
    let size = request.size.max(MINIMUM_VOLUME).round_up(BLOCK);
    let beyond = |limit: Bytes| {
        EngineError::Invalid(format!(
            "volume {} would have {size:#}, which is above its limit of {limit:#}: a volume has at least {MINIMUM_VOLUME}, \
             in whole blocks of 4 KiB",
            request.name
        ))
    };
    match request.limit {
        Some(limit) if size > limit => Err(beyond(limit)),
        Some(_) | None if !size.get().is_multiple_of(BLOCK.get()) => Err(EngineError::Invalid(format!(
            "a volume of {size:#} is larger than any pool"
        ))),
        Some(_) | None => Ok(size),
    }
}

/// Whether a volume of this name is what is asked for.
fn same_request(by: &Principal, request: &VolumeRequest, size: Bytes, volume: &VolumeView) -> Result<(), EngineError> {
    if !by.may_touch(&volume.tags.owner) {
        return Err(EngineError::NameTaken(format!(
            "the name {} is in use in pool {} by another owner's volume",
            request.name, request.pool
        )));
    }
    if matches!(volume.tags.state, Stage::Deleting | Stage::RollingBack) {
        return Err(EngineError::Conflict(format!(
            "volume {} of pool {} is {}; ask again when that is done",
            request.name,
            request.pool,
            if volume.tags.state == Stage::Deleting {
                "being deleted"
            } else {
                "being rolled back"
            }
        )));
    }
    if volume.tags.source != request.source {
        return Err(EngineError::NameTaken(format!(
            "pool {} has a volume {} that was made of something else than was asked for",
            request.pool, request.name
        )));
    }
    if volume.tags.size != size {
        return Err(EngineError::NameTaken(format!(
            "pool {} has a volume {} of {:#}, and {size:#} were asked for",
            request.pool, request.name, volume.tags.size
        )));
    }
    Ok(())
}
