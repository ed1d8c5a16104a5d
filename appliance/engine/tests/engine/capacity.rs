//! The space of pools: what is promised, what is refused, what grows and what is alerted.

use std::collections::BTreeSet;
use std::time::Duration;

use cistern_engine::{Config, Engine};
use cistern_host::memory::MemoryHost;
use cistern_model::{
    AlertKind, Bytes, ErrorKind, Layout, Overcommit, Percent, Pool, PoolChange, Reserve, Severity, VolumeChange,
    VolumeState,
};

use crate::support::{Rig, by, path, refused, serial, volume_request};

fn set(rig: &Rig, overcommit: Option<u32>, reserve: Option<u32>) -> Pool {
    let change = PoolChange {
        overcommit_percent: overcommit.map(|percent| Overcommit::new(percent).unwrap()),
        reserve_percent: reserve.map(|percent| Reserve::new(percent).unwrap()),
        trash_seconds: None,
        scrub: None,
    };
    rig.engine.change_pool(&by(), "tank", &change).unwrap()
}

fn space_alert(rig: &Rig) -> Option<(Severity, String)> {
    rig.engine.tick();
    let alerts = rig.engine.alerts(false).into_iter();
    let mut found = alerts.filter(|alert| alert.kind == AlertKind::PoolSpace);
    found.next().map(|alert| (alert.severity, alert.message))
}

#[test]
fn what_may_be_promised_is_the_pool_without_its_reserve_times_its_overcommit() {
    let mut rig = Rig::with_pool();
    let pool = rig.engine.pool(&by(), "tank").unwrap();
    assert_eq!(pool.overcommit_percent, 100);
    assert!(
        pool.reserve.get() * 100 / pool.size.get() == 9,
        "a tenth, in whole extents"
    );
    let pool = set(&rig, Some(200), Some(0));
    assert_eq!(
        (pool.available, pool.reserve),
        (pool.size.saturating_mul(2), Bytes::ZERO)
    );
    let pool = set(&rig, None, Some(50));
    let apart = pool.available.get().abs_diff(pool.size.get());
    assert!(apart <= Bytes::mib(16).get(), "twice the half, in whole extents");
    let events = rig.engine.events(0, 1000).len();
    assert_eq!(set(&rig, None, Some(50)), pool);
    assert_eq!(
        rig.engine.events(0, 1000).len(),
        events,
        "the same again changes nothing"
    );
    rig.restart();
    assert_eq!(rig.engine.pool(&by(), "tank").unwrap(), pool);
    let (small, beyond) = (Bytes::gib(9), pool.available);
    rig.make_volume("v", small);
    let text = refused(
        rig.engine.create_volume(&by(), &volume_request("w", beyond)),
        ErrorKind::NoSpace,
    );
    assert!(text.contains("promised"), "{text}");
    // What is promised stays promised.
    let pool = set(&rig, Some(10), None);
    assert_eq!((pool.promised, pool.available), (small, Bytes::ZERO));
}

#[test]
fn a_pool_that_fills_is_alerted_at_each_threshold_and_takes_no_more_volumes_before_it_is_full() {
    let rig = Rig::with_pool();
    let size = set(&rig, Some(300), Some(0)).size;
    let volume = rig.make_volume("v", Bytes::gib(20));
    assert_eq!(space_alert(&rig), None);
    let fill = |percent: u64| {
        let rest = Bytes::new(size.get() / 100 * percent).saturating_sub(Bytes::mib(2));
        rig.machine.write_file(&path(volume.id), "file", Bytes::ZERO).unwrap();
        rig.machine.write_file(&path(volume.id), "file", rest).unwrap();
        space_alert(&rig)
    };
    for (percent, expected) in [
        (79, None),
        (81, Some((Severity::Warning, "80"))),
        (79, Some((Severity::Warning, "80"))),
        (91, Some((Severity::Warning, "90"))),
        (96, Some((Severity::Error, "95"))),
        (77, None),
    ] {
        let alert = fill(percent);
        let found = alert.as_ref().map(|(severity, _)| *severity);
        assert_eq!(found, expected.map(|(severity, _)| severity), "{percent}: {alert:?}");
        if let (Some((_, message)), Some((_, threshold))) = (alert, expected) {
            assert!(message.contains(threshold), "{percent}: {message}");
        }
    }
    fill(91);
    let request = volume_request("w", Bytes::gib(1));
    let text = refused(rig.engine.create_volume(&by(), &request), ErrorKind::NoSpace);
    assert!(text.contains("data"), "{text}");
    // One that is full is there again as soon as there is room.
    let rest = size.saturating_sub(Bytes::mib(68));
    rig.machine.write_file(&path(volume.id), "file", Bytes::ZERO).unwrap();
    rig.machine.write_file(&path(volume.id), "file", rest).unwrap();
    assert!(rig.machine.write_file(&path(volume.id), "more", Bytes::mib(1)).is_err());
    let (severity, message) = space_alert(&rig).unwrap();
    assert!(severity == Severity::Error && message.contains("writes"), "{message}");
    assert_eq!(fill(50), None);
    rig.make_volume("w", Bytes::gib(1));
}

