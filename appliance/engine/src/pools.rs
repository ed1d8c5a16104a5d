//! Pools: planning, making, deleting and listing them. Here a request is judged; what is then done to the disks is in
//! `pool_steps`. Invariant: nothing is touched before all of a request has been found good.

use std::path::PathBuf;
use std::time::Duration;

use cistern_host::{BlockDevice, HostErrorKind};
use cistern_model::{
    DEFAULT_TRASH_SECONDS, DiskId, EventKind, Job, JobKind, Layout, Percent, Pool, PoolId, PoolName, PoolPlan,
    PoolRequest, PoolState, Principal, Severity,
};
use uuid::Uuid;

use crate::EngineError;
use crate::disks::DISKS;
use crate::engine::{Engine, locked};
use crate::error::Doing as _;
use crate::free_part::{free_warnings, refuse_free_among};
use crate::giving_up::refuse_vanished;
use crate::layers::{layer_warnings, laying_limit, size_in};
use crate::layout;
use crate::pending::{Pending, busy_with};
use crate::plan::{Member, Plan, groups, plan};
use crate::spares;
use crate::tags::{PoolTags, Stage};
use crate::view::{DATA, PoolView};

/// What came of a request for a pool.
#[derive(Debug, Clone, PartialEq)]
pub enum PoolCreation {
    /// The same was made before.
    Exists(Pool),
    /// It is being made.
    Started(Job),
}

/// Steps of which a job's length is not known before: what it is shown as at first.
const STEPS: u32 = 5;

impl Engine {
    /// What a request for a pool would come to. Touches nothing.
    pub fn plan_pool(&self, request: &PoolRequest) -> Result<PoolPlan, EngineError> {
        let _operation = self.0.operations.begin(Duration::from_secs(300));
        let (devices, plan) = self.judge(request)?;
        let commands = self.commands(request, &devices, &plan)?;
        Ok(describe(request, &plan, commands))
    }

    /// Begins to make a pool. Asked for again with the same layout and disks it is the same one, and if its making was
    /// interrupted it goes on.
    pub fn create_pool(&self, by: &Principal, request: &PoolRequest) -> Result<PoolCreation, EngineError> {
        let _operation = self.0.operations.begin(Duration::from_secs(300));
        let _disks = self.0.names.hold(DISKS.to_owned())?;
        let mut asked = request.disks.clone();
        asked.sort();
        let making = |p: &&Pending| p.name == request.name && p.makes_or_deletes();
        let pending = locked(&self.0.pending).iter().find(making).cloned();
        if let Some(pending) = pending {
            return match pending.kind {
                JobKind::DeletePool => Err(EngineError::Conflict(format!(
                    "pool {} is being deleted; ask again when that is done",
                    request.name
                ))),
                JobKind::CreatePool if pending.layout == request.layout && pending.disks == asked => {
                    self.job_now(pending.job).map(PoolCreation::Started)
                }
                JobKind::CreatePool
                | JobKind::ReplaceDisk
                | JobKind::ScrubPool
                | JobKind::AddDisks
                | JobKind::GrowPool
                | JobKind::DrainDisk => Err(name_taken(&request.name)),
            };
        }
        let existing = self.view().pool_named(&request.name).cloned();
        if let Some(pool) = existing {
            let same = pool.tags.layout == request.layout && pool.tags.layers == request.layers;
            if !same || pool.tags.asked() != asked {
                return Err(name_taken(&request.name));
            }
            return match pool.tags.state {
                Stage::Ready => Ok(PoolCreation::Exists(self.pool_model(&pool))),
                Stage::Creating => Ok(PoolCreation::Started(self.begin_creation(by, request, pool.id, None))),
                Stage::Deleting => Err(EngineError::Conflict(format!(
                    "pool {} is being deleted; ask again when that is done",
                    request.name
                ))),
                Stage::RollingBack | Stage::Trash => Err(name_taken(&request.name)),
            };
        }
        let (devices, plan) = self.judge(request)?;
        let id = PoolId::from_uuid(Uuid::new_v4());
        let job = self.begin_creation(by, request, id, Some((devices, plan)));
        Ok(PoolCreation::Started(job))
    }

