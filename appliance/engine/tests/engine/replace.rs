//! Disks that take the place of others, by request and by themselves.

use cistern_host::Change;
use cistern_host::memory::MemoryHost;
use cistern_model::{
    AlertKind, Bytes, DiskState, ErrorKind, EventKind, Job, JobState, Layout, Percent, PoolState, ReplaceRequest,
    ScrubRequest,
};

use crate::support::{Rig, by, client, path, pool_request, refused, serial};

pub(crate) fn pair(old: &str, new: &str) -> ReplaceRequest {
    ReplaceRequest {
        old: serial(old),
        new: serial(new),
    }
}

pub(crate) fn with(layout: Layout, disks: &[&str]) -> Rig {
    let rig = Rig::new();
    rig.make_pool("tank", layout, disks);
    let volume = rig.make_volume("v", Bytes::gib(1));
    rig.machine.write_file(&path(volume.id), "file", Bytes::mib(5)).unwrap();
    rig
}

fn replace(rig: &Rig, old: &str, new: &str) -> Job {
    let job = rig.engine.replace_disk(&by(), "tank", &pair(old, new)).unwrap();
    rig.wait(&job)
}

/// Where images lie, all volumes together.
pub(crate) fn lies_on(rig: &Rig, disk: &str) -> bool {
    let vg = rig.engine.pool(&by(), "tank").unwrap().id.to_string();
    rig.machine
        .copies(&vg, "data")
        .iter()
        .flatten()
        .any(|id| *id == serial(disk))
}

pub(crate) fn disk_state(rig: &Rig, disk: &str) -> DiskState {
    let disks = rig.engine.disks().unwrap();
    disks.into_iter().find(|d| d.id == serial(disk)).unwrap().state
}

#[test]
fn a_disk_that_is_there_is_replaced_and_blank_afterwards() {
    for (layout, disks) in [(Layout::Mirror, &["a", "b"][..]), (Layout::Parity, &["a", "b", "c"])] {
        let rig = with(layout, disks);
        assert_eq!(replace(&rig, "b", "d").state, JobState::Succeeded);
        rig.check();
        let pool = rig.engine.pool(&by(), "tank").unwrap();
        assert!(pool.disks.contains(&serial("d")) && !pool.disks.contains(&serial("b")));
        assert!(lies_on(&rig, "d") && !lies_on(&rig, "b"));
        assert_eq!(disk_state(&rig, "b"), DiskState::Available);
        // Over a restart too.
        let mut rig = rig;
        rig.restart();
        rig.check();
        assert_eq!(rig.machine.files(&path(rig.volumes()[0].id)).unwrap().len(), 1);
    }
}

#[test]
fn a_missing_disk_is_replaced_while_the_pool_is_served_and_is_to_be_wiped_if_it_comes_back() {
    for (layout, disks, lost) in [
        (Layout::Mirror, &["a", "b"][..], "a"),
        (Layout::StripeMirror, &["a", "b", "c", "small"], "b"),
        (Layout::Parity, &["a", "b", "c"], "c"),
    ] {
        let rig = with(layout, disks);
        rig.machine.detach(&serial(lost));
        rig.engine.reconcile().unwrap();
        assert_eq!(rig.engine.pool(&by(), "tank").unwrap().state, PoolState::Degraded);
        assert!(
            rig.engine
                .alerts(false)
                .iter()
                .any(|alert| alert.kind == AlertKind::PoolDegraded)
        );
        assert_eq!(replace(&rig, lost, "d").state, JobState::Succeeded, "{layout}");
        rig.engine.reconcile().unwrap();
        rig.check();
        assert!(rig.engine.alerts(false).is_empty(), "{:?}", rig.engine.alerts(false));
        assert!(lies_on(&rig, "d") && !lies_on(&rig, lost));
        rig.machine.attach(&serial(lost));
        rig.engine.reconcile().unwrap();
        assert_eq!(disk_state(&rig, lost), DiskState::HasData, "{layout}");
        rig.engine.wipe_disk(&by(), &serial(lost), None).unwrap();
        rig.check();
    }
}

