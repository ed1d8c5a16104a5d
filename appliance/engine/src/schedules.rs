//! What is done from time to time: scheduled snapshots are made and thinned out, the trash is emptied of what is old, what
//! clients deleted is given back to the pools, and the pools' copies are compared.
//!
//! Invariant: a pass changes nothing that a request is at; one failure keeps nothing else from being done, and is told
//! once. All that decides is in tags and in the time, so that it does not matter when the last pass was.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use cistern_model::{EventKind, Period, PoolId, Principal, Schedule, Severity, SnapshotId, VolumeId};
use jiff::Timestamp;

use crate::EngineError;
use crate::engine::{Engine, locked};
use crate::error::Doing as _;
use crate::pools::power_lost;
use crate::snapshots::snapshot_lock;
use crate::tags::Stage;
use crate::view::SnapshotView;
use crate::volumes::{LIMIT, volume_lock};

/// The longest that it may take to give back what was deleted in a volume of terabytes.
const TRIM_LIMIT: std::time::Duration = std::time::Duration::from_secs(3600);
const DAY: i64 = 24 * 60 * 60;

/// What passes remember of those before. None of it must survive.
#[derive(Debug, Default)]
pub(crate) struct Chores {
    /// Why a volume's scheduled snapshot could not be made, so that it is told once.
    troubles: HashMap<VolumeId, String>,
    /// The day, by its own reckoning, on which a volume was last trimmed.
    trimmed: HashMap<VolumeId, i64>,
}

impl Engine {
    /// One pass.
    pub(crate) fn do_chores(&self) {
        // A clock that was never set decides nothing.
        let Some(now) = self.trusted_time() else { return };
        let done = self
            .purge_old(now)
            .and_then(|()| self.keep_schedules(now))
            .and_then(|()| self.scrub_by_schedule(now))
            .and_then(|()| self.trim_daily(now));
        if let Err(error) = done {
            tracing::error!(error = error.problem().detail, "the chores broke off");
        }
    }

    /// Fails only if the machine is gone.
    fn keep_schedules(&self, now: Timestamp) -> Result<(), EngineError> {
        let ready = self.volumes_in(|stage| stage == Stage::Ready);
        for (pool, id) in ready {
            let schedule = self.view().volume(id).map(|(_, volume)| volume.tags.schedule);
            let Some(schedule) = schedule.filter(|schedule| !schedule.is_none()) else {
                continue;
            };
            match self.keep_schedule(pool, id, schedule, now) {
                Ok(()) => {
                    locked(&self.0.chores).troubles.remove(&id);
                }
                Err(error) if power_lost(&error) => return Err(error),
                Err(error) => self.tell_once(id, &error),
            }
        }
        Ok(())
    }

    fn tell_once(&self, id: VolumeId, error: &EngineError) {
        let why = error.problem().detail;
        let before = locked(&self.0.chores).troubles.insert(id, error.to_string());
        if before.as_deref() != Some(&error.to_string()) {
            let message = format!("the schedule of volume {id} was not kept: {why}");
            self.record(
                EventKind::VolumeChanged,
                Severity::Warning,
                Some(id.to_string()),
                None,
                message,
            );
        }
    }

    fn keep_schedule(&self, pool: PoolId, id: VolumeId, schedule: Schedule, now: Timestamp) -> Result<(), EngineError> {
        let taken = self.take_scheduled(pool, id, schedule, now);
        if taken.as_ref().is_err_and(power_lost) {
            return taken;
        }
        // Also where none could be taken: the pool may have no room for one, and get it by this.
        self.thin_out(pool, id, schedule).and(taken)
    }

    fn take_scheduled(
        &self,
        pool: PoolId,
        id: VolumeId,
        schedule: Schedule,
        now: Timestamp,
    ) -> Result<(), EngineError> {
        let due = due(&self.scheduled_of(pool, id), schedule, now);
        if !due.is_empty() {
            let _operation = self.0.operations.begin(LIMIT);
            let (view, volume) = self.visible_volume(&Principal::local(), id)?;
            let Some(_name) = self.0.names.try_hold(volume_lock(pool, &volume.tags.name)) else {
                return Ok(());
            };
            let (_, now_is) = self.visible_volume(&Principal::local(), id)?;
            if now_is.tags.state != Stage::Ready || now_is.tags.name != volume.tags.name {
                return Ok(());
            }
            let base = format!("scheduled-{}", now.strftime("%Y-%m-%dT%H:%MZ"));
            let name = self.free_snapshot_name(pool, id, &base)?;
            let made = self.take_snapshot(&view, id, &now_is, &name, due)?;
            let message = format!(
                "snapshot {name} of volume {} was made by its schedule",
                volume.tags.name
            );
            self.record(
                EventKind::SnapshotCreated,
                Severity::Info,
                Some(made.to_string()),
                None,
                message,
            );
        }
        Ok(())
    }

