//! Pools that lost what they cannot do without while they were served, and have enough of it again.
//!
//! The kernel keeps to the devices that are gone, whatever came back in their place: every use of the pool fails until it
//! is taken down and activated anew. Its clients wait meanwhile, as after a restart.
//!
//! Invariant: what clients wrote and did not sync is written out, or known to be lost by the NFS server, before it lets go
//! of it; so a client that asks for it to be synced sends it again.

use std::path::Path;
use std::time::Duration;

use cistern_model::{EventKind, Layout, PoolId, Severity};

use crate::EngineError;
use crate::engine::{Engine, locked};
use crate::error::Doing as _;
use crate::pools::power_lost;
use crate::view::PoolView;
use crate::volumes::volume_lock;

/// When it is tried again, if somebody was at one of its volumes.
const AGAIN: Duration = Duration::from_secs(5);

impl Engine {
    /// Whether a pool is to be taken down and activated anew. What one lacks is remembered until then.
    pub(crate) fn is_to_be_renewed(&self, pool: &PoolView) -> Result<bool, EngineError> {
        if !pool.active || pool.releasing || locked(&self.0.pending).iter().any(|pending| pending.id == pool.id) {
            return Ok(false);
        }
        if !pool.has_all_data() {
            return Ok(false);
        }
        if pool.broken {
            return Ok(true);
        }
        // It may have enough again before anybody looked. Once: if that did not help, nor would the next time.
        if locked(&self.0.failures.renewed).contains(&pool.id) {
            return Ok(false);
        }
        if !pool.has_all_data_in_use() {
            return Ok(true);
        }
        // One with copies that lacks none of its disks is refreshed.
        let gone = || self.0.host.lvm.lies_on_gone(&pool.vg());
        Ok(pool.tags.layout == Layout::Single
            && pool.missing == 0
            && gone().doing(|| format!("look what pool {} lies on", pool.tags.name))?)
    }

    /// Takes such a pool down, so that it is activated anew. What fails is tried again.
    pub(crate) fn renew(&self, id: PoolId) -> Result<(), EngineError> {
        let renewed = self.take_down(id);
        if renewed.as_ref().is_err_and(|error| !power_lost(error)) {
            self.reconcile_in(AGAIN);
        }
        renewed
    }

    fn take_down(&self, id: PoolId) -> Result<(), EngineError> {
        let Some(pool) = self.view().pools.get(&id).cloned() else {
            return Ok(());
        };
        if !self.is_to_be_renewed(&pool)? {
            return Ok(());
        }
        let names = pool.volumes.values().map(|volume| volume_lock(id, &volume.tags.name));
        let held: Option<Vec<_>> = names.map(|name| self.0.names.try_hold(name)).collect();
        let Some(_held) = held else {
            return Err(EngineError::Unavailable(format!(
                "its disks are back, and it is taken up again once what is under way at its volumes has ended; in {} s",
                AGAIN.as_secs()
            )));
        };
        let volumes = pool.volumes.keys().map(|volume| self.path_of(*volume));
        let snapshots = pool.snapshots.keys().map(|snapshot| self.snapshot_path(*snapshot));
        // One whose proof was cut short may be mounted.
        let copies = pool.volumes.keys().map(|volume| self.copy_path(*volume));
        for path in volumes.chain(snapshots).chain(copies) {
            if self.mounted(&path)? {
                self.give_back(&path)?;
            }
        }
        self.change_lvm(
            id,
            || format!("take down what the kernel has of pool {}", pool.tags.name),
            || self.0.host.lvm.deactivate_vg(&pool.vg()),
            |view| {
                if let Some(pool) = view.pools.get_mut(&id) {
                    pool.taken_down();
                    pool.broken = false;
                }
            },
        )?;
        locked(&self.0.failures.renewed).insert(id);
        // What could not be done while it lacked data can be now.
        locked(&self.0.failures.tried).remove(&id);
        self.try_again(id);
        let message = format!(
            "pool {} has all of its data again, and is taken up anew",
            pool.tags.name
        );
        self.record(
            EventKind::PoolChanged,
            Severity::Info,
            Some(id.to_string()),
            None,
            message,
        );
        Ok(())
    }

    /// Lets go of a filesystem to which nothing can be written any more.
    pub(crate) fn give_back(&self, path: &Path) -> Result<(), EngineError> {
        let synced = self.0.host.filesystems.sync(path);
        match synced.doing(|| format!("write out what is on its way to {}", path.display())) {
            Ok(()) => {}
            Err(error) if power_lost(&error) => return Err(error),
            // As was to be expected; now the server knows too.
            Err(error) => {
                let error = error.problem().detail;
                tracing::info!(error, "clients are to send again what they have not synced");
            }
        }
        self.let_go(path)
    }
}
