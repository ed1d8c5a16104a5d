//! Deleted volumes that can be had back for a while.

use cistern_host::memory::MemoryHost;
use cistern_model::{
    Bytes, ErrorKind, EventKind, JobState, Layout, PoolChange, PoolRequest, UndeleteRequest, VolumeChange,
};
use jiff::SignedDuration;

use crate::support::{Rig, by, path, pool_request, provisioner, refused, volume_request};

/// A pool that keeps deleted volumes for an hour.
pub(crate) fn with_trash() -> Rig {
    let rig = Rig::new();
    let request = PoolRequest {
        trash_seconds: Some(3600),
        ..pool_request("tank", Layout::Mirror, &["a", "b"])
    };
    assert_eq!(rig.try_pool(&request).unwrap().state, JobState::Succeeded);
    rig
}

pub(crate) fn as_it_was() -> UndeleteRequest {
    UndeleteRequest::default()
}

#[test]
fn a_deleted_volume_is_served_to_nobody_frees_its_name_and_its_promise_and_comes_back_as_it_was() {
    let mut rig = with_trash();
    let volume = rig.make_volume("v", Bytes::gib(4));
    rig.write(volume.id, "file");
    rig.machine.hold(&path(volume.id));
    rig.engine.delete_volume(&by(), volume.id).unwrap();
    rig.check();
    refused(rig.engine.volume(&by(), volume.id), ErrorKind::NotFound);
    let pool = rig.engine.pool(&by(), "tank").unwrap();
    assert_eq!((pool.volumes, pool.trashed, pool.promised), (0, 1, Bytes::ZERO));
    assert!(pool.used > Bytes::ZERO);
    let trashed = rig.engine.trash(&by());
    assert_eq!(
        (trashed[0].id, trashed[0].name.as_str(), trashed[0].size),
        (volume.id, "v", volume.size)
    );
    assert_eq!(
        trashed[0].purged.duration_since(trashed[0].deleted),
        SignedDuration::from_hours(1)
    );
    // Asked for again it is done.
    rig.engine.delete_volume(&by(), volume.id).unwrap();
    rig.restart();
    assert_eq!(rig.engine.trash(&by()), trashed);
    rig.check();
    let back = rig.engine.undelete(&by(), volume.id, &as_it_was()).unwrap();
    assert_eq!(
        (back.id, back.name, back.clients, back.created),
        (volume.id, volume.name, volume.clients, volume.created)
    );
    assert_eq!(rig.files(volume.id), ["file"]);
    assert_eq!(
        rig.engine.undelete(&by(), volume.id, &as_it_was()).unwrap().id,
        volume.id
    );
    rig.check();
}

#[test]
fn a_volume_whose_name_was_taken_comes_back_under_another() {
    let rig = with_trash();
    let volume = rig.make_volume("v", Bytes::gib(1));
    rig.engine.delete_volume(&by(), volume.id).unwrap();
    rig.make_volume("v", Bytes::gib(2));
    let before = rig.snapshot();
    refused(
        rig.engine.undelete(&by(), volume.id, &as_it_was()),
        ErrorKind::NameTaken,
    );
    assert_eq!(rig.snapshot(), before);
    let other = UndeleteRequest {
        name: Some("again".parse().unwrap()),
    };
    assert_eq!(
        rig.engine.undelete(&by(), volume.id, &other).unwrap().name.as_str(),
        "again"
    );
    rig.check();
}

/// What is told is pasted: a name may hold what a shell takes for more than a word.
#[test]
fn the_command_that_renames_what_was_undeleted_before_has_no_name_in_it() {
    let rig = with_trash();
    let volume = rig.make_volume("v; reboot", Bytes::gib(1));
    let other = UndeleteRequest {
        name: Some("w; reboot".parse().unwrap()),
    };
    let told = refused(rig.engine.undelete(&by(), volume.id, &other), ErrorKind::Conflict);
    let command = format!("cistern volumes rename {} NAME", volume.id);
    assert!(told.ends_with(&command), "{told}");
}

