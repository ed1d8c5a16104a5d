//! What is looked after by itself: pools are scrubbed by their schedule, disks and the clock are asked how they are.

use std::time::{Duration, Instant};

use cistern_host::SelfReport;
use cistern_host::memory::{Cut, MemoryHost};
use cistern_model::{
    AlertKind, ErrorKind, EventKind, JobKind, JobState, Layout, Percent, PoolChange, PoolId, ScrubEvery, ScrubRequest,
};
use jiff::{SignedDuration, Timestamp};

use crate::support::{Rig, by, refused, serial};

const DAY: SignedDuration = SignedDuration::from_hours(24);

fn every(rig: &Rig, pool: &str, scrub: ScrubEvery) {
    let change = PoolChange {
        scrub: Some(scrub),
        ..PoolChange::default()
    };
    assert_eq!(rig.engine.change_pool(&by(), pool, &change).unwrap().scrub, scrub);
}

fn scrubbing(rig: &Rig) -> usize {
    let jobs = rig.engine.jobs(&by());
    let running = |job: &&cistern_model::Job| job.kind == JobKind::ScrubPool && job.ended.is_none();
    jobs.iter().filter(running).count()
}

/// Lets so many days pass, a tick each, and what that begins end; how many scrubs were told of.
fn live(rig: &Rig, days: u32) -> usize {
    let told = |rig: &Rig| {
        let events = rig.engine.events(0, 10_000);
        events.iter().filter(|e| e.kind == EventKind::PoolScrubbed).count()
    };
    let before = told(rig);
    for _ in 0..days {
        rig.machine.pass(DAY);
        rig.engine.tick();
        until(|| scrubbing(rig) == 0);
    }
    told(rig) - before
}

