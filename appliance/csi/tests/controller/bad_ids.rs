//! Lists, and what is to go: ids that are empty, another driver's or nobody's, marks that lead nowhere, parameters that there are not.

use cistern_csi::csi;
use cistern_csi::csi::controller_server::Controller as _;
use cistern_csi::csi::group_controller_server::GroupController as _;
use cistern_csi::csi::volume_capability::{AccessType, BlockVolume};
use tonic::{Code, Request};

use crate::bad_input::{Case, judge, long, pair};
use crate::support::{Appliance, NOBODY, Plugin, capability, wanted};

/// Nobody's snapshot.
const NO_SNAPSHOT: &str = "rack-1:snap-00000000000000000000000000000001";

#[tokio::test]
async fn a_list_of_snapshots_is_asked_for_as_it_can_be_or_refused() {
    let appliance = Appliance::start().await;
    let plugin = Plugin::new(&[("rack-1", appliance.entry())]);
    let it = &plugin.controller;
    let made = it.create_volume(Request::new(wanted("v"))).await.unwrap().into_inner();
    let volume = made.volume.unwrap().volume_id;
    for name in ["one", "two"] {
        let request = csi::CreateSnapshotRequest {
            source_volume_id: volume.clone(),
            name: name.to_owned(),
            ..csi::CreateSnapshotRequest::default()
        };
        it.create_snapshot(Request::new(request)).await.unwrap();
    }
    let of = |volume: &str, snapshot: &str| csi::ListSnapshotsRequest {
        source_volume_id: volume.to_owned(),
        snapshot_id: snapshot.to_owned(),
        ..csi::ListSnapshotsRequest::default()
    };
    let from = |max_entries: i32, token: &str| csi::ListSnapshotsRequest {
        max_entries,
        starting_token: token.to_owned(),
        ..csi::ListSnapshotsRequest::default()
    };
    let secret = csi::ListSnapshotsRequest {
        secrets: pair("password", "5"),
        ..csi::ListSnapshotsRequest::default()
    };
    use Code::{Aborted, InvalidArgument, Unavailable};
    let elsewhere = (
        NOBODY.replace("rack-1", "rack-2"),
        NO_SNAPSHOT.replace("rack-1", "rack-2"),
    );
    let mut cases: Vec<Case> = Vec::new();
    for (what, request, code, says) in [
        ("less than none", from(-1, ""), InvalidArgument, "max_entries"),
        ("from nowhere", from(0, &long()), Aborted, "starting_token"),
        ("from an appliance that is not", from(0, "rack-9|"), Aborted, "rack-9"),
        ("from no snapshot", from(0, "rack-1|5"), Aborted, "starting_token"),
        (
            "of another appliance's volume",
            of(&elsewhere.0, ""),
            Unavailable,
            "rack-2",
        ),
        ("another appliance's", of("", &elsewhere.1), Unavailable, "rack-2"),
        ("with a secret of no use", secret, InvalidArgument, "password"),
    ] {
        let answer = it.list_snapshots(Request::new(request)).await;
        cases.push((what, answer.map(drop), code, says));
    }
    judge(cases);
    // Of what is not here there is nothing.
    for request in [
        of(NOBODY, ""),
        of("someone-else's", ""),
        of("", NO_SNAPSHOT),
        of("", &long()),
    ] {
        let listed = it.list_snapshots(Request::new(request)).await.unwrap().into_inner();
        assert_eq!(listed, csi::ListSnapshotsResponse::default());
    }
    let page = it.list_snapshots(Request::new(from(1, ""))).await.unwrap().into_inner();
    let rest = it.list_snapshots(Request::new(from(0, &page.next_token))).await;
    let rest = rest.unwrap().into_inner();
    assert_eq!((page.entries.len(), rest.entries.len()), (1, 1));
    assert_ne!(page.entries, rest.entries);
    // One that is of another volume than was asked for.
    let one = page.entries[0].snapshot.as_ref().unwrap().snapshot_id.as_str();
    for (source, found) in [(volume.as_str(), 1), (NOBODY, 0)] {
        let listed = it.list_snapshots(Request::new(of(source, one))).await.unwrap();
        assert_eq!(listed.into_inner().entries.len(), found, "{source}");
    }
}

