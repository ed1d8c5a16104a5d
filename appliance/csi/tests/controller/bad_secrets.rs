//! The secrets of a class, which may hold a token and nothing else: each call refuses what is no such thing, does nothing, and does not tell it.

use std::collections::HashMap;

use cistern_csi::controller::Controller;
use cistern_csi::csi;
use cistern_csi::csi::controller_server::Controller as _;
use cistern_csi::csi::group_controller_server::GroupController as _;
use tonic::{Code, Request, Status};

use crate::bad_input::{Case, judge, long, pair, range};
use crate::support::{Appliance, GIB, Plugin, capability, wanted};

/// All calls that take secrets.
const CALLS: [&str; 14] = [
    "create",
    "delete",
    "publish",
    "unpublish",
    "grow",
    "change",
    "validate",
    "snapshot",
    "delete snapshot",
    "show snapshot",
    "list snapshots",
    "group",
    "delete group",
    "show group",
];

/// What there is to ask about.
struct Things {
    volume: String,
    snapshot: String,
    group: String,
}

async fn call(it: &Controller, which: &str, of: &Things, secrets: HashMap<String, String>) -> Result<(), Status> {
    let (volume_id, node_id) = (of.volume.clone(), "node-1".to_owned());
    match which {
        "create" => {
            let request = csi::CreateVolumeRequest {
                secrets,
                ..wanted("new")
            };
            it.create_volume(Request::new(request)).await.map(drop)
        }
        "delete" => {
            let request = csi::DeleteVolumeRequest { volume_id, secrets };
            it.delete_volume(Request::new(request)).await.map(drop)
        }
        "publish" => {
            let request = csi::ControllerPublishVolumeRequest {
                volume_id,
                node_id,
                volume_capability: Some(capability()),
                secrets,
                ..csi::ControllerPublishVolumeRequest::default()
            };
            it.controller_publish_volume(Request::new(request)).await.map(drop)
        }
        "unpublish" => {
            let request = csi::ControllerUnpublishVolumeRequest {
                volume_id,
                node_id,
                secrets,
            };
            it.controller_unpublish_volume(Request::new(request)).await.map(drop)
        }
        "grow" => {
            let request = csi::ControllerExpandVolumeRequest {
                volume_id,
                capacity_range: range(2 * GIB, 0),
                secrets,
                ..csi::ControllerExpandVolumeRequest::default()
            };
            it.controller_expand_volume(Request::new(request)).await.map(drop)
        }
        "change" => {
            let request = csi::ControllerModifyVolumeRequest {
                volume_id,
                secrets,
                mutable_parameters: pair("squash", "all"),
            };
            it.controller_modify_volume(Request::new(request)).await.map(drop)
        }
        "validate" => {
            let request = csi::ValidateVolumeCapabilitiesRequest {
                volume_id,
                volume_capabilities: vec![capability()],
                secrets,
                ..csi::ValidateVolumeCapabilitiesRequest::default()
            };
            it.validate_volume_capabilities(Request::new(request)).await.map(drop)
        }
        _ => call_of_snapshots(it, which, of, secrets).await,
    }
}

async fn call_of_snapshots(
    it: &Controller,
    which: &str,
    of: &Things,
    secrets: HashMap<String, String>,
) -> Result<(), Status> {
    let (snapshot_id, group_snapshot_id) = (of.snapshot.clone(), of.group.clone());
    match which {
        "snapshot" => {
            let request = csi::CreateSnapshotRequest {
                source_volume_id: of.volume.clone(),
                name: "new".to_owned(),
                secrets,
                ..csi::CreateSnapshotRequest::default()
            };
            it.create_snapshot(Request::new(request)).await.map(drop)
        }
        "delete snapshot" => {
            let request = csi::DeleteSnapshotRequest { snapshot_id, secrets };
            it.delete_snapshot(Request::new(request)).await.map(drop)
        }
        "show snapshot" => {
            let request = csi::GetSnapshotRequest { snapshot_id, secrets };
            it.get_snapshot(Request::new(request)).await.map(drop)
        }
        "list snapshots" => {
            let request = csi::ListSnapshotsRequest {
                secrets,
                ..csi::ListSnapshotsRequest::default()
            };
            it.list_snapshots(Request::new(request)).await.map(drop)
        }
        "group" => {
            let request = csi::CreateVolumeGroupSnapshotRequest {
                name: "new".to_owned(),
                source_volume_ids: vec![of.volume.clone()],
                secrets,
                ..csi::CreateVolumeGroupSnapshotRequest::default()
            };
            it.create_volume_group_snapshot(Request::new(request)).await.map(drop)
        }
        "delete group" => {
            let request = csi::DeleteVolumeGroupSnapshotRequest {
                group_snapshot_id,
                secrets,
                ..csi::DeleteVolumeGroupSnapshotRequest::default()
            };
            it.delete_volume_group_snapshot(Request::new(request)).await.map(drop)
        }
        "show group" => {
            let request = csi::GetVolumeGroupSnapshotRequest {
                group_snapshot_id,
                secrets,
                ..csi::GetVolumeGroupSnapshotRequest::default()
            };
            it.get_volume_group_snapshot(Request::new(request)).await.map(drop)
        }
        _ => panic!("there is no call {which}"),
    }
}

async fn things(it: &Controller) -> Things {
    let made = it.create_volume(Request::new(wanted("v"))).await.unwrap();
    let volume = made.into_inner().volume.unwrap().volume_id;
    let request = csi::CreateSnapshotRequest {
        source_volume_id: volume.clone(),
        name: "one".to_owned(),
        ..csi::CreateSnapshotRequest::default()
    };
    let made = it.create_snapshot(Request::new(request)).await.unwrap();
    let snapshot = made.into_inner().snapshot.unwrap().snapshot_id;
    let request = csi::CreateVolumeGroupSnapshotRequest {
        name: "several".to_owned(),
        source_volume_ids: vec![volume.clone()],
        ..csi::CreateVolumeGroupSnapshotRequest::default()
    };
    let made = it.create_volume_group_snapshot(Request::new(request)).await.unwrap();
    let group = made.into_inner().group_snapshot.unwrap().group_snapshot_id;
    Things {
        volume,
        snapshot,
        group,
    }
}

#[tokio::test]
async fn a_secret_that_is_no_token_is_refused_by_each_call_and_not_told() {
    let appliance = Appliance::start().await;
    let plugin = Plugin::new(&[("rack-1", appliance.entry())]);
    let it = &plugin.controller;
    let of = things(it).await;
    let before = appliance.all();
    let mut cases: Vec<Case> = Vec::new();
    for which in CALLS {
        for (key, says) in [("password", "password"), ("token", "token"), (&long(), "Secret")] {
            let answer = call(it, which, &of, pair(key, "cistern_sesame")).await;
            if let Err(told) = &answer {
                assert!(!told.message().contains("sesame"), "{which}: {told}");
            }
            cases.push((which, answer, Code::InvalidArgument, says));
        }
    }
    judge(cases);
    assert_eq!(appliance.all(), before);
    // By a token of another cluster's, which is one, nothing of this is to be had either.
    for which in ["delete", "publish", "grow", "change", "snapshot", "delete snapshot"] {
        let told = call(it, which, &of, pair("token", &appliance.other)).await.unwrap_err();
        assert_eq!(told.code(), Code::PermissionDenied, "{which}: {told}");
    }
    assert_eq!(appliance.all(), before);
}
