//! Pools that lack disks, and disks that come back. Invariant: a pool is activated without all of its disks only after the
//! images of each of its volumes were counted, and a stated wait; nothing is forced.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use cistern_host::{Activation, ImageHealth, SyncAction};
use cistern_model::{DiskId, EventKind, Layout, PoolId, Severity, VolumeId};

use crate::EngineError;
use crate::engine::{Engine, Inner, locked};
use crate::error::Doing as _;
use crate::mending::Due;
use crate::pools::power_lost;
use crate::rollback::ROLLBACK_AGAIN;
use crate::tags::Stage;
use crate::view::{DATA, PoolView};
use crate::volumes::bare;

/// What is remembered of failures until the next start.
#[derive(Debug, Default)]
pub(crate) struct Failures {
    /// Since when each pool has lacked a disk, as far as this start knows.
    since: Mutex<BTreeMap<PoolId, Instant>>,
    /// For which devices the kernel was asked to use their images again: once each time that they appear.
    refreshed: Mutex<BTreeMap<PoolId, BTreeSet<PathBuf>>>,
    /// Devices that came back and that LVM could not take back.
    not_restored: Mutex<BTreeSet<PathBuf>>,
    /// Pools that were taken down for that since disks last came or went.
    pub(crate) renewed: Mutex<BTreeSet<PoolId>>,
    /// Whether somebody wanted all reconciled and could not wait until it was his turn.
    pub(crate) owed: AtomicBool,
    /// What was last to be mended in a pool by reconciling, and when.
    pub(crate) tried: Mutex<BTreeMap<PoolId, (Due, Instant)>>,
    /// The images that the kernel did not use, otherwise than was known of a pool, when all was last reconciled for that.
    pub(crate) told: Mutex<BTreeMap<PoolId, BTreeSet<(String, usize)>>>,
    /// Why rollings back could not be finished, as it was told, and when that was tried last.
    pub(crate) unfinished: Mutex<BTreeMap<VolumeId, (String, Instant)>>,
    /// Whether the pools were looked for: before that any may be there.
    pub(crate) looked: AtomicBool,
}

/// How a pool can be activated now.
pub(crate) enum Way {
    Now(Activation),
    /// In so long; until then it waits for its disks.
    In(Duration),
    /// What it does not lack is older than what was answered: of these disks, which it was last served without.
    Older(Vec<String>),
    /// It lacks data.
    Not,
}

impl Engine {
    /// How a pool may be activated.
    pub(crate) fn way_to_activate(&self, pool: &PoolView) -> Way {
        let Some(lacking) = self.lacking_for(pool) else {
            return Way::Now(Activation::Complete);
        };
        if !pool.has_all_data() {
            return Way::Not;
        }
        let older = self.older_alone(pool);
        if !older.is_empty() {
            return Way::Older(older);
        }
        match self.0.config.degraded_wait.checked_sub(lacking) {
            Some(left) if !left.is_zero() => Way::In(left),
            Some(_) | None => Way::Now(Activation::Partial),
        }
    }

    /// How long a pool has lacked a disk; none if it lacks none.
    pub(crate) fn lacking_for(&self, pool: &PoolView) -> Option<Duration> {
        let mut since = locked(&self.0.failures.since);
        if pool.missing == 0 {
            since.remove(&pool.id);
            return None;
        }
        Some(since.entry(pool.id).or_insert_with(Instant::now).elapsed())
    }

    /// Reconciles once more when that time has passed.
    pub(crate) fn reconcile_in(&self, time: Duration) {
        let engine = Arc::downgrade(&self.0);
        std::thread::spawn(move || {
            std::thread::sleep(time);
            if let Some(engine) = engine.upgrade()
                && let Err(error) = Engine(engine).reconcile()
            {
                tracing::error!(
                    error = error.problem().detail,
                    "after the wait not all could be reconciled"
                );
            }
        });
    }

    /// Why a pool that lacks a disk and no data was not activated, with the way out.
    pub(crate) fn not_without(&self, pool: &PoolView, error: EngineError) -> EngineError {
        match pool.tags.layout {
            // The kernel: "cannot start dirty degraded array".
            Layout::Parity | Layout::DoubleParity => EngineError::Unavailable(format!(
                "it could not be activated without ({}); the kernel refuses a parity that was not whole when the disk was \
                 lost, as that of a new pool before it is computed: bring the disk back",
                error.problem().detail
            )),
            Layout::Single | Layout::Mirror | Layout::StripeMirror => error,
        }
    }