#[tokio::test]
async fn what_is_to_go_is_gone_where_it_never_was_and_refused_where_it_is_not_said() {
    let appliance = Appliance::start().await;
    let plugin = Plugin::new(&[("rack-1", appliance.entry())]);
    let it = &plugin.controller;
    it.create_volume(Request::new(wanted("v"))).await.unwrap();
    let before = appliance.all();
    let delete = |snapshot: &str| csi::DeleteSnapshotRequest {
        snapshot_id: snapshot.to_owned(),
        ..csi::DeleteSnapshotRequest::default()
    };
    let unpublish = |volume: &str, node: &str| csi::ControllerUnpublishVolumeRequest {
        volume_id: volume.to_owned(),
        node_id: node.to_owned(),
        ..csi::ControllerUnpublishVolumeRequest::default()
    };
    let with_secret = csi::DeleteSnapshotRequest {
        secrets: pair("password", "5"),
        ..delete(NO_SNAPSHOT)
    };
    use Code::{InvalidArgument, NotFound, Unavailable};
    let elsewhere = (
        NOBODY.replace("rack-1", "rack-2"),
        NO_SNAPSHOT.replace("rack-1", "rack-2"),
    );
    let mut cases: Vec<Case> = Vec::new();
    for (what, request, code, says) in [
        ("no snapshot", delete(""), InvalidArgument, "snapshot's id"),
        ("another appliance's", delete(&elsewhere.1), Unavailable, "rack-2"),
        ("with a secret of no use", with_secret, InvalidArgument, "password"),
    ] {
        let answer = it.delete_snapshot(Request::new(request)).await;
        cases.push((what, answer.map(drop), code, says));
    }
    for (what, request, code, says) in [
        ("no volume", unpublish("", "node-1"), InvalidArgument, "volume's id"),
        (
            "another appliance's volume",
            unpublish(&elsewhere.0, "node-1"),
            Unavailable,
            "rack-2",
        ),
        (
            "another appliance's volume, of all nodes",
            unpublish(&elsewhere.0, ""),
            Unavailable,
            "rack-2",
        ),
    ] {
        let answer = it.controller_unpublish_volume(Request::new(request)).await;
        cases.push((what, answer.map(drop), code, says));
    }
    for (what, snapshot, code, says) in [
        ("shown, no snapshot", "", InvalidArgument, "snapshot"),
        (
            "shown, another driver's",
            "someone-else's",
            NotFound,
            "none of this driver's",
        ),
        ("shown, nobody's", NO_SNAPSHOT, NotFound, "no snapshot"),
    ] {
        let request = csi::GetSnapshotRequest {
            snapshot_id: snapshot.to_owned(),
            ..csi::GetSnapshotRequest::default()
        };
        let answer = it.get_snapshot(Request::new(request)).await;
        cases.push((what, answer.map(drop), code, says));
    }
    judge(cases);
    for gone in ["someone-else's", &long(), NOBODY, NO_SNAPSHOT] {
        it.delete_snapshot(Request::new(delete(gone))).await.unwrap();
    }
    for (volume, node) in [
        ("someone-else's", "node-1"),
        (&long(), "node-1"),
        (NO_SNAPSHOT, "node-1"),
        (NOBODY, "node-1"),
        (NOBODY, ""),
        (NOBODY, &long()),
    ] {
        it.controller_unpublish_volume(Request::new(unpublish(volume, node)))
            .await
            .unwrap();
    }
    assert_eq!(appliance.all(), before);
}