#[test]
fn one_for_which_there_is_no_promise_left_does_not_come_back() {
    let rig = with_trash();
    let volume = rig.make_volume("v", Bytes::gib(6));
    rig.engine.delete_volume(&by(), volume.id).unwrap();
    rig.make_volume("w", Bytes::gib(6));
    let before = rig.snapshot();
    refused(rig.engine.undelete(&by(), volume.id, &as_it_was()), ErrorKind::NoSpace);
    let stranger = provisioner("stranger", &["tank"]);
    refused(
        rig.engine.undelete(&stranger, volume.id, &as_it_was()),
        ErrorKind::Forbidden,
    );
    refused(rig.engine.purge(&stranger, volume.id), ErrorKind::Forbidden);
    refused(rig.engine.purge(&by(), rig.volumes()[0].id), ErrorKind::NotFound);
    assert_eq!(rig.engine.trash(&stranger), []);
    assert_eq!(rig.snapshot(), before);
}

#[test]
fn after_its_time_it_is_gone_and_so_is_what_was_promised_to_nobody() {
    let rig = with_trash();
    let volume = rig.make_volume("v", Bytes::gib(1));
    rig.engine.delete_volume(&by(), volume.id).unwrap();
    rig.machine.pass(SignedDuration::from_mins(50));
    rig.engine.tick();
    assert_eq!(rig.engine.trash(&by()).len(), 1);
    rig.machine.pass(SignedDuration::from_mins(11));
    rig.engine.tick();
    assert_eq!(rig.engine.trash(&by()), []);
    assert_eq!(rig.engine.pool(&by(), "tank").unwrap().used, Bytes::ZERO);
    assert!(
        rig.engine
            .events(0, 1000)
            .iter()
            .any(|e| e.kind == EventKind::VolumePurged)
    );
    refused(rig.engine.undelete(&by(), volume.id, &as_it_was()), ErrorKind::NotFound);
    rig.check();
}

#[test]
fn a_clock_that_nothing_keeps_right_empties_no_trash() {
    let rig = with_trash();
    let volume = rig.make_volume("v", Bytes::gib(1));
    rig.engine.delete_volume(&by(), volume.id).unwrap();
    rig.machine.let_clock_drift(true);
    rig.machine.pass(SignedDuration::from_hours(24 * 3650));
    rig.engine.tick();
    assert_eq!(rig.engine.trash(&by()).len(), 1);
    rig.machine.pass(SignedDuration::from_hours(-24 * 3650));
    rig.machine.let_clock_drift(false);
    rig.engine.tick();
    assert_eq!(rig.engine.trash(&by()).len(), 1);
    rig.check();
}

#[test]
fn what_was_deleted_by_a_clock_that_was_behind_stays_for_its_time_once_the_clock_is_right() {
    let mut rig = with_trash();
    let volume = rig.make_volume("v", Bytes::gib(1));
    rig.machine.let_clock_drift(true);
    rig.engine.delete_volume(&by(), volume.id).unwrap();
    rig.restart();
    rig.machine.pass(SignedDuration::from_hours(72));
    rig.engine.tick();
    rig.machine.let_clock_drift(false);
    // It is not asked in each round.
    rig.machine.pass(SignedDuration::from_mins(30));
    rig.engine.tick();
    assert_eq!(rig.engine.trash(&by()).len(), 1);
    rig.machine.pass(SignedDuration::from_mins(50));
    rig.restart();
    rig.engine.tick();
    assert_eq!(rig.engine.trash(&by()).len(), 1);
    rig.machine.pass(SignedDuration::from_mins(11));
    rig.engine.tick();
    assert_eq!(rig.engine.trash(&by()), []);
    rig.check();
}

