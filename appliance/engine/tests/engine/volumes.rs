//! Volumes: made, listed, deleted, refused.

use std::collections::BTreeSet;
use std::time::Duration;

use cistern_engine::{Config, Created, Engine, VolumeFilter};
use cistern_host::HostError;
use cistern_host::memory::MemoryHost;
use cistern_model::{Bytes, ErrorKind, EventKind, Layout, Percent, VolumeId, VolumeRequest, VolumeState};

use crate::support::{Rig, by, client, path, provisioner, refused, volume_request};

#[test]
fn a_volume_is_made_with_exactly_its_bytes_mounted_and_exported() {
    let rig = Rig::with_pool();
    let volume = rig.make_volume("data, 50%", Bytes::gib(1));
    assert_eq!((volume.size, volume.state), (Bytes::gib(1), VolumeState::Ready));
    assert_eq!(volume.clients, [client("10.0.0.1")]);
    assert!(volume.used.is_some());
    assert_eq!(volume.export.path, path(volume.id).to_str().unwrap());
    let pool = rig.engine.pool(&by(), "tank").unwrap();
    assert_eq!((pool.volumes, pool.promised), (1, Bytes::gib(1)));
    assert_eq!(
        pool.available
            .saturating_add(pool.promised)
            .saturating_add(pool.reserve),
        pool.size
    );
    rig.check();
}

#[test]
fn a_create_changes_lvm_twice_and_asks_for_no_report() {
    let rig = Rig::with_pool();
    let before = rig.machine.calls().len();
    rig.make_volume("v", Bytes::gib(1));
    let calls: Vec<String> = rig
        .machine
        .calls()
        .split_off(before)
        .into_iter()
        .map(|c| c.split(' ').next().unwrap().to_owned())
        .filter(|call| !call.starts_with("records."))
        .collect();
    assert_eq!(
        calls,
        [
            "thin.status",
            "lvm.create_thin",
            "filesystems.make_xfs",
            "filesystems.mount",
            "filesystems.set_root",
            "exports.set",
            "lvm.tag_lv",
            "filesystems.usage",
        ]
    );
}

#[test]
fn sizes_are_raised_to_the_minimum_and_to_whole_blocks_unless_the_limit_forbids() {
    let rig = Rig::with_pool();
    let least = Bytes::mib(300);
    for (name, size, limit, expected) in [
        ("none", Bytes::ZERO, None, Some(least)),
        ("small", Bytes::mib(10), None, Some(least)),
        ("odd", Bytes::new(1_000_000_001), None, Some(Bytes::new(1_000_001_536))),
        ("exact", Bytes::gib(1), Some(Bytes::gib(1)), Some(Bytes::gib(1))),
        ("forbidden", Bytes::mib(10), Some(Bytes::mib(20)), None),
        (
            "odd-forbidden",
            Bytes::new(1_000_000_001),
            Some(Bytes::new(1_000_000_001)),
            None,
        ),
        ("endless", Bytes::new(u64::MAX), None, None),
    ] {
        let request = VolumeRequest {
            limit,
            ..volume_request(name, size)
        };
        let made = rig.engine.create_volume(&by(), &request);
        match expected {
            Some(expected) => assert_eq!(made.unwrap().object.size, expected, "{name}"),
            None => {
                refused(made, ErrorKind::Invalid);
            }
        }
    }
    rig.check();
}

#[test]
fn the_same_request_again_gives_the_same_volume() {
    let rig = Rig::with_pool();
    let volume = rig.make_volume("v", Bytes::mib(10));
    let before = rig.snapshot();
    for size in [Bytes::mib(10), Bytes::mib(300), Bytes::ZERO] {
        let again = rig.engine.create_volume(&by(), &volume_request("v", size)).unwrap();
        assert_eq!((again.object.id, again.created), (volume.id, false));
    }
    let said = refused(
        rig.engine.create_volume(&by(), &volume_request("v", Bytes::gib(2))),
        ErrorKind::NameTaken,
    );
    assert!(said.contains("300 MiB") && said.contains("2 GiB"), "{said}");
    assert_eq!(rig.snapshot(), before);
}

#[test]
fn the_name_may_be_used_again_in_another_pool() {
    let rig = Rig::with_pool();
    rig.make_pool("other", Layout::Single, &["c"]);
    let first = rig.make_volume("v", Bytes::gib(1));
    let request = VolumeRequest {
        pool: "other".parse().unwrap(),
        ..volume_request("v", Bytes::gib(2))
    };
    let Created { object, created } = rig.engine.create_volume(&by(), &request).unwrap();
    assert!(created && object.id != first.id && object.pool_name.as_str() == "other");
    rig.check();
}

