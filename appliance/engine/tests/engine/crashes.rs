//! A power cut at every step of every operation, and at every step of the start after it: what was answered is there, what
//! was not is finished or gone, and nothing else was touched.

use cistern_engine::EngineError;
use cistern_host::memory::{Cut, MemoryHost};
use cistern_model::{
    Bytes, DiskId, DiskState, ErrorKind, EventKind, GroupSnapshotRequest, JobState, Layout, PoolState, ReplaceRequest,
    SnapshotRequest, VolumeChange, VolumeSource,
};

use crate::changes::{labels, to_size};
use crate::clones::of;
use crate::rollback::to;
use crate::support::{Rig, by, client, path, pool_request, refused, serial, volume_request};
use crate::trash::{as_it_was, with_trash};

const CUTS: [Cut; 3] = [Cut::Before, Cut::Midway, Cut::After];

/// Cuts the power at each change that `act` makes, and then at each change of the start that follows, until `act` gets
/// through. `prepare` makes what is there before; `judge` says whether what came of it is allowed, given whether `act`
/// had said that it was done.
pub(crate) fn everywhere(prepare: impl Fn() -> Rig, act: impl Fn(&Rig) -> bool, judge: impl Fn(&Rig, bool)) {
    everywhere_until(prepare, act, |_| true, judge);
}

/// The same where what was interrupted may go on in a job; `whole` says whether all is to be well once that has ended.
pub(crate) fn everywhere_until(
    prepare: impl Fn() -> Rig,
    act: impl Fn(&Rig) -> bool,
    whole: impl Fn(&Rig) -> bool,
    judge: impl Fn(&Rig, bool),
) {
    let mut tried = 0;
    for cut in CUTS {
        for at in 1.. {
            let mut dark = false;
            for again in 0.. {
                let mut rig = prepare();
                let before = rig.volumes();
                rig.machine.cut_power_at(at, cut);
                let done = act(&rig);
                dark = rig.machine.is_dark();
                rig.power_cycle();
                let mut dark_again = false;
                if again > 0 {
                    rig.machine.cut_power_at(again, cut);
                    let started = rig.engine.start();
                    let goes_on = wait_for_jobs(&rig);
                    dark_again = rig.machine.is_dark();
                    assert!(started.is_err() || !dark_again || goes_on);
                    rig.power_cycle();
                }
                rig.engine.start().unwrap();
                if wait_for_jobs(&rig) {
                    rig.engine.reconcile().unwrap();
                }
                if whole(&rig) {
                    rig.check();
                }
                rig.check_exports_before_nfs();
                judge(&rig, done);
                // Whatever was asked for can be asked for again, and then it is done.
                assert!(act(&rig), "{cut:?} at {at}: it cannot be asked for again");
                rig.check();
                for volume in before {
                    if let Ok(now) = rig.engine.volume(&by(), volume.id) {
                        assert!(now.size >= volume.size && now.created == volume.created);
                    }
                }
                tried += 1;
                if again > 0 && !dark_again {
                    break;
                }
            }
            if !dark {
                break;
            }
        }
    }
    assert!(tried > 20, "only {tried} cuts were tried");
}

/// Waits for what goes on by itself; whether there was anything.
pub(crate) fn wait_for_jobs(rig: &Rig) -> bool {
    let jobs = rig.engine.jobs(&by());
    jobs.iter().for_each(|job| drop(rig.wait(job)));
    !jobs.is_empty()
}

/// A pool with two volumes, the first with a file.
fn with_volumes() -> Rig {
    let rig = Rig::with_pool();
    let kept = rig.make_volume("kept", Bytes::gib(1));
    rig.machine.write_file(&path(kept.id), "file", Bytes::mib(5)).unwrap();
    rig.make_volume("other", Bytes::gib(1));
    rig
}

fn kept_is_whole(rig: &Rig) {
    let kept = rig.volumes().into_iter().find(|v| v.name.as_str() == "kept").unwrap();
    assert_eq!(
        rig.machine.files(&path(kept.id)),
        Some(vec![("file".to_owned(), Bytes::mib(5))])
    );
}

fn names(rig: &Rig) -> Vec<String> {
    let mut names: Vec<String> = rig.volumes().into_iter().map(|v| v.name.to_string()).collect();
    names.sort();
    names
}

