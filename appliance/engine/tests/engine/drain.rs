//! Disks that leave a pool, and pools of one copy of which a disk is replaced.

use cistern_host::memory::{MemoryHost, disk};
use cistern_model::{
    AddDisksRequest, Bytes, DiskState, DrainRequest, ErrorKind, Job, JobState, Layout, Pool, PoolState, ReplaceRequest,
};

use crate::crashes::everywhere_until;
use crate::support::{Rig, by, path, refused, serial};

const NAMES: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

fn with(layout: Layout, width: usize) -> Rig {
    let machine = MemoryHost::new(NAMES.map(|name| disk(name, Bytes::gib(10))).to_vec());
    let rig = Rig::on(machine);
    rig.make_pool("tank", layout, &NAMES[..width]);
    let volume = rig.make_volume("v", Bytes::gib(1));
    rig.write(volume.id, "file");
    rig
}

/// Three disks of one copy, of which two have grown by enough for the third.
fn roomy() -> Rig {
    let rig = with(Layout::Single, 3);
    for name in ["b", "c"] {
        rig.machine
            .change_device(&serial(name), |device| device.size = Bytes::gib(20));
    }
    rig.engine.reconcile().unwrap();
    rig
}

fn of(name: &str) -> DrainRequest {
    DrainRequest { disk: serial(name) }
}

fn tank(rig: &Rig) -> Pool {
    rig.engine.pool(&by(), "tank").unwrap()
}

fn drain(rig: &Rig, name: &str) -> Job {
    let job = rig.engine.drain_disk(&by(), "tank", &of(name)).unwrap();
    rig.wait(&job)
}

fn state_of(rig: &Rig, name: &str) -> DiskState {
    let disks = rig.engine.disks().unwrap();
    disks.into_iter().find(|disk| disk.id == serial(name)).unwrap().state
}

fn file_is_there(rig: &Rig) {
    let volume = rig.volumes().remove(0);
    let expected = vec![("file".to_owned(), Bytes::mib(5))];
    assert_eq!(rig.machine.files(&path(volume.id)), Some(expected));
}

#[test]
fn a_disk_is_emptied_onto_the_others_and_blank_afterwards() {
    // One with a copy of the metadata, and one without.
    for leaving in ["a", "b", "c"] {
        let mut rig = with(Layout::Single, 3);
        for name in NAMES.iter().filter(|name| **name != leaving) {
            rig.machine
                .change_device(&serial(name), |device| device.size = Bytes::gib(20));
        }
        rig.engine.reconcile().unwrap();
        let before = tank(&rig);
        assert_eq!(drain(&rig, leaving).state, JobState::Succeeded, "{leaving}");
        rig.check();
        let after = tank(&rig);
        assert_eq!((after.size, after.disks.len()), (before.size, 2));
        assert!(!after.disks.contains(&serial(leaving)));
        assert_eq!(state_of(&rig, leaving), DiskState::Available);
        rig.restart();
        rig.check();
        file_is_there(&rig);
        // What is left is one like any other: it grows, and its disks can be replaced.
        let job = rig.engine.grow_pool(&by(), "tank").unwrap();
        assert_eq!(rig.wait(&job).state, JobState::Succeeded);
        rig.restart();
        rig.check();
        refused(rig.engine.drain_disk(&by(), "tank", &of(leaving)), ErrorKind::NotFound);
    }
}

#[test]
fn what_cannot_be_emptied_is_refused_with_the_numbers_or_the_way() {
    for (layout, width, why) in [
        (Layout::Mirror, 2, "`pools replace` lets another disk take the place"),
        (Layout::StripeMirror, 4, "LVM cannot take one away under a thin pool"),
        (Layout::Parity, 3, "LVM cannot take one away under a thin pool"),
        (Layout::Single, 1, "the only one of pool tank"),
    ] {
        let rig = with(layout, width);
        let before = rig.snapshot();
        let said = refused(rig.engine.drain_disk(&by(), "tank", &of("a")), ErrorKind::Invalid);
        assert!(said.contains(why), "{said}");
        refused(rig.engine.drain_disk(&by(), "tank", &of("f")), ErrorKind::NotFound);
        assert_eq!(rig.snapshot(), before);
    }
    let rig = with(Layout::Single, 3);
    let before = rig.snapshot();
    let said = refused(rig.engine.drain_disk(&by(), "tank", &of("c")), ErrorKind::NoSpace);
    assert!(
        said.contains("9.9 GiB of pool tank lie on disk serial-c") && said.contains("have room for"),
        "{said}"
    );
    assert_eq!(rig.snapshot(), before);
}