pub(crate) fn until(true_once: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !true_once() {
        assert!(Instant::now() < deadline, "it never came");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn alert(rig: &Rig, kind: AlertKind) -> Option<String> {
    let alerts = rig.engine.alerts(false);
    alerts
        .into_iter()
        .find(|alert| alert.kind == kind)
        .map(|alert| alert.message)
}

fn pool_id(rig: &Rig, name: &str) -> PoolId {
    rig.engine.pool(&by(), name).unwrap().id
}

#[test]
fn a_new_pool_is_scrubbed_each_month_another_as_often_as_was_said() {
    let mut rig = Rig::with_pool();
    let pool = rig.engine.pool(&by(), "tank").unwrap();
    assert_eq!((pool.scrub, pool.last_scrub), (ScrubEvery::Monthly, None));
    assert_eq!(live(&rig, 29), 0);
    rig.restart();
    assert_eq!(live(&rig, 3), 1);
    let last = rig.engine.pool(&by(), "tank").unwrap().last_scrub.unwrap();
    assert_eq!(last.mismatches, 0);
    assert_eq!(live(&rig, 91), 3);
    every(&rig, "tank", ScrubEvery::Weekly);
    rig.restart();
    assert_eq!(live(&rig, 30), 4);
    every(&rig, "tank", ScrubEvery::None);
    assert_eq!(live(&rig, 70), 0);
    rig.check();
}

#[test]
fn a_disk_that_failed_requests_is_alerted_for_a_day() {
    let rig = Rig::with_pool();
    rig.engine.ask_disks();
    rig.engine.tick();
    assert_eq!(alert(&rig, AlertKind::DiskFailing), None);
    rig.machine.let_requests_fail(&serial("a"), 3);
    rig.engine.tick();
    let message = alert(&rig, AlertKind::DiskFailing).unwrap();
    assert!(
        message.contains(serial("a").as_str()) && message.contains("at least 1 request"),
        "{message}"
    );
    // Those that follow are no news, each by itself.
    let raised = |rig: &Rig| {
        let events = rig.engine.events(0, 10_000);
        events.iter().filter(|e| e.kind == EventKind::AlertRaised).count()
    };
    let before = raised(&rig);
    for _ in 0..5 {
        rig.machine.let_requests_fail(&serial("a"), 1);
        rig.engine.tick();
    }
    assert_eq!(raised(&rig), before);
    rig.machine.pass(SignedDuration::from_hours(23));
    rig.machine.let_requests_fail(&serial("a"), 4);
    rig.machine.pass(SignedDuration::from_hours(23));
    rig.engine.tick();
    let message = alert(&rig, AlertKind::DiskFailing).unwrap();
    assert!(message.contains("at least 10 request"), "{message}");
    assert_eq!(raised(&rig), before + 1);
    rig.machine.pass(SignedDuration::from_hours(2));
    rig.engine.tick();
    assert_eq!(alert(&rig, AlertKind::DiskFailing), None);
    rig.check();
}

#[test]
fn what_a_scheduled_scrub_finds_is_alerted_kept_and_shown() {
    let mut rig = Rig::with_pool();
    every(&rig, "tank", ScrubEvery::Weekly);
    rig.machine
        .let_images_differ(&pool_id(&rig, "tank").to_string(), "data_tdata", 24);
    assert_eq!(live(&rig, 9), 1);
    assert!(
        alert(&rig, AlertKind::ScrubMismatches)
            .unwrap()
            .contains("by its schedule: 24 sectors")
    );
    rig.restart();
    assert_eq!(
        rig.engine.pool(&by(), "tank").unwrap().last_scrub.unwrap().mismatches,
        24
    );
    // One by hand counts as one.
    rig.machine.pass(DAY * 6);
    let job = rig
        .engine
        .scrub_pool(&by(), "tank", &ScrubRequest { repair: true })
        .unwrap();
    rig.wait(&job);
    assert_eq!(live(&rig, 6), 0);
    assert_eq!(live(&rig, 2), 1);
    assert_eq!(alert(&rig, AlertKind::ScrubMismatches), None);
}

#[test]
fn one_pool_at_a_time_is_scrubbed_and_none_that_is_not_whole_filled_and_at_rest() {
    let rig = Rig::with_pool();
    rig.make_pool("other", Layout::Mirror, &["c", "d"]);
    rig.engine.tick();
    rig.machine.block("raids.scrub");
    rig.machine.pass(DAY * 31);
    for _ in 0..3 {
        rig.engine.tick();
    }
    assert_eq!(scrubbing(&rig), 1);
    rig.machine.unblock("raids.scrub");
    until(|| scrubbing(&rig) == 0);
    rig.engine.tick();
    until(|| scrubbing(&rig) == 0);
    for name in ["tank", "other"] {
        assert!(rig.engine.pool(&by(), name).unwrap().last_scrub.is_some(), "{name}");
    }
    // Not while it is filled.
    rig.machine.fill_slowly();
    rig.machine.fill_to(Percent::from(50.0));
    assert_eq!(live(&rig, 40), 0);
    rig.machine.fill_to(Percent::FULL);
    // Not while it lacks a disk.
    rig.machine.detach(&serial("a"));
    rig.machine.detach(&serial("c"));
    rig.engine.reconcile().unwrap();
    assert_eq!(live(&rig, 40), 0);
}

#[test]
fn a_scrub_that_a_restart_broke_off_begins_again() {
    let mut rig = Rig::with_pool();
    rig.engine.tick();
    rig.machine.block("raids.scrub");
    rig.machine.pass(DAY * 31);
    rig.engine.tick();
    assert!(rig.machine.wait_until_blocked("raids.scrub", Duration::from_secs(20)));
    rig.power_cycle();
    rig.machine.unblock("raids.scrub");
    rig.engine.start().unwrap();
    assert_eq!(rig.engine.pool(&by(), "tank").unwrap().last_scrub, None);
    assert_eq!(live(&rig, 1), 1);
}

#[test]
fn one_copy_is_never_scrubbed_by_itself_and_nobody_can_ask_for_it() {
    let rig = Rig::new();
    rig.make_pool("tank", Layout::Single, &["a", "b"]);
    assert_eq!(rig.engine.pool(&by(), "tank").unwrap().scrub, ScrubEvery::None);
    assert_eq!(live(&rig, 40), 0);
    let change = PoolChange {
        scrub: Some(ScrubEvery::Weekly),
        ..PoolChange::default()
    };
    let tags = rig.machine.group_tags(&pool_id(&rig, "tank").to_string());
    refused(rig.engine.change_pool(&by(), "tank", &change), ErrorKind::Invalid);
    assert_eq!(rig.machine.group_tags(&pool_id(&rig, "tank").to_string()), tags);
    every(&rig, "tank", ScrubEvery::None);
}

#[test]
fn a_clock_that_was_never_set_is_alerted_and_decides_nothing() {
    let rig = Rig::with_pool();
    rig.engine.tick();
    rig.machine.pass(DAY * 40);
    let mut late = rig.machine.host().machine.now();
    late += DAY * 400;
    rig.machine.set_built(late);
    let mut rig = rig;
    rig.restart();
    assert_eq!(live(&rig, 300), 0);
    assert!(
        alert(&rig, AlertKind::ClockUnset)
            .unwrap()
            .contains("before this system was made")
    );
    // It is set.
    assert_eq!(live(&rig, 101), 1);
    assert_eq!(alert(&rig, AlertKind::ClockUnset), None);
}

#[test]
fn a_clock_that_nothing_keeps_right_is_alerted_after_a_while_and_until_something_does() {
    let rig = Rig::with_pool();
    rig.machine.let_clock_drift(true);
    rig.engine.tick();
    rig.machine.pass(SignedDuration::from_mins(90));
    rig.engine.tick();
    assert_eq!(alert(&rig, AlertKind::ClockUnset), None);
    rig.machine.pass(SignedDuration::from_mins(31));
    rig.engine.tick();
    assert!(alert(&rig, AlertKind::ClockUnset).unwrap().contains("NTP"));
    rig.machine.let_clock_drift(false);
    rig.machine.pass(SignedDuration::from_mins(11));
    rig.engine.tick();
    assert_eq!(alert(&rig, AlertKind::ClockUnset), None);
}

#[test]
fn a_disk_that_says_that_it_will_fail_is_alerted_until_it_says_otherwise_or_is_gone() {
    let mut rig = Rig::with_pool();
    let says = |what: &[&str]| SelfReport::Told(what.iter().map(|what| (*what).to_owned()).collect());
    rig.machine.let_disk_say(
        &serial("a"),
        says(&["it says that it will fail", "it has 8 sectors that cannot be read"]),
    );
    rig.machine.let_disk_say(&serial("b"), says(&[]));
    rig.machine
        .let_disk_say(&serial("c"), says(&["it takes no more writes"]));
    let failing = |rig: &Rig| {
        let alerts = rig.engine.alerts(false).into_iter();
        let failing = alerts.filter(|alert| alert.kind == AlertKind::DiskFailing);
        let mut disks: Vec<String> = failing.filter_map(|alert| alert.object).collect();
        disks.sort();
        disks
    };
    rig.engine.ask_disks();
    assert_eq!(failing(&rig), [serial("a").to_string(), serial("c").to_string()]);
    // It stands while the disk sleeps or cannot be asked, and over a restart.
    rig.machine.let_disk_say(&serial("a"), SelfReport::Asleep);
    rig.machine.fail_next("health.ask", MemoryHost::failure("ask"));
    rig.engine.ask_disks();
    assert_eq!(failing(&rig).len(), 2);
    rig.restart();
    rig.engine.ask_disks();
    assert_eq!(failing(&rig).len(), 2);
    rig.machine.let_disk_say(&serial("a"), says(&[]));
    rig.engine.ask_disks();
    assert_eq!(failing(&rig), [serial("c").to_string()]);
    rig.machine.detach(&serial("c"));
    rig.engine.reconcile().unwrap();
    assert!(failing(&rig).is_empty());
}

#[test]
fn a_disk_that_a_pool_does_without_because_of_its_errors_is_alerted_until_it_is_used_again() {
    let rig = Rig::with_pool();
    rig.machine
        .fail_next("raids.refresh_lv", MemoryHost::failure("refresh"));
    rig.machine.fail_images_on(&serial("b"));
    let _ = rig.engine.reconcile();
    assert!(alert(&rig, AlertKind::DiskFailing).unwrap().contains("gave errors"));
    let mut rig = rig;
    rig.restart();
    rig.engine.ask_disks();
    assert_eq!(alert(&rig, AlertKind::DiskFailing), None);
}

#[test]
fn the_time_of_a_scrub_that_is_yet_to_come_does_not_keep_the_next_one_away() {
    let mut rig = Rig::with_pool();
    rig.engine.tick();
    let tag = |at: i64| format!("cistern.scrubbed={at}/0");
    let vg = pool_id(&rig, "tank").to_string();
    let far = Timestamp::UNIX_EPOCH.as_second() + 100 * 365 * 86_400;
    let change = cistern_host::TagChange {
        add: vec![tag(far)],
        remove: Vec::new(),
    };
    rig.machine.host().lvm.tag_vg(&vg, &change).unwrap();
    rig.restart();
    assert_eq!(live(&rig, 32), 1);
}

/// A pool of which the copies are just being compared, by its schedule.
fn scrub_under_way() -> Rig {
    let rig = Rig::with_pool();
    rig.engine.tick();
    rig.machine.fill_slowly();
    rig.machine.pass(DAY * 31);
    rig.engine.tick();
    assert_eq!(scrubbing(&rig), 1);
    let vg = pool_id(&rig, "tank").to_string();
    until(|| {
        rig.machine.calls().contains(&format!("raids.scrub {vg}/data_tdata"))
            || rig.machine.calls().contains(&format!("raids.scrub {vg}/data_tmeta"))
    });
    rig
}

/// Whether a scrub was broken off, or that was tried.
fn was_broken_off(rig: &Rig) -> bool {
    let calls = rig.machine.calls();
    calls.iter().any(|call| call.starts_with("raids.stop_scrub"))
}

/// A scrub that is asked for comes to its end, and nothing is the matter then.
fn is_scrubbed_to_the_end(rig: &Rig) {
    rig.engine.scrub_pool(&by(), "tank", &ScrubRequest::default()).unwrap();
    until(|| {
        rig.machine.fill_to(Percent::FULL);
        scrubbing(rig) == 0
    });
    assert!(rig.engine.pool(&by(), "tank").unwrap().last_scrub.is_some());
    rig.check();
}

#[test]
fn a_power_cut_while_a_scrub_is_broken_off_leaves_one_that_begins_again() {
    for cut in [Cut::Before, Cut::Midway, Cut::After] {
        let mut rig = scrub_under_way();
        rig.machine.cut_power_at(1, cut);
        assert!(rig.engine.add_spare(&by(), "tank", &serial("c")).is_err());
        assert_eq!(rig.machine.fault_hit().as_deref(), Some("raids.stop_scrub"));
        rig.restart();
        rig.check();
        assert_eq!(rig.engine.pool(&by(), "tank").unwrap().last_scrub, None);
        is_scrubbed_to_the_end(&rig);
    }
}

#[test]
fn a_scrub_that_cannot_be_broken_off_comes_to_its_end_in_the_kernel_and_counts_for_nothing() {
    for done in [false, true] {
        let rig = scrub_under_way();
        let failure = MemoryHost::failure("stop");
        match done {
            true => rig.machine.fail_after_next("raids.stop_scrub", failure),
            false => rig.machine.fail_next("raids.stop_scrub", failure),
        }
        // Whether what it was to give way to can be done beside it is LVM's matter.
        let _ = rig.engine.add_spare(&by(), "tank", &serial("c"));
        until(|| scrubbing(&rig) == 0);
        assert!(was_broken_off(&rig));
        assert_eq!(rig.engine.pool(&by(), "tank").unwrap().last_scrub, None);
        rig.machine.fill_to(Percent::FULL);
        rig.engine.reconcile().unwrap();
        is_scrubbed_to_the_end(&rig);
    }
}

#[test]
fn a_scrub_that_nobody_asked_for_gives_way_and_begins_again_later() {
    let rig = scrub_under_way();
    rig.engine.add_spare(&by(), "tank", &serial("c")).unwrap();
    assert!(was_broken_off(&rig));
    let ended = rig
        .engine
        .jobs(&by())
        .into_iter()
        .find(|job| job.kind == JobKind::ScrubPool)
        .unwrap();
    assert!(matches!(ended.state, JobState::Failed { .. }), "{ended:?}");
    assert_eq!(rig.engine.pool(&by(), "tank").unwrap().last_scrub, None);
    // One that was asked for does not.
    rig.engine.scrub_pool(&by(), "tank", &ScrubRequest::default()).unwrap();
    refused(
        rig.engine.remove_spare(&by(), "tank", &serial("c")),
        ErrorKind::Conflict,
    );
    until(|| {
        rig.machine.fill_to(Percent::FULL);
        scrubbing(&rig) == 0
    });
    assert!(rig.engine.pool(&by(), "tank").unwrap().last_scrub.is_some());
}
