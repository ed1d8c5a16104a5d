//! Snapshots: made, listed, served, deleted; several at one moment.

use cistern_engine::SnapshotFilter;
use cistern_host::memory::MemoryHost;
use cistern_model::{
    Bytes, ErrorKind, GroupSnapshotRequest, Layout, Percent, Principal, SnapshotRequest, SnapshotState, VolumeId,
    VolumeSource, VolumeState,
};
use std::path::Path;

use crate::changes::to_owner;
use crate::clones::of;
use crate::rollback::to;
use crate::support::{Rig, by, client, path, provisioner, refused, volume_request};
use crate::trash::with_trash;

fn request(name: &str) -> SnapshotRequest {
    SnapshotRequest {
        name: name.parse().unwrap(),
    }
}

fn group(name: &str, volumes: &[VolumeId]) -> GroupSnapshotRequest {
    GroupSnapshotRequest {
        name: name.parse().unwrap(),
        volumes: volumes.to_vec(),
    }
}

#[test]
fn a_snapshot_is_one_command_and_tells_what_it_is_of() {
    let mut rig = Rig::with_pool();
    let volume = rig.make_volume("v", Bytes::gib(1));
    rig.write(volume.id, "file");
    let before = rig.machine.calls().len();
    let snapshot = rig.make_snapshot(volume.id, "first, 1%");
    let calls: Vec<String> = rig.machine.calls().split_off(before);
    let names: Vec<&str> = calls.iter().map(|c| c.split(' ').next().unwrap()).collect();
    assert_eq!(names, ["thin.status", "lvm.create_thin_snapshot", "records.append"]);
    assert_eq!((snapshot.volume, snapshot.volume_name.as_str()), (volume.id, "v"));
    assert_eq!((snapshot.size, snapshot.state), (volume.size, SnapshotState::Ready));
    assert!(snapshot.volume_exists && snapshot.export.is_none() && snapshot.scheduled.is_empty());
    rig.check();
    rig.restart();
    assert_eq!(rig.snapshots(), [snapshot]);
    rig.check();
}

#[test]
fn the_same_name_again_gives_the_same_snapshot_and_another_volume_may_have_it_too() {
    let rig = Rig::with_pool();
    let (one, two) = (
        rig.make_volume("one", Bytes::gib(1)),
        rig.make_volume("two", Bytes::gib(1)),
    );
    let snapshot = rig.make_snapshot(one.id, "s");
    let again = rig.engine.create_snapshot(&by(), one.id, &request("s")).unwrap();
    assert_eq!((again.object, again.created), (snapshot.clone(), false));
    assert_ne!(rig.make_snapshot(two.id, "s").id, snapshot.id);
    let of_one = SnapshotFilter {
        volume: Some(one.id),
        ..SnapshotFilter::default()
    };
    let page = rig.engine.snapshots(&by(), &of_one, false, 10, None).unwrap();
    assert_eq!((page.items, page.next), (vec![snapshot], None));
    rig.check();
}

#[test]
fn a_list_goes_on_where_it_ended_and_shows_only_what_is_the_caller_s() {
    let rig = Rig::with_pool();
    let owner = provisioner("cluster-a", &["tank"]);
    let volume = rig
        .engine
        .create_volume(&owner, &volume_request("v", Bytes::gib(1)))
        .unwrap()
        .object;
    for name in ["a", "b", "c", "d", "e"] {
        rig.make_snapshot(volume.id, name);
    }
    let all = SnapshotFilter::default();
    let (mut seen, mut after) = (Vec::new(), None);
    loop {
        let page = rig.engine.snapshots(&owner, &all, false, 2, after).unwrap();
        seen.extend(page.items.into_iter().map(|s| s.id));
        let Some(next) = page.next else { break };
        after = Some(next.parse().unwrap());
    }
    assert_eq!(seen.len(), 5);
    let stranger = provisioner("cluster-b", &["tank"]);
    assert_eq!(
        rig.engine.snapshots(&stranger, &all, false, 10, None).unwrap().items,
        []
    );
    refused(rig.engine.snapshot(&stranger, seen[0], false), ErrorKind::Forbidden);
    refused(rig.engine.delete_snapshot(&stranger, seen[0]), ErrorKind::Forbidden);
    refused(
        rig.engine.create_snapshot(&stranger, volume.id, &request("x")),
        ErrorKind::Forbidden,
    );
}

