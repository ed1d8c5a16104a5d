//! Disks that fail, vanish and come back: what is served without them, and what is not.

use std::time::{Duration, Instant};

use cistern_engine::{Config, Engine};
use cistern_host::memory::MemoryHost;
use cistern_host::{Change, ImageHealth};
use cistern_model::{
    AlertKind, Bytes, DiskState, ErrorKind, EventKind, Layout, Percent, PoolState, ScrubRequest, VolumeState,
};

use crate::support::{Rig, by, client, path, refused, serial};

/// A pool of this layout with a volume that holds a file.
fn with(layout: Layout, disks: &[&str]) -> (Rig, cistern_model::Volume) {
    let rig = Rig::new();
    rig.make_pool("tank", layout, disks);
    let volume = rig.make_volume("v", Bytes::gib(1));
    rig.machine.write_file(&path(volume.id), "file", Bytes::mib(5)).unwrap();
    (rig, volume)
}

fn states(rig: &Rig) -> (PoolState, VolumeState) {
    let pool = rig.engine.pool(&by(), "tank").unwrap();
    (pool.state, rig.volumes()[0].state)
}

const DEGRADED: (PoolState, VolumeState) = (PoolState::Degraded, VolumeState::Ready);
const INCOMPLETE: (PoolState, VolumeState) = (PoolState::Incomplete, VolumeState::Failed);

#[test]
fn a_pool_comes_up_degraded_if_enough_of_its_images_are_there_and_incomplete_if_not() {
    let five = &["a", "b", "c", "d", "small"][..];
    for (layout, disks, lost, expected) in [
        (Layout::Single, &["a", "b"][..], &["b"][..], INCOMPLETE),
        (Layout::Mirror, &["a", "b"], &["a"], DEGRADED),
        (Layout::Mirror, &["a", "b", "c", "d"], &["c"], DEGRADED),
        // One disk of each copy: LVM can put no copy together, though all data is there.
        (Layout::Mirror, &["a", "b", "c", "d"], &["a", "d"], INCOMPLETE),
        (Layout::StripeMirror, &["a", "b", "c", "d"], &["b"], DEGRADED),
        (Layout::StripeMirror, &["a", "b", "c", "d"], &["b", "c"], DEGRADED),
        (Layout::StripeMirror, &["a", "b", "c", "d"], &["c", "d"], INCOMPLETE),
        (Layout::Parity, &["a", "b", "c"], &["a"], DEGRADED),
        (Layout::Parity, &["a", "b", "c"], &["a", "c"], INCOMPLETE),
        (Layout::DoubleParity, five, &["a", "b"], DEGRADED),
        (Layout::DoubleParity, five, &["a", "b", "c"], INCOMPLETE),
    ] {
        let (mut rig, volume) = with(layout, disks);
        lost.iter().for_each(|disk| rig.machine.detach(&serial(disk)));
        rig.restart();
        assert_eq!(states(&rig), expected, "{layout} without {lost:?}");
        let pool = rig.engine.pool(&by(), "tank").unwrap();
        assert_eq!(pool.missing_disks as usize, lost.len());
        let reason = pool.reason.unwrap();
        assert!(
            lost.iter().all(|disk| reason.contains(&format!("serial-{disk}"))),
            "{reason}"
        );
        assert_eq!(rig.machine.violations(), Vec::<String>::new());
        assert_eq!(rig.machine.exports().len(), 1);
        if expected == DEGRADED {
            assert_eq!(rig.machine.files(&path(volume.id)).unwrap().len(), 1);
        }
        // Its disks come back, and it is as before.
        lost.iter().for_each(|disk| rig.machine.attach(&serial(disk)));
        rig.engine.reconcile().unwrap();
        rig.check();
        assert_eq!(rig.machine.files(&path(volume.id)).unwrap().len(), 1);
    }
}

