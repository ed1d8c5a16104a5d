//! Pools that get more room because their disks have become larger.

use cistern_host::memory::MemoryHost;
use cistern_model::{Bytes, ErrorKind, Job, JobState, Layers, Layout, ReplaceRequest};

use super::{LAYOUTS, NAMES, enlarge, tank, told, with};
use crate::crashes::everywhere_until;
use crate::layers::{BOTH, CHECKSUMS, ENCRYPTED, file_is_there};
use crate::support::{Rig, by, refused, serial};

fn grow(rig: &Rig) -> Job {
    let job = rig.engine.grow_pool(&by(), "tank").unwrap();
    rig.wait(&job)
}

#[test]
fn disks_that_have_grown_are_told_of_and_taken_up_when_that_is_asked_for() {
    for (layout, width) in LAYOUTS {
        let mut rig = with(layout, width);
        let before = tank(&rig);
        assert_eq!(before.growable, Bytes::ZERO, "{layout}");
        enlarge(&rig, &NAMES[..width], Bytes::gib(15));
        assert_eq!(told(&rig, "`pools grow tank` takes that up"), 1);
        let seen = rig.engine.disks().unwrap();
        let grown = seen.iter().filter(|disk| disk.grown_by == Some(Bytes::gib(5)));
        assert_eq!(grown.count(), width);
        let can = tank(&rig).growable;
        assert!(can > Bytes::gib(4), "{layout} {can}");
        let plan = rig.engine.plan_growth(&by(), "tank").unwrap();
        assert_eq!(plan.size_after, before.size.saturating_add(can));
        assert_eq!(grow(&rig).state, JobState::Succeeded);
        rig.check();
        let after = tank(&rig);
        assert_eq!((after.size, after.growable), (plan.size_after, Bytes::ZERO), "{layout}");
        assert!(rig.engine.disks().unwrap().iter().all(|disk| disk.grown_by.is_none()));
        assert_eq!(told(&rig, "takes that up"), 1);
        rig.restart();
        rig.check();
        assert_eq!((tank(&rig).size, tank(&rig).growable), (after.size, Bytes::ZERO));
        assert_eq!(
            grow(&rig).state,
            JobState::Succeeded,
            "there is nothing to do, and that is well"
        );
        assert_eq!(tank(&rig).size, after.size);
        assert_eq!(told(&rig, "takes that up"), 0);
    }
}

#[test]
fn a_disk_that_grew_alone_gives_nothing_and_it_is_said_which_holds_it_back() {
    let rig = with(Layout::Mirror, 2);
    enlarge(&rig, &["b"], Bytes::gib(15));
    assert_eq!(told(&rig, "serial-a must grow as well"), 1);
    assert_eq!(tank(&rig).growable, Bytes::ZERO);
    let before = rig.snapshot();
    let said = refused(rig.engine.grow_pool(&by(), "tank"), ErrorKind::Conflict);
    assert!(
        said.contains("has grown by 5 GiB") && said.contains("serial-a must grow as well"),
        "{said}"
    );
    assert_eq!(rig.snapshot(), before);
    // With `single` it stands alone.
    let rig = with(Layout::Single, 3);
    enlarge(&rig, &["b"], Bytes::gib(15));
    let before = tank(&rig).size;
    grow(&rig);
    rig.check();
    assert!(tank(&rig).size > before.saturating_add(Bytes::gib(4)));
}

#[test]
fn larger_disks_in_the_place_of_smaller_ones_are_taken_up_too() {
    let rig = with(Layout::Mirror, 2);
    for name in ["i", "j"] {
        rig.machine
            .change_device(&serial(name), |device| device.size = Bytes::gib(20));
    }
    for (old, new) in [("a", "i"), ("b", "j")] {
        let pair = ReplaceRequest {
            old: serial(old),
            new: serial(new),
        };
        let job = rig.engine.replace_disk(&by(), "tank", &pair).unwrap();
        assert_eq!(rig.wait(&job).state, JobState::Succeeded);
    }
    assert!(tank(&rig).growable > Bytes::gib(9));
    assert_eq!(grow(&rig).state, JobState::Succeeded);
    rig.check();
    assert!(tank(&rig).size > Bytes::gib(19));
}

