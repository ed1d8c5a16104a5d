//! What the engine knows of pools and volumes: LVM's state, understood. Pure.
//!
//! Invariant: the tags on the disks are the truth and this is a copy of them, changed only after a commit to them or by
//! reading them all anew. What is known of mounts lies beside it. A pool of which nothing can be seen any more stays known
//! until the restart, so that its exports keep its clients waiting.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use cistern_host::{LogicalVolume, LvmState, PhysicalVolume, RaidVolume, ThinSize, VolumeGroup};
use cistern_model::{
    Bytes, Export, Inodes, Percent, Pool, PoolId, PoolName, PoolState, Snapshot, SnapshotId, SnapshotState,
    TrashedVolume, Volume, VolumeId, VolumeState,
};
use jiff::{SignedDuration, Timestamp};

use crate::adopt::tell_apart;
use crate::pool_settings::PoolSettings;
use crate::tags::{PoolTags, Rollback, SnapshotTags, Stage, Unreadable, VolumeTags};

/// The thin pool in each group, which is also its data before it is one.
pub(crate) const DATA: &str = "data";
/// Its metadata, before it is one.
pub(crate) const METADATA: &str = "meta";

/// All pools that are this machine's.
#[derive(Debug, Clone, Default)]
pub(crate) struct View {
    pub(crate) pools: BTreeMap<PoolId, PoolView>,
}

/// A pool.
#[derive(Debug, Clone)]
pub(crate) struct PoolView {
    pub(crate) id: PoolId,
    pub(crate) tags: PoolTags,
    /// The nodes of its disks that are there.
    pub(crate) nodes: Vec<PathBuf>,
    /// The same as LVM knows them, those that are missing too.
    pub(crate) members: Vec<PhysicalVolume>,
    pub(crate) missing: u32,
    /// The nodes of disks that are there again and still count as missing.
    pub(crate) returned: Vec<PathBuf>,
    /// What its thin pool lies on.
    pub(crate) raids: Vec<RaidVolume>,
    pub(crate) extent: Bytes,
    /// The thin pool's size; zero until there is one.
    pub(crate) size: Bytes,
    /// Whether the thin pool is active.
    pub(crate) active: bool,
    pub(crate) data: Percent,
    pub(crate) metadata: Percent,
    pub(crate) sync: Percent,
    pub(crate) settings: PoolSettings,
    /// What is not allocated of the disks that hold something: a spare is no room.
    pub(crate) free: Bytes,
    /// What only snapshots and trash hold, as last measured.
    pub(crate) beside: Bytes,
    /// Whether it is just being given up.
    pub(crate) releasing: bool,
    /// Why it is not as it should be, as the last reconcile found.
    pub(crate) trouble: Option<String>,
    pub(crate) volumes: BTreeMap<VolumeId, VolumeView>,
    pub(crate) snapshots: BTreeMap<SnapshotId, SnapshotView>,
    /// Deleted volumes, which are no volumes to anybody else.
    pub(crate) trash: BTreeMap<VolumeId, VolumeView>,
}

/// A volume.
#[derive(Debug, Clone)]
pub(crate) struct VolumeView {
    pub(crate) tags: VolumeTags,
    /// The bytes of its LV.
    pub(crate) device: Bytes,
    /// Whether its LV is active.
    pub(crate) active: bool,
    /// While it is being made: whether it has its export already.
    pub(crate) exported: bool,
    /// Why it cannot be served.
    pub(crate) trouble: Option<String>,
    /// While it is rolled back: where what it is to hold lies.
    pub(crate) copy: Copied,
}

/// Where the copy lies that a volume is replaced by while it is rolled back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Copied {
    /// There is none.
    No,
    /// Beside the volume, under a name of its own.
    Beside,
    /// Under that name, and the volume's own LV is gone.
    Alone,
}

/// A snapshot.
#[derive(Debug, Clone)]
pub(crate) struct SnapshotView {
    pub(crate) tags: SnapshotTags,
    /// The bytes of its LV.
    pub(crate) device: Bytes,
    /// Whether its LV is active.
    pub(crate) active: bool,
    /// Why it cannot be served.
    pub(crate) trouble: Option<String>,
}

