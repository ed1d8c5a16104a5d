//! The space of pools, looked after by the clock and at each request for more. Invariant: a pool is never filled by what
//! the engine makes: it refuses first. What is given up to make room is announced, and nothing is given up while what was
//! promised is not in danger.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::time::Instant;

use cistern_host::{ThinMode, ThinStatus};
use cistern_model::{AlertKind, Bytes, EventKind, PoolId, Severity};
use jiff::{SignedDuration, Timestamp};

use crate::EngineError;
use crate::alerts::Subject;
use crate::engine::{Engine, locked};
use crate::error::Doing as _;
use crate::fill::{self, Between, DATA_LIMIT, METADATA_LIMIT, SHED_LIMIT, ShedKind, Sheddable, THRESHOLDS};
use crate::pools::{no_pool, power_lost};
use crate::tags::Stage;
use crate::view::{DATA, PoolView, copy_name};
use crate::volumes::{LIMIT, bare};

/// How many things are given up in one round, each followed by a look at what it gave.
const SHED_AT_ONCE: usize = 50;

/// How often the volumes of a pool that stays short are trimmed.
const TRIM_PACE: SignedDuration = SignedDuration::from_hours(1);

/// When the volumes of pools were last trimmed because the pool ran short.
pub(crate) type Trims = HashMap<PoolId, Timestamp>;

/// How many thresholds of its data and of its metadata a pool had passed when it was last looked at.
pub(crate) type Levels = HashMap<PoolId, (usize, usize)>;

/// What the kernel told last of each pool, and when.
pub(crate) type Measured = HashMap<PoolId, (Instant, ThinStatus)>;

/// A pool of which less than this many percent are used has room for the volumes of the next seconds, whatever its clients write.
const MUCH_ROOM: f64 = 50.0;

impl Engine {
    /// Looks at every pool that is served. One that cannot be looked at keeps none of the others from it.
    pub(crate) fn look_at_capacity(&self) {
        let active: Vec<PoolId> = {
            let view = self.view();
            let ready = |pool: &&PoolView| pool.active && pool.tags.state == Stage::Ready && !pool.releasing;
            view.pools.values().filter(ready).map(|pool| pool.id).collect()
        };
        for id in &active {
            match self.look_at_pool(*id) {
                Ok(()) => {}
                Err(error) if power_lost(&error) => return,
                Err(error) => tracing::warn!(pool = %id, error = error.problem().detail, "its space was not looked at"),
            }
        }
        locked(&self.0.levels).retain(|id, _| active.contains(id));
        locked(&self.0.measured).retain(|id, _| active.contains(id));
        for kind in [
            AlertKind::PoolSpace,
            AlertKind::PoolMetadataSpace,
            AlertKind::PoolReadOnly,
            AlertKind::PoolReserve,
        ] {
            self.clear_alerts_but(kind, |pool| self.view().pool(pool).is_some());
        }
    }

    fn look_at_pool(&self, id: PoolId) -> Result<(), EngineError> {
        let status = {
            let _operation = self.0.operations.begin(LIMIT);
            self.measure(id)?
        };
        // What cannot be done about it is no reason to keep silent about it, nor to leave the rest undone.
        let or_as_it_was = |before, outcome| match outcome {
            Err(error) if power_lost(&error) => Err(error),
            Err(error) => {
                tracing::warn!(pool = %id, error = error.problem().detail, "room could not be made");
                Ok(before)
            }
            Ok(after) => Ok(after),
        };
        let status = or_as_it_was(status, self.grow_metadata(id, status))?;
        let status = or_as_it_was(status, self.trim_if_short(id, status))?;
        let status = or_as_it_was(status, self.shed(id, status))?;
        let status = or_as_it_was(status, self.own_logs(id, status))?;
        self.alert_of_space(id, &status);
        Ok(())
    }

    /// Asks the kernel how full a pool is, and notes it.
    pub(crate) fn measure(&self, id: PoolId) -> Result<ThinStatus, EngineError> {
        let vg = id.to_string();
        let status = self.ask_how_full(id)?;
        let mapped = self.0.host.thin.mapped(&vg);
        let mapped = mapped.doing(|| format!("ask what the volumes of {vg} map"))?;
        self.change_view(|view| {
            let Some(pool) = view.pools.get_mut(&id) else { return };
            (pool.data, pool.metadata) = (status.data, status.metadata);
            pool.beside = fill::beside(pool.size, &status, held_by_volumes(pool, &mapped));
        });
        Ok(status)
    }