fn pool_everywhere(layout: Layout, disks: &[&str]) {
    let request = pool_request("tank", layout, disks);
    let act = |rig: &Rig| match rig.engine.create_pool(&by(), &request) {
        Ok(cistern_engine::PoolCreation::Exists(_)) => true,
        Ok(cistern_engine::PoolCreation::Started(job)) => rig.wait(&job).state == JobState::Succeeded,
        Err(_) => false,
    };
    everywhere(Rig::new, act, |rig, done| match rig.engine.pool(&by(), "tank") {
        Ok(pool) => assert_eq!(pool.state, PoolState::Ready),
        Err(_) => {
            assert!(!done);
            for name in ["a", "b", "c", "d", "small"] {
                wipe_bare_label(rig, &serial(name), || rig.engine.create_pool(&by(), &request).map(drop));
            }
        }
    });
}

/// A disk is blank, or LVM wrote its label when the power went, and nothing says whose that is: then what is asked for is
/// refused with the way out, which is taken.
pub(crate) fn wipe_bare_label(rig: &Rig, disk: &DiskId, ask: impl Fn() -> Result<(), EngineError>) {
    let disks = rig.engine.disks().unwrap();
    let disk = disks.into_iter().find(|listed| listed.id == *disk).unwrap();
    let found: Vec<&str> = disk.signatures.iter().map(|found| found.kind.as_str()).collect();
    match (&disk.state, &found[..]) {
        (DiskState::Available, []) => {}
        (DiskState::HasData, ["LVM2_member"]) => {
            let said = refused(ask(), ErrorKind::DiskInUse);
            let way = format!("`cistern disks wipe {}`", disk.id);
            assert!(said.contains("LVM2_member") && said.contains(&way), "{said}");
            rig.engine.wipe_disk(&by(), &disk.id, None).unwrap();
        }
        _ => panic!("{disk:?}"),
    }
}

#[test]
fn making_a_mirror_of_two_pairs_and_an_odd_disk() {
    pool_everywhere(Layout::Mirror, &["a", "b", "c", "d", "small"]);
}

#[test]
fn making_a_pool_of_three_single_disks() {
    pool_everywhere(Layout::Single, &["a", "c", "small"]);
}

#[test]
fn making_a_stripe_mirror() {
    pool_everywhere(Layout::StripeMirror, &["a", "b", "c", "d", "small"]);
}

#[test]
fn making_a_double_parity() {
    pool_everywhere(Layout::DoubleParity, &["a", "b", "c", "d", "small"]);
}

#[test]
fn making_a_volume() {
    let act = |rig: &Rig| {
        rig.engine
            .create_volume(&by(), &volume_request("new", Bytes::gib(2)))
            .is_ok()
    };
    everywhere(with_volumes, act, |rig, done| {
        kept_is_whole(rig);
        let there = names(rig).contains(&"new".to_owned());
        assert!(there || !done, "it was answered and is gone");
    });
}

#[test]
fn deleting_a_volume() {
    let act = |rig: &Rig| match rig.volumes().into_iter().find(|v| v.name.as_str() == "other") {
        Some(volume) => rig.engine.delete_volume(&by(), volume.id).is_ok(),
        None => true,
    };
    everywhere(with_volumes, act, |rig, done| {
        kept_is_whole(rig);
        assert!(!done || names(rig) == ["kept"], "it was deleted and is back");
    });
}

#[test]
fn letting_a_client_in_and_keeping_one_out() {
    let (new, old) = (client("10.0.0.2"), client("10.0.0.1"));
    let act = |rig: &Rig| {
        let id = rig.volumes()[0].id;
        rig.engine.add_client(&by(), id, new).is_ok() && rig.engine.remove_client(&by(), id, old).is_ok()
    };
    everywhere(with_volumes, act, |rig, done| {
        kept_is_whole(rig);
        let clients = rig.volumes()[0].clients.clone();
        let allowed = [vec![old], vec![old, new], vec![new]];
        assert!(allowed.contains(&clients));
        assert!(!done || clients == [new]);
    });
}

#[test]
fn expanding_renaming_and_labelling_a_volume() {
    let change = VolumeChange {
        name: Some("more".parse().unwrap()),
        labels: Some(labels(&[("a", "b")])),
        ..to_size(Bytes::gib(3))
    };
    let other = |rig: &Rig| rig.volumes().into_iter().find(|v| v.name.as_str() != "kept").unwrap();
    let act = |rig: &Rig| rig.engine.change_volume(&by(), other(rig).id, &change).is_ok();
    everywhere(with_volumes, act, |rig, done| {
        kept_is_whole(rig);
        let now = other(rig);
        assert!(!done || (now.size == Bytes::gib(3) && now.name.as_str() == "more"));
        assert!(now.size == Bytes::gib(3) || now.size == Bytes::gib(1));
    });
}

