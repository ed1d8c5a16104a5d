//! How many requests of an appliance it takes, and what stands in them.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::http::{Method, StatusCode};
use axum::response::IntoResponse as _;
use cistern_csi::csi::controller_server::Controller as _;
use cistern_model::Principal;
use tonic::Request;

use crate::bad_input::pair;
use crate::support::{Appliance, Plugin, object, wanted};

/// What it asks for costs the appliance time, and so does each claim of a hundred that come at once.
#[tokio::test]
async fn a_volume_in_a_pool_that_is_named_takes_one_request() {
    let real = Appliance::start().await;
    let plugin = Plugin::new(&[("rack-1", real.entry())]);
    let made = plugin.controller.create_volume(Request::new(wanted("v"))).await;
    let id = made.unwrap().into_inner().volume.unwrap().volume_id;
    let engine = real.engine.as_ref().unwrap();
    let model = engine.volume(&Principal::local(), object(&id)).unwrap();

    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let router = Router::new().fallback(move || {
        count.fetch_add(1, Ordering::SeqCst);
        let model = model.clone();
        async move { (StatusCode::CREATED, axum::Json(model)).into_response() }
    });
    let counting = Appliance::answering(router).await;
    plugin.put("rack-1", &counting.entry());
    let made = plugin.controller.create_volume(Request::new(wanted("v"))).await;
    assert_eq!(made.unwrap().into_inner().volume.unwrap().volume_id, id);
    assert_eq!(asked.load(Ordering::SeqCst), 1);
}

/// What is asked for afterwards may be refused for good, and then the volume stays when its claim goes.
#[tokio::test]
async fn a_class_s_snapshots_are_asked_for_with_the_volume_and_not_after_it() {
    let real = Appliance::start().await;
    let plugin = Plugin::new(&[("rack-1", real.entry())]);
    let it = &plugin.controller;
    let with = |schedule: &str| {
        let mut request = wanted("v");
        request.parameters.extend(pair("snapshots", schedule));
        request
    };
    let made = it.create_volume(Request::new(with("daily=7"))).await;
    let id = made.unwrap().into_inner().volume.unwrap().volume_id;
    let engine = real.engine.as_ref().unwrap();
    let model = engine.volume(&Principal::local(), object(&id)).unwrap();
    assert_eq!(model.schedule.to_string(), "daily=7");
    // The same claim's, asked for again, of a class that says something else now.
    it.create_volume(Request::new(with("weekly=1"))).await.unwrap();
    let changed = engine.volume(&Principal::local(), object(&id)).unwrap();
    assert_eq!(changed.schedule.to_string(), "weekly=1");

    let asked = Arc::new(Mutex::new(Vec::new()));
    let note = asked.clone();
    let router = Router::new().fallback(move |method: Method, body: String| {
        note.lock().unwrap().push((method, body));
        let model = model.clone();
        async move { (StatusCode::CREATED, axum::Json(model)).into_response() }
    });
    let noting = Appliance::answering(router).await;
    plugin.put("rack-1", &noting.entry());
    it.create_volume(Request::new(with("daily=7"))).await.unwrap();
    let asked = std::mem::take(&mut *asked.lock().unwrap());
    let [(method, body)] = asked.as_slice() else {
        panic!("{asked:?}")
    };
    assert_eq!(*method, Method::POST);
    let body: serde_json::Value = serde_json::from_str(body).unwrap();
    assert_eq!(body["schedule"]["daily"], 7, "{body}");
}
