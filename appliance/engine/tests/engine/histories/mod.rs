//! Random histories: operations, failures, power cuts and lost disks in any order, against what was answered.
//!
//! Invariants, looked at after every step: an acknowledged object is there whole, an unacknowledged one is finished or
//! gone; no client sees another's data; nothing with something unknown on it was written to.
//!
//! `CISTERN_HISTORIES` sets how many (10,000), `CISTERN_HISTORIES_SEED` where they begin. A failing one is shrunk, and
//! printed as a script for `found.rs`.

mod apply;
mod cases;
mod found;
mod pool_cases;
mod pools;
mod random;
mod steps;
mod table;
mod world;

use std::collections::{BTreeMap, BTreeSet};

use cistern_engine::{EngineError, VolumeFilter};
use cistern_host::ExportEntry;
use cistern_model::{Client, DiskId, DiskState, Layout, PoolId, SnapshotId, VolumeId, VolumeSource};

use self::apply::Outcome;
use self::pools::{MORE, disks_for};
use self::steps::{Mend, Mishap, Step};
use self::world::{STRAY, Scheduled, Settings, World};
use crate::support::{Odd, Rig, by, machine_with, serial};

/// A machine, and what is known of it.
pub(crate) struct History {
    rig: Rig,
    /// The ways in which all may be: one, after all was reconciled, but for what cannot be seen.
    worlds: Vec<World>,
    /// The disk that is pulled out.
    detached: Option<DiskId>,
    /// The kernel could not be asked to use a disk again that is back: that is asked once for each time that it comes.
    refresh_failed: bool,
    /// The pool is given up, disk by disk, until none is left.
    giving_up: Option<PoolId>,
    /// Something went wrong, and the next step met what there was.
    met_unfinished: bool,
    rolled_back: BTreeSet<VolumeId>,
    scheduled: Scheduled,
    /// What a schedule's snapshot may hold, if one was made since all was last known.
    ticked: Vec<World>,
    /// Whose data may be in each volume: its own, and that of what it was made of.
    lineage: BTreeMap<VolumeId, BTreeSet<VolumeId>>,
    of_volume: BTreeMap<SnapshotId, VolumeId>,
    /// Where the last fault happened.
    hit: Option<String>,
    /// Whether the power also went during the start that followed.
    hit_again: bool,
}

/// Lives through a history that begins with a pool of this layout.
pub(crate) fn live(layout: Layout, steps: &[(Step, Mishap)]) {
    let mut history = History::new(layout);
    for (step, mishap) in steps {
        history.take(step, mishap);
    }
}

impl History {
    pub(crate) fn new(layout: Layout) -> History {
        let rig = Rig::on(machine_with(&MORE));
        rig.make_pool("tank", layout, disks_for(layout));
        let world = World {
            pool: Some(Settings::of_new(layout)),
            ..World::default()
        };
        History {
            rig,
            worlds: vec![world],
            detached: None,
            refresh_failed: false,
            giving_up: None,
            met_unfinished: false,
            rolled_back: BTreeSet::new(),
            scheduled: Scheduled::new(),
            ticked: Vec::new(),
            lineage: BTreeMap::new(),
            of_volume: BTreeMap::new(),
            hit: None,
            hit_again: false,
        }
    }

    /// The same on a machine of its own, with a supervisor that has just started.
    pub(crate) fn fork(&self) -> History {
        let rig = Rig::on(self.rig.machine.copy());
        History {
            rig,
            worlds: self.worlds.clone(),
            detached: self.detached.clone(),
            refresh_failed: false,
            giving_up: self.giving_up,
            met_unfinished: false,
            rolled_back: self.rolled_back.clone(),
            scheduled: self.scheduled.clone(),
            ticked: self.ticked.clone(),
            lineage: self.lineage.clone(),
            of_volume: self.of_volume.clone(),
            hit: None,
            hit_again: false,
        }
    }