#[test]
fn what_a_snapshot_takes_is_what_its_volume_no_longer_has() {
    let rig = Rig::with_pool();
    let volume = rig.make_volume("v", Bytes::gib(1));
    rig.write(volume.id, "file");
    let snapshot = rig.make_snapshot(volume.id, "s");
    assert_eq!(snapshot.exclusive, None);
    let size = || rig.engine.snapshot(&by(), snapshot.id, true).unwrap();
    assert_eq!(size().exclusive, Some(Bytes::ZERO));
    rig.machine.remove_file(&path(volume.id), "file");
    // The volume has it until it is trimmed.
    assert_eq!(size().exclusive, Some(Bytes::ZERO));
    let host = rig.machine.host();
    host.filesystems.trim(&path(volume.id)).unwrap();
    host.thin.settled(&volume.pool.to_string(), "data").unwrap();
    assert_eq!(size().exclusive, Some(Bytes::mib(5)));
    assert!(size().referenced > Some(Bytes::mib(5)));
}

#[test]
fn a_snapshot_outlives_its_volume_and_remembers_its_name() {
    let mut rig = Rig::with_pool();
    let volume = rig.make_volume("v", Bytes::gib(1));
    let snapshot = rig.make_snapshot(volume.id, "s");
    rig.engine.delete_volume(&by(), volume.id).unwrap();
    rig.restart();
    let left = rig.snapshots();
    assert_eq!(
        (left[0].id, left[0].volume_name.as_str(), left[0].volume_exists),
        (snapshot.id, "v", false)
    );
    let said = refused(rig.engine.delete_pool(&by(), "tank"), ErrorKind::Conflict);
    assert!(said.contains("1 snapshot"), "{said}");
    rig.engine.delete_snapshot(&by(), snapshot.id).unwrap();
    refused(rig.engine.delete_snapshot(&by(), snapshot.id), ErrorKind::NotFound);
    assert_eq!(rig.snapshots(), []);
    rig.check();
}

#[test]
fn the_snapshots_of_a_volume_that_is_given_away_go_with_it_and_stay_its_last_owner_s_when_it_is_gone() {
    for mut rig in [Rig::with_pool(), with_trash()] {
        let (one, two) = (provisioner("one", &["tank"]), provisioner("two", &["tank"]));
        let request_for_v = volume_request("v", Bytes::gib(1));
        let volume = rig.engine.create_volume(&one, &request_for_v).unwrap().object;
        let made = rig.engine.create_snapshot(&one, volume.id, &request("s")).unwrap();
        let snapshot = made.object;
        assert_eq!(snapshot.owner, one.owner);
        rig.engine
            .change_volume(&by(), volume.id, &to_owner(&two.owner))
            .unwrap();
        let is_given = |rig: &Rig| {
            let (engine, all) = (&rig.engine, SnapshotFilter::default());
            let list = |by: &Principal| engine.snapshots(by, &all, false, 10, None).unwrap().items;
            assert_eq!(list(&one), []);
            let of_two = list(&two);
            assert!(
                of_two.iter().map(|s| (s.id, &s.owner)).eq([(snapshot.id, &two.owner)]),
                "{of_two:?}"
            );
            refused(engine.snapshot(&one, snapshot.id, false), ErrorKind::Forbidden);
            refused(engine.serve_snapshot(&one, snapshot.id, &[]), ErrorKind::Forbidden);
            refused(engine.delete_snapshot(&one, snapshot.id), ErrorKind::Forbidden);
            let copy = of(VolumeSource::Snapshot(snapshot.id), "copy", snapshot.size);
            refused(engine.create_volume(&one, &copy), ErrorKind::Forbidden);
        };
        is_given(&rig);
        let again = rig.engine.create_snapshot(&two, volume.id, &request("s")).unwrap();
        assert!(!again.created && again.object.owner == two.owner, "{again:?}");
        rig.engine.roll_back(&two, volume.id, &to(snapshot.id, true)).unwrap();
        rig.restart();
        is_given(&rig);
        rig.engine.delete_volume(&two, volume.id).unwrap();
        is_given(&rig);
        for trashed in rig.engine.trash(&two) {
            rig.engine.purge(&two, trashed.id).unwrap();
        }
        is_given(&rig);
        rig.restart();
        is_given(&rig);
        assert!(!rig.snapshots()[0].volume_exists);
        rig.engine.delete_snapshot(&two, snapshot.id).unwrap();
        rig.check();
    }
}

