//! A start with what is on the disks, and what is done about disks, groups and volumes that are not as they should be.

use std::time::{Duration, Instant};

use cistern_host::memory::MemoryHost;
use cistern_host::{Change, HostError};
use cistern_model::{Bytes, ErrorKind, EventKind, Layout, PoolState, VolumeState};

use cistern_engine::{Config, Engine, VolumeFilter};

use crate::support::{Rig, by, client, path, refused, serial, volume_request};

#[test]
fn after_a_power_cut_everything_is_back_and_exported_before_nfs_starts() {
    let mut rig = Rig::with_pool();
    rig.make_pool("other", Layout::Single, &["c", "d"]);
    for n in 0..20 {
        let volume = rig.make_volume(&format!("v{n}"), Bytes::mib(300));
        rig.machine
            .write_file(&path(volume.id), "file", Bytes::mib(n + 1))
            .unwrap();
        rig.engine
            .add_client(&by(), volume.id, client(&format!("10.0.1.{n}")))
            .unwrap();
    }
    let (volumes, pools) = (rig.volumes(), rig.engine.pools(&by()).unwrap());
    rig.restart();
    assert_eq!((rig.volumes(), rig.engine.pools(&by()).unwrap()), (volumes, pools));
    rig.check();
    rig.check_exports_before_nfs();
    assert_eq!(rig.machine.exports_at_nfs_start().pop().unwrap().len(), 20);
}

#[test]
fn reconciling_what_is_well_changes_nothing() {
    let rig = Rig::with_pool();
    rig.make_volume("v", Bytes::gib(1));
    let (before, events) = (rig.snapshot(), rig.engine.events(0, 100).len());
    for _ in 0..3 {
        rig.engine.reconcile().unwrap();
    }
    assert_eq!((rig.snapshot(), rig.engine.events(0, 100).len()), (before, events));
    let activations = rig
        .machine
        .calls()
        .iter()
        .filter(|c| c.starts_with("lvm.activate_vg"))
        .count();
    assert_eq!(activations, 0);
}

#[test]
fn a_restart_of_the_supervisor_alone_disturbs_nobody() {
    let rig = Rig::with_pool();
    let volume = rig.make_volume("v", Bytes::gib(1));
    rig.machine.hold(&path(volume.id));
    let before = rig.machine.calls().len();
    let rig = Rig::on(rig.machine.clone());
    let calls = rig.machine.calls().split_off(before);
    for disturbing in [
        "lvm.activate",
        "lvm.deactivate",
        "filesystems.mount ",
        "filesystems.unmount",
        "exports.release",
    ] {
        assert!(!calls.iter().any(|call| call.starts_with(disturbing)), "{calls:?}");
    }
    assert_eq!(rig.machine.exports_at_nfs_start().len(), 1);
    rig.check();
}

#[test]
fn a_volume_that_cannot_be_mounted_keeps_its_export_and_its_neighbours() {
    let mut rig = Rig::with_pool();
    let (sick, well) = (
        rig.make_volume("sick", Bytes::gib(1)),
        rig.make_volume("well", Bytes::gib(1)),
    );
    rig.machine.damage(&sick.pool.to_string(), &sick.id.to_string());
    rig.restart();
    let found = rig.engine.volume(&by(), sick.id).unwrap();
    assert_eq!(found.state, VolumeState::Failed);
    assert!(found.reason.as_ref().unwrap().contains("mounted"), "{found:?}");
    assert_eq!(rig.engine.volume(&by(), well.id).unwrap().state, VolumeState::Ready);
    assert_eq!(rig.machine.exports().len(), 2);
    assert_eq!(rig.machine.exports_at_nfs_start().pop().unwrap().len(), 2);
    let health = rig.engine.health();
    assert!(
        !health.healthy && health.reasons.len() == 1 && health.reasons[0].contains("sick"),
        "{health:?}"
    );
    // It can still be deleted.
    rig.engine.delete_volume(&by(), sick.id).unwrap();
    rig.check();
}

#[test]
fn a_mount_that_fails_once_is_made_up_for() {
    let mut rig = Rig::with_pool();
    let volume = rig.make_volume("v", Bytes::gib(1));
    rig.power_cycle();
    rig.machine.fail_next("filesystems.mount", MemoryHost::failure("mount"));
    rig.engine.start().unwrap();
    assert_eq!(rig.engine.volume(&by(), volume.id).unwrap().state, VolumeState::Failed);
    rig.engine.reconcile().unwrap();
    let changes: Vec<String> = rig
        .engine
        .events(0, 100)
        .into_iter()
        .filter(|e| e.kind == EventKind::VolumeChanged)
        .map(|e| e.message)
        .collect();
    assert!(changes.len() == 2 && changes[1].contains("served again"), "{changes:?}");
    rig.check();
}

