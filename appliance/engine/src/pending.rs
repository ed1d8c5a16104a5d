//! Pools at which a job is. Invariant: one job at a time on a pool; a disk that a job has to do with is given to no other.

use std::time::Duration;

use cistern_model::{DiskId, JobId, JobKind, Layout, PoolId, PoolName};

use crate::EngineError;
use crate::engine::{Engine, locked};
use crate::view::PoolView;

/// A pool at which a job is.
#[derive(Debug, Clone)]
pub(crate) struct Pending {
    pub(crate) id: PoolId,
    pub(crate) name: PoolName,
    pub(crate) layout: Layout,
    pub(crate) disks: Vec<DiskId>,
    pub(crate) job: JobId,
    pub(crate) kind: JobKind,
}

impl Pending {
    /// Whether the pool itself comes or goes.
    pub(crate) fn makes_or_deletes(&self) -> bool {
        match self.kind {
            JobKind::CreatePool | JobKind::DeletePool => true,
            JobKind::ReplaceDisk | JobKind::ScrubPool | JobKind::AddDisks | JobKind::GrowPool | JobKind::DrainDisk => {
                false
            }
        }
    }
}

/// How long a scrub may take to give way: it looks every few seconds.
const GIVING_WAY: Duration = Duration::from_secs(60);

impl Engine {
    /// The job that is at a pool. A scrub that nobody asked for gives way first.
    pub(crate) fn pending_on(&self, id: PoolId) -> Option<Pending> {
        let find = || locked(&self.0.pending).iter().find(|pending| pending.id == id).cloned();
        let pending = find()?;
        if !self.tell_to_give_way(pending.job) {
            return Some(pending);
        }
        self.0.jobs.wait(pending.job, GIVING_WAY);
        find()
    }
}

/// A pool at which another job is.
pub(crate) fn busy_with(pool: &PoolView, pending: &Pending) -> EngineError {
    let doing = match pending.kind {
        JobKind::CreatePool => "is being made",
        JobKind::DeletePool => "is being deleted",
        JobKind::ReplaceDisk => "is getting another disk in the place of one of its own",
        JobKind::ScrubPool => "is being scrubbed",
        JobKind::AddDisks => "is getting further disks",
        JobKind::GrowPool => "is taking up what its disks have grown by",
        JobKind::DrainDisk => "is losing a disk, which is emptied first",
    };
    EngineError::Conflict(format!(
        "pool {} {doing} (job {}); ask again when that is done",
        pool.tags.name, pending.job
    ))
}