/// The kernel keeps to the devices that are gone.
#[test]
fn a_pool_that_lost_what_it_needs_while_it_was_served_is_taken_up_anew_when_it_is_back() {
    for (layout, disks, lost, noticed) in [
        (Layout::Single, &["a", "b"][..], &["b"][..], true),
        (Layout::Single, &["a", "b"], &["b"], false),
        (Layout::Single, &["a"], &["a"], false),
        (Layout::Mirror, &["a", "b"], &["a", "b"], true),
        (Layout::StripeMirror, &["a", "b", "c", "d"], &["c", "d"], true),
        (Layout::Parity, &["a", "b", "c"], &["a", "c"], true),
    ] {
        let (rig, volume) = with(layout, disks);
        let snapshot = rig.make_snapshot(volume.id, "s");
        rig.engine
            .serve_snapshot(&by(), snapshot.id, &[client("10.0.0.9")])
            .unwrap();
        lost.iter().for_each(|disk| rig.machine.detach(&serial(disk)));
        let write = |name: &str| rig.machine.write_file(&path(volume.id), name, Bytes::mib(1));
        write("lost").unwrap_err();
        if noticed {
            rig.engine.reconcile().unwrap();
            assert_eq!(states(&rig), INCOMPLETE, "{layout} without {lost:?}");
        }
        let called = rig.machine.calls().len();
        lost.iter().for_each(|disk| rig.machine.attach(&serial(disk)));
        rig.engine.reconcile().unwrap();
        rig.engine.reconcile().unwrap();
        rig.check();
        assert_eq!(states(&rig).1, VolumeState::Ready, "{layout} {noticed}");
        write("more").unwrap();
        assert_eq!(rig.machine.files(&path(volume.id)).unwrap().len(), 2);
        // What clients had not synced is written out, or known to be lost, before the server lets go of it.
        let calls = rig.machine.calls().split_off(called);
        let of = |call: &str| calls.iter().position(|made| made.starts_with(call));
        assert!(of("filesystems.sync") < of("exports.release"), "{calls:?}");
        assert!(of("filesystems.sync").is_some(), "{calls:?}");
        assert_eq!(rig.machine.violations(), Vec::<String>::new());
        // Once.
        let called = rig.machine.calls().len();
        rig.engine.reconcile().unwrap();
        let calls = rig.machine.calls().split_off(called);
        assert!(
            !calls.iter().any(|call| call.starts_with("lvm.deactivate_vg")),
            "{calls:?}"
        );
    }
}

/// A disk that was pulled out knows nothing of what was answered since.
#[test]
fn a_copy_that_a_pool_was_served_without_is_not_served_alone() {
    for (layout, disks, out, other) in [
        (Layout::Mirror, &["a", "b"][..], "b", "a"),
        (Layout::StripeMirror, &["a", "b", "c", "d"], "d", "c"),
        (Layout::Parity, &["a", "b", "c"], "b", "a"),
    ] {
        for at_start in [false, true] {
            let (mut rig, volume) = with(layout, disks);
            rig.machine.detach(&serial(out));
            match at_start {
                true => rig.restart(),
                false => rig.engine.reconcile().unwrap(),
            }
            assert_eq!(states(&rig), DEGRADED, "{layout} {at_start}");
            rig.machine.write_file(&path(volume.id), "new", Bytes::mib(1)).unwrap();
            // Now the one disk is there, and the other is not.
            rig.machine.attach(&serial(out));
            rig.machine.detach(&serial(other));
            rig.restart();
            assert_eq!(states(&rig), INCOMPLETE, "{layout} {at_start}");
            let pool = rig.engine.pool(&by(), "tank").unwrap();
            let reason = pool.reason.unwrap();
            let named = [out, other]
                .iter()
                .all(|disk| reason.contains(&format!("serial-{disk}")));
            assert!(named && reason.contains("older than what was answered"), "{reason}");
            assert_eq!(rig.machine.violations(), Vec::<String>::new());
            // It comes back with what was written, and each can do without the other again.
            rig.machine.attach(&serial(other));
            rig.engine.reconcile().unwrap();
            rig.engine.look_at_raids().unwrap();
            rig.check();
            assert_eq!(rig.machine.files(&path(volume.id)).unwrap().len(), 2);
            rig.machine.detach(&serial(other));
            rig.restart();
            assert_eq!(states(&rig), DEGRADED, "{layout} {at_start}");
        }
    }
}

