//! What becomes whole by itself: a job that was interrupted goes on, and a spare takes the place of a disk that has been away for long
//! enough. What a job does is in `replace`, `drain` and `grow_pool`.
//!
//! Invariant: nothing is begun while a job is at a pool; what was left to that job, or could not be begun, is looked at again when that is
//! over, and not again and again where nothing came of it.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use cistern_model::{DiskId, EventKind, PoolId, Principal, Severity};

use crate::EngineError;
use crate::disks::DISKS;
use crate::engine::{Engine, locked};
use crate::spares::fits;
use crate::tags::Stage;
use crate::view::PoolView;

/// When a spare is tried again that could not take a disk's place, with nothing different since.
const AGAIN: Duration = Duration::from_secs(600);
/// When it is tried again if somebody was at the disks.
const SOON: Duration = Duration::from_secs(60);

/// What is to be mended in a pool, and how the pool is. Where that is the same nothing has happened since.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Due {
    /// The disk that leaves, and the one that takes its place.
    disks: Vec<DiskId>,
    /// Whether it stands in the tags, and was broken off.
    begun: bool,
    missing: u32,
    unused: BTreeSet<PathBuf>,
}

impl Engine {
    /// Goes on with what was interrupted, or lets a spare take the place of a disk that has been away for long enough.
    pub(crate) fn mend(&self, id: PoolId) -> Result<(), EngineError> {
        let Some(pool) = self.view().pools.get(&id).cloned() else {
            return Ok(());
        };
        if !self.can_be_mended(&pool) {
            return Ok(());
        }
        if self.go_on_draining(&pool) || self.go_on_adding(&pool) {
            return Ok(());
        }
        if let Some((old, new)) = &pool.tags.replacing {
            // Without the new disk nothing can be done; it may come.
            if self.is_there(new) {
                self.begin_replacement(&Principal::local(), &pool, old, new);
            }
            return Ok(());
        }
        // Whoever was not asked back has not erred again.
        if !self.was_asked_back(&pool) {
            return Ok(());
        }
        let pool = self.without_erring(pool)?;
        let Some(old) = self.disk_to_replace(&pool) else {
            return Ok(());
        };
        let away = self.lacking_for(&pool).unwrap_or(self.0.config.degraded_wait);
        let left = self.0.config.degraded_wait.saturating_sub(away);
        let Some(new) = self.spare_for(&pool, &old) else {
            return Ok(());
        };
        if !left.is_zero() {
            self.reconcile_in(left);
            return Ok(());
        }
        let Some(_disks) = self.0.names.try_hold(DISKS.to_owned()) else {
            // Whoever has it is soon done, or lays checksums for hours.
            if let Some((_, at)) = locked(&self.0.failures.tried).get_mut(&id) {
                *at = at.checked_sub(AGAIN - SOON).unwrap_or(*at);
            }
            return Ok(());
        };
        if let Err(error) = self.judge_replacement(&pool, &old) {
            tracing::info!(
                reason = error.problem().detail,
                "no spare can take the place of {old} now"
            );
            return Ok(());
        }
        self.note_replacement(&pool, &old, &new)?;
        let message = format!("spare {new} takes the place of disk {old} in pool {}", pool.tags.name);
        self.record(
            EventKind::PoolChanged,
            Severity::Warning,
            Some(id.to_string()),
            None,
            message,
        );
        self.begin_replacement(&Principal::local(), &pool, &old, &new);
        Ok(())
    }

    /// Whether there is something to be mended, and nobody has tried since it has been so: whoever saw a disk go left it to a job that
    /// was at the pool then, and a job that fails leaves it to nobody.
    pub(crate) fn waits_to_be_mended(&self, pool: &PoolView) -> bool {
        if !self.can_be_mended(pool) {
            return false;
        }
        let due = self.due(pool);
        let mut tried = locked(&self.0.failures.tried);
        let Some(due) = due else {
            tried.remove(&pool.id);
            return false;
        };
        let in_vain = tried.get(&pool.id).is_some_and(|(before, at)| {
            // A copy may have become whole, without which a spare could not be filled.
            *before == due && (due.begun || at.elapsed() < AGAIN)
        });
        if !in_vain {
            tried.insert(pool.id, (due, Instant::now()));
        }
        !in_vain
    }

    fn can_be_mended(&self, pool: &PoolView) -> bool {
        let busy = locked(&self.0.pending).iter().any(|pending| pending.id == pool.id);
        !busy && pool.tags.state == Stage::Ready && !pool.releasing && pool.active && pool.has_all_data()
    }

    /// What [`Engine::mend`] would do about a disk that leaves, or that lacks.
    fn due(&self, pool: &PoolView) -> Option<Due> {
        let due = |disks: Vec<DiskId>, begun: bool| Due {
            disks,
            begun,
            missing: pool.missing,
            unused: pool.failed_nodes(),
        };
        if let Some(disk) = self.leaving(pool) {
            return Some(due(vec![disk], true));
        }
        if let Some((old, new)) = &pool.tags.replacing {
            return self.is_there(new).then(|| due(vec![old.clone(), new.clone()], true));
        }
        let waits = |away: Duration| away < self.0.config.degraded_wait;
        if self.lacking_for(pool).is_some_and(waits) || !self.was_asked_back(pool) {
            return None;
        }
        let old = self.disk_to_replace(pool)?;
        let new = self.spare_for(pool, &old)?;
        Some(due(vec![old, new], false))
    }

    /// A disk of a pool that is missing, or of which the kernel uses no image in spite of having been asked to.
    fn disk_to_replace(&self, pool: &PoolView) -> Option<DiskId> {
        let missing = self.missing_disks(pool);
        let member = |disk: &DiskId| pool.tags.groups.iter().flatten().any(|member| member == disk);
        let mut missing = missing.into_iter().filter(member);
        if pool.has_missing_image()
            && let Some(disk) = missing.next()
        {
            return Some(disk);
        }
        let failed = pool.failed_nodes();
        let devices = locked(&self.0.devices);
        let device = devices.iter().find(|device| failed.contains(device.lvm_node()))?;
        pool.tags.holds(&device.id).then(|| device.id.clone())
    }

    /// The smallest spare that is there and large enough.
    fn spare_for(&self, pool: &PoolView, old: &DiskId) -> Option<DiskId> {
        let needed = self.extents_on(pool, old);
        let devices = locked(&self.0.devices);
        let spares = devices.iter().filter(|device| {
            let joined = pool.nodes.iter().any(|node| node == device.lvm_node());
            pool.tags.spares.contains(&device.id) && joined && fits(device, pool.tags.layers, needed).is_ok()
        });
        spares.min_by_key(|device| device.size).map(|device| device.id.clone())
    }
}