#[tokio::test]
async fn a_volume_is_shown_where_it_is_said_which_and_there_is_one() {
    let appliance = Appliance::start().await;
    let plugin = Plugin::new(&[("rack-1", appliance.entry())]);
    let it = &plugin.controller;
    it.create_volume(Request::new(wanted("v"))).await.unwrap();
    let before = appliance.all();
    use Code::{InvalidArgument, NotFound, Unavailable};
    let (long, elsewhere) = (long(), NOBODY.replace("rack-1", "rack-2"));
    let mut cases: Vec<Case> = Vec::new();
    for (what, volume, code, says) in [
        ("none", "", InvalidArgument, "volume"),
        ("another driver's", "someone-else's", NotFound, "none of this driver's"),
        ("a long one", long.as_str(), NotFound, "none of this driver's"),
        ("a snapshot", NO_SNAPSHOT, NotFound, "none of this driver's"),
        ("nobody's", NOBODY, NotFound, "no volume"),
        ("another appliance's", elsewhere.as_str(), Unavailable, "rack-2"),
    ] {
        let request = csi::ControllerGetVolumeRequest {
            volume_id: volume.to_owned(),
        };
        let answer = it.controller_get_volume(Request::new(request)).await;
        cases.push((what, answer.map(drop), code, says));
    }
    judge(cases);
    assert_eq!(appliance.all(), before);
}

#[tokio::test]
async fn a_group_is_made_of_volumes_that_there_are_or_not_at_all() {
    let appliance = Appliance::start().await;
    let plugin = Plugin::new(&[("rack-1", appliance.entry())]);
    let it = &plugin.controller;
    let made = it.create_volume(Request::new(wanted("v"))).await.unwrap().into_inner();
    let volume = made.volume.unwrap().volume_id;
    let before = appliance.all();
    let group = |name: &str, others: &[&str]| csi::CreateVolumeGroupSnapshotRequest {
        name: name.to_owned(),
        source_volume_ids: others.iter().map(|id| (*id).to_owned()).collect(),
        ..csi::CreateVolumeGroupSnapshotRequest::default()
    };
    use Code::{InvalidArgument, NotFound, Unavailable};
    let (volume, long_name, elsewhere) = (volume.as_str(), "x".repeat(129), NOBODY.replace("rack-1", "rack-2"));
    let mut cases: Vec<Case> = Vec::new();
    for (what, request, code, says) in [
        ("no name", group("", &[volume]), InvalidArgument, "name"),
        (
            "a long name",
            group(&long_name, &[volume]),
            InvalidArgument,
            "128 bytes",
        ),
        ("of nothing", group("g", &[]), InvalidArgument, "volumes"),
        (
            "with another driver's",
            group("g", &[volume, "someone-else's"]),
            NotFound,
            "none of this driver's",
        ),
        ("with nobody's", group("g", &[volume, NOBODY]), NotFound, "no volume"),
        (
            "of another appliance's",
            group("g", &[elsewhere.as_str()]),
            Unavailable,
            "rack-2",
        ),
    ] {
        let answer = it.create_volume_group_snapshot(Request::new(request)).await;
        cases.push((what, answer.map(drop), code, says));
    }
    judge(cases);
    assert_eq!(appliance.all(), before);
}

#[tokio::test]
async fn room_is_told_for_a_class_that_there_can_be() {
    let appliance = Appliance::start().await;
    let plugin = Plugin::new(&[("rack-1", appliance.entry())]);
    let it = &plugin.controller;
    let room = |parameters| csi::GetCapacityRequest {
        parameters,
        ..csi::GetCapacityRequest::default()
    };
    let mut cases: Vec<Case> = Vec::new();
    for (what, parameters, says) in [
        ("a misspelt parameter", pair("Pool", "tank"), "perhaps pool was meant"),
        ("no pool's name", pair("pool", "../.."), "pool"),
        ("no such appliance", pair("endpoint", "rack-9"), "rack-9"),
        ("a long appliance", pair("endpoint", &long()), "endpoint"),
        ("a long key", pair(&long(), "a"), "parameter"),
    ] {
        let answer = it.get_capacity(Request::new(room(parameters))).await;
        cases.push((what, answer.map(drop), Code::InvalidArgument, says));
    }
    judge(cases);
    let block = csi::GetCapacityRequest {
        volume_capabilities: vec![csi::VolumeCapability {
            access_type: Some(AccessType::Block(BlockVolume {})),
            ..capability()
        }],
        ..csi::GetCapacityRequest::default()
    };
    for (request, some) in [
        (room(pair("pool", "tank")), true),
        (room(pair("csi.storage.k8s.io/fstype", "nfs")), true),
        (room(pair("pool", "lake")), false),
        (block, false),
    ] {
        let told = it.get_capacity(Request::new(request)).await.unwrap().into_inner();
        assert_eq!(told.available_capacity > 0, some, "{told:?}");
    }
}

