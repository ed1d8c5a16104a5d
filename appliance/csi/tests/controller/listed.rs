//! What is told of volumes: how they are, and which nodes have them.

use axum::Router;
use axum::routing::get;
use cistern_csi::controller::Controller;
use cistern_csi::csi;
use cistern_csi::csi::controller_server::Controller as _;
use cistern_csi::csi::volume_capability::AccessMode;
use cistern_csi::csi::volume_capability::access_mode::Mode;
use cistern_model::{NodeAccess, Principal};
use tonic::Request;

use crate::support::{Appliance, Plugin, capability, object, wanted};

/// The nodes of the only volume, in their order, and how it is: as it is listed, and as it is shown.
async fn told(it: &Controller, volume: &str) -> [(Vec<String>, csi::VolumeCondition); 2] {
    let listed = it.list_volumes(Request::new(csi::ListVolumesRequest::default())).await;
    let [entry] = <[_; 1]>::try_from(listed.unwrap().into_inner().entries).unwrap();
    let listed = entry.status.unwrap();
    let request = csi::ControllerGetVolumeRequest {
        volume_id: volume.to_owned(),
    };
    let shown = it.controller_get_volume(Request::new(request)).await.unwrap();
    let shown = shown.into_inner().status.unwrap();
    [
        (listed.published_node_ids, listed.volume_condition),
        (shown.published_node_ids, shown.volume_condition),
    ]
    .map(|(mut nodes, condition)| {
        nodes.sort();
        (nodes, condition.unwrap())
    })
}

#[tokio::test]
async fn the_nodes_that_have_a_volume_are_told_and_one_that_moved_is_not_listed() {
    let appliance = Appliance::start().await;
    let plugin = Plugin::new(&[("rack-1", appliance.entry())]);
    let it = &plugin.controller;
    let made = it.create_volume(Request::new(wanted("v"))).await.unwrap().into_inner();
    let id = made.volume.unwrap().volume_id;
    let well = csi::VolumeCondition {
        abnormal: false,
        message: "it is served".to_owned(),
    };
    let none = || (Vec::<String>::new(), well.clone());
    let some = |nodes: &[&str]| {
        let nodes: Vec<String> = nodes.iter().map(|node| (*node).to_owned()).collect();
        (nodes, well.clone())
    };
    assert_eq!(told(it, &id).await, [none(), none()]);
    for node in ["node-1", "node-2"] {
        let request = csi::ControllerPublishVolumeRequest {
            volume_id: id.clone(),
            node_id: node.to_owned(),
            volume_capability: Some(csi::VolumeCapability {
                access_mode: Some(AccessMode {
                    mode: Mode::MultiNodeMultiWriter.into(),
                }),
                ..capability()
            }),
            ..csi::ControllerPublishVolumeRequest::default()
        };
        it.controller_publish_volume(Request::new(request)).await.unwrap();
    }
    let both = some(&["node-1", "node-2"]);
    assert_eq!(told(it, &id).await, [both.clone(), both.clone()]);
    // It was published to the second one from where that mounts no more: csi-attacher publishes anew what is not in the list.
    let engine = appliance.engine.clone().unwrap();
    let (by, volume) = (Principal::local(), object(&id));
    let elsewhere = NodeAccess {
        addresses: vec!["127.0.0.9".parse().unwrap()],
        read_only: false,
        alone: false,
    };
    let moved = move || engine.publish_to_node(&by, volume, &"node-2".parse().unwrap(), &elsewhere);
    tokio::task::spawn_blocking(moved).await.unwrap().unwrap();
    assert_eq!(told(it, &id).await, [some(&["node-1"]), both]);
}

#[tokio::test]
async fn a_volume_that_is_not_served_is_abnormal_in_its_appliance_s_words() {
    let real = Appliance::start().await;
    let plugin = Plugin::new(&[("rack-1", real.entry())]);
    let made = plugin.controller.create_volume(Request::new(wanted("v"))).await;
    let id = made.unwrap().into_inner().volume.unwrap().volume_id;
    let engine = real.engine.as_ref().unwrap();
    let model = engine.volume(&Principal::local(), object(&id)).unwrap();
    for (state, reason, says) in [
        ("failed", Some("its filesystem is damaged"), "its filesystem is damaged"),
        ("rolling-back", None, "rolling-back"),
    ] {
        let mut volume = serde_json::to_value(&model).unwrap();
        volume["state"] = state.into();
        volume["reason"] = reason.into();
        let page = serde_json::json!({"items": [volume.clone()]});
        let list = move || {
            let page = page.clone();
            async move { axum::Json(page) }
        };
        let router = Router::new().route("/v1/volumes", get(list)).fallback(move || {
            let volume = volume.clone();
            async move { axum::Json(volume) }
        });
        let sick = Appliance::answering(router).await;
        plugin.put("rack-1", &sick.entry());
        let unwell = csi::VolumeCondition {
            abnormal: true,
            message: says.to_owned(),
        };
        let unwell = (Vec::<String>::new(), unwell);
        assert_eq!(told(&plugin.controller, &id).await, [unwell.clone(), unwell], "{state}");
    }
}
