//! Taking over what others made, and giving up what is ours.

use cistern_host::memory::{Cut, MemoryHost};
use cistern_model::{
    AdoptRequest, AlertKind, Bytes, ErrorKind, EventKind, ImportRequest, Layout, OrphanKind, Pool, PoolRequest,
    PoolState, RemoveOrphanRequest, Topology, TopologyCluster, TopologyDevice, TopologyNode, TopologyRequest,
    VolumeState,
};

use crate::support::{Rig, by, path, pool_request, refused, serial, volume_request};

fn import(pool: &Pool) -> ImportRequest {
    ImportRequest {
        pool: pool.id,
        name: None,
        take_from: None,
    }
}

fn kinds(rig: &Rig) -> Vec<OrphanKind> {
    rig.engine.orphans().unwrap().iter().map(|orphan| orphan.kind).collect()
}

/// A pool `tank` with a volume and a file, moved here from the appliance `other`.
fn with_foreign_pool() -> (Rig, Pool) {
    let mut rig = Rig::with_pool();
    let volume = rig.make_volume("v", Bytes::gib(1));
    rig.machine.write_file(&path(volume.id), "file", Bytes::mib(5)).unwrap();
    let pool = rig.engine.pool(&by(), "tank").unwrap();
    rig.machine.give_group(&pool.id.to_string(), "other");
    rig.restart();
    assert!(rig.volumes().is_empty() && rig.engine.pools(&by()).unwrap().is_empty());
    (rig, pool)
}

#[test]
fn a_pool_of_another_appliance_is_taken_over_only_by_naming_that_appliance() {
    let (mut rig, pool) = with_foreign_pool();
    let orphans = rig.engine.orphans().unwrap();
    let [orphan] = &orphans[..] else { panic!("{orphans:?}") };
    assert_eq!(
        (
            orphan.kind,
            orphan.name.as_deref(),
            orphan.system_id.as_deref(),
            orphan.disks.len()
        ),
        (OrphanKind::ForeignPool, Some("tank"), Some("other"), 2)
    );
    let command = format!("cistern pools import {} --take-from other", pool.id);
    assert_eq!(orphan.adopt, Some(command));
    let before = rig.snapshot();
    for take_from in [None, Some("somebody".to_owned()), Some(String::new())] {
        let request = ImportRequest {
            take_from,
            ..import(&pool)
        };
        let text = refused(rig.engine.import_pool(&by(), &request), ErrorKind::Conflict);
        assert!(text.contains("other"), "{text}");
    }
    assert_eq!(rig.snapshot(), before);
    let request = ImportRequest {
        take_from: Some("other".to_owned()),
        ..import(&pool)
    };
    for _ in 0..2 {
        let taken = rig.engine.import_pool(&by(), &request).unwrap();
        assert_eq!(
            (taken.name.as_str(), taken.volumes, taken.state),
            ("tank", 1, PoolState::Ready)
        );
    }
    rig.check();
    assert!(kinds(&rig).is_empty());
    let files = rig.machine.files(&path(rig.volumes()[0].id)).unwrap();
    assert_eq!(files, [("file".to_owned(), Bytes::mib(5))]);
    let imported = |rig: &Rig| {
        let events = rig.engine.events(0, 1000).into_iter();
        events.filter(|event| event.kind == EventKind::PoolImported).count()
    };
    assert_eq!(imported(&rig), 1);
    rig.restart();
    rig.check();
}