#[test]
fn a_pool_that_runs_short_gets_back_first_what_clients_deleted() {
    let rig = Rig::with_pool();
    let size = set(&rig, Some(300), Some(0)).size;
    let volume = rig.make_volume("v", Bytes::gib(20));
    let fill = |name: &str| {
        let most = Bytes::new(size.get() / 100 * 92).saturating_sub(Bytes::mib(2));
        rig.machine.write_file(&path(volume.id), name, most).unwrap();
        rig.machine.remove_file(&path(volume.id), name);
    };
    fill("a");
    rig.engine.tick();
    assert_eq!(
        space_alert(&rig),
        None,
        "what was deleted came back before anybody was alarmed"
    );
    fill("b");
    assert!(
        space_alert(&rig).is_some(),
        "every volume is asked at most once an hour"
    );
    rig.machine.pass(jiff::SignedDuration::from_hours(2));
    assert_eq!(space_alert(&rig), None);
}

#[test]
fn metadata_grows_in_time_and_when_it_cannot_the_pool_takes_no_more_volumes() {
    let rig = Rig::with_pool();
    let calls = |rig: &Rig| {
        let calls = rig.machine.calls();
        calls
            .iter()
            .filter(|call| call.starts_with("thin.extend_metadata"))
            .count()
    };
    rig.engine.tick();
    assert_eq!(calls(&rig), 0);
    let mut grown = 0;
    for _ in 0..20 {
        rig.machine.set_metadata_percent(Percent::from(70.0));
        rig.engine.tick();
        let now = calls(&rig);
        if now == grown {
            break;
        }
        grown = now;
    }
    assert!((1..5).contains(&grown), "it grew {grown} times");
    rig.machine.set_metadata_percent(Percent::from(85.0));
    rig.engine.tick();
    let alerts = rig.engine.alerts(false);
    assert_eq!(
        alerts.iter().map(|a| a.kind).collect::<Vec<_>>(),
        [AlertKind::PoolMetadataSpace]
    );
    let request = volume_request("w", Bytes::gib(1));
    let text = refused(rig.engine.create_volume(&by(), &request), ErrorKind::NoSpace);
    assert!(text.contains("metadata"), "{text}");
    rig.machine.set_metadata_percent(Percent::from(10.0));
    rig.engine.tick();
    assert!(rig.engine.alerts(false).is_empty());
    rig.make_volume("w", Bytes::gib(1));
    rig.check();
}

#[test]
fn a_pool_that_the_kernel_made_read_only_has_an_alert_of_its_own_until_it_takes_writes_again() {
    let mut rig = Rig::with_pool();
    rig.engine.tick();
    let kinds = |rig: &Rig| {
        let alerts = rig.engine.alerts(false).into_iter();
        alerts.map(|alert| alert.kind).collect::<BTreeSet<AlertKind>>()
    };
    assert_eq!(kinds(&rig), BTreeSet::new());
    rig.machine.let_metadata_be_full();
    for _ in 0..4 {
        rig.engine.tick();
    }
    let expected = BTreeSet::from([AlertKind::PoolMetadataSpace, AlertKind::PoolReadOnly]);
    assert_eq!(kinds(&rig), expected);
    // What it was given it does not take up, and so is given no more.
    let calls = rig.machine.calls();
    let grown = calls.iter().filter(|call| call.starts_with("thin.extend_metadata"));
    assert_eq!(grown.count(), 1);
    let request = volume_request("w", Bytes::gib(1));
    let text = refused(rig.engine.create_volume(&by(), &request), ErrorKind::NoSpace);
    assert!(text.contains("pool-read-only"), "{text}");
    rig.restart();
    rig.engine.tick();
    assert!(!kinds(&rig).contains(&AlertKind::PoolReadOnly), "{:?}", kinds(&rig));
    rig.machine.set_metadata_percent(Percent::from(10.0));
    rig.engine.tick();
    assert_eq!(kinds(&rig), BTreeSet::new());
    rig.make_volume("w", Bytes::gib(1));
    rig.check();
}