#[test]
fn a_spare_takes_over_by_itself() {
    let rig = Rig::new();
    let mut request = pool_request("tank", Layout::Mirror, &["a", "b"]);
    request.spares = vec![serial("d")];
    rig.try_pool(&request).unwrap();
    rig.make_volume("v", Bytes::gib(1));
    let pool = rig.engine.pool(&by(), "tank").unwrap();
    assert_eq!((pool.spares, pool.disks.len()), (vec![serial("d")], 2));
    assert!(!lies_on(&rig, "d"));
    rig.machine.detach(&serial("a"));
    rig.engine.reconcile().unwrap();
    let jobs = rig.engine.jobs(&by());
    assert_eq!(rig.wait(&jobs[0]).state, JobState::Succeeded);
    rig.engine.reconcile().unwrap();
    rig.check();
    let pool = rig.engine.pool(&by(), "tank").unwrap();
    assert_eq!((pool.spares, pool.disks), (vec![], vec![serial("b"), serial("d")]));
    let messages: Vec<String> = rig.engine.events(0, 100).into_iter().map(|e| e.message).collect();
    assert!(
        messages.iter().any(|m| m.contains("spare serial-d takes the place")),
        "{messages:?}"
    );
}

#[test]
fn a_spare_takes_the_place_of_a_disk_that_gives_errors_and_does_not_recover() {
    let rig = with(Layout::Parity, &["a", "b", "c"]);
    rig.engine.add_spare(&by(), "tank", &serial("d")).unwrap();
    rig.machine.fail_images_on(&serial("b"));
    rig.machine
        .fail_next("raids.refresh_lv", MemoryHost::failure("refresh"));
    rig.engine.look_at_raids().unwrap();
    let jobs = rig.engine.jobs(&by());
    assert_eq!(rig.wait(&jobs[0]).state, JobState::Succeeded);
    rig.engine.reconcile().unwrap();
    rig.check();
    assert!(lies_on(&rig, "d") && !lies_on(&rig, "b"));
}

#[test]
fn a_disk_that_cannot_be_written_to_is_kept_from_lvm_and_a_spare_takes_its_place() {
    let rig = Rig::with_pool();
    rig.engine.add_spare(&by(), "tank", &serial("d")).unwrap();
    rig.make_volume("v", Bytes::gib(1));
    rig.machine.let_writes_fail(&serial("a"));
    // Noticed and asked back; failed again, and left alone; then the spare takes its place.
    for _ in 0..3 {
        rig.engine.look_at_raids().unwrap();
        rig.engine.reconcile().unwrap();
    }
    for job in rig.engine.jobs(&by()) {
        assert_eq!(rig.wait(&job).state, JobState::Succeeded);
    }
    rig.engine.reconcile().unwrap();
    let pool = rig.engine.pool(&by(), "tank").unwrap();
    assert_eq!(
        (pool.state, pool.disks),
        (PoolState::Ready, vec![serial("b"), serial("d")])
    );
    rig.make_volume("w", Bytes::gib(1));
    rig.check();
}

#[test]
fn a_disk_that_cannot_be_written_to_is_told_by_name_and_clients_come_and_go() {
    let mut rig = Rig::with_pool();
    let volume = rig.make_volume("v", Bytes::gib(1));
    rig.machine.let_writes_fail(&serial("a"));
    for again in [false, true] {
        if again {
            rig.restart();
        }
        for _ in 0..3 {
            rig.engine.look_at_raids().unwrap();
            rig.engine.reconcile().unwrap();
        }
        let pool = rig.engine.pool(&by(), "tank").unwrap();
        let reason = pool.reason.unwrap_or_default();
        assert_eq!(pool.state, PoolState::Degraded, "{reason}");
        assert!(reason.contains("serial-a"), "{reason}");
        rig.engine.add_client(&by(), volume.id, client("10.1.0.7")).unwrap();
        rig.engine.remove_client(&by(), volume.id, client("10.1.0.7")).unwrap();
    }
    assert_eq!(replace(&rig, "a", "c").state, JobState::Succeeded);
    let pool = rig.engine.pool(&by(), "tank").unwrap();
    assert_eq!(pool.state, PoolState::Ready, "{pool:?}");
    rig.make_volume("w", Bytes::gib(1));
    rig.check();
}

