//! What is refused of disks that come to a pool and leave it, of its growth, and of its key.

use cistern_model::{AddDisksRequest, Bytes, DrainRequest, ErrorKind, Layout, PoolKeyRequest};
use uuid::Uuid;

use super::{Call, Full, call, full, outsider, whole};
use crate::layers::BOTH;
use crate::support::{Rig, by, refused, serial};

/// Of the right form, and no pool's.
const WRONG: &str = "AAAA-AAAA-AAAA-AAAA-AAAA-AAAA-AAAA-AAAA-AAAA-AAAA-AAAA-AAAA-AAAA";

fn disks(names: &[&str]) -> AddDisksRequest {
    AddDisksRequest {
        disks: names.iter().map(|name| serial(name)).collect(),
    }
}

pub(super) fn disks_that_come_and_go() -> Vec<Call> {
    use ErrorKind::{DiskInUse, Invalid, NotFound};
    let add = |what, kind, pool: &'static str, names: &'static [&'static str]| {
        call(what, kind, move |f: &Full| {
            f.rig.engine.add_disks(&by(), pool, &disks(names))
        })
    };
    let drain = |what, kind, pool: &'static str, name: &'static str| {
        call(what, kind, move |f: &Full| {
            f.rig
                .engine
                .drain_disk(&by(), pool, &DrainRequest { disk: serial(name) })
        })
    };
    vec![
        add("no disk", Invalid, "tank", &[]),
        add("half a pair", Invalid, "tank", &["d"]),
        add("a disk twice", Invalid, "tank", &["d", "d"]),
        add("a disk with a filesystem", DiskInUse, "tank", &["d", "full"]),
        add("another pool's disk", DiskInUse, "tank", &["d", "c"]),
        add("the disk it started from", DiskInUse, "tank", &["d", "boot"]),
        add("a disk that is none", NotFound, "tank", &["d", "none"]),
        add("disks for none", NotFound, "none", &["d", "small"]),
        call("an outsider adds", NotFound, |f| {
            f.rig.engine.add_disks(&outsider(), "tank", &disks(&["d", "small"]))
        }),
        call("growing none", NotFound, |f| f.rig.engine.grow_pool(&by(), "none")),
        call("an outsider grows", NotFound, |f| {
            f.rig.engine.grow_pool(&outsider(), "tank")
        }),
        drain("emptying half a pair", Invalid, "tank", "a"),
        drain("emptying the only one", Invalid, "other", "c"),
        drain("emptying a blank disk", NotFound, "tank", "d"),
        drain("emptying another pool's", NotFound, "tank", "c"),
        drain("emptying no disk", NotFound, "tank", "none"),
        drain("emptying one of none", NotFound, "none", "a"),
        call("an outsider empties", NotFound, |f| {
            let request = DrainRequest { disk: serial("c") };
            f.rig.engine.drain_disk(&outsider(), "other", &request)
        }),
    ]
}

pub(super) fn keys() -> Vec<Call> {
    use ErrorKind::{Invalid, NotFound};
    let give = |f: &Full, pool: &str, key: &str| {
        let request = PoolKeyRequest { key: key.to_owned() };
        f.rig.engine.give_pool_key(&by(), pool, &request)
    };
    vec![
        call("the key of one that has none", Invalid, |f| {
            f.rig.engine.pool_key(&by(), "tank")
        }),
        call("the key of none", NotFound, |f| f.rig.engine.pool_key(&by(), "none")),
        call("an outsider reads a key", NotFound, |f| {
            f.rig.engine.pool_key(&outsider(), "tank")
        }),
        call("a key for what is no id", NotFound, move |f| give(f, "tank", WRONG)),
        call("what is no key", Invalid, move |f| {
            give(f, &f.v.pool.to_string(), "AAAA")
        }),
        call("a key for one that is not locked", NotFound, move |f| {
            give(f, &f.v.pool.to_string(), WRONG)
        }),
        call("a key for one that is not here", NotFound, move |f| {
            let id = cistern_model::PoolId::from_uuid(Uuid::from_u128(1));
            give(f, &id.to_string(), WRONG)
        }),
    ]
}

/// What a disk grew by alone, with any of its neighbours left as it is.
#[test]
fn growth_that_gives_nothing_is_refused_and_changes_nothing() {
    let full = full();
    full.rig
        .machine
        .change_device(&serial("b"), |device| device.size = Bytes::gib(15));
    full.rig.engine.reconcile().unwrap();
    let (before, jobs) = (whole(&full.rig), full.rig.engine.jobs(&by()).len());
    refused(full.rig.engine.grow_pool(&by(), "tank"), ErrorKind::Conflict);
    refused(full.rig.engine.plan_growth(&by(), "tank"), ErrorKind::Conflict);
    assert_eq!(whole(&full.rig), before);
    full.rig.machine.detach(&serial("a"));
    full.rig.engine.reconcile().unwrap();
    let lacking = whole(&full.rig);
    refused(full.rig.engine.grow_pool(&by(), "tank"), ErrorKind::Unavailable);
    let add = full.rig.engine.add_disks(&by(), "tank", &disks(&["d", "small"]));
    refused(add, ErrorKind::Unavailable);
    assert_eq!(whole(&full.rig), lacking);
    assert_eq!(full.rig.engine.jobs(&by()).len(), jobs);
}

/// A pool whose key is lost, and a key that is another's.
#[test]
fn a_key_that_does_not_open_a_locked_pool_is_refused_and_changes_nothing() {
    let mut rig: Rig = crate::layers::with(BOTH, Layout::Mirror, &["a", "b"]);
    let key = rig.engine.pool_key(&by(), "tank").unwrap();
    let record = format!("key-{}", key.pool);
    rig.machine.host().records.remove(&record).unwrap();
    rig.restart();
    let before = whole(&rig);
    let give = |id: &str, key: &str| {
        let request = PoolKeyRequest { key: key.to_owned() };
        rig.engine.give_pool_key(&by(), id, &request)
    };
    let id = key.pool.to_string();
    refused(give(&id, WRONG), ErrorKind::Conflict);
    refused(give(&id, &key.key[1..]), ErrorKind::Invalid);
    let other = cistern_model::PoolId::from_uuid(Uuid::from_u128(1)).to_string();
    refused(give(&other, &key.key), ErrorKind::NotFound);
    let told = refused(rig.engine.pool_key(&by(), "tank"), ErrorKind::Unavailable);
    assert!(told.contains("--key"), "{told}");
    assert_eq!(whole(&rig), before);
    assert_eq!(rig.machine.record(&record), None);
    give(&id, &key.key).unwrap();
    rig.check();
}
