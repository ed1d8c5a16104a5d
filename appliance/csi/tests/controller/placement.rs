//! Where a volume is made: what a class leaves open, and what an appliance cannot say now.

use axum::Router;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use cistern_csi::csi;
use cistern_csi::csi::controller_server::Controller as _;
use cistern_model::{ErrorKind, Pool, Principal, Problem};
use tonic::{Code, Request};

use crate::bad_input::pair;
use crate::support::{Appliance, Plugin, wanted};

fn problem(kind: ErrorKind) -> Response {
    let status = StatusCode::from_u16(kind.http_status()).unwrap();
    (status, axum::Json(Problem::new(kind, "so it was answered"))).into_response()
}

/// An appliance that shows these pools and makes nothing; asked for its volumes it has none, or answers with an error.
fn showing(pools: Vec<Pool>, listed: Option<ErrorKind>) -> Router {
    let shown = move || {
        let pools = pools.clone();
        async move { axum::Json(pools) }
    };
    let volumes = move || async move {
        match listed {
            Some(kind) => problem(kind),
            None => axum::Json(serde_json::json!({"items": []})).into_response(),
        }
    };
    let missing = || async { problem(ErrorKind::NotFound) };
    Router::new()
        .route("/v1/pools", get(shown))
        .route("/v1/volumes", get(volumes).post(missing))
        .fallback(missing)
}

/// A request for a volume on any appliance, in this pool if one is named.
fn anywhere(name: &str, pool: Option<&str>) -> csi::CreateVolumeRequest {
    let mut request = wanted(name);
    request.parameters = pool.map(|pool| pair("pool", pool)).unwrap_or_default();
    request
}

/// The pool of this appliance, and one like it of another name.
fn two_pools(appliance: &Appliance) -> [Pool; 2] {
    let engine = appliance.engine.as_ref().unwrap();
    let tank = engine.pools(&Principal::local()).unwrap().remove(0);
    let mut lake = tank.clone();
    lake.name = "lake".parse().unwrap();
    [tank, lake]
}

#[tokio::test]
async fn an_appliance_that_shows_no_pool_is_asked_again_and_keeps_no_other_from_being_used() {
    let bare = Appliance::answering(showing(Vec::new(), None)).await;
    let plugin = Plugin::new(&[("rack-1", bare.entry())]);
    let it = &plugin.controller;
    for pool in [None, Some("tank")] {
        let told = it
            .create_volume(Request::new(anywhere("v", pool)))
            .await
            .map(drop)
            .unwrap_err();
        assert_eq!(told.code(), Code::Unavailable, "{pool:?}: {told}");
        for word in ["rack-1", "cistern pools create", "away or locked", "token"] {
            assert!(told.message().contains(word), "{pool:?}: {told}");
        }
    }
    let real = Appliance::start().await;
    plugin.put("rack-2", &real.entry());
    for (name, pool) in [("v", None), ("w", Some("tank"))] {
        let made = it.create_volume(Request::new(anywhere(name, pool))).await.unwrap();
        let id = made.into_inner().volume.unwrap().volume_id;
        assert!(id.starts_with("rack-2:"), "{pool:?}: {id}");
    }
    // Where no other has one either, it is what may end by itself that is told.
    let [tank, lake] = two_pools(&real);
    let both = Appliance::answering(showing(vec![tank, lake], None)).await;
    plugin.put("rack-2", &both.entry());
    let told = it.create_volume(Request::new(anywhere("x", None))).await.map(drop);
    assert_eq!(told.unwrap_err().code(), Code::Unavailable);
}

#[tokio::test]
async fn a_volume_is_made_elsewhere_only_where_it_is_known_not_to_have_been_made_before() {
    let real = Appliance::start().await;
    let [_, lake] = two_pools(&real);
    for (what, pool, listed, expected) in [
        ("a pool is away", None, ErrorKind::Unavailable, Some(Code::Unavailable)),
        (
            "that pool is away",
            Some("tank"),
            ErrorKind::Unavailable,
            Some(Code::Unavailable),
        ),
        // Only of a pool that was named it says that there is none.
        ("nothing is there", None, ErrorKind::NotFound, Some(Code::NotFound)),
        ("there is no such pool", Some("tank"), ErrorKind::NotFound, None),
    ] {
        let before = real.all();
        let first = Appliance::answering(showing(vec![lake.clone()], Some(listed))).await;
        let plugin = Plugin::new(&[("rack-1", first.entry()), ("rack-2", real.entry())]);
        let made = plugin.controller.create_volume(Request::new(anywhere("v", pool))).await;
        match expected {
            Some(code) => {
                let told = made.map(drop).unwrap_err();
                assert_eq!(told.code(), code, "{what}: {told}");
                assert_eq!(real.all(), before, "{what}");
            }
            None => {
                let id = made.unwrap().into_inner().volume.unwrap().volume_id;
                assert!(id.starts_with("rack-2:"), "{what}: {id}");
            }
        }
    }
}

#[tokio::test]
async fn a_class_without_a_pool_has_room_only_where_a_volume_can_be_made_of_it() {
    let real = Appliance::start().await;
    let [tank, lake] = two_pools(&real);
    let each = i64::try_from(tank.available.get()).unwrap();
    assert!(each > 0);
    for (pools, of_any, of_tank) in [
        (Vec::new(), 0, 0),
        (vec![tank.clone()], each, each),
        (vec![tank, lake], 0, each),
    ] {
        let many = pools.len();
        let appliance = Appliance::answering(showing(pools, None)).await;
        let plugin = Plugin::new(&[("rack-1", appliance.entry())]);
        for (pool, expected) in [(None, of_any), (Some("tank"), of_tank), (Some("sea"), 0)] {
            let request = csi::GetCapacityRequest {
                parameters: pool.map(|pool| pair("pool", pool)).unwrap_or_default(),
                ..csi::GetCapacityRequest::default()
            };
            let told = plugin.controller.get_capacity(Request::new(request)).await.unwrap();
            let told = told.into_inner();
            assert_eq!(told.available_capacity, expected, "{many} pools, {pool:?}");
            assert_eq!(told.maximum_volume_size, Some(expected), "{many} pools, {pool:?}");
        }
        if many == 2 {
            let request = Request::new(anywhere("v", None));
            let told = plugin.controller.create_volume(request).await.map(drop).unwrap_err();
            assert_eq!(told.code(), Code::InvalidArgument, "{told}");
            assert!(told.message().contains("tank, lake"), "{told}");
        }
    }
}
