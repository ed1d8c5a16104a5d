//! The ledger finds what is lost, whatever of it is.

use super::*;

const ID: &str = "vol-0f8fad5bd9cb469fa16570867728950e";
const SNAPSHOT: &str = "snap-0f8fad5bd9cb469fa16570867728950e";
const HOLE: Terms = Terms {
    disk_lost: true,
    write_hole: true,
};

const fn request(asked: Moment, answered: Moment) -> Request {
    Request { asked, answered }
}

fn pool(state: &str) -> Pool {
    serde_json::from_value(serde_json::json!({
        "id": "pool-0f8fad5bd9cb469fa16570867728950e", "name": "tank", "layout": "mirror", "state": state, "reason": null,
        "layers": {"checksums": false, "encryption": "none"}, "disks": [], "spares": [], "missing_disks": 0, "size": 0,
        "promised": 0, "available": 0, "overcommit_percent": 100, "reserve": 0, "snapshots_used": 0, "growable": 0, "used": 0,
        "metadata_percent": 0.0, "sync_percent": 100.0, "volumes": 0, "snapshots": 0, "trashed": 0, "trash_seconds": 0,
        "scrub": "none", "created": "2026-11-21T00:00:00Z"
    }))
    .unwrap()
}

fn volume(name: &str) -> Volume {
    serde_json::from_value(serde_json::json!({
        "id": ID, "name": name, "pool": "pool-0f8fad5bd9cb469fa16570867728950e",
        "pool_name": "tank", "size": 314572800, "used": null, "state": "ready", "reason": null, "owner": "local",
        "clients": ["10.0.0.7", "10.0.0.8:ro"], "created": "2026-11-21T00:00:00Z",
        "export": {"path": "/volumes/x", "fsid": "0f8fad5b-d9cb-469f-a165-70867728950e"}
    }))
    .unwrap()
}

fn disk(state: &str, signature: Option<&str>) -> Disk {
    let signatures: Vec<_> = signature
        .iter()
        .map(|kind| serde_json::json!({"kind": kind, "offset": 0, "label": null}))
        .collect();
    serde_json::from_value(serde_json::json!({
        "id": "serial-CUT1", "kernel_name": "sda", "size": 1, "model": null, "serial": "CUT1", "wwn": null,
        "rotational": false, "transport": "scsi", "state": {"state": state}, "signatures": signatures, "grown_by": null
    }))
    .unwrap()
}

fn snapshot() -> Snapshot {
    serde_json::from_value(serde_json::json!({
        "id": SNAPSHOT, "name": "s", "pool": "pool-0f8fad5bd9cb469fa16570867728950e", "pool_name": "tank", "volume": ID,
        "volume_name": "v", "volume_exists": true, "size": 314572800, "state": "ready", "reason": null, "owner": "local",
        "created": "2026-11-21T00:00:00Z", "scheduled": [], "group": null, "clients": [], "export": null,
        "referenced": null, "exclusive": null
    }))
    .unwrap()
}

/// Taken from 36 to 38.
fn taken(made: Snapshot, files: BTreeMap<String, String>) -> Taken {
    Taken {
        life: Life::made(request(36, 38)),
        answers: Versions::of(made, request(36, 38)),
        files,
    }
}

/// A pool made from 1 to 5; a volume made from 10 to 20, with a file synced at 30, renamed from 32 to 34, of which a
/// snapshot is taken from 36 to 38, deleted from 40 to 50.
fn ledger() -> Ledger {
    let mut life = Life::made(request(10, 20));
    life.then(false, request(40, 50));
    let mut answers = Versions::of(volume("v"), request(10, 20));
    answers.then(volume("w"), request(32, 34));
    let file = File {
        name: "f".to_owned(),
        sum: "s".to_owned(),
        synced: 30,
        gone: None,
    };
    Ledger {
        pool: KnownPool {
            life: Life::made(request(1, 5)),
            answers: Versions::of(pool("ready"), request(1, 5)),
            whole: 6,
        },
        volumes: vec![Known {
            life,
            answers,
            files: vec![file],
        }],
        snapshots: vec![taken(snapshot(), BTreeMap::from([("f".to_owned(), "s".to_owned())]))],
    }
}

fn sum(id: &str, sum: &str) -> ((String, String), Option<String>) {
    ((id.to_owned(), "f".to_owned()), Some(sum.to_owned()))
}

