//! Appliances that are not as the plugin expects: another token's things, another certificate, another version, away, or slow.

use axum::Router;
use axum::http::StatusCode;
use axum::response::IntoResponse as _;
use cistern_csi::csi;
use cistern_csi::csi::controller_server::Controller as _;
use cistern_model::{ErrorKind, Principal, Problem};
use tonic::{Code, Request, Status};

use crate::support::{Appliance, NOBODY, Plugin, capability, object, wanted};

fn delete(volume: &str) -> Request<csi::DeleteVolumeRequest> {
    Request::new(csi::DeleteVolumeRequest {
        volume_id: volume.to_owned(),
        ..csi::DeleteVolumeRequest::default()
    })
}

fn get(volume: &str) -> Request<csi::ControllerGetVolumeRequest> {
    Request::new(csi::ControllerGetVolumeRequest {
        volume_id: volume.to_owned(),
    })
}

fn told(answer: Result<impl Sized, Status>, code: Code, says: &[&str]) {
    let Err(status) = answer else { panic!("it was done") };
    assert_eq!(status.code(), code, "{status}");
    for word in says {
        assert!(status.message().contains(word), "{word}: {status}");
    }
}

#[tokio::test]
async fn another_token_s_volume_is_not_told_to_be_gone() {
    let appliance = Appliance::start().await;
    let plugin = Plugin::new(&[("rack-1", appliance.entry())]);
    let made = plugin
        .controller
        .create_volume(Request::new(wanted("v")))
        .await
        .unwrap();
    let id = made.into_inner().volume.unwrap().volume_id;
    plugin.put("rack-1", &appliance.entry_with(&appliance.other));
    let denied = [id.split_once(':').unwrap().1, "token"];
    told(
        plugin.controller.delete_volume(delete(&id)).await,
        Code::PermissionDenied,
        &denied,
    );
    told(
        plugin.controller.controller_get_volume(get(&id)).await,
        Code::PermissionDenied,
        &denied,
    );
    let engine = appliance.engine.as_ref().unwrap();
    assert!(engine.volume(&Principal::local(), object(&id)).is_ok());
    // By a class's own token it is: that counts in place of the plugin's.
    let mut request = delete(&id);
    request
        .get_mut()
        .secrets
        .insert("token".to_owned(), appliance.token.clone());
    plugin.controller.delete_volume(request).await.unwrap();
    assert!(engine.volume(&Principal::local(), object(&id)).is_err());
}

#[tokio::test]
async fn a_token_that_is_gone_or_may_not_and_a_certificate_that_changed_are_told_with_what_to_do() {
    let appliance = Appliance::start().await;
    let gone = format!("cistern_{}", "A".repeat(43));
    let plugin = Plugin::new(&[("rack-1", appliance.entry_with(&gone))]);
    let it = &plugin.controller;
    let ask = || it.create_volume(Request::new(wanted("v")));
    let before = appliance.all();
    told(
        ask().await,
        Code::Unauthenticated,
        &["rack-1", "token of role provisioner", "Secret"],
    );
    told(
        it.delete_volume(delete(NOBODY)).await,
        Code::Unauthenticated,
        &["rack-1"],
    );
    plugin.put("rack-1", &appliance.entry_with(&appliance.viewer));
    told(ask().await, Code::PermissionDenied, &["rack-1"]);
    let other = appliance.entry().replace(&appliance.fingerprint, &"0f".repeat(32));
    plugin.put("rack-1", &other);
    let says = ["another certificate", appliance.fingerprint.as_str(), "Secret"];
    told(ask().await, Code::Unauthenticated, &says);
    told(it.delete_volume(delete(NOBODY)).await, Code::Unauthenticated, &says);
    assert_eq!(appliance.all(), before);
    // What is put right counts at once.
    plugin.put("rack-1", &appliance.entry());
    ask().await.unwrap();
}

#[tokio::test]
async fn lists_are_whole_or_none_and_room_is_told_of_those_that_answer() {
    let (one, two) = (Appliance::start().await, Appliance::start().await);
    let plugin = Plugin::new(&[("rack-1", one.entry()), ("rack-2", two.entry())]);
    let it = &plugin.controller;
    it.create_volume(Request::new(wanted("v"))).await.unwrap();
    two.stop().await;
    let list = || it.list_volumes(Request::new(csi::ListVolumesRequest::default()));
    told(list().await, Code::Unavailable, &["rack-2"]);
    let room = |endpoint: Option<&str>| {
        let parameters = endpoint.map(|id| ("endpoint".to_owned(), id.to_owned()));
        it.get_capacity(Request::new(csi::GetCapacityRequest {
            parameters: parameters.into_iter().collect(),
            ..csi::GetCapacityRequest::default()
        }))
    };
    let told_of_one = room(Some("rack-1")).await.unwrap().into_inner();
    assert_eq!(room(None).await.unwrap().into_inner(), told_of_one);
    told(room(Some("rack-2")).await, Code::Unavailable, &["rack-2"]);
    // A volume that may have been made there before is not made elsewhere.
    let mut anywhere = wanted("w");
    anywhere.parameters.clear();
    told(
        it.create_volume(Request::new(anywhere)).await,
        Code::Unavailable,
        &["rack-2"],
    );
    one.stop().await;
    told(room(None).await, Code::Unavailable, &["cannot be reached"]);
    told(it.delete_volume(delete(NOBODY)).await, Code::Unavailable, &["rack-1"]);
}