/// The name of the LV that a volume is replaced by while it is rolled back.
pub(crate) fn copy_name(id: VolumeId) -> String {
    format!("next-{}", id.uuid().simple())
}

/// The volume that an LV of this name is to replace.
fn copy_of(name: &str) -> Option<VolumeId> {
    let hex = name.strip_prefix("next-")?;
    format!("vol-{hex}").parse().ok()
}

/// What a mounted filesystem says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Filled {
    pub(crate) used: Bytes,
    pub(crate) inodes: Inodes,
}

/// Something that cannot be explained.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Orphan {
    pub(crate) object: String,
    pub(crate) why: String,
}

impl View {
    /// Understands LVM's state; `old` gives what LVM does not know.
    pub(crate) fn read(state: &LvmState, old: &View) -> (View, Vec<Orphan>) {
        let mut orphans = Vec::new();
        let mut view = View::default();
        for vg in state.vgs.iter().filter(|vg| vg.ours) {
            match identify(vg) {
                Ok(Some((id, tags))) => {
                    let pool = PoolView::read(id, tags, vg, state, old.pools.get(&id), &mut orphans);
                    view.pools.insert(id, pool);
                }
                Ok(None) => {}
                Err(why) => orphans.push(Orphan {
                    object: vg.name.clone(),
                    why,
                }),
            }
        }
        for (id, pool) in &old.pools {
            // One that was being deleted and is gone has been deleted; one that is nobody's or another's now was released.
            let released = state.vgs.iter().any(|vg| !vg.ours && vg.name == pool.vg());
            if !view.pools.contains_key(id) && pool.tags.state == Stage::Ready && !released {
                view.pools.insert(*id, pool.vanished());
            }
        }
        tell_apart(&mut view, old);
        (view, orphans)
    }

    /// A pool by its name or id.
    pub(crate) fn pool(&self, name_or_id: &str) -> Option<&PoolView> {
        match name_or_id.parse::<PoolId>() {
            Ok(id) => self.pools.get(&id),
            Err(_) => self.pools.values().find(|pool| pool.tags.name.as_str() == name_or_id),
        }
    }

    pub(crate) fn pool_named(&self, name: &PoolName) -> Option<&PoolView> {
        self.pools.values().find(|pool| pool.tags.name == *name)
    }

    /// A volume and its pool.
    pub(crate) fn volume(&self, id: VolumeId) -> Option<(&PoolView, &VolumeView)> {
        let pool = self.pools.values().find(|pool| pool.volumes.contains_key(&id))?;
        Some((pool, pool.volumes.get(&id)?))
    }

    /// A deleted volume and its pool.
    pub(crate) fn trashed(&self, id: VolumeId) -> Option<(&PoolView, &VolumeView)> {
        let pool = self.pools.values().find(|pool| pool.trash.contains_key(&id))?;
        Some((pool, pool.trash.get(&id)?))
    }

    /// A snapshot and its pool.
    pub(crate) fn snapshot(&self, id: SnapshotId) -> Option<(&PoolView, &SnapshotView)> {
        let pool = self.pools.values().find(|pool| pool.snapshots.contains_key(&id))?;
        Some((pool, pool.snapshots.get(&id)?))
    }

    pub(crate) fn snapshot_mut(&mut self, id: SnapshotId) -> Option<&mut SnapshotView> {
        self.pools.values_mut().find_map(|pool| pool.snapshots.get_mut(&id))
    }

    pub(crate) fn volume_mut(&mut self, id: VolumeId) -> Option<&mut VolumeView> {
        self.pools.values_mut().find_map(|pool| pool.volumes.get_mut(&id))
    }
}

