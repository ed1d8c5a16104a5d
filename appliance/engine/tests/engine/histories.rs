//! Random histories: operations, failures and power cuts in any order, against a model of what was answered.
//!
//! `CISTERN_HISTORIES` sets how many; a failing one is shrunk, and printed as the list of its steps.

use std::collections::{BTreeMap, BTreeSet};

use cistern_host::BlockDevice;
use cistern_host::memory::{Cut, MemoryHost};
use cistern_model::{
    AddDisksRequest, Bytes, Client, DiskState, ErrorKind, JobState, Layout, Snapshot, SnapshotRequest, Volume,
    VolumeId, VolumeSource,
};
use proptest::prelude::*;

use crate::changes::{to_name, to_size};
use crate::clones::of;
use crate::crashes::wait_for_jobs;
use crate::rollback::to;
use crate::support::{Rig, by, client, path, pool_request, serial, volume_request};

#[derive(Debug, Clone)]
enum Step {
    Create { name: u8, size_mib: u64 },
    Delete { name: u8 },
    Allow { name: u8, client: u8 },
    Forbid { name: u8, client: u8 },
    Write { name: u8, mib: u64 },
    Expand { name: u8, size_mib: u64 },
    Rename { name: u8, to: u8 },
    Snapshot { name: u8 },
    DeleteSnapshot { name: u8 },
    RollBack { name: u8, discard: bool },
    Clone { name: u8, to: u8 },
    AddDisks { count: usize },
    Grow { gib: u64 },
    MakePool { layout: Layout },
    DeletePool,
    Reconcile,
    Restart,
}

/// What happens during a step.
#[derive(Debug, Clone)]
enum Mishap {
    None,
    Cut(usize, u8),
    Fail(usize, bool),
}

/// Calls that can fail.
const CALLS: [&str; 23] = [
    "lvm.create_vg",
    "lvm.create_lv",
    "lvm.extend_lv",
    "lvm.convert_to_thin_pool",
    "lvm.create_thin",
    "lvm.extend_thin",
    "lvm.create_thin_snapshot",
    "lvm.rename_lv",
    "lvm.tag_lv",
    "lvm.tag_vg",
    "lvm.remove_lv",
    "filesystems.make_xfs",
    "filesystems.grow_xfs",
    "filesystems.mount",
    "filesystems.unmount",
    "exports.replace",
    "exports.set",
    "exports.remove",
    "filesystems.set_root",
    "exports.sessions",
    "exports.release",
    "raids.extend_vg",
    "raids.resize_pv",
];

/// What is known of a volume that was answered.
#[derive(Debug, Clone, PartialEq)]
struct Known {
    size: Bytes,
    clients: BTreeSet<Client>,
    files: BTreeMap<String, Bytes>,
}

/// The states that a name may be in: more than one after an answer that was no success. None: there is no such volume.
type Allowed = BTreeMap<u8, Vec<Option<Known>>>;

#[derive(Default)]
struct Model {
    /// None: it is not known whether there is a pool.
    pool: Option<bool>,
    /// It has this size at least.
    size: Bytes,
    volumes: Allowed,
    /// Each volume's snapshot `s`: the files that it may hold. None: there is none.
    snapshots: BTreeMap<VolumeId, Vec<Option<BTreeMap<String, Bytes>>>>,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0u8..4, 200u64..4000).prop_map(|(name, size_mib)| Step::Create { name, size_mib }),
        3 => (0u8..4).prop_map(|name| Step::Delete { name }),
        3 => (0u8..4, 0u8..3).prop_map(|(name, client)| Step::Allow { name, client }),
        2 => (0u8..4, 0u8..3).prop_map(|(name, client)| Step::Forbid { name, client }),
        3 => (0u8..4, 1u64..600).prop_map(|(name, mib)| Step::Write { name, mib }),
        2 => (0u8..4, 200u64..4000).prop_map(|(name, size_mib)| Step::Expand { name, size_mib }),
        1 => (0u8..4, 0u8..4).prop_map(|(name, to)| Step::Rename { name, to }),
        2 => (0u8..4).prop_map(|name| Step::Snapshot { name }),
        1 => (0u8..4).prop_map(|name| Step::DeleteSnapshot { name }),
        2 => (0u8..4, any::<bool>()).prop_map(|(name, discard)| Step::RollBack { name, discard }),
        1 => (0u8..4, 0u8..4).prop_map(|(name, to)| Step::Clone { name, to }),
        2 => proptest::sample::select(Layout::ALL.to_vec()).prop_map(|layout| Step::MakePool { layout }),
        2 => (1usize..4).prop_map(|count| Step::AddDisks { count }),
        1 => (10u64..14).prop_map(|gib| Step::Grow { gib }),
        1 => Just(Step::DeletePool),
        1 => Just(Step::Reconcile),
        1 => Just(Step::Restart),
    ]
}

