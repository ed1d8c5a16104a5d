//! Spare disks: in a pool's group, with nothing on them until they take another's place. Invariant: a spare is named by a
//! tag of the group before it is joined to it, and until it has left it.

use std::time::Duration;

use cistern_host::{BlockDevice, RaidVolume, TagChange};
use cistern_model::{Bytes, DiskId, EventKind, Layers, Pool, PoolId, Principal, Severity};

use crate::EngineError;
use crate::disks::DISKS;
use crate::engine::Engine;
use crate::layers::{laying_limit, size_in};
use crate::pending::busy_with;
use crate::plan::{EXTENT, Member, Plan};
use crate::pools::{refuse_missing, refuse_unready};
use crate::tags::spare_tag;
use crate::view::PoolView;

/// The longest that a spare's coming or going may take, but for its layers.
const LIMIT: Duration = Duration::from_secs(300);

/// Whether a device can be a spare of a pool that is planned so.
pub(crate) fn judge(plan: &Plan, device: &BlockDevice, layers: Layers) -> Result<(), EngineError> {
    if plan.layout.survives() == 0 {
        return Err(EngineError::Invalid(format!(
            "layout {} keeps one copy: a spare could not be filled from another; name disk {} among the disks",
            plan.layout, device.id
        )));
    }
    let members = plan.groups.iter().flat_map(|group| &group.members);
    let taken = members.map(|member| plan.taken_on(&member.disk) - plan.reserve_on(&member.disk));
    let image = plan.groups.iter().map(|group| group.image).sum();
    fits(device, layers, taken.max().unwrap_or(0).max(image))
}

/// Whether so many extents fit on a blank device.
pub(crate) fn fits(device: &BlockDevice, layers: Layers, extents: u64) -> Result<(), EngineError> {
    let there = Member::of_size(device.id.clone(), size_in(device, layers)).extents;
    if there >= extents {
        return Ok(());
    }
    Err(EngineError::Invalid(format!(
        "disk {} is too small to take another's place: it has {} to give, and {} are needed",
        device.id,
        EXTENT.saturating_mul(there),
        EXTENT.saturating_mul(extents)
    )))
}

/// The extents that a new image of each of these volumes takes.
pub(crate) fn extents_for<'a>(raids: impl Iterator<Item = &'a RaidVolume>, extent: Bytes) -> u64 {
    raids
        .filter_map(|raid| {
            let level = raid.level?;
            let image = raid.size.get() / extent.get().max(1) / u64::from(level.data_images().max(1));
            Some(image + u64::from(level.is_raid()))
        })
        .sum()
}

impl Engine {
    /// Makes a blank disk a spare of a pool. Asked again it is one already.
    pub fn add_spare(&self, by: &Principal, pool: &str, disk: &DiskId) -> Result<Pool, EngineError> {
        let judging = self.0.operations.begin(LIMIT);
        let _disks = self.0.names.hold(DISKS.to_owned())?;
        self.read_lvm()?;
        let pool = self.visible_pool(by, pool)?;
        self.pending_on(pool.id)
            .map_or(Ok(()), |pending| Err(busy_with(&pool, &pending)))?;
        if pool.tags.spares.contains(disk) && self.disks_of(&pool).contains(disk) {
            return Ok(self.pool_model(&pool));
        }
        refuse_unready(&pool)?;
        if pool.tags.layout.survives() == 0 {
            return Err(EngineError::Invalid(format!(
                "pool {} keeps one copy: a spare could not be filled from another",
                pool.tags.name
            )));
        }
        if pool.tags.spares.contains(disk) {
            // It was to be one, and was not joined.
            self.take_label_off_left(pool.id, disk)?;
        }
        let device = self.further_device(&self.devices()?, disk)?;
        // Both volumes may have an image on one disk.
        fits(&device, pool.tags.layers, extents_for(pool.raids.iter(), pool.extent))?;
        drop(judging);
        let _joining = self.0.operations.begin(LIMIT + laying_limit(pool.tags.layers, 1));
        let (id, vg) = (pool.id, pool.vg());
        let doing = || format!("make disk {disk} a spare of pool {}", pool.tags.name);
        let noted = TagChange {
            add: vec![spare_tag(disk)],
            remove: Vec::new(),
        };
        self.change_lvm(
            id,
            doing,
            || self.0.host.lvm.tag_vg(&vg, &noted),
            |view| {
                if let Some(pool) = view.pools.get_mut(&id) {
                    pool.tags.spares.push(disk.clone());
                }
            },
        )?;
        self.join_in_layers(id, pool.tags.layers, std::slice::from_ref(&device), |laid| {
            for device in laid {
                self.change_lvm(
                    id,
                    doing,
                    || self.0.host.raids.extend_vg(&vg, device.lvm_node()),
                    |_| {},
                )?;
            }
            Ok(())
        })?;
        self.read_lvm()?;
        let message = format!("disk {disk} is a spare of pool {} now", pool.tags.name);
        self.record(
            EventKind::PoolChanged,
            Severity::Info,
            Some(id.to_string()),
            Some(by),
            message,
        );
        Ok(self.pool_model(&self.visible_pool(by, &id.to_string())?))
    }