/// Which pool a group of ours is: none if it has nothing to do with Cistern, or why that cannot be said.
fn identify(vg: &VolumeGroup) -> Result<Option<(PoolId, PoolTags)>, String> {
    let id = vg.name.parse::<PoolId>();
    match (id, PoolTags::read(&vg.tags)) {
        (Ok(id), Ok(tags)) => Ok(Some((id, tags))),
        (Err(_), Err(Unreadable::NotOurs)) => Ok(None),
        (Ok(_), Err(Unreadable::NotOurs)) => Err("it has a pool's name and no pool's tags".to_owned()),
        (_, Err(Unreadable::Damaged(why))) => Err(format!("its tags cannot be read: {why}")),
        (Err(_), Ok(_)) => Err("it has a pool's tags and is not named as one".to_owned()),
    }
}

/// What a logical volume in a pool is.
enum Thing {
    Volume(VolumeId, VolumeTags),
    /// What a volume is replaced by while it is rolled back.
    Copy(VolumeId, VolumeTags),
    Snapshot(SnapshotId, SnapshotTags),
}

impl Thing {
    /// The error says why it is none of these.
    fn read(lv: &LogicalVolume) -> Result<Thing, String> {
        let (name, thin) = (lv.name.as_str(), lv.attributes.thin_volume);
        match (VolumeTags::read(&lv.tags), SnapshotTags::read(&lv.tags)) {
            (Ok(tags), _) => match (name.parse(), copy_of(name)) {
                (Ok(id), _) if thin => Ok(Thing::Volume(id, tags)),
                (_, Some(id)) if thin && tags.rollback == Some(Rollback::Done) => Ok(Thing::Copy(id, tags)),
                _ => Err("it has a volume's tags and is none".to_owned()),
            },
            (Err(Unreadable::NotOurs), Ok(tags)) => match name.parse() {
                Ok(id) if thin => Ok(Thing::Snapshot(id, tags)),
                _ => Err("it has a snapshot's tags and is none".to_owned()),
            },
            (Err(Unreadable::Damaged(why)), _) | (_, Err(Unreadable::Damaged(why))) => {
                Err(format!("its tags cannot be read: {why}"))
            }
            (Err(Unreadable::NotOurs), Err(Unreadable::NotOurs)) => Err("it has no volume's tags".to_owned()),
        }
    }
}

impl PoolView {
    fn read(
        id: PoolId,
        tags: PoolTags,
        vg: &VolumeGroup,
        state: &LvmState,
        old: Option<&PoolView>,
        orphans: &mut Vec<Orphan>,
    ) -> PoolView {
        let in_group = |name: &Option<String>| name.as_deref() == Some(vg.name.as_str());
        let mut pool = PoolView {
            id,
            tags,
            nodes: state
                .pvs
                .iter()
                .filter(|pv| in_group(&pv.vg))
                .filter_map(|pv| pv.node.clone())
                .collect(),
            members: state.pvs.iter().filter(|pv| in_group(&pv.vg)).cloned().collect(),
            missing: vg.missing,
            returned: state
                .pvs
                .iter()
                .filter(|pv| in_group(&pv.vg))
                .filter_map(|pv| pv.returned.clone())
                .collect(),
            raids: state.raids.iter().filter(|raid| raid.vg == vg.name).cloned().collect(),
            extent: vg.extent,
            size: Bytes::ZERO,
            active: false,
            data: Percent::default(),
            metadata: Percent::default(),
            sync: Percent::FULL,
            settings: PoolSettings::read(&vg.tags),
            free: taken_disks_free(state, &vg.name),
            beside: old.map(|old| old.beside).unwrap_or_default(),
            releasing: old.is_some_and(|old| old.releasing),
            trouble: old.and_then(|old| old.trouble.clone()),
            volumes: BTreeMap::new(),
            snapshots: BTreeMap::new(),
            trash: BTreeMap::new(),
        };
        let mut copies = Vec::new();
        for lv in state.lvs.iter().filter(|lv| lv.vg == vg.name) {
            let orphan = |why: String| Orphan {
                object: format!("{}/{}", vg.name, lv.name),
                why,
            };
            if lv.name == DATA || lv.name == METADATA {
                if lv.attributes.thin_pool {
                    pool.size = lv.size;
                    pool.active = lv.attributes.active;
                    pool.data = lv.data_percent.unwrap_or_default();
                    pool.metadata = lv.metadata_percent.unwrap_or_default();
                    pool.sync = lv.sync_percent.unwrap_or(Percent::FULL);
                }
                continue;
            }
            let volume = |id: VolumeId, tags: VolumeTags, copy: Copied| {
                let before = old.and_then(|old| old.volumes.get(&id));
                VolumeView {
                    tags,
                    device: lv.size,
                    active: lv.attributes.active,
                    exported: before.is_some_and(|v| v.exported),
                    trouble: before.and_then(|v| v.trouble.clone()),
                    copy,
                }
            };
            match Thing::read(lv) {
                Ok(Thing::Volume(id, tags)) if tags.state == Stage::Trash => {
                    pool.trash.insert(id, volume(id, tags, Copied::No));
                }
                Ok(Thing::Volume(id, tags)) => {
                    pool.volumes.insert(id, volume(id, tags, Copied::No));
                }
                Ok(Thing::Copy(id, tags)) => copies.push((id, volume(id, tags, Copied::Alone))),
                Ok(Thing::Snapshot(id, tags)) => {
                    let before = old.and_then(|old| old.snapshots.get(&id));
                    let known = SnapshotView {
                        tags,
                        device: lv.size,
                        active: lv.attributes.active,
                        trouble: before.and_then(|s| s.trouble.clone()),
                    };
                    pool.snapshots.insert(id, known);
                }
                Err(why) => orphans.push(orphan(why)),
            }
        }
        for (id, copy) in copies {
            match pool.volumes.get_mut(&id) {
                Some(volume) => volume.copy = Copied::Beside,
                None => {
                    pool.volumes.insert(id, copy);
                }
            }
        }
        pool
    }

