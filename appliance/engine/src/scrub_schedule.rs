//! When a pool's copies are compared by themselves. Invariant: one pool at a time on the machine, and only one that is whole,
//! filled and at rest; all that decides is in tags and in the time, so that one that a restart broke off begins again.

use cistern_host::{ImageHealth, SyncAction};
use cistern_model::{JobKind, Layout, PoolId, PoolState};
use jiff::Timestamp;

use crate::EngineError;
use crate::disks::DISKS;
use crate::engine::{Engine, locked};
use crate::error::Doing as _;
use crate::pool_settings::PoolSettings;
use crate::pools::power_lost;
use crate::scrub::Cause;
use crate::tags::moment;
use crate::view::PoolView;

impl Engine {
    /// Begins the scrub that has been due for the longest, if none is under way. Fails only if the machine is gone.
    pub(crate) fn scrub_by_schedule(&self, now: Timestamp) -> Result<(), EngineError> {
        let mut due: Vec<(Timestamp, PoolId)> = Vec::new();
        let pools: Vec<PoolView> = self.view().pools.values().cloned().collect();
        for pool in pools {
            match due_since(&pool, now, self.is_uneven(&pool)) {
                Due::Since(time) => due.push((time, pool.id)),
                Due::NotCounted => match self.count_from(&pool, now) {
                    Err(error) if power_lost(&error) => return Err(error),
                    Err(error) => tracing::warn!(error = error.problem().detail, "from when to scrub was not noted"),
                    Ok(()) => {}
                },
                Due::Not => {}
            }
        }
        due.sort();
        for (_, id) in due {
            // Held by whoever changes what a pool lies on.
            let Some(_disks) = self.0.names.try_hold(DISKS.to_owned()) else {
                return Ok(());
            };
            if self.scrubs() {
                return Ok(());
            }
            let Some(pool) = self.view().pools.get(&id).cloned() else {
                continue;
            };
            match self.at_rest(&pool) {
                Ok(true) => {
                    let repair = self.is_uneven(&pool);
                    self.begin_scrub(pool, Cause::Schedule, repair);
                }
                Ok(false) => {}
                Err(error) if power_lost(&error) => return Err(error),
                Err(error) => tracing::warn!(error = error.problem().detail, "a pool was not scrubbed"),
            }
        }
        Ok(())
    }

    /// Looks whether a pool that was just activated is to be compared, and made to agree, when it is whole. The kernel makes copies
    /// even after a power cut, but not those of striped mirrors of which one is to be filled (`host/src/linux/lvm/uneven.rs`).
    /// Fails only if the machine is gone.
    pub(crate) fn see_whether_uneven(&self, id: PoolId) -> Result<(), EngineError> {
        let Some(pool) = self.view().pools.get(&id).cloned() else {
            return Ok(());
        };
        if pool.tags.layout != Layout::StripeMirror || pool.settings.uneven {
            return Ok(());
        }
        let mut filling = false;
        for raid in pool.raids.iter().filter(|raid| raid.images.len() > 1) {
            let status = self.0.host.raids.raid_status(&raid.vg, &raid.name);
            match status.doing(|| format!("ask how {} is", pool.tags.name)) {
                Ok(Some(status)) => {
                    filling |= status.images.contains(&ImageHealth::Filling) || status.action == SyncAction::Recover;
                }
                Ok(None) => {}
                Err(error) if power_lost(&error) => return Err(error),
                // It may be.
                Err(_) => filling = true,
            }
        }
        if !filling {
            return Ok(());
        }
        locked(&self.0.care).uneven.insert(id);
        // A group that lacks a disk takes no tags: it is remembered until the next start.
        let noted = PoolSettings {
            uneven: true,
            ..pool.settings
        };
        match self.settle(&pool, noted) {
            Err(error) if power_lost(&error) => Err(error),
            Err(error) => {
                tracing::warn!(
                    error = error.problem().detail,
                    "that a pool is to be compared was not noted"
                );
                Ok(())
            }
            Ok(_) => Ok(()),
        }
    }

    fn is_uneven(&self, pool: &PoolView) -> bool {
        pool.settings.uneven || locked(&self.0.care).uneven.contains(&pool.id)
    }

    fn scrubs(&self) -> bool {
        let pending = locked(&self.0.pending);
        pending.iter().any(|pending| pending.kind == JobKind::ScrubPool)
    }

    /// Whether a pool that is whole has nothing else under way.
    fn at_rest(&self, pool: &PoolView) -> Result<bool, EngineError> {
        if self.refuse_busy(pool).is_err() || pool.releasing {
            return Ok(false);
        }
        for raid in pool.raids.iter().filter(|raid| raid.images.len() > 1) {
            let status = self.0.host.raids.raid_status(&raid.vg, &raid.name);
            let status = status.doing(|| format!("ask how {} is", pool.tags.name))?;
            if status.is_none_or(|status| status.action != SyncAction::Idle) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Notes that a pool's first scrub is due so long after now.
    fn count_from(&self, pool: &PoolView, now: Timestamp) -> Result<(), EngineError> {
        let Some(_one) = self.0.names.try_hold(Engine::settings_lock(pool.id)) else {
            return Ok(());
        };
        let Some(pool) = self.view().pools.get(&pool.id).cloned() else {
            return Ok(());
        };
        let counted = PoolSettings {
            scrub_from: Some(moment(now)),
            ..pool.settings
        };
        self.settle(&pool, counted).map(drop)
    }
}

/// Whether a pool's scrub is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Due {
    Not,
    /// It was never said from when its time counts.
    NotCounted,
    Since(Timestamp),
}

fn due_since(pool: &PoolView, now: Timestamp, uneven: bool) -> Due {
    let moves = pool.tags.replacing.is_some() || pool.tags.draining.is_some() || !pool.tags.coming.is_empty();
    if pool.state() != PoolState::Ready || moves {
        return Due::Not;
    }
    if uneven {
        return Due::Since(Timestamp::UNIX_EPOCH);
    }
    let Some(interval) = pool.settings.scrub_every(pool.tags.layout).interval() else {
        return Due::Not;
    };
    let last = pool.settings.last_scrub.map(|last| last.ended);
    // A time that is yet to come was noted by a clock that went wrong.
    let past = [last, pool.settings.scrub_from]
        .into_iter()
        .flatten()
        .filter(|time| *time <= now);
    let Some(from) = past.max() else {
        return Due::NotCounted;
    };
    match from.checked_add(interval) {
        Ok(time) if time <= now => Due::Since(time),
        Ok(_) | Err(_) => Due::Not,
    }
}
