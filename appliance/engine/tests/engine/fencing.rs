//! What it takes to cut a client off.

use cistern_host::memory::MemoryHost;
use cistern_model::{
    Bytes, ErrorKind, EventKind, FenceMethod, FenceReport, HeldState, Holding, LiveClient, Severity, Touched, Volume,
};

use crate::support::{Rig, by, client, path, refused};

const NODE: &str = "10.0.0.1";
const OTHER: &str = "10.0.0.2";

const OPEN: HeldState = HeldState {
    opens: 2,
    locks: 0,
    delegations: 0,
};
const LOCKED: HeldState = HeldState {
    opens: 1,
    locks: 1,
    delegations: 0,
};

/// Two volumes that both nodes may mount.
fn shared() -> (Rig, Volume, Volume) {
    let rig = Rig::with_pool();
    let (one, two) = (
        rig.make_volume("one", Bytes::gib(1)),
        rig.make_volume("two", Bytes::gib(1)),
    );
    for volume in [&one, &two] {
        rig.engine.add_client(&by(), volume.id, client(OTHER)).unwrap();
    }
    (rig, one, two)
}

fn fence(rig: &Rig, volume: &Volume) -> Vec<FenceReport> {
    rig.engine.remove_client(&by(), volume.id, client(NODE)).unwrap().fenced
}

/// Calls that revoke, after the last change of an export.
fn revoked(rig: &Rig) -> Vec<String> {
    let calls = rig.machine.calls();
    let since = calls.iter().rposition(|call| call.starts_with("exports.set")).unwrap();
    let revoke = |call: &&String| call.starts_with("exports.expire") || call.starts_with("exports.release");
    assert!(
        !calls[..since].iter().any(|call| revoke(&call)),
        "revoked before the export was gone"
    );
    calls[since..].iter().filter(revoke).cloned().collect()
}

#[test]
fn a_client_that_never_mounted_it_is_taken_away_without_more() {
    let (rig, one, _) = shared();
    assert_eq!(fence(&rig, &one), []);
    assert_eq!(revoked(&rig), Vec::<String>::new());
}

#[test]
fn what_is_only_open_is_left() {
    let (rig, one, two) = shared();
    rig.machine.client_holds(NODE, &path(one.id), OPEN);
    rig.machine.client_holds(NODE, &path(two.id), LOCKED);
    let reports = fence(&rig, &one);
    assert_eq!((reports[0].method, reports[0].held), (FenceMethod::None, OPEN));
    assert_eq!(revoked(&rig), Vec::<String>::new());
}

#[test]
fn a_session_that_holds_nothing_elsewhere_is_ended_and_the_others_go_on() {
    let (rig, one, _) = shared();
    rig.machine.client_holds(NODE, &path(one.id), LOCKED);
    rig.machine.client_holds(OTHER, &path(one.id), LOCKED);
    let reports = fence(&rig, &one);
    assert_eq!(
        reports,
        [FenceReport {
            client: NODE.parse().unwrap(),
            held: LOCKED,
            method: FenceMethod::ExpireClient,
            also_touched: vec![],
        }]
    );
    assert_eq!(revoked(&rig), [format!("exports.expire {NODE}")]);
    let told = rig.engine.events(0, 1000);
    let told = told.iter().find(|e| e.kind == EventKind::ClientFenced).unwrap();
    assert_eq!(
        (told.severity, told.object.clone()),
        (Severity::Info, Some(one.id.to_string()))
    );
}

#[test]
fn locks_on_its_other_volumes_are_the_price_and_that_is_told() {
    let (rig, one, two) = shared();
    rig.machine.client_holds(NODE, &path(one.id), LOCKED);
    rig.machine.client_holds(NODE, &path(two.id), LOCKED);
    rig.machine.client_holds(OTHER, &path(one.id), LOCKED);
    let reports = fence(&rig, &one);
    let touched = Touched {
        client: NODE.parse().unwrap(),
        volume: two.id,
        held: LOCKED,
    };
    assert_eq!(
        (reports[0].method, reports[0].also_touched.clone()),
        (FenceMethod::ExpireClient, vec![touched])
    );
    let told = rig.engine.events(0, 1000);
    let told = told.iter().find(|e| e.kind == EventKind::ClientFenced).unwrap();
    assert!(
        told.severity == Severity::Warning && told.message.contains(&two.id.to_string()),
        "{told:?}"
    );
}

#[test]
fn what_is_only_open_elsewhere_is_not_told_because_its_client_opens_it_again() {
    let (rig, one, two) = shared();
    rig.machine.client_holds(NODE, &path(one.id), LOCKED);
    rig.machine.client_holds(NODE, &path(two.id), OPEN);
    assert_eq!(fence(&rig, &one)[0].also_touched, vec![]);
}