/// All that a cut between 34 and 36 has to leave.
fn whole() -> Found {
    let exports = ["10.0.0.7 rw", "10.0.0.8 ro"].map(str::to_owned);
    Found {
        pools: vec![pool("ready")],
        volumes: vec![volume("w")],
        sums: BTreeMap::from([sum(ID, "s")]),
        exports: BTreeMap::from([("/volumes/x".to_owned(), BTreeSet::from(exports))]),
        ..Found::default()
    }
}

fn lost(at: Moment, terms: Terms, found: &Found) -> Vec<String> {
    ledger().judge(at, terms, found).lost
}

#[test]
fn a_cut_falls_within_a_request_from_its_sending_to_its_answer() {
    for (at, within) in [
        (1, false),
        (3, true),
        (5, false),
        (15, true),
        (33, true),
        (37, true),
        (45, true),
        (50, false),
    ] {
        assert_eq!(ledger().under_way(at), within, "{at}");
    }
}

#[test]
fn what_was_promised_by_then_and_nothing_else_is_right() {
    let (terms, mut found) = (Terms::default(), whole());
    assert_eq!(lost(35, terms, &found), Vec::<String>::new());
    found.volumes = vec![volume("v")];
    assert_eq!(lost(25, terms, &found), Vec::<String>::new());
    assert_eq!(lost(33, terms, &found), Vec::<String>::new(), "the old name, or");
    assert_eq!(lost(33, terms, &whole()), Vec::<String>::new(), "the new one");
    found.volumes.clear();
    assert_eq!(lost(15, terms, &found), Vec::<String>::new());
    assert_eq!(lost(25, terms, &found), ["volume w was answered and is gone"]);
    assert_eq!(lost(45, terms, &whole()).len(), 1, "its snapshot is gone");
    found.snapshots = vec![snapshot()];
    assert_eq!(lost(60, terms, &found), Vec::<String>::new());
    found.volumes = vec![volume("w")];
    assert_eq!(lost(60, terms, &found), ["volume w must not be there"]);
}

#[test]
fn anything_else_of_a_volume_than_was_answered_is_lost() {
    let changes: [fn(&mut Found); 6] = [
        |found| found.volumes[0].size = cistern_model::Bytes::mib(301),
        |found| found.volumes[0].clients.truncate(1),
        |found| found.volumes[0].labels = serde_json::from_value(serde_json::json!({"a": "b"})).unwrap(),
        |found| found.volumes[0].name = "v".parse().unwrap(),
        |found| drop(found.exports.remove("/volumes/x")),
        |found| {
            drop(found.exports.insert(
                "/volumes/x".to_owned(),
                BTreeSet::from(["10.0.0.7 rw".to_owned(), "10.0.0.8 rw".to_owned()]),
            ))
        },
    ];
    for (number, change) in changes.into_iter().enumerate() {
        let mut found = whole();
        change(&mut found);
        assert!(!lost(35, Terms::default(), &found).is_empty(), "change {number}");
    }
}

#[test]
fn each_synced_byte_is_asked_for() {
    let mut found = whole();
    found.sums.clear();
    assert_eq!(lost(35, Terms::default(), &found), ["w/f was synced and is gone"]);
    found.sums = BTreeMap::from([sum(ID, "other")]);
    assert_eq!(
        lost(35, Terms::default(), &found),
        ["w/f has other bytes than were synced"]
    );
    found.sums.insert((ID.to_owned(), "f".to_owned()), None);
    assert_eq!(
        lost(35, Terms::default(), &found),
        ["w/f was synced and cannot be read"]
    );
    found.volumes[0].state = VolumeState::Failed;
    assert_eq!(lost(35, Terms::default(), &found).len(), 2);
}

#[test]
fn a_file_is_owed_until_a_rollback_is_asked_for_and_excluded_when_that_is_answered() {
    let mut ledger = ledger();
    ledger.volumes[0].files[0].gone = Some(request(34, 36));
    let judge = |at, found: &Found| ledger.judge(at, Terms::default(), found).lost;
    let mut without = whole();
    without.sums.clear();
    assert_eq!(judge(34, &without), ["w/f was synced and is gone"]);
    assert!(judge(35, &without).is_empty() && judge(35, &whole()).is_empty());
    assert!(judge(36, &without).is_empty());
    assert_eq!(judge(36, &whole()), ["w/f was rolled back and is there"]);
}