#[test]
fn a_disk_of_a_pool_of_one_copy_is_replaced_by_moving_what_lies_on_it() {
    for (width, old) in [(1, "a"), (3, "a"), (3, "c")] {
        let mut rig = with(Layout::Single, width);
        let before = tank(&rig).size;
        let pair = ReplaceRequest {
            old: serial(old),
            new: serial("e"),
        };
        let job = rig.engine.replace_disk(&by(), "tank", &pair).unwrap();
        assert_eq!(rig.wait(&job).state, JobState::Succeeded, "{old} of {width}");
        rig.check();
        assert_eq!(state_of(&rig, old), DiskState::Available);
        rig.restart();
        rig.check();
        let after = tank(&rig);
        assert_eq!((after.size, after.disks.contains(&serial("e"))), (before, true));
        file_is_there(&rig);
    }
    // One that is gone has taken what lay on it along.
    let rig = with(Layout::Single, 2);
    rig.machine.detach(&serial("a"));
    rig.engine.reconcile().unwrap();
    let pair = ReplaceRequest {
        old: serial("a"),
        new: serial("e"),
    };
    refused(rig.engine.replace_disk(&by(), "tank", &pair), ErrorKind::Unavailable);
}

#[test]
fn disks_that_were_coming_and_did_not_are_given_up_by_draining_one() {
    for gone in [false, true] {
        let mut rig = with(Layout::Mirror, 2);
        rig.machine.fail_next("lvm.extend_lv", MemoryHost::failure("extend_lv"));
        let request = AddDisksRequest {
            disks: vec![serial("c"), serial("d")],
        };
        let job = rig.engine.add_disks(&by(), "tank", &request).unwrap();
        assert!(matches!(rig.wait(&job).state, JobState::Failed { .. }));
        if gone {
            rig.machine.detach(&serial("d"));
            rig.engine.reconcile().unwrap();
            assert_eq!(tank(&rig).state, PoolState::Degraded);
        }
        assert_eq!(drain(&rig, "c").state, JobState::Succeeded);
        rig.engine.reconcile().unwrap();
        rig.check();
        assert_eq!((tank(&rig).disks.len(), state_of(&rig, "c")), (2, DiskState::Available));
        rig.restart();
        rig.check();
        assert_eq!(tank(&rig).disks.len(), 2);
    }
}