#[test]
fn a_delegation_is_not_worth_the_locks_on_another_volume() {
    let delegated = HeldState { delegations: 1, ..OPEN };
    let (rig, one, two) = shared();
    rig.machine.client_holds(NODE, &path(one.id), delegated);
    rig.machine.client_holds(NODE, &path(two.id), LOCKED);
    assert_eq!(fence(&rig, &one)[0].method, FenceMethod::None);
    assert_eq!(revoked(&rig), Vec::<String>::new());
    let (rig, one, _) = shared();
    rig.machine.client_holds(NODE, &path(one.id), delegated);
    assert_eq!(fence(&rig, &one)[0].method, FenceMethod::ExpireClient);
}

#[test]
fn a_node_that_another_client_s_network_covers_is_not_cut_off() {
    let (rig, one, _) = shared();
    rig.engine.add_client(&by(), one.id, client("10.0.0.0/24")).unwrap();
    rig.machine.client_holds(NODE, &path(one.id), LOCKED);
    assert_eq!(fence(&rig, &one), []);
    let network = rig.engine.remove_client(&by(), one.id, client("10.0.0.0/24")).unwrap();
    assert_eq!(network.fenced.len(), 1, "now nothing covers it");
}

#[test]
fn a_fence_that_failed_is_made_up_for_by_the_same_request() {
    let (rig, one, _) = shared();
    rig.machine.client_holds(NODE, &path(one.id), LOCKED);
    for call in ["exports.set", "exports.sessions", "exports.expire"] {
        rig.machine.fail_next(call, MemoryHost::failure(call));
        refused(
            rig.engine.remove_client(&by(), one.id, client(NODE)),
            ErrorKind::Internal,
        );
        assert_eq!(rig.engine.volume(&by(), one.id).unwrap().clients, [client(OTHER)]);
    }
    assert_eq!(fence(&rig, &one).len(), 1);
    rig.check();
}

#[test]
fn a_client_is_not_told_to_be_cut_off_while_what_it_holds_cannot_be_read_and_another_is() {
    let (rig, one, _) = shared();
    rig.machine.client_holds(NODE, &path(one.id), LOCKED);
    rig.machine.client_holds(OTHER, &path(one.id), LOCKED);
    rig.machine.let_holdings_be_unreadable(OTHER);
    assert_eq!(fence(&rig, &one)[0].held, LOCKED);
    let asked = || rig.engine.remove_client(&by(), one.id, client(OTHER));
    let why = refused(asked(), ErrorKind::Unavailable);
    assert!(why.contains(OTHER), "{why}");
    assert_eq!(rig.engine.live_clients().unwrap()[0].holds, []);
    rig.machine.client_holds(OTHER, &path(one.id), LOCKED);
    assert_eq!(asked().unwrap().fenced[0].held, LOCKED);
    rig.check();
}

#[test]
fn nothing_is_answered_while_a_request_that_was_let_in_is_under_way() {
    let (rig, one, _) = shared();
    let slow = || cistern_host::HostError::TimedOut {
        operation: "wait for a write".into(),
        limit: std::time::Duration::from_secs(30),
    };
    // The same request again finds no tag, and waits all the same.
    for _ in 0..2 {
        rig.machine.fail_next("exports.settle", slow());
        refused(
            rig.engine.remove_client(&by(), one.id, client(NODE)),
            ErrorKind::TimedOut,
        );
    }
    assert_eq!(fence(&rig, &one), []);
    let calls = rig.machine.calls();
    let last = |name: &str| calls.iter().rposition(|call| call.starts_with(name)).unwrap();
    assert!(last("exports.set ") < last("exports.settle") && last("exports.settle") < last("exports.sessions"));
}

#[test]
fn who_is_connected_is_told_with_what_each_holds_by_volume() {
    let (rig, one, two) = shared();
    rig.machine.client_holds(OTHER, &path(two.id), OPEN);
    rig.machine.client_holds(NODE, &path(one.id), LOCKED);
    rig.machine.client_holds(NODE, std::path::Path::new("/elsewhere"), OPEN);
    let holding = |volume, held| Holding { volume, held };
    let live = |address: &str, holds| LiveClient {
        address: address.parse().unwrap(),
        holds,
    };
    assert_eq!(
        rig.engine.live_clients().unwrap(),
        [
            live(NODE, vec![holding(one.id, LOCKED)]),
            live(OTHER, vec![holding(two.id, OPEN)])
        ]
    );
}
