//! What the engine knows of pools and volumes: LVM's state, understood. Pure.
//!
//! Invariant: the tags on the disks are the truth and this is a copy of them, changed only after a commit to them or by
//! reading them all anew. What is known of mounts lies beside it. A pool of which nothing can be seen any more stays known
//! until the restart, so that its exports keep its clients waiting.

mod model;
mod read;
mod shared;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use cistern_host::{PhysicalVolume, RaidVolume};
use cistern_model::{Bytes, Inodes, Owner, Percent, PoolId, PoolName, PoolState, SnapshotId, VolumeId, VolumeState};
use jiff::{SignedDuration, Timestamp};

use crate::fill::Between;
use crate::pool_settings::PoolSettings;
use crate::tags::{PoolTags, SnapshotTags, Stage, VolumeTags};

pub(crate) use shared::{Look, SharedView};

pub use shared::views_taken_twice;

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
    /// Whether it was seen to lack data while the kernel had it, which does not use what came back.
    pub(crate) broken: bool,
    pub(crate) data: Percent,
    pub(crate) metadata: Percent,
    pub(crate) sync: Percent,
    pub(crate) settings: PoolSettings,
    /// What only snapshots and trash hold, as last measured.
    pub(crate) beside: Between,
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

impl PoolView {
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
            Stage::Ready if !self.active || self.broken => PoolState::Incomplete,
            Stage::Ready if !self.has_all_data() => PoolState::Incomplete,
            Stage::Ready if self.missing == 0 && self.whole() => PoolState::Ready,
            Stage::Ready => PoolState::Degraded,
            // No pool's.
            Stage::RollingBack | Stage::Trash => PoolState::Incomplete,
        }
    }

    /// The kernel has nothing of it any more.
    pub(crate) fn taken_down(&mut self) {
        self.active = false;
        for volume in self.volumes.values_mut().chain(self.trash.values_mut()) {
            volume.active = false;
        }
        self.snapshots.values_mut().for_each(|snapshot| snapshot.active = false);
    }

    /// Whether enough images of its data and of its metadata are there.
    pub(crate) fn has_all_data(&self) -> bool {
        self.raids.iter().all(RaidVolume::has_all_data)
    }

    /// Whether enough of these images are there and in use by the kernel.
    pub(crate) fn has_all_data_in_use(&self) -> bool {
        self.raids.iter().all(RaidVolume::has_all_data_in_use)
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

    /// The nodes of disks with an image that the kernel does not fill to its end.
    pub(crate) fn stalled_nodes(&self) -> BTreeSet<PathBuf> {
        let images = self.raids.iter().flat_map(|raid| &raid.images);
        images
            .filter(|image| image.stalled)
            .flat_map(|image| image.nodes.clone())
            .collect()
    }

    /// Both: whose images the kernel is to be asked to use, or to fill.
    pub(crate) fn unused_nodes(&self) -> BTreeSet<PathBuf> {
        self.failed_nodes().union(&self.stalled_nodes()).cloned().collect()
    }

    /// Whose a snapshot of it is: its volume's owner's, while that is there or in the trash; else whose it was when that went.
    pub(crate) fn owner_of<'a>(&'a self, snapshot: &'a SnapshotView) -> &'a Owner {
        let id = snapshot.tags.volume;
        let volume = self.volumes.get(&id).or_else(|| self.trash.get(&id));
        volume.map_or(&snapshot.tags.owner, |volume| &volume.tags.owner)
    }

    /// Says which disks are missing, as far as that can be said by their number.
    pub(crate) fn missing_reason(&self) -> Option<String> {
        let disks = self.tags.all_groups().iter().map(Vec::len).sum::<usize>() + self.tags.spares.len();
        (self.missing > 0).then(|| format!("{} of its {disks} disks cannot be found", self.missing))
    }
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
}