#[test]
fn one_that_came_back_under_its_own_name_did_not_come_back_under_another() {
    let rig = with_trash();
    let volume = rig.make_volume("v", Bytes::gib(1));
    rig.engine.delete_volume(&by(), volume.id).unwrap();
    rig.engine.undelete(&by(), volume.id, &as_it_was()).unwrap();
    let other = UndeleteRequest {
        name: Some("other".parse().unwrap()),
    };
    let why = refused(rig.engine.undelete(&by(), volume.id, &other), ErrorKind::Conflict);
    assert!(why.contains(&format!("volumes rename {} NAME", volume.id)), "{why}");
    let same = UndeleteRequest {
        name: Some("v".parse().unwrap()),
    };
    rig.engine.undelete(&by(), volume.id, &same).unwrap();
    rig.check();
}

#[test]
fn what_cannot_be_let_go_of_keeps_its_snapshots() {
    let rig = with_trash();
    let volume = rig.make_volume("v", Bytes::gib(1));
    let change = VolumeChange {
        schedule: Some("hourly=3".parse().unwrap()),
        ..VolumeChange::default()
    };
    rig.engine.change_volume(&by(), volume.id, &change).unwrap();
    rig.engine.tick();
    rig.machine.pin(&path(volume.id), true);
    rig.engine.delete_volume(&by(), volume.id).unwrap_err();
    rig.engine.purge(&by(), volume.id).unwrap_err();
    assert_eq!(rig.snapshots().len(), 1);
    rig.machine.pin(&path(volume.id), false);
    rig.engine.purge(&by(), volume.id).unwrap();
    assert_eq!(rig.snapshots(), []);
    rig.check();
}

#[test]
fn how_long_a_pool_keeps_its_trash_can_be_changed_and_holds_for_what_is_in_it() {
    let mut rig = with_trash();
    let volume = rig.make_volume("v", Bytes::gib(1));
    rig.engine.delete_volume(&by(), volume.id).unwrap();
    let to = |seconds| PoolChange {
        trash_seconds: Some(seconds),
        ..PoolChange::default()
    };
    rig.engine.change_pool(&by(), "tank", &to(100_000)).unwrap();
    rig.restart();
    assert_eq!(rig.engine.pool(&by(), "tank").unwrap().trash_seconds, 100_000);
    rig.machine.pass(SignedDuration::from_hours(2));
    rig.engine.tick();
    assert_eq!(rig.engine.trash(&by()).len(), 1);
    rig.engine.change_pool(&by(), "tank", &to(0)).unwrap();
    rig.engine.tick();
    assert_eq!(rig.engine.trash(&by()), []);
    let other = rig.make_volume("w", Bytes::gib(1));
    rig.engine.delete_volume(&by(), other.id).unwrap();
    assert_eq!(rig.engine.trash(&by()), []);
    rig.check();
}

#[test]
fn the_oldest_is_purged_first_when_space_is_short() {
    let rig = with_trash();
    let ids: Vec<_> = ["x", "y"].map(|name| rig.make_volume(name, Bytes::gib(1)).id).to_vec();
    for id in &ids {
        rig.engine.delete_volume(&by(), *id).unwrap();
    }
    let pool = rig.engine.pool(&by(), "tank").unwrap().id;
    for id in &ids {
        assert_eq!(
            rig.engine.purge_oldest(pool, "a test").unwrap().map(|v| v.id),
            Some(*id)
        );
    }
    assert_eq!(rig.engine.purge_oldest(pool, "a test").unwrap(), None);
    rig.check();
}

#[test]
fn a_pool_with_something_in_its_trash_is_not_deleted() {
    let rig = with_trash();
    let volume = rig.make_volume("v", Bytes::gib(1));
    rig.engine.delete_volume(&by(), volume.id).unwrap();
    let said = refused(rig.engine.delete_pool(&by(), "tank"), ErrorKind::Conflict);
    assert!(said.contains("trash"), "{said}");
    rig.engine.purge(&by(), volume.id).unwrap();
    rig.check();
    let job = rig.engine.delete_pool(&by(), "tank").unwrap();
    assert_eq!(rig.wait(&job).state, JobState::Succeeded);
}

