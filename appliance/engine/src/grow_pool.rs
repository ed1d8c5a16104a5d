//! More disks for a pool, and disks that have become larger. Invariant: which disks are coming stands in the group's tags
//! before anything is done to them; each step can be repeated; the pool is served all the while.
//!
//! Adding: tags `coming`, the disks joined one by one, the data laid on them group by group, the tags as they are now.
//! Taking up what disks have grown by needs no note: what is done of it harms nothing, and what is not can be asked for
//! again.

use std::path::PathBuf;
use std::time::Duration;

use cistern_host::{BlockDevice, LvmStep};
use cistern_model::{
    AddDisksRequest, Bytes, DiskId, EventKind, GrowthPlan, Job, JobKind, PoolId, Principal, Severity, Signature,
};

use crate::EngineError;
use crate::disks::DISKS;
use crate::engine::{Engine, locked};
use crate::error::Doing as _;
use crate::growing::{Growth, grouped};
use crate::layers::size_in;
use crate::pending::busy_with;
use crate::plan::Member;
use crate::pool_steps::Progress;
use crate::pools::refuse_unready;
use crate::view::{PoolView, View};

/// The longest that it may take: what is filled of another group is waited for.
const LIMIT: Duration = Duration::from_secs(30 * 24 * 3600);
/// The part of a thin pool that is waited for.
const DATA_PART: &str = "data_tdata";

/// Which of a pool's groups are to give more.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Which {
    Coming,
    All,
}

impl Engine {
    /// What adding these disks to a pool would come to. Touches nothing.
    pub fn plan_disks(&self, by: &Principal, pool: &str, request: &AddDisksRequest) -> Result<GrowthPlan, EngineError> {
        let _operation = self.0.operations.begin(Duration::from_secs(300));
        self.read_lvm()?;
        let pool = self.visible_pool(by, pool)?;
        self.refuse_busy(&pool)?;
        let coming = self.judge_disks(&pool, request)?;
        let mut after = pool.clone();
        after.tags.coming.clone_from(&coming);
        let growth = self.growth(&after, &after.tags.all_groups())?;
        let vg = pool.vg();
        let noted = |change| LvmStep::TagVg { vg: vg.clone(), change };
        let first = pool.tags.groups.len();
        let join = growth.groups[first..].iter().flatten().map(|room| LvmStep::ExtendVg {
            vg: vg.clone(),
            node: room.node.clone(),
        });
        let before = std::iter::once(noted(pool.tags.adding(&coming))).chain(join).collect();
        let last = vec![noted(after.tags.added())];
        let mut plan = self.describe_growth(&pool, &growth, |group| group >= first, before, last)?;
        let devices = locked(&self.0.devices);
        let joining = devices.iter().filter(|device| request.disks.contains(&device.id));
        let layering = self.layering_lines(pool.id, pool.tags.layers, &joining.collect::<Vec<_>>());
        drop(devices);
        // After the note of what comes.
        plan.commands.splice(1..1, layering);
        Ok(plan)
    }

    /// Begins to add blank disks to a pool. Asked again it is the same job, and if it was interrupted it goes on.
    pub fn add_disks(&self, by: &Principal, pool: &str, request: &AddDisksRequest) -> Result<Job, EngineError> {
        let _operation = self.0.operations.begin(Duration::from_secs(300));
        let _disks = self.0.names.hold(DISKS.to_owned())?;
        self.read_lvm()?;
        let pool = self.visible_pool(by, pool)?;
        let mut asked = request.disks.clone();
        asked.sort();
        match self.pending_on(pool.id) {
            Some(pending) if pending.kind == JobKind::AddDisks && pending.disks == asked => {
                return self.job_now(pending.job);
            }
            Some(pending) => return Err(busy_with(&pool, &pending)),
            None => {}
        }
        let mut coming: Vec<DiskId> = pool.tags.coming.iter().flatten().cloned().collect();
        coming.sort();
        let there = |disk: &DiskId| pool.tags.groups.iter().flatten().any(|member| member == disk);
        if !asked.is_empty() && (coming == asked || asked.iter().all(there)) {
            return Ok(self.begin_adding(by, &pool, asked));
        }
        let planned = self.judge_disks(&pool, request)?;
        let (id, noted) = (pool.id, pool.tags.adding(&planned));
        self.change_lvm(
            id,
            || format!("note the disks that come to pool {}", pool.tags.name),
            || self.0.host.lvm.tag_vg(&pool.vg(), &noted),
            |view| {
                if let Some(pool) = view.pools.get_mut(&id) {
                    pool.tags.coming = planned;
                }
            },
        )?;
        Ok(self.begin_adding(by, &pool, asked))
    }