#[test]
fn spares_come_and_go_and_what_cannot_be_one_is_refused() {
    let rig = with(Layout::Mirror, &["a", "b"]);
    let before = rig.snapshot();
    refused(
        rig.engine.add_spare(&by(), "tank", &serial("small")),
        ErrorKind::Invalid,
    );
    refused(
        rig.engine.add_spare(&by(), "tank", &serial("full")),
        ErrorKind::DiskInUse,
    );
    refused(rig.engine.add_spare(&by(), "tank", &serial("a")), ErrorKind::DiskInUse);
    refused(
        rig.engine.add_spare(&by(), "tank", &serial("none")),
        ErrorKind::NotFound,
    );
    refused(
        rig.engine.remove_spare(&by(), "tank", &serial("a")),
        ErrorKind::NotFound,
    );
    assert_eq!(rig.snapshot(), before);
    for _ in 0..2 {
        let pool = rig.engine.add_spare(&by(), "tank", &serial("c")).unwrap();
        assert_eq!(pool.spares, [serial("c")]);
    }
    rig.check();
    assert_eq!(rig.engine.remove_spare(&by(), "tank", &serial("c")).unwrap().spares, []);
    assert_eq!(disk_state(&rig, "c"), DiskState::Available);
    rig.check();
    let mut request = pool_request("other", Layout::Single, &["c"]);
    request.spares = vec![serial("d")];
    refused(rig.engine.plan_pool(&request), ErrorKind::Invalid);
}

#[test]
fn a_replacement_that_cannot_be_is_refused_and_nothing_is_touched() {
    let rig = with(Layout::Mirror, &["a", "b"]);
    let before = rig.snapshot();
    for (old, new, kind) in [
        ("a", "a", ErrorKind::Invalid),
        ("c", "d", ErrorKind::NotFound),
        ("a", "small", ErrorKind::Invalid),
        ("a", "full", ErrorKind::DiskInUse),
        ("a", "boot", ErrorKind::DiskInUse),
        ("a", "b", ErrorKind::DiskInUse),
        ("a", "none", ErrorKind::NotFound),
    ] {
        refused(rig.engine.replace_disk(&by(), "tank", &pair(old, new)), kind);
        assert_eq!(rig.snapshot(), before, "{old} {new}");
    }
    // With one copy what lies on the disk is moved, all of it.
    rig.make_pool("other", Layout::Single, &["c"]);
    let before = rig.snapshot();
    refused(
        rig.engine.replace_disk(&by(), "other", &pair("c", "small")),
        ErrorKind::Invalid,
    );
    // The other copy is not whole.
    rig.machine.fail_images_on(&serial("b"));
    rig.machine
        .fail_next("raids.refresh_lv", MemoryHost::failure("refresh"));
    rig.engine.look_at_raids().unwrap();
    refused(
        rig.engine.replace_disk(&by(), "tank", &pair("a", "d")),
        ErrorKind::Unavailable,
    );
    assert_eq!(rig.snapshot(), before);
}

