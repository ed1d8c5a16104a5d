//! Every call of the engine that can be refused, and each way in which it is: the machine is as it was, its tags, mounts and
//! exports compared before and after; and nothing is under way.

use cistern_engine::{EngineError, PoolCreation};
use cistern_model::{
    AdoptRequest, AlertId, AlertKind, Bytes, Client, ErrorKind, GroupSnapshotRequest, ImportRequest, Layout,
    PoolChange, PoolId, PoolRequest, Principal, RemoveOrphanRequest, ReplaceRequest, ScrubRequest, Snapshot,
    SnapshotId, SnapshotRequest, TrashedVolume, UndeleteRequest, Volume, VolumeChange, VolumeId, VolumeOptionsChange,
    VolumeRequest, VolumeSource,
};
use uuid::Uuid;

use crate::changes::{to_name, to_size};
use crate::clones::of;
use crate::rollback::to;
use crate::support::{Rig, by, client, pool_request, provisioner, serial, volume_request};
use crate::trash::as_it_was;

/// A machine with something of everything.
struct Full {
    rig: Rig,
    v: Volume,
    w: Volume,
    /// In the pool `other`.
    far: Volume,
    of_v: Snapshot,
    of_w: Snapshot,
    trashed: TrashedVolume,
    /// The volume in `tank` that nobody can explain.
    stray: String,
}

type Call = (&'static str, ErrorKind, Box<dyn Fn(&Full) -> Result<(), EngineError>>);

fn call<T: 'static>(
    what: &'static str,
    kind: ErrorKind,
    call: impl Fn(&Full) -> Result<T, EngineError> + 'static,
) -> Call {
    (what, kind, Box::new(move |full| call(full).map(drop)))
}

fn full() -> Full {
    let rig = Rig::new();
    rig.make_pool("tank", Layout::Mirror, &["a", "b"]);
    rig.make_pool("other", Layout::Single, &["c"]);
    let (v, w) = (rig.make_volume("v", Bytes::gib(1)), rig.make_volume("w", Bytes::gib(1)));
    let request = VolumeRequest {
        pool: "other".parse().unwrap(),
        ..volume_request("far", Bytes::gib(1))
    };
    let far = rig.engine.create_volume(&by(), &request).unwrap().object;
    rig.write(v.id, "file");
    let (of_v, of_w) = (rig.make_snapshot(v.id, "s"), rig.make_snapshot(w.id, "s"));
    rig.engine
        .serve_snapshot(&by(), of_v.id, &[client("10.0.0.9")])
        .unwrap();
    let keep = PoolChange {
        trash_seconds: Some(3600),
        ..PoolChange::default()
    };
    rig.engine.change_pool(&by(), "tank", &keep).unwrap();
    let gone = rig.make_volume("v2", Bytes::gib(1));
    rig.engine.delete_volume(&by(), gone.id).unwrap();
    let trashed = rig.engine.trash(&by()).remove(0);
    rig.make_volume("v2", Bytes::gib(1));
    let vg = v.pool.to_string();
    rig.machine.add_strange_volume(&vg, "old", &["backup"]);
    rig.engine.reconcile().unwrap();
    Full {
        stray: format!("{vg}/old"),
        rig,
        v,
        w,
        far,
        of_v,
        of_w,
        trashed,
    }
}

fn stranger() -> Principal {
    provisioner("stranger", &["tank", "other"])
}

/// One who may not use the pool at all.
fn outsider() -> Principal {
    provisioner("local", &["elsewhere"])
}

fn nobody() -> VolumeId {
    VolumeId::from_uuid(Uuid::from_u128(1))
}

fn nothing() -> SnapshotId {
    SnapshotId::from_uuid(Uuid::from_u128(1))
}

fn named(name: &str) -> SnapshotRequest {
    SnapshotRequest {
        name: name.parse().unwrap(),
    }
}

fn group(name: &str, volumes: Vec<VolumeId>) -> GroupSnapshotRequest {
    GroupSnapshotRequest {
        name: name.parse().unwrap(),
        volumes,
    }
}

fn options(json: &str) -> VolumeOptionsChange {
    serde_json::from_str(json).unwrap()
}

fn many() -> Vec<Client> {
    (0..300)
        .map(|n| client(&format!("10.1.{}.{}", n / 200, n % 200 + 1)))
        .collect()
}

