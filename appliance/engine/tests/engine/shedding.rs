//! What is given up when a pool runs short: the trash first, then what schedules made, each oldest first and told; never what
//! somebody made by hand.

use cistern_host::memory::MemoryHost;
use cistern_model::{
    AlertKind, Bytes, ErrorKind, Event, EventKind, Overcommit, PoolChange, Reserve, Severity, Snapshot,
    SnapshotRequest, Volume, VolumeChange, VolumeSource, VolumeState,
};
use jiff::SignedDuration;

use crate::clones::of;
use crate::rollback::to;
use crate::support::{Rig, by, path, refused};
use crate::trash::with_trash;

fn set(rig: &Rig, overcommit: u32, reserve: u32) {
    let change = PoolChange {
        overcommit_percent: Some(Overcommit::new(overcommit).unwrap()),
        reserve_percent: Some(Reserve::new(reserve).unwrap()),
        ..PoolChange::default()
    };
    rig.engine.change_pool(&by(), "tank", &change).unwrap();
}

fn keep(rig: &Rig, volume: &Volume, schedule: &str) {
    let change = VolumeChange {
        schedule: Some(schedule.parse().unwrap()),
        ..VolumeChange::default()
    };
    rig.engine.change_volume(&by(), volume.id, &change).unwrap();
}

/// A volume takes all that can still be promised.
fn promise_the_rest(rig: &Rig, name: &str) {
    let pool = rig.engine.pool(&by(), "tank").unwrap();
    rig.make_volume(name, pool.available.round_down(Bytes::mib(4)));
}

/// The volume holds this file and no other, and what it held before is held by its snapshots alone.
fn holds_only(rig: &Rig, volume: &Volume, file: &str) {
    for other in rig.files(volume.id) {
        rig.machine.remove_file(&path(volume.id), &other);
    }
    rig.machine.host().filesystems.trim(&path(volume.id)).unwrap();
    rig.machine.write_file(&path(volume.id), file, Bytes::mib(200)).unwrap();
}

fn trashed(rig: &Rig) -> Vec<String> {
    let trash = rig.engine.trash(&by()).into_iter();
    trash.map(|volume| volume.name.to_string()).collect()
}

fn scheduled(rig: &Rig) -> Vec<Snapshot> {
    let mut all = rig.snapshots();
    all.retain(|snapshot| !snapshot.scheduled.is_empty());
    all.sort_by_key(|snapshot| snapshot.created);
    all
}

/// What was told of things that were given up, from the first to the last.
fn told(rig: &Rig) -> Vec<Event> {
    let mut all = rig.engine.events(0, 10_000);
    all.retain(|event| event.message.contains("early to make room"));
    all
}

fn reserve_alerts(rig: &Rig) -> usize {
    let alerts = rig.engine.alerts(false).into_iter();
    alerts.filter(|alert| alert.kind == AlertKind::PoolReserve).count()
}

