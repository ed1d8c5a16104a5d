//! An appliance of an earlier version, as it answered: it is asked for nothing that it does not know, and its answers are understood, also
//! where a later one says more.

use std::collections::BTreeSet;
use std::fs;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::http::{Method, StatusCode, Uri};
use axum::response::IntoResponse as _;
use cistern_csi::csi;
use cistern_csi::csi::controller_server::Controller as _;
use cistern_csi::csi::group_controller_server::GroupController as _;
use cistern_csi::csi::volume_content_source::{SnapshotSource, Type};
use serde_json::Value;
use tonic::{Code, Request};

use crate::bad_input::{pair, range};
use crate::support::{Appliance, GIB, Plugin, capability, wanted};

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../model/tests/v0.1.0");
const VOLUME: &str = "rack-1:vol-0f8fad5bd9cb469fa16570867728950e";
const OTHER_VOLUME: &str = "rack-1:vol-1f8fad5bd9cb469fa16570867728950e";
const SNAPSHOT: &str = "rack-1:snap-3f8fad5bd9cb469fa16570867728950e";

/// The names of the calls that were made, and what was asked for that none of them is.
type Asked = Arc<Mutex<(BTreeSet<String>, Vec<String>)>>;

/// The calls, by their files' names.
fn calls() -> Vec<(String, Value)> {
    let files = fs::read_dir(FOLDER).unwrap().map(|file| file.unwrap().path());
    let files = files.filter(|path| path.extension().is_some_and(|extension| extension == "json"));
    let read = |path: std::path::PathBuf| {
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        (name, serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap())
    };
    files.map(read).collect()
}

/// As a later appliance would answer: with something more in each object.
fn with_more(answer: &Value) -> Value {
    match answer {
        Value::Object(fields) => {
            let fields = fields.iter().map(|(key, value)| (key.clone(), with_more(value)));
            fields.chain([("later".to_owned(), "more".into())]).collect()
        }
        Value::Array(items) => items.iter().map(with_more).collect(),
        plain => plain.clone(),
    }
}

/// An appliance that answers what was answered then, and notes what it was asked.
async fn then(calls: Vec<(String, Value)>, asked: &Asked) -> Appliance {
    let (calls, asked) = (Arc::new(calls), asked.clone());
    let router = Router::new().fallback(move |method: Method, uri: Uri, body: String| {
        let body: Option<Value> = (!body.is_empty()).then(|| serde_json::from_str(&body).unwrap());
        let call = calls.iter().find(|(_, call)| {
            call["method"] == method.as_str() && call["path"] == uri.path() && call.get("asked") == body.as_ref()
        });
        let mut asked = asked.lock().unwrap();
        let answer = match call {
            Some((name, call)) => {
                asked.0.insert(name.clone());
                let status = u16::try_from(call["status"].as_u64().unwrap()).unwrap();
                let status = StatusCode::from_u16(status).unwrap();
                match call.get("answer") {
                    Some(answer) => (status, axum::Json(answer.clone())).into_response(),
                    None => status.into_response(),
                }
            }
            None => {
                asked.1.push(format!("{method} {uri} {body:?}"));
                StatusCode::NOT_IMPLEMENTED.into_response()
            }
        };
        async move { answer }
    });
    Appliance::answering(router).await
}

fn named(name: &str, size: i64) -> csi::CreateVolumeRequest {
    csi::CreateVolumeRequest {
        capacity_range: range(size, 0),
        ..wanted(name)
    }
}

#[tokio::test]
async fn an_appliance_of_v0_1_0_is_asked_what_it_knows_and_its_answers_are_understood() {
    let later = calls().into_iter().map(|(name, mut call)| {
        if let Some(answer) = call.get_mut("answer") {
            *answer = with_more(answer);
        }
        (name, call)
    });
    for calls in [calls(), later.collect()] {
        let asked = Asked::default();
        let names: BTreeSet<String> = calls.iter().map(|(name, _)| name.clone()).collect();
        let appliance = then(calls, &asked).await;
        let plugin = Plugin::new(&[("rack-1", appliance.entry())]);
        ask_for_all(&plugin).await;
        let (made, strange) = std::mem::take(&mut *asked.lock().unwrap());
        assert_eq!(strange, Vec::<String>::new());
        assert_eq!(made, names);
    }
}