fn mishap() -> impl Strategy<Value = Mishap> {
    prop_oneof![
        4 => Just(Mishap::None),
        2 => (1usize..9, 0u8..3).prop_map(|(at, cut)| Mishap::Cut(at, cut)),
        2 => (0..CALLS.len(), any::<bool>()).prop_map(|(call, done)| Mishap::Fail(call, done)),
    ]
}

fn name_of(name: u8) -> String {
    format!("v{name}")
}

fn address(client_number: u8) -> Client {
    client(&format!("10.0.0.{}", client_number + 1))
}

fn find(rig: &Rig, name: u8) -> Option<Volume> {
    rig.volumes().into_iter().find(|v| v.name.as_str() == name_of(name))
}

fn snapshot_of(rig: &Rig, volume: VolumeId) -> Option<Snapshot> {
    rig.snapshots()
        .into_iter()
        .find(|s| s.volume == volume && s.name.as_str() == "s")
}

impl Model {
    fn states(&self, name: u8) -> Vec<Option<Known>> {
        self.volumes.get(&name).cloned().unwrap_or_else(|| vec![None])
    }

    /// Whether it went well decides between the state after and any of those before and after.
    fn settle(&mut self, name: u8, done: bool, after: impl Fn(Option<Known>) -> Option<Known>) {
        let mut states: Vec<Option<Known>> = self.states(name).into_iter().map(&after).collect();
        if !done {
            states.extend(self.states(name));
        }
        states.dedup();
        self.volumes.insert(name, states);
    }

    /// Compares with what is there, once everything has been started or reconciled; from then on that is known.
    fn compare(&mut self, rig: &Rig) {
        let pool = rig.engine.pool(&by(), "tank").is_ok();
        if let Some(known) = self.pool {
            assert_eq!(pool, known, "the pool");
        }
        self.pool = Some(pool);
        let size = rig.engine.pool(&by(), "tank").map_or(Bytes::ZERO, |pool| pool.size);
        assert!(size >= self.size || !pool, "the pool has {size}, and had {}", self.size);
        self.size = size;
        for name in 0..4 {
            let there = find(rig, name).map(|volume| Known {
                size: volume.size,
                clients: volume.clients.iter().copied().collect(),
                files: rig
                    .machine
                    .files(&path(volume.id))
                    .unwrap_or_default()
                    .into_iter()
                    .collect(),
            });
            let allowed = self.states(name);
            assert!(
                allowed.contains(&there),
                "v{name} is {there:?}, and should be one of {allowed:?}"
            );
            self.volumes.insert(name, vec![there]);
        }
        for (volume, allowed) in &mut self.snapshots {
            let there = snapshot_of(rig, *volume).is_some();
            allowed.retain(|state| state.is_some() == there);
            assert!(!allowed.is_empty(), "the snapshot of {volume}: {there}");
        }
    }
}

