//! What is mended by itself, and when it is looked at again.

use std::time::{Duration, Instant};

use cistern_host::memory::MemoryHost;
use cistern_model::{Bytes, DiskState, Job, JobState, Layout, Percent, PoolState};

use crate::replace::{disk_state, lies_on, pair, with};
use crate::support::{Rig, by, machine_with, path, pool_request, serial};

/// Waits until the machine was asked for this, of this part of a pool.
#[track_caller]
fn until_asked(rig: &Rig, call: &str, part: &str) {
    let deadline = Instant::now() + Duration::from_secs(20);
    let asked = |name: &String| name.starts_with(call) && name.ends_with(part);
    while !rig.machine.calls().iter().any(asked) {
        assert!(Instant::now() < deadline, "{:?}", rig.engine.jobs(&by()));
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Lets everything be filled until a job has ended.
#[track_caller]
fn fill_until_done(rig: &Rig, job: &Job) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while rig.engine.job(&by(), job.id).unwrap().ended.is_none() {
        rig.machine.fill_to(Percent::FULL);
        assert!(Instant::now() < deadline, "{:?}", rig.engine.job(&by(), job.id));
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(rig.engine.job(&by(), job.id).unwrap().state, JobState::Succeeded);
}

#[test]
fn a_disk_that_goes_while_a_spare_is_filled_is_made_up_for_by_the_next_spare() {
    let rig = Rig::on(machine_with(&["e", "f", "g"]));
    let mut request = pool_request("tank", Layout::DoubleParity, &["a", "b", "c", "d", "e"]);
    request.spares = vec![serial("f"), serial("g")];
    assert_eq!(rig.try_pool(&request).unwrap().state, JobState::Succeeded);
    rig.make_volume("v", Bytes::gib(1));
    rig.machine.fill_slowly();
    rig.machine.detach(&serial("a"));
    rig.engine.reconcile().unwrap();
    let first = rig.engine.jobs(&by())[0].clone();
    until_asked(&rig, "raids.repair_lv", "data_tmeta");
    // The one that sees it leaves it to the job.
    rig.machine.detach(&serial("b"));
    rig.engine.reconcile().unwrap();
    assert_eq!(rig.engine.jobs(&by())[0].id, first.id);
    fill_until_done(&rig, &first);
    rig.engine.tick();
    let second = rig.engine.jobs(&by())[0].clone();
    assert_ne!(second.id, first.id, "{:?}", rig.engine.pool(&by(), "tank"));
    fill_until_done(&rig, &second);
    rig.engine.reconcile().unwrap();
    rig.check();
    let pool = rig.engine.pool(&by(), "tank").unwrap();
    assert_eq!(pool.disks, ["c", "d", "e", "f", "g"].map(serial));
    assert!(!lies_on(&rig, "a") && !lies_on(&rig, "b"));
}

#[test]
fn a_spare_that_cannot_take_a_place_is_tried_again_and_not_by_each_look() {
    let rig = Rig::with_pool();
    rig.engine.add_spare(&by(), "tank", &serial("d")).unwrap();
    for _ in 0..2 {
        rig.machine.fail_next("lvm.tag_vg", MemoryHost::failure("tag_vg"));
    }
    let tried = |rig: &Rig| {
        let calls = rig.machine.calls();
        calls.iter().filter(|call| call.starts_with("lvm.tag_vg")).count()
    };
    rig.machine.detach(&serial("a"));
    rig.engine.reconcile().unwrap();
    let before = tried(&rig);
    rig.engine.tick();
    assert_eq!(tried(&rig), before + 1, "what failed once");
    rig.engine.tick();
    assert_eq!(tried(&rig), before + 1, "nothing is different");
    rig.engine.reconcile().unwrap();
    crate::crashes::wait_for_jobs(&rig);
    rig.engine.reconcile().unwrap();
    rig.check();
    assert!(lies_on(&rig, "d") && !lies_on(&rig, "a"));
}

#[test]
fn an_image_that_fails_in_a_pool_that_lacks_another_is_noticed_and_asked_back_once() {
    let rig = with(Layout::DoubleParity, &["a", "b", "c", "d", "small"]);
    rig.machine.detach(&serial("a"));
    rig.engine.reconcile().unwrap();
    rig.engine.look_at_raids().unwrap();
    rig.machine.fail_images_on(&serial("c"));
    let looked = |rig: &Rig| {
        let before = rig.machine.calls().len();
        rig.engine.look_at_raids().unwrap();
        let calls = rig.machine.calls().split_off(before);
        calls.iter().any(|call| call.starts_with("lvm.state"))
    };
    let reason = |rig: &Rig| rig.engine.pool(&by(), "tank").unwrap().reason.unwrap_or_default();
    assert!(looked(&rig));
    // Once may be chance, also in a pool that lacks another.
    assert_eq!(reason(&rig), "1 of its 5 disks cannot be found: serial-a");
    assert!(!looked(&rig));
    rig.machine.fail_images_on(&serial("c"));
    assert!(looked(&rig));
    assert!(reason(&rig).contains("disk serial-c gave errors"), "{}", reason(&rig));
    assert!(!looked(&rig) && !looked(&rig));
}

#[test]
fn a_disk_that_was_replaced_while_another_went_leaves_once_that_one_is_back() {
    let rig = Rig::on(machine_with(&["e"]));
    rig.make_pool("tank", Layout::StripeMirror, &["a", "b", "c", "d"]);
    let volume = rig.make_volume("v", Bytes::gib(1));
    rig.machine.write_file(&path(volume.id), "file", Bytes::mib(5)).unwrap();
    rig.machine.fill_slowly();
    let job = rig.engine.replace_disk(&by(), "tank", &pair("a", "e")).unwrap();
    until_asked(&rig, "raids.replace_image", "data_tmeta");
    rig.machine.fill_to(Percent::FULL);
    until_asked(&rig, "raids.replace_image", "data_tdata");
    rig.machine.detach(&serial("c"));
    rig.engine.reconcile().unwrap();
    fill_until_done(&rig, &job);
    // LVM takes nothing out of a group that lacks a disk.
    let pool = rig.engine.pool(&by(), "tank").unwrap();
    assert_eq!(pool.state, PoolState::Degraded);
    assert!(lies_on(&rig, "e") && !lies_on(&rig, "a"));
    assert!(matches!(disk_state(&rig, "a"), DiskState::InPool { .. }));
    let mut rig = rig;
    rig.machine.attach(&serial("c"));
    for _ in 0..3 {
        rig.engine.reconcile().unwrap();
        crate::crashes::wait_for_jobs(&rig);
    }
    for again in [false, true] {
        if again {
            rig.restart();
        }
        rig.check();
        let pool = rig.engine.pool(&by(), "tank").unwrap();
        assert_eq!(pool.disks, ["b", "c", "d", "e"].map(serial));
        assert_eq!(disk_state(&rig, "a"), DiskState::Available);
        assert_eq!(rig.files(volume.id), ["file"]);
    }
}