#[test]
fn what_takes_more_than_its_share_is_given_up_in_order_and_each_time_told_and_never_what_was_made_by_hand() {
    let rig = with_trash();
    set(&rig, 100, 10);
    let v = rig.make_volume("v", Bytes::gib(2));
    keep(&rig, &v, "hourly=9");
    for file in ["first", "second"] {
        holds_only(&rig, &v, file);
        rig.engine.tick();
        rig.machine.pass(SignedDuration::from_hours(1));
    }
    keep(&rig, &v, "none");
    holds_only(&rig, &v, "third");
    let by_hand = rig.make_snapshot(v.id, "by-hand");
    holds_only(&rig, &v, "fourth");
    // Of two in the trash the one that was made later was deleted first.
    let (t1, t2) = (
        rig.make_volume("t1", Bytes::mib(400)),
        rig.make_volume("t2", Bytes::mib(400)),
    );
    for volume in [&t2, &t1] {
        rig.machine
            .write_file(&path(volume.id), "file", Bytes::mib(250))
            .unwrap();
        rig.engine.delete_volume(&by(), volume.id).unwrap();
    }
    let made = scheduled(&rig);
    assert_eq!(made.len(), 2);
    rig.engine.tick();
    assert_eq!(
        (trashed(&rig).len(), scheduled(&rig).len()),
        (2, 2),
        "nothing is short yet"
    );
    assert_eq!(told(&rig), []);

    // All is promised but the reserve, some 990 MiB; 636 MiB of trash and 600 MiB of snapshots are more.
    promise_the_rest(&rig, "rest");
    rig.engine.tick();
    assert_eq!((trashed(&rig), scheduled(&rig).len()), (vec!["t1".to_owned()], 2));
    // Half of it: the other one, and the older snapshot.
    set(&rig, 100, 5);
    promise_the_rest(&rig, "rest-2");
    rig.engine.tick();
    assert_eq!(trashed(&rig), Vec::<String>::new());
    assert_eq!(scheduled(&rig), made[1..]);
    assert_eq!(reserve_alerts(&rig), 0);
    // Nothing: all that may be given up, and what was made by hand is told of.
    set(&rig, 100, 0);
    promise_the_rest(&rig, "rest-3");
    rig.engine.tick();
    assert_eq!(scheduled(&rig), []);
    let left: Vec<_> = rig.snapshots().into_iter().map(|snapshot| snapshot.id).collect();
    assert_eq!(left, [by_hand.id]);
    assert_eq!(reserve_alerts(&rig), 1);

    let told = told(&rig);
    let kinds: Vec<EventKind> = told.iter().map(|event| event.kind).collect();
    use EventKind::{SnapshotDeleted, VolumePurged};
    assert_eq!(kinds, [VolumePurged, VolumePurged, SnapshotDeleted, SnapshotDeleted]);
    let objects: Vec<&str> = told.iter().filter_map(|event| event.object.as_deref()).collect();
    let ids = [
        t2.id.to_string(),
        t1.id.to_string(),
        made[0].id.to_string(),
        made[1].id.to_string(),
    ];
    assert_eq!(objects, ids.iter().map(String::as_str).collect::<Vec<_>>());
    let said = |event: &Event| event.severity == Severity::Warning && event.message.contains("may hold");
    assert!(told.iter().all(said), "{told:?}");

    // No more are made, by hand or by a schedule, until there is room.
    let request = SnapshotRequest {
        name: "more".parse().unwrap(),
    };
    let why = refused(rig.engine.create_snapshot(&by(), v.id, &request), ErrorKind::NoSpace);
    assert!(
        why.contains("snapshots and trash hold") && why.contains("delete some"),
        "{why}"
    );
    keep(&rig, &v, "hourly=1");
    rig.machine.pass(SignedDuration::from_hours(1));
    rig.engine.tick();
    assert_eq!(scheduled(&rig), []);
    keep(&rig, &v, "none");
    rig.engine.tick();
    assert_eq!(reserve_alerts(&rig), 1, "it is raised once, and stays");
    rig.engine.delete_snapshot(&by(), by_hand.id).unwrap();
    rig.engine.tick();
    assert_eq!(reserve_alerts(&rig), 0, "and ends by itself");
    set(&rig, 100, 5);
    rig.engine.create_snapshot(&by(), v.id, &request).unwrap();
    assert_eq!(rig.files(v.id), ["fourth"]);
    rig.check();
}

#[test]
fn an_overcommitted_pool_that_is_nearly_full_gives_up_its_trash_before_its_volumes_suffer() {
    let rig = with_trash();
    set(&rig, 300, 50);
    let v = rig.make_volume("v", Bytes::gib(12));
    let gone = rig.make_volume("gone", Bytes::mib(400));
    rig.machine.write_file(&path(gone.id), "file", Bytes::mib(250)).unwrap();
    rig.engine.delete_volume(&by(), gone.id).unwrap();
    let size = rig.engine.pool(&by(), "tank").unwrap().size;
    let of_size = |percent: u64| Bytes::new(size.get() / 100 * percent);
    // 68 MiB each is what an empty filesystem takes.
    let beside = Bytes::mib(68 + 68 + 250);
    let fill = |percent: u64| {
        rig.machine.write_file(&path(v.id), "file", Bytes::ZERO).unwrap();
        let most = of_size(percent).saturating_sub(beside);
        rig.machine.write_file(&path(v.id), "file", most).unwrap();
        rig.engine.tick();
    };
    fill(94);
    assert_eq!(trashed(&rig), ["gone"]);
    fill(96);
    assert_eq!(trashed(&rig), Vec::<String>::new());
    let told = told(&rig);
    assert!(
        told.len() == 1 && told[0].message.contains("its data is 95") && told[0].message.contains("gone"),
        "{told:?}"
    );
    // While it is so full there is no room for a snapshot, and there is again once it is not.
    fill(99);
    let request = SnapshotRequest {
        name: "s".parse().unwrap(),
    };
    let why = refused(rig.engine.create_snapshot(&by(), v.id, &request), ErrorKind::NoSpace);
    assert!(why.contains("its data is"), "{why}");
    fill(60);
    rig.engine.create_snapshot(&by(), v.id, &request).unwrap();
    rig.check();
}

#[test]
fn what_copies_share_hides_nothing_that_is_to_be_given_up() {
    let rig = with_trash();
    set(&rig, 100, 0);
    let golden = rig.make_volume("golden", Bytes::gib(2));
    rig.machine
        .write_file(&path(golden.id), "file", Bytes::mib(1700))
        .unwrap();
    let request = of(VolumeSource::Volume(golden.id), "copy", Bytes::gib(2));
    let copy = rig.engine.create_volume(&by(), &request).unwrap().object;
    let gone = rig.make_volume("gone", Bytes::gib(2));
    rig.machine
        .write_file(&path(gone.id), "file", Bytes::mib(1650))
        .unwrap();
    rig.engine.delete_volume(&by(), gone.id).unwrap();
    promise_the_rest(&rig, "rest");
    let rest = rig.volumes().into_iter().find(|v| v.name.as_str() == "rest").unwrap();
    // What the two share is counted twice, and hides what lies in the trash.
    let pool = rig.engine.pool(&by(), "tank").unwrap();
    let most = Bytes::new(pool.size.get() / 100 * 92).saturating_sub(Bytes::mib(1768 + 1718 + 68));
    rig.machine.write_file(&path(rest.id), "file", most).unwrap();
    rig.engine.tick();
    assert_eq!(trashed(&rig), ["gone"], "it keeps nobody from anything yet");
    for (volume, own) in [(&golden, "one"), (&copy, "other")] {
        rig.machine.write_file(&path(volume.id), own, Bytes::mib(260)).unwrap();
    }
    rig.engine.tick();
    assert_eq!(trashed(&rig), Vec::<String>::new());
    rig.check();
}