    fn ask_how_full(&self, id: PoolId) -> Result<ThinStatus, EngineError> {
        let status = self.0.host.thin.status(&id.to_string(), DATA);
        let status = status.doing(|| format!("ask how full {id} is"))?;
        locked(&self.0.measured).insert(id, (Instant::now(), status));
        Ok(status)
    }

    /// A pool without its volumes, which may be thousands.
    fn named(&self, id: PoolId) -> Result<PoolView, EngineError> {
        let view = self.view();
        let pool = view.pools.get(&id).ok_or_else(|| no_pool(&id.to_string()))?;
        Ok(bare(pool))
    }

    /// Enlarges the metadata while there is room for it.
    fn grow_metadata(&self, id: PoolId, status: ThinStatus) -> Result<ThinStatus, EngineError> {
        let pool = self.named(id)?;
        if pool.missing > 0 || status.mode == ThinMode::Failed {
            return Ok(status);
        }
        if !fill::metadata_is_short(&status) {
            return Ok(status);
        }
        let _operation = self.0.operations.begin(LIMIT);
        self.read_lvm()?;
        let pool = self.named(id)?;
        // One that the kernel made read-only may take up more of it only when it is activated next: it is given that once.
        let given = pool
            .metadata_volume()
            .is_some_and(|raid| raid.size > status.metadata_size);
        if given && status.mode == ThinMode::ReadOnly {
            return Ok(status);
        }
        let Some((extents, nodes)) = pool.metadata_room(&status).filter(|_| pool.missing == 0) else {
            return Ok(status);
        };
        self.change_lvm(
            id,
            || format!("enlarge the metadata of pool {}", pool.tags.name),
            || self.0.host.thin.extend_metadata(&pool.vg(), DATA, extents, &nodes),
            |_| {},
        )?;
        self.read_lvm()?;
        self.look_whether_apart(id)?;
        let after = self.measure(id)?;
        let message = format!(
            "the metadata of pool {} was {} full; it was enlarged from {} to {}",
            pool.tags.name, status.metadata, status.metadata_size, after.metadata_size
        );
        self.record(
            EventKind::PoolChanged,
            Severity::Info,
            Some(id.to_string()),
            None,
            message,
        );
        Ok(after)
    }

    /// Before anything is given up, what clients deleted and is still counted as theirs comes back; now and then, because
    /// it is asked of every volume.
    fn trim_if_short(&self, id: PoolId, status: ThinStatus) -> Result<ThinStatus, EngineError> {
        let pool = self.named(id)?;
        if f64::from(status.data) < DATA_LIMIT && self.short_of(&pool, &status).is_none() {
            return Ok(status);
        }
        let now = self.0.host.machine.now();
        let before = locked(&self.0.trimmed_when_short).insert(id, now);
        if let Some(before) = before
            && now.duration_since(before).abs() < TRIM_PACE
        {
            locked(&self.0.trimmed_when_short).insert(id, before);
            return Ok(status);
        }
        self.trim_pool(id)?;
        // Before it is known how much came back nothing is given up.
        let _operation = self.0.operations.begin(LIMIT);
        let settled = self.0.host.thin.settled(&pool.vg(), DATA);
        settled.doing(|| format!("wait for what was given back to pool {}", pool.tags.name))?;
        let after = self.measure(id)?;
        let name = &pool.tags.name;
        tracing::info!(pool = %name, before = %status.data, after = %after.data, "it runs short; its volumes were trimmed");
        Ok(after)
    }

