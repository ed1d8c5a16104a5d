//! The engine itself: what its operations share. Invariant: LVM is changed only through [`Engine::change_lvm`], exports
//! only through [`Engine::publish`] and [`Engine::publish_volume`]; all leave the view as the machine is.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, mpsc};
use std::time::{Duration, Instant};

use cistern_host::{BlockDevice, Change, ExportEntry, ExportUsers, Host, HostError, HostErrorKind};
use cistern_model::{Event, EventKind, PoolId, Principal, Severity, VolumeId};
use tokio::sync::broadcast;

use crate::EngineError;
use crate::alerts::Alerts;
use crate::capacity::{Levels, Measured, Trims};
use crate::care::Care;
use crate::error::Doing as _;
use crate::events::Events;
use crate::exports_had::ExportsHad;
use crate::failure::Failures;
use crate::growing::Grown;
use crate::jobs::Jobs;
use crate::kept::Kept;
use crate::left_out::LeftOut;
use crate::locks::{LvmLocks, Operations, has_turn};
use crate::logs::Owned;
use crate::names::Names;
use crate::pending::Pending;
use crate::pools_away::PoolsHad;
use crate::react::Surroundings;
use crate::reviving::Tries;
use crate::schedules::Chores;
use crate::shun::Shunned;
use crate::view::{Look, Orphan, PoolView, SharedView, View, VolumeView};
use crate::volume_options::{clients_of, users_of};

/// What the engine is told about its surroundings.
#[derive(Debug, Clone)]
pub struct Config {
    /// The version of Cistern.
    pub version: String,
    /// Where volumes are mounted, each in a directory named by its id; also what their export paths begin with.
    pub volumes_dir: PathBuf,
    /// How much of a pool may be promised to volumes, in percent of its size. Above 100, a full pool fails writes.
    pub overcommit_percent: u32,
    /// How long after the start a pool that lacks disks waits for them before it is served without, if it can be; and how
    /// long a disk may be away before a spare takes its place.
    pub degraded_wait: Duration,
    /// How many volumes are mounted at once.
    pub mounts_at_once: usize,
    /// How long a mount is waited for before the others are served without it.
    pub mount_patience: Duration,
    /// For how long what the kernel told of a pool with much room holds when a volume is to be made in it; zero: it is asked each time.
    pub fullness_holds: Duration,
    /// How often the kernel is asked whether it still uses every image; none: never.
    pub look_at_raids_every: Option<Duration>,
    /// What was found on the state partition before it was mounted, and not repaired.
    pub state_damage: Option<String>,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            volumes_dir: PathBuf::from("/volumes"),
            overcommit_percent: 100,
            degraded_wait: Duration::ZERO,
            mounts_at_once: 1,
            mount_patience: Duration::from_secs(120),
            fullness_holds: Duration::ZERO,
            look_at_raids_every: None,
            state_damage: None,
        }
    }
}