#[tokio::test]
async fn a_volume_that_is_not_served_is_not_mounted() {
    let appliance = Appliance::start().await;
    let plugin = Plugin::new(&[("rack-1", appliance.entry())]);
    let made = plugin
        .controller
        .create_volume(Request::new(wanted("v")))
        .await
        .unwrap();
    let id = made.into_inner().volume.unwrap().volume_id;
    let engine = appliance.engine.clone().unwrap();
    let model = engine.volume(&Principal::local(), object(&id)).unwrap();
    let mut failed = serde_json::to_value(&model).unwrap();
    failed["state"] = "failed".into();
    failed["reason"] = "its filesystem is damaged".into();
    let router = Router::new().fallback(move || {
        let failed = failed.clone();
        async move { axum::Json(failed) }
    });
    let sick = Appliance::answering(router).await;
    plugin.put("rack-1", &sick.entry());
    let request = csi::ControllerPublishVolumeRequest {
        volume_id: id,
        node_id: "node-1".to_owned(),
        volume_capability: Some(capability()),
        ..csi::ControllerPublishVolumeRequest::default()
    };
    let answer = plugin.controller.controller_publish_volume(Request::new(request)).await;
    told(answer, Code::Unavailable, &["failed", "its filesystem is damaged"]);
}

#[tokio::test]
async fn an_appliance_of_another_version_is_understood_or_told_so() {
    let appliance = Appliance::start().await;
    let plugin = Plugin::new(&[("rack-1", appliance.entry())]);
    let made = plugin
        .controller
        .create_volume(Request::new(wanted("v")))
        .await
        .unwrap();
    let id = made.into_inner().volume.unwrap().volume_id;
    let model = appliance
        .engine
        .as_ref()
        .unwrap()
        .volume(&Principal::local(), object(&id))
        .unwrap();
    let model = serde_json::to_value(&model).unwrap();
    let other = |change: &dyn Fn(&mut serde_json::Value)| {
        let mut body = model.clone();
        change(&mut body);
        body
    };
    // A newer one says more, an older one says less.
    let newer = other(&|body| body["mood"] = "cheerful".into());
    let older = other(&|body| {
        for later in ["nodes", "labels", "schedule", "inodes", "options", "source"] {
            body.as_object_mut().unwrap().remove(later);
        }
    });
    let strange = other(&|body| body["state"] = "levitating".into());
    let unknown =
        serde_json::json!({"type": "urn:x", "title": "t", "status": 409, "kind": "asleep", "detail": "it sleeps"});
    for (status, body, code, says) in [
        (StatusCode::OK, newer, None, ""),
        (StatusCode::OK, older, None, ""),
        (StatusCode::OK, strange, Some(Code::Unavailable), "version"),
        (
            StatusCode::CONFLICT,
            unknown,
            Some(Code::FailedPrecondition),
            "it sleeps",
        ),
        (
            StatusCode::NOT_FOUND,
            serde_json::json!("<html>"),
            Some(Code::Unavailable),
            "version",
        ),
        (
            StatusCode::BAD_REQUEST,
            serde_json::to_value(Problem::unknown_field("the body: unknown field `colour`")).unwrap(),
            Some(Code::InvalidArgument),
            "older than this plugin",
        ),
        // What has no such path has said nothing of the volume.
        (
            StatusCode::NOT_FOUND,
            serde_json::to_value(Problem::new(ErrorKind::NoRoute, "there is nothing at /v1/volumes")).unwrap(),
            Some(Code::Unimplemented),
            "older than this plugin",
        ),
    ] {
        let router = Router::new().fallback(move || {
            let body = body.clone();
            async move { (status, axum::Json(body)).into_response() }
        });
        let that = Appliance::answering(router).await;
        plugin.put("rack-1", &that.entry());
        let answer = plugin.controller.controller_get_volume(get(&id)).await;
        match code {
            None => drop(answer.unwrap()),
            Some(code) => told(answer, code, &["rack-1", says]),
        }
    }
}