    /// What taking up what a pool's disks have grown by would come to. Touches nothing.
    pub fn plan_growth(&self, by: &Principal, pool: &str) -> Result<GrowthPlan, EngineError> {
        let _operation = self.0.operations.begin(Duration::from_secs(300));
        self.devices()?;
        self.read_lvm()?;
        let pool = self.visible_pool(by, pool)?;
        self.refuse_busy(&pool)?;
        let growth = self.judge_growth(&pool)?;
        let vg = pool.vg();
        let grown = self.grown_disks(&pool);
        let disks: Vec<DiskId> = grown.iter().map(|(disk, ..)| disk.clone()).collect();
        let resize = grown.into_iter();
        let resize = resize.map(|(_, node, _)| LvmStep::ResizePv { vg: vg.clone(), node });
        let mut plan = self.describe_growth(&pool, &growth, |_| true, resize.collect(), Vec::new())?;
        plan.commands.splice(0..0, self.growth_lines(pool.id, &disks));
        Ok(plan)
    }

    /// Begins to take up what a pool's disks have grown by. Asked again while it is under way it is the same job; if there
    /// is nothing to take up it ends well.
    pub fn grow_pool(&self, by: &Principal, pool: &str) -> Result<Job, EngineError> {
        let _operation = self.0.operations.begin(Duration::from_secs(300));
        self.devices()?;
        self.read_lvm()?;
        let pool = self.visible_pool(by, pool)?;
        match self.pending_on(pool.id) {
            Some(pending) if pending.kind == JobKind::GrowPool => return self.job_now(pending.job),
            Some(pending) => return Err(busy_with(&pool, &pending)),
            None => {}
        }
        self.judge_growth(&pool)?;
        let (name, layout) = (pool.tags.name.clone(), pool.tags.layout);
        let job = self.begin_job(by, JobKind::GrowPool, &name, layout, Vec::new(), pool.id);
        let (engine, by, id, before) = (self.clone(), by.clone(), pool.id, pool.size);
        self.run_long_job(job.id, LIMIT, move |progress| {
            engine.take_up(id, progress)?;
            engine.tell_growth(id, before, &by);
            Ok(())
        });
        Ok(job)
    }

    /// Goes on with disks that are coming, if all of them are there; whether it does.
    pub(crate) fn go_on_adding(&self, pool: &PoolView) -> bool {
        let disks: Vec<DiskId> = pool.tags.coming.iter().flatten().cloned().collect();
        let can = {
            let devices = locked(&self.0.devices);
            let there = |disk: &DiskId| devices.iter().any(|device| device.id == *disk);
            pool.missing == 0 && disks.iter().all(there)
        };
        let begin = !disks.is_empty() && (can || self.all_laid(pool));
        if begin {
            self.begin_adding(&Principal::local(), pool, disks);
        }
        begin
    }