    /// Gives up what may be given up, in its order, until what was promised is out of danger.
    fn shed(&self, id: PoolId, mut status: ThinStatus) -> Result<ThinStatus, EngineError> {
        let (mut given_up, mut stuck) = (0, BTreeSet::new());
        // What volumes hold at least, once it was counted: what is given up takes nothing of it away.
        let mut counted = None;
        loop {
            let pool = self.named(id)?;
            // LVM removes nothing from a group that lacks a disk: each try would take long, and be in vain.
            if pool.missing > 0 {
                return Ok(status);
            }
            let Some(why) = self.short_of(&pool, &status) else {
                return Ok(status);
            };
            let candidates = fill::shedding_order(self.sheddable(id));
            let first = candidates.iter().find(|one| !stuck.contains(&one.kind));
            let Some(first) = first.filter(|_| given_up < SHED_AT_ONCE) else {
                return Ok(status);
            };
            if self.is_in_doubt(&pool) {
                let Some(held) = counted else {
                    counted = Some(self.count_held(&pool)?);
                    // Clients went on writing meanwhile.
                    status = self.measure(id)?;
                    continue;
                };
                if fill::at_most_beside(pool.size, &status, held).min(pool.beside.most) <= self.allowance(&pool) {
                    return Ok(status);
                }
            }
            let _operation = self.0.operations.begin(LIMIT);
            if !self.shed_one(id, first, &why)? {
                // All of this kind was tried.
                stuck.insert(first.kind);
                continue;
            }
            given_up += 1;
            status = self.measure(id)?;
        }
    }

    /// Whether nothing but not knowing what volumes share speaks for giving something up.
    fn is_in_doubt(&self, pool: &PoolView) -> bool {
        let allowed = self.allowance(pool);
        let overcommitted = pool.overcommit(self.0.config.overcommit_percent) > 100;
        !overcommitted && pool.beside.least <= allowed && pool.beside.most > allowed
    }

    /// What the volumes of a pool hold together at least, counted from its metadata, which may take seconds; nothing if it
    /// cannot be counted.
    fn count_held(&self, pool: &PoolView) -> Result<Bytes, EngineError> {
        let name = &pool.tags.name;
        let _operation = self.0.operations.begin(LIMIT);
        let sizes = self.0.host.lvm.thin_sizes(&pool.vg(), DATA);
        let sizes = match sizes.doing(|| format!("count what the volumes of pool {name} take")) {
            Ok(sizes) => sizes,
            Err(error) if power_lost(&error) => return Err(error),
            Err(error) => {
                tracing::warn!(pool = %name, error = error.problem().detail, "what its volumes share was not counted");
                return Ok(Bytes::ZERO);
            }
        };
        let view = self.view();
        let volumes = view.pools.get(&pool.id).into_iter().flat_map(|pool| &pool.volumes);
        Ok(fill::held_at_least(volumes.map(|(id, volume)| {
            // As when it is measured what they map.
            let size = sizes.get(&id.to_string()).or_else(|| sizes.get(&copy_name(*id)));
            (size.copied().unwrap_or_default(), volume.tags.source.is_some())
        })))
    }

    /// What a pool's snapshots and trash may take now.
    fn allowance(&self, pool: &PoolView) -> Bytes {
        let promised = self.view().pools.get(&pool.id).map(PoolView::promised);
        fill::allowance(pool.size, pool.reserve(), promised.unwrap_or_default())
    }

    /// Why a pool has too little room for what it promised, if so.
    fn short_of(&self, pool: &PoolView, status: &ThinStatus) -> Option<String> {
        let allowed = self.allowance(pool);
        if pool.beside.least > allowed {
            return Some(format!(
                "snapshots and trash hold {}, and may hold {allowed}",
                pool.beside.least
            ));
        }
        // Whether they hold more than they may is not known where volumes share what they map: only how full the pool is.
        // Before anything is given up for that alone, what they share is counted.
        let in_danger = pool.overcommit(self.0.config.overcommit_percent) > 100 || pool.beside.most > allowed;
        (in_danger && f64::from(status.data) >= SHED_LIMIT).then(|| format!("its data is {} full", status.data))
    }