#[test]
fn making_and_deleting_a_snapshot() {
    let request = SnapshotRequest {
        name: "s".parse().unwrap(),
    };
    let act = |rig: &Rig| {
        let id = rig.volumes()[0].id;
        let Ok(made) = rig.engine.create_snapshot(&by(), id, &request) else {
            return false;
        };
        let id = made.object.id;
        rig.engine.serve_snapshot(&by(), id, &[client("10.0.0.9")]).is_ok()
            && rig.engine.delete_snapshot(&by(), id).is_ok()
    };
    everywhere(with_volumes, act, |rig, done| {
        kept_is_whole(rig);
        assert!(!done || rig.snapshots().is_empty(), "it was deleted and is back");
    });
}

#[test]
fn making_snapshots_of_several_volumes() {
    let act = |rig: &Rig| {
        let request = GroupSnapshotRequest {
            name: "g".parse().unwrap(),
            volumes: rig.volumes().iter().map(|v| v.id).collect(),
        };
        rig.engine.create_group_snapshot(&by(), &request).is_ok()
    };
    everywhere(with_volumes, act, |rig, done| {
        kept_is_whole(rig);
        let made = rig.snapshots().len();
        assert!(made == 2 || (made == 0 && !done), "{made} were made");
    });
}

#[test]
fn cloning_a_volume() {
    let act = |rig: &Rig| {
        let Some(kept) = rig.volumes().into_iter().find(|v| v.name.as_str() == "kept") else {
            return false;
        };
        let request = of(VolumeSource::Volume(kept.id), "clone", Bytes::gib(2));
        rig.engine.create_volume(&by(), &request).is_ok()
    };
    everywhere(with_volumes, act, |rig, done| {
        kept_is_whole(rig);
        match rig.volumes().into_iter().find(|v| v.name.as_str() == "clone") {
            Some(clone) => assert_eq!(rig.files(clone.id), ["file"]),
            None => assert!(!done, "it was answered and is gone"),
        }
    });
}

#[test]
fn rolling_a_volume_back() {
    for discard in [false, true] {
        let prepare = || {
            let rig = with_volumes();
            let kept = rig.volumes().into_iter().find(|v| v.name.as_str() == "kept").unwrap();
            rig.make_snapshot(kept.id, "s");
            rig.write(kept.id, "later");
            rig
        };
        let act = |rig: &Rig| {
            let snapshot = rig.snapshots().into_iter().find(|s| s.name.as_str() == "s").unwrap();
            rig.engine
                .roll_back(&by(), snapshot.volume, &to(snapshot.id, discard))
                .is_ok()
        };
        everywhere(prepare, act, |rig, done| {
            let kept = rig.volumes().into_iter().find(|v| v.name.as_str() == "kept").unwrap();
            let files = rig.files(kept.id);
            assert!(files == ["file"] || (files == ["file", "later"] && !done), "{files:?}");
            if !discard && files == ["file"] {
                assert!(
                    rig.snapshots()
                        .iter()
                        .any(|s| s.name.as_str().starts_with("before-rollback"))
                );
            }
        });
    }
}

#[test]
fn putting_a_volume_into_the_trash_and_taking_it_back() {
    let prepare = || {
        let rig = with_trash();
        let kept = rig.make_volume("kept", Bytes::gib(1));
        rig.machine.write_file(&path(kept.id), "file", Bytes::mib(5)).unwrap();
        rig
    };
    let act = |rig: &Rig| {
        let there = rig.volumes().first().map(|v| v.id);
        if let Some(id) = there
            && rig.engine.delete_volume(&by(), id).is_err()
        {
            return false;
        }
        let Some(trashed) = rig.engine.trash(&by()).first().cloned() else {
            return false;
        };
        rig.engine.undelete(&by(), trashed.id, &as_it_was()).is_ok()
    };
    everywhere(prepare, act, |rig, done| {
        assert_eq!(rig.volumes().len() + rig.engine.trash(&by()).len(), 1);
        assert!(!done || rig.volumes().len() == 1);
        if rig.volumes().len() == 1 {
            kept_is_whole(rig);
        }
    });
}

#[test]
fn keeping_a_schedule_and_purging_the_trash() {
    let prepare = || {
        let rig = with_trash();
        let kept = rig.make_volume("kept", Bytes::gib(1));
        rig.machine.write_file(&path(kept.id), "file", Bytes::mib(5)).unwrap();
        let other = rig.make_volume("other", Bytes::gib(1));
        let change = VolumeChange {
            schedule: Some("hourly=1".parse().unwrap()),
            ..VolumeChange::default()
        };
        for id in [kept.id, other.id] {
            rig.engine.change_volume(&by(), id, &change).unwrap();
        }
        rig.engine.tick();
        rig.engine.delete_volume(&by(), other.id).unwrap();
        rig.machine.pass(jiff::SignedDuration::from_hours(2));
        rig
    };
    let act = |rig: &Rig| {
        rig.engine.tick();
        !rig.machine.is_dark()
    };
    everywhere(prepare, act, |rig, done| {
        kept_is_whole(rig);
        assert!(!done || (rig.engine.trash(&by()).is_empty() && rig.snapshots().len() == 1));
    });
}