#[test]
fn nfs_is_not_started_while_the_volumes_are_not_known_or_not_exported() {
    for call in ["disks.list", "lvm.state", "filesystems.mounts_below", "exports.replace"] {
        let mut rig = Rig::with_pool();
        rig.make_volume("v", Bytes::gib(1));
        rig.power_cycle();
        let starts = rig.machine.exports_at_nfs_start().len();
        rig.machine.fail_next(call, MemoryHost::failure(call));
        refused(rig.engine.start(), ErrorKind::Internal);
        assert_eq!(rig.machine.exports_at_nfs_start().len(), starts, "{call}");
        assert!(!rig.engine.health().healthy);
        // What it does not know yet is not told to be none.
        refused(rig.engine.pools(&by()), ErrorKind::Unavailable);
        let all = VolumeFilter::default();
        refused(rig.engine.volumes(&by(), &all, 10, None), ErrorKind::Unavailable);
        rig.engine.start().unwrap();
        rig.check();
        rig.check_exports_before_nfs();
    }
}

#[test]
fn what_cannot_be_explained_is_reported_once_and_left_alone() {
    let mut rig = Rig::with_pool();
    let vg = rig.engine.pool(&by(), "tank").unwrap().id.to_string();
    rig.machine.add_strange_volume(&vg, "backup", &[]);
    let damaged = "vol-00000000000000000000000000000001";
    rig.machine
        .add_strange_volume(&vg, damaged, &["cistern.volume=1", "cistern.name=#zz"]);
    rig.machine
        .add_foreign_group("pool-00000000000000000000000000000002", "", &[serial("c")], &[]);
    rig.machine.add_foreign_group("vg0", "", &[serial("d")], &[]);
    let objects = rig.machine.objects();
    rig.restart();
    rig.engine.reconcile().unwrap();
    let mut orphans: Vec<String> = rig
        .engine
        .events(0, 100)
        .into_iter()
        .filter(|e| e.kind == EventKind::OrphanFound)
        .map(|e| e.object.unwrap())
        .collect();
    orphans.sort();
    let mut expected = vec![
        format!("{vg}/backup"),
        format!("{vg}/{damaged}"),
        "pool-00000000000000000000000000000002".to_owned(),
    ];
    expected.sort();
    assert_eq!(orphans, expected);
    assert_eq!(rig.machine.objects(), objects);
    assert_eq!(rig.machine.violations(), Vec::<String>::new());
}

#[test]
fn a_group_of_another_machine_is_never_touched() {
    let mut rig = Rig::new();
    let tags = [
        "cistern.pool=1",
        "cistern.name=tank",
        "cistern.layout=single",
        "cistern.state=creating",
        "cistern.disk=0/serial-c",
    ];
    rig.machine.add_foreign_group(
        "pool-00000000000000000000000000000003",
        "another",
        &[serial("c")],
        &tags,
    );
    rig.restart();
    assert_eq!(rig.engine.pools(&by()).unwrap(), []);
    assert_eq!(rig.machine.violations(), Vec::<String>::new());
    rig.make_pool("tank", Layout::Single, &["a"]);
    refused(
        rig.engine.pool(&by(), "pool-00000000000000000000000000000003"),
        ErrorKind::NotFound,
    );
}

#[test]
fn a_mirror_that_loses_a_disk_while_it_runs_is_served_degraded() {
    let rig = Rig::with_pool();
    let volume = rig.make_volume("v", Bytes::gib(1));
    let snapshot = rig.make_snapshot(volume.id, "s");
    rig.machine.detach(&serial("b"));
    rig.engine.reconcile().unwrap();
    let pool = rig.engine.pool(&by(), "tank").unwrap();
    assert_eq!((pool.state, pool.missing_disks), (PoolState::Degraded, 1));
    assert_eq!(pool.disks, [serial("a")]);
    assert!(pool.reason.unwrap().contains("1 of its 2 disks"));
    assert_eq!(rig.engine.volume(&by(), volume.id).unwrap().state, VolumeState::Ready);
    assert_eq!(rig.machine.exports().len(), 1);
    assert!(rig.engine.health().healthy);
    // LVM changes no group that lacks a disk.
    let before = rig.snapshot();
    refused(
        rig.engine.create_volume(&by(), &volume_request("w", Bytes::gib(1))),
        ErrorKind::Unavailable,
    );
    refused(rig.engine.delete_volume(&by(), volume.id), ErrorKind::Unavailable);
    refused(rig.engine.delete_pool(&by(), "tank"), ErrorKind::Conflict);
    assert_eq!(rig.snapshot(), before);
    // But for tags: clients come and go, and are cut off. Those of a snapshot too.
    for clients in [&[client("10.0.0.9")][..], &[]] {
        let served = rig.engine.serve_snapshot(&by(), snapshot.id, clients).unwrap();
        assert_eq!(served.export.is_some(), !clients.is_empty());
    }
    refused(rig.engine.delete_snapshot(&by(), snapshot.id), ErrorKind::Unavailable);
    rig.engine.add_client(&by(), volume.id, client("10.0.0.9")).unwrap();
    rig.engine.remove_client(&by(), volume.id, client("10.0.0.9")).unwrap();
    rig.machine.attach(&serial("b"));
    rig.engine.reconcile().unwrap();
    rig.check();
}