fn apply(rig: &mut Rig, model: &mut Model, step: &Step) {
    match step {
        Step::Create { name, size_mib } => {
            let size = Bytes::mib(*size_mib);
            let request = volume_request(&name_of(*name), size);
            let made = rig.engine.create_volume(&by(), &request);
            let fresh = Known {
                size: size.max(Bytes::mib(300)),
                clients: request.clients.iter().copied().collect(),
                files: BTreeMap::new(),
            };
            let refused = made.as_ref().err().map(|e| e.kind());
            let unchanged = [ErrorKind::NameTaken, ErrorKind::NoSpace, ErrorKind::NotFound].map(Some);
            if !unchanged.contains(&refused) {
                model.settle(*name, made.is_ok(), |there| Some(there.unwrap_or(fresh.clone())));
            }
        }
        Step::Delete { name } => {
            if let Some(volume) = find(rig, *name) {
                let done = rig.engine.delete_volume(&by(), volume.id).is_ok();
                model.settle(*name, done, |_| None);
            }
        }
        Step::Allow { name, client } => {
            if let Some(volume) = find(rig, *name) {
                let done = rig.engine.add_client(&by(), volume.id, address(*client)).is_ok();
                model.settle(*name, done, |there| {
                    there.map(|mut known| {
                        known.clients.insert(address(*client));
                        known
                    })
                });
            }
        }
        Step::Forbid { name, client } => {
            if let Some(volume) = find(rig, *name) {
                let done = rig.engine.remove_client(&by(), volume.id, address(*client)).is_ok();
                model.settle(*name, done, |there| {
                    there.map(|mut known| {
                        known.clients.remove(&address(*client));
                        known
                    })
                });
            }
        }
        Step::Write { name, mib } => {
            if let Some(volume) = find(rig, *name) {
                let file = format!("{mib}");
                let done = rig
                    .machine
                    .write_file(&path(volume.id), &file, Bytes::mib(*mib))
                    .is_ok();
                if done {
                    model.settle(*name, true, |there| {
                        there.map(|mut known| {
                            known.files.insert(file.clone(), Bytes::mib(*mib));
                            known
                        })
                    });
                }
            }
        }
        Step::Expand { name, size_mib } => {
            if let Some(volume) = find(rig, *name) {
                let size = Bytes::mib(*size_mib);
                let grown = rig.engine.change_volume(&by(), volume.id, &to_size(size));
                let refused = grown.as_ref().err().map(|e| e.kind());
                if ![ErrorKind::Invalid, ErrorKind::NoSpace].map(Some).contains(&refused) {
                    model.settle(*name, grown.is_ok(), |there| {
                        there.map(|known| Known {
                            size: known.size.max(size),
                            ..known
                        })
                    });
                }
            }
        }
        Step::Rename { name, to } => {
            if let Some(volume) = find(rig, *name)
                && find(rig, *to).is_none()
            {
                let done = rig
                    .engine
                    .change_volume(&by(), volume.id, &to_name(&name_of(*to)))
                    .is_ok();
                let states = model.states(*name);
                model.settle(*to, done, |_| None);
                let mut moved = states.clone();
                moved.extend((!done).then_some(None));
                model.volumes.insert(*to, moved);
                model.settle(*name, done, |_| None);
            }
        }
        Step::Snapshot { name } => {
            if let Some(volume) = find(rig, *name)
                && snapshot_of(rig, volume.id).is_none()
            {
                let request = SnapshotRequest {
                    name: "s".parse().unwrap(),
                };
                let done = rig.engine.create_snapshot(&by(), volume.id, &request).is_ok();
                let mut states: Vec<_> = model.states(*name).into_iter().map(|v| v.map(|v| v.files)).collect();
                states.extend((!done).then_some(None));
                model.snapshots.insert(volume.id, states);
            }
        }
        Step::DeleteSnapshot { name } => {
            if let Some(volume) = find(rig, *name)
                && let Some(snapshot) = snapshot_of(rig, volume.id)
            {
                let done = rig.engine.delete_snapshot(&by(), snapshot.id).is_ok();
                let states = model.snapshots.entry(volume.id).or_default();
                if done {
                    states.clear();
                }
                states.push(None);
            }
        }
        Step::RollBack { name, discard } => {
            if let Some(volume) = find(rig, *name)
                && let Some(snapshot) = snapshot_of(rig, volume.id)
            {
                let back = rig.engine.roll_back(&by(), volume.id, &to(snapshot.id, *discard));
                let held = model.snapshots.get(&volume.id).cloned().unwrap_or_default();
                let before = model.states(*name);
                let mut states = Vec::new();
                for files in held.into_iter().flatten() {
                    let became = |known: &Known| Known {
                        files: files.clone(),
                        ..known.clone()
                    };
                    states.extend(before.iter().map(|known| known.as_ref().map(became)));
                }
                if back.is_err() {
                    states.extend(before);
                }
                model.volumes.insert(*name, states);
            }
        }
        Step::Clone { name, to } => {
            if let Some(volume) = find(rig, *name)
                && find(rig, *to).is_none()
            {
                let request = of(VolumeSource::Volume(volume.id), &name_of(*to), volume.size);
                let made = rig.engine.create_volume(&by(), &request);
                let clients: BTreeSet<Client> = request.clients.iter().copied().collect();
                let copied = |known: Known| Known {
                    clients: clients.clone(),
                    ..known
                };
                let refused = made.as_ref().err().map(|e| e.kind());
                if refused != Some(ErrorKind::NoSpace) {
                    let mut states: Vec<_> = model.states(*name).into_iter().map(|v| v.map(copied)).collect();
                    states.extend(made.is_err().then_some(None));
                    model.volumes.insert(*to, states);
                }
            }
        }
        Step::AddDisks { count } => {
            let blank = rig.engine.disks().unwrap_or_default().into_iter();
            let blank = blank
                .filter(|disk| disk.state == DiskState::Available)
                .map(|disk| disk.id);
            let request = AddDisksRequest {
                disks: blank.take(*count).collect(),
            };
            if let Ok(job) = rig.engine.add_disks(&by(), "tank", &request) {
                let done = rig.wait(&job).state == JobState::Succeeded;
                let there = rig.engine.pool(&by(), "tank").unwrap().disks;
                assert!(!done || request.disks.iter().all(|disk| there.contains(disk)));
            }
        }
        Step::Grow { gib } => {
            for name in ["a", "b"] {
                let larger = |device: &mut BlockDevice| device.size = device.size.max(Bytes::gib(*gib));
                rig.machine.change_device(&serial(name), larger);
            }
            if let Ok(job) = rig.engine.grow_pool(&by(), "tank")
                && rig.wait(&job).state == JobState::Succeeded
            {
                let pool = rig.engine.pool(&by(), "tank").unwrap();
                assert_eq!(pool.growable, Bytes::ZERO);
                model.size = pool.size;
            }
        }
        Step::MakePool { layout } => {
            let request = pool_request("tank", *layout, &["a", "b", "c", "d", "small"]);
            match rig.engine.create_pool(&by(), &request) {
                Ok(cistern_engine::PoolCreation::Started(job)) => {
                    let done = rig.wait(&job).state == JobState::Succeeded;
                    model.pool = done.then_some(true);
                }
                Ok(cistern_engine::PoolCreation::Exists(_)) => {}
                Err(error) if matches!(error.kind(), ErrorKind::NameTaken | ErrorKind::DiskInUse) => {}
                Err(_) => model.pool = model.pool.filter(|there| *there),
            }
        }
        Step::DeletePool => match rig.engine.delete_pool(&by(), "tank") {
            Ok(job) => {
                let done = rig.wait(&job).state == JobState::Succeeded;
                model.pool = done.then_some(false);
            }
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Conflict) => {}
            Err(_) => model.pool = None,
        },
        Step::Reconcile => {
            let _ = rig.engine.reconcile();
        }
        Step::Restart => {
            rig.power_cycle();
            let _ = rig.engine.start();
        }
    }
}