    /// Begins to delete a pool that holds no volumes. Its disks are blank afterwards.
    pub fn delete_pool(&self, by: &Principal, name_or_id: &str) -> Result<Job, EngineError> {
        let _operation = self.0.operations.begin(Duration::from_secs(300));
        let _disks = self.0.names.hold(DISKS.to_owned())?;
        let pool = match self.visible_pool(by, name_or_id) {
            Ok(pool) => pool,
            Err(error) => return self.give_up_away(by, name_or_id)?.ok_or(error),
        };
        if let Some(pending) = self.pending_on(pool.id) {
            return match pending.kind {
                JobKind::DeletePool => self.job_now(pending.job),
                JobKind::CreatePool
                | JobKind::ReplaceDisk
                | JobKind::ScrubPool
                | JobKind::AddDisks
                | JobKind::GrowPool
                | JobKind::DrainDisk => Err(busy_with(&pool, &pending)),
            };
        }
        refuse_vanished(&pool)?;
        refuse_volumes(&pool)?;
        refuse_missing(&pool)?;
        let pending = self.begin_job(
            by,
            JobKind::DeletePool,
            &pool.tags.name,
            pool.tags.layout,
            Vec::new(),
            pool.id,
        );
        let (engine, by, id, name) = (self.clone(), by.clone(), pool.id, pool.tags.name.clone());
        self.run_job(pending.id, move |progress| {
            engine.take_pool_away(id, progress)?;
            let message = format!("pool {name} was deleted");
            engine.record(
                EventKind::PoolDeleted,
                Severity::Info,
                Some(id.to_string()),
                Some(&by),
                message,
            );
            Ok(())
        });
        Ok(pending)
    }

    /// All pools that the caller may see, by name.
    pub fn pools(&self, by: &Principal) -> Result<Vec<Pool>, EngineError> {
        let _operation = self.0.operations.begin(Duration::from_secs(300));
        self.refuse_to_list(by, None)?;
        Ok(self.pools_known(by))
    }

    /// Those that are known, also while the start has not ended.
    pub(crate) fn pools_known(&self, by: &Principal) -> Vec<Pool> {
        self.freshen();
        let pools: Vec<PoolView> = self.view().pools.values().cloned().collect();
        let seen = pools.iter().filter(|pool| by.may_use_pool(&pool.tags.name));
        let mut pools: Vec<Pool> = seen.map(|pool| self.pool_model(pool)).collect();
        pools.sort_by(|a, b| a.name.cmp(&b.name).then(a.id.cmp(&b.id)));
        pools
    }

    /// A pool, by its name or its id.
    pub fn pool(&self, by: &Principal, name_or_id: &str) -> Result<Pool, EngineError> {
        let _operation = self.0.operations.begin(Duration::from_secs(300));
        self.freshen();
        let pool = self.visible_pool(by, name_or_id)?;
        Ok(self.pool_model(&pool))
    }

    /// A pool that the caller may see.
    pub(crate) fn visible_pool(&self, by: &Principal, name_or_id: &str) -> Result<PoolView, EngineError> {
        let found = self.view().pool(name_or_id).cloned();
        let pool = found.filter(|pool| by.may_use_pool(&pool.tags.name));
        pool.ok_or_else(|| match self.is_started() {
            true => self.no_pool_here(by, name_or_id, no_pool(name_or_id)),
            false => Engine::not_started(),
        })
    }

    /// The pool of this name. Fails as [`Engine::visible_pool`].
    pub(crate) fn pool_of_name(&self, by: &Principal, name: &PoolName) -> Result<PoolId, EngineError> {
        let found = self
            .view()
            .pool_named(name)
            .filter(|pool| by.may_use_pool(&pool.tags.name))
            .map(|pool| pool.id);
        found.map_or_else(|| self.visible_pool(by, name.as_str()).map(|pool| pool.id), Ok)
    }

    pub(crate) fn pool_model(&self, pool: &PoolView) -> Pool {
        let mut fresh = pool.clone();
        // The kernel's own numbers, where it has them; a few milliseconds.
        if pool.active
            && let Ok(usage) = self.0.host.thin.status(&pool.vg(), DATA)
        {
            (fresh.data, fresh.metadata) = (usage.data, usage.metadata);
        }
        let mut model = fresh.to_model(self.disks_of(pool), self.0.config.overcommit_percent);
        model.growable = self.growable(pool);
        model
    }

    /// Mirrors that are being filled are looked at anew, at most every few seconds: only LVM's report says how far they
    /// are.
    fn freshen(&self) {
        let filling = self.view().pools.values().any(|pool| pool.sync < Percent::FULL);
        if filling && let Err(error) = self.read_lvm_after(Duration::from_secs(5)) {
            tracing::warn!(%error, "the pools' state is as of before");
        }
    }