    /// The groups that these disks make, if they can be added now.
    fn judge_disks(&self, pool: &PoolView, request: &AddDisksRequest) -> Result<Vec<Vec<DiskId>>, EngineError> {
        refuse_unready(pool)?;
        refuse_coming(pool)?;
        crate::free_part::refuse_beside_free(pool)?;
        for (number, disk) in request.disks.iter().enumerate() {
            if request.disks[..number].contains(disk) {
                return Err(EngineError::Invalid(format!("disk {disk} is named twice")));
            }
        }
        // One that was noted and not joined yet would be both.
        if let Some(spare) = request.disks.iter().find(|disk| pool.tags.spares.contains(disk)) {
            return Err(EngineError::DiskInUse {
                disk: spare.clone(),
                why: format!(
                    "it is noted as a spare of pool {}; `pools remove-spare` takes it out",
                    pool.tags.name
                ),
            });
        }
        let all = self.devices()?;
        let mut members = Vec::new();
        for disk in &request.disks {
            let device = self.further_device(&all, disk)?;
            let size = size_in(&device, pool.tags.layers);
            members.push(Member::of_size(device.id, size));
        }
        let coming = grouped(pool, members)?;
        let groups: Vec<Vec<DiskId>> = pool.tags.groups.iter().chain(&coming).cloned().collect();
        let growth = self.growth(pool, &groups)?;
        let first = pool.tags.groups.len();
        match (first..groups.len()).find(|group| growth.gains[*group] == 0) {
            None => Ok(coming),
            Some(group) => Err(EngineError::Invalid(format!(
                "disk {} is too small: nothing is left of it beside what the larger pool's metadata needs",
                groups[group].first().map_or("", |disk| disk.as_str())
            ))),
        }
    }

    /// What a pool's own disks can give, if it can be taken up now.
    fn judge_growth(&self, pool: &PoolView) -> Result<Growth, EngineError> {
        refuse_unready(pool)?;
        refuse_coming(pool)?;
        let growth = self.growth(pool, &pool.tags.groups)?;
        let grown = self.grown_disks(pool);
        if growth.all_usable() > Bytes::ZERO || grown.is_empty() {
            return Ok(growth);
        }
        match self.held_back(pool, &growth) {
            Some(why) => Err(EngineError::Conflict(why)),
            None => Ok(growth),
        }
    }

    /// Why disks that have grown give nothing, if others keep them from it.
    pub(crate) fn held_back(&self, pool: &PoolView, growth: &Growth) -> Option<String> {
        let grown = self.grown_disks(pool);
        let small = growth.groups.iter().find_map(|group| {
            let by = |disk: &DiskId| grown.iter().find(|(id, ..)| id == disk).map(|(.., by)| *by);
            let (disk, by) = group.iter().find_map(|room| Some((&room.disk, by(&room.disk)?)))?;
            let least = group.iter().map(|room| room.extents).min()?;
            let small: Vec<&str> = group
                .iter()
                .filter(|room| room.extents == least && room.disk != *disk)
                .map(|room| room.disk.as_str())
                .collect();
            (!small.is_empty()).then(|| (disk.clone(), by, small.join(", ")))
        });
        let (disk, by, small) = small?;
        Some(format!(
            "disk {disk} of pool {} has grown by {by}, which cannot be used: all disks of its group give as much as the \
             smallest; {small} must grow as well, or be replaced by larger ones",
            pool.tags.name
        ))
    }

    fn begin_adding(&self, by: &Principal, pool: &PoolView, disks: Vec<DiskId>) -> Job {
        let (name, layout) = (pool.tags.name.clone(), pool.tags.layout);
        let job = self.begin_job(by, JobKind::AddDisks, &name, layout, disks, pool.id);
        let (engine, by, id, before) = (self.clone(), by.clone(), pool.id, pool.size);
        self.run_long_job(job.id, LIMIT, move |progress| {
            engine.finish_adding(id, progress)?;
            engine.tell_growth(id, before, &by);
            Ok(())
        });
        job
    }

    fn tell_growth(&self, id: PoolId, before: Bytes, by: &Principal) {
        let pool = self
            .view()
            .pools
            .get(&id)
            .map(|pool| (pool.tags.name.clone(), pool.size));
        let Some((name, size)) = pool.filter(|(_, size)| *size > before) else {
            return;
        };
        let message = format!("pool {name} has grown from {before} to {size}");
        let object = Some(id.to_string());
        self.record(EventKind::PoolChanged, Severity::Info, object, Some(by), message);
    }