#[test]
fn a_pool_that_cannot_be_looked_at_keeps_no_other_from_it() {
    let rig = Rig::with_pool();
    rig.make_pool("other", cistern_model::Layout::Mirror, &["c", "d"]);
    rig.machine.set_metadata_percent(Percent::from(70.0));
    rig.machine
        .fail_next("thin.extend_metadata", MemoryHost::failure("extend"));
    rig.engine.tick();
    let events = rig.engine.events(0, 1000);
    let grown = events.iter().filter(|event| event.message.contains("enlarged")).count();
    assert_eq!(grown, 1);
}

#[test]
fn a_full_overcommitted_pool_without_snapshots_blames_none() {
    let rig = Rig::with_pool();
    let size = set(&rig, Some(300), Some(0)).size;
    let volume = rig.make_volume("v", Bytes::gib(20));
    let rest = size.saturating_sub(Bytes::mib(68));
    rig.machine.write_file(&path(volume.id), "file", rest).unwrap();
    rig.engine.tick();
    let kinds: Vec<AlertKind> = rig.engine.alerts(false).iter().map(|alert| alert.kind).collect();
    assert_eq!(kinds, [AlertKind::PoolSpace]);
}

#[test]
fn a_filesystem_that_the_kernel_shut_down_is_mounted_anew_once_its_pool_takes_writes() {
    let rig = Rig::with_pool();
    let volume = rig.make_volume("v", Bytes::gib(1));
    let other = rig.make_volume("w", Bytes::gib(1));
    let mounts = |rig: &Rig| {
        let calls = rig.machine.calls();
        calls
            .iter()
            .filter(|call| call.starts_with("filesystems.mount "))
            .count()
    };
    let before = mounts(&rig);
    rig.machine.shut_down(&path(volume.id));
    rig.engine.tick();
    assert_eq!(mounts(&rig), before + 1);
    assert_eq!(rig.engine.volume(&by(), volume.id).unwrap().state, VolumeState::Ready);
    rig.engine.tick();
    assert_eq!(mounts(&rig), before + 1);
    // Whatever keeps it from being mounted is said until it is.
    rig.machine.shut_down(&path(other.id));
    rig.machine.fail_next("filesystems.mount", MemoryHost::failure("mount"));
    rig.engine.tick();
    assert_eq!(rig.engine.volume(&by(), other.id).unwrap().state, VolumeState::Failed);
    rig.engine.reconcile().unwrap();
    assert_eq!(rig.engine.volume(&by(), other.id).unwrap().state, VolumeState::Ready);
    rig.check();
}

#[test]
fn a_volume_that_could_not_be_mounted_at_a_start_is_served_without_another() {
    let mut rig = Rig::with_pool();
    let volume = rig.make_volume("v", Bytes::gib(1));
    rig.power_cycle();
    rig.machine.fail_next("filesystems.mount", MemoryHost::failure("mount"));
    rig.engine.start().unwrap();
    assert_eq!(rig.engine.volume(&by(), volume.id).unwrap().state, VolumeState::Failed);
    rig.engine.tick();
    assert_eq!(rig.engine.volume(&by(), volume.id).unwrap().state, VolumeState::Ready);
    rig.check();
    // One that is damaged is not tried in each round.
    let mounts = |rig: &Rig| count(rig, "filesystems.mount ");
    let pool = rig.engine.pool(&by(), "tank").unwrap().id;
    rig.machine.damage(&pool.to_string(), &volume.id.to_string());
    rig.restart();
    let before = mounts(&rig);
    for _ in 0..10 {
        rig.engine.tick();
    }
    assert!(mounts(&rig) <= before + 2, "{}", mounts(&rig) - before);
}

/// Promises all of a pool, so that nothing may lie beside its volumes; what is deleted goes to the trash.
fn promise_all(rig: &Rig) {
    let change = PoolChange {
        overcommit_percent: Some(Overcommit::new(300).unwrap()),
        reserve_percent: Some(Reserve::new(0).unwrap()),
        trash_seconds: Some(3600),
        scrub: None,
    };
    rig.engine.change_pool(&by(), "tank", &change).unwrap();
    rig.make_volume("big", Bytes::gib(20));
}

fn count(rig: &Rig, call: &str) -> usize {
    rig.machine.calls().iter().filter(|made| made.starts_with(call)).count()
}