#[test]
fn a_pool_that_comes_up_without_its_data_says_so_and_its_clients_wait() {
    let mut rig = Rig::new();
    rig.make_pool("tank", Layout::Single, &["a", "b"]);
    rig.make_pool("other", Layout::Single, &["c", "d"]);
    let volume = rig.make_volume("v", Bytes::gib(1));
    rig.machine.detach(&serial("b"));
    rig.restart();
    let pool = rig.engine.pool(&by(), "tank").unwrap();
    assert_eq!(
        (pool.state, pool.missing_disks, pool.available),
        (PoolState::Incomplete, 1, Bytes::ZERO)
    );
    assert_eq!(rig.engine.volume(&by(), volume.id).unwrap().state, VolumeState::Failed);
    assert_eq!(rig.machine.exports_at_nfs_start().pop().unwrap().len(), 1);
    assert_eq!(rig.machine.mounts().len(), 0);
    assert_eq!(rig.engine.pool(&by(), "other").unwrap().state, PoolState::Ready);
    assert!(!rig.engine.health().healthy);
    // The disk comes back, and is noticed by itself.
    rig.machine.attach(&serial("b"));
    rig.engine.react(Change::Disks);
    let deadline = Instant::now() + Duration::from_secs(20);
    while rig.engine.pool(&by(), "tank").unwrap().state != PoolState::Ready
        || rig.engine.volume(&by(), volume.id).unwrap().state != VolumeState::Ready
    {
        assert!(Instant::now() < deadline, "{:?}", rig.engine.events(0, 100));
        std::thread::sleep(Duration::from_millis(20));
    }
    rig.check();
    let kinds: Vec<EventKind> = rig.engine.events(0, 100).into_iter().map(|e| e.kind).collect();
    assert!(
        kinds.contains(&EventKind::DiskAdded) && kinds.contains(&EventKind::PoolChanged),
        "{kinds:?}"
    );
}

#[test]
fn a_single_pool_that_loses_a_disk_is_incomplete() {
    let rig = Rig::new();
    rig.make_pool("tank", Layout::Single, &["a", "b"]);
    let volume = rig.make_volume("v", Bytes::gib(1));
    rig.machine.detach(&serial("b"));
    rig.engine.reconcile().unwrap();
    assert_eq!(rig.engine.pool(&by(), "tank").unwrap().state, PoolState::Incomplete);
    assert_eq!(rig.engine.volume(&by(), volume.id).unwrap().state, VolumeState::Failed);
    assert_eq!(rig.machine.exports().len(), 1);
}

#[test]
fn a_pool_that_vanishes_whole_stays_known_so_that_its_clients_wait() {
    let rig = Rig::with_pool();
    let volume = rig.make_volume("v", Bytes::gib(1));
    rig.machine.detach(&serial("a"));
    rig.machine.detach(&serial("b"));
    rig.engine.reconcile().unwrap();
    let pool = rig.engine.pool(&by(), "tank").unwrap();
    assert_eq!((pool.state, pool.missing_disks), (PoolState::Incomplete, 2));
    assert_eq!(rig.engine.volume(&by(), volume.id).unwrap().state, VolumeState::Failed);
    assert_eq!(rig.machine.exports().len(), 1);
    rig.machine.attach(&serial("a"));
    rig.machine.attach(&serial("b"));
    rig.engine.reconcile().unwrap();
    rig.check();
}

#[test]
fn a_pool_that_cannot_be_activated_does_not_keep_the_others() {
    let mut rig = Rig::with_pool();
    rig.make_pool("other", Layout::Single, &["c"]);
    rig.power_cycle();
    rig.machine.fail_next(
        "lvm.activate_vg",
        HostError::TimedOut {
            operation: "activate".into(),
            limit: Duration::from_secs(120),
        },
    );
    rig.engine.start().unwrap();
    let states: Vec<PoolState> = rig.engine.pools(&by()).unwrap().iter().map(|p| p.state).collect();
    assert!(
        states.contains(&PoolState::Ready) && states.contains(&PoolState::Incomplete),
        "{states:?}"
    );
    rig.engine.reconcile().unwrap();
    rig.check();
}