fn adopt(object: &str, name: &str) -> AdoptRequest {
    AdoptRequest {
        object: object.to_owned(),
        name: name.parse().unwrap(),
        clients: Vec::new(),
    }
}

fn pair(old: &str, new: &str) -> ReplaceRequest {
    ReplaceRequest {
        old: serial(old),
        new: serial(new),
    }
}

fn volumes() -> Vec<Call> {
    use ErrorKind::{Invalid, NameTaken, NoSpace, NotFound};
    let create = |what, kind, request: VolumeRequest| {
        call(what, kind, move |f: &Full| f.rig.engine.create_volume(&by(), &request))
    };
    let plain = |name: &str| volume_request(name, Bytes::gib(1));
    vec![
        create(
            "a pool that is none",
            NotFound,
            VolumeRequest {
                pool: "none".parse().unwrap(),
                ..plain("x")
            },
        ),
        create("a taken name", NameTaken, volume_request("v", Bytes::gib(2))),
        create("more than there is", NoSpace, volume_request("x", Bytes::gib(100))),
        create(
            "more than can be said",
            Invalid,
            volume_request("x", Bytes::new(u64::MAX)),
        ),
        create(
            "above its limit",
            Invalid,
            VolumeRequest {
                limit: Some(Bytes::mib(10)),
                ..plain("x")
            },
        ),
        create(
            "too many clients",
            Invalid,
            VolumeRequest {
                clients: many(),
                ..plain("x")
            },
        ),
        create(
            "a client twice",
            Invalid,
            VolumeRequest {
                clients: vec![client("10.0.0.1"), client("10.0.0.1:ro")],
                ..plain("x")
            },
        ),
        create(
            "no flavour",
            Invalid,
            VolumeRequest {
                options: options(r#"{"security":[]}"#),
                ..plain("x")
            },
        ),
        create(
            "Kerberos",
            Invalid,
            VolumeRequest {
                options: options(r#"{"security":["krb5p"]}"#),
                ..plain("x")
            },
        ),
        create(
            "nobody's number",
            Invalid,
            VolumeRequest {
                options: options(r#"{"root_uid":4294967295}"#),
                ..plain("x")
            },
        ),
        create(
            "made of nothing",
            NotFound,
            of(VolumeSource::Volume(nobody()), "x", Bytes::gib(1)),
        ),
        create(
            "made of no snapshot",
            NotFound,
            of(VolumeSource::Snapshot(nothing()), "x", Bytes::gib(1)),
        ),
        call("a smaller clone", Invalid, |f| {
            f.rig
                .engine
                .create_volume(&by(), &of(VolumeSource::Volume(f.v.id), "x", Bytes::mib(500)))
        }),
        call("a clone from another pool", Invalid, |f| {
            f.rig
                .engine
                .create_volume(&by(), &of(VolumeSource::Volume(f.far.id), "x", Bytes::gib(1)))
        }),
        call("a clone of a stranger's", NotFound, |f| {
            f.rig
                .engine
                .create_volume(&stranger(), &of(VolumeSource::Volume(f.v.id), "x", Bytes::gib(1)))
        }),
        call("a stranger's name", NameTaken, |f| {
            f.rig
                .engine
                .create_volume(&stranger(), &volume_request("v", Bytes::gib(1)))
        }),
        call("an outsider", NotFound, |f| {
            f.rig
                .engine
                .create_volume(&outsider(), &volume_request("x", Bytes::gib(1)))
        }),
        call("no such volume", NotFound, |f| {
            f.rig.engine.delete_volume(&by(), nobody())
        }),
        call("a stranger deletes", NotFound, |f| {
            f.rig.engine.delete_volume(&stranger(), f.v.id)
        }),
        call("an outsider deletes", NotFound, |f| {
            f.rig.engine.delete_volume(&outsider(), f.v.id)
        }),
        call("a stranger lets in", NotFound, |f| {
            f.rig.engine.add_client(&stranger(), f.v.id, client("10.0.0.5"))
        }),
        call("a stranger keeps out", NotFound, |f| {
            f.rig.engine.remove_client(&stranger(), f.v.id, client("10.0.0.1"))
        }),
        call("letting into nothing", NotFound, |f| {
            f.rig.engine.add_client(&by(), nobody(), client("10.0.0.5"))
        }),
        call("smaller", Invalid, |f| {
            f.rig.engine.change_volume(&by(), f.v.id, &to_size(Bytes::mib(500)))
        }),
        call("larger than there is", NoSpace, |f| {
            f.rig.engine.change_volume(&by(), f.v.id, &to_size(Bytes::gib(100)))
        }),
        call("larger than can be said", Invalid, |f| {
            f.rig
                .engine
                .change_volume(&by(), f.v.id, &to_size(Bytes::new(u64::MAX)))
        }),
        call("another's name", NameTaken, |f| {
            f.rig.engine.change_volume(&by(), f.v.id, &to_name("w"))
        }),
        call("another's name, and larger", NameTaken, |f| {
            let both = VolumeChange {
                size: Some(Bytes::gib(2)),
                ..to_name("w")
            };
            f.rig.engine.change_volume(&by(), f.v.id, &both)
        }),
        call("another name, and too large", NoSpace, |f| {
            let both = VolumeChange {
                size: Some(Bytes::gib(100)),
                ..to_name("x")
            };
            f.rig.engine.change_volume(&by(), f.v.id, &both)
        }),
        call("a stranger changes", NotFound, |f| {
            f.rig.engine.change_volume(&stranger(), f.v.id, &to_name("x"))
        }),
        call("TLS", Invalid, |f| {
            f.rig
                .engine
                .set_options(&by(), f.v.id, &options(r#"{"transport_security":"tls"}"#))
        }),
        call("options of a stranger's", NotFound, |f| {
            f.rig
                .engine
                .set_options(&stranger(), f.v.id, &options(r#"{"read_only":true}"#))
        }),
        call("what is not in the trash", NotFound, |f| {
            f.rig.engine.undelete(&by(), nobody(), &as_it_was())
        }),
        call("a name that was taken since", NameTaken, |f| {
            f.rig.engine.undelete(&by(), f.trashed.id, &as_it_was())
        }),
        call("under a taken name", NameTaken, |f| {
            let request = UndeleteRequest {
                name: Some("w".parse().unwrap()),
            };
            f.rig.engine.undelete(&by(), f.trashed.id, &request)
        }),
        call("a stranger's trash", NotFound, |f| {
            f.rig.engine.undelete(&stranger(), f.trashed.id, &as_it_was())
        }),
        call("purging a stranger's", NotFound, |f| {
            f.rig.engine.purge(&stranger(), f.trashed.id)
        }),
        call("purging what is served", NotFound, |f| {
            f.rig.engine.purge(&by(), f.v.id)
        }),
    ]
}

fn snapshots() -> Vec<Call> {
    use ErrorKind::{Invalid, NameTaken, NotFound};
    vec![
        call("of nothing", NotFound, |f| {
            f.rig.engine.create_snapshot(&by(), nobody(), &named("x"))
        }),
        call("of a stranger's", NotFound, |f| {
            f.rig.engine.create_snapshot(&stranger(), f.v.id, &named("x"))
        }),
        call("of what is deleted", NotFound, |f| {
            f.rig.engine.create_snapshot(&by(), f.trashed.id, &named("x"))
        }),
        call("a group of none", Invalid, |f| {
            f.rig.engine.create_group_snapshot(&by(), &group("x", vec![]))
        }),
        call("a group with one twice", Invalid, |f| {
            f.rig
                .engine
                .create_group_snapshot(&by(), &group("x", vec![f.v.id, f.v.id]))
        }),
        call("a group with nothing in it", NotFound, |f| {
            f.rig
                .engine
                .create_group_snapshot(&by(), &group("x", vec![f.v.id, nobody()]))
        }),
        call("a group of too many", Invalid, |f| {
            let volumes = (0..33).map(|n| VolumeId::from_uuid(Uuid::from_u128(n))).collect();
            f.rig.engine.create_group_snapshot(&by(), &group("x", volumes))
        }),
        call("a group by a taken name", NameTaken, |f| {
            f.rig
                .engine
                .create_group_snapshot(&by(), &group("s", vec![f.v.id, f.w.id]))
        }),
        call("deleting nothing", NotFound, |f| {
            f.rig.engine.delete_snapshot(&by(), nothing())
        }),
        call("deleting a stranger's", NotFound, |f| {
            f.rig.engine.delete_snapshot(&stranger(), f.of_v.id)
        }),
        call("serving nothing", NotFound, |f| {
            f.rig.engine.serve_snapshot(&by(), nothing(), &[])
        }),
        call("serving a stranger's", NotFound, |f| {
            f.rig.engine.serve_snapshot(&stranger(), f.of_v.id, &[])
        }),
        call("serving too many", Invalid, |f| {
            f.rig.engine.serve_snapshot(&by(), f.of_v.id, &many())
        }),
        call("back to another's", Invalid, |f| {
            f.rig.engine.roll_back(&by(), f.v.id, &to(f.of_w.id, true))
        }),
        call("back to nothing", NotFound, |f| {
            f.rig.engine.roll_back(&by(), f.v.id, &to(nothing(), true))
        }),
        call("nothing back", NotFound, |f| {
            f.rig.engine.roll_back(&by(), nobody(), &to(f.of_v.id, true))
        }),
        call("a stranger's back", NotFound, |f| {
            f.rig.engine.roll_back(&stranger(), f.v.id, &to(f.of_v.id, true))
        }),
        call("what is deleted back", NotFound, |f| {
            f.rig.engine.roll_back(&by(), f.trashed.id, &to(f.of_v.id, true))
        }),
    ]
}

fn pools() -> Vec<Call> {
    use ErrorKind::{Conflict, DiskInUse, Invalid, NameTaken, NotFound};
    let make = |what, kind, request: PoolRequest| {
        call(what, kind, move |f: &Full| {
            f.rig.engine.create_pool(&by(), &request).map(|made| match made {
                PoolCreation::Started(job) => panic!("{job:?}"),
                PoolCreation::Exists(pool) => panic!("{pool:?}"),
            })
        })
    };
    let import = |pool: PoolId, name: Option<&str>| ImportRequest {
        pool,
        name: name.map(|name| name.parse().unwrap()),
        take_from: None,
    };
    vec![
        make(
            "other disks under its name",
            NameTaken,
            pool_request("tank", Layout::Mirror, &["d", "small"]),
        ),
        make(
            "another layout under its name",
            NameTaken,
            pool_request("tank", Layout::Single, &["a", "b"]),
        ),
        make(
            "of disks in a pool",
            DiskInUse,
            pool_request("new", Layout::Mirror, &["a", "d"]),
        ),
        make(
            "of the disk it started from",
            DiskInUse,
            pool_request("new", Layout::Single, &["boot"]),
        ),
        make(
            "of a disk with a filesystem",
            DiskInUse,
            pool_request("new", Layout::Mirror, &["d", "full"]),
        ),
        make(
            "of a disk that is none",
            NotFound,
            pool_request("new", Layout::Single, &["none"]),
        ),
        make("of too few", Invalid, pool_request("new", Layout::Mirror, &["d"])),
        make(
            "of one twice",
            Invalid,
            pool_request("new", Layout::Mirror, &["d", "d"]),
        ),
        make(
            "a spare that is too small",
            Invalid,
            PoolRequest {
                spares: vec![serial("small")],
                ..pool_request("new", Layout::Single, &["d"])
            },
        ),
        call("deleting one that holds volumes", Conflict, |f| {
            f.rig.engine.delete_pool(&by(), "tank")
        }),
        call("deleting none", NotFound, |f| f.rig.engine.delete_pool(&by(), "none")),
        call("an outsider deletes", NotFound, |f| {
            f.rig.engine.delete_pool(&outsider(), "tank")
        }),
        call("changing none", NotFound, |f| {
            f.rig.engine.change_pool(&by(), "none", &PoolChange::default())
        }),
        call("a small spare", Invalid, |f| {
            f.rig.engine.add_spare(&by(), "tank", &serial("small"))
        }),
        call("a spare with a filesystem", DiskInUse, |f| {
            f.rig.engine.add_spare(&by(), "tank", &serial("full"))
        }),
        call("another pool's disk as a spare", DiskInUse, |f| {
            f.rig.engine.add_spare(&by(), "tank", &serial("c"))
        }),
        call("a spare where nothing has a copy", Invalid, |f| {
            f.rig.engine.add_spare(&by(), "other", &serial("d"))
        }),
        call("a spare of none", NotFound, |f| {
            f.rig.engine.add_spare(&by(), "none", &serial("d"))
        }),
        call("no spare", NotFound, |f| {
            f.rig.engine.remove_spare(&by(), "tank", &serial("a"))
        }),
        call("replaced by itself", Invalid, |f| {
            f.rig.engine.replace_disk(&by(), "tank", &pair("a", "a"))
        }),
        call("replaced by its neighbour", DiskInUse, |f| {
            f.rig.engine.replace_disk(&by(), "tank", &pair("a", "b"))
        }),
        call("replaced by a small one", Invalid, |f| {
            f.rig.engine.replace_disk(&by(), "tank", &pair("a", "small"))
        }),
        call("replaced by one with data", DiskInUse, |f| {
            f.rig.engine.replace_disk(&by(), "tank", &pair("a", "full"))
        }),
        call("replaced by none", NotFound, |f| {
            f.rig.engine.replace_disk(&by(), "tank", &pair("a", "none"))
        }),
        call("replacing another pool's", NotFound, |f| {
            f.rig.engine.replace_disk(&by(), "tank", &pair("c", "d"))
        }),
        call("replacing the only copy", Conflict, |f| {
            f.rig.engine.replace_disk(&by(), "other", &pair("c", "d"))
        }),
        call("comparing one copy", Invalid, |f| {
            f.rig.engine.scrub_pool(&by(), "other", &ScrubRequest::default())
        }),
        call("comparing none", NotFound, |f| {
            f.rig.engine.scrub_pool(&by(), "none", &ScrubRequest::default())
        }),
        call("releasing none", NotFound, |f| f.rig.engine.release_pool(&by(), "none")),
        call("an outsider releases", NotFound, |f| {
            f.rig.engine.release_pool(&outsider(), "tank")
        }),
        call("importing none", NotFound, move |f| {
            f.rig
                .engine
                .import_pool(&by(), &import(PoolId::from_uuid(Uuid::nil()), None))
        }),
        call("importing what is ours under another name", Conflict, move |f| {
            f.rig.engine.import_pool(&by(), &import(f.v.pool, Some("new")))
        }),
        call("importing under a taken name", NameTaken, move |f| {
            f.rig.engine.import_pool(&by(), &import(f.v.pool, Some("other")))
        }),
    ]
}

fn disks_and_what_is_found() -> Vec<Call> {
    use ErrorKind::{Conflict, DiskInUse, Invalid, NotFound};
    let wipe =
        |what, kind, disk: &'static str| call(what, kind, move |f: &Full| f.rig.engine.wipe_disk(&by(), &serial(disk)));
    let remove = |object: &str, confirm: &str| RemoveOrphanRequest {
        object: object.to_owned(),
        confirm: confirm.to_owned(),
    };
    vec![
        wipe("a pool's disk", DiskInUse, "a"),
        wipe("the disk it started from", DiskInUse, "boot"),
        wipe("no disk", NotFound, "none"),
        call("adopting nothing", NotFound, |f| {
            f.rig.engine.adopt_volume(&by(), &adopt("x/y", "x"))
        }),
        call("adopting a volume", NotFound, |f| {
            f.rig
                .engine
                .adopt_volume(&by(), &adopt(&format!("{}/{}", f.v.pool, f.v.id), "x"))
        }),
        call("adopting what holds no filesystem", Conflict, |f| {
            f.rig.engine.adopt_volume(&by(), &adopt(&f.stray, "x"))
        }),
        call("adopting with a client twice", Invalid, |f| {
            let clients = vec![client("10.0.0.1"), client("10.0.0.1:ro")];
            f.rig.engine.adopt_volume(
                &by(),
                &AdoptRequest {
                    clients,
                    ..adopt(&f.stray, "x")
                },
            )
        }),
        call("removing unconfirmed", Invalid, move |f| {
            f.rig.engine.remove_orphan(&by(), &remove(&f.stray, "yes"))
        }),
        call("removing a volume", NotFound, move |f| {
            let object = format!("{}/{}", f.v.pool, f.v.id);
            f.rig.engine.remove_orphan(&by(), &remove(&object, &object))
        }),
        call("removing a pool's data", NotFound, move |f| {
            let object = format!("{}/data", f.v.pool);
            f.rig.engine.remove_orphan(&by(), &remove(&object, &object))
        }),
        call("acknowledging nothing", NotFound, |f| {
            f.rig
                .engine
                .acknowledge_alert(&by(), &AlertId::new(AlertKind::NfsDown, None))
        }),
    ]
}

#[test]
fn whatever_is_refused_leaves_the_machine_as_it_was() {
    let full = full();
    let (before, jobs) = (full.rig.snapshot(), full.rig.engine.jobs(&by()).len());
    let calls = [volumes(), snapshots(), pools(), disks_and_what_is_found()];
    for (what, kind, call) in calls.into_iter().flatten() {
        let refused = call(&full);
        let got = refused.as_ref().err().map(EngineError::kind);
        assert_eq!(got, Some(kind), "{what}: {refused:?}");
        assert_eq!(full.rig.snapshot(), before, "{what}");
        assert_eq!(full.rig.engine.jobs(&by()).len(), jobs, "{what}");
    }
}

/// In a pool that lacks data, and in one that lacks a disk, all that would change it is refused.
#[test]
fn what_a_pool_that_lacks_disks_cannot_do_is_refused_and_changes_nothing() {
    let full = full();
    full.rig.machine.detach(&serial("c"));
    full.rig.machine.detach(&serial("b"));
    full.rig.engine.reconcile().unwrap();
    let before = full.rig.snapshot();
    let id = |f: &Full, lost: bool| if lost { f.far.id } else { f.v.id };
    for lost in [false, true] {
        let pool = if lost { "other" } else { "tank" };
        let calls = [
            call("create", ErrorKind::Unavailable, move |f| {
                let request = VolumeRequest {
                    pool: pool.parse().unwrap(),
                    ..volume_request("x", Bytes::gib(1))
                };
                f.rig.engine.create_volume(&by(), &request)
            }),
            call("delete", ErrorKind::Unavailable, move |f| {
                f.rig.engine.delete_volume(&by(), id(f, lost))
            }),
            call("expand", ErrorKind::Unavailable, move |f| {
                f.rig.engine.change_volume(&by(), id(f, lost), &to_size(Bytes::gib(2)))
            }),
            call("snapshot", ErrorKind::Unavailable, move |f| {
                f.rig.engine.create_snapshot(&by(), id(f, lost), &named("x"))
            }),
            call("group", ErrorKind::Unavailable, move |f| {
                f.rig
                    .engine
                    .create_group_snapshot(&by(), &group("x", vec![id(f, lost)]))
            }),
            call("release", ErrorKind::Unavailable, move |f| {
                f.rig.engine.release_pool(&by(), pool)
            }),
            call("settings", ErrorKind::Unavailable, move |f| {
                let change = PoolChange {
                    trash_seconds: Some(7),
                    ..PoolChange::default()
                };
                f.rig.engine.change_pool(&by(), pool, &change)
            }),
        ];
        for (what, kind, call) in calls {
            let refused = call(&full);
            let got = refused.as_ref().err().map(EngineError::kind);
            assert_eq!(got, Some(kind), "{what} in {pool}: {refused:?}");
            assert_eq!(full.rig.snapshot(), before, "{what} in {pool}");
        }
    }
    let rest = [
        call("roll back", ErrorKind::Unavailable, |f| {
            f.rig.engine.roll_back(&by(), f.v.id, &to(f.of_v.id, true))
        }),
        call("undelete", ErrorKind::Unavailable, |f| {
            let request = UndeleteRequest {
                name: Some("x".parse().unwrap()),
            };
            f.rig.engine.undelete(&by(), f.trashed.id, &request)
        }),
        call("purge", ErrorKind::Unavailable, |f| {
            f.rig.engine.purge(&by(), f.trashed.id)
        }),
        call("delete a snapshot", ErrorKind::Unavailable, |f| {
            f.rig.engine.delete_snapshot(&by(), f.of_v.id)
        }),
        call("serve a snapshot", ErrorKind::Unavailable, |f| {
            f.rig.engine.serve_snapshot(&by(), f.of_w.id, &[client("10.0.0.3")])
        }),
        call("adopt", ErrorKind::Unavailable, |f| {
            f.rig.engine.adopt_volume(&by(), &adopt(&f.stray, "x"))
        }),
        call("compare", ErrorKind::Unavailable, |f| {
            f.rig.engine.scrub_pool(&by(), "tank", &ScrubRequest::default())
        }),
        call("let in where data is lost", ErrorKind::Unavailable, |f| {
            f.rig.engine.add_client(&by(), f.far.id, client("10.0.0.3"))
        }),
        call("replace another", ErrorKind::Unavailable, |f| {
            f.rig.engine.replace_disk(&by(), "tank", &pair("a", "d"))
        }),
    ];
    for (what, kind, call) in rest {
        let refused = call(&full);
        let got = refused.as_ref().err().map(EngineError::kind);
        assert_eq!(got, Some(kind), "{what}: {refused:?}");
        assert_eq!(full.rig.snapshot(), before, "{what}");
    }
}