#[test]
fn what_lies_on_disks_that_came_stays_when_those_that_did_not_are_given_up() {
    let mut rig = with(Layout::Mirror, 2);
    rig.machine.fill_slowly();
    let request = AddDisksRequest {
        disks: ["c", "d", "e", "f"].map(serial).to_vec(),
    };
    let job = rig.engine.add_disks(&by(), "tank", &request).unwrap();
    while !rig.machine.calls().iter().any(|call| call.starts_with("lvm.extend_lv")) {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    rig.machine.fail_next("lvm.extend_lv", MemoryHost::failure("extend_lv"));
    rig.machine.fill_to(cistern_model::Percent::FULL);
    assert!(matches!(rig.wait(&job).state, JobState::Failed { .. }));
    refused(rig.engine.drain_disk(&by(), "tank", &of("c")), ErrorKind::Conflict);
    rig.machine.detach(&serial("f"));
    rig.engine.reconcile().unwrap();
    assert_eq!(drain(&rig, "f").state, JobState::Succeeded);
    rig.engine.reconcile().unwrap();
    rig.check();
    let pool = tank(&rig);
    assert!(pool.disks.len() == 4 && pool.size > Bytes::gib(19), "{pool:?}");
    rig.restart();
    rig.check();
}

#[test]
fn draining_a_disk_is_finished_or_not_begun_wherever_the_power_goes() {
    let done = |rig: &Rig| !tank(rig).disks.contains(&serial("a"));
    let act = |rig: &Rig| match rig.engine.drain_disk(&by(), "tank", &of("a")) {
        Ok(job) => rig.wait(&job).state == JobState::Succeeded,
        Err(error) => error.kind() == ErrorKind::NotFound,
    };
    everywhere_until(
        roomy,
        act,
        |_| true,
        |rig, was_done| {
            file_is_there(rig);
            assert!(!was_done || done(rig), "it was done and is not");
            assert!(!done(rig) || state_of(rig, "a") == DiskState::Available);
        },
    );
}

#[test]
fn replacing_a_disk_of_one_copy_is_finished_or_not_begun_wherever_the_power_goes() {
    let pair = ReplaceRequest {
        old: serial("a"),
        new: serial("e"),
    };
    let done = |rig: &Rig| tank(rig).disks.contains(&serial("e")) && !tank(rig).disks.contains(&serial("a"));
    let act = |rig: &Rig| {
        done(rig)
            || match rig.engine.replace_disk(&by(), "tank", &pair) {
                Ok(job) => rig.wait(&job).state == JobState::Succeeded && rig.engine.reconcile().is_ok(),
                Err(_) => false,
            }
    };
    everywhere_until(
        || with(Layout::Single, 2),
        act,
        |_| true,
        |rig, was_done| {
            file_is_there(rig);
            assert!(!was_done || done(rig), "it was done and is not");
            assert!(!done(rig) || state_of(rig, "a") == DiskState::Available);
        },
    );
}

/// What was broken off goes on by itself, once what it needs is there.
fn until_it_is_whole(rig: &Rig) {
    for _ in 0..3 {
        rig.engine.reconcile().unwrap();
        crate::crashes::wait_for_jobs(rig);
    }
    rig.engine.reconcile().unwrap();
    rig.check();
}

fn why_it_failed(job: &Job) -> String {
    let JobState::Failed { problem } = &job.state else {
        panic!("{job:?}")
    };
    assert_eq!(problem.kind, ErrorKind::Unavailable, "{problem:?}");
    problem.detail.clone()
}

#[test]
fn a_disk_that_is_gone_before_it_was_emptied_is_not_told_to_have_left() {
    let rig = roomy();
    rig.machine.fail_next("raids.move_off", MemoryHost::failure("move_off"));
    assert!(matches!(drain(&rig, "a").state, JobState::Failed { .. }));
    rig.machine.detach(&serial("a"));
    rig.engine.reconcile().unwrap();
    for _ in 0..2 {
        let why = why_it_failed(&drain(&rig, "a"));
        assert!(why.contains("serial-a") && why.contains("bring it back"), "{why}");
    }
    rig.machine.attach(&serial("a"));
    until_it_is_whole(&rig);
    assert!(!tank(&rig).disks.contains(&serial("a")));
    assert_eq!(state_of(&rig, "a"), DiskState::Available);
    file_is_there(&rig);
}

#[test]
fn a_disk_of_one_copy_that_is_gone_before_it_was_replaced_keeps_its_place() {
    let rig = with(Layout::Single, 2);
    let pair = ReplaceRequest {
        old: serial("a"),
        new: serial("e"),
    };
    let replace = || rig.wait(&rig.engine.replace_disk(&by(), "tank", &pair).unwrap());
    rig.machine.fail_next("raids.move_off", MemoryHost::failure("move_off"));
    assert!(matches!(replace().state, JobState::Failed { .. }));
    rig.machine.detach(&serial("a"));
    rig.engine.reconcile().unwrap();
    for _ in 0..2 {
        let why = why_it_failed(&replace());
        assert!(why.contains("serial-a") && why.contains("bring it back"), "{why}");
    }
    rig.machine.attach(&serial("a"));
    until_it_is_whole(&rig);
    assert_eq!(tank(&rig).disks, [serial("b"), serial("e")]);
    assert_eq!(state_of(&rig, "a"), DiskState::Available);
    file_is_there(&rig);
}