async fn ask_for_all(plugin: &Plugin) {
    let it = &plugin.controller;
    let mut request = named("pvc-1", GIB);
    for (key, value) in [("pvc/name", "data"), ("pvc/namespace", "shop"), ("pv/name", "pvc-1")] {
        request
            .parameters
            .extend(pair(&format!("csi.storage.k8s.io/{key}"), value));
    }
    let made = it.create_volume(Request::new(request)).await.unwrap().into_inner();
    assert_eq!(made.volume.unwrap().volume_id, VOLUME);
    let mut request = named("pvc-2", GIB);
    request.parameters.extend(pair("snapshots", "daily=7"));
    let made = it.create_volume(Request::new(request)).await.unwrap().into_inner();
    assert_eq!(made.volume.unwrap().volume_id, OTHER_VOLUME);
    let mut request = named("pvc-3", 2 * GIB);
    let source = Type::Snapshot(SnapshotSource {
        snapshot_id: SNAPSHOT.to_owned(),
    });
    request.volume_content_source = Some(csi::VolumeContentSource { r#type: Some(source) });
    it.create_volume(Request::new(request)).await.unwrap();
    let taken = it.create_volume(Request::new(named("pvc-1", 4 * GIB))).await;
    assert_eq!(taken.unwrap_err().code(), Code::AlreadyExists);

    let volume_id = VOLUME.to_owned();
    let request = csi::ControllerGetVolumeRequest {
        volume_id: volume_id.clone(),
    };
    let shown = it.controller_get_volume(Request::new(request)).await.unwrap();
    assert_eq!(shown.into_inner().status.unwrap().published_node_ids, ["node-1"]);
    let listed = it.list_volumes(Request::new(csi::ListVolumesRequest::default())).await;
    assert_eq!(listed.unwrap().into_inner().entries.len(), 1);
    let request = csi::GetCapacityRequest {
        parameters: pair("pool", "tank"),
        ..csi::GetCapacityRequest::default()
    };
    let room = it.get_capacity(Request::new(request)).await.unwrap().into_inner();
    assert_eq!(room.available_capacity, 17 * GIB);
    let request = csi::ControllerPublishVolumeRequest {
        volume_id: volume_id.clone(),
        node_id: "node-1".to_owned(),
        volume_capability: Some(capability()),
        ..csi::ControllerPublishVolumeRequest::default()
    };
    it.controller_publish_volume(Request::new(request)).await.unwrap();
    let request = csi::ControllerExpandVolumeRequest {
        volume_id: volume_id.clone(),
        capacity_range: range(2 * GIB, 0),
        ..csi::ControllerExpandVolumeRequest::default()
    };
    let grown = it.controller_expand_volume(Request::new(request)).await.unwrap();
    assert_eq!(grown.into_inner().capacity_bytes, 2 * GIB);
    let mut request = csi::ControllerModifyVolumeRequest {
        volume_id: volume_id.clone(),
        mutable_parameters: pair("squash", "all"),
        ..csi::ControllerModifyVolumeRequest::default()
    };
    request.mutable_parameters.extend(pair("snapshots", "daily=7"));
    it.controller_modify_volume(Request::new(request)).await.unwrap();

    let request = csi::CreateSnapshotRequest {
        source_volume_id: volume_id.clone(),
        name: "snapshot-1".to_owned(),
        ..csi::CreateSnapshotRequest::default()
    };
    let made = it.create_snapshot(Request::new(request)).await.unwrap().into_inner();
    assert_eq!(made.snapshot.unwrap().snapshot_id, SNAPSHOT);
    let request = csi::ListSnapshotsRequest::default();
    let listed = it.list_snapshots(Request::new(request)).await;
    assert_eq!(listed.unwrap().into_inner().entries.len(), 1);
    let request = csi::CreateVolumeGroupSnapshotRequest {
        name: "group-1".to_owned(),
        source_volume_ids: vec![volume_id.clone(), OTHER_VOLUME.to_owned()],
        ..csi::CreateVolumeGroupSnapshotRequest::default()
    };
    let made = it.create_volume_group_snapshot(Request::new(request)).await.unwrap();
    assert_eq!(made.into_inner().group_snapshot.unwrap().snapshots.len(), 2);
    let request = csi::DeleteSnapshotRequest {
        snapshot_id: SNAPSHOT.to_owned(),
        ..csi::DeleteSnapshotRequest::default()
    };
    it.delete_snapshot(Request::new(request)).await.unwrap();
    let request = csi::ControllerUnpublishVolumeRequest {
        volume_id: volume_id.clone(),
        node_id: "node-1".to_owned(),
        ..csi::ControllerUnpublishVolumeRequest::default()
    };
    it.controller_unpublish_volume(Request::new(request)).await.unwrap();
    let request = csi::DeleteVolumeRequest {
        volume_id,
        ..csi::DeleteVolumeRequest::default()
    };
    it.delete_volume(Request::new(request)).await.unwrap();
}
