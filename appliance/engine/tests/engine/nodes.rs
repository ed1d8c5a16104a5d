//! To which nodes of a cluster a volume is published.

use cistern_host::memory::MemoryHost;
use cistern_model::{Bytes, Client, ErrorKind, EventKind, FenceMethod, HeldState, NodeAccess, NodeName, Volume};

use crate::support::{Rig, by, client, path, refused, volume_request};

pub(crate) const LOCKED: HeldState = HeldState {
    opens: 1,
    locks: 1,
    delegations: 0,
};

pub(crate) fn node(name: &str) -> NodeName {
    name.parse().unwrap()
}

pub(crate) fn from(addresses: &[&str]) -> NodeAccess {
    NodeAccess {
        addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(),
        read_only: false,
        alone: false,
    }
}

pub(crate) fn alone(addresses: &[&str]) -> NodeAccess {
    NodeAccess {
        alone: true,
        ..from(addresses)
    }
}

/// A volume without clients.
pub(crate) fn volume(rig: &Rig) -> Volume {
    let request = cistern_model::VolumeRequest {
        clients: Vec::new(),
        ..volume_request("v", Bytes::gib(1))
    };
    rig.engine.create_volume(&by(), &request).unwrap().object
}

pub(crate) fn exported(rig: &Rig) -> Vec<Client> {
    rig.machine.exports()[0].clients.clone()
}

pub(crate) fn told(rig: &Rig, kind: EventKind) -> bool {
    rig.engine.events(0, 1000).iter().any(|event| event.kind == kind)
}

#[test]
fn a_node_mounts_it_from_its_addresses_until_it_is_taken_away() {
    let mut rig = Rig::with_pool();
    let v = volume(&rig);
    let publish = |rig: &Rig| {
        let access = from(&["fd00::7", "10.0.0.7", "fd00::7"]);
        rig.engine
            .publish_to_node(&by(), v.id, &node("worker-1"), &access)
            .unwrap()
    };
    let published = publish(&rig);
    assert!(published.created && !publish(&rig).created);
    assert_eq!(exported(&rig), [client("10.0.0.7"), client("fd00::7")]);
    let nodes = published.object.nodes;
    assert_eq!(
        (nodes.len(), nodes[0].name.as_str(), nodes[0].addresses.len()),
        (1, "worker-1", 2)
    );
    assert_eq!(published.object.clients, []);
    assert!(told(&rig, EventKind::NodePublished));
    rig.restart();
    assert_eq!(exported(&rig).len(), 2);
    rig.check();
    rig.machine.client_holds("10.0.0.7", &path(v.id), LOCKED);
    let gone = rig.engine.unpublish_from_node(&by(), v.id, &node("worker-1")).unwrap();
    assert_eq!(
        (gone.fenced.len(), gone.fenced[0].method),
        (1, FenceMethod::ExpireClient)
    );
    assert_eq!((exported(&rig), gone.volume.nodes), (vec![], vec![]));
    let again = rig.engine.unpublish_from_node(&by(), v.id, &node("worker-1")).unwrap();
    assert_eq!(again.fenced, []);
    rig.check();
    assert!(told(&rig, EventKind::NodeUnpublished));
}

#[test]
fn one_that_has_it_alone_keeps_others_out_and_nobody_has_it_alone_beside_another() {
    let rig = Rig::with_pool();
    let v = volume(&rig);
    let publish = |name: &str, access: &NodeAccess| rig.engine.publish_to_node(&by(), v.id, &node(name), access);
    publish("a", &alone(&["10.0.0.7"])).unwrap();
    let before = rig.snapshot();
    for access in [from(&["10.0.0.8"]), alone(&["10.0.0.8"])] {
        let said = refused(publish("b", &access), ErrorKind::Conflict);
        assert!(said.contains("node a"), "{said}");
    }
    for otherwise in [
        from(&["10.0.0.7"]),
        NodeAccess {
            read_only: true,
            ..alone(&["10.0.0.7"])
        },
    ] {
        let said = refused(publish("a", &otherwise), ErrorKind::NameTaken);
        assert!(said.contains("alone"), "{said}");
    }
    assert_eq!(rig.snapshot(), before);
    rig.engine.unpublish_from_node(&by(), v.id, &node("a")).unwrap();
    publish("a", &from(&["10.0.0.7"])).unwrap();
    publish("b", &from(&["10.0.0.8"])).unwrap();
    refused(publish("c", &alone(&["10.0.0.9"])), ErrorKind::Conflict);
}

