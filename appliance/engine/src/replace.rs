//! A disk in the place of another: asked for, or a spare by itself (`mending`). Invariant: what is going on stands in the group's tags
//! before anything is moved; each step can be repeated; the pool is served all the while.
//!
//! The new disk gets an image of its own of whatever has one on the old disk, filled from the others. An old disk that is
//! there is not used from the moment in which its image is replaced: so nothing is begun while the others are not whole.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cistern_host::{RaidLevel, RaidVolume, SyncAction, TagChange};
use cistern_model::{DiskId, EventKind, Job, JobKind, Percent, PoolId, PoolState, Principal, ReplaceRequest, Severity};

use crate::EngineError;
use crate::disks::DISKS;
use crate::engine::{Engine, locked};
use crate::error::Doing as _;
use crate::pool_steps::Progress;
use crate::pools::{no_pool, power_lost};
use crate::spares::{extents_for, fits};
use crate::tags::{draining_tag, replacing_tags};
use crate::view::{DATA, PoolView};

/// The longest that filling the largest disks may take.
const LIMIT: Duration = Duration::from_secs(30 * 24 * 3600);
/// How often it is said how far it is.
const PACE: Duration = Duration::from_secs(2);
/// How often in a row an image must be seen not to be filled any more: for a moment that is so whenever the kernel begins.
const STALLED: u32 = 5;

impl Engine {
    /// Begins to put a disk in the place of another one of a pool, which may be missing. Asked again it is the same job.
    pub fn replace_disk(&self, by: &Principal, pool: &str, request: &ReplaceRequest) -> Result<Job, EngineError> {
        let _operation = self.0.operations.begin(Duration::from_secs(300));
        let _disks = self.0.names.hold(DISKS.to_owned())?;
        let devices = self.devices()?;
        self.read_lvm()?;
        let pool = self.visible_pool(by, pool)?;
        let ReplaceRequest { old, new } = request;
        let same = pool.tags.replacing == Some((old.clone(), new.clone()));
        match self.pending_on(pool.id) {
            Some(pending) if same && pending.kind == JobKind::ReplaceDisk => return self.job_now(pending.job),
            Some(pending) => return Err(crate::pending::busy_with(&pool, &pending)),
            None if same => return Ok(self.begin_replacement(by, &pool, old, new)),
            None => {}
        }
        self.judge_replacement(&pool, old)?;
        let spare = pool.tags.spares.contains(new) && self.node_in(&pool, new).is_some();
        if old == new {
            return Err(EngineError::Invalid(format!("disk {old} cannot take its own place")));
        }
        let device = match spare {
            true => devices.iter().find(|device| device.id == *new).cloned(),
            false => Some(self.further_device(&devices, new)?),
        };
        if let Some(device) = device {
            fits(&device, pool.tags.layers, self.extents_on(&pool, old))?;
        }
        self.note_replacement(&pool, old, new)?;
        Ok(self.begin_replacement(by, &pool, old, new))
    }

    pub(crate) fn is_there(&self, disk: &DiskId) -> bool {
        locked(&self.0.devices).iter().any(|device| device.id == *disk)
    }

