//! Volumes that become again what one of their snapshots is.

use cistern_host::memory::MemoryHost;
use cistern_model::{Bytes, ErrorKind, RollbackRequest, SnapshotId, VolumeState};

use crate::changes::to_size;
use crate::support::{Rig, by, path, provisioner, refused};

pub(crate) fn to(snapshot: SnapshotId, discard: bool) -> RollbackRequest {
    RollbackRequest { snapshot, discard }
}

#[test]
fn a_volume_is_again_what_it_was_under_the_same_id_and_what_it_held_is_kept() {
    let mut rig = Rig::with_pool();
    let volume = rig.make_volume("v", Bytes::gib(1));
    rig.write(volume.id, "old");
    let snapshot = rig.make_snapshot(volume.id, "s");
    rig.write(volume.id, "new");
    rig.machine.hold(&path(volume.id));
    let back = rig.engine.roll_back(&by(), volume.id, &to(snapshot.id, false)).unwrap();
    assert_eq!(
        (back.id, back.state, back.clients, back.export),
        (volume.id, VolumeState::Ready, volume.clients, volume.export)
    );
    assert_eq!(rig.files(volume.id), ["old"]);
    let kept: Vec<_> = rig.snapshots().into_iter().filter(|s| s.id != snapshot.id).collect();
    assert_eq!((kept.len(), kept[0].volume), (1, volume.id));
    assert!(kept[0].name.as_str().starts_with("before-rollback-"));
    rig.restart();
    rig.engine.roll_back(&by(), volume.id, &to(kept[0].id, true)).unwrap();
    assert_eq!(rig.files(volume.id), ["new", "old"]);
    assert_eq!(rig.snapshots().len(), 2);
    rig.engine.delete_snapshot(&by(), snapshot.id).unwrap();
    rig.check();
}

#[test]
fn a_volume_that_has_grown_keeps_its_size() {
    let rig = Rig::with_pool();
    let volume = rig.make_volume("v", Bytes::gib(1));
    let snapshot = rig.make_snapshot(volume.id, "s");
    rig.engine
        .change_volume(&by(), volume.id, &to_size(Bytes::gib(3)))
        .unwrap();
    let back = rig.engine.roll_back(&by(), volume.id, &to(snapshot.id, true)).unwrap();
    assert_eq!(back.size, Bytes::gib(3));
    rig.check();
}

#[test]
fn only_a_snapshot_of_its_own_will_do() {
    let rig = Rig::with_pool();
    let (one, two) = (
        rig.make_volume("one", Bytes::gib(1)),
        rig.make_volume("two", Bytes::gib(1)),
    );
    let snapshot = rig.make_snapshot(one.id, "s");
    let before = rig.snapshot();
    refused(
        rig.engine.roll_back(&by(), two.id, &to(snapshot.id, false)),
        ErrorKind::Invalid,
    );
    let none = SnapshotId::from_uuid(uuid::Uuid::nil());
    refused(
        rig.engine.roll_back(&by(), one.id, &to(none, false)),
        ErrorKind::NotFound,
    );
    let stranger = provisioner("stranger", &["tank"]);
    refused(
        rig.engine.roll_back(&stranger, one.id, &to(snapshot.id, false)),
        ErrorKind::Forbidden,
    );
    assert_eq!(rig.snapshot(), before);
}

#[test]
fn one_that_cannot_be_withdrawn_stays_as_it_is() {
    let rig = Rig::with_pool();
    let volume = rig.make_volume("v", Bytes::gib(1));
    let snapshot = rig.make_snapshot(volume.id, "s");
    rig.machine.pin(&path(volume.id), true);
    let before = rig.snapshot();
    refused(
        rig.engine.roll_back(&by(), volume.id, &to(snapshot.id, false)),
        ErrorKind::Conflict,
    );
    assert_eq!(rig.snapshot(), before);
    rig.check();
    rig.machine.pin(&path(volume.id), false);
    rig.engine.roll_back(&by(), volume.id, &to(snapshot.id, false)).unwrap();
    rig.check();
}