    /// Whether a pool can be made as asked, looking at the disks themselves.
    fn judge(&self, request: &PoolRequest) -> Result<(Vec<BlockDevice>, Plan), EngineError> {
        self.refuse_without_tpm(request.layers)?;
        refuse_free_among(request)?;
        let named: Vec<&DiskId> = request.disks.iter().chain(&request.spares).collect();
        for (number, disk) in named.iter().enumerate() {
            if named[..number].contains(disk) {
                return Err(EngineError::Invalid(format!("disk {disk} is named twice")));
            }
        }
        let all = self.devices()?;
        let blank = |disk: &DiskId| self.blank_device(&all, disk);
        let mut devices: Vec<BlockDevice> = request.disks.iter().map(blank).collect::<Result<_, _>>()?;
        let members = devices
            .iter()
            .map(|device| Member::of_size(device.id.clone(), size_in(device, request.layers)));
        let (grouped, left_out) = groups(request.layout, members.collect());
        let plan = plan(request.layout, grouped, left_out)?;
        for spare in &request.spares {
            let device = blank(spare)?;
            spares::judge(&plan, &device, request.layers)?;
            devices.push(device);
        }
        Ok((devices, plan))
    }

    /// The commands that would make it, with a placeholder for the pool's id.
    fn commands(
        &self,
        request: &PoolRequest,
        devices: &[BlockDevice],
        plan: &Plan,
    ) -> Result<Vec<Vec<String>>, EngineError> {
        let vg = PoolId::from_uuid(Uuid::nil()).to_string();
        let tags = tags_of(request, plan);
        let joined = devices.iter().filter(|device| tags.holds(&device.id));
        let layering: Vec<&BlockDevice> = joined.clone().collect();
        let joined = joined.map(|device| self.lvm_node_in(device, request.layers)).collect();
        let nodes = |disks: &[DiskId]| -> Result<Vec<PathBuf>, EngineError> {
            let node = |disk: &DiskId| devices.iter().find(|device| device.id == *disk);
            Ok(disks
                .iter()
                .filter_map(node)
                .map(|device| self.lvm_node_in(device, request.layers))
                .collect())
        };
        let mut steps = vec![layout::joining(&vg, joined, tags.write())];
        steps.extend(
            layout::making(plan, &vg, nodes)?
                .iter()
                .map(|making| making.step().clone()),
        );
        let mut lines = self.part_lines(devices);
        lines.extend(self.layering_lines(PoolId::from_uuid(Uuid::nil()), request.layers, &layering));
        for step in &steps {
            let line = self.0.host.lvm.command_line(step);
            lines.push(line.doing(|| "say what would be done".to_owned())?);
        }
        Ok(lines)
    }

    fn begin_creation(
        &self,
        by: &Principal,
        request: &PoolRequest,
        id: PoolId,
        new: Option<(Vec<BlockDevice>, Plan)>,
    ) -> Job {
        let mut disks = request.disks.clone();
        disks.sort();
        let job = self.begin_job(by, JobKind::CreatePool, &request.name, request.layout, disks, id);
        let limit =
            Duration::from_secs(3600) + laying_limit(request.layers, request.disks.len() + request.spares.len());
        let (engine, by, request) = (self.clone(), by.clone(), request.clone());
        let name = request.name.clone();
        self.run_long_job(job.id, limit, move |progress| {
            if let Some((devices, plan)) = new {
                let tags = tags_of(&request, &plan);
                let disks: Vec<DiskId> = devices.iter().map(|device| device.id.clone()).collect();
                let begin = || engine.join_disks(id, &tags, &devices, progress);
                engine.begin_encrypted(id, request.layers, &disks, begin)?;
            }
            engine.finish_pool(id, progress)?;
            engine.note_new_pool(id)?;
            let message = format!("pool {name} was made");
            engine.record(
                EventKind::PoolCreated,
                Severity::Info,
                Some(id.to_string()),
                Some(&by),
                message,
            );
            Ok(())
        });
        job
    }

    pub(crate) fn begin_job(
        &self,
        by: &Principal,
        kind: JobKind,
        name: &PoolName,
        layout: Layout,
        disks: Vec<DiskId>,
        id: PoolId,
    ) -> Job {
        let now = self.0.host.machine.now();
        let job = self.0.jobs.begin(kind, name.to_string(), by.owner.clone(), STEPS, now);
        locked(&self.0.pending).push(Pending {
            id,
            name: name.clone(),
            layout,
            disks,
            job: job.id,
            kind,
        });
        job
    }
}