#[test]
fn deleting_a_pool() {
    let act = |rig: &Rig| match rig.engine.delete_pool(&by(), "tank") {
        Ok(job) => rig.wait(&job).state == JobState::Succeeded,
        Err(error) => error.kind() == ErrorKind::NotFound,
    };
    everywhere(Rig::with_pool, act, |rig, done| {
        let disks = rig.engine.disks().unwrap();
        let in_pool = disks
            .iter()
            .filter(|d| matches!(d.state, DiskState::InPool { .. }))
            .count();
        // A disk of a pool that is gone is blank, or (the power went before its label was taken off) is to be wiped.
        assert!(in_pool == 0 || (in_pool == 2 && !done), "{disks:?}");
        let blank = |name: &str| {
            disks
                .iter()
                .any(|d| d.id == serial(name) && d.state == DiskState::Available)
        };
        assert!(!done || (blank("a") && blank("b")));
    });
}

fn replacing_everywhere(layout: Layout, disks: &'static [&'static str], missing: bool) {
    let prepare = || {
        let rig = Rig::new();
        rig.make_pool("tank", layout, disks);
        let kept = rig.make_volume("kept", Bytes::gib(1));
        rig.machine.write_file(&path(kept.id), "file", Bytes::mib(5)).unwrap();
        if missing {
            rig.machine.detach(&serial("b"));
            rig.engine.reconcile().unwrap();
        }
        rig
    };
    let (old, new) = (serial("b"), serial("d"));
    let done = |rig: &Rig| {
        let pool = rig.engine.pool(&by(), "tank");
        pool.is_ok_and(|p| p.disks.contains(&new) && !p.disks.contains(&old) && p.state == PoolState::Ready)
    };
    let act = |rig: &Rig| {
        if done(rig) {
            return true;
        }
        let request = ReplaceRequest {
            old: old.clone(),
            new: new.clone(),
        };
        match rig.engine.replace_disk(&by(), "tank", &request) {
            Ok(job) => rig.wait(&job).state == JobState::Succeeded && rig.engine.reconcile().is_ok(),
            Err(_) => false,
        }
    };
    let whole = |rig: &Rig| !missing || done(rig);
    everywhere_until(prepare, act, whole, |rig, was_done| {
        kept_is_whole(rig);
        assert!(!was_done || done(rig), "it was done and is not");
        let disks = rig.engine.disks().unwrap();
        let is = |state: DiskState| disks.iter().any(|d| d.id == old && d.state == state);
        assert!(missing || !done(rig) || is(DiskState::Available), "{disks:?}");
    });
}

#[test]
fn replacing_a_disk_that_is_there() {
    replacing_everywhere(Layout::Mirror, &["a", "b"], false);
}

#[test]
fn replacing_a_disk_that_is_missing() {
    replacing_everywhere(Layout::Parity, &["a", "b", "c"], true);
}

#[test]
fn wiping_a_disk() {
    // Here the disk that is otherwise precious is the one that is named.
    for cut in CUTS {
        let mut rig = Rig::with_pool();
        rig.machine.cut_power_at(1, cut);
        assert!(rig.engine.wipe_disk(&by(), &serial("full"), None).is_err());
        rig.restart();
        assert_eq!(
            rig.engine.wipe_disk(&by(), &serial("full"), None).unwrap().state,
            DiskState::Available
        );
    }
}

#[test]
fn a_pool_that_lacks_a_disk_in_its_making_is_kept_until_the_disk_is_back() {
    let mut rig = Rig::new();
    rig.machine
        .fail_next("lvm.convert_to_thin_pool", MemoryHost::failure("convert"));
    rig.try_pool(&pool_request("tank", Layout::Mirror, &["a", "b"]))
        .unwrap();
    rig.machine.detach(&serial("b"));
    rig.restart();
    let pool = rig.engine.pool(&by(), "tank").unwrap();
    assert_eq!((pool.state, pool.missing_disks), (PoolState::Creating, 1));
    rig.machine.attach(&serial("b"));
    rig.restart();
    rig.check();
    assert!(
        rig.engine
            .events(0, 100)
            .iter()
            .any(|e| e.kind == EventKind::PoolCreated)
    );
}
