//! What becomes of what a node holds when its address changes. The NFS server knows a session by the address with which it began,
//! wherever its client comes from by then.

use cistern_host::memory::Cut;
use cistern_model::{Bytes, EventKind, FenceMethod, HeldState, Volume, VolumeRequest, VolumeSource};

use crate::clones::of;
use crate::nodes::{LOCKED, alone, exported, from, node, told, volume};
use crate::support::{Rig, by, client, path, volume_request};

const OLD: &str = "10.0.0.7";
const NEW: &str = "10.0.0.8";
const NEWEST: &str = "10.0.0.9";

#[track_caller]
fn publish(rig: &Rig, volume: &Volume, name: &str, address: &str) {
    let published = rig
        .engine
        .publish_to_node(&by(), volume.id, &node(name), &from(&[address]));
    published.unwrap();
}

/// Takes the volume from a node; from where the sessions came that were cut off, and how.
#[track_caller]
fn taken(rig: &Rig, volume: &Volume, name: &str) -> Vec<(String, FenceMethod)> {
    let gone = rig.engine.unpublish_from_node(&by(), volume.id, &node(name)).unwrap();
    let fenced = gone.fenced.iter();
    fenced
        .map(|report| (report.client.to_string(), report.method))
        .collect()
}

fn ended(address: &str) -> Vec<(String, FenceMethod)> {
    vec![(address.to_owned(), FenceMethod::ExpireClient)]
}

/// Whether a session that began there has locks on the volume.
fn locks(rig: &Rig, volume: &Volume, address: &str) -> bool {
    let sessions = rig.machine.host().exports.sessions().unwrap();
    let began_there = sessions.iter().filter(|session| session.address.to_string() == address);
    let mut held = began_there.flat_map(|session| session.held.iter().flatten());
    held.any(|there| there.path == path(volume.id) && there.held.locks > 0)
}

/// The former addresses of nodes that stand on the disks with the volume.
fn remembered(rig: &Rig, volume: &Volume) -> Vec<String> {
    let tags = rig.machine.tags(&volume.pool.to_string(), &volume.id.to_string());
    let was = tags.iter().filter_map(|tag| tag.strip_prefix("cistern.node-was="));
    was.map(str::to_owned).collect()
}

/// A second volume without clients.
fn other_volume(rig: &Rig) -> Volume {
    let request = VolumeRequest {
        clients: Vec::new(),
        ..volume_request("w", Bytes::gib(1))
    };
    rig.engine.create_volume(&by(), &request).unwrap().object
}

#[test]
fn a_node_that_moves_keeps_its_locks_and_loses_them_when_the_volume_is_taken_from_it() {
    let rig = Rig::with_pool();
    let v = volume(&rig);
    publish(&rig, &v, "a", OLD);
    rig.machine.client_holds(OLD, &path(v.id), LOCKED);
    publish(&rig, &v, "a", NEW);
    let calls = rig.machine.calls();
    assert_eq!(exported(&rig), [client(NEW)]);
    assert!(locks(&rig, &v, OLD), "it is the same node, which goes on");
    assert!(!told(&rig, EventKind::ClientFenced));
    assert_eq!(remembered(&rig, &v), [format!("a/{OLD}")]);
    // What was let in from the old address is at its end before that is noted.
    let last = |name: &str| calls.iter().rposition(|call| call.starts_with(name)).unwrap();
    assert!(last("exports.settle") < last("exports.sessions") && last("exports.sessions") < last("lvm.tag_lv"));
    rig.check();
    assert_eq!(taken(&rig, &v, "a"), ended(OLD));
    assert!(!locks(&rig, &v, OLD));
    assert_eq!(remembered(&rig, &v), Vec::<String>::new());
    rig.check();
}

#[test]
fn a_session_that_held_nothing_when_its_node_moved_is_found_when_it_holds_something() {
    let rig = Rig::with_pool();
    let v = volume(&rig);
    publish(&rig, &v, "a", OLD);
    rig.machine.client_holds(OLD, &path(v.id), HeldState::default());
    publish(&rig, &v, "a", NEW);
    rig.machine.client_holds(OLD, &path(v.id), LOCKED);
    // And it moves on.
    publish(&rig, &v, "a", NEWEST);
    assert_eq!(exported(&rig), [client(NEWEST)]);
    assert_eq!(taken(&rig, &v, "a"), ended(OLD));
    assert!(!locks(&rig, &v, OLD));
}