#[test]
fn a_pool_whose_name_is_in_use_is_imported_under_another() {
    let (mut rig, pool) = with_foreign_pool();
    rig.make_pool("tank", Layout::Mirror, &["c", "d"]);
    let take = |name: Option<&str>| ImportRequest {
        pool: pool.id,
        name: name.map(|name| name.parse().unwrap()),
        take_from: Some("other".to_owned()),
    };
    refused(rig.engine.import_pool(&by(), &take(None)), ErrorKind::NameTaken);
    // The power goes between the taking and the naming: both are served, and the same request goes on.
    rig.machine.fail_next("lvm.tag_vg", MemoryHost::failure("tag"));
    assert!(rig.engine.import_pool(&by(), &take(Some("older"))).is_err());
    rig.restart();
    let names: Vec<String> = rig
        .engine
        .pools(&by())
        .unwrap()
        .iter()
        .map(|pool| pool.name.to_string())
        .collect();
    assert!(
        names.len() == 2 && names.contains(&"tank".to_owned()) && names[0] != names[1],
        "{names:?}"
    );
    assert_eq!(rig.volumes().len(), 1);
    let taken = rig.engine.import_pool(&by(), &take(Some("older"))).unwrap();
    assert_eq!(taken.name.as_str(), "older");
    rig.restart();
    rig.check();
    let names: Vec<String> = rig
        .engine
        .pools(&by())
        .unwrap()
        .iter()
        .map(|pool| pool.name.to_string())
        .collect();
    assert_eq!(names, ["older", "tank"]);
    refused(rig.engine.import_pool(&by(), &take(Some("third"))), ErrorKind::Conflict);
}

#[test]
fn a_pool_that_lacks_a_disk_is_not_taken_over() {
    let (rig, pool) = with_foreign_pool();
    rig.machine.detach(&serial("b"));
    let request = ImportRequest {
        take_from: Some("other".to_owned()),
        ..import(&pool)
    };
    refused(rig.engine.import_pool(&by(), &request), ErrorKind::Unavailable);
}

#[test]
fn a_pool_that_was_released_is_served_nowhere_until_it_is_imported() {
    let mut rig = Rig::with_pool();
    let volume = rig.make_volume("v", Bytes::gib(1));
    rig.machine.hold(&path(volume.id));
    let pool = rig.engine.pool(&by(), "tank").unwrap();
    for _ in 0..2 {
        let released = rig.engine.release_pool(&by(), "tank").unwrap();
        assert_eq!(
            (released.kind, released.name.as_deref()),
            (OrphanKind::ReleasedPool, Some("tank"))
        );
    }
    assert!(rig.machine.exports().is_empty() && rig.machine.mounts().is_empty());
    rig.restart();
    rig.engine.reconcile().unwrap();
    assert!(rig.engine.pools(&by()).unwrap().is_empty());
    assert_eq!(kinds(&rig), [OrphanKind::ReleasedPool]);
    assert!(rig.machine.violations().is_empty());
    let back = rig.engine.import_pool(&by(), &import(&pool)).unwrap();
    assert_eq!((back.id, back.volumes), (pool.id, 1));
    assert_eq!(rig.volumes()[0].id, volume.id);
    rig.check();
}

#[test]
fn a_pool_that_cannot_be_released_is_served_as_before() {
    let rig = Rig::with_pool();
    let (u, v) = (rig.make_volume("u", Bytes::gib(1)), rig.make_volume("v", Bytes::gib(1)));
    for call in ["exports.replace", "lvm.deactivate_vg", "takeover.export_group"] {
        rig.machine.fail_next(call, MemoryHost::failure(call));
        assert!(rig.engine.release_pool(&by(), "tank").is_err(), "{call}");
        rig.check();
    }
    rig.machine.pin(&path(u.id), true);
    rig.machine.pin(&path(v.id), true);
    refused(rig.engine.release_pool(&by(), "tank"), ErrorKind::Conflict);
    rig.machine.pin(&path(u.id), false);
    rig.machine.pin(&path(v.id), false);
    rig.check();
    rig.make_volume("w", Bytes::gib(1));
    assert!(rig.engine.release_pool(&by(), "tank").is_ok());
}

