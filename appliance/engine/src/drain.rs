//! A disk that leaves a pool. Invariant: what lies on it lies elsewhere before it is taken out; that it leaves stands in the
//! group's tags before anything is moved; each step can be repeated; the pool is served all the while.
//!
//! A thin pool cannot be made smaller, and an image cannot be taken away under it: so only where each disk stands alone
//! (layout `single`), and only if the others have room for all that lies on it. Otherwise another disk takes its place
//! (`replace`); and where that one could not be taken out, because another was missing by then, it leaves as one that is emptied does.

use std::path::PathBuf;
use std::time::Duration;

use cistern_host::TagChange;
use cistern_model::{Bytes, DiskId, DrainRequest, EventKind, Job, JobKind, PoolId, PoolState, Principal, Severity};

use crate::EngineError;
use crate::disks::DISKS;
use crate::engine::Engine;
use crate::error::Doing as _;
use crate::grow_pool::refuse_coming;
use crate::pending::busy_with;
use crate::plan::EXTENT;
use crate::pool_steps::Progress;
use crate::pools::{refuse_missing, refuse_unready};
use crate::tags::draining_tag;
use crate::view::PoolView;

/// The longest that copying the largest disk may take.
const LIMIT: Duration = Duration::from_secs(30 * 24 * 3600);
const METADATA_PART: &str = "data_tmeta";
/// The steps that a job shows.
const TOTAL: usize = 4;

impl Engine {
    /// Begins to empty a disk of a pool and to take it out. Asked again while it is under way it is the same job, and if it
    /// was interrupted it goes on.
    pub fn drain_disk(&self, by: &Principal, pool: &str, request: &DrainRequest) -> Result<Job, EngineError> {
        let _operation = self.0.operations.begin(Duration::from_secs(300));
        let _disks = self.0.names.hold(DISKS.to_owned())?;
        self.devices()?;
        self.read_lvm()?;
        let pool = self.visible_pool(by, pool)?;
        let disk = &request.disk;
        match self.pending_on(pool.id) {
            Some(pending) if pending.kind == JobKind::DrainDisk && pending.disks.contains(disk) => {
                return self.job_now(pending.job);
            }
            Some(pending) => return Err(busy_with(&pool, &pending)),
            None => {}
        }
        let coming: Vec<DiskId> = pool.tags.coming.iter().flatten().cloned().collect();
        if coming.contains(disk) {
            self.judge_giving_up(&pool, disk)?;
            return Ok(self.begin_draining(by, &pool, coming, Self::give_up_adding));
        }
        if pool.tags.draining.as_ref() != Some(disk) {
            self.judge_drain(&pool, disk)?;
            let noted = TagChange {
                add: vec![draining_tag(disk)],
                remove: Vec::new(),
            };
            let id = pool.id;
            self.change_lvm(
                id,
                || format!("note that disk {disk} leaves"),
                || self.0.host.lvm.tag_vg(&pool.vg(), &noted),
                |view| {
                    if let Some(pool) = view.pools.get_mut(&id) {
                        pool.tags.draining = Some(disk.clone());
                    }
                },
            )?;
        }
        Ok(self.begin_draining(by, &pool, vec![disk.clone()], Self::finish_drain))
    }

    /// The disk of a pool that is leaving, if that can be gone on with: nothing leaves a group that lacks another disk. One that has gone
    /// by itself, when nothing lay on it any more, is to be forgotten.
    pub(crate) fn leaving(&self, pool: &PoolView) -> Option<DiskId> {
        let disk = pool.tags.draining.clone()?;
        let alone = || self.missing_disks(pool).iter().all(|missing| *missing == disk);
        let gone = || !pool.has_missing_image() && self.node_in(pool, &disk).is_none() && alone();
        let can = pool.missing == 0 || gone();
        can.then_some(disk)
    }

    /// Goes on with a disk that is leaving; whether there is one.
    pub(crate) fn go_on_draining(&self, pool: &PoolView) -> bool {
        let Some(disk) = self.leaving(pool) else {
            return false;
        };
        self.begin_draining(&Principal::local(), pool, vec![disk], Self::finish_drain);
        true
    }