    fn alert_of_space(&self, id: PoolId, status: &ThinStatus) {
        let Ok(pool) = self.named(id) else { return };
        let subject = Subject::named(id, &pool.tags.name);
        let (data, metadata) = {
            let mut levels = locked(&self.0.levels);
            let (data, metadata) = levels.entry(id).or_default();
            *data = fill::level(status.data, *data);
            *metadata = fill::level(status.metadata, *metadata);
            (*data, *metadata)
        };
        let passed = |what: &str, level: usize| {
            let threshold = THRESHOLDS.get(level.checked_sub(1)?)?;
            let severity = if level < 3 { Severity::Warning } else { Severity::Error };
            Some((severity, format!("its {what} is more than {threshold} % full")))
        };
        let error = |text: &str| Some((Severity::Error, text.to_owned()));
        let space = match status.mode {
            ThinMode::OutOfData => error("it is full: writes that need new space fail"),
            ThinMode::Writable | ThinMode::ReadOnly | ThinMode::Failed => passed("data", data),
        };
        let read_only = match status.mode {
            ThinMode::ReadOnly => error("the kernel made it read-only: its metadata is full, or could not be written"),
            ThinMode::Failed => error("the kernel gave it up: its metadata cannot be read or written"),
            ThinMode::Writable | ThinMode::OutOfData => None,
        };
        self.set_alert(AlertKind::PoolSpace, &subject, space);
        self.set_alert(AlertKind::PoolMetadataSpace, &subject, passed("metadata", metadata));
        self.set_alert(AlertKind::PoolReadOnly, &subject, read_only);
        let short = (pool.beside.least > self.allowance(&pool)).then(|| {
            let why = "snapshots made by hand take more than may be given to snapshots and trash";
            (Severity::Warning, why.to_owned())
        });
        self.set_alert(AlertKind::PoolReserve, &subject, short);
    }

    /// Refuses a volume in a pool that is too full for one. Whoever asks the kernel holds the pool's lock for as long: so what it told
    /// lately of a pool with much room is enough.
    pub(crate) fn refuse_full_for_volume(&self, id: PoolId) -> Result<(), EngineError> {
        let known = locked(&self.0.measured).get(&id).copied();
        let has_room = |(at, status): (Instant, ThinStatus)| {
            at.elapsed() < self.0.config.fullness_holds
                && status.mode == ThinMode::Writable
                && f64::from(status.data) < MUCH_ROOM
                && f64::from(status.metadata) < MUCH_ROOM
        };
        if known.is_some_and(has_room) {
            return Ok(());
        }
        self.refuse_full_pool(id, "volumes").map(drop)
    }

    /// Refuses what would need new space in a pool's metadata or data while it is too full for that. Asks the kernel.
    pub(crate) fn refuse_full_pool(&self, id: PoolId, what: &str) -> Result<ThinStatus, EngineError> {
        let pool = self.named(id)?;
        let name = &pool.tags.name;
        let status = self.ask_how_full(id)?;
        let full = |why: String| Err(EngineError::NoSpace(format!("pool {name} takes no more {what}: {why}")));
        let overcommitted = pool.overcommit(self.0.config.overcommit_percent) > 100;
        match status.mode {
            ThinMode::ReadOnly | ThinMode::Failed => full(
                "its metadata is full or damaged, and the kernel lets nothing be written to it; see the alert `pool-read-only`"
                    .to_owned(),
            ),
            ThinMode::OutOfData => full("its data is full".to_owned()),
            ThinMode::Writable if f64::from(status.metadata) > METADATA_LIMIT => {
                full(format!("its metadata is {} full", status.metadata))
            }
            ThinMode::Writable if overcommitted && f64::from(status.data) > DATA_LIMIT => {
                full(format!("its data is {} full", status.data))
            }
            ThinMode::Writable => Ok(status),
        }
    }

    /// Refuses a snapshot in a pool that has no room for one more: what it will hold cannot be known beforehand.
    pub(crate) fn refuse_full_for_snapshot(&self, id: PoolId) -> Result<(), EngineError> {
        let status = self.refuse_full_pool(id, "snapshots")?;
        let pool = self.named(id)?;
        let allowed = self.allowance(&pool);
        let full = |why: String| {
            Err(EngineError::NoSpace(format!(
                "pool {} takes no more snapshots: {why}; delete some that are not needed",
                pool.tags.name
            )))
        };
        if pool.beside.least >= allowed {
            full(format!(
                "snapshots and trash hold {}, and may hold {allowed}",
                pool.beside.least
            ))
        } else if f64::from(status.data) >= SHED_LIMIT {
            full(format!("its data is {} full", status.data))
        } else {
            Ok(())
        }
    }

