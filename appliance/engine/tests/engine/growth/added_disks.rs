//! Pools that get more room by further disks.

use cistern_host::memory::MemoryHost;
use cistern_model::{
    AddDisksRequest, Bytes, DiskState, ErrorKind, GrowthPlan, Job, JobKind, JobState, Layout, Percent, Pool, PoolState,
};

use super::{LAYOUTS, NAMES, enlarge, tank, told, with};
use crate::crashes::everywhere_until;
use crate::layers::file_is_there;
use crate::support::{Rig, by, refused, serial};

fn disks(names: &[&str]) -> AddDisksRequest {
    AddDisksRequest {
        disks: names.iter().map(|name| serial(name)).collect(),
    }
}

fn add(rig: &Rig, names: &[&str]) -> Job {
    let job = rig.engine.add_disks(&by(), "tank", &disks(names)).unwrap();
    rig.wait(&job)
}

/// The commands of a plan without LVM's configuration and the group's name.
fn shown(plan: &GrowthPlan, pool: &Pool) -> Vec<String> {
    let words = |line: &Vec<String>| {
        let own = line.iter().enumerate().filter(|(n, _)| ![1, 2].contains(n));
        let own: Vec<&str> = own.map(|(_, word)| word.as_str()).collect();
        own.join(" ").replace(&pool.id.to_string(), "VG")
    };
    plan.commands.iter().map(words).collect()
}

#[test]
fn a_pool_of_any_layout_grows_by_a_further_group_as_it_was_planned() {
    for (layout, width) in LAYOUTS {
        let mut rig = with(layout, width);
        let before = tank(&rig);
        let more = &NAMES[width..2 * width];
        let plan = rig.engine.plan_disks(&by(), "tank", &disks(more)).unwrap();
        assert_eq!((plan.size, plan.groups.len()), (before.size, 1));
        assert_eq!(tank(&rig), before, "a plan touches nothing");
        assert_eq!(add(&rig, more).state, JobState::Succeeded, "{layout}");
        rig.check();
        let after = tank(&rig);
        assert_eq!(after.size, plan.size_after, "{layout}");
        // All but what the larger metadata needs.
        let twice = before.size.saturating_mul(2);
        assert!(
            after.size >= twice.saturating_sub(Bytes::mib(8)) && after.size <= twice.saturating_add(Bytes::mib(500)),
            "{layout}: {} to {}",
            before.size,
            after.size
        );
        assert_eq!((after.disks.len(), after.growable), (2 * width, Bytes::ZERO));
        assert_eq!(told(&rig, "pool tank has grown from"), 1);
        rig.restart();
        rig.check();
        assert_eq!(tank(&rig).size, after.size);
        assert_eq!(rig.files(rig.volumes()[0].id), ["file"]);
        // The same request again is the same.
        assert_eq!(add(&rig, more).state, JobState::Succeeded);
        assert_eq!(tank(&rig).size, after.size);
    }
}

#[test]
fn the_plan_shows_the_commands_and_what_is_to_be_known() {
    let rig = with(Layout::Mirror, 2);
    let pool = tank(&rig);
    let plan = rig.engine.plan_disks(&by(), "tank", &disks(&["d", "c"])).unwrap();
    assert_eq!(
        shown(&plan, &pool),
        [
            "vgchange --addtag cistern.coming=1/serial-c --addtag cistern.coming=1/serial-d VG",
            "vgextend --metadatasize 64m --zero y VG /dev/vdc",
            "vgextend --metadatasize 64m --zero y VG /dev/vdd",
            "lvextend --extents +2537 VG/data /dev/vdc /dev/vdd",
            "vgchange --addtag cistern.disk=1/serial-c --addtag cistern.disk=1/serial-d --deltag cistern.coming=1/serial-c \
             --deltag cistern.coming=1/serial-d VG",
        ]
    );
    assert!(plan.warnings[0].contains("2 disks"), "{:?}", plan.warnings);
    enlarge(&rig, &["a", "b"], Bytes::gib(12));
    let plan = rig.engine.plan_growth(&by(), "tank").unwrap();
    assert_eq!(
        shown(&plan, &pool),
        [
            "pvresize /dev/vda",
            "pvresize /dev/vdb",
            "lvextend --extents +512 VG/data /dev/vda /dev/vdb"
        ]
    );
}

