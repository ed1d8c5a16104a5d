//! One call at a time for one thing, through the whole controller.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use cistern_csi::controller::Controller;
use cistern_csi::csi;
use cistern_csi::csi::controller_server::Controller as _;
use tokio::time::timeout;
use tonic::{Code, Request, Status};

use crate::bad_input::{pair, range};
use crate::support::{Appliance, GIB, NOBODY, Plugin, capability, wanted};

/// How long what does not wait may take.
const SOON: Duration = Duration::from_secs(6);

/// Calls for one volume, but where another is said; `there`: for the second node.
async fn call(it: Controller, which: &str) -> Result<(), Status> {
    let volume_id = NOBODY.to_owned();
    let (which, node_id) = match which.strip_suffix(" there") {
        Some(which) => (which, "node-2".to_owned()),
        None => (which, "node-1".to_owned()),
    };
    match which {
        "create" => it.create_volume(Request::new(wanted("v"))).await.map(drop),
        "create another" => it.create_volume(Request::new(wanted("w"))).await.map(drop),
        "delete" => {
            let request = csi::DeleteVolumeRequest {
                volume_id,
                ..csi::DeleteVolumeRequest::default()
            };
            it.delete_volume(Request::new(request)).await.map(drop)
        }
        "grow" => {
            let request = csi::ControllerExpandVolumeRequest {
                volume_id,
                capacity_range: range(2 * GIB, 0),
                ..csi::ControllerExpandVolumeRequest::default()
            };
            it.controller_expand_volume(Request::new(request)).await.map(drop)
        }
        "change" => {
            let request = csi::ControllerModifyVolumeRequest {
                volume_id,
                mutable_parameters: pair("squash", "all"),
                ..csi::ControllerModifyVolumeRequest::default()
            };
            it.controller_modify_volume(Request::new(request)).await.map(drop)
        }
        "publish" => {
            let request = csi::ControllerPublishVolumeRequest {
                volume_id,
                node_id,
                volume_capability: Some(capability()),
                ..csi::ControllerPublishVolumeRequest::default()
            };
            it.controller_publish_volume(Request::new(request)).await.map(drop)
        }
        "unpublish" => {
            let request = csi::ControllerUnpublishVolumeRequest {
                volume_id,
                node_id,
                ..csi::ControllerUnpublishVolumeRequest::default()
            };
            it.controller_unpublish_volume(Request::new(request)).await.map(drop)
        }
        _ => panic!("there is no call {which}"),
    }
}

/// An appliance that never answers, and how often it was asked.
async fn silent() -> (Appliance, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let never = move || {
        count.fetch_add(1, Ordering::SeqCst);
        std::future::pending::<StatusCode>()
    };
    (Appliance::answering(Router::new().fallback(never)).await, asked)
}

#[tokio::test]
async fn a_second_call_for_a_volume_that_is_worked_on_is_told_to_come_again() {
    let (appliance, asked) = silent().await;
    for (first, second) in [
        ("create", "create"),
        ("delete", "delete"),
        ("grow", "delete"),
        ("change", "grow"),
        ("publish", "publish"),
        ("publish", "unpublish"),
    ] {
        // One of its own for each, as what was begun goes on.
        let plugin = Plugin::new(&[("rack-1", appliance.entry())]);
        asked.store(0, Ordering::SeqCst);
        let begun = tokio::spawn(call(plugin.controller.clone(), first));
        let under_way = async {
            while asked.load(Ordering::SeqCst) == 0 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        assert!(timeout(SOON, under_way).await.is_ok(), "{first} was not begun");
        let told = timeout(SOON, call(plugin.controller.clone(), second)).await;
        let told = told.unwrap().unwrap_err();
        assert_eq!(told.code(), Code::Aborted, "{second} during {first}: {told}");
        assert_eq!(asked.load(Ordering::SeqCst), 1, "{second} during {first} was sent");
        // Another volume does not wait for it.
        let other = tokio::spawn(call(plugin.controller.clone(), "create another"));
        let begins = async {
            while asked.load(Ordering::SeqCst) == 1 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        assert!(timeout(SOON, begins).await.is_ok(), "{first} keeps others waiting");
        begun.abort();
        other.abort();
    }
}

#[tokio::test]
async fn cutting_a_node_off_waits_for_no_other_work_and_letting_one_in_for_no_other_node() {
    let (appliance, asked) = silent().await;
    for (first, second) in [
        ("publish", "unpublish there"),
        ("publish", "publish there"),
        ("unpublish", "publish there"),
        ("delete", "unpublish"),
        ("grow", "unpublish"),
        ("grow", "publish"),
        ("publish", "delete"),
        ("delete", "publish"),
    ] {
        let plugin = Plugin::new(&[("rack-1", appliance.entry())]);
        asked.store(0, Ordering::SeqCst);
        let calls = [first, second].map(|which| tokio::spawn(call(plugin.controller.clone(), which)));
        let under_way = async {
            while asked.load(Ordering::SeqCst) < 2 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        assert!(timeout(SOON, under_way).await.is_ok(), "{second} waits for {first}");
        for call in calls {
            call.abort();
        }
    }
}

/// Both are sent, and it is the appliance that does one after the other.
#[tokio::test]
async fn of_a_volume_that_is_published_and_deleted_at_once_one_is_done_and_the_other_refused() {
    let appliance = Appliance::start().await;
    let plugin = Plugin::new(&[("rack-1", appliance.entry())]);
    let it = &plugin.controller;
    for n in 0..8 {
        let made = it.create_volume(Request::new(wanted(&format!("v{n}")))).await;
        let volume_id = made.unwrap().into_inner().volume.unwrap().volume_id;
        let publish = csi::ControllerPublishVolumeRequest {
            volume_id: volume_id.clone(),
            node_id: "node-1".to_owned(),
            volume_capability: Some(capability()),
            ..csi::ControllerPublishVolumeRequest::default()
        };
        let delete = csi::DeleteVolumeRequest {
            volume_id,
            ..csi::DeleteVolumeRequest::default()
        };
        let (published, deleted) = tokio::join!(
            it.controller_publish_volume(Request::new(publish)),
            it.delete_volume(Request::new(delete))
        );
        match (published, deleted) {
            (Ok(_), Err(told)) => {
                assert_eq!(told.code(), Code::FailedPrecondition, "{told}");
                assert!(told.message().contains("node-1"), "{told}");
            }
            (Err(told), Ok(_)) => assert_eq!(told.code(), Code::NotFound, "{told}"),
            other => panic!("{other:?}"),
        }
    }
}
