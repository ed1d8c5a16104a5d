//! Comparing copies that differ: what is told, and what is left of a comparison that was broken off.

use cistern_host::memory::MemoryHost;
use cistern_model::{AlertKind, EventKind, Job, JobId, JobState, Layout, Percent, ScrubRequest};
use jiff::SignedDuration;

use crate::care::until;
use crate::replace::with;
use crate::support::{Rig, by, serial};

const DATA: &str = "data_tdata";
const METADATA: &str = "data_tmeta";

fn vg(rig: &Rig) -> String {
    rig.engine.pool(&by(), "tank").unwrap().id.to_string()
}

fn begin(rig: &Rig, repair: bool) -> Job {
    rig.engine.scrub_pool(&by(), "tank", &ScrubRequest { repair }).unwrap()
}

/// What the last scrub told.
fn told(rig: &Rig) -> String {
    let events = rig.engine.events(0, 10_000).into_iter();
    let mut scrubs = events.filter(|event| event.kind == EventKind::PoolScrubbed);
    scrubs.next_back().map(|event| event.message).unwrap_or_default()
}

/// What stands as an alert.
fn alert(rig: &Rig) -> Option<String> {
    let mut alerts = rig.engine.alerts(false).into_iter();
    alerts
        .find(|alert| alert.kind == AlertKind::ScrubMismatches)
        .map(|alert| alert.message)
}

/// What the pool shows of its last scrub.
fn found(rig: &Rig) -> Option<u64> {
    let pool = rig.engine.pool(&by(), "tank").unwrap();
    pool.last_scrub.map(|last| last.mismatches)
}

/// How often images were compared, or made to agree.
fn passes(rig: &Rig) -> usize {
    let calls = rig.machine.calls();
    calls.iter().filter(|call| call.starts_with("raids.scrub ")).count()
}

fn ended(rig: &Rig, id: JobId) -> bool {
    rig.engine.job(&by(), id).unwrap().ended.is_some()
}

#[test]
fn a_repair_compares_first_and_tells_how_much_differed() {
    for (layout, disks) in [(Layout::Mirror, &["a", "b"][..]), (Layout::Parity, &["a", "b", "c"])] {
        let rig = with(layout, disks);
        rig.machine.let_images_differ(&vg(&rig), DATA, 128);
        let job = begin(&rig, true);
        assert_eq!(rig.wait(&job).state, JobState::Succeeded);
        assert_eq!(
            told(&rig),
            "pool tank was scrubbed: 128 sectors of its copies differed, and agree now"
        );
        assert_eq!((alert(&rig), found(&rig)), (None, Some(128)), "{layout}");
        // What agrees is read once.
        let before = passes(&rig);
        assert_eq!(before, 3, "{layout}: data twice, metadata once");
        let job = begin(&rig, true);
        assert_eq!(rig.wait(&job).state, JobState::Succeeded);
        assert_eq!(passes(&rig) - before, 2, "{layout}");
        assert!(told(&rig).ends_with("its copies agree"), "{}", told(&rig));
        assert_eq!((alert(&rig), found(&rig)), (None, Some(0)), "{layout}");
    }
}

#[test]
fn what_a_repair_found_and_could_not_make_agree_is_told_and_the_next_one_makes_it_agree() {
    let rig = with(Layout::Mirror, &["a", "b"]);
    let vg = vg(&rig);
    for lv in [DATA, METADATA] {
        rig.machine.let_images_differ(&vg, lv, 8);
    }
    rig.machine.fill_slowly();
    let job = begin(&rig, true);
    until(|| passes(&rig) == 1);
    rig.machine.fail_next("raids.scrub", MemoryHost::failure("scrub"));
    rig.machine.fill_to(Percent::FULL);
    until(|| ended(&rig, job.id));
    let job = rig.engine.job(&by(), job.id).unwrap();
    let JobState::Failed { problem } = &job.state else {
        panic!("{job:?}")
    };
    assert!(problem.detail.contains("agree"), "{problem:?}");
    let message = "pool tank was scrubbed, not to the end: 8 sectors of its copies differ";
    assert_eq!(told(&rig), message);
    assert_eq!((alert(&rig).as_deref(), found(&rig)), (Some(message), None));
    let job = begin(&rig, true);
    until(|| {
        rig.machine.fill_to(Percent::FULL);
        ended(&rig, job.id)
    });
    assert!(told(&rig).contains(": 16 sectors"), "{}", told(&rig));
    assert_eq!((alert(&rig), found(&rig)), (None, Some(16)));
}

#[test]
fn what_a_scheduled_scrub_found_before_it_gave_way_is_told() {
    let rig = with(Layout::Mirror, &["a", "b"]);
    let vg = vg(&rig);
    for lv in [DATA, METADATA] {
        rig.machine.let_images_differ(&vg, lv, 8);
    }
    rig.engine.tick();
    rig.machine.fill_slowly();
    rig.machine.pass(SignedDuration::from_hours(31 * 24));
    rig.engine.tick();
    until(|| passes(&rig) == 1);
    rig.machine.fill_to(Percent::FULL);
    until(|| passes(&rig) == 2);
    rig.engine.add_spare(&by(), "tank", &serial("c")).unwrap();
    let message = "pool tank was scrubbed by its schedule, not to the end: 8 sectors of its copies differ";
    assert_eq!((alert(&rig).as_deref(), found(&rig)), (Some(message), None));
}

#[test]
fn striped_mirrors_that_start_while_a_disk_is_filled_are_made_to_agree_when_it_is() {
    let mut rig = with(Layout::StripeMirror, &["a", "b", "c", "small"]);
    rig.machine.fill_slowly();
    let pair = crate::replace::pair("b", "d");
    let job = rig.engine.replace_disk(&by(), "tank", &pair).unwrap();
    until(|| {
        rig.machine.fill_to(Percent::from(40.0));
        matches!(
            rig.engine.job(&by(), job.id).unwrap().state,
            JobState::Running { done: 40, .. }
        )
    });
    // The kernel goes on with it at the start.
    rig.power_cycle();
    rig.machine.fill_to(Percent::from(40.0));
    rig.engine.start().unwrap();
    let job = rig.engine.jobs(&by())[0].clone();
    until(|| {
        rig.machine.fill_to(Percent::FULL);
        ended(&rig, job.id)
    });
    rig.engine.reconcile().unwrap();
    rig.machine.let_images_differ(&vg(&rig), DATA, 8);
    // It was noted with the pool: another start does not forget it.
    rig.restart();
    rig.engine.tick();
    // A comparison takes its time there too.
    until(|| {
        rig.machine.fill_to(Percent::FULL);
        found(&rig).is_some()
    });
    assert_eq!((found(&rig), alert(&rig)), (Some(8), None), "{}", told(&rig));
    assert!(
        told(&rig).ends_with("8 sectors of its copies differed, and agree now"),
        "{}",
        told(&rig)
    );
    // Once.
    let before = passes(&rig);
    rig.restart();
    rig.engine.tick();
    assert_eq!(passes(&rig), before);
    rig.check();
}