    fn vanished(&self) -> PoolView {
        let disks = self.tags.groups.iter().map(Vec::len).sum::<usize>() + self.tags.spares.len();
        let mut pool = self.clone();
        pool.nodes.clear();
        pool.members.clear();
        pool.returned.clear();
        for image in pool.raids.iter_mut().flat_map(|raid| &mut raid.images) {
            image.nodes.clear();
            image.missing = true;
        }
        pool.missing = disks.try_into().unwrap_or(u32::MAX);
        pool.active = false;
        for volume in pool.volumes.values_mut().chain(pool.trash.values_mut()) {
            volume.active = false;
        }
        for snapshot in pool.snapshots.values_mut() {
            snapshot.active = false;
        }
        pool
    }

    /// Its volume group.
    pub(crate) fn vg(&self) -> String {
        self.id.to_string()
    }

    /// What a volume of this size takes of the pool.
    pub(crate) fn taken_by(&self, size: Bytes) -> Bytes {
        size.round_up(self.extent)
    }

    /// What is promised to its volumes.
    pub(crate) fn promised(&self) -> Bytes {
        self.volumes.values().map(|v| self.taken_by(v.tags.size)).sum()
    }

    /// What may be promised in all; `overcommit_percent` is for a pool of which nothing else was said.
    pub(crate) fn promisable(&self, overcommit_percent: u32) -> Bytes {
        let size = self.size.saturating_sub(self.reserve());
        let bytes = u128::from(size.get()) * u128::from(self.overcommit(overcommit_percent)) / 100;
        Bytes::new(u64::try_from(bytes).unwrap_or(u64::MAX)).round_down(self.extent)
    }

    /// What a new volume can take at most.
    pub(crate) fn available(&self, overcommit_percent: u32) -> Bytes {
        self.promisable(overcommit_percent).saturating_sub(self.promised())
    }

    /// How it is.
    pub(crate) fn state(&self) -> PoolState {
        match self.tags.state {
            Stage::Creating => PoolState::Creating,
            Stage::Deleting => PoolState::Deleting,
            Stage::Ready if !self.active => PoolState::Incomplete,
            Stage::Ready if !self.has_all_data() => PoolState::Incomplete,
            Stage::Ready if self.missing == 0 && self.whole() => PoolState::Ready,
            Stage::Ready => PoolState::Degraded,
            // No pool's.
            Stage::RollingBack | Stage::Trash => PoolState::Incomplete,
        }
    }