/// The kernel keeps to what was lost until the pool is taken down, whatever came back, and though another disk is away still.
#[test]
fn a_pool_that_lost_more_than_it_can_is_taken_up_again_as_soon_as_it_has_enough() {
    for (layout, disks) in [
        (Layout::Mirror, &["a", "b"][..]),
        (Layout::StripeMirror, &["a", "b", "c", "d"]),
        (Layout::Parity, &["a", "b", "c"]),
    ] {
        let (rig, volume) = with(layout, disks);
        rig.machine.detach(&serial("b"));
        rig.engine.reconcile().unwrap();
        rig.machine.write_file(&path(volume.id), "new", Bytes::mib(1)).unwrap();
        rig.machine.detach(&serial("a"));
        rig.engine.reconcile().unwrap();
        assert_eq!(states(&rig), INCOMPLETE, "{layout}");
        rig.machine.attach(&serial("a"));
        rig.engine.reconcile().unwrap();
        assert_eq!(states(&rig), DEGRADED, "{layout}");
        let calls = rig.machine.calls();
        let last = |call: &str| calls.iter().rposition(|name| name.starts_with(call)).unwrap();
        assert!(
            last("filesystems.mount") < last("exports.answer_waiting"),
            "{layout}: clients wait"
        );
        rig.machine
            .write_file(&path(volume.id), "more", Bytes::mib(1))
            .unwrap_or_else(|error| panic!("{layout}: {error:?}"));
        rig.machine.attach(&serial("b"));
        rig.engine.reconcile().unwrap();
        rig.engine.look_at_raids().unwrap();
        rig.check();
        assert_eq!(rig.machine.files(&path(volume.id)).unwrap().len(), 3, "{layout}");
        assert_eq!(rig.machine.violations(), Vec::<String>::new());
    }
}