#[test]
fn what_cannot_be_a_volume_is_refused_and_changes_nothing() {
    let rig = Rig::with_pool();
    let pool = rig.engine.pool(&by(), "tank").unwrap();
    let before = rig.snapshot();
    let above = volume_request("v", pool.available.saturating_add(Bytes::new(1)));
    let said = refused(rig.engine.create_volume(&by(), &above), ErrorKind::NoSpace);
    assert!(said.contains(&format!("{:#}", pool.available)), "{said}");
    let unknown = VolumeRequest {
        pool: "nowhere".parse().unwrap(),
        ..volume_request("v", Bytes::gib(1))
    };
    refused(rig.engine.create_volume(&by(), &unknown), ErrorKind::NotFound);
    let nobody = VolumeId::from_uuid(uuid::Uuid::from_u128(1));
    refused(rig.engine.volume(&by(), nobody), ErrorKind::NotFound);
    refused(rig.engine.delete_volume(&by(), nobody), ErrorKind::NotFound);
    assert_eq!(rig.snapshot(), before);
    rig.check();
}

#[test]
fn a_pool_can_be_promised_to_the_last_extent_and_no_further() {
    let rig = Rig::with_pool();
    let all = rig.engine.pool(&by(), "tank").unwrap().available;
    let rest = all.saturating_sub(Bytes::gib(1));
    rig.make_volume("first", Bytes::gib(1));
    rig.make_volume("rest", rest);
    assert_eq!(rig.engine.pool(&by(), "tank").unwrap().available, Bytes::ZERO);
    refused(
        rig.engine.create_volume(&by(), &volume_request("more", Bytes::ZERO)),
        ErrorKind::NoSpace,
    );
    rig.check();
}

#[test]
fn with_overcommit_more_is_promised_than_there_is() {
    let rig = Rig::with_pool();
    let size = rig.engine.pool(&by(), "tank").unwrap().size;
    let config = Config {
        overcommit_percent: 150,
        ..Config::default()
    };
    let engine = Engine::new(rig.machine.host(), config);
    engine.start().unwrap();
    engine.create_volume(&by(), &volume_request("v", size)).unwrap();
    engine
        .create_volume(&by(), &volume_request("w", Bytes::gib(3)))
        .unwrap();
    refused(
        engine.create_volume(&by(), &volume_request("x", Bytes::gib(2))),
        ErrorKind::NoSpace,
    );
}

#[test]
fn a_pool_with_full_metadata_takes_no_more_volumes() {
    let rig = Rig::with_pool();
    rig.machine.set_metadata_percent(Percent::from(75.1));
    let before = rig.snapshot();
    let said = refused(
        rig.engine.create_volume(&by(), &volume_request("v", Bytes::gib(1))),
        ErrorKind::NoSpace,
    );
    assert!(said.contains("metadata is 75.1 %"), "{said}");
    assert_eq!(rig.snapshot(), before);
}