#[test]
fn a_volume_that_a_node_gets_after_it_moved_is_taken_from_its_old_session_too() {
    for again in [true, false] {
        let rig = Rig::with_pool();
        let (v, w) = (volume(&rig), other_volume(&rig));
        publish(&rig, &v, "a", OLD);
        rig.machine.client_holds(OLD, &path(v.id), HeldState::default());
        // Whether what it had was published to its new address before.
        if again {
            publish(&rig, &v, "a", NEW);
        }
        publish(&rig, &w, "a", NEW);
        rig.machine.client_holds(OLD, &path(w.id), LOCKED);
        assert_eq!(taken(&rig, &w, "a"), ended(OLD), "{again}");
        rig.check();
    }
}

#[test]
fn a_session_that_began_elsewhere_after_the_volume_was_published_is_found_by_the_node_s_other_volumes() {
    let rig = Rig::with_pool();
    let (v, w) = (volume(&rig), other_volume(&rig));
    publish(&rig, &v, "a", NEW);
    publish(&rig, &w, "a", OLD);
    rig.machine.client_holds(OLD, &path(w.id), HeldState::default());
    rig.machine.client_holds(OLD, &path(v.id), LOCKED);
    assert_eq!(taken(&rig, &v, "a"), ended(OLD));
    rig.check();
}

#[test]
fn a_session_is_found_though_the_volume_that_knew_its_address_was_taken_from_the_node_before() {
    let rig = Rig::with_pool();
    let (v, w) = (volume(&rig), other_volume(&rig));
    publish(&rig, &v, "a", NEW);
    publish(&rig, &v, "b", NEWEST);
    publish(&rig, &w, "a", OLD);
    rig.machine.client_holds(OLD, &path(w.id), HeldState::default());
    taken(&rig, &w, "a");
    rig.machine.client_holds(OLD, &path(v.id), LOCKED);
    rig.machine.client_holds(NEWEST, &path(v.id), LOCKED);
    assert_eq!(taken(&rig, &v, "a"), ended(OLD));
    // Whose volume it is yet keeps what it holds.
    assert!(locks(&rig, &v, NEWEST));
    rig.check();
}

#[test]
fn a_node_with_several_addresses_is_let_in_from_those_that_it_has_now() {
    let rig = Rig::with_pool();
    let v = volume(&rig);
    let publish = |addresses: &[&str]| {
        let published = rig.engine.publish_to_node(&by(), v.id, &node("a"), &alone(addresses));
        published.unwrap().created
    };
    assert!(publish(&[OLD, NEW]));
    rig.machine.client_holds(OLD, &path(v.id), LOCKED);
    assert!(!publish(&[NEW, NEWEST]));
    assert_eq!(exported(&rig), [client(NEW), client(NEWEST)]);
    assert_eq!(remembered(&rig, &v), [format!("a/{OLD}")]);
    // The same again is the same, whatever it had before.
    let before = rig.snapshot();
    assert!(!publish(&[NEWEST, NEW]));
    assert_eq!(rig.snapshot(), before);
    rig.check();
}

#[test]
fn another_node_that_has_the_old_address_now_is_left_alone() {
    let rig = Rig::with_pool();
    let v = volume(&rig);
    publish(&rig, &v, "a", OLD);
    rig.machine.client_holds(OLD, &path(v.id), HeldState::default());
    publish(&rig, &v, "a", NEW);
    publish(&rig, &v, "b", OLD);
    rig.machine.client_holds(OLD, &path(v.id), LOCKED);
    rig.machine.client_holds(NEW, &path(v.id), LOCKED);
    assert_eq!(taken(&rig, &v, "a"), ended(NEW));
    assert!(locks(&rig, &v, OLD));
    assert_eq!(exported(&rig), [client(OLD)]);
    assert_eq!(taken(&rig, &v, "b"), ended(OLD));
    rig.check();
}

#[test]
fn old_addresses_are_kept_in_mind_while_there_is_a_session_from_there() {
    let rig = Rig::with_pool();
    let v = volume(&rig);
    let none = Vec::<String>::new();
    publish(&rig, &v, "a", OLD);
    publish(&rig, &v, "a", NEW);
    assert_eq!(remembered(&rig, &v), none);
    rig.machine.client_holds(NEW, &path(v.id), LOCKED);
    publish(&rig, &v, "a", OLD);
    assert_eq!(remembered(&rig, &v), [format!("a/{NEW}")]);
    // Where it is again it is like any other.
    publish(&rig, &v, "a", NEW);
    assert_eq!(remembered(&rig, &v), none);
    publish(&rig, &v, "a", OLD);
    rig.machine.host().exports.expire(NEW).unwrap();
    publish(&rig, &v, "a", NEWEST);
    assert_eq!(remembered(&rig, &v), none);
    rig.check();
}