#[tokio::test]
async fn a_volume_is_confirmed_only_with_parameters_that_there_are() {
    let appliance = Appliance::start().await;
    let plugin = Plugin::new(&[("rack-1", appliance.entry())]);
    let it = &plugin.controller;
    let made = it.create_volume(Request::new(wanted("v"))).await.unwrap().into_inner();
    let good = csi::ValidateVolumeCapabilitiesRequest {
        volume_id: made.volume.unwrap().volume_id,
        volume_capabilities: vec![capability()],
        parameters: wanted("v").parameters,
        mutable_parameters: pair("squash", "all"),
        ..csi::ValidateVolumeCapabilitiesRequest::default()
    };
    let with = |change: &dyn Fn(&mut csi::ValidateVolumeCapabilitiesRequest)| {
        let mut request = good.clone();
        change(&mut request);
        request
    };
    for (request, says) in [
        (with(&|_| ()), None),
        (
            with(&|r| r.parameters = pair("Pool", "tank")),
            Some("perhaps pool was meant"),
        ),
        (with(&|r| r.parameters = pair("pool", "../..")), Some("pool")),
        (with(&|r| r.mutable_parameters = pair("colour", "blue")), Some("colour")),
        (
            with(&|r| r.mutable_parameters = pair("rootUid", "5")),
            Some("stays as the volume was made"),
        ),
        (
            with(&|r| r.volume_capabilities[0].access_type = Some(AccessType::Block(BlockVolume {}))),
            Some("volumeMode"),
        ),
    ] {
        let asked = request.clone();
        let told = it.validate_volume_capabilities(Request::new(request)).await;
        let told = told.unwrap().into_inner();
        match says {
            None => {
                let confirmed = told.confirmed.unwrap();
                assert_eq!(confirmed.volume_capabilities, asked.volume_capabilities);
                assert_eq!(confirmed.parameters, asked.parameters);
                assert_eq!(confirmed.mutable_parameters, asked.mutable_parameters);
            }
            Some(says) => {
                assert_eq!(told.confirmed, None, "{says}");
                assert!(told.message.contains(says), "{}", told.message);
            }
        }
    }
    use Code::{InvalidArgument, NotFound, Unavailable};
    let mut cases: Vec<Case> = Vec::new();
    for (what, request, code, says) in [
        (
            "in no way",
            with(&|r| r.volume_capabilities.clear()),
            InvalidArgument,
            "capabilities",
        ),
        ("no volume", with(&|r| r.volume_id.clear()), InvalidArgument, "volume"),
        (
            "another driver's",
            with(&|r| r.volume_id = long()),
            NotFound,
            "none of this driver's",
        ),
        (
            "nobody's",
            with(&|r| r.volume_id = NOBODY.to_owned()),
            NotFound,
            "no volume",
        ),
        (
            "another appliance's",
            with(&|r| r.volume_id = NOBODY.replace("rack-1", "rack-2")),
            Unavailable,
            "rack-2",
        ),
    ] {
        let answer = it.validate_volume_capabilities(Request::new(request)).await;
        cases.push((what, answer.map(drop), code, says));
    }
    judge(cases);
}