#[test]
fn many_requests_at_once_make_one_volume_each_and_promise_no_more_than_there_is() {
    let rig = Rig::with_pool();
    let results: Vec<_> = std::thread::scope(|scope| {
        let ask = |n: usize| {
            let request = volume_request(&format!("v{}", n % 12), Bytes::gib(1));
            let engine = rig.engine.clone();
            scope.spawn(move || engine.create_volume(&by(), &request))
        };
        let asked: Vec<_> = (0..36).map(ask).collect();
        asked.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    // Beside its reserve the pool holds eight of the twelve.
    let made: Vec<_> = results.iter().flatten().collect();
    assert_eq!(made.iter().filter(|c| c.created).count(), 8);
    assert_eq!(made.iter().map(|c| c.object.id).collect::<BTreeSet<_>>().len(), 8);
    assert!(
        results
            .iter()
            .filter_map(|r| r.as_ref().err())
            .all(|e| e.kind() == ErrorKind::NoSpace)
    );
    rig.check();
}

#[test]
fn making_a_filesystem_keeps_nobody_else() {
    let rig = Rig::with_pool();
    rig.machine.block("filesystems.make_xfs");
    std::thread::scope(|scope| {
        let slow = scope.spawn(|| rig.engine.create_volume(&by(), &volume_request("slow", Bytes::gib(1))));
        assert!(
            rig.machine
                .wait_until_blocked("filesystems.make_xfs", Duration::from_secs(10))
        );
        assert_eq!(rig.volumes()[0].state, VolumeState::Creating);
        // Neither lists nor reconciling nor other changes in the pool wait, and none touches what is being made.
        rig.engine.reconcile().unwrap();
        assert_eq!(rig.volumes().len(), 1);
        assert_eq!(rig.engine.pool(&by(), "tank").unwrap().volumes, 1);
        rig.machine.unblock("filesystems.make_xfs");
        assert!(slow.join().unwrap().unwrap().created);
    });
    rig.check();
}

#[test]
fn a_create_that_fails_at_any_step_leaves_nothing_and_can_be_asked_again() {
    for call in [
        "thin.status",
        "lvm.create_thin",
        "filesystems.make_xfs",
        "filesystems.mount",
        "filesystems.set_root",
        "exports.set",
        "lvm.tag_lv",
    ] {
        let rig = Rig::with_pool();
        let request = volume_request("v", Bytes::gib(1));
        rig.machine.fail_next(call, MemoryHost::failure(call));
        refused(rig.engine.create_volume(&by(), &request), ErrorKind::Internal);
        assert_eq!(rig.volumes(), [], "{call}");
        rig.check();
        assert!(rig.engine.create_volume(&by(), &request).unwrap().created, "{call}");
        rig.check();
    }
}

#[test]
fn a_create_whose_outcome_is_not_known_is_there_whole_or_not_at_all() {
    for call in [
        "lvm.create_thin",
        "filesystems.make_xfs",
        "filesystems.mount",
        "filesystems.set_root",
        "exports.set",
        "lvm.tag_lv",
    ] {
        let rig = Rig::with_pool();
        let request = volume_request("v", Bytes::gib(1));
        let late = HostError::TimedOut {
            operation: call.into(),
            limit: Duration::from_secs(120),
        };
        rig.machine.fail_after_next(call, late);
        refused(rig.engine.create_volume(&by(), &request), ErrorKind::TimedOut);
        rig.check();
        let there = rig.volumes().len();
        assert_eq!(
            rig.engine.create_volume(&by(), &request).unwrap().created,
            there == 0,
            "{call}"
        );
        rig.check();
    }
}

#[test]
fn a_create_that_can_be_neither_finished_nor_undone_is_continued_by_the_same_request() {
    let rig = Rig::with_pool();
    let request = volume_request("v", Bytes::gib(1));
    rig.machine.fail_next("filesystems.mount", MemoryHost::failure("mount"));
    rig.machine.fail_next("lvm.remove_lv", MemoryHost::failure("remove_lv"));
    refused(rig.engine.create_volume(&by(), &request), ErrorKind::Internal);
    let begun = rig.volumes();
    assert_eq!(begun[0].state, VolumeState::Creating);
    refused(
        rig.engine.add_client(&by(), begun[0].id, client("10.0.0.9")),
        ErrorKind::Conflict,
    );
    let made = rig.engine.create_volume(&by(), &request).unwrap();
    assert_eq!(made.object.id, begun[0].id);
    rig.check();
}

#[test]
fn a_deleted_volume_is_gone_whoever_has_it_open() {
    let rig = Rig::with_pool();
    let (volume, neighbour) = (rig.make_volume("v", Bytes::gib(1)), rig.make_volume("w", Bytes::gib(1)));
    rig.machine.hold(&path(volume.id));
    rig.machine
        .write_file(&path(neighbour.id), "kept", Bytes::mib(1))
        .unwrap();
    rig.engine.delete_volume(&by(), volume.id).unwrap();
    refused(rig.engine.volume(&by(), volume.id), ErrorKind::NotFound);
    refused(rig.engine.delete_volume(&by(), volume.id), ErrorKind::NotFound);
    assert_eq!(rig.machine.files(&path(neighbour.id)).unwrap().len(), 1);
    rig.check();
    let kinds: Vec<EventKind> = rig.engine.events(2, 100).into_iter().map(|e| e.kind).collect();
    assert_eq!(
        kinds,
        [
            EventKind::VolumeCreated,
            EventKind::VolumeCreated,
            EventKind::VolumeDeleted
        ]
    );
}

#[test]
fn a_volume_that_the_machine_itself_holds_is_deleted_once_it_is_let_go() {
    let rig = Rig::with_pool();
    let volume = rig.make_volume("v", Bytes::gib(1));
    rig.machine.pin(&path(volume.id), true);
    refused(rig.engine.delete_volume(&by(), volume.id), ErrorKind::Conflict);
    assert_eq!(
        rig.engine.volume(&by(), volume.id).unwrap().state,
        VolumeState::Deleting
    );
    assert_eq!(rig.machine.exports(), []);
    refused(
        rig.engine.create_volume(&by(), &volume_request("v", Bytes::gib(1))),
        ErrorKind::Conflict,
    );
    rig.engine.reconcile().unwrap();
    assert_eq!(rig.volumes().len(), 1);
    rig.machine.pin(&path(volume.id), false);
    rig.engine.delete_volume(&by(), volume.id).unwrap();
    rig.check();
}

#[test]
fn a_delete_that_fails_at_any_step_is_finished_by_the_same_request_or_by_reconciling() {
    for call in [
        "exports.remove",
        "exports.release",
        "filesystems.unmount",
        "lvm.remove_lv",
    ] {
        for reconcile in [false, true] {
            let rig = Rig::with_pool();
            let volume = rig.make_volume("v", Bytes::gib(1));
            rig.machine.fail_next(call, MemoryHost::failure(call));
            refused(rig.engine.delete_volume(&by(), volume.id), ErrorKind::Internal);
            assert_eq!(rig.volumes()[0].state, VolumeState::Deleting, "{call}");
            if reconcile {
                rig.engine.reconcile().unwrap();
            } else {
                rig.engine.delete_volume(&by(), volume.id).unwrap();
            }
            assert_eq!(rig.volumes(), [], "{call}");
            rig.check();
        }
    }
}

#[test]
fn lists_come_in_pages_and_can_be_filtered() {
    let rig = Rig::with_pool();
    rig.make_pool("other", Layout::Single, &["c"]);
    for n in 0..7 {
        rig.make_volume(&format!("v{n}"), Bytes::mib(300));
    }
    let (mut all, mut after, mut pages) = (Vec::new(), None, 0);
    loop {
        let page = rig.engine.volumes(&by(), &VolumeFilter::default(), 3, after).unwrap();
        all.extend(page.items.iter().map(|v| v.id));
        pages += 1;
        let Some(next) = page.next else { break };
        after = Some(next.parse().unwrap());
    }
    assert_eq!((all.len(), pages), (7, 3));
    assert!(all.is_sorted());
    let count = |pool: Option<&str>, name: Option<&str>| {
        let filter = VolumeFilter {
            pool: pool.map(str::to_owned),
            name: name.map(|name| name.parse().unwrap()),
            labels: Vec::new(),
        };
        rig.engine
            .volumes(&by(), &filter, 100, None)
            .map(|page| page.items.len())
    };
    assert_eq!(count(Some("tank"), None).unwrap(), 7);
    assert_eq!(count(Some("other"), None).unwrap(), 0);
    assert_eq!(count(None, Some("v3")).unwrap(), 1);
    refused(count(Some("nowhere"), None), ErrorKind::NotFound);
}

#[test]
fn two_owners_share_a_pool_and_see_only_their_own() {
    let rig = Rig::with_pool();
    let (one, two) = (provisioner("one", &["tank"]), provisioner("two", &["tank"]));
    let stranger = provisioner("three", &["other"]);
    let volume = rig
        .engine
        .create_volume(&one, &volume_request("v", Bytes::gib(1)))
        .unwrap()
        .object;
    assert_eq!(volume.owner.as_str(), "one");
    for other in [&two, &stranger] {
        refused(rig.engine.volume(other, volume.id), ErrorKind::Forbidden);
        refused(rig.engine.delete_volume(other, volume.id), ErrorKind::Forbidden);
        refused(
            rig.engine.add_client(other, volume.id, client("10.0.0.9")),
            ErrorKind::Forbidden,
        );
        let seen = rig.engine.volumes(other, &VolumeFilter::default(), 100, None).unwrap();
        assert_eq!(seen.items, []);
    }
    refused(
        rig.engine.create_volume(&two, &volume_request("v", Bytes::gib(1))),
        ErrorKind::NameTaken,
    );
    refused(
        rig.engine.create_volume(&stranger, &volume_request("w", Bytes::gib(1))),
        ErrorKind::NotFound,
    );
    rig.engine.delete_volume(&one, volume.id).unwrap();
}
