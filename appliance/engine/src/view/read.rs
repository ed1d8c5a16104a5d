//! LVM's state, understood: which group is a pool, which LV a volume or a snapshot, and what cannot be explained.

use std::collections::BTreeMap;

use cistern_host::{LogicalVolume, LvmState, VolumeGroup};
use cistern_model::{Bytes, Percent, PoolId, SnapshotId, VolumeId};

use super::{Copied, DATA, METADATA, Orphan, PoolView, SnapshotView, View, VolumeView};
use crate::adopt::tell_apart;
use crate::pool_settings::PoolSettings;
use crate::tags::{PoolTags, Rollback, SnapshotTags, Stage, Unreadable, VolumeTags};

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
}

/// The volume that an LV of this name is to replace.
fn copy_of(name: &str) -> Option<VolumeId> {
    let hex = name.strip_prefix("next-")?;
    format!("vol-{hex}").parse().ok()
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
            broken: false,
            data: Percent::default(),
            metadata: Percent::default(),
            sync: Percent::FULL,
            settings: PoolSettings::read(&vg.tags),
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
        let held = pool.active || old.is_some_and(|old| old.active);
        pool.broken = old.is_some_and(|old| old.broken) || held && !pool.has_all_data();
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
        pool.broken |= self.active;
        pool.taken_down();
        pool
    }
}
