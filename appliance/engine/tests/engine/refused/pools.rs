//! What is refused of pools, their disks, and what is found on these.

use cistern_engine::PoolCreation;
use cistern_model::{
    AdoptRequest, AlertId, AlertKind, ErrorKind, ImportRequest, Layout, PoolChange, PoolId, PoolRequest,
    RemoveOrphanRequest, ScrubEvery, ScrubRequest,
};
use uuid::Uuid;

use super::{Call, Full, UNSEEN, adopt, call, many, outsider, pair};
use crate::support::{by, client, pool_request, serial};

pub(super) fn pools() -> Vec<Call> {
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
        call("comparing one copy", Invalid, |f| {
            f.rig.engine.scrub_pool(&by(), "other", &ScrubRequest::default())
        }),
        call("comparing one copy by a schedule", Invalid, |f| {
            let change = PoolChange {
                scrub: Some(ScrubEvery::Weekly),
                trash_seconds: Some(9),
                ..PoolChange::default()
            };
            f.rig.engine.change_pool(&by(), "other", &change)
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

pub(super) fn disks_and_what_is_found() -> Vec<Call> {
    use ErrorKind::{Conflict, DiskInUse, Invalid, NotFound};
    let wipe = |what, kind, disk: &'static str| {
        call(what, kind, move |f: &Full| {
            f.rig.engine.wipe_disk(&by(), &serial(disk), None)
        })
    };
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
        call("adopting with too many clients", Invalid, |f| {
            let clients = many();
            f.rig.engine.adopt_volume(
                &by(),
                &AdoptRequest {
                    clients,
                    ..adopt(&f.stray, "x")
                },
            )
        }),
        call("adopting under a name that is not seen whole", Invalid, |f| {
            f.rig.engine.adopt_volume(&by(), &adopt(&f.stray, UNSEEN))
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
