//! Pools that lack disks for good are given up, disk by disk. Invariant: only where the operator names the pool beside the
//! disk, and a pool that could still be served with what it has by its id.
//!
//! Such a pool cannot be deleted, because LVM changes no group that lacks a disk; and a disk that was replaced, and comes back
//! after its pool was deleted, is such a pool by itself: of what became of the others nothing stands on it.

use cistern_model::{Disk, EventKind, PoolId, Principal, Severity};

use crate::EngineError;
use crate::engine::Engine;
use crate::pending::busy_with;
use crate::pools::refuse_volumes;
use crate::view::PoolView;

impl Engine {
    /// The last wipe may have been done and told to have failed: asked for again, the pool of which no disk is here any more is
    /// not waited for.
    pub(crate) fn forget_given_up(&self, by: &Principal, named: &str) -> Result<(), EngineError> {
        let Ok(pool) = self.visible_pool(by, named) else {
            // A restart has forgotten what the kernel had of it.
            let away = self.away_named(named);
            let mine = away.filter(|(id, had)| by.may_use_pool(&had.name) && !self.is_locked(*id));
            return match mine {
                Some((id, _)) if self.pending_on(id).is_none() => {
                    self.note_pool_gone(id)?;
                    self.reconcile()
                }
                Some(_) | None => Ok(()),
            };
        };
        if !pool.nodes.is_empty() || self.pending_on(pool.id).is_some() {
            return Ok(());
        }
        self.note_pool_gone(pool.id)?;
        self.change_view(|view| drop(view.pools.remove(&pool.id)));
        self.reconcile()
    }

    /// Wipes a disk of a pool that lacks others, and that is given up by this name.
    pub(crate) fn give_up(
        &self,
        by: &Principal,
        disk: &Disk,
        pool: PoolId,
        named: Option<&str>,
    ) -> Result<Disk, EngineError> {
        let id = &disk.id;
        let in_use = |why: String| EngineError::DiskInUse { disk: id.clone(), why };
        let Ok(pool) = self.visible_pool(by, &pool.to_string()) else {
            return Err(in_use(format!("it belongs to {pool}")));
        };
        let (name, key) = (&pool.tags.name, pool.vg());
        if pool.missing == 0 {
            return Err(in_use(format!(
                "it belongs to pool {name} ({key}), which lacks none of its disks"
            )));
        }
        let Some(named) = named else {
            return Err(in_use(format!(
                "it belongs to pool {name} ({key}), which lacks {} of its disks. If they never come back give up what is on this \
                 one: `cistern disks wipe {id} --confirm {id} --give-up {name}`",
                pool.missing
            )));
        };
        if named != name.as_str() && named != key {
            return Err(EngineError::Invalid(format!(
                "disk {id} belongs to pool {name} ({key}), and {named} was to be given up"
            )));
        }
        if let Some(pending) = self.pending_on(pool.id) {
            return Err(busy_with(&pool, &pending));
        }
        if pool.has_all_data()
            && named != key
            && let Err(held) = refuse_volumes(&pool)
        {
            return Err(EngineError::Conflict(format!(
                "pool {name} lacks {} of its disks, and yet all of its data is there: {held}, or replace the missing disk. To \
                 destroy what it holds, name it by its id: `--give-up {key}`",
                pool.missing
            )));
        }
        let device = self.device(id)?;
        let last = pool.nodes.iter().all(|node| node == device.lvm_node());
        if last {
            self.note_pool_gone(pool.id)?;
        }
        match pool.active {
            true => self.parting_with(&pool, || self.wipe_now(&device))?,
            false => self.wipe_now(&device)?,
        }
        self.forgive(id);
        let message = format!("disk {id} was wiped; it had carried a part of pool {name} ({key}), which was given up");
        let object = Some(id.to_string());
        self.record(EventKind::DiskWiped, Severity::Warning, object, Some(by), message);
        // A pool of which no disk is here is waited for, unless it was given up.
        if last {
            self.change_view(|view| drop(view.pools.remove(&pool.id)));
            // Whoever looked meanwhile may have noted it again.
            self.note_pool_gone(pool.id)?;
        }
        self.reconcile()?;
        self.disk_now(id)
    }
}

/// A pool all of whose disks vanished while it was served is not deleted: a restart forgets what the kernel still has of it.
pub(crate) fn refuse_vanished(pool: &PoolView) -> Result<(), EngineError> {
    if !pool.nodes.is_empty() {
        return Ok(());
    }
    Err(EngineError::Unavailable(format!(
        "none of the disks of pool {0} is here; bring them back, or, to give up what it holds, restart the appliance and delete pool {0} \
         then",
        pool.tags.name
    )))
}
