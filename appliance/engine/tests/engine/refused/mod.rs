//! Every call of the engine that can be refused, and each way in which it is: the machine is as it was, its tags, mounts and
//! exports compared before and after; and nothing is under way.

mod growth;
mod pools;
mod volumes;

use cistern_engine::EngineError;
use cistern_model::{
    AdoptRequest, Bytes, Client, ErrorKind, GroupSnapshotRequest, Layout, PoolChange, Principal, ReplaceRequest,
    ScrubRequest, Snapshot, SnapshotId, SnapshotRequest, TrashedVolume, UndeleteRequest, Volume, VolumeId,
    VolumeRequest,
};
use uuid::Uuid;

use crate::changes::to_size;
use crate::rollback::to;
use crate::support::{Rig, by, client, provisioner, serial, volume_request};

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

/// All that is on the machine: what is mounted, exported and tagged, each disk and what is on it, and what LVM tells.
fn whole(rig: &Rig) -> impl PartialEq + std::fmt::Debug + use<> {
    let host = rig.machine.host();
    let keys: Vec<_> = rig
        .engine
        .pools(&by())
        .unwrap()
        .into_iter()
        .map(|pool| pool.id)
        .collect();
    let keys: Vec<_> = keys.iter().map(|id| rig.machine.record(&format!("key-{id}"))).collect();
    let layers = rig.machine.record("layers.json");
    (
        rig.snapshot(),
        host.disks.list().unwrap(),
        host.lvm.state().unwrap(),
        (keys, layers),
    )
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

/// A name that reads as another.
const UNSEEN: &str = "x\u{202e}sotohp";

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

#[test]
fn whatever_is_refused_leaves_the_machine_as_it_was() {
    let full = full();
    let (before, jobs) = (whole(&full.rig), full.rig.engine.jobs(&by()).len());
    let calls = [
        volumes::volumes(),
        volumes::snapshots(),
        pools::pools(),
        pools::disks_and_what_is_found(),
        growth::disks_that_come_and_go(),
        growth::keys(),
    ];
    for (what, kind, call) in calls.into_iter().flatten() {
        let refused = call(&full);
        let got = refused.as_ref().err().map(EngineError::kind);
        assert_eq!(got, Some(kind), "{what}: {refused:?}");
        assert_eq!(whole(&full.rig), before, "{what}");
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
