//! What the engine knows of pools and volumes: LVM's state, understood. Pure.
//!
//! Invariant: the tags on the disks are the truth and this is a copy of them, changed only after a commit to them or by
//! reading them all anew. What is known of mounts lies beside it. A pool of which nothing can be seen any more stays known
//! until the restart, so that its exports keep its clients waiting.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use cistern_host::{LvmState, RaidVolume, VolumeGroup};
use cistern_model::{Bytes, Export, Percent, Pool, PoolId, PoolName, PoolState, Volume, VolumeId, VolumeState};

use crate::adopt::tell_apart;
use crate::pool_settings::PoolSettings;
use crate::tags::{PoolTags, Stage, Unreadable, VolumeTags};

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
}

/// A volume.
#[derive(Debug, Clone)]
pub(crate) struct VolumeView {
    pub(crate) tags: VolumeTags,
    /// Whether its LV is active.
    pub(crate) active: bool,
    /// While it is being made: whether it has its export already.
    pub(crate) exported: bool,
    /// Why it cannot be served.
    pub(crate) trouble: Option<String>,
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
            // One that was being deleted and is gone has been deleted.
            if !view.pools.contains_key(id) && pool.tags.state == Stage::Ready {
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
        };
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
            match (lv.name.parse::<VolumeId>(), VolumeTags::read(&lv.tags)) {
                (Ok(volume), Ok(tags)) if lv.attributes.thin_volume => {
                    let before = old.and_then(|old| old.volumes.get(&volume));
                    let known = VolumeView {
                        tags,
                        active: lv.attributes.active,
                        exported: before.is_some_and(|v| v.exported),
                        trouble: before.and_then(|v| v.trouble.clone()),
                    };
                    pool.volumes.insert(volume, known);
                }
                (_, Err(Unreadable::Damaged(why))) => orphans.push(orphan(format!("its tags cannot be read: {why}"))),
                (_, Err(Unreadable::NotOurs)) => orphans.push(orphan("it has no volume's tags".to_owned())),
                (_, Ok(_)) => orphans.push(orphan("it has a volume's tags and is none".to_owned())),
            }
        }
        pool
    }

    fn vanished(&self) -> PoolView {
        let disks = self.tags.groups.iter().map(Vec::len).sum::<usize>() + self.tags.spares.len();
        let mut pool = self.clone();
        pool.nodes.clear();
        pool.returned.clear();
        for image in pool.raids.iter_mut().flat_map(|raid| &mut raid.images) {
            image.nodes.clear();
            image.missing = true;
        }
        pool.missing = disks.try_into().unwrap_or(u32::MAX);
        pool.active = false;
        for volume in pool.volumes.values_mut() {
            volume.active = false;
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
            used: share(self.size, self.data),
            metadata_percent: self.metadata,
            sync_percent: self.sync,
            volumes: self.volumes.len().try_into().unwrap_or(u32::MAX),
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
        let disks = self.tags.groups.iter().map(Vec::len).sum::<usize>() + self.tags.spares.len();
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
            (Stage::Deleting, _) => VolumeState::Deleting,
            (Stage::Ready, None) => VolumeState::Ready,
            (Stage::Ready, Some(_)) => VolumeState::Failed,
        }
    }

    /// Whether the NFS server is to know it.
    pub(crate) fn has_export(&self) -> bool {
        match self.tags.state {
            Stage::Ready => true,
            Stage::Creating => self.exported,
            Stage::Deleting => false,
        }
    }

    pub(crate) fn to_model(&self, id: VolumeId, pool: &PoolView, used: Option<Bytes>) -> Volume {
        Volume {
            id,
            name: self.tags.name.clone(),
            pool: pool.id,
            pool_name: pool.tags.name.clone(),
            size: self.tags.size,
            used,
            state: self.state(),
            reason: self.trouble.clone().filter(|_| self.tags.state == Stage::Ready),
            owner: self.tags.owner.clone(),
            clients: self.tags.clients.iter().copied().collect(),
            options: self.tags.options.options.clone(),
            export: Export::of(id),
            created: self.tags.created,
        }
    }
}