#[test]
fn a_snapshot_is_served_read_only_over_a_restart_until_it_is_not() {
    let mut rig = Rig::with_pool();
    let volume = rig.make_volume("v", Bytes::gib(1));
    rig.write(volume.id, "file");
    let snapshot = rig.make_snapshot(volume.id, "s");
    let served = rig
        .engine
        .serve_snapshot(&by(), snapshot.id, &[client("10.0.0.9")])
        .unwrap();
    let at = served.export.unwrap().path;
    for _ in 0..2 {
        assert_eq!(rig.machine.files(Path::new(&at)).unwrap().len(), 1);
        assert!(rig.machine.write_file(Path::new(&at), "x", Bytes::mib(1)).is_err());
        rig.check();
        rig.restart();
    }
    rig.machine.hold(Path::new(&at));
    let hidden = rig.engine.serve_snapshot(&by(), snapshot.id, &[]).unwrap();
    assert_eq!(hidden.export, None);
    rig.check();
    rig.engine
        .serve_snapshot(&by(), snapshot.id, &[client("10.0.0.9")])
        .unwrap();
    rig.engine.delete_snapshot(&by(), snapshot.id).unwrap();
    rig.check();
}

#[test]
fn none_is_made_in_a_pool_that_is_nearly_full_or_of_what_is_not_served() {
    let rig = Rig::with_pool();
    let volume = rig.make_volume("v", Bytes::gib(1));
    rig.machine.set_metadata_percent(Percent::from(80.0));
    let before = rig.snapshot();
    refused(
        rig.engine.create_snapshot(&by(), volume.id, &request("s")),
        ErrorKind::NoSpace,
    );
    refused(
        rig.engine.create_group_snapshot(&by(), &group("s", &[volume.id])),
        ErrorKind::NoSpace,
    );
    assert_eq!(rig.snapshot(), before);
    for volumes in [vec![], vec![volume.id, volume.id], vec![volume.id; 33]] {
        refused(
            rig.engine.create_group_snapshot(&by(), &group("s", &volumes)),
            ErrorKind::Invalid,
        );
    }
    assert_eq!(rig.snapshot(), before);
}

#[test]
fn a_group_s_snapshots_are_made_while_all_its_volumes_stand_still() {
    let rig = Rig::with_pool();
    rig.make_pool("other", Layout::Single, &["c"]);
    let one = rig.make_volume("one", Bytes::gib(1));
    let two = rig.make_volume("two", Bytes::gib(1));
    let three = cistern_model::VolumeRequest {
        pool: "other".parse().unwrap(),
        ..volume_request("three", Bytes::gib(1))
    };
    let three = rig.engine.create_volume(&by(), &three).unwrap().object;
    let ids = [one.id, two.id, three.id];
    let before = rig.machine.calls().len();
    let made = rig.engine.create_group_snapshot(&by(), &group("g", &ids)).unwrap();
    let calls: String = rig
        .machine
        .calls()
        .split_off(before)
        .iter()
        .filter_map(|c| match c.split(' ').next().unwrap() {
            "filesystems.freeze" => Some('f'),
            "lvm.create_thin_snapshot" => Some('s'),
            "filesystems.thaw" => Some('t'),
            "lvm.tag_lv" => Some('r'),
            _ => None,
        })
        .collect();
    assert_eq!(calls, "fffsssttt".to_owned() + "rrr");
    assert_eq!(made.object.len(), 3);
    assert!(
        made.object
            .iter()
            .all(|s| s.group == made.object[0].group && s.group.is_some())
    );
    let again = rig.engine.create_group_snapshot(&by(), &group("g", &ids)).unwrap();
    assert!(!again.created && again.object.len() == 3);
    refused(
        rig.engine.create_group_snapshot(&by(), &group("g", &ids[..2])),
        ErrorKind::NameTaken,
    );
    rig.make_snapshot(one.id, "alone");
    refused(
        rig.engine.create_group_snapshot(&by(), &group("alone", &ids)),
        ErrorKind::NameTaken,
    );
    rig.check();
}