#[test]
fn an_address_that_is_let_in_otherwise_stays() {
    let rig = Rig::with_pool();
    let v = volume(&rig);
    let reads = NodeAccess {
        read_only: true,
        ..from(&["10.0.0.7"])
    };
    rig.engine.publish_to_node(&by(), v.id, &node("a"), &reads).unwrap();
    assert_eq!(exported(&rig), [client("10.0.0.7:ro")]);
    rig.engine
        .publish_to_node(&by(), v.id, &node("b"), &from(&["10.0.0.7"]))
        .unwrap();
    rig.engine.add_client(&by(), v.id, client("10.0.0.0/24:ro")).unwrap();
    assert_eq!(exported(&rig), [client("10.0.0.0/24:ro"), client("10.0.0.7")]);
    rig.machine.client_holds("10.0.0.7", &path(v.id), LOCKED);
    let gone = rig.engine.unpublish_from_node(&by(), v.id, &node("b")).unwrap();
    assert_eq!(
        (gone.fenced, exported(&rig)),
        (vec![], vec![client("10.0.0.0/24:ro"), client("10.0.0.7:ro")])
    );
    rig.check();
}

#[test]
fn a_volume_that_a_node_has_is_not_deleted_under_it() {
    let rig = Rig::with_pool();
    let v = volume(&rig);
    rig.engine
        .publish_to_node(&by(), v.id, &node("a"), &from(&["10.0.0.7"]))
        .unwrap();
    let said = refused(rig.engine.delete_volume(&by(), v.id), ErrorKind::Conflict);
    assert!(said.contains("cistern nodes remove"), "{said}");
    rig.engine.unpublish_from_node(&by(), v.id, &node("a")).unwrap();
    rig.engine.delete_volume(&by(), v.id).unwrap();
}

#[test]
fn a_failure_while_it_is_taken_away_leaves_what_is_to_be_cut_off_known() {
    let rig = Rig::with_pool();
    let v = volume(&rig);
    rig.engine
        .publish_to_node(&by(), v.id, &node("a"), &from(&["10.0.0.7"]))
        .unwrap();
    rig.machine.client_holds("10.0.0.7", &path(v.id), LOCKED);
    for call in ["exports.set", "exports.expire", "lvm.tag_lv"] {
        rig.machine.fail_next(call, MemoryHost::failure("no"));
        refused(
            rig.engine.unpublish_from_node(&by(), v.id, &node("a")),
            ErrorKind::Internal,
        );
        let nodes = rig.engine.volume(&by(), v.id).unwrap().nodes;
        assert_eq!(nodes.len(), 1, "{call}");
    }
    rig.engine.unpublish_from_node(&by(), v.id, &node("a")).unwrap();
    assert_eq!(exported(&rig), []);
    rig.check();
}

#[test]
fn what_is_no_access_is_refused() {
    let rig = Rig::with_pool();
    let v = volume(&rig);
    let before = rig.snapshot();
    for wrong in [from(&[]), from(&["0.0.0.0"]), from(&["10.0.0.1"; 17])] {
        refused(
            rig.engine.publish_to_node(&by(), v.id, &node("a"), &wrong),
            ErrorKind::Invalid,
        );
    }
    assert_eq!(rig.snapshot(), before);
}