#[test]
fn a_pool_that_lacks_a_disk_is_not_asked_to_give_up_what_it_cannot() {
    let rig = Rig::with_pool();
    promise_all(&rig);
    for name in ["u", "v", "w"] {
        let volume = rig.make_volume(name, Bytes::gib(1));
        rig.write(volume.id, "file");
        rig.engine.delete_volume(&by(), volume.id).unwrap();
    }
    rig.machine.detach(&serial("b"));
    rig.engine.reconcile().unwrap();
    rig.engine.tick();
    assert_eq!((count(&rig, "lvm.remove_lv"), rig.engine.trash(&by()).len()), (0, 3));
    rig.machine.attach(&serial("b"));
    rig.engine.reconcile().unwrap();
    rig.engine.tick();
    assert_eq!(rig.engine.trash(&by()).len(), 0);
}

#[test]
fn trash_that_cannot_be_removed_is_tried_once_a_round_and_scheduled_snapshots_go_in_its_stead() {
    let rig = Rig::with_pool();
    let kept = rig.make_volume("kept", Bytes::gib(1));
    let change = VolumeChange {
        schedule: Some("hourly=3".parse().unwrap()),
        ..VolumeChange::default()
    };
    rig.engine.change_volume(&by(), kept.id, &change).unwrap();
    rig.engine.tick();
    assert_eq!(rig.snapshots().len(), 1);
    promise_all(&rig);
    let volume = rig.make_volume("v", Bytes::gib(1));
    rig.machine.pin(&path(volume.id), true);
    rig.engine.delete_volume(&by(), volume.id).unwrap_err();
    assert_eq!(rig.engine.trash(&by()).len(), 1);
    let before = count(&rig, "exports.release");
    rig.engine.tick();
    let tries = count(&rig, "exports.release") - before;
    assert!(tries < 60, "{tries}");
    assert_eq!(rig.snapshots().len(), 0);
    rig.machine.pin(&path(volume.id), false);
    rig.engine.tick();
    assert_eq!(rig.engine.trash(&by()).len(), 0);
}

#[test]
fn metadata_grows_as_far_as_the_smaller_disk_has_room_and_is_alerted_beyond() {
    let rig = Rig::new();
    rig.make_pool("tank", cistern_model::Layout::Mirror, &["a", "small"]);
    for _ in 0..20 {
        rig.machine.set_metadata_percent(Percent::from(70.0));
        rig.engine.tick();
    }
    let grown = rig.engine.events(0, 1000);
    let grown = grown.iter().filter(|event| event.message.contains("enlarged")).count();
    assert!(grown > 0);
    assert_eq!(count(&rig, "thin.extend_metadata"), grown, "it was tried in vain");
    rig.machine.set_metadata_percent(Percent::from(96.0));
    rig.engine.tick();
    let alerts = rig.engine.alerts(false);
    assert!(
        alerts.iter().any(|alert| alert.kind == AlertKind::PoolMetadataSpace),
        "{alerts:?}"
    );
}

#[test]
fn a_growth_that_fails_hides_nothing_else_of_a_pool_s_space() {
    let rig = Rig::with_pool();
    rig.machine.set_metadata_percent(Percent::from(85.0));
    rig.machine
        .fail_next("thin.extend_metadata", MemoryHost::failure("extend"));
    rig.engine.tick();
    let alerts = rig.engine.alerts(false);
    assert!(
        alerts.iter().any(|alert| alert.kind == AlertKind::PoolMetadataSpace),
        "{alerts:?}"
    );
}

/// With a pool all of whose space can be promised.
fn without_reserve() -> Rig {
    let rig = Rig::new();
    rig.make_pool("tank", Layout::Single, &["a"]);
    let change = cistern_model::PoolChange {
        reserve_percent: Some(cistern_model::Reserve::new(0).unwrap()),
        ..cistern_model::PoolChange::default()
    };
    rig.engine.change_pool(&by(), "tank", &change).unwrap();
    rig
}