    /// Takes a step, lets go wrong what is to, mends it, and compares.
    pub(crate) fn take(&mut self, step: &Step, mishap: &Mishap) -> Outcome {
        // What is unfinished in a pool that lacks a disk stays so until that is back: LVM changes nothing there.
        if matches!(step, Step::Detach { .. } | Step::MoveAway) {
            self.settle();
            self.compare();
        }
        if *step == Step::Restart {
            self.refresh_failed = false;
            self.rig.power_cycle();
        }
        let before = (self.worlds.len() == 1 && *mishap == Mishap::Calm).then(|| self.rig.snapshot());
        match *mishap {
            Mishap::Calm => {}
            Mishap::Dark { at, cut, .. } => self.rig.machine.cut_power_at(at.into(), cut),
            Mishap::Fails { at, done, .. } => self.rig.machine.fail_at(at.into(), done),
        }
        let outcome = self.apply(step);
        self.hit = self.rig.machine.fault_hit().filter(|_| *mishap != Mishap::Calm);
        self.rig.machine.disarm();
        self.refresh_failed |= self.hit.as_deref() == Some("raids.refresh_lv");
        if outcome == Outcome::Refused
            && let Some(before) = before
        {
            assert_eq!(
                self.rig.snapshot(),
                before,
                "{step:?} was refused, and changed something"
            );
        }
        self.note_lineage();
        self.nobody_sees_what_is_not_theirs();
        let mend = match *mishap {
            // A supervisor whose start fails is started again.
            Mishap::Fails {
                mend: Mend::Look | Mend::Nothing,
                ..
            } if self.hit.is_some() && *step == Step::Restart => {
                self.begin_again(Mend::Supervisor, 0, mishap);
                Mend::Look
            }
            Mishap::Dark { .. } if self.hit.is_none() => Mend::Look,
            Mishap::Dark { again, mend, .. } => {
                self.begin_again(mend, again, mishap);
                Mend::Look
            }
            Mishap::Fails {
                mend: mend @ (Mend::Start | Mend::Supervisor),
                ..
            } if self.hit.is_some() => {
                self.begin_again(mend, 0, mishap);
                Mend::Look
            }
            // Until its supervisor knows that a pool lacks a disk, requests break off at what LVM refuses.
            Mishap::Fails {
                mend: Mend::Nothing, ..
            } if matches!(step, Step::Detach { .. }) => Mend::Look,
            // Not for long: with each step of which the outcome is not known there are twice as many ways.
            Mishap::Fails {
                mend: Mend::Nothing, ..
            } if self.hit.is_some() && self.worlds.len() < 16 => Mend::Nothing,
            Mishap::Calm | Mishap::Fails { .. } => Mend::Look,
        };
        self.met_unfinished |= mend == Mend::Nothing;
        if mend == Mend::Look {
            self.settle();
            self.compare();
            self.nobody_sees_what_is_not_theirs();
        }
        outcome
    }

    /// A new supervisor, on a machine whose power was gone or that has run on; the power goes at so many changes into its
    /// start, and then it starts undisturbed.
    fn begin_again(&mut self, mend: Mend, again: u8, mishap: &Mishap) {
        let cycle = |rig: &mut Rig| match mend {
            Mend::Supervisor => rig.break_off(),
            Mend::Start | Mend::Look | Mend::Nothing => rig.power_cycle(),
        };
        cycle(&mut self.rig);
        self.nobody_sees_what_is_not_theirs();
        if let (Mishap::Dark { cut, .. }, 1..) = (mishap, again) {
            self.rig.machine.cut_power_at(again.into(), *cut);
            let _ = self.rig.engine.start();
            self.wait_for_jobs();
            self.hit_again = self.rig.machine.is_dark();
            self.rig.machine.disarm();
            self.nobody_sees_what_is_not_theirs();
            cycle(&mut self.rig);
            self.nobody_sees_what_is_not_theirs();
        }
        self.rig.engine.start().unwrap();
        self.refresh_failed = false;
        if mend == Mend::Start {
            self.rig.check_exports_before_nfs();
        }
    }

    /// Waits for what goes on by itself; whether there was anything.
    fn wait_for_jobs(&self) -> bool {
        let running: Vec<_> = self
            .rig
            .engine
            .jobs(&by())
            .into_iter()
            .filter(|job| job.ended.is_none())
            .collect();
        running.iter().for_each(|job| drop(self.rig.wait(job)));
        !running.is_empty()
    }

    /// Makes everything as the disks say, and does what people do about what is left to them.
    fn settle(&mut self) {
        for _ in 0..6 {
            let jobs = self.rig.engine.jobs(&by()).len();
            self.rig.engine.reconcile().unwrap();
            if !self.wait_for_jobs() && self.rig.engine.jobs(&by()).len() == jobs {
                break;
            }
        }
        // Of a pool that is given up no disk stays.
        if let Some(pool) = self.giving_up.take() {
            for disk in self.rig.engine.disks().unwrap() {
                // One that is blank is asked for again: what had failed may have been done.
                if [DiskState::InPool { pool }, DiskState::Available].contains(&disk.state) {
                    let named = pool.to_string();
                    self.rig.engine.wipe_disk(&by(), &disk.id, Some(&named)).unwrap();
                }
            }
            self.rig.engine.reconcile().unwrap();
        }
        // Labels of a pool whose making or deletion was cut short, or what is on a disk that came back after another took its
        // place.
        for disk in self.rig.engine.disks().unwrap() {
            let label = disk
                .signatures
                .iter()
                .any(|s| ["LVM2_member", "gpt"].contains(&s.kind.as_str()));
            let precious = [serial("full"), serial("boot")].contains(&disk.id);
            if disk.state == DiskState::HasData && label && !precious && !self.worlds.iter().any(|world| world.away) {
                self.rig.engine.wipe_disk(&by(), &disk.id, None).unwrap();
            }
        }
    }