#[test]
fn a_snapshot_holds_what_its_volume_did_and_a_filesystem_is_sound() {
    let mut found = Found {
        snapshots: vec![snapshot()],
        ..whole()
    };
    assert_eq!(
        lost(39, Terms::default(), &found),
        Vec::<String>::new(),
        "it was not looked into"
    );
    found.deep = true;
    assert_eq!(
        lost(39, Terms::default(), &found),
        ["snapshot s/f was synced and is gone"]
    );
    found.sums.extend([sum(SNAPSHOT, "s")]);
    assert_eq!(lost(39, Terms::default(), &found), Vec::<String>::new());
    found.damaged.insert(ID.to_owned(), "bad".to_owned());
    assert_eq!(lost(39, Terms::default(), &found).len(), 1);
    found.uneven.insert("data_tmeta".to_owned(), 0);
    assert_eq!(lost(39, Terms::default(), &found).len(), 1);
    found.uneven.insert("data_tdata".to_owned(), 8);
    assert_eq!(lost(39, Terms::default(), &found).len(), 2);
    found.snapshots[0].name = "t".parse().unwrap();
    assert_eq!(lost(39, Terms::default(), &found).len(), 3);
}

#[test]
fn a_snapshot_is_owed_until_its_end_is_asked_for_and_excluded_when_that_is_answered() {
    let mut ledger = ledger();
    ledger.snapshots[0].life.then(false, request(60, 62));
    let judge = |at, found: &Found| ledger.judge(at, Terms::default(), found).lost;
    let without = Found {
        pools: vec![pool("ready")],
        ..Found::default()
    };
    let with = Found {
        snapshots: vec![snapshot()],
        ..without.clone()
    };
    assert!(!ledger.under_way(60) && ledger.under_way(61) && !ledger.under_way(62));
    assert_eq!(judge(60, &without), ["snapshot s was answered and is gone"]);
    assert!(judge(60, &with).is_empty() && judge(61, &with).is_empty());
    assert!(judge(61, &without).is_empty() && judge(62, &without).is_empty());
    assert_eq!(judge(62, &with), ["snapshot s must not be there"]);
}

#[test]
fn a_snapshot_is_served_to_those_who_were_named_read_only_and_to_nobody_else() {
    let export = cistern_model::Export::of_snapshot(snapshot().id);
    let path = export.path.clone();
    let served = Snapshot {
        clients: vec!["10.0.0.7".parse().unwrap()],
        export: Some(export),
        ..snapshot()
    };
    let mut ledger = ledger();
    ledger.snapshots[0].answers.then(served.clone(), request(38, 40));
    let judge = |at, found: &Found| ledger.judge(at, Terms::default(), found).lost;
    let found = |snapshot: &Snapshot, access: Option<&str>| {
        let mut found = whole();
        found.snapshots = vec![snapshot.clone()];
        let clients = access.map(|access| BTreeSet::from([format!("10.0.0.7 {access}")]));
        found.exports.extend(clients.map(|clients| (path.clone(), clients)));
        found
    };
    let (before, after) = (found(&snapshot(), None), found(&served, Some("ro")));
    assert!(judge(38, &before).is_empty() && judge(39, &before).is_empty());
    assert!(judge(39, &after).is_empty() && judge(40, &after).is_empty());
    assert_eq!(judge(38, &after).len(), 1, "nobody had asked for that");
    assert_eq!(judge(40, &before).len(), 1, "it was answered");
    for (snapshot, access) in [(&served, None), (&served, Some("rw")), (&snapshot(), Some("ro"))] {
        assert_eq!(judge(39, &found(snapshot, access)).len(), 1, "{access:?}");
    }
    let failed = Snapshot {
        reason: Some("it is not mounted".to_owned()),
        ..served
    };
    assert_eq!(
        judge(40, &found(&failed, Some("ro"))),
        ["snapshot s is not served: it is not mounted"]
    );
}

#[test]
fn of_snapshots_that_are_made_at_one_moment_all_are_there_or_none_is() {
    let member = |number: u8| -> Snapshot {
        let mut member = serde_json::to_value(snapshot()).unwrap();
        member["id"] = format!("{}{number}", SNAPSHOT.trim_end_matches('e')).into();
        member["group"] = "0f8fad5b-d9cb-469f-a165-70867728950e".into();
        serde_json::from_value(member).unwrap()
    };
    let (one, other) = (member(1), member(2));
    let both = vec![one.clone(), other.clone()];
    let mut ledger = ledger();
    ledger.snapshots = both.iter().map(|made| taken(made.clone(), BTreeMap::new())).collect();
    let judge = |terms, state, snapshots: &[Snapshot]| {
        let found = Found {
            pools: vec![pool(state)],
            snapshots: snapshots.to_vec(),
            ..whole()
        };
        ledger.judge(37, terms, &found).lost
    };
    let terms = Terms::default();
    assert_eq!(judge(terms, "ready", &[]), Vec::<String>::new());
    assert_eq!(judge(terms, "ready", &both), Vec::<String>::new());
    let half = ["snapshot s is not there, and another is that was made at the same moment"];
    assert_eq!(judge(terms, "ready", std::slice::from_ref(&one)), half);
    assert_eq!(judge(terms, "ready", &[other]), half);
    // Without one of its disks nothing is undone: what was begun waits.
    let begun = Snapshot {
        state: cistern_model::SnapshotState::Creating,
        ..one
    };
    let terms = Terms {
        disk_lost: true,
        ..terms
    };
    assert_eq!(judge(terms, "degraded", &[begun]), Vec::<String>::new());
}