#[test]
fn a_strange_volume_with_an_xfs_becomes_a_volume_with_all_that_is_in_it() {
    let mut rig = Rig::with_pool();
    let vg = rig.engine.pool(&by(), "tank").unwrap().id.to_string();
    rig.machine.add_strange_volume(&vg, "old", &["backup"]);
    rig.machine.add_strange_volume(&vg, "empty", &[]);
    rig.engine.reconcile().unwrap();
    assert_eq!(kinds(&rig), [OrphanKind::Volume; 2]);
    let adopt = |lv: &str, name: &str| {
        let request = AdoptRequest {
            object: format!("{vg}/{lv}"),
            name: name.parse().unwrap(),
            clients: vec!["10.0.0.1".parse().unwrap()],
        };
        rig.engine.adopt_volume(&by(), &request)
    };
    refused(adopt("none", "v"), ErrorKind::NotFound);
    refused(adopt("data", "v"), ErrorKind::NotFound);
    let text = refused(adopt("empty", "v"), ErrorKind::Conflict);
    assert!(text.contains("XFS"), "{text}");
    rig.machine
        .put_xfs(&vg, "old", Bytes::gib(1).saturating_sub(Bytes::mib(7)), "precious");
    rig.make_volume("taken", Bytes::gib(1));
    refused(adopt("old", "taken"), ErrorKind::NameTaken);
    // Its tags are there and its name is not: it is still an orphan, and the same request goes on.
    rig.machine.fail_next("lvm.rename_lv", MemoryHost::failure("rename"));
    assert!(adopt("old", "photos").is_err());
    assert_eq!(kinds(&rig), [OrphanKind::Volume; 2]);
    let volume = adopt("old", "photos").unwrap();
    assert_eq!(
        (volume.name.as_str(), volume.size, volume.clients.len()),
        ("photos", Bytes::gib(1).saturating_sub(Bytes::mib(7)), 1)
    );
    let whole = |rig: &Rig| {
        let files = rig.machine.files(&path(volume.id)).unwrap();
        assert_eq!(files, [("precious".to_owned(), Bytes::mib(1))]);
        assert_eq!(rig.machine.exports().len(), 2);
    };
    whole(&rig);
    let tags = rig.machine.tags(&vg, &volume.id.to_string());
    assert!(tags.contains(&"backup".to_owned()), "what others noted stays: {tags:?}");
    rig.restart();
    whole(&rig);
    assert!(rig.machine.violations().is_empty());
}

#[test]
fn a_snapshot_that_was_made_by_hand_and_adopted_is_served_after_a_restart_too() {
    let mut rig = Rig::with_pool();
    let volume = rig.make_volume("v", Bytes::gib(1));
    let (vg, lv) = (volume.pool.to_string(), volume.id.to_string());
    // LVM gives it the flag by which it is passed by when its group is activated.
    rig.machine
        .host()
        .lvm
        .create_thin_snapshot(&vg, &lv, "byhand", &[], false)
        .unwrap();
    rig.engine.reconcile().unwrap();
    let request = AdoptRequest {
        object: format!("{vg}/byhand"),
        name: "copy".parse().unwrap(),
        clients: Vec::new(),
    };
    let adopted = rig.engine.adopt_volume(&by(), &request).unwrap();
    rig.power_cycle();
    rig.engine.start().unwrap();
    let now = rig.engine.volume(&by(), adopted.id).unwrap();
    assert_eq!((now.state, now.reason), (VolumeState::Ready, None));
    assert_eq!(rig.machine.violations(), Vec::<String>::new());
}

#[test]
fn an_orphan_is_removed_only_by_its_name_given_twice_and_nothing_else_is_an_orphan() {
    let rig = Rig::with_pool();
    let volume = rig.make_volume("v", Bytes::gib(1));
    let vg = volume.pool.to_string();
    rig.machine.add_strange_volume(&vg, "old", &[]);
    let remove = |object: &str, confirm: &str| {
        let request = RemoveOrphanRequest {
            object: object.to_owned(),
            confirm: confirm.to_owned(),
        };
        rig.engine.remove_orphan(&by(), &request)
    };
    let (own, old, data) = (format!("{vg}/{}", volume.id), format!("{vg}/old"), format!("{vg}/data"));
    let before = rig.snapshot();
    refused(remove(&old, &own), ErrorKind::Invalid);
    for object in [&own, &data, &vg, "", "/"] {
        refused(remove(object, object), ErrorKind::NotFound);
    }
    assert_eq!(rig.snapshot(), before);
    remove(&old, &old).unwrap();
    assert!(kinds(&rig).is_empty());
    rig.check();
}

