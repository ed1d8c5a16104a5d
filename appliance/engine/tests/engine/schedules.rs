//! Snapshots that are made and thinned out by themselves.

use cistern_host::memory::MemoryHost;
use cistern_model::{Bytes, EventKind, Period, Severity, VolumeChange, VolumeId, VolumeRequest};
use jiff::SignedDuration;

use crate::support::{Rig, by, client, path, volume_request};

fn keep(rig: &Rig, volume: VolumeId, schedule: &str) {
    let change = VolumeChange {
        schedule: Some(schedule.parse().unwrap()),
        ..VolumeChange::default()
    };
    rig.engine.change_volume(&by(), volume, &change).unwrap();
}

fn count(rig: &Rig, period: Period) -> usize {
    rig.snapshots().iter().filter(|s| s.scheduled.contains(&period)).count()
}

const MINUTES: SignedDuration = SignedDuration::from_mins(20);

#[test]
fn a_volume_is_made_with_its_schedule_and_keeps_it_when_it_is_asked_for_again() {
    let mut rig = Rig::with_pool();
    let with = |schedule: &str| VolumeRequest {
        schedule: Some(schedule.parse().unwrap()),
        ..volume_request("v", Bytes::gib(1))
    };
    let made = rig.engine.create_volume(&by(), &with("hourly=2")).unwrap().object;
    assert_eq!(made.schedule.to_string(), "hourly=2");
    rig.engine.tick();
    assert_eq!(count(&rig, Period::Hourly), 1);
    for again in [with("daily=1"), volume_request("v", Bytes::gib(1))] {
        let there = rig.engine.create_volume(&by(), &again).unwrap();
        assert_eq!((there.object.schedule, there.created), (made.schedule, false));
    }
    rig.restart();
    assert_eq!(rig.engine.volume(&by(), made.id).unwrap().schedule, made.schedule);
    rig.check();
}

#[test]
fn one_is_made_in_each_period_and_the_newest_are_kept() {
    let mut rig = Rig::with_pool();
    let volume = rig.make_volume("v", Bytes::gib(1));
    let by_hand = rig.make_snapshot(volume.id, "by hand");
    rig.engine.tick();
    assert_eq!(rig.snapshots().len(), 1);
    keep(&rig, volume.id, "hourly=3,daily=2,weekly=1");
    rig.engine.tick();
    rig.engine.tick();
    // One for all three periods.
    assert_eq!(rig.snapshots().len(), 2);
    for step in 1..=3 * 24 * 9 {
        rig.machine.pass(MINUTES);
        if step % 7 == 0 {
            rig.restart();
        }
        rig.engine.tick();
    }
    let all = rig.snapshots();
    assert!(all.iter().any(|s| s.id == by_hand.id));
    let mut hours: Vec<i64> = all
        .iter()
        .filter(|s| s.scheduled.contains(&Period::Hourly))
        .map(|s| Period::Hourly.number(s.created))
        .collect();
    hours.sort();
    // Of those beyond the three newest some are kept for their days and weeks.
    let newest = *hours.last().unwrap();
    assert!(
        [newest, newest - 1, newest - 2].iter().all(|hour| hours.contains(hour)),
        "{hours:?}"
    );
    let mut days: Vec<i64> = all
        .iter()
        .filter(|s| s.scheduled.contains(&Period::Daily))
        .map(|s| Period::Daily.number(s.created))
        .collect();
    days.sort();
    days.dedup();
    assert!(days.len() >= 2 && all.len() <= 1 + 3 + 2 + 1, "{days:?}, {}", all.len());
    rig.check();
}

#[test]
fn a_pass_that_comes_late_makes_one_and_no_more() {
    let rig = Rig::with_pool();
    let volume = rig.make_volume("v", Bytes::gib(1));
    keep(&rig, volume.id, "hourly=24");
    rig.engine.tick();
    rig.machine.pass(SignedDuration::from_hours(10));
    rig.engine.tick();
    rig.engine.tick();
    assert_eq!(count(&rig, Period::Hourly), 2);
}

#[test]
fn what_is_read_by_somebody_is_not_thinned_out() {
    let rig = Rig::with_pool();
    let volume = rig.make_volume("v", Bytes::gib(1));
    keep(&rig, volume.id, "hourly=1");
    rig.engine.tick();
    let first = rig.snapshots()[0].id;
    rig.engine.serve_snapshot(&by(), first, &[client("10.0.0.9")]).unwrap();
    for _ in 0..3 {
        rig.machine.pass(SignedDuration::from_hours(1));
        rig.engine.tick();
    }
    assert_eq!(rig.snapshots().len(), 2);
    rig.engine.serve_snapshot(&by(), first, &[]).unwrap();
    rig.engine.tick();
    assert_eq!(rig.snapshots().len(), 1);
    rig.check();
}

#[test]
fn scheduled_snapshots_go_with_their_volume_and_those_by_hand_stay() {
    let rig = Rig::with_pool();
    let volume = rig.make_volume("v", Bytes::gib(1));
    keep(&rig, volume.id, "hourly=2,daily=2");
    rig.engine.tick();
    let by_hand = rig.make_snapshot(volume.id, "by hand").id;
    rig.engine.delete_volume(&by(), volume.id).unwrap();
    assert_eq!(rig.snapshots().iter().map(|s| s.id).collect::<Vec<_>>(), [by_hand]);
    rig.check();
}