    /// Deletes what a volume's schedule no longer keeps.
    fn thin_out(&self, pool: PoolId, id: VolumeId, schedule: Schedule) -> Result<(), EngineError> {
        // Asked anew: what was made just now is not from the future.
        let now = self.0.host.machine.now();
        for snapshot in surplus(&self.scheduled_of(pool, id), schedule, now) {
            let _operation = self.0.operations.begin(LIMIT);
            let Some(_name) = self.0.names.try_hold(snapshot_lock(snapshot)) else {
                continue;
            };
            let Ok((view, there)) = self.visible_snapshot(&Principal::local(), snapshot) else {
                continue;
            };
            if view.missing > 0 {
                return Ok(());
            }
            self.drop_snapshot(&view, snapshot, &there)?;
            let message = format!(
                "snapshot {} of volume {} was deleted by its schedule",
                there.tags.name, there.tags.volume_name
            );
            self.record(
                EventKind::SnapshotDeleted,
                Severity::Info,
                Some(snapshot.to_string()),
                None,
                message,
            );
        }
        Ok(())
    }

    fn scheduled_of(&self, pool: PoolId, volume: VolumeId) -> BTreeMap<SnapshotId, SnapshotView> {
        let view = self.view();
        let snapshots = view.pools.get(&pool).map(|pool| &pool.snapshots);
        let scheduled = snapshots
            .into_iter()
            .flatten()
            .filter(|(_, s)| s.tags.volume == volume && !s.tags.scheduled.is_empty());
        scheduled.map(|(id, s)| (*id, s.clone())).collect()
    }

    /// Gives back to the pools what clients deleted: each volume once a day, each at its own time of the day.
    fn trim_daily(&self, now: Timestamp) -> Result<(), EngineError> {
        for (pool, id) in self.volumes_in(|stage| stage == Stage::Ready) {
            // Spread over the day by the volume's id.
            let offset = i64::try_from(id.uuid().as_u128() % 86_400).unwrap_or(0);
            let day = (now.as_second() + offset).div_euclid(DAY);
            let before = *locked(&self.0.chores).trimmed.entry(id).or_insert(day);
            if before < day {
                match self.trim_volume(pool, id) {
                    Ok(_) => {
                        locked(&self.0.chores).trimmed.insert(id, day);
                    }
                    Err(error) if power_lost(&error) => return Err(error),
                    Err(error) => tracing::warn!(error = error.problem().detail, "a volume was not trimmed"),
                }
            }
        }
        Ok(())
    }

    fn trim_volume(&self, pool: PoolId, id: VolumeId) -> Result<(), EngineError> {
        let (_, volume) = self.visible_volume(&Principal::local(), id)?;
        let Some(_name) = self.0.names.try_hold(volume_lock(pool, &volume.tags.name)) else {
            return Ok(());
        };
        let (_, now) = self.visible_volume(&Principal::local(), id)?;
        if now.tags.state != Stage::Ready || now.trouble.is_some() {
            return Ok(());
        }
        let _operation = self.0.operations.begin(TRIM_LIMIT);
        let trimmed = self.0.host.filesystems.trim(&self.path_of(id));
        trimmed.doing(|| format!("give back what was deleted in volume {} ({id})", volume.tags.name))
    }

    /// Gives back to a pool what clients deleted in its volumes, now.
    pub(crate) fn trim_pool(&self, pool: PoolId) -> Result<(), EngineError> {
        for (of, id) in self.volumes_in(|stage| stage == Stage::Ready) {
            if of == pool {
                match self.trim_volume(pool, id) {
                    Ok(_) => {}
                    Err(error) if power_lost(&error) => return Err(error),
                    Err(error) => tracing::warn!(error = error.problem().detail, "a volume was not trimmed"),
                }
            }
        }
        Ok(())
    }
}

/// The periods for which a snapshot is to be made now. One from the future, made while the clock was ahead, is none of this
/// period: the schedule would stand still until then.
fn due(snapshots: &BTreeMap<SnapshotId, SnapshotView>, schedule: Schedule, now: Timestamp) -> BTreeSet<Period> {
    let made = |period: Period| {
        snapshots
            .values()
            .any(|s| s.tags.scheduled.contains(&period) && period.number(s.tags.created) == period.number(now))
    };
    Period::ALL
        .into_iter()
        .filter(|period| schedule.kept(*period) > 0 && !made(*period))
        .collect()
}

/// The snapshots that the schedule no longer keeps for any of the periods that they were made for. What somebody reads
/// is left. Those from the future, made while the clock was ahead, count as the oldest: else each that is made now would be
/// one too many.
fn surplus(snapshots: &BTreeMap<SnapshotId, SnapshotView>, schedule: Schedule, now: Timestamp) -> Vec<SnapshotId> {
    let age = |s: &SnapshotView| (s.tags.created <= now, s.tags.created);
    let mut kept: BTreeSet<SnapshotId> = BTreeSet::new();
    for period in Period::ALL {
        let mut of_period: Vec<_> = snapshots
            .iter()
            .filter(|(_, s)| s.tags.scheduled.contains(&period))
            .map(|(id, s)| (age(s), *id))
            .collect();
        of_period.sort();
        let count = usize::try_from(schedule.kept(period)).unwrap_or(usize::MAX);
        kept.extend(of_period.iter().rev().take(count).map(|(_, id)| *id));
    }
    let mut rest: Vec<_> = snapshots
        .iter()
        .filter(|(id, s)| !kept.contains(id) && s.tags.clients.is_empty() && s.tags.state == Stage::Ready)
        .map(|(id, s)| (age(s), *id))
        .collect();
    rest.sort();
    rest.into_iter().map(|(_, id)| id).collect()
}