#[test]
fn groups_that_have_nothing_to_do_with_cistern_are_told_with_the_disks_to_wipe() {
    let rig = Rig::with_pool();
    rig.machine.add_foreign_group("theirs", "other", &[serial("c")], &[]);
    rig.machine.add_foreign_group("nobody-s", "", &[serial("d")], &[]);
    let orphans = rig.engine.orphans().unwrap();
    assert_eq!(kinds(&rig), [OrphanKind::Group; 2]);
    for (orphan, disk) in orphans.iter().zip(["d", "c"]) {
        assert_eq!(orphan.remove, format!("cistern disks wipe {}", serial(disk)));
        assert_eq!(orphan.adopt, None);
    }
    assert!(rig.machine.violations().is_empty());
}

#[test]
fn a_topology_becomes_the_plan_for_the_disks_that_can_be_used() {
    let rig = Rig::with_pool();
    let device = |path: &str| TopologyDevice::Path(path.to_owned());
    let mut own = TopologyNode::default();
    own.node.hostnames.manage = vec!["memory.example.com".to_owned()];
    // c and d are blank; a is in the pool, the boot disk and `full` are refused, and there is no sdz.
    own.devices = ["vdc", "vda", "vdd", "vdf", "vdg", "sdz", "vdc"]
        .iter()
        .map(|name| device(&format!("/dev/{name}")))
        .collect();
    let mut other = TopologyNode::default();
    other.node.hostnames.manage = vec!["elsewhere".to_owned()];
    let request = TopologyRequest {
        name: "two".parse().unwrap(),
        layout: Layout::Mirror,
        topology: Topology {
            clusters: vec![TopologyCluster {
                nodes: vec![other, own],
            }],
        },
    };
    let before = rig.snapshot();
    let plan = rig.engine.plan_topology(&request).unwrap();
    let expected = PoolRequest {
        trash_seconds: None,
        ..pool_request("two", Layout::Mirror, &["c", "d"])
    };
    assert_eq!(plan.plan.request, expected);
    assert_eq!(plan.skipped.len(), 6, "{:?}", plan.skipped);
    assert_eq!(rig.snapshot(), before);
    let mut elsewhere = request;
    elsewhere.topology.clusters[0].nodes.pop();
    refused(rig.engine.plan_topology(&elsewhere), ErrorKind::Invalid);
}

#[test]
fn alerts_of_a_pool_that_was_released_are_over() {
    let mut rig = Rig::with_pool();
    rig.make_volume("sick", Bytes::gib(1));
    rig.power_cycle();
    rig.machine.fail_next("filesystems.mount", MemoryHost::failure("mount"));
    rig.engine.start().unwrap();
    assert_eq!(rig.engine.alerts(false)[0].kind, AlertKind::VolumeFailed);
    rig.engine.release_pool(&by(), "tank").unwrap();
    assert!(rig.engine.alerts(false).is_empty());
    let request = volume_request("v", Bytes::gib(1));
    refused(rig.engine.create_volume(&by(), &request), ErrorKind::NotFound);
}

/// Cuts the power at each change that `act` makes; after the next start what was there is whole, and `act` gets through.
fn cut_everywhere(prepare: impl Fn() -> Rig, act: impl Fn(&Rig) -> bool, whole: impl Fn(&Rig)) {
    let mut tried = 0;
    for cut in [Cut::Before, Cut::Midway, Cut::After] {
        for at in 1.. {
            let mut rig = prepare();
            rig.machine.cut_power_at(at, cut);
            act(&rig);
            let dark = rig.machine.is_dark();
            rig.restart();
            assert_eq!(rig.machine.violations(), Vec::<String>::new(), "{cut:?} at {at}");
            assert!(act(&rig), "{cut:?} at {at}: it cannot be asked for again");
            whole(&rig);
            rig.restart();
            whole(&rig);
            tried += 1;
            if !dark {
                break;
            }
        }
    }
    assert!(tried > 6, "only {tried} cuts were tried");
}