    /// Takes a spare out of a pool; it is blank afterwards. One that is not there is only forgotten.
    pub fn remove_spare(&self, by: &Principal, pool: &str, disk: &DiskId) -> Result<Pool, EngineError> {
        let _operation = self.0.operations.begin(LIMIT);
        let _disks = self.0.names.hold(DISKS.to_owned())?;
        self.devices()?;
        self.read_lvm()?;
        let pool = self.visible_pool(by, pool)?;
        self.pending_on(pool.id)
            .map_or(Ok(()), |pending| Err(busy_with(&pool, &pending)))?;
        if !pool.tags.spares.contains(disk) {
            return Err(EngineError::NotFound {
                what: "spare",
                name: disk.to_string(),
            });
        }
        self.take_spare_out(pool.id, disk)?;
        let message = format!("disk {disk} is a spare of pool {} no more", pool.tags.name);
        let object = Some(pool.id.to_string());
        self.record(EventKind::PoolChanged, Severity::Info, object, Some(by), message);
        Ok(self.pool_model(&self.visible_pool(by, &pool.id.to_string())?))
    }

    fn take_spare_out(&self, id: PoolId, disk: &DiskId) -> Result<(), EngineError> {
        let Some(pool) = self.view().pools.get(&id).cloned() else {
            return Ok(());
        };
        let (vg, raids) = (pool.vg(), &self.0.host.raids);
        let doing = || format!("take disk {disk} out of pool {}", pool.tags.name);
        match self.node_in(&pool, disk) {
            Some(node) => {
                refuse_missing(&pool)?;
                self.strip_after(pool.tags.layers, std::slice::from_ref(disk), || {
                    self.change_lvm(id, doing, || raids.reduce_vg(&vg, &node), |_| {})
                })?;
            }
            // It was never joined, or has left.
            None if pool.missing == 0 => self.take_label_off_left(id, disk)?,
            None if pool.has_missing_image() => {
                return Err(EngineError::Unavailable(format!(
                    "pool {} lacks another disk; replace that first",
                    pool.tags.name
                )));
            }
            None => self.change_lvm(id, doing, || raids.forget_missing(&vg), |_| {})?,
        }
        let forgotten = TagChange {
            add: Vec::new(),
            remove: vec![spare_tag(disk)],
        };
        self.change_lvm(id, doing, || self.0.host.lvm.tag_vg(&vg, &forgotten), |_| {})?;
        self.devices()?;
        self.read_lvm()
    }

    /// Refuses a pool at which a job is.
    pub(crate) fn refuse_busy(&self, pool: &PoolView) -> Result<(), EngineError> {
        let pending = crate::engine::locked(&self.0.pending);
        match pending.iter().find(|pending| pending.id == pool.id) {
            Some(pending) => Err(busy_with(pool, pending)),
            None => Ok(()),
        }
    }

    /// The node of a disk that is there and in a pool's group.
    pub(crate) fn node_in(&self, pool: &PoolView, disk: &DiskId) -> Option<std::path::PathBuf> {
        let devices = crate::engine::locked(&self.0.devices);
        let device = devices.iter().find(|device| device.id == *disk)?;
        pool.nodes.iter().find(|node| *node == device.lvm_node()).cloned()
    }
}