    /// Tries once more to activate pools that could be served and are not, because it failed or was never tried.
    pub(crate) fn activate_again(&self) {
        let pools: Vec<PoolView> = self.view().pools.values().cloned().collect();
        let idle = |pool: &PoolView| {
            pool.tags.state == Stage::Ready && !pool.active && !pool.releasing && !pool.nodes.is_empty()
        };
        let due = |pool: &PoolView| matches!(self.way_to_activate(pool), Way::Now(_));
        if pools.iter().any(|pool| idle(pool) && due(pool))
            && let Err(error) = self.reconcile()
        {
            tracing::warn!(error = error.problem().detail, "not all could be activated");
        }
    }

    /// Makes up for what was left to a job that has ended since, or could not be done while all was being reconciled: a
    /// change of the disks is told only once.
    pub(crate) fn reconcile_owed(&self) {
        let pools: Vec<PoolView> = {
            let view = self.view();
            let as_it_lies = |pool: &PoolView| PoolView {
                nodes: pool.nodes.clone(),
                returned: pool.returned.clone(),
                ..bare(pool)
            };
            view.pools.values().map(as_it_lies).collect()
        };
        let waits = |pool: &PoolView| {
            self.waits_to_be_taken_back(pool)
                || self.waits_to_be_mended(pool)
                // A job was at it when its disks came back.
                || pool.broken && self.is_to_be_renewed(pool).is_ok_and(|due| due)
        };
        let unfinished = locked(&self.0.failures.unfinished)
            .values()
            .any(|(_, tried)| tried.elapsed() >= ROLLBACK_AGAIN);
        let owed = self.0.failures.owed.load(Ordering::SeqCst) || unfinished || pools.iter().any(waits);
        if owed && let Err(error) = self.reconcile() {
            // Nothing may have been tried.
            locked(&self.0.failures.tried).clear();
            tracing::warn!(error = error.problem().detail, "what was owed could not be reconciled");
        }
    }

    /// Whether a pool at which no job is has disks that came back, or images to be used again, and nobody has tried.
    fn waits_to_be_taken_back(&self, pool: &PoolView) -> bool {
        let idle = !locked(&self.0.pending).iter().any(|pending| pending.id == pool.id);
        let replacing = |(_, new): &(DiskId, DiskId)| self.is_there(new);
        if !idle
            || pool.tags.state != Stage::Ready
            || pool.releasing
            || pool.tags.replacing.as_ref().is_some_and(replacing)
        {
            return false;
        }
        let not_restored = locked(&self.0.failures.not_restored);
        if pool.returned.iter().any(|node| !not_restored.contains(node)) {
            return true;
        }
        let (unused, refreshed) = (pool.unused_nodes(), locked(&self.0.failures.refreshed));
        let tried = refreshed.get(&pool.id).is_some_and(|tried| unused.is_subset(tried));
        pool.active && pool.has_all_data() && !unused.is_empty() && !tried
    }