    /// The volumes that have an image on a disk, or lack one if it is not there.
    fn on_disk<'a>(&self, pool: &'a PoolView, node: Option<&Path>) -> Vec<&'a RaidVolume> {
        let here = |raid: &&RaidVolume| match node {
            Some(node) => raid.images.iter().any(|image| image.nodes.iter().any(|n| n == node)),
            None => raid.images.iter().any(|image| image.missing),
        };
        pool.raids.iter().filter(here).collect()
    }

    pub(crate) fn extents_on(&self, pool: &PoolView, disk: &DiskId) -> u64 {
        let node = self.node_in(pool, disk);
        // Where there is one copy, only what lies on the disk itself is moved.
        if pool.tags.layout.survives() == 0 {
            let taken = node.as_ref().and_then(|node| pool.extents_of(node));
            return taken.map_or(0, |(_, taken)| taken);
        }
        extents_for(self.on_disk(pool, node.as_deref()).into_iter(), pool.extent)
    }

    /// Whether a disk's place can be taken now.
    pub(crate) fn judge_replacement(&self, pool: &PoolView, old: &DiskId) -> Result<(), EngineError> {
        let name = &pool.tags.name;
        if !pool.tags.groups.iter().flatten().any(|disk| disk == old) {
            return Err(EngineError::NotFound {
                what: "disk of this pool",
                name: old.to_string(),
            });
        }
        match pool.state() {
            PoolState::Ready | PoolState::Degraded => {}
            PoolState::Creating | PoolState::Deleting => {
                return Err(EngineError::Conflict(format!("pool {name} is being made or deleted")));
            }
            PoolState::Incomplete => {
                return Err(EngineError::Unavailable(format!(
                    "pool {name} is not served: a new disk could not be filled; bring its disks back first"
                )));
            }
        }
        if let Some((going, coming)) = &pool.tags.replacing {
            return Err(EngineError::Conflict(format!(
                "in pool {name} disk {coming} is taking the place of {going}; ask again when that is done"
            )));
        }
        let node = self.node_in(pool, old);
        if node.is_some() && pool.missing > 0 {
            return Err(EngineError::Unavailable(format!(
                "pool {name} lacks another disk; replace that one first"
            )));
        }
        if node.is_some() {
            refuse_leaving(pool, old)?;
        }
        let moved = |raid: &RaidVolume| node.is_some() && raid.level == Some(RaidLevel::Linear) && raid.whole();
        for raid in self.on_disk(pool, node.as_deref()) {
            if moved(raid) {
                continue;
            }
            let enough = match &node {
                Some(node) => raid.has_all_data_without(node),
                None => raid.has_all_data(),
            };
            if !enough {
                return Err(EngineError::Conflict(format!(
                    "pool {name} has no other copy of what lies on disk {old}; with layout {} a disk cannot be replaced, \
                     or its other copies are not whole",
                    pool.tags.layout
                )));
            }
        }
        Ok(())
    }

    pub(crate) fn note_replacement(&self, pool: &PoolView, old: &DiskId, new: &DiskId) -> Result<(), EngineError> {
        let noted = TagChange {
            add: replacing_tags(old, new).into(),
            remove: Vec::new(),
        };
        let (id, pair) = (pool.id, (old.clone(), new.clone()));
        self.change_lvm(
            id,
            || format!("note what takes the place of disk {old}"),
            || self.0.host.lvm.tag_vg(&pool.vg(), &noted),
            |view| {
                if let Some(pool) = view.pools.get_mut(&id) {
                    pool.tags.replacing = Some(pair);
                }
            },
        )
    }

    pub(crate) fn begin_replacement(&self, by: &Principal, pool: &PoolView, old: &DiskId, new: &DiskId) -> Job {
        let disks = vec![old.clone(), new.clone()];
        let job = self.begin_job(
            by,
            JobKind::ReplaceDisk,
            &pool.tags.name,
            pool.tags.layout,
            disks,
            pool.id,
        );
        let (engine, by, id) = (self.clone(), by.clone(), pool.id);
        let (old, new, name) = (old.clone(), new.clone(), pool.tags.name.clone());
        self.run_long_job(job.id, LIMIT, move |progress| {
            engine.finish_replacement(id, &old, &new, progress)?;
            let message = format!("disk {new} has taken the place of {old} in pool {name}");
            engine.record(
                EventKind::PoolChanged,
                Severity::Info,
                Some(id.to_string()),
                Some(&by),
                message,
            );
            Ok(())
        });
        job
    }

    /// Goes on from whatever step it has reached, to its end.
    fn finish_replacement(
        &self,
        id: PoolId,
        old: &DiskId,
        new: &DiskId,
        progress: &Progress<'_>,
    ) -> Result<(), EngineError> {
        const TOTAL: usize = 100;
        let (vg, raids) = (id.to_string(), &self.0.host.raids);
        let doing = || format!("put disk {new} in the place of {old}");
        progress.step(0, TOTAL, "joining the new disk");
        let fresh = self.fresh(id)?;
        let mut pool = self.without_erring(fresh)?;
        self.refuse_lost(&pool, old)?;
        let node = self.node_of(new)?;
        if !pool.nodes.contains(&node) {
            self.join_one(&pool, new)?;
            pool = self.fresh(id)?;
        }
        let node = self.node_of(new)?;
        // One that came back meanwhile is to be known by its node.
        for back in pool.returned.clone() {
            match self.change_lvm(id, doing, || raids.restore_pv(&vg, &back), |_| {}) {
                Ok(()) => {}
                Err(error) if power_lost(&error) => return Err(error),
                // One that cannot be written to is gone all the same.
                Err(_) => self.shun(&pool, &BTreeSet::from([back]))?,
            }
        }
        // The metadata first: it is soon done, and all else depends on it.
        for part in ["data_tmeta", "data_tdata"] {
            pool = self.fresh(id)?;
            let going = self.node_in(&pool, old);
            let affected = self.on_disk(&pool, going.as_deref());
            let linear = |raid: &&RaidVolume| raid.level == Some(RaidLevel::Linear);
            let filled = |raid: &&RaidVolume| raid.images.iter().any(|image| image.nodes.contains(&node));
            let done = |raid: &&RaidVolume| linear(raid) || filled(raid);
            if !affected.into_iter().any(|raid| raid.name == part && !done(&raid)) {
                continue;
            }
            self.wait_until_filled(&vg, part, progress)?;
            let change = || match &going {
                Some(going) => raids.replace_image(&vg, part, going, &node),
                None => raids.repair_lv(&vg, part, &node),
            };
            self.change_lvm(id, doing, change, |_| {})?;
            // Who asks for the pool is told that it is being filled.
            self.read_lvm()?;
        }
        for part in ["data_tmeta", "data_tdata"] {
            self.wait_until_filled(&vg, part, progress)?;
        }
        pool = self.fresh(id)?;
        self.refuse_unfilled(&pool, &node, old, new)?;
        if let Some(going) = self.node_in(&pool, old)
            && pool.tags.layout.survives() == 0
        {
            progress.step(0, TOTAL, "moving the data");
            self.move_to(&pool, &going, std::slice::from_ref(&node), old)?;
        }
        self.remove_replaced_images(&pool)?;
        let mut replaced = pool.tags.replaced(old, new);
        match self.node_in(&pool, old) {
            Some(going) if pool.missing == 0 => {
                self.strip_after(pool.tags.layers, std::slice::from_ref(old), || {
                    self.change_lvm(id, doing, || raids.reduce_vg(&vg, &going), |_| {})
                })?;
            }
            // Nothing leaves a group that lacks a disk: it does when that one is back, or another has taken its place.
            Some(_) => {
                refuse_leaving(&pool, old)?;
                replaced.add.push(draining_tag(old));
            }
            None if pool.missing > 0 && !pool.has_missing_image() => {
                self.change_lvm(id, doing, || raids.forget_missing(&vg), |_| {})?;
            }
            None => {
                self.refuse_lost(&pool, old)?;
                self.take_label_off_left(id, old)?;
            }
        }
        self.change_lvm(id, doing, || self.0.host.lvm.tag_vg(&vg, &replaced), |_| {})?;
        self.fresh(id)?;
        Ok(())
    }

    /// Removes what LVM left of images that it replaced. It takes such an image out of its volume with one commit and removes
    /// it with another; if the power went between the two, the old disk would stay in use for good.
    pub(crate) fn remove_replaced_images(&self, pool: &PoolView) -> Result<(), EngineError> {
        let (vg, lvm) = (pool.vg(), &self.0.host.lvm);
        let doing = || format!("remove what is left of a replaced image of pool {}", pool.tags.name);
        let state = lvm.state().doing(doing)?;
        for lv in state.lvs.iter().filter(|lv| lv.vg == vg && is_replaced_image(&lv.name)) {
            self.change_lvm(pool.id, doing, || lvm.remove_lv(&vg, &lv.name), |_| {})?;
        }
        Ok(())
    }

    fn node_of(&self, disk: &DiskId) -> Result<PathBuf, EngineError> {
        let devices = self.devices()?;
        let device = devices.into_iter().find(|device| device.id == *disk);
        let gone = || EngineError::Unavailable(format!("disk {disk} cannot be found"));
        device.map(|device| device.lvm_node().to_owned()).ok_or_else(gone)
    }

    /// A pool as it is now.
    pub(crate) fn fresh(&self, id: PoolId) -> Result<PoolView, EngineError> {
        self.devices()?;
        self.read_lvm()?;
        let pool = self.view().pools.get(&id).cloned();
        pool.ok_or_else(|| no_pool(&id.to_string()))
    }

    /// Waits until nothing is being filled in a volume. Where the kernel broke that off it is asked once to go on; fails if
    /// it breaks it off again: an image that is not whole is not to be taken for one.
    pub(crate) fn wait_until_filled(&self, vg: &str, part: &str, progress: &Progress<'_>) -> Result<(), EngineError> {
        let (mut stalled, mut asked) = (0, false);
        loop {
            let status = self.0.host.raids.wait(vg, part, PACE);
            let Some(status) = status.doing(|| format!("ask how far {vg}/{part} is"))? else {
                return Ok(());
            };
            if status.has_stalled() {
                stalled += 1;
                if stalled >= STALLED {
                    self.fill_again(vg, part, asked)?;
                    (stalled, asked) = (0, true);
                }
                continue;
            }
            stalled = 0;
            if status.action == SyncAction::Idle {
                return Ok(());
            }
            self.give_way(progress)?;
            let done = f64::from(status.done.min(Percent::FULL)).floor() as usize;
            let what = if part.ends_with("meta") { "metadata" } else { "data" };
            let doing = match status.action {
                SyncAction::Check => "comparing",
                SyncAction::Repair => "repairing",
                SyncAction::Idle | SyncAction::Resync | SyncAction::Recover | SyncAction::Other => "filling",
            };
            progress.step(done.min(99), 100, &format!("{doing} the {what}, {}", status.done));
        }
    }

    /// Lets the kernel go on with what it broke off, unless it was asked to before.
    fn fill_again(&self, vg: &str, part: &str, asked: bool) -> Result<(), EngineError> {
        self.read_lvm()?;
        let pool = self.view().pool(vg).cloned().ok_or_else(|| no_pool(vg))?;
        if !pool.has_all_data() {
            return Err(EngineError::Unavailable(format!(
                "pool {} lacks what its new disk is filled from; it is filled on once that is back",
                pool.tags.name
            )));
        }
        if !asked {
            let refresh = || self.0.host.raids.refresh_lv(vg, DATA);
            return self.change_lvm(pool.id, || format!("go on filling {vg}/{part}"), refresh, |_| {});
        }
        let disks: Vec<String> = pool.stalled_nodes().iter().map(|node| self.name_of(node)).collect();
        Err(EngineError::Unavailable(format!(
            "pool {}: disk {} could not be filled from the others: the kernel broke it off, as it does where it cannot read \
             something of them (its log says where); nothing was taken out of the pool",
            pool.tags.name,
            disks.join(", ")
        )))
    }

    /// Fails if a disk is not there, and what lies on it is nowhere else: nothing was put in its place.
    fn refuse_lost(&self, pool: &PoolView, old: &DiskId) -> Result<(), EngineError> {
        if self.node_in(pool, old).is_some() || pool.has_all_data() {
            return Ok(());
        }
        Err(EngineError::Unavailable(format!(
            "disk {old} of pool {} cannot be found, and what lies on it is nowhere else; bring it back, and another takes its place. If it \
             never comes back the pool is lost, and `disks wipe` with `--give-up` frees its other disks",
            pool.tags.name
        )))
    }

    /// Fails if an image on a new disk is not whole and in use.
    fn refuse_unfilled(&self, pool: &PoolView, node: &Path, old: &DiskId, new: &DiskId) -> Result<(), EngineError> {
        let images = pool.raids.iter().flat_map(|raid| &raid.images);
        let mut here = images.filter(|image| image.nodes.iter().any(|n| n == node));
        if here.any(|image| image.failed || image.behind) {
            return Err(EngineError::Unavailable(format!(
                "disk {new} of pool {} was not filled to its end, or failed: disk {old} keeps its place",
                pool.tags.name
            )));
        }
        Ok(())
    }
}