#[test]
fn what_lvm_cannot_do_is_refused_with_the_reason_and_nothing_is_touched() {
    for (layout, width, named, why) in [
        (Layout::Mirror, 2, &["c"][..], "in pairs, and 1 were named"),
        (Layout::StripeMirror, 4, &["e", "f"], "Unable to convert stacked volume"),
        (Layout::Parity, 3, &["d"], "only by 3 further disks at once"),
        (Layout::DoubleParity, 5, &["f", "g"], "only by 5 further disks at once"),
        (Layout::Single, 1, &[], "name at least one disk"),
        (Layout::Single, 1, &["b", "b"], "named twice"),
    ] {
        let rig = with(layout, width);
        let before = rig.snapshot();
        let said = refused(rig.engine.add_disks(&by(), "tank", &disks(named)), ErrorKind::Invalid);
        assert!(said.contains(why), "{said}");
        refused(rig.engine.plan_disks(&by(), "tank", &disks(named)), ErrorKind::Invalid);
        assert_eq!(rig.snapshot(), before);
        rig.check();
    }
    let rig = with(Layout::Single, 1);
    rig.make_pool("other", Layout::Single, &["c"]);
    rig.machine.change_device(&serial("b"), |device| {
        device.signatures.push(cistern_host::memory::signature("xfs"));
    });
    let before = rig.snapshot();
    for (named, kind) in [
        ("b", ErrorKind::DiskInUse),
        ("c", ErrorKind::DiskInUse),
        ("z", ErrorKind::NotFound),
    ] {
        refused(rig.engine.add_disks(&by(), "tank", &disks(&[named])), kind);
    }
    refused(rig.engine.add_disks(&by(), "none", &disks(&["d"])), ErrorKind::NotFound);
    assert_eq!(rig.snapshot(), before);
}

