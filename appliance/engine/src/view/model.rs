//! What the API tells of pools, volumes and snapshots, made of what is known of them.

use cistern_host::ThinSize;
use cistern_model::{
    Bytes, Export, Percent, Pool, PoolState, Snapshot, SnapshotId, SnapshotState, TrashedVolume, Volume, VolumeId,
};

use super::{Filled, PoolView, SnapshotView, VolumeView};
use crate::tags::Stage;

impl PoolView {
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
            snapshots_used: self.beside.least,
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
}

/// That share of a size.
fn share(whole: Bytes, part: Percent) -> Bytes {
    let hundredths = (f64::from(part) * 100.0).round() as u128;
    let bytes = u128::from(whole.get()) * hundredths / 10_000;
    Bytes::new(u64::try_from(bytes).unwrap_or(u64::MAX))
}

impl VolumeView {
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
            nodes: self.tags.published_nodes(),
            options: self.tags.options.options.clone(),
            export: Export::of(id),
            created: self.tags.created,
        }
    }

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

impl SnapshotView {
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
            owner: pool.owner_of(self).clone(),
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