    /// Compares with what is there, once everything was reconciled; from then on that is known.
    fn compare(&mut self) {
        let (seen, scheduled) = World::observe(&self.rig);
        let away = seen.away;
        if away {
            assert_eq!(self.rig.machine.violations(), Vec::<String>::new());
            // Its clients may be kept waiting.
            assert!(self.rig.machine.mounts().is_empty());
        } else {
            self.rig.check_odd(&Odd {
                degraded: self.detached.is_some() || self.refresh_failed,
                half_grown: self.met_unfinished,
                stray: seen.stray.then_some(STRAY),
                other_roots: self.rolled_back.clone(),
            });
            self.compare_scheduled(&scheduled);
        }
        let emptied = !self.ticked.is_empty();
        let why: Vec<String> = self
            .worlds
            .iter()
            .filter_map(|world| world.differs(&seen, emptied))
            .collect();
        self.worlds.retain(|world| world.differs(&seen, emptied).is_none());
        assert!(!self.worlds.is_empty(), "{}", why.join("; or: "));
        // Of what is away nothing is seen.
        if !away {
            let known = std::mem::take(&mut self.worlds).into_iter();
            self.worlds = known.map(|world| world.settle(seen.clone())).collect();
            // In the trash it is not seen who might use a volume.
            self.worlds.dedup();
            self.scheduled = scheduled;
            self.ticked.clear();
        }
    }

    pub(crate) fn before_tick(&mut self) {
        self.ticked.extend(self.worlds.iter().cloned());
    }

    /// A schedule's snapshots hold what their volume held; which there are, schedules and the want of room decide.
    fn compare_scheduled(&self, there: &Scheduled) {
        for (id, (volume, files)) in there {
            let held = match self.scheduled.get(id) {
                Some(known) => known == &(*volume, files.clone()),
                None => self.ticked.iter().any(|world| {
                    let mut volumes = world.volumes.values();
                    volumes.any(|v| v.id.is_none_or(|id| id == *volume) && v.files == *files)
                }),
            };
            assert!(held, "the scheduled snapshot {id} of {volume} holds {files:?}");
        }
    }

    fn note_lineage(&mut self) {
        // A supervisor whose start broke off lists nothing.
        let all = self
            .rig
            .engine
            .volumes(&by(), &VolumeFilter::default(), usize::MAX, None);
        if matches!(all, Err(EngineError::Unavailable(_))) {
            return;
        }
        for snapshot in self.rig.snapshots() {
            self.of_volume.insert(snapshot.id, snapshot.volume);
        }
        for volume in self.rig.volumes() {
            let source = match volume.source {
                None => None,
                Some(VolumeSource::Volume(source)) => Some(source),
                Some(VolumeSource::Snapshot(source)) => self.of_volume.get(&source).copied(),
            };
            let mut all = source
                .and_then(|source| self.lineage.get(&source).cloned())
                .unwrap_or_default();
            all.insert(volume.id);
            self.lineage.entry(volume.id).or_insert(all);
        }
    }

    /// What is exported is exported to those who may see it, and holds nothing but what belongs there; and nothing that
    /// is somebody else's was written to.
    fn nobody_sees_what_is_not_theirs(&self) {
        let machine = &self.rig.machine;
        assert_eq!(machine.violations(), Vec::<String>::new());
        for precious in ["full", "boot"] {
            assert_eq!(
                machine.writes(&serial(precious)),
                Vec::<String>::new(),
                "{precious} was written to"
            );
        }
        if machine.is_dark() {
            return;
        }
        // Of a pool that is away an older word may stand there, which lets nobody in: nothing is mounted.
        let away = self.detached.is_some() || self.worlds.iter().any(|world| world.away);
        let mounted = machine.mounts();
        let counts = |export: &ExportEntry| !away || mounted.contains(&export.path);
        for export in machine.exports().into_iter().filter(counts) {
            let id = export.path.file_name().unwrap().to_str().unwrap().to_owned();
            let allowed: BTreeSet<Client> = self.worlds.iter().flat_map(|world| world.clients_of(&id)).collect();
            for client in &export.clients {
                let may = allowed.iter().any(|there| there.is_same_peer(client));
                assert!(may, "{client} can mount {id}, which only {allowed:?} may");
            }
        }
        for (path, vg, lv) in machine.mounted_volumes() {
            assert!(path.ends_with(&lv), "{lv} is mounted at {}", path.display());
            // What a volume is to be rolled back to is mounted once, for nobody.
            let of_copy = lv.strip_prefix("next-").and_then(|id| format!("vol-{id}").parse().ok());
            let of = match lv.parse::<VolumeId>().ok().or(of_copy) {
                Some(volume) => Some(volume),
                None => lv
                    .parse()
                    .ok()
                    .and_then(|snapshot: SnapshotId| self.of_volume.get(&snapshot).copied()),
            };
            let lineage = of
                .and_then(|volume| self.lineage.get(&volume))
                .cloned()
                .unwrap_or_default();
            for (file, _) in machine.contents(&vg, &lv).unwrap_or_default() {
                let whose = file.split('/').next().unwrap_or_default();
                let own = file == STRAY || whose.parse().is_ok_and(|id| lineage.contains(&id));
                assert!(own, "{lv} holds {file}, and may hold what is of {lineage:?}");
            }
        }
    }
}