    /// Whether enough images of its data and of its metadata are there.
    pub(crate) fn has_all_data(&self) -> bool {
        self.raids.iter().all(RaidVolume::has_all_data)
    }

    /// Whether every image is there and in use.
    pub(crate) fn whole(&self) -> bool {
        self.raids.iter().all(RaidVolume::whole)
    }

    /// Whether an image lies on a disk that is missing.
    pub(crate) fn has_missing_image(&self) -> bool {
        self.raids
            .iter()
            .flat_map(|raid| &raid.images)
            .any(|image| image.missing)
    }

    /// The nodes of disks that are there, and of which the kernel does not use an image.
    pub(crate) fn failed_nodes(&self) -> BTreeSet<PathBuf> {
        let images = self.raids.iter().flat_map(|raid| &raid.images);
        images
            .filter(|image| image.failed)
            .flat_map(|image| image.nodes.clone())
            .collect()
    }

    pub(crate) fn to_model(&self, disks: Vec<cistern_model::DiskId>, overcommit_percent: u32) -> Pool {
        let state = self.state();
        let reason = match state {
            PoolState::Ready => None,
            PoolState::Creating | PoolState::Deleting | PoolState::Degraded | PoolState::Incomplete => {
                self.trouble.clone().or_else(|| self.missing_reason())
            }
        };
        Pool {
            id: self.id,
            name: self.tags.name.clone(),
            layout: self.tags.layout,
            layers: self.tags.layers,
            state,
            reason,
            missing_disks: self.missing,
            size: self.size,
            promised: self.promised(),
            available: match state {
                PoolState::Ready => self.available(overcommit_percent),
                PoolState::Creating | PoolState::Deleting | PoolState::Degraded | PoolState::Incomplete => Bytes::ZERO,
            },
            overcommit_percent: self.overcommit(overcommit_percent),
            reserve: self.reserve(),
            snapshots_used: self.beside,
            growable: Bytes::ZERO,
            used: share(self.size, self.data),
            metadata_percent: self.metadata,
            sync_percent: self.sync,
            volumes: self.volumes.len().try_into().unwrap_or(u32::MAX),
            snapshots: self.snapshots.len().try_into().unwrap_or(u32::MAX),
            trashed: self.trash.len().try_into().unwrap_or(u32::MAX),
            trash_seconds: self.tags.trash_seconds,
            scrub: self.settings.scrub_every(self.tags.layout),
            last_scrub: self.settings.last_scrub,
            spares: disks
                .iter()
                .filter(|disk| self.tags.spares.contains(disk))
                .cloned()
                .collect(),
            disks: disks
                .into_iter()
                .filter(|disk| !self.tags.spares.contains(disk))
                .collect(),
        }
    }

    /// Says which disks are missing, as far as that can be said by their number.
    pub(crate) fn missing_reason(&self) -> Option<String> {
        let disks = self.tags.all_groups().iter().map(Vec::len).sum::<usize>() + self.tags.spares.len();
        (self.missing > 0).then(|| format!("{} of its {disks} disks cannot be found", self.missing))
    }
}

/// What is free on those of a group's disks on which something lies.
fn taken_disks_free(state: &LvmState, vg: &str) -> Bytes {
    let members = state.pvs.iter().filter(|pv| pv.vg.as_deref() == Some(vg));
    members.filter(|pv| pv.free < pv.size).map(|pv| pv.free).sum()
}

/// That share of a size.
fn share(whole: Bytes, part: Percent) -> Bytes {
    let hundredths = (f64::from(part) * 100.0).round() as u128;
    let bytes = u128::from(whole.get()) * hundredths / 10_000;
    Bytes::new(u64::try_from(bytes).unwrap_or(u64::MAX))
}

