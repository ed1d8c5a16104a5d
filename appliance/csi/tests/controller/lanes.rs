//! How much an appliance is asked at once, and that what is quick does not wait behind what is slow.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::post;
use cistern_csi::controller::Controller;
use cistern_csi::csi;
use cistern_csi::csi::controller_server::Controller as _;
use cistern_model::Principal;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tonic::{Request, Status};

use crate::support::{Appliance, NOBODY, Plugin, capability, object, wanted};

/// How long what does not wait may take. All of it together is less than a request may take, which ends those that hang.
const SOON: Duration = Duration::from_secs(6);

async fn delete(plugin: Controller, volume: String) -> Result<(), Status> {
    let request = csi::DeleteVolumeRequest {
        volume_id: volume,
        ..csi::DeleteVolumeRequest::default()
    };
    plugin.delete_volume(Request::new(request)).await.map(drop)
}

async fn get(plugin: Controller, volume: String) -> Result<(), Status> {
    let request = csi::ControllerGetVolumeRequest { volume_id: volume };
    plugin.controller_get_volume(Request::new(request)).await.map(drop)
}

#[tokio::test]
async fn an_appliance_is_asked_no_more_at_once_than_its_gate_takes() {
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (counted, seen) = (now.clone(), most.clone());
    let router = Router::new().fallback(move || {
        let (now, most) = (counted.clone(), seen.clone());
        async move {
            most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(30)).await;
            now.fetch_sub(1, Ordering::SeqCst);
            (StatusCode::NO_CONTENT, "")
        }
    });
    let appliance = Appliance::answering(router).await;
    let plugin = Plugin::new(&[("rack-1", appliance.entry())]);
    let mut all = JoinSet::new();
    for n in 0..100 {
        all.spawn(delete(plugin.controller.clone(), format!("rack-1:vol-{n:032x}")));
    }
    for done in all.join_all().await {
        done.unwrap();
    }
    assert_eq!(most.swap(0, Ordering::SeqCst), 6);
    let mut all = JoinSet::new();
    for n in 0..100 {
        all.spawn(get(plugin.controller.clone(), format!("rack-1:vol-{n:032x}")));
        all.spawn(delete(plugin.controller.clone(), format!("rack-1:vol-{n:032x}")));
    }
    // What it answers is no volume.
    all.join_all().await;
    assert_eq!(most.load(Ordering::SeqCst), 24);
}

#[tokio::test]
async fn what_is_being_made_keeps_no_node_waiting() {
    let real = Appliance::start().await;
    let plugin = Plugin::new(&[("rack-1", real.entry())]);
    let made = plugin.controller.create_volume(Request::new(wanted("v"))).await;
    let id = made.unwrap().into_inner().volume.unwrap().volume_id;
    let engine = real.engine.as_ref().unwrap();
    let model = engine.volume(&Principal::local(), object(&id)).unwrap();

    let making = Arc::new(AtomicUsize::new(0));
    let count = making.clone();
    let never = move || {
        count.fetch_add(1, Ordering::SeqCst);
        std::future::pending::<StatusCode>()
    };
    let router = Router::new().route("/v1/volumes", post(never)).fallback(move || {
        let model = model.clone();
        async move { axum::Json(model) }
    });
    let slow = Appliance::answering(router).await;
    plugin.put("rack-1", &slow.entry());
    let mut all = JoinSet::new();
    for n in 0..100 {
        let it = plugin.controller.clone();
        all.spawn(async move { it.create_volume(Request::new(wanted(&format!("v{n}")))).await.map(drop) });
    }
    let under_way = async {
        while making.load(Ordering::SeqCst) < 10 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let under_way = timeout(SOON, under_way).await;
    assert!(under_way.is_ok(), "{making:?} are being made");

    let it = &plugin.controller;
    let publish = csi::ControllerPublishVolumeRequest {
        volume_id: id.clone(),
        node_id: "node-1".to_owned(),
        volume_capability: Some(capability()),
        ..csi::ControllerPublishVolumeRequest::default()
    };
    let published = timeout(SOON, it.controller_publish_volume(Request::new(publish))).await;
    assert!(matches!(published, Ok(Ok(_))), "{published:?}");
    let unpublish = csi::ControllerUnpublishVolumeRequest {
        volume_id: id.clone(),
        node_id: "node-1".to_owned(),
        ..csi::ControllerUnpublishVolumeRequest::default()
    };
    let unpublished = timeout(SOON, it.controller_unpublish_volume(Request::new(unpublish))).await;
    assert!(matches!(unpublished, Ok(Ok(_))), "{unpublished:?}");
    let deleted = timeout(SOON, delete(it.clone(), NOBODY.to_owned())).await;
    assert!(matches!(deleted, Ok(Ok(()))), "{deleted:?}");
    assert_eq!(making.load(Ordering::SeqCst), 10);
}