    /// What of a pool may be given up.
    fn sheddable(&self, id: PoolId) -> Vec<Sheddable<()>> {
        let view = self.view();
        let Some(pool) = view.pools.get(&id) else {
            return Vec::new();
        };
        let trash = pool.trash.values().map(|volume| Sheddable {
            kind: ShedKind::Trash,
            since: volume.tags.deleted.unwrap_or(volume.tags.created),
            what: (),
        });
        let scheduled = pool.snapshots.values().filter(|snapshot| snapshot.can_be_shed());
        let scheduled = scheduled.map(|snapshot| Sheddable {
            kind: ShedKind::Scheduled,
            since: snapshot.tags.created,
            what: (),
        });
        trash.chain(scheduled).collect()
    }

    /// Gives the oldest of this kind up that can be; false if none can.
    fn shed_one(&self, pool: PoolId, first: &Sheddable<()>, why: &str) -> Result<bool, EngineError> {
        match first.kind {
            ShedKind::Trash => Ok(self.purge_oldest(pool, why)?.is_some()),
            ShedKind::Scheduled => Ok(self.shed_scheduled_snapshot(pool, why)?.is_some()),
        }
    }
}

/// What the volumes of a pool map together. A copy may share all that it maps with its source or with another copy; what the
/// kernel has not may map as much as it is large.
fn held_by_volumes(pool: &PoolView, mapped: &BTreeMap<String, Bytes>) -> Between {
    let mut held = Between::default();
    for (id, volume) in &pool.volumes {
        // Between two steps of its rolling back its name is that of its copy.
        let maps = mapped.get(&id.to_string()).or_else(|| mapped.get(&copy_name(*id)));
        held.most = held.most.saturating_add(maps.copied().unwrap_or(volume.device));
        if volume.tags.source.is_none() {
            held.least = held.least.saturating_add(maps.copied().unwrap_or_default());
        }
    }
    held
}

impl PoolView {
    /// By how many extents each copy of its metadata is to grow now, and on which disks. Each copy goes on where it lies, or
    /// all of them on disks that hold none: LVM is told disks and not which copy goes where, and is not to have a choice
    /// by which two come to lie on one. Only where something lies already: a spare disk stays whole.
    fn metadata_room(&self, status: &ThinStatus) -> Option<(u64, Vec<PathBuf>)> {
        let images = &self.metadata_volume()?.images;
        let taken = self.members.iter().filter(|pv| pv.free < pv.size);
        let taken: Vec<(&PathBuf, Bytes)> = taken.filter_map(|pv| Some((pv.node.as_ref()?, pv.free))).collect();
        let own = images.iter().filter_map(|image| {
            let lies = taken.iter().filter(|(node, _)| image.nodes.contains(node));
            lies.max_by_key(|(_, free)| *free).copied()
        });
        let holds = |node: &PathBuf| images.iter().any(|image| image.nodes.contains(node));
        let mut others: Vec<_> = taken.iter().filter(|(node, _)| !holds(node)).copied().collect();
        others.sort_by_key(|(_, free)| std::cmp::Reverse(*free));
        others.truncate(images.len());
        [own.collect(), others]
            .into_iter()
            .find_map(|disks: Vec<(&PathBuf, Bytes)>| {
                let least = disks.iter().map(|(_, free)| *free).min()?;
                let extents = fill::metadata_growth(status, self.extent, least)?;
                let nodes = disks.into_iter().map(|(node, _)| node.clone());
                let nodes: Vec<PathBuf> = nodes.collect();
                (nodes.len() == images.len()).then_some((extents, nodes))
            })
    }

    /// How much of it may be promised, in percent of what is not reserved.
    pub(crate) fn overcommit(&self, default: u32) -> u32 {
        self.settings.overcommit.map_or(default, |percent| percent.get())
    }

    /// What of it is kept for snapshots and trash.
    pub(crate) fn reserve(&self) -> Bytes {
        let percent = u64::from(self.settings.reserve.unwrap_or_default().get());
        Bytes::new(self.size.get() / 100 * percent).round_down(self.extent)
    }
}