#[test]
fn a_pool_waits_for_its_disks_and_is_served_without_when_the_wait_is_over() {
    let (mut rig, _) = with(Layout::Mirror, &["a", "b"]);
    rig.make_pool("other", Layout::Single, &["c"]);
    rig.machine.detach(&serial("b"));
    rig.machine.restart();
    let config = Config {
        degraded_wait: Duration::from_millis(700),
        ..Config::default()
    };
    rig.engine = Engine::new(rig.machine.host(), config);
    rig.engine.start().unwrap();
    let pool = rig.engine.pool(&by(), "tank").unwrap();
    assert_eq!(pool.state, PoolState::Incomplete);
    assert!(pool.reason.as_ref().unwrap().contains("served without in"), "{pool:?}");
    assert_eq!(rig.engine.pool(&by(), "other").unwrap().state, PoolState::Ready);
    let deadline = Instant::now() + Duration::from_secs(20);
    while states(&rig) != DEGRADED {
        assert!(Instant::now() < deadline, "{:?}", rig.engine.pool(&by(), "tank"));
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_pool_whose_activation_failed_says_why_and_is_tried_again() {
    let (mut rig, _) = with(Layout::Parity, &["a", "b", "c"]);
    rig.machine.detach(&serial("b"));
    rig.power_cycle();
    rig.machine
        .fail_next("lvm.activate_vg", MemoryHost::failure("device-mapper did not answer"));
    rig.engine.start().unwrap();
    let pool = rig.engine.pool(&by(), "tank").unwrap();
    let reason = pool.reason.unwrap();
    assert_eq!(pool.state, PoolState::Incomplete);
    assert!(
        reason.contains("serial-b")
            && reason.contains("device-mapper did not answer")
            && reason.contains("bring the disk"),
        "{reason}"
    );
    rig.engine.tick();
    assert_eq!(states(&rig), DEGRADED);
    assert!(
        !rig.engine
            .pool(&by(), "tank")
            .unwrap()
            .reason
            .unwrap()
            .contains("device-mapper")
    );
}

#[test]
fn a_disk_that_comes_back_is_taken_back_and_brought_up_to_date() {
    let (rig, volume) = with(Layout::Mirror, &["a", "b"]);
    rig.machine.detach(&serial("b"));
    rig.engine.react(Change::Disks);
    until(&rig, |rig| states(rig) == DEGRADED);
    // Its group is changed meanwhile.
    rig.machine.mark_missing(&volume.pool.to_string());
    rig.machine.attach(&serial("b"));
    rig.engine.react(Change::Disks);
    until(&rig, |rig| states(rig) == (PoolState::Ready, VolumeState::Ready));
    rig.check();
    let calls = rig.machine.calls();
    for call in ["raids.restore_pv", "raids.refresh_lv"] {
        assert_eq!(calls.iter().filter(|made| made.starts_with(call)).count(), 1, "{call}");
    }
    let messages: Vec<String> = rig.engine.events(0, 100).into_iter().map(|e| e.message).collect();
    assert!(messages.iter().any(|m| m.contains("serial-b is back")), "{messages:?}");
}

#[test]
fn of_two_disks_that_went_the_one_that_comes_back_is_used_and_not_taken_for_one_that_errs() {
    let (mut rig, _) = with(Layout::StripeMirror, &["a", "b", "c", "small"]);
    let without = |rig: &Rig, missing: u32| {
        rig.engine.react(Change::Disks);
        until(rig, |rig| {
            rig.engine.pool(&by(), "tank").unwrap().missing_disks == missing
        });
    };
    rig.machine.detach(&serial("b"));
    rig.machine.detach(&serial("c"));
    without(&rig, 2);
    assert_eq!(states(&rig), DEGRADED);
    rig.machine.attach(&serial("b"));
    without(&rig, 1);
    rig.engine.tick();
    // Else it would stand on one leg there, for as long as the other disk is away.
    let pool = rig.engine.pool(&by(), "tank").unwrap();
    assert_eq!(pool.reason.unwrap(), "1 of its 4 disks cannot be found: serial-c");
    let raids = rig.machine.host().raids;
    let status = raids.raid_status(&pool.id.to_string(), "data_tdata").unwrap().unwrap();
    let failed = status.images.iter().filter(|image| **image == ImageHealth::Failed);
    assert_eq!(failed.count(), 1, "{status:?}");
    // One that lacks data is not looked at again and again for that.
    rig.machine.detach(&serial("small"));
    without(&rig, 2);
    assert_eq!(states(&rig).0, PoolState::Incomplete);
    rig.engine.look_at_raids().unwrap();
    let before = rig.machine.calls().len();
    rig.engine.look_at_raids().unwrap();
    let calls = rig.machine.calls().split_off(before);
    assert!(!calls.iter().any(|call| call.starts_with("lvm.state")), "{calls:?}");
    rig.machine.attach(&serial("small"));
    without(&rig, 1);
    until(&rig, |rig| states(rig) == DEGRADED);
    // It has all that the pool was served with since: the next start does not take it for an older copy.
    rig.machine.detach(&serial("a"));
    rig.power_cycle();
    rig.engine.start().unwrap();
    assert_eq!(states(&rig), DEGRADED);
    rig.machine.attach(&serial("a"));
    rig.machine.attach(&serial("c"));
    rig.engine.react(Change::Disks);
    until(&rig, |rig| states(rig) == (PoolState::Ready, VolumeState::Ready));
    rig.check();
}

#[test]
fn a_disk_of_striped_mirrors_is_taken_back_when_these_are_even() {
    let (rig, _) = with(Layout::StripeMirror, &["a", "b", "c", "small"]);
    rig.machine.make_even_slowly();
    rig.machine.detach(&serial("b"));
    rig.engine.reconcile().unwrap();
    assert_eq!(states(&rig), DEGRADED);
    rig.machine.attach(&serial("b"));
    rig.engine.reconcile().unwrap();
    let is_asked = |rig: &Rig| {
        rig.machine
            .calls()
            .iter()
            .any(|call| call.starts_with("raids.refresh_lv"))
    };
    for _ in 0..3 {
        rig.engine.tick();
    }
    assert!(!is_asked(&rig) && states(&rig) == DEGRADED);
    rig.machine.fill_to(Percent::FULL);
    rig.engine.tick();
    assert!(is_asked(&rig));
    assert_eq!(states(&rig), (PoolState::Ready, VolumeState::Ready));
    rig.check();
}

#[test]
fn a_disk_that_gives_errors_is_noticed_and_asked_once_to_go_on() {
    let (rig, _) = with(Layout::Parity, &["a", "b", "c"]);
    rig.engine.look_at_raids().unwrap();
    rig.machine.fail_images_on(&serial("b"));
    // It does not take it back at once.
    rig.machine
        .fail_next("raids.refresh_lv", MemoryHost::failure("refresh"));
    rig.engine.look_at_raids().unwrap();
    assert_eq!(states(&rig), DEGRADED);
    let pool = rig.engine.pool(&by(), "tank").unwrap();
    assert!(
        pool.reason.as_ref().unwrap().contains("serial-b gave errors"),
        "{pool:?}"
    );
    for _ in 0..3 {
        rig.engine.look_at_raids().unwrap();
        rig.engine.reconcile().unwrap();
    }
    let refreshed = rig
        .machine
        .calls()
        .iter()
        .filter(|c| c.starts_with("raids.refresh_lv"))
        .count();
    assert_eq!(refreshed, 1);
    let changed = |kind| rig.engine.events(0, 100).iter().any(|e| e.kind == kind);
    assert!(changed(EventKind::PoolChanged));
}

#[test]
fn a_disk_that_gives_errors_again_at_once_is_noticed_again() {
    let (rig, _) = with(Layout::Parity, &["a", "b", "c"]);
    rig.engine.look_at_raids().unwrap();
    rig.machine.fail_images_on(&serial("b"));
    rig.engine.look_at_raids().unwrap();
    // It was asked to go on, and nobody has looked since.
    rig.machine.fail_images_on(&serial("b"));
    rig.engine.look_at_raids().unwrap();
    assert_eq!(states(&rig), DEGRADED);
    let alerts = rig.engine.alerts(false);
    assert!(alerts.iter().any(|alert| alert.kind == AlertKind::PoolDegraded));
}

#[track_caller]
fn until(rig: &Rig, reached: impl Fn(&Rig) -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !reached(rig) {
        assert!(
            Instant::now() < deadline,
            "{:?} {:?}",
            rig.engine.pools(&by()),
            rig.engine.events(0, 100)
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn give_up(rig: &Rig, disk: &str, named: Option<&str>) -> Result<cistern_model::Disk, cistern_engine::EngineError> {
    rig.engine.wipe_disk(&by(), &serial(disk), named)
}

#[test]
fn what_is_left_of_a_pool_that_lost_its_other_disks_for_good_is_given_up_by_name() {
    let (mut rig, _) = with(Layout::Single, &["a", "b", "c"]);
    rig.machine.detach(&serial("c"));
    rig.restart();
    assert_eq!(states(&rig), INCOMPLETE);
    rig.make_pool("other", Layout::Single, &["d"]);
    let before = rig.snapshot();
    let said = refused(give_up(&rig, "a", None), ErrorKind::DiskInUse);
    assert!(
        said.contains("lacks 1 of its disks") && said.contains("--give-up tank"),
        "{said}"
    );
    let said = refused(give_up(&rig, "a", Some("other")), ErrorKind::Invalid);
    assert!(said.contains("belongs to pool tank"), "{said}");
    refused(give_up(&rig, "d", Some("other")), ErrorKind::DiskInUse);
    assert_eq!(rig.snapshot(), before);
    assert_eq!(give_up(&rig, "a", Some("tank")).unwrap().state, DiskState::Available);
    assert_eq!(rig.engine.pool(&by(), "tank").unwrap().missing_disks, 2);
    assert_eq!(give_up(&rig, "b", Some("tank")).unwrap().state, DiskState::Available);
    refused(rig.engine.pool(&by(), "tank"), ErrorKind::NotFound);
    assert!(rig.engine.alerts(false).is_empty(), "{:?}", rig.engine.alerts(false));
    // What comes back after all is such a pool by itself.
    rig.machine.attach(&serial("c"));
    rig.engine.reconcile().unwrap();
    assert_eq!(rig.engine.pool(&by(), "tank").unwrap().missing_disks, 2);
    give_up(&rig, "c", Some("tank")).unwrap();
    rig.make_pool("tank", Layout::Single, &["a", "b", "c"]);
    rig.check();
}

#[test]
fn a_pool_that_could_be_served_is_given_up_by_its_id_and_not_by_its_name() {
    let (rig, volume) = with(Layout::Mirror, &["a", "b"]);
    refused(give_up(&rig, "a", Some("tank")), ErrorKind::DiskInUse);
    rig.machine.detach(&serial("b"));
    rig.engine.reconcile().unwrap();
    assert_eq!(states(&rig), DEGRADED);
    let id = rig.engine.pool(&by(), "tank").unwrap().id.to_string();
    let said = refused(give_up(&rig, "a", Some("tank")), ErrorKind::Conflict);
    assert!(said.contains("1 volume(s)") && said.contains(&id), "{said}");
    assert_eq!(rig.machine.files(&path(volume.id)).unwrap().len(), 1, "it is served");
    // Somebody works in it on the appliance itself: it goes on being served.
    rig.machine.pin(&path(volume.id), true);
    refused(give_up(&rig, "a", Some(&id)), ErrorKind::Conflict);
    assert_eq!((states(&rig), rig.machine.exports().len()), (DEGRADED, 1));
    rig.machine.pin(&path(volume.id), false);
    assert_eq!(give_up(&rig, "a", Some(&id)).unwrap().state, DiskState::Available);
    assert_eq!(rig.machine.exports().len(), 0);
    refused(rig.engine.pool(&by(), "tank"), ErrorKind::NotFound);
    assert_eq!(rig.machine.violations(), Vec::<String>::new());
}

#[test]
fn a_disk_that_comes_back_while_a_job_is_at_its_pool_is_taken_back_when_that_is_over() {
    for group_changed in [true, false] {
        let (rig, volume) = with(Layout::Mirror, &["a", "b"]);
        rig.machine.block("raids.scrub");
        let job = rig.engine.scrub_pool(&by(), "tank", &ScrubRequest::default()).unwrap();
        assert!(rig.machine.wait_until_blocked("raids.scrub", Duration::from_secs(20)));
        rig.machine.detach(&serial("b"));
        rig.engine.reconcile().unwrap();
        if group_changed {
            rig.machine.mark_missing(&volume.pool.to_string());
        }
        rig.machine.attach(&serial("b"));
        rig.engine.reconcile().unwrap();
        rig.engine.tick();
        assert_eq!(states(&rig), DEGRADED, "it is left to the job");
        rig.machine.unblock("raids.scrub");
        rig.wait(&job);
        rig.engine.tick();
        assert_eq!(states(&rig), (PoolState::Ready, VolumeState::Ready), "{group_changed}");
        rig.check();
        // Nothing is asked again of what is whole.
        let calls = rig.machine.calls().len();
        rig.engine.tick();
        assert!(
            !rig.machine.calls()[calls..]
                .iter()
                .any(|call| call.starts_with("lvm.state"))
        );
    }
}
