//! Volumes that grow, and get other names, labels and owners, while they are served.

use std::collections::BTreeMap;

use cistern_engine::VolumeFilter;
use cistern_host::TagChange;
use cistern_host::memory::MemoryHost;
use cistern_model::{Bytes, ErrorKind, Labels, Owner, Volume, VolumeChange, VolumeState};
use proptest::prelude::*;

use crate::support::{Rig, by, path, provisioner, refused, volume_request};

pub(crate) fn labels(pairs: &[(&str, &str)]) -> Labels {
    let map: BTreeMap<String, String> = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    map.try_into().unwrap()
}

pub(crate) fn to_size(size: Bytes) -> VolumeChange {
    VolumeChange {
        size: Some(size),
        ..VolumeChange::default()
    }
}

pub(crate) fn to_name(name: &str) -> VolumeChange {
    VolumeChange {
        name: Some(name.parse().unwrap()),
        ..VolumeChange::default()
    }
}

pub(crate) fn to_owner(owner: &Owner) -> VolumeChange {
    VolumeChange {
        owner: Some(owner.clone()),
        ..VolumeChange::default()
    }
}

fn find(rig: &Rig, labels: &[&str]) -> Vec<Volume> {
    let filter = VolumeFilter {
        labels: labels.iter().map(|l| l.parse().unwrap()).collect(),
        ..VolumeFilter::default()
    };
    rig.engine.volumes(&by(), &filter, 100, None).unwrap().items
}

#[test]
fn a_volume_grows_to_exactly_the_bytes_that_were_asked_for_and_stays_mounted() {
    let rig = Rig::with_pool();
    let volume = rig.make_volume("v", Bytes::gib(1));
    rig.machine.write_file(&path(volume.id), "file", Bytes::mib(5)).unwrap();
    let before = rig.machine.calls().len();
    let grown = rig
        .engine
        .change_volume(&by(), volume.id, &to_size(Bytes::new(2_000_000_001)))
        .unwrap();
    assert_eq!(grown.size, Bytes::new(2_000_003_072));
    let calls = rig.machine.calls().split_off(before);
    assert!(
        !calls.iter().any(|c| c.contains("mount") || c.contains("exports")),
        "{calls:?}"
    );
    let pool = rig.engine.pool(&by(), "tank").unwrap();
    assert_eq!(pool.promised, Bytes::new(2_000_003_072).round_up(Bytes::mib(4)));
    rig.check();
    // Asked for again it is no change.
    let before = rig.snapshot();
    assert_eq!(
        rig.engine
            .change_volume(&by(), volume.id, &to_size(Bytes::new(2_000_000_001)))
            .unwrap(),
        grown
    );
    assert_eq!(rig.snapshot(), before);
    // Within the same extent only the filesystem grows.
    let more = Bytes::new(2_000_003_072 + 4096);
    assert_eq!(
        rig.engine.change_volume(&by(), volume.id, &to_size(more)).unwrap().size,
        more
    );
    rig.check();
}

#[test]
fn what_a_volume_cannot_become_is_refused_and_changes_nothing() {
    let rig = Rig::with_pool();
    let volume = rig.make_volume("v", Bytes::gib(1));
    let other = rig.make_volume("other", Bytes::gib(1));
    let before = rig.snapshot();
    for (change, kind) in [
        (to_size(Bytes::mib(500)), ErrorKind::Invalid),
        (to_size(Bytes::ZERO), ErrorKind::Invalid),
        (to_size(Bytes::gib(9)), ErrorKind::NoSpace),
        (to_size(Bytes::new(u64::MAX)), ErrorKind::Invalid),
        (to_name("other"), ErrorKind::NameTaken),
        // All or nothing.
        (
            VolumeChange {
                labels: Some(labels(&[("a", "b")])),
                ..to_size(Bytes::gib(100))
            },
            ErrorKind::NoSpace,
        ),
    ] {
        refused(rig.engine.change_volume(&by(), volume.id, &change), kind);
    }
    let stranger = provisioner("stranger", &["tank"]);
    refused(
        rig.engine.change_volume(&stranger, volume.id, &to_name("mine")),
        ErrorKind::Forbidden,
    );
    assert_eq!(rig.snapshot(), before);
    rig.engine.delete_volume(&by(), other.id).unwrap();
    rig.engine.change_volume(&by(), volume.id, &to_name("other")).unwrap();
    rig.check();
}