/// The engine: all operations on disks, pools and volumes. A handle; clones are the same engine. Every call blocks.
#[derive(Clone)]
pub struct Engine(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) host: Host,
    pub(crate) config: Config,
    view: SharedView,
    pub(crate) devices: Mutex<Vec<BlockDevice>>,
    pub(crate) events: Events,
    pub(crate) alerts: Alerts,
    /// When this engine was made.
    pub(crate) begun: Instant,
    pub(crate) failures: Failures,
    pub(crate) left_out: Kept<LeftOut>,
    pub(crate) pools_had: Kept<PoolsHad>,
    pub(crate) exports_had: ExportsHad,
    pub(crate) shunned: Shunned,
    /// Whether what is kept of the alerts is older than they are; none until it was read. Held while it is written.
    pub(crate) alerts_behind: Mutex<Option<bool>>,
    pub(crate) levels: Mutex<Levels>,
    pub(crate) measured: Mutex<Measured>,
    pub(crate) owned_logs: Mutex<Owned>,
    pub(crate) trimmed_when_short: Mutex<Trims>,
    pub(crate) tries: Mutex<Tries>,
    pub(crate) care: Mutex<Care>,
    pub(crate) jobs: Jobs,
    pub(crate) names: Names,
    pub(crate) lvm: LvmLocks,
    pub(crate) operations: Operations,
    pub(crate) pending: Mutex<Vec<Pending>>,
    /// Held while exports are replaced; whether the last time failed.
    pub(crate) exports_stale: Mutex<bool>,
    /// Why the last start failed.
    pub(crate) not_started: Mutex<Option<String>>,
    pub(crate) started: AtomicBool,
    /// When the NFS server is to start, if disks are waited for.
    pub(crate) nfs_due: Mutex<Option<Instant>>,
    /// Whether a command of LVM's was cut short, here or before the start, and nobody has looked what it left.
    pub(crate) maybe_suspended: AtomicBool,
    orphans: Mutex<HashSet<Orphan>>,
    /// When the state was last read as a whole.
    read_at: Mutex<Option<Instant>>,
    pub(crate) changes: OnceLock<mpsc::Sender<Change>>,
    pub(crate) surroundings: Mutex<Surroundings>,
    pub(crate) chores: Mutex<Chores>,
    /// The disks of which it was told that they have grown, and by how much.
    pub(crate) layers: crate::layers::LayersKnown,
    pub(crate) told_grown: Mutex<BTreeMap<PoolId, Grown>>,
}

pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Engine {
    /// An engine on this machine. Nothing is looked at or touched before [`Engine::start`].
    pub fn new(host: Host, config: Config) -> Engine {
        Engine(Arc::new(Inner {
            events: Events::new(host.records.clone()),
            alerts: Alerts::default(),
            begun: Instant::now(),
            alerts_behind: Mutex::default(),
            levels: Mutex::default(),
            measured: Mutex::default(),
            owned_logs: Mutex::default(),
            trimmed_when_short: Mutex::default(),
            tries: Mutex::default(),
            care: Mutex::default(),
            host,
            config,
            view: SharedView::default(),
            devices: Mutex::default(),
            failures: Failures::default(),
            left_out: Kept::default(),
            pools_had: Kept::default(),
            exports_had: ExportsHad::default(),
            shunned: Shunned::default(),
            jobs: Jobs::default(),
            names: Names::default(),
            lvm: LvmLocks::default(),
            operations: Operations::default(),
            pending: Mutex::default(),
            exports_stale: Mutex::new(true),
            not_started: Mutex::default(),
            started: AtomicBool::new(false),
            nfs_due: Mutex::default(),
            maybe_suspended: AtomicBool::new(true),
            orphans: Mutex::default(),
            read_at: Mutex::default(),
            changes: OnceLock::new(),
            surroundings: Mutex::default(),
            chores: Mutex::default(),
            layers: crate::layers::LayersKnown::default(),
            told_grown: Mutex::default(),
        }))
    }

    /// Keeps an event and sends it to those who listen.
    pub fn record(
        &self,
        kind: EventKind,
        severity: Severity,
        object: Option<String>,
        by: Option<&Principal>,
        message: String,
    ) {
        let now = self.0.host.machine.now();
        let kept = self.0.events.record(now, kind, severity, object, by, message);
        self.note_keeping(&kept);
    }

    /// Events after the one of this number, oldest first, at most `limit`. Of the last 10,000.
    pub fn events(&self, after_seq: u64, limit: usize) -> Vec<Event> {
        self.0.events.after(after_seq, limit)
    }

    /// The newest events before the one of this number, oldest first, at most `limit`.
    pub fn events_before(&self, before_seq: u64, limit: usize) -> Vec<Event> {
        self.0.events.before(before_seq, limit)
    }

    /// Events from now on. A receiver that falls 1000 behind is told that it missed some.
    pub fn subscribe(&self) -> broadcast::Receiver<Event> {
        self.0.events.subscribe()
    }

    /// Notes why it cannot be started, for those who ask how it is.
    pub fn note_not_started(&self, why: &str) {
        *locked(&self.0.not_started) = Some(why.to_owned());
    }

    /// Whether no operation is far beyond its limit. For the watchdog.
    pub fn alive(&self) -> bool {
        self.0.operations.in_time(self.0.lvm.is_at_length())
    }

    /// What there is now. It stays so for as long as the look lives, and nothing that asks for it may be called meanwhile.
    pub(crate) fn view(&self) -> Look<'_> {
        self.0.view.look()
    }

    pub(crate) fn change_view<T>(&self, change: impl FnOnce(&mut View) -> T) -> T {
        self.0.view.change(change)
    }

    pub(crate) fn path_of(&self, volume: VolumeId) -> PathBuf {
        self.0.config.volumes_dir.join(volume.to_string())
    }

    /// Reads LVM's state, whole and undisturbed, into the view.
    pub(crate) fn read_lvm(&self) -> Result<(), EngineError> {
        let _still = self.0.lvm.still();
        let state = self.0.host.lvm.state().doing(|| "read the pools' state".to_owned())?;
        let orphans = self.change_view(|view| {
            let (new, orphans) = View::read(&state, view);
            *view = new;
            orphans
        });
        *locked(&self.0.read_at) = Some(Instant::now());
        self.report_orphans(orphans);
        Ok(())
    }

    /// Reads LVM's state if that was not done within `age`.
    pub(crate) fn read_lvm_after(&self, age: Duration) -> Result<(), EngineError> {
        let fresh = locked(&self.0.read_at).is_some_and(|at| at.elapsed() < age);
        if fresh { Ok(()) } else { self.read_lvm() }
    }

    /// Each is told once for as long as it is there.
    fn report_orphans(&self, found: Vec<Orphan>) {
        let found: HashSet<Orphan> = found.into_iter().collect();
        let mut known = locked(&self.0.orphans);
        let new: BTreeSet<Orphan> = found.difference(&known).cloned().collect();
        *known = found;
        drop(known);
        for orphan in new {
            let message = format!("{} was left alone: {}", orphan.object, orphan.why);
            self.record(
                EventKind::OrphanFound,
                Severity::Warning,
                Some(orphan.object),
                None,
                message,
            );
        }
    }

    /// Makes one change to a pool in LVM and, once it is committed, in the view. If it failed, it is not known what of it
    /// was done, and all is read anew.
    pub(crate) fn change_lvm<T>(
        &self,
        pool: PoolId,
        doing: impl FnOnce() -> String,
        command: impl FnOnce() -> Result<T, HostError>,
        apply: impl FnOnce(&mut View),
    ) -> Result<T, EngineError> {
        let outcome = self.0.lvm.change(pool, || {
            let outcome = command();
            if outcome.is_ok() {
                self.change_view(apply);
            }
            outcome
        })?;
        self.after_lvm(outcome.doing(doing))
    }

    /// Reads all anew if a change failed.
    pub(crate) fn after_lvm<T>(&self, outcome: Result<T, EngineError>) -> Result<T, EngineError> {
        let Err(EngineError::Host { source, .. }) = &outcome else {
            return outcome;
        };
        match source.kind() {
            HostErrorKind::PowerLost => return outcome,
            HostErrorKind::TimedOut => self.0.maybe_suspended.store(true, Ordering::SeqCst),
            HostErrorKind::Busy | HostErrorKind::Failed => {}
        }
        // What was told to have failed may have been done: the exports may say other than the tags do now.
        *locked(&self.0.exports_stale) = true;
        // Whoever has a turn does this when it is over.
        if !has_turn() {
            self.look_after_failure();
        }
        outcome
    }

    /// Finds out what a change of LVM's has come to that was told to have failed.
    pub(crate) fn look_after_failure(&self) {
        self.resume_suspended(Duration::ZERO);
        if let Err(error) = self.read_lvm() {
            tracing::warn!(%error, "after a failed change the state could not be read");
        }
    }

    /// Lets I/O go on to what a command of LVM's that was cut short has left suspended: whoever uses such a volume hangs.
    /// While one runs yet that does not end within `patience`, that is left to the next call.
    pub(crate) fn resume_suspended(&self, patience: Duration) {
        if !self.0.maybe_suspended.load(Ordering::SeqCst) {
            return;
        }
        // A command that runs suspends what it must.
        let _still = self.0.lvm.still();
        match self.0.host.lvm.resume(patience) {
            Ok(resumed) => {
                self.0.maybe_suspended.store(false, Ordering::SeqCst);
                for name in resumed {
                    let message = format!("{name} was suspended by a change that was cut short; it goes on");
                    self.record(EventKind::VolumeChanged, Severity::Warning, Some(name), None, message);
                }
            }
            Err(error) => tracing::warn!(%error, "volumes may be suspended; it is tried again"),
        }
    }

    /// Makes the exports what the view says.
    pub(crate) fn publish(&self) -> Result<(), EngineError> {
        let mut stale = locked(&self.0.exports_stale);
        *stale = true;
        let mut entries = self.exports_of_pools_away();
        entries.extend(self.view().pools.values().flat_map(|pool| self.exports_of(pool)));
        entries.sort();
        let exports = &self.0.host.exports;
        exports.replace(&entries).doing(|| "write the exports".to_owned())?;
        *stale = false;
        Ok(())
    }

    /// What is exported of a pool, whether it is mounted or not. Nothing of one that is being released.
    pub(crate) fn exports_of(&self, pool: &PoolView) -> Vec<ExportEntry> {
        if pool.releasing {
            return Vec::new();
        }
        let served = pool.volumes.iter().filter(|(_, volume)| volume.has_export());
        let served = served.map(|(id, volume)| self.export_of(*id, volume));
        let shown = pool.snapshots.iter().filter(|(_, snapshot)| snapshot.has_export());
        let shown = shown.map(|(id, snapshot)| ExportEntry {
            path: self.snapshot_path(*id),
            fsid: id.uuid(),
            clients: snapshot.tags.clients.iter().map(|c| c.with_read_only(true)).collect(),
            users: ExportUsers::default(),
        });
        served.chain(shown).collect()
    }

    /// Makes one volume's export what the view says.
    pub(crate) fn publish_volume(&self, id: VolumeId) -> Result<(), EngineError> {
        let mut stale = locked(&self.0.exports_stale);
        if *stale {
            drop(stale);
            return self.publish();
        }
        *stale = true;
        let entry = {
            let view = self.view();
            view.volume(id)
                .filter(|(pool, volume)| !pool.releasing && volume.has_export())
                .map(|(_, volume)| self.export_of(id, volume))
        };
        let exports = &self.0.host.exports;
        match entry {
            Some(entry) => exports.set(&entry),
            None => exports.remove(&self.path_of(id)),
        }
        .doing(|| format!("write the export of volume {id}"))?;
        *stale = false;
        Ok(())
    }

    fn export_of(&self, id: VolumeId, volume: &VolumeView) -> ExportEntry {
        ExportEntry {
            path: self.path_of(id),
            fsid: id.uuid(),
            clients: clients_of(volume),
            users: users_of(volume),
        }
    }

    /// Makes the exports what the view says if that failed the last time.
    pub(crate) fn publish_if_stale(&self) -> Result<(), EngineError> {
        let stale = *locked(&self.0.exports_stale);
        if stale { self.publish() } else { Ok(()) }
    }

    /// What is told of something that was not found. Before a start has come to its end, and while a pool is away, it may be there
    /// all the same: whoever is told that it is gone forgets it, as a cluster does with a volume that it wanted deleted.
    pub(crate) fn absent(&self, by: &Principal, not_found: EngineError) -> EngineError {
        match self.is_started() {
            true => self.not_here(by, not_found),
            false => Engine::not_started(),
        }
    }

    pub(crate) fn not_started() -> EngineError {
        EngineError::Unavailable(
            "the appliance has not come to the end of its start, and may not know all that it has; ask again"
                .to_owned(),
        )
    }

    pub(crate) fn is_started(&self) -> bool {
        self.0.started.load(Ordering::SeqCst)
    }
}