    fn begin_draining(
        &self,
        by: &Principal,
        pool: &PoolView,
        disks: Vec<DiskId>,
        work: fn(&Engine, PoolId, &Progress<'_>) -> Result<(), EngineError>,
    ) -> Job {
        let (name, layout) = (pool.tags.name.clone(), pool.tags.layout);
        let job = self.begin_job(by, JobKind::DrainDisk, &name, layout, disks.clone(), pool.id);
        let (engine, by, id) = (self.clone(), by.clone(), pool.id);
        self.run_long_job(job.id, LIMIT, move |progress| {
            work(&engine, id, progress)?;
            let disks: Vec<&str> = disks.iter().map(DiskId::as_str).collect();
            let message = format!("disk {} has left pool {name}", disks.join(", "));
            let object = Some(id.to_string());
            engine.record(EventKind::PoolChanged, Severity::Info, object, Some(&by), message);
            Ok(())
        });
        job
    }

    /// Whether a disk can be emptied now.
    fn judge_drain(&self, pool: &PoolView, disk: &DiskId) -> Result<(), EngineError> {
        let (name, layout) = (&pool.tags.name, pool.tags.layout);
        if pool.tags.spares.contains(disk) {
            return Err(EngineError::Invalid(format!(
                "disk {disk} is a spare of pool {name}, and nothing lies on it; `pools remove-spare` takes it out"
            )));
        }
        if !pool.tags.groups.iter().flatten().any(|member| member == disk) {
            return Err(EngineError::NotFound {
                what: "disk of this pool",
                name: disk.to_string(),
            });
        }
        refuse_unready(pool)?;
        refuse_coming(pool)?;
        if layout.survives() > 0 {
            return Err(EngineError::Invalid(format!(
                "pool {name} has layout {layout}: an image lies on each of its disks, and LVM cannot take one away under a \
                 thin pool. `pools replace` lets another disk take the place of {disk}"
            )));
        }
        let left: Vec<Vec<DiskId>> = pool
            .tags
            .groups
            .iter()
            .filter(|group| !group.contains(disk))
            .cloned()
            .collect();
        if left.is_empty() {
            return Err(EngineError::Invalid(format!(
                "disk {disk} is the only one of pool {name}; delete the pool if it is not needed any more"
            )));
        }
        let growth = self.growth(pool, &left)?;
        let (there, metadata) = self.lies_on(pool, disk);
        let room: u64 = growth.gains.iter().sum();
        if room < there {
            return Err(EngineError::NoSpace(format!(
                "{} of pool {name} lie on disk {disk}, and its other disks have room for {}, besides what is kept back for its \
                 metadata. A thin pool cannot be made smaller: `pools replace` lets another disk take the place of {disk}",
                EXTENT.saturating_mul(there),
                EXTENT.saturating_mul(room)
            )));
        }
        if metadata > 0 && self.place_for_metadata(pool, disk, metadata).is_none() {
            return Err(EngineError::NoSpace(format!(
                "a copy of the metadata of pool {name} lies on disk {disk}, and no other disk has {} for it that does not hold \
                 the other copy",
                EXTENT.saturating_mul(metadata)
            )));
        }
        Ok(())
    }

    /// The extents of data, and of a copy of mirrored metadata, on a disk.
    fn lies_on(&self, pool: &PoolView, disk: &DiskId) -> (u64, u64) {
        let Some(node) = self.node_in(pool, disk) else {
            return (0, 0);
        };
        let taken = pool.extents_of(&node).map_or(0, |(_, taken)| taken);
        let metadata = pool.metadata_volume().filter(|raid| raid.images.len() > 1);
        let metadata = metadata.filter(|raid| raid.images.iter().any(|image| image.nodes.contains(&node)));
        let metadata = metadata.map_or(0, |raid| raid.size.get() / EXTENT.get() + 1);
        (taken.saturating_sub(metadata), metadata)
    }

    /// The disk with the most room of those on which the metadata does not lie.
    fn place_for_metadata(&self, pool: &PoolView, leaving: &DiskId, extents: u64) -> Option<PathBuf> {
        let groups = pool
            .tags
            .groups
            .iter()
            .filter(|group| !group.contains(leaving))
            .cloned();
        let growth = self.growth(pool, &groups.collect::<Vec<_>>()).ok()?;
        let rooms = growth.groups.into_iter().flatten();
        let can = rooms.filter(|room| !room.metadata && room.free >= extents);
        can.max_by_key(|room| room.free).map(|room| room.node)
    }

    /// Goes on from whatever step it has reached, to its end.
    fn finish_drain(&self, id: PoolId, progress: &Progress<'_>) -> Result<(), EngineError> {
        let mut pool = self.fresh(id)?;
        let Some(disk) = pool.tags.draining.clone() else {
            return Ok(());
        };
        let (vg, raids) = (pool.vg(), &self.0.host.raids);
        let doing = || format!("empty disk {disk} of pool {}", id);
        if let Some(node) = self.node_in(&pool, &disk) {
            refuse_missing(&pool)?;
            // On one whose place was taken nothing lies.
            if pool.tags.groups.iter().flatten().any(|member| *member == disk) {
                pool = self.empty(&pool, &disk, &node, progress)?;
            }
            progress.step(3, TOTAL, "taking the disk out");
            self.remove_replaced_images(&pool)?;
            self.strip_after(pool.tags.layers, std::slice::from_ref(&disk), || {
                self.change_lvm(id, doing, || raids.reduce_vg(&vg, &node), |_| {})
            })?;
        } else if pool.missing > 0 {
            refuse_gone(&pool, &disk)?;
            self.change_lvm(id, doing, || raids.forget_missing(&vg), |_| {})?;
        } else {
            self.take_label_off_left(id, &disk)?;
        }
        let without = pool.tags.without(&disk);
        self.change_lvm(id, doing, || self.0.host.lvm.tag_vg(&vg, &without), |_| {})?;
        self.fresh(id).map(drop)
    }

    /// Moves all that lies on a disk to others; the pool as it is then.
    fn empty(
        &self,
        pool: &PoolView,
        disk: &DiskId,
        node: &PathBuf,
        progress: &Progress<'_>,
    ) -> Result<PoolView, EngineError> {
        let (id, vg, raids) = (pool.id, pool.vg(), &self.0.host.raids);
        progress.step(0, TOTAL, "looking how large the others are");
        for (grown, node, by) in self.grown_disks(pool) {
            self.take_up_disk(pool, &grown, node, by)?;
        }
        progress.step(1, TOTAL, "moving the metadata");
        let (_, metadata) = self.lies_on(pool, disk);
        if metadata > 0 {
            let place = self.place_for_metadata(pool, disk, metadata);
            let place = place.ok_or_else(|| EngineError::NoSpace("no disk has room for the metadata".to_owned()))?;
            self.wait_until_filled(&vg, METADATA_PART, progress)?;
            let doing = || format!("empty disk {disk} of pool {id}");
            let replace = || raids.replace_image(&vg, METADATA_PART, node, &place);
            self.change_lvm(id, doing, replace, |_| {})?;
        }
        self.wait_until_filled(&vg, METADATA_PART, progress)?;
        progress.step(2, TOTAL, "moving the data");
        let pool = self.fresh(id)?;
        self.move_data_off(&pool, node, disk)?;
        Ok(pool)
    }

    /// Moves the data on a disk to those of the pool's others that have room.
    fn move_data_off(&self, pool: &PoolView, node: &PathBuf, disk: &DiskId) -> Result<(), EngineError> {
        let free = |pv: &&cistern_host::PhysicalVolume| pv.free > Bytes::ZERO && pv.node.as_ref() != Some(node);
        let others = pool.members.iter().filter(free);
        let others: Vec<PathBuf> = others.filter_map(|pv| pv.node.clone()).collect();
        self.move_to(pool, node, &others, disk)
    }

    /// Moves the data on a disk to these. Other changes to the pool go on meanwhile: LVM itself keeps them apart.
    pub(crate) fn move_to(
        &self,
        pool: &PoolView,
        node: &PathBuf,
        to: &[PathBuf],
        disk: &DiskId,
    ) -> Result<(), EngineError> {
        if pool.extents_of(node).is_none_or(|(_, taken)| taken == 0) {
            return Ok(());
        }
        let moved = self.0.host.raids.move_off(&pool.vg(), node, to);
        self.after_lvm(moved.doing(|| format!("move what lies on disk {disk} to others")))
    }

    /// Whether disks that are coming can still be done without.
    fn judge_giving_up(&self, pool: &PoolView, disk: &DiskId) -> Result<(), EngineError> {
        let name = &pool.tags.name;
        let group = pool.tags.coming.iter().find(|group| group.contains(disk));
        let laid = group.is_some_and(|group| self.laid(pool, group));
        match pool.state() {
            PoolState::Ready | PoolState::Degraded if laid => Err(EngineError::Conflict(format!(
                "the data of pool {name} lies on disk {disk} already; ask again when those that come with it are there"
            ))),
            PoolState::Ready | PoolState::Degraded if pool.has_missing_image() => Err(EngineError::Unavailable(
                format!("pool {name} lacks another disk; replace that one first"),
            )),
            PoolState::Ready | PoolState::Degraded => Ok(()),
            PoolState::Creating | PoolState::Deleting | PoolState::Incomplete => Err(EngineError::Unavailable(
                format!("pool {name} is {}", pool.state().name()),
            )),
        }
    }

    /// Takes out what was just coming, there or not, and on which nothing lies; the rest stays.
    fn give_up_adding(&self, id: PoolId, progress: &Progress<'_>) -> Result<(), EngineError> {
        progress.step(0, 2, "taking the disks out");
        let pool = self.fresh(id)?;
        let (vg, raids) = (pool.vg(), &self.0.host.raids);
        let doing = || format!("take disks out of pool {}", pool.tags.name);
        let coming = pool.tags.coming.iter().cloned();
        let (laid, given_up): (Vec<_>, Vec<_>) = coming.partition(|group| self.laid(&pool, group));
        if pool.missing > 0 {
            self.change_lvm(id, doing, || raids.forget_missing(&vg), |_| {})?;
        }
        for disk in given_up.iter().flatten() {
            match self.node_in(&pool, disk) {
                Some(node) => self.strip_after(pool.tags.layers, std::slice::from_ref(disk), || {
                    self.change_lvm(id, doing, || raids.reduce_vg(&vg, &node), |_| {})
                })?,
                None => self.take_label_off_left(id, disk)?,
            }
        }
        progress.step(1, 2, "noting it");
        let change = pool.tags.with_only(&laid);
        self.change_lvm(id, doing, || self.0.host.lvm.tag_vg(&vg, &change), |_| {})?;
        self.fresh(id).map(drop)
    }
}

/// Fails if a disk that is not there was to be emptied and was not: what lies on it would be forgotten with it.
fn refuse_gone(pool: &PoolView, disk: &DiskId) -> Result<(), EngineError> {
    if !pool.has_missing_image() {
        return Ok(());
    }
    let name = &pool.tags.name;
    let emptied = !pool.tags.groups.iter().flatten().any(|member| member == disk);
    Err(EngineError::Unavailable(match (emptied, pool.has_all_data()) {
        (true, _) => format!("pool {name} lacks another disk; disk {disk} leaves when that one is back, or replaced"),
        (false, true) => format!(
            "disk {disk} of pool {name} cannot be found, and was not emptied to its end; bring it back, or let another take its place: \
             `pools replace`"
        ),
        (false, false) => format!(
            "disk {disk} of pool {name} cannot be found, and what lies on it is nowhere else; bring it back, and it is emptied. If it never \
             comes back the pool is lost, and `disks wipe` with `--give-up` frees its other disks"
        ),
    }))
}