/// One disk at a time leaves a pool.
fn refuse_leaving(pool: &PoolView, old: &DiskId) -> Result<(), EngineError> {
    match pool.tags.draining.as_ref().filter(|leaving| *leaving != old) {
        None => Ok(()),
        Some(leaving) => Err(EngineError::Conflict(format!(
            "disk {leaving} is leaving pool {}; ask again when that is done",
            pool.tags.name
        ))),
    }
}

/// Whether LVM gave this name to a part of a thin pool's volume that it replaced: nobody else can give it (lvm(8)).
fn is_replaced_image(name: &str) -> bool {
    let part = ["data_tdata_", "data_tmeta_"]
        .iter()
        .find_map(|part| name.strip_prefix(part));
    let number = part.and_then(|rest| {
        let image = rest.strip_prefix("rimage_").or_else(|| rest.strip_prefix("rmeta_"))?;
        image.strip_suffix("_extracted")
    });
    number.is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::is_replaced_image;

    #[test]
    fn what_lvm_left_of_a_replaced_image_is_known_by_its_name() {
        for name in ["data_tdata_rimage_1_extracted", "data_tmeta_rmeta_12_extracted"] {
            assert!(is_replaced_image(name), "{name}");
        }
        for name in [
            "data_tdata_rimage_1",
            "data_tdata_rimage__extracted",
            "data_tdata_rimage_1x_extracted",
            "data_rimage_1_extracted",
            "backup_extracted",
            "data",
        ] {
            assert!(!is_replaced_image(name), "{name}");
        }
    }
}