#[test]
fn a_group_that_cannot_be_made_whole_leaves_nothing_and_nothing_stays_frozen() {
    for call in ["filesystems.freeze", "lvm.create_thin_snapshot", "filesystems.thaw"] {
        for (after, n) in [(false, 1), (true, 1), (false, 2), (true, 2)] {
            let rig = Rig::with_pool();
            let ids = [
                rig.make_volume("one", Bytes::gib(1)).id,
                rig.make_volume("two", Bytes::gib(1)).id,
            ];
            for _ in 0..n {
                if after {
                    rig.machine.fail_after_next(call, MemoryHost::failure(call));
                } else {
                    rig.machine.fail_next(call, MemoryHost::failure(call));
                }
            }
            let made = rig.engine.create_group_snapshot(&by(), &group("g", &ids));
            if call == "filesystems.thaw" {
                // What failed twice is not frozen if it only said so.
                assert!(made.is_ok());
                if n == 2 && !after {
                    continue;
                }
            } else {
                refused(made, ErrorKind::Internal);
                assert_eq!(rig.snapshots(), []);
            }
            rig.check();
        }
    }
}

#[test]
fn a_group_of_which_something_could_not_be_taken_away_is_made_when_it_is_asked_for_again() {
    let rig = Rig::with_pool();
    let ids = [
        rig.make_volume("one", Bytes::gib(1)).id,
        rig.make_volume("two", Bytes::gib(1)).id,
    ];
    let request = group("g", &ids);
    let call = "lvm.create_thin_snapshot";
    rig.machine.fail_after_next(call, MemoryHost::failure(call));
    for _ in 0..2 {
        // The second time nothing is made beside what is left of the first.
        rig.machine.fail_next("lvm.remove_lv", MemoryHost::failure("remove"));
        refused(rig.engine.create_group_snapshot(&by(), &request), ErrorKind::Internal);
    }
    let made = rig.engine.create_group_snapshot(&by(), &request).unwrap();
    assert!(made.created && made.object.len() == 2 && rig.snapshots().len() == 2);
    rig.check();
}

#[test]
fn a_supervisor_that_breaks_off_with_frozen_volumes_thaws_them_when_it_is_back() {
    for call in [
        "filesystems.freeze",
        "lvm.create_thin_snapshot",
        "filesystems.thaw",
        "lvm.tag_lv",
    ] {
        for nth in 1..=4 {
            let mut rig = Rig::with_pool();
            let ids = [
                rig.make_volume("one", Bytes::gib(1)).id,
                rig.make_volume("two", Bytes::gib(1)).id,
            ];
            // The calls of a group of two, in order.
            let order = [
                "filesystems.freeze",
                "lvm.create_thin_snapshot",
                "filesystems.thaw",
                "lvm.tag_lv",
            ];
            let number = order.iter().position(|c| *c == call).unwrap() * 2 + nth.min(2);
            let cut = if nth > 2 {
                cistern_host::memory::Cut::After
            } else {
                cistern_host::memory::Cut::Before
            };
            rig.machine.cut_power_at(number, cut);
            assert!(rig.engine.create_group_snapshot(&by(), &group("g", &ids)).is_err());
            rig.break_off();
            rig.engine.start().unwrap();
            rig.check();
            let left = rig.snapshots().len();
            assert!(left == 0 || left == 2, "{call} {nth}: {left}");
            assert!(rig.volumes().iter().all(|v| v.state == VolumeState::Ready));
            for id in ids {
                rig.write(id, "file");
            }
        }
    }
}