#[test]
fn a_deleted_volume_that_is_still_in_use_is_in_the_trash_all_the_same() {
    let rig = with_trash();
    let volume = rig.make_volume("v", Bytes::gib(1));
    rig.machine.pin(&path(volume.id), true);
    refused(rig.engine.delete_volume(&by(), volume.id), ErrorKind::Conflict);
    assert_eq!((rig.engine.trash(&by()).len(), rig.machine.exports().len()), (1, 0));
    rig.machine.pin(&path(volume.id), false);
    rig.engine.reconcile().unwrap();
    rig.check();
    rig.engine.undelete(&by(), volume.id, &as_it_was()).unwrap();
    rig.check();
}

#[test]
fn scheduled_snapshots_come_back_with_their_volume() {
    let rig = with_trash();
    let volume = rig.make_volume("v", Bytes::gib(1));
    let change = VolumeChange {
        schedule: Some("hourly=2".parse().unwrap()),
        ..VolumeChange::default()
    };
    rig.engine.change_volume(&by(), volume.id, &change).unwrap();
    rig.engine.tick();
    rig.engine.delete_volume(&by(), volume.id).unwrap();
    assert_eq!(rig.snapshots().len(), 1);
    rig.engine.undelete(&by(), volume.id, &as_it_was()).unwrap();
    assert_eq!(rig.snapshots().len(), 1);
    rig.engine.delete_volume(&by(), volume.id).unwrap();
    rig.engine.purge(&by(), volume.id).unwrap();
    assert_eq!(rig.snapshots().len(), 0);
    rig.check();
}

#[test]
fn what_fails_on_its_way_into_the_trash_or_out_of_it_is_made_up_for() {
    for call in [
        "lvm.tag_lv",
        "exports.remove",
        "exports.set",
        "exports.release",
        "filesystems.unmount",
        "filesystems.mount",
        "lvm.remove_lv",
    ] {
        for after in [false, true] {
            let rig = with_trash();
            let volume = rig.make_volume("v", Bytes::gib(1));
            rig.write(volume.id, "file");
            let arm = || {
                if after {
                    rig.machine.fail_after_next(call, MemoryHost::failure(call));
                } else {
                    rig.machine.fail_next(call, MemoryHost::failure(call));
                }
            };
            arm();
            if rig.engine.delete_volume(&by(), volume.id).is_err() {
                rig.engine.delete_volume(&by(), volume.id).unwrap();
            }
            rig.engine.reconcile().unwrap();
            rig.check();
            arm();
            if rig.engine.undelete(&by(), volume.id, &as_it_was()).is_err() {
                let _ = rig.engine.undelete(&by(), volume.id, &as_it_was());
            }
            // What no call before has met may fail yet.
            for _ in 0..3 {
                let _ = rig.engine.reconcile();
            }
            assert_eq!(rig.files(volume.id), ["file"], "{call} {after}");
            rig.check();
            if rig.engine.delete_volume(&by(), volume.id).is_err() {
                rig.engine.delete_volume(&by(), volume.id).unwrap();
            }
            arm();
            for _ in 0..4 {
                let _ = rig.engine.purge(&by(), volume.id);
            }
            assert_eq!(rig.engine.trash(&by()), [], "{call} {after}");
            let _ = rig.engine.reconcile();
            rig.check();
        }
    }
}

#[test]
fn the_same_create_after_a_deletion_makes_a_new_volume() {
    let rig = with_trash();
    let volume = rig.make_volume("v", Bytes::gib(1));
    rig.engine.delete_volume(&by(), volume.id).unwrap();
    let made = rig
        .engine
        .create_volume(&by(), &volume_request("v", Bytes::gib(1)))
        .unwrap();
    assert!(made.created && made.object.id != volume.id);
    rig.check();
}