#[test]
fn an_nfs_server_that_does_not_start_is_an_error_and_the_volumes_are_mounted() {
    let mut rig = Rig::with_pool();
    rig.make_volume("v", Bytes::gib(1));
    rig.power_cycle();
    rig.machine
        .fail_next("services.ensure_started", MemoryHost::failure("start"));
    refused(rig.engine.start(), ErrorKind::Internal);
    assert_eq!(rig.machine.mounts().len(), 1);
    rig.engine.start().unwrap();
    rig.check();
}

#[test]
fn what_an_lvm_command_left_suspended_goes_on_before_anything_is_asked_of_it() {
    let rig = Rig::with_pool();
    let volume = rig.make_volume("v", Bytes::gib(1));
    let (vg, lv) = (volume.pool.to_string(), volume.id.to_string());
    rig.machine.leave_suspended(&vg, &lv);
    let rig = Rig::on(rig.machine.clone());
    assert_eq!(rig.machine.suspended(), Vec::<String>::new());
    let told = rig.engine.events(0, 1000);
    assert!(told.iter().any(|event| event.message.contains("it goes on")));
    rig.check();
    // The same when a command took too long; while that still runs, the clock tries again.
    rig.machine.leave_suspended(&vg, &lv);
    rig.machine.fail_next("lvm.resume", busy());
    rig.machine.fail_next("lvm.tag_lv", timed_out());
    refused(
        rig.engine.add_client(&by(), volume.id, client("10.0.0.9")),
        ErrorKind::TimedOut,
    );
    assert_eq!(rig.machine.suspended().len(), 1);
    rig.engine.tick();
    assert_eq!(rig.machine.suspended(), Vec::<String>::new());
    let asked = || {
        rig.machine
            .calls()
            .iter()
            .filter(|call| call.starts_with("lvm.resume"))
            .count()
    };
    let before = asked();
    rig.engine.tick();
    assert_eq!(asked(), before);
    rig.check();
}

fn timed_out() -> HostError {
    HostError::TimedOut {
        operation: "a command".into(),
        limit: Duration::from_secs(120),
    }
}

fn busy() -> HostError {
    HostError::Busy {
        operation: "resume".into(),
        object: "LVM".into(),
    }
}

#[test]
fn a_volume_whose_mount_hangs_keeps_no_other_from_being_served() {
    for mounts_at_once in [1, 4] {
        let rig = Rig::with_pool();
        for n in 0..6 {
            rig.make_volume(&format!("v{n}"), Bytes::mib(300));
        }
        rig.machine.restart();
        rig.machine.block("filesystems.mount");
        let config = Config {
            mounts_at_once,
            mount_patience: Duration::from_millis(200),
            ..Config::default()
        };
        let engine = Engine::new(rig.machine.host(), config);
        let begun = Instant::now();
        engine.start().unwrap();
        assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
        // All wait, and each has its export.
        assert_eq!(rig.machine.exports_at_nfs_start().pop().unwrap().len(), 6);
        let states = || -> Vec<VolumeState> {
            let volumes = engine.volumes(&by(), &VolumeFilter::default(), 100, None).unwrap();
            volumes.items.iter().map(|volume| volume.state).collect()
        };
        assert_eq!(states(), [VolumeState::Failed; 6]);
        rig.machine.unblock("filesystems.mount");
        let deadline = Instant::now() + Duration::from_secs(20);
        while states() != [VolumeState::Ready; 6] && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
        }
        assert_eq!(states(), [VolumeState::Ready; 6]);
    }
}

/// A cluster forgets what it is told to be gone.
#[test]
fn nothing_is_told_to_be_gone_before_a_start_has_come_to_its_end() {
    let mut rig = Rig::with_pool();
    let volume = rig.make_volume("v", Bytes::gib(1));
    let mut waits = 0;
    for at in 1..30 {
        rig.power_cycle();
        rig.machine.fail_at(at, false);
        let started = rig.engine.start();
        rig.machine.disarm();
        if started.is_ok() {
            continue;
        }
        match rig.engine.volume(&by(), volume.id) {
            Ok(found) => assert_eq!(found.id, volume.id),
            Err(_) => {
                refused(rig.engine.volume(&by(), volume.id), ErrorKind::Unavailable);
                refused(rig.engine.delete_volume(&by(), volume.id), ErrorKind::Unavailable);
                refused(rig.engine.pool(&by(), "tank"), ErrorKind::Unavailable);
                waits += 1;
            }
        }
    }
    assert!(waits > 0, "no start failed before the volume was known");
    rig.restart();
    assert_eq!(rig.engine.volume(&by(), volume.id).unwrap().id, volume.id);
    refused(rig.engine.pool(&by(), "other"), ErrorKind::NotFound);
}