    /// Takes back disks that are there again, and lets the kernel use images again that it had ceased to use: their data
    /// is brought up to date from the others.
    pub(crate) fn take_disks_back(&self, id: PoolId) -> Result<(), EngineError> {
        let Some(pool) = self.view().pools.get(&id).cloned() else {
            return Ok(());
        };
        // Whoever replaces a disk sees to what comes back.
        if locked(&self.0.pending).iter().any(|pending| pending.id == id) {
            return Ok(());
        }
        let vg = pool.vg();
        for node in &pool.returned {
            let restore = || self.0.host.raids.restore_pv(&vg, node);
            let doing = || format!("take {} back into {vg}", node.display());
            match self.change_lvm(id, doing, restore, |_| {}) {
                Ok(()) => {}
                Err(error) if power_lost(&error) => return Err(error),
                // Once may be chance.
                Err(error) if locked(&self.0.failures.not_restored).insert(node.clone()) => return Err(error),
                Err(error) => {
                    tracing::warn!(
                        error = error.problem().detail,
                        "a disk came back and cannot be written to"
                    );
                    self.shun(&pool, &BTreeSet::from([node.clone()]))?;
                    continue;
                }
            }
            let name = self.name_of(node);
            let message = format!("disk {name} is back, and belongs to pool {} again", pool.tags.name);
            self.record(
                EventKind::PoolChanged,
                Severity::Info,
                Some(id.to_string()),
                None,
                message,
            );
        }
        if !pool.returned.is_empty() {
            self.read_lvm()?;
        }
        let (failed, unused) = {
            let pool = self.view().pools.get(&id).cloned();
            // One that others lack besides is not left waiting for them: it may be the only one that has what they had.
            let Some(pool) = pool.filter(|pool| pool.active && pool.has_all_data()) else {
                return Ok(());
            };
            if self.is_to_be_renewed(&pool)? || self.compares_striped_mirrors(&pool)? {
                return Ok(());
            }
            (pool.failed_nodes(), pool.unused_nodes())
        };
        let tried = locked(&self.0.failures.refreshed).insert(id, unused.clone());
        if unused.is_empty() {
            return Ok(());
        }
        match self.fill_garbled_anew(&pool, &failed) {
            Ok(true) => return Ok(()),
            Ok(false) => {}
            Err(error) => {
                // Nothing was tried: else the next look would take a good disk for one that errs again.
                let mut refreshed = locked(&self.0.failures.refreshed);
                match tried {
                    Some(tried) => drop(refreshed.insert(id, tried)),
                    None => drop(refreshed.remove(&id)),
                }
                return Err(error);
            }
        }
        if tried.is_some_and(|tried| unused.is_subset(&tried)) {
            // One that is not filled to its end has done nothing wrong.
            return self.shun(&pool, &failed);
        }
        let refresh = || self.0.host.raids.refresh_lv(&vg, DATA);
        self.change_lvm(id, || format!("use the disks of {vg} again"), refresh, |_| {})?;
        self.note_taken_back(&pool);
        let disks: Vec<String> = unused.iter().map(|node| self.name_of(node)).collect();
        let message = format!(
            "pool {}: what disk {} missed is brought up to date from the others",
            pool.tags.name,
            disks.join(", ")
        );
        self.record(
            EventKind::PoolChanged,
            Severity::Info,
            Some(id.to_string()),
            None,
            message,
        );
        self.read_lvm()
    }