fn live(steps: &[(Step, Mishap)]) {
    let mut rig = Rig::with_pool();
    let mut model = Model {
        pool: Some(true),
        size: Bytes::ZERO,
        volumes: Allowed::new(),
        snapshots: BTreeMap::new(),
    };
    for (step, mishap) in steps {
        match mishap {
            Mishap::None => {}
            Mishap::Cut(at, cut) => {
                let cut = [Cut::Before, Cut::Midway, Cut::After][usize::from(*cut)];
                rig.machine.cut_power_at(*at, cut);
            }
            Mishap::Fail(call, done) if *done => {
                rig.machine
                    .fail_after_next(CALLS[*call], MemoryHost::failure(CALLS[*call]));
            }
            Mishap::Fail(call, _) => rig.machine.fail_next(CALLS[*call], MemoryHost::failure(CALLS[*call])),
        }
        apply(&mut rig, &mut model, step);
        let mut settled = matches!(mishap, Mishap::None);
        if !matches!(mishap, Mishap::None) {
            // Whatever came of it: a new start brings order, without a further mishap.
            rig.restart();
            wait_for_jobs(&rig);
            settled = true;
        }
        if settled {
            rig.engine.reconcile().unwrap();
            wipe_bare_labels(&rig);
            model.compare(&rig);
            rig.check();
            rig.check_exports();
        }
    }
}

/// A pool whose deletion was cut short after its group was gone leaves labels on its disks; people wipe them.
fn wipe_bare_labels(rig: &Rig) {
    for disk in rig.engine.disks().unwrap() {
        if disk.state == cistern_model::DiskState::HasData && disk.signatures.iter().any(|s| s.kind == "LVM2_member") {
            rig.engine.wipe_disk(&by(), &disk.id).unwrap();
        }
    }
}

impl Rig {
    fn check_exports(&self) {
        assert_eq!(self.machine.exports().len(), self.volumes().len());
    }
}

fn cases() -> u32 {
    std::env::var("CISTERN_HISTORIES")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(300)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_what_was_answered_is_there_and_what_was_not_is_finished_or_gone(
        steps in proptest::collection::vec((step(), mishap()), 1..25),
    ) {
        live(&steps);
    }
}