/// A copy of an empty volume that may take all that can still be promised. What an empty filesystem takes they share.
fn large_copy(rig: &Rig) -> Volume {
    let golden = rig.make_volume("golden", Bytes::mib(300));
    let available = rig.engine.pool(&by(), "tank").unwrap().available;
    let source = VolumeSource::Volume(golden.id);
    let request = of(source, "copy", available.round_down(Bytes::mib(4)));
    rig.engine.create_volume(&by(), &request).unwrap().object
}

/// So many thousandths of the pool.
fn part(rig: &Rig, thousandths: u64) -> Bytes {
    let size = rig.engine.pool(&by(), "tank").unwrap().size;
    Bytes::new(size.get() / 1000 * thousandths)
}

/// How often it was counted what volumes share.
fn counts(rig: &Rig) -> usize {
    let calls = rig.machine.calls();
    calls.iter().filter(|call| call.starts_with("lvm.thin_sizes")).count()
}

#[test]
fn nothing_is_given_up_for_what_copies_share_when_counting_shows_that_it_fits() {
    let rig = with_trash();
    set(&rig, 100, 10);
    let write = |volume: &Volume, name: &str, size: Bytes| {
        rig.machine.write_file(&path(volume.id), name, size).unwrap();
    };
    let gone = rig.make_volume("gone", Bytes::gib(2));
    write(&gone, "file", part(&rig, 95));
    rig.engine.delete_volume(&by(), gone.id).unwrap();
    let copy = large_copy(&rig);
    write(&copy, "file", part(&rig, 840).saturating_sub(Bytes::mib(68)));
    rig.engine.tick();
    assert_eq!((trashed(&rig).len(), counts(&rig)), (1, 0), "it is not so full yet");
    write(&copy, "more", part(&rig, 25));
    rig.engine.tick();
    assert_eq!((trashed(&rig).len(), counts(&rig)), (1, 1), "less than is reserved");
    // What cannot be counted stays in doubt.
    rig.machine.fail_next("lvm.thin_sizes", MemoryHost::failure("count"));
    rig.engine.tick();
    assert_eq!((trashed(&rig).len(), counts(&rig)), (0, 2));
    rig.check();
}

#[test]
fn what_a_copy_shares_with_its_own_snapshots_is_no_reason_to_give_them_up() {
    let rig = with_trash();
    set(&rig, 100, 10);
    let copy = large_copy(&rig);
    let write = |name: &str, size: Bytes| rig.machine.write_file(&path(copy.id), name, size).unwrap();
    write("kept", part(&rig, 768));
    write("old", part(&rig, 92));
    keep(&rig, &copy, "hourly=9");
    rig.engine.tick();
    keep(&rig, &copy, "none");
    let made = scheduled(&rig);
    assert_eq!(made.len(), 1);
    rig.machine.remove_file(&path(copy.id), "old");
    rig.machine.host().filesystems.trim(&path(copy.id)).unwrap();
    write("new", part(&rig, 92));
    rig.engine.tick();
    assert_eq!((scheduled(&rig), counts(&rig)), (made, 1));
    rig.check();
}

#[test]
fn a_volume_that_the_kernel_has_under_another_name_is_no_room_to_be_made() {
    let mut rig = with_trash();
    set(&rig, 100, 10);
    let volume = rig.make_volume("v", Bytes::gib(4));
    rig.machine.write_file(&path(volume.id), "file", Bytes::gib(3)).unwrap();
    let snapshot = rig.make_snapshot(volume.id, "s");
    let gone = rig.make_volume("gone", Bytes::mib(400));
    rig.machine.write_file(&path(gone.id), "file", Bytes::mib(250)).unwrap();
    rig.engine.delete_volume(&by(), gone.id).unwrap();
    promise_the_rest(&rig, "rest");
    rig.machine.fail_next("lvm.rename_lv", MemoryHost::failure("rename"));
    rig.engine
        .roll_back(&by(), volume.id, &to(snapshot.id, true))
        .unwrap_err();
    let state = rig.engine.volume(&by(), volume.id).unwrap().state;
    assert_eq!(state, VolumeState::RollingBack);
    rig.engine.tick();
    assert_eq!(trashed(&rig), ["gone"]);
    rig.restart();
    rig.check();
}