#[test]
fn what_fails_on_its_way_goes_on_by_asking_again_or_by_reconcile() {
    for call in [
        "lvm.tag_lv",
        "exports.remove",
        "exports.set",
        "filesystems.unmount",
        "lvm.create_thin_snapshot",
        "lvm.remove_lv",
        "lvm.rename_lv",
        "filesystems.mount",
        "filesystems.grow_xfs",
    ] {
        for (after, reconcile) in [(false, false), (false, true), (true, false), (true, true)] {
            let rig = Rig::with_pool();
            let volume = rig.make_volume("v", Bytes::gib(1));
            rig.write(volume.id, "old");
            let snapshot = rig.make_snapshot(volume.id, "s");
            rig.write(volume.id, "new");
            if after {
                rig.machine.fail_after_next(call, MemoryHost::failure(call));
            } else {
                rig.machine.fail_next(call, MemoryHost::failure(call));
            }
            let failed = rig.engine.roll_back(&by(), volume.id, &to(snapshot.id, false)).is_err();
            // What was removed is gone, and what could not be mounted is tried once more.
            assert!(
                failed || ["lvm.remove_lv", "filesystems.mount"].contains(&call),
                "{call} {after}"
            );
            if reconcile {
                rig.engine.reconcile().unwrap();
                let files = rig.files(volume.id);
                assert!(files == ["old"] || files == ["new", "old"], "{call}: {files:?}");
            }
            rig.check_state_or(&volume.name, reconcile);
            if failed {
                rig.engine.roll_back(&by(), volume.id, &to(snapshot.id, false)).unwrap();
            }
            assert_eq!(rig.files(volume.id), ["old"], "{call} {after} {reconcile}");
            rig.check();
        }
    }
}

#[test]
fn what_broke_off_half_way_goes_on_by_the_clock() {
    let rig = Rig::with_pool();
    let volume = rig.make_volume("v", Bytes::gib(1));
    rig.write(volume.id, "old");
    let snapshot = rig.make_snapshot(volume.id, "s");
    rig.write(volume.id, "new");
    rig.machine.fail_next("lvm.rename_lv", MemoryHost::failure("rename"));
    assert!(rig.engine.roll_back(&by(), volume.id, &to(snapshot.id, false)).is_err());
    rig.engine.tick();
    assert_eq!(rig.files(volume.id), ["old"]);
    rig.check();
}

#[test]
fn a_volume_does_not_become_what_cannot_be_mounted() {
    for discard in [false, true] {
        let mut rig = Rig::with_pool();
        let volume = rig.make_volume("v", Bytes::gib(1));
        rig.write(volume.id, "old");
        let (good, bad) = (
            rig.make_snapshot(volume.id, "good"),
            rig.make_snapshot(volume.id, "bad"),
        );
        rig.write(volume.id, "new");
        let pool = rig.engine.pool(&by(), "tank").unwrap().id;
        rig.machine.damage(&pool.to_string(), &bad.id.to_string());
        let before = rig.snapshot();
        let why = rig
            .engine
            .roll_back(&by(), volume.id, &to(bad.id, discard))
            .unwrap_err();
        assert!(why.problem().detail.contains("stays as it was"), "{why:?}");
        assert_eq!(rig.snapshot(), before);
        assert_eq!(rig.files(volume.id), ["new", "old"]);
        rig.restart();
        rig.check();
        rig.engine.roll_back(&by(), volume.id, &to(good.id, discard)).unwrap();
        assert_eq!(rig.files(volume.id), ["old"]);
        rig.check();
    }
}

impl Rig {
    /// After a reconcile all holds; before it only that nobody sees half of a volume.
    fn check_state_or(&self, name: &cistern_model::VolumeName, reconciled: bool) {
        if reconciled {
            self.check();
            return;
        }
        let volume = self.volumes().into_iter().find(|v| v.name == *name).unwrap();
        if volume.state == VolumeState::RollingBack {
            let exported = self.machine.exports().iter().any(|e| e.path == path(volume.id));
            assert!(!exported || self.machine.files(&path(volume.id)).is_some());
        }
    }
}