#[test]
fn whenever_the_power_goes_an_import_can_be_asked_for_again() {
    let prepare = || {
        let (rig, _) = with_foreign_pool();
        rig.make_pool("tank", Layout::Mirror, &["c", "d"]);
        rig
    };
    let act = |rig: &Rig| {
        let orphans = rig.engine.orphans().unwrap_or_default();
        let pools = rig.engine.pools(&by()).unwrap_or_default();
        let foreign = orphans.iter().find_map(|orphan| orphan.object.parse().ok());
        let with_volume = || pools.iter().find(|pool| pool.volumes == 1).map(|pool| pool.id);
        let Some(pool) = foreign.or_else(with_volume) else {
            return false;
        };
        let request = ImportRequest {
            pool,
            name: Some("older".parse().unwrap()),
            take_from: Some("other".to_owned()),
        };
        rig.engine.import_pool(&by(), &request).is_ok()
    };
    cut_everywhere(prepare, act, |rig| {
        rig.check();
        let files = rig.machine.files(&path(rig.volumes()[0].id)).unwrap();
        assert_eq!(files, [("file".to_owned(), Bytes::mib(5))]);
        assert_eq!(rig.engine.pool(&by(), "older").unwrap().volumes, 1);
        assert_eq!(rig.engine.pool(&by(), "tank").unwrap().volumes, 0);
    });
}

#[test]
fn whenever_the_power_goes_a_release_can_be_asked_for_again() {
    let prepare = || {
        let rig = Rig::with_pool();
        for name in ["u", "v"] {
            rig.make_volume(name, Bytes::gib(1));
        }
        rig
    };
    let act = |rig: &Rig| rig.engine.release_pool(&by(), "tank").is_ok();
    cut_everywhere(prepare, act, |rig| {
        assert_eq!(kinds(rig), [OrphanKind::ReleasedPool]);
        assert!(rig.machine.mounts().is_empty() && rig.machine.exports().is_empty());
        let pool = rig.engine.orphans().unwrap()[0].object.parse().unwrap();
        let request = ImportRequest {
            pool,
            name: None,
            take_from: None,
        };
        rig.engine.import_pool(&by(), &request).unwrap();
        assert_eq!(rig.volumes().len(), 2);
        rig.check();
        rig.engine.release_pool(&by(), "tank").unwrap();
    });
}

#[test]
fn whenever_the_power_goes_an_adoption_can_be_asked_for_again_or_is_done() {
    let prepare = || {
        let rig = Rig::with_pool();
        let vg = rig.engine.pool(&by(), "tank").unwrap().id.to_string();
        rig.machine.add_strange_volume(&vg, "old", &[]);
        rig.machine.put_xfs(&vg, "old", Bytes::mib(512), "precious");
        rig
    };
    let act = |rig: &Rig| {
        let Some(object) = rig.engine.orphans().unwrap_or_default().into_iter().next() else {
            return rig.volumes().len() == 1;
        };
        let request = AdoptRequest {
            object: object.object,
            name: "photos".parse().unwrap(),
            clients: Vec::new(),
        };
        rig.engine.adopt_volume(&by(), &request).is_ok()
    };
    cut_everywhere(prepare, act, |rig| {
        let volumes = rig.volumes();
        assert_eq!((volumes.len(), volumes[0].name.as_str()), (1, "photos"));
        let files = rig.machine.files(&path(volumes[0].id)).unwrap();
        assert_eq!(files, [("precious".to_owned(), Bytes::mib(1))]);
        assert!(kinds(rig).is_empty());
    });
}