    /// Whether the kernel is making striped mirrors even, for the first time or after a power cut. It reads an image for that that is to be
    /// filled, too, and may copy it over the good one (6.12, raid10.c): nothing is taken back before it has ended.
    fn compares_striped_mirrors(&self, pool: &PoolView) -> Result<bool, EngineError> {
        if pool.tags.layout != Layout::StripeMirror {
            return Ok(false);
        }
        for raid in pool.raids.iter().filter(|raid| raid.images.len() > 1) {
            let status = self.0.host.raids.raid_status(&raid.vg, &raid.name);
            let status = status.doing(|| format!("ask how {} is", pool.tags.name))?;
            if status.is_some_and(|status| status.action == SyncAction::Resync) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether the kernel was asked to use again all that it uses no image of: something else may have failed before it came to
    /// that, and then a disk that is back is not one that gives errors.
    pub(crate) fn was_asked_back(&self, pool: &PoolView) -> bool {
        let refreshed = locked(&self.0.failures.refreshed);
        let failed = pool.failed_nodes();
        failed.is_empty() || refreshed.get(&pool.id).is_some_and(|tried| failed.is_subset(tried))
    }

    /// What was tried for a pool before may be tried again.
    pub(crate) fn try_again(&self, id: PoolId) {
        locked(&self.0.failures.refreshed).remove(&id);
    }

    /// Disks came or went: what was tried before may be tried again.
    pub(crate) fn forget_attempts(&self) {
        locked(&self.0.failures.refreshed).clear();
        locked(&self.0.failures.not_restored).clear();
        locked(&self.0.failures.renewed).clear();
        locked(&self.0.failures.tried).clear();
        self.try_shunned_again();
    }

    /// Whether the kernel uses other images than when LVM was last read, in pools that are whole and in others; then all is reconciled.
    pub fn look_at_raids(&self) -> Result<(), EngineError> {
        let pools: Vec<PoolView> = {
            let view = self.view();
            view.pools.values().filter(|pool| pool.active).map(bare).collect()
        };
        let (mut news, mut looked) = (false, Ok(()));
        for pool in &pools {
            match self.has_news(pool) {
                Ok(found) => news |= found,
                // The others are looked at all the same.
                Err(error) => looked = looked.and(Err(error)),
            }
        }
        if news && let Err(error) = self.reconcile() {
            // It is news yet.
            locked(&self.0.failures.told).clear();
            return Err(error);
        }
        looked
    }

    /// Whether the kernel uses other images of a pool than was known, and that was not told before: LVM may tell it later than the kernel,
    /// or otherwise.
    fn has_news(&self, pool: &PoolView) -> Result<bool, EngineError> {
        let (mut now, mut known) = (BTreeSet::new(), BTreeSet::new());
        for raid in &pool.raids {
            let status = self.0.host.raids.raid_status(&raid.vg, &raid.name);
            let status = status.doing(|| format!("ask how {} is", pool.tags.name))?;
            let Some(status) = status else { continue };
            // What the kernel makes of one whose disk is gone tells nothing.
            let there = raid.images.iter().enumerate().filter(|(_, image)| !image.missing);
            for (number, image) in there {
                let stalled = status.action == SyncAction::Idle && status.is_behind(number);
                if stalled || status.images.get(number) == Some(&ImageHealth::Failed) {
                    now.insert((raid.name.clone(), number));
                }
                if image.failed || image.stalled {
                    known.insert((raid.name.clone(), number));
                }
            }
        }
        let differs = {
            let mut told = locked(&self.0.failures.told);
            if now == known {
                told.remove(&pool.id);
                false
            } else {
                told.insert(pool.id, now.clone()) != Some(now)
            }
        };
        Ok(differs || self.is_whole_again(pool)?)
    }

    /// Looks at the RAID volumes again and again, on a thread of its own that ends with the engine.
    pub(crate) fn watch_raids(&self) {
        let Some(pace) = self.0.config.look_at_raids_every else {
            return;
        };
        let engine: std::sync::Weak<Inner> = Arc::downgrade(&self.0);
        std::thread::spawn(move || {
            loop {
                std::thread::sleep(pace);
                let Some(engine) = engine.upgrade() else { return };
                if let Err(error) = Engine(engine).look_at_raids() {
                    tracing::warn!(
                        error = error.problem().detail,
                        "how the pools' disks are cannot be told"
                    );
                }
            }
        });
    }

    /// What is the matter with a pool's disks, by their names where these are known.
    pub(crate) fn lacking_words(&self, pool: &PoolView) -> Option<String> {
        let missing = self.missing_disks(pool);
        let mut words = Vec::new();
        if let Some(reason) = pool.missing_reason() {
            let (shunned, gone): (Vec<_>, Vec<_>) = missing.iter().partition(|disk| self.is_shunned(disk));
            let names = |disks: Vec<&DiskId>| disks.into_iter().map(DiskId::as_str).collect::<Vec<_>>().join(", ");
            if gone.is_empty() && shunned.is_empty() {
                words.push(reason.clone());
            }
            if !gone.is_empty() {
                words.push(format!("{reason}: {}", names(gone)));
            }
            if !shunned.is_empty() {
                words.push(format!("disk {} gave errors and is not used", names(shunned)));
            }
        }
        words.extend(self.closed_words(pool));
        let failed = pool.failed_nodes();
        if !failed.is_empty() {
            let names: Vec<String> = failed.iter().map(|node| self.name_of(node)).collect();
            words.push(format!("disk {} gave errors and is not used", names.join(", ")));
        }
        let stalled = pool.stalled_nodes();
        if !stalled.is_empty() {
            let names: Vec<String> = stalled.iter().map(|node| self.name_of(node)).collect();
            let names = names.join(", ");
            words.push(format!(
                "disk {names} is not filled to its end: something of the others cannot be read"
            ));
        }
        (!words.is_empty()).then(|| words.join("; "))
    }

    /// A pool's disks that are not there.
    pub(crate) fn missing_disks(&self, pool: &PoolView) -> Vec<DiskId> {
        if pool.missing == 0 {
            return Vec::new();
        }
        let there = self.disks_of(pool);
        let members = pool.tags.groups.iter().chain(&pool.tags.coming).flatten();
        let members = members.chain(&pool.tags.spares);
        members.filter(|disk| !there.contains(disk)).cloned().collect()
    }

    /// A disk's id by its node.
    pub(crate) fn name_of(&self, node: &PathBuf) -> String {
        let devices = locked(&self.0.devices);
        let device = devices.iter().find(|device| device.lvm_node() == node);
        device.map_or_else(|| node.display().to_string(), |device| device.id.to_string())
    }
}