#[test]
fn a_renamed_volume_keeps_its_id_and_clients_and_frees_its_old_name() {
    let mut rig = Rig::with_pool();
    let volume = rig.make_volume("old", Bytes::gib(1));
    let renamed = rig.engine.change_volume(&by(), volume.id, &to_name("new")).unwrap();
    assert_eq!((renamed.id, renamed.name.as_str()), (volume.id, "new"));
    assert_eq!((renamed.clients, renamed.export), (volume.clients, volume.export));
    let again = rig.make_volume("old", Bytes::gib(2));
    assert_ne!(again.id, volume.id);
    rig.restart();
    assert_eq!(rig.engine.volume(&by(), volume.id).unwrap().name.as_str(), "new");
    rig.check();
}

#[test]
fn two_renames_to_one_name_at_once_leave_it_to_one_volume() {
    let rig = Rig::with_pool();
    let ids: Vec<_> = (0..6)
        .map(|n| rig.make_volume(&format!("v{n}"), Bytes::mib(300)).id)
        .collect();
    let done = std::thread::scope(|scope| {
        let rename = |id| {
            let engine = rig.engine.clone();
            scope.spawn(move || engine.change_volume(&by(), id, &to_name("one")).is_ok())
        };
        let asked: Vec<_> = ids.iter().map(|id| rename(*id)).collect();
        asked
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect::<Vec<_>>()
    });
    assert_eq!(done.iter().filter(|done| **done).count(), 1);
    rig.check();
}

#[test]
fn labels_are_replaced_as_a_whole_survive_a_restart_and_find_their_volumes() {
    let mut rig = Rig::with_pool();
    let volume = rig.make_volume("v", Bytes::gib(1));
    rig.make_volume("other", Bytes::gib(1));
    for pairs in [&[("team", "media"), ("tier", "1")][..], &[("team", "a, b")], &[]] {
        let change = VolumeChange {
            labels: Some(labels(pairs)),
            ..VolumeChange::default()
        };
        rig.engine.change_volume(&by(), volume.id, &change).unwrap();
        rig.restart();
        assert_eq!(rig.engine.volume(&by(), volume.id).unwrap().labels, labels(pairs));
        let found = find(&rig, &["team=media", "tier=1"]);
        assert_eq!(found.len(), usize::from(pairs.len() == 2));
        assert_eq!(find(&rig, &["team=a, b"]).len(), usize::from(pairs.len() == 1));
        assert_eq!(find(&rig, &[]).len(), 2);
        rig.check();
    }
}

/// Such names and labels were taken once: what has them is neither lost nor in anybody's way.
#[test]
fn what_was_named_before_by_characters_that_are_not_seen_is_served_on_and_gets_no_more_of_them() {
    let mut rig = Rig::with_pool();
    let volume = rig.make_volume("v", Bytes::gib(1));
    let tags = TagChange {
        add: ["cistern.name=old#e2#80#a8x", "cistern.label=team=a#e2#80#aeb"]
            .map(str::to_owned)
            .to_vec(),
        remove: vec!["cistern.name=v".to_owned()],
    };
    let lvm = rig.machine.host().lvm;
    lvm.tag_lv(&volume.pool.to_string(), &volume.id.to_string(), &tags)
        .unwrap();
    rig.restart();
    rig.check();
    let (name, team) = ("old\u{2028}x", ("team", "a\u{202e}b"));
    let there = rig.engine.volume(&by(), volume.id).unwrap();
    assert_eq!((there.name.as_str(), there.labels), (name, labels(&[team])));
    let again = rig.engine.create_volume(&by(), &volume_request(name, Bytes::gib(1)));
    assert!(!again.unwrap().created);
    let more = VolumeChange {
        labels: Some(labels(&[team, ("tier", "1")])),
        ..to_name(name)
    };
    rig.engine.change_volume(&by(), volume.id, &more).unwrap();
    rig.make_snapshot(volume.id, "s");
    refused(
        rig.engine.change_volume(&by(), volume.id, &to_name("new\u{2028}x")),
        ErrorKind::Invalid,
    );
    rig.engine.change_volume(&by(), volume.id, &to_name("new")).unwrap();
    rig.restart();
    rig.check();
    assert_eq!(rig.snapshots()[0].volume_name.as_str(), name);
}

