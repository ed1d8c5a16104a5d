//! Snapshots of several volumes at one moment: what is named as theirs is compared with what they are.

use axum::Router;
use axum::http::StatusCode;
use axum::response::IntoResponse as _;
use axum::routing::get;
use cistern_csi::controller::Controller;
use cistern_csi::csi;
use cistern_csi::csi::controller_server::Controller as _;
use cistern_csi::csi::group_controller_server::GroupController as _;
use cistern_model::{ErrorKind, Problem};
use tonic::{Code, Request, Status};

use crate::support::{Appliance, Plugin, wanted};

/// Nobody's group and snapshot.
const NO_GROUP: &str = "rack-1:group-00000000000000000000000000000001";
const NO_SNAPSHOT: &str = "rack-1:snap-00000000000000000000000000000001";

async fn show(it: &Controller, group: &str, snapshots: &[&str]) -> Result<csi::VolumeGroupSnapshot, Status> {
    let request = csi::GetVolumeGroupSnapshotRequest {
        group_snapshot_id: group.to_owned(),
        snapshot_ids: snapshots.iter().map(|id| (*id).to_owned()).collect(),
        ..csi::GetVolumeGroupSnapshotRequest::default()
    };
    let shown = it.get_volume_group_snapshot(Request::new(request)).await?;
    Ok(shown.into_inner().group_snapshot.unwrap())
}

async fn delete(it: &Controller, group: &str, snapshots: &[&str]) -> Result<(), Status> {
    let request = csi::DeleteVolumeGroupSnapshotRequest {
        group_snapshot_id: group.to_owned(),
        snapshot_ids: snapshots.iter().map(|id| (*id).to_owned()).collect(),
        ..csi::DeleteVolumeGroupSnapshotRequest::default()
    };
    it.delete_volume_group_snapshot(Request::new(request)).await.map(drop)
}

/// The id of a group and of its snapshots, in order.
type Made = (String, Vec<String>);

fn ids(group: csi::VolumeGroupSnapshot) -> Made {
    let mut all: Vec<String> = group
        .snapshots
        .into_iter()
        .map(|snapshot| snapshot.snapshot_id)
        .collect();
    all.sort();
    (group.group_snapshot_id, all)
}

/// Two groups of the same two volumes, and a snapshot of one of them by itself.
async fn made(it: &Controller) -> (Made, Made, String) {
    let mut volumes = Vec::new();
    for name in ["a", "b"] {
        let volume = it.create_volume(Request::new(wanted(name))).await.unwrap();
        volumes.push(volume.into_inner().volume.unwrap().volume_id);
    }
    let mut groups = Vec::new();
    for name in ["g", "h"] {
        let request = csi::CreateVolumeGroupSnapshotRequest {
            name: name.to_owned(),
            source_volume_ids: volumes.clone(),
            ..csi::CreateVolumeGroupSnapshotRequest::default()
        };
        let group = it.create_volume_group_snapshot(Request::new(request)).await.unwrap();
        groups.push(ids(group.into_inner().group_snapshot.unwrap()));
    }
    let request = csi::CreateSnapshotRequest {
        source_volume_id: volumes.remove(0),
        name: "alone".to_owned(),
        ..csi::CreateSnapshotRequest::default()
    };
    let alone = it.create_snapshot(Request::new(request)).await.unwrap().into_inner();
    let alone = alone.snapshot.unwrap().snapshot_id;
    let (h, g) = (groups.pop().unwrap(), groups.pop().unwrap());
    assert_eq!((g.1.len(), h.1.len()), (2, 2));
    (g, h, alone)
}

#[tokio::test]
async fn a_group_is_shown_whole_and_what_is_named_and_none_of_it_is_told() {
    let appliance = Appliance::start().await;
    let plugin = Plugin::new(&[("rack-1", appliance.entry())]);
    let it = &plugin.controller;
    let (g, h, alone) = made(it).await;
    let (one, two) = (g.1[0].as_str(), g.1[1].as_str());
    let (of_h, alone) = (h.1[0].as_str(), alone.as_str());
    for named in [vec![], vec![one], vec![two, one]] {
        assert_eq!(ids(show(it, &g.0, &named).await.unwrap()), g, "{named:?}");
    }
    let (other, other_group) = (one.replace("rack-1", "rack-2"), g.0.replace("rack-1", "rack-2"));
    let other = other.as_str();
    for (group, named, code) in [
        ("", vec![one], Code::InvalidArgument),
        ("someone-else's", vec![one], Code::NotFound),
        ("rack-1:group-1", vec![one], Code::NotFound),
        (NO_GROUP, vec![], Code::NotFound),
        (NO_GROUP, vec![one], Code::InvalidArgument),
        (&g.0, vec![one, two, alone], Code::InvalidArgument),
        (&g.0, vec![of_h], Code::InvalidArgument),
        (&g.0, vec![one, other], Code::InvalidArgument),
        (&g.0, vec![one, ""], Code::InvalidArgument),
        (&g.0, vec![one, "someone-else's"], Code::NotFound),
        (&g.0, vec![one, two, NO_SNAPSHOT], Code::NotFound),
        (&other_group, vec![], Code::Unavailable),
    ] {
        let told = show(it, group, &named).await.unwrap_err();
        assert_eq!(told.code(), code, "{group} {named:?}: {told}");
    }
}