#[test]
fn a_supervisor_that_is_ready_answers_at_once() {
    let mut found = whole();
    found.refused.insert("pools list: no answer".to_owned());
    assert_eq!(
        lost(35, Terms::default(), &found),
        ["its supervisor was ready and did not answer pools list: no answer"]
    );
}

#[test]
fn what_nothing_explains_is_told_but_for_a_bare_label_where_a_pool_was_being_made() {
    let orphan = |kind: &str| -> Orphan {
        serde_json::from_value(serde_json::json!({
            "object": "x", "kind": kind, "why": "it is strange", "name": null, "system_id": null, "size": null, "disks": [],
            "adopt": null, "remove": "cistern disks wipe x"
        }))
        .unwrap()
    };
    let judge = |at, pools: &[Pool], kind: &str| {
        let found = Found {
            pools: pools.to_vec(),
            orphans: vec![orphan(kind)],
            ..whole()
        };
        lost(at, Terms::default(), &found)
    };
    assert_eq!(judge(3, &[], "label"), Vec::<String>::new());
    let told = ["nothing explains x: it is strange"];
    assert_eq!(judge(3, &[], "group"), told);
    assert_eq!(judge(35, &[pool("ready")], "label"), told);
    assert_eq!(judge(35, &[pool("ready")], "volume"), told);
}

#[test]
fn a_pool_that_was_being_made_is_there_whole_or_its_disks_are_bare() {
    let mut found = Found::default();
    assert_eq!(lost(5, Terms::default(), &found).len(), 1);
    assert_eq!(lost(3, Terms::default(), &found), Vec::<String>::new());
    found.disks = vec![disk("available", None), disk("has-data", Some("LVM2_member"))];
    assert_eq!(lost(3, Terms::default(), &found), Vec::<String>::new());
    found.disks.extend([disk("has-data", Some("xfs")), disk("busy", None)]);
    assert_eq!(lost(3, Terms::default(), &found).len(), 2);
    found.pools = vec![pool("ready")];
    assert_eq!(lost(3, Terms::default(), &found), Vec::<String>::new());
    found.pools = vec![pool("creating")];
    assert_eq!(lost(3, Terms::default(), &found).len(), 1);
    found.pools = vec![Pool {
        trash_seconds: 7,
        ..pool("ready")
    }];
    assert_eq!(lost(5, Terms::default(), &found).len(), 1);
}

#[test]
fn the_write_hole_costs_files_and_filesystems_and_only_where_something_was_being_written() {
    let mut found = Found {
        pools: vec![pool("degraded")],
        ..whole()
    };
    assert_eq!(ledger().judge(35, HOLE, &found), Verdict::default());
    found.sums = BTreeMap::from([sum(ID, "other")]);
    let verdict = ledger().judge(35, HOLE, &found);
    assert_eq!((verdict.lost.len(), verdict.hole.len()), (0, 1));
    assert_eq!(
        (verdict.hole[0].id.as_str(), verdict.hole[0].file.as_deref()),
        (ID, Some("f"))
    );
    let (mut beside, mut elsewhere) = (verdict.clone(), verdict);
    beside.excuse(|damage| damage.id == ID);
    assert_eq!((beside.lost.len(), beside.hole.len()), (0, 1));
    elsewhere.excuse(|_| false);
    assert_eq!((elsewhere.lost.len(), elsewhere.hole.len()), (1, 0));
    found.volumes[0].state = VolumeState::Failed;
    assert_eq!(ledger().judge(35, HOLE, &found).hole.len(), 2);
    found.volumes[0].state = VolumeState::Deleting;
    found.snapshots = vec![snapshot()];
    assert_eq!(
        ledger().judge(45, HOLE, &found),
        Verdict::default(),
        "it waits for its disk"
    );
    found.volumes.clear();
    assert_eq!(
        lost(35, HOLE, &found).len(),
        2,
        "no hole costs a volume, or makes a snapshot"
    );
}
