//! What cannot be served, and whose clients would keep others from being served: Linux's client takes back all that it had open on a server
//! one after the other, and while one is answered "later" it opens nothing at all.
//!
//! So the NFS server starts when the disks that lack have come or have been waited for, and who has something of what is served is told
//! that the rest is not there. Who has nothing else waits.
//!
//! Invariant: nobody is told so while the disks are waited for, nor while all is being reconciled, which takes pools down to bring them up.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use cistern_host::Service;
use cistern_model::{PoolState, ServiceState};

use crate::EngineError;
use crate::engine::{Engine, locked};
use crate::error::Doing as _;
use crate::reconcile::RECONCILING;
use crate::tags::Stage;
use crate::view::PoolView;
use crate::volumes::bare;

/// How long after its time the NFS server may take to start.
const LATE: Duration = Duration::from_secs(30);

impl Engine {
    /// Starts the NFS server, if it does not run, or has it started once the disks have been waited for: a client takes back its files and
    /// locks only in the first seconds.
    pub(crate) fn start_nfs(&self) -> Result<(), EngineError> {
        let nfs = Service::NfsServer;
        if let Some(left) = self.disks_awaited()
            && matches!(
                self.0.host.services.state(nfs),
                Ok(ServiceState::Inactive | ServiceState::Failed)
            )
        {
            let seconds = left.as_secs().max(1);
            tracing::info!("the NFS server starts in {seconds} s, or when the disks that lack are there");
            *locked(&self.0.nfs_due) = Some(Instant::now() + left);
            self.reconcile_in(left);
            return Ok(());
        }
        let started = self.0.host.services.ensure_started(nfs);
        *locked(&self.0.nfs_due) = None;
        started.doing(|| "start the NFS server".to_owned()).map(drop)
    }

    /// Whether it has not started because disks were waited for, and is not late with that.
    pub(crate) fn nfs_is_to_start(&self) -> bool {
        locked(&self.0.nfs_due).is_some_and(|due| Instant::now() < due + LATE)
    }

    /// Starts the NFS server if its time has come and it has not: the reconciling that was to do it may have failed.
    pub(crate) fn start_nfs_if_due(&self) {
        let due = locked(&self.0.nfs_due).is_some_and(|due| due <= Instant::now());
        if due && let Err(error) = self.reconcile() {
            tracing::error!(
                error = error.problem().detail,
                "the NFS server could not be started; it is tried again"
            );
        }
    }

    /// How long disks of pools are still waited for; none, if all are there or have been waited for.
    pub(crate) fn disks_awaited(&self) -> Option<Duration> {
        let wait = self.0.config.degraded_wait;
        let lacking = {
            let pools: Vec<PoolView> = self
                .view()
                .pools
                .values()
                .filter(|pool| is_ours(pool))
                .map(bare)
                .collect();
            let lacking = pools.iter().filter_map(|pool| self.lacking_for(pool)).min();
            // One whose disks are all here may have no key, and none comes by itself.
            let away = self
                .pools_away()
                .is_ok_and(|away| away.iter().any(|id| !self.is_locked(*id)));
            lacking.into_iter().chain(away.then(|| self.0.begun.elapsed())).min()
        };
        let left = wait.checked_sub(lacking?)?;
        (!left.is_zero()).then_some(left)
    }

    /// Tells clients that wait for what cannot be served that it is not there, if they would keep from themselves what can be. A round that
    /// fails is made up for by the next. To be called every few seconds once the engine has started: what clients held they can take back
    /// only in the first twenty of the NFS server.
    pub fn tell_of_unserved(&self) {
        if !self.is_started() {
            return;
        }
        let Some(_still) = self.0.names.try_hold(RECONCILING.to_owned()) else {
            return;
        };
        let unserved = self.unserved();
        if !unserved.is_empty()
            && self.disks_awaited().is_none()
            && let Err(error) = self.0.host.exports.answer_waiting(&unserved)
        {
            tracing::warn!(%error, "clients of what cannot be served may wait, and their other volumes with them");
        }
    }

    /// The exports of what cannot be served. Some may be mounted all the same.
    fn unserved(&self) -> BTreeSet<PathBuf> {
        let away = self.exports_kept_of_pools_away();
        let mut paths: BTreeSet<PathBuf> = away.into_iter().map(|entry| entry.path).collect();
        let view = self.view();
        for pool in view.pools.values().filter(|pool| is_ours(pool)) {
            if pool.state() == PoolState::Incomplete {
                paths.extend(self.exports_of(pool).into_iter().map(|entry| entry.path));
                continue;
            }
            let volumes = pool.volumes.iter().filter(|(_, volume)| volume.trouble.is_some());
            paths.extend(volumes.map(|(id, _)| self.path_of(*id)));
            let snapshots = pool.snapshots.iter().filter(|(_, snapshot)| snapshot.trouble.is_some());
            paths.extend(snapshots.map(|(id, _)| self.snapshot_path(*id)));
        }
        paths
    }
}

fn is_ours(pool: &PoolView) -> bool {
    pool.tags.state == Stage::Ready && !pool.releasing
}