#[test]
fn old_addresses_outlive_the_supervisor_and_the_power_and_no_copy_has_them() {
    let mut rig = Rig::with_pool();
    let v = volume(&rig);
    publish(&rig, &v, "a", OLD);
    rig.machine.client_holds(OLD, &path(v.id), LOCKED);
    publish(&rig, &v, "a", NEW);
    let copy = of(VolumeSource::Volume(v.id), "copy", v.size);
    let copy = rig.engine.create_volume(&by(), &copy).unwrap().object;
    assert_eq!(remembered(&rig, &copy), Vec::<String>::new());
    rig.engine.delete_volume(&by(), copy.id).unwrap();

    rig.break_off();
    rig.engine.start().unwrap();
    assert_eq!((exported(&rig), locks(&rig, &v, OLD)), (vec![client(NEW)], true));
    rig.restart();
    assert_eq!(exported(&rig), [client(NEW)]);
    rig.check();
    // A node that had gone back to where it was, and is there no more.
    rig.machine.client_holds(OLD, &path(v.id), LOCKED);
    assert_eq!(taken(&rig, &v, "a"), ended(OLD));
}

/// Whatever fails on the way, asked again the node is let in from its new address alone, and what it holds is found in the end.
#[test]
fn a_move_that_fails_and_is_asked_for_again_loses_sight_of_no_session() {
    let mut failed = 0;
    for (at, done) in (1..20).flat_map(|at| [(at, false), (at, true)]) {
        let rig = Rig::with_pool();
        let v = volume(&rig);
        publish(&rig, &v, "a", OLD);
        rig.machine.client_holds(OLD, &path(v.id), LOCKED);
        rig.machine.fail_at(at, done);
        let first = rig.engine.publish_to_node(&by(), v.id, &node("a"), &from(&[NEW]));
        rig.machine.disarm();
        failed += usize::from(first.is_err());
        publish(&rig, &v, "a", NEW);
        assert_eq!(exported(&rig), [client(NEW)], "{at}");
        assert!(locks(&rig, &v, OLD), "failing at {at}, it lost its locks");
        rig.machine.fail_at(at, done);
        let first = rig.engine.unpublish_from_node(&by(), v.id, &node("a"));
        rig.machine.disarm();
        failed += usize::from(first.is_err());
        taken(&rig, &v, "a");
        assert!(!locks(&rig, &v, OLD), "failing at {at}, it keeps its locks");
        rig.engine.reconcile().unwrap();
        rig.check();
    }
    assert!(failed > 6, "{failed} failed");
}

/// The same where the supervisor breaks off at each change, while the NFS server and the node go on.
#[test]
fn a_move_that_breaks_off_loses_sight_of_no_session() {
    let mut broke_off = 0;
    let cuts = [Cut::Before, Cut::Midway, Cut::After];
    for (at, cut) in (1..8).flat_map(|at| cuts.map(|cut| (at, cut))) {
        let mut rig = Rig::with_pool();
        let v = volume(&rig);
        publish(&rig, &v, "a", OLD);
        rig.machine.client_holds(OLD, &path(v.id), LOCKED);
        rig.machine.cut_power_at(at, cut);
        let _ = rig.engine.publish_to_node(&by(), v.id, &node("a"), &from(&[NEW]));
        broke_off += usize::from(rig.machine.is_dark());
        rig.break_off();
        rig.engine.start().unwrap();
        publish(&rig, &v, "a", NEW);
        assert_eq!(exported(&rig), [client(NEW)], "{at}");
        assert!(locks(&rig, &v, OLD), "broken off at {at}, it lost its locks");
        rig.machine.cut_power_at(at, cut);
        let _ = rig.engine.unpublish_from_node(&by(), v.id, &node("a"));
        broke_off += usize::from(rig.machine.is_dark());
        rig.break_off();
        rig.engine.start().unwrap();
        taken(&rig, &v, "a");
        assert!(!locks(&rig, &v, OLD), "broken off at {at}, it keeps its locks");
        rig.engine.reconcile().unwrap();
        rig.check();
    }
    assert!(broke_off > 12, "{broke_off} broke off");
}
