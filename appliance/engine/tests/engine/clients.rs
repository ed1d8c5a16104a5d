//! Who may mount a volume.

use cistern_host::memory::MemoryHost;
use cistern_model::{Bytes, Client, ErrorKind};

use crate::support::{Rig, by, client, path, refused, serial};

fn exported(rig: &Rig) -> Vec<Client> {
    rig.machine.exports()[0].clients.clone()
}

#[test]
fn a_client_is_let_in_and_kept_out_again() {
    let mut rig = Rig::with_pool();
    let volume = rig.make_volume("v", Bytes::gib(1));
    let added = rig.engine.add_client(&by(), volume.id, client("fd00::/64")).unwrap();
    assert!(added.created);
    assert_eq!(exported(&rig), [client("10.0.0.1"), client("fd00::/64")]);
    assert!(
        !rig.engine
            .add_client(&by(), volume.id, client("fd00::/64"))
            .unwrap()
            .created
    );
    let left = rig.engine.remove_client(&by(), volume.id, client("10.0.0.1")).unwrap();
    assert_eq!(
        (left.volume.clients.clone(), left.fenced),
        (vec![client("fd00::/64")], vec![])
    );
    let left = left.volume;
    assert_eq!(
        rig.engine
            .remove_client(&by(), volume.id, client("10.0.0.1"))
            .unwrap()
            .volume
            .clients,
        left.clients
    );
    rig.check();
    rig.restart();
    assert_eq!(exported(&rig), [client("fd00::/64")]);
    rig.check();
}

#[test]
fn with_its_last_client_a_volume_does_not_lose_its_export() {
    let rig = Rig::with_pool();
    let volume = rig.make_volume("v", Bytes::gib(1));
    rig.engine.remove_client(&by(), volume.id, client("10.0.0.1")).unwrap();
    assert_eq!(
        (rig.machine.exports()[0].path.clone(), exported(&rig).len()),
        (path(volume.id), 0)
    );
}

#[test]
fn a_change_of_exports_that_failed_is_made_up_for_by_the_same_request() {
    let rig = Rig::with_pool();
    let volume = rig.make_volume("v", Bytes::gib(1));
    rig.machine.fail_next("exports.set", MemoryHost::failure("set"));
    refused(
        rig.engine.add_client(&by(), volume.id, client("10.0.0.2")),
        ErrorKind::Internal,
    );
    assert_eq!(exported(&rig), [client("10.0.0.1")]);
    assert!(
        !rig.engine
            .add_client(&by(), volume.id, client("10.0.0.2"))
            .unwrap()
            .created
    );
    assert_eq!(exported(&rig), [client("10.0.0.1"), client("10.0.0.2")]);

    rig.machine.fail_next("exports.set", MemoryHost::failure("set"));
    refused(
        rig.engine.remove_client(&by(), volume.id, client("10.0.0.2")),
        ErrorKind::Internal,
    );
    rig.engine.remove_client(&by(), volume.id, client("10.0.0.2")).unwrap();
    rig.check();
}

#[test]
fn a_volume_has_at_most_256_clients() {
    let rig = Rig::with_pool();
    let volume = rig.make_volume("v", Bytes::gib(1));
    for n in 1..=255u8 {
        rig.engine
            .add_client(&by(), volume.id, client(&format!("10.0.1.{n}")))
            .unwrap();
    }
    let before = rig.snapshot();
    refused(
        rig.engine.add_client(&by(), volume.id, client("10.0.2.1")),
        ErrorKind::Invalid,
    );
    assert_eq!(rig.snapshot(), before);
}

/// Told that there is no such thing, a client would forget what it has open; and what was kept of a pool lets nobody in.
#[test]
fn clients_of_a_pool_none_of_whose_disks_is_here_wait_and_find_what_the_pool_says_when_it_comes() {
    let mut rig = Rig::with_pool();
    let volume = rig.make_volume("v", Bytes::gib(1));
    rig.engine.add_client(&by(), volume.id, client("fd00::/64")).unwrap();
    rig.engine.tick();
    // The power goes before that is noted anew.
    rig.engine.remove_client(&by(), volume.id, client("fd00::/64")).unwrap();
    for disk in ["a", "b"] {
        rig.machine.detach(&serial(disk));
    }
    rig.restart();
    assert_eq!(exported(&rig), [client("10.0.0.1"), client("fd00::/64")]);
    assert!(rig.machine.mounts().is_empty());
    for disk in ["a", "b"] {
        rig.machine.attach(&serial(disk));
    }
    let before = rig.machine.calls().len();
    rig.engine.reconcile().unwrap();
    rig.check();
    assert_eq!(exported(&rig), [client("10.0.0.1")]);
    let calls = rig.machine.calls().split_off(before);
    let first = |call: &str| calls.iter().position(|name| name.starts_with(call)).unwrap();
    assert!(first("exports.replace") < first("filesystems.mount "), "{calls:?}");

    // Until somebody says that it does not come back.
    rig.engine.tick();
    for disk in ["a", "b"] {
        rig.machine.detach(&serial(disk));
    }
    rig.restart();
    assert_eq!(rig.machine.exports().len(), 1);
    let job = rig.engine.delete_pool(&by(), &volume.pool.to_string()).unwrap();
    rig.wait(&job);
    assert!(rig.machine.exports().is_empty());
}