impl VolumeView {
    /// How it is.
    pub(crate) fn state(&self) -> VolumeState {
        match (self.tags.state, &self.trouble) {
            (Stage::Creating, _) => VolumeState::Creating,
            (Stage::Deleting | Stage::Trash, _) => VolumeState::Deleting,
            (Stage::RollingBack, _) => VolumeState::RollingBack,
            (Stage::Ready, None) => VolumeState::Ready,
            (Stage::Ready, Some(_)) => VolumeState::Failed,
        }
    }

    /// Whether the NFS server is to know it.
    pub(crate) fn has_export(&self) -> bool {
        match self.tags.state {
            Stage::Ready => true,
            Stage::Creating | Stage::RollingBack => self.exported,
            Stage::Deleting | Stage::Trash => false,
        }
    }

    pub(crate) fn to_model(&self, id: VolumeId, pool: &PoolView, filled: Option<Filled>) -> Volume {
        Volume {
            id,
            name: self.tags.name.clone(),
            pool: pool.id,
            pool_name: pool.tags.name.clone(),
            size: self.tags.size,
            used: filled.map(|filled| filled.used),
            inodes: filled.map(|filled| filled.inodes),
            state: self.state(),
            reason: self.trouble.clone().filter(|_| self.tags.state == Stage::Ready),
            owner: self.tags.owner.clone(),
            labels: self.tags.labels.clone(),
            schedule: self.tags.schedule,
            source: self.tags.source,
            clients: self.tags.clients.iter().copied().collect(),
            options: self.tags.options.options.clone(),
            export: Export::of(id),
            created: self.tags.created,
        }
    }
}

impl VolumeView {
    /// A volume in the trash.
    pub(crate) fn to_trashed(&self, id: VolumeId, pool: &PoolView) -> TrashedVolume {
        let deleted = self.tags.deleted.unwrap_or(self.tags.created);
        TrashedVolume {
            id,
            name: self.tags.name.clone(),
            pool: pool.id,
            pool_name: pool.tags.name.clone(),
            size: self.tags.size,
            owner: self.tags.owner.clone(),
            labels: self.tags.labels.clone(),
            created: self.tags.created,
            deleted,
            purged: pool.purged_at(deleted),
        }
    }
}

impl PoolView {
    /// When what was deleted then is gone for good.
    pub(crate) fn purged_at(&self, deleted: Timestamp) -> Timestamp {
        let stay = SignedDuration::from_secs(i64::from(self.tags.trash_seconds));
        deleted.checked_add(stay).unwrap_or(Timestamp::MAX)
    }
}

impl SnapshotView {
    /// Whether it may go when space is short: a schedule made it, and nobody reads it.
    pub(crate) fn can_be_shed(&self) -> bool {
        !self.tags.scheduled.is_empty() && self.tags.state == Stage::Ready && self.tags.clients.is_empty()
    }

    /// Whether the NFS server is to know it.
    pub(crate) fn has_export(&self) -> bool {
        self.tags.state == Stage::Ready && !self.tags.clients.is_empty()
    }

    pub(crate) fn to_model(&self, id: SnapshotId, pool: &PoolView, size: Option<ThinSize>) -> Snapshot {
        let volume = self.tags.volume;
        Snapshot {
            id,
            name: self.tags.name.clone(),
            pool: pool.id,
            pool_name: pool.tags.name.clone(),
            volume,
            volume_name: self.tags.volume_name.clone(),
            volume_exists: pool.volumes.contains_key(&volume) || pool.trash.contains_key(&volume),
            size: self.tags.size,
            state: match self.tags.state {
                Stage::Creating => SnapshotState::Creating,
                Stage::Ready => SnapshotState::Ready,
                Stage::Deleting | Stage::RollingBack | Stage::Trash => SnapshotState::Deleting,
            },
            reason: self.trouble.clone(),
            owner: self.tags.owner.clone(),
            created: self.tags.created,
            scheduled: self.tags.scheduled.iter().copied().collect(),
            group: self.tags.group,
            clients: self.tags.clients.iter().copied().collect(),
            export: self.has_export().then(|| Export::of_snapshot(id)),
            referenced: size.map(|size| size.mapped),
            exclusive: size.map(|size| size.exclusive),
        }
    }
}