#[tokio::test]
async fn a_group_is_deleted_whole_and_nothing_else_with_it() {
    let appliance = Appliance::start().await;
    let plugin = Plugin::new(&[("rack-1", appliance.entry())]);
    let it = &plugin.controller;
    let (g, h, alone) = made(it).await;
    let (one, two) = (g.1[0].as_str(), g.1[1].as_str());
    let (of_h, alone) = (h.1[0].as_str(), alone.as_str());
    let before = appliance.all();
    let (other, other_group) = (one.replace("rack-1", "rack-2"), g.0.replace("rack-1", "rack-2"));
    let other = other.as_str();
    for (group, named, code) in [
        ("", vec![one], Code::InvalidArgument),
        (NO_GROUP, vec![one], Code::InvalidArgument),
        (&g.0, vec![alone], Code::InvalidArgument),
        (&g.0, vec![one, two, of_h], Code::InvalidArgument),
        (&g.0, vec![one, other], Code::InvalidArgument),
        (&g.0, vec![one, ""], Code::InvalidArgument),
        (&other_group, vec![], Code::Unavailable),
    ] {
        let told = delete(it, group, &named).await.unwrap_err();
        assert_eq!(told.code(), code, "{group} {named:?}: {told}");
    }
    // What was never here is gone.
    for group in ["someone-else's", "rack-1:group-1", alone] {
        delete(it, group, &[one, alone]).await.unwrap();
    }
    for named in [vec![], vec![NO_SNAPSHOT], vec!["someone-else's"]] {
        delete(it, NO_GROUP, &named).await.unwrap();
    }
    assert_eq!(appliance.all(), before);

    // One that was deleted by itself is missed by nobody, and the others go though they are not named.
    let request = csi::DeleteSnapshotRequest {
        snapshot_id: one.to_owned(),
        ..csi::DeleteSnapshotRequest::default()
    };
    it.delete_snapshot(Request::new(request)).await.unwrap();
    let told = show(it, &g.0, &[one, two]).await.unwrap_err();
    assert_eq!(told.code(), Code::NotFound, "{told}");
    delete(it, &g.0, &[one]).await.unwrap();
    delete(it, &h.0, &[]).await.unwrap();
    for (group, named) in [(&g.0, [one, two]), (&h.0, [h.1[0].as_str(), h.1[1].as_str()])] {
        for named in [named.as_slice(), &[]] {
            let told = show(it, group, named).await.unwrap_err();
            assert_eq!(told.code(), Code::NotFound, "{told}");
            delete(it, group, named).await.unwrap();
        }
    }
    let left = it
        .list_snapshots(Request::new(csi::ListSnapshotsRequest::default()))
        .await;
    let left: Vec<String> = left
        .unwrap()
        .into_inner()
        .entries
        .into_iter()
        .map(|entry| entry.snapshot.unwrap().snapshot_id)
        .collect();
    assert_eq!(left, [alone]);
}

/// It lists what is here, and says of what it does not find that it may lie where it cannot look.
#[tokio::test]
async fn a_group_that_may_lie_in_a_pool_that_is_away_is_not_gone() {
    let away = || async {
        let problem = Problem::new(ErrorKind::Unavailable, "it may lie in a pool that is not here");
        (StatusCode::SERVICE_UNAVAILABLE, axum::Json(problem)).into_response()
    };
    let none = || async { axum::Json(serde_json::json!({"items": []})) };
    let router = Router::new().route("/v1/snapshots", get(none)).fallback(away);
    let appliance = Appliance::answering(router).await;
    let plugin = Plugin::new(&[("rack-1", appliance.entry())]);
    let nothing: &[&str] = &[];
    for named in [nothing, &[NO_SNAPSHOT]] {
        for answer in [
            delete(&plugin.controller, NO_GROUP, named).await,
            show(&plugin.controller, NO_GROUP, named).await.map(drop),
        ] {
            let told = answer.unwrap_err();
            assert_eq!(told.code(), Code::Unavailable, "{named:?}: {told}");
        }
    }
}