#[test]
fn a_pool_that_is_not_whole_or_busy_gets_no_disks() {
    let rig = with(Layout::Mirror, 2);
    rig.machine.fill_slowly();
    let job = rig
        .engine
        .add_disks(&by(), "tank", &disks(&["c", "d", "e", "f"]))
        .unwrap();
    // The second pair waits until the first is filled.
    let waits = || rig.machine.calls().iter().any(|call| call.starts_with("lvm.extend_lv"));
    while !waits() {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let again = rig
        .engine
        .add_disks(&by(), "tank", &disks(&["d", "c", "f", "e"]))
        .unwrap();
    assert_eq!((again.id, again.kind), (job.id, JobKind::AddDisks));
    refused(
        rig.engine.add_disks(&by(), "tank", &disks(&["g", "h"])),
        ErrorKind::Conflict,
    );
    refused(rig.engine.grow_pool(&by(), "tank"), ErrorKind::Conflict);
    refused(rig.engine.delete_pool(&by(), "tank"), ErrorKind::Conflict);
    rig.machine.fill_to(Percent::from(50.0));
    rig.machine.fill_to(Percent::FULL);
    assert_eq!(rig.wait(&job).state, JobState::Succeeded);
    rig.machine.detach(&serial("a"));
    rig.engine.reconcile().unwrap();
    refused(
        rig.engine.add_disks(&by(), "tank", &disks(&["g", "h"])),
        ErrorKind::Unavailable,
    );
    refused(rig.engine.grow_pool(&by(), "tank"), ErrorKind::Unavailable);
}

#[test]
fn the_metadata_of_a_pool_that_grew_can_grow_with_it() {
    for (layout, width) in LAYOUTS {
        let rig = with(layout, width);
        let size = || {
            rig.machine
                .host()
                .thin
                .status(&tank(&rig).id.to_string(), "data")
                .unwrap()
                .metadata_size
        };
        let first = size();
        add(&rig, &NAMES[width..2 * width]);
        for _ in 0..10 {
            rig.machine.set_metadata_percent(Percent::from(70.0));
            rig.engine.tick();
        }
        // What twice the data needs at most.
        assert!(
            size() >= first.saturating_add(Bytes::mib(8)),
            "{layout}: {first} to {}",
            size()
        );
        rig.check();
    }
}

#[test]
fn a_disk_that_goes_before_anything_lies_on_it_is_waited_for() {
    let rig = with(Layout::Mirror, 2);
    let before = tank(&rig).size;
    rig.machine.fail_next("lvm.extend_lv", MemoryHost::failure("extend_lv"));
    assert!(matches!(add(&rig, &["c", "d"]).state, JobState::Failed { .. }));
    rig.machine.detach(&serial("d"));
    rig.engine.reconcile().unwrap();
    assert_eq!(tank(&rig).state, PoolState::Degraded);
    assert!(tank(&rig).reason.unwrap().contains("serial-d"));
    rig.machine.attach(&serial("d"));
    rig.engine.reconcile().unwrap();
    for job in rig.engine.jobs(&by()) {
        rig.wait(&job);
    }
    rig.engine.reconcile().unwrap();
    rig.check();
    assert!(tank(&rig).size > before.saturating_add(Bytes::gib(9)));
}

#[test]
fn a_disk_that_goes_after_the_data_was_laid_on_it_is_one_of_the_pool_s() {
    let rig = with(Layout::Mirror, 2);
    let failure = MemoryHost::failure("extend_lv");
    rig.machine.fail_after_next("lvm.extend_lv", failure);
    assert!(matches!(add(&rig, &["c", "d"]).state, JobState::Failed { .. }));
    rig.machine.detach(&serial("d"));
    rig.engine.reconcile().unwrap();
    for job in rig.engine.jobs(&by()) {
        rig.wait(&job);
    }
    rig.engine.reconcile().unwrap();
    let pool = tank(&rig);
    assert!(
        pool.state == PoolState::Degraded && pool.reason.clone().unwrap().contains("1 of its 4 disks"),
        "{pool:?}"
    );
    assert!(
        rig.engine
            .alerts(false)
            .iter()
            .any(|alert| alert.message.contains("disk serial-d of pool tank"))
    );
    rig.machine.attach(&serial("d"));
    rig.engine.reconcile().unwrap();
    rig.check();
    assert_eq!(tank(&rig).disks.len(), 4);
}

#[test]
fn a_disk_on_which_something_appears_meanwhile_is_not_joined() {
    let rig = with(Layout::Single, 1);
    let found = cistern_host::memory::signature("xfs");
    rig.machine.block("lvm.tag_vg");
    let (engine, request) = (rig.engine.clone(), disks(&["b"]));
    let asked = std::thread::spawn(move || engine.add_disks(&by(), "tank", &request));
    assert!(
        rig.machine
            .wait_until_blocked("lvm.tag_vg", std::time::Duration::from_secs(10))
    );
    rig.machine
        .change_device(&serial("b"), |device| device.signatures.push(found));
    rig.machine.unblock("lvm.tag_vg");
    let job = asked.join().unwrap().unwrap();
    assert!(matches!(rig.wait(&job).state, JobState::Failed { .. }));
    assert_eq!(rig.machine.writes(&serial("b")), Vec::<String>::new());
    assert_eq!(rig.machine.violations(), Vec::<String>::new());
}

fn adding_everywhere(layout: Layout, width: usize) {
    let request = disks(&NAMES[width..2 * width]);
    let done = |rig: &Rig| {
        let pool = tank(rig);
        pool.disks.len() == 2 * width && pool.state == PoolState::Ready
    };
    let act = |rig: &Rig| match rig.engine.add_disks(&by(), "tank", &request) {
        Ok(job) => rig.wait(&job).state == JobState::Succeeded,
        Err(_) => false,
    };
    everywhere_until(
        || with(layout, width),
        act,
        |_| true,
        |rig, was_done| {
            file_is_there(rig);
            assert!(!was_done || done(rig), "it was done and is not");
            let blank = |name: &&str| {
                let disks = rig.engine.disks().unwrap();
                disks
                    .iter()
                    .any(|d| d.id == serial(name) && d.state == DiskState::Available)
            };
            assert!(
                done(rig) || NAMES[width..2 * width].iter().all(blank),
                "neither finished nor not begun"
            );
        },
    );
}

#[test]
fn adding_a_pair_to_a_mirror_is_finished_or_not_begun_wherever_the_power_goes() {
    adding_everywhere(Layout::Mirror, 2);
}

#[test]
fn adding_three_disks_to_a_parity_is_finished_or_not_begun_wherever_the_power_goes() {
    adding_everywhere(Layout::Parity, 3);
}
