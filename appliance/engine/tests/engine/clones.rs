//! Volumes that are made of snapshots and of other volumes.

use cistern_host::memory::MemoryHost;
use cistern_model::{Bytes, ErrorKind, Layout, VolumeRequest, VolumeSource};

use crate::changes::{to_name, to_size};
use crate::support::{Rig, by, path, provisioner, refused, volume_request};

pub(crate) fn of(source: VolumeSource, name: &str, size: Bytes) -> VolumeRequest {
    VolumeRequest {
        source: Some(source),
        ..volume_request(name, size)
    }
}

#[test]
fn a_volume_made_of_a_snapshot_holds_what_that_holds_and_is_never_formatted() {
    let mut rig = Rig::with_pool();
    let volume = rig.make_volume("v", Bytes::gib(1));
    rig.write(volume.id, "old");
    let snapshot = rig.make_snapshot(volume.id, "s");
    rig.write(volume.id, "new");
    let request = of(VolumeSource::Snapshot(snapshot.id), "copy", Bytes::gib(1));
    let before = rig.machine.calls().len();
    let copy = rig.engine.create_volume(&by(), &request).unwrap().object;
    let calls = rig.machine.calls().split_off(before);
    assert!(
        !calls
            .iter()
            .any(|c| c.starts_with("filesystems.make_xfs") || c.starts_with("filesystems.set_root"))
    );
    assert_eq!(
        (rig.files(copy.id), copy.source),
        (vec!["old".to_owned()], request.source)
    );
    assert_eq!(rig.engine.pool(&by(), "tank").unwrap().promised, Bytes::gib(2));
    rig.write(copy.id, "own");
    assert_eq!(rig.files(volume.id), ["new", "old"]);
    rig.check();
    rig.restart();
    assert_eq!(rig.files(copy.id), ["old", "own"]);
    rig.check();
    let again = rig.engine.create_volume(&by(), &request).unwrap();
    assert_eq!((again.object.id, again.created), (copy.id, false));
}

#[test]
fn a_clone_and_its_source_are_deleted_in_either_order() {
    for source_first in [false, true] {
        let rig = Rig::with_pool();
        let volume = rig.make_volume("v", Bytes::gib(1));
        rig.write(volume.id, "file");
        let clone = rig
            .engine
            .create_volume(&by(), &of(VolumeSource::Volume(volume.id), "clone", Bytes::gib(1)));
        let clone = clone.unwrap().object;
        let (first, second) = if source_first {
            (volume.id, clone.id)
        } else {
            (clone.id, volume.id)
        };
        rig.engine.delete_volume(&by(), first).unwrap();
        assert_eq!(rig.files(second), ["file"]);
        rig.check();
        rig.engine.delete_volume(&by(), second).unwrap();
        rig.check();
        assert_eq!(rig.engine.pool(&by(), "tank").unwrap().used, Bytes::ZERO);
    }
}

#[test]
fn a_clone_may_be_larger_than_its_source_and_never_smaller() {
    let rig = Rig::with_pool();
    let volume = rig.make_volume("v", Bytes::gib(1));
    let snapshot = rig.make_snapshot(volume.id, "s");
    rig.engine
        .change_volume(&by(), volume.id, &to_size(Bytes::gib(2)))
        .unwrap();
    let of_volume = VolumeSource::Volume(volume.id);
    let of_snapshot = VolumeSource::Snapshot(snapshot.id);
    let before = rig.snapshot();
    refused(
        rig.engine.create_volume(&by(), &of(of_volume, "c", Bytes::gib(1))),
        ErrorKind::Invalid,
    );
    refused(
        rig.engine.create_volume(&by(), &of(of_snapshot, "c", Bytes::mib(500))),
        ErrorKind::Invalid,
    );
    refused(
        rig.engine.create_volume(&by(), &of(of_snapshot, "c", Bytes::gib(9))),
        ErrorKind::NoSpace,
    );
    assert_eq!(rig.snapshot(), before);
    let odd = Bytes::new(1_500_000_001);
    let clone = rig
        .engine
        .create_volume(&by(), &of(of_snapshot, "c", odd))
        .unwrap()
        .object;
    assert_eq!(clone.size, odd.round_up(Bytes::new(4096)));
    rig.check();
}

#[test]
fn what_cannot_be_a_source_is_refused_and_changes_nothing() {
    let rig = Rig::with_pool();
    rig.make_pool("other", Layout::Single, &["c"]);
    let volume = rig.make_volume("v", Bytes::gib(1));
    let snapshot = rig.make_snapshot(volume.id, "s");
    let before = rig.snapshot();
    let elsewhere = VolumeRequest {
        pool: "other".parse().unwrap(),
        ..of(VolumeSource::Snapshot(snapshot.id), "c", Bytes::gib(1))
    };
    refused(rig.engine.create_volume(&by(), &elsewhere), ErrorKind::Invalid);
    let none = of(
        VolumeSource::Volume(cistern_model::VolumeId::from_uuid(uuid::Uuid::nil())),
        "c",
        Bytes::gib(1),
    );
    refused(rig.engine.create_volume(&by(), &none), ErrorKind::NotFound);
    let stranger = provisioner("stranger", &["tank"]);
    let theirs = of(VolumeSource::Snapshot(snapshot.id), "c", Bytes::gib(1));
    refused(rig.engine.create_volume(&stranger, &theirs), ErrorKind::Forbidden);
    // The same name, but of nothing, or of something else.
    let same = of(VolumeSource::Volume(volume.id), "v", Bytes::gib(1));
    refused(rig.engine.create_volume(&by(), &same), ErrorKind::NameTaken);
    assert_eq!(rig.snapshot(), before);
}

#[test]
fn a_clone_whose_making_fails_is_taken_away_and_its_source_is_whole() {
    for call in [
        "lvm.create_thin_snapshot",
        "lvm.extend_thin",
        "filesystems.mount",
        "filesystems.grow_xfs",
        "exports.set",
        "lvm.tag_lv",
    ] {
        for after in [false, true] {
            let rig = Rig::with_pool();
            let volume = rig.make_volume("v", Bytes::gib(1));
            rig.write(volume.id, "file");
            if after {
                rig.machine.fail_after_next(call, MemoryHost::failure(call));
            } else {
                rig.machine.fail_next(call, MemoryHost::failure(call));
            }
            let request = of(VolumeSource::Volume(volume.id), "c", Bytes::gib(2));
            assert!(rig.engine.create_volume(&by(), &request).is_err(), "{call}");
            if rig.volumes().len() == 1 {
                rig.check();
            }
            let clone = rig.engine.create_volume(&by(), &request).unwrap().object;
            assert_eq!(rig.machine.files(&path(clone.id)).unwrap().len(), 1);
            rig.check();
        }
    }
}

#[test]
fn clones_of_each_other_and_renames_at_once_do_not_wait_for_each_other_forever() {
    let rig = Rig::with_pool();
    let ids: Vec<_> = ["a", "b"]
        .map(|name| rig.make_volume(name, Bytes::mib(300)).id)
        .to_vec();
    std::thread::scope(|scope| {
        for n in 0..6 {
            let (engine, id) = (rig.engine.clone(), ids[n % 2]);
            scope.spawn(move || {
                let request = of(VolumeSource::Volume(id), &format!("a b{n}"), Bytes::mib(300));
                engine.create_volume(&by(), &request).unwrap();
                let _ = engine.change_volume(&by(), id, &to_name(&format!("a{n}")));
            });
        }
    });
    assert_eq!(rig.volumes().len(), 8);
    rig.check();
}