/// A log that a snapshot shares, and that finds no space in a full pool, would shut its filesystem down.
#[test]
fn logs_that_snapshots_share_get_their_own_space_before_there_is_none() {
    let rig = without_reserve();
    let (v, alone) = (
        rig.make_volume("v", Bytes::mib(300)),
        rig.make_volume("alone", Bytes::mib(300)),
    );
    let available = rig.engine.pool(&by(), "tank").unwrap().available;
    // What is promised to nobody is for snapshots.
    let big = rig.make_volume(
        "big",
        available.saturating_sub(Bytes::mib(500)).round_down(Bytes::mib(4)),
    );
    rig.make_snapshot(v.id, "one");
    let owned = || {
        let called = rig.machine.calls().len();
        rig.engine.tick();
        let calls = rig.machine.calls().split_off(called);
        let own = |call: String| call.strip_prefix("filesystems.own_log ").map(str::to_owned);
        calls.into_iter().filter_map(own).collect::<Vec<_>>()
    };
    let of = |volumes: &[&cistern_model::Volume]| {
        let paths = volumes.iter().map(|volume| path(volume.id).display().to_string());
        paths.collect::<Vec<_>>()
    };
    assert_eq!(owned(), Vec::<String>::new(), "there is room for all");
    let fill = |volume: &cistern_model::Volume, left: Bytes| {
        let size = volume.size.saturating_sub(left);
        rig.machine.write_file(&path(volume.id), "file", size).unwrap();
    };
    fill(&big, Bytes::mib(128));
    for volume in [&v, &alone] {
        fill(volume, Bytes::mib(128));
    }
    assert_eq!(owned(), of(&[&v]));
    assert_eq!(owned(), Vec::<String>::new(), "once");
    // What had its own shares it again with each snapshot, and gets it again only when less is left.
    rig.make_snapshot(v.id, "two");
    assert_eq!(owned(), Vec::<String>::new(), "not yet again");
    // One that fails is tried again.
    rig.make_snapshot(alone.id, "three");
    let call = "filesystems.own_log";
    rig.machine.fail_next(call, MemoryHost::failure(call));
    let (tried, again) = (owned(), owned());
    assert_eq!((tried, again), (of(&[&alone]), of(&[&alone])));
    assert_eq!(owned(), Vec::<String>::new());
}

/// All that is done by the clock may take longer than a client needs for what is left of a small pool.
#[test]
fn the_logs_of_a_pool_that_fills_are_looked_at_between_two_rounds() {
    let rig = without_reserve();
    let available = rig.engine.pool(&by(), "tank").unwrap().available;
    // What is promised to nobody is for snapshots.
    let size = available.saturating_sub(Bytes::mib(500)).round_down(Bytes::mib(4));
    let v = rig.make_volume("v", size);
    rig.make_snapshot(v.id, "one");
    let owned = || {
        let called = rig.machine.calls().len();
        rig.engine.look_at_logs();
        let calls = rig.machine.calls().split_off(called);
        calls
            .iter()
            .filter(|call| call.starts_with("filesystems.own_log"))
            .count()
    };
    let fill = |left: Bytes| {
        let size = v.size.saturating_sub(left);
        rig.machine.write_file(&path(v.id), "file", size).unwrap();
    };
    fill(Bytes::new(v.size.get() / 3));
    rig.engine.tick();
    assert_eq!(owned(), 0, "there is room");
    fill(Bytes::mib(200));
    assert_eq!((owned(), owned()), (1, 0));
}

#[test]
fn how_full_a_pool_with_much_room_is_is_not_asked_for_each_volume() {
    let mut rig = Rig::with_pool();
    let config = Config {
        fullness_holds: Duration::from_secs(3600),
        ..Config::default()
    };
    rig.engine = Engine::new(rig.machine.host(), config);
    rig.engine.start().unwrap();
    let mut number = 0;
    let mut asked = |rig: &Rig| {
        number += 1;
        let called = rig.machine.calls().len();
        let made = rig
            .engine
            .create_volume(&by(), &volume_request(&format!("v{number}"), Bytes::mib(300)));
        let calls = rig.machine.calls().split_off(called);
        (made.is_ok(), calls.iter().any(|call| call.starts_with("thin.status")))
    };
    assert_eq!(asked(&rig), (true, true), "nothing is known yet");
    assert_eq!(asked(&rig), (true, false));
    // Half full: the next moment may be another.
    let size = rig.engine.pool(&by(), "tank").unwrap().size.get();
    let big = rig.make_volume("big", Bytes::new(size / 10 * 7));
    rig.machine
        .write_file(&path(big.id), "file", Bytes::new(size / 10 * 6))
        .unwrap();
    rig.engine.tick();
    assert_eq!(asked(&rig), (true, true));
    assert_eq!(asked(&rig), (true, true));
    rig.machine.set_metadata_percent(Percent::from(90.0));
    assert_eq!(asked(&rig), (false, true));
}