#[test]
fn only_an_admin_gives_a_volume_to_another_owner() {
    let rig = Rig::with_pool();
    let (one, two) = (provisioner("one", &["tank"]), provisioner("two", &["tank"]));
    let volume = rig
        .engine
        .create_volume(&one, &volume_request("v", Bytes::gib(1)))
        .unwrap()
        .object;
    let change = to_owner(&two.owner);
    refused(rig.engine.change_volume(&one, volume.id, &change), ErrorKind::Forbidden);
    rig.engine.change_volume(&by(), volume.id, &change).unwrap();
    refused(rig.engine.volume(&one, volume.id), ErrorKind::Forbidden);
    assert_eq!(rig.engine.volume(&two, volume.id).unwrap().owner, two.owner);
}

#[test]
fn how_many_files_a_volume_has_is_told() {
    let rig = Rig::with_pool();
    let volume = rig.make_volume("v", Bytes::gib(1));
    let empty = volume.inodes.unwrap();
    rig.machine.write_file(&path(volume.id), "file", Bytes::mib(5)).unwrap();
    let inodes = rig.engine.volume(&by(), volume.id).unwrap().inodes.unwrap();
    assert_eq!((inodes.used, inodes.total), (empty.used + 1, empty.total));
}

#[test]
fn a_growth_that_fails_on_its_way_is_finished_by_asking_again_or_by_reconcile() {
    for (call, promised) in [
        ("lvm.extend_thin", false),
        ("lvm.tag_lv", false),
        ("filesystems.grow_xfs", true),
    ] {
        for after in [false, true] {
            let mut rig = Rig::with_pool();
            let volume = rig.make_volume("v", Bytes::gib(1));
            if after {
                rig.machine.fail_after_next(call, MemoryHost::failure(call));
            } else {
                rig.machine.fail_next(call, MemoryHost::failure(call));
            }
            refused(
                rig.engine.change_volume(&by(), volume.id, &to_size(Bytes::gib(2))),
                ErrorKind::Internal,
            );
            let mut size = rig.engine.volume(&by(), volume.id).unwrap().size;
            assert!(size == Bytes::gib(2) || !promised, "{call}");
            if after {
                rig.restart();
            } else {
                rig.engine
                    .change_volume(&by(), volume.id, &to_size(Bytes::gib(2)))
                    .unwrap();
                size = Bytes::gib(2);
            }
            let now = rig.engine.volume(&by(), volume.id).unwrap();
            assert_eq!((now.size, now.state), (size, VolumeState::Ready), "{call}");
            rig.check();
        }
    }
}

proptest! {
    #[test]
    fn whatever_sizes_are_asked_for_a_volume_has_the_largest_that_fitted(
        sizes in proptest::collection::vec(prop_oneof![0u64..12 << 30, any::<u64>()], 1..12),
    ) {
        let rig = Rig::with_pool();
        let volume = rig.make_volume("v", Bytes::gib(1));
        let mut has = volume.size;
        for size in sizes.into_iter().map(Bytes::new) {
            let before = rig.snapshot();
            match rig.engine.change_volume(&by(), volume.id, &to_size(size)) {
                Ok(now) => {
                    prop_assert!(now.size >= size && now.size.get() - size.get() < 4096 && now.size >= has);
                    has = now.size;
                }
                Err(error) => {
                    prop_assert!(matches!(error.kind(), ErrorKind::Invalid | ErrorKind::NoSpace), "{}", error);
                    prop_assert!(rig.snapshot() == before);
                }
            }
        }
        rig.check();
    }
}