    /// Goes on from whatever step it has reached, to its end.
    fn finish_adding(&self, id: PoolId, progress: &Progress<'_>) -> Result<(), EngineError> {
        let pool = self.fresh(id)?;
        let coming = &pool.tags.coming;
        if coming.is_empty() {
            return Ok(());
        }
        let total = coming.iter().flatten().count() + coming.len() + 1;
        if !self.all_laid(&pool) {
            for (done, disk) in coming.iter().flatten().enumerate() {
                progress.step(done, total, "joining the disks");
                self.join_one(&pool, disk)?;
            }
            progress.step(total - 1 - coming.len(), total, "laying the data on them");
            self.lay_on(id, Which::Coming, progress)?;
        }
        progress.step(total - 1, total, "noting what it lies on");
        let doing = || format!("note the disks of pool {}", pool.tags.name);
        let added = pool.tags.added();
        self.change_lvm(id, doing, || self.0.host.lvm.tag_vg(&pool.vg(), &added), |_| {})?;
        self.fresh(id).map(drop)
    }

    /// Joins a blank disk to a pool, if it is not one of its own.
    pub(crate) fn join_one(&self, pool: &PoolView, disk: &DiskId) -> Result<(), EngineError> {
        let devices = self.devices()?;
        let device = devices.iter().find(|device| device.id == *disk);
        let device = device.ok_or_else(|| EngineError::Unavailable(format!("disk {disk} cannot be found")))?;
        if pool.nodes.iter().any(|node| node == device.lvm_node()) {
            return Ok(());
        }
        if !pool.tags.layers.is_none() {
            return self.join_layered(pool, device);
        }
        let doing = || format!("add disk {disk} to pool {}", pool.tags.name);
        self.take_label_off(pool.id, device)?;
        self.refuse_signatures(device)?;
        let step = LvmStep::ExtendVg {
            vg: pool.vg(),
            node: device.node.clone(),
        };
        self.perform(pool.id, doing, &step)
    }

    /// Takes LVM's label off a disk that comes to a pool or leaves it, as was noted before, and is in no group.
    ///
    /// LVM writes its label before it joins a disk, and takes it off after it parted one: if the power went between the two,
    /// the label is ours. In layers it goes with them (`layers`).
    pub(crate) fn take_label_off(&self, pool: PoolId, device: &BlockDevice) -> Result<(), EngineError> {
        if device.layers.is_some() || device.is_unmade() {
            return Ok(());
        }
        let doing = || format!("take LVM's label off disk {}", device.id);
        let found = self.0.host.disks.signatures(&device.node).doing(doing)?;
        if !found.is_empty() && found.iter().all(is_label) {
            let state = self.0.host.lvm.state().doing(doing)?;
            let mut bare = state.pvs.iter().filter(|pv| pv.vg.is_none());
            if bare.any(|pv| pv.node.as_ref() == Some(&device.node)) {
                let remove = || self.0.host.lvm.remove_pv(&device.node);
                self.change_lvm(pool, doing, remove, |_| {})?;
            }
        }
        Ok(())
    }

    /// The same of one that has left, if it is there.
    pub(crate) fn take_label_off_left(&self, pool: PoolId, disk: &DiskId) -> Result<(), EngineError> {
        let found = self.devices()?.into_iter().find(|device| device.id == *disk);
        found.map_or(Ok(()), |device| self.take_label_off(pool, &device))
    }

    /// Lets LVM know of each disk that has grown, and lays the data on what that gives.
    fn take_up(&self, id: PoolId, progress: &Progress<'_>) -> Result<(), EngineError> {
        let pool = self.fresh(id)?;
        let grown = self.grown_disks(&pool);
        let total = grown.len() + pool.tags.groups.len();
        for (done, (disk, node, by)) in grown.into_iter().enumerate() {
            progress.step(done, total, "looking how large the disks are");
            self.take_up_disk(&pool, &disk, node, by)?;
        }
        progress.step(total - pool.tags.groups.len(), total, "laying the data on them");
        self.lay_on(id, Which::All, progress)?;
        self.fresh(id).map(drop)
    }