#[test]
fn without_a_schedule_none_is_made_and_those_that_are_there_stay() {
    let rig = Rig::with_pool();
    let volume = rig.make_volume("v", Bytes::gib(1));
    keep(&rig, volume.id, "hourly=2");
    rig.engine.tick();
    keep(&rig, volume.id, "none");
    rig.machine.pass(SignedDuration::from_hours(30));
    rig.engine.tick();
    assert_eq!(rig.snapshots().len(), 1);
}

#[test]
fn a_failure_is_told_once_and_the_next_pass_makes_up_for_it() {
    let rig = Rig::with_pool();
    let volume = rig.make_volume("v", Bytes::gib(1));
    keep(&rig, volume.id, "hourly=2");
    for _ in 0..3 {
        let call = "lvm.create_thin_snapshot";
        rig.machine.fail_next(call, MemoryHost::failure(call));
        rig.engine.tick();
    }
    let told = |e: &cistern_model::Event| e.kind == EventKind::VolumeChanged && e.severity == Severity::Warning;
    assert_eq!(rig.engine.events(0, 1000).iter().filter(|e| told(e)).count(), 1);
    rig.engine.tick();
    assert_eq!(rig.snapshots().len(), 1);
    rig.check();
}

#[test]
fn what_clients_deleted_is_given_back_within_a_day() {
    let rig = Rig::with_pool();
    let volume = rig.make_volume("v", Bytes::gib(1));
    rig.engine.tick();
    rig.write(volume.id, "file");
    let written = || rig.engine.pool(&by(), "tank").unwrap().used;
    let full = written();
    rig.machine.remove_file(&path(volume.id), "file");
    assert_eq!(written(), full);
    for _ in 0..25 {
        rig.machine.pass(SignedDuration::from_hours(1));
        rig.engine.tick();
    }
    assert!(written() < full);
    let trims = rig
        .machine
        .calls()
        .iter()
        .filter(|c| c.starts_with("filesystems.trim"))
        .count();
    assert!((1..=2).contains(&trims), "{trims}");
}

#[test]
fn the_oldest_scheduled_snapshot_is_shed_first_and_none_made_by_hand() {
    let rig = Rig::with_pool();
    let volume = rig.make_volume("v", Bytes::gib(1));
    rig.make_snapshot(volume.id, "by hand");
    keep(&rig, volume.id, "hourly=5");
    for _ in 0..2 {
        rig.engine.tick();
        rig.machine.pass(SignedDuration::from_hours(1));
    }
    let pool = volume.pool;
    let first = rig.engine.shed_scheduled_snapshot(pool, "a test").unwrap().unwrap();
    let second = rig.engine.shed_scheduled_snapshot(pool, "a test").unwrap().unwrap();
    assert!(first.created < second.created);
    assert_eq!(rig.engine.shed_scheduled_snapshot(pool, "a test").unwrap(), None);
    assert_eq!(rig.snapshots().len(), 1);
    rig.check();
}

#[test]
fn a_clock_that_was_ahead_for_a_while_does_not_keep_a_schedule_from_being_kept() {
    let rig = Rig::with_pool();
    let volume = rig.make_volume("v", Bytes::gib(1));
    keep(&rig, volume.id, "hourly=3,daily=0,weekly=0");
    let ahead = SignedDuration::from_hours(24 * 30);
    rig.machine.pass(ahead);
    for _ in 0..4 {
        rig.machine.pass(SignedDuration::from_hours(1));
        rig.engine.tick();
    }
    assert_eq!(count(&rig, Period::Hourly), 3);
    let future = rig.snapshots().iter().map(|s| s.created).min().unwrap();
    rig.machine.pass(-ahead);
    for _ in 0..3 {
        rig.machine.pass(SignedDuration::from_hours(1));
        rig.engine.tick();
    }
    let all = rig.snapshots();
    assert!(all.len() == 3 && all.iter().all(|s| s.created < future), "{all:?}");
    rig.check();
}

#[test]
fn what_is_kept_no_longer_goes_also_where_no_other_can_be_made() {
    let rig = Rig::with_pool();
    let volume = rig.make_volume("v", Bytes::gib(1));
    keep(&rig, volume.id, "hourly=9");
    for _ in 0..4 {
        rig.engine.tick();
        rig.machine.pass(SignedDuration::from_hours(1));
    }
    assert_eq!(count(&rig, Period::Hourly), 4);
    keep(&rig, volume.id, "hourly=2");
    rig.machine
        .fail_next("lvm.create_thin_snapshot", MemoryHost::failure("snapshot"));
    rig.engine.tick();
    assert_eq!(count(&rig, Period::Hourly), 2);
    let told = rig.engine.events(0, 10_000);
    assert!(
        told.iter().any(|event| event.message.contains("was not kept")),
        "{told:?}"
    );
}