#[test]
fn taking_up_what_disks_have_grown_by_can_be_asked_for_again_wherever_the_power_goes() {
    let prepare = || {
        let rig = with(Layout::Single, 3);
        enlarge(&rig, &NAMES[..3], Bytes::gib(15));
        rig
    };
    let act = |rig: &Rig| match rig.engine.grow_pool(&by(), "tank") {
        Ok(job) => rig.wait(&job).state == JobState::Succeeded,
        Err(_) => false,
    };
    everywhere_until(
        prepare,
        act,
        |_| true,
        |rig, done| {
            file_is_there(rig);
            let pool = tank(rig);
            assert!(!done || (pool.growable == Bytes::ZERO && pool.size > Bytes::gib(44)));
            assert!(pool.size.saturating_add(pool.growable) > Bytes::gib(44), "{pool:?}");
        },
    );
}

/// A mirror with these layers, of disks that have grown since.
fn grown_in(layers: Layers) -> Rig {
    let rig = crate::layers::with(layers, Layout::Mirror, &["a", "b"]);
    enlarge(&rig, &["a", "b"], Bytes::gib(15));
    rig
}

#[test]
fn layers_take_up_what_their_disk_has_grown_by_before_lvm_does() {
    for layers in [CHECKSUMS, ENCRYPTED, BOTH] {
        let mut rig = grown_in(layers);
        let before = tank(&rig);
        assert!(before.growable > Bytes::gib(4), "{before:?}");
        assert_eq!(told(&rig, "`pools grow tank` takes that up"), 1);
        let plan = rig.engine.plan_growth(&by(), "tank").unwrap();
        let programs: Vec<&str> = plan.commands.iter().map(|line| line[0].as_str()).collect();
        let of_layers = |program: &str| programs.iter().filter(|shown| **shown == program).count();
        assert_eq!(of_layers("sfdisk"), 2);
        assert_eq!(of_layers("cryptsetup"), if layers == CHECKSUMS { 0 } else { 2 });
        assert_eq!(of_layers("blkdiscard"), if layers == ENCRYPTED { 0 } else { 2 });
        assert!(
            programs.ends_with(&["pvresize", "pvresize", "lvextend"]),
            "{programs:?}"
        );
        assert_eq!(tank(&rig), before, "a plan touches nothing");
        assert_eq!(grow(&rig).state, JobState::Succeeded);
        rig.check();
        let after = tank(&rig);
        assert_eq!((after.size, after.growable), (plan.size_after, Bytes::ZERO));
        assert!(rig.engine.disks().unwrap().iter().all(|disk| disk.grown_by.is_none()));
        rig.restart();
        rig.check();
        assert_eq!((tank(&rig).size, tank(&rig).growable), (after.size, Bytes::ZERO));
        assert!(rig.engine.alerts(false).is_empty(), "{:?}", rig.engine.alerts(false));
    }
}

#[test]
fn layers_that_cannot_be_made_larger_leave_the_pool_as_it_was() {
    let rig = grown_in(BOTH);
    let before = tank(&rig);
    rig.machine.fail_next("layers.grow", MemoryHost::failure("grow"));
    let JobState::Failed { problem } = grow(&rig).state else {
        panic!("it succeeded");
    };
    assert!(problem.detail.contains("serial-a"), "{problem:?}");
    assert_eq!(tank(&rig), before);
    assert_eq!(grow(&rig).state, JobState::Succeeded);
    rig.check();
}

#[test]
fn taking_up_in_layers_can_be_asked_for_again_wherever_the_power_goes() {
    let act = |rig: &Rig| match rig.engine.grow_pool(&by(), "tank") {
        Ok(job) => rig.wait(&job).state == JobState::Succeeded,
        Err(_) => false,
    };
    everywhere_until(
        || grown_in(BOTH),
        act,
        |_| true,
        |rig, done| {
            file_is_there(rig);
            let pool = tank(rig);
            assert!(
                !done || (pool.growable == Bytes::ZERO && pool.size > Bytes::gib(14)),
                "{pool:?}"
            );
            assert!(pool.size.saturating_add(pool.growable) > Bytes::gib(14), "{pool:?}");
        },
    );
}