    /// Lets a disk's layers know by how much it has grown, and then LVM.
    pub(crate) fn take_up_disk(
        &self,
        pool: &PoolView,
        disk: &DiskId,
        node: PathBuf,
        by: Bytes,
    ) -> Result<(), EngineError> {
        self.grow_layers(pool.id, disk)?;
        let doing = || format!("take up the {by} that disk {disk} has grown by");
        self.perform(pool.id, doing, &LvmStep::ResizePv { vg: pool.vg(), node })
    }

    /// Lays a pool's data on what its groups can give, one after the other.
    fn lay_on(&self, id: PoolId, which: Which, progress: &Progress<'_>) -> Result<(), EngineError> {
        let pool = self.fresh(id)?;
        let (groups, first) = (pool.tags.all_groups(), pool.tags.groups.len());
        for group in 0..groups.len() {
            if which == Which::Coming && group < first {
                continue;
            }
            self.wait_until_filled(&pool.vg(), DATA_PART, progress)?;
            let pool = self.fresh(id)?;
            let growth = self.growth(&pool, &groups)?;
            if let Some(step) = growth.step(&pool, group) {
                let doing = || format!("enlarge the data of pool {}", pool.tags.name);
                self.perform(id, doing, &step)?;
                self.look_whether_apart(id)?;
            }
        }
        Ok(())
    }

    /// LVM is told the disks, and not which image goes where: that no disk holds two of one volume is looked at afterwards.
    pub(crate) fn look_whether_apart(&self, id: PoolId) -> Result<(), EngineError> {
        let pool = self.fresh(id)?;
        for raid in &pool.raids {
            let images = raid.images.iter().enumerate();
            let nodes = images.flat_map(|(n, image)| image.nodes.iter().map(move |node| (n, node)));
            let mut seen: std::collections::BTreeMap<&PathBuf, usize> = std::collections::BTreeMap::new();
            for (image, node) in nodes {
                if seen.insert(node, image).is_some_and(|other| other != image) {
                    let message = format!(
                        "pool {}: LVM laid two images of {} on disk {}: if it is lost, so is the pool. Take a copy of what is in it",
                        pool.tags.name,
                        raid.name,
                        self.name_of(node)
                    );
                    let object = Some(id.to_string());
                    self.record(EventKind::PoolChanged, Severity::Error, object, None, message.clone());
                    return Err(EngineError::Conflict(message));
                }
            }
        }
        Ok(())
    }

    /// Whether the data lies on each group that is coming.
    fn all_laid(&self, pool: &PoolView) -> bool {
        pool.tags.coming.iter().all(|group| self.laid(pool, group))
    }

    /// Whether it lies on this group.
    pub(crate) fn laid(&self, pool: &PoolView, group: &[DiskId]) -> bool {
        let images = pool.data().map(|raid| raid.images.as_slice()).unwrap_or_default();
        let on = |disk: &DiskId| {
            let node = self.node_in(pool, disk);
            node.is_some_and(|node| images.iter().any(|image| image.nodes.contains(&node)))
        };
        group.iter().any(on)
    }

    pub(crate) fn perform(
        &self,
        id: PoolId,
        doing: impl FnOnce() -> String,
        step: &LvmStep,
    ) -> Result<(), EngineError> {
        let host = &self.0.host;
        let nothing = |_: &mut View| {};
        self.change_lvm(
            id,
            doing,
            || step.perform(host.lvm.as_ref(), host.raids.as_ref()),
            nothing,
        )
    }
}

fn is_label(signature: &Signature) -> bool {
    signature.kind == "LVM2_member"
}

pub(crate) fn refuse_coming(pool: &PoolView) -> Result<(), EngineError> {
    if let Some(disk) = &pool.tags.draining {
        return Err(EngineError::Conflict(format!(
            "disk {disk} is leaving pool {}; ask again when that is done",
            pool.tags.name
        )));
    }
    let coming: Vec<&str> = pool.tags.coming.iter().flatten().map(|disk| disk.as_str()).collect();
    match coming.is_empty() {
        true => Ok(()),
        false => Err(EngineError::Conflict(format!(
            "disks are being added to pool {}: {}; ask again when that is done",
            pool.tags.name,
            coming.join(", ")
        ))),
    }
}