/// The tags of a pool that begins.
fn tags_of(request: &PoolRequest, plan: &Plan) -> PoolTags {
    PoolTags {
        name: request.name.clone(),
        layout: plan.layout,
        state: Stage::Creating,
        groups: plan
            .groups
            .iter()
            .map(|group| group.members.iter().map(|m| m.disk.clone()).collect())
            .collect(),
        left_out: plan.left_out.iter().map(|m| m.disk.clone()).collect(),
        spares: request.spares.clone(),
        coming: Vec::new(),
        draining: None,
        replacing: None,
        trash_seconds: request.trash_seconds.unwrap_or(DEFAULT_TRASH_SECONDS),
        layers: request.layers,
    }
}

fn describe(request: &PoolRequest, plan: &Plan, commands: Vec<Vec<String>>) -> PoolPlan {
    PoolPlan {
        request: request.clone(),
        groups: layout::answering(plan),
        usable: plan.usable(),
        survives: plan.layout.survives(),
        failures: layout::failures(plan),
        wasted: layout::wasted(plan),
        warnings: layout::warnings(plan)
            .into_iter()
            .chain(layer_warnings(request))
            .chain(free_warnings(request))
            .collect(),
        commands,
    }
}

/// A pool that holds volumes, snapshots or deleted volumes is not deleted.
pub(crate) fn refuse_volumes(pool: &PoolView) -> Result<(), EngineError> {
    let held = match (pool.volumes.len(), pool.snapshots.len(), pool.trash.len()) {
        (0, 0, 0) => return Ok(()),
        (0, 0, trash) => format!("{trash} deleted volume(s) in its trash; purge them"),
        (0, snapshots, _) => format!("{snapshots} snapshot(s); delete them"),
        (count, _, _) => format!("{count} volume(s); delete them"),
    };
    Err(EngineError::Conflict(format!(
        "pool {} holds {held} first",
        pool.tags.name
    )))
}

/// LVM changes no group that lacks a disk.
pub(crate) fn refuse_missing(pool: &PoolView) -> Result<(), EngineError> {
    match pool.missing_reason() {
        None => Ok(()),
        Some(why) => Err(EngineError::Unavailable(format!(
            "pool {} cannot be changed: {why}",
            pool.tags.name
        ))),
    }
}

/// Tags can be changed in a pool that is served, also while it lacks a disk: clients come and go.
pub(crate) fn refuse_incomplete(pool: &PoolView) -> Result<(), EngineError> {
    match pool.state() {
        PoolState::Creating | PoolState::Ready | PoolState::Degraded | PoolState::Deleting => Ok(()),
        PoolState::Incomplete => Err(EngineError::Unavailable(format!(
            "pool {} is not complete, and cannot be changed until its disks are back",
            pool.tags.name
        ))),
    }
}

/// Volumes are made only in a whole pool.
pub(crate) fn refuse_unready(pool: &PoolView) -> Result<(), EngineError> {
    let why = || {
        let why = pool.trouble.clone().or_else(|| pool.missing_reason());
        why.map(|why| format!(": {why}")).unwrap_or_default()
    };
    match pool.state() {
        _ if pool.releasing => Err(EngineError::Conflict(format!(
            "pool {} is being released",
            pool.tags.name
        ))),
        PoolState::Ready => Ok(()),
        PoolState::Creating | PoolState::Deleting => Err(EngineError::Conflict(format!(
            "pool {} is being {}",
            pool.tags.name,
            if pool.tags.state == Stage::Creating {
                "made; ask again when that is done"
            } else {
                "deleted"
            }
        ))),
        PoolState::Degraded | PoolState::Incomplete => Err(EngineError::Unavailable(format!(
            "pool {} is {} and cannot be changed{}",
            pool.tags.name,
            pool.state().name(),
            why()
        ))),
    }
}

/// Whether the machine itself is gone, so that nothing else needs to be tried.
pub(crate) fn power_lost(error: &EngineError) -> bool {
    matches!(error, EngineError::Host { source, .. } if source.kind() == HostErrorKind::PowerLost)
}

pub(crate) fn no_pool(name_or_id: &str) -> EngineError {
    EngineError::NotFound {
        what: "pool",
        name: name_or_id.to_owned(),
    }
}

fn name_taken(name: &PoolName) -> EngineError {
    EngineError::NameTaken(format!(
        "there is a pool {name} with another layout or other disks; choose another name, or ask for the same"
    ))
}