#[test]
fn a_new_disk_that_was_not_filled_is_no_copy_and_is_filled_once_what_it_is_filled_from_is_back() {
    let rig = with(Layout::Parity, &["a", "b", "c"]);
    rig.machine.detach(&serial("b"));
    rig.machine.let_sector_fail(&serial("a"), true);
    rig.engine.reconcile().unwrap();
    let job = rig.engine.replace_disk(&by(), "tank", &pair("b", "d")).unwrap();
    let ended = rig.wait(&job);
    assert!(matches!(ended.state, JobState::Failed { .. }), "{ended:?}");
    // What is there is a part of the data.
    rig.machine.detach(&serial("a"));
    rig.engine.reconcile().unwrap();
    let pool = rig.engine.pool(&by(), "tank").unwrap();
    assert_eq!(pool.state, PoolState::Incomplete, "{pool:?}");
    rig.machine.let_sector_fail(&serial("a"), false);
    rig.machine.attach(&serial("a"));
    rig.engine.react(Change::Disks);
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while !lies_on(&rig, "d") || rig.engine.pool(&by(), "tank").unwrap().state != PoolState::Ready {
        assert!(
            std::time::Instant::now() < deadline,
            "{:?}",
            rig.engine.pool(&by(), "tank")
        );
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    crate::crashes::wait_for_jobs(&rig);
    rig.check();
    let disks = rig.engine.pool(&by(), "tank").unwrap().disks;
    assert_eq!(disks, ["a", "c", "d"].map(serial));
}

#[test]
fn progress_is_told_while_a_new_disk_is_filled_and_a_restart_goes_on() {
    let mut rig = with(Layout::Mirror, &["a", "b"]);
    rig.machine.fill_slowly();
    let job = rig.engine.replace_disk(&by(), "tank", &pair("a", "c")).unwrap();
    let again = rig.engine.replace_disk(&by(), "tank", &pair("a", "c")).unwrap();
    assert_eq!(again.id, job.id);
    refused(
        rig.engine.replace_disk(&by(), "tank", &pair("b", "d")),
        ErrorKind::Conflict,
    );
    refused(rig.engine.add_spare(&by(), "tank", &serial("d")), ErrorKind::Conflict);
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    loop {
        rig.machine.fill_to(Percent::from(40.0));
        let shown = rig.engine.job(&by(), job.id).unwrap();
        if matches!(&shown.state, JobState::Running { done: 40, total: 100, step } if step.contains("filling")) {
            break;
        }
        assert!(std::time::Instant::now() < deadline, "{shown:?}");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    rig.restart();
    let job = rig.engine.jobs(&by())[0].clone();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while rig.engine.job(&by(), job.id).unwrap().ended.is_none() {
        rig.machine.fill_to(Percent::FULL);
        assert!(std::time::Instant::now() < deadline);
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    rig.engine.reconcile().unwrap();
    rig.check();
    assert!(lies_on(&rig, "c") && !lies_on(&rig, "a"));
}

#[test]
fn a_scrub_tells_what_differs_until_a_later_one_finds_nothing() {
    let rig = with(Layout::Mirror, &["a", "b"]);
    let vg = rig.engine.pool(&by(), "tank").unwrap().id.to_string();
    let scrub = |repair| {
        let job = rig.engine.scrub_pool(&by(), "tank", &ScrubRequest { repair }).unwrap();
        assert_eq!(rig.wait(&job).state, JobState::Succeeded);
        rig.engine
            .alerts(false)
            .iter()
            .any(|alert| alert.kind == AlertKind::ScrubMismatches)
    };
    assert!(!scrub(false));
    rig.machine.let_images_differ(&vg, "data_tdata", 128);
    assert!(scrub(false) && scrub(false));
    assert!(!scrub(true));
    assert!(!scrub(false));
    let told: Vec<String> = rig
        .engine
        .events(0, 100)
        .into_iter()
        .filter(|e| e.kind == EventKind::PoolScrubbed)
        .map(|e| e.message)
        .collect();
    assert!(told[1].contains("128 sectors") && told[4].contains("agree"), "{told:?}");
    rig.make_pool("other", Layout::Single, &["c"]);
    refused(
        rig.engine.scrub_pool(&by(), "other", &ScrubRequest::default()),
        ErrorKind::Invalid,
    );
}

#[test]
fn what_a_scrub_found_is_over_when_its_pool_is_gone() {
    let rig = with(Layout::Mirror, &["a", "b"]);
    let vg = rig.engine.pool(&by(), "tank").unwrap().id.to_string();
    rig.machine.let_images_differ(&vg, "data_tdata", 128);
    let job = rig.engine.scrub_pool(&by(), "tank", &ScrubRequest::default()).unwrap();
    rig.wait(&job);
    let alerts = rig.engine.alerts(false);
    assert!(
        alerts.iter().any(|alert| alert.kind == AlertKind::ScrubMismatches),
        "{alerts:?}"
    );
    rig.engine.release_pool(&by(), "tank").unwrap();
    assert_eq!(rig.engine.alerts(false), Vec::new());
}

#[test]
fn a_disk_that_could_not_be_filled_to_its_end_has_not_taken_the_place_of_another() {
    for (layout, disks, source) in [
        (Layout::Mirror, &["a", "b"][..], "b"),
        (Layout::Parity, &["a", "b", "c"], "c"),
    ] {
        let rig = with(layout, disks);
        rig.machine.let_sector_fail(&serial(source), true);
        let job = replace(&rig, "a", "d");
        let JobState::Failed { problem } = &job.state else {
            panic!("{layout}: {job:?}")
        };
        assert!(problem.detail.contains("serial-d"), "{problem:?}");
        // The old disk is kept, and so is the note that it is to be replaced.
        let pool = rig.engine.pool(&by(), "tank").unwrap();
        assert!(matches!(disk_state(&rig, "a"), DiskState::InPool { .. }));
        assert!(pool.disks.contains(&serial("a")), "{pool:?}");
        rig.engine.reconcile().unwrap();
        let pool = rig.engine.pool(&by(), "tank").unwrap();
        let reason = pool.reason.clone().unwrap_or_default();
        assert_eq!(pool.state, PoolState::Degraded);
        assert!(reason.contains("serial-d"), "{reason}");
        let alerts = rig.engine.alerts(false);
        assert!(
            alerts.iter().any(|alert| alert.kind == AlertKind::PoolDegraded),
            "{alerts:?}"
        );
        // Written anew, the sector can be read again: the replacement goes on to its end.
        rig.machine.let_sector_fail(&serial(source), false);
        for job in rig.engine.jobs(&by()) {
            rig.wait(&job);
        }
        rig.engine.reconcile().unwrap();
        for job in rig.engine.jobs(&by()) {
            rig.wait(&job);
        }
        rig.engine.reconcile().unwrap();
        rig.check();
        assert!(lies_on(&rig, "d") && !lies_on(&rig, "a"));
        assert_eq!(disk_state(&rig, "a"), DiskState::Available);
    }
}

#[test]
fn a_disk_that_came_back_and_is_not_brought_up_to_date_to_the_end_keeps_its_pool_degraded_and_unscrubbed() {
    let rig = with(Layout::Mirror, &["a", "b"]);
    rig.machine.detach(&serial("a"));
    rig.engine.reconcile().unwrap();
    rig.machine.let_sector_fail(&serial("b"), true);
    rig.machine.attach(&serial("a"));
    for _ in 0..3 {
        rig.engine.reconcile().unwrap();
        rig.engine.tick();
    }
    let pool = rig.engine.pool(&by(), "tank").unwrap();
    let reason = pool.reason.clone().unwrap_or_default();
    assert_eq!(pool.state, PoolState::Degraded);
    assert!(reason.contains("serial-a"), "{reason}");
    let scrub = rig.engine.scrub_pool(&by(), "tank", &ScrubRequest::default());
    refused(scrub, ErrorKind::Unavailable);
    // The one that is whole is not given up.
    refused(
        rig.engine.replace_disk(&by(), "tank", &pair("b", "d")),
        ErrorKind::Conflict,
    );
    rig.machine.let_sector_fail(&serial("b"), false);
    rig.engine.react(cistern_host::Change::Disks);
    rig.machine.detach(&serial("full"));
    rig.engine.react(cistern_host::Change::Disks);
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while rig.engine.pool(&by(), "tank").unwrap().state != PoolState::Ready {
        assert!(
            std::time::Instant::now() < deadline,
            "{:?}",
            rig.engine.pool(&by(), "tank")
        );
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}
